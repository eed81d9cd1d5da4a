//! Subqueries in expressions that read few rows, which are not on the shards of the rows around: the rows are sent there.
//! What the subquery says of both stays in it, so it may be of any kind.

use super::{level_estimate, send, travels};
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::analysis::Analysis;
use crate::planner::externals::Externals;
use crate::planner::pieces::{trees, Level};
use crate::planner::{ship, split};
use crate::settings::{self, JoinStrategy};
use pgrx::pg_sys::{self, CmdType, Node, NodeTag, Query, SubLink, SubLinkType};

/// So many rows are looked through for each row around.
const LOOKED_THROUGH: f64 = 100.0;

/// Sends the rows of such subqueries to the shards of the level's largest piece.
///
/// # Safety
/// The level's query is owned by the caller.
pub unsafe fn subqueries(level: &mut Level, externals: &mut Externals) -> Result<()> {
    unsafe {
        let strategy = settings::join_strategy();
        if matches!(strategy, JoinStrategy::Pull | JoinStrategy::Repartition) {
            return Ok(());
        }
        let mut found = Vec::new();
        let targets: *mut Node = (*level.query).targetList.cast();
        for tree in level.quals.iter().copied().chain([targets]) {
            node::walk(tree, &mut |item, _| match node::tag(item) {
                // what is evaluated only for some rows stays where it is
                NodeTag::T_CaseExpr | NodeTag::T_CoalesceExpr | NodeTag::T_Query => Step::Over,
                NodeTag::T_SubLink => {
                    found.push(item.cast::<SubLink>());
                    Step::Over
                }
                _ => Step::Into,
            });
        }
        if found.is_empty() {
            return Ok(());
        }
        let others = level
            .pieces
            .iter()
            .filter(|piece| !level.is_optional_alone(piece))
            .map(|piece| level_estimate(level, piece))
            .fold(0.0, f64::max);
        for sublink in found {
            if !level.runs_beside(sublink)? {
                send_rows(level.query, sublink, others, externals)?;
            }
        }
        Ok(())
    }
}

/// Sends the rows that a subquery reads, if they are few beside others and can be had without the level around.
unsafe fn send_rows(
    level: *mut Query,
    sublink: *mut SubLink,
    others: f64,
    externals: &mut Externals,
) -> Result<()> {
    unsafe {
        let subquery = (*sublink).subselect.cast::<Query>();
        let plain = (*subquery).commandType == CmdType::CMD_SELECT
            && (*subquery).cteList.is_null()
            && !pg_sys::contain_volatile_functions(subquery.cast())
            && ship::obstacle(subquery.cast()).is_none()
            && !split::reads_outer_cte(subquery);
        if !plain || !reads_elsewhere(subquery)? {
            return Ok(());
        }
        let Some(mut inner) = Level::of(subquery)? else {
            return Ok(());
        };
        let items: Vec<usize> = (0..inner.items.len()).collect();
        let apart = !items.is_empty()
            && items.iter().all(|item| inner.is_independent(*item))
            && !trees::refers_outside(inner.part(&items, true).cast());
        inner.rebuild();
        if !apart {
            return Ok(());
        }
        let rows = level_estimate(&inner, &items);
        let hashed = is_hashed(sublink, &inner.quals);
        let most = f64::from(settings::broadcast_rows()).min(others / 4.0);
        if rows > most
            || !hashed && rows > LOOKED_THROUGH
            || !inner.outputs(&items).into_iter().all(|unit| travels(unit))
        {
            return Ok(());
        }
        send(&mut inner, &items, rows, level, externals)
    }
}

/// Will PostgreSQL find what a row has to do with by a hash table? `quals` are the subquery's conditions.
unsafe fn is_hashed(sublink: *mut SubLink, quals: &[*mut Node]) -> bool {
    unsafe {
        let equal = |qual: *mut Node| {
            node::cast::<pg_sys::OpExpr>(qual).is_some_and(|test| {
                let left = list::nth::<Node>((*test).args, 0);
                list::len((*test).args) == 2
                    && pg_sys::op_hashjoinable((*test).opno, pg_sys::exprType(left))
            })
        };
        match (*sublink).subLinkType {
            SubLinkType::EXISTS_SUBLINK => quals
                .iter()
                .any(|qual| equal(*qual) && pg_sys::contain_vars_of_level(*qual, 1)),
            SubLinkType::ANY_SUBLINK => {
                !split::is_correlated((*sublink).subselect.cast())
                    && expr::conjuncts((*sublink).testexpr).into_iter().all(equal)
            }
            _ => false,
        }
    }
}

/// Does a subquery read what is not on every node?
unsafe fn reads_elsewhere(subquery: *mut Query) -> Result<bool> {
    unsafe {
        let analysis = Analysis::of(subquery)?;
        Ok(!analysis.distributed.is_empty() || analysis.local.is_some())
    }
}
