//! `create_distributed_table` and `create_reference_table`: checks, shards on the nodes, the rows moved
//! there, and last the catalogs, which make the table a distributed one for every later statement.

use super::checks::{self, Candidate};
use super::colocation::{self, Colocate};
use super::rebuild::{self, Target};
use super::shards::{target_of, Builder, Copy};
use super::{dependencies, load};
use crate::catalog::{self, write, Method, NodeId};
use crate::error::Result;
use crate::pg::spi;
use crate::remote;
use crate::statistics;
use pgrx::pg_sys;

/// Distributes a local table with its rows.
pub fn distribute_table(
    relid: pg_sys::Oid,
    column: &str,
    method: Method,
    colocate: &Colocate,
    shard_count: Option<i32>,
) -> Result<()> {
    let table = checks::candidate(relid)?;
    let key = checks::key(&table, column, method)?;
    checks::unique_with_key(&table, &key)?;
    let found = colocation::find(colocate, method, &key, shard_count)?;
    checks::foreign_keys_of_distributed(&table, &key, found)?;
    let colocation = match found {
        Some(id) => id,
        None => colocation::create(method, &key, shard_count)?,
    };
    let mut colocation = catalog::colocation(colocation)?;
    if colocation.groups.is_empty() && load::has_rows(relid)? {
        // they have to be somewhere, and move on when shards for their keys are added
        colocation::add_default(&colocation)?;
        colocation = catalog::colocation(colocation.id)?;
        pgrx::notice!(
            "rows of table \"{}\" are in a default shard until shards for their keys are added",
            table.name
        );
    }

    let _settings = spi::Settings::portable_values();
    let copies = Copy::shards(&colocation.groups);
    let builder =
        prepare(&table, Target::Shard, &copies)?.beside(&catalog::tables_of(colocation.id)?)?;
    remote::execute_all(&builder.create(&copies))?;
    let rows = load::to_shards(&table, &key, &colocation)?;
    remote::execute_all(&builder.complete(&copies))?;
    if rows > 0 {
        load::empty(relid)?;
    }
    write::insert_distributed_table(relid, &key.name, colocation.id)?;
    if rows > 0 {
        // SAFETY: the table is locked.
        unsafe { statistics::analyze_loaded(relid, false)? };
        pgrx::notice!(
            "moved {} of table \"{}\" to its shards",
            load::counted(rows, "row"),
            table.name
        );
    }
    Ok(())
}

/// Makes a local table a reference table: it keeps its rows, and every node gets a copy.
pub fn distribute_reference_table(relid: pg_sys::Oid) -> Result<()> {
    let table = checks::candidate(relid)?;
    write::lock_nodes()?;
    checks::foreign_keys_of_reference(&table)?;
    let nodes = catalog::nodes()?;
    if nodes.is_empty() {
        colocation::nodes_for_shards()?;
    }
    let _settings = spi::Settings::portable_values();
    let copies = Copy::references(&nodes);
    let builder =
        prepare(&table, Target::ReferenceCopy, &copies)?.beside(&catalog::reference_tables()?)?;
    remote::execute_all(&builder.create(&copies))?;
    let rows = load::to_reference_copies(relid, &table.name, &nodes)?;
    remote::execute_all(&builder.complete(&copies))?;
    write::insert_reference_table(relid)?;
    if rows > 0 {
        // SAFETY: the table is locked.
        unsafe { statistics::analyze_loaded(relid, true)? };
        pgrx::notice!(
            "copied {} of table \"{}\" to {}",
            load::counted(rows, "row"),
            table.name,
            load::counted(nodes.len() as u64, "node")
        );
    }
    Ok(())
}

/// Reads the table from the catalog and creates on the nodes what it depends on.
fn prepare(table: &Candidate, target: Target, copies: &[Copy]) -> Result<Builder> {
    let relid = table.relid;
    let ddl = rebuild::rebuild_table(relid, target, &|other| {
        if other == relid {
            return Ok(Some(target));
        }
        target_of(other)
    })?;
    let mut nodes: Vec<NodeId> = copies.iter().map(|copy| copy.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    dependencies::ensure(&[relid], &nodes)?;
    Builder::new(vec![ddl], copies)
}
