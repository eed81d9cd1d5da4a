//! The custom scan on top of a statement whose WITH clauses change tables of ours. Before the first row it runs every part
//! to its end: what reads tables that are going to change comes first, then what the shards change by themselves, then
//! the rows that were read to be changed here, then new rows. The plan below finds what the parts return.

use crate::deparse::Place;
use crate::error::{Error, Result};
use crate::executor::explain::Explainer;
use crate::executor::kept::Kept;
use crate::executor::modify::{Modify, Taken};
use crate::executor::scan::Scan;
use crate::executor::state::{self, body, Body, Methods};
use crate::executor::{insert, modify, scan};
use crate::pg::list;
use crate::planner::plan::{ChangesPlan, Command, Private};
use pgrx::pg_sys;
use std::collections::HashMap;
use std::ffi::CStr;

static METHODS: Methods = Methods::of::<Changes>();

/// For `CustomScan.methods`.
pub fn changes_methods() -> *const pg_sys::CustomScanMethods {
    METHODS.for_plan()
}

struct Changes {
    plan: ChangesPlan,
    done: bool,
    /// What the statement itself gives, where it had to be read before rows changed.
    rows: Option<Kept>,
}

/// What a part returns is asked for before it may run.
pub fn too_early() -> Error {
    Error::refused(
        "a part of this statement reads a table that a WITH clause changes, by what such a clause returns",
        "Run the WITH clause as a statement of its own, in the same transaction.",
    )
}

impl Body for Changes {
    const NAME: &'static CStr = c"ShardChanges";

    fn methods() -> &'static Methods {
        &METHODS
    }

    unsafe fn new(
        _node: *mut pg_sys::CustomScanState,
        scan: *mut pg_sys::CustomScan,
    ) -> Result<Changes> {
        let plan = unsafe { ChangesPlan::from_private((*scan).custom_private)? };
        Ok(Changes {
            plan,
            done: false,
            rows: None,
        })
    }

    unsafe fn exec(node: *mut pg_sys::CustomScanState) -> Result<*mut pg_sys::TupleTableSlot> {
        unsafe {
            if let Some(changes) = body::<Changes>(node) {
                if !changes.done {
                    changes.done = true;
                    changes.run(node)?;
                }
                if let Some(rows) = &changes.rows {
                    return Ok(rows.next());
                }
            }
            Ok(state::exec_child(list::nth((*node).custom_ps, 0)))
        }
    }

    unsafe fn end(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            if let Some(rows) = self.rows.take() {
                rows.end();
            }
            state::end_child(node);
        }
        Ok(())
    }

    unsafe fn explain(
        &mut self,
        _node: *mut pg_sys::CustomScanState,
        es: *mut pg_sys::ExplainState,
    ) -> Result<()> {
        let tables = self.plan.tables.iter().map(|(_, name)| name.as_str());
        Explainer(es).text("Changes First", &tables.collect::<Vec<_>>().join(", "));
        Ok(())
    }
}

impl Changes {
    unsafe fn run(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            let states = all_states(node);
            let pulled = parts(&self.plan.pulled, &states, |state| {
                modify::of_state(state).and_then(|modify| modify.plan.part)
            })?;
            let inserts = parts(&self.plan.inserts, &states, |state| {
                insert::of_state(state).and_then(|insert| insert.plan.part)
            })?;
            let pushed = parts(&self.plan.pushed, &states, |state| {
                scan::of_state(state).and_then(|scan| scan.plan.plan.part)
            })?;
            share_rows(list::nth((*node).custom_ps, 0), &pulled);
            let hold = |held: bool| {
                for insert in inserts.iter().filter_map(|state| insert::of_state(*state)) {
                    insert.held = held;
                }
                for scan in pushed.iter().filter_map(|state| scan::of_state(*state)) {
                    scan.held = held;
                }
            };
            hold(true);
            self.read_before(&states)?;
            hold(false);
            for state in pushed {
                if let Some(scan) = scan::of_state(state) {
                    scan.keep(state.cast())?;
                }
            }
            self.read_statement(node)?;
            // As PostgreSQL does it with those that nobody has asked for: the last comes first.
            for state in pulled.iter().rev() {
                if let Some(modify) = modify::of_state(*state) {
                    modify.read_first(state.cast())?;
                }
            }
            for state in &inserts {
                if let Some(insert) = insert::of_state(*state) {
                    insert.read_first(state.cast());
                }
            }
            let parts: Vec<_> = pulled.into_iter().chain(inserts).collect();
            for step in self.plan.steps.clone() {
                let part = |state: *mut pg_sys::PlanState| {
                    let modify = modify::of_state(state).and_then(|modify| modify.plan.part);
                    modify.or_else(|| insert::of_state(state).and_then(|i| i.plan.part))
                };
                match step {
                    Some(_) => {
                        if let Some(state) = parts.iter().find(|state| part(**state) == step) {
                            change(*state)?;
                        }
                    }
                    None => {
                        let child = list::nth::<pg_sys::PlanState>((*node).custom_ps, 0);
                        if !change(child)? && self.rows.is_none() {
                            self.rows = Some(Kept::of(child));
                        }
                    }
                }
            }
            Ok(())
        }
    }

    /// Reads what the statement itself changes, and what it gives where it must not see the changes.
    unsafe fn read_statement(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            let child = list::nth::<pg_sys::PlanState>((*node).custom_ps, 0);
            if let Some(modify) = modify::of_state(child) {
                return modify.read_first(child.cast());
            }
            if !self.plan.whole {
                return Ok(());
            }
            match insert::of_state(child) {
                Some(insert) => insert.read_first(child.cast()),
                None => self.rows = Some(Kept::of(child)),
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
                    && names(scan).any(|name| self.plan.read_first.contains(&name));
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
}

/// Has a node change the rows that it has read; false: it is another one.
unsafe fn change(state: *mut pg_sys::PlanState) -> Result<bool> {
    unsafe {
        if let Some(modify) = modify::of_state(state) {
            modify.apply(state.cast())?;
        } else if let Some(insert) = insert::of_state(state) {
            insert.finish(state.cast())?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }
}

/// Where several parts change rows of a table, each row is changed by the first that reads it.
unsafe fn share_rows(main: *mut pg_sys::PlanState, pulled: &[*mut pg_sys::PlanState]) {
    let mut tables: HashMap<(String, String), Vec<&mut Modify>> = HashMap::new();
    for state in pulled.iter().chain([&main]) {
        if let Some(modify) = unsafe { modify::of_state(*state) } {
            let name = (modify.plan.schema.clone(), modify.plan.table.clone());
            tables.entry(name).or_default().push(modify);
        }
    }
    for parts in tables.into_values().filter(|parts| parts.len() > 1) {
        let taken = Taken::default();
        for modify in parts {
            modify.taken = Some(taken.clone());
        }
    }
}

/// The states of parts, in their order.
unsafe fn parts(
    wanted: &[u32],
    states: &[*mut pg_sys::PlanState],
    part_of: impl Fn(*mut pg_sys::PlanState) -> Option<u32>,
) -> Result<Vec<*mut pg_sys::PlanState>> {
    wanted
        .iter()
        .map(|part| {
            let found = states.iter().find(|state| part_of(**state) == Some(*part));
            found
                .copied()
                .ok_or_else(|| Error::internal("a change without its node"))
        })
        .collect()
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
