//! What is distributed, how, and where: the catalogs in schema `shard_ext`, read through a cache.
//!
//! Comes in: oids and ids. Goes out: `Node`, `Table`, `Colocation` (which answers for every method which
//! shard group takes a key). Reading fails only when a catalog is broken or names something that is gone.
//! The rows are written by `write` alone, which tells every session.

mod cache;
mod commit_records;
mod key;
mod known_schemas;
mod names;
mod on_nodes;
mod read;
mod relations;
mod scan;
mod shard_map;
mod sql;
#[cfg(any(test, feature = "pg_test"))]
mod tests;
mod types;
pub mod write;

use pgrx::pg_sys;

use crate::error::{sqlstate, Error, Result};

pub use cache::{
    builtin_function_on_nodes, collation_differs, colocation, generation, group_node, init, node,
    node_named, nodes, nodes_collate_alike, nodes_run_at_least, nodes_run_at_most, table,
};
pub use commit_records::{
    commit_record_exists, commit_records, delete_commit_record,
    delete_commit_records_of_removed_nodes, insert_commit_record, lock_recovery,
};
pub use key::{base_type, bound_text, no_shard, parse_bound, Key};
pub use known_schemas::{own_reference_schema, shard_schema, users_schema, with_users_schemas};
pub use on_nodes::{
    collation_on_nodes, configuration_on_nodes, extension_function_on_nodes, type_on_nodes,
};
pub use relations::installed;
pub use types::{
    Bounds, Colocation, ColocationId, Lacking, Method, Node, NodeId, ShardGroup, ShardGroupId,
    Table, TableKind,
};

/// The schema of a reference table's copy on a node: its own, but on the very database of the
/// coordinator, where the table itself is, the copy lives beside it.
pub fn reference_schema(schema: &str, node: &Node) -> String {
    if node.is_coordinator {
        own_reference_schema(schema)
    } else {
        schema.to_string()
    }
}

/// The tables of a colocation group, by oid. Reads the catalog.
pub fn tables_of(colocation: ColocationId) -> Result<Vec<pg_sys::Oid>> {
    Ok(some_tables(Some(colocation), |_| true))
}

/// All reference tables, by oid. Reads the catalog.
pub fn reference_tables() -> Result<Vec<pg_sys::Oid>> {
    Ok(some_tables(None, |kind| kind == b'r'))
}

/// All distributed and reference tables, by oid. Reads the catalog.
pub fn tables() -> Result<Vec<pg_sys::Oid>> {
    Ok(some_tables(None, |_| true))
}

fn some_tables(colocation: Option<ColocationId>, wanted: impl Fn(u8) -> bool) -> Vec<pg_sys::Oid> {
    let Some(relations) = relations::relations() else {
        return Vec::new();
    };
    read::tables(&relations, colocation)
        .into_iter()
        .filter(|table| wanted(table.kind))
        .map(|table| table.relid)
        .collect()
}

/// The shard groups placed on a node, by id. Reads the catalog.
pub fn groups_on(node: NodeId) -> Result<Vec<ShardGroupId>> {
    let relations = relations::relations().ok_or_else(not_installed)?;
    Ok(read::groups_on(&relations, node))
}

/// Nodes that may be the database with that system identifier and oid. Reads the catalog.
pub fn nodes_of_database(
    system_identifier: Option<&str>,
    database: pg_sys::Oid,
) -> Result<Vec<NodeId>> {
    let relations = relations::relations().ok_or_else(not_installed)?;
    Ok(read::nodes_of_database(
        &relations,
        system_identifier,
        database,
    ))
}

/// The oldest colocation group of that method, key and number of shards. Reads the catalog.
pub fn find_colocation(
    method: Method,
    key_type: pg_sys::Oid,
    key_collation: pg_sys::Oid,
    shard_count: i32,
) -> Result<Option<ColocationId>> {
    let relations = relations::relations().ok_or_else(not_installed)?;
    let key_type = key::base_type(key_type);
    Ok(read::colocations(&relations, None)?
        .into_iter()
        .find(|row| {
            row.method == method
                && row.key_type == key_type
                && row.key_collation == key_collation
                && row.shard_count == shard_count
        })
        .map(|row| row.id))
}

/// An error unless `key_type` can be the key of a distribution by `method`.
pub fn check_key(method: Method, key_type: pg_sys::Oid, collation: pg_sys::Oid) -> Result<()> {
    key::Key::new(method, key::base_type(key_type), collation).map(|_| ())
}

fn not_installed() -> Error {
    Error::new(
        sqlstate::UNDEFINED_OBJECT,
        "extension \"shard_ext\" is not created in this database",
    )
    .hint("CREATE EXTENSION shard_ext;")
}
