//! In which form rows of a COPY FROM travel to the workers.

use super::columns::{Computed, Field};
use crate::catalog;
use crate::pg::copyfrom::CopyFromState;
use crate::pg::types::{base_type, binary_is_portable, is_builtin};
use pgrx::pg_sys::{self, Oid};
use std::ffi::{c_char, CStr};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// The user's lines as they are (in the server's encoding), parsed by the worker with the user's
    /// options; computed columns are appended.
    Line { text: bool },
    /// The fields of the lines, in the text format: where computed columns cannot simply be appended.
    Fields,
    /// The bytes of binary fields as they are.
    Binary,
    /// Values that were parsed here, in the text format: binary input of types whose binary form
    /// carries object ids or the client's encoding, and text that a node's version reads otherwise.
    Values,
}

impl Form {
    pub unsafe fn choose(
        state: &CopyFromState,
        fields: &[Field],
        computed: &[Computed],
        keep_binary: bool,
    ) -> Form {
        // SAFETY: options are NUL-terminated strings once BeginCopyFrom has returned.
        unsafe {
            let opts = &state.opts;
            if opts.binary {
                let same_encoding =
                    pg_sys::pg_get_client_encoding() == pg_sys::GetDatabaseEncoding();
                let portable = fields.iter().map(|f| f.type_id);
                let portable = portable
                    .chain(computed.iter().map(|c| c.type_id))
                    .all(binary_is_portable);
                return if keep_binary && same_encoding && portable {
                    Form::Binary
                } else {
                    Form::Values
                };
            }
            if !fields.iter().all(|field| read_alike(field.type_id)) {
                return Form::Values;
            }
            let text = !opts.csv_mode;
            let plain = text && is(opts.delim, "\t") && is(opts.null_print, "\\N");
            if fields.is_empty() || (!computed.is_empty() && !plain) {
                Form::Fields
            } else {
                Form::Line { text }
            }
        }
    }

    /// The options of the worker's COPY.
    pub unsafe fn options(self, state: &CopyFromState, fields: &[Field]) -> String {
        let opts = &state.opts;
        match self {
            Form::Fields | Form::Values => String::new(),
            Form::Binary => " WITH (FORMAT binary)".to_string(),
            // SAFETY: see `choose`.
            Form::Line { text: true } => unsafe {
                if is(opts.delim, "\t") && is(opts.null_print, "\\N") {
                    return String::new();
                }
                format!(
                    " WITH (DELIMITER {}, NULL {})",
                    literal(opts.delim),
                    literal(opts.null_print)
                )
            },
            // SAFETY: see `choose`.
            Form::Line { text: false } => unsafe {
                let mut options = format!(
                    " WITH (FORMAT csv, DELIMITER {}, NULL {}, QUOTE {}, ESCAPE {}",
                    literal(opts.delim),
                    literal(opts.null_print),
                    literal(opts.quote),
                    literal(opts.escape)
                );
                let mut columns = |option: &str, wanted: &dyn Fn(&Field) -> bool| {
                    let wanted = fields.iter().filter(|f| wanted(f)).map(|f| f.name.as_str());
                    let names: Vec<&str> = wanted.collect();
                    if !names.is_empty() {
                        options.push_str(&format!(", {option} ({})", names.join(", ")));
                    }
                };
                columns("FORCE_NULL", &|f| f.force_null);
                columns("FORCE_NOT_NULL", &|f| f.force_not_null);
                options.push(')');
                options
            },
        }
    }
}

/// Have the nodes the type's input function as it is here?
fn read_alike(type_id: Oid) -> bool {
    let base = base_type(type_id);
    // SAFETY: syscache look-ups.
    unsafe {
        let element = pg_sys::get_element_type(base);
        if element != Oid::INVALID {
            return read_alike(element);
        }
        let (mut input, mut parameter) = (Oid::INVALID, Oid::INVALID);
        pg_sys::getTypeInputInfo(base, &mut input, &mut parameter);
        !is_builtin(input) || catalog::builtin_function_on_nodes(input).unwrap_or(false)
    }
}

unsafe fn is(option: *const c_char, value: &str) -> bool {
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(option) }.to_bytes() == value.as_bytes()
}

/// `quote_literal`.
unsafe fn literal(option: *const c_char) -> String {
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(pg_sys::quote_literal_cstr(option)) }
        .to_string_lossy()
        .into_owned()
}
