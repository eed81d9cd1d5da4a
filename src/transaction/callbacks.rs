//! PostgreSQL's transaction events, each handed on.

use super::{commit, moves};
use crate::remote::scope;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::c_void;

pub fn register() {
    // SAFETY: called once, in the postmaster; backends inherit the registration.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_event), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_PRE_COMMIT => {
            if let Err(error) = commit::before_local_commit() {
                error.raise();
            }
        }
        XACT_EVENT_PRE_PREPARE => {
            if let Err(error) = commit::before_prepare_transaction() {
                error.raise();
            }
        }
        XACT_EVENT_COMMIT => {
            commit::after_local_commit();
            moves::transaction_ended();
            scope::transaction_ended();
        }
        XACT_EVENT_ABORT => {
            commit::after_abort();
            moves::transaction_ended();
            scope::transaction_ended();
        }
        XACT_EVENT_PREPARE => {
            moves::transaction_ended();
            scope::transaction_ended();
        }
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_event(
    event: pg_sys::SubXactEvent::Type,
    id: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    use pg_sys::SubXactEvent::*;
    match event {
        SUBXACT_EVENT_START_SUB => scope::subtransaction_started(id),
        SUBXACT_EVENT_COMMIT_SUB => scope::subtransaction_ended(id),
        SUBXACT_EVENT_ABORT_SUB => {
            commit::after_subtransaction_abort(id);
            moves::subtransaction_aborted(id);
            scope::subtransaction_ended(id);
        }
        _ => {}
    }
}
