//! Which background workers run, in shared memory.

// the macro of pgrx asks for features of its own
#![allow(unexpected_cfgs)]

use pgrx::prelude::*;
use pgrx::{pg_shmem_init, PGRXSharedMemory, PgLwLock};

/// More databases with the extension than this have no worker.
const SLOTS: usize = 64;

#[derive(Clone, Copy, Default)]
struct Slot {
    database: u32,
    pid: i32,
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
    if slots
        .0
        .iter()
        .any(|slot| slot.database == database && is_alive(slot.pid))
    {
        return false;
    }
    let free = slots
        .0
        .iter_mut()
        .find(|slot| slot.database == database || !is_alive(slot.pid));
    match free {
        Some(slot) => {
            *slot = Slot {
                database,
                // SAFETY: reads a variable.
                pid: unsafe { pg_sys::MyProcPid },
            };
            true
        }
        None => false,
    }
}

/// The process is no worker any more.
pub fn release() {
    // SAFETY: reads a variable.
    let me = unsafe { pg_sys::MyProcPid };
    for slot in &mut WORKERS.exclusive().0 {
        if slot.pid == me {
            *slot = Slot::default();
        }
    }
}

/// The worker of a database, if it runs.
pub fn worker(database: pg_sys::Oid) -> Option<i32> {
    let database = database.to_u32();
    WORKERS
        .share()
        .0
        .iter()
        .find(|slot| slot.database == database && is_alive(slot.pid))
        .map(|slot| slot.pid)
}

fn is_alive(pid: i32) -> bool {
    // SAFETY: signal 0 only asks.
    pid != 0 && unsafe { libc::kill(pid, 0) } == 0
}
