//! The custom scan that changes rows on their shards which the plan below has read and locked: UPDATE, DELETE and MERGE
//! that the shards cannot run by themselves. All rows are read before the first is changed. Then their changes are sent
//! as arrays, by ctid, a statement per shard group and batch: first rows that leave their shard are taken away, then
//! rows are changed where they are, then new ones come.

use crate::catalog::{self, Colocation};
use crate::error::{sqlstate, Error, Result};
use crate::executor::checks::{self, Constraints};
use crate::executor::encode::{self, ArrayBuilder, Arrays, Encoder};
use crate::executor::explain::Explainer;
use crate::executor::find::{self, Find};
use crate::executor::kept::{Kept, Reader};
use crate::executor::lock::ctid_of_text;
use crate::executor::state::{self, body, Callbacks, Methods};
use crate::executor::task;
use crate::pg::{list, types};
use crate::planner::plan::{
    Action, CheckKind, Command, ModifyPlan, Private, Referenced, Repeats, RowCheck, RowsStatement,
};
use crate::planner::stored_columns;
use crate::remote::{Format, Gather, Params, Request};
use crate::transaction::moves;
use pgrx::pg_guard;
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

static SCAN: Methods<pg_sys::CustomScanMethods> = state::scan_methods(c"ShardModify", create_state);

static EXEC: Methods<pg_sys::CustomExecMethods> = state::exec_methods(
    c"ShardModify",
    Callbacks {
        begin,
        exec,
        end,
        rescan,
        explain: explain_modify,
    },
);

/// For `CustomScan.methods`.
pub fn modify_methods() -> *const pg_sys::CustomScanMethods {
    &raw const SCAN.0
}

/// The node that a plan state is, if it is one of ours.
///
/// # Safety
/// `state` is a valid plan state whose `begin` was called.
pub unsafe fn of_state<'a>(state: *mut pg_sys::PlanState) -> Option<&'a mut Modify> {
    unsafe { state::body_of(state, &EXEC) }
}

/// How often proposed rows that were not inserted are looked for: where policies may hide what they are in conflict with,
/// and elsewhere.
const LOOKS_UNDER_POLICIES: u32 = 20;
const MOST_LOOKS: u32 = 1000;

/// Bytes of rows held before they are sent.
const BATCH_BYTES: usize = 4 << 20;

/// Where a row is: index of its shard group, block, offset.
pub type Place = (u32, u32, u16);

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

/// A set of places, in little memory where many rows of a page are in it: 64 neighbours share a word.
#[derive(Default)]
pub struct Places(HashMap<(u32, u32, u16), u64>);

impl Places {
    /// False: it was in the set.
    fn insert(&mut self, (group, block, offset): Place) -> bool {
        let word = self.0.entry((group, block, offset / 64)).or_default();
        let bit = 1 << (offset % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

/// The rounds over the rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Round {
    Remove,
    InPlace,
    Insert,
}

/// Rows of one shard group waiting for a statement.
struct Batch {
    places: Vec<Place>,
    /// Their numbers, when they are proposed.
    numbers: Vec<i64>,
    ctids: ArrayBuilder,
    arrays: Arrays,
}

state::gives_rows!(Modify, next);

#[pg_guard]
unsafe extern "C-unwind" fn begin(
    node: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    flags: i32,
) {
    // SAFETY: called by ExecInitCustomScan.
    unsafe { state::begin_above(node, estate, flags, |scan| Modify::new(scan)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn end(node: *mut pg_sys::CustomScanState) {
    // SAFETY: the child and the rows were made by this node.
    unsafe {
        if let Some(rows) = body::<Modify>(node).and_then(|modify| modify.rows.take()) {
            rows.end();
        }
        state::end_child(node)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn rescan(node: *mut pg_sys::CustomScanState) {
    // SAFETY: called by ExecReScanCustomScan.
    unsafe {
        match body::<Modify>(node) {
            Some(modify) if modify.plan.part.is_some() => {
                if let Some(given) = &modify.given {
                    given.rewind();
                }
            }
            _ => state::never_again(node),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn explain_modify(
    node: *mut pg_sys::CustomScanState,
    _ancestors: *mut pg_sys::List,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: called by ExplainNode.
    unsafe {
        if let Some(modify) = body::<Modify>(node) {
            modify.explain(&Explainer(es));
        }
    }
}

impl Modify {
    unsafe fn new(scan: *mut pg_sys::CustomScan) -> Result<Modify> {
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

    fn explain(&self, explainer: &Explainer) {
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

    /// All rounds.
    unsafe fn change(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        let may_move = self.plan.actions.iter().any(|a| a.remove.is_some());
        let in_place = self.plan.actions.iter().any(|a| a.in_place.is_some());
        let inserts = self.plan.actions.iter().any(|a| a.insert.is_some());
        for (round, wanted) in [
            (Round::Remove, may_move),
            (Round::InPlace, in_place),
            (Round::Insert, inserts),
        ] {
            if wanted {
                unsafe { self.round(node, round)? };
            }
        }
        Ok(())
    }

    unsafe fn round(&mut self, node: *mut pg_sys::CustomScanState, round: Round) -> Result<()> {
        unsafe {
            if let Some(rows) = &self.rows {
                rows.rewind();
            }
            let econtext = (*node).ss.ps.ps_ExprContext;
            let mut batches: BTreeMap<(usize, usize), Batch> = BTreeMap::new();
            let mut waiting = 0;
            while let Some(row) = self.rows.as_ref().and_then(|rows| Row::next_of(rows)) {
                pgrx::check_for_interrupts!();
                let number = self.plan.number_of(&row);
                let Some(action) = number.and_then(|n| self.plan.actions.get(n)) else {
                    continue;
                };
                let number = number.unwrap_or_default();
                let Some((group, place)) =
                    self.part_in(round, action, &row, (*node).ss.ps.state)?
                else {
                    continue;
                };
                let Some(statement) = statement_of(round, action) else {
                    return Err(Error::internal("an action without its statement"));
                };
                let batch = batches
                    .entry((number, group))
                    .or_insert_with(|| Batch::of(statement));
                pg_sys::MemoryContextReset((*econtext).ecxt_per_tuple_memory);
                let old = pg_sys::MemoryContextSwitchTo((*econtext).ecxt_per_tuple_memory);
                let encoders = &mut self.encoders[number][usize::from(round == Round::Insert)];
                waiting += batch.add(place, statement, encoders, &row);
                batch.numbers.extend(self.plan.proposed(&row));
                pg_sys::MemoryContextSwitchTo(old);
                if waiting > BATCH_BYTES {
                    self.send(round, std::mem::take(&mut batches))?;
                    waiting = 0;
                }
            }
            self.send(round, batches)
        }
    }

    /// The shard group that a row concerns in a round, and the row's place there; None: it is not concerned.
    unsafe fn part_in(
        &self,
        round: Round,
        action: &Action,
        row: &Row,
        estate: *mut pg_sys::EState,
    ) -> Result<Option<(usize, Option<Place>)>> {
        let new_group = || -> Result<usize> {
            let key = action.new_key.and_then(|column| row.value(column));
            if key.is_none() && self.plan.required_key && action.command == Command::Update {
                // before anybody looks at the rows that refer to the one that would leave
                unsafe { self.check_constraints(action, row, estate) };
            }
            match self.colocation.group_for(key) {
                Some(group) => Ok(group),
                None => {
                    let (schema, table) = (&self.plan.schema, &self.plan.table);
                    Err(catalog::no_shard(&self.colocation, schema, table, key))
                }
            }
        };
        if action.command == Command::Insert {
            return Ok(match round {
                Round::Insert => Some((new_group()?, None)),
                _ => None,
            });
        }
        let place = self
            .place(row)
            .ok_or_else(|| Error::internal("a row without a place"))?;
        let group = place.0 as usize;
        let goes_to = if action.remove.is_some() {
            new_group()?
        } else {
            group
        };
        let stays = goes_to == group;
        if round == Round::Remove && !stays {
            let [from, to] = [group, goes_to].map(|index| self.colocation.groups[index].id);
            moves::rows_move(Oid::from(self.plan.relid), from, to);
        }
        Ok(match round {
            Round::Remove if !stays => Some((group, Some(place))),
            Round::InPlace if stays => Some((group, Some(place))),
            Round::Insert if !stays => Some((goes_to, None)),
            _ => None,
        })
    }

    /// Fails when the new row that leaves its shard breaks a constraint.
    unsafe fn check_constraints(&self, action: &Action, row: &Row, estate: *mut pg_sys::EState) {
        unsafe {
            let relid = Oid::from(self.plan.relid);
            let columns = action.insert.iter().flat_map(|insert| &insert.columns);
            let values = columns.map(|column| row.value(column.source));
            let mut constraints = Constraints::of(relid, estate);
            constraints.check(stored_columns(relid).into_iter().zip(values));
            constraints.end();
        }
    }

    /// Sends batches and waits for the answers.
    fn send(&mut self, round: Round, batches: BTreeMap<(usize, usize), Batch>) -> Result<()> {
        if batches.is_empty() {
            return Ok(());
        }
        if round == Round::Remove {
            for referenced in &self.plan.referenced {
                self.forbid_referenced(referenced, &batches)?;
            }
        }
        let mut requests = Vec::new();
        let mut about = Vec::new();
        for ((number, group), batch) in batches {
            let action = &self.plan.actions[number];
            let Some(statement) = statement_of(round, action) else {
                return Err(Error::internal("an action without its statement"));
            };
            let mut params = Params::default();
            if statement.by_ctid {
                params.push(pg_sys::TIDARRAYOID, batch.ctids.finish());
            }
            batch.arrays.finish(&statement.columns, &mut params);
            requests.push(self.request(group, &statement.template, params)?);
            let proposed = action.command == Command::Insert;
            about.push((group, proposed, batch.numbers));
        }
        let mut gather = Gather::start(requests)?;
        // rows come back where they are proposed: their new places
        let mut places: Vec<Vec<Place>> = vec![Vec::new(); about.len()];
        while let Some((answer, row)) = gather.next()? {
            let (block, offset) = row
                .get(0)
                .and_then(ctid_of_text)
                .ok_or_else(|| Error::new(sqlstate::PROTOCOL_VIOLATION, "a node sent no ctid"))?;
            places[answer].push((about[answer].0 as u32, block, offset));
        }
        for (places, (_, proposed, numbers)) in places.into_iter().zip(about) {
            for place in &places {
                self.seen.insert(*place);
            }
            if proposed && places.len() < numbers.len() {
                self.missed.extend(numbers);
                self.inserted.extend(places);
            }
        }
        Ok(())
    }

    fn request(
        &self,
        group: usize,
        template: &crate::deparse::SqlTemplate,
        params: Params,
    ) -> Result<Request> {
        let group = &self.colocation.groups[group];
        task::change_in(group, template, params, Format::Text, self.plan.as_others)
    }

    /// Rows that others refer to cannot leave their shard: DELETE would do there what ON DELETE says.
    fn forbid_referenced(
        &self,
        referenced: &Referenced,
        batches: &BTreeMap<(usize, usize), Batch>,
    ) -> Result<()> {
        let mut requests = Vec::new();
        for ((_, group), batch) in batches {
            let mut params = Params::default();
            params.push(pg_sys::TIDARRAYOID, ctids(&batch.places));
            requests.push(self.request(*group, &referenced.look, params)?);
        }
        let mut gather = Gather::start(requests)?;
        let mut found = None;
        while let Some((_, row)) = gather.next()? {
            let values = row.get(0).map(|v| String::from_utf8_lossy(v).into_owned());
            found.get_or_insert(values.unwrap_or_default());
        }
        let Some(values) = found else { return Ok(()) };
        let (table, child) = (&self.plan.table, &referenced.table);
        let constraint = &referenced.constraint;
        if referenced.follows {
            return Err(Error::refused(
                format!("the distribution column of a row of \"{table}\" cannot be changed while rows of \"{child}\" follow it to another shard"),
                "Change the referring rows first, in the same transaction.",
            )
            .detail(format!("Foreign key \"{constraint}\" says what happens to referring rows ON UPDATE.")));
        }
        let mut error = Error::new(
            *b"23503",
            format!("update or delete on table \"{table}\" violates foreign key constraint \"{constraint}\" on table \"{child}\""),
        )
        .detail(format!(
            "Key ({})=({values}) is still referenced from table \"{child}\".",
            referenced.columns
        ));
        let fields = error.fields_mut();
        fields.schema = Some(referenced.schema.clone());
        fields.table = Some(child.clone());
        fields.constraint = Some(constraint.clone());
        Err(error)
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

fn statement_of(round: Round, action: &Action) -> Option<&RowsStatement> {
    match round {
        Round::Remove => action.remove.as_ref(),
        Round::InPlace => action.in_place.as_ref(),
        Round::Insert => action.insert.as_ref(),
    }
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

impl Batch {
    fn of(statement: &RowsStatement) -> Batch {
        Batch {
            places: Vec::new(),
            numbers: Vec::new(),
            ctids: ArrayBuilder::new(pg_sys::TIDOID.to_u32()),
            arrays: Arrays::new(&statement.columns),
        }
    }

    /// Adds a row; answers by how many bytes the batch grew.
    unsafe fn add(
        &mut self,
        place: Option<Place>,
        statement: &RowsStatement,
        encoders: &mut [Encoder],
        row: &Row,
    ) -> usize {
        let mut grown = 0;
        if let Some(place) = place {
            self.places.push(place);
            push_ctid(&mut self.ctids, place);
            grown += 20;
        }
        // SAFETY: values of the columns' types.
        grown
            + unsafe { (self.arrays).add(&statement.columns, encoders, |source| row.value(source)) }
    }
}

/// As `tid_recv` reads it.
fn push_ctid(array: &mut ArrayBuilder, (_, block, offset): Place) {
    array.push(|out| {
        out.extend_from_slice(&block.to_be_bytes());
        out.extend_from_slice(&offset.to_be_bytes());
    });
}

fn ctids(places: &[Place]) -> Vec<u8> {
    let mut array = ArrayBuilder::new(pg_sys::TIDOID.to_u32());
    for place in places {
        push_ctid(&mut array, *place);
    }
    array.finish()
}

#[cfg(test)]
mod tests {
    use super::Places;

    #[test]
    fn places_are_new_once() {
        let mut places = Places::default();
        for place in [(1, 0, 1), (1, 0, 65), (1, 1, 1), (2, 0, 1), (1, 0, 2)] {
            assert!(places.insert(place), "{place:?}");
            assert!(!places.insert(place), "{place:?}");
        }
    }
}
