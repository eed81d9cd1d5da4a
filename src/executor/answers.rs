//! Answers that a scan keeps: one that runs anew for row after row, with values of theirs, is often asked for the same
//! again.

use crate::executor::state;
use pgrx::pg_sys;
use std::collections::HashMap;

/// The values of all parameters, as they are sent, and which tables of moved rows are read.
pub type Key = Vec<Option<Vec<u8>>>;

/// The rows that were received for values, as far as `work_mem` allows. Often only the first are wanted (EXISTS, LIMIT): these
/// are kept, too. If more are wanted another time, all are asked for, and those that were given left out.
#[derive(Default)]
pub struct Answers {
    store: Option<Store>,
    known: HashMap<Key, Known>,
    /// What is being received, unless it is too much.
    current: Option<Current>,
    /// What is being given again.
    again: Option<Again>,
    /// Rows that were given again and will be received once more, with how often.
    given: HashMap<Vec<u8>, usize>,
    /// How often an answer was given again.
    pub repeated: u64,
}

struct Known {
    rows: Vec<pg_sys::MinimalTuple>,
    complete: bool,
}

struct Current {
    key: Key,
    rows: Vec<pg_sys::MinimalTuple>,
    bytes: usize,
}

struct Again {
    key: Key,
    /// Those that are left.
    rows: std::vec::IntoIter<pg_sys::MinimalTuple>,
    complete: bool,
}

/// Where the rows are, and a slot to read them with.
struct Store {
    context: pg_sys::MemoryContext,
    slot: *mut pg_sys::TupleTableSlot,
}

/// The part of the memory that one answer may take.
const LARGEST_PART: usize = 8;

impl Answers {
    /// The scan starts with these values: gives their answer again, if it is known, and keeps it otherwise.
    ///
    /// # Safety
    /// `node` is the scan's state.
    pub unsafe fn start(&mut self, node: *mut pg_sys::CustomScanState, key: Key) {
        unsafe {
            if let Some(known) = self.known.get(&key) {
                self.again = Some(Again {
                    rows: known.rows.clone().into_iter(),
                    complete: known.complete,
                    key,
                });
                self.repeated += 1;
                return;
            }
            let store = self.store.get_or_insert_with(|| Store::new(node));
            if pg_sys::MemoryContextMemAllocated(store.context, true) > memory() {
                self.known.clear();
                pg_sys::MemoryContextReset(store.context);
            }
            self.current = Some(Current::new(key));
        }
    }

    /// Is a known answer being given?
    pub fn is_known(&self) -> bool {
        self.again.is_some()
    }

    /// Puts the next row of a known answer into a slot, or leaves that empty at the end. False: more rows have to be asked
    /// for, of which `keep` tells those that were not given yet.
    ///
    /// # Safety
    /// `slot` is the scan's.
    pub unsafe fn next(&mut self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        let (Some(again), Some(store)) = (&mut self.again, &self.store) else {
            return true;
        };
        unsafe {
            if let Some(row) = again.rows.next() {
                pg_sys::ExecStoreMinimalTuple(row, store.slot, false);
                state::copy_into_virtual(store.slot, slot);
                return true;
            }
            if again.complete {
                return true;
            }
            for row in self
                .known
                .get(&again.key)
                .iter()
                .flat_map(|known| &known.rows)
            {
                *self.given.entry(bytes_of(*row).to_vec()).or_default() += 1;
            }
        }
        if let Some(again) = self.again.take() {
            self.current = Some(Current::new(again.key));
            self.repeated -= 1;
        }
        false
    }

    /// A row was received; was it not given before?
    ///
    /// # Safety
    /// `slot` is the scan's and has it.
    pub unsafe fn keep(&mut self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        let Some(store) = &self.store else {
            return true;
        };
        if self.current.is_none() && self.given.is_empty() {
            return true;
        }
        unsafe {
            let old = pg_sys::MemoryContextSwitchTo(store.context);
            let row = pg_sys::ExecCopySlotMinimalTuple(slot);
            pg_sys::MemoryContextSwitchTo(old);
            let is_new = match self.given.get_mut(bytes_of(row)) {
                Some(times) if *times > 0 => {
                    *times -= 1;
                    false
                }
                _ => true,
            };
            match &mut self.current {
                Some(current) => {
                    current.rows.push(row);
                    current.bytes += (*row).t_len as usize;
                    if current.bytes > memory() / LARGEST_PART {
                        self.forget_current();
                    }
                }
                None => pg_sys::pfree(row.cast()),
            }
            is_new
        }
    }

    /// All rows were received.
    pub fn complete(&mut self) {
        self.remember(true);
    }

    /// The scan begins anew, wherever it was.
    pub fn rescan(&mut self) {
        self.again = None;
        if self.current.as_ref().is_some_and(|c| !c.rows.is_empty()) {
            self.remember(false);
        }
        self.current = None;
        self.given.clear();
    }

    fn remember(&mut self, complete: bool) {
        if let Some(Current { key, rows, .. }) = self.current.take() {
            self.known.insert(key, Known { rows, complete });
        }
    }

    unsafe fn forget_current(&mut self) {
        for row in self
            .current
            .take()
            .into_iter()
            .flat_map(|current| current.rows)
        {
            unsafe { pg_sys::pfree(row.cast()) };
        }
    }
}

impl Current {
    fn new(key: Key) -> Current {
        Current {
            key,
            rows: Vec::new(),
            bytes: 0,
        }
    }
}

unsafe fn bytes_of<'a>(row: pg_sys::MinimalTuple) -> &'a [u8] {
    // SAFETY: the tuple has this length, and the caller lets go of the bytes before it is freed.
    unsafe { std::slice::from_raw_parts(row.cast(), (*row).t_len as usize) }
}

impl Store {
    unsafe fn new(node: *mut pg_sys::CustomScanState) -> Store {
        unsafe {
            let estate = (*node).ss.ps.state;
            let context = pg_sys::AllocSetContextCreateInternal(
                (*estate).es_query_cxt,
                c"answers of a scan".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            let old = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let slot = pg_sys::ExecInitExtraTupleSlot(
                estate,
                (*(*node).ss.ss_ScanTupleSlot).tts_tupleDescriptor,
                &raw const pg_sys::TTSOpsMinimalTuple,
            );
            pg_sys::MemoryContextSwitchTo(old);
            Store { context, slot }
        }
    }
}

/// `work_mem` in bytes.
fn memory() -> usize {
    // SAFETY: a setting of this backend.
    unsafe { pg_sys::work_mem as usize * 1024 }
}
