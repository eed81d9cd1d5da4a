//! The background worker that looks for deadlocks across nodes. A session that has waited for long asks for it; it ends
//! when no deadlock is possible any more, so that most of the time there is none.

// the macro of pgrx asks for features of its own
#![allow(unexpected_cfgs)]

use super::slots::{Slot, Slots};
use super::worker::in_transaction;
use crate::remote::sessions;
use crate::transaction::deadlocks::{self, Detector};
use pgrx::prelude::*;
use pgrx::{bgworkers::*, pg_shmem_init, pg_sys, PgLwLock};
use std::collections::HashSet;
use std::time::Duration;

/// Databases whose deadlocks are looked for: by a process, or (0) by one that was asked for at the time that the state
/// says, and has not started yet.
// SAFETY: the name is a literal; the lock is initialised by `init` before any use.
static DETECTORS: PgLwLock<Slots<pg_sys::TimestampTz>> =
    unsafe { PgLwLock::new(c"shard_ext_detectors") };

pub fn init() {
    pg_shmem_init!(DETECTORS);
    sessions::on_suspicion(ask);
}

/// A start that takes longer is tried again.
const START: i64 = 1_000_000;

fn is_taken(slot: &Slot<pg_sys::TimestampTz>, now: pg_sys::TimestampTz) -> bool {
    slot.is_served() || (slot.pid == 0 && now - slot.state < START)
}

/// A session of this database suspects a deadlock, for the first time (`news`) or still.
fn ask(news: bool) {
    // SAFETY: a variable, and the time.
    let (database, asked) = unsafe { (pg_sys::MyDatabaseId, pg_sys::GetCurrentTimestamp()) };
    {
        let mut detectors = DETECTORS.exclusive();
        let slot = match detectors.of(database) {
            Some(slot) => Some(slot),
            None => detectors.find(|slot| !is_taken(slot, asked)),
        };
        match slot {
            Some(slot) if !is_taken(slot, asked) => *slot = Slot::of(database, asked),
            Some(slot) if news && slot.pid != 0 => {
                // SAFETY: the handler of this signal sets the worker's latch.
                unsafe { libc::kill(slot.pid, libc::SIGUSR1) };
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

#[pg_guard]
unsafe extern "C-unwind" fn release(code: i32, _arg: pg_sys::Datum) {
    if let Some(slot) = DETECTORS.exclusive().mine() {
        // what has failed is not tried again at once
        let asked = if code == 0 {
            0
        } else {
            pg_sys::GetCurrentTimestamp()
        };
        *slot = Slot::of(slot.database(), asked);
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
    let claim = |slot: &mut Slot<_>| slot.claim(database);
    if !DETECTORS.exclusive().of(database).is_some_and(claim) {
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
