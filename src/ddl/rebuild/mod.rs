//! Rebuilds a table from the catalog as SQL: the one routine behind new shards and reference copies.
//!
//! Names of indexes, constraints, policies and statistics objects are those of the coordinator's table;
//! only schemas differ. Defaults that are not immutable, sequences and identity stay behind: the
//! coordinator computes their values before a row is sent.

mod columns;
mod comments;
mod constraints;
mod policies;
mod privileges;

pub use columns::is_immutable;

use super::sql::{Place, Sql};
use crate::error::{sqlstate, Error, Result};
use crate::pg::spi;
use pgrx::pg_sys;
use std::collections::HashMap;

/// What the table is to become, or is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Shard,
    ReferenceCopy,
}

impl Target {
    pub fn place(self, schema: &str) -> Place {
        match self {
            Target::Shard => Place::Shard(schema.to_owned()),
            Target::ReferenceCopy => Place::Reference(schema.to_owned()),
        }
    }
}

/// One statement, and the roles without which a node has no use for it.
#[derive(Debug, Clone)]
pub enum Step {
    Always(Sql),
    /// Names the role, so it needs it.
    ForRole(String, Sql),
    /// Gives the object to the role: the role must be there, and the login must be a member of it.
    ForOwner(String, Sql),
    /// The text before and after a list of roles, of which only those that are there are named.
    ForRoles(Sql, Vec<String>, Sql),
}

/// A table as SQL, open in schemas and roles.
#[derive(Debug, Clone)]
pub struct TableDdl {
    pub schema: String,
    pub name: String,
    pub place: Place,
    /// Makes the empty table with the constraints that every row has passed already.
    pub create: Vec<Step>,
    /// What is cheaper or only possible with the rows in place: keys, indexes, foreign keys, the rest.
    pub after_load: Vec<Step>,
    /// Foreign keys, after all tables of the same operation are loaded.
    pub foreign_keys: Vec<Step>,
    /// Privileges and owner, last: until then the login that builds the table has to be its owner.
    pub privileges: Vec<Step>,
}

/// The roles of a node, among those that matter: name → may the login give objects to it.
pub type NodeRoles = HashMap<String, bool>;

impl TableDdl {
    /// `<before> <the table>`
    pub fn table(&self, before: &str) -> Sql {
        Sql::text(before).relation(&self.place, &self.name)
    }

    pub fn roles(&self) -> Vec<String> {
        let mut roles: Vec<String> = self
            .create
            .iter()
            .chain(&self.after_load)
            .chain(&self.foreign_keys)
            .chain(&self.privileges)
            .flat_map(|step| match step {
                Step::Always(_) => Vec::new(),
                Step::ForRole(role, _) | Step::ForOwner(role, _) => vec![role.clone()],
                Step::ForRoles(_, roles, _) => roles.clone(),
            })
            .collect();
        roles.sort();
        roles.dedup();
        roles
    }
}

/// The statements of `steps` for one node and one set of schemas, each ended by a semicolon.
pub fn render(steps: &[Step], roles: &NodeRoles, schema: &dyn Fn(&Place) -> String) -> String {
    let mut text = String::new();
    for step in steps {
        let statement = match step {
            Step::Always(sql) => sql.render(schema),
            Step::ForRole(role, sql) if roles.contains_key(role) => sql.render(schema),
            Step::ForOwner(role, sql) if roles.get(role) == Some(&true) => sql.render(schema),
            Step::ForRole(..) | Step::ForOwner(..) => continue,
            Step::ForRoles(head, names, tail) => {
                let there: Vec<String> = names
                    .iter()
                    .filter(|name| roles.contains_key(*name))
                    .map(|name| super::sql::quote_identifier(name))
                    .collect();
                if there.is_empty() {
                    continue;
                }
                format!(
                    "{}{}{}",
                    head.render(schema),
                    there.join(", "),
                    tail.render(schema)
                )
            }
        };
        text.push_str(&statement);
        text.push_str(";\n");
    }
    text
}

/// What the parts of the rebuild share.
struct Source<'a> {
    relid: String,
    name: &'a str,
    place: &'a Place,
    /// The target of a table that a foreign key or policy names: `None` for a local table.
    target_of: &'a dyn Fn(pg_sys::Oid) -> Result<Option<Target>>,
}

impl Source<'_> {
    /// `ALTER TABLE <the table> `
    fn alter(&self) -> Sql {
        self.table("ALTER TABLE ").push(" ")
    }

    fn table(&self, before: &str) -> Sql {
        Sql::text(before).relation(self.place, self.name)
    }

    /// The place of a relation named in generated text; `None` leaves the name as it is.
    fn place_of(&self, schema: &str, relid: pg_sys::Oid) -> Result<Option<Place>> {
        if u32::from(relid).to_string() == self.relid {
            return Ok(Some(self.place.clone()));
        }
        Ok((self.target_of)(relid)?.map(|target| target.place(schema)))
    }
}

/// Rebuilds `relid` as `target`. `target_of` tells what other tables (of foreign keys) are.
pub fn rebuild_table(
    relid: pg_sys::Oid,
    target: Target,
    target_of: &dyn Fn(pg_sys::Oid) -> Result<Option<Target>>,
) -> Result<TableDdl> {
    let _names = spi::Settings::qualified_names();
    let (mut ddl, unlogged) = empty(relid, target)?;
    let source = Source {
        relid: u32::from(relid).to_string(),
        name: &ddl.name,
        place: &ddl.place,
        target_of,
    };
    let (mut create, mut after_load, mut foreign_keys) = (Vec::new(), Vec::new(), Vec::new());
    columns::create_table(&source, unlogged, &mut create)?;
    constraints::keys_and_indexes(&source, &mut after_load)?;
    constraints::statistics(&source, &mut after_load)?;
    policies::rebuild(&source, &mut after_load)?;
    comments::rebuild(&source, &mut after_load)?;
    let mut privileges = Vec::new();
    privileges::rebuild(&source, &mut privileges)?;
    constraints::foreign_keys(&source, &mut foreign_keys)?;
    ddl.create = create;
    ddl.after_load = after_load;
    ddl.foreign_keys = foreign_keys;
    ddl.privileges = privileges;
    Ok(ddl)
}

/// Only the owner and the privileges of a table that is on the nodes.
pub fn privileges_of(relid: pg_sys::Oid, target: Target) -> Result<TableDdl> {
    let _names = spi::Settings::qualified_names();
    let (mut ddl, _) = empty(relid, target)?;
    let source = Source {
        relid: u32::from(relid).to_string(),
        name: &ddl.name,
        place: &ddl.place,
        target_of: &|_| Ok(None),
    };
    let mut privileges = Vec::new();
    privileges::rebuild(&source, &mut privileges)?;
    ddl.privileges = privileges;
    Ok(ddl)
}

/// The table's names without any statements, and whether it is unlogged.
fn empty(relid: pg_sys::Oid, target: Target) -> Result<(TableDdl, bool)> {
    let oid = u32::from(relid).to_string();
    let row = spi::query_one(
        "SELECT n.nspname, c.relname, c.relpersistence::pg_catalog.text
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.oid = $1::pg_catalog.oid",
        &[Some(&oid)],
    )?;
    let Some([Some(schema), Some(name), Some(persistence)]) = row.as_deref() else {
        return Err(Error::new(
            sqlstate::UNDEFINED_TABLE,
            format!("relation with OID {oid} does not exist"),
        ));
    };
    let ddl = TableDdl {
        schema: schema.clone(),
        name: name.clone(),
        place: target.place(schema),
        create: Vec::new(),
        after_load: Vec::new(),
        foreign_keys: Vec::new(),
        privileges: Vec::new(),
    };
    Ok((ddl, persistence == "u"))
}
