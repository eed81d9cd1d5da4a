//! The custom scan that finds, for each row that an INSERT with ON CONFLICT proposes, the one that it is in conflict
//! with. Proposed rows go to their shards as arrays, which answer with the rows of the table, locked to be updated. All are kept: those
//! that others have inserted in between are looked for again.

use crate::catalog::{self, Colocation};
use crate::error::{sqlstate, Error, Result};
use crate::executor::checks::Constraints;
use crate::executor::decode::Decoder;
use crate::executor::encode::{encoders, Arrays, Encoder};
use crate::executor::explain::Explainer;
use crate::executor::kept::Kept;
use crate::executor::lock::ctid_of_text;
use crate::executor::places::Place;
use crate::executor::state::{self, Body, Methods};
use crate::executor::task;
use crate::pg::list;
use crate::planner::plan::{CheckKind, FindPlan, Private, RowCheck};
use crate::remote::{Gather, Params};
use pgrx::pg_sys::{self, Datum, Oid};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ffi::CStr;
use std::rc::Rc;

static METHODS: Methods = Methods::of::<Find>();

/// For `CustomScan.methods`.
pub fn find_methods() -> *const pg_sys::CustomScanMethods {
    METHODS.for_plan()
}

/// The node that a plan state is, if it is one of ours.
///
/// # Safety
/// `state` is a valid plan state whose `begin` was called.
pub unsafe fn of_state<'a>(state: *mut pg_sys::PlanState) -> Option<&'a mut Find> {
    unsafe { state::body_of(state) }
}

/// Rows that are looked for at once.
const BATCH: usize = 1000;

pub struct Find {
    plan: FindPlan,
    colocation: Rc<Colocation>,
    encoders: Vec<Encoder>,
    decoder: Decoder,
    /// PostgreSQL checks them before it looks for a conflict.
    constraints: Constraints,
    /// All proposed rows, once they were read.
    proposed: Option<Kept>,
    kept: *mut pg_sys::TupleTableSlot,
    /// The number of the next of them.
    next: i64,
    waiting: VecDeque<Waiting>,
    again: Option<Again>,
}

/// Some rows are looked for again.
struct Again {
    /// Their numbers.
    wanted: HashSet<i64>,
    /// Places of rows that some of them have become: none of them for another.
    inserted: HashMap<Place, bool>,
    /// Which ones have.
    settled: HashSet<i64>,
    /// Some are in conflict with those.
    repeated: bool,
}

/// A row to be handed on.
struct Waiting {
    number: i64,
    tuple: pg_sys::MinimalTuple,
    found: Option<Vec<Option<Vec<u8>>>>,
}

/// Rows of one shard group that wait for a look.
struct Batch {
    arrays: Arrays,
    /// Their places among those of the batch.
    rows: Vec<usize>,
}

impl Body for Find {
    const NAME: &'static CStr = c"ShardFind";

    fn methods() -> &'static Methods {
        &METHODS
    }

    unsafe fn new(
        node: *mut pg_sys::CustomScanState,
        scan: *mut pg_sys::CustomScan,
    ) -> Result<Find> {
        unsafe {
            let plan = FindPlan::from_private((*scan).custom_private)?;
            let colocation = catalog::colocation(plan.colocation)?;
            let encoders = encoders(&plan.columns);
            let decoder = Decoder::new(&plan.answer);
            let kept = pg_sys::ExecInitExtraTupleSlot(
                (*node).ss.ps.state,
                (*(*node).ss.ss_ScanTupleSlot).tts_tupleDescriptor,
                &raw const pg_sys::TTSOpsMinimalTuple,
            );
            Ok(Find {
                constraints: Constraints::of(Oid::from(plan.relid), (*node).ss.ps.state),
                plan,
                colocation,
                encoders,
                decoder,
                proposed: None,
                kept,
                next: 0,
                waiting: VecDeque::new(),
                again: None,
            })
        }
    }

    unsafe fn next(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<()> {
        unsafe {
            while self.waiting.is_empty() {
                if !self.look(node)? {
                    return Ok(());
                }
            }
            let Some(row) = self.waiting.pop_front() else {
                return Ok(());
            };
            pg_sys::ExecStoreMinimalTuple(row.tuple, self.kept, true);
            state::copy_into_virtual(self.kept, slot);
            let mut values = vec![Datum::null(); self.decoder.width()];
            let mut nulls = vec![true; self.decoder.width()];
            if let Some(found) = &row.found {
                let memory = (*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
                let old = pg_sys::MemoryContextSwitchTo(memory);
                let get = |column: usize| found.get(column).and_then(|value| value.as_deref());
                self.decoder
                    .decode(get, values.as_mut_ptr(), nulls.as_mut_ptr())?;
                pg_sys::MemoryContextSwitchTo(old);
            }
            (values[0], nulls[0]) = (Datum::from(row.number), false);
            for (index, place) in self.plan.outputs.iter().enumerate() {
                *(*slot).tts_values.add(*place) = values[index];
                *(*slot).tts_isnull.add(*place) = nulls[index];
            }
            Ok(())
        }
    }

    unsafe fn end(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            if let Some(proposed) = self.proposed.take() {
                proposed.end();
            }
            self.constraints.end();
            state::end_child(node);
        }
        Ok(())
    }

    unsafe fn rescan(&mut self, _node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe { self.rewind() };
        Ok(())
    }

    unsafe fn explain(
        &mut self,
        _node: *mut pg_sys::CustomScanState,
        es: *mut pg_sys::ExplainState,
    ) -> Result<()> {
        Explainer(es).text("Remote SQL", self.plan.lookup.text());
        Ok(())
    }
}

impl Find {
    /// Lets the rows of these numbers be looked for again, and no others. `inserted`: places of those that were inserted, of
    /// which some have become rows.
    ///
    /// # Safety
    /// All rows were handed on.
    pub unsafe fn look_again(&mut self, wanted: HashSet<i64>, inserted: &[Place]) {
        self.again = Some(Again {
            wanted,
            inserted: inserted.iter().map(|place| (*place, false)).collect(),
            settled: HashSet::new(),
            repeated: false,
        });
        unsafe { self.rewind() };
    }

    /// The numbers of those that were inserted after all; and are some of the others in conflict with these?
    pub fn settled(&mut self) -> (HashSet<i64>, bool) {
        let again = self.again.take();
        again.map_or_else(Default::default, |again| (again.settled, again.repeated))
    }

    unsafe fn rewind(&mut self) {
        self.next = 0;
        self.waiting.clear();
        if let Some(proposed) = &self.proposed {
            unsafe { proposed.rewind() };
        }
    }

    /// Looks for the conflicts of the next rows; false: there are none.
    unsafe fn look(&mut self, node: *mut pg_sys::CustomScanState) -> Result<bool> {
        unsafe {
            let mut rows = Vec::new();
            let mut batches: BTreeMap<usize, Batch> = BTreeMap::new();
            while rows.len() < BATCH {
                let slot = self.next_proposed(node);
                if state::is_empty(slot) {
                    break;
                }
                pgrx::check_for_interrupts!();
                let number = self.next;
                self.next += 1;
                if self
                    .again
                    .as_ref()
                    .is_some_and(|again| !again.wanted.contains(&number))
                {
                    continue;
                }
                pg_sys::slot_getallattrs(slot);
                if self.again.is_none() {
                    let columns = self.plan.attributes.iter().zip(&self.plan.columns);
                    let row = columns.map(|(attno, c)| (*attno, state::value(slot, c.source)));
                    self.constraints.check(row);
                }
                self.add(&mut batches, slot, rows.len(), node)?;
                let old = pg_sys::MemoryContextSwitchTo((*(*node).ss.ps.state).es_query_cxt);
                rows.push(Waiting {
                    number,
                    tuple: pg_sys::ExecCopySlotMinimalTuple(slot),
                    found: None,
                });
                pg_sys::MemoryContextSwitchTo(old);
            }
            if rows.is_empty() {
                return Ok(false);
            }
            self.ask(batches, &mut rows)?;
            for row in rows {
                if self.is_wanted(&row)? {
                    self.waiting.push_back(row);
                } else {
                    pg_sys::heap_free_minimal_tuple(row.tuple);
                }
            }
            Ok(true)
        }
    }

    /// The next of all proposed rows, which are read when the first is asked for.
    unsafe fn next_proposed(
        &mut self,
        node: *mut pg_sys::CustomScanState,
    ) -> *mut pg_sys::TupleTableSlot {
        unsafe {
            let child = list::nth::<pg_sys::PlanState>((*node).custom_ps, 0);
            self.proposed.get_or_insert_with(|| Kept::of(child)).next()
        }
    }

    /// Adds a row to those that its shard group looks for.
    unsafe fn add(
        &mut self,
        batches: &mut BTreeMap<usize, Batch>,
        slot: *mut pg_sys::TupleTableSlot,
        index: usize,
        node: *mut pg_sys::CustomScanState,
    ) -> Result<()> {
        unsafe {
            let key = self.plan.key.and_then(|column| state::value(slot, column));
            let Some(group) = self.colocation.group_for(key) else {
                let (schema, table) = self.plan.lookup.target();
                return Err(catalog::no_shard(&self.colocation, schema, table, key));
            };
            let columns = &self.plan.columns;
            let batch = batches.entry(group).or_insert_with(|| Batch {
                arrays: Arrays::new(columns),
                rows: Vec::new(),
            });
            let memory = (*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
            let old = pg_sys::MemoryContextSwitchTo(memory);
            let value = |source| state::value(slot, source);
            batch.arrays.add(columns, &mut self.encoders, value);
            pg_sys::MemoryContextSwitchTo(old);
            batch.rows.push(index);
            Ok(())
        }
    }

    /// Sends the batches, and gives the rows what was found for them.
    fn ask(&self, batches: BTreeMap<usize, Batch>, rows: &mut [Waiting]) -> Result<()> {
        let mut requests = Vec::new();
        let mut about = Vec::new();
        for (group, batch) in batches {
            let mut params = Params::default();
            batch.arrays.finish(&self.plan.columns, &mut params);
            let group = &self.colocation.groups[group];
            requests.push(task::change_in(
                group,
                &self.plan.lookup,
                params,
                self.decoder.format(),
                self.plan.as_others,
            )?);
            about.push(batch.rows);
        }
        let mut gather = Gather::start(requests)?;
        while let Some((answer, row)) = gather.next()? {
            let values: Vec<Option<Vec<u8>>> = (0..self.decoder.width())
                .map(|column| row.get(column).map(<[u8]>::to_vec))
                .collect();
            let number = self.number(values[0].as_deref());
            let index = number.and_then(|number| about[answer].get(number.checked_sub(1)?));
            let Some(index) = index else {
                return Err(Error::new(
                    sqlstate::PROTOCOL_VIOLATION,
                    "a node sent a row that was not asked for",
                ));
            };
            // of several indexes the first decides
            rows[*index].found.get_or_insert(values);
        }
        Ok(())
    }

    fn number(&self, value: Option<&[u8]>) -> Option<usize> {
        let value = value?;
        if self.decoder.is_binary() {
            usize::try_from(i64::from_be_bytes(value.try_into().ok()?)).ok()
        } else {
            std::str::from_utf8(value).ok()?.parse().ok()
        }
    }

    /// Is a row to be handed on? Not one that was inserted, when some are looked for again.
    unsafe fn is_wanted(&mut self, row: &Waiting) -> Result<bool> {
        unsafe {
            let (Some(again), Some(found)) = (&mut self.again, &row.found) else {
                return Ok(true);
            };
            let key = self.plan.key;
            let slot = self.kept;
            pg_sys::ExecStoreMinimalTuple(row.tuple, slot, false);
            pg_sys::slot_getallattrs(slot);
            let group = self
                .colocation
                .group_for(key.and_then(|column| state::value(slot, column)));
            let place = ctid_of(found[1].as_deref(), self.decoder.is_binary());
            let (Some(group), Some((block, offset))) = (group, place) else {
                return Err(Error::new(
                    sqlstate::PROTOCOL_VIOLATION,
                    "a node sent no ctid",
                ));
            };
            match again.inserted.get_mut(&(group as u32, block, offset)) {
                None => Ok(true),
                Some(of_another) if *of_another && self.plan.updates => Err(affected_twice()),
                Some(of_another) if *of_another => {
                    again.repeated = true;
                    Ok(true)
                }
                Some(of_another) => {
                    *of_another = true;
                    again.settled.insert(row.number);
                    Ok(false)
                }
            }
        }
    }
}

/// Block and offset, as a node sends them.
pub fn ctid_of(value: Option<&[u8]>, binary: bool) -> Option<(u32, u16)> {
    let value = value?;
    if !binary {
        return ctid_of_text(value);
    }
    let (block, offset) = value.split_first_chunk::<4>()?;
    Some((
        u32::from_be_bytes(*block),
        u16::from_be_bytes(offset.try_into().ok()?),
    ))
}

/// What ExecOnConflictUpdate says.
pub fn affected_twice() -> Error {
    RowCheck {
        kind: CheckKind::OwnRow,
        relation: String::new(),
        table: 0,
        policy: None,
    }
    .violation()
}
