//! The background worker of one database: runs recovery now and then, and when it is woken up; keeps statistics up to date.

use super::workers;
use crate::catalog::{self, NodeId};
use crate::settings;
use crate::statistics;
use crate::transaction::recovery;
use pgrx::prelude::*;
use pgrx::{bgworkers::*, pg_sys};
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// Between attempts while something is left to recover.
const RETRY: Duration = Duration::from_secs(5);

/// Registers a worker for a database. False: the server has no room for one (`max_worker_processes`).
pub fn start(database: pg_sys::Oid) -> bool {
    BackgroundWorkerBuilder::new("shard_ext maintenance")
        .set_type("shard_ext maintenance")
        .set_library("shard_ext")
        .set_function("shard_ext_maintenance")
        .set_argument(Some(pg_sys::Datum::from(database)))
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .load_dynamic()
        .is_ok()
}

#[pg_guard]
unsafe extern "C-unwind" fn at_exit(code: i32, _arg: pg_sys::Datum) {
    workers::release(code != 0);
}

/// Entry point; the argument is the database's oid. Ends normally when another worker is there or the extension is not;
/// when it fails, the launcher starts another.
#[pg_guard]
#[no_mangle]
pub unsafe extern "C-unwind" fn shard_ext_maintenance(database: pg_sys::Datum) {
    let database = pg_sys::Oid::from(database.value() as u32);
    super::take_signals();
    if !workers::claim(database) {
        return;
    }
    pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::null());
    pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
    forget_connections();
    let mut unreachable = HashSet::new();
    let mut analyzed = Instant::now();
    loop {
        let Some(all_done) = round(&mut unreachable) else {
            return;
        };
        workers::looked();
        let mut pause = if all_done {
            settings::recovery_interval()
        } else {
            RETRY
        };
        if let Some(interval) = settings::statistics_interval() {
            if analyzed.elapsed() >= interval {
                analyze_outdated();
                analyzed = Instant::now();
            }
            pause = pause.min(interval.saturating_sub(analyzed.elapsed()));
        }
        super::sleep(pause);
        if super::is_stopped() {
            return;
        }
    }
}

/// One round over the nodes. `None`: the extension is not in this database (any more).
fn round(unreachable: &mut HashSet<NodeId>) -> Option<bool> {
    activity(c"recovery of prepared transactions");
    let mut all_done = true;
    // one transaction per node, so that a slow one delays nobody's clean-up
    let nodes = in_transaction(|| catalog::installed().then(catalog::nodes))?;
    for node in nodes.unwrap_or_else(|error| error.raise()) {
        if super::is_stopped() {
            return None;
        }
        let recovered = in_transaction(|| recovery::recover_node(&node));
        match recovered {
            Ok(done) => {
                unreachable.remove(&node.id);
                all_done &= done.left == 0;
                if done.committed + done.rolled_back > 0 {
                    pgrx::log!(
                        "recovery on node \"{}\": {} transactions committed, {} rolled back",
                        node.name,
                        done.committed,
                        done.rolled_back
                    );
                }
            }
            Err(error) => {
                all_done = false;
                // once per outage
                if unreachable.insert(node.id) {
                    let why = error.fields();
                    pgrx::log!(
                        "recovery cannot reach node \"{}\": {}{}",
                        node.name,
                        why.message,
                        why.detail
                            .as_ref()
                            .map_or(String::new(), |d| format!(": {d}"))
                    );
                }
            }
        }
    }
    // SAFETY: NULL is allowed.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
    Some(all_done)
}

/// Analyses what has grown or shrunk, each table in a transaction of its own. What fails is tried again next time.
fn analyze_outdated() {
    activity(c"statistics of distributed tables");
    let tables = attempt(|| {
        if catalog::installed() {
            statistics::outdated()
        } else {
            Ok(Vec::new())
        }
    });
    for relid in tables.unwrap_or_default() {
        if super::is_stopped() {
            break;
        }
        // SAFETY: in a transaction with a snapshot.
        attempt(|| unsafe { statistics::catch_up(relid) });
    }
    // SAFETY: NULL is allowed.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
}

/// The worker keeps no connection: it would keep the node's database from being dropped or renamed.
fn forget_connections() {
    in_transaction(|| {
        // SAFETY: NUL-terminated strings, copied by the server.
        unsafe {
            pg_sys::SetConfigOption(
                c"shard_ext.max_cached_connections_per_node".as_ptr(),
                c"0".as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    });
}

/// A transaction that may fail: the error is logged, and the worker goes on.
fn attempt<T>(work: impl FnOnce() -> crate::error::Result<T>) -> Option<T> {
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| {
        in_transaction(|| {
            // SAFETY: in a transaction, which pops what is pushed.
            unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
            let result = work().unwrap_or_else(|error| error.raise());
            unsafe { pg_sys::PopActiveSnapshot() };
            Some(result)
        })
    }))
    .catch_others(|error| {
        use pgrx::pg_sys::panic::CaughtError::*;
        let (PostgresError(report) | ErrorReport(report)) = &error else {
            error.rethrow()
        };
        pgrx::log!("statistics are not up to date: {}", report.message());
        None
    })
    .execute();
    if outcome.is_none() {
        // SAFETY: what the failed transaction held is released.
        unsafe { pg_sys::AbortCurrentTransaction() };
    }
    outcome
}

fn activity(what: &std::ffi::CStr) {
    // SAFETY: a NUL-terminated string, which is copied.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, what.as_ptr()) }
}

/// An error that is raised ends the worker.
pub fn in_transaction<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: as background workers do; what the work allocates goes with the transaction.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        let result = work();
        pg_sys::CommitTransactionCommand();
        result
    }
}
