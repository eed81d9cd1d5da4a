//! Adding a node: its foreign server, the checks, its row, the reference tables.

use pgrx::pg_sys;

use super::check::{self, Outcome};
use super::identity::{same_database, Side};
use super::lacking::lacking;
use super::server::NewServer;
use crate::catalog::write::{self, NewNode, NodeChange};
use crate::catalog::{self, NodeId};
use crate::ddl;
use crate::error::{sqlstate, Error, Result};
use crate::remote::NodeFacts;

/// Adds a node; any failure undoes all of it with the transaction.
pub fn add_node(new: &NewServer) -> Result<NodeId> {
    write::lock_nodes()?;
    if catalog::node_named(new.name)?.is_some() {
        return Err(Error::new(
            sqlstate::DUPLICATE_OBJECT,
            format!("node \"{}\" already exists", new.name),
        )
        .hint("Change how to connect to it with ALTER SERVER, or choose another name."));
    }
    let server = new.find_or_create()?;
    let facts = check::probe(new.name, server)?;
    let mut same_collation = true;
    for check in check::checks(new.name, &facts)? {
        match check.result {
            Outcome::Passed => {}
            Outcome::Noted(error) => {
                same_collation = false;
                error.notice();
            }
            Outcome::Failed(error) => return Err(error),
        }
    }
    let system_identifier = facts.system_identifier.map(|id| id.to_string());
    let twins = catalog::nodes_of_database(system_identifier.as_deref(), facts.database)?;
    let id = write::insert_node(&NewNode {
        server_name: new.name,
        is_coordinator: false,
        same_collation,
        version_num: facts.version_num,
        system_identifier: system_identifier.as_deref(),
        database: facts.database,
        lacking: lacking(&facts)?,
    })?;
    for twin in twins {
        if same_database(Side::Node(twin), id)? {
            return Err(Error::new(
                sqlstate::DUPLICATE_OBJECT,
                format!(
                    "node \"{}\" is the same database as node \"{}\"",
                    new.name,
                    catalog::node(twin)?.name
                ),
            )
            .hint("Each node needs a database of its own; several may be in one server."));
        }
    }
    if may_be_here(&facts) && same_database(Side::Here, id)? {
        write::update_node(
            id,
            &NodeChange {
                is_coordinator: Some(true),
                ..Default::default()
            },
        )?;
    }
    ddl::replicate_reference_tables_to(id)?;
    Ok(id)
}

fn may_be_here(facts: &NodeFacts) -> bool {
    // SAFETY: plain reads.
    let (identifier, database) = unsafe { (pg_sys::GetSystemIdentifier(), pg_sys::MyDatabaseId) };
    facts.system_identifier.is_none_or(|id| id == identifier) && facts.database == database
}
