//! Removing a node that holds no shards any more.

use pgrx::pg_sys;

use super::check;
use super::find_node;
use super::server::drop_server;
use super::sizes::text_array;
use crate::catalog::{self, write, Node, NodeId};
use crate::ddl;
use crate::error::{sqlstate, Error, Result};
use crate::remote;

/// Removes a node, its foreign server and, if it can be reached, its copies of the reference tables.
pub fn remove_node(name: &str) -> Result<()> {
    write::lock_nodes()?;
    let node = find_node(name)?;
    check_owner(&node)?;
    if let Some(detail) = shards_on(node.id)? {
        return Err(Error::new(
            sqlstate::DEPENDENT_OBJECTS_STILL_EXIST,
            format!("cannot remove node \"{name}\" because it holds shards"),
        )
        .detail(detail)
        .hint(
            "Undistribute or drop the tables that have shards there; the view shard_ext.shards lists them.",
        ));
    }
    if node.server != pg_sys::InvalidOid {
        match check::probe(name, node.server) {
            Ok(_) => {
                check_finished(&node)?;
                ddl::drop_reference_tables_from(node.id)?;
            }
            Err(error) => Error::new(
                error.fields().sqlstate,
                format!("node \"{name}\" is removed though it cannot be reached"),
            )
            .detail(format!(
                "{}; copies of reference tables stay there.",
                error.fields().message
            ))
            .warn(),
        }
    }
    write::delete_node(node.id)?;
    if node.server != pg_sys::InvalidOid {
        drop_server(node.server);
    }
    Ok(())
}

/// An error if the node holds prepared transactions that are decided but not finished: nobody would
/// finish them once the node is gone.
fn check_finished(node: &Node) -> Result<()> {
    let records = catalog::commit_records(node.id)?;
    if records.is_empty() {
        return Ok(());
    }
    let gids = text_array(records.iter().map(String::as_str));
    let unfinished = remote::query(
        node.id,
        "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE gid = ANY ($1::text[])",
        &[Some(&gids)],
    )?;
    if unfinished.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::OBJECT_IN_USE,
        format!(
            "cannot remove node \"{}\" because transactions on it are not finished",
            node.name
        ),
    )
    .detail(match unfinished.len() {
        1 => "1 prepared transaction is still to be committed there.".to_string(),
        many => format!("{many} prepared transactions are still to be committed there."),
    })
    .hint("Call shard_ext.recover_prepared_transactions(), then try again."))
}

/// Says how many shard groups are on a node; none: no shard is.
pub fn shards_on(node: NodeId) -> Result<Option<String>> {
    Ok(match catalog::groups_on(node)?.len() {
        0 => None,
        1 => Some("1 shard group is on it.".to_string()),
        many => Some(format!("{many} shard groups are on it.")),
    })
}

/// As for DROP SERVER.
fn check_owner(node: &Node) -> Result<()> {
    // SAFETY: plain look-ups; raises if the server is gone.
    let owned = node.server == pg_sys::InvalidOid
        || unsafe { pg_sys::pg_foreign_server_ownercheck(node.server, pg_sys::GetUserId()) };
    if owned {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("must be owner of foreign server {}", node.name),
    ))
}
