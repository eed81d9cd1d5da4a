//! Statistics that keep up with the tables by themselves. PostgreSQL's autovacuum sees no change in the empty relation
//! here, so the background worker looks at the sizes of the shards now and then, and analyses a table when it has grown
//! or shrunk by what would make autovacuum do so.

use super::analyze::{self, Options, Source};
use super::totals::{self, ShardTotals, Totals};
use crate::catalog::{self, TableKind};
use crate::ddl;
use crate::error::Result;
use pgrx::pg_sys::{self, Oid};

extern "C" {
    // postmaster/autovacuum.h, not in pgrx's bindings
    static autovacuum_anl_thresh: std::ffi::c_int;
    static autovacuum_anl_scale: f64;
}

/// Distributed tables whose statistics here are out of date. Asks every node once.
pub fn outdated() -> Result<Vec<Oid>> {
    let mut tables = Vec::new();
    for relid in catalog::tables()? {
        if is_distributed(relid)? {
            tables.push(relid);
        }
    }
    let sizes = totals::of_tables(&tables)?;
    Ok(tables
        .into_iter()
        .zip(sizes)
        .filter(|(relid, shards)| is_outdated(&Totals::stored(*relid), shards))
        .map(|(relid, _)| relid)
        .collect())
}

fn is_distributed(relid: Oid) -> Result<bool> {
    Ok(catalog::table(relid)?
        .is_some_and(|table| matches!(table.kind, TableKind::Distributed { .. })))
}

fn is_outdated(known: &Totals, shards: &[ShardTotals]) -> bool {
    // SAFETY: settings of the server.
    let (threshold, scale) = unsafe { (f64::from(autovacuum_anl_thresh), autovacuum_anl_scale) };
    let pages: f64 = shards.iter().map(|shard| shard.current_pages).sum();
    let counted = shards
        .iter()
        .all(|shard| shard.rows >= 0.0 || shard.current_pages == 0.0);
    match Totals::grown(shards).filter(|_| counted) {
        Some(now) => {
            (now.rows - known.rows.max(0.0)).abs() > threshold + scale * known.rows.max(0.0)
        }
        // the nodes have not counted them yet
        None if known.rows < 0.0 => pages > 0.0,
        None => (pages - known.pages).abs() > shards.len() as f64 + 2.0 * scale * known.pages,
    }
}

/// Analyses a table as its nodes know it now, unless it is locked by others.
///
/// # Safety
/// In a transaction, with a snapshot.
pub unsafe fn catch_up(relid: Oid) -> Result<()> {
    let lock = pg_sys::ShareUpdateExclusiveLock as i32;
    if !pg_sys::ConditionalLockRelationOid(relid, lock) {
        return Ok(());
    }
    let relation = pg_sys::try_relation_open(relid, pg_sys::NoLock as i32);
    if relation.is_null() {
        return Ok(());
    }
    if is_distributed(relid)? {
        analyze::collect(relation, &[], Options::default(), Source::AsGrown)?;
    }
    pg_sys::relation_close(relation, pg_sys::NoLock as i32);
    Ok(())
}

/// Brings the numbers of rows and pages of a table here, and its statistics if they are out of date by then.
pub fn refresh_numbers(relid: Oid) -> Result<()> {
    ddl::owned(relid)?;
    if !is_distributed(relid)? {
        return Ok(());
    }
    // SAFETY: the relation exists, and is locked until the end of the transaction.
    unsafe {
        let lock = pg_sys::ShareUpdateExclusiveLock as i32;
        let relation = pg_sys::relation_open(relid, lock);
        update(relation, &Totals::stored(relid))?;
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
    }
    Ok(())
}

/// Brings `pg_class` up to date. Were it only that, nobody would notice later that the statistics are of a time when
/// the table was much smaller or bigger: they come along then.
///
/// # Safety
/// `relation` is a distributed table, open and locked against ANALYZE.
pub unsafe fn update(relation: pg_sys::Relation, known: &Totals) -> Result<()> {
    let shards = totals::of_tables(&[(*relation).rd_id])?
        .pop()
        .unwrap_or_default();
    if is_outdated(known, &shards) {
        return analyze::collect(relation, &[], Options::default(), Source::AsGrown);
    }
    if let Some(totals) = Totals::grown(&shards) {
        totals.store(relation);
        pg_sys::pgstat_report_vacuum((*relation).rd_id, false, totals.rows as i64, 0);
    }
    Ok(())
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::prelude::*;

    #[pg_test]
    fn statistics_are_outdated_when_tables_grow() {
        let shard = |rows: f64, pages: f64| ShardTotals {
            node: 1,
            name: String::new(),
            rows,
            pages,
            all_visible: 0.0,
            current_pages: pages,
        };
        let known = |rows: f64, pages: f64| Totals {
            rows,
            pages,
            all_visible: 0.0,
        };
        assert!(!is_outdated(&known(1000.0, 10.0), &[shard(1100.0, 11.0)]));
        assert!(is_outdated(&known(1000.0, 10.0), &[shard(1200.0, 12.0)]));
        assert!(is_outdated(&known(1000.0, 10.0), &[shard(0.0, 0.0)]));
        // never counted, here or there
        assert!(!is_outdated(&known(-1.0, 0.0), &[shard(-1.0, 0.0)]));
        assert!(is_outdated(&known(-1.0, 0.0), &[shard(-1.0, 1.0)]));
        assert!(!is_outdated(&known(20.0, 1.0), &[shard(-1.0, 1.0)]));
    }
}
