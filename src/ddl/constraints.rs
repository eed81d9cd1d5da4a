//! `SET CONSTRAINTS`, carried to the copies of tables: what it says holds on nodes, too, until the transaction ends, and
//! what is to be checked at once is checked there now.

use super::checks::schema_name;
use super::shards::Copy;
use super::sql::quote_identifier;
use crate::catalog::{self, NodeId};
use crate::error::Result;
use crate::pg::{list, spi};
use crate::remote;
use pgrx::pg_sys::{self, Oid};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;

/// Deferrable constraints: table and name, of one name in one schema or all.
const CONSTRAINTS: &str = "
SELECT conrelid::pg_catalog.text, conname
  FROM pg_catalog.pg_constraint
 WHERE conrelid <> 0 AND condeferrable
   AND ($1 IS NULL OR conname = $1 AND connamespace = $2::pg_catalog.oid)";

/// After SET CONSTRAINTS was done here.
///
/// # Safety
/// `statement` is valid.
pub unsafe fn after_set_constraints(statement: *const pg_sys::ConstraintsSetStmt) -> Result<()> {
    let tables = catalog::tables()?;
    if tables.is_empty() {
        return Ok(());
    }
    let mode = if (*statement).deferred {
        "DEFERRED"
    } else {
        "IMMEDIATE"
    };
    let all = (*statement).constraints.is_null();
    let found = if all {
        deferrable(None)?
    } else {
        let mut found = Vec::new();
        for name in list::iter::<pg_sys::RangeVar>((*statement).constraints) {
            found.append(&mut named(name)?);
        }
        found
    };
    let mut names: BTreeMap<NodeId, BTreeSet<String>> = BTreeMap::new();
    for (relid, name) in found {
        let Some(table) = catalog::table(relid)?.filter(|_| tables.contains(&relid)) else {
            continue;
        };
        let schema = schema_name(relid)?;
        for copy in Copy::of(&table)? {
            let node = catalog::node(copy.node)?;
            let schema = quote_identifier(&copy.schema_of(&schema, &node));
            names
                .entry(copy.node)
                .or_default()
                .insert(format!("{schema}.{}", quote_identifier(&name)));
        }
    }
    let work: Vec<(NodeId, String)> = names
        .into_iter()
        .map(|(node, names)| {
            let names = if all {
                "ALL".to_owned()
            } else {
                names.into_iter().collect::<Vec<_>>().join(", ")
            };
            (node, format!("SET CONSTRAINTS {names} {mode}"))
        })
        .collect();
    remote::execute_all(&work).map(drop)
}

/// The constraints that a name means: those of the first schema of the search path that has some.
unsafe fn named(name: *mut pg_sys::RangeVar) -> Result<Vec<(Oid, String)>> {
    let constraint = CStr::from_ptr((*name).relname).to_string_lossy();
    let schemas = if (*name).schemaname.is_null() {
        list::oids(pg_sys::fetch_search_path(true))
    } else {
        vec![pg_sys::LookupExplicitNamespace((*name).schemaname, false)]
    };
    for schema in schemas {
        let found = deferrable(Some((&constraint, schema)))?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

fn deferrable(name: Option<(&str, Oid)>) -> Result<Vec<(Oid, String)>> {
    let schema = name.map(|(_, schema)| schema.to_u32().to_string());
    let rows = spi::query(
        CONSTRAINTS,
        &[name.map(|(name, _)| name), schema.as_deref()],
    )?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let [relid, constraint] = <[Option<String>; 2]>::try_from(row).ok()?;
            Some((Oid::from(relid?.parse::<u32>().ok()?), constraint?))
        })
        .collect())
}
