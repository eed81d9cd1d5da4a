//! WITH clauses that change tables of ours, where the statement is not routed whole. Each becomes a part: a leaf whose
//! statement changes rows and returns some; a node that changes the rows of a subquery, which it has read and locked
//! (`pull`); or a node that inserts those of one. One custom scan on top of the plan runs all parts to their end, whether
//! somebody reads what they return or not, so that every part sees the rows as they were: what reads a table comes
//! before what changes it. Rows that a part has read it can return before it changes them, so such parts wait where
//! others depend on them and read the same tables (`order`).

mod order;

use crate::catalog::{self, TableKind};
use crate::error::{Error, Result};
use crate::pg::{expr, levels, list, node};
use crate::planner::insert::{self, Made};
use crate::planner::modify::Change;
use crate::planner::plan::{ChangesPlan, Private};
use crate::planner::pull::{self, Pulled};
use crate::planner::remote::Remote;
use crate::planner::wrapped::{self, Above};
use crate::planner::{copies, leaf, modify, proposed, ship, statement, Planner};
use order::Order;
use pgrx::pg_sys::{self, CmdType, Oid, PlannedStmt, Query};
use std::collections::HashSet;

/// Rows of a subquery that are inserted on shards: what the custom path becomes.
pub struct Inserting {
    made: Made,
    part: u32,
    /// Columns of the subquery that hold the inserted values, and those that will hold what comes back.
    values: Vec<i16>,
    returned: Vec<i16>,
}

/// The parts of a statement.
#[derive(Default)]
struct Parts {
    pushed: Vec<u32>,
    pulled: Vec<u32>,
    inserts: Vec<u32>,
    /// WITH clauses by index, and their numbers, whose rows change when all was read.
    steps: Vec<(usize, u32)>,
    /// The changed tables.
    tables: Vec<Oid>,
    /// Those of them that change before everything was read.
    early: HashSet<Oid>,
}

/// Does a WITH clause change a table of ours?
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn concerns(query: *mut Query) -> Result<bool> {
    unsafe {
        if !(*query).hasModifyingCTE {
            return Ok(false);
        }
        for cte in list::iter::<pg_sys::CommonTableExpr>((*query).cteList) {
            let body = (*cte).ctequery.cast::<Query>();
            if (*body).commandType != CmdType::CMD_SELECT && modify::target(body)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Plans a statement that `concerns` is true of; `plan_rest` plans it once its WITH clauses only read.
///
/// # Safety
/// As `planner::plan`.
pub unsafe fn plan(
    query: *mut Query,
    standard: Planner,
    plan_rest: unsafe fn(*mut Query, Planner) -> Result<*mut PlannedStmt>,
) -> Result<*mut PlannedStmt> {
    unsafe {
        let session = leaf::Session::share(query);
        let order = Order::of(query)?;
        let names_rows = names_system_column(query);
        let mut parts = take_parts(query, &order)?;
        if !parts.pulled.is_empty() {
            if names_rows {
                return Err(leaf::refused_system_column());
            }
            leaf::give_row_identity();
        }
        parts.early.extend(order.read_here());
        parts.early.retain(|table| parts.tables.contains(table));
        let late: HashSet<Oid> = (parts.tables.iter().copied())
            .filter(|table| !parts.early.contains(table))
            .collect();
        let whole = order.main_reads(&late);
        let planned = plan_rest(query, standard)?;
        drop(session);
        copies::keep_parts_alike(planned)?;
        let names = |tables: &mut dyn Iterator<Item = Oid>| -> Result<Vec<(String, String)>> {
            tables.map(crate::deparse::name_of).collect()
        };
        let plan = ChangesPlan {
            pushed: parts.pushed,
            pulled: parts.pulled,
            inserts: parts.inserts,
            steps: order.steps(parts.steps),
            tables: names(&mut parts.tables.iter().copied())?,
            read_first: names(&mut parts.early.iter().copied())?,
            whole,
        };
        let below = (*planned).planTree;
        let scan = statement::pass_through(planned, below);
        (*scan).custom_private = plan.to_private()?;
        (*scan).methods = crate::executor::changes_methods();
        (*planned).planTree = scan.cast();
        (*planned).hasModifyingCTE = true;
        Ok(planned)
    }
}

/// Does a statement name a system column outside of the WITH clauses that change rows?
unsafe fn names_system_column(query: *mut Query) -> bool {
    unsafe {
        let clauses = (*query).cteList;
        let reading = list::iter::<pg_sys::CommonTableExpr>(clauses)
            .filter(|cte| (*(**cte).ctequery.cast::<Query>()).commandType == CmdType::CMD_SELECT);
        (*query).cteList = list::from(reading.collect::<Vec<_>>());
        let names = leaf::reads_system_column(query);
        (*query).cteList = clauses;
        names
    }
}

unsafe fn take_parts(query: *mut Query, order: &Order) -> Result<Parts> {
    unsafe {
        let mut parts = Parts::default();
        // new rows come after all other changes
        let mut late = Vec::new();
        let mut number = 0;
        let clauses = list::iter::<pg_sys::CommonTableExpr>((*query).cteList);
        for (index, cte) in clauses.enumerate() {
            let body = (*cte).ctequery.cast::<Query>();
            if (*body).commandType == CmdType::CMD_SELECT {
                continue;
            }
            let Some(table) = modify::target(body)? else {
                continue;
            };
            parts.tables.push(table.relid);
            let TableKind::Distributed { key, colocation } = &table.kind else {
                parts.early.insert(table.relid);
                continue;
            };
            number += 1;
            let read = if (*body).commandType == CmdType::CMD_INSERT {
                parts.steps.push((index, number));
                match computed_here(body, &table, order.is_asked_first(index))? {
                    Some(reason) => {
                        late.push(number);
                        changed(proposed::prepare(body, &table, reason)?, number)
                    }
                    None => {
                        parts.inserts.push(number);
                        if order.is_read(index) {
                            parts.early.insert(table.relid);
                        }
                        inserted(body, *key, colocation.id, number)?
                    }
                }
            } else {
                if order.locked_later(index) {
                    return Err(refused("rows of the table are locked by what it returns, or for a change of a table here"));
                }
                match how_changed(body, &table, order.waits(index))? {
                    Change::Pushed(remote, returning) => {
                        parts.pushed.push(number);
                        parts.early.insert(table.relid);
                        pushed(*remote, returning, number)
                    }
                    Change::Pulled(reason) => {
                        parts.pulled.push(number);
                        parts.steps.push((index, number));
                        changed(pull::prepare(body, &table, reason)?, number)
                    }
                    Change::Nothing => return Err(refused("the table has no shards")),
                }
            };
            (*cte).ctequery = read.cast();
            (*cte).ctematerialized = pg_sys::CTEMaterialize::CTEMaterializeAlways;
            // One that nobody reads would not be planned.
            (*cte).cterefcount = (*cte).cterefcount.max(1);
        }
        parts.pulled.extend(late);
        Ok(parts)
    }
}

/// Why all that an INSERT returns is computed before it inserts, if it is. Where others insert such rows at the same time,
/// the shards tell better what becomes of a conflict, so this is for what needs it.
unsafe fn computed_here(
    body: *mut Query,
    table: &catalog::Table,
    asked_first: bool,
) -> Result<Option<ship::Reason>> {
    unsafe {
        Ok(match proposed::reason(body, table)? {
            None if asked_first => Some("what it returns is asked for before".into()),
            None if !(*body).withCheckOptions.is_null() => {
                Some("new rows are checked first".into())
            }
            reason => reason,
        })
    }
}

/// How a part changes its rows; `waits`: after it has returned them.
unsafe fn how_changed(body: *mut Query, table: &catalog::Table, waits: bool) -> Result<Change> {
    unsafe {
        let reason = |reason: &str| Change::Pulled(ship::Reason::from(reason));
        Ok(match modify::change(body, table)? {
            Change::Pushed(..) if waits => {
                reason("other parts of the statement see the table as it was")
            }
            Change::Pushed(..) if !(*body).withCheckOptions.is_null() => {
                reason("new rows are checked first")
            }
            change => change,
        })
    }
}

fn refused(reason: &str) -> Error {
    Error::refused(
        "a WITH clause changes a distributed table in a way that cannot be sent to its shards",
        "Run it as a statement of its own, in the same transaction.",
    )
    .detail(reason)
}

/// UPDATE or DELETE as a leaf that returns rows.
unsafe fn pushed(
    mut remote: Remote,
    returning: Option<*mut pg_sys::List>,
    part: u32,
) -> *mut Query {
    unsafe {
        remote.plan.part = Some(part);
        let entry = leaf::placeholder(remote, false);
        let read = new_select();
        leaf::from_leaf(read, entry, std::ptr::null_mut());
        (*read).targetList = returning.unwrap_or(std::ptr::null_mut());
        read
    }
}

/// A subquery that reads and locks rows, below the node that changes them.
unsafe fn changed(mut pulled: Pulled, part: u32) -> *mut Query {
    unsafe {
        pulled.plan.part = Some(part);
        let number = leaf::change_count();
        leaf::add_change(pulled.plan);
        let returning = pulled.returning.unwrap_or(std::ptr::null_mut());
        let change = (wrapped::Kind::Change, number);
        above_rows(pulled.rows, change, "changed", returning)
    }
}

/// `SELECT returning FROM rows`, with a node above the rows, which needs all their columns.
unsafe fn above_rows(
    rows: *mut Query,
    (kind, number): (wrapped::Kind, usize),
    name: &str,
    returning: *mut pg_sys::List,
) -> *mut Query {
    unsafe {
        levels::push_down(rows);
        let read = new_select();
        let entry = wrapped::entry(rows, kind, number, name);
        leaf::from_leaf(read, entry, std::ptr::null_mut());
        // A level below another is merged with it unless it locks.
        (*read).hasForUpdate = true;
        let mut targets: Vec<*mut pg_sys::TargetEntry> = list::iter(returning).collect();
        for target in list::iter::<pg_sys::TargetEntry>((*rows).targetList) {
            let var = expr::var(1, (*target).resno, expr::signature((*target).expr.cast()));
            let resno = targets.len() as i16 + 1;
            targets.push(pg_sys::makeTargetEntry(
                var.cast(),
                resno,
                (*target).resname,
                true,
            ));
        }
        (*read).targetList = list::from(targets);
        read
    }
}

unsafe fn new_select() -> *mut Query {
    unsafe {
        let read = node::make::<Query>();
        (*read).commandType = CmdType::CMD_SELECT;
        (*read).querySource = pg_sys::QuerySource::QSRC_ORIGINAL;
        read
    }
}

/// INSERT as a subquery that gives the rows, below the node that inserts them. Columns for what comes back stand behind
/// those of the rows; the node fills them.
unsafe fn inserted(body: *mut Query, key: i16, colocation: i32, part: u32) -> Result<*mut Query> {
    unsafe {
        let (rows, attributes) = insert::source(body);
        let (made, returning) = insert::prepare_rows(body, key, colocation, &attributes)?;
        let mut values = Vec::new();
        for target in list::iter::<pg_sys::TargetEntry>((*rows).targetList) {
            (*target).resjunk = false;
            if (*target).resname.is_null() {
                (*target).resname = node::pstrdup("?column?");
            }
            values.push((*target).resno);
        }
        values.truncate(attributes.len());
        let mut returned = Vec::new();
        for (type_oid, typmod, collation) in made.returned.iter().copied() {
            let attno = list::len((*rows).targetList) as i16 + 1;
            let null = pg_sys::makeNullConst(type_oid, typmod, collation);
            let name = node::pstrdup(&format!("returned_{attno}"));
            (*rows).targetList = pg_sys::lappend(
                (*rows).targetList,
                pg_sys::makeTargetEntry(null.cast(), attno, name, false).cast(),
            );
            returned.push(attno);
        }
        let number = leaf::insert_count();
        let returning = returning.unwrap_or(std::ptr::null_mut());
        for target in list::iter::<pg_sys::TargetEntry>(returning) {
            (*target).expr = over_returned((*target).expr.cast(), &returned).cast();
        }
        let read = above_rows(rows, (wrapped::Kind::Insert, number), "inserted", returning);
        leaf::add_insert(Inserting {
            made,
            part,
            values,
            returned,
        });
        Ok(read)
    }
}

/// RETURNING speaks of what comes back by number; here those are columns of the subquery.
unsafe fn over_returned(tree: *mut pg_sys::Node, returned: &[i16]) -> *mut pg_sys::Node {
    unsafe {
        if tree.is_null() {
            return tree;
        }
        if let Some(var) = node::cast::<pg_sys::Var>(tree) {
            let copy = node::copy(var);
            let column = returned.get((*var).varattno as usize - 1).copied();
            (*copy).varattno = column.unwrap_or((*var).varattno);
            (*copy).varattnosyn = (*copy).varattno;
            return copy.cast();
        }
        node::map_children(tree, |child| over_returned(child, returned))
    }
}

/// The custom scan of a part that changes the rows it has read.
///
/// # Safety
/// `above` is the scan that a path becomes.
pub unsafe fn plan_change(above: &Above) -> Result<()> {
    unsafe {
        (*above.scan).methods = crate::executor::modify_methods();
        let place = |column: usize| above.place(column as i16 + 1);
        let plan = leaf::with_change(above.number, |plan| plan.over(&place))?;
        (*above.scan).custom_private = plan.to_private()?;
        Ok(())
    }
}

/// The custom scan that a path of `wrapped` becomes.
///
/// # Safety
/// `above` is the scan that a path becomes.
pub unsafe fn plan_insert(above: &Above) -> Result<()> {
    unsafe {
        (*above.scan).methods = crate::executor::insert_methods();
        leaf::with_insert(above.number, |inserting| {
            let mut plan = inserting.made.plan.clone();
            plan.part = Some(inserting.part);
            plan.copied = None;
            for column in &mut plan.columns {
                let attno = inserting.values[column.source];
                column.source = above.place(attno)?;
            }
            for attno in &inserting.returned {
                plan.outputs.push(above.place(*attno)?);
            }
            (*above.scan).custom_private = plan.to_private()?;
            let exprs = inserting.made.exprs.iter().map(|e| node::copy(*e));
            (*above.scan).custom_exprs = list::from(exprs.collect::<Vec<_>>());
            Ok(())
        })
    }
}
