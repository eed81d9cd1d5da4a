//! Rows of a local table that are changed or locked by what distributed tables say. PostgreSQL wants to look again at
//! every joined row when the local one has changed meanwhile: of a table by its ctid, of a subquery by a copy of the
//! row. So distributed tables stand in subqueries there, which are not pulled up.

use crate::catalog::{self, TableKind};
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::pieces::joins;
use crate::planner::{locks, remote, whole_rows};
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
        if !changes && !locks::concern_local(query)? {
            return Ok(Vec::new());
        }
        let locked: Vec<u32> = list::iter::<pg_sys::RowMarkClause>((*query).rowMarks)
            .map(|mark| (*mark).rti)
            .collect();
        let mut wrapped = Vec::new();
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
                into_subquery(query, rtindex);
                wrapped.push(rtindex);
            }
        }
        for rtindex in wrapped {
            whole_rows::make_column(query, rtindex);
        }
        let mut children = node::queries_below(query);
        children.retain(|child| super::mentions_distributed(*child));
        Ok(children)
    }
}

/// Makes a table of the level a subquery with the conditions that are about it alone.
///
/// # Safety
/// `query` is a valid Query that the caller owns; the entry is a relation.
pub unsafe fn into_subquery(query: *mut Query, rtindex: i32) {
    unsafe {
        let rte = list::rt_fetch(rtindex, (*query).rtable);
        let security = list::iter::<pg_sys::Node>((*rte).securityQuals)
            .map(|qual| expr::renumbered(qual, rtindex, 1))
            .collect::<Vec<_>>();
        (*rte).securityQuals = list::from(security);
        let quals = conditions_of(query, rtindex);
        remote::into_subquery(rte, quals);
        (*rte).securityQuals = std::ptr::null_mut();
    }
}

/// The conditions of WHERE about one table alone, for the subquery that it becomes; WHERE keeps them as well. None
/// when an outer join may add rows to those of the table.
unsafe fn conditions_of(query: *mut Query, rtindex: i32) -> *mut pg_sys::Node {
    unsafe {
        if !joins::joined_plainly((*query).jointree.cast(), rtindex) {
            return std::ptr::null_mut();
        }
        expr::conjuncts((*(*query).jointree).quals)
            .into_iter()
            .filter(|qual| speaks_of(*qual, rtindex))
            .fold(std::ptr::null_mut(), |all, qual| {
                expr::and(all, expr::renumbered(qual, rtindex, 1))
            })
    }
}

unsafe fn speaks_of(qual: *mut pg_sys::Node, rtindex: i32) -> bool {
    unsafe {
        let mut found = false;
        let other = node::walk(qual, &mut |item, _| match node::tag(item) {
            pg_sys::NodeTag::T_Var => {
                let var = item.cast::<pg_sys::Var>();
                found = true;
                if (*var).varno == rtindex && (*var).varlevelsup == 0 && (*var).varattno > 0 {
                    Step::Into
                } else {
                    Step::Stop
                }
            }
            pg_sys::NodeTag::T_SubLink => Step::Stop,
            _ => Step::Into,
        });
        found && !other && !pg_sys::contain_volatile_functions(qual)
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
