//! Leaves in a coordinator query: a placeholder function in the range table while PostgreSQL plans, a custom scan
//! afterwards. A distributed table that no larger leaf covers is a leaf of its own.

use crate::catalog::{self, Table, TableKind};
use crate::error::{Error, Result};
use crate::pg::{expr, list, node};
use crate::planner::analysis::Analysis;
use crate::planner::cursor;
use crate::planner::estimate::{self, Estimate};
use crate::planner::locks::Locking;
use crate::planner::moved::{self, Moving};
use crate::planner::plan::ModifyPlan;
use crate::planner::proposed::Finding;
use crate::planner::remote::{self, Order, Remote};
use crate::planner::route::{self, Route};
use crate::planner::ship;
use crate::planner::wrapped;
use crate::planner::writing::Inserting;
use pgrx::pg_sys::{self, Node, NodeTag, Oid, Query, RTEKind};
use pgrx::{pg_extern, pg_guard};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// One statement being planned: the leaves that its placeholders number.
#[derive(Default)]
pub struct Planning {
    leaves: Vec<Leaf>,
    /// Relations that leaves cover, for permission checks and invalidation.
    relations: Vec<*mut pg_sys::RangeTblEntry>,
    /// The statement.
    query: Option<*mut Query>,
    /// The levels whose rows are locked after they were read; their leaves give ctid and xmin.
    locks: Vec<Locking>,
    strength: Option<pg_sys::LockClauseStrength::Type>,
    reads_identity: bool,
    /// Locked rows may be missing: those of MERGE.
    optional_locks: bool,
    /// The policies of nodes must not be applied to what is read.
    as_others: bool,
    /// The subqueries whose rows a WITH clause inserts.
    inserts: Vec<Inserting>,
    /// What happens to the rows that WITH clauses read before they change them.
    changes: Vec<ModifyPlan>,
    /// Rows whose conflicts are looked for.
    findings: Vec<Finding>,
    /// Rows that go to tables beside shards.
    moves: Vec<Rc<Moving>>,
    /// What stands for values that are sent to shards, by number, and what EXPLAIN says of them.
    sent: Vec<(i32, String)>,
    /// Tables by id and alias whose rows are joined here, and why.
    joined: Vec<(Vec<(Oid, String)>, String)>,
    /// The statement writes nothing, and nothing that it calls could.
    quiet: bool,
    /// The next to start a session shares this one.
    shared: bool,
    /// About how many elements arrays have that are sent to shards, by the numbers that stand for them.
    sizes: HashMap<i32, f64>,
}

#[derive(Clone)]
struct Leaf {
    remote: Rc<Remote>,
    /// Made when it is first asked for.
    estimate: Rc<OnceCell<Estimate>>,
    /// The rows come in the order that the query around the leaf asks for.
    sorted: bool,
}

thread_local! {
    static PLANNING: RefCell<Vec<Planning>> = const { RefCell::new(Vec::new()) };
}

/// Runs PostgreSQL's planner with the leaves of one statement at hand.
pub struct Session {
    shares: bool,
}

impl Session {
    pub fn start(query: *mut Query) -> Session {
        let shared = current(|planning| std::mem::replace(&mut planning.shared, false));
        if shared == Some(true) {
            return Session { shares: true };
        }
        let planning = Planning {
            query: Some(query),
            // SAFETY: the statement is valid.
            quiet: unsafe { moved::is_quiet(query) },
            ..Planning::default()
        };
        PLANNING.with(|stack| stack.borrow_mut().push(planning));
        Session { shares: false }
    }

    /// One that the next `start` goes on with.
    pub fn share(query: *mut Query) -> Session {
        let session = Session::start(query);
        current(|planning| planning.shared = true);
        session
    }

    /// How the statement locks rows of distributed tables.
    pub fn lock_strength(&self) -> Option<pg_sys::LockClauseStrength::Type> {
        current(|planning| planning.strength).flatten()
    }

    /// The relations that leaves cover.
    pub fn relations(&self) -> Vec<*mut pg_sys::RangeTblEntry> {
        PLANNING.with(|stack| {
            stack
                .borrow()
                .last()
                .map(|p| p.relations.clone())
                .unwrap_or_default()
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.shares {
            PLANNING.with(|stack| stack.borrow_mut().pop());
        }
    }
}

fn current<T>(ask: impl FnOnce(&mut Planning) -> T) -> Option<T> {
    PLANNING.with(|stack| stack.borrow_mut().last_mut().map(ask))
}

/// A relation that no leaf reads, but whose permissions are to be checked.
///
/// # Safety
/// `rte` is its entry.
pub unsafe fn add_relation(rte: *mut pg_sys::RangeTblEntry) {
    let copy = unsafe { remote::relation_entry(rte) };
    current(|planning| planning.relations.push(copy));
}

/// How many levels of the statement lock rows that were read before.
pub fn lock_count() -> usize {
    current(|planning| planning.locks.len()).unwrap_or(0)
}

pub fn add_lock(locking: Locking) {
    current(|planning| planning.locks.push(locking));
}

pub fn note_strength(strength: pg_sys::LockClauseStrength::Type) {
    current(|planning| planning.strength = planning.strength.max(Some(strength)));
}

/// Nodes must not apply their policies to the statement's rows.
pub fn read_as_others() {
    current(|planning| planning.as_others = true);
}

pub fn reads_as_others() -> bool {
    current(|planning| planning.as_others).unwrap_or(false)
}

/// The lock of this number.
pub fn with_lock<T>(number: usize, ask: impl FnOnce(&Locking) -> Result<T>) -> Result<T> {
    current(|planning| planning.locks.get(number).map(ask))
        .flatten()
        .unwrap_or_else(|| Err(Error::internal("a lock without its plan")))
}

/// How many WITH clauses insert rows of a subquery.
pub fn insert_count() -> usize {
    current(|planning| planning.inserts.len()).unwrap_or(0)
}

pub fn add_insert(inserting: Inserting) {
    current(|planning| planning.inserts.push(inserting));
}

/// The insert of this number.
pub fn with_insert<T>(number: usize, ask: impl FnOnce(&Inserting) -> Result<T>) -> Result<T> {
    current(|planning| planning.inserts.get(number).map(ask))
        .flatten()
        .unwrap_or_else(|| Err(Error::internal("an insert without its plan")))
}

/// How many WITH clauses read rows before they change them.
pub fn change_count() -> usize {
    current(|planning| planning.changes.len()).unwrap_or(0)
}

pub fn add_change(plan: ModifyPlan) {
    current(|planning| planning.changes.push(plan));
}

/// The change of this number.
pub fn with_change<T>(number: usize, ask: impl FnOnce(&ModifyPlan) -> Result<T>) -> Result<T> {
    current(|planning| planning.changes.get(number).map(ask))
        .flatten()
        .unwrap_or_else(|| Err(Error::internal("a change without its plan")))
}

/// How many sets of rows the statement looks for conflicts of.
pub fn finding_count() -> usize {
    current(|planning| planning.findings.len()).unwrap_or(0)
}

pub fn add_finding(finding: Finding) {
    current(|planning| planning.findings.push(finding));
}

/// The set of this number.
pub fn with_finding<T>(number: usize, ask: impl FnOnce(&Finding) -> Result<T>) -> Result<T> {
    current(|planning| planning.findings.get(number).map(ask))
        .flatten()
        .unwrap_or_else(|| Err(Error::internal("a look for conflicts without its plan")))
}

/// How many sets of rows the statement moves.
pub fn move_count() -> usize {
    current(|planning| planning.moves.len()).unwrap_or(0)
}

pub fn add_move(moving: Moving) {
    current(|planning| planning.moves.push(Rc::new(moving)));
}

/// The move of this number.
pub fn move_of(number: usize) -> Option<Rc<Moving>> {
    current(|planning| planning.moves.get(number).cloned()).flatten()
}

/// Remembers how many elements the array of this number is expected to have.
pub fn note_size(number: i32, elements: f64) {
    current(|planning| planning.sizes.insert(number, elements));
}

/// What is known of the number of elements of what this number stands for.
pub fn size_of(number: i32) -> Option<f64> {
    current(|planning| planning.sizes.get(&number).copied()).flatten()
}

/// Says what is sent by the parameters in a tree.
///
/// # Safety
/// `tree` is valid.
pub unsafe fn note_sent(tree: *mut Node, text: &str) {
    unsafe {
        let mut numbers = Vec::new();
        node::walk(tree, &mut |item, _| {
            if let Some(param) = node::cast::<pg_sys::Param>(item) {
                numbers.push((*param).paramid);
            }
            node::Step::Into
        });
        current(|planning| {
            let sent = numbers.into_iter().map(|number| (number, text.to_owned()));
            planning.sent.extend(sent);
        });
    }
}

/// What is sent by the parameters in expressions, each thing once.
///
/// # Safety
/// They are valid expressions.
pub unsafe fn sent_by(exprs: &[*mut Node]) -> Vec<String> {
    unsafe {
        let mut found: Vec<String> = Vec::new();
        for tree in exprs {
            node::walk(*tree, &mut |item, _| {
                if let Some(param) = node::cast::<pg_sys::Param>(item) {
                    let number = (*param).paramid;
                    current(|planning| {
                        // numbers are used again some time
                        let known = planning
                            .sent
                            .iter()
                            .rev()
                            .find(|(known, _)| *known == number);
                        if let Some((_, text)) = known.filter(|(_, text)| !found.contains(text)) {
                            found.push(text.clone());
                        }
                    });
                }
                node::Step::Into
            });
        }
        found
    }
}

/// The rows of a level's tables are joined here.
///
/// # Safety
/// `level` is valid.
pub unsafe fn note_joined(level: *mut Query, why: String) {
    unsafe {
        let mut tables = Vec::new();
        node::walk(level.cast(), &mut |item, _| {
            if let Some(sub) = node::cast::<Query>(item) {
                tables.extend(list::iter((*sub).rtable).filter_map(|entry| table_and_alias(entry)));
            }
            node::Step::Into
        });
        current(|planning| planning.joined.push((tables, why)));
    }
}

/// Why the rows of some entries are joined here, if they are.
///
/// # Safety
/// They are valid.
pub unsafe fn joined_because(entries: &[*mut pg_sys::RangeTblEntry]) -> Option<String> {
    unsafe {
        let tables: Vec<_> = entries
            .iter()
            .filter_map(|entry| table_and_alias(*entry))
            .collect();
        current(|planning| {
            // levels inside are looked at after those around them
            let mut joined = planning.joined.iter().rev();
            joined
                .find(|(known, _)| tables.iter().any(|table| known.contains(table)))
                .map(|(_, why)| why.clone())
        })
        .flatten()
    }
}

unsafe fn table_and_alias(entry: *mut pg_sys::RangeTblEntry) -> Option<(Oid, String)> {
    unsafe {
        ((*entry).rtekind == RTEKind::RTE_RELATION).then(|| {
            let alias = std::ffi::CStr::from_ptr((*(*entry).eref).aliasname);
            ((*entry).relid, alias.to_string_lossy().into_owned())
        })
    }
}

/// May nothing in the statement write?
pub fn is_quiet() -> bool {
    current(|planning| planning.quiet).unwrap_or(false)
}

/// From now on leaves give ctid and xmin where they are asked for; fails when the statement itself asks.
///
/// # Safety
/// The statement of the session is valid.
pub unsafe fn read_row_identity() -> Result<()> {
    let Some((query, before)) = current(|planning| {
        let before = std::mem::replace(&mut planning.reads_identity, true);
        (planning.query, before)
    }) else {
        return Ok(());
    };
    match query {
        Some(query) if !before && unsafe { reads_system_column(query) } => {
            Err(refused_system_column())
        }
        _ => Ok(()),
    }
}

/// The same for a statement that was asked before, and that now reads ctid for the extension itself.
pub fn give_row_identity() {
    current(|planning| planning.reads_identity = true);
}

/// From now on locked rows may be on the side of an outer join that may be missing.
pub fn lock_optional_rows() {
    current(|planning| planning.optional_locks = true);
}

/// May they?
pub fn locks_optional_rows() -> bool {
    current(|planning| planning.optional_locks).unwrap_or(false)
}

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

/// May leaves give ctid and xmin, which are not the statement's own?
pub fn reads_row_identity() -> bool {
    current(|planning| planning.reads_identity).unwrap_or(false)
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

fn add_leaf(remote: Remote, sorted: bool) -> i32 {
    PLANNING.with(|stack| {
        let mut stack = stack.borrow_mut();
        let planning = match stack.last_mut() {
            Some(planning) => planning,
            None => return -1,
        };
        planning.relations.extend(remote.relations.iter().copied());
        planning.leaves.push(Leaf {
            remote: Rc::new(remote),
            estimate: Rc::default(),
            sorted,
        });
        planning.leaves.len() as i32 - 1
    })
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
        let number = add_leaf(remote, sorted);
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
        if PLANNING.with(|stack| stack.borrow().is_empty()) {
            return None;
        }
        let number = usize::try_from(leaf_number(rte)?).ok()?;
        PLANNING.with(|stack| stack.borrow().last()?.leaves.get(number).cloned())
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
            let remote = PLANNING
                .with(|stack| {
                    stack
                        .borrow()
                        .last()
                        .and_then(|p| p.leaves.get(number as usize).map(|l| l.remote.clone()))
                })
                .ok_or_else(|| Error::internal("a leaf without its plan"))?;
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
        plan_relation(scan, rel, rte, &table, tlist, clauses)?;
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

/// The leaf of one table: the conditions that PostgreSQL's planner pushed down to it, and the columns it needs.
unsafe fn plan_relation(
    scan: *mut pg_sys::CustomScan,
    rel: *mut pg_sys::RelOptInfo,
    rte: *mut pg_sys::RangeTblEntry,
    table: &Table,
    tlist: *mut pg_sys::List,
    clauses: *mut pg_sys::List,
) -> Result<()> {
    unsafe {
        let rti = (*rel).relid as i32;
        let mut kept = Vec::new();
        let mut shipped: *mut Node = std::ptr::null_mut();
        for info in list::iter::<pg_sys::RestrictInfo>(clauses) {
            if (*info).pseudoconstant {
                continue;
            }
            let clause = (*info).clause.cast::<Node>();
            // A condition that might leak rows must not run before those of row-level security.
            let secure =
                (*info).security_level <= (*rel).baserestrict_min_security || (*info).leakproof;
            if secure && clause_ships(clause, rti) {
                let clause = expr::with_collations(expr::renumbered(clause, rti, 1));
                shipped = expr::and(shipped, clause);
            } else {
                kept.push(clause);
            }
        }
        let kept = list::from(kept);
        // A projection put on the scan later sees what the relation was planned to give, not only `tlist`.
        let needed = [
            tlist.cast::<Node>(),
            kept.cast(),
            (*(*rel).reltarget).exprs.cast(),
        ];
        let columns = needed_columns(rti, needed)?;
        let entry: *mut pg_sys::RangeTblEntry = node::copy(rte);
        (*entry).securityQuals = std::ptr::null_mut();
        (*entry).inFromCl = true;
        let query = remote::select_from(entry, shipped, Some(&columns));
        let whole_row = whole_row_needed(rti, needed);
        if whole_row {
            let var = pg_sys::makeWholeRowVar(entry, 1, 0, false);
            let position = columns.len() as i16 + 1;
            (*query).targetList = pg_sys::lappend(
                (*query).targetList,
                pg_sys::makeTargetEntry(var.cast(), position, node::pstrdup("whole_row"), false)
                    .cast(),
            );
        }
        let analysis = Analysis::of(query)?;
        let route = route::route(&analysis)?.unwrap_or(everything(table)?);
        let order = Order::default();
        let mut finished = remote::finish(query, &route, order)?;
        finished.plan.bulk |= finished.plan.params.is_empty()
            && finished.plan.kind == crate::planner::plan::Kind::Scattered
            && (*rel).rows >= BULK_ROWS;
        let mut entries = Vec::new();
        for (index, attno) in columns
            .iter()
            .copied()
            .chain(whole_row.then_some(0))
            .enumerate()
        {
            let var = expr::var(rti, attno, finished.columns[index]);
            entries.push(pg_sys::makeTargetEntry(
                var.cast(),
                index as i16 + 1,
                node::pstrdup(&finished.names[index]),
                false,
            ));
        }
        (*scan).custom_scan_tlist = list::from(entries);
        (*scan).scan.plan.qual = kept;
        (*scan).custom_exprs = list::from(finished.exprs.iter().copied());
        (*scan).custom_private = finished.plan.to_private()?;
        Ok(())
    }
}

fn everything(table: &Table) -> Result<Route> {
    match &table.kind {
        TableKind::Distributed { colocation, .. } => Ok(Route {
            colocation: colocation.clone(),
            prune: crate::planner::plan::Prune::All,
            values: Vec::new(),
            single: false,
        }),
        TableKind::Reference => Err(Error::internal("a reference table is read where it is")),
    }
}

/// Only this relation's columns and parameters, and nothing that must run on the coordinator.
unsafe fn clause_ships(clause: *mut Node, rti: i32) -> bool {
    unsafe {
        let mut foreign = false;
        node::walk(clause, &mut |item, _| {
            let stop = match node::tag(item) {
                NodeTag::T_Var => {
                    (*item.cast::<pg_sys::Var>()).varno != rti
                        || (*item.cast::<pg_sys::Var>()).varlevelsup != 0
                }
                NodeTag::T_SubPlan
                | NodeTag::T_AlternativeSubPlan
                | NodeTag::T_SubLink
                | NodeTag::T_PlaceHolderVar => true,
                NodeTag::T_Param => !matches!(
                    (*item.cast::<pg_sys::Param>()).paramkind,
                    pg_sys::ParamKind::PARAM_EXTERN | pg_sys::ParamKind::PARAM_EXEC
                ),
                _ => false,
            };
            foreign |= stop;
            if stop {
                node::Step::Stop
            } else {
                node::Step::Into
            }
        });
        !foreign && ship::obstacle(clause).is_none() && !mentions_whole_row(clause)
    }
}

unsafe fn mentions_whole_row(tree: *mut Node) -> bool {
    unsafe {
        node::walk(tree, &mut |item, _| match node::cast::<pg_sys::Var>(item) {
            Some(var) if (*var).varattno <= 0 => node::Step::Stop,
            _ => node::Step::Into,
        })
    }
}

unsafe fn needed_columns(rti: i32, trees: [*mut Node; 3]) -> Result<Vec<i16>> {
    unsafe {
        let mut columns = Vec::new();
        let mut system = false;
        for tree in trees {
            node::walk(tree, &mut |item, _| {
                if let Some(var) = node::cast::<pg_sys::Var>(item) {
                    if (*var).varno == rti && (*var).varlevelsup == 0 {
                        let identity = is_row_identity((*var).varattno) && reads_row_identity();
                        system |= (*var).varattno < 0 && !identity;
                        if ((*var).varattno > 0 || identity) && !columns.contains(&(*var).varattno)
                        {
                            columns.push((*var).varattno);
                        }
                    }
                }
                node::Step::Into
            });
        }
        if system {
            return Err(refused_system_column());
        }
        columns.sort_unstable();
        Ok(columns)
    }
}

/// ctid and xmin
pub fn is_row_identity(attno: i16) -> bool {
    matches!(
        i32::from(attno),
        pg_sys::SelfItemPointerAttributeNumber | pg_sys::MinTransactionIdAttributeNumber
    )
}

unsafe fn whole_row_needed(rti: i32, trees: [*mut Node; 3]) -> bool {
    unsafe {
        trees.into_iter().any(|tree| {
            node::walk(tree, &mut |item, _| match node::cast::<pg_sys::Var>(item) {
                Some(var) if (*var).varno == rti && (*var).varattno == 0 => node::Step::Stop,
                _ => node::Step::Into,
            })
        })
    }
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
