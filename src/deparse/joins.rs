//! Joins as they must be written in a statement that changes a table.

use crate::pg::node::{self, Step};
use pgrx::pg_sys::{self, CmdType, Query, RTEKind};

/// Writes `JOIN … USING` of an UPDATE or DELETE as `ON`. PostgreSQL's deparser gives columns that have the name of a
/// USING column another name, by an alias list; the table that is changed cannot have one.
///
/// # Safety
/// `query` is a valid Query that the caller owns.
pub unsafe fn without_using(query: *mut Query) {
    unsafe {
        if !matches!(
            (*query).commandType,
            CmdType::CMD_UPDATE | CmdType::CMD_DELETE | CmdType::CMD_MERGE
        ) {
            return;
        }
        let merges = crate::pg::list::iter::<pg_sys::RangeTblEntry>((*query).rtable)
            .any(|rte| (*rte).rtekind == RTEKind::RTE_JOIN && (*rte).joinmergedcols > 0);
        if !merges {
            return;
        }
        let flat = move |tree: *mut pg_sys::Node| pg_sys::flatten_join_alias_vars(query, tree);
        (*query).targetList = flat((*query).targetList.cast()).cast();
        (*query).returningList = flat((*query).returningList.cast()).cast();
        (*query).jointree = flat((*query).jointree.cast()).cast();
        node::walk((*query).jointree.cast(), &mut |item, _| {
            if let Some(join) = node::cast::<pg_sys::JoinExpr>(item) {
                (*join).usingClause = std::ptr::null_mut();
                (*join).join_using_alias = std::ptr::null_mut();
            }
            match node::tag(item) {
                pg_sys::NodeTag::T_Query => Step::Over,
                _ => Step::Into,
            }
        });
    }
}
