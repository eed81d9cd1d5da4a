//! Reference tables on nodes that come and go.

use super::rebuild::{self, Target};
use super::shards::{target_of, Builder, Copy};
use super::{checks, dependencies, load};
use crate::catalog::{self, write, NodeId};
use crate::error::Result;
use crate::pg::spi;
use crate::remote;
use pgrx::pg_sys;

pub use super::drop::drop_reference_tables_from;

/// Creates what tables depend on, and copies every reference table with its rows, on a node that was just added.
/// The caller holds `catalog::write::lock_nodes`; writers of reference tables wait until its transaction ends.
pub fn replicate_reference_tables_to(node: NodeId) -> Result<()> {
    write::lock_tables()?;
    let mut tables = Vec::new();
    for relid in catalog::reference_tables()? {
        // SAFETY: the lock goes with the transaction.
        unsafe { pg_sys::LockRelationOid(relid, pg_sys::ShareLock as i32) }
        if catalog::table(relid)?.is_some_and(|table| table.is_reference()) {
            tables.push(relid);
        }
    }
    if !catalog::node(node)?.is_coordinator {
        dependencies::create_on(&[node], &catalog::tables()?)?;
    }
    if tables.is_empty() {
        return Ok(());
    }
    let _settings = spi::Settings::portable_values();
    let mut ddl = Vec::new();
    for relid in &tables {
        ddl.push(rebuild::rebuild_table(
            *relid,
            Target::ReferenceCopy,
            &target_of,
        )?);
    }
    dependencies::ensure(&tables, &[node])?;
    let copies = [Copy { node, group: None }];
    let builder = Builder::new(ddl, &copies)?;
    remote::execute_all(&builder.create(&copies))?;
    let node = [catalog::node(node)?];
    for relid in &tables {
        load::to_reference_copies(*relid, &checks::relation_name(*relid)?, &node)?;
    }
    remote::execute_all(&builder.complete(&copies))?;
    Ok(())
}
