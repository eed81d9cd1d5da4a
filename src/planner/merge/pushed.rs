//! MERGE that the shards run: source and target are joined within shard groups, and no row leaves its own.

use super::{clauses, joined, Clause};
use crate::catalog;
use crate::error::Result;
use crate::pg::{list, node};
use crate::planner::analysis::Analysis;
use crate::planner::pull::Target;
use crate::planner::remote::{self, Order};
use crate::planner::{modify, route, statement};
use pgrx::pg_sys::{self, CmdType, Node, PlannedStmt, Query};
use std::ffi::CStr;

/// PostgreSQL can write a MERGE as text since this version, and run it since that one.
const DEPARSES: i32 = 150_004;
const RUNS: i32 = 150_000;

/// The plan, or None when rows have to travel or something has to be computed here.
///
/// # Safety
/// `query` is a MERGE into the table.
pub unsafe fn plan(query: *mut Query, target: &Target) -> Result<Option<*mut PlannedStmt>> {
    unsafe {
        let secured = |rte: *mut pg_sys::RangeTblEntry| !(*rte).securityQuals.is_null();
        if server_version() < DEPARSES
            || !(*query).withCheckOptions.is_null()
            || (*query).hasModifyingCTE
            || secured(list::rt_fetch((*query).resultRelation, (*query).rtable))
            || node::has_sublink((*query).mergeActionList.cast())
            || catalog::nodes()?.iter().any(|node| node.version_num < RUNS)
        {
            return Ok(None);
        }
        let clauses = clauses(query);
        let rows = joined(query, target, &clauses).query;
        (*rows).rowMarks = std::ptr::null_mut();
        let analysis = Analysis::of(rows)?;
        let Some(route) = route::route(&analysis)? else {
            return Ok(None);
        };
        let stays = clauses
            .iter()
            .all(|clause| stays(clause, query, target, &analysis, rows));
        if route.colocation.groups.is_empty()
            || analysis.local.is_some()
            || !route.single && analysis.scatter_obstacle().is_some()
            || !stays
            || modify::obstacle_of(query, route.single).is_some()
        {
            return Ok(None);
        }
        let copy: *mut Query = node::copy(query);
        let remote = remote::finish(copy, &route, Order::default())?;
        statement::planned(query, remote, None).map(Some)
    }
}

/// Are the rows that a clause makes in the shard group of those that it is about?
unsafe fn stays(
    clause: &Clause,
    query: *mut Query,
    target: &Target,
    analysis: &Analysis,
    rows: *mut Query,
) -> bool {
    unsafe {
        let key = clause
            .entries()
            .find(|entry| (**entry).resno == target.key)
            .map(|entry| (*entry).expr.cast::<Node>());
        match (clause.command(), key) {
            (CmdType::CMD_INSERT, Some(value)) => analysis.contains_key(rows, &[value]),
            (CmdType::CMD_INSERT, None) => false,
            (CmdType::CMD_UPDATE, Some(value)) => {
                node::cast::<pg_sys::Var>(value).is_some_and(|var| {
                    (*var).varno == (*query).resultRelation && (*var).varattno == target.key
                })
            }
            _ => true,
        }
    }
}

/// The version that runs, which may be another minor one than this was built for.
fn server_version() -> i32 {
    // SAFETY: a setting that is always there.
    unsafe {
        let text = pg_sys::GetConfigOption(c"server_version_num".as_ptr(), true, false);
        if text.is_null() {
            return 0;
        }
        CStr::from_ptr(text)
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }
}
