//! How big the shards are: asked of each node once, for all tables or for one.

use pgrx::pg_sys;
use std::collections::HashMap;
use std::ffi::CStr;

use crate::catalog::{self, Node, ShardGroupId, TableKind};
use crate::error::Result;
use crate::pg::spi;
use crate::remote;

/// A shard, or a node's copy of a reference table, with everything it takes on disk.
pub struct ShardSize {
    pub relid: pg_sys::Oid,
    /// None: a copy of a reference table.
    pub group: Option<ShardGroupId>,
    pub node: catalog::NodeId,
    /// Bytes; none: the node could not be asked, or the shard is not there.
    pub bytes: Option<i64>,
}

/// Sizes of all shards. A node that cannot be asked gets a warning and no sizes.
pub fn shard_sizes() -> Result<Vec<ShardSize>> {
    let mut sizes = Vec::new();
    let tables: Vec<_> = catalog::tables()?
        .into_iter()
        .filter_map(|relid| catalog::table(relid).transpose())
        .collect::<Result<_>>()?;
    for node in catalog::nodes()? {
        // Shards of this node: schema and name there, and which they are.
        let mut shards: Vec<((String, String), usize)> = Vec::new();
        for table in &tables {
            let Some((schema, name)) = qualified_name(table.relid) else {
                continue;
            };
            let groups: Vec<Option<ShardGroupId>> = match &table.kind {
                TableKind::Reference => vec![None],
                TableKind::Distributed { colocation, .. } => {
                    let mut here = Vec::new();
                    for group in &colocation.groups {
                        if catalog::group_node(group.id)? == node.id {
                            here.push(Some(group.id));
                        }
                    }
                    here
                }
            };
            for group in groups {
                let shard_schema = match group {
                    Some(group) => catalog::shard_schema(&schema, group),
                    None => catalog::reference_schema(&schema, &node),
                };
                shards.push(((shard_schema, name.clone()), sizes.len()));
                sizes.push(ShardSize {
                    relid: table.relid,
                    group,
                    node: node.id,
                    bytes: None,
                });
            }
        }
        if shards.is_empty() {
            continue;
        }
        match ask(&node, &shards) {
            Ok(found) => {
                for (shard, i) in shards {
                    sizes[i].bytes = found.get(&shard).copied();
                }
            }
            Err(error) => error.warn(),
        }
    }
    Ok(sizes)
}

/// The total sizes of the relations that are there, by schema and name. Partitions are added up.
fn ask(
    node: &Node,
    shards: &[((String, String), usize)],
) -> Result<HashMap<(String, String), i64>> {
    let schemas = text_array(shards.iter().map(|((schema, _), _)| schema.as_str()));
    let names = text_array(shards.iter().map(|((_, name), _)| name.as_str()));
    let rows = remote::query(
        node.id,
        "SELECT n.nspname, c.relname, pg_catalog.pg_total_relation_size(c.oid) + coalesce((\
           SELECT pg_catalog.sum(pg_catalog.pg_total_relation_size(p.relid)) \
           FROM pg_catalog.pg_partition_tree(c.oid) p WHERE p.relid <> c.oid), 0)::int8 \
         FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS shard(schema, name) \
         JOIN pg_catalog.pg_namespace n ON n.nspname = shard.schema \
         JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = shard.name",
        &[Some(&schemas), Some(&names)],
    )?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let [schema, name, size]: [Option<String>; 3] = row.try_into().ok()?;
            Some(((schema?, name?), size?.parse().ok()?))
        })
        .collect())
}

/// What of a relation is measured, as PostgreSQL's functions divide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The rows alone.
    Relation,
    /// With TOAST.
    Table,
    /// With TOAST and indexes.
    Total,
}

impl Measure {
    fn function(self) -> &'static str {
        match self {
            Measure::Relation => "pg_catalog.pg_relation_size",
            Measure::Table => "pg_catalog.pg_table_size",
            Measure::Total => "pg_catalog.pg_total_relation_size",
        }
    }

    /// Bytes of a relation here; none: it is gone.
    fn here(self, relid: pg_sys::Oid) -> Result<Option<i64>> {
        let relid = relid.to_u32().to_string();
        let sql = format!(
            "SELECT {}($1::pg_catalog.oid::pg_catalog.regclass)",
            self.function()
        );
        let row = spi::query_one(&sql, &[Some(&relid)])?;
        Ok(row.and_then(|mut row| row.pop().flatten()?.parse().ok()))
    }
}

/// Bytes of all shards or copies of a table, or of one of its indexes; of a local relation, its own. None: there is no
/// such relation. A node that fails is an error, or else gets a warning and counts nothing.
pub fn relation_size(
    relid: pg_sys::Oid,
    measure: Measure,
    fail_on_error: bool,
) -> Result<Option<i64>> {
    // SAFETY: a syscache look-up.
    let table = match unsafe { pg_sys::IndexGetRelation(relid, true) } {
        pg_sys::InvalidOid => relid,
        table => table,
    };
    let shards = match catalog::table(table)? {
        Some(found) => shards_of(&found)?,
        None => return measure.here(relid),
    };
    let Some((schema, name)) = qualified_name(relid) else {
        return Ok(None);
    };
    let mut sum = 0;
    for node in catalog::nodes()? {
        let names: Vec<String> = shards
            .iter()
            .filter(|(at, _)| *at == node.id)
            .map(|(_, group)| {
                let schema = match group {
                    Some(group) => catalog::shard_schema(&schema, *group),
                    None => catalog::reference_schema(&schema, &node),
                };
                format!("{}.{}", quoted(&schema), quoted(&name))
            })
            .collect();
        if names.is_empty() {
            continue;
        }
        match measure_on(&node, &names, measure) {
            Ok(bytes) => sum += bytes,
            Err(error) if fail_on_error => return Err(error),
            Err(error) => error.warn(),
        }
    }
    Ok(Some(sum))
}

/// Where a table's shards or copies are.
fn shards_of(table: &catalog::Table) -> Result<Vec<(catalog::NodeId, Option<ShardGroupId>)>> {
    match &table.kind {
        TableKind::Reference => Ok(catalog::nodes()?.iter().map(|n| (n.id, None)).collect()),
        TableKind::Distributed { colocation, .. } => colocation
            .groups
            .iter()
            .map(|group| Ok((catalog::group_node(group.id)?, Some(group.id))))
            .collect(),
    }
}

fn measure_on(node: &Node, names: &[String], measure: Measure) -> Result<i64> {
    let function = measure.function();
    let names = text_array(names.iter().map(String::as_str));
    let rows = remote::query(
        node.id,
        &format!(
            "SELECT coalesce(pg_catalog.sum(coalesce((\
               SELECT pg_catalog.sum({function}(p.relid)) FROM pg_catalog.pg_partition_tree(c) p), {function}(c))), 0)::int8 \
             FROM pg_catalog.unnest($1::text[]) AS shard(name) CROSS JOIN LATERAL pg_catalog.to_regclass(shard.name) AS c"
        ),
        &[Some(&names)],
    )?;
    let first = rows.into_iter().next().and_then(|mut row| row.pop()?);
    Ok(first.and_then(|text| text.parse().ok()).unwrap_or(0))
}

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The text form of a text[].
pub fn text_array<'a>(values: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = values
        .map(|value| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    format!("{{{}}}", quoted.join(","))
}

/// Schema and name of a relation; none if it was dropped meanwhile.
pub fn qualified_name(relid: pg_sys::Oid) -> Option<(String, String)> {
    // SAFETY: syscache look-ups that return palloc'd strings or NULL.
    unsafe {
        let name = pg_sys::get_rel_name(relid);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relid));
        if name.is_null() || schema.is_null() {
            return None;
        }
        Some((
            CStr::from_ptr(schema).to_string_lossy().into_owned(),
            CStr::from_ptr(name).to_string_lossy().into_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn arrays_are_quoted() {
        assert_eq!(
            super::text_array(["a", "b\"c\\d"].into_iter()),
            r#"{"a","b\"c\\d"}"#
        );
        assert_eq!(super::text_array([].into_iter()), "{}");
    }
}
