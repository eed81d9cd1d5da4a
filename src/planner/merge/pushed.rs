//! MERGE that the shards run: source and target are joined within shard groups, and no row leaves its own.

use super::{clauses, joined, Clause};
use crate::catalog::{self, Colocation, Method};
use crate::error::Result;
use crate::pg::{expr, list, node, types};
use crate::planner::analysis::{is_equality_operator, Analysis};
use crate::planner::plan::Prune;
use crate::planner::pull::Target;
use crate::planner::remote::{self, Order};
use crate::planner::route::{self, Route};
use crate::planner::{modify, statement};
use pgrx::pg_sys::{self, CmdType, Node, PlannedStmt, Query};
use std::ffi::CStr;
use std::rc::Rc;

/// PostgreSQL can write a MERGE as text since this `server_version_num`, and run it since that major version.
const DEPARSES: i32 = 150_004;
const RUNS: i32 = 15;

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
            || !catalog::nodes_run_at_least(RUNS)?
        {
            return Ok(None);
        }
        let clauses = clauses(query);
        let rows = joined(query, target, &clauses).query;
        (*rows).rowMarks = std::ptr::null_mut();
        let pinned = pin(rows, (*query).resultRelation, target.key);
        let analysis = Analysis::of(rows)?;
        let Some(mut route) = route::route(&analysis)? else {
            return Ok(None);
        };
        let inserts = clauses.iter().any(|c| c.command() == CmdType::CMD_INSERT);
        let mut source = None;
        if inserts && analysis.has_other_rows {
            // What the target is compared with says nothing of rows without a partner: the source must.
            let alone = analysis.distributed.len() == 1;
            let Some(pinned) = pinned.filter(|_| alone) else {
                return Ok(None);
            };
            match pinned.route(&route.colocation)? {
                Some(found) => route = found,
                None => return Ok(None),
            }
            source = Some(pinned);
        }
        let stays = clauses
            .iter()
            .all(|clause| match (&source, clause.command()) {
                (Some(pinned), CmdType::CMD_INSERT) => pinned.gives_key(clause, target.key),
                _ => stays(clause, query, target, &analysis, rows),
            });
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

/// More rows than these are not looked at.
const MOST_ROWS: usize = 100;

/// A column of the source with which the key is compared, and its values.
struct Pinned {
    source: i32,
    column: i16,
    values: Vec<*mut Node>,
}

impl Pinned {
    /// The one shard group for all of the values, if they have one. Where a value may have none, that is an error only if
    /// it is inserted, and the shards do not know.
    unsafe fn route(&self, colocation: &Rc<Colocation>) -> Result<Option<Route>> {
        let route = |prune| Route {
            colocation: colocation.clone(),
            prune,
            values: self.values.clone(),
            single: true,
        };
        if colocation.method != Method::Hash {
            return Ok(None);
        }
        let becomes_key = |value: &*mut Node| {
            let value_type = unsafe { types::base_type(pg_sys::exprType(*value)) };
            route::becomes_key(colocation.key_type, value_type)
        };
        if !self.values.iter().all(becomes_key) {
            return Ok(None);
        }
        if self.values.len() == 1 {
            // NULL equals no key, and may be inserted as one
            return Ok(Some(route(Prune::Key(0))));
        }
        let prunes: Vec<Prune> = (0..self.values.len()).map(Prune::Key).collect();
        let all = Prune::Or(prunes.clone());
        let single =
            unsafe { route::constant_single_group(colocation, &prunes, &all, &self.values)? };
        Ok(single.then(|| route(all)))
    }

    /// Does an INSERT take its key from the column?
    unsafe fn gives_key(&self, clause: &Clause, key: i16) -> bool {
        unsafe {
            clause
                .entries()
                .find(|entry| (**entry).resno == key)
                .and_then(|entry| node::cast::<pg_sys::Var>((*entry).expr))
                .is_some_and(|var| (*var).varno == self.source && (*var).varattno == self.column)
        }
    }
}

/// Where the key is compared with a column of a source that is rows of values, it is compared with those values, too: they
/// say which shard groups it is about.
unsafe fn pin(rows: *mut Query, target: i32, key: i16) -> Option<Pinned> {
    unsafe {
        let join = list::nth::<pg_sys::JoinExpr>((*(*rows).jointree).fromlist, 0);
        let source = (*node::cast::<pg_sys::RangeTblRef>((*join).larg)?).rtindex;
        let subquery = (*list::rt_fetch(source, (*rows).rtable)).subquery;
        let (op, place, column, values) =
            expr::conjuncts((*join).quals)
                .into_iter()
                .find_map(|test| {
                    let op = node::cast::<pg_sys::OpExpr>(test)?;
                    let [a, b] = list::iter::<Node>((*op).args).collect::<Vec<_>>()[..] else {
                        return None;
                    };
                    let (a, b) = (node::cast::<pg_sys::Var>(a)?, node::cast::<pg_sys::Var>(b)?);
                    let is_key =
                        |var: *mut pg_sys::Var| (*var).varno == target && (*var).varattno == key;
                    let (place, var) = if is_key(a) { (1, b) } else { (0, a) };
                    let pins = (is_key(a) || is_key(b))
                        && (*var).varno == source
                        && is_equality_operator((*op).opno, a.cast());
                    let column = (*var).varattno;
                    let values = if pins {
                        values_of(subquery, column)
                    } else {
                        None
                    };
                    Some((op, place, column, values?))
                })?;
        let tests: Vec<*mut Node> = values
            .iter()
            .map(|value| {
                let op = node::copy(op);
                list::set((*op).args, place, node::copy(*value));
                op.cast::<Node>()
            })
            .collect();
        let any = match tests[..] {
            [only] => only,
            _ => {
                let or = pg_sys::BoolExprType::OR_EXPR;
                pg_sys::makeBoolExpr(or, list::from(tests), -1).cast()
            }
        };
        (*join).quals = expr::and((*join).quals, any);
        Some(Pinned {
            source,
            column,
            values,
        })
    }
}

/// The values that a column of `SELECT 1, 'x'` or of VALUES has, where they are the same for the whole statement. Several
/// are constants, and none is NULL.
unsafe fn values_of(subquery: *mut Query, column: i16) -> Option<Vec<*mut Node>> {
    unsafe {
        let plain = !subquery.is_null()
            && (*subquery).setOperations.is_null()
            && !(*subquery).hasTargetSRFs
            && !(*subquery).hasAggs;
        if !plain {
            return None;
        }
        let mut values =
            vec![
                (*list::nth::<pg_sys::TargetEntry>((*subquery).targetList, column as usize - 1))
                    .expr
                    .cast::<Node>(),
            ];
        let from = (*(*subquery).jointree).fromlist;
        if !from.is_null() {
            let [only] = list::iter::<Node>(from).collect::<Vec<_>>()[..] else {
                return None;
            };
            let lists = node::cast::<pg_sys::RangeTblRef>(only)
                .map(|reference| list::rt_fetch((*reference).rtindex, (*subquery).rtable))
                .filter(|rte| (**rte).rtekind == pg_sys::RTEKind::RTE_VALUES)?;
            let index = (*node::cast::<pg_sys::Var>(values[0])?).varattno as usize - 1;
            values = list::iter::<pg_sys::List>((*lists).values_lists)
                .map(|row| {
                    pg_sys::eval_const_expressions(std::ptr::null_mut(), list::nth(row, index))
                })
                .take(MOST_ROWS + 1)
                .collect();
        }
        let settled = |value: &*mut Node| {
            !pg_sys::contain_var_clause(*value)
                && !node::has_sublink(*value)
                && !pg_sys::contain_volatile_functions(*value)
        };
        let known = |value: &*mut Node| {
            node::cast::<pg_sys::Const>(*value).is_some_and(|value| !(*value).constisnull)
        };
        let all = match values.len() {
            1 => values.iter().all(settled),
            n => n <= MOST_ROWS && values.iter().all(known),
        };
        all.then_some(values)
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
