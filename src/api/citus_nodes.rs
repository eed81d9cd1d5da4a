//! Citus' functions about nodes, for scripts written for it. Its nodes are a host and a port; here such a node
//! is named `host:port` and has the coordinator's database name.

use pgrx::prelude::*;

use super::answer;
use crate::catalog::{self, Node};
use crate::cluster::{self, NewServer};
use crate::error::{sqlstate, Error, Result};
use std::rc::Rc;

/// Nodes whose server points to that host and port, those in a database of this one's name first.
fn nodes_at(host: &str, port: i32) -> Result<Vec<(bool, Rc<Node>)>> {
    let port = port.to_string();
    let dbname = cluster::current_database();
    let mut nodes: Vec<(bool, Rc<Node>)> = catalog::nodes()?
        .into_iter()
        .filter_map(|node| {
            let endpoint = cluster::endpoint(&node);
            let found = endpoint.host.as_deref() == Some(host)
                && endpoint.port.as_deref().unwrap_or("5432") == port;
            found.then(|| (endpoint.dbname.as_deref() == Some(&dbname), node))
        })
        .collect();
    nodes.sort_by_key(|(same_name, node)| (!same_name, node.id));
    Ok(nodes)
}

/// The node that Citus would mean: in the database of this one's name, or the only one there.
fn node_at(host: &str, port: i32) -> Result<Rc<Node>> {
    let nodes = nodes_at(host, port)?;
    match &nodes[..] {
        [] => Err(Error::new(
            sqlstate::UNDEFINED_OBJECT,
            format!("node at \"{host}:{port}\" does not exist"),
        )
        .hint("The view shard_ext.nodes lists the nodes.")),
        [(true, node), ..] | [(_, node)] => Ok(node.clone()),
        _ => Err(Error::new(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("more than one node is at \"{host}:{port}\""),
        )
        .hint("Use the functions of schema shard_ext, which take the names of nodes.")),
    }
}

/// Adds a node, or finds it, as Citus does when it is there already.
fn add(host: &str, port: i32) -> Result<catalog::NodeId> {
    if let Some((true, node)) = nodes_at(host, port)?.first() {
        return Ok(node.id);
    }
    cluster::add_node(&NewServer {
        name: &format!("{host}:{port}"),
        host: Some(host),
        port: Some(port),
        dbname: None,
        options: &serde_json::Map::new(),
    })
}

#[pg_schema]
mod pg_catalog {
    use super::*;

    #[pg_extern]
    fn citus_add_node(
        nodename: &str,
        nodeport: i32,
        groupid: default!(i32, -1),
        noderole: default!(&str, "'primary'"),
        nodecluster: default!(&str, "'default'"),
    ) -> i32 {
        let _ = (groupid, nodecluster);
        if noderole != "primary" {
            Error::refused(
                format!("nodes of role \"{noderole}\" are not supported"),
                "Let the node's server follow a failover itself: several hosts with target_session_attrs.",
            )
            .raise();
        }
        answer(add(nodename, nodeport))
    }

    #[pg_extern]
    fn citus_remove_node(nodename: &str, nodeport: i32) {
        answer(node_at(nodename, nodeport).and_then(|node| cluster::remove_node(&node.name)));
    }

    #[pg_extern]
    fn citus_set_coordinator_host(
        host: &str,
        port: default!(i32, "pg_catalog.current_setting('port')::int"),
        node_role: default!(&str, "'primary'"),
        node_cluster: default!(&str, "'default'"),
    ) {
        let _ = (node_role, node_cluster);
        answer(add(host, port).and_then(|id| {
            let node = catalog::node(id)?;
            if !node.is_coordinator {
                return Err(Error::new(
                    sqlstate::INVALID_PARAMETER_VALUE,
                    format!("\"{host}:{port}\" is not this server"),
                ));
            }
            cluster::set_node_property(&node.name, "should_have_shards", false)
        }));
    }

    #[pg_extern]
    fn citus_set_node_property(nodename: &str, nodeport: i32, property: &str, value: bool) {
        answer(
            node_at(nodename, nodeport)
                .and_then(|node| cluster::set_node_property(&node.name, property, value)),
        );
    }

    #[pg_extern]
    fn citus_get_active_worker_nodes(
    ) -> TableIterator<'static, (name!(node_name, Option<String>), name!(node_port, i64))> {
        let workers = answer(catalog::nodes())
            .into_iter()
            .filter(|node| !node.is_coordinator)
            .map(|node| {
                let endpoint = cluster::endpoint(&node);
                let port = endpoint
                    .port
                    .and_then(|port| port.split(',').next()?.parse().ok());
                (endpoint.host, port.unwrap_or(5432))
            });
        TableIterator::new(workers.collect::<Vec<_>>())
    }

    #[pg_extern]
    fn citus_is_coordinator() -> bool {
        catalog::installed()
    }

    extension_sql_file!(
        "../../sql/citus_nodes.sql",
        name = "citus_nodes",
        requires = [
            citus_add_node,
            citus_remove_node,
            citus_set_coordinator_host,
            citus_set_node_property,
            citus_get_active_worker_nodes,
            citus_is_coordinator
        ]
    );
}
