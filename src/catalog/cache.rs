//! The per-backend cache of the catalogs, kept true by PostgreSQL's invalidation messages.
//!
//! Who changes the catalogs sends relcache invalidations: of the shell tables concerned (so that cached
//! plans go, too) and of the catalog that changed. They arrive here at the next command of the same
//! transaction, at its abort (also of a subtransaction), and in other sessions when they take a lock or
//! begin a transaction: exactly when the rows they read may differ. Entries hold no locks and no pins.
//!
//! A callback may come whenever PostgreSQL is called, so no borrow of the cache spans such a call.

use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use super::relations::{self, relations, Relations};
use super::types::*;
use super::{not_installed, read};
use crate::error::{sqlstate, Error, Result};

/// Multiplies the key: oids and ids need no more.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

#[derive(Default)]
struct Cache {
    /// Counts invalidations: what was read before one arrived is not kept.
    generation: Cell<u64>,
    /// None: an ordinary relation.
    tables: RefCell<Map<u32, Option<Rc<Table>>>>,
    colocations: RefCell<Map<i32, Rc<Colocation>>>,
    nodes: RefCell<Option<Rc<[Rc<Node>]>>>,
    placements: RefCell<Map<u64, NodeId>>,
}

thread_local! {
    // Leaked: a destructor at process exit would come after the server's memory is gone.
    static CACHE: &'static Cache = Box::leak(Box::default());
}

fn cache() -> &'static Cache {
    CACHE.with(|cache| *cache)
}

pub fn init() {
    // SAFETY: called once, in the postmaster; backends inherit the registrations.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::null());
        for syscache in [
            pg_sys::SysCacheIdentifier::NAMESPACEOID,
            pg_sys::SysCacheIdentifier::FOREIGNSERVEROID,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(
                syscache as i32,
                Some(syscache_changed),
                pg_sys::Datum::null(),
            );
        }
    }
}

#[pg_guard]
extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relid: pg_sys::Oid) {
    if relid == pg_sys::InvalidOid || relations::is_changed(relid) {
        invalidate_all();
    } else if u32::from(relid) >= pg_sys::FirstNormalObjectId {
        let cache = cache();
        cache.generation.set(cache.generation.get() + 1);
        cache.tables.borrow_mut().remove(&u32::from(relid));
    }
}

#[pg_guard]
extern "C-unwind" fn syscache_changed(_argument: pg_sys::Datum, id: i32, _hash: u32) {
    if id == pg_sys::SysCacheIdentifier::NAMESPACEOID as i32 {
        relations::forget();
    } else {
        let cache = cache();
        cache.generation.set(cache.generation.get() + 1);
        *cache.nodes.borrow_mut() = None;
    }
}

/// Counts what may have changed what is read here.
pub fn generation() -> u64 {
    cache().generation.get()
}

/// Forgets everything in this backend; what is in use stays alive until it is dropped.
fn invalidate_all() {
    relations::forget();
    let cache = cache();
    cache.generation.set(cache.generation.get() + 1);
    cache.tables.borrow_mut().clear();
    cache.colocations.borrow_mut().clear();
    cache.nodes.borrow_mut().take();
    cache.placements.borrow_mut().clear();
}

/// Reads with `load`, and keeps the answer with `store` unless an invalidation came meanwhile.
fn load<T: Clone>(load: impl FnOnce() -> Result<T>, store: impl FnOnce(&Cache, T)) -> Result<T> {
    let cache = cache();
    let generation = cache.generation.get();
    let value = load()?;
    if cache.generation.get() == generation {
        store(cache, value.clone());
    }
    Ok(value)
}

/// What the extension knows of a relation; none: it is not distributed. One hash look-up when known.
#[inline]
pub fn table(relid: pg_sys::Oid) -> Result<Option<Rc<Table>>> {
    let relid = u32::from(relid);
    if relid < pg_sys::FirstNormalObjectId {
        return Ok(None);
    }
    if let Some(known) = cache().tables.borrow().get(&relid) {
        return Ok(known.clone());
    }
    read_table(relid)
}

#[cold]
fn read_table(relid: u32) -> Result<Option<Rc<Table>>> {
    let Some(relations) = relations() else {
        return Ok(None);
    };
    load(
        || {
            let Some(row) = read::table(&relations, relid.into()) else {
                return Ok(None);
            };
            let kind = match (row.kind, row.key_column, row.colocation) {
                (b'r', _, _) => TableKind::Reference,
                (b'd', Some(column), Some(id)) => TableKind::Distributed {
                    key: read::key_attribute(row.relid, &column)?,
                    colocation: colocation_with(&relations, id)?,
                },
                _ => {
                    return Err(Error::internal(format!(
                        "the row of relation {relid} in shard_ext.distributed_table cannot be read"
                    )))
                }
            };
            Ok(Some(Rc::new(Table {
                relid: relid.into(),
                kind,
            })))
        },
        |cache, table| {
            cache.tables.borrow_mut().insert(relid, table);
        },
    )
}

/// A colocation group by its id.
pub fn colocation(id: ColocationId) -> Result<Rc<Colocation>> {
    colocation_with(&relations().ok_or_else(not_installed)?, id)
}

fn colocation_with(relations: &Relations, id: ColocationId) -> Result<Rc<Colocation>> {
    let known = cache().colocations.borrow().get(&id).cloned();
    if let Some(known) = known {
        return Ok(known);
    }
    load(
        || read::colocation(relations, id).map(Rc::new),
        |cache, colocation| {
            cache.colocations.borrow_mut().insert(id, colocation);
        },
    )
}

/// All nodes, by id.
pub fn nodes() -> Result<Vec<Rc<Node>>> {
    Ok(all_nodes()?.to_vec())
}

/// Has every node the default collation of this database?
fn nodes_sort_alike() -> Result<bool> {
    Ok(all_nodes()?.iter().all(|node| node.same_collation))
}

/// Has every node PostgreSQL's own function as it is here?
pub fn builtin_function_on_nodes(function: pg_sys::Oid) -> Result<bool> {
    Ok(all_nodes()?
        .iter()
        .all(|node| !node.lacking.functions.contains(&function)))
}

/// Have all nodes the collations of this database, its default and PostgreSQL's own?
pub fn nodes_collate_alike() -> Result<bool> {
    Ok(all_nodes()?
        .iter()
        .all(|node| node.same_collation && node.lacking.collations.is_empty()))
}

/// Does a node lack a collation, or sort otherwise by it?
pub fn collation_differs(collation: pg_sys::Oid) -> Result<bool> {
    match collation {
        pg_sys::Oid::INVALID | pg_sys::C_COLLATION_OID | pg_sys::POSIX_COLLATION_OID => Ok(false),
        pg_sys::DEFAULT_COLLATION_OID => Ok(!nodes_sort_alike()?),
        _ => Ok(all_nodes()?.iter().any(|node| {
            let lacking = &node.lacking.collations;
            if collation.to_u32() < pg_sys::FirstNormalObjectId {
                lacking.contains(&collation)
            } else if is_of_icu(collation) {
                lacking.iter().any(|lacking| is_of_icu(*lacking))
            } else {
                !node.same_collation
            }
        })),
    }
}

fn is_of_icu(collation: pg_sys::Oid) -> bool {
    // SAFETY: a syscache look-up; the tuple is released before anything else is called.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::COLLOID as i32,
            pg_sys::Datum::from(collation),
        );
        if tuple.is_null() {
            return false;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_collation>();
        let provider = (*form).collprovider as u8;
        pg_sys::ReleaseSysCache(tuple);
        provider == pg_sys::COLLPROVIDER_ICU
    }
}

/// Do all nodes run this major version or a later one?
pub fn nodes_run_at_least(major: i32) -> Result<bool> {
    Ok(all_nodes()?.iter().all(|node| node.major() >= major))
}

/// Do all nodes run this major version or an earlier one?
pub fn nodes_run_at_most(major: i32) -> Result<bool> {
    Ok(all_nodes()?.iter().all(|node| node.major() <= major))
}

fn all_nodes() -> Result<Rc<[Rc<Node>]>> {
    let known = cache().nodes.borrow().clone();
    if let Some(known) = known {
        return Ok(known);
    }
    let relations = relations().ok_or_else(not_installed)?;
    load(
        || read::nodes(&relations).map(Rc::from),
        |cache, nodes| {
            *cache.nodes.borrow_mut() = Some(nodes);
        },
    )
}

pub fn node(id: NodeId) -> Result<Rc<Node>> {
    let nodes = all_nodes()?;
    let node = nodes
        .binary_search_by_key(&id, |node| node.id)
        .map(|i| nodes[i].clone())
        .map_err(|_| {
            Error::new(
                sqlstate::UNDEFINED_OBJECT,
                format!("node {id} does not exist"),
            )
        })?;
    if node.server == pg_sys::InvalidOid {
        return Err(Error::new(
            sqlstate::UNDEFINED_OBJECT,
            format!(
                "foreign server \"{}\" of node {id} does not exist",
                node.name
            ),
        )
        .hint("Create the server again with CREATE SERVER ... FOREIGN DATA WRAPPER shard_ext."));
    }
    Ok(node)
}

/// The node of that name, if there is one.
pub fn node_named(name: &str) -> Result<Option<Rc<Node>>> {
    Ok(all_nodes()?.iter().find(|node| node.name == name).cloned())
}

/// The node that a shard group is on, now.
pub fn group_node(group: ShardGroupId) -> Result<NodeId> {
    let known = cache().placements.borrow().get(&(group as u64)).copied();
    if let Some(known) = known {
        return Ok(known);
    }
    let relations = relations().ok_or_else(not_installed)?;
    load(
        || read::group_node(&relations, group),
        |cache, node| {
            cache.placements.borrow_mut().insert(group as u64, node);
        },
    )
}
