//! Changes of the catalogs. Each tells all sessions, so that their caches and plans follow when the
//! transaction commits, and this one after the next command counter increment, which is done here.
//!
//! Locks: who adds a table, a colocation group or a shard group holds `lock_tables`; who adds or removes
//! a node or creates a reference table holds `lock_nodes`.

use pgrx::pg_sys;
use pgrx::IntoDatum;

use super::key;
use super::names::hash_ranges;
use super::read::{column::*, equal_int4, equal_int8, equal_oid};
use super::relations::{relations, Relations};
use super::scan::{scan, Equal};
use super::types::{ColocationId, Lacking, Method, NodeId, ShardGroupId};
use super::{node as node_by_id, not_installed, tables_of};
use crate::error::{sqlstate, Error, Result};
use crate::pg::spi;

/// A node to insert.
pub struct NewNode<'a> {
    pub server_name: &'a str,
    pub is_coordinator: bool,
    pub same_collation: bool,
    pub version_num: i32,
    /// Unknown where the node does not tell.
    pub system_identifier: Option<&'a str>,
    pub database: pg_sys::Oid,
    pub lacking: Lacking,
}

/// Bounds of a shard group to insert; keys as text that `key::bound_text` made.
pub enum NewBounds {
    Hash {
        lo: i32,
        hi: i32,
    },
    Range {
        lower: Option<String>,
        upper: Option<String>,
    },
    List {
        values: Vec<String>,
        null: bool,
    },
    Default,
}

const WRITE: pg_sys::LOCKMODE = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;

/// Waits for, and from here to the end of the transaction keeps out, other changes of what is distributed.
pub fn lock_tables() -> Result<()> {
    lock(ours()?.colocation_group);
    Ok(())
}

/// The same for the set of nodes: for adding and removing nodes, and for creating reference tables,
/// which must be on each of them.
///
/// It holds `lock_tables` as well: whoever places shards must not see a node go.
pub fn lock_nodes() -> Result<()> {
    lock_tables()?;
    lock(ours()?.node);
    Ok(())
}

fn lock(relation: pg_sys::Oid) {
    // SAFETY: the lock goes with the transaction.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::ShareRowExclusiveLock as i32) }
}

/// Keeps a node from being removed until the end of the transaction, which places a shard group there.
fn keep_node(ours: &Relations, node: NodeId) -> Result<()> {
    // SAFETY: as above; conflicts with `lock_nodes`, and waiting for it brings the cache up to date.
    unsafe { pg_sys::LockRelationOid(ours.node, WRITE) }
    node_by_id(node).map(|_| ()).map_err(|_| {
        Error::new(
            sqlstate::OBJECT_IN_USE,
            "a node was removed while shards were being placed on it",
        )
        .hint("Try again.")
    })
}

pub fn insert_node(node: &NewNode) -> Result<NodeId> {
    let ours = ours()?;
    let id = next("shard_ext.node_id_seq")? as NodeId;
    insert(
        ours.node,
        &mut [
            id.into_datum(),
            Some(name_datum(node.server_name)),
            true.into_datum(),
            node.is_coordinator.into_datum(),
            node.same_collation.into_datum(),
            node.version_num.into_datum(),
            node.system_identifier.into_datum(),
            node.database.into_datum(),
            node.lacking.functions.clone().into_datum(),
            node.lacking.collations.clone().into_datum(),
        ],
    );
    announce(&[ours.node]);
    Ok(id)
}

/// New values for a node; none: as it is.
#[derive(Default)]
pub struct NodeChange<'a> {
    pub server_name: Option<&'a str>,
    pub should_have_shards: Option<bool>,
    pub is_coordinator: Option<bool>,
    pub same_collation: Option<bool>,
    pub version_num: Option<i32>,
    pub lacking: Option<Lacking>,
}

pub fn update_node(id: NodeId, change: &NodeChange) -> Result<()> {
    let ours = ours()?;
    let lacking = change.lacking.as_ref();
    let changes: Vec<(i16, pg_sys::Datum)> = [
        (NODE_SERVER_NAME, change.server_name.map(name_datum)),
        (
            NODE_SHOULD_HAVE_SHARDS,
            change.should_have_shards.into_datum(),
        ),
        (NODE_IS_COORDINATOR, change.is_coordinator.into_datum()),
        (NODE_SAME_COLLATION, change.same_collation.into_datum()),
        (NODE_VERSION_NUM, change.version_num.into_datum()),
        (
            NODE_LACKING_FUNCTIONS,
            lacking.and_then(|lacking| lacking.functions.clone().into_datum()),
        ),
        (
            NODE_LACKING_COLLATIONS,
            lacking.and_then(|lacking| lacking.collations.clone().into_datum()),
        ),
    ]
    .into_iter()
    .filter_map(|(attribute, value)| Some((attribute, value?)))
    .collect();
    update(ours.node, ours.node_pkey, equal_int4(NODE_ID, id), &changes);
    announce(&[ours.node]);
    Ok(())
}

pub fn delete_node(id: NodeId) -> Result<()> {
    let ours = ours()?;
    delete(ours.node, ours.node_pkey, equal_int4(NODE_ID, id));
    announce(&[ours.node]);
    Ok(())
}

/// A colocation group without shard groups. `shard_count` is what was asked for: 0 for range and list.
pub fn insert_colocation(
    method: Method,
    shard_count: i32,
    key_type: pg_sys::Oid,
    key_collation: pg_sys::Oid,
) -> Result<ColocationId> {
    let ours = ours()?;
    let id = next("shard_ext.colocation_id_seq")? as ColocationId;
    let collation = (key_collation != pg_sys::InvalidOid).then(|| collation_name(key_collation));
    insert(
        ours.colocation_group,
        &mut [
            id.into_datum(),
            (method.code() as i8).into_datum(),
            shard_count.into_datum(),
            key::base_type(key_type).into_datum(),
            collation.into_datum(),
        ],
    );
    announce(&[ours.colocation_group]);
    Ok(id)
}

/// Deletes a colocation group that has no tables any more, with its shard groups and placements.
pub fn delete_colocation(id: ColocationId) -> Result<()> {
    let ours = ours()?;
    if let Some(relid) = tables_of(id)?.first() {
        return Err(Error::internal(format!(
            "colocation group {id} still has table {relid}"
        )));
    }
    let mut groups: Vec<ShardGroupId> = Vec::new();
    scan(
        ours.shard_group,
        ours.shard_group_colocation_id_idx,
        equal_int4(GROUP_COLOCATION_ID, id),
        WRITE,
        |relation, row| {
            groups.extend(row.get::<ShardGroupId>(GROUP_ID));
            delete_row(relation, row.tid);
        },
    );
    for group in groups {
        delete(
            ours.placement,
            ours.placement_pkey,
            equal_int8(PLACEMENT_GROUP_ID, group),
        );
    }
    delete(
        ours.colocation_group,
        ours.colocation_group_pkey,
        equal_int4(COLOCATION_ID, id),
    );
    announce(&[ours.colocation_group]);
    Ok(())
}

/// Cuts the hash space of a colocation group into a shard group per entry of `nodes`, in this order.
pub fn insert_hash_groups(colocation: ColocationId, nodes: &[NodeId]) -> Result<Vec<ShardGroupId>> {
    let ours = ours()?;
    for node in nodes {
        keep_node(&ours, *node)?;
    }
    let mut groups = Vec::with_capacity(nodes.len());
    for (ordinal, ((lo, hi), node)) in hash_ranges(nodes.len() as u32)
        .into_iter()
        .zip(nodes)
        .enumerate()
    {
        let bounds = NewBounds::Hash { lo, hi };
        groups.push(insert_group(
            &ours,
            colocation,
            ordinal as i32,
            bounds,
            *node,
        )?);
    }
    tell_tables(&ours, colocation)?;
    Ok(groups)
}

/// Adds a shard group with its placement. The caller made sure that no other takes the same keys.
pub fn insert_shard_group(
    colocation: ColocationId,
    ordinal: i32,
    bounds: NewBounds,
    node: NodeId,
) -> Result<ShardGroupId> {
    let ours = ours()?;
    keep_node(&ours, node)?;
    let id = insert_group(&ours, colocation, ordinal, bounds, node)?;
    tell_tables(&ours, colocation)?;
    Ok(id)
}

fn insert_group(
    ours: &Relations,
    colocation: ColocationId,
    ordinal: i32,
    bounds: NewBounds,
    node: NodeId,
) -> Result<ShardGroupId> {
    let id = next("shard_ext.shard_group_id_seq")?;
    let default = matches!(bounds, NewBounds::Default);
    let (mut hash, mut range, mut list) = ((None, None), (None, None), (None, false));
    match bounds {
        NewBounds::Hash { lo, hi } => hash = (Some(lo), Some(hi)),
        NewBounds::Range { lower, upper } => range = (lower, upper),
        NewBounds::List { values, null } => list = (Some(values), null),
        NewBounds::Default => {}
    }
    insert(
        ours.shard_group,
        &mut [
            id.into_datum(),
            colocation.into_datum(),
            ordinal.into_datum(),
            hash.0.into_datum(),
            hash.1.into_datum(),
            range.0.into_datum(),
            range.1.into_datum(),
            list.0.into_datum(),
            list.1.into_datum(),
            default.into_datum(),
        ],
    );
    insert(ours.placement, &mut [id.into_datum(), node.into_datum()]);
    Ok(id)
}

pub fn insert_distributed_table(
    relid: pg_sys::Oid,
    key_column: &str,
    colocation: ColocationId,
) -> Result<()> {
    let ours = ours()?;
    insert(
        ours.distributed_table,
        &mut [
            relid.into_datum(),
            (b'd' as i8).into_datum(),
            Some(name_datum(key_column)),
            colocation.into_datum(),
        ],
    );
    announce(&[relid]);
    Ok(())
}

pub fn insert_reference_table(relid: pg_sys::Oid) -> Result<()> {
    let ours = ours()?;
    insert(
        ours.distributed_table,
        &mut [relid.into_datum(), (b'r' as i8).into_datum(), None, None],
    );
    announce(&[relid]);
    Ok(())
}

/// Makes a table an ordinary one. Its colocation group stays: see `delete_colocation`.
pub fn delete_table(relid: pg_sys::Oid) -> Result<()> {
    let ours = ours()?;
    delete(
        ours.distributed_table,
        ours.distributed_table_pkey,
        equal_oid(TABLE_RELID, relid),
    );
    announce(&[relid]);
    Ok(())
}

fn ours() -> Result<Relations> {
    relations().ok_or_else(not_installed)
}

/// All tables of a colocation group have other shards now.
fn tell_tables(ours: &Relations, colocation: ColocationId) -> Result<()> {
    let mut relids = tables_of(colocation)?;
    relids.push(ours.shard_group);
    announce(&relids);
    Ok(())
}

/// Makes the change visible to this transaction's next look, and sends relcache invalidations: a shell
/// table's replans and reloads that table, a catalog's reloads everything.
fn announce(relids: &[pg_sys::Oid]) {
    // SAFETY: a relation that is being dropped has no pg_class row any more and nobody to tell.
    unsafe {
        for relid in relids {
            let exists = pg_sys::SearchSysCacheExists(
                pg_sys::SysCacheIdentifier::RELOID as i32,
                (*relid).into(),
                pg_sys::Datum::null(),
                pg_sys::Datum::null(),
                pg_sys::Datum::null(),
            );
            if exists {
                pg_sys::CacheInvalidateRelcacheByRelid(*relid);
            }
        }
        pg_sys::CommandCounterIncrement();
    }
}

/// The next id of a sequence, which nobody else draws from at the same time: all who do hold `lock_tables`. Without
/// nextval, after which `lastval()` would speak of this sequence.
fn next(sequence: &str) -> Result<i64> {
    let sql = format!(
        "SELECT pg_catalog.setval('{sequence}', CASE WHEN is_called THEN last_value OPERATOR(pg_catalog.+) 1 ELSE last_value END) FROM {sequence}"
    );
    // SAFETY: whoever may call the function that brought us here needs no privilege on the sequence. An error restores
    // the user, too.
    let row = unsafe {
        let (mut user, mut security) = (pg_sys::InvalidOid, 0);
        pg_sys::GetUserIdAndSecContext(&mut user, &mut security);
        let local = pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        let owner = pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID);
        pg_sys::SetUserIdAndSecContext(owner, security | local);
        let row = spi::query_one(&sql, &[]);
        pg_sys::SetUserIdAndSecContext(user, security);
        row?
    };
    row.and_then(|row| row.first()?.as_ref()?.parse().ok())
        .ok_or_else(|| Error::internal(format!("no id from {sequence}")))
}

pub(super) fn insert(table: pg_sys::Oid, row: &mut [Option<pg_sys::Datum>]) {
    let mut values: Vec<pg_sys::Datum> = row
        .iter()
        .map(|value| value.unwrap_or(pg_sys::Datum::null()))
        .collect();
    let mut nulls: Vec<bool> = row.iter().map(Option::is_none).collect();
    // SAFETY: the callers give a value per column of sql/catalog.sql. As in PostgreSQL's own catalogs,
    // triggers and foreign keys are not looked at, and there are none that matter.
    unsafe {
        let relation = pg_sys::table_open(table, WRITE);
        let tuple =
            pg_sys::heap_form_tuple((*relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::CatalogTupleInsert(relation, tuple);
        pg_sys::heap_freetuple(tuple);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
    }
}

fn update(
    table: pg_sys::Oid,
    index: pg_sys::Oid,
    equal: Option<Equal>,
    changes: &[(i16, pg_sys::Datum)],
) {
    scan(table, index, equal, WRITE, |relation, row| {
        let (mut values, mut nulls) = row.parts();
        for (attribute, value) in changes {
            values[*attribute as usize - 1] = *value;
            nulls[*attribute as usize - 1] = false;
        }
        // SAFETY: the row is of this relation and its Datums are still pinned by the scan.
        unsafe {
            let tuple = pg_sys::heap_form_tuple(
                (*relation).rd_att,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            let mut tid = row.tid;
            pg_sys::CatalogTupleUpdate(relation, &mut tid, tuple);
            pg_sys::heap_freetuple(tuple);
        }
    });
}

pub(super) fn delete(table: pg_sys::Oid, index: pg_sys::Oid, equal: Option<Equal>) {
    scan(table, index, equal, WRITE, |relation, row| {
        delete_row(relation, row.tid);
    });
}

fn delete_row(relation: pg_sys::Relation, mut tid: pg_sys::ItemPointerData) {
    // SAFETY: the address of a row of this relation that the scan just saw.
    unsafe { pg_sys::CatalogTupleDelete(relation, &mut tid) }
}

/// A Datum of type name, cut to its length.
fn name_datum(text: &str) -> pg_sys::Datum {
    let end = text.len().min(pg_sys::NAMEDATALEN as usize - 1);
    // SAFETY: NAMEDATALEN zeroed bytes, of which the last stays zero.
    unsafe {
        let name = pg_sys::palloc0(pg_sys::NAMEDATALEN as usize).cast::<u8>();
        std::ptr::copy_nonoverlapping(text.as_ptr(), name, end);
        pg_sys::Datum::from(name)
    }
}

/// As `regcollation` prints it with an empty search path: what a dump can restore.
fn collation_name(collation: pg_sys::Oid) -> String {
    // SAFETY: look-ups of an existing collation; both return palloc'd C strings.
    unsafe {
        let name = pg_sys::get_collation_name(collation);
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::COLLOID as i32, collation.into());
        if name.is_null() || tuple.is_null() {
            return "pg_catalog.\"default\"".to_string();
        }
        let schema =
            (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_collation>()).collnamespace;
        let schema = pg_sys::get_namespace_name(schema);
        let qualified = std::ffi::CStr::from_ptr(pg_sys::quote_qualified_identifier(schema, name))
            .to_string_lossy()
            .into_owned();
        pg_sys::ReleaseSysCache(tuple);
        qualified
    }
}
