//! Waiting for time to pass.

use pgrx::pg_sys;
use std::time::Duration;

/// Waits until the time is over or the latch is set. Interrupts are served, so it may raise.
pub fn pause(time: Duration) {
    // SAFETY: this process' own latch.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
            time.as_millis().min(i32::MAX as u128) as i64,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}
