//! How the values of a type are on the wire.

use pgrx::pg_sys::{self, Oid};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    /// A varlena whose binary format is its bytes.
    Bytes,
    /// As the type's send and receive functions have it.
    Binary,
    /// As its output and input functions have it.
    Text,
}

impl Layout {
    pub fn of(type_oid: Oid, binary: bool) -> Layout {
        if !binary {
            return Layout::Text;
        }
        match type_oid {
            pg_sys::BOOLOID => Layout::Bool,
            pg_sys::INT2OID => Layout::Int2,
            pg_sys::INT4OID | pg_sys::DATEOID => Layout::Int4,
            pg_sys::INT8OID
            | pg_sys::TIMESTAMPOID
            | pg_sys::TIMESTAMPTZOID
            | pg_sys::TIMEOID
            | pg_sys::FLOAT8OID
            | pg_sys::MONEYOID => Layout::Int8,
            pg_sys::FLOAT4OID => Layout::Float4,
            pg_sys::TEXTOID
            | pg_sys::VARCHAROID
            | pg_sys::BPCHAROID
            | pg_sys::BYTEAOID
            | pg_sys::JSONOID => Layout::Bytes,
            _ => Layout::Binary,
        }
    }
}
