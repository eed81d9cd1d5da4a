//! From facts to shard groups: the pruning that a plan keeps, and the decision whether one group answers all.

use crate::catalog::Colocation;
use crate::error::Result;
use crate::pg::{node, types};
use crate::planner::analysis::{Analysis, Distributed, Fact};
use crate::planner::plan::Prune;
use pgrx::pg_sys::{self, Datum, Node, Oid};
use std::rc::Rc;

/// Where a query goes.
pub struct Route {
    pub colocation: Rc<Colocation>,
    pub prune: Prune,
    /// The expressions that `prune` numbers.
    pub values: Vec<*mut Node>,
    /// One shard group holds every row that the query can need.
    pub single: bool,
}

/// The shard groups that a query needs, from what was found out about it. None when nothing is distributed.
///
/// # Safety
/// The analysed Query is still as it was.
pub unsafe fn route(analysis: &Analysis) -> Result<Option<Route>> {
    let Some(first) = analysis.distributed.first() else {
        return Ok(None);
    };
    let colocation = first.colocation.clone();
    let same_colocation = analysis
        .distributed
        .iter()
        .all(|d| d.colocation.id == colocation.id);
    let mut values = Vec::new();
    if same_colocation {
        if let Some(value) = unsafe { common_value(analysis) } {
            values.push(value);
            return Ok(Some(Route {
                colocation,
                prune: Prune::Equal(0),
                values,
                single: true,
            }));
        }
        if let Some(id) = unsafe { common_group(analysis) } {
            values.push(id);
            return Ok(Some(Route {
                colocation,
                prune: Prune::Group(0),
                values,
                single: true,
            }));
        }
    }
    let mut prunes = Vec::new();
    for table in &analysis.distributed {
        prunes.push(all_of(&analysis.facts_about(table.key), &mut values));
    }
    // What one table needs says nothing of another, in an arm of a UNION say: the query needs the groups of all.
    let prune = or(prunes.clone());
    let single =
        same_colocation && unsafe { constant_single_group(&colocation, &prunes, &prune, &values)? };
    Ok(Some(Route {
        colocation,
        prune,
        values,
        single,
    }))
}

/// An expression that the distribution columns of all tables are equal to.
unsafe fn common_value(analysis: &Analysis) -> Option<*mut Node> {
    let mut candidates: Option<Vec<*mut Node>> = None;
    for table in &analysis.distributed {
        let equal: Vec<*mut Node> = analysis
            .facts_about(table.key)
            .into_iter()
            .filter_map(|fact| match fact {
                Fact::Equal(value) => unsafe {
                    let value_type = types::base_type(pg_sys::exprType(*value));
                    becomes_key(table.colocation.key_type, value_type).then_some(*value)
                },
                _ => None,
            })
            .collect();
        candidates = Some(match candidates {
            None => equal,
            Some(before) => before
                .into_iter()
                .filter(|a| equal.iter().any(|b| unsafe { node::equal(*a, *b) }))
                .collect(),
        });
    }
    candidates?.into_iter().next()
}

/// The shard group that all tables are known to be asked for.
unsafe fn common_group(analysis: &Analysis) -> Option<*mut Node> {
    let of = |table: &Distributed| {
        analysis
            .facts_about(table.key)
            .into_iter()
            .find_map(|fact| match fact {
                Fact::Group(id) => Some(*id),
                _ => None,
            })
    };
    let first = of(analysis.distributed.first()?)?;
    let same = |table| of(table).is_some_and(|id| unsafe { node::equal(first, id) });
    analysis.distributed.iter().all(same).then_some(first)
}

/// With constants only: do all tables need just one group, the same?
///
/// # Safety
/// The values are valid expressions.
pub unsafe fn constant_single_group(
    colocation: &Colocation,
    prunes: &[Prune],
    all: &Prune,
    values: &[*mut Node],
) -> Result<bool> {
    let mut constants = Vec::new();
    for value in values {
        let Some(constant) = (unsafe { node::cast::<pg_sys::Const>(*value) }) else {
            return Ok(false);
        };
        // SAFETY: a Const holds its value, or NULL.
        let (type_oid, datum) = unsafe {
            (
                (*constant).consttype,
                (!(*constant).constisnull).then_some((*constant).constvalue),
            )
        };
        constants.push((type_oid, datum));
    }
    let each: Vec<Vec<usize>> = if prunes.is_empty() {
        vec![groups(colocation, all, &constants)]
    } else {
        prunes
            .iter()
            .map(|prune| groups(colocation, prune, &constants))
            .collect()
    };
    Ok(each
        .iter()
        .all(|found| found.len() == 1 && found == &each[0]))
}

fn all_of(facts: &[&Fact], values: &mut Vec<*mut Node>) -> Prune {
    and(facts.iter().map(|fact| prune_of(fact, values)).collect())
}

fn and(mut prunes: Vec<Prune>) -> Prune {
    prunes.retain(|prune| *prune != Prune::All);
    match prunes.len() {
        0 => Prune::All,
        1 => prunes.remove(0),
        _ => Prune::And(prunes),
    }
}

fn or(prunes: Vec<Prune>) -> Prune {
    let mut different: Vec<Prune> = Vec::new();
    for prune in prunes {
        if prune == Prune::All {
            return Prune::All;
        }
        if !different.contains(&prune) {
            different.push(prune);
        }
    }
    match different.len() {
        0 => Prune::All,
        1 => different.remove(0),
        _ => Prune::Or(different),
    }
}

fn prune_of(fact: &Fact, values: &mut Vec<*mut Node>) -> Prune {
    let mut number = |value: *mut Node| {
        // SAFETY: both are expressions of the analysed query.
        let known = values
            .iter()
            .position(|v| unsafe { node::equal(*v, value) });
        known.unwrap_or_else(|| {
            values.push(value);
            values.len() - 1
        })
    };
    match fact {
        Fact::Equal(value) => Prune::Equal(number(*value)),
        Fact::AnyOf(array) => Prune::AnyOf(number(*array)),
        Fact::Null => Prune::Null,
        Fact::Group(id) => Prune::Group(number(*id)),
        Fact::Below(value, inclusive) => Prune::Below(number(*value), *inclusive),
        Fact::Above(value, inclusive) => Prune::Above(number(*value), *inclusive),
        Fact::And(facts) => and(facts.iter().map(|fact| prune_of(fact, values)).collect()),
        Fact::Or(facts) => Prune::Or(facts.iter().map(|fact| prune_of(fact, values)).collect()),
    }
}

impl Prune {
    /// The same with every expression number shifted, when pruning values follow other expressions.
    pub fn renumbered(&self, map: &impl Fn(usize) -> usize) -> Prune {
        match self {
            Prune::All => Prune::All,
            Prune::Null => Prune::Null,
            Prune::Group(i) => Prune::Group(map(*i)),
            Prune::Equal(i) => Prune::Equal(map(*i)),
            Prune::Key(i) => Prune::Key(map(*i)),
            Prune::AnyOf(i) => Prune::AnyOf(map(*i)),
            Prune::Below(i, inclusive) => Prune::Below(map(*i), *inclusive),
            Prune::Above(i, inclusive) => Prune::Above(map(*i), *inclusive),
            Prune::And(parts) => Prune::And(parts.iter().map(|p| p.renumbered(map)).collect()),
            Prune::Or(parts) => Prune::Or(parts.iter().map(|p| p.renumbered(map)).collect()),
        }
    }
}

/// The shard groups (indexes, ascending) that a pruning leaves, given the values with their types.
pub fn groups(
    colocation: &Colocation,
    prune: &Prune,
    values: &[(Oid, Option<Datum>)],
) -> Vec<usize> {
    let everything = || (0..colocation.groups.len()).collect::<Vec<usize>>();
    match prune {
        Prune::All => everything(),
        Prune::Equal(i) => match values[*i] {
            (_, None) => Vec::new(),
            (type_oid, Some(value)) => equal_groups(colocation, type_oid, value),
        },
        Prune::Key(i) => match values[*i] {
            (_, None) => colocation.group_for(None).into_iter().collect(),
            (type_oid, Some(value)) => equal_groups(colocation, type_oid, value),
        },
        Prune::AnyOf(i) => match values[*i] {
            (_, None) => Vec::new(),
            (type_oid, Some(array)) => {
                let mut found: Vec<usize> = array_elements(type_oid, array)
                    .into_iter()
                    .flat_map(|(element, value)| equal_groups(colocation, element, value))
                    .collect();
                found.sort_unstable();
                found.dedup();
                found
            }
        },
        Prune::Null => colocation.group_for(None).into_iter().collect(),
        Prune::Group(i) => {
            let id = values[*i].1.map(|id| id.value() as i64);
            (0..colocation.groups.len())
                .filter(|group| Some(colocation.groups[*group].id) == id)
                .collect()
        }
        Prune::Below(i, inclusive) => match values[*i] {
            (_, None) => Vec::new(),
            (type_oid, Some(value)) => match key_value(colocation.key_type, type_oid, value) {
                KeyValue::Exact(value) => {
                    colocation.groups_between(None, Some((value, *inclusive)))
                }
                _ => everything(),
            },
        },
        Prune::Above(i, inclusive) => match values[*i] {
            (_, None) => Vec::new(),
            (type_oid, Some(value)) => match key_value(colocation.key_type, type_oid, value) {
                KeyValue::Exact(value) => {
                    colocation.groups_between(Some((value, *inclusive)), None)
                }
                _ => everything(),
            },
        },
        Prune::And(parts) => {
            let mut found = everything();
            for part in parts {
                let allowed = groups(colocation, part, values);
                found.retain(|group| allowed.contains(group));
            }
            found
        }
        Prune::Or(parts) => {
            let mut found: Vec<usize> = parts
                .iter()
                .flat_map(|part| groups(colocation, part, values))
                .collect();
            found.sort_unstable();
            found.dedup();
            found
        }
    }
}

fn equal_groups(colocation: &Colocation, type_oid: Oid, value: Datum) -> Vec<usize> {
    match key_value(colocation.key_type, type_oid, value) {
        KeyValue::Exact(value) => colocation.group_for(Some(value)).into_iter().collect(),
        KeyValue::NoSuchKey => Vec::new(),
        KeyValue::Unknown => (0..colocation.groups.len()).collect(),
    }
}

/// The shard group of the rows whose key equals a value, of a type for which `becomes_key` is true; none: no key does.
pub fn group_of(colocation: &Colocation, type_oid: Oid, value: Datum) -> Option<usize> {
    match key_value(colocation.key_type, types::base_type(type_oid), value) {
        KeyValue::Exact(value) => colocation.group_for(Some(value)),
        _ => None,
    }
}

/// A value seen as a key of the distribution column's type.
enum KeyValue {
    Exact(Datum),
    /// No key can equal it: an int8 beyond the range of an int4 key.
    NoSuchKey,
    Unknown,
}

/// Does a value of the type, compared with a key, say which key that is?
pub fn becomes_key(key_type: Oid, type_oid: Oid) -> bool {
    let is_text = |t: Oid| t == pg_sys::TEXTOID || t == pg_sys::VARCHAROID;
    let is_integer = |t: Oid| matches!(t, pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID);
    type_oid == key_type
        || is_text(key_type) && is_text(type_oid)
        || is_integer(key_type) && is_integer(type_oid)
}

fn key_value(key_type: Oid, type_oid: Oid, value: Datum) -> KeyValue {
    let type_oid = types::base_type(type_oid);
    if !becomes_key(key_type, type_oid) {
        return KeyValue::Unknown;
    }
    let integer = match type_oid {
        pg_sys::INT2OID => value.value() as i16 as i64,
        pg_sys::INT4OID => value.value() as i32 as i64,
        pg_sys::INT8OID => value.value() as i64,
        _ => return KeyValue::Exact(value),
    };
    let exact = match key_type {
        pg_sys::INT2OID => i16::try_from(integer).ok().map(Datum::from),
        pg_sys::INT4OID => i32::try_from(integer).ok().map(Datum::from),
        pg_sys::INT8OID => Some(Datum::from(integer)),
        _ => return KeyValue::Unknown,
    };
    exact.map_or(KeyValue::NoSuchKey, KeyValue::Exact)
}

/// The non-null elements of an array value, with their type.
fn array_elements(array_type: Oid, array: Datum) -> Vec<(Oid, Datum)> {
    // SAFETY: `array` is a non-null array value of that type.
    unsafe {
        let element = pg_sys::get_base_element_type(array_type);
        let (mut length, mut by_value, mut align) = (0i16, false, 0 as std::ffi::c_char);
        pg_sys::get_typlenbyvalalign(element, &mut length, &mut by_value, &mut align);
        let detoasted = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            detoasted,
            element,
            length.into(),
            by_value,
            align,
            &mut values,
            &mut nulls,
            &mut count,
        );
        (0..count as usize)
            .filter(|i| !*nulls.add(*i))
            .map(|i| (element, *values.add(i)))
            .collect()
    }
}
