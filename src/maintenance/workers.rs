//! Which databases have a worker or should have one.

// the macro of pgrx asks for features of its own
#![allow(unexpected_cfgs)]

use super::slots::{Slot, Slots};
use pgrx::prelude::*;
use pgrx::{pg_shmem_init, PgLwLock};

/// A database keeps its slot when its worker fails. The state: the worker has looked after all nodes.
// SAFETY: the name is a literal; the lock is initialised by `init` before any use.
static WORKERS: PgLwLock<Slots<bool>> = unsafe { PgLwLock::new(c"shard_ext_workers") };

pub fn init() {
    pg_shmem_init!(WORKERS);
}

/// This process becomes the worker of its database. False: there is one already, or no room.
pub fn claim(database: pg_sys::Oid) -> bool {
    let mut workers = WORKERS.exclusive();
    let slot = match workers.of(database) {
        Some(slot) => Some(slot),
        None => workers.of(pg_sys::InvalidOid),
    };
    slot.is_some_and(|slot| slot.claim(database))
}

/// The process is no worker any more. `failed`: its database still needs one.
pub fn release(failed: bool) {
    if let Some(slot) = WORKERS.exclusive().mine() {
        let database = if failed {
            slot.database()
        } else {
            pg_sys::InvalidOid
        };
        *slot = Slot::of(database, false);
    }
}

/// The worker of a database, if it runs.
pub fn worker(database: pg_sys::Oid) -> Option<i32> {
    running(database).map(|slot| slot.pid)
}

fn running(database: pg_sys::Oid) -> Option<Slot<bool>> {
    let workers = WORKERS.share();
    let mut slots = workers.iter();
    slots
        .find(|slot| slot.database() == database && slot.is_served())
        .copied()
}

/// This worker has looked after all nodes of its database.
pub fn looked() {
    if let Some(slot) = WORKERS.exclusive().mine() {
        slot.state = true;
    }
}

/// Has the worker of a database looked after all nodes? None: there is no worker.
pub fn has_looked(database: pg_sys::Oid) -> Option<bool> {
    running(database).map(|slot| slot.state)
}

/// The databases whose workers have failed.
pub fn bereft() -> Vec<pg_sys::Oid> {
    WORKERS
        .share()
        .iter()
        .filter(|slot| slot.database() != pg_sys::InvalidOid && !slot.is_served())
        .map(Slot::database)
        .collect()
}

/// The database is no more.
pub fn forget(database: pg_sys::Oid) {
    let mut workers = WORKERS.exclusive();
    if let Some(slot) = workers.of(database).filter(|slot| !slot.is_served()) {
        *slot = Slot::default();
    }
}
