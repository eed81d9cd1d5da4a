//! The local transaction as nodes must follow it: how it began, and the subtransactions open in it.

use pgrx::pg_sys;
use std::borrow::Cow;
use std::cell::RefCell;

thread_local! {
    /// Subtransactions open now, outermost first.
    static OPEN: RefCell<Vec<pg_sys::SubTransactionId>> = const { RefCell::new(Vec::new()) };
}

/// BEGIN with the characteristics of the local transaction. READ ONLY is for the coordinator to enforce, whose executor
/// sees every statement: nodes may have to make tables for rows that are joined there. Only where it changes what is
/// read, with DEFERRABLE, they are told.
pub fn begin() -> Cow<'static, str> {
    // SAFETY: server variables.
    let (level, read_only, deferrable) = unsafe {
        (
            pg_sys::XactIsoLevel as u32,
            pg_sys::XactReadOnly,
            pg_sys::XactDeferrable,
        )
    };
    let begin = match level {
        pg_sys::XACT_SERIALIZABLE => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        pg_sys::XACT_REPEATABLE_READ => "BEGIN ISOLATION LEVEL REPEATABLE READ",
        _ => "BEGIN ISOLATION LEVEL READ COMMITTED",
    };
    match (read_only, deferrable) {
        (false, false) => begin.into(),
        (true, false) => begin.into(),
        (false, true) => format!("{begin} DEFERRABLE").into(),
        (true, true) => format!("{begin} READ ONLY DEFERRABLE").into(),
    }
}

/// Then nobody can tell a new transaction from the old one, as long as it has not written.
pub fn has_snapshot_per_statement() -> bool {
    // SAFETY: reads a variable.
    let level = unsafe { pg_sys::XactIsoLevel };
    level < pg_sys::XACT_REPEATABLE_READ as i32
}

pub fn with_subtransactions<R>(f: impl FnOnce(&[pg_sys::SubTransactionId]) -> R) -> R {
    OPEN.with_borrow(|open| f(open))
}

pub fn subtransaction_started(id: pg_sys::SubTransactionId) {
    OPEN.with_borrow_mut(|open| open.push(id));
}

pub fn subtransaction_ended(id: pg_sys::SubTransactionId) {
    OPEN.with_borrow_mut(|open| {
        if let Some(at) = open.iter().position(|open| *open == id) {
            open.truncate(at);
        }
    });
}

pub fn transaction_ended() {
    OPEN.with_borrow_mut(Vec::clear);
}
