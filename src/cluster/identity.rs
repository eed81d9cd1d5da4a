//! Whether two connections end in the same database.
//!
//! System identifier and database oid tell databases apart, but copies of a data directory share both. So
//! where these agree, one side takes an advisory lock and the other looks whether it can see it.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::catalog::NodeId;
use crate::error::{Error, Result};
use crate::remote;

/// One of the two sides.
#[derive(Clone, Copy)]
pub enum Side {
    Here,
    Node(NodeId),
}

/// Whether `node` is the database that `other` is. The lock is held until the end of the transaction.
pub fn same_database(other: Side, node: NodeId) -> Result<bool> {
    let mut key = [0_u8; 8];
    // SAFETY: fills the buffer.
    if !unsafe { pg_sys::pg_strong_random(key.as_mut_ptr().cast(), key.len()) } {
        return Err(Error::internal("could not generate random values"));
    }
    let key = i64::from_ne_bytes(key);
    let lock = format!("SELECT pg_catalog.pg_advisory_xact_lock({key})");
    match other {
        Side::Here => Spi::run(&lock).map_err(|error| {
            Error::internal(format!("could not take an advisory lock: {error}"))
        })?,
        Side::Node(other) => {
            // In the distributed transaction, so that the lock stays.
            remote::execute(other, &lock)?;
        }
    }
    let seen = remote::query(
        node,
        &format!(
            "SELECT 1 FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.database \
             WHERE d.datname = pg_catalog.current_database() AND l.locktype = 'advisory' \
             AND l.classid = '{}'::pg_catalog.oid AND l.objid = '{}'::pg_catalog.oid AND l.objsubid = 1",
            (key as u64) >> 32,
            key as u32
        ),
        &[],
    )?;
    Ok(!seen.is_empty())
}
