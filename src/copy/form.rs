//! In which form rows of a COPY FROM travel to the workers.

use super::columns::{Computed, Field};
use crate::pg::copyfrom::CopyFromState;
use pgrx::pg_sys;
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
    /// carries object ids or the client's encoding.
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
                    .all(|t| is_portable(t));
                return if keep_binary && same_encoding && portable {
                    Form::Binary
                } else {
                    Form::Values
                };
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

/// Whether the binary form of the type's values means the same on every node.
fn is_portable(type_id: pg_sys::Oid) -> bool {
    const NAMED_OBJECTS: [u32; 11] = [
        24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191,
    ];
    // SAFETY: catalog look-ups of an existing type.
    let (base, kind, element) = unsafe {
        let base = pg_sys::getBaseType(type_id);
        (
            base,
            pg_sys::get_typtype(base) as u8,
            pg_sys::get_element_type(base),
        )
    };
    if element != pg_sys::InvalidOid {
        return is_built_in(element) && is_portable(element);
    }
    match kind {
        b'b' => !NAMED_OBJECTS.contains(&base.to_u32()),
        b'e' => true,
        b'r' | b'm' => is_built_in(base),
        _ => false,
    }
}

fn is_built_in(type_id: pg_sys::Oid) -> bool {
    type_id.to_u32() < pg_sys::FirstGenbkiObjectId
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
