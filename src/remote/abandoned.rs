//! Requests that nobody reads any more, for instance because of a LIMIT: stopped as cheaply as the transaction allows.

use super::connection::{Connection, Shared};
use super::quiet::{self, Patience};
use super::simple::drain;
use super::{pool, scope, wait};
use crate::error::Result;
use std::time::Duration;

/// What to do about a connection on which abandoned requests run.
enum Remedy {
    /// Nothing runs, or someone still reads.
    None,
    /// Only ends are missing, or a cancellation would abort what the node has written: read on.
    Read,
    /// Nothing is at stake: cancel, and begin anew when the node had a transaction.
    Cancel,
}

fn remedy(connection: &Connection, transaction_ends: bool) -> Remedy {
    if connection.is_idle() || connection.lost().is_some() {
        return Remedy::None;
    }
    if connection.running().is_none() {
        return if transaction_ends {
            Remedy::Read
        } else {
            Remedy::None
        };
    }
    let abandoned = connection
        .outstanding()
        .all(|answer| answer.progress.abandoned.get());
    if !abandoned && !transaction_ends {
        return Remedy::None;
    }
    match connection.participation() {
        None => Remedy::Cancel,
        Some(participation) if participation.is_guarded() => Remedy::Cancel,
        Some(participation) if participation.wrote => {
            if transaction_ends {
                Remedy::Read
            } else {
                Remedy::None
            }
        }
        Some(participation) if !transaction_ends && participation.is_needed() => Remedy::None,
        Some(_) if transaction_ends || scope::has_snapshot_per_statement() => Remedy::Cancel,
        Some(_) => Remedy::None,
    }
}

/// The transaction is about to commit: nothing is read from now on.
pub fn settle_all() -> Result<()> {
    let busy = pool::busy();
    if busy.is_empty() {
        return Ok(());
    }
    for connection in &busy {
        for answer in connection.borrow().outstanding() {
            answer.progress.abandoned.set(true);
        }
    }
    clear(&busy, true)
}

/// Before new requests are sent, and when a reader stops early.
pub fn make_way() -> Result<()> {
    let busy = pool::busy();
    if busy.is_empty() {
        return Ok(());
    }
    clear(&busy, false)
}

/// A cancel request costs both sides a connection: what ends by itself within this time is not worth one.
const SHORT: Duration = Duration::from_millis(3);

fn clear(connections: &[Shared], transaction_ends: bool) -> Result<()> {
    let mut cancelled = Vec::new();
    for connection in connections {
        // often all that is missing is the end of a result, and it is here already
        connection.borrow_mut().discard_arrived();
    }
    let wanted: Vec<Shared> = connections
        .iter()
        .filter(|c| matches!(remedy(&c.borrow(), transaction_ends), Remedy::Cancel))
        .cloned()
        .collect();
    quiet::drive_for(&wanted, SHORT);
    for connection in connections {
        let remedy = remedy(&connection.borrow(), transaction_ends);
        match remedy {
            Remedy::None => {}
            Remedy::Read => drain(connection)?,
            Remedy::Cancel => cancelled.push(connection.clone()),
        }
    }
    if cancelled.is_empty() {
        return Ok(());
    }
    let limit = wait::after(crate::settings::node_connection_timeout());
    quiet::stop(&cancelled, limit);
    for connection in &cancelled {
        let mut connection = connection.borrow_mut();
        connection.take_command_error();
        if let Some(participation) = connection.participation() {
            if participation.is_guarded() {
                if connection.is_aborted() {
                    connection.rollback_to_guard();
                }
                continue;
            }
            if connection.is_in_transaction() {
                connection.send_alone("ROLLBACK");
            }
            connection.end_participation(false);
        }
    }
    quiet::drive_to_idle(&cancelled, Patience::Until(limit));
    Ok(())
}
