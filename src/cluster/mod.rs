//! Nodes: their foreign servers, checking, adding and removing them, and asking them for sizes.
//!
//! Comes in: names, connection options, ids. Goes out: catalog rows and foreign servers, or an `Error` that
//! says which check a node failed and what to do. Everything here is transactional.

mod add;
mod check;
mod copies;
mod identity;
mod lacking;
mod remove;
mod server;
mod sizes;
mod watch;
mod wrapper;

pub use add::add_node;
pub use check::{check_node, Check, Outcome};
pub use copies::check_reference_table;
pub use remove::remove_node;
pub use server::{current_database, endpoint, NewServer};
pub use sizes::{relation_size, shard_sizes, text_array, Measure};
pub use watch::server_event;

use crate::catalog::{self, write, Node};
use crate::error::{sqlstate, Error, Result};
use std::rc::Rc;

/// The node of that name, or an error.
pub fn find_node(name: &str) -> Result<Rc<Node>> {
    catalog::node_named(name)?.ok_or_else(|| {
        Error::new(
            sqlstate::UNDEFINED_OBJECT,
            format!("node \"{name}\" does not exist"),
        )
        .hint("The view shard_ext.nodes lists the nodes.")
    })
}

/// Sets what an administrator decides about a node.
pub fn set_node_property(name: &str, property: &str, value: bool) -> Result<()> {
    write::lock_nodes()?;
    let node = find_node(name)?;
    match property {
        // The second is how Citus spells it.
        "should_have_shards" | "shouldhaveshards" => write::update_node(
            node.id,
            &write::NodeChange {
                should_have_shards: Some(value),
                ..Default::default()
            },
        ),
        _ => Err(Error::new(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("unrecognized node property \"{property}\""),
        )
        .hint("The property of a node is \"should_have_shards\".")),
    }
}
