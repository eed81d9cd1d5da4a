//! Leaves in a coordinator query: a placeholder function in the range table while PostgreSQL plans, a custom scan
//! afterwards.

mod session;
mod table;

use crate::catalog::{self, TableKind};
use crate::error::{Error, Result};
use crate::pg::{expr, list, node};
use crate::planner::cursor;
use crate::planner::estimate::{self, Estimate};
use crate::planner::moved;
use crate::planner::remote::Remote;
use crate::planner::wrapped;
use pgrx::pg_sys::{self, Node, NodeTag, Oid, Query, RTEKind};
use pgrx::{pg_extern, pg_guard};
use session::Leaf;
pub use session::{
    add_change, add_finding, add_insert, add_lock, add_move, add_relation, change_count,
    finding_count, give_row_identity, insert_count, is_quiet, joined_because, lock_count,
    lock_optional_rows, locks_optional_rows, move_count, move_of, note_joined, note_sent,
    note_size, note_strength, read_as_others, read_row_identity, reads_as_others,
    reads_row_identity, sent_by, size_of, with_change, with_finding, with_insert, with_lock,
    Session,
};

/// Fails when a statement names a system column (other than `tableoid`) of its tables.
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn refuse_system_columns(query: *mut Query) -> Result<()> {
    if unsafe { reads_system_column(query) } {
        return Err(refused_system_column());
    }
    Ok(())
}

/// Does a statement name a system column (other than `tableoid`)?
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn reads_system_column(query: *mut Query) -> bool {
    unsafe {
        node::walk(
            query.cast(),
            &mut |item, _| match node::cast::<pg_sys::Var>(item) {
                Some(var)
                    if (*var).varattno < 0
                        && (*var).varattno as i32 != pg_sys::TableOidAttributeNumber =>
                {
                    node::Step::Stop
                }
                // `WHERE CURRENT OF`
                None if cursor::current_row(item).is_some() => node::Step::Over,
                _ => node::Step::Into,
            },
        )
    }
}

/// The error that says so.
pub fn refused_system_column() -> Error {
    Error::refused(
        "a system column of a distributed table means a row of one shard only",
        "Restrict the query to one value of the distribution column, or leave the system column out.",
    )
}

/// The range table entry that stands for a leaf until the path hook sees it.
///
/// # Safety
/// Called while planning; allocates in the planner's memory context.
pub unsafe fn placeholder(remote: Remote, sorted: bool) -> *mut pg_sys::RangeTblEntry {
    unsafe {
        let columns = remote.columns.clone();
        let names = remote.names.clone();
        let exprs: Vec<*mut Node> = remote.exprs.iter().map(|e| node::copy(*e)).collect();
        let number = session::add_leaf(remote, sorted);
        let mut arguments: Vec<*mut Node> = vec![expr::int4(number).cast()];
        arguments.extend(exprs);
        let call = pg_sys::makeFuncExpr(
            leaf_function(),
            pg_sys::RECORDOID,
            list::from(arguments),
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        );
        (*call).funcretset = true;
        let function = node::make::<pg_sys::RangeTblFunction>();
        (*function).funcexpr = call.cast();
        (*function).funccolcount = columns.len() as i32;
        let strings = || {
            list::from(
                names
                    .iter()
                    .map(|n| pg_sys::makeString(node::pstrdup(n)))
                    .collect::<Vec<_>>(),
            )
        };
        (*function).funccolnames = strings();
        (*function).funccoltypes = list::from_oids(columns.iter().map(|c| c.0));
        (*function).funccoltypmods = list::from_ints(columns.iter().map(|c| c.1));
        (*function).funccolcollations = list::from_oids(columns.iter().map(|c| c.2));
        let rte = node::make::<pg_sys::RangeTblEntry>();
        (*rte).rtekind = RTEKind::RTE_FUNCTION;
        (*rte).functions = list::from([function]);
        (*rte).inFromCl = true;
        let alias = node::make::<pg_sys::Alias>();
        (*alias).aliasname = node::pstrdup("remote");
        (*alias).colnames = strings();
        (*rte).eref = alias;
        (*rte).alias = node::copy(alias);
        rte
    }
}

/// Oid of `shard_ext.leaf`, the placeholder function.
///
/// # Safety
/// Reads catalogs.
pub unsafe fn leaf_function() -> Oid {
    unsafe {
        let name = list::from([
            pg_sys::makeString(node::pstrdup("shard_ext")),
            pg_sys::makeString(node::pstrdup("leaf")),
        ]);
        let argument = pg_sys::ANYOID;
        pg_sys::LookupFuncName(name, 1, &argument, false)
    }
}

#[pgrx::pg_schema]
mod shard_ext {
    use super::*;

    /// Stands for remote rows inside a plan; never runs. Takes the leaf's number and the values it sends.
    #[pg_extern(
        sql = "CREATE FUNCTION shard_ext.leaf(VARIADIC \"any\") RETURNS SETOF record LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
               COMMENT ON FUNCTION shard_ext.leaf(VARIADIC \"any\") IS 'placeholder of the planner for rows of worker nodes; cannot be called';
               REVOKE ALL ON FUNCTION shard_ext.leaf(VARIADIC \"any\") FROM PUBLIC;"
    )]
    fn leaf() {
        Error::new(
            crate::error::sqlstate::FEATURE_NOT_SUPPORTED,
            "shard_ext.leaf is a placeholder of the planner and cannot be called",
        )
        .raise()
    }
}

/// The number of the leaf that a range table entry stands for.
unsafe fn leaf_number(rte: *mut pg_sys::RangeTblEntry) -> Option<i32> {
    unsafe {
        if (*rte).rtekind != RTEKind::RTE_FUNCTION || list::len((*rte).functions) != 1 {
            return None;
        }
        let function = list::nth::<pg_sys::RangeTblFunction>((*rte).functions, 0);
        let call = node::cast::<pg_sys::FuncExpr>((*function).funcexpr)?;
        if !(*call).funcretset
            || (*call).funcresulttype != pg_sys::RECORDOID
            || (*call).args.is_null()
        {
            return None;
        }
        let constant = node::cast::<pg_sys::Const>(list::nth::<Node>((*call).args, 0))?;
        ((*call).funcid == leaf_function()).then(|| (*constant).constvalue.value() as i32)
    }
}

/// What `set_rel_pathlist_hook` does for a relation: ours get a custom path and nothing else.
///
/// # Safety
/// Called by the hook with PostgreSQL's own arguments.
pub unsafe fn set_paths(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rte: *mut pg_sys::RangeTblEntry,
) -> Result<()> {
    unsafe {
        if estimate::under_way() {
            return Ok(());
        }
        if let Some(wrapped) = wrapped::of(rte) {
            return wrapped::set_paths(rel, wrapped);
        }
        if (*rte).rtekind == RTEKind::RTE_FUNCTION {
            if let Some(leaf) = leaf_of(rte) {
                let estimate = leaf.estimate(root)?;
                resize(root, rel, estimate);
                let pathkeys = if leaf.sorted {
                    (*root).query_pathkeys
                } else {
                    std::ptr::null_mut()
                };
                let cost = NodeCost {
                    startup: estimate.startup,
                    total: estimate.total,
                    rows: estimate.rows,
                };
                add_custom_path(root, rel, &cost, pathkeys);
            }
            return Ok(());
        }
        // An arm of UNION ALL is a member of the whole.
        let is_scanned = matches!(
            (*rel).reloptkind,
            pg_sys::RelOptKind::RELOPT_BASEREL | pg_sys::RelOptKind::RELOPT_OTHER_MEMBER_REL
        );
        if (*rte).rtekind == RTEKind::RTE_RELATION && is_scanned {
            if let Some(table) = catalog::table((*rte).relid)? {
                if let TableKind::Distributed { colocation, .. } = &table.kind {
                    check_relation(root, rel)?;
                    let cost = NodeCost::of_local_paths(rel, estimate::node_count(colocation));
                    add_custom_path(root, rel, &cost, std::ptr::null_mut());
                }
            }
        }
        Ok(())
    }
}

/// From this many rows on, COPY costs less than single rows.
const BULK_ROWS: f64 = 10_000.0;

/// What a leaf of a single table cannot give.
unsafe fn check_relation(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
) -> Result<()> {
    unsafe {
        let parse = (*root).parse;
        if (*rel).relid as i32 == (*parse).resultRelation {
            return Err(Error::refused(
                "this statement changes a distributed table in a way that cannot be sent to its shards yet",
                "Name the distribution column in the WHERE clause, or read the rows first and change them by key.",
            ));
        }
        for mark in list::iter::<pg_sys::RowMarkClause>((*parse).rowMarks) {
            if (*mark).rti == (*rel).relid {
                return Err(Error::refused(
                    "FOR UPDATE and FOR SHARE over several shard groups are not supported yet",
                    "Restrict the query to one value of the distribution column.",
                ));
            }
        }
        Ok(())
    }
}

impl Leaf {
    unsafe fn estimate(&self, root: *mut pg_sys::PlannerInfo) -> Result<&Estimate> {
        if let Some(known) = self.estimate.get() {
            return Ok(known);
        }
        let estimate = unsafe { estimate::of_leaf(root, &self.remote)? };
        Ok(self.estimate.get_or_init(|| estimate))
    }
}

/// The leaf that a range table entry stands for.
unsafe fn leaf_of(rte: *mut pg_sys::RangeTblEntry) -> Option<Leaf> {
    unsafe {
        if session::none_planned() {
            return None;
        }
        session::leaf(leaf_number(rte)?)
    }
}

/// What `get_relation_stats_hook` does for a column of a leaf. True: the statistics, if any, are in `data`.
///
/// # Safety
/// Called by the hook with PostgreSQL's own arguments.
pub unsafe fn column_statistics(
    rte: *mut pg_sys::RangeTblEntry,
    attnum: i16,
    data: *mut pg_sys::VariableStatData,
) -> bool {
    unsafe {
        if attnum <= 0 {
            return false;
        }
        let index = attnum as usize - 1;
        let origin = match (*rte).rtekind {
            RTEKind::RTE_FUNCTION => leaf_of(rte).and_then(|leaf| {
                let origins = &leaf.estimate.get()?.origins;
                origins.get(index).copied().flatten()
            }),
            RTEKind::RTE_NAMEDTUPLESTORE => {
                moved::of_entry(rte).and_then(|moving| moving.origins.get(index).copied().flatten())
            }
            _ => return false,
        };
        match origin {
            Some(origin) => estimate::give_statistics(&origin, data),
            None => return false,
        }
        true
    }
}

/// The sizes of the function that stood for the leaf become the leaf's.
unsafe fn resize(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    estimate: &Estimate,
) {
    unsafe {
        (*rel).tuples = estimate.rows;
        for (index, width) in estimate.widths.iter().enumerate() {
            let place = index as i32 + 1 - i32::from((*rel).min_attr);
            if place >= 0 && index < (*rel).max_attr as usize {
                *(*rel).attr_widths.add(place as usize) = *width;
            }
        }
        pg_sys::set_baserel_size_estimates(root, rel);
    }
}

/// What the nodes spend, in the planner's units, and how many rows they send.
struct NodeCost {
    startup: f64,
    total: f64,
    rows: f64,
}

impl NodeCost {
    /// A node does what would be done here if the rows were here.
    unsafe fn of_local_paths(rel: *mut pg_sys::RelOptInfo, nodes: f64) -> NodeCost {
        unsafe {
            let least = |cost: fn(&pg_sys::Path) -> f64| {
                list::iter::<pg_sys::Path>((*rel).pathlist)
                    .filter(|path| (**path).param_info.is_null())
                    .map(|path| cost(&*path))
                    .fold(f64::INFINITY, f64::min)
            };
            let total = least(|path| path.total_cost);
            if !total.is_finite() {
                return NodeCost {
                    startup: 0.0,
                    total: 0.0,
                    rows: (*rel).rows,
                };
            }
            NodeCost {
                startup: least(|path| path.startup_cost).min(total) / nodes,
                total: total / nodes,
                rows: (*rel).rows,
            }
        }
    }
}

/// A round trip to a node with the parsing and planning there, in the planner's units. Not more than it is: PostgreSQL
/// takes costs that differ by less than a hundredth for equal, and this is part of all costs above.
const ROUND_TRIP_COST: f64 = 25.0;
/// To receive and decode a row, and a byte of it.
const ROW_COST: f64 = 0.02;
const BYTE_COST: f64 = 0.0003;

unsafe fn add_custom_path(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    cost: &NodeCost,
    pathkeys: *mut pg_sys::List,
) {
    unsafe {
        (*rel).pathlist = std::ptr::null_mut();
        (*rel).partial_pathlist = std::ptr::null_mut();
        (*rel).consider_parallel = false;
        (*rel).rows = (*rel).rows.max(1.0);
        let path =
            pg_sys::palloc0(std::mem::size_of::<pg_sys::CustomPath>()).cast::<pg_sys::CustomPath>();
        (*path).path.type_ = NodeTag::T_CustomPath;
        (*path).path.pathtype = NodeTag::T_CustomScan;
        (*path).path.parent = rel;
        (*path).path.pathtarget = (*rel).reltarget;
        (*path).path.param_info =
            pg_sys::get_baserel_parampathinfo(root, rel, (*rel).lateral_relids);
        (*path).path.rows = (*rel).rows;
        let width = f64::from((*(*rel).reltarget).width.max(0));
        let per_row = ROW_COST + width * BYTE_COST + (*rel).baserestrictcost.per_tuple;
        (*path).path.startup_cost = ROUND_TRIP_COST + cost.startup;
        (*path).path.total_cost =
            ROUND_TRIP_COST + cost.total.max(cost.startup) + cost.rows * per_row;
        (*path).path.pathkeys = pathkeys;
        (*path).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
        (*path).methods = &raw const PATH_METHODS.0;
        pg_sys::add_path(rel, path.cast());
    }
}

/// A table of callbacks, which PostgreSQL only reads.
pub struct Methods(pub pg_sys::CustomPathMethods);
// SAFETY: constant data, read by one backend.
unsafe impl Sync for Methods {}

static PATH_METHODS: Methods = Methods(pg_sys::CustomPathMethods {
    CustomName: c"shard_ext".as_ptr(),
    PlanCustomPath: Some(plan_custom_path),
    ReparameterizeCustomPathByChild: None,
});

#[pg_guard]
unsafe extern "C-unwind" fn plan_custom_path(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    _path: *mut pg_sys::CustomPath,
    tlist: *mut pg_sys::List,
    clauses: *mut pg_sys::List,
    _plans: *mut pg_sys::List,
) -> *mut pg_sys::Plan {
    // SAFETY: called by create_customscan_plan with its own arguments.
    match unsafe { plan_scan(root, rel, tlist, clauses) } {
        Ok(plan) => plan,
        Err(error) => error.raise(),
    }
}

unsafe fn plan_scan(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    tlist: *mut pg_sys::List,
    clauses: *mut pg_sys::List,
) -> Result<*mut pg_sys::Plan> {
    unsafe {
        let rti = (*rel).relid as i32;
        let rte = *(*root).simple_rte_array.add(rti as usize);
        let scan = node::make::<pg_sys::CustomScan>();
        (*scan).scan.plan.targetlist = tlist;
        (*scan).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
        (*scan).methods = crate::executor::scan_methods();
        if let Some(number) = leaf_number(rte) {
            let leaf =
                session::leaf(number).ok_or_else(|| Error::internal("a leaf without its plan"))?;
            let remote = leaf.remote;
            (*scan).scan.plan.qual = pg_sys::extract_actual_clauses(clauses, false);
            (*scan).custom_scan_tlist = scan_tlist(rti, &remote);
            // the planner has prepared the arguments: subqueries are plans, columns around the leaf parameters
            let function = list::nth::<pg_sys::RangeTblFunction>((*rte).functions, 0);
            let call = (*function).funcexpr.cast::<pg_sys::FuncExpr>();
            (*scan).custom_exprs = list::from(
                list::iter::<Node>((*call).args)
                    .skip(1)
                    .map(|e| node::copy(e))
                    .collect::<Vec<_>>(),
            );
            let mut plan = remote.plan.clone();
            plan.bulk |= plan.kind == crate::planner::plan::Kind::Scattered
                && plan.params.is_empty()
                && !plan.writes
                && plan.merge.is_empty()
                && (*rel).rows >= BULK_ROWS;
            (*scan).custom_private = plan.to_private()?;
            return Ok(scan.cast());
        }
        let table = catalog::table((*rte).relid)?
            .ok_or_else(|| Error::internal("a leaf that is no table of ours"))?;
        table::plan_relation(scan, rel, rte, &table, tlist, clauses)?;
        Ok(scan.cast())
    }
}

unsafe fn scan_tlist(rti: i32, remote: &Remote) -> *mut pg_sys::List {
    unsafe {
        list::from(
            remote
                .columns
                .iter()
                .enumerate()
                .map(|(index, signature)| {
                    let attno = index as i16 + 1;
                    let var = expr::var(rti, attno, *signature);
                    pg_sys::makeTargetEntry(
                        var.cast(),
                        attno,
                        node::pstrdup(&remote.names[index]),
                        false,
                    )
                })
                .collect::<Vec<_>>(),
        )
    }
}

/// ctid and xmin
pub fn is_row_identity(attno: i16) -> bool {
    matches!(
        i32::from(attno),
        pg_sys::SelfItemPointerAttributeNumber | pg_sys::MinTransactionIdAttributeNumber
    )
}

/// Makes the leaf the whole of a query level: `SELECT columns FROM leaf`, with names and sort references kept.
///
/// # Safety
/// `query` is owned by the caller; `entry` is a placeholder with a column per target entry.
pub unsafe fn from_leaf(query: *mut Query, entry: *mut pg_sys::RangeTblEntry, quals: *mut Node) {
    unsafe {
        (*entry).inFromCl = true;
        (*query).rtable = list::from([entry]);
        let reference = node::make::<pg_sys::RangeTblRef>();
        (*reference).rtindex = 1;
        (*query).jointree = pg_sys::makeFromExpr(list::from([reference]), quals);
        (*query).cteList = std::ptr::null_mut();
        (*query).hasModifyingCTE = false;
        (*query).hasRecursive = false;
        (*query).rowMarks = std::ptr::null_mut();
    }
}
