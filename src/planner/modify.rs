//! UPDATE and DELETE on distributed tables, sent whole to one shard group or to all.

use crate::catalog::{self, TableKind};
use crate::error::{Error, Result};
use crate::pg::{list, node};
use crate::planner::analysis::Analysis;
use crate::planner::remote::{self, Order, Remote};
use crate::planner::{
    copies, merge, picked, pull, route, ship, split, statement, writing, Planner,
};
use pgrx::pg_sys::{self, CmdType, Node, PlannedStmt, Query};
use std::rc::Rc;

/// The table that a statement changes.
///
/// # Safety
/// `query` is an INSERT, UPDATE, DELETE or MERGE.
pub unsafe fn target(query: *mut Query) -> Result<Option<Rc<catalog::Table>>> {
    unsafe {
        let rte = list::rt_fetch((*query).resultRelation, (*query).rtable);
        catalog::table((*rte).relid)
    }
}

/// Plans UPDATE, DELETE or MERGE in which a distributed table is named.
///
/// # Safety
/// As `planner::plan`.
pub unsafe fn plan(query: *mut Query, standard: Planner) -> Result<*mut PlannedStmt> {
    unsafe {
        let Some(target) = target(query)? else {
            // A local table changed by what distributed tables say.
            return super::plan_select(query, standard);
        };
        if matches!(target.kind, TableKind::Reference) {
            return copies::plan(query, standard);
        }
        if (*query).commandType == CmdType::CMD_MERGE {
            return merge::plan(query, &target, standard);
        }
        match change(query, &target)? {
            Change::Pushed(remote, returning) => statement::planned(query, *remote, returning),
            Change::Pulled(reason) => pull::plan(query, &target, reason, standard),
            Change::Nothing => Ok(standard(query)),
        }
    }
}

/// How a distributed table is changed.
pub enum Change {
    /// By a remote statement, with what RETURNING computes here.
    Pushed(Box<Remote>, Option<*mut pg_sys::List>),
    /// Row by row, after they were read: the reason.
    Pulled(ship::Reason),
    /// There are no shards.
    Nothing,
}

/// How UPDATE or DELETE is done.
///
/// # Safety
/// `query` is a valid Query that changes the table.
pub unsafe fn change(query: *mut Query, target: &catalog::Table) -> Result<Change> {
    unsafe {
        let TableKind::Distributed { key, .. } = &target.kind else {
            return Err(Error::internal("shards of a table that is not distributed"));
        };
        let analysis = Analysis::of(query)?;
        let route = route::route(&analysis)?
            .ok_or_else(|| Error::internal("a distributed target without a route"))?;
        if route.colocation.groups.is_empty() {
            return Ok(Change::Nothing);
        }
        let pulled = |reason: String| Ok(Change::Pulled(reason));
        if let Some(reason) = analysis.local.clone() {
            return pulled(reason);
        }
        if !route.single {
            if let Some(reason) = analysis.scatter_obstacle() {
                return pulled(reason);
            }
        }
        let together = route.single || picked::compares_only(query);
        if let Some(reason) = obstacle_of(query, together) {
            return pulled(reason);
        }
        if !keeps_key(query, *key, &analysis) {
            return pulled("rows may move to other shards".into());
        }
        let copy: *mut Query = node::copy(query);
        // The table below an updatable view comes from the view's FROM; as the target it is not written there.
        let rte = list::rt_fetch((*copy).resultRelation, (*copy).rtable);
        (*rte).inFromCl = false;
        let (conditions, checks) = super::insert::row_checks(copy, (*copy).withCheckOptions)?;
        (*copy).withCheckOptions = std::ptr::null_mut();
        let (returning, conditions) = match push_returning_with(copy, conditions) {
            Ok(pushed) => pushed,
            Err(error) => return pulled(error.to_string()),
        };
        let order = Order::default();
        let mut remote = remote::finish(copy, &route, order)?;
        remote.exprs.extend(remote::own(conditions));
        remote.plan.checks = checks;
        Ok(Change::Pushed(Box::new(remote), returning))
    }
}

/// Why workers cannot evaluate what a statement says, or None. `together`: the rows whose system columns it names are in
/// one shard.
///
/// # Safety
/// `query` is a valid UPDATE, DELETE or MERGE.
pub unsafe fn obstacle_of(query: *mut Query, together: bool) -> Option<ship::Reason> {
    unsafe {
        let trees = [
            (*query).targetList.cast::<Node>(),
            (*query).mergeActionList.cast(),
            (*query).jointree.cast(),
            (*query).rtable.cast(),
            (*query).cteList.cast(),
        ];
        let mut obstacles = trees
            .map(|tree| obstacle_in(tree, query, together))
            .into_iter();
        obstacles.find_map(|found| found)
    }
}

/// `ship::obstacle` of everything a statement evaluates on workers; range table entries are not expressions.
unsafe fn obstacle_in(tree: *mut Node, query: *mut Query, together: bool) -> Option<ship::Reason> {
    unsafe {
        let obstacle = |tree: *mut Node| {
            if together {
                ship::obstacle_to_routing(tree)
            } else {
                ship::obstacle(tree)
            }
        };
        if tree == (*query).rtable.cast() {
            for rte in list::iter::<pg_sys::RangeTblEntry>((*query).rtable) {
                let found = [
                    obstacle((*rte).subquery.cast()),
                    obstacle((*rte).functions.cast()),
                    obstacle((*rte).values_lists.cast()),
                    obstacle((*rte).tablefunc.cast()),
                    obstacle((*rte).securityQuals.cast()),
                ];
                if let Some(reason) = found.into_iter().flatten().next() {
                    return Some(reason);
                }
            }
            return None;
        }
        obstacle(tree)
    }
}

/// An UPDATE may name the distribution column only to set it to what it is: `SET k = k`, or to the value that the
/// WHERE clause asks for, as frameworks do.
unsafe fn keeps_key(query: *mut Query, key: i16, analysis: &Analysis) -> bool {
    unsafe {
        if (*query).commandType != CmdType::CMD_UPDATE {
            return true;
        }
        let entry = list::iter::<pg_sys::TargetEntry>((*query).targetList)
            .find(|entry| !(**entry).resjunk && (**entry).resno == key);
        let Some(entry) = entry else { return true };
        let value = (*entry).expr.cast::<Node>();
        if let Some(var) = node::cast::<pg_sys::Var>(value) {
            if (*var).varno == (*query).resultRelation && (*var).varattno == key {
                return true;
            }
        }
        analysis.distributed.first().is_some_and(|table| {
            analysis
                .facts_about(table.key)
                .iter()
                .any(|fact| matches!(fact, super::analysis::Fact::Equal(asked) if node::equal(*asked, value)))
        })
    }
}

/// RETURNING computed here: the workers return the columns it needs. Answers the list over those columns; the
/// query's own list becomes the columns. None when there is no RETURNING.
///
/// # Safety
/// `query` is owned by the caller.
pub unsafe fn push_returning(query: *mut Query) -> Result<Option<*mut pg_sys::List>> {
    unsafe { Ok(push_returning_with(query, Vec::new())?.0) }
}

/// The same together with conditions on the new rows, which are computed here too; they come back over the columns
/// (Vars of INDEX_VAR).
unsafe fn push_returning_with(
    query: *mut Query,
    conditions: Vec<*mut Node>,
) -> Result<(Option<*mut pg_sys::List>, Vec<*mut Node>)> {
    unsafe {
        if (*query).returningList.is_null() && conditions.is_empty() {
            return Ok((None, conditions));
        }
        let list_of: *mut pg_sys::List = node::copy((*query).returningList);
        let mut units = Vec::new();
        let collected = split::collect_units(list_of.cast(), &mut units)
            && conditions
                .iter()
                .all(|condition| split::collect_units(*condition, &mut units));
        if !collected {
            return Err(Error::refused(
                "this subquery in RETURNING cannot be computed on the shards",
                "Run it as a statement of its own.",
            ));
        }
        for unit in &units {
            if let Some(reason) = ship::obstacle(*unit) {
                return Err(Error::refused(
                    "a value in RETURNING cannot be read from the shards",
                    "Leave it out.",
                )
                .detail(reason));
            }
        }
        if units.is_empty() {
            // RETURNING now(): a row each, of no column; a constant column keeps every protocol happy.
            units.push(crate::pg::expr::int4(1).cast());
        }
        (*query).returningList = split::targets(&units);
        let conditions = conditions
            .into_iter()
            .map(|condition| statement::to_index_vars(split::replace(condition, &units, 0), 1))
            .collect();
        let returning =
            (!list_of.is_null()).then(|| split::replace(list_of.cast(), &units, 0).cast());
        Ok((returning, conditions))
    }
}

/// A statement in which only reference tables are ours: reads are PostgreSQL's own business; writes go to all
/// copies. None: nothing to do.
///
/// # Safety
/// As `planner::plan`.
pub unsafe fn plan_reference(
    query: *mut Query,
    standard: Planner,
) -> Result<Option<*mut PlannedStmt>> {
    unsafe {
        if writing::concerns(query)? {
            return writing::plan(query, standard, plan_rest_of_reference).map(Some);
        }
        if (*query).commandType == CmdType::CMD_SELECT {
            return Ok(None);
        }
        if target(query)?.is_none() {
            return Ok(None);
        }
        copies::plan(query, standard).map(Some)
    }
}

/// What remains of such a statement when its WITH clauses have been taken care of.
unsafe fn plan_rest_of_reference(query: *mut Query, standard: Planner) -> Result<*mut PlannedStmt> {
    unsafe {
        if (*query).commandType == CmdType::CMD_SELECT || target(query)?.is_none() {
            return super::plan_select(query, standard);
        }
        copies::plan(query, standard)
    }
}

/// Why a data-modifying WITH clause cannot run inside a routed statement, or None when it can.
///
/// # Safety
/// `body` is the clause's Query.
pub unsafe fn with_clause_obstacle(body: *mut Query) -> Result<Option<ship::Reason>> {
    unsafe {
        let obstacle = |reason: &str| Ok(Some(reason.to_owned()));
        let Some(table) = target(body)? else {
            return obstacle("a WITH clause changes a table that is not distributed");
        };
        let TableKind::Distributed { key, .. } = &table.kind else {
            return obstacle("a WITH clause changes a reference table");
        };
        if !(*body).withCheckOptions.is_null() {
            return obstacle("a WITH clause changes a table with row security");
        }
        if (*body).commandType == CmdType::CMD_MERGE {
            return obstacle("a WITH clause merges");
        }
        if (*body).commandType == CmdType::CMD_UPDATE {
            let sets_key = list::iter::<pg_sys::TargetEntry>((*body).targetList)
                .any(|entry| !(*entry).resjunk && (*entry).resno == *key);
            if sets_key {
                return obstacle("a WITH clause changes the distribution column");
            }
        }
        Ok(None)
    }
}
