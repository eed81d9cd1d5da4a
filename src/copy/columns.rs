//! The columns of a COPY FROM: those of the input, those computed here, and the distribution key.

use super::encode;
use super::user_code::may_run_statements;
use crate::deparse::quote_identifier;
use crate::pg::copyfrom::CopyFromState;
use crate::pg::list;
use pgrx::pg_sys;
use pgrx::pg_sys::Datum;
use std::ffi::{c_char, c_int, CStr};

/// A column of the input.
pub struct Field {
    /// Its place in the relation, from zero.
    pub column: usize,
    /// Quoted.
    pub name: String,
    /// Unquoted, in the relation's descriptor.
    pub attribute_name: *const c_char,
    pub type_id: pg_sys::Oid,
    pub modifier: i32,
    pub force_null: bool,
    pub force_not_null: bool,
    output: Output,
}

impl Field {
    /// The input's columns in the order of its fields.
    pub unsafe fn of(state: *mut CopyFromState, relation: pg_sys::Relation) -> Vec<Field> {
        // SAFETY: the state and the relation are open; flags exist for every column of the relation.
        unsafe {
            let opts = &(*state).opts;
            list::ints((*state).attnumlist)
                .into_iter()
                .map(|number| {
                    let column = number as usize - 1;
                    let attribute = attribute(relation, column);
                    Field {
                        column,
                        name: quoted(attribute.attname.data.as_ptr()),
                        attribute_name: attribute.attname.data.as_ptr(),
                        type_id: attribute.atttypid,
                        modifier: attribute.atttypmod,
                        force_null: *opts.force_null_flags.add(column),
                        force_not_null: *opts.force_notnull_flags.add(column),
                        output: Output::text(attribute.atttypid),
                    }
                })
                .collect()
        }
    }

    /// Makes the parser of the binary format keep each field's bytes as they are (a `bytea`) instead
    /// of having the type read them.
    pub unsafe fn keep_binary(state: *mut CopyFromState, fields: &[Field]) {
        // SAFETY: the array has an entry for each column of the relation.
        unsafe {
            for field in fields {
                let function = (*state).in_functions.add(field.column);
                pg_sys::fmgr_info(pg_sys::Oid::from(pg_sys::F_BYTEARECV), function);
            }
        }
    }

    /// The value of this field, the `index`th of the current line, as `NextCopyFrom` sees it.
    pub unsafe fn value<'a>(&self, state: &'a CopyFromState, index: usize) -> Option<&'a CStr> {
        // SAFETY: the number of fields was checked; the parser keeps them until it reads on.
        unsafe {
            let raw = *state.raw_fields.add(index);
            if raw.is_null() {
                return self
                    .force_not_null
                    .then(|| CStr::from_ptr(state.opts.null_print));
            }
            let value = CStr::from_ptr(raw);
            let null = self.force_null && value == CStr::from_ptr(state.opts.null_print);
            (!null).then_some(value)
        }
    }

    /// Appends a value of this column in the text format.
    pub fn output_text(&mut self, value: Option<Datum>, out: &mut Vec<u8>) {
        match value {
            Some(value) => self.output.append_text(value, out),
            None => encode::text_field(None, out),
        }
    }
}

/// A column that the input leaves out and that has a default.
pub struct Computed {
    pub column: usize,
    /// Quoted.
    pub name: String,
    /// Unquoted, in the relation's descriptor.
    pub attribute_name: *const c_char,
    pub type_id: pg_sys::Oid,
    expression: *mut pg_sys::ExprState,
    output: Output,
    /// A default without volatile functions: evaluated once, encoded once.
    constant: bool,
    encoded: Option<Vec<u8>>,
    value: Option<Datum>,
}

impl Computed {
    /// The defaults that `BeginCopyFrom` prepared.
    pub unsafe fn of(state: *mut CopyFromState, relation: pg_sys::Relation) -> Vec<Computed> {
        // SAFETY: the first `num_defaults` entries of both arrays are filled.
        unsafe {
            (0..(*state).num_defaults as usize)
                .map(|i| {
                    let column = *(*state).defmap.add(i) as usize;
                    let expression = *(*state).defexprs.add(i);
                    let attribute = attribute(relation, column);
                    Computed {
                        column,
                        name: quoted(attribute.attname.data.as_ptr()),
                        attribute_name: attribute.attname.data.as_ptr(),
                        type_id: attribute.atttypid,
                        expression,
                        output: Output::text(attribute.atttypid),
                        constant: !pg_sys::contain_volatile_functions((*expression).expr.cast()),
                        encoded: None,
                        value: None,
                    }
                })
                .collect()
        }
    }

    /// Values go out in the binary format.
    pub fn send_binary(&mut self) {
        self.output = Output::binary(self.type_id);
    }

    pub fn value(&self) -> Option<Datum> {
        self.value
    }

    /// Whether computing a row's value may run statements.
    pub fn may_run_statements(&self) -> bool {
        // SAFETY: the expression keeps the tree it was made from.
        !self.constant && unsafe { may_run_statements((*self.expression).expr.cast()) }
    }

    /// Takes the value for this row that the parser computed.
    pub fn take(&mut self, value: Option<Datum>) {
        self.value = value;
    }

    /// Computes the value for this row, in the current memory context.
    pub unsafe fn evaluate(&mut self, context: *mut pg_sys::ExprContext) {
        if self.encoded.is_some() && self.constant {
            return;
        }
        // SAFETY: the expression was initialised by BeginCopyFrom and lives as long as the input.
        let (value, is_null) = unsafe { evaluate(self.expression, context) };
        self.value = (!is_null).then_some(value);
    }

    /// Appends the value in the format of the rows.
    pub fn append(&mut self, out: &mut Vec<u8>) {
        if let Some(encoded) = &self.encoded {
            out.extend_from_slice(encoded);
            return;
        }
        let start = out.len();
        match (self.value, self.output.binary) {
            (None, true) => encode::binary_field(None, out),
            (None, false) => encode::text_field(None, out),
            (Some(value), true) => self.output.append_binary(value, out),
            (Some(value), false) => {
                let _style = PortableOutput::begin();
                self.output.append_text(value, out);
            }
        }
        if self.constant {
            self.encoded = Some(out[start..].to_vec());
        }
    }
}

/// Where the distribution key of a row comes from.
pub enum Key {
    None,
    Field {
        index: usize,
        column: usize,
        input: Option<Converter>,
    },
    Computed {
        index: usize,
        column: usize,
        input: Option<Converter>,
    },
}

impl Key {
    pub unsafe fn find(
        relation: pg_sys::Relation,
        attnum: Option<i16>,
        fields: &[Field],
        computed: &[Computed],
        binary: bool,
    ) -> Key {
        let Some(attnum) = attnum else {
            return Key::None;
        };
        let column = attnum as usize - 1;
        // SAFETY: the key is a column of the open relation.
        let converter = || unsafe { Some(Converter::new(attribute(relation, column), binary)) };
        if let Some(index) = fields.iter().position(|f| f.column == column) {
            return Key::Field {
                index,
                column,
                input: converter(),
            };
        }
        match computed.iter().position(|c| c.column == column) {
            // computed by an expression: nothing to convert
            Some(index) => Key::Computed {
                index,
                column,
                input: None,
            },
            None => Key::None,
        }
    }
}

/// The input or receive function of a column's type.
pub struct Converter {
    function: pg_sys::FmgrInfo,
    parameter: pg_sys::Oid,
    modifier: i32,
}

impl Converter {
    unsafe fn new(attribute: &pg_sys::FormData_pg_attribute, binary: bool) -> Converter {
        // SAFETY: out parameters are ours.
        unsafe {
            let mut id = pg_sys::InvalidOid;
            let mut converter = Converter {
                function: pg_sys::FmgrInfo::default(),
                parameter: pg_sys::InvalidOid,
                modifier: attribute.atttypmod,
            };
            let find = if binary {
                pg_sys::getTypeBinaryInputInfo
            } else {
                pg_sys::getTypeInputInfo
            };
            find(attribute.atttypid, &mut id, &mut converter.parameter);
            pg_sys::fmgr_info(id, &mut converter.function);
            converter
        }
    }

    /// Parses a NUL-terminated text; null for NULL, which a domain may refuse.
    pub unsafe fn parse(&mut self, text: *mut c_char) -> Datum {
        // SAFETY: as the caller promises.
        unsafe {
            pg_sys::InputFunctionCall(&mut self.function, text, self.parameter, self.modifier)
        }
    }

    /// Reads the binary form of a value.
    pub fn receive(&mut self, bytes: &[u8]) -> Datum {
        // SAFETY: receive functions only read the buffer, up to its length.
        unsafe {
            let mut buffer = pg_sys::StringInfoData {
                data: bytes.as_ptr().cast_mut().cast(),
                len: bytes.len() as c_int,
                maxlen: bytes.len() as c_int,
                cursor: 0,
            };
            pg_sys::ReceiveFunctionCall(
                &mut self.function,
                &mut buffer,
                self.parameter,
                self.modifier,
            )
        }
    }
}

/// The output or send function of a type.
struct Output {
    function: pg_sys::FmgrInfo,
    binary: bool,
}

impl Output {
    fn text(type_id: pg_sys::Oid) -> Output {
        Output::new(type_id, false)
    }

    fn binary(type_id: pg_sys::Oid) -> Output {
        Output::new(type_id, true)
    }

    fn new(type_id: pg_sys::Oid, binary: bool) -> Output {
        // SAFETY: out parameters are ours; the function's memory is the statement's.
        unsafe {
            let mut id = pg_sys::InvalidOid;
            let mut is_varlena = false;
            let find = if binary {
                pg_sys::getTypeBinaryOutputInfo
            } else {
                pg_sys::getTypeOutputInfo
            };
            find(type_id, &mut id, &mut is_varlena);
            let mut output = Output {
                function: pg_sys::FmgrInfo::default(),
                binary,
            };
            pg_sys::fmgr_info(id, &mut output.function);
            output
        }
    }

    fn append_text(&mut self, value: Datum, out: &mut Vec<u8>) {
        // SAFETY: output functions return NUL-terminated text.
        unsafe {
            let text = pg_sys::OutputFunctionCall(&mut self.function, value);
            encode::text_field(Some(CStr::from_ptr(text).to_bytes()), out);
        }
    }

    fn append_binary(&mut self, value: Datum, out: &mut Vec<u8>) {
        // SAFETY: send functions return a bytea that is not toasted.
        unsafe {
            let sent = pg_sys::SendFunctionCall(&mut self.function, value);
            encode::binary_field(Some(pgrx::varlena_to_byte_slice(sent)), out);
        }
    }
}

/// While it lives, output functions write values that any session reads back as the same: ISO dates,
/// intervals and floats in full, whatever the settings of this session.
pub struct PortableOutput {
    date_style: c_int,
    interval_style: c_int,
    float_digits: c_int,
}

impl PortableOutput {
    pub fn begin() -> PortableOutput {
        // SAFETY: the variables behind the settings; output functions read them, nothing else runs.
        unsafe {
            let before = PortableOutput {
                date_style: pg_sys::DateStyle,
                interval_style: pg_sys::IntervalStyle,
                float_digits: pg_sys::extra_float_digits,
            };
            pg_sys::DateStyle = pg_sys::USE_ISO_DATES as c_int;
            pg_sys::IntervalStyle = pg_sys::INTSTYLE_POSTGRES as c_int;
            pg_sys::extra_float_digits = 3;
            before
        }
    }
}

impl Drop for PortableOutput {
    fn drop(&mut self) {
        // SAFETY: see `begin`; reached by unwinding as well.
        unsafe {
            pg_sys::DateStyle = self.date_style;
            pg_sys::IntervalStyle = self.interval_style;
            pg_sys::extra_float_digits = self.float_digits;
        }
    }
}

/// `ExecEvalExpr`: the value, and whether it is NULL.
pub unsafe fn evaluate(
    expression: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
) -> (Datum, bool) {
    // SAFETY: an initialised expression has its function; no Rust value lives across the call.
    unsafe {
        let mut is_null = false;
        let value = match (*expression).evalfunc {
            Some(function) => {
                pg_sys::ffi::pg_guard_ffi_boundary(|| function(expression, context, &mut is_null))
            }
            None => Datum::null(),
        };
        (value, is_null)
    }
}

/// `ExecClearTuple`.
pub unsafe fn clear(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: a virtual slot's function, which frees its tuple.
    unsafe {
        if let Some(function) = (*(*slot).tts_ops).clear {
            pg_sys::ffi::pg_guard_ffi_boundary(|| function(slot));
        }
    }
}

/// The bytes of an untoasted `bytea`.
pub unsafe fn bytes<'a>(value: Datum) -> &'a [u8] {
    // SAFETY: as the caller promises.
    unsafe { pgrx::varlena_to_byte_slice(value.cast_mut_ptr()) }
}

/// A column of the relation, from zero.
pub unsafe fn attribute<'a>(
    relation: pg_sys::Relation,
    column: usize,
) -> &'a pg_sys::FormData_pg_attribute {
    // SAFETY: the descriptor lives while the relation is open.
    unsafe { &*(*(*relation).rd_att).attrs.as_ptr().add(column) }
}

fn quoted(name: *const c_char) -> String {
    // SAFETY: a NUL-terminated name.
    quote_identifier(&unsafe { CStr::from_ptr(name) }.to_string_lossy())
}
