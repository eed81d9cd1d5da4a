//! Deadlocks across nodes: sessions that wait for each other, on several nodes or on a node and here.
//!
//! A session that has waited for answers of nodes for `deadlock_timeout` says so in shared memory (`remote::sessions`),
//! with the server processes there that act for it. When two do, or one does and another waits for a lock here, those
//! nodes are asked which of these processes wait for which others (`pg_locks`, `pg_blocking_pids`; any login may), and
//! the processes are mapped back to sessions. A cycle that is found twice, with the same waits, stood in between: locks
//! are kept until their transaction ends. The youngest of its transactions ends its wait with an error.
//!
//! Processes of others (clients of a node, sessions of another coordinator or of another database here) are no sessions:
//! what waits for them is no part of a cycle. A transaction prepared on a node is its session while that is about to
//! commit: deferred constraints may make one node's PREPARE wait when others are done.

mod graph;

pub use graph::Edge;

use super::gid::Gid;
use crate::catalog::{self, Node, NodeId};
use crate::error::{Error, Result};
use crate::pg::spi;
use crate::remote::sessions::{self, Seen, Wait};
use crate::remote::{ConnectOptions, LoneConnection};
use pgrx::pg_sys;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Connections to nodes, kept from look to look.
#[derive(Default)]
pub struct Detector {
    connections: HashMap<NodeId, LoneConnection>,
    /// Connections are made by the user mapping of this session's user, else by that of a session that waits.
    as_session_user: bool,
}

/// Who waits on one server.
struct Server {
    /// None: this one.
    node: Option<Rc<Node>>,
    /// The role of a session that has a connection there: what it may do is enough to ask.
    role: pg_sys::Oid,
    /// Processes that wait there, with the session and its wait for nodes.
    waiting: HashMap<i32, (i32, Option<u64>)>,
    /// Every process there that acts for a session.
    sessions: HashMap<i32, i32>,
    /// Sessions by their transactions here.
    transactions: HashMap<u32, i32>,
}

/// Ends deadlocks, in the current transaction. Nodes that cannot be asked are reported by `unreachable` and left out.
/// False: there is nothing to look for, any more.
pub fn resolve(detector: &mut Detector, mut unreachable: impl FnMut(&Node, Error)) -> Result<bool> {
    // SAFETY: reads a variable.
    let database = unsafe { pg_sys::MyDatabaseId };
    let waiters = sessions::waiting(database);
    if !sessions::is_suspicious(&waiters) {
        return Ok(false);
    }
    let first = detector.edges(&waiters, &mut unreachable)?;
    let doomed = |pid: i32| waiters.iter().any(|w| w.pid == pid && w.is_doomed());
    let standing: Vec<Edge> = first
        .into_iter()
        .filter(|edge| !doomed(edge.waiter) && !doomed(edge.blocker))
        .collect();
    let youngest = |cycle: &[&Edge]| youngest(cycle, &waiters);
    if graph::deadlocks(&standing, youngest).is_empty() {
        return Ok(true);
    }
    let again = detector.edges(&sessions::waiting(database), &mut unreachable)?;
    let standing: Vec<Edge> = standing
        .into_iter()
        .filter(|edge| again.contains(edge))
        .collect();
    for (pid, cycle) in graph::deadlocks(&standing, youngest) {
        if let Some(victim) = waiters.iter().find(|waiter| waiter.pid == pid) {
            let lines: Vec<String> = cycle.iter().map(|edge| describe(edge)).collect();
            let processes: Vec<i32> = cycle.iter().map(|edge| edge.waiter).collect();
            victim.doom(&lines.join("\n"), &processes);
        }
    }
    Ok(true)
}

/// As PostgreSQL describes a deadlock; processes are those of the sessions here.
fn describe(edge: &Edge) -> String {
    let place = match &edge.node {
        Some(name) => format!(" on node \"{name}\""),
        None => String::new(),
    };
    format!(
        "Process {} waits for {}{place}; blocked by process {}.",
        edge.waiter, edge.lock, edge.blocker
    )
}

/// The session whose transaction began last, of those that wait for nodes: others cannot be told.
fn youngest(cycle: &[&Edge], waiters: &[Seen]) -> Option<i32> {
    waiters
        .iter()
        .filter(|waiter| {
            let waits = |edge: &&Edge| edge.waiter == waiter.pid && edge.wait.is_some();
            cycle.iter().any(waits)
        })
        .max_by_key(|waiter| waiter.transaction_start)
        .map(|waiter| waiter.pid)
}

/// Who waits for whom now, and where.
pub fn waits(unreachable: impl FnMut(&Node, Error)) -> Result<Vec<Edge>> {
    // SAFETY: reads a variable.
    let database = unsafe { pg_sys::MyDatabaseId };
    let sessions: Vec<Seen> = sessions::all(database).collect();
    let mut detector = Detector {
        as_session_user: true,
        ..Detector::default()
    };
    detector.edges(&sessions, unreachable)
}

impl Detector {
    fn edges(
        &mut self,
        sessions: &[Seen],
        mut unreachable: impl FnMut(&Node, Error),
    ) -> Result<Vec<Edge>> {
        let mut edges = Vec::new();
        for server in servers(sessions)? {
            let rows = match &server.node {
                None => spi::query(&question(&server), &[])?,
                Some(node) => match self.ask(node, server.role, &question(&server)) {
                    Ok(rows) => rows,
                    Err(error) => {
                        self.connections.remove(&node.id);
                        unreachable(node, error);
                        continue;
                    }
                },
            };
            edges.extend(rows.into_iter().filter_map(|row| server.edge(row)));
        }
        Ok(edges)
    }

    fn ask(
        &mut self,
        node: &Node,
        role: pg_sys::Oid,
        sql: &str,
    ) -> Result<Vec<Vec<Option<String>>>> {
        let limit =
            Instant::now() + Duration::from_millis(crate::settings::node_connection_timeout());
        let connection = match self.connections.entry(node.id) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let options = if self.as_session_user {
                    ConnectOptions::of_server(node.server)?
                } else {
                    ConnectOptions::of_server_for(node.server, role)?
                };
                place.insert(LoneConnection::open(&options, &node.name, limit)?)
            }
        };
        connection.query(sql, limit)
    }
}

/// The servers on which somebody waits. A node that is this very database is this server.
fn servers(sessions: &[Seen]) -> Result<Vec<Server>> {
    let server = |node| Server {
        node,
        role: pg_sys::InvalidOid,
        waiting: HashMap::new(),
        sessions: HashMap::new(),
        transactions: sessions.iter().map(|s| (s.transaction, s.pid)).collect(),
    };
    let mut servers = vec![server(None)];
    // where a node is in the list
    let mut places: HashMap<NodeId, usize> = HashMap::new();
    for node in catalog::nodes()? {
        if node.is_coordinator {
            places.insert(node.id, 0);
        } else {
            places.insert(node.id, servers.len());
            servers.push(server(Some(node)));
        }
    }
    for session in sessions {
        let wait = match session.wait {
            Wait::Nodes(number) => Some(number),
            Wait::Here | Wait::Nothing => None,
        };
        // a process that acts for another is that one
        servers[0]
            .sessions
            .entry(session.pid)
            .or_insert(session.pid);
        if session.wait == Wait::Here {
            servers[0]
                .waiting
                .entry(session.pid)
                .or_insert((session.pid, None));
        }
        for (connected, needed) in &session.connections {
            let Some(place) = places.get(&connected.node) else {
                continue;
            };
            let server = &mut servers[*place];
            server.sessions.insert(connected.pid, session.pid);
            if *needed {
                server.role = session.role;
                server.waiting.insert(connected.pid, (session.pid, wait));
            }
        }
    }
    servers.retain(|server| !server.waiting.is_empty());
    Ok(servers)
}

/// One row for each pair of a process that waits and one that it waits for.
fn question(server: &Server) -> String {
    let pids: Vec<String> = server.waiting.keys().map(|pid| pid.to_string()).collect();
    format!(
        "SELECT w.pid, b.pid, p.gid, pg_catalog.date_part('epoch', w.waitstart), w.mode || ' on ' || CASE w.locktype \
            WHEN 'transactionid' THEN 'transaction ' || w.transactionid \
            WHEN 'virtualxid' THEN 'virtual transaction ' || w.virtualxid \
            WHEN 'relation' THEN 'relation ' || w.relation::pg_catalog.regclass \
            WHEN 'tuple' THEN 'tuple (' || w.page || ',' || w.tuple || ') of relation ' || w.relation::pg_catalog.regclass \
            ELSE w.locktype || ' lock' END \
           FROM pg_catalog.pg_locks w \
          CROSS JOIN pg_catalog.unnest(pg_catalog.pg_blocking_pids(w.pid)) b(pid) \
           LEFT JOIN pg_catalog.pg_prepared_xacts p ON b.pid = 0 AND p.transaction = w.transactionid \
          WHERE NOT w.granted AND w.waitstart IS NOT NULL AND w.pid = ANY ('{{{}}}'::pg_catalog.int4[])",
        pids.join(",")
    )
}

impl Server {
    /// None: the other is no session, or none that was looked at.
    fn edge(&self, row: Vec<Option<String>>) -> Option<Edge> {
        let [waiting, blocking, gid, since, lock] = <[Option<String>; 5]>::try_from(row).ok()?;
        let (waiting_process, blocking_process) = (waiting?.parse().ok()?, blocking?.parse().ok()?);
        let (waiter, wait) = *self.waiting.get(&waiting_process)?;
        let blocker = match gid {
            Some(gid) => {
                let gid: Gid = gid.parse().ok()?;
                let transaction = gid.transaction as u32;
                let known = self.transactions.get(&transaction);
                *known.filter(|_| gid.is_of_this_database())?
            }
            None => *self.sessions.get(&blocking_process)?,
        };
        Some(Edge {
            waiter,
            blocker,
            wait,
            node: self.node.as_ref().map(|node| node.name.clone()),
            waiting_process,
            blocking_process,
            lock: lock?,
            since: since?,
        })
    }
}
