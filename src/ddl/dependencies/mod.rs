//! What a table needs before it can be created on a node: schemas, types, collations, functions, operators
//! and extensions, found through `pg_depend` and created in the order of their dependencies.
//!
//! An object that a node has already, by name and argument types, is left as it is.

mod create;
mod find;

use crate::catalog::{self, NodeId};
use crate::ddl::evaluated;
use crate::ddl::sql::quote_literal;
use crate::error::{Error, Result};
use crate::pg::spi;
use crate::remote;
use pgrx::pg_sys;

/// An object a table depends on, as SQL.
#[derive(Debug)]
struct Object {
    /// For messages, as PostgreSQL describes it.
    description: String,
    /// A boolean expression over the system catalogs of a node: is it there?
    exists: String,
    /// How to create it; none for what only an administrator can create (C code).
    create: Option<String>,
}

/// Creates what `tables` need, which are to be on `holders`: on every node, since statements that name it may go to any.
/// Fails if one of `holders` cannot have the tables because of its default collation or version.
/// The caller holds `catalog::write::lock_tables`, so that no two sessions create the same.
pub fn ensure(tables: &[pg_sys::Oid], holders: &[NodeId]) -> Result<()> {
    evaluated::check(tables, holders)?;
    // in the coordinator's database everything is there
    let nodes: Vec<NodeId> = catalog::nodes()?
        .iter()
        .filter(|node| !node.is_coordinator || holders.contains(&node.id))
        .map(|node| node.id)
        .collect();
    create_on(&nodes, tables)
}

/// Creates on `nodes` what `tables` need and the nodes do not have, in the distributed transaction.
pub fn create_on(nodes: &[NodeId], tables: &[pg_sys::Oid]) -> Result<()> {
    let _names = spi::Settings::qualified_names();
    let objects = find::objects_of(tables)?;
    if objects.is_empty() || nodes.is_empty() {
        return Ok(());
    }
    let mut work = Vec::new();
    for &node in nodes {
        let missing = missing_on(node, &objects)?;
        if missing.is_empty() {
            continue;
        }
        let mut text = String::from("SET LOCAL check_function_bodies = off;\n");
        for &index in &missing {
            let object = &objects[index];
            let Some(create) = &object.create else {
                let name = &catalog::node(node)?.name;
                return Err(Error::refused(
                    format!(
                        "{} does not exist on node \"{name}\" and cannot be created there from here",
                        object.description
                    ),
                    "Create it on the node as its administrator, then try again.",
                )
                .detail("The table depends on it."));
            };
            text.push_str(create);
            text.push_str(";\n");
        }
        work.push((node, text));
    }
    if !work.is_empty() {
        remote::execute_all(&work)?;
    }
    Ok(())
}

/// Indexes of the objects that a node does not have.
fn missing_on(node: NodeId, objects: &[Object]) -> Result<Vec<usize>> {
    let rows: Vec<String> = objects
        .iter()
        .enumerate()
        .map(|(i, object)| format!("({i}, {})", object.exists))
        .collect();
    let sql = format!(
        "SELECT i FROM (VALUES {}) v (i, there) WHERE NOT there ORDER BY i",
        rows.join(",\n")
    );
    let rows = remote::query(node, &sql, &[])?;
    Ok(rows
        .into_iter()
        .filter_map(|row| row.first()?.as_deref()?.parse().ok())
        .collect())
}

/// `EXISTS` over a catalog whose rows have a name and a namespace.
fn exists_in(catalog: &str, prefix: &str, schema: &str, name: &str, more: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_catalog.{catalog} o JOIN pg_catalog.pg_namespace n ON n.oid = o.{prefix}namespace \
         WHERE n.nspname = {} AND o.{prefix}name = {}{more})",
        quote_literal(schema),
        quote_literal(name)
    )
}
