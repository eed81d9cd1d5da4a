//! The one error type of the extension: everything PostgreSQL's `ErrorData` can carry, as a value.
//!
//! Folders return `Result`; `raise` is called only where control returns to C.

use pgrx::pg_sys;
use std::ffi::CString;

pub type Result<T> = std::result::Result<T, Error>;

/// SQLSTATEs in use, as PostgreSQL's `errcodes.txt` names them.
pub mod sqlstate {
    pub type SqlState = [u8; 5];
    pub const FEATURE_NOT_SUPPORTED: SqlState = *b"0A000";
    pub const CONNECTION_FAILURE: SqlState = *b"08006";
    pub const TRANSACTION_RESOLUTION_UNKNOWN: SqlState = *b"08007";
    pub const UNABLE_TO_CONNECT: SqlState = *b"08001";
    pub const PROTOCOL_VIOLATION: SqlState = *b"08P01";
    pub const INVALID_PARAMETER_VALUE: SqlState = *b"22023";
    pub const BAD_COPY_FILE_FORMAT: SqlState = *b"22P04";
    pub const INVALID_COLUMN_REFERENCE: SqlState = *b"42P10";
    pub const INVALID_TRANSACTION_STATE: SqlState = *b"25000";
    pub const IN_FAILED_SQL_TRANSACTION: SqlState = *b"25P02";
    pub const NOT_NULL_VIOLATION: SqlState = *b"23502";
    pub const CHECK_VIOLATION: SqlState = *b"23514";
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: SqlState = *b"55000";
    pub const OBJECT_IN_USE: SqlState = *b"55006";
    pub const UNDEFINED_OBJECT: SqlState = *b"42704";
    pub const UNDEFINED_TABLE: SqlState = *b"42P01";
    pub const UNDEFINED_FUNCTION: SqlState = *b"42883";
    pub const UNDEFINED_COLUMN: SqlState = *b"42703";
    pub const DUPLICATE_OBJECT: SqlState = *b"42710";
    pub const DEPENDENT_OBJECTS_STILL_EXIST: SqlState = *b"2BP01";
    pub const NAME_TOO_LONG: SqlState = *b"42622";
    pub const FDW_INVALID_OPTION_NAME: SqlState = *b"HV00D";
    pub const WRONG_OBJECT_TYPE: SqlState = *b"42809";
    pub const INSUFFICIENT_PRIVILEGE: SqlState = *b"42501";
    pub const INVALID_OBJECT_DEFINITION: SqlState = *b"42P17";
    pub const NULL_VALUE_NOT_ALLOWED: SqlState = *b"22004";
    pub const PROGRAM_LIMIT_EXCEEDED: SqlState = *b"54000";
    pub const CARDINALITY_VIOLATION: SqlState = *b"21000";
    pub const WITH_CHECK_OPTION_VIOLATION: SqlState = *b"44000";
    pub const DEADLOCK_DETECTED: SqlState = *b"40P01";
    pub const SERIALIZATION_FAILURE: SqlState = *b"40001";
    pub const INVALID_CURSOR_STATE: SqlState = *b"24000";
    pub const UNDEFINED_CURSOR: SqlState = *b"34000";
    pub const WARNING: SqlState = *b"01000";
    pub const INTERNAL_ERROR: SqlState = *b"XX000";
}
use sqlstate::SqlState;

/// An error on its way to the user, with the fields of PostgreSQL's error reports.
#[derive(Debug, Clone)]
pub struct Error(Box<Fields>);

#[derive(Debug, Clone)]
pub struct Fields {
    pub sqlstate: SqlState,
    pub message: String,
    pub detail: Option<String>,
    /// The detail for the server's log, where it says more.
    pub detail_log: Option<String>,
    pub hint: Option<String>,
    pub context: Option<String>,
    pub schema: Option<String>,
    pub table: Option<String>,
    pub column: Option<String>,
    pub datatype: Option<String>,
    pub constraint: Option<String>,
}

impl Error {
    pub fn new(sqlstate: SqlState, message: impl Into<String>) -> Error {
        Error(Box::new(Fields {
            sqlstate,
            message: message.into(),
            detail: None,
            detail_log: None,
            hint: None,
            context: None,
            schema: None,
            table: None,
            column: None,
            datatype: None,
            constraint: None,
        }))
    }

    /// What the extension cannot do (yet): the reason, and the way out.
    pub fn refused(reason: impl Into<String>, way_out: impl Into<String>) -> Error {
        Error::new(sqlstate::FEATURE_NOT_SUPPORTED, reason).hint(way_out)
    }

    /// A broken assumption of the extension itself.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(sqlstate::INTERNAL_ERROR, message)
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Error {
        self.0.detail = Some(detail.into());
        self
    }

    pub fn detail_log(mut self, detail: impl Into<String>) -> Error {
        self.0.detail_log = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds a line to the context, below what is there.
    pub fn context(mut self, line: impl Into<String>) -> Error {
        let line = line.into();
        self.0.context = Some(match self.0.context.take() {
            Some(above) => format!("{above}\n{line}"),
            None => line,
        });
        self
    }

    pub fn fields(&self) -> &Fields {
        &self.0
    }

    pub fn fields_mut(&mut self) -> &mut Fields {
        &mut self.0
    }

    /// Raises the error in the server. Everything owned by the callers is dropped on the way.
    pub fn raise(self) -> ! {
        self.report(pgrx::PgLogLevel::ERROR as i32);
        unreachable!("an error of level ERROR does not return")
    }

    /// Reports the error as a WARNING and goes on.
    pub fn warn(&self) {
        self.report(pgrx::PgLogLevel::WARNING as i32);
    }

    /// Reports it as a NOTICE and goes on.
    pub fn notice(&self) {
        self.report(pgrx::PgLogLevel::NOTICE as i32);
    }

    /// Reports it at a level of `elog.h`; returns when that is below ERROR.
    pub fn report(&self, level: i32) {
        let fields = &self.0;
        let text =
            |value: &Option<String>| -> Option<CString> { value.as_ref().map(|v| c_string(v)) };
        let message = c_string(&fields.message);
        let strings = [
            text(&fields.detail),
            text(&fields.hint),
            text(&fields.context),
            text(&fields.schema),
            text(&fields.table),
            text(&fields.column),
            text(&fields.datatype),
            text(&fields.constraint),
            text(&fields.detail_log),
        ];
        let pointer = |i: usize| -> *mut std::ffi::c_char {
            strings[i]
                .as_ref()
                .map_or(std::ptr::null_mut(), |s| s.as_ptr().cast_mut())
        };
        // SAFETY: every pointer stays valid during the call; ThrowErrorData copies the strings into
        // ErrorContext before it raises. Zero is a valid value for all of ErrorData's fields.
        unsafe {
            let mut data: pg_sys::ErrorData = std::mem::zeroed();
            data.elevel = level;
            data.sqlerrcode = encode_sqlstate(fields.sqlstate);
            data.message = message.as_ptr().cast_mut();
            data.detail = pointer(0);
            data.hint = pointer(1);
            data.context = pointer(2);
            data.schema_name = pointer(3);
            data.table_name = pointer(4);
            data.column_name = pointer(5);
            data.datatype_name = pointer(6);
            data.constraint_name = pointer(7);
            data.detail_log = pointer(8);
            pg_sys::ThrowErrorData(&mut data);
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

/// `MAKE_SQLSTATE` of `utils/elog.h`: five characters of six bits each.
fn encode_sqlstate(state: SqlState) -> i32 {
    state
        .iter()
        .enumerate()
        .map(|(i, c)| ((*c as i32 - b'0' as i32) & 0x3f) << (6 * i))
        .sum()
}

/// A C string of `text`; a NUL byte inside (never sent by a server) ends it.
fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn sqlstates_are_encoded_as_postgres_does() {
        // ERRCODE_SUCCESSFUL_COMPLETION and ERRCODE_UNIQUE_VIOLATION of errcodes.h
        assert_eq!(super::encode_sqlstate(*b"00000"), 0);
        assert_eq!(super::encode_sqlstate(*b"23505"), 83906754);
    }
}
