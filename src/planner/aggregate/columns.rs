//! The leaf below a split level: what the shards send. Where they group, each arm of a node's UNION ALL gives rows, and
//! the node groups them once; else each shard group answers for itself.

use super::level::Level;
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node, types};
use crate::planner::remote::{self, Order, Remote};
use crate::planner::route::Route;
use crate::planner::ship;
use crate::planner::split;
use pgrx::pg_sys::{self, Aggref, Node, NodeTag, Oid, Query, RTEKind};

/// The remote query of a level; `inner` is a copy of it that has only FROM and WHERE.
pub unsafe fn remote(level: &Level, inner: *mut Query, route: &Route) -> Result<Remote> {
    unsafe {
        let units = units(level);
        if let Some(rows) = rows(level, route) {
            let below: *mut Query = node::copy(inner);
            (*below).targetList = split::targets(&rows);
            let over = over(&rows);
            let outputs: Vec<*mut Node> = units
                .iter()
                .map(|unit| split::replace(*unit, &rows, 0))
                .collect();
            (*over).targetList = split::targets(&outputs);
            group(level, over);
            if let Some(remote) = remote::finish_over(below, over, route)? {
                return Ok(remote);
            }
        }
        (*inner).targetList = split::targets(&units);
        group(level, inner);
        (*inner).havingQual = node::copy(level.having);
        remote::finish(inner, route, Order::default())
    }
}

/// The leaf's columns: groups, keys, which of the groupings, partial aggregates.
unsafe fn units(level: &Level) -> Vec<*mut Node> {
    unsafe {
        let mut units = level.group_columns();
        if level.has_sets() {
            let first_key = level.groups.len() + level.loose.len();
            let grouping = node::make::<pg_sys::GroupingFunc>();
            (*grouping).args = list::from(level.keys.iter().copied());
            (*grouping).refs =
                list::from_ints((0..level.keys.len()).map(|key| (first_key + key) as i32 + 1));
            (*grouping).location = -1;
            units.push(grouping.cast());
        }
        units.extend(level.partials());
        if units.is_empty() {
            // A level without groups and aggregates has one row, whatever there is below.
            units.push(count_of_rows().cast());
        }
        units
    }
}

unsafe fn count_of_rows() -> *mut Aggref {
    unsafe {
        let aggregate = node::make::<Aggref>();
        (*aggregate).aggfnoid = COUNT.into();
        (*aggregate).aggtype = pg_sys::INT8OID;
        (*aggregate).aggstar = true;
        (*aggregate).aggkind = b'n' as std::ffi::c_char;
        (*aggregate).aggno = -1;
        (*aggregate).aggtransno = -1;
        (*aggregate).location = -1;
        aggregate
    }
}

/// `count(*)`, by `pg_proc.dat`.
const COUNT: u32 = 2803;

/// What the arms give when the node groups above them: groups and keys, and the columns of the aggregates. None: each
/// shard group aggregates for itself.
unsafe fn rows(level: &Level, route: &Route) -> Option<Vec<*mut Node>> {
    unsafe {
        let mut rows = level.group_columns();
        if route.single || level.whole || rows.is_empty() {
            return None;
        }
        for partial in level.partials() {
            if filters_subquery(partial) || !split::collect_units(partial, &mut rows) {
                return None;
            }
        }
        let plain = |item: &*mut Node| {
            node::tag(*item) != NodeTag::T_Var || (*item.cast::<pg_sys::Var>()).varattno > 0
        };
        rows.iter()
            .all(|item| plain(item) && is_one_type_on_all_shards(pg_sys::exprType(*item)))
            .then_some(rows)
    }
}

/// Is a subquery evaluated only where a filter holds? In the arms it would be evaluated for every row.
unsafe fn filters_subquery(partial: *mut Node) -> bool {
    unsafe {
        let has_filter = node::walk(partial, &mut |item, _| match node::cast::<Aggref>(item) {
            Some(aggregate) if !(*aggregate).aggfilter.is_null() => Step::Stop,
            _ => Step::Into,
        });
        has_filter
            && node::walk(partial, &mut |item, _| match node::tag(item) {
                NodeTag::T_SubLink => Step::Stop,
                _ => Step::Into,
            })
    }
}

/// Rows of tables have a type per shard, anonymous ones none: they cannot go through UNION ALL.
unsafe fn is_one_type_on_all_shards(type_oid: Oid) -> bool {
    unsafe {
        let base = types::base_type(type_oid);
        let element = pg_sys::get_element_type(base);
        let scalar = if element == pg_sys::InvalidOid {
            base
        } else {
            types::base_type(element)
        };
        ship::readable_type(scalar).is_ok() && !pg_sys::type_is_rowtype(scalar)
    }
}

/// `SELECT … FROM shards`, the arms' rows.
unsafe fn over(rows: &[*mut Node]) -> *mut Query {
    unsafe {
        let rte = node::make::<pg_sys::RangeTblEntry>();
        (*rte).rtekind = RTEKind::RTE_CTE;
        (*rte).ctename = node::pstrdup(remote::SHARDS);
        (*rte).inFromCl = true;
        let signatures: Vec<(Oid, i32, Oid)> =
            rows.iter().map(|item| expr::signature(*item)).collect();
        (*rte).coltypes = list::from_oids(signatures.iter().map(|s| s.0));
        (*rte).coltypmods = list::from_ints(signatures.iter().map(|s| s.1));
        (*rte).colcollations = list::from_oids(signatures.iter().map(|s| s.2));
        let alias = node::make::<pg_sys::Alias>();
        (*alias).aliasname = node::pstrdup(remote::SHARDS);
        (*alias).colnames = list::from(
            (1..=rows.len())
                .map(|number| pg_sys::makeString(node::pstrdup(&remote::short_name(number))))
                .collect::<Vec<_>>(),
        );
        (*rte).eref = alias;
        let reference = node::make::<pg_sys::RangeTblRef>();
        (*reference).rtindex = 1;
        let query = node::make::<Query>();
        (*query).commandType = pg_sys::CmdType::CMD_SELECT;
        (*query).canSetTag = true;
        (*query).rtable = list::from([rte]);
        (*query).jointree = pg_sys::makeFromExpr(list::from([reference]), std::ptr::null_mut());
        query
    }
}

/// Groups a query whose first columns are the level's groups and keys.
unsafe fn group(level: &Level, query: *mut Query) {
    unsafe {
        let mut clauses = Vec::new();
        for (index, column) in level.group_columns().into_iter().enumerate() {
            let reference = index as u32 + 1;
            let entry = list::nth::<pg_sys::TargetEntry>((*query).targetList, index);
            (*entry).ressortgroupref = reference;
            clauses.push(group_clause(pg_sys::exprType(column), reference));
        }
        (*query).hasAggs = true;
        (*query).groupClause = list::from(clauses);
        if level.has_sets() {
            let sets = level.groupings().into_iter().map(|set| {
                let (kind, content) = if set.is_empty() {
                    let none = std::ptr::null_mut();
                    (pg_sys::GroupingSetKind::GROUPING_SET_EMPTY, none)
                } else {
                    let references = list::from_ints(set.iter().map(|index| *index as i32 + 1));
                    (pg_sys::GroupingSetKind::GROUPING_SET_SIMPLE, references)
                };
                pg_sys::makeGroupingSet(kind, content, -1)
            });
            let all = pg_sys::makeGroupingSet(
                pg_sys::GroupingSetKind::GROUPING_SET_SETS,
                list::from(sets.collect::<Vec<_>>()),
                -1,
            );
            (*query).groupingSets = list::from([all]);
        }
    }
}

/// GROUP BY a column by its type's default equality.
pub unsafe fn group_clause(type_oid: Oid, reference: u32) -> *mut pg_sys::SortGroupClause {
    unsafe {
        let flags =
            pg_sys::TYPECACHE_LT_OPR | pg_sys::TYPECACHE_EQ_OPR | pg_sys::TYPECACHE_HASH_PROC;
        let cache = pg_sys::lookup_type_cache(type_oid, flags as i32);
        let clause = node::make::<pg_sys::SortGroupClause>();
        (*clause).tleSortGroupRef = reference;
        (*clause).eqop = (*cache).eq_opr;
        (*clause).sortop = (*cache).lt_opr;
        (*clause).hashable = (*cache).hash_proc != pg_sys::InvalidOid;
        clause
    }
}
