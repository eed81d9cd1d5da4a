//! What the sessions of this server do on nodes, in shared memory: which server processes there act for a session, and
//! whether it waits for them. `transaction::deadlocks` reads it.
//!
//! Each session writes its own place, without locks: two stores for every wait. Whatever takes longer is done when a
//! wait has lasted for `deadlock_timeout`.

use super::connection::Shared;
use crate::catalog::NodeId;
use crate::error::{sqlstate, Error};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::{Cell, UnsafeCell};
use std::ffi::CStr;
use std::ptr::addr_of;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicPtr, AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Connections of a session that others can see.
const CONNECTIONS: usize = 64;

/// As many sessions of a deadlock are named in the server's log.
const LOGGED: usize = 16;

/// One per server process that could have connections, at its place among PostgreSQL's processes.
struct Session {
    /// The process, 0 for a place that is free.
    pid: AtomicI32,
    /// Counts up when a wait for nodes begins, and when it ends: odd in between.
    wait: AtomicU64,
    /// The last wait that has lasted for `deadlock_timeout`.
    long_wait: AtomicU64,
    /// When the transaction of that wait began.
    transaction_start: AtomicI64,
    /// The wait that has to end with the error that `deadlock` describes.
    doomed_wait: AtomicU64,
    deadlock: UnsafeCell<Deadlock>,
    connections: [Place; CONNECTIONS],
}

// SAFETY: all is atomic but `deadlock`. It is written while its session waits and before `doomed_wait` names that wait,
// by the one process that looks for deadlocks in the session's database, and is read after.
unsafe impl Sync for Session {}

struct Place {
    /// The node and the process there, see `Connected::pack`; 0: free.
    process: AtomicU64,
    /// The wait in which its answer is needed.
    wait: AtomicU64,
}

/// What a session is told of its deadlock.
#[derive(Clone, Copy)]
struct Deadlock {
    processes: [i32; LOGGED],
    length: usize,
    text: [u8; 1024],
}

static SESSIONS: AtomicPtr<Session> = AtomicPtr::new(std::ptr::null_mut());

/// Called when a session has waited long enough for there to be a deadlock; with true for the first time in a wait.
static SUSPICION: OnceLock<fn(bool)> = OnceLock::new();

thread_local! {
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

pub fn init() {
    // SAFETY: hooks are set once, by the postmaster while it loads libraries.
    unsafe {
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request_memory);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(find_memory);
    }
}

/// Who is to look for deadlocks in this database when there may be one.
pub fn on_suspicion(ask: fn(bool)) {
    let _ = SUSPICION.set(ask);
}

fn capacity() -> usize {
    // SAFETY: set before shared memory is requested, and never after.
    unsafe { pg_sys::MaxBackends as usize }
}

fn bytes() -> usize {
    capacity() * size_of::<Session>()
}

#[pg_guard]
unsafe extern "C-unwind" fn request_memory() {
    if let Some(previous) = PREVIOUS_REQUEST {
        pg_sys::ffi::pg_guard_ffi_boundary(|| previous());
    }
    pg_sys::RequestAddinShmemSpace(bytes());
}

#[pg_guard]
unsafe extern "C-unwind" fn find_memory() {
    if let Some(previous) = PREVIOUS_STARTUP {
        pg_sys::ffi::pg_guard_ffi_boundary(|| previous());
    }
    let mut found = false;
    // The postmaster alone is here, also after a crash. Zeros are a value of every field.
    let memory = pg_sys::ShmemInitStruct(c"shard_ext sessions".as_ptr(), bytes(), &mut found);
    if !found {
        std::ptr::write_bytes(memory.cast::<u8>(), 0, bytes());
    }
    SESSIONS.store(memory.cast(), Ordering::Relaxed);
}

fn session(place: usize) -> Option<&'static Session> {
    let start = SESSIONS.load(Ordering::Relaxed);
    // SAFETY: as many sessions as there may be processes.
    (!start.is_null() && place < capacity()).then(|| unsafe { &*start.add(place) })
}

/// The place of this process; none when it is just ending.
fn mine() -> Option<&'static Session> {
    // SAFETY: this process' entry, NULL before it has one and after it has given it back.
    unsafe {
        let process = pg_sys::MyProc;
        if process.is_null() {
            return None;
        }
        session((*process).pgprocno as usize)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn leave(_code: i32, _arg: pg_sys::Datum) {
    if let Some(session) = mine() {
        session.pid.store(0, Ordering::Release);
    }
}

fn enter(session: &Session) {
    if REGISTERED.replace(true) {
        return;
    }
    for place in &session.connections {
        place.process.store(0, Ordering::Relaxed);
    }
    // SAFETY: a callback that lives as long as the process, and this process' id.
    unsafe {
        pg_sys::on_shmem_exit(Some(leave), pg_sys::Datum::null());
        session.pid.store(pg_sys::MyProcPid, Ordering::Release);
    }
}

/// A server process on a node that acts for a session here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connected {
    pub node: NodeId,
    pub pid: i32,
}

impl Connected {
    fn pack(self) -> u64 {
        u64::from(self.node as u32) << 32 | u64::from(self.pid as u32)
    }

    fn unpack(packed: u64) -> Option<Connected> {
        (packed != 0).then_some(Connected {
            node: (packed >> 32) as NodeId,
            pid: packed as i32,
        })
    }
}

/// A connection that others can see, until it is dropped.
pub struct Published(Option<&'static Place>);

impl Published {
    /// Seen by nobody when the session has too many of them, or the process is unknown.
    pub fn new(connected: Connected) -> Published {
        let free = mine().filter(|_| connected.pid > 0).and_then(|session| {
            enter(session);
            let free = |place: &&Place| place.process.load(Ordering::Relaxed) == 0;
            session.connections.iter().find(free)
        });
        if let Some(place) = free {
            place.process.store(connected.pack(), Ordering::Release);
        }
        Published(free)
    }

    fn needed_in(&self, wait: u64) {
        if let Some(place) = self.0 {
            place.wait.store(wait, Ordering::Release);
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // at the end of the process the place may belong to another one already
        if let Some(place) = self.0.filter(|_| mine().is_some()) {
            place.process.store(0, Ordering::Release);
        }
    }
}

fn timeout() -> Duration {
    // SAFETY: a setting of this process.
    Duration::from_millis(unsafe { pg_sys::DeadlockTimeout }.max(1) as u64)
}

/// Not where an error would be worse than any deadlock.
fn may_raise() -> bool {
    // SAFETY: reads counters.
    unsafe { pg_sys::InterruptHoldoffCount == 0 && pg_sys::CritSectionCount == 0 }
}

/// A wait for answers of nodes, from here to its end.
pub struct Waiting {
    session: Option<&'static Session>,
    number: u64,
    /// When the wait is long; not set before someone looks.
    alarm: Option<Instant>,
}

impl Waiting {
    pub fn start() -> Waiting {
        let session = mine();
        let number = session.map_or(0, |session| {
            // odd, also after a wait that did not end
            let number = (session.wait.load(Ordering::Relaxed) + 1) | 1;
            session.wait.store(number, Ordering::Release);
            number
        });
        Waiting {
            session,
            number,
            alarm: None,
        }
    }

    /// How long to wait before `look`.
    pub fn pause(&self) -> Duration {
        match self.alarm {
            None => timeout(),
            Some(alarm) => alarm.saturating_duration_since(Instant::now()),
        }
    }

    /// After a wake-up, or (`timed_out`) after `pause`. A wait that has become long is made known, with the connections
    /// it is for, and those who look for deadlocks are called.
    pub fn look(&mut self, timed_out: bool, connections: &[Shared]) {
        let Some(session) = self.session else {
            return;
        };
        let now = Instant::now();
        let alarm = *self.alarm.get_or_insert_with(|| now + timeout());
        if !timed_out && now < alarm {
            return;
        }
        self.alarm = Some(now + timeout());
        for connection in connections.iter().flat_map(|c| c.try_borrow()) {
            if !connection.is_idle() {
                connection.published.needed_in(self.number);
            }
        }
        // SAFETY: reads variables.
        let (start, database) = unsafe {
            (
                pg_sys::GetCurrentTransactionStartTimestamp(),
                pg_sys::MyDatabaseId,
            )
        };
        session.transaction_start.store(start, Ordering::Relaxed);
        let news = session.long_wait.swap(self.number, Ordering::Release) != self.number;
        if may_raise() && is_suspicious(&waiting(database)) {
            if let Some(ask) = SUSPICION.get() {
                ask(news);
            }
        }
    }

    /// The deadlock that this wait is a part of and has to end for.
    pub fn deadlock(&self) -> Option<Error> {
        let session = self.session?;
        if session.doomed_wait.load(Ordering::Acquire) != self.number || !may_raise() {
            return None;
        }
        // SAFETY: written before the wait was named, and not again during it.
        Some(unsafe { *session.deadlock.get() }.error())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            session.wait.store(self.number + 1, Ordering::Release);
        }
    }
}

impl Deadlock {
    fn error(&self) -> Error {
        let detail = String::from_utf8_lossy(&self.text[..self.length]).into_owned();
        let mut logged = detail.clone();
        for pid in self.processes.iter().filter(|pid| **pid != 0) {
            // SAFETY: a NUL-terminated text in shared memory or static, copied at once.
            let statement =
                unsafe { CStr::from_ptr(pg_sys::pgstat_get_backend_current_activity(*pid, false)) };
            logged += &format!("\nProcess {pid}: {}", statement.to_string_lossy());
        }
        // SAFETY: counts.
        unsafe { pg_sys::pgstat_report_deadlock() };
        Error::new(sqlstate::DEADLOCK_DETECTED, "deadlock detected")
            .detail(detail)
            .detail_log(logged)
            .hint("See server log for query details.")
    }
}

/// What a session waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    Nothing,
    /// Answers of nodes; waits are numbered.
    Nodes(u64),
    /// A lock of this server.
    Here,
}

/// A session as others see it.
pub struct Seen {
    /// Its process here.
    pub pid: i32,
    place: usize,
    /// The role that has logged in.
    pub role: pg_sys::Oid,
    /// Its transaction here, 0 without an id.
    pub transaction: u32,
    pub wait: Wait,
    /// Of the last wait that was long.
    pub transaction_start: i64,
    /// Who acts for it on nodes, and whether it waits for that one.
    pub connections: Vec<(Connected, bool)>,
}

/// The sessions of a database. Those that wait for nodes for less than `deadlock_timeout` may wait for all that act for
/// them.
pub fn all(database: pg_sys::Oid) -> impl Iterator<Item = Seen> {
    (0..capacity()).filter_map(move |place| seen(place, database, false))
}

/// Those that have waited for nodes for `deadlock_timeout`, or that wait for a lock here.
pub fn waiting(database: pg_sys::Oid) -> Vec<Seen> {
    (0..capacity())
        .filter_map(|place| seen(place, database, true))
        .filter(|seen| seen.wait != Wait::Nothing)
        .collect()
}

/// `only_long`: waits for nodes that are not long yet are no waits.
fn seen(place: usize, database: pg_sys::Oid, only_long: bool) -> Option<Seen> {
    let session = session(place)?;
    // SAFETY: PostgreSQL has as many entries; single numbers in them are read without locks, as its views do.
    let (pid, of_database, role, transaction, wait_event) = unsafe {
        let process = (*pg_sys::ProcGlobal).allProcs.add(place);
        (
            addr_of!((*process).pid).read_volatile(),
            addr_of!((*process).databaseId).read_volatile(),
            addr_of!((*process).roleId).read_volatile(),
            addr_of!((*process).xid).read_volatile(),
            addr_of!((*process).wait_event_info).read_volatile(),
        )
    };
    if pid == 0 || of_database != database {
        return None;
    }
    let known = session.pid.load(Ordering::Acquire) == pid;
    let number = session.wait.load(Ordering::Acquire);
    let is_long = session.long_wait.load(Ordering::Acquire) == number;
    let wait = if known && number % 2 == 1 && (is_long || !only_long) {
        Wait::Nodes(number)
    } else if wait_event & 0xFF00_0000 == pg_sys::PG_WAIT_LOCK {
        Wait::Here
    } else {
        Wait::Nothing
    };
    let mut connections = Vec::new();
    if known && (wait != Wait::Nothing || !only_long) {
        for place in &session.connections {
            if let Some(connected) = Connected::unpack(place.process.load(Ordering::Acquire)) {
                let needed = !is_long || place.wait.load(Ordering::Acquire) == number;
                connections.push((connected, needed && matches!(wait, Wait::Nodes(_))));
            }
        }
    }
    Some(Seen {
        pid,
        place,
        role,
        transaction: transaction.into_inner(),
        wait,
        transaction_start: session.transaction_start.load(Ordering::Relaxed),
        connections,
    })
}

/// Could these that wait be waiting for each other, or one for itself?
pub fn is_suspicious(waiters: &[Seen]) -> bool {
    let for_nodes = |waiter: &Seen| matches!(waiter.wait, Wait::Nodes(_));
    let twice_on_a_node = |waiter: &Seen| {
        let node = |i: usize| waiter.connections[i].0.node;
        (1..waiter.connections.len()).any(|i| (0..i).any(|j| node(i) == node(j)))
    };
    match waiters {
        [one] => for_nodes(one) && twice_on_a_node(one),
        several => several.iter().any(for_nodes),
    }
}

impl Seen {
    /// Has it been told to end its wait?
    pub fn is_doomed(&self) -> bool {
        let doomed = session(self.place).map(|s| s.doomed_wait.load(Ordering::Acquire));
        doomed.is_some_and(|number| self.wait == Wait::Nodes(number))
    }

    /// Ends its wait for nodes with an error. Only by the one process that looks for deadlocks in its database.
    pub fn doom(&self, text: &str, processes: &[i32]) {
        let (Some(session), Wait::Nodes(number)) = (session(self.place), self.wait) else {
            return;
        };
        let mut deadlock = Deadlock {
            processes: [0; LOGGED],
            length: 0,
            text: [0; 1024],
        };
        for (slot, pid) in deadlock.processes.iter_mut().zip(processes) {
            *slot = *pid;
        }
        deadlock.length = (0..=text.len().min(deadlock.text.len()))
            .rfind(|length| text.is_char_boundary(*length))
            .unwrap_or(0);
        deadlock.text[..deadlock.length].copy_from_slice(&text.as_bytes()[..deadlock.length]);
        // SAFETY: see `Session`; latches of processes can be set by everyone, the worst is a wake-up for nothing.
        unsafe {
            *session.deadlock.get() = deadlock;
            session.doomed_wait.store(number, Ordering::Release);
            let process = (*pg_sys::ProcGlobal).allProcs.add(self.place);
            pg_sys::SetLatch(&mut (*process).procLatch);
        }
    }
}
