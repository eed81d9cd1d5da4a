//! The background worker: one per database that has the extension.
//!
//! When the server starts, a launcher starts a worker in every database; those that find no extension end at once. A
//! session whose transaction needs two phases makes sure that its database has one. A worker would keep its database
//! from being dropped or renamed, so `stop` ends it first.

mod launcher;
mod slots;
mod worker;

use pgrx::pg_sys;
use std::time::{Duration, Instant};

extern "C-unwind" {
    // the handlers themselves: pgrx's wrappers have another calling convention
    fn die(signal: i32);
    fn SignalHandlerForConfigReload(signal: i32);
}

pub fn init() {
    slots::init();
    launcher::register();
}

/// Sees to it that this database has a worker.
pub fn ensure_running() {
    // SAFETY: reads a variable.
    let database = unsafe { pg_sys::MyDatabaseId };
    if slots::worker(database).is_none() {
        worker::start(database);
    }
}

/// Asks for recovery to run soon. Nothing is raised.
pub fn wake_up() {
    // SAFETY: reads a variable.
    let database = unsafe { pg_sys::MyDatabaseId };
    if let Some(pid) = slots::worker(database) {
        // SAFETY: the handler of this signal sets the worker's latch.
        unsafe { libc::kill(pid, libc::SIGUSR1) };
    }
}

/// Ends the worker of a database that is about to be dropped, renamed or used as a template.
pub fn stop(database: pg_sys::Oid) {
    let Some(pid) = slots::worker(database) else {
        return;
    };
    // SAFETY: a worker of ours; SIGTERM ends it, and the postmaster starts it again after its restart time, when it
    // finds out what has become of its database.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    let limit = Instant::now() + Duration::from_secs(5);
    while slots::worker(database).is_some() && Instant::now() < limit {
        pgrx::check_for_interrupts!();
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// SIGTERM as in a backend: served at the next interrupt check.
fn take_signals() {
    // SAFETY: handlers of the server itself.
    unsafe {
        pg_sys::pqsignal(libc::SIGTERM, Some(die));
        pg_sys::pqsignal(libc::SIGHUP, Some(SignalHandlerForConfigReload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Waits for the latch, the time or an interrupt.
fn sleep(time: Duration) {
    // SAFETY: this process' own latch; as background workers do.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
            time.as_millis().min(i32::MAX as u128) as i64,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
        pgrx::check_for_interrupts!();
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}
