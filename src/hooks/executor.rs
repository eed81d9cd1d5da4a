//! The executor hook: rows of a scan that the client wants as nodes can send them.

use crate::executor::forward;
use pgrx::pg_sys;

static mut PREVIOUS: pg_sys::ExecutorRun_hook_type = None;

pub fn init() {
    // SAFETY: called once, while the postmaster loads its libraries.
    unsafe {
        PREVIOUS = pg_sys::ExecutorRun_hook;
        pg_sys::ExecutorRun_hook = Some(run);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    once: bool,
) {
    // SAFETY: PostgreSQL's own arguments, handed on.
    unsafe {
        // PostgreSQL tells `once` no more
        let all = count == 0 && direction == pg_sys::ScanDirection::ForwardScanDirection;
        let receiver = if all {
            forward::receiver(query).unwrap_or_else(|error| error.raise())
        } else {
            None
        };
        let before = (*query).dest;
        if let Some(receiver) = receiver {
            (*query).dest = receiver;
        }
        match PREVIOUS {
            Some(previous) => {
                pg_sys::ffi::pg_guard_ffi_boundary(|| previous(query, direction, count, once))
            }
            None => pg_sys::standard_ExecutorRun(query, direction, count, once),
        }
        (*query).dest = before;
    }
}
