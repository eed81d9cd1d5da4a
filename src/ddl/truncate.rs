//! TRUNCATE, done here first (with their checks, locks and cascades), then on every copy.

use super::shards::on_nodes;
use crate::catalog::NodeId;
use crate::error::Result;
use crate::remote;
use pgrx::pg_sys;
use std::collections::BTreeMap;

/// The tables of the list and, with CASCADE, all that reference them.
///
/// # Safety
/// `relids` are existing relations that the statement has locked.
pub unsafe fn with_referencing(relids: &[pg_sys::Oid], cascade: bool) -> Vec<pg_sys::Oid> {
    let mut all = relids.to_vec();
    if !cascade {
        return all;
    }
    let mut list: *mut pg_sys::List = std::ptr::null_mut();
    for relid in relids {
        list = pg_sys::lappend_oid(list, *relid);
    }
    loop {
        let more = pg_sys::heap_truncate_find_FKs(list);
        if more.is_null() {
            return all;
        }
        for i in 0..(*more).length as usize {
            let relid = (*(*more).elements.add(i)).oid_value;
            all.push(relid);
            list = pg_sys::lappend_oid(list, relid);
        }
    }
}

/// Empties the copies of those of `relids` that have some: one statement per node, because tables that
/// reference each other are emptied together or not at all.
pub fn truncate(relids: &[pg_sys::Oid]) -> Result<()> {
    let mut names: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
    for relid in relids {
        for (node, name) in on_nodes(*relid)?.unwrap_or_default() {
            let names = names.entry(node).or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let work: Vec<(NodeId, String)> = names
        .into_iter()
        .map(|(node, names)| (node, format!("TRUNCATE TABLE {}", names.join(", "))))
        .collect();
    if work.is_empty() {
        return Ok(());
    }
    remote::execute_all(&work).map(|_| ())
}
