//! Committing on all nodes: in one phase when one node has written and nothing was written here, else in two.
//!
//! Two phases: commit records are inserted in the local transaction, every node that has written prepares, the local
//! transaction commits (which is the decision), every node commits what it has prepared. Until the local commit an
//! error aborts everything. After it nothing may fail: whoever cannot be told is left to recovery, which finds the
//! records.

use super::crash_point::CrashPoint;
use super::gid::Gid;
use super::moves;
use crate::catalog;
use crate::error::{Error, Result};
use crate::remote::connection::Shared;
use crate::remote::quiet::{self, Patience};
use crate::remote::{abandoned, outcome, pool};
use pgrx::pg_sys;
use std::time::{Duration, Instant};

/// The connections that have a part in the transaction.
pub fn participants() -> Vec<Shared> {
    let mut all = pool::all();
    all.retain(|c| c.try_borrow().is_ok_and(|c| c.participation().is_some()));
    all
}

fn has_written(connection: &Shared) -> bool {
    connection
        .try_borrow()
        .is_ok_and(|c| c.participation().is_some_and(|p| p.wrote))
}

/// The local transaction is about to commit: whatever can still fail is done here.
pub fn before_local_commit() -> Result<()> {
    if !pool::in_use() {
        return Ok(());
    }
    abandoned::settle_all()?;
    let refused = |connection: &Shared| connection.borrow_mut().take_autocommit_error();
    match pool::all().iter().find_map(refused) {
        Some(error) => return Err(outcome::failed(error)),
        None => outcome::succeeded(),
    }
    let participants = participants();
    if participants.is_empty() {
        return Ok(());
    }
    for participant in &participants {
        // of subtransactions that were undone; a node for which it matters has aborted its transaction
        participant.borrow_mut().take_command_error();
    }
    let (writers, readers): (Vec<Shared>, Vec<Shared>) =
        participants.into_iter().partition(has_written);
    for writer in &writers {
        let writer = writer.borrow();
        writer.check_usable()?;
        writer.check_not_aborted()?;
    }
    // SAFETY: reads a variable.
    let wrote_here = unsafe { pg_sys::GetTopTransactionIdIfAny() } != pg_sys::InvalidTransactionId;
    if writers.len() > 1 || (writers.len() == 1 && wrote_here) {
        prepare(&writers, &readers)
    } else {
        commit_in_one_phase(&writers, &readers)
    }
}

fn commit_in_one_phase(writers: &[Shared], readers: &[Shared]) -> Result<()> {
    let all: Vec<Shared> = writers.iter().chain(readers).cloned().collect();
    moves::commit_starts();
    for connection in &all {
        connection.borrow_mut().send_alone("COMMIT");
    }
    let deadlock = quiet::drive_to_idle(&all, Patience::COMMIT);
    for writer in writers {
        let mut writer = writer.borrow_mut();
        let error = writer.take_command_error();
        if writer.lost().is_some() {
            moves::left_behind(writer.node);
            return Err(outcome::unknown(&writer.node_name));
        }
        if let Some(error) = error {
            return Err(deadlock.unwrap_or(error));
        }
    }
    end_participation(&all, true);
    outcome::too_late_to_cancel();
    Ok(())
}

fn prepare(writers: &[Shared], readers: &[Shared]) -> Result<()> {
    crate::maintenance::ensure_running();
    // nodes must not commit what synchronous_commit = off could lose here
    // SAFETY: sets a flag of the transaction.
    unsafe { pg_sys::ForceSyncCommit() };
    let mut gids: Vec<Gid> = Vec::with_capacity(writers.len());
    for writer in writers {
        let node = writer.borrow().node;
        let gid = Gid::of_current_transaction(node);
        // DROP EXTENSION has taken the catalog with it: what a crash leaves prepared, the administrator commits.
        if catalog::installed() {
            catalog::insert_commit_record(&gid.to_string(), node)?;
        }
        gids.push(gid);
    }
    CrashPoint::BeforePrepare.reached()?;
    for (writer, gid) in writers.iter().zip(&gids) {
        writer.borrow_mut().prepare(&gid.to_string());
    }
    for reader in readers {
        reader.borrow_mut().send_alone("COMMIT");
    }
    let all: Vec<Shared> = writers.iter().chain(readers).cloned().collect();
    let deadlock = quiet::drive_to_idle(&all, Patience::COMMIT);
    end_participation(readers, true);
    let mut failure = None;
    for writer in writers {
        let mut writer = writer.borrow_mut();
        let error = writer.take_command_error();
        if let Some(lost) = writer.lost() {
            failure.get_or_insert(lost.clone());
        } else if let Some(error) = error {
            writer.not_prepared();
            failure = Some(explain_refusal(error, &writer.node_name));
        }
    }
    if let Some(error) = failure {
        return Err(deadlock.unwrap_or(error));
    }
    moves::commit_starts();
    CrashPoint::AfterPrepare.reached()
}

fn explain_refusal(error: Error, node: &str) -> Error {
    let disabled = error.fields().sqlstate == *b"55000" && error.fields().hint.is_some();
    if disabled {
        return error.hint(format!(
            "A transaction over several nodes needs max_prepared_transactions > 0 on node \"{node}\"."
        ));
    }
    error
}

/// The local transaction has committed. Nothing may be raised.
pub fn after_local_commit() {
    if !pool::in_use() {
        return;
    }
    let _ = CrashPoint::AfterLocalCommit.reached();
    let prepared = participants();
    if CrashPoint::AfterFirstCommitPrepared.is_set() {
        // one after the other, to have a place between them
        for (i, connection) in prepared.iter().enumerate() {
            commit_prepared(std::slice::from_ref(connection));
            if i == 0 {
                let _ = CrashPoint::AfterFirstCommitPrepared.reached();
            }
        }
    } else {
        commit_prepared(&prepared);
    }
    pool::transaction_ended();
}

fn commit_prepared(connections: &[Shared]) {
    let mut left = connections.to_vec();
    let mut attempts = 0;
    let mut pending = false;
    while !left.is_empty() {
        for connection in &left {
            if let Ok(mut connection) = connection.try_borrow_mut() {
                let gid = connection.participation().and_then(|p| p.prepared.clone());
                if let Some(gid) = gid {
                    connection.send_alone(format!("COMMIT PREPARED '{gid}'"));
                }
            }
        }
        quiet::drive_to_idle(&left, Patience::COMMIT);
        attempts += 1;
        left.retain(|connection| {
            let Ok(mut connection) = connection.try_borrow_mut() else {
                return false;
            };
            let Some(error) = connection.take_command_error() else {
                return false;
            };
            match &error.fields().sqlstate {
                // recovery was there first
                b"42704" => false,
                // recovery is there, and done in a moment
                b"55000" if attempts < BUSY_ATTEMPTS => true,
                _ => {
                    pending = true;
                    moves::left_behind(connection.node);
                    warn_pending(&connection.node_name, &error);
                    false
                }
            }
        });
        if !left.is_empty() {
            std::thread::sleep(BUSY_PAUSE);
        }
    }
    if pending {
        crate::maintenance::wake_up();
    }
    end_participation(connections, true);
}

/// How often, and with what pause, a node is asked to commit what recovery has taken up at the same time.
const BUSY_ATTEMPTS: u32 = 200;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

fn warn_pending(node: &str, error: &Error) {
    Error::new(
        *b"01000",
        format!("the transaction is committed, but node \"{node}\" has not carried it out yet"),
    )
    .detail(error.to_string())
    .hint("Recovery commits it there as soon as the node answers; until then its rows are locked.")
    .warn();
}

fn end_participation(connections: &[Shared], committed: bool) {
    for connection in connections {
        if let Ok(mut connection) = connection.try_borrow_mut() {
            connection.end_participation(committed);
        }
    }
}

/// The client asks for PREPARE TRANSACTION.
pub fn before_prepare_transaction() -> Result<()> {
    if participants().is_empty() {
        return Ok(());
    }
    Err(Error::refused(
        "cannot PREPARE a transaction that has used shard_ext nodes",
        "Use COMMIT: it is atomic over all nodes.",
    ))
}

/// The local transaction has aborted: everything that runs for it is stopped and undone. Nothing may be raised.
pub fn after_abort() {
    if !pool::in_use() {
        return;
    }
    let patience = Duration::from_millis(crate::settings::node_connection_timeout());
    let limit = Instant::now() + patience;
    let all = pool::all();
    quiet::stop(&all, limit);
    outcome::aborted();
    for connection in &all {
        if let Ok(mut connection) = connection.try_borrow_mut() {
            connection.take_autocommit_error();
        }
    }
    let participants = participants();
    let mut unresolved = false;
    if participants
        .iter()
        .any(|c| c.try_borrow().is_ok_and(|c| is_prepared(&c)))
    {
        let _ = CrashPoint::BeforeRollbackPrepared.reached();
    }
    for participant in &participants {
        if let Ok(mut connection) = participant.try_borrow_mut() {
            unresolved |= roll_back(&mut connection);
        }
    }
    quiet::drive_to_idle(&participants, Patience::Until(limit));
    for participant in &participants {
        if let Ok(mut connection) = participant.try_borrow_mut() {
            if is_prepared(&connection) && connection.take_command_error().is_some() {
                unresolved = true;
            }
            connection.take_command_error();
            if connection.is_in_transaction() {
                connection.give_up("It did not roll back.");
            }
            connection.end_participation(false);
        }
    }
    if unresolved {
        crate::maintenance::wake_up();
    }
    pool::transaction_ended();
}

fn is_prepared(connection: &crate::remote::connection::Connection) -> bool {
    connection
        .participation()
        .is_some_and(|p| p.prepared.is_some())
}

/// Sends what undoes the node's part. True: it cannot be sent, and recovery has to do it.
fn roll_back(connection: &mut crate::remote::connection::Connection) -> bool {
    connection.take_command_error();
    let gid = connection.participation().and_then(|p| p.prepared.clone());
    match gid {
        Some(_) if connection.lost().is_some() => return true,
        Some(gid) => {
            connection.send_alone(format!("ROLLBACK PREPARED '{gid}'"));
        }
        None if connection.is_in_transaction() => {
            connection.send_alone("ROLLBACK");
        }
        None => {}
    }
    false
}

/// A subtransaction has aborted. Nothing may be raised.
pub fn after_subtransaction_abort(id: pg_sys::SubTransactionId) {
    if !pool::in_use() {
        return;
    }
    let limit = Instant::now() + Duration::from_millis(crate::settings::node_connection_timeout());
    let all = pool::all();
    // what is under way was started by the subtransaction or those inside it
    let busy: Vec<Shared> = all
        .iter()
        .filter(|c| {
            c.try_borrow().is_ok_and(|c| {
                let oldest = c.outstanding().map(|a| a.subtransaction).min();
                oldest.is_some_and(|oldest| oldest >= id)
            })
        })
        .cloned()
        .collect();
    quiet::stop(&busy, limit);
    for connection in &all {
        if let Ok(mut connection) = connection.try_borrow_mut() {
            connection.rollback_to(id);
        }
    }
}
