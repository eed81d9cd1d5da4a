//! Which colocation group a table joins, or the new one it gets.

use super::checks::Key;
use crate::catalog::{self, write, ColocationId, Method, NodeId, TableKind};
use crate::error::{sqlstate, Error, Result};
use crate::pg::spi;
use pgrx::pg_sys;

/// The argument `colocate_with`.
pub enum Colocate {
    /// A group of the same key type, collation, method and bounds, if there is one.
    Default,
    /// A group of its own.
    Alone,
    With(pg_sys::Oid),
}

/// The method and the group to join; none: a new one is to be made.
pub fn find(
    colocate: &Colocate,
    method: Method,
    key: &Key,
    shard_count: Option<i32>,
) -> Result<Option<ColocationId>> {
    match colocate {
        Colocate::Alone => Ok(None),
        Colocate::With(relid) => with(*relid, method, key).map(Some),
        Colocate::Default if method == Method::Hash => {
            catalog::find_colocation(method, key.data_type, key.collation, count(shard_count))
        }
        // Equal bounds, for a table that has no shards yet: a group that has none either.
        Colocate::Default => without_shards(method, key),
    }
}

pub fn count(shard_count: Option<i32>) -> i32 {
    shard_count.unwrap_or_else(crate::settings::shard_count)
}

/// The method of the group of `relid`, which a table distributed with it takes over.
pub fn method_of(relid: pg_sys::Oid) -> Result<Method> {
    Ok(group_of(relid)?.method)
}

fn group_of(relid: pg_sys::Oid) -> Result<std::rc::Rc<catalog::Colocation>> {
    match catalog::table(relid)?.as_deref() {
        Some(catalog::Table {
            kind: TableKind::Distributed { colocation, .. },
            ..
        }) => Ok(colocation.clone()),
        _ => Err(Error::new(
            sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "table \"{}\" of colocate_with is not a distributed table",
                super::checks::relation_name(relid)?
            ),
        )
        .hint("Name a table that is distributed, 'default' or 'none'.")),
    }
}

fn with(relid: pg_sys::Oid, method: Method, key: &Key) -> Result<ColocationId> {
    let group = group_of(relid)?;
    let name = super::checks::relation_name(relid)?;
    let differs = if group.method != method {
        format!(
            "\"{name}\" is distributed by {}, not by {}.",
            group.method.name(),
            method.name()
        )
    } else if group.key_type != key.data_type {
        format!("The distribution column of \"{name}\" has another type.")
    } else if group.key_collation != key.collation {
        format!("The distribution column of \"{name}\" has another collation.")
    } else {
        return Ok(group.id);
    };
    Err(Error::new(
        sqlstate::INVALID_PARAMETER_VALUE,
        format!("cannot colocate with table \"{name}\""),
    )
    .detail(differs)
    .hint("Tables are colocated by equal keys: their columns need the same type and collation."))
}

fn without_shards(method: Method, key: &Key) -> Result<Option<ColocationId>> {
    let rows = spi::query(
        "SELECT c.colocation_id::pg_catalog.text FROM shard_ext.colocation_group c
          WHERE NOT EXISTS (SELECT FROM shard_ext.shard_group g WHERE g.colocation_id = c.colocation_id)
          ORDER BY c.colocation_id",
        &[],
    )?;
    for row in rows {
        let Some(id) = row.first().and_then(|id| id.as_deref()?.parse().ok()) else {
            continue;
        };
        let group = catalog::colocation(id)?;
        if group.method == method
            && group.key_type == key.data_type
            && group.key_collation == key.collation
        {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// A new group; of a hash distribution with its shard groups spread over the nodes.
pub fn create(method: Method, key: &Key, shard_count: Option<i32>) -> Result<ColocationId> {
    let nodes = nodes_for_shards()?;
    let count = match method {
        Method::Hash => count(shard_count),
        Method::Range | Method::List => 0,
    };
    let id = write::insert_colocation(method, count, key.data_type, key.collation)?;
    if method == Method::Hash {
        let nodes: Vec<NodeId> = nodes.iter().copied().cycle().take(count as usize).collect();
        write::insert_hash_groups(id, &nodes)?;
    }
    Ok(id)
}

/// A default shard group for a new group without shards.
pub fn add_default(group: &catalog::Colocation) -> Result<()> {
    let node = nodes_for_shards()?[0];
    write::insert_shard_group(group.id, 0, write::NewBounds::Default, node)?;
    Ok(())
}

/// The nodes that get new shards, by id; never none.
pub fn nodes_for_shards() -> Result<Vec<NodeId>> {
    let nodes: Vec<NodeId> = catalog::nodes()?
        .iter()
        .filter(|node| node.should_have_shards)
        .map(|node| node.id)
        .collect();
    if nodes.is_empty() {
        return Err(Error::new(
            sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "there is no node that shards could be placed on",
        )
        .hint("Add one with shard_ext.add_node(name, host, port, dbname)."));
    }
    Ok(nodes)
}
