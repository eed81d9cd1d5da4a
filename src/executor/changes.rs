//! The custom scan on top of a statement whose WITH clauses change tables of ours. Before the first row it reads what
//! reads those tables, then runs every change to its end; the plan below finds their rows kept.

use crate::deparse::Place;
use crate::error::{Error, Result};
use crate::executor::explain::Explainer;
use crate::executor::scan::Scan;
use crate::executor::state::{self, body, Callbacks, Methods};
use crate::executor::{insert, scan};
use crate::pg::list;
use crate::planner::plan::{ChangesPlan, Command, Private};
use pgrx::pg_guard;
use pgrx::pg_sys;

static SCAN: Methods<pg_sys::CustomScanMethods> =
    state::scan_methods(c"ShardChanges", create_state);

static EXEC: Methods<pg_sys::CustomExecMethods> = state::exec_methods(
    c"ShardChanges",
    Callbacks {
        begin,
        exec,
        end,
        rescan: state::never_again,
        explain: explain_changes,
    },
);

/// For `CustomScan.methods`.
pub fn changes_methods() -> *const pg_sys::CustomScanMethods {
    &raw const SCAN.0
}

struct Changes {
    plan: ChangesPlan,
    done: bool,
}

#[pg_guard]
unsafe extern "C-unwind" fn create_state(_scan: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: the body's type is that of every callback here.
    unsafe { state::create::<Changes>(&EXEC.0) }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(
    node: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    flags: i32,
) {
    // SAFETY: called by ExecInitCustomScan.
    unsafe {
        state::begin_above(node, estate, flags, |scan| {
            let plan = ChangesPlan::from_private((*scan).custom_private)?;
            Ok(Changes { plan, done: false })
        })
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn exec(
    node: *mut pg_sys::CustomScanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the child was made in begin.
    unsafe {
        let child = list::nth::<pg_sys::PlanState>((*node).custom_ps, 0);
        if let Some(changes) = body::<Changes>(node) {
            if !changes.done {
                changes.done = true;
                if let Err(error) = changes.run(node) {
                    error.raise();
                }
            }
        }
        state::exec_child(child)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end(node: *mut pg_sys::CustomScanState) {
    // SAFETY: the child was made in begin.
    unsafe { state::end_child(node) }
}

#[pg_guard]
unsafe extern "C-unwind" fn explain_changes(
    node: *mut pg_sys::CustomScanState,
    _ancestors: *mut pg_sys::List,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: called by ExplainNode.
    unsafe {
        if let Some(changes) = body::<Changes>(node) {
            let tables: Vec<&str> = changes
                .plan
                .tables
                .iter()
                .map(|(_, name)| name.as_str())
                .collect();
            Explainer(es).text("Changes First", &tables.join(", "));
        }
    }
}

/// What a part returns is asked for before it may run.
pub fn too_early() -> Error {
    Error::refused(
        "a part of this statement reads a table that a WITH clause changes, by what such a clause returns",
        "Run the WITH clause as a statement of its own, in the same transaction.",
    )
}

/// Rows that a part has changed: a table, and in which shard groups.
struct Changed {
    table: (String, String),
    groups: Vec<usize>,
}

impl Changes {
    unsafe fn run(&self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            let states = all_states(node);
            self.read_before(&states)?;
            let mut changed: Vec<Changed> = Vec::new();
            for (part, target) in &self.plan.order {
                let mut found = false;
                for state in &states {
                    if let Some(insert) = insert::of_state(*state) {
                        if insert.plan.part == Some(*part) {
                            insert.finish(state.cast())?;
                            found = true;
                        }
                    } else if let Some(scan) = scan::of_state(*state) {
                        if scan.plan.plan.part == Some(*part) {
                            self.change(scan, state.cast(), *target, &mut changed)?;
                            found = true;
                        }
                    }
                }
                if !found {
                    return Err(Error::internal("a change without its node"));
                }
            }
            Ok(())
        }
    }

    /// What reads the tables that are going to change is read now.
    unsafe fn read_before(&self, states: &[*mut pg_sys::PlanState]) -> Result<()> {
        unsafe {
            let mut readers = Vec::new();
            for state in states {
                let Some(scan) = scan::of_state(*state) else {
                    continue;
                };
                let reads = scan.plan.plan.command == Command::Select
                    && names(scan).any(|name| self.plan.tables.contains(&name));
                if reads {
                    if scan.follows_other_rows(state.cast()) {
                        return Err(Error::refused(
                            "a part of this statement reads, row by row, a table that a WITH clause changes",
                            "Run the WITH clause as a statement of its own, in the same transaction.",
                        ));
                    }
                    readers.push((scan, *state));
                }
            }
            for (scan, state) in readers {
                scan.keep(state.cast())?;
            }
            Ok(())
        }
    }

    /// One UPDATE or DELETE. It must not see what others have changed before it.
    unsafe fn change(
        &self,
        scan: &mut Scan,
        state: *mut pg_sys::CustomScanState,
        target: usize,
        changed: &mut Vec<Changed>,
    ) -> Result<()> {
        unsafe {
            let groups = scan.groups(state)?;
            let touched: Vec<(String, String)> = names(scan).collect();
            let overlaps = changed.iter().any(|before| {
                touched.contains(&before.table)
                    && before.groups.iter().any(|group| groups.contains(group))
            });
            if overlaps {
                return Err(Error::refused(
                    "two WITH clauses of this statement change a table in the same shard groups",
                    "Run one of them as a statement of its own, in the same transaction.",
                ));
            }
            scan.keep(state)?;
            changed.push(Changed {
                table: self.plan.tables[target].clone(),
                groups,
            });
            Ok(())
        }
    }
}

/// The tables that a leaf names.
fn names(scan: &Scan) -> impl Iterator<Item = (String, String)> + '_ {
    scan.plan
        .plan
        .template
        .holes()
        .iter()
        .filter(|hole| matches!(hole.place, Place::ShardGroup | Place::Reference))
        .map(|hole| (hole.schema.clone(), hole.name.clone()))
}

/// Every plan state of the statement, those of WITH queries and subplans included.
unsafe fn all_states(node: *mut pg_sys::CustomScanState) -> Vec<*mut pg_sys::PlanState> {
    unsafe {
        let mut states: Vec<*mut pg_sys::PlanState> = Vec::new();
        let mut visit = |state: *mut pg_sys::PlanState| {
            if !states.contains(&state) {
                states.push(state);
            }
        };
        for subplan in list::iter::<pg_sys::PlanState>((*(*node).ss.ps.state).es_subplanstates) {
            if !subplan.is_null() {
                state::walk_below(subplan, &mut visit);
            }
        }
        for child in list::iter::<pg_sys::PlanState>((*node).custom_ps) {
            state::walk_below(child, &mut visit);
        }
        states
    }
}
