//! Correlated subqueries over tables that are not tied to those around them. PostgreSQL would run them once for each
//! row, each time a request to every shard. Instead the rows around are computed first (a WITH query), the distinct
//! values that the subquery depends on go to the shards of its tables as arrays, the shards answer for all of them
//! at once, and the answers are joined with the rows (unnesting by the dependent columns, after Neumann and Kemper,
//! "Unnesting arbitrary queries", 2015):
//!
//! ```sql
//! SELECT … FROM q WHERE q.v > (SELECT sum(l.n) FROM l WHERE l.x = q.x)
//!
//! WITH rows AS (SELECT … FROM q), keys AS (SELECT DISTINCT x FROM rows)
//! SELECT … FROM rows LEFT JOIN (SELECT k.x, sum(l.n) AS s FROM unnest(keys) k, l WHERE l.x = k.x GROUP BY k.x) d
//!     ON d.x = rows.x WHERE rows.v > d.s
//! ```
//!
//! It is right when equal values cannot be told apart, or are only compared, when the subquery finds nothing for NULL, and
//! when computing it for one row more than PostgreSQL would cannot raise an error. IN is EXISTS where only its truth
//! matters.

pub mod duplicates;
mod marks;
mod proof;
mod shape;

use crate::error::{Error, Result};
use crate::pg::{expr, list, node};
use crate::planner::externals::{self, Externals};
use crate::planner::pieces::{trees, Level, Place};
use crate::planner::{broadcast, estimate, split};
use crate::settings::{self, JoinStrategy};
use pgrx::pg_sys::{self, Node, NodeTag, Query};

pub use shape::{as_exists, wants_few_rows};

/// A subquery that is taken out.
struct Subquery {
    query: *mut Query,
    /// The columns around that it depends on.
    keys: Vec<*mut pg_sys::Var>,
    /// The aggregates in its value; none of EXISTS.
    aggregates: Vec<*mut pg_sys::Aggref>,
    exists: bool,
    /// It was IN: what was tested.
    test: Option<*mut Node>,
}

/// So few rows are looked up one by one.
const FEW_ROWS: f64 = 3.0;
/// More keys than this are not gathered.
const MOST_KEYS: f64 = 1_000_000.0;

/// Takes correlated subqueries out of the level where that is right and cheaper; true: the level is done.
///
/// # Safety
/// The level's query is owned by the caller.
pub unsafe fn subqueries(level: &mut Level, externals: &mut Externals) -> Result<bool> {
    unsafe {
        let query = level.query;
        if settings::join_strategy() == JoinStrategy::Pull
            || level.items.is_empty()
            || (*query).hasModifyingCTE
            || !node::has_sublink((*query).jointree.cast())
                && !node::has_sublink((*query).targetList.cast())
        {
            return Ok(false);
        }
        if pg_sys::contain_volatile_functions(query.cast()) || shape::wants_few_rows(query) {
            return Ok(false);
        }
        let mut found = Found {
            level,
            outer_rows: None,
            subqueries: Vec::new(),
        };
        let quals = found.level.quals.clone();
        let mut changed = Vec::new();
        for qual in &quals {
            changed.push(found.marked(*qual, true)?);
        }
        let in_output = shape::gives_all_rows(query);
        let targets = if in_output {
            found.marked((*query).targetList.cast(), false)?
        } else {
            (*query).targetList.cast()
        };
        let outer_rows = found.outer_rows.unwrap_or(1.0);
        let subqueries = std::mem::take(&mut found.subqueries);
        if subqueries.is_empty() {
            return Ok(false);
        }
        level.quals = changed;
        (*query).targetList = targets.cast();
        level.rebuild();
        take_apart(level, externals, &subqueries, outer_rows)?;
        Ok(true)
    }
}

/// Does a level of other tables have subqueries that may be taken out?
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn concerns(query: *mut Query) -> bool {
    unsafe {
        (*query).commandType == pg_sys::CmdType::CMD_SELECT
            && (*query).rowMarks.is_null()
            && (*query).hasSubLinks
            && !(*query).rtable.is_null()
    }
}

struct Found<'a> {
    level: &'a Level,
    /// Estimated once.
    outer_rows: Option<f64>,
    subqueries: Vec<Subquery>,
}

impl Found<'_> {
    /// `tree` with marks in the place of subqueries that can be taken out; with `filters` NULL is as good as false.
    unsafe fn marked(&mut self, tree: *mut Node, filters: bool) -> Result<*mut Node> {
        unsafe {
            if tree.is_null() {
                return Ok(tree);
            }
            if let Some(sublink) = node::cast::<pg_sys::SubLink>(tree) {
                return self.mark(sublink, filters);
            }
            // what is evaluated only for some rows stays where it is
            if matches!(
                node::tag(tree),
                NodeTag::T_CaseExpr
                    | NodeTag::T_CoalesceExpr
                    | NodeTag::T_Query
                    | NodeTag::T_Aggref
                    | NodeTag::T_WindowFunc
            ) {
                return Ok(tree);
            }
            let filters = filters
                && match node::cast::<pg_sys::BoolExpr>(tree) {
                    Some(joined) => (*joined).boolop != pg_sys::BoolExprType::NOT_EXPR,
                    None => node::tag(tree) == NodeTag::T_List,
                };
            let mut failure = None;
            let changed = node::map_children(tree, |child| match self.marked(child, filters) {
                Ok(child) => child,
                Err(error) => {
                    failure = Some(error);
                    child
                }
            });
            failure.map_or(Ok(changed), Err)
        }
    }

    unsafe fn mark(&mut self, sublink: *mut pg_sys::SubLink, filters: bool) -> Result<*mut Node> {
        unsafe {
            let unchanged = Ok(sublink.cast());
            let Some(subquery) = shape::subquery(sublink, filters) else {
                return unchanged;
            };
            let members = (0..self.level.items.len()).collect::<Vec<_>>();
            let members = self.level.members(&members);
            let ours = |key: &*mut pg_sys::Var| members.contains(&(**key).varno);
            if !subquery.keys.iter().all(ours)
                || !proof::is_right(&subquery)
                || self.level.runs_beside(sublink)?
                || !self.pays(&subquery)
            {
                return unchanged;
            }
            let (type_oid, _, collation) = expr::signature(sublink.cast());
            let number = self.subqueries.len();
            let mark = marks::mark(number, (type_oid, collation), &subquery.keys);
            self.subqueries.push(subquery);
            Ok(mark)
        }
    }

    /// Is it cheaper than PostgreSQL's ways: a request for each row, or a join with all rows of the subquery?
    unsafe fn pays(&mut self, subquery: &Subquery) -> bool {
        unsafe {
            let level = self.level;
            let outer = *self.outer_rows.get_or_insert_with(|| {
                let items: Vec<usize> = (0..level.items.len()).collect();
                broadcast::level_estimate(level, &items)
            });
            match settings::join_strategy() {
                JoinStrategy::Broadcast => return outer <= MOST_KEYS,
                // its rows move
                JoinStrategy::Repartition if subquery.exists => return false,
                _ => {}
            }
            if outer > MOST_KEYS {
                return false;
            }
            if !subquery.exists {
                return outer > FEW_ROWS || externals::reads_any(level.query.cast());
            }
            // one that PostgreSQL makes a join
            let inner = estimate::rows_of(shape::without_correlation(subquery.query));
            outer * 4.0 <= inner
        }
    }
}

/// The level's rows, about so many, become a WITH query, with which what the shards answer is joined.
unsafe fn take_apart(
    level: &mut Level,
    externals: &mut Externals,
    subqueries: &[Subquery],
    outer_rows: f64,
) -> Result<()> {
    unsafe {
        let query = level.query;
        let items: Vec<usize> = (0..level.items.len()).collect();
        let taken = level.take_here(&items)?;
        split::transform(taken.query)?;
        let rows_with = trees::with_query(taken.query);
        externals.add_with(query, rows_with);
        let entry = broadcast::with_entry(rows_with, 0);
        let item = level.put(entry, &taken, Place::Here);
        let mut from: *mut Node = level.items[item].node;
        let mut values = Vec::new();
        for (number, subquery) in subqueries.iter().enumerate() {
            let keys = marks::keys_of(query, number)
                .ok_or_else(|| Error::internal("a subquery without its mark"))?;
            let keys_with = trees::with_query(shape::distinct(rows_with, &keys));
            externals.add_with(query, keys_with);
            let answered = shape::answers(subquery, keys_with, outer_rows)?;
            let entry = trees::subquery_entry(answered);
            (*query).rtable = pg_sys::lappend((*query).rtable, entry.cast());
            let rtindex = list::len((*query).rtable) as i32;
            from = shape::left_join(query, from, rtindex, &keys);
            values.push(shape::value(subquery, rtindex, &keys));
        }
        marks::replace(query, &values);
        let quals = (*(*query).jointree).quals;
        (*query).jointree = pg_sys::makeFromExpr(list::from([from]), quals);
        Ok(())
    }
}
