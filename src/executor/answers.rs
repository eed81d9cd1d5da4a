//! Answers that a scan keeps: one that runs anew for row after row, with values of theirs, is often asked for the same
//! again.

use crate::executor::state;
use pgrx::pg_sys;
use std::collections::HashMap;

/// The values of all parameters, as they are sent.
pub type Key = Vec<Option<Vec<u8>>>;

/// The rows that were received for values, as far as `work_mem` allows.
#[derive(Default)]
pub struct Answers {
    store: Option<Store>,
    known: HashMap<Key, Vec<pg_sys::MinimalTuple>>,
    /// What is being received, unless it is too much.
    current: Option<Current>,
    /// What is being given again: the rows that are left.
    again: Option<std::vec::IntoIter<pg_sys::MinimalTuple>>,
    /// How often an answer was given again.
    pub repeated: u64,
}

struct Current {
    key: Key,
    rows: Vec<pg_sys::MinimalTuple>,
    bytes: usize,
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
            if let Some(rows) = self.known.get(&key) {
                self.again = Some(rows.clone().into_iter());
                self.repeated += 1;
                return;
            }
            let store = self.store.get_or_insert_with(|| Store::new(node));
            if pg_sys::MemoryContextMemAllocated(store.context, true) > memory() {
                self.known.clear();
                pg_sys::MemoryContextReset(store.context);
            }
            self.current = Some(Current {
                key,
                rows: Vec::new(),
                bytes: 0,
            });
        }
    }

    /// Is a known answer being given?
    pub fn is_known(&self) -> bool {
        self.again.is_some()
    }

    /// Puts the next row of a known answer into a slot, or leaves that empty at the end.
    ///
    /// # Safety
    /// `slot` is the scan's.
    pub unsafe fn next(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        let (Some(rows), Some(store)) = (&mut self.again, &self.store) else {
            return;
        };
        if let Some(row) = rows.next() {
            unsafe {
                pg_sys::ExecStoreMinimalTuple(row, store.slot, false);
                state::copy_into_virtual(store.slot, slot);
            }
        }
    }

    /// A row was received.
    ///
    /// # Safety
    /// `slot` is the scan's and has it.
    pub unsafe fn keep(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        let (Some(current), Some(store)) = (&mut self.current, &self.store) else {
            return;
        };
        unsafe {
            let old = pg_sys::MemoryContextSwitchTo(store.context);
            let row = pg_sys::ExecCopySlotMinimalTuple(slot);
            pg_sys::MemoryContextSwitchTo(old);
            current.rows.push(row);
            current.bytes += (*row).t_len as usize;
            if current.bytes > memory() / LARGEST_PART {
                self.forget_current();
            }
        }
    }

    /// All rows were received.
    pub fn complete(&mut self) {
        if let Some(current) = self.current.take() {
            self.known.insert(current.key, current.rows);
        }
    }

    /// The scan begins anew, wherever it was.
    ///
    /// # Safety
    /// Called inside the server.
    pub unsafe fn rescan(&mut self) {
        self.again = None;
        unsafe { self.forget_current() };
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
