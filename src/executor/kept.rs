//! Rows of a plan that are kept until they are asked for: in memory up to `work_mem`, beyond that in a temporary file.

use crate::executor::state;
use pgrx::pg_sys;

pub struct Kept {
    store: *mut pg_sys::Tuplestorestate,
    slot: *mut pg_sys::TupleTableSlot,
}

/// Reads kept rows beside `Kept::next`.
pub struct Reader {
    store: *mut pg_sys::Tuplestorestate,
    pointer: i32,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Kept {
    /// For rows of this description; lives as long as the query.
    ///
    /// # Safety
    /// `estate` is the executor's state of a query that runs.
    unsafe fn new(estate: *mut pg_sys::EState, description: pg_sys::TupleDesc) -> Kept {
        unsafe {
            let old = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let store = pg_sys::tuplestore_begin_heap(false, false, pg_sys::work_mem);
            let methods = &raw const pg_sys::TTSOpsMinimalTuple;
            let slot = pg_sys::ExecInitExtraTupleSlot(estate, description, methods);
            pg_sys::MemoryContextSwitchTo(old);
            Kept { store, slot }
        }
    }

    /// For rows that a node scans.
    ///
    /// # Safety
    /// `node` is the state of a plan that runs.
    pub unsafe fn for_scan(node: *mut pg_sys::CustomScanState) -> Kept {
        unsafe {
            let slot = (*node).ss.ss_ScanTupleSlot;
            Kept::new((*node).ss.ps.state, (*slot).tts_tupleDescriptor)
        }
    }

    /// Reads a plan to its end.
    ///
    /// # Safety
    /// `plan` is the state of a plan that runs.
    pub unsafe fn of(plan: *mut pg_sys::PlanState) -> Kept {
        unsafe {
            let kept = Kept::new((*plan).state, (*plan).ps_ResultTupleDesc);
            loop {
                let slot = state::exec_child(plan);
                if state::is_empty(slot) {
                    return kept;
                }
                kept.put(slot);
            }
        }
    }

    /// Adds the row of a slot.
    ///
    /// # Safety
    /// `slot` has a row of the description.
    pub unsafe fn put(&self, slot: *mut pg_sys::TupleTableSlot) {
        unsafe { pg_sys::tuplestore_puttupleslot(self.store, slot) }
    }

    /// Adds a row of the description, which is then freed.
    ///
    /// # Safety
    /// Nobody looks at the row that `next` has given last.
    pub unsafe fn take(&self, row: pg_sys::MinimalTuple) {
        unsafe {
            pg_sys::ExecStoreMinimalTuple(row, self.slot, true);
            self.put(self.slot);
            pg_sys::ExecClearTuple(self.slot);
        }
    }

    /// How many rows there are.
    ///
    /// # Safety
    /// The query still runs.
    pub unsafe fn len(&self) -> u64 {
        unsafe { pg_sys::tuplestore_tuple_count(self.store) as u64 }
    }

    /// The next row, in a slot of its own; null after the last.
    ///
    /// # Safety
    /// The query still runs.
    pub unsafe fn next(&self) -> *mut pg_sys::TupleTableSlot {
        unsafe { next(self.store, self.slot) }
    }

    /// Begins again with the first row.
    ///
    /// # Safety
    /// The query still runs.
    pub unsafe fn rewind(&self) {
        unsafe { pg_sys::tuplestore_rescan(self.store) }
    }

    /// A reader that begins with the first row.
    ///
    /// # Safety
    /// The query still runs, and no row was read.
    pub unsafe fn reader(&self) -> Reader {
        let rewind = pg_sys::EXEC_FLAG_REWIND as i32;
        Reader {
            store: self.store,
            pointer: unsafe { pg_sys::tuplestore_alloc_read_pointer(self.store, rewind) },
            slot: self.slot,
        }
    }

    /// Throws the rows away; others may follow.
    ///
    /// # Safety
    /// The query still runs.
    pub unsafe fn clear(&self) {
        unsafe { pg_sys::tuplestore_clear(self.store) }
    }

    /// Frees the rows.
    ///
    /// # Safety
    /// Called when the plan ends.
    pub unsafe fn end(self) {
        unsafe { pg_sys::tuplestore_end(self.store) }
    }
}

impl Reader {
    /// As `Kept::next`, in the same slot.
    ///
    /// # Safety
    /// The rows are still there.
    pub unsafe fn next(&self) -> *mut pg_sys::TupleTableSlot {
        unsafe { self.select(|| next(self.store, self.slot)) }
    }

    /// As `Kept::rewind`.
    ///
    /// # Safety
    /// The rows are still there.
    pub unsafe fn rewind(&self) {
        unsafe { self.select(|| pg_sys::tuplestore_rescan(self.store)) }
    }

    unsafe fn select<T>(&self, act: impl FnOnce() -> T) -> T {
        unsafe {
            pg_sys::tuplestore_select_read_pointer(self.store, self.pointer);
            let result = act();
            pg_sys::tuplestore_select_read_pointer(self.store, 0);
            result
        }
    }
}

unsafe fn next(
    store: *mut pg_sys::Tuplestorestate,
    slot: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    unsafe {
        if pg_sys::tuplestore_gettupleslot(store, true, false, slot) {
            slot
        } else {
            std::ptr::null_mut()
        }
    }
}
