//! What a leaf will return and cost: PostgreSQL's planner plans the leaf's query over the empty relations here, as if
//! they held the rows of all shards, with the statistics that ANALYZE brings. Nothing is kept of those plans.

use crate::catalog::{self, TableKind};
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{list, node};
use crate::planner::leaf;
use crate::planner::plan::Kind;
use crate::planner::remote::Remote;
use pgrx::pg_sys::{self, Node, NodeTag, Oid, Query, RTEKind};
use std::cell::Cell;

/// A leaf's rows, as its reader receives them.
#[derive(Debug, Clone, Default)]
pub struct Estimate {
    pub rows: f64,
    /// Average bytes of each column.
    pub widths: Vec<i32>,
    /// The table column that each column shows unchanged, for its statistics.
    pub origins: Vec<Option<Origin>>,
    /// Cost on the nodes until the first row, and until the last.
    pub startup: f64,
    pub total: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub relid: Oid,
    pub attnum: i16,
    /// May any operator see the statistics? Not where policies hide rows.
    pub all_visible: bool,
}

thread_local! {
    /// PostgreSQL's planner runs for an estimate: relations are what they seem.
    static ESTIMATING: Cell<bool> = const { Cell::new(false) };
}

/// Does PostgreSQL's planner run for an estimate only?
pub fn under_way() -> bool {
    ESTIMATING.get()
}

struct Flag(bool);

impl Flag {
    fn raise() -> Flag {
        Flag(ESTIMATING.replace(true))
    }
}

/// A statement is planned to be run, perhaps by a function that an estimate evaluates. Until the value is dropped
/// relations are what they are.
pub fn in_earnest() -> impl Drop {
    Flag(ESTIMATING.replace(false))
}

impl Drop for Flag {
    fn drop(&mut self) {
        ESTIMATING.set(self.0);
    }
}

/// How many rows a query gives, over the rows of all shards.
///
/// # Safety
/// `query` is a valid Query without references to levels above it.
pub unsafe fn rows_of(query: *mut Query) -> f64 {
    unsafe { (*best_path(query)).rows }
}

/// Has PostgreSQL's planner plan a statement as if its tables were local, for the errors that it reports.
///
/// # Safety
/// `query` is a valid statement.
pub unsafe fn plan(query: *mut Query) {
    unsafe { with_planned(query, |_| ()) }
}

/// How many rows come into the grouping of a query, over the rows of all shards, and how many groups go out.
///
/// # Safety
/// As `rows_of`; the query groups.
pub unsafe fn grouping_of(query: *mut Query) -> (f64, f64) {
    unsafe {
        let path = best_path(query);
        (rows_below(path), (*path).rows)
    }
}

unsafe fn best_path(query: *mut Query) -> *mut pg_sys::Path {
    unsafe {
        with_planned(query, |planned| {
            let stage = pg_sys::UpperRelationKind::UPPERREL_FINAL;
            let rel = pg_sys::fetch_upper_rel(planned, stage, std::ptr::null_mut());
            (*rel).cheapest_total_path
        })
    }
}

/// The table columns that a query's columns show unchanged, for their statistics.
///
/// # Safety
/// As `rows_of`.
pub unsafe fn origins_of(query: *mut Query) -> Vec<Option<Origin>> {
    unsafe {
        with_planned(query, |planned| {
            list::iter::<pg_sys::TargetEntry>((*planned).processed_tlist)
                .map(|entry| origin_of(planned, (*entry).expr.cast(), false))
                .collect()
        })
    }
}

/// Has a copy of the query planned and looks at what the planner found.
unsafe fn with_planned<T>(
    query: *mut Query,
    look: impl FnOnce(*mut pg_sys::PlannerInfo) -> T,
) -> T {
    unsafe {
        let global = node::make::<pg_sys::PlannerGlobal>();
        (*global).maxParallelHazard = pg_sys::PROPARALLEL_UNSAFE as std::ffi::c_char;
        let copy = node::copy(query);
        give_sizes(copy, leaf::size_of);
        let flag = Flag::raise();
        let planned = pg_sys::subquery_planner(global, copy, std::ptr::null_mut(), false, 0.0);
        drop(flag);
        let found = look(planned);
        if !(*global).partition_directory.is_null() {
            pg_sys::DestroyPartitionDirectory((*global).partition_directory);
        }
        found
    }
}

/// More elements make no difference.
const MOST_ELEMENTS: f64 = 1_000_000.0;

/// Has `unnest` of parameters whose number of elements is known give as many rows: in their place come arrays of NULLs.
unsafe fn give_sizes(query: *mut Query, size: impl Fn(i32) -> Option<f64>) {
    unsafe {
        node::walk(query.cast(), &mut |item, _| {
            if let Some(call) = node::cast::<pg_sys::FuncExpr>(item)
                .filter(|call| (**call).funcid.to_u32() == pg_sys::F_UNNEST_ANYARRAY)
            {
                let array = list::nth::<Node>((*call).args, 0);
                let param = node::cast::<pg_sys::CollateExpr>(array)
                    .map_or(array, |collated| (*collated).arg.cast());
                let elements =
                    node::cast::<pg_sys::Param>(param).and_then(|param| size((*param).paramid));
                if let Some(elements) = elements {
                    list::set((*call).args, 0, nulls(pg_sys::exprType(array), elements));
                }
            }
            Step::Into
        });
    }
}

/// An array of so many NULLs.
unsafe fn nulls(array_type: Oid, elements: f64) -> *mut Node {
    unsafe {
        let element = pg_sys::get_element_type(array_type);
        let (mut length, mut by_value, mut align) = (0, false, 0);
        pg_sys::get_typlenbyvalalign(element, &mut length, &mut by_value, &mut align);
        let count = elements.clamp(1.0, MOST_ELEMENTS) as usize;
        let mut values = vec![pg_sys::Datum::from(0); count];
        let mut absent = vec![true; count];
        let array = pg_sys::construct_md_array(
            values.as_mut_ptr(),
            absent.as_mut_ptr(),
            1,
            &mut (count as i32),
            &mut 1,
            element,
            i32::from(length),
            by_value,
            align,
        );
        let collation = pg_sys::get_typcollation(array_type);
        let array = pg_sys::Datum::from(array);
        pg_sys::makeConst(array_type, -1, collation, -1, array, false, false).cast()
    }
}

/// Rows assumed to come back from a change.
const CHANGED_ROWS: f64 = 100.0;

/// A leaf that changes rows and returns them.
unsafe fn of_change(remote: &Remote) -> Estimate {
    let width = |(type_oid, typmod, _): &(Oid, i32, Oid)| unsafe {
        pg_sys::get_typavgwidth(*type_oid, *typmod)
    };
    Estimate {
        rows: CHANGED_ROWS,
        widths: remote.columns.iter().map(width).collect(),
        origins: vec![None; remote.columns.len()],
        startup: 0.0,
        total: CHANGED_ROWS,
    }
}

/// Estimates the leaf.
///
/// # Safety
/// `root` is the planner's, of the query that the leaf stands in.
pub unsafe fn of_leaf(root: *mut pg_sys::PlannerInfo, remote: &Remote) -> Result<Estimate> {
    unsafe {
        if remote.plan.part.is_some() {
            return Ok(of_change(remote));
        }
        let groups = catalog::colocation(remote.plan.colocation)?.groups.len() as f64;
        let routed = remote.plan.kind == Kind::Routed;
        let global = node::make::<pg_sys::PlannerGlobal>();
        (*global).boundParams = known_parameters(root, remote);
        (*global).maxParallelHazard = pg_sys::PROPARALLEL_UNSAFE as std::ffi::c_char;
        let query: *mut Query = node::copy(remote.query);
        give_sizes(query, |number| {
            let index = usize::try_from(number).ok()?.checked_sub(1)?;
            let value = remote.exprs.get(index)?;
            leaf::size_of((*node::cast::<pg_sys::Param>(*value)?).paramid)
        });
        let partial = !routed && spans_shards(query);
        let limited = !routed && !(*query).limitCount.is_null();
        let flag = Flag::raise();
        let planned = pg_sys::subquery_planner(global, query, std::ptr::null_mut(), false, 0.0);
        drop(flag);
        let rel = pg_sys::fetch_upper_rel(
            planned,
            pg_sys::UpperRelationKind::UPPERREL_FINAL,
            std::ptr::null_mut(),
        );
        let path = (*rel).cheapest_total_path;
        let mut rows = (*path).rows;
        if partial {
            // each shard (or node) answers with groups of its own, of no more rows than it has
            let parts = if remote.plan.over.is_some() {
                nodes_of(remote)?
            } else {
                groups
            };
            rows = (rows * parts).min(rows_below(path).max(parts));
        }
        let nodes = nodes_of(remote)?;
        if limited {
            rows *= nodes;
        }
        let mut estimate = Estimate {
            rows: rows.max(1.0),
            startup: (*path).startup_cost / nodes,
            total: (*path).total_cost / nodes,
            ..Estimate::default()
        };
        let entries = list::iter::<pg_sys::TargetEntry>((*planned).processed_tlist);
        for (entry, signature) in entries.zip(&remote.columns) {
            let source = source_of(planned, (*entry).expr.cast());
            estimate.widths.push(match source {
                Some((rel, attnum)) => width_of(rel, attnum, signature),
                None => pg_sys::get_typavgwidth(signature.0, signature.1),
            });
            let origin = origin_of(planned, (*entry).expr.cast(), partial);
            estimate.origins.push(origin);
        }
        estimate
            .widths
            .resize_with(remote.columns.len(), || UNKNOWN_WIDTH);
        if !(*global).partition_directory.is_null() {
            pg_sys::DestroyPartitionDirectory((*global).partition_directory);
        }
        Ok(estimate)
    }
}

const UNKNOWN_WIDTH: i32 = 32;

/// On how many nodes the leaf runs at the same time.
fn nodes_of(remote: &Remote) -> Result<f64> {
    if remote.plan.kind == Kind::Routed {
        return Ok(1.0);
    }
    let colocation = catalog::colocation(remote.plan.colocation)?;
    Ok(node_count(&colocation))
}

/// How many nodes have shard groups.
pub fn node_count(colocation: &catalog::Colocation) -> f64 {
    let mut nodes: Vec<_> = colocation.groups.iter().map(|group| group.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.len().max(1) as f64
}

/// The values of the leaf's parameters, as far as they are known while planning.
unsafe fn known_parameters(
    root: *mut pg_sys::PlannerInfo,
    remote: &Remote,
) -> pg_sys::ParamListInfo {
    unsafe {
        let count = remote.plan.params.len();
        if count == 0 {
            return std::ptr::null_mut();
        }
        let params = pg_sys::makeParamList(count as i32);
        for (index, expr) in remote.exprs.iter().take(count).enumerate() {
            let param = (*params).params.as_mut_ptr().add(index);
            // of no type: its value is not known
            std::ptr::write_bytes(param, 0, 1);
            let value = pg_sys::estimate_expression_value(root, node::copy(*expr));
            if let Some(constant) = node::cast::<pg_sys::Const>(value) {
                (*param).value = (*constant).constvalue;
                (*param).isnull = (*constant).constisnull;
                (*param).pflags = pg_sys::PARAM_FLAG_CONST as u16;
                (*param).ptype = (*constant).consttype;
            }
        }
        params
    }
}

/// Do groups of the query have parts on several shards?
unsafe fn spans_shards(query: *mut Query) -> bool {
    unsafe {
        let groups: Vec<*mut pg_sys::SortGroupClause> = if (*query).groupClause.is_null() {
            list::iter((*query).distinctClause).collect::<Vec<_>>()
        } else {
            list::iter((*query).groupClause).collect()
        };
        if groups.is_empty() {
            return (*query).hasAggs;
        }
        !groups.into_iter().any(|clause| {
            let expr = pg_sys::get_sortgroupclause_expr(clause, (*query).targetList);
            is_key(query, expr)
        })
    }
}

/// Is the expression a distribution column, perhaps one that a subquery hands on?
unsafe fn is_key(query: *mut Query, expr: *mut Node) -> bool {
    unsafe {
        let Some(var) = node::cast::<pg_sys::Var>(expr) else {
            return false;
        };
        if (*var).varlevelsup != 0 || (*var).varno <= 0 {
            return false;
        }
        let rte = list::rt_fetch((*var).varno, (*query).rtable);
        match (*rte).rtekind {
            RTEKind::RTE_RELATION => match catalog::table((*rte).relid) {
                Ok(Some(table)) => {
                    matches!(table.kind, TableKind::Distributed { key, .. } if key == (*var).varattno)
                }
                _ => false,
            },
            RTEKind::RTE_NAMEDTUPLESTORE => {
                super::moved::of_entry(rte).is_some_and(|moving| moving.key == (*var).varattno)
            }
            RTEKind::RTE_SUBQUERY if (*var).varattno > 0 => {
                let sub = (*rte).subquery;
                list::iter::<pg_sys::TargetEntry>((*sub).targetList)
                    .find(|entry| (**entry).resno == (*var).varattno)
                    .is_some_and(|entry| is_key(sub, (*entry).expr.cast()))
            }
            RTEKind::RTE_JOIN if (*var).varattno > 0 => {
                let aliases = (*rte).joinaliasvars;
                let index = (*var).varattno as usize - 1;
                index < list::len(aliases) && is_key(query, list::nth::<Node>(aliases, index))
            }
            _ => false,
        }
    }
}

/// Rows that come into the grouping at the top of a path.
unsafe fn rows_below(mut path: *mut pg_sys::Path) -> f64 {
    unsafe {
        loop {
            path = match (*path).type_ {
                NodeTag::T_ProjectionPath => (*path.cast::<pg_sys::ProjectionPath>()).subpath,
                NodeTag::T_SortPath => (*path.cast::<pg_sys::SortPath>()).subpath,
                NodeTag::T_LimitPath => (*path.cast::<pg_sys::LimitPath>()).subpath,
                NodeTag::T_AggPath => {
                    return (*(*path.cast::<pg_sys::AggPath>()).subpath).rows;
                }
                NodeTag::T_GroupPath => {
                    return (*(*path.cast::<pg_sys::GroupPath>()).subpath).rows;
                }
                NodeTag::T_GroupingSetsPath => {
                    return (*(*path.cast::<pg_sys::GroupingSetsPath>()).subpath).rows;
                }
                NodeTag::T_UpperUniquePath => {
                    return (*(*path.cast::<pg_sys::UpperUniquePath>()).subpath).rows;
                }
                _ => return (*path).rows,
            };
        }
    }
}

/// The base relation and column of the planner that an expression is.
unsafe fn source_of(
    root: *mut pg_sys::PlannerInfo,
    expr: *mut Node,
) -> Option<(*mut pg_sys::RelOptInfo, i16)> {
    unsafe {
        let var = node::cast::<pg_sys::Var>(expr)?;
        if (*var).varlevelsup != 0 || (*var).varno <= 0 || (*var).varattno <= 0 {
            return None;
        }
        if (*var).varno >= (*root).simple_rel_array_size {
            return None;
        }
        let rel = *(*root).simple_rel_array.add((*var).varno as usize);
        (!rel.is_null() && !(*rel).attr_widths.is_null() && (*var).varattno <= (*rel).max_attr)
            .then(|| (rel, (*var).varattno))
    }
}

unsafe fn width_of(rel: *mut pg_sys::RelOptInfo, attnum: i16, signature: &(Oid, i32, Oid)) -> i32 {
    unsafe {
        let width = *(*rel).attr_widths.add((attnum - (*rel).min_attr) as usize);
        if width > 0 {
            width
        } else {
            pg_sys::get_typavgwidth(signature.0, signature.1)
        }
    }
}

/// Follows a column down to the table whose column it is, as `examine_simple_variable` does. Groups of a query that
/// all shards have parts of (`partial`) are as many as their columns have values.
unsafe fn origin_of(
    mut root: *mut pg_sys::PlannerInfo,
    mut expr: *mut Node,
    mut partial: bool,
) -> Option<Origin> {
    unsafe {
        loop {
            let query = (*root).parse;
            let groups = !(*query).groupClause.is_null() || !(*query).distinctClause.is_null();
            if !(*query).setOperations.is_null()
                || !(*query).groupingSets.is_null()
                || (groups && !std::mem::take(&mut partial))
            {
                return None;
            }
            let (rel, attnum) = source_of(root, expr)?;
            let rte = *(*root).simple_rte_array.add((*rel).relid as usize);
            match (*rte).rtekind {
                RTEKind::RTE_RELATION => {
                    let user = match (*rte).checkAsUser {
                        pg_sys::InvalidOid => pg_sys::GetUserId(),
                        owner => owner,
                    };
                    let select = pg_sys::ACL_SELECT as pg_sys::AclMode;
                    let granted = pg_sys::pg_class_aclcheck((*rte).relid, user, select)
                        == pg_sys::AclResult::ACLCHECK_OK;
                    return Some(Origin {
                        relid: (*rte).relid,
                        attnum,
                        all_visible: granted && !has_policies((*rte).relid),
                    });
                }
                RTEKind::RTE_SUBQUERY => {
                    let subroot = (*rel).subroot;
                    if subroot.is_null() {
                        return None;
                    }
                    let entry = list::iter::<pg_sys::TargetEntry>((*(*subroot).parse).targetList)
                        .find(|entry| (**entry).resno == attnum)?;
                    root = subroot;
                    expr = (*entry).expr.cast();
                }
                _ => return None,
            }
        }
    }
}

unsafe fn has_policies(relid: Oid) -> bool {
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relid),
        );
        if tuple.is_null() {
            return true;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let secured = (*form).relrowsecurity;
        pg_sys::ReleaseSysCache(tuple);
        secured
    }
}

/// What `get_relation_info_hook` does for a distributed table: its size is that of its shards, as ANALYZE left it in
/// `pg_class`, not that of the empty relation here.
///
/// # Safety
/// Called by the hook with PostgreSQL's own arguments.
pub unsafe fn set_size(relid: Oid, rel: *mut pg_sys::RelOptInfo) -> Result<()> {
    unsafe {
        let distributed = match catalog::table(relid)? {
            Some(table) => matches!(table.kind, TableKind::Distributed { .. }),
            None => false,
        };
        if !distributed {
            return Ok(());
        }
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relid),
        );
        if tuple.is_null() {
            return Ok(());
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let (rows, pages) = (f64::from((*form).reltuples), (*form).relpages as u32);
        let visible = f64::from((*form).relallvisible as u32);
        pg_sys::ReleaseSysCache(tuple);
        if rows <= 0.0 {
            suppose_rows(relid, rel);
            return Ok(());
        }
        (*rel).tuples = rows;
        (*rel).pages = pages.max(1);
        (*rel).allvisfrac = (visible / f64::from((*rel).pages)).min(1.0);
        for index in list::iter::<pg_sys::IndexOptInfo>((*rel).indexlist) {
            set_index_size(index, rows);
        }
        Ok(())
    }
}

/// The size of a table whose statistics know of no rows: it may have got some, or PostgreSQL's autovacuum has looked at the
/// relation here, which is empty. What PostgreSQL takes for a table that was never analysed (`table_block_relation_estimate_size`).
unsafe fn suppose_rows(relid: Oid, rel: *mut pg_sys::RelOptInfo) {
    const PAGES: u32 = 10;
    const PAGE_HEADER: u32 = 24;
    const TUPLE_HEADER_AND_POINTER: i32 = 24 + 4;
    unsafe {
        let data = pg_sys::get_relation_data_width(relid, std::ptr::null_mut());
        let of_page = (pg_sys::BLCKSZ - PAGE_HEADER) as i32 / (data + TUPLE_HEADER_AND_POINTER);
        (*rel).pages = PAGES;
        (*rel).tuples = f64::from(PAGES) * f64::from(of_page).max(1.0);
    }
}

/// Entries of an index on a page, roughly.
const ENTRIES_PER_PAGE: f64 = 200.0;

unsafe fn set_index_size(index: *mut pg_sys::IndexOptInfo, rows: f64) {
    unsafe {
        (*index).tuples = rows;
        (*index).pages = (rows / ENTRIES_PER_PAGE).ceil() as u32;
        if (*index).relam == pg_sys::BTREE_AM_OID {
            (*index).tree_height = rows.log(ENTRIES_PER_PAGE).ceil() as i32 - 1;
        }
    }
}

/// What `get_relation_stats_hook` does for a column of a leaf: the statistics of the table column behind it.
///
/// # Safety
/// `data` is the hook's; it takes over the statistics.
pub unsafe fn give_statistics(origin: &Origin, data: *mut pg_sys::VariableStatData) {
    unsafe {
        (*data).statsTuple = pg_sys::SearchSysCache3(
            pg_sys::SysCacheIdentifier::STATRELATTINH as i32,
            origin.relid.into(),
            origin.attnum.into(),
            false.into(),
        );
        (*data).freefunc = Some(release);
        (*data).acl_ok = origin.all_visible;
    }
}

/// # Safety
/// A tuple of a syscache, or null.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn release(tuple: pg_sys::HeapTuple) {
    if !tuple.is_null() {
        // SAFETY: it came from SearchSysCache3.
        unsafe { pg_sys::ReleaseSysCache(tuple) }
    }
}
