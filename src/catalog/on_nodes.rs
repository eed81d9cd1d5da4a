//! Which of the user's types, collations and other objects the nodes have: those that the definition of a table of
//! ours depends on were created there with it. Found through `pg_depend`, and kept until something changes.

use super::scan::{scan_by, Equal};
use super::{cache, table};
use pgrx::pg_sys::{self, Oid};
use std::cell::RefCell;
use std::collections::HashMap;

/// Oids that are the same in every cluster of a version: those of `pg_proc.dat` and the like, and what initdb makes.
const FIRST_OF_USERS: u32 = pg_sys::FirstNormalObjectId;

mod class {
    pub const TYPE: u32 = 1247;
    pub const PROC: u32 = 1255;
    pub const CLASS: u32 = 1259;
    pub const CONSTRAINT: u32 = 2606;
    pub const DEPEND: u32 = 2608;
    pub const OPERATOR_CLASS: u32 = 2616;
    pub const EXTENSION: u32 = 3079;
    pub const COLLATION: u32 = 3456;
    pub const TEXT_SEARCH_CONFIGURATION: u32 = 3602;
    pub const DEPEND_REFERENCE_INDEX: u32 = 2674;
}

/// Answers by catalog and oid.
type Answers = HashMap<(u32, u32), bool>;

thread_local! {
    /// What is known, and the state of the cache that it belongs to.
    static KNOWN: RefCell<(u64, Answers)> = RefCell::default();
}

/// Do the nodes have the type?
pub fn type_on_nodes(type_oid: Oid) -> bool {
    if type_oid.to_u32() < FIRST_OF_USERS {
        return true;
    }
    on_nodes(class::TYPE, type_oid)
}

/// Do the nodes have the collation?
pub fn collation_on_nodes(collation: Oid) -> bool {
    if collation.to_u32() < FIRST_OF_USERS {
        return collation == pg_sys::DEFAULT_COLLATION_OID
            || !cache::collation_differs(collation).unwrap_or(true);
    }
    on_nodes(class::COLLATION, collation)
}

/// Do the nodes have the text search configuration?
pub fn configuration_on_nodes(configuration: Oid) -> bool {
    configuration.to_u32() < FIRST_OF_USERS
        || on_nodes(class::TEXT_SEARCH_CONFIGURATION, configuration)
}

/// Do the nodes have the function of an extension?
pub fn extension_function_on_nodes(function: Oid) -> bool {
    if on_nodes(class::PROC, function) {
        return true;
    }
    // SAFETY: an index scan of pg_depend.
    let extension = unsafe { pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function) };
    extension != pg_sys::InvalidOid && on_nodes(class::EXTENSION, extension)
}

fn on_nodes(class: u32, object: Oid) -> bool {
    let key = (class, object.to_u32());
    let generation = cache::generation();
    let known = KNOWN.with_borrow_mut(|(of, known)| {
        if *of != generation {
            known.clear();
            *of = generation;
        }
        known.get(&key).copied()
    });
    known.unwrap_or_else(|| {
        let answer = look(class, object, &mut Vec::new());
        KNOWN.with_borrow_mut(|(of, known)| {
            if *of == cache::generation() {
                known.insert(key, answer);
            }
        });
        answer
    })
}

/// Does anything of ours depend on the object, itself or through other types?
fn look(class: u32, object: Oid, seen: &mut Vec<(u32, u32)>) -> bool {
    if seen.contains(&(class, object.to_u32())) {
        return false;
    }
    seen.push((class, object.to_u32()));
    if class == class::TYPE {
        if let Some(answer) = look_at_type(object, seen) {
            return answer;
        }
    }
    dependents(class, object).into_iter().any(
        |(dependent_class, dependent)| match dependent_class {
            class::CLASS => look_at_relation(dependent, seen),
            class::TYPE => look(class::TYPE, dependent, seen),
            class::CONSTRAINT => look_at_constraint(dependent, seen),
            class::OPERATOR_CLASS | class::PROC if class == class::EXTENSION => {
                look(dependent_class, dependent, seen)
            }
            _ => false,
        },
    )
}

/// Types that come with others.
fn look_at_type(object: Oid, seen: &mut Vec<(u32, u32)>) -> Option<bool> {
    // SAFETY: syscache look-ups.
    unsafe {
        let element = pg_sys::get_element_type(object);
        if element != pg_sys::InvalidOid {
            let builtin = element.to_u32() < FIRST_OF_USERS;
            return Some(builtin || look(class::TYPE, element, seen));
        }
        if pg_sys::get_typtype(object) as u8 == b'm' {
            return Some(look(
                class::TYPE,
                pg_sys::get_multirange_range(object),
                seen,
            ));
        }
        let relation = pg_sys::get_typ_typrelid(object);
        if relation != pg_sys::InvalidOid && pg_sys::get_rel_relkind(relation) as u8 != b'c' {
            return Some(is_ours(relation));
        }
        None
    }
}

fn is_ours(relation: Oid) -> bool {
    matches!(table(relation), Ok(Some(_)))
}

fn look_at_relation(relation: Oid, seen: &mut Vec<(u32, u32)>) -> bool {
    // SAFETY: syscache look-ups.
    unsafe {
        match pg_sys::get_rel_relkind(relation) as u8 {
            b'i' => is_ours(pg_sys::IndexGetRelation(relation, true)),
            b'c' => look(class::TYPE, pg_sys::get_rel_type_id(relation), seen),
            _ => is_ours(relation),
        }
    }
}

/// Of a table or of a domain.
fn look_at_constraint(constraint: Oid, seen: &mut Vec<(u32, u32)>) -> bool {
    // SAFETY: a syscache look-up; the tuple is released before anything else is called.
    let (relation, domain) = unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::CONSTROID as i32,
            pg_sys::Datum::from(constraint),
        );
        if tuple.is_null() {
            return false;
        }
        // conrelid and contypid, which the bindings do not name
        let [relation, domain] = [8, 9].map(|attribute| {
            let mut is_null = false;
            let cache = pg_sys::SysCacheIdentifier::CONSTROID as i32;
            let value = pg_sys::SysCacheGetAttr(cache, tuple, attribute, &mut is_null);
            Oid::from(value.value() as u32)
        });
        pg_sys::ReleaseSysCache(tuple);
        (relation, domain)
    };
    if domain != pg_sys::InvalidOid {
        return look(class::TYPE, domain, seen);
    }
    relation != pg_sys::InvalidOid && is_ours(relation)
}

/// What depends on an object: catalog and oid.
fn dependents(class: u32, object: Oid) -> Vec<(u32, Oid)> {
    const OIDEQ: u32 = 184;
    let mut found = Vec::new();
    let keys = [
        Equal {
            attribute: 4,
            function: OIDEQ,
            value: pg_sys::Datum::from(Oid::from(class)),
        },
        Equal {
            attribute: 5,
            function: OIDEQ,
            value: pg_sys::Datum::from(object),
        },
    ];
    scan_by(
        Oid::from(class::DEPEND),
        Oid::from(class::DEPEND_REFERENCE_INDEX),
        &keys,
        pg_sys::AccessShareLock as i32,
        |_, row| {
            if let (Some(class), Some(object)) = (row.get::<Oid>(1), row.get::<Oid>(2)) {
                found.push((class.to_u32(), object));
            }
        },
    );
    found
}
