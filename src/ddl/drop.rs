//! What follows when a table is dropped here: its shards and copies are dropped, in the same transaction, and
//! the catalogs forget it.
//!
//! The server's object access hook sees every object that goes, by whatever statement and cascade. What it
//! saw is worked off when that statement is done: only then is it clear whether a column or constraint went
//! with its table, or from a table that stays (which is refused).

use super::shards::Copy;
use super::sql::{quote_identifier, quote_literal, quote_qualified};
use crate::catalog::{self, write, NodeId, Table, TableKind};
use crate::error::Result;
use crate::pg::spi;
use crate::remote;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::rc::Rc;

/// A distributed or reference table that is gone, or about to go.
pub struct Gone {
    pub relid: pg_sys::Oid,
    pub schema: String,
    pub name: String,
    pub table: Rc<Table>,
}

enum Seen {
    Table(Gone),
    Part {
        relid: pg_sys::Oid,
        /// As PostgreSQL describes it: `column a of table t`.
        description: String,
        /// The table that it references, if it is a foreign key.
        referenced: Option<pg_sys::Oid>,
    },
}

thread_local! {
    static SEEN: RefCell<Vec<Seen>> = const { RefCell::new(Vec::new()) };
    /// Utility statements under way, one in another.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// DROP EXTENSION has cleaned up already, and the catalogs are going.
    static LEAVING: Cell<bool> = const { Cell::new(false) };
}

/// A utility statement under way. Dropped without `finish` (an error), it forgets what was seen.
pub struct Statement {
    seen_before: usize,
    leaving_before: bool,
}

impl Statement {
    pub fn start() -> Statement {
        DEPTH.set(DEPTH.get() + 1);
        Statement {
            seen_before: SEEN.with_borrow(Vec::len),
            leaving_before: LEAVING.get(),
        }
    }

    /// Does the work that the statement left.
    pub fn finish(self) -> Result<()> {
        let seen = SEEN.with_borrow_mut(|seen| seen.split_off(self.seen_before.min(seen.len())));
        if seen.is_empty() || LEAVING.get() {
            return Ok(());
        }
        work_off(seen)
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        LEAVING.set(self.leaving_before);
        SEEN.with_borrow_mut(|seen| seen.truncate(self.seen_before));
    }
}

/// Whether DROP EXTENSION is under way: the nodes are clean, and the catalogs are going.
pub fn is_leaving() -> bool {
    LEAVING.get()
}

/// The object access hook's part: an object is about to be dropped.
pub fn about_to_drop(
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub_object: i32,
    internal: bool,
) -> Result<()> {
    if LEAVING.get() || !catalog::installed() {
        return Ok(());
    }
    let Some(seen) = look_at(class, object, sub_object, internal)? else {
        return Ok(());
    };
    if DEPTH.get() == 0 {
        // dropped by C code that is no utility statement: there is no later
        return work_off(vec![seen]);
    }
    SEEN.with_borrow_mut(|all| all.push(seen));
    Ok(())
}

/// Catalogs whose rows are parts of a table, with the column that says of which one.
const PARTS: [(&str, &str); 5] = [
    ("pg_constraint", "conrelid"),
    ("pg_policy", "polrelid"),
    ("pg_statistic_ext", "stxrelid"),
    ("pg_trigger", "tgrelid"),
    ("pg_rewrite", "ev_class"),
];

const CONSTRAINT_RELATION: u32 = 2606;
const POLICY_RELATION: u32 = 3256;
const REWRITE_RELATION: u32 = 2618;

fn look_at(
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub_object: i32,
    internal: bool,
) -> Result<Option<Seen>> {
    let relation = class == pg_sys::RelationRelationId;
    if relation && sub_object == 0 {
        if let Some(table) = catalog::table(object)? {
            return Ok(Some(Seen::Table(Gone::new(object, table)?)));
        }
    }
    if internal {
        return Ok(None);
    }
    let mut referenced = None;
    let owner = if relation && sub_object > 0 {
        Some(object)
    } else if relation {
        // SAFETY: a syscache look-up; of anything but an index it finds nothing.
        let table = unsafe { pg_sys::IndexGetRelation(object, true) };
        (table != pg_sys::InvalidOid).then_some(table)
    } else {
        let part = match u32::from(class) {
            CONSTRAINT_RELATION => 0,
            POLICY_RELATION => 1,
            class if class == u32::from(pg_sys::StatisticExtRelationId) => 2,
            class if class == u32::from(pg_sys::TriggerRelationId) => 3,
            REWRITE_RELATION => 4,
            _ => return Ok(None),
        };
        let (catalog, column) = PARTS[part];
        let more = match part {
            0 => "confrelid::pg_catalog.text",
            3 => "CASE WHEN tgisinternal THEN 'internal' END",
            _ => "NULL",
        };
        let row = spi::query_one(
            &format!("SELECT {column}::pg_catalog.oid::pg_catalog.text, {more} FROM pg_catalog.{catalog} WHERE oid = $1::pg_catalog.oid"),
            &[Some(&u32::from(object).to_string())],
        )?
        .unwrap_or_default();
        let oid = |index: usize| -> Option<u32> { row.get(index)?.as_deref()?.parse().ok() };
        if part == 3 && row.get(1).is_some_and(Option::is_some) {
            return Ok(None);
        }
        if part == 0 {
            referenced = oid(1).filter(|oid| *oid != 0).map(pg_sys::Oid::from);
        }
        oid(0).map(pg_sys::Oid::from)
    };
    let Some(relid) = owner else {
        return Ok(None);
    };
    if catalog::table(relid)?.is_none() {
        return Ok(None);
    }
    let address = pg_sys::ObjectAddress {
        classId: class,
        objectId: object,
        objectSubId: sub_object,
    };
    // SAFETY: the object still exists; the description is a palloc'd C string.
    let description = unsafe {
        CStr::from_ptr(pg_sys::getObjectDescription(&address, false))
            .to_string_lossy()
            .into_owned()
    };
    Ok(Some(Seen::Part {
        relid,
        description,
        referenced,
    }))
}

fn work_off(seen: Vec<Seen>) -> Result<()> {
    let mut gone = Vec::new();
    let mut parts = Vec::new();
    for seen in seen {
        match seen {
            Seen::Table(table) => gone.push(table),
            Seen::Part {
                relid,
                description,
                referenced,
            } => parts.push((relid, description, referenced)),
        }
    }
    let is_gone = |relid: pg_sys::Oid| gone.iter().any(|table: &Gone| table.relid == relid);
    for (relid, description, referenced) in parts {
        // a foreign key to a table that is dropped with CASCADE goes on the nodes in the same way
        if !is_gone(relid) && !referenced.is_some_and(is_gone) {
            return Err(super::refuse::not_yet(
                &format!("cannot drop {description}"),
                relid,
            ));
        }
    }
    write::lock_tables()?;
    forget(&gone)
}

impl Gone {
    pub fn new(relid: pg_sys::Oid, table: Rc<Table>) -> Result<Gone> {
        // SAFETY: the relation still exists; both names are palloc'd C strings.
        let schema = unsafe {
            CStr::from_ptr(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relid)))
                .to_string_lossy()
                .into_owned()
        };
        Ok(Gone {
            relid,
            schema,
            name: super::checks::relation_name(relid)?,
            table,
        })
    }
}

/// Deletes `tables` from the catalogs, together with the colocation groups that have no tables any more, and
/// drops their shards and copies. The caller holds `lock_tables`.
pub fn forget(tables: &[Gone]) -> Result<()> {
    make_local(tables)?;
    drop_from_nodes(tables)
}

/// From here on these are local tables; what they have on nodes is unreachable.
pub fn make_local(tables: &[Gone]) -> Result<()> {
    for gone in tables {
        write::delete_table(gone.relid)?;
    }
    Ok(())
}

/// Drops the shards and copies of tables that the catalogs have forgotten.
pub fn drop_from_nodes(tables: &[Gone]) -> Result<()> {
    let mut copies = Vec::new();
    for gone in tables {
        for copy in Copy::of(&gone.table)? {
            copies.push((gone, copy));
        }
    }
    drop_copies(&copies)?;
    let mut groups: Vec<_> = tables
        .iter()
        .filter_map(|gone| gone.table.distribution().map(|(_, group)| group.id))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        if catalog::tables_of(group)?.is_empty() {
            write::delete_colocation(group)?;
        }
    }
    Ok(())
}

/// Drops copies, and the schemas of shards that are empty then.
fn drop_copies(copies: &[(&Gone, Copy)]) -> Result<()> {
    let mut names: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
    let mut schemas: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
    for (gone, copy) in copies {
        let node = catalog::node(copy.node)?;
        let schema = copy.schema_of(&gone.schema, &node);
        names
            .entry(copy.node)
            .or_default()
            .push(quote_qualified(&schema, &gone.name));
        let own = copy.group.is_some() || node.is_coordinator;
        let schemas = schemas.entry(copy.node).or_default();
        if own && !schemas.contains(&schema) && !still_used(gone)? {
            schemas.push(schema);
        }
    }
    let work: Vec<(NodeId, String)> = names
        .into_iter()
        .map(|(node, names)| {
            let mut text = format!(
                "SET LOCAL client_min_messages = warning;\nDROP TABLE IF EXISTS {} CASCADE;\n",
                names.join(", ")
            );
            let schemas = schemas.remove(&node).unwrap_or_default();
            if !schemas.is_empty() {
                text.push_str(&drop_empty_schemas(&schemas));
            }
            (node, text)
        })
        .collect();
    if !work.is_empty() {
        remote::execute_all(&work)?;
    }
    Ok(())
}

/// Whether another table of the same kind keeps the schemas of this one's copies.
fn still_used(gone: &Gone) -> Result<bool> {
    let others = match &gone.table.kind {
        TableKind::Distributed { colocation, .. } => catalog::tables_of(colocation.id)?,
        TableKind::Reference => catalog::reference_tables()?,
    };
    for relid in others {
        if relid != gone.relid && super::checks::schema_name(relid)? == gone.schema {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Drops schemas, except those that somebody has put something else into.
fn drop_empty_schemas(schemas: &[String]) -> String {
    let drops: String = schemas
        .iter()
        .map(|schema| {
            format!(
                "BEGIN DROP SCHEMA IF EXISTS {}; \
                 EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN NULL; END; ",
                quote_identifier(schema)
            )
        })
        .collect();
    format!("DO {};\n", quote_literal(&format!("BEGIN {drops}END")))
}

/// Before DROP EXTENSION: no node keeps anything. The shells become ordinary, empty tables.
pub fn everything() -> Result<()> {
    let mut tables = Vec::new();
    for relid in catalog::tables()? {
        // SAFETY: the lock goes with the transaction; keeps out those who still use the shards.
        unsafe { pg_sys::LockRelationOid(relid, pg_sys::AccessExclusiveLock as i32) }
        if let Some(table) = catalog::table(relid)? {
            tables.push(Gone::new(relid, table)?);
        }
    }
    write::lock_tables()?;
    let shards = tables
        .iter()
        .filter(|gone| !gone.table.is_reference())
        .count();
    if shards > 0 {
        pgrx::notice!(
            "the rows of {} go with the shards",
            super::load::counted(shards as u64, "distributed table")
        );
    }
    forget(&tables)?;
    LEAVING.set(true);
    Ok(())
}

/// Drops a node's copies of all reference tables: the node is being removed.
pub fn drop_reference_tables_from(node: NodeId) -> Result<()> {
    let mut tables = Vec::new();
    for relid in catalog::reference_tables()? {
        if let Some(table) = catalog::table(relid)? {
            tables.push(Gone::new(relid, table)?);
        }
    }
    let all: Vec<_> = tables
        .iter()
        .map(|table| (table, Copy { node, group: None }))
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    let node = catalog::node(node)?;
    let mut text = String::from("SET LOCAL client_min_messages = warning;\n");
    let names: Vec<String> = all
        .iter()
        .map(|(gone, copy)| quote_qualified(&copy.schema_of(&gone.schema, &node), &gone.name))
        .collect();
    text.push_str(&format!(
        "DROP TABLE IF EXISTS {} CASCADE;\n",
        names.join(", ")
    ));
    if node.is_coordinator {
        let mut schemas: Vec<String> = all
            .iter()
            .map(|(gone, copy)| copy.schema_of(&gone.schema, &node))
            .collect();
        schemas.sort();
        schemas.dedup();
        text.push_str(&drop_empty_schemas(&schemas));
    }
    remote::execute(node.id, &text).map(|_| ())
}
