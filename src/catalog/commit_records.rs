//! Commit records: which transactions prepared on nodes are to be committed. A record is written by the transaction
//! itself, so its visibility is the decision.

use super::not_installed;
use super::read::column::*;
use super::relations::{relations, Relations};
use super::scan::{scan, Equal};
use super::types::NodeId;
use super::write::{delete, insert};
use crate::error::Result;
use pgrx::pg_sys;
use pgrx::IntoDatum;

fn ours() -> Result<Relations> {
    relations().ok_or_else(not_installed)
}

/// Keeps out other recoveries, not the transactions that write records, until the end of the transaction.
pub fn lock_recovery() -> Result<()> {
    let table = ours()?.commit_record;
    let mode = pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: the lock goes with the transaction.
    unsafe { pg_sys::LockRelationOid(table, mode) };
    Ok(())
}

fn equal_gid(gid: &str) -> Equal {
    Equal {
        attribute: RECORD_GID,
        function: pg_sys::F_TEXTEQ,
        value: gid.into_datum().unwrap_or(pg_sys::Datum::null()),
    }
}

/// Decides, if the current transaction commits, that the transaction prepared as `gid` commits.
pub fn insert_commit_record(gid: &str, node: NodeId) -> Result<()> {
    // SAFETY: a clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    insert(
        ours()?.commit_record,
        &mut [
            gid.into_datum(),
            node.into_datum(),
            Some(pg_sys::Datum::from(now)),
        ],
    );
    Ok(())
}

/// Whether a committed transaction has decided so. Sees commits up to this moment.
pub fn commit_record_exists(gid: &str) -> Result<bool> {
    let ours = ours()?;
    let mut found = false;
    scan(
        ours.commit_record,
        ours.commit_record_pkey,
        Some(equal_gid(gid)),
        pg_sys::AccessShareLock as pg_sys::LOCKMODE,
        |_, _| found = true,
    );
    Ok(found)
}

/// The gids decided for a node.
pub fn commit_records(node: NodeId) -> Result<Vec<String>> {
    gids(|owner| owner == Some(node))
}

fn gids(wanted: impl Fn(Option<NodeId>) -> bool) -> Result<Vec<String>> {
    let ours = ours()?;
    let mut gids = Vec::new();
    scan(
        ours.commit_record,
        ours.commit_record_pkey,
        None,
        pg_sys::AccessShareLock as pg_sys::LOCKMODE,
        |_, row| {
            if wanted(row.get::<NodeId>(RECORD_NODE_ID)) {
                gids.extend(row.get::<String>(RECORD_GID));
            }
        },
    );
    Ok(gids)
}

/// The decision is carried out.
pub fn delete_commit_record(gid: &str) -> Result<()> {
    let ours = ours()?;
    delete(
        ours.commit_record,
        ours.commit_record_pkey,
        Some(equal_gid(gid)),
    );
    Ok(())
}

/// What was decided for nodes that have been removed since: nobody will ask again.
pub fn delete_commit_records_of_removed_nodes() -> Result<()> {
    let nodes = super::nodes()?;
    let orphans = gids(|owner| nodes.iter().all(|node| Some(node.id) != owner))?;
    orphans
        .iter()
        .try_for_each(|gid| delete_commit_record(gid))?;
    // the same command may look again, for the next node
    if !orphans.is_empty() {
        // SAFETY: within a command.
        unsafe { pg_sys::CommandCounterIncrement() };
    }
    Ok(())
}
