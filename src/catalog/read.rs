//! Rows of the catalogs turned into values.

use pgrx::pg_sys;
use std::ffi::CString;
use std::rc::Rc;

use super::key::{self, Key};
use super::relations::Relations;
use super::scan::{scan, Equal, Row};
use super::shard_map::{HashRanges, ListMap, RangeMap};
use super::types::*;
use crate::error::{sqlstate, Error, Result};
use crate::pg::memory::Owned;

const READ: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

/// Attribute numbers of sql/catalog.sql.
pub(super) mod column {
    pub const NODE_ID: i16 = 1;
    pub const NODE_SERVER_NAME: i16 = 2;
    pub const NODE_SHOULD_HAVE_SHARDS: i16 = 3;
    pub const NODE_IS_COORDINATOR: i16 = 4;
    pub const NODE_SAME_COLLATION: i16 = 5;
    pub const NODE_VERSION_NUM: i16 = 6;
    pub const NODE_SYSTEM_IDENTIFIER: i16 = 7;
    pub const NODE_DATABASE_OID: i16 = 8;
    pub const NODE_LACKING_FUNCTIONS: i16 = 9;
    pub const NODE_LACKING_COLLATIONS: i16 = 10;

    pub const TABLE_RELID: i16 = 1;
    pub const TABLE_KIND: i16 = 2;
    pub const TABLE_KEY_COLUMN: i16 = 3;
    pub const TABLE_COLOCATION_ID: i16 = 4;

    pub const COLOCATION_ID: i16 = 1;
    pub const COLOCATION_METHOD: i16 = 2;
    pub const COLOCATION_SHARD_COUNT: i16 = 3;
    pub const COLOCATION_KEY_TYPE: i16 = 4;
    pub const COLOCATION_KEY_COLLATION: i16 = 5;

    pub const GROUP_ID: i16 = 1;
    pub const GROUP_COLOCATION_ID: i16 = 2;
    pub const GROUP_ORDINAL: i16 = 3;
    pub const GROUP_HASH_LOWER: i16 = 4;
    pub const GROUP_HASH_UPPER: i16 = 5;
    pub const GROUP_LOWER: i16 = 6;
    pub const GROUP_UPPER: i16 = 7;
    pub const GROUP_LIST_VALUES: i16 = 8;
    pub const GROUP_HAS_NULL: i16 = 9;
    pub const GROUP_IS_DEFAULT: i16 = 10;

    pub const PLACEMENT_GROUP_ID: i16 = 1;
    pub const PLACEMENT_NODE_ID: i16 = 2;

    pub const RECORD_GID: i16 = 1;
    pub const RECORD_NODE_ID: i16 = 2;
}
use column::*;

pub(super) fn equal_int4(attribute: i16, value: i32) -> Option<Equal> {
    Some(Equal {
        attribute,
        function: pg_sys::F_INT4EQ,
        value: value.into(),
    })
}

pub(super) fn equal_int8(attribute: i16, value: i64) -> Option<Equal> {
    Some(Equal {
        attribute,
        function: pg_sys::F_INT8EQ,
        value: value.into(),
    })
}

pub(super) fn equal_oid(attribute: i16, value: pg_sys::Oid) -> Option<Equal> {
    Some(Equal {
        attribute,
        function: pg_sys::F_OIDEQ,
        value: value.into(),
    })
}

/// All nodes by id.
pub fn nodes(relations: &Relations) -> Result<Vec<Rc<Node>>> {
    let mut nodes = Vec::new();
    let mut bad = false;
    scan(
        relations.node,
        relations.node_pkey,
        None,
        READ,
        |_, row| match node(row) {
            Some(node) => nodes.push(node),
            None => bad = true,
        },
    );
    if bad {
        return Err(broken("node"));
    }
    for node in &mut nodes {
        node.server = server(&node.name);
    }
    nodes.sort_by_key(|node| node.id);
    Ok(nodes.into_iter().map(Rc::new).collect())
}

fn node(row: &Row) -> Option<Node> {
    Some(Node {
        id: row.get(NODE_ID)?,
        name: row.name(NODE_SERVER_NAME)?,
        server: pg_sys::InvalidOid,
        should_have_shards: row.get(NODE_SHOULD_HAVE_SHARDS)?,
        is_coordinator: row.get(NODE_IS_COORDINATOR)?,
        same_collation: row.get(NODE_SAME_COLLATION)?,
        version_num: row.get(NODE_VERSION_NUM)?,
        lacking: Lacking {
            functions: row.get(NODE_LACKING_FUNCTIONS)?,
            collations: row.get(NODE_LACKING_COLLATIONS)?,
        },
    })
}

/// Nodes in databases with that identity, or whose identity cannot be told apart from it.
pub fn nodes_of_database(
    relations: &Relations,
    system_identifier: Option<&str>,
    database: pg_sys::Oid,
) -> Vec<NodeId> {
    let mut nodes = Vec::new();
    scan(relations.node, relations.node_pkey, None, READ, |_, row| {
        let theirs: Option<String> = row.get(NODE_SYSTEM_IDENTIFIER);
        let same_cluster = match (theirs.as_deref(), system_identifier) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => true,
        };
        if same_cluster && row.get(NODE_DATABASE_OID) == Some(database) {
            nodes.extend(row.get::<NodeId>(NODE_ID));
        }
    });
    nodes
}

/// The shard groups on a node.
pub fn groups_on(relations: &Relations, node: NodeId) -> Vec<ShardGroupId> {
    let mut groups = Vec::new();
    scan(
        relations.placement,
        relations.placement_node_id_idx,
        equal_int4(PLACEMENT_NODE_ID, node),
        READ,
        |_, row| groups.extend(row.get::<ShardGroupId>(PLACEMENT_GROUP_ID)),
    );
    groups.sort_unstable();
    groups
}

/// The oid of a foreign server, or invalid.
pub fn server(name: &str) -> pg_sys::Oid {
    CString::new(name).map_or(pg_sys::InvalidOid, |name| {
        // SAFETY: a syscache look-up.
        unsafe { pg_sys::get_foreign_server_oid(name.as_ptr(), true) }
    })
}

/// What the catalog says of a table, before its colocation group is looked up.
pub struct TableRow {
    pub relid: pg_sys::Oid,
    pub kind: u8,
    pub key_column: Option<String>,
    pub colocation: Option<ColocationId>,
}

fn table_row(row: &Row) -> Option<TableRow> {
    Some(TableRow {
        relid: row.get(TABLE_RELID)?,
        kind: row.get::<i8>(TABLE_KIND)? as u8,
        key_column: row.name(TABLE_KEY_COLUMN),
        colocation: row.get(TABLE_COLOCATION_ID),
    })
}

pub fn table(relations: &Relations, relid: pg_sys::Oid) -> Option<TableRow> {
    let mut found = None;
    scan(
        relations.distributed_table,
        relations.distributed_table_pkey,
        equal_oid(TABLE_RELID, relid),
        READ,
        |_, row| found = table_row(row),
    );
    found
}

/// Distributed and reference tables, all or those of one colocation group, by oid.
pub fn tables(relations: &Relations, colocation: Option<ColocationId>) -> Vec<TableRow> {
    let mut tables = Vec::new();
    let (index, equal) = match colocation {
        Some(id) => (
            relations.distributed_table_colocation_id_idx,
            equal_int4(TABLE_COLOCATION_ID, id),
        ),
        None => (relations.distributed_table_pkey, None),
    };
    scan(relations.distributed_table, index, equal, READ, |_, row| {
        tables.extend(table_row(row));
    });
    tables.sort_by_key(|table| u32::from(table.relid));
    tables
}

/// The attribute number of a table's distribution column.
pub fn key_attribute(relid: pg_sys::Oid, column: &str) -> Result<i16> {
    let attribute = CString::new(column).map_or(0, |column| {
        // SAFETY: a syscache look-up.
        unsafe { pg_sys::get_attnum(relid, column.as_ptr()) }
    });
    if attribute > 0 {
        return Ok(attribute);
    }
    Err(Error::internal(format!(
        "distribution column \"{column}\" of relation {relid} does not exist"
    )))
}

pub fn group_node(relations: &Relations, group: ShardGroupId) -> Result<NodeId> {
    let mut node = None;
    scan(
        relations.placement,
        relations.placement_pkey,
        equal_int8(PLACEMENT_GROUP_ID, group),
        READ,
        |_, row| node = row.get(PLACEMENT_NODE_ID),
    );
    node.ok_or_else(|| {
        Error::new(
            sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("shard group {group} is on no node"),
        )
    })
}

/// The colocation groups: id, method, number of shards asked for, key type, collation.
pub struct ColocationRow {
    pub id: ColocationId,
    pub method: Method,
    pub shard_count: i32,
    pub key_type: pg_sys::Oid,
    pub key_collation: pg_sys::Oid,
}

fn colocation_row(row: &Row) -> Option<ColocationRow> {
    let collation: Option<String> = row.get(COLOCATION_KEY_COLLATION);
    Some(ColocationRow {
        id: row.get(COLOCATION_ID)?,
        method: Method::from_code(row.get::<i8>(COLOCATION_METHOD)? as u8)?,
        shard_count: row.get(COLOCATION_SHARD_COUNT)?,
        key_type: row.get(COLOCATION_KEY_TYPE)?,
        key_collation: match collation {
            Some(name) => collation_oid(&name)?,
            None => pg_sys::InvalidOid,
        },
    })
}

/// Reads what `regcollation` prints; raises when there is no such collation.
fn collation_oid(name: &str) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: regcollationin takes a C string and raises or returns an oid.
    unsafe {
        let datum = pg_sys::OidInputFunctionCall(
            pg_sys::Oid::from(pg_sys::F_REGCOLLATIONIN),
            name.as_ptr().cast_mut(),
            pg_sys::InvalidOid,
            -1,
        );
        Some(pg_sys::Oid::from(datum.value() as u32))
    }
}

/// All colocation groups by id, or the one asked for.
pub fn colocations(relations: &Relations, id: Option<ColocationId>) -> Result<Vec<ColocationRow>> {
    let mut rows = Vec::new();
    let mut bad = false;
    scan(
        relations.colocation_group,
        relations.colocation_group_pkey,
        id.and_then(|id| equal_int4(COLOCATION_ID, id)),
        READ,
        |_, row| match colocation_row(row) {
            Some(row) => rows.push(row),
            None => bad = true,
        },
    );
    if bad {
        return Err(broken("colocation_group"));
    }
    rows.sort_by_key(|row: &ColocationRow| row.id);
    Ok(rows)
}

struct GroupRow {
    id: ShardGroupId,
    ordinal: i32,
    hash: Option<(i32, i32)>,
    lower: Option<String>,
    upper: Option<String>,
    values: Option<Vec<Option<String>>>,
    null: bool,
    default: bool,
}

fn group_row(row: &Row) -> Option<GroupRow> {
    Some(GroupRow {
        id: row.get(GROUP_ID)?,
        ordinal: row.get(GROUP_ORDINAL)?,
        hash: row.get(GROUP_HASH_LOWER).zip(row.get(GROUP_HASH_UPPER)),
        lower: row.get(GROUP_LOWER),
        upper: row.get(GROUP_UPPER),
        values: row.get(GROUP_LIST_VALUES),
        null: row.get(GROUP_HAS_NULL)?,
        default: row.get(GROUP_IS_DEFAULT)?,
    })
}

/// A colocation group with its shard groups, their bounds parsed and placements looked up.
pub fn colocation(relations: &Relations, id: ColocationId) -> Result<Colocation> {
    let row = colocations(relations, Some(id))?
        .pop()
        .ok_or_else(|| Error::internal(format!("colocation group {id} does not exist")))?;
    let mut rows = Vec::new();
    scan(
        relations.shard_group,
        relations.shard_group_colocation_id_idx,
        equal_int4(GROUP_COLOCATION_ID, id),
        READ,
        |_, row| rows.push(group_row(row)),
    );
    let mut rows: Vec<GroupRow> = rows
        .into_iter()
        .collect::<Option<_>>()
        .ok_or_else(|| broken("shard_group"))?;
    rows.sort_by_key(|row| (row.hash, row.ordinal, row.id));

    let memory = Owned::new(c"shard_ext colocation group");
    let mut groups = Vec::with_capacity(rows.len());
    for group in rows {
        groups.push(ShardGroup {
            id: group.id,
            bounds: memory.inside(|| bounds(row.method, row.key_type, &group))?,
            node: group_node(relations, group.id)?,
        });
    }
    let key = Key::new(row.method, row.key_type, row.key_collation)?;
    if row.method == Method::Range {
        groups.sort_by(|a, b| by_lower_bound(&key, &a.bounds, &b.bounds));
    }
    let map = map(row.method, &key, &groups)?;
    Ok(Colocation {
        id,
        method: row.method,
        key_type: row.key_type,
        key_collation: row.key_collation,
        groups,
        key,
        map,
        _memory: memory,
    })
}

fn bounds(method: Method, key_type: pg_sys::Oid, row: &GroupRow) -> Result<Bounds> {
    if row.default {
        return Ok(Bounds::Default);
    }
    let parse = |text: &Option<String>| -> Result<Option<pg_sys::Datum>> {
        text.as_ref()
            .map(|text| key::parse_bound(key_type, text))
            .transpose()
    };
    match method {
        Method::Hash => {
            let (lo, hi) = row.hash.ok_or_else(|| broken("shard_group"))?;
            Ok(Bounds::Hash { lo, hi })
        }
        Method::Range => Ok(Bounds::Range {
            lower: parse(&row.lower)?,
            upper: parse(&row.upper)?,
        }),
        Method::List => Ok(Bounds::List {
            values: row
                .values
                .iter()
                .flatten()
                .flatten()
                .map(|text| key::parse_bound(key_type, text))
                .collect::<Result<_>>()?,
            null: row.null,
        }),
    }
}

/// Unbounded below first, the default group last.
fn by_lower_bound(key: &Key, a: &Bounds, b: &Bounds) -> std::cmp::Ordering {
    use std::cmp::Ordering::*;
    match (a, b) {
        (Bounds::Range { lower: a, .. }, Bounds::Range { lower: b, .. }) => match (a, b) {
            (None, None) => Equal,
            (None, Some(_)) => Less,
            (Some(_), None) => Greater,
            (Some(a), Some(b)) => key.compare(*a, *b),
        },
        (Bounds::Range { .. }, _) => Less,
        (_, Bounds::Range { .. }) => Greater,
        _ => Equal,
    }
}

fn map(method: Method, key: &Key, groups: &[ShardGroup]) -> Result<Map> {
    let default = groups
        .iter()
        .position(|group| matches!(group.bounds, Bounds::Default));
    let compare = |a, b| key.compare(a, b);
    let mismatch = || Error::internal("bounds of a shard group do not fit its distribution method");
    let each = groups.iter().enumerate();
    Ok(match method {
        Method::Hash => Map::Hash(HashRanges::new(
            groups
                .iter()
                .map(|group| match group.bounds {
                    Bounds::Hash { lo, .. } => Ok(lo),
                    _ => Err(mismatch()),
                })
                .collect::<Result<_>>()?,
        )),
        Method::Range => Map::Range(RangeMap::new(
            each.filter_map(|(i, group)| match group.bounds {
                Bounds::Range { lower, upper } => Some((lower, upper, i)),
                _ => None,
            })
            .collect(),
            default,
            compare,
        )),
        Method::List => {
            let mut keys = Vec::new();
            let mut null = None;
            for (i, group) in each {
                if let Bounds::List { values, null: has } = &group.bounds {
                    keys.extend(values.iter().map(|value| (*value, i)));
                    if *has {
                        null = Some(i);
                    }
                }
            }
            Map::List(ListMap::new(keys, null, default, compare))
        }
    })
}

fn broken(table: &str) -> Error {
    Error::internal(format!("a row of shard_ext.{table} cannot be read"))
        .hint("Do not change the extension's catalogs by hand.")
}
