//! Duplicates among the rows in which a subquery of IN or EXISTS looks for one change nothing. Where statistics say that
//! there are many, the shards are asked for each once:
//!
//! ```sql
//! SELECT … FROM q WHERE NOT EXISTS (SELECT FROM l WHERE l.x = q.x AND l.n > 0)
//!
//! SELECT … FROM q WHERE NOT EXISTS (SELECT FROM (SELECT DISTINCT x FROM l WHERE l.n > 0) d WHERE d.x = q.x)
//! ```

use super::{proof, shape};
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::analysis::Analysis;
use crate::planner::pieces::{self, trees, Level, Place};
use crate::planner::{aggregate, estimate, locks, ship, split};
use pgrx::pg_sys::{self, CmdType, Node, NodeTag, Query, SubLinkType};

/// Leaves duplicates away in the subqueries of a level's WHERE clause.
///
/// # Safety
/// `query` is owned by the caller.
pub unsafe fn leave_away(query: *mut Query) -> Result<()> {
    unsafe {
        if (*query).jointree.is_null() || !(*query).hasSubLinks {
            return Ok(());
        }
        let mut sublinks: Vec<*mut pg_sys::SubLink> = Vec::new();
        node::walk((*query).jointree.cast(), &mut |item, _| {
            sublinks.extend(node::cast::<pg_sys::SubLink>(item));
            match node::tag(item) {
                NodeTag::T_Query => Step::Over,
                _ => Step::Into,
            }
        });
        for sublink in sublinks {
            match (*sublink).subLinkType {
                SubLinkType::ANY_SUBLINK => of_in(sublink)?,
                SubLinkType::EXISTS_SUBLINK => of_exists((*sublink).subselect.cast())?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Does the query read rows of distributed tables, and hand them on one by one?
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn gives_rows(query: *mut Query) -> bool {
    unsafe {
        (*query).commandType == CmdType::CMD_SELECT
            && locks::gives_table_rows(query)
            && (*query).windowClause.is_null()
            && (*query).limitCount.is_null()
            && (*query).limitOffset.is_null()
            && (*query).rowMarks.is_null()
            && (*query).cteList.is_null()
            && crate::planner::mentions_distributed(query)
            && !pg_sys::contain_volatile_functions(query.cast())
    }
}

/// `x IN (SELECT y …)` as `x IN (SELECT DISTINCT y …)`.
///
/// # Safety
/// `sublink` is a valid one of type ANY or ALL that the caller owns.
pub unsafe fn of_in(sublink: *mut pg_sys::SubLink) -> Result<()> {
    unsafe {
        let (query, test) = ((*sublink).subselect.cast::<Query>(), (*sublink).testexpr);
        if !gives_rows(query) || split::is_correlated(query) {
            return Ok(());
        }
        let targets: Vec<*mut pg_sys::TargetEntry> = list::iter((*query).targetList)
            .filter(|target: &*mut pg_sys::TargetEntry| !(**target).resjunk)
            .collect();
        let indifferent = targets.iter().all(|target| {
            proof::equality_suffices((**target).expr.cast(), &[test], &|item| {
                node::cast::<pg_sys::Param>(item).is_some_and(|param| {
                    (*param).paramkind == pg_sys::ParamKind::PARAM_SUBLINK
                        && (*param).paramid == i32::from((**target).resno)
                })
            })
        });
        if !indifferent {
            return Ok(());
        }
        let distinct: *mut Query = node::copy(query);
        (*distinct).sortClause = std::ptr::null_mut();
        (*distinct).targetList = list::from(targets.iter().map(|target| node::copy(*target)));
        if make_distinct(distinct)? {
            std::ptr::copy_nonoverlapping(distinct, query, 1);
        }
        Ok(())
    }
}

/// `EXISTS (SELECT … WHERE …)` as EXISTS over the distinct values of the columns that are compared with the rows around.
unsafe fn of_exists(query: *mut Query) -> Result<()> {
    unsafe {
        if !gives_rows(query) || (*query).hasSubLinks || !split::is_correlated(query) {
            return Ok(());
        }
        let changed: *mut Query = node::copy(query);
        (*changed).sortClause = std::ptr::null_mut();
        (*changed).targetList = split::targets(&[expr::int4(1).cast()]);
        let Some(mut level) = Level::of(changed)? else {
            return Ok(());
        };
        let items: Vec<usize> = (0..level.items.len()).collect();
        if !items.iter().all(|item| level.is_independent(*item)) {
            return Ok(());
        }
        let taken = level.take(&items)?;
        let indifferent = taken.units.iter().all(|column| {
            proof::equality_suffices(*column, &level.quals, &|item| {
                node::cast::<pg_sys::Var>(item)
                    .is_some_and(|var| (*var).varlevelsup == 0 && trees::same_column(*column, var))
            })
        });
        if !indifferent || taken.units.is_empty() || !make_distinct(taken.query)? {
            return Ok(());
        }
        level.put(trees::subquery_entry(taken.query), &taken, Place::Here);
        std::ptr::copy_nonoverlapping(changed, query, 1);
        Ok(())
    }
}

/// Has the query give each row once, where that saves much; false: it is as it was.
unsafe fn make_distinct(query: *mut Query) -> Result<bool> {
    unsafe {
        let columns: Vec<*mut pg_sys::TargetEntry> = list::iter((*query).targetList).collect();
        let computed_there = columns.iter().all(|column| {
            let value: *mut Node = (**column).expr.cast();
            ship::obstacle(value).is_none() && ship::readable_type(pg_sys::exprType(value)).is_ok()
        });
        if !computed_there || !pieces::sendable(query)? {
            return Ok(false);
        }
        let analysis = Analysis::of(query)?;
        let Some(table) = analysis.distributed.first() else {
            return Ok(false);
        };
        let clauses = shape::clauses(&columns);
        (*query).groupClause = clauses;
        let (rows, groups) = estimate::grouping_of(query);
        (*query).groupClause = std::ptr::null_mut();
        let saves = aggregate::saves_half(rows, groups, estimate::node_count(&table.colocation));
        if saves {
            (*query).distinctClause = clauses;
        }
        Ok(saves)
    }
}
