//! COPY TO of a distributed table: PostgreSQL's own COPY of a query that selects the columns, so that the
//! planner distributes it and checks privileges and row-level security.

use super::CopyStatement;
use crate::error::Result;
use crate::pg::{list, node};
use pgrx::pg_sys;

/// Runs `COPY table (columns) TO …` and answers the number of rows.
pub unsafe fn copy_to(copy: &CopyStatement, relid: pg_sys::Oid) -> Result<u64> {
    // SAFETY: the nodes made here are what the grammar makes of `COPY (SELECT columns FROM table) TO`.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let relation = pg_sys::table_open(relid, lock);
        let statement = &*copy.statement;
        // Refuses unknown, repeated and generated columns in COPY's words.
        let columns = pg_sys::CopyGetAttnums((*relation).rd_att, relation, statement.attlist);
        let targets = list::ints(columns).into_iter().map(|number| {
            let attribute = super::columns::attribute(relation, number as usize - 1);
            let name = pg_sys::pstrdup(attribute.attname.data.as_ptr());
            let column = node::make::<pg_sys::ColumnRef>();
            (*column).fields = list::from([pg_sys::makeString(name)]);
            (*column).location = -1;
            let target = node::make::<pg_sys::ResTarget>();
            (*target).val = column.cast();
            (*target).location = -1;
            target
        });
        let targets = list::from(targets);
        let schema = pg_sys::get_namespace_name((*(*relation).rd_rel).relnamespace);
        let name = pg_sys::pstrdup((*(*relation).rd_rel).relname.data.as_ptr());
        pg_sys::table_close(relation, pg_sys::NoLock as i32);

        let from = pg_sys::makeRangeVar(schema, name, -1);
        let select = node::make::<pg_sys::SelectStmt>();
        (*select).targetList = targets;
        (*select).fromClause = list::from([from]);

        let rewritten = node::copy(copy.statement);
        (*rewritten).relation = std::ptr::null_mut();
        (*rewritten).attlist = std::ptr::null_mut();
        (*rewritten).query = select.cast();

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
