//! The custom scan that locks rows on their shards after the plan below has read them, as LockRows does for local
//! tables. Rows are taken from below as far as LIMIT wants them, locked by ctid, and passed on when all of them were
//! found as they were read. What has changed in between is read again from the start: locks that are held by then
//! make the second reading stand.

use crate::catalog::{self, Colocation};
use crate::error::{sqlstate, Error, Result};
use crate::executor::explain::Explainer;
use crate::executor::kept::Kept;
use crate::executor::state::{self, Body, Methods};
use crate::executor::{scan, task};
use crate::pg::{list, types};
use crate::planner::plan::{LockPlan, LockedRelation, Private};
use crate::remote::{scope, Format, Gather, Params, Request};
use crate::transaction::moves::Watch;
use pgrx::pg_sys::{self, Datum};
use std::collections::HashMap;
use std::ffi::CStr;
use std::rc::Rc;

static METHODS: Methods = Methods::of::<Lock>();

/// For `CustomScan.methods`.
pub fn lock_methods() -> *const pg_sys::CustomScanMethods {
    METHODS.for_plan()
}

/// Rows whose locks are asked for at once: so many first, and up to so many after others.
const FIRST_BATCH: u64 = 1000;
const MOST_OF_BATCH: u64 = 16_000;

/// After so many readings rows change faster than they can be locked.
const READINGS: u32 = 1000;

/// The same for those between which rows have moved.
const READINGS_OF_MOVES: u32 = 20;

/// A row version: block, offset, xmin.
pub type Version = (u32, u16, u32);

/// Where a row is: index of its shard group and its version.
type Place = (usize, Version);

struct Lock {
    plan: LockPlan,
    colocations: Vec<Rc<Colocation>>,
    exprs: Vec<*mut pg_sys::ExprState>,
    /// Locked rows, to be passed on.
    locked: Option<Kept>,
    filled: bool,
    /// Per relation: the versions that are locked, or (false) that SKIP LOCKED leaves out.
    known: Vec<HashMap<Place, bool>>,
    readings: u32,
    /// Row marks of the plan that are out of sight, and their tables.
    hidden: Vec<(*mut pg_sys::ExecRowMark, pg_sys::Oid)>,
}

/// A row from below and where its parts are; None for the absent side of an outer join.
struct Candidate {
    tuple: pg_sys::MinimalTuple,
    places: Vec<Option<Place>>,
}

/// How a reading of the rows ended.
enum Outcome {
    Done,
    /// Rows have changed since they were read.
    Changed,
    /// More candidates are needed than were asked for.
    TooFew,
}

impl Body for Lock {
    const NAME: &'static CStr = c"ShardLock";

    fn methods() -> &'static Methods {
        &METHODS
    }

    unsafe fn new(
        node: *mut pg_sys::CustomScanState,
        scan: *mut pg_sys::CustomScan,
    ) -> Result<Lock> {
        unsafe {
            let plan = LockPlan::from_private((*scan).custom_private)?;
            let mut colocations = Vec::new();
            for relation in &plan.relations {
                colocations.push(catalog::colocation(relation.colocation)?);
            }
            let exprs = list::iter::<pg_sys::Expr>((*scan).custom_exprs)
                .map(|expr| pg_sys::ExecInitExpr(expr, &raw mut (*node).ss.ps))
                .collect();
            Ok(Lock {
                known: plan.relations.iter().map(|_| HashMap::new()).collect(),
                plan,
                colocations,
                exprs,
                locked: None,
                filled: false,
                readings: 0,
                hidden: Vec::new(),
            })
        }
    }

    /// Puts the next locked row into the slot, or leaves it empty at the end.
    unsafe fn next(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<()> {
        unsafe {
            if !self.filled {
                self.fill(node)?;
                self.filled = true;
            }
            let row = self.locked(node).next();
            if !row.is_null() {
                state::copy_into_virtual(row, slot);
            }
            Ok(())
        }
    }

    unsafe fn end(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            if let Some(locked) = self.locked.take() {
                locked.end();
            }
            state::end_child(node);
        }
        Ok(())
    }

    unsafe fn rescan(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            let child = state::tell_child_changes(node);
            if self.filled && (*child).chgParam.is_null() {
                self.locked(node).rewind();
            } else if self.filled {
                self.filled = false;
            }
        }
        Ok(())
    }

    unsafe fn explain(
        &mut self,
        _node: *mut pg_sys::CustomScanState,
        es: *mut pg_sys::ExplainState,
    ) -> Result<()> {
        let explainer = Explainer(es);
        for relation in &self.plan.relations {
            let text = format!("{} OF {}", relation.clause, relation.name);
            explainer.text("Lock", &text);
        }
        if unsafe { (*es).analyze } && self.readings > 1 {
            explainer.integer("Readings", None, i64::from(self.readings));
        }
        Ok(())
    }
}

impl Lock {
    unsafe fn locked(&mut self, node: *mut pg_sys::CustomScanState) -> &Kept {
        self.locked
            .get_or_insert_with(|| unsafe { Kept::for_scan(node) })
    }

    /// Rows that LIMIT and OFFSET take together; None: all.
    unsafe fn wanted(&self, node: *mut pg_sys::CustomScanState) -> Option<u64> {
        let value = |index: usize| -> Option<i64> {
            // SAFETY: this node's expressions, of type int8.
            let datum = unsafe { state::evaluate(self.exprs[index], (*node).ss.ps.ps_ExprContext) };
            datum.map(|datum| datum.value() as i64)
        };
        let count = value(self.plan.limit?)?;
        let offset = self.plan.offset.and_then(value).unwrap_or(0);
        if count <= 0 {
            return Some(0);
        }
        Some((count as u64).saturating_add(offset.max(0) as u64))
    }

    /// Reads and locks until all that was read is locked as it was read.
    unsafe fn fill(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            self.show_marks();
            let child = list::nth::<pg_sys::PlanState>((*node).custom_ps, 0);
            let wanted = self.wanted(node);
            let skips = self.plan.relations.iter().any(|r| r.skips);
            // With SKIP LOCKED others hold some of the first rows.
            let mut window = match wanted {
                None => i64::MAX as u64,
                Some(wanted) if skips => wanted.saturating_mul(2).saturating_add(50),
                Some(wanted) => wanted,
            };
            let mut moves = 0;
            let rereads = scope::has_snapshot_per_statement();
            for reading in 1..=READINGS {
                self.clear(node);
                let watch = self.watch()?;
                self.readings = reading;
                let windowed = self.set_window(child, window);
                let most = if windowed { window } else { u64::MAX };
                match self.read(node, child, wanted.unwrap_or(u64::MAX), most)? {
                    Outcome::Done => match watch.map_or(Ok(()), |watch| watch.check()) {
                        Ok(()) => {
                            self.hide_marks(node);
                            return Ok(());
                        }
                        Err(error) if moves == READINGS_OF_MOVES || !rereads => return Err(error),
                        Err(_) => moves += 1,
                    },
                    Outcome::Changed => {}
                    Outcome::TooFew => window = window.saturating_mul(8).min(i64::MAX as u64),
                }
                pgrx::check_for_interrupts!();
                state::run_anew(child);
            }
            Err(Error::new(
                *b"40001",
                "could not lock rows because others kept changing them",
            ))
        }
    }

    /// Looks out for rows that move between shards. One that moves counts as locked: SKIP LOCKED leaves it out.
    fn watch(&self) -> Result<Option<Watch>> {
        let relations = self.plan.relations.iter().zip(&self.colocations);
        let watched: Vec<_> = relations
            .filter(|(relation, _)| !relation.skips)
            .map(|(relation, colocation)| (relation.relid, colocation.groups.iter().collect()))
            .collect();
        Watch::start(&watched)
    }

    /// Rows have been read ahead, so the row of a local table that PostgreSQL has locked last isn't the cursor's: `WHERE
    /// CURRENT OF` must not find the table among those that are locked.
    unsafe fn hide_marks(&mut self, node: *mut pg_sys::CustomScanState) {
        unsafe {
            let estate = (*node).ss.ps.state;
            if (*estate).es_rowmarks.is_null() {
                return;
            }
            for index in 0..(*estate).es_range_table_size as usize {
                let mark = *(*estate).es_rowmarks.add(index);
                if !mark.is_null() {
                    self.hidden.push((mark, (*mark).relid));
                    (*mark).relid = pg_sys::InvalidOid;
                }
            }
        }
    }

    /// Rows are read again.
    unsafe fn show_marks(&mut self) {
        for (mark, relid) in self.hidden.drain(..) {
            // SAFETY: it lives as long as the executor's state.
            unsafe { (*mark).relid = relid };
        }
    }

    unsafe fn clear(&mut self, node: *mut pg_sys::CustomScanState) {
        unsafe { self.locked(node).clear() };
        self.forget();
    }

    fn forget(&mut self) {
        self.known.iter_mut().for_each(HashMap::clear);
    }

    /// Is what is known of rows more than a hash table should hold? A row that comes again is then asked for again.
    fn knows_much(&self) -> bool {
        let size = std::mem::size_of::<(Place, bool)>();
        let known: usize = self.known.iter().map(HashMap::len).sum();
        // SAFETY: reads two settings.
        known * size > unsafe { pg_sys::get_hash_memory_limit() }
    }

    /// Tells the leaf below how many candidates to ask for; false when none counts them.
    unsafe fn set_window(&self, child: *mut pg_sys::PlanState, rows: u64) -> bool {
        let mut found = false;
        unsafe {
            state::walk_below(child, &mut |state| {
                if let Some(scan) = scan::of_state(state) {
                    found |= scan.set_window(self.plan.number, rows.min(i64::MAX as u64) as i64);
                }
            });
        }
        found
    }

    /// One reading: `wanted` rows into the store, of at most `most` candidates.
    unsafe fn read(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        child: *mut pg_sys::PlanState,
        wanted: u64,
        most: u64,
    ) -> Result<Outcome> {
        unsafe {
            let (mut taken, mut read) = (0u64, 0u64);
            let mut changed = false;
            let mut ended = false;
            let mut size = FIRST_BATCH;
            while !ended && taken < wanted && read < most {
                let room = (wanted - taken).min(most - read).min(size);
                size = (size * 2).min(MOST_OF_BATCH);
                let mut batch = Vec::new();
                while (batch.len() as u64) < room {
                    let slot = state::exec_child(child);
                    if state::is_empty(slot) {
                        ended = true;
                        break;
                    }
                    batch.push(self.candidate(node, slot));
                }
                read += batch.len() as u64;
                if self.knows_much() {
                    self.forget();
                }
                self.lock(&batch)?;
                for candidate in batch {
                    match self.verdict(&candidate) {
                        Verdict::Locked => {
                            self.locked(node).take(candidate.tuple);
                            taken += 1;
                            continue;
                        }
                        Verdict::Skipped => {}
                        Verdict::Changed => changed = true,
                    }
                    pg_sys::heap_free_minimal_tuple(candidate.tuple);
                }
                if changed && !self.plan.relations.iter().any(|r| r.skips) {
                    return Ok(Outcome::Changed);
                }
            }
            if taken >= wanted {
                return Ok(Outcome::Done);
            }
            if changed {
                return Ok(Outcome::Changed);
            }
            Ok(if ended || wanted == 0 {
                Outcome::Done
            } else {
                Outcome::TooFew
            })
        }
    }

    /// Keeps a row from below, with the places of its parts.
    unsafe fn candidate(
        &self,
        node: *mut pg_sys::CustomScanState,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Candidate {
        unsafe {
            pg_sys::slot_getallattrs(slot);
            let places = self
                .plan
                .relations
                .iter()
                .zip(&self.colocations)
                .map(|(relation, colocation)| {
                    let [key, ctid, xmin] = relation.columns;
                    let version = version(state::value(slot, ctid)?, state::value(slot, xmin)?);
                    Some((colocation.group_for(state::value(slot, key))?, version))
                })
                .collect();
            let old = pg_sys::MemoryContextSwitchTo((*(*node).ss.ps.state).es_query_cxt);
            let tuple = pg_sys::ExecCopySlotMinimalTuple(slot);
            pg_sys::MemoryContextSwitchTo(old);
            Candidate { tuple, places }
        }
    }

    /// Locks what is not locked yet of the rows of a batch; looks again at what SKIP LOCKED left out.
    fn lock(&mut self, batch: &[Candidate]) -> Result<()> {
        let missing = |this: &Lock, only_skipping: bool| -> Vec<(usize, Vec<Place>)> {
            let mut wanted = Vec::new();
            for (index, relation) in this.plan.relations.iter().enumerate() {
                if only_skipping && !relation.skips {
                    continue;
                }
                let mut places: Vec<Place> = batch
                    .iter()
                    .filter_map(|candidate| candidate.places[index])
                    .filter(|place| this.known[index].get(place) != Some(&true))
                    .collect();
                places.sort_unstable();
                places.dedup();
                if !places.is_empty() {
                    wanted.push((index, places));
                }
            }
            wanted
        };
        for (index, place) in self.ask(&missing(self, false), false)? {
            self.known[index].insert(place, true);
        }
        for (index, place) in self.ask(&missing(self, true), true)? {
            self.known[index].insert(place, false);
        }
        Ok(())
    }

    /// Sends each shard group the ctids of its rows; answers the versions that came back.
    fn ask(&self, wanted: &[(usize, Vec<Place>)], look: bool) -> Result<Vec<(usize, Place)>> {
        let mut requests = Vec::new();
        let mut about = Vec::new();
        for (index, places) in wanted {
            for part in places.chunk_by(|a, b| a.0 == b.0) {
                let group = part[0].0;
                let relation = &self.plan.relations[*index];
                requests.push(request(relation, &self.colocations[*index], part, look)?);
                about.push((*index, group));
            }
        }
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        let mut gather = Gather::start(requests)?;
        while let Some((answer, row)) = gather.next()? {
            let (index, group) = about[answer];
            let version = version_of_text(row.get(0), row.get(1))
                .ok_or_else(|| Error::new(sqlstate::PROTOCOL_VIOLATION, "a node sent no ctid"))?;
            found.push((index, (group, version)));
        }
        Ok(found)
    }

    fn verdict(&self, candidate: &Candidate) -> Verdict {
        let mut verdict = Verdict::Locked;
        for (index, place) in candidate.places.iter().enumerate() {
            let Some(place) = place else { continue };
            match self.known[index].get(place) {
                Some(true) => {}
                Some(false) if matches!(verdict, Verdict::Locked) => verdict = Verdict::Skipped,
                Some(false) => {}
                None => verdict = Verdict::Changed,
            }
        }
        verdict
    }
}

enum Verdict {
    Locked,
    /// Another holds a lock on it.
    Skipped,
    Changed,
}

/// The statement about some rows of one shard group.
fn request(
    relation: &LockedRelation,
    colocation: &Colocation,
    places: &[Place],
    look: bool,
) -> Result<Request> {
    let group = &colocation.groups[places[0].0];
    let template = if look { &relation.look } else { &relation.lock };
    let ctids: Vec<String> = places
        .iter()
        .map(|(_, (block, offset, _))| format!("\"({block},{offset})\""))
        .collect();
    let params = Params {
        types: vec![pg_sys::TIDARRAYOID],
        values: vec![Some(format!("{{{}}}", ctids.join(",")).into_bytes())],
        formats: Vec::new(),
    };
    task::change_in(group, template, params, Format::Text, relation.as_others)
}

/// ctid and xmin of a row.
///
/// # Safety
/// They are values of these types.
pub unsafe fn version(ctid: Datum, xmin: Datum) -> Version {
    let (block, offset) = unsafe { types::tid(ctid) };
    (block, offset, xmin.value() as u32)
}

/// `(block,offset)` and a transaction id, as text.
pub fn version_of_text(ctid: Option<&[u8]>, xmin: Option<&[u8]>) -> Option<Version> {
    let (block, offset) = ctid_of_text(ctid?)?;
    let xmin = std::str::from_utf8(xmin?).ok()?;
    Some((block, offset, xmin.parse().ok()?))
}

/// `(block,offset)` as text.
pub fn ctid_of_text(ctid: &[u8]) -> Option<(u32, u16)> {
    let text = std::str::from_utf8(ctid).ok()?;
    let (block, offset) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    Some((block.parse().ok()?, offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::version_of_text;

    #[test]
    fn row_versions_are_read_as_a_node_writes_them() {
        assert_eq!(
            version_of_text(Some(b"(12,3)"), Some(b"745")),
            Some((12, 3, 745))
        );
        assert_eq!(version_of_text(Some(b"12,3"), Some(b"745")), None);
        assert_eq!(version_of_text(None, Some(b"745")), None);
    }
}
