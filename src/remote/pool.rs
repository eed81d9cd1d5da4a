//! The connections of the session: found, opened in parallel, replaced, closed.

use super::connection::{Connection, Shared};
use super::libpq::{PgConn, Polling};
use super::options::{ConnectOptions, Origin};
use super::request::Access;
use super::wait::{self, FileSlot};
use crate::catalog::NodeId;
use crate::error::{sqlstate, Error, Result};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Instant;

struct Entry {
    node: NodeId,
    user: pg_sys::Oid,
    /// Where its options came from.
    origin: Cell<Origin>,
    /// The options have changed since: not to be used in another transaction.
    stale: Cell<bool>,
    /// Only read from in this transaction, beside another connection that has the transaction's changes.
    beside: Cell<bool>,
    connection: Shared,
}

/// What a connection is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// The node's part in the transaction.
    Transaction,
    /// Rows that are read while the transaction's connection takes changes; see `set_readers_aside`.
    ReadingBeside,
}

thread_local! {
    static ENTRIES: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
    /// Whether the current transaction has used a connection.
    static IN_USE: Cell<bool> = const { Cell::new(false) };
    /// Whether this process has registered its callbacks.
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the current transaction has used a connection.
pub fn in_use() -> bool {
    IN_USE.get()
}

static BEFORE_FIRST_USE: OnceLock<fn()> = OnceLock::new();

/// What is done in each transaction before it uses a connection. To be set once.
pub fn before_first_use(call: fn()) {
    BEFORE_FIRST_USE.get_or_init(|| call);
}

/// Nothing may be raised here. Closes what must not or need not be kept.
pub fn transaction_ended() {
    if !IN_USE.replace(false) {
        return;
    }
    let most = crate::settings::max_cached_connections_per_node();
    let mut kept: Vec<NodeId> = Vec::new();
    close_where(|entry, connection| {
        if connection.lost().is_some() || entry.stale.get() {
            return true;
        }
        entry.beside.set(false);
        kept.push(entry.node);
        kept.iter().filter(|node| **node == entry.node).count() > most
    });
}

/// Once per process, before its first connection.
fn register_callbacks() {
    if REGISTERED.replace(true) {
        return;
    }
    // SAFETY: callbacks that live as long as the process.
    unsafe {
        for cache in [
            pg_sys::SysCacheIdentifier::FOREIGNSERVEROID,
            pg_sys::SysCacheIdentifier::USERMAPPINGOID,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(
                cache as i32,
                Some(options_changed),
                pg_sys::Datum::null(),
            );
        }
        pg_sys::on_proc_exit(Some(close_all), pg_sys::Datum::null());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn options_changed(_arg: pg_sys::Datum, cache: i32, hash: u32) {
    let of_server = cache == pg_sys::SysCacheIdentifier::FOREIGNSERVEROID as i32;
    ENTRIES.with(|entries| {
        let Ok(entries) = entries.try_borrow() else {
            return;
        };
        for entry in entries.iter() {
            let origin = if of_server {
                entry.origin.get().0
            } else {
                entry.origin.get().1
            };
            // without a mapping, any new one may be for this user
            if hash == 0 || origin == hash || origin == 0 {
                entry.stale.set(true);
            }
        }
    });
}

/// Tells the nodes that the session ends.
#[pg_guard]
unsafe extern "C-unwind" fn close_all(_code: i32, _arg: pg_sys::Datum) {
    close_where(|_, _| true);
}

fn find(node: NodeId, user: pg_sys::Oid, wanted: Use) -> Option<(Shared, bool)> {
    let beside = wanted == Use::ReadingBeside;
    ENTRIES.with_borrow(|entries| {
        entries
            .iter()
            .find(|e| e.node == node && e.user == user && e.beside.get() == beside)
            .map(|e| (e.connection.clone(), e.stale.get()))
    })
}

/// The session has tables on the node that a statement under way reads, or (not `held`) has them no more.
pub fn hold(node: NodeId, held: bool) {
    // SAFETY: reads a variable.
    let user = unsafe { pg_sys::GetSessionUserId() };
    if let Some((connection, _)) = find(node, user, Use::Transaction) {
        connection.borrow_mut().hold(held);
    }
}

/// Has the node a part in the transaction?
pub fn takes_part(node: NodeId) -> bool {
    // SAFETY: reads a variable.
    let user = unsafe { pg_sys::GetSessionUserId() };
    find(node, user, Use::Transaction)
        .is_some_and(|(connection, _)| connection.borrow().participation().is_some())
}

/// All connections of the session.
pub fn all() -> Vec<Shared> {
    ENTRIES.with(|entries| match entries.try_borrow() {
        Ok(entries) => entries.iter().map(|e| e.connection.clone()).collect(),
        Err(_) => Vec::new(),
    })
}

/// Those on which something is outstanding.
pub fn busy() -> Vec<Shared> {
    let busy = |e: &&Entry| e.connection.try_borrow().is_ok_and(|c| !c.is_idle());
    ENTRIES.with(|entries| match entries.try_borrow() {
        Ok(entries) => entries
            .iter()
            .filter(busy)
            .map(|e| e.connection.clone())
            .collect(),
        Err(_) => Vec::new(),
    })
}

/// Closes those connections for which `doomed` is true.
fn close_where(mut doomed: impl FnMut(&Entry, &Connection) -> bool) {
    let mut closed = Vec::new();
    ENTRIES.with(|entries| {
        let Ok(mut entries) = entries.try_borrow_mut() else {
            return;
        };
        let mut i = 0;
        while i < entries.len() {
            let entry = &entries[i];
            if entry
                .connection
                .try_borrow()
                .is_ok_and(|c| doomed(entry, &c))
            {
                closed.push(entries.remove(i));
            } else {
                i += 1;
            }
        }
    });
    if !closed.is_empty() {
        super::gather::forget_wait_set();
    }
}

/// Rows that are being read go on coming over their connections, while changes of the transaction go over new ones. False:
/// what is read has to see what the transaction has changed before, or belongs to its snapshot; or a node allows no more
/// connections.
pub fn set_readers_aside() -> Result<bool> {
    // SAFETY: reads a variable.
    let user = unsafe { pg_sys::GetSessionUserId() };
    let aside: Option<Vec<(NodeId, Shared)>> = ENTRIES.with_borrow(|entries| {
        let current = || {
            entries
                .iter()
                .filter(|e| e.user == user && !e.beside.get())
                .map(|e| (e, e.connection.borrow()))
        };
        let parts = super::scope::has_snapshot_per_statement()
            && current().all(|(_, connection)| {
                connection.participation().is_none_or(|p| !p.is_needed())
                    && connection
                        .outstanding()
                        .all(|answer| answer.access == Access::Read)
            });
        parts.then(|| {
            current()
                .filter(|(_, connection)| !connection.is_idle())
                .map(|(entry, _)| (entry.node, entry.connection.clone()))
                .collect()
        })
    });
    let Some(aside) = aside else {
        return Ok(false);
    };
    set_beside(&aside, true);
    let nodes: Vec<NodeId> = aside.iter().map(|(node, _)| *node).collect();
    match acquire(&nodes) {
        Ok(_) => Ok(true),
        Err(error) if error.fields().sqlstate == sqlstate::UNABLE_TO_CONNECT => {
            // what other nodes have allowed is not needed
            close_where(|entry, connection| {
                nodes.contains(&entry.node)
                    && entry.user == user
                    && !entry.beside.get()
                    && connection.participation().is_none()
            });
            set_beside(&aside, false);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn set_beside(connections: &[(NodeId, Shared)], beside: bool) {
    ENTRIES.with_borrow(|entries| {
        for entry in entries {
            if connections
                .iter()
                .any(|(_, connection)| Rc::ptr_eq(connection, &entry.connection))
            {
                entry.beside.set(beside);
            }
        }
    });
}

/// One usable connection per node, opening in parallel those that are missing.
pub fn acquire(nodes: &[NodeId]) -> Result<Vec<Shared>> {
    acquire_for(nodes, Use::Transaction)
}

/// The same for other uses than the transaction's part.
pub fn acquire_for(nodes: &[NodeId], wanted: Use) -> Result<Vec<Shared>> {
    // SAFETY: reads a variable.
    let user = unsafe { pg_sys::GetSessionUserId() };
    if let (false, Some(call)) = (IN_USE.replace(true), BEFORE_FIRST_USE.get()) {
        call();
    }
    let mut found: Vec<Option<Shared>> = Vec::with_capacity(nodes.len());
    let mut missing = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let connection = match find(*node, user, wanted) {
            Some((connection, stale)) => usable(&connection, stale)?.then_some(connection),
            None => None,
        };
        if connection.is_none() && !missing.iter().any(|m| nodes[*m] == *node) {
            missing.push(i);
        }
        found.push(connection);
    }
    if !missing.is_empty() {
        let missing_nodes: Vec<NodeId> = missing.iter().map(|i| nodes[*i]).collect();
        open(&missing_nodes, user, wanted)?;
        for (i, node) in nodes.iter().enumerate() {
            if found[i].is_none() {
                found[i] = find(*node, user, wanted).map(|(connection, _)| connection);
            }
        }
    }
    found
        .into_iter()
        .map(|c| c.ok_or_else(|| Error::internal("a connection was closed while it was opened")))
        .collect()
}

/// Whether the connection may serve the current transaction. One that may not, and has no part in the transaction, is
/// closed to make room for another; one that has a part in it is an error.
fn usable(connection: &Shared, stale: bool) -> Result<bool> {
    let replace = {
        let connection = connection.borrow();
        if connection.participation().is_some() {
            connection.check_usable()?;
            return Ok(true);
        }
        let lost = connection.lost().is_some();
        lost || (stale && connection.is_idle())
    };
    if replace {
        close_where(|entry, _| Rc::ptr_eq(&entry.connection, connection));
    }
    Ok(!replace)
}

/// Being established.
struct Attempt {
    pg: PgConn,
    file: FileSlot,
    node: NodeId,
    name: Rc<str>,
    origin: Origin,
    own_name: bool,
    write: bool,
}

impl Attempt {
    fn start(node: NodeId) -> Result<Attempt> {
        let (server, name) = super::options::server_of(node)?;
        let (options, origin) = ConnectOptions::of_server_with_origin(server)?;
        let file = FileSlot::reserve()?;
        let pg = PgConn::start(&options.for_session()?)
            .ok_or_else(|| Error::new(*b"53200", "out of memory"))?;
        let attempt = Attempt {
            pg,
            file,
            node,
            name,
            origin,
            own_name: options.is_login_of_session(),
            write: true,
        };
        if attempt.pg.is_bad() {
            return Err(attempt.failed());
        }
        Ok(attempt)
    }

    fn failed(&self) -> Error {
        cannot_connect(&self.name, &self.pg.error_message())
    }
}

fn cannot_connect(name: &str, why: &str) -> Error {
    Error::new(
        sqlstate::UNABLE_TO_CONNECT,
        format!("could not connect to node \"{name}\""),
    )
    .detail(why)
}

/// Opens one connection per node, all at once.
fn open(nodes: &[NodeId], user: pg_sys::Oid, wanted: Use) -> Result<()> {
    register_callbacks();
    let limit = wait::after(crate::settings::node_connection_timeout());
    let mut attempts = Vec::with_capacity(nodes.len());
    for node in nodes {
        attempts.push(Attempt::start(*node)?);
    }
    establish(&mut attempts, limit, |attempt| {
        let (node, origin) = (attempt.node, attempt.origin);
        let connection = into_connection(attempt, user)?;
        ENTRIES.with_borrow_mut(|entries| {
            entries.push(Entry {
                node,
                user,
                origin: Cell::new(origin),
                stale: Cell::new(false),
                beside: Cell::new(wanted == Use::ReadingBeside),
                connection: Rc::new(RefCell::new(connection)),
            })
        });
        Ok(())
    })
}

fn into_connection(attempt: Attempt, user: pg_sys::Oid) -> Result<Connection> {
    // What may run there was found out for that version. A proxy in between may not tell it.
    let (known, major) = (
        crate::catalog::node(attempt.node)?.major(),
        attempt.pg.server_version() / 10000,
    );
    if major != known && major != 0 {
        return Err(Error::new(
            sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "node \"{}\" runs another major version of PostgreSQL than before",
                attempt.name
            ),
        )
        .detail(format!(
            "It runs PostgreSQL {major}; when it was last checked, it was {known}."
        ))
        .hint(format!(
            "SELECT shard_ext.check_node({}) finds out what may run there.",
            pgrx::spi::quote_literal(&*attempt.name)
        )));
    }
    let login = (user, attempt.own_name);
    Connection::new(attempt.pg, attempt.node, attempt.name, login, attempt.file)
}

/// Drives the attempts to their end; each that succeeds goes to `done` at once.
fn establish(
    attempts: &mut Vec<Attempt>,
    limit: Instant,
    mut done: impl FnMut(Attempt) -> Result<()>,
) -> Result<()> {
    while !attempts.is_empty() {
        let sockets: Vec<(i32, bool)> = attempts.iter().map(|a| (a.pg.socket(), a.write)).collect();
        let mut ready = vec![false; attempts.len()];
        if !wait::wait_connecting(&sockets, limit, |i| ready[i] = true) {
            return Err(cannot_connect(&attempts[0].name, "The attempt timed out.")
                .hint("The time limit is the setting shard_ext.node_connection_timeout."));
        }
        for i in (0..attempts.len()).rev().filter(|i| ready[*i]) {
            match attempts[i].pg.poll() {
                Polling::Done => done(attempts.swap_remove(i))?,
                Polling::Reading => attempts[i].write = false,
                Polling::Writing => attempts[i].write = true,
                Polling::Failed => return Err(attempts[i].failed()),
            }
        }
    }
    Ok(())
}

/// The connection is made anew, with these options.
fn refresh_origin(connection: &Shared, origin: Origin) {
    ENTRIES.with_borrow(|entries| {
        let same = |entry: &&Entry| Rc::ptr_eq(&entry.connection, connection);
        if let Some(entry) = entries.iter().find(same) {
            entry.origin.set(origin);
            entry.stale.set(false);
        }
    })
}

/// Connects with given options, outside of the pool.
pub fn connect_alone(
    options: &ConnectOptions,
    name: &str,
    limit: Instant,
) -> Result<(PgConn, FileSlot)> {
    let file = FileSlot::reserve()?;
    let pg = PgConn::start(&options.for_session()?)
        .ok_or_else(|| Error::new(*b"53200", "out of memory"))?;
    let mut attempts = vec![Attempt {
        pg,
        file,
        node: 0,
        name: name.into(),
        origin: Origin::default(),
        own_name: false,
        write: true,
    }];
    if attempts[0].pg.is_bad() {
        return Err(attempts[0].failed());
    }
    let mut connected = None;
    establish(&mut attempts, limit, |attempt| {
        connected = Some((attempt.pg, attempt.file));
        Ok(())
    })?;
    connected.ok_or_else(|| Error::internal("a connection attempt ended without a result"))
}

/// After `Step::Resend`: opens a new connection in the place of a dead one and sends again what was outstanding.
pub fn resend(connection: &Shared) -> Result<()> {
    let (node, user, answers) = {
        let mut connection = connection.borrow_mut();
        connection.unproven();
        let answers: Vec<_> = connection.outstanding().cloned().collect();
        (connection.node, connection.user, answers)
    };
    let limit = wait::after(crate::settings::node_connection_timeout());
    let mut attempts = Vec::new();
    let mut fresh = None;
    let opened = Attempt::start(node).and_then(|attempt| {
        refresh_origin(connection, attempt.origin);
        attempts.push(attempt);
        establish(&mut attempts, limit, |attempt| {
            fresh = Some(into_connection(attempt, user)?);
            Ok(())
        })
    });
    let (Ok(()), Some(fresh)) = (opened.as_ref(), fresh) else {
        // what was outstanding fails with the reason for which there is no new connection
        let error = opened
            .err()
            .unwrap_or_else(|| Error::internal("a connection attempt ended without a result"));
        let mut connection = connection.borrow_mut();
        connection.give_up("");
        return Err(error);
    };
    super::gather::forget_wait_set();
    let mut connection = connection.borrow_mut();
    *connection = fresh;
    // when this fails too, the reader sees it
    match answers.as_slice() {
        [text] if text.text => connection.send_text(text.clone()),
        _ => connection.send(&answers),
    };
    Ok(())
}
