//! What the wire formats need to know of a type.

use pgrx::pg_sys::{self, Oid};

/// True for objects of PostgreSQL itself, which are the same on every node.
pub fn is_builtin(oid: Oid) -> bool {
    oid.to_u32() < pg_sys::FirstGenbkiObjectId
}

/// The base type below domains.
pub fn base_type(type_oid: Oid) -> Oid {
    // SAFETY: a syscache look-up.
    unsafe { pg_sys::getBaseType(type_oid) }
}

/// Can values of the type travel in binary between servers? Scalars can; arrays, composites and ranges carry
/// object ids inside unless their elements are built in; `reg*` types are object ids of one server.
pub fn binary_is_portable(type_oid: Oid) -> bool {
    use pg_sys::BuiltinOid as B;
    let base = base_type(type_oid);
    if let Ok(builtin) = B::try_from(base) {
        if matches!(
            builtin,
            B::REGPROCOID
                | B::REGPROCEDUREOID
                | B::REGOPEROID
                | B::REGOPERATOROID
                | B::REGCLASSOID
                | B::REGTYPEOID
                | B::REGROLEOID
                | B::REGNAMESPACEOID
                | B::REGCONFIGOID
                | B::REGDICTIONARYOID
                | B::REGCOLLATIONOID
                | B::ACLITEMOID
                | B::RECORDOID
                | B::RECORDARRAYOID
                | B::ANYARRAYOID
        ) {
            return false;
        }
    }
    // SAFETY: syscache look-ups by type oid.
    unsafe {
        let form_is_builtin = is_builtin(base);
        let kind = pg_sys::get_typtype(base) as u8;
        let element = pg_sys::get_element_type(base);
        if element != Oid::INVALID {
            return form_is_builtin && is_builtin(element) && element_is_plain(element);
        }
        match kind {
            b'b' => has_binary_functions(base),
            b'e' => true,
            b'r' | b'm' => form_is_builtin,
            _ => false,
        }
    }
}

fn element_is_plain(element: Oid) -> bool {
    binary_is_portable(element)
}

fn has_binary_functions(type_oid: Oid) -> bool {
    // SAFETY: a syscache look-up; the tuple is released before returning.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::TYPEOID as i32,
            pg_sys::Datum::from(type_oid),
        );
        if tuple.is_null() {
            return false;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
        let answer = (*form).typsend != Oid::INVALID && (*form).typreceive != Oid::INVALID;
        pg_sys::ReleaseSysCache(tuple);
        answer
    }
}

/// Number of attributes of a relation, dropped ones included.
pub fn column_count(relid: Oid) -> i16 {
    // SAFETY: a syscache look-up; the tuple is released before returning.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relid),
        );
        if tuple.is_null() {
            return 0;
        }
        let count = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relnatts;
        pg_sys::ReleaseSysCache(tuple);
        count
    }
}

/// Is there a column of this number, that was not dropped?
pub fn has_column(relid: Oid, attno: i16) -> bool {
    // SAFETY: a syscache look-up; a dropped column has no type.
    unsafe { pg_sys::get_atttype(relid, attno) != Oid::INVALID }
}

/// Does a table say NOT NULL of a column?
pub fn is_not_null(relid: Oid, attno: i16) -> bool {
    // SAFETY: a look-up by table and number; the tuple is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache2(
            pg_sys::SysCacheIdentifier::ATTNUM as i32,
            relid.into(),
            attno.into(),
        );
        if tuple.is_null() {
            return false;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_attribute>();
        let answer = (*form).attnotnull;
        pg_sys::ReleaseSysCache(tuple);
        answer
    }
}

/// Type, typmod and collation of a column; no type for one that was dropped.
///
/// # Safety
/// The relation has a column of this number, or had one.
pub unsafe fn attribute_signature(relid: Oid, attno: i16) -> (Oid, i32, Oid) {
    let (mut type_oid, mut typmod, mut collation) = (Oid::INVALID, -1, Oid::INVALID);
    unsafe {
        pg_sys::get_atttypetypmodcoll(relid, attno, &mut type_oid, &mut typmod, &mut collation);
    }
    (type_oid, typmod, collation)
}

/// The attribute numbers in a set of columns as PostgreSQL keeps them.
///
/// # Safety
/// `columns` is null or a valid set.
pub unsafe fn attributes(columns: *const pg_sys::Bitmapset) -> Vec<i16> {
    let mut found = Vec::new();
    let mut member = -1;
    loop {
        // SAFETY: the caller's set.
        member = unsafe { pg_sys::bms_next_member(columns, member) };
        if member < 0 {
            return found;
        }
        found.push((member + pg_sys::FirstLowInvalidHeapAttributeNumber) as i16);
    }
}

/// Block and offset of a `tid`.
///
/// # Safety
/// It is a value of that type.
pub unsafe fn tid(value: pg_sys::Datum) -> (u32, u16) {
    unsafe {
        let tid = value.cast_mut_ptr::<pg_sys::ItemPointerData>();
        let block = u32::from((*tid).ip_blkid.bi_hi) << 16 | u32::from((*tid).ip_blkid.bi_lo);
        (block, (*tid).ip_posid)
    }
}
