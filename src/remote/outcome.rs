//! Writes that their node commits by itself. From when one is sent until the node has told what became of it, the session
//! cannot say that it was cancelled: a request to cancel goes to the node, which knows whether it has come in time.

use super::connection::Shared;
use super::quiet;
use crate::error::{sqlstate, Error};
use pgrx::pg_sys;
use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static AWAITED: Cell<bool> = const { Cell::new(false) };
    /// When the node was first asked to stop, and last.
    static ASKED: Cell<Option<(Instant, Instant)>> = const { Cell::new(None) };
}

/// A request that reaches the node between two messages is ignored there, so it is repeated.
const PAUSE: Duration = Duration::from_millis(100);

/// Such a write is being sent: requests to cancel wait.
pub fn awaited() {
    if !AWAITED.replace(true) {
        ASKED.set(None);
        // SAFETY: what HOLD_CANCEL_INTERRUPTS does.
        unsafe { pg_sys::QueryCancelHoldoffCount += 1 };
    }
}

fn no_longer_awaited() -> bool {
    let was_awaited = AWAITED.replace(false);
    if was_awaited {
        // SAFETY: what RESUME_CANCEL_INTERRUPTS does; an error has set it to 0.
        unsafe {
            pg_sys::QueryCancelHoldoffCount = pg_sys::QueryCancelHoldoffCount.saturating_sub(1);
        }
    }
    was_awaited
}

/// The node has committed.
pub fn succeeded() {
    if no_longer_awaited() {
        too_late_to_cancel();
    }
}

/// The changes are there: as PostgreSQL does after a statement, forgets a request to cancel.
pub fn too_late_to_cancel() {
    // SAFETY: a flag that a signal handler sets.
    unsafe { pg_sys::QueryCancelPending = 0 };
}

/// The node has said no. If it was cancelled, raises the reason that this session has for that.
pub fn failed(error: Error) -> Error {
    if no_longer_awaited() && error.fields().sqlstate == *b"57014" {
        pgrx::check_for_interrupts!();
    }
    error
}

/// The transaction has ended by an error.
pub fn aborted() {
    no_longer_awaited();
}

/// There is a request to cancel that waits.
pub fn is_cancelled() -> bool {
    // SAFETY: a flag that a signal handler sets.
    AWAITED.get() && unsafe { pg_sys::QueryCancelPending != 0 }
}

/// How long to wait for the node before `pass_cancel_on`.
pub fn pause(otherwise: Duration) -> Duration {
    if is_cancelled() {
        otherwise.min(PAUSE)
    } else {
        otherwise
    }
}

/// Asks the node to stop if the session was asked to. True: it has not answered for long, and is given up.
pub fn pass_cancel_on(connections: &[Shared]) -> bool {
    if !is_cancelled() {
        return false;
    }
    let now = Instant::now();
    let (first, last) = match ASKED.get() {
        Some((first, last)) => (first, Some(last)),
        None => (now, None),
    };
    if last.is_some_and(|last| now < last + PAUSE) {
        return false;
    }
    ASKED.set(Some((first, now)));
    let patience = Duration::from_millis(crate::settings::node_connection_timeout());
    let patient = now < first + patience;
    if patient {
        quiet::interrupt(connections, now + Duration::from_millis(500));
    } else {
        quiet::give_up(connections);
    }
    !patient
}

/// An error for a connection over which a node was to commit, and that has gone without an answer.
pub fn unknown(node: &str) -> Error {
    Error::new(
        sqlstate::TRANSACTION_RESOLUTION_UNKNOWN,
        format!("connection to node \"{node}\" was lost during COMMIT"),
    )
    .detail("The node may or may not have committed.")
    .hint("Look at the data before running the transaction again.")
}
