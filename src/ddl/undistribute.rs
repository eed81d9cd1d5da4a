//! `undistribute_table`: the rows come back, the shards go, and the table is an ordinary one again.

use super::checks;
use super::drop::{self, Gone};
use super::load::counted;
use super::unload;
use crate::catalog::{self, write, Table, TableKind};
use crate::error::{sqlstate, Error, Result};
use crate::pg::spi;
use pgrx::pg_sys;
use std::rc::Rc;

/// Undistributes a table; with `cascade` also those that foreign keys tie to it.
pub fn undistribute_table(relid: pg_sys::Oid, cascade: bool) -> Result<()> {
    // SAFETY: raises in a read-only transaction.
    unsafe { pg_sys::PreventCommandIfReadOnly(c"undistributing a table".as_ptr()) };
    lock(relid)?;
    let tied = tied_tables(relid)?;
    if let (Some((other, constraint)), false) = (tied.first(), cascade) {
        let name = checks::relation_name(relid)?;
        return Err(Error::new(
            sqlstate::DEPENDENT_OBJECTS_STILL_EXIST,
            format!(
                "cannot undistribute table \"{name}\" because foreign key \"{constraint}\" ties it to table \"{}\"",
                checks::relation_name(*other)?
            ),
        )
        .hint("Use cascade_via_foreign_keys => true to undistribute both, or drop the foreign key first."));
    }
    let mut relids = vec![relid];
    let mut next = 0;
    while next < relids.len() {
        for (other, _) in tied_tables(relids[next])? {
            if !relids.contains(&other) {
                lock(other)?;
                relids.push(other);
            }
        }
        next += 1;
    }
    write::lock_tables()?;
    let mut tables = Vec::new();
    for relid in referenced_first(&relids)? {
        let table = distributed(relid)?;
        tables.push(Gone::new(relid, table)?);
    }
    let _settings = spi::Settings::portable_values();
    drop::make_local(&tables)?;
    for gone in &tables {
        if let TableKind::Distributed { colocation, .. } = &gone.table.kind {
            let rows = unload::from_shards(gone, colocation)?;
            if rows > 0 {
                pgrx::notice!(
                    "moved {} of table \"{}\" back",
                    counted(rows, "row"),
                    gone.name
                );
            }
        }
    }
    drop::drop_from_nodes(&tables)
}

fn lock(relid: pg_sys::Oid) -> Result<()> {
    checks::owned(relid)?;
    // SAFETY: the lock goes with the transaction.
    unsafe { pg_sys::LockRelationOid(relid, pg_sys::AccessExclusiveLock as i32) }
    checks::owned(relid)?;
    distributed(relid).map(|_| ())
}

fn distributed(relid: pg_sys::Oid) -> Result<Rc<Table>> {
    match catalog::table(relid)? {
        Some(table) => Ok(table),
        None => Err(Error::new(
            sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "table \"{}\" is not distributed",
                checks::relation_name(relid)?
            ),
        )),
    }
}

const FOREIGN_KEYS: &str = "
SELECT k.conname, k.conrelid::pg_catalog.text, k.confrelid::pg_catalog.text
  FROM pg_catalog.pg_constraint k
 WHERE k.contype = 'f' AND $1::pg_catalog.oid IN (k.conrelid, k.confrelid) AND k.conrelid <> k.confrelid
 ORDER BY k.conname";

/// Referencing and referenced table of every foreign key of `relid` or to it.
fn foreign_keys(relid: pg_sys::Oid) -> Result<Vec<(String, pg_sys::Oid, pg_sys::Oid)>> {
    let oid = |text: &String| pg_sys::Oid::from(text.parse::<u32>().unwrap_or(0));
    Ok(
        spi::query(FOREIGN_KEYS, &[Some(&u32::from(relid).to_string())])?
            .iter()
            .filter_map(|row| match row.as_slice() {
                [Some(name), Some(from), Some(to)] => Some((name.clone(), oid(from), oid(to))),
                _ => None,
            })
            .collect(),
    )
}

/// The tables that cannot stay on the nodes when `relid` leaves, each with the foreign key that says so.
/// A local table may reference a reference table, and nothing else on the nodes may reference a local one.
fn tied_tables(relid: pg_sys::Oid) -> Result<Vec<(pg_sys::Oid, String)>> {
    let mut tied = Vec::new();
    for (name, from, to) in foreign_keys(relid)? {
        let other = if from == relid { to } else { from };
        let stays = match catalog::table(other)? {
            None => true,
            Some(table) => from == relid && table.is_reference(),
        };
        if !stays {
            tied.push((other, name));
        }
    }
    Ok(tied)
}

/// In an order in which foreign keys find the rows that they reference.
pub fn referenced_first(relids: &[pg_sys::Oid]) -> Result<Vec<pg_sys::Oid>> {
    let mut left = relids.to_vec();
    let mut ordered = Vec::new();
    while !left.is_empty() {
        let mut ready = None;
        for (i, relid) in left.iter().enumerate() {
            let waits = foreign_keys(*relid)?
                .iter()
                .any(|(_, from, to)| from == relid && left.contains(to));
            if !waits {
                ready = Some(i);
                break;
            }
        }
        // of a circle, which only deferred constraints allow to fill, any may be first
        ordered.push(left.remove(ready.unwrap_or(0)));
    }
    Ok(ordered)
}
