//! The custom scan that changes rows on their shards which the plan below has read and locked: UPDATE, DELETE and MERGE
//! that the shards cannot run by themselves. All rows are read before the first is changed. Then their changes are sent
//! as arrays, by ctid, a statement per shard group and batch: first rows that leave their shard are taken away, then
//! rows are changed where they are, then new ones come.

mod rounds;

use crate::catalog::{self, Colocation};
use crate::error::{sqlstate, Error, Result};
use crate::executor::checks;
use crate::executor::encode::{self, Encoder};
use crate::executor::explain::Explainer;
use crate::executor::find::{self, Find};
use crate::executor::kept::{Kept, Reader};
use crate::executor::places::{Place, Places};
use crate::executor::state::{self, Body, Methods};
use crate::pg::{list, types};
use crate::planner::plan::{
    Action, CheckKind, Command, ModifyPlan, Private, Repeats, RowCheck, RowsStatement,
};
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::CStr;
use std::rc::Rc;

static METHODS: Methods = Methods::of::<Modify>();

/// For `CustomScan.methods`.
pub fn modify_methods() -> *const pg_sys::CustomScanMethods {
    METHODS.for_plan()
}

/// The node that a plan state is, if it is one of ours.
///
/// # Safety
/// `state` is a valid plan state whose `begin` was called.
pub unsafe fn of_state<'a>(state: *mut pg_sys::PlanState) -> Option<&'a mut Modify> {
    unsafe { state::body_of(state) }
}

/// How often proposed rows that were not inserted are looked for: where policies may hide what they are in conflict with,
/// and elsewhere.
const LOOKS_UNDER_POLICIES: u32 = 20;
const MOST_LOOKS: u32 = 1000;

pub struct Modify {
    pub plan: ModifyPlan,
    colocation: Rc<Colocation>,
    /// Per action: of its statement in place, and of its INSERT.
    encoders: Vec<[Vec<Encoder>; 2]>,
    /// The rows that are changed, once they were read, and who hands them on.
    rows: Option<Kept>,
    given: Option<Reader>,
    /// Rows that were read to be changed, or have come of that: none is changed twice.
    seen: Places,
    /// Of rows that an INSERT with ON CONFLICT proposes: the numbers of those that may not have been inserted, and the places
    /// of those among them that were.
    missed: HashSet<i64>,
    inserted: Vec<Place>,
    /// The rows of the table that parts of the statement change, where there are several.
    pub taken: Option<Taken>,
    done: bool,
}

/// Rows that are changed by somebody.
pub type Taken = Rc<RefCell<Places>>;

impl Body for Modify {
    const NAME: &'static CStr = c"ShardModify";

    fn methods() -> &'static Methods {
        &METHODS
    }

    unsafe fn new(
        _node: *mut pg_sys::CustomScanState,
        scan: *mut pg_sys::CustomScan,
    ) -> Result<Modify> {
        unsafe {
            let plan = ModifyPlan::from_private((*scan).custom_private)?;
            let colocation = catalog::colocation(plan.colocation)?;
            let encoders = |statement: &Option<RowsStatement>| {
                encode::encoders(statement.iter().flat_map(|s| &s.columns))
            };
            let encoders = plan
                .actions
                .iter()
                .map(|action| [encoders(&action.in_place), encoders(&action.insert)])
                .collect();
            Ok(Modify {
                plan,
                colocation,
                encoders,
                rows: None,
                given: None,
                seen: Places::default(),
                missed: HashSet::new(),
                inserted: Vec::new(),
                taken: None,
                done: false,
            })
        }
    }

    /// Changes everything on the first call, unless this is a part of a statement; then gives the rows of RETURNING.
    unsafe fn next(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<()> {
        unsafe {
            self.read_first(node)?;
            if self.plan.part.is_none() {
                self.apply(node)?;
                let scan = (*node).ss.ps.plan.cast::<pg_sys::CustomScan>();
                if (*scan).scan.plan.plan_rows == 0.0 {
                    // No RETURNING: nobody asks for the rows.
                    return Ok(());
                }
            }
            if let Some(given) = &self.given {
                let row = given.next();
                if !row.is_null() {
                    state::copy_into_virtual(row, slot);
                }
            }
            Ok(())
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

    unsafe fn rescan(&mut self, _node: *mut pg_sys::CustomScanState) -> Result<()> {
        if self.plan.part.is_none() {
            return Err(state::never_again());
        }
        if let Some(given) = &self.given {
            unsafe { given.rewind() };
        }
        Ok(())
    }

    unsafe fn explain(
        &mut self,
        _node: *mut pg_sys::CustomScanState,
        es: *mut pg_sys::ExplainState,
    ) -> Result<()> {
        let explainer = Explainer(es);
        for action in &self.plan.actions {
            let word = match action.command {
                Command::Update => "Update",
                Command::Delete => "Delete",
                Command::Insert => "Insert",
                Command::Select | Command::InsertSelect | Command::Merge => continue,
            };
            explainer.text(word, &self.plan.table);
            if let Some(statement) = &action.in_place {
                explainer.text("Remote SQL", statement.template.text());
            }
            if let (Some(_), Some(statement)) = (&action.remove, &action.insert) {
                explainer.text("When The Shard Changes", statement.template.text());
            } else if let Some(statement) = &action.insert {
                explainer.text("Remote SQL", statement.template.text());
            }
        }
        if !self.plan.reason.is_empty() {
            explainer.text("Read First Because", &self.plan.reason);
        }
        Ok(())
    }
}

impl Modify {
    /// Reads and locks all rows, if that was not done yet.
    ///
    /// # Safety
    /// `node` is this node's state.
    pub unsafe fn read_first(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        if self.rows.is_none() {
            unsafe {
                let rows = Kept::for_scan(node);
                self.given = Some(rows.reader());
                self.read(node, &rows)?;
                self.rows = Some(rows);
            }
        }
        Ok(())
    }

    /// Changes the rows, if that was not done yet.
    ///
    /// # Safety
    /// `node` is this node's state; all rows were read.
    pub unsafe fn apply(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            if self.done {
                return Ok(());
            }
            self.done = true;
            self.change(node)?;
            let mut looks = 0;
            while !self.missed.is_empty() {
                looks += 1;
                self.may_look_again(looks)?;
                self.change_again(node)?;
            }
            if self.plan.part.is_none() {
                // Also those that a foreign key of the table to itself takes away before their own turn comes.
                let changed = self.rows.as_ref().map_or(0, |rows| rows.len());
                (*(*node).ss.ps.state).es_processed += changed;
            }
            Ok(())
        }
    }

    /// Reads all rows and keeps those that are changed, each once.
    unsafe fn read(&mut self, node: *mut pg_sys::CustomScanState, rows: &Kept) -> Result<()> {
        unsafe {
            let estate = (*node).ss.ps.state;
            let child = list::nth::<pg_sys::PlanState>((*node).custom_ps, 0);
            loop {
                let slot = state::exec_child(child);
                if state::is_empty(slot) {
                    return Ok(());
                }
                pg_sys::slot_getallattrs(slot);
                let row = Row(slot);
                check(&self.plan.checks, &row, estate)?;
                let Some(action) = self.plan.action_of(&row) else {
                    continue;
                };
                if action.command != Command::Insert {
                    let Some(place) = self.place(&row) else {
                        return Err(Error::internal("a row without a place"));
                    };
                    let again = self.plan.repeats != Repeats::Never && !self.seen.insert(place);
                    if again || self.is_taken(place) {
                        if self.plan.repeats == Repeats::Forbidden {
                            return Err(match self.plan.proposal {
                                Some(_) => find::affected_twice(),
                                None => affected_twice(),
                            });
                        }
                        continue;
                    }
                }
                check(&action.checks, &row, estate)?;
                rows.put(slot);
            }
        }
    }

    /// Rows that are in conflict and never found are hidden by policies that the node applies to its login: those of the
    /// current role, as for PostgreSQL's own ON CONFLICT.
    fn may_look_again(&self, looks: u32) -> Result<()> {
        if looks <= LOOKS_UNDER_POLICIES {
            return Ok(());
        }
        // SAFETY: a look-up of the relation and the current role.
        let enforced = unsafe {
            let relid = Oid::from(self.plan.relid);
            pg_sys::check_enable_rls(relid, pg_sys::InvalidOid, true)
        };
        let updates = self.plan.actions.len() > 1;
        if enforced == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32 {
            let hidden = RowCheck {
                kind: if updates {
                    CheckKind::FoundRow
                } else {
                    CheckKind::HiddenRow
                },
                relation: self.plan.table.clone(),
                table: self.plan.relid,
                policy: None,
            };
            return Err(hidden.violation());
        }
        if looks > MOST_LOOKS {
            return Err(Error::new(
                sqlstate::SERIALIZATION_FAILURE,
                "could not insert rows because others kept changing those in conflict with them",
            ));
        }
        Ok(())
    }

    /// Others were faster with rows in conflict with some that were to be inserted: those are looked for again.
    unsafe fn change_again(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            let child = list::nth::<pg_sys::PlanState>((*node).custom_ps, 0);
            let find = find_below(child)?;
            let missed = std::mem::take(&mut self.missed);
            find.look_again(missed.clone(), &std::mem::take(&mut self.inserted));
            state::run_anew(child);
            let again = Kept::for_scan(node);
            self.read(node, &again)?;
            let (settled, repeated) = find.settled();
            if self.plan.part.is_some() {
                // what they return is known already
                if repeated {
                    return Err(Error::refused(
                        "a WITH clause proposes rows that are in conflict with each other, while the statement reads their table",
                        "Run the WITH clause as a statement of its own, in the same transaction.",
                    ));
                }
                return Err(Error::new(
                    sqlstate::SERIALIZATION_FAILURE,
                    "could not insert rows because others have inserted such in between",
                )
                .hint("Run the transaction again."));
            }
            let before = self.rows.replace(again);
            self.change(node)?;
            // what was inserted or changed at first, then these
            let all = Kept::for_scan(node);
            self.given = Some(all.reader());
            for (rows, first) in [(before, true), (self.rows.take(), false)] {
                let Some(rows) = rows else { continue };
                rows.rewind();
                while let Some(row) = Row::next_of(&rows) {
                    let number = self.plan.proposed(&row);
                    let void = number.is_some_and(|n| missed.contains(&n) && !settled.contains(&n));
                    if !(first && void) {
                        all.put(row.0);
                    }
                }
                rows.end();
            }
            self.rows = Some(all);
            Ok(())
        }
    }

    /// Each row is changed by one part of a statement, the first that reads it; false: it is this one.
    fn is_taken(&self, place: Place) -> bool {
        let taken = self.taken.as_ref();
        taken.is_some_and(|taken| !taken.borrow_mut().insert(place))
    }

    /// Where the row to change is.
    fn place(&self, row: &Row) -> Option<Place> {
        let group = self.colocation.group_for(row.value(self.plan.key))?;
        // SAFETY: a value of type tid.
        let (block, offset) = unsafe { types::tid(row.value(self.plan.ctid)?) };
        Some((group as u32, block, offset))
    }
}

/// Fails when a row does not meet a condition.
unsafe fn check(
    checks: &[(usize, RowCheck)],
    row: &Row,
    estate: *mut pg_sys::EState,
) -> Result<()> {
    let mut values = checks
        .iter()
        .map(|(column, check)| (row.value(*column), check));
    values.try_for_each(|(value, check)| unsafe { checks::examine(check, value, estate) })
}

/// The node that has found what the rows of a plan are in conflict with.
unsafe fn find_below<'a>(child: *mut pg_sys::PlanState) -> Result<&'a mut Find> {
    let mut found = None;
    unsafe {
        state::walk_below(child, &mut |state| {
            if let Some(find) = find::of_state(state) {
                found.get_or_insert(find);
            }
        });
    }
    found.ok_or_else(|| Error::internal("proposed rows whose conflicts nobody finds"))
}

/// What ExecMergeMatched says.
fn affected_twice() -> Error {
    Error::new(
        sqlstate::CARDINALITY_VIOLATION,
        "MERGE command cannot affect row a second time",
    )
    .hint("Ensure that not more than one source row matches any one target row.")
}

/// A row whose attributes were all taken out of its tuple.
struct Row(*mut pg_sys::TupleTableSlot);

impl Row {
    unsafe fn next_of(rows: &Kept) -> Option<Row> {
        unsafe {
            let slot = rows.next();
            if slot.is_null() {
                return None;
            }
            pg_sys::slot_getallattrs(slot);
            Some(Row(slot))
        }
    }

    fn value(&self, column: usize) -> Option<Datum> {
        // SAFETY: a slot with values, as wide as the plan says.
        unsafe { state::value(self.0, column) }
    }
}

impl ModifyPlan {
    /// The index of the action that a row gets.
    fn number_of(&self, row: &Row) -> Option<usize> {
        match self.choice {
            None => Some(0),
            Some(column) => {
                let number = row.value(column)?.value() as i32;
                usize::try_from(number).ok()?.checked_sub(1)
            }
        }
    }

    /// The number of a proposed row.
    fn proposed(&self, row: &Row) -> Option<i64> {
        Some(row.value(self.proposal?)?.value() as i64)
    }

    fn action_of(&self, row: &Row) -> Option<&Action> {
        self.actions.get(self.number_of(row)?)
    }
}
