//! Rows of a local table that are changed or locked by what distributed tables say. PostgreSQL wants to look again at
//! every joined row when the local one has changed meanwhile: of a table by its ctid, of a subquery by a copy of the
//! row. So distributed tables stand in subqueries there, which are not pulled up.

use crate::catalog::{self, TableKind};
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::remote;
use pgrx::pg_sys::{self, CmdType, Query, RTEKind};

/// Puts distributed tables beside the changed or locked table into subqueries; answers the subqueries that must not
/// be pulled up. Of a statement that changes and locks nothing: none.
///
/// # Safety
/// `query` is a valid Query that the caller owns.
pub unsafe fn wrap(query: *mut Query) -> Result<Vec<*mut Query>> {
    unsafe {
        let changes = matches!(
            (*query).commandType,
            CmdType::CMD_UPDATE | CmdType::CMD_DELETE | CmdType::CMD_MERGE
        );
        if !changes && (*query).rowMarks.is_null() {
            return Ok(Vec::new());
        }
        let locked: Vec<u32> = list::iter::<pg_sys::RowMarkClause>((*query).rowMarks)
            .map(|mark| (*mark).rti)
            .collect();
        for (index, rte) in list::iter::<pg_sys::RangeTblEntry>((*query).rtable).enumerate() {
            let rtindex = index as i32 + 1;
            if (*rte).rtekind != RTEKind::RTE_RELATION
                || rtindex == (*query).resultRelation
                || locked.contains(&(rtindex as u32))
            {
                continue;
            }
            let table = catalog::table((*rte).relid)?;
            if table.is_some_and(|t| matches!(t.kind, TableKind::Distributed { .. })) {
                let security = list::iter::<pg_sys::Node>((*rte).securityQuals)
                    .map(|qual| expr::renumbered(qual, rtindex, 1))
                    .collect::<Vec<_>>();
                (*rte).securityQuals = list::from(security);
                remote::into_subquery(rte, std::ptr::null_mut());
                (*rte).securityQuals = std::ptr::null_mut();
            }
        }
        let mut children: Vec<*mut Query> = Vec::new();
        node::query_children(query, 0, |child| {
            node::walk(child, &mut |item, _| match node::cast::<Query>(item) {
                Some(sub) => {
                    children.push(sub);
                    Step::Over
                }
                None => Step::Into,
            });
            false
        });
        children.retain(|child| super::mentions_distributed(*child));
        Ok(children)
    }
}

/// Keeps PostgreSQL from pulling the subqueries up.
///
/// # Safety
/// The Queries are those of `wrap`, with their leaves.
pub unsafe fn keep_apart(children: &[*mut Query]) {
    unsafe {
        for child in children {
            if (**child).limitCount.is_null() && (**child).limitOffset.is_null() {
                (**child).limitOffset = expr::int8(0).cast();
            }
        }
    }
}
