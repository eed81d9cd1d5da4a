//! Nodes that could not be told to commit what has moved rows there: until recovery has done it, such a row may be gone in its
//! old shard and not there yet in the new one. In shared memory.

// the macro of pgrx asks for features of its own
#![allow(unexpected_cfgs)]

use crate::catalog::NodeId;
use pgrx::prelude::*;
use pgrx::{pg_shmem_init, PGRXSharedMemory, PgLwLock};

/// When more nodes than this are unfinished at once, all are taken to be.
const PLACES: usize = 128;

#[derive(Clone, Copy, Default)]
struct Unfinished {
    /// 0: a free place.
    database: u32,
    node: NodeId,
    /// Grows each time that the node is left behind.
    number: u64,
}

#[derive(Clone, Copy)]
struct Places {
    places: [Unfinished; PLACES],
    last: u64,
}

// SAFETY: plain numbers.
unsafe impl PGRXSharedMemory for Places {}

impl Default for Places {
    fn default() -> Places {
        Places {
            places: [Unfinished::default(); PLACES],
            last: 0,
        }
    }
}

// SAFETY: the name is a literal; the lock is initialised by `init` before any use.
static UNFINISHED: PgLwLock<Places> = unsafe { PgLwLock::new(c"shard_ext_unfinished") };

pub fn init() {
    pg_shmem_init!(UNFINISHED);
}

fn here() -> u32 {
    // SAFETY: reads a variable.
    unsafe { pg_sys::MyDatabaseId.to_u32() }
}

/// A node has been left behind. Nothing is raised.
pub fn note(node: NodeId) {
    let key = (here(), node);
    let mut all = UNFINISHED.exclusive();
    all.last += 1;
    let number = all.last;
    let known = |place: &Unfinished| (place.database, place.node) == key;
    let free = |place: &Unfinished| place.database == 0;
    let places = &mut all.places;
    if let Some(at) = places
        .iter()
        .position(known)
        .or(places.iter().position(free))
    {
        places[at] = Unfinished {
            database: key.0,
            node,
            number,
        };
    }
}

/// One of these nodes that is left behind.
pub fn among(mut nodes: impl Iterator<Item = NodeId>) -> Option<NodeId> {
    let all = UNFINISHED.share();
    if all.places.iter().all(|place| place.database != 0) {
        return nodes.next();
    }
    let database = here();
    let left = || all.places.iter().filter(|p| p.database == database);
    left().next()?;
    nodes.find(|node| left().any(|place| place.node == *node))
}

/// What `settle` is to be told when all has been carried out that the node has now.
pub fn number(node: NodeId) -> Option<u64> {
    let key = (here(), node);
    let all = UNFINISHED.share();
    let place = all.places.iter().find(|p| (p.database, p.node) == key);
    place.map(|place| place.number)
}

/// The node has carried out what it had when `number` was asked for.
pub fn settle(number: u64) {
    let mut all = UNFINISHED.exclusive();
    if let Some(place) = all.places.iter_mut().find(|p| p.number == number) {
        *place = Unfinished::default();
    }
}
