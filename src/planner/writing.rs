//! WITH clauses that change tables of ours, where the statement is not routed whole. Each becomes a part: a leaf whose
//! statement changes rows and returns some, or a node that inserts the rows of a subquery. One custom scan on top of
//! the plan runs all parts to their end before anything else; what reads the tables they change is read before them, so
//! that every part sees the rows as they were.

use crate::catalog::TableKind;
use crate::error::{Error, Result};
use crate::pg::{expr, levels, list, node};
use crate::planner::insert::{self, Made};
use crate::planner::modify::Change;
use crate::planner::plan::{ChangesPlan, Private};
use crate::planner::{copies, leaf, modify, statement, wrapped, Planner};
use pgrx::pg_sys::{self, CmdType, PlannedStmt, Query};

/// Rows of a subquery that are inserted on shards: what the custom path becomes.
pub struct Inserting {
    made: Made,
    part: u32,
    /// Columns of the subquery that hold the inserted values, and those that will hold what comes back.
    values: Vec<i16>,
    returned: Vec<i16>,
}

/// The parts of a statement.
struct Parts {
    /// In the order in which they run.
    changes: Vec<(u32, usize)>,
    inserts: Vec<(u32, usize)>,
    /// Schema and name of the changed tables.
    tables: Vec<(String, String)>,
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
        let parts = take_parts(query)?;
        let planned = plan_rest(query, standard)?;
        drop(session);
        copies::keep_parts_alike(planned)?;
        let plan = ChangesPlan {
            order: [parts.changes, parts.inserts].concat(),
            tables: parts.tables,
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

unsafe fn take_parts(query: *mut Query) -> Result<Parts> {
    unsafe {
        let mut parts = Parts {
            changes: Vec::new(),
            inserts: Vec::new(),
            tables: Vec::new(),
        };
        let mut number = 0;
        for cte in list::iter::<pg_sys::CommonTableExpr>((*query).cteList) {
            let body = (*cte).ctequery.cast::<Query>();
            if (*body).commandType == CmdType::CMD_SELECT {
                continue;
            }
            let Some(table) = modify::target(body)? else {
                continue;
            };
            parts.tables.push(crate::deparse::name_of(table.relid)?);
            let TableKind::Distributed { key, colocation } = &table.kind else {
                continue;
            };
            if !(*body).withCheckOptions.is_null() {
                return Err(refused("it has row security or a view with a check option"));
            }
            number += 1;
            let read = if (*body).commandType == CmdType::CMD_INSERT {
                parts.inserts.push((number, parts.tables.len() - 1));
                inserted(body, *key, colocation.id, number)?
            } else {
                parts.changes.push((number, parts.tables.len() - 1));
                changed(body, &table, number)?
            };
            (*cte).ctequery = read.cast();
            (*cte).ctematerialized = pg_sys::CTEMaterialize::CTEMaterializeAlways;
            // One that nobody reads would not be planned.
            (*cte).cterefcount = (*cte).cterefcount.max(1);
        }
        Ok(parts)
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
unsafe fn changed(
    body: *mut Query,
    table: &crate::catalog::Table,
    part: u32,
) -> Result<*mut Query> {
    unsafe {
        let (mut remote, returning) = match modify::change(body, table)? {
            Change::Pushed(remote, returning) => (*remote, returning),
            Change::Pulled(reason) => return Err(refused(&reason)),
            Change::Nothing => return Err(refused("the table has no shards")),
        };
        remote.plan.part = Some(part);
        let entry = leaf::placeholder(remote, false);
        let read = new_select();
        leaf::from_leaf(read, entry, std::ptr::null_mut());
        (*read).targetList = returning.unwrap_or(std::ptr::null_mut());
        Ok(read)
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
        levels::push_down(rows);
        let read = new_select();
        let number = leaf::insert_count();
        let entry = wrapped::entry(rows, wrapped::Kind::Insert, number, "inserted");
        leaf::from_leaf(read, entry, std::ptr::null_mut());
        // A level below another is merged with it unless it locks.
        (*read).hasForUpdate = true;
        let mut targets: Vec<*mut pg_sys::TargetEntry> = Vec::new();
        let returning = returning.unwrap_or(std::ptr::null_mut());
        for target in list::iter::<pg_sys::TargetEntry>(returning) {
            (*target).expr = over_returned((*target).expr.cast(), &returned).cast();
            targets.push(target);
        }
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

/// The custom scan that a path of `wrapped` becomes.
///
/// # Safety
/// Called by PlanCustomPath with its arguments.
pub unsafe fn plan_insert(
    path: *mut pg_sys::CustomPath,
    tlist: *mut pg_sys::List,
    plans: *mut pg_sys::List,
) -> Result<*mut pg_sys::Plan> {
    unsafe {
        let (scan, below, number) = wrapped::scan(path, tlist, plans);
        (*scan).methods = crate::executor::insert_methods();
        leaf::with_insert(number, |inserting| {
            let mut plan = inserting.made.plan.clone();
            plan.part = Some(inserting.part);
            plan.copied = None;
            for column in &mut plan.columns {
                let attno = inserting.values[column.source];
                column.source = wrapped::position((*below).targetlist, attno)?;
            }
            for attno in &inserting.returned {
                plan.outputs
                    .push(wrapped::position((*below).targetlist, *attno)?);
            }
            (*scan).custom_private = plan.to_private()?;
            let exprs = inserting.made.exprs.iter().map(|e| node::copy(*e));
            (*scan).custom_exprs = list::from(exprs.collect::<Vec<_>>());
            Ok(())
        })?;
        Ok(scan.cast())
    }
}
