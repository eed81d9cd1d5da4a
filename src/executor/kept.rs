//! Rows of a plan that are kept until they are asked for: in memory up to `work_mem`, beyond that in a temporary file.

use crate::executor::state;
use pgrx::pg_sys;

pub struct Kept {
    store: *mut pg_sys::Tuplestorestate,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Kept {
    /// For rows of this description; lives as long as the query.
    ///
    /// # Safety
    /// `estate` is the executor's state of a query that runs.
    pub unsafe fn new(estate: *mut pg_sys::EState, description: pg_sys::TupleDesc) -> Kept {
        unsafe {
            let old = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let store = pg_sys::tuplestore_begin_heap(true, false, pg_sys::work_mem);
            let methods = &raw const pg_sys::TTSOpsMinimalTuple;
            let slot = pg_sys::ExecInitExtraTupleSlot(estate, description, methods);
            pg_sys::MemoryContextSwitchTo(old);
            Kept { store, slot }
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

    /// The next row, in a slot of its own; null after the last.
    ///
    /// # Safety
    /// The query still runs.
    pub unsafe fn next(&self) -> *mut pg_sys::TupleTableSlot {
        unsafe {
            if pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot) {
                self.slot
            } else {
                std::ptr::null_mut()
            }
        }
    }

    /// Begins again with the first row.
    ///
    /// # Safety
    /// The query still runs.
    pub unsafe fn rewind(&self) {
        unsafe { pg_sys::tuplestore_rescan(self.store) }
    }

    /// Frees the rows.
    ///
    /// # Safety
    /// Called when the plan ends.
    pub unsafe fn end(self) {
        unsafe { pg_sys::tuplestore_end(self.store) }
    }
}
