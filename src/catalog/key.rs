//! Distribution keys of one type and collation: hash, order, and bounds as text.

use pgrx::pg_sys;
use std::cmp::Ordering;
use std::ffi::{CStr, CString};

use super::types::{Colocation, Method, TableKind};
use crate::error::{sqlstate, Error, Result};
use crate::pg::spi::Settings;

/// The functions of a key's type. The type cache entry behind it is never freed by PostgreSQL.
#[derive(Clone, Copy)]
pub struct Key {
    entry: *mut pg_sys::TypeCacheEntry,
    collation: pg_sys::Oid,
}

impl Key {
    /// An error if the type cannot be a key of that method.
    pub fn new(method: Method, key_type: pg_sys::Oid, collation: pg_sys::Oid) -> Result<Key> {
        let flags = match method {
            Method::Hash => pg_sys::TYPECACHE_HASH_PROC_FINFO,
            Method::Range | Method::List => pg_sys::TYPECACHE_CMP_PROC_FINFO,
        };
        // SAFETY: looks up or makes an entry that stays where it is until the backend ends.
        let entry = unsafe { pg_sys::lookup_type_cache(key_type, flags as i32) };
        // SAFETY: as above.
        let (found, class) = unsafe {
            match method {
                Method::Hash => ((*entry).hash_proc_finfo.fn_oid, "hash"),
                Method::Range | Method::List => ((*entry).cmp_proc_finfo.fn_oid, "btree"),
            }
        };
        if found == pg_sys::InvalidOid {
            return Err(Error::new(
                sqlstate::UNDEFINED_FUNCTION,
                format!(
                    "data type {} has no default operator class for access method \"{class}\"",
                    type_name(key_type)
                ),
            )
            .detail(format!("Distribution by {} needs one.", method.name())));
        }
        Ok(Key { entry, collation })
    }

    /// The hash that PostgreSQL's own hash indexes use, signed.
    pub fn hash(&self, key: pg_sys::Datum) -> i32 {
        // SAFETY: `new` saw the function; the entry outlives every Key.
        unsafe {
            pg_sys::FunctionCall1Coll(&raw mut (*self.entry).hash_proc_finfo, self.collation, key)
                .value() as i32
        }
    }

    pub fn compare(&self, a: pg_sys::Datum, b: pg_sys::Datum) -> Ordering {
        // SAFETY: as in `hash`.
        let order = unsafe {
            pg_sys::FunctionCall2Coll(&raw mut (*self.entry).cmp_proc_finfo, self.collation, a, b)
                .value() as i32
        };
        order.cmp(&0)
    }
}

/// The type that decides hash and order: the type itself, or the base type of a domain.
pub fn base_type(type_oid: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: a syscache look-up.
    unsafe { pg_sys::getBaseType(type_oid) }
}

pub fn type_name(type_oid: pg_sys::Oid) -> String {
    // SAFETY: returns a palloc'd C string for any oid.
    unsafe { CStr::from_ptr(pg_sys::format_type_be(type_oid)) }
        .to_string_lossy()
        .into_owned()
}

/// A bound as the catalog stores it: independent of the session's settings.
pub fn bound_text(key_type: pg_sys::Oid, bound: pg_sys::Datum) -> String {
    let settings = Settings::nested();
    settings.set(c"datestyle", c"ISO");
    settings.set(c"intervalstyle", c"postgres");
    settings.set(c"extra_float_digits", c"3");
    settings.set(c"search_path", c"pg_catalog");
    // SAFETY: the output function returns a palloc'd C string.
    unsafe {
        let mut output = pg_sys::InvalidOid;
        let mut is_varlena = false;
        pg_sys::getTypeOutputInfo(key_type, &mut output, &mut is_varlena);
        CStr::from_ptr(pg_sys::OidOutputFunctionCall(output, bound))
            .to_string_lossy()
            .into_owned()
    }
}

/// The bound that `text` stands for, in the current memory context; an invalid text raises.
pub fn parse_bound(key_type: pg_sys::Oid, text: &str) -> Result<pg_sys::Datum> {
    let text = CString::new(text).map_err(|_| {
        Error::new(
            sqlstate::INVALID_PARAMETER_VALUE,
            "a bound must not contain a NUL character",
        )
    })?;
    // SAFETY: the input function of the type, called as PostgreSQL does.
    unsafe {
        let mut input = pg_sys::InvalidOid;
        let mut parameter = pg_sys::InvalidOid;
        pg_sys::getTypeInputInfo(key_type, &mut input, &mut parameter);
        Ok(pg_sys::OidInputFunctionCall(
            input,
            text.as_ptr().cast_mut(),
            parameter,
            -1,
        ))
    }
}
/// The error of a row that no shard takes. A column that must not be NULL says so first.
pub fn no_shard(
    colocation: &Colocation,
    schema: &str,
    table: &str,
    key: Option<pg_sys::Datum>,
) -> Error {
    if key.is_none() {
        if let Some(column) = required_key(schema, table) {
            let mut error = Error::new(
                sqlstate::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{column}\" of relation \"{table}\" violates not-null constraint"
                ),
            );
            let fields = error.fields_mut();
            fields.schema = Some(schema.to_owned());
            fields.table = Some(table.to_owned());
            fields.column = Some(column);
            return error;
        }
    }
    let shown = match key {
        None => "NULL".to_owned(),
        Some(value) => bound_text(colocation.key_type, value),
    };
    Error::new(
        sqlstate::CHECK_VIOLATION,
        format!("no shard of table \"{table}\" takes the distribution value {shown}"),
    )
    .hint("Add a shard for it with shard_ext.add_range_shard, shard_ext.add_list_shard or shard_ext.add_default_shard.")
}

/// The distribution column of a table, if it is NOT NULL.
fn required_key(schema: &str, table: &str) -> Option<String> {
    let (schema, table) = (CString::new(schema).ok()?, CString::new(table).ok()?);
    // SAFETY: syscache look-ups by name and number; the tuple is released before the name, a copy, is read.
    unsafe {
        let namespace = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        let relid = pg_sys::get_relname_relid(table.as_ptr(), namespace);
        let table = super::table(relid).ok().flatten()?;
        let TableKind::Distributed { key, .. } = table.kind else {
            return None;
        };
        let tuple = pg_sys::SearchSysCache2(
            pg_sys::SysCacheIdentifier::ATTNUM as i32,
            pg_sys::Datum::from(relid),
            pg_sys::Datum::from(key),
        );
        if tuple.is_null() {
            return None;
        }
        let required =
            (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_attribute>()).attnotnull;
        pg_sys::ReleaseSysCache(tuple);
        let name = pg_sys::get_attname(relid, key, true);
        (required && !name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}
