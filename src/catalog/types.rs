//! What the catalogs say, as values: nodes, tables, colocation groups and their shard groups.

use pgrx::pg_sys;
use std::rc::Rc;

use super::key::Key;
use super::shard_map::{HashRanges, ListMap, RangeMap};

pub type NodeId = i32;
pub type ShardGroupId = i64;
pub type ColocationId = i32;

/// A database that can hold shards: a foreign server and what is known about it.
#[derive(Debug, Clone)]
pub struct Node {
    pub id: NodeId,
    /// The name of its foreign server.
    pub name: String,
    pub server: pg_sys::Oid,
    pub should_have_shards: bool,
    /// The very database that this session is in.
    pub is_coordinator: bool,
    /// Its default collation sorts as the one here.
    pub same_collation: bool,
    /// As `server_version_num`.
    pub version_num: i32,
    pub lacking: Lacking,
}

impl Node {
    pub fn major(&self) -> i32 {
        self.version_num / 10000
    }
}

/// PostgreSQL's own objects of this server that a node of another version, or on another system, does not have as they
/// are here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lacking {
    pub functions: Vec<pg_sys::Oid>,
    pub collations: Vec<pg_sys::Oid>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Hash,
    Range,
    List,
}

impl Method {
    /// As `create_distributed_table` and the views spell it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Hash => "hash",
            Method::Range => "range",
            Method::List => "list",
        }
    }

    pub fn from_name(name: &str) -> Option<Method> {
        [Method::Hash, Method::Range, Method::List]
            .into_iter()
            .find(|method| method.name() == name)
    }

    /// As the catalog spells it, like `pg_partitioned_table.partstrat`.
    pub fn code(self) -> u8 {
        self.name().as_bytes()[0]
    }

    pub fn from_code(code: u8) -> Option<Method> {
        [Method::Hash, Method::Range, Method::List]
            .into_iter()
            .find(|method| method.code() == code)
    }
}

pub enum TableKind {
    Distributed {
        /// Attribute number of the distribution column.
        key: i16,
        colocation: Rc<Colocation>,
    },
    Reference,
}

pub struct Table {
    pub relid: pg_sys::Oid,
    pub kind: TableKind,
}

impl Table {
    pub fn is_reference(&self) -> bool {
        matches!(self.kind, TableKind::Reference)
    }

    /// The attribute number of the distribution column and the colocation group; none: a reference table.
    pub fn distribution(&self) -> Option<(i16, &Rc<Colocation>)> {
        match &self.kind {
            TableKind::Distributed { key, colocation } => Some((*key, colocation)),
            TableKind::Reference => None,
        }
    }
}

/// The keys that a shard group takes. Datums live as long as the `Colocation` they are in.
#[derive(Debug, Clone)]
pub enum Bounds {
    /// Hashes from `lo` to `hi`, both inclusive.
    Hash { lo: i32, hi: i32 },
    /// Keys from `lower` (inclusive) to `upper` (exclusive); none: unbounded.
    Range {
        lower: Option<pg_sys::Datum>,
        upper: Option<pg_sys::Datum>,
    },
    List {
        values: Vec<pg_sys::Datum>,
        /// NULL is in the list.
        null: bool,
    },
    /// Keys that no other shard group takes.
    Default,
}

#[derive(Debug, Clone)]
pub struct ShardGroup {
    pub id: ShardGroupId,
    pub bounds: Bounds,
    /// Where it was when the group was read; `group_node` knows where it is now.
    pub node: NodeId,
}

/// Tables with one list of shard groups: rows with equal keys live on the same node.
pub struct Colocation {
    pub id: ColocationId,
    pub method: Method,
    /// The type of the distribution columns; of a domain, its base type.
    pub key_type: pg_sys::Oid,
    /// The collation of the distribution columns, or invalid.
    pub key_collation: pg_sys::Oid,
    /// In ascending order of hashes or lower bounds; lists in the order they were added.
    pub groups: Vec<ShardGroup>,
    pub(super) key: Key,
    pub(super) map: Map,
    /// Keeps the bounds' Datums.
    pub(super) _memory: crate::pg::memory::Owned,
}

pub(super) enum Map {
    Hash(HashRanges),
    Range(RangeMap<pg_sys::Datum>),
    List(ListMap<pg_sys::Datum>),
}

impl Colocation {
    /// The position in `groups` of the one that takes `key`, which is of `key_type`; none: no shard takes it.
    pub fn group_for(&self, key: Option<pg_sys::Datum>) -> Option<usize> {
        match &self.map {
            // A NULL key has no hash: the first group keeps those rows.
            Map::Hash(map) => match key {
                Some(key) => map.group_for(self.key.hash(key)),
                None => (!self.groups.is_empty()).then_some(0),
            },
            Map::Range(map) => map.group_for(key, |a, b| self.key.compare(a, b)),
            Map::List(map) => map.group_for(key, |a, b| self.key.compare(a, b)),
        }
    }

    /// The position in `groups` of the one that takes this hash; none: the distribution is not by hash.
    pub fn group_for_hash(&self, hash: i32) -> Option<usize> {
        match &self.map {
            Map::Hash(map) => map.group_for(hash),
            Map::Range(_) | Map::List(_) => None,
        }
    }

    /// Positions in `groups`, ascending, of those that may hold keys of an interval (each end with
    /// whether it is inclusive); NULL keys are in no interval. All groups of a hash distribution.
    pub fn groups_between(
        &self,
        lower: Option<(pg_sys::Datum, bool)>,
        upper: Option<(pg_sys::Datum, bool)>,
    ) -> Vec<usize> {
        match &self.map {
            Map::Hash(_) => (0..self.groups.len()).collect(),
            Map::Range(map) => map.groups_between(lower, upper, |a, b| self.key.compare(a, b)),
            Map::List(map) => map.groups_between(lower, upper, |a, b| self.key.compare(a, b)),
        }
    }

    /// The order of two keys of a range or list distribution.
    pub fn compare(&self, a: pg_sys::Datum, b: pg_sys::Datum) -> std::cmp::Ordering {
        self.key.compare(a, b)
    }
}
