//! The background worker that looks for deadlocks across nodes. A session that has waited for long asks for it; it ends
//! when no deadlock is possible any more, so that most of the time there is none.

// the macro of pgrx asks for features of its own
#![allow(unexpected_cfgs)]

use super::slots::is_alive;
use super::worker::in_transaction;
use crate::remote::sessions;
use crate::transaction::deadlocks::{self, Detector};
use pgrx::prelude::*;
use pgrx::{bgworkers::*, pg_shmem_init, pg_sys, PGRXSharedMemory, PgLwLock};
use std::collections::HashSet;
use std::time::Duration;

/// Databases that can have such a worker at the same time.
const SLOTS: usize = 64;

/// A database whose deadlocks are looked for: by a process, or (0) by one that was asked for and has not started yet.
#[derive(Clone, Copy, Default)]
struct Slot {
    database: u32,
    pid: i32,
    asked: pg_sys::TimestampTz,
}

#[derive(Clone, Copy)]
struct Slots([Slot; SLOTS]);

// SAFETY: plain numbers.
unsafe impl PGRXSharedMemory for Slots {}

impl Default for Slots {
    fn default() -> Slots {
        Slots([Slot::default(); SLOTS])
    }
}

// SAFETY: the name is a literal; the lock is initialised by `init` before any use.
static DETECTORS: PgLwLock<Slots> = unsafe { PgLwLock::new(c"shard_ext_detectors") };

pub fn init() {
    pg_shmem_init!(DETECTORS);
    sessions::on_suspicion(ask);
}

/// A start that takes longer is tried again.
const START: i64 = 1_000_000;

impl Slot {
    fn is_taken(&self, now: pg_sys::TimestampTz) -> bool {
        is_alive(self.pid) || (self.pid == 0 && now - self.asked < START)
    }
}

/// A session of this database suspects a deadlock, for the first time (`news`) or still.
fn ask(news: bool) {
    // SAFETY: a variable, and the time.
    let (database, asked) = unsafe { (pg_sys::MyDatabaseId, pg_sys::GetCurrentTimestamp()) };
    let slot = Slot {
        database: database.to_u32(),
        pid: 0,
        asked,
    };
    {
        let mut slots = DETECTORS.exclusive();
        let of_database = slots.0.iter().position(|s| s.database == slot.database);
        let free = || slots.0.iter().position(|s| !s.is_taken(asked));
        match of_database.or_else(free) {
            Some(at) if !slots.0[at].is_taken(asked) => slots.0[at] = slot,
            Some(at) if news && slots.0[at].pid != 0 => {
                // SAFETY: the handler of this signal sets the worker's latch.
                unsafe { libc::kill(slots.0[at].pid, libc::SIGUSR1) };
                return;
            }
            _ => return,
        }
    }
    let started = BackgroundWorkerBuilder::new("shard_ext deadlock detector")
        .set_type("shard_ext deadlock detector")
        .set_library("shard_ext")
        .set_function("shard_ext_deadlock_detector")
        .set_argument(Some(pg_sys::Datum::from(database)))
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .load_dynamic();
    if started.is_err() {
        pgrx::log!("no background worker to look for deadlocks: raise max_worker_processes");
    }
}

/// This process takes the place of its database. False: another one has it.
fn claim(database: pg_sys::Oid) -> bool {
    let mut slots = DETECTORS.exclusive();
    let of_database = |slot: &&mut Slot| slot.database == database.to_u32();
    match slots.0.iter_mut().find(of_database) {
        Some(slot) if !is_alive(slot.pid) => {
            // SAFETY: reads a variable.
            slot.pid = unsafe { pg_sys::MyProcPid };
            true
        }
        _ => false,
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn release(code: i32, _arg: pg_sys::Datum) {
    let me = pg_sys::MyProcPid;
    for slot in DETECTORS.exclusive().0.iter_mut().filter(|s| s.pid == me) {
        slot.pid = 0;
        slot.asked = 0;
        if code != 0 {
            // what has failed is not tried again at once
            slot.asked = pg_sys::GetCurrentTimestamp();
        }
    }
}

/// Between two looks at least.
const PAUSE: Duration = Duration::from_millis(100);

/// Entry point; the argument is the database's oid.
#[pg_guard]
#[no_mangle]
pub unsafe extern "C-unwind" fn shard_ext_deadlock_detector(database: pg_sys::Datum) {
    let database = pg_sys::Oid::from(database.value() as u32);
    super::take_signals();
    if !claim(database) {
        return;
    }
    pg_sys::before_shmem_exit(Some(release), pg_sys::Datum::null());
    pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
    let mut detector = Detector::default();
    let mut unreachable = HashSet::new();
    while !super::is_stopped() {
        let needed = in_transaction(|| {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let needed = deadlocks::resolve(&mut detector, |node, error| {
                // once per outage
                if unreachable.insert(node.id) {
                    error.report(pgrx::PgLogLevel::LOG as i32);
                }
            })
            .unwrap_or_else(|error| error.raise());
            pg_sys::PopActiveSnapshot();
            needed
        });
        if !needed {
            return;
        }
        std::thread::sleep(PAUSE);
        let timeout = Duration::from_millis(pg_sys::DeadlockTimeout.max(1) as u64);
        // not for long without a look at who still waits: the process would keep its database from being dropped
        super::sleep(timeout.clamp(PAUSE, Duration::from_secs(1)));
    }
}
