//! Finishing what a crash or a lost connection has left prepared on nodes, by the commit records.
//!
//! For each node: read the records, ask the node which of our transactions are prepared, and decide each: still running
//! here: leave it; a record: commit; no record: roll back. The order matters: a transaction that is not running any
//! more when its gid has been seen has either a visible record or has aborted. Records that were there before the node
//! was asked, and of which the node knows nothing, are carried out and can go.

use super::gid::Gid;
use super::unfinished;
use crate::catalog::{self, Node};
use crate::error::{Error, Result};
use crate::remote::{ConnectOptions, LoneConnection};
use pgrx::pg_sys;
use std::time::{Duration, Instant};

/// What was done on a node.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    pub committed: u32,
    pub rolled_back: u32,
    /// Prepared by transactions that are still running here, or that could not be finished yet.
    pub left: u32,
}

/// A transaction prepared on a node.
struct Prepared {
    gid: Gid,
    owner: String,
    /// Whether the role that asked may finish it.
    accessible: bool,
}

/// Recovers one node, in the current local transaction. One at a time: others wait.
pub fn recover_node(node: &Node) -> Result<Recovered> {
    catalog::lock_recovery()?;
    let unfinished = unfinished::number(node.id);
    catalog::delete_commit_records_of_removed_nodes()?;
    let records = catalog::commit_records(node.id)?;
    let limit = Instant::now() + timeout();
    let options = ConnectOptions::of_server(node.server)?;
    let mut connection = LoneConnection::open(&options, &node.name, limit)?;
    let prepared = prepared_transactions(&mut connection, limit)?;
    let mut recovered = Recovered::default();
    let mut kept = Vec::new();
    let mut failure = None;
    let mut all_done = true;
    for transaction in &prepared {
        match finish(node, transaction, &mut connection) {
            Ok(Some(true)) => recovered.committed += 1,
            Ok(Some(false)) => recovered.rolled_back += 1,
            Ok(None) => {
                recovered.left += 1;
                // a session that could not finish it has noted that only now
                all_done &= may_be_running(&transaction.gid);
                kept.push(transaction.gid.to_string());
            }
            Err(error) => {
                all_done = false;
                recovered.left += 1;
                kept.push(transaction.gid.to_string());
                failure = Some(error);
            }
        }
    }
    for gid in records.iter().filter(|gid| !kept.contains(gid)) {
        catalog::delete_commit_record(gid)?;
    }
    if let (Some(number), true) = (unfinished, all_done) {
        unfinished::settle(number);
    }
    match failure {
        // what was finished stays finished, so its records may go even then
        Some(error) => {
            error.warn();
            Ok(recovered)
        }
        None => Ok(recovered),
    }
}

fn timeout() -> Duration {
    Duration::from_millis(crate::settings::node_connection_timeout())
}

fn prepared_transactions(connection: &mut LoneConnection, limit: Instant) -> Result<Vec<Prepared>> {
    let sql = format!(
        "SELECT gid, owner, pg_catalog.pg_has_role(current_user, owner, 'MEMBER') AND (owner = current_user \
            OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)) \
           FROM pg_catalog.pg_prepared_xacts \
          WHERE database = pg_catalog.current_database() AND gid LIKE '{}'",
        Gid::pattern()
    );
    let rows = connection.query(&sql, limit)?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let [gid, owner, accessible] = <[Option<String>; 3]>::try_from(row).ok()?;
            let gid: Gid = gid?.parse().ok()?;
            gid.is_of_this_database().then_some(Prepared {
                gid,
                owner: owner?,
                accessible: accessible.as_deref() == Some("t"),
            })
        })
        .collect())
}

/// True: committed; false: rolled back; `None`: its time has not come.
fn finish(
    node: &Node,
    transaction: &Prepared,
    connection: &mut LoneConnection,
) -> Result<Option<bool>> {
    let gid = transaction.gid.to_string();
    if may_be_running(&transaction.gid) {
        return Ok(None);
    }
    let commit = catalog::commit_record_exists(&gid)?;
    let command = if commit { "COMMIT" } else { "ROLLBACK" };
    let sql = format!("{command} PREPARED '{gid}'");
    let limit = Instant::now() + timeout();
    let done = if transaction.accessible {
        connection.query(&sql, limit)
    } else {
        // only the role that has prepared it may finish it
        let options = ConnectOptions::of_server_as(node.server, &transaction.owner)?;
        LoneConnection::open(&options, &node.name, limit)?.query(&sql, limit)
    };
    match done {
        Ok(_) => Ok(Some(commit)),
        // its own session was quicker
        Err(error) if error.fields().sqlstate == *b"42704" => Ok(Some(commit)),
        // its own session is at it
        Err(error) if error.fields().sqlstate == *b"55000" => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the transaction may still be under way here.
fn may_be_running(gid: &Gid) -> bool {
    // SAFETY: reads shared memory.
    unsafe {
        let next = pg_sys::ReadNextFullTransactionId().value;
        // An id that was never given here, or that a crash has lost with the transaction. And beyond 2^31 transactions
        // back, where the short id means another one, nothing can be running.
        if gid.transaction >= next || next - gid.transaction >= 1 << 31 {
            return false;
        }
        let short = pg_sys::TransactionId::from(gid.transaction as u32);
        pg_sys::TransactionIdIsInProgress(short)
    }
}

/// Recovers all nodes. Those that cannot be reached are reported by `unreachable` and left for later.
pub fn recover_all(mut unreachable: impl FnMut(&Node, Error)) -> Result<Recovered> {
    let mut all = Recovered::default();
    for node in catalog::nodes()? {
        match recover_node(&node) {
            Ok(one) => {
                all.committed += one.committed;
                all.rolled_back += one.rolled_back;
                all.left += one.left;
            }
            Err(error) => unreachable(&node, error),
        }
    }
    Ok(all)
}
