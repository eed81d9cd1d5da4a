//! Removing a node that holds no shards any more.

use super::check;
use super::find_node;
use super::server::drop_server;
use crate::catalog::{self, write};
use crate::ddl;
use crate::error::{sqlstate, Error, Result};

/// Removes a node, its foreign server and, if it can be reached, its copies of the reference tables.
pub fn remove_node(name: &str) -> Result<()> {
    write::lock_nodes()?;
    let node = find_node(name)?;
    let shard_groups = catalog::groups_on(node.id)?.len();
    if shard_groups > 0 {
        return Err(Error::new(
            sqlstate::DEPENDENT_OBJECTS_STILL_EXIST,
            format!("cannot remove node \"{name}\" because it holds shards"),
        )
        .detail(format!(
            "{shard_groups} shard group{} on it.",
            if shard_groups == 1 { " is" } else { "s are" }
        ))
        .hint(
            "Undistribute or drop the tables that have shards there; the view shard_ext.shards lists them.",
        ));
    }
    let unfinished = catalog::commit_records_of(node.id)?;
    if unfinished > 0 {
        return Err(Error::new(
            sqlstate::OBJECT_IN_USE,
            format!("cannot remove node \"{name}\" because transactions on it are not finished"),
        )
        .detail(format!(
            "{unfinished} prepared transaction{} still to be committed there.",
            if unfinished == 1 { " is" } else { "s are" }
        ))
        .hint("Call shard_ext.recover_prepared_transactions() when the node can be reached."));
    }
    if node.server != pgrx::pg_sys::InvalidOid {
        match check::probe(name, node.server) {
            Ok(_) => ddl::drop_reference_tables_from(node.id)?,
            Err(error) => Error::new(
                error.fields().sqlstate,
                format!(
                    "node \"{name}\" cannot be reached: its copies of reference tables stay there"
                ),
            )
            .detail(error.fields().message.clone())
            .warn(),
        }
    }
    write::delete_node(node.id)?;
    if node.server != pgrx::pg_sys::InvalidOid {
        drop_server(node.server);
    }
    Ok(())
}
