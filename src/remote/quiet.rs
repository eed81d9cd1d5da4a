//! Ending what is under way, where nothing may be raised: deadlines instead of interrupts, poll(2) instead of latches,
//! rows thrown away instead of kept.

use super::connection::{Connection, Shared, Step};
use super::sessions::Waiting;
use super::wait::{wait_quietly, Interest};
use crate::error::Error;
use pgrx::pg_sys;
use std::time::{Duration, Instant};

/// How long to wait for nodes.
#[derive(Clone, Copy)]
pub enum Patience {
    /// Until then; whoever has not answered is given up.
    Until(Instant),
    /// As long as it takes: an outcome is wanted. A pending cancel request shortens it to the grace, a pending
    /// termination of the session to nothing. A deadlock makes the nodes stop.
    ForOutcome { grace: Duration },
}

impl Patience {
    /// For the end of a transaction.
    pub const COMMIT: Patience = Patience::ForOutcome {
        grace: Duration::from_secs(10),
    };
}

/// Discards all that is outstanding until the connections are idle or lost. A connection that another frame of this
/// process has in its hands is left alone. Answers the deadlock because of which nodes were stopped while their outcome was
/// awaited: the reason of what they then say.
pub fn drive_to_idle(connections: &[Shared], patience: Patience) -> Option<Error> {
    let mut deadlock = None;
    if !drive(connections, patience, &mut deadlock) {
        give_up(connections);
    }
    deadlock
}

/// The same for a short time; nothing is given up when it is over.
pub fn drive_for(connections: &[Shared], time: Duration) {
    let patience = Patience::Until(Instant::now() + time);
    drive(connections, patience, &mut None);
}

/// False: patience has run out.
fn drive(connections: &[Shared], patience: Patience, deadlock: &mut Option<Error>) -> bool {
    let mut cancelled_at = None;
    let mut waiting = matches!(patience, Patience::ForOutcome { .. }).then(Waiting::start);
    loop {
        let mut interests: Vec<Interest> = Vec::new();
        for connection in connections {
            if let Ok(mut connection) = connection.try_borrow_mut() {
                if discard(&mut connection) {
                    interests.push(connection.interest());
                }
            }
        }
        if interests.is_empty() {
            return true;
        }
        let now = Instant::now();
        let limit = match patience {
            Patience::Until(limit) => limit,
            Patience::ForOutcome { grace } => {
                // SAFETY: flags set by signal handlers.
                let (cancel, die) =
                    unsafe { (pg_sys::QueryCancelPending != 0, pg_sys::ProcDiePending != 0) };
                if die {
                    now
                } else if cancel {
                    *cancelled_at.get_or_insert(now) + grace
                } else {
                    now + Duration::from_secs(3600)
                }
            }
        };
        if now >= limit {
            return false;
        }
        // wakes up now and then to look at the flags
        if wait_quietly(&interests, limit.min(now + Duration::from_millis(200))) {
            for connection in connections {
                if let Ok(mut connection) = connection.try_borrow_mut() {
                    if !connection.is_idle() {
                        connection.read();
                    }
                }
            }
        } else if let Some(waiting) = &mut waiting {
            waiting.look(false, connections);
            if deadlock.is_none() {
                *deadlock = waiting.deadlock();
            }
            if deadlock.is_some() {
                interrupt(connections, Instant::now() + Duration::from_millis(500));
            }
        }
    }
}

/// Asks the nodes to stop the commands whose outcome is awaited.
pub(super) fn interrupt(connections: &[Shared], limit: Instant) {
    let requests = connections
        .iter()
        .flat_map(|connection| connection.try_borrow())
        .filter(|connection| !connection.is_idle() && connection.lost().is_none())
        .filter_map(|connection| connection.canceller())
        .collect();
    deliver(requests, limit);
}

/// True when it needs more input.
fn discard(connection: &mut Connection) -> bool {
    loop {
        match connection.advance() {
            Step::Row(..) | Step::Ended => {}
            Step::NeedsInput => return true,
            Step::Idle | Step::Lost => return false,
            Step::Resend => connection.give_up("The transaction has ended."),
            Step::CopyIn => {
                connection.fail_copy();
            }
        }
    }
}

pub(super) fn give_up(connections: &[Shared]) {
    // SAFETY: a flag set by a signal handler.
    let reason = if unsafe { pg_sys::ProcDiePending != 0 } {
        "This session is being terminated."
    } else {
        "It did not answer in time."
    };
    for connection in connections {
        if let Ok(mut connection) = connection.try_borrow_mut() {
            if !connection.is_idle() {
                connection.give_up(reason);
            }
        }
    }
}

/// Stops what the connections are doing and discards what comes. A cancel request that reaches a node between two
/// messages is ignored there, so it is repeated until the connection is idle. At `limit` connections that are still busy
/// are given up, after one more request: a node that computes does not see that its client has gone.
pub fn stop(connections: &[Shared], limit: Instant) {
    let mut pause = Duration::from_millis(50);
    loop {
        cancel(connections, limit);
        let now = Instant::now();
        let patience = Patience::Until(limit.min(now + pause));
        if drive(connections, patience, &mut None) {
            return;
        }
        if Instant::now() >= limit {
            cancel(connections, Instant::now() + Duration::from_millis(500));
            give_up(connections);
            return;
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Asks the nodes to stop what the connections are doing, all at the same time, and waits at most until `limit` for
/// the requests to be delivered. Those that cannot be reached are given up. Where a savepoint is not there yet, to which
/// the node has to go back, it is too early.
fn cancel(connections: &[Shared], limit: Instant) {
    let mut requests = Vec::new();
    for connection in connections {
        let Ok(mut connection) = connection.try_borrow_mut() else {
            continue;
        };
        for answer in connection.outstanding() {
            answer.progress.abandoned.set(true);
        }
        // often it has ended, and the end is here already
        connection.discard_arrived();
        if connection.running().is_none()
            || connection.lost().is_some()
            || connection.is_opening_savepoint()
        {
            continue;
        }
        match connection.canceller() {
            Some(canceller) => requests.push(canceller),
            None => connection.give_up("It could not be cancelled."),
        }
    }
    deliver(requests, limit);
}

/// `PQcancel` blocks, for as long as a network takes to refuse, so each runs in a thread of its own. The threads touch
/// nothing of the server and take no signals.
fn deliver(requests: Vec<super::libpq::Canceller>, limit: Instant) {
    let (send, receive) = std::sync::mpsc::channel();
    let mut started = 0;
    let mut inline = Vec::new();
    // SAFETY: plain signal masks; threads inherit the full one, this thread gets its own back.
    let old = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        old
    };
    for request in requests {
        let send = send.clone();
        let request = std::sync::Arc::new(request);
        let copy = request.clone();
        let thread = std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(move || {
                copy.cancel();
                let _ = send.send(());
            });
        match thread {
            Ok(_) => started += 1,
            Err(_) => inline.push(request),
        }
    }
    // SAFETY: the mask read above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut()) };
    for request in inline {
        request.cancel();
    }
    for _ in 0..started {
        let left = limit.saturating_duration_since(Instant::now());
        if receive.recv_timeout(left).is_err() {
            return;
        }
    }
}
