//! Builds the PlannedStmt of a statement that runs on the workers whole: one custom scan, no PostgreSQL planner.

use crate::error::Result;
use crate::pg::{expr, list, node};
use crate::planner::remote::Remote;
use pgrx::pg_sys::{self, Node, PlannedStmt, Query, RTEKind};

/// The plan of a remote statement whose columns are the result. With `returning`, a target list over the remote
/// columns (Vars of varno 1, attno = column) that the coordinator computes.
///
/// # Safety
/// `query` is the statement; the parts of `remote` live in the current memory context.
pub unsafe fn planned(
    query: *mut Query,
    remote: Remote,
    returning: Option<*mut pg_sys::List>,
) -> Result<*mut PlannedStmt> {
    unsafe {
        let scan = node::make::<pg_sys::CustomScan>();
        let mut rtable = list::from(remote.relations.iter().copied());
        let varno = list::len(rtable) as i32 + 1;
        rtable = pg_sys::lappend(rtable, named_entry(&remote.names).cast());
        let mut scan_tlist = Vec::new();
        let mut tlist = Vec::new();
        for (index, signature) in remote.columns.iter().enumerate() {
            let attno = index as i16 + 1;
            let name = || node::pstrdup(&remote.names[index]);
            scan_tlist.push(pg_sys::makeTargetEntry(
                expr::var(varno, attno, *signature).cast(),
                attno,
                name(),
                false,
            ));
            let output = expr::var(pg_sys::INDEX_VAR, attno, *signature);
            (*output).varnosyn = varno as u32;
            (*output).varattnosyn = attno;
            tlist.push(pg_sys::makeTargetEntry(output.cast(), attno, name(), false));
        }
        if let Some(returning) = returning {
            for entry in list::iter::<pg_sys::TargetEntry>(returning) {
                (*entry).expr = executable((*entry).expr.cast(), varno).cast();
            }
            tlist = list::iter::<pg_sys::TargetEntry>(returning).collect();
        }
        let copy_origin = |from: *mut pg_sys::List, to: &[*mut pg_sys::TargetEntry]| {
            for (source, target) in list::iter::<pg_sys::TargetEntry>(from)
                .filter(|e| !(**e).resjunk)
                .zip(to)
            {
                (**target).resorigtbl = (*source).resorigtbl;
                (**target).resorigcol = (*source).resorigcol;
                (**target).resname = if (*source).resname.is_null() {
                    (**target).resname
                } else {
                    (*source).resname
                };
            }
        };
        if (*query).commandType == pg_sys::CmdType::CMD_SELECT {
            copy_origin((*query).targetList, &tlist);
        }
        (*scan).custom_scan_tlist = list::from(scan_tlist);
        (*scan).scan.plan.targetlist = list::from(tlist);
        (*scan).scan.plan.plan_rows =
            if (*query).commandType == pg_sys::CmdType::CMD_SELECT || returning.is_some() {
                1.0
            } else {
                0.0
            };
        (*scan).scan.plan.startup_cost = 100.0;
        (*scan).scan.plan.total_cost = 100.05;
        (*scan).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
        (*scan).custom_exprs = list::from(remote.exprs.iter().copied());
        (*scan).custom_private = remote.plan.to_private()?;
        (*scan).methods = crate::executor::scan_methods();

        let relations = remote.relations.iter().map(|r| (**r).relid);
        Ok(of_scan(query, scan, rtable, relations))
    }
}

/// A statement that is one custom scan; it is planned anew when one of the relations changes.
///
/// # Safety
/// `query` is the statement, the rest the parts of its plan.
pub unsafe fn of_scan(
    query: *mut Query,
    scan: *mut pg_sys::CustomScan,
    rtable: *mut pg_sys::List,
    relations: impl IntoIterator<Item = pg_sys::Oid>,
) -> *mut PlannedStmt {
    unsafe {
        let statement = pg_sys::palloc0(std::mem::size_of::<PlannedStmt>()).cast::<PlannedStmt>();
        (*statement).type_ = pg_sys::NodeTag::T_PlannedStmt;
        (*statement).commandType = (*query).commandType;
        (*statement).queryId = (*query).queryId;
        (*statement).hasReturning = !(*query).returningList.is_null();
        (*statement).hasModifyingCTE = (*query).hasModifyingCTE;
        (*statement).canSetTag = (*query).canSetTag;
        (*statement).dependsOnRole = (*query).hasRowSecurity;
        (*statement).planTree = scan.cast();
        (*statement).rtable = rtable;
        (*statement).relationOids = list::from_oids(relations);
        (*statement).stmt_location = (*query).stmt_location;
        (*statement).stmt_len = (*query).stmt_len;
        statement
    }
}

/// An entry that gives remote columns their names in EXPLAIN.
unsafe fn named_entry(names: &[String]) -> *mut pg_sys::RangeTblEntry {
    unsafe {
        let rte = node::make::<pg_sys::RangeTblEntry>();
        (*rte).rtekind = RTEKind::RTE_FUNCTION;
        let alias = node::make::<pg_sys::Alias>();
        (*alias).aliasname = node::pstrdup("remote");
        (*alias).colnames = list::from(
            names
                .iter()
                .map(|n| pg_sys::makeString(node::pstrdup(n)))
                .collect::<Vec<_>>(),
        );
        (*rte).eref = alias;
        rte
    }
}

/// An expression of RETURNING as the executor wants it, over a custom scan's tuple: what PostgreSQL's planner would do,
/// that is named and default arguments in their places, no COLLATE, and functions of operators looked up.
unsafe fn executable(tree: *mut Node, varno: i32) -> *mut Node {
    unsafe {
        let tree = to_index_vars(tree, varno);
        let tree = pg_sys::eval_const_expressions(std::ptr::null_mut(), tree);
        pg_sys::fix_opfuncids(tree);
        tree
    }
}

/// The tree with its Vars as columns of a custom scan's tuple.
///
/// # Safety
/// `tree` is null or a valid expression.
pub unsafe fn to_index_vars(tree: *mut Node, varno: i32) -> *mut Node {
    unsafe {
        if let Some(var) = node::cast::<pg_sys::Var>(tree) {
            let copy = node::copy(var);
            (*copy).varno = pg_sys::INDEX_VAR;
            (*copy).varnosyn = varno as u32;
            (*copy).varattnosyn = (*var).varattno;
            return copy.cast();
        }
        if tree.is_null() {
            return tree;
        }
        node::map_children(tree, |child| to_index_vars(child, varno))
    }
}

/// Adds to a plan of PostgreSQL's planner the relations that only its leaves read: their permissions are checked,
/// and a change of them plans anew.
///
/// # Safety
/// `statement` is a finished plan.
pub unsafe fn add_relations(statement: *mut PlannedStmt, relations: &[*mut pg_sys::RangeTblEntry]) {
    unsafe {
        for rte in relations {
            (*statement).rtable = pg_sys::lappend((*statement).rtable, (*rte).cast());
            (*statement).relationOids =
                pg_sys::list_append_unique_oid((*statement).relationOids, (**rte).relid);
        }
    }
}

/// Keeps the rows of a cursor that may go backward, where the plan itself cannot: `standard_planner` does so too.
///
/// # Safety
/// `statement` is a finished plan.
pub unsafe fn make_scrollable(statement: *mut PlannedStmt) {
    unsafe {
        let below = (*statement).planTree;
        if (*statement).commandType != pg_sys::CmdType::CMD_SELECT
            || pg_sys::ExecSupportsBackwardScan(below)
        {
            return;
        }
        let material = pg_sys::materialize_finished_plan(below);
        let outputs: Vec<_> = list::iter::<pg_sys::TargetEntry>((*below).targetlist)
            .map(|entry| {
                let var = expr::var(
                    pg_sys::OUTER_VAR,
                    (*entry).resno,
                    expr::signature((*entry).expr.cast()),
                );
                let output = pg_sys::flatCopyTargetEntry(entry);
                (*output).expr = var.cast();
                output
            })
            .collect();
        (*material).targetlist = list::from(outputs);
        (*statement).planTree = material;
    }
}

/// Says that the statement locks rows, as its command is named in errors; PostgreSQL itself has nothing to lock.
///
/// # Safety
/// `statement` is a finished plan.
pub unsafe fn note_lock(statement: *mut PlannedStmt, strength: pg_sys::LockClauseStrength::Type) {
    unsafe {
        let mark = pg_sys::palloc0(std::mem::size_of::<pg_sys::PlanRowMark>())
            .cast::<pg_sys::PlanRowMark>();
        (*mark).type_ = pg_sys::NodeTag::T_PlanRowMark;
        (*mark).rti = 1;
        (*mark).prti = 1;
        (*mark).strength = strength;
        // The executor leaves marks of parents to their children.
        (*mark).isParent = true;
        (*statement).rowMarks = pg_sys::lappend((*statement).rowMarks, mark.cast());
    }
}

/// A custom scan above a finished plan, giving columns of its own (or the coordinator's `returning` over them).
///
/// # Safety
/// `below` is a finished plan that the caller owns.
pub unsafe fn scan_over(
    below: *mut PlannedStmt,
    columns: &[(pg_sys::Oid, i32, pg_sys::Oid)],
    names: Vec<String>,
    returning: Option<*mut pg_sys::List>,
) -> *mut pg_sys::CustomScan {
    unsafe {
        let plan = (*below).planTree;
        let (cost, rows) = ((*plan).total_cost, (*plan).plan_rows);
        let scan = scan_of(&mut (*below).rtable, columns, names, returning, rows);
        (*scan).scan.plan.startup_cost = cost;
        (*scan).scan.plan.total_cost = cost;
        (*scan).custom_plans = list::from([plan]);
        scan
    }
}

/// A custom scan that gives columns (or the coordinator's `returning` over them, one row for each of `rows`); an entry
/// of `rtable` names them.
///
/// # Safety
/// `rtable` is the list of a plan that the caller owns.
pub unsafe fn scan_of(
    rtable: &mut *mut pg_sys::List,
    columns: &[(pg_sys::Oid, i32, pg_sys::Oid)],
    names: Vec<String>,
    returning: Option<*mut pg_sys::List>,
    rows: f64,
) -> *mut pg_sys::CustomScan {
    unsafe {
        let varno = list::len(*rtable) as i32 + 1;
        *rtable = pg_sys::lappend(*rtable, named_entry(&names).cast());
        let scan = node::make::<pg_sys::CustomScan>();
        let entries = |varno: i32| {
            columns
                .iter()
                .enumerate()
                .map(|(index, signature)| {
                    let attno = index as i16 + 1;
                    pg_sys::makeTargetEntry(
                        expr::var(varno, attno, *signature).cast(),
                        attno,
                        node::pstrdup(&names[index]),
                        false,
                    )
                })
                .collect::<Vec<_>>()
        };
        (*scan).custom_scan_tlist = list::from(entries(varno));
        (*scan).scan.plan.plan_rows = if returning.is_some() { rows } else { 0.0 };
        (*scan).scan.plan.targetlist = match returning {
            Some(returning) => {
                for entry in list::iter::<pg_sys::TargetEntry>(returning) {
                    (*entry).expr = executable((*entry).expr.cast(), varno).cast();
                }
                returning
            }
            None => list::from(entries(pg_sys::INDEX_VAR)),
        };
        (*scan).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
        scan
    }
}

/// A custom scan whose rows are those of the plan below it.
///
/// # Safety
/// `below` is a part of `statement`.
pub unsafe fn pass_through(
    statement: *mut PlannedStmt,
    below: *mut pg_sys::Plan,
) -> *mut pg_sys::CustomScan {
    unsafe {
        let targets: Vec<*mut pg_sys::TargetEntry> = list::iter((*below).targetlist).collect();
        let names: Vec<String> = targets
            .iter()
            .map(|entry| {
                let name = (**entry).resname;
                if name.is_null() {
                    "?column?".to_owned()
                } else {
                    std::ffi::CStr::from_ptr(name)
                        .to_string_lossy()
                        .into_owned()
                }
            })
            .collect();
        let varno = list::len((*statement).rtable) as i32 + 1;
        (*statement).rtable = pg_sys::lappend((*statement).rtable, named_entry(&names).cast());
        let scan = node::make::<pg_sys::CustomScan>();
        let mut outputs = Vec::new();
        let mut inputs = Vec::new();
        for (index, entry) in targets.iter().enumerate() {
            let attno = index as i16 + 1;
            let signature = expr::signature((**entry).expr.cast());
            let input = pg_sys::makeTargetEntry(
                expr::var(varno, attno, signature).cast(),
                attno,
                (**entry).resname,
                false,
            );
            inputs.push(input);
            // ModifyTable wants to see that a dropped column is a NULL constant.
            let value: *mut Node = match node::cast::<pg_sys::Const>((**entry).expr) {
                Some(constant) => node::copy(constant).cast(),
                None => expr::var(pg_sys::INDEX_VAR, attno, signature).cast(),
            };
            outputs.push(pg_sys::makeTargetEntry(
                value.cast(),
                attno,
                (**entry).resname,
                (**entry).resjunk,
            ));
        }
        (*scan).custom_scan_tlist = list::from(inputs);
        (*scan).scan.plan.targetlist = list::from(outputs);
        (*scan).scan.plan.startup_cost = (*below).startup_cost;
        (*scan).scan.plan.total_cost = (*below).total_cost;
        (*scan).scan.plan.plan_rows = (*below).plan_rows;
        (*scan).scan.plan.plan_width = (*below).plan_width;
        (*scan).custom_plans = list::from([below]);
        scan
    }
}
