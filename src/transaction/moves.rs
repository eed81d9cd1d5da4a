//! Rows that move to other shards, by a new value of their distribution column: each is deleted in one shard and inserted in
//! another. A statement that changes or locks rows of several shards asks each of them at another moment. When a move
//! commits in between, it may find the row in neither: in the old shard already gone (also after it has waited for it), in
//! the new one not there yet. PostgreSQL's partitioned tables leave a mark in the old row, which no SQL on a node can. So
//! moves are counted in shared memory when their commit starts and when it has finished, and a statement during which one
//! was under way fails with 40001, as there.
//!
//! With one snapshot per transaction nodes fail themselves when a row has changed since. But each has taken its own when it was
//! asked first: a move since then may be in one of these snapshots alone.
//!
//! Counted is by table and shard group, apart for rows that leave it and rows that arrive. Only a statement that visits both
//! shard groups of a move can miss its row: to any other, the new row does not match, whatever its key is. The counts have no
//! names: two that fall on the same place cost an error that was not needed, never one that was.

// the macro of pgrx asks for features of its own
#![allow(unexpected_cfgs)]

use super::unfinished;
use crate::catalog::{self, NodeId, ShardGroup, ShardGroupId};
use crate::error::{sqlstate, Error, Result};
use crate::maintenance;
use crate::pg::latch;
use crate::remote::{pool, scope};
use pgrx::prelude::*;
use pgrx::{pg_shmem_init, PGRXSharedMemory, PgAtomic};
use std::cell::{Cell, RefCell};
use std::collections::hash_map::{DefaultHasher, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Transactions whose moves were about to be committed, and those of them that have ended.
#[derive(Default)]
struct Count {
    started: AtomicU64,
    finished: AtomicU64,
}

// SAFETY: atomics.
unsafe impl PGRXSharedMemory for Count {}

const PLACES: usize = 4096;

/// The first of them count by table alone.
const TABLE_PLACES: usize = 1024;

// SAFETY: the name is a literal; it is initialised by `init` before any use.
static COUNTS: PgAtomic<[Count; PLACES]> = unsafe { PgAtomic::new(c"shard_ext_moves") };

pub fn init() {
    pg_shmem_init!(COUNTS = std::array::from_fn(|_| Count::default()));
    pool::before_first_use(snapshots_start);
}

/// Nodes will take snapshots, one after the other.
fn snapshots_start() {
    if !scope::has_snapshot_per_statement() {
        AT_SNAPSHOT.set((0..TABLE_PLACES).map(finished).collect());
    }
}

/// What rows do in a shard group.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Direction {
    Leave,
    Arrive,
}

/// Where rows of a table that leave or arrive in a shard group are counted.
fn place(table: u32, group: ShardGroupId, direction: Direction) -> usize {
    let mut hasher = DefaultHasher::new();
    // SAFETY: reads a variable.
    let database = unsafe { pg_sys::MyDatabaseId.to_u32() };
    (database, table, group, direction).hash(&mut hasher);
    TABLE_PLACES + hasher.finish() as usize % (PLACES - TABLE_PLACES)
}

/// Where all moves of a table are counted.
fn place_of(table: u32) -> usize {
    place(table, 0, Direction::Leave) % TABLE_PLACES
}

fn finished(place: usize) -> u64 {
    COUNTS.get()[place].finished.load(SeqCst)
}

thread_local! {
    /// Where moves of this transaction will be counted, and the subtransaction that goes away with them.
    static MOVED: RefCell<HashMap<usize, pg_sys::SubTransactionId>> = RefCell::default();
    /// They are counted as started.
    static COMMITTING: Cell<bool> = const { Cell::new(false) };
    static WATCHES_EXIT: Cell<bool> = const { Cell::new(false) };
    /// How many moves of each table had finished before nodes took a snapshot that lasts.
    static AT_SNAPSHOT: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    /// What a crash of the server has left on nodes was looked after.
    static LOOKED_AFTER: Cell<bool> = const { Cell::new(false) };
}

/// The transaction moves rows of a table from one shard group to another.
pub fn rows_move(table: pg_sys::Oid, from: ShardGroupId, to: ShardGroupId) {
    // SAFETY: reads a variable.
    let now = unsafe { pg_sys::GetCurrentSubTransactionId() };
    let table = table.to_u32();
    MOVED.with_borrow_mut(|moved| {
        for place in [
            place_of(table),
            place(table, from, Direction::Leave),
            place(table, to, Direction::Arrive),
        ] {
            // later ones may go away while this one stays
            moved
                .entry(place)
                .and_modify(|by| *by = now.min(*by))
                .or_insert(now);
        }
    });
}

/// A subtransaction and those inside it are undone, with their moves.
pub fn subtransaction_aborted(id: pg_sys::SubTransactionId) {
    MOVED.with_borrow_mut(|moved| moved.retain(|_, by| *by < id));
}

/// Nodes are about to commit.
pub fn commit_starts() {
    MOVED.with_borrow(|moved| {
        if moved.is_empty() || COMMITTING.replace(true) {
            return;
        }
        if !WATCHES_EXIT.replace(true) {
            // SAFETY: a callback that raises nothing; once in this process.
            unsafe { pg_sys::on_shmem_exit(Some(at_exit), pg_sys::Datum::null()) };
        }
        for place in moved.keys() {
            COUNTS.get()[*place].started.fetch_add(1, SeqCst);
        }
    });
}

/// A node cannot be told to commit, or has not said whether it did: that is left to recovery. Nothing is raised.
pub fn left_behind(node: NodeId) {
    if COMMITTING.get() {
        unfinished::note(node);
        maintenance::wake_up();
    }
}

/// All nodes have committed or rolled back, but for those that were left behind.
pub fn transaction_ended() {
    AT_SNAPSHOT.take();
    let committing = COMMITTING.take();
    MOVED.with_borrow_mut(|moved| {
        for (place, _) in moved.drain() {
            if committing {
                COUNTS.get()[place].finished.fetch_add(1, SeqCst);
            }
        }
    });
}

/// Every transaction ends before its process does; should one not, its moves end here.
#[pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: i32, _arg: pg_sys::Datum) {
    transaction_ended();
}

/// A statement that changes or locks rows of several shard groups.
pub struct Watch(Vec<Watched>);

struct Watched {
    table: u32,
    leaving: Vec<Seen>,
    arriving: Vec<Seen>,
    /// All moves, as nodes took the snapshot of the transaction.
    at_snapshot: Option<Seen>,
}

/// A place, and how many had finished there before.
struct Seen {
    place: usize,
    finished: u64,
}

impl Seen {
    fn is_moved_since(&self) -> bool {
        COUNTS.get()[self.place].started.load(SeqCst) != self.finished
    }
}

impl Watch {
    /// To be called before anything is sent, with the tables and the shard groups that are asked. Waits for commits that are under
    /// way. None: there is nothing to miss.
    pub fn start(tables: &[(u32, Vec<&ShardGroup>)]) -> Result<Option<Watch>> {
        if tables.iter().all(|(_, groups)| groups.len() < 2) {
            return Ok(None);
        }
        let patience = Duration::from_millis(crate::settings::node_connection_timeout());
        let limit = Instant::now() + patience;
        let is_time_left = || Instant::now() < limit;
        if !LOOKED_AFTER.replace(true) {
            maintenance::await_first_round(limit);
        }
        let groups = || tables.iter().flat_map(|(_, groups)| groups);
        loop {
            let watch = Watch::look(tables);
            if AT_SNAPSHOT.with_borrow(|seen| !seen.is_empty()) {
                watch.check()?;
            }
            let unfinished = unfinished::among(groups().map(|group| group.node));
            if watch.moved().is_none() && unfinished.is_none() {
                return Ok(Some(watch));
            }
            if !is_time_left() {
                watch.check()?;
                if let Some(node) = unfinished {
                    return Err(unfinished_move(node));
                }
            }
            latch::pause(PAUSE);
        }
    }

    fn look(tables: &[(u32, Vec<&ShardGroup>)]) -> Watch {
        let seen = |table: u32, groups: &[&ShardGroup], direction| -> Vec<Seen> {
            groups
                .iter()
                .map(|group| {
                    let place = place(table, group.id, direction);
                    Seen {
                        place,
                        finished: finished(place),
                    }
                })
                .collect()
        };
        Watch(
            tables
                .iter()
                .map(|(table, groups)| Watched {
                    table: *table,
                    leaving: seen(*table, groups, Direction::Leave),
                    arriving: seen(*table, groups, Direction::Arrive),
                    at_snapshot: AT_SNAPSHOT.with_borrow(|seen| {
                        let place = place_of(*table);
                        let finished = *seen.get(place)?;
                        Some(Seen { place, finished })
                    }),
                })
                .collect(),
        )
    }

    /// To be called after all answers: an error when rows may have been missed.
    pub fn check(&self) -> Result<()> {
        self.moved()
            .map_or(Ok(()), |table| Err(concurrent_move(table)))
    }

    /// A table whose rows may have been missed until now.
    fn moved(&self) -> Option<u32> {
        let moved = self.0.iter().find(|watched| {
            watched.leaving.iter().any(Seen::is_moved_since)
                && watched.arriving.iter().any(Seen::is_moved_since)
                || watched.at_snapshot.iter().any(Seen::is_moved_since)
        });
        moved.map(|watched| watched.table)
    }
}

fn concurrent_move(table: u32) -> Error {
    let name = match crate::deparse::name_of(pg_sys::Oid::from(table)) {
        Ok((_, name)) => name,
        Err(error) => return error,
    };
    Error::new(
        sqlstate::SERIALIZATION_FAILURE,
        format!("rows of \"{name}\" were moved to other shards by a concurrent update"),
    )
    .detail("The statement may have missed a row that got another value of the distribution column while it ran.")
    .hint("Run the transaction again.")
}

fn unfinished_move(node: NodeId) -> Error {
    let name = match catalog::node(node) {
        Ok(node) => node.name.clone(),
        Err(error) => return error,
    };
    Error::new(
        sqlstate::SERIALIZATION_FAILURE,
        format!("a transaction that moved rows to other shards is not finished on node \"{name}\""),
    )
    .detail("The statement could miss these rows: they may be in neither shard yet.")
    .hint("Recovery finishes it as soon as the node answers. Run the transaction again then.")
}

/// Commits take this long at least.
const PAUSE: Duration = Duration::from_millis(1);
