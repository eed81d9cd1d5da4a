//! GRANT, REVOKE and a change of owner, carried to the copies for the roles that the nodes have.
//!
//! The coordinator checks privileges itself; the nodes need them when a user's mapping logs in there as
//! somebody else than the owner.

use super::rebuild::{self, Step};
use super::shards::{target_of, Builder, Copy};
use super::sql::quote_identifier;
use crate::catalog;
use crate::error::Result;
use crate::pg::spi;
use crate::remote;
use pgrx::pg_sys;
use std::ffi::CStr;

/// After GRANT or REVOKE was done here: the privileges of the grantees are set anew on the copies.
///
/// # Safety
/// `statement` is valid.
pub unsafe fn after_grant(statement: *const pg_sys::GrantStmt) -> Result<()> {
    let mut grantees = Vec::new();
    for spec in super::refuse::elements((*statement).grantees) {
        let spec = spec.cast::<pg_sys::RoleSpec>();
        grantees.push(
            if (*spec).roletype == pg_sys::RoleSpecType::ROLESPEC_PUBLIC {
                None
            } else {
                let name = pg_sys::get_rolespec_name(spec);
                Some(CStr::from_ptr(name).to_string_lossy().into_owned())
            },
        );
    }
    let objects = super::refuse::elements((*statement).objects);
    let string = |node: *mut pg_sys::Node| {
        CStr::from_ptr((*node.cast::<pg_sys::String>()).sval)
            .to_string_lossy()
            .into_owned()
    };
    let schema = (*statement).objtype == pg_sys::ObjectType::OBJECT_SCHEMA;
    let mut tables = Vec::new();
    match ((*statement).objtype, (*statement).targtype) {
        (pg_sys::ObjectType::OBJECT_TABLE, pg_sys::GrantTargetType::ACL_TARGET_OBJECT) => {
            for relation in objects {
                tables.extend(super::refuse::ours(relation.cast())?);
            }
        }
        (pg_sys::ObjectType::OBJECT_TABLE, pg_sys::GrantTargetType::ACL_TARGET_ALL_IN_SCHEMA)
        | (pg_sys::ObjectType::OBJECT_SCHEMA, pg_sys::GrantTargetType::ACL_TARGET_OBJECT) => {
            let schemas: Vec<String> = objects.map(string).collect();
            for relid in catalog::tables()? {
                if schemas.contains(&super::checks::schema_name(relid)?) {
                    tables.push(relid);
                }
            }
        }
        _ => return Ok(()),
    }
    tables.sort_unstable_by_key(|relid| u32::from(*relid));
    tables.dedup();
    for relid in tables {
        renew(relid, Change::Grants(&grantees, schema))?;
    }
    Ok(())
}

/// The owner of a table has changed here.
pub fn after_owner_change(relid: pg_sys::Oid) -> Result<()> {
    renew(relid, Change::Owner)
}

/// What has changed here.
enum Change<'a> {
    Owner,
    /// What these (none: PUBLIC) may do with the table, or (true) with its schema.
    Grants(&'a [Option<String>], bool),
}

/// Takes from those concerned what they have on the copies of a table or on their schema, and gives all that the table
/// has here. Its owner is set when it has changed: that locks out everyone.
fn renew(relid: pg_sys::Oid, change: Change) -> Result<()> {
    let (Some(table), Some(target)) = (catalog::table(relid)?, target_of(relid)?) else {
        return Ok(());
    };
    let _names = spi::Settings::qualified_names();
    let mut ddl = rebuild::privileges_of(relid, target)?;
    let (grantees, schema) = match change {
        Change::Owner => (&[][..], false),
        Change::Grants(grantees, schema) => {
            ddl.privileges
                .retain(|step| !matches!(step, Step::ForOwner(..)));
            (grantees, schema)
        }
    };
    let (of_schema, of_table) = if schema {
        (grantees, &[][..])
    } else {
        (&[][..], grantees)
    };
    let revoke = |grantee: &str| {
        ddl.table("REVOKE ALL ON TABLE ")
            .push(format!(" FROM {grantee}"))
    };
    let mut steps: Vec<Step> = of_table
        .iter()
        .map(|grantee| match grantee {
            Some(role) => Step::ForRole(role.clone(), revoke(&quote_identifier(role))),
            None => Step::Always(revoke("PUBLIC")),
        })
        .collect();
    steps.append(&mut ddl.privileges);
    ddl.privileges = steps;
    let copies = Copy::of(&table)?;
    let builder = Builder::revoking(vec![ddl], &copies, of_schema)?;
    let mut work = builder.grant_schemas(&copies);
    work.extend(builder.complete(&copies));
    remote::execute_all(&work).map(|_| ())
}
