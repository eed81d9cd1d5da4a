//! Starts a worker in every database when the server starts (also after a crash), and new ones for those that fail.

use super::{worker, workers};
use pgrx::prelude::*;
use pgrx::{bgworkers::*, pg_sys};
use std::time::Duration;

pub fn register() {
    BackgroundWorkerBuilder::new("shard_ext launcher")
        .set_type("shard_ext launcher")
        .set_library("shard_ext")
        .set_function("shard_ext_launcher")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(10)))
        .load();
}

/// Between two looks for workers that have failed.
const PAUSE: Duration = Duration::from_secs(10);

/// Entry point.
#[pg_guard]
#[no_mangle]
pub unsafe extern "C-unwind" fn shard_ext_launcher(_argument: pg_sys::Datum) {
    super::take_signals();
    // no database: shared catalogs only
    pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
    for database in databases() {
        start(database);
        // workers that are not needed give their place free at once
        super::sleep(Duration::from_millis(20));
    }
    while !super::is_stopped() {
        super::sleep(PAUSE);
        let bereft = workers::bereft();
        if bereft.is_empty() {
            continue;
        }
        let existing = databases();
        for database in bereft {
            if existing.contains(&database) {
                start(database);
            } else {
                workers::forget(database);
            }
        }
    }
}

fn start(database: pg_sys::Oid) {
    if !worker::start(database) {
        pgrx::log!(
            "no background worker for database {}: raise max_worker_processes",
            database.to_u32()
        );
    }
}

/// Those that can be connected to.
unsafe fn databases() -> Vec<pg_sys::Oid> {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    let mut found = Vec::new();
    pg_sys::SetCurrentStatementStartTimestamp();
    pg_sys::StartTransactionCommand();
    let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
    let scan = pg_sys::systable_beginscan(
        relation,
        pg_sys::InvalidOid,
        false,
        std::ptr::null_mut(),
        0,
        std::ptr::null_mut(),
    );
    loop {
        let tuple = pg_sys::systable_getnext(scan);
        if tuple.is_null() {
            break;
        }
        let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
        if (*row).datallowconn {
            found.push((*row).oid);
        }
    }
    pg_sys::systable_endscan(scan);
    pg_sys::table_close(relation, lock);
    pg_sys::CommitTransactionCommand();
    found
}
