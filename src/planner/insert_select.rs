//! INSERT … SELECT whose rows stay in their shard groups: the whole statement runs on every one that it reads.

use crate::catalog::Colocation;
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::analysis::Analysis;
use crate::planner::remote::{self, Order};
use crate::planner::{conflict, insert, modify, route, ship, split, statement};
use pgrx::pg_sys::{self, Node, NodeTag, PlannedStmt, Query, RTEKind};

/// The plan, or None when rows have to travel or something has to be computed here.
///
/// # Safety
/// `query` is an INSERT into a distributed table.
pub unsafe fn pushed(
    query: *mut Query,
    key: i16,
    colocation: &Colocation,
) -> Result<Option<*mut PlannedStmt>> {
    unsafe {
        let Some(source) = subquery_of(query) else {
            return Ok(None);
        };
        let (select, attributes) = insert::source(query);
        let Some(key) = attributes.iter().position(|attno| *attno == key) else {
            return Ok(None);
        };
        let key = list::nth::<pg_sys::TargetEntry>((*select).targetList, key);
        let analysis = Analysis::of(select)?;
        let Some(route) = route::route(&analysis)? else {
            return Ok(None);
        };
        // RETURNING gives rows as they were inserted, and many shard groups would not keep their order
        let sorted = (*list::rt_fetch(source, (*query).rtable)).subquery;
        let in_order =
            !route.single && !(*sorted).sortClause.is_null() && !(*query).returningList.is_null();
        let scattered = !route.single && analysis.scatter_obstacle().is_some();
        let computed_here = split::obstacle_below(select).is_some()
            || ship::obstacle((*select).targetList.cast()).is_some()
            || list::iter::<pg_sys::TargetEntry>((*select).targetList).any(|entry| {
                let value = (*entry).expr.cast();
                node::has_sublink(value) || assigns_part(value)
            });
        if route.colocation.id != colocation.id
            || route.colocation.groups.is_empty()
            || analysis.local.is_some()
            || scattered
            || analysis.has_other_rows
            || in_order
            || computed_here
            || !analysis.contains_key(select, &[(*key).expr.cast()])
        {
            return Ok(None);
        }
        let copy: *mut Query = node::copy(query);
        if insert::clauses_obstacle(copy)?.is_some() {
            return Ok(None);
        }
        conflict::name_excluded(copy);
        let returning = modify::push_returning(copy)?;
        read_from(copy, source, select, &attributes);
        let remote = remote::finish(copy, &route, Order::default())?;
        statement::planned(query, remote, returning).map(Some)
    }
}

/// `INSERT INTO t (composite.field, array[1])`: that is no expression outside of a list of assignments.
///
/// # Safety
/// `value` is null or a valid expression or list.
pub unsafe fn assigns_part(value: *mut Node) -> bool {
    unsafe {
        node::walk(value, &mut |item, _| match node::tag(item) {
            NodeTag::T_FieldStore => Step::Stop,
            NodeTag::T_SubscriptingRef
                if !(*item.cast::<pg_sys::SubscriptingRef>())
                    .refassgnexpr
                    .is_null() =>
            {
                Step::Stop
            }
            _ => Step::Into,
        })
    }
}

/// The number of the subquery that is all that an INSERT reads.
unsafe fn subquery_of(query: *mut Query) -> Option<i32> {
    unsafe {
        let from = (*(*query).jointree).fromlist;
        if list::len(from) != 1
            || !(*(*query).jointree).quals.is_null()
            || (*query).hasTargetSRFs
            || !(*query).withCheckOptions.is_null()
        {
            return None;
        }
        let reference = node::cast::<pg_sys::RangeTblRef>(list::nth::<Node>(from, 0))?;
        let number = (*reference).rtindex;
        let rte = list::rt_fetch(number, (*query).rtable);
        ((*rte).rtekind == RTEKind::RTE_SUBQUERY).then_some(number)
    }
}

/// Lets the INSERT read `select`, which computes all columns that it names, in place of its subquery.
unsafe fn read_from(query: *mut Query, number: i32, select: *mut Query, attributes: &[i16]) {
    unsafe {
        let relid = insert::target_relid(query);
        let rte = list::rt_fetch(number, (*query).rtable);
        (*rte).subquery = select;
        // The select has taken the WITH clauses along.
        (*query).cteList = std::ptr::null_mut();
        (*query).override_ = pg_sys::OverridingKind::OVERRIDING_NOT_SET;
        let mut names = std::ptr::null_mut();
        let mut entries = Vec::new();
        for (index, entry) in list::iter::<pg_sys::TargetEntry>((*select).targetList).enumerate() {
            let column = index as i16 + 1;
            let name = node::pstrdup(&format!("c{column}"));
            (*entry).resname = name;
            (*entry).resjunk = false;
            names = pg_sys::lappend(names, pg_sys::makeString(pg_sys::pstrdup(name)).cast());
            let value = expr::var(number, column, expr::signature((*entry).expr.cast()));
            let attno = attributes[index];
            entries.push(pg_sys::makeTargetEntry(
                value.cast(),
                attno,
                pg_sys::get_attname(relid, attno, false),
                false,
            ));
        }
        (*(*rte).eref).colnames = names;
        if !(*rte).alias.is_null() {
            (*(*rte).alias).colnames = node::copy(names);
        }
        (*query).targetList = list::from(entries);
    }
}
