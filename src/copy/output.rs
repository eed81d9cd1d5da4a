//! COPY TO of a distributed table: PostgreSQL's own COPY of a query that selects the columns, so that the
//! planner distributes it and checks privileges and row-level security.

use super::CopyStatement;
use crate::error::Result;
use pgrx::pg_sys;
use std::ffi::c_void;

/// Runs `COPY table (columns) TO …` and answers the number of rows.
pub unsafe fn copy_to(copy: &CopyStatement, relid: pg_sys::Oid) -> Result<u64> {
    // SAFETY: the nodes made here are what the grammar makes of `COPY (SELECT columns FROM table) TO`.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let relation = pg_sys::table_open(relid, lock);
        let statement = &*copy.statement;
        // Refuses unknown, repeated and generated columns in COPY's words.
        let columns = pg_sys::CopyGetAttnums((*relation).rd_att, relation, statement.attlist);
        let count = if columns.is_null() {
            0
        } else {
            (*columns).length as usize
        };
        let mut targets: *mut pg_sys::List = std::ptr::null_mut();
        for i in 0..count {
            let number = (*(*columns).elements.add(i)).int_value;
            let attribute = super::columns::attribute(relation, number as usize - 1);
            let name = pg_sys::pstrdup(attribute.attname.data.as_ptr());
            let mut column =
                pgrx::PgBox::<pg_sys::ColumnRef>::alloc_node(pg_sys::NodeTag::T_ColumnRef);
            column.fields = pg_sys::lappend(std::ptr::null_mut(), pg_sys::makeString(name).cast());
            column.location = -1;
            let mut target =
                pgrx::PgBox::<pg_sys::ResTarget>::alloc_node(pg_sys::NodeTag::T_ResTarget);
            target.val = column.into_pg().cast();
            target.location = -1;
            targets = pg_sys::lappend(targets, target.into_pg().cast::<c_void>());
        }
        let schema = pg_sys::get_namespace_name((*(*relation).rd_rel).relnamespace);
        let name = pg_sys::pstrdup((*(*relation).rd_rel).relname.data.as_ptr());
        pg_sys::table_close(relation, pg_sys::NoLock as i32);

        let from = pg_sys::makeRangeVar(schema, name, -1);
        let mut select =
            pgrx::PgBox::<pg_sys::SelectStmt>::alloc_node(pg_sys::NodeTag::T_SelectStmt);
        select.targetList = targets;
        select.fromClause = pg_sys::lappend(std::ptr::null_mut(), from.cast::<c_void>());

        let rewritten = pg_sys::copyObjectImpl(copy.statement.cast()).cast::<pg_sys::CopyStmt>();
        (*rewritten).relation = std::ptr::null_mut();
        (*rewritten).attlist = std::ptr::null_mut();
        (*rewritten).query = select.into_pg().cast();

        let parse_state = pg_sys::make_parsestate(std::ptr::null_mut());
        (*parse_state).p_sourcetext = copy.query_string;
        (*parse_state).p_queryEnv = copy.query_environment;
        let mut processed = 0u64;
        pg_sys::DoCopy(
            parse_state,
            rewritten,
            copy.location,
            copy.length,
            &mut processed,
        );
        Ok(processed)
    }
}
