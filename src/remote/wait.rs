//! Waiting for sockets: interruptibly with PostgreSQL's wait event sets, or, where nothing may be raised, with poll(2).

use super::connection::Shared;
use super::outcome;
use super::sessions::Waiting;
use crate::error::{sqlstate, Error, Result};
use pgrx::pg_sys;
use std::time::{Duration, Instant};

/// What to wait for on a socket. Reading is always of interest: a node that cannot send does not read either.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    pub socket: i32,
    pub write: bool,
}

/// An epoll set over the latch, the postmaster and some sockets, kept from wait to wait.
///
/// It must be dropped before one of its sockets is closed: the number may be reused.
pub struct WaitSet {
    set: *mut pg_sys::WaitEventSet,
    /// Socket and the events it is registered for, at positions 2…
    sockets: Vec<(i32, u32)>,
    occurred: Vec<pg_sys::WaitEvent>,
}

/// Latch and postmaster come first.
const FIRST_SOCKET: i32 = 2;

fn mask(interest: Interest) -> u32 {
    if interest.write {
        pg_sys::WL_SOCKET_READABLE | pg_sys::WL_SOCKET_WRITEABLE
    } else {
        pg_sys::WL_SOCKET_READABLE
    }
}

impl WaitSet {
    pub fn new(interests: &[Interest]) -> WaitSet {
        WaitSet::with(interests, mask)
    }

    fn with(interests: &[Interest], mask: fn(Interest) -> u32) -> WaitSet {
        let mut new = WaitSet {
            set: std::ptr::null_mut(),
            sockets: Vec::with_capacity(interests.len()),
            occurred: vec![pg_sys::WaitEvent::default(); interests.len() + 2],
        };
        let none = std::ptr::null_mut();
        // SAFETY: TopMemoryContext lives as long as the backend; MyLatch is this backend's latch.
        unsafe {
            new.set = pg_sys::CreateWaitEventSet(
                pg_sys::TopMemoryContext,
                interests.len() as i32 + FIRST_SOCKET,
            );
            let no_socket = pg_sys::PGINVALID_SOCKET;
            let add = |events, socket, latch| {
                pg_sys::AddWaitEventToSet(new.set, events, socket, latch, none)
            };
            add(pg_sys::WL_LATCH_SET, no_socket, pg_sys::MyLatch);
            add(pg_sys::WL_EXIT_ON_PM_DEATH, no_socket, std::ptr::null_mut());
            for interest in interests {
                add(mask(*interest), interest.socket, std::ptr::null_mut());
            }
        }
        new.sockets
            .extend(interests.iter().map(|i| (i.socket, mask(*i))));
        new
    }

    /// Whether the set is over exactly these sockets in this order.
    pub fn covers(&self, interests: &[Interest]) -> bool {
        self.sockets.len() == interests.len()
            && self
                .sockets
                .iter()
                .zip(interests)
                .all(|(have, want)| have.0 == want.socket)
    }

    /// Waits until a socket is ready, and calls `ready` with the index of each that is. False: time is up. Interrupts
    /// are served, so it may raise.
    pub fn wait(
        &mut self,
        interests: &[Interest],
        limit: Instant,
        ready: impl FnMut(usize),
    ) -> bool {
        self.register(interests);
        self.wait_as_registered(limit, ready)
    }

    /// Waits without a limit for what these connections are to answer. Ends with an error, too, when the wait is part of
    /// a deadlock.
    pub fn wait_for_answers(
        &mut self,
        interests: &[Interest],
        connections: &[Shared],
        mut ready: impl FnMut(usize),
    ) {
        self.register(interests);
        let mut waiting = Waiting::start();
        loop {
            let woken = self.wait_once(outcome::pause(waiting.pause()), &mut ready);
            let given_up = outcome::pass_cancel_on(connections);
            if given_up || woken == Woken::Socket {
                return;
            }
            let alarmed = woken == Woken::Time && !outcome::is_cancelled();
            waiting.look(alarmed, connections);
            if let Some(deadlock) = waiting.deadlock() {
                deadlock.raise();
            }
        }
    }

    fn register(&mut self, interests: &[Interest]) {
        for (i, interest) in interests.iter().enumerate() {
            let events = mask(*interest);
            if self.sockets[i].1 != events {
                let position = i as i32 + FIRST_SOCKET;
                // SAFETY: the position was registered above.
                unsafe {
                    pg_sys::ModifyWaitEvent(self.set, position, events, std::ptr::null_mut())
                };
                self.sockets[i].1 = events;
            }
        }
    }

    fn wait_as_registered(&mut self, limit: Instant, mut ready: impl FnMut(usize)) -> bool {
        loop {
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            if self.wait_once(left, &mut ready) == Woken::Socket {
                return true;
            }
            // SAFETY: a flag that only signal handlers of background workers set.
            if unsafe { pg_sys::ShutdownRequestPending } != 0 {
                return false;
            }
        }
    }

    /// Serves interrupts.
    fn wait_once(&mut self, time: Duration, ready: &mut impl FnMut(usize)) -> Woken {
        // SAFETY: `occurred` has room for all events.
        let count = unsafe {
            pg_sys::WaitEventSetWait(
                self.set,
                time.as_millis().min(i32::MAX as u128 - 1) as i64 + 1,
                self.occurred.as_mut_ptr(),
                self.occurred.len() as i32,
                pg_sys::PG_WAIT_EXTENSION,
            )
        };
        let mut woken = Woken::Time;
        let mut latch = false;
        for event in &self.occurred[..count.max(0) as usize] {
            if event.events & pg_sys::WL_LATCH_SET != 0 {
                latch = true;
            } else if event.pos >= FIRST_SOCKET {
                woken = Woken::Socket;
                ready((event.pos - FIRST_SOCKET) as usize);
            }
        }
        if latch {
            // SAFETY: this backend's latch.
            unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
            if woken == Woken::Time {
                woken = Woken::Latch;
            }
        }
        pgrx::check_for_interrupts!();
        woken
    }
}

/// What has ended a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    Socket,
    Latch,
    Time,
}

impl Drop for WaitSet {
    fn drop(&mut self) {
        if !self.set.is_null() {
            // SAFETY: closes the epoll descriptor and frees; raises nothing.
            unsafe { pg_sys::FreeWaitEventSet(self.set) }
        }
    }
}

/// Waits with poll(2) for one of the sockets: no latch, no interrupts, nothing raised. False: time is up.
pub fn wait_quietly(interests: &[Interest], limit: Instant) -> bool {
    let mut polled: Vec<libc::pollfd> = interests
        .iter()
        .map(|interest| libc::pollfd {
            fd: interest.socket,
            events: if interest.write {
                libc::POLLIN | libc::POLLOUT
            } else {
                libc::POLLIN
            },
            revents: 0,
        })
        .collect();
    loop {
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let timeout = left.as_millis().min(i32::MAX as u128) as i32 + 1;
        // SAFETY: an array of its own length.
        let count = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as _, timeout) };
        if count > 0 {
            return true;
        }
        let interrupted = std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR);
        if count < 0 && !interrupted {
            return false;
        }
    }
}

/// Whether a socket has anything to read, an end of file included; one system call, no waiting.
pub fn is_readable(socket: i32) -> bool {
    let mut polled = libc::pollfd {
        fd: socket,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one element.
    unsafe { libc::poll(&mut polled, 1, 0) > 0 }
}

/// Counts a libpq socket among the files of the backend, so that PostgreSQL leaves room for it.
pub struct FileSlot(());

impl FileSlot {
    pub fn reserve() -> Result<FileSlot> {
        // SAFETY: no arguments; may close other files of the backend to make room.
        if unsafe { pg_sys::AcquireExternalFD() } {
            Ok(FileSlot(()))
        } else {
            Err(
                Error::new(sqlstate::UNABLE_TO_CONNECT, "could not connect to a node")
                    .detail("This server process has too many files open.")
                    .hint(
                        "Raise the server's max_files_per_process and the system's \"ulimit -n\".",
                    ),
            )
        }
    }
}

impl Drop for FileSlot {
    fn drop(&mut self) {
        // SAFETY: decrements a counter.
        unsafe { pg_sys::ReleaseExternalFD() }
    }
}

/// A deadline so many milliseconds from now.
pub fn after(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

/// Waits for sockets that are being connected, each for reading or (`true`) for writing only. The sets of such
/// sockets change from call to call, so nothing is kept. False: time is up.
pub fn wait_connecting(sockets: &[(i32, bool)], limit: Instant, ready: impl FnMut(usize)) -> bool {
    let interests: Vec<Interest> = sockets
        .iter()
        .map(|(socket, write)| Interest {
            socket: *socket,
            write: *write,
        })
        .collect();
    WaitSet::with(&interests, |interest| {
        if interest.write {
            pg_sys::WL_SOCKET_WRITEABLE
        } else {
            pg_sys::WL_SOCKET_READABLE
        }
    })
    .wait_as_registered(limit, ready)
}
