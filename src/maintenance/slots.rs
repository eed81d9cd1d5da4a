//! Which background workers run or should run, in shared memory.

// the macro of pgrx asks for features of its own
#![allow(unexpected_cfgs)]

use pgrx::prelude::*;
use pgrx::{pg_shmem_init, PGRXSharedMemory, PgLwLock};

/// More databases with the extension than this have no worker.
const SLOTS: usize = 64;

/// A database that should have a worker, and the worker's process id, 0 or dead when it has failed.
#[derive(Clone, Copy, Default)]
struct Slot {
    database: u32,
    pid: i32,
    /// The worker has looked after all nodes.
    looked: bool,
}

#[derive(Clone, Copy)]
pub struct Slots([Slot; SLOTS]);

// SAFETY: plain numbers.
unsafe impl PGRXSharedMemory for Slots {}

impl Default for Slots {
    fn default() -> Slots {
        Slots([Slot::default(); SLOTS])
    }
}

// SAFETY: the name is a literal; the lock is initialised by `init` before any use.
static WORKERS: PgLwLock<Slots> = unsafe { PgLwLock::new(c"shard_ext_workers") };

pub fn init() {
    pg_shmem_init!(WORKERS);
}

/// This process becomes the worker of its database. False: there is one already, or no room.
pub fn claim(database: pg_sys::Oid) -> bool {
    let database = database.to_u32();
    let mut slots = WORKERS.exclusive();
    let place = |slots: &Slots, database| slots.0.iter().position(|s| s.database == database);
    let Some(at) = place(&slots, database).or_else(|| place(&slots, 0)) else {
        return false;
    };
    if is_alive(slots.0[at].pid) {
        return false;
    }
    slots.0[at] = Slot {
        database,
        // SAFETY: reads a variable.
        pid: unsafe { pg_sys::MyProcPid },
        looked: false,
    };
    true
}

/// The process is no worker any more. `failed`: its database still needs one.
pub fn release(failed: bool) {
    // SAFETY: reads a variable.
    let me = unsafe { pg_sys::MyProcPid };
    for slot in &mut WORKERS.exclusive().0 {
        if slot.pid == me {
            slot.pid = 0;
            if !failed {
                slot.database = 0;
            }
        }
    }
}

/// The worker of a database, if it runs.
pub fn worker(database: pg_sys::Oid) -> Option<i32> {
    running(database).map(|slot| slot.pid)
}

fn running(database: pg_sys::Oid) -> Option<Slot> {
    let database = database.to_u32();
    let slots = WORKERS.share();
    let mut slots = slots.0.iter();
    slots
        .find(|slot| slot.database == database && is_alive(slot.pid))
        .copied()
}

/// This worker has looked after all nodes of its database.
pub fn looked() {
    // SAFETY: reads a variable.
    let me = unsafe { pg_sys::MyProcPid };
    for slot in &mut WORKERS.exclusive().0 {
        slot.looked |= slot.pid == me;
    }
}

/// Has the worker of a database looked after all nodes? None: there is no worker.
pub fn has_looked(database: pg_sys::Oid) -> Option<bool> {
    running(database).map(|slot| slot.looked)
}

/// The databases whose workers have failed.
pub fn bereft() -> Vec<pg_sys::Oid> {
    WORKERS
        .share()
        .0
        .iter()
        .filter(|slot| slot.database != 0 && !is_alive(slot.pid))
        .map(|slot| pg_sys::Oid::from(slot.database))
        .collect()
}

/// The database is no more.
pub fn forget(database: pg_sys::Oid) {
    let database = database.to_u32();
    for slot in &mut WORKERS.exclusive().0 {
        if slot.database == database && !is_alive(slot.pid) {
            *slot = Slot::default();
        }
    }
}

pub fn is_alive(pid: i32) -> bool {
    // SAFETY: signal 0 only asks.
    pid != 0 && unsafe { libc::kill(pid, 0) } == 0
}
