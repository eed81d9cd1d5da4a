//! Range and list shards: a shard group is added to a colocation group, and with it a shard of every one of
//! its tables.

use super::checks;
use super::rebuild::{self, Target};
use super::shards::{target_of, Builder, Copy};
use super::{colocation, dependencies};
use crate::catalog::write::{self, NewBounds};
use crate::catalog::{self, Bounds, Colocation, Method, NodeId, ShardGroupId};
use crate::error::{sqlstate, Error, Result};
use crate::pg::spi;
use crate::remote;
use pgrx::pg_sys;
use std::rc::Rc;

/// The keys that a new shard group is to take, as the user writes them.
pub enum Keys {
    /// From `lower` (inclusive) to `upper` (exclusive); none: unbounded.
    Range(Option<String>, Option<String>),
    /// Values, of which one may be NULL.
    List(Vec<Option<String>>),
    /// What no other shard takes.
    Default,
}

/// Adds a shard to `relid` and every table colocated with it, on `node` or where there is most room.
/// If the same shard is there already, answers that one.
pub fn add_shard(relid: pg_sys::Oid, keys: &Keys, node: Option<&str>) -> Result<ShardGroupId> {
    let name = checks::owned(relid)?;
    let group = locked_group(relid, &name)?;
    match (keys, group.method) {
        (Keys::Range(..), Method::Range)
        | (Keys::List(_), Method::List)
        | (Keys::Default, Method::Range | Method::List) => {}
        (_, method) => {
            return Err(Error::new(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("table \"{name}\" is distributed by {}", method.name()),
            )
            .hint(match method {
                Method::Hash => "A table distributed by hash has all its shards from the start.",
                Method::Range => "Use shard_ext.add_range_shard or shard_ext.add_default_shard.",
                Method::List => "Use shard_ext.add_list_shard or shard_ext.add_default_shard.",
            }))
        }
    }
    let new = parse(&group, keys)?;
    if let Some(existing) = same(&group, &new) {
        return already_there(&name, &group, existing, node);
    }
    check_overlap(&name, &group, &new)?;
    let node = choose_node(node)?;
    let _settings = spi::Settings::portable_values();
    let ordinal = group.groups.len() as i32;
    let bounds = to_text(&group, &new);
    let id = write::insert_shard_group(group.id, ordinal, bounds, node)?;
    create_shards(&group, &new, id, node)?;
    Ok(id)
}

/// The group of a distributed table, with all its tables locked against writes and the group against change.
fn locked_group(relid: pg_sys::Oid, name: &str) -> Result<Rc<Colocation>> {
    // SAFETY: raises in a read-only transaction.
    unsafe { pg_sys::PreventCommandIfReadOnly(c"adding a shard".as_ptr()) };
    let group = || -> Result<Rc<Colocation>> {
        let table = catalog::table(relid)?;
        let found = table
            .as_ref()
            .and_then(|table| table.distribution())
            .map(|(_, group)| group.clone());
        found.ok_or_else(|| {
            Error::new(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("table \"{name}\" is not a distributed table"),
            )
            .hint("Distribute it by range or list with create_distributed_table.")
        })
    };
    let before = group()?;
    for relid in catalog::tables_of(before.id)? {
        // SAFETY: keeps writers out until the end of the transaction; in the order of oids.
        unsafe { pg_sys::LockRelationOid(relid, pg_sys::ShareRowExclusiveLock as i32) }
    }
    write::lock_tables()?;
    group()
}

/// Bounds as datums of the key's type, in the current memory context.
fn parse(group: &Colocation, keys: &Keys) -> Result<Bounds> {
    let datum = |text: &String| catalog::parse_bound(group.key_type, text);
    Ok(match keys {
        Keys::Range(lower, upper) => {
            let lower = lower.as_ref().map(datum).transpose()?;
            let upper = upper.as_ref().map(datum).transpose()?;
            if let (Some(lower), Some(upper)) = (lower, upper) {
                if group.compare(lower, upper).is_ge() {
                    return Err(Error::new(
                        sqlstate::INVALID_PARAMETER_VALUE,
                        "empty range bound specified for the shard",
                    )
                    .detail(format!(
                        "Lower bound {} is greater than or equal to upper bound {}.",
                        catalog::bound_text(group.key_type, lower),
                        catalog::bound_text(group.key_type, upper)
                    )));
                }
            }
            Bounds::Range { lower, upper }
        }
        Keys::List(texts) => {
            let mut values: Vec<pg_sys::Datum> = Vec::new();
            for text in texts.iter().flatten() {
                let value = datum(text)?;
                if !values
                    .iter()
                    .any(|other| group.compare(*other, value).is_eq())
                {
                    values.push(value);
                }
            }
            if texts.is_empty() {
                return Err(Error::new(
                    sqlstate::INVALID_PARAMETER_VALUE,
                    "a list shard needs at least one value",
                )
                .hint("For the keys of no other shard use shard_ext.add_default_shard."));
            }
            Bounds::List {
                values,
                null: texts.iter().any(Option::is_none),
            }
        }
        Keys::Default => Bounds::Default,
    })
}

/// The shard group with the very same bounds.
fn same(group: &Colocation, new: &Bounds) -> Option<ShardGroupId> {
    let equal = |a: Option<pg_sys::Datum>, b: Option<pg_sys::Datum>| match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => group.compare(a, b).is_eq(),
        _ => false,
    };
    group
        .groups
        .iter()
        .find(|existing| match (&existing.bounds, new) {
            (
                Bounds::Range { lower, upper },
                Bounds::Range {
                    lower: new_lower,
                    upper: new_upper,
                },
            ) => equal(*lower, *new_lower) && equal(*upper, *new_upper),
            (
                Bounds::List { values, null },
                Bounds::List {
                    values: new_values,
                    null: new_null,
                },
            ) => {
                null == new_null
                    && values.len() == new_values.len()
                    && new_values.iter().all(|new| {
                        values
                            .iter()
                            .any(|value| group.compare(*value, *new).is_eq())
                    })
            }
            (Bounds::Default, Bounds::Default) => true,
            _ => false,
        })
        .map(|existing| existing.id)
}

/// Tables that were distributed alike share their shards, so a script may add them for each table.
fn already_there(
    name: &str,
    group: &Colocation,
    id: ShardGroupId,
    node: Option<&str>,
) -> Result<ShardGroupId> {
    let place = catalog::node(catalog::group_node(id)?)?;
    if node.is_some_and(|node| node != place.name) {
        return Err(Error::new(
            sqlstate::DUPLICATE_OBJECT,
            format!(
                "table \"{name}\" has this shard already, on node \"{}\"",
                place.name
            ),
        )
        .detail(format!(
            "It is in shard group {id} of colocation group {}.",
            group.id
        ))
        .hint("Distribute the table with colocate_with => 'none' to give it shards of its own."));
    }
    pgrx::notice!("table \"{name}\" has this shard already, skipping");
    Ok(id)
}

fn check_overlap(name: &str, group: &Colocation, new: &Bounds) -> Result<()> {
    let text = |datum: pg_sys::Datum| catalog::bound_text(group.key_type, datum);
    let range = |lower: Option<pg_sys::Datum>, upper: Option<pg_sys::Datum>| {
        format!(
            "from {} to {}",
            lower.map_or("MINVALUE".to_owned(), text),
            upper.map_or("MAXVALUE".to_owned(), text)
        )
    };
    for existing in &group.groups {
        let clash = match (&existing.bounds, new) {
            (
                Bounds::Range { lower, upper },
                Bounds::Range {
                    lower: new_lower,
                    upper: new_upper,
                },
            ) => {
                let before = |end: &Option<pg_sys::Datum>, start: &Option<pg_sys::Datum>| matches!((end, start), (Some(end), Some(start)) if group.compare(*end, *start).is_le());
                (!before(upper, new_lower) && !before(new_upper, lower))
                    .then(|| range(*lower, *upper))
            }
            (
                Bounds::List { values, null },
                Bounds::List {
                    values: new_values,
                    null: new_null,
                },
            ) => {
                let shared = new_values.iter().find(|new| {
                    values
                        .iter()
                        .any(|value| group.compare(*value, **new).is_eq())
                });
                match shared {
                    Some(value) => Some(text(*value)),
                    None => (*null && *new_null).then(|| "NULL".to_owned()),
                }
            }
            _ => None,
        };
        if let Some(clash) = clash {
            return Err(Error::new(
                sqlstate::INVALID_OBJECT_DEFINITION,
                format!("the new shard of table \"{name}\" would overlap another one"),
            )
            .detail(format!(
                "Shard group {} takes the keys {clash}.",
                existing.id
            ))
            .hint(
                "Tables of one colocation group share their shards; a table distributed with \
                   colocate_with => 'none' has its own.",
            ));
        }
    }
    Ok(())
}

/// The named node, or the one with the fewest shard groups.
fn choose_node(name: Option<&str>) -> Result<NodeId> {
    if let Some(name) = name {
        return match catalog::node_named(name)? {
            Some(node) => Ok(node.id),
            None => Err(Error::new(
                sqlstate::UNDEFINED_OBJECT,
                format!("node \"{name}\" does not exist"),
            )
            .hint("The view shard_ext.nodes lists the nodes.")),
        };
    }
    let mut best = None;
    for node in colocation::nodes_for_shards()? {
        let groups = catalog::groups_on(node)?.len();
        if best.is_none_or(|(least, _)| groups < least) {
            best = Some((groups, node));
        }
    }
    best.map(|(_, node)| node)
        .ok_or_else(|| Error::internal("no node for a shard"))
}

fn to_text(group: &Colocation, bounds: &Bounds) -> NewBounds {
    let text = |datum: &pg_sys::Datum| catalog::bound_text(group.key_type, *datum);
    match bounds {
        Bounds::Hash { lo, hi } => NewBounds::Hash { lo: *lo, hi: *hi },
        Bounds::Range { lower, upper } => NewBounds::Range {
            lower: lower.as_ref().map(text),
            upper: upper.as_ref().map(text),
        },
        Bounds::List { values, null } => NewBounds::List {
            values: values.iter().map(text).collect(),
            null: *null,
        },
        Bounds::Default => NewBounds::Default,
    }
}

/// The new shard of every table of the group, with the rows that the default shard has kept for it.
fn create_shards(group: &Colocation, new: &Bounds, id: ShardGroupId, node: NodeId) -> Result<()> {
    let tables = catalog::tables_of(group.id)?;
    let mut ddl = Vec::new();
    for relid in &tables {
        ddl.push(rebuild::rebuild_table(*relid, Target::Shard, &target_of)?);
    }
    dependencies::ensure(&tables, &[node])?;
    let copies = [Copy {
        node,
        group: Some(id),
    }];
    let builder = Builder::new(ddl, &copies)?;
    remote::execute_all(&builder.create(&copies))?;
    let default = group
        .groups
        .iter()
        .find(|existing| matches!(existing.bounds, Bounds::Default));
    if let Some(default) = default {
        super::default_shard::move_rows(group, &tables, default, new, (id, node))?;
    }
    remote::execute_all(&builder.complete(&copies)).map(|_| ())
}
