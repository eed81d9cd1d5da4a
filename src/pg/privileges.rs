//! What the current user may see.

use pgrx::pg_sys::{self, AclResult, Oid};
use std::ffi::CString;

/// May an error about this constraint of a table (or about a column) show values of a row? As PostgreSQL's
/// ExecBuildSlotValueDescription and BuildIndexValueDescription decide, but of a row all is shown or nothing.
pub fn may_see_values(schema: &str, table: &str, constraint: Option<&str>) -> bool {
    // SAFETY: looks at catalogs, in a transaction.
    unsafe {
        if !pg_sys::IsTransactionState() {
            return true;
        }
        let schema = CString::new(schema).unwrap_or_default();
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        let named = |name: &str| {
            let name = CString::new(name).unwrap_or_default();
            pg_sys::get_relname_relid(name.as_ptr(), schema)
        };
        let relid = named(table);
        if relid == pg_sys::InvalidOid {
            return true;
        }
        let enforced = pg_sys::check_enable_rls(relid, pg_sys::InvalidOid, true);
        if enforced == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32 {
            return false;
        }
        let (user, select) = (pg_sys::GetUserId(), pg_sys::ACL_SELECT);
        if pg_sys::pg_class_aclcheck(relid, user, select) == AclResult::ACLCHECK_OK {
            return true;
        }
        let columns = key_columns(constraint.map_or(pg_sys::InvalidOid, named));
        !columns.is_empty()
            && columns.iter().all(|attno| {
                *attno > 0
                    && pg_sys::pg_attribute_aclcheck(relid, *attno, user, select)
                        == AclResult::ACLCHECK_OK
            })
    }
}

/// The columns of an index that are its key (0: an expression); none where it is no index.
unsafe fn key_columns(index: Oid) -> Vec<i16> {
    unsafe {
        if pg_sys::get_rel_relkind(index) as u8 != pg_sys::RELKIND_INDEX {
            return Vec::new();
        }
        let relation = pg_sys::RelationIdGetRelation(index);
        if relation.is_null() {
            return Vec::new();
        }
        let form = (*relation).rd_index;
        let columns = (*form)
            .indkey
            .values
            .as_slice((*form).indnkeyatts as usize)
            .to_vec();
        pg_sys::RelationClose(relation);
        columns
    }
}
