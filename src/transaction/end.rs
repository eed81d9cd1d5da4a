//! The end of a transaction on its nodes.

use crate::error::{Error, Result};
use crate::remote::connection::Shared;
use crate::remote::quiet::{self, Patience};
use crate::remote::{pool, wait};
use pgrx::pg_sys;
use std::time::Duration;

/// How long a commit goes on waiting for its outcome when the user cancels.
const GRACE: Duration = Duration::from_secs(10);

fn participants() -> Vec<Shared> {
    let mut all = pool::all();
    all.retain(|c| c.try_borrow().is_ok_and(|c| c.participation().is_some()));
    all
}

/// The local transaction is about to commit.
pub fn before_commit() -> Result<()> {
    if !pool::in_use() {
        return Ok(());
    }
    let all = pool::all();
    settle(&all);
    let participants = participants();
    for participant in &participants {
        let connection = participant.borrow();
        if connection.participation().is_some_and(|p| p.wrote) {
            connection.check_usable()?;
            connection.check_not_aborted()?;
        }
    }
    for participant in &participants {
        participant.borrow_mut().send_alone("COMMIT");
    }
    quiet::drive_to_idle(&participants, Patience::ForOutcome { grace: GRACE });
    for participant in &participants {
        let mut connection = participant.borrow_mut();
        let wrote = connection.participation().is_some_and(|p| p.wrote);
        if let (Some(error), true) = (connection.take_command_error(), wrote) {
            return Err(error);
        }
        connection.end_participation(true);
    }
    Ok(())
}

/// Ends what readers have abandoned: by cancelling where that does no harm, by reading on where the node has written.
fn settle(connections: &[Shared]) {
    let busy: Vec<Shared> = connections
        .iter()
        .filter(|c| c.try_borrow().is_ok_and(|c| !c.is_idle()))
        .cloned()
        .collect();
    if busy.is_empty() {
        return;
    }
    // most of the time all that is missing is the end of a result that is already here
    quiet::drive_to_idle(&busy, Patience::ForOutcome { grace: GRACE });
}

/// The client asks for PREPARE TRANSACTION.
pub fn before_prepare() -> Result<()> {
    if participants().is_empty() {
        return Ok(());
    }
    Err(Error::refused(
        "cannot PREPARE a transaction that has used shard_ext nodes",
        "Use COMMIT: it is atomic over all nodes.",
    ))
}

/// The local transaction has committed.
pub fn after_commit() {
    pool::transaction_ended();
}

/// The local transaction has aborted: everything that runs for it is stopped and undone.
pub fn after_abort() {
    if !pool::in_use() {
        return;
    }
    let limit = wait::after(crate::settings::node_connection_timeout());
    let all = pool::all();
    quiet::cancel(&all, limit);
    quiet::drive_to_idle(&all, Patience::Until(limit));
    let participants = participants();
    for participant in &participants {
        if let Ok(mut connection) = participant.try_borrow_mut() {
            connection.send_alone("ROLLBACK");
        }
    }
    quiet::drive_to_idle(&participants, Patience::Until(limit));
    for participant in &participants {
        if let Ok(mut connection) = participant.try_borrow_mut() {
            connection.take_command_error();
            connection.end_participation(false);
        }
    }
    pool::transaction_ended();
}

/// A subtransaction has aborted.
pub fn after_subtransaction_abort(id: pg_sys::SubTransactionId) {
    if !pool::in_use() {
        return;
    }
    let limit = wait::after(crate::settings::node_connection_timeout());
    let all = pool::all();
    // what runs now was started by the subtransaction or one inside it
    let busy: Vec<Shared> = all
        .iter()
        .filter(|c| {
            c.try_borrow()
                .is_ok_and(|c| c.running().is_some_and(|a| a.subtransaction >= id))
        })
        .cloned()
        .collect();
    quiet::cancel(&busy, limit);
    quiet::drive_to_idle(&busy, Patience::Until(limit));
    for connection in &all {
        if let Ok(mut connection) = connection.try_borrow_mut() {
            connection.rollback_to(id);
        }
    }
}
