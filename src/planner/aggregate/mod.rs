//! Splits aggregation: the shards compute partial aggregates per group, a node combines those of its shard groups, the
//! coordinator those of the nodes. Comes in: a level of a query whose FROM can run on the shards. Goes out: the same
//! level over a leaf of partial results; or nothing, where an aggregate needs its rows.

mod above;
mod columns;
mod level;
mod recipe;
mod worth;

use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{list, node};
use crate::planner::analysis::Analysis;
use crate::planner::leaf;
use crate::planner::route::Route;
use crate::planner::ship::{self, Reason};
use crate::planner::split;
use level::Level;
use pgrx::pg_sys::{self, Aggref, Node, NodeTag, Query};
use worth::Worth;

pub use columns::group_clause;
pub use worth::saves_half;

/// Makes an aggregating level a leaf of partial aggregates below combining ones. None: this level's aggregates
/// do not all split; Some(None): done.
///
/// # Safety
/// `query` is owned by the caller; its FROM is tied and shippable, `analysis` and `route` are its own.
pub unsafe fn split(
    query: *mut Query,
    analysis: &Analysis,
    route: &Route,
) -> Result<Option<Option<Reason>>> {
    unsafe {
        if !aggregates(query) {
            return Ok(None);
        }
        let (shipped, kept) = split::split_quals((*(*query).jointree).quals);
        if !kept.is_empty() {
            return Ok(None);
        }
        let Some(level) = Level::of(query, analysis, route)? else {
            return Ok(None);
        };
        let inner: *mut Query = node::copy(query);
        split::strip_above(inner);
        (*(*inner).jointree).quals = split::conjunction(&shipped);
        let mut remote = columns::remote(&level, inner, route)?;
        match worth::of(&remote, route) {
            Worth::Nothing => return Ok(None),
            Worth::Groups { many } => remote.plan.serial = many,
        }
        let signatures = remote.columns.clone();
        let entry = leaf::placeholder(remote, false);
        let quals = level.put_above(query, &signatures)?;
        leaf::from_leaf(query, entry, quals);
        (*query).hasSubLinks = false;
        Ok(Some(None))
    }
}

/// The same for a level that says DISTINCT: its rows are groups.
///
/// # Safety
/// As `split`.
pub unsafe fn split_distinct(
    query: *mut Query,
    analysis: &Analysis,
    route: &Route,
) -> Result<Option<Option<Reason>>> {
    unsafe {
        let groups = !(*query).distinctClause.is_null()
            && !(*query).hasDistinctOn
            && !(*query).hasWindowFuncs
            && !(*query).hasTargetSRFs
            && !aggregates(query);
        if !groups {
            return Ok(None);
        }
        let distinct = std::mem::replace(&mut (*query).distinctClause, std::ptr::null_mut());
        (*query).groupClause = node::copy(distinct);
        let done = split(query, analysis, route)?;
        if done.is_none() {
            (*query).groupClause = std::ptr::null_mut();
            (*query).distinctClause = distinct;
        }
        Ok(done)
    }
}

/// Groups and arguments of aggregates that the shards can compute, where the rows themselves must come: they come
/// instead of the columns that they are made of. Where a FILTER fails an argument must not be computed.
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn argument_units(query: *mut Query) -> Vec<*mut Node> {
    unsafe {
        let mut units: Vec<*mut Node> = Vec::new();
        if !aggregates(query) {
            return units;
        }
        let mut add = |item: *mut Node| {
            let computed = !matches!(node::tag(item), NodeTag::T_Var | NodeTag::T_SubLink);
            if computed
                && ship::depends_on_rows(item)
                && ship::obstacle(item).is_none()
                && ship::readable_type(pg_sys::exprType(item)).is_ok()
                && !pg_sys::expression_returns_set(item)
                && !units.iter().any(|known| node::equal(*known, item))
            {
                units.push(item);
            }
        };
        for clause in list::iter::<pg_sys::SortGroupClause>((*query).groupClause) {
            add(pg_sys::get_sortgroupclause_expr(
                clause,
                (*query).targetList,
            ));
        }
        for tree in split::above(query) {
            node::walk(tree, &mut |item, _| match node::cast::<Aggref>(item) {
                Some(aggregate)
                    if (*aggregate).aggfilter.is_null() && (*aggregate).agglevelsup == 0 =>
                {
                    list::iter::<pg_sys::TargetEntry>((*aggregate).args)
                        .for_each(|entry| add((*entry).expr.cast()));
                    Step::Over
                }
                Some(_) => Step::Over,
                None if node::tag(item) == NodeTag::T_Query => Step::Over,
                None => Step::Into,
            });
        }
        units
    }
}

/// Does a subquery in an expression belong to the groups of a level, not to its rows? A group may have no row that could
/// bring its value.
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn has_subquery_of_groups(query: *mut Query) -> bool {
    unsafe {
        let groups: Vec<*mut Node> = list::iter::<pg_sys::SortGroupClause>((*query).groupClause)
            .map(|clause| pg_sys::get_sortgroupclause_expr(clause, (*query).targetList))
            .collect();
        aggregates(query)
            && split::above(query).into_iter().any(|tree| {
                node::walk(tree, &mut |item, _| match node::tag(item) {
                    _ if groups.iter().any(|group| node::equal(*group, item)) => Step::Over,
                    NodeTag::T_Aggref => Step::Over,
                    NodeTag::T_SubLink => Step::Stop,
                    _ => Step::Into,
                })
            })
    }
}

/// Does a level group its rows?
unsafe fn aggregates(query: *mut Query) -> bool {
    unsafe {
        (*query).hasAggs
            || !(*query).groupClause.is_null()
            || !(*query).groupingSets.is_null()
            || !(*query).havingQual.is_null()
    }
}

/// Does an aggregate of this level show the order of its rows (`array_agg(x)`), which a subquery in FROM has set?
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn shows_order_of_subquery(query: *mut Query) -> bool {
    unsafe { (*query).hasAggs && split::reads_sorted_subquery(query) && shows_order(query) }
}

unsafe fn shows_order(query: *mut Query) -> bool {
    unsafe {
        split::above(query).into_iter().any(|tree| {
            node::walk(tree, &mut |item, _| match node::cast::<Aggref>(item) {
                Some(aggregate)
                    if (*aggregate).aggorder.is_null()
                        && (*aggregate).aggkind as u8 == b'n'
                        && takes_order((*aggregate).aggfnoid) =>
                {
                    Step::Stop
                }
                _ => Step::Into,
            })
        })
    }
}

/// The aggregates whose result depends on the order of their input, and those that are not PostgreSQL's own.
unsafe fn takes_order(function: pg_sys::Oid) -> bool {
    unsafe {
        if !crate::pg::types::is_builtin(function) {
            return true;
        }
        let name = std::ffi::CStr::from_ptr(pg_sys::get_func_name(function)).to_string_lossy();
        name.ends_with("_agg") && !name.starts_with("range") || name == "xmlagg"
    }
}
