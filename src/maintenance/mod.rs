//! The background worker: one per database that has the extension. Another one, which looks for deadlocks, is there only
//! while sessions wait for long.
//!
//! When the server starts, the launcher starts a worker in every database; those that find no extension end at once. A
//! session whose transaction needs two phases makes sure that its database has one. A worker would keep its database
//! from being dropped or renamed, so `make_way` ends it first.

mod detector;
mod launcher;
mod slots;
mod worker;
mod workers;

use crate::pg::latch;
use pgrx::pg_sys;
use std::time::{Duration, Instant};

extern "C-unwind" {
    // the handlers themselves: pgrx's wrappers have another calling convention
    fn SignalHandlerForShutdownRequest(signal: i32);
    fn SignalHandlerForConfigReload(signal: i32);
}

pub fn init() {
    workers::init();
    detector::init();
    launcher::register();
}

/// Sees to it that this database has a worker.
pub fn ensure_running() {
    // SAFETY: reads a variable.
    let database = unsafe { pg_sys::MyDatabaseId };
    if workers::worker(database).is_none() {
        worker::start(database);
    }
}

/// Waits until the worker of this database has tried to recover every node once, which finishes what transactions have left
/// there before the server started. When there is no room for a worker, nobody does.
pub fn await_first_round(limit: Instant) {
    // SAFETY: reads a variable.
    let database = unsafe { pg_sys::MyDatabaseId };
    if workers::worker(database).is_none() && !worker::start(database) {
        return;
    }
    let started = Instant::now() + START_TIME;
    while Instant::now() < limit {
        match workers::has_looked(database) {
            Some(true) => return,
            None if Instant::now() > started => return,
            _ => latch::pause(Duration::from_millis(1)),
        }
    }
}

/// In which a worker that has room starts.
const START_TIME: Duration = Duration::from_secs(1);

/// Asks for recovery to run soon. Nothing is raised.
pub fn wake_up() {
    // SAFETY: reads a variable.
    let database = unsafe { pg_sys::MyDatabaseId };
    if let Some(pid) = workers::worker(database) {
        // SAFETY: the handler of this signal sets the worker's latch.
        unsafe { libc::kill(pid, libc::SIGUSR1) };
    }
}

/// A statement that needs its database to itself (DROP, RENAME, use as a template): ends the worker there. Answers the
/// database if a worker was ended; pass it to `start_again` after the statement.
///
/// # Safety
/// A parse tree of a utility statement.
pub unsafe fn make_way(statement: *const pg_sys::Node) -> Option<pg_sys::Oid> {
    let database = database_of(statement)?;
    let pid = workers::worker(database)?;
    libc::kill(pid, libc::SIGTERM);
    let limit = Instant::now() + Duration::from_secs(5);
    while workers::worker(database).is_some() && Instant::now() < limit {
        pgrx::check_for_interrupts!();
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(database)
}

/// After the statement, if the database is still there.
pub fn start_again(database: pg_sys::Oid) {
    // SAFETY: a look-up.
    let exists = unsafe { !pg_sys::get_database_name(database).is_null() };
    if exists && workers::worker(database).is_none() {
        worker::start(database);
    }
}

unsafe fn database_of(statement: *const pg_sys::Node) -> Option<pg_sys::Oid> {
    use pg_sys::NodeTag::*;
    let name = match (*statement).type_ {
        T_DropdbStmt => (*statement.cast::<pg_sys::DropdbStmt>()).dbname,
        T_AlterDatabaseStmt => (*statement.cast::<pg_sys::AlterDatabaseStmt>()).dbname,
        T_RenameStmt => {
            let rename = statement.cast::<pg_sys::RenameStmt>();
            if (*rename).renameType != pg_sys::ObjectType::OBJECT_DATABASE {
                return None;
            }
            (*rename).subname
        }
        T_CreatedbStmt => {
            let options = (*statement.cast::<pg_sys::CreatedbStmt>()).options;
            if options.is_null() {
                return None;
            }
            let cells = std::slice::from_raw_parts((*options).elements, (*options).length as usize);
            let template = cells
                .iter()
                .map(|cell| cell.ptr_value.cast::<pg_sys::DefElem>())
                .find(|option| {
                    std::ffi::CStr::from_ptr((**option).defname) == c"template"
                        && !(**option).arg.is_null()
                })?;
            pg_sys::defGetString(template)
        }
        _ => return None,
    };
    let database = pg_sys::get_database_oid(name, true);
    (database != pg_sys::InvalidOid).then_some(database)
}

/// SIGTERM asks for a normal end, see `is_stopped`.
fn take_signals() {
    // SAFETY: handlers of the server itself.
    unsafe {
        pg_sys::pqsignal(libc::SIGTERM, Some(SignalHandlerForShutdownRequest));
        pg_sys::pqsignal(libc::SIGHUP, Some(SignalHandlerForConfigReload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Whether this worker was asked to end. It then returns, which also tells the postmaster not to start it again.
fn is_stopped() -> bool {
    // SAFETY: a flag set by the signal handler.
    unsafe { pg_sys::ShutdownRequestPending != 0 }
}

/// Waits for the latch, the time or an interrupt.
fn sleep(time: Duration) {
    latch::pause(time);
    // SAFETY: as background workers do.
    unsafe {
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}
