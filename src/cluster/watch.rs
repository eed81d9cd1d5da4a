//! Follows what users do to the foreign servers of nodes with plain DDL: a renamed server renames its node,
//! a server with shards cannot be dropped.

use pgrx::pg_sys;
use std::ffi::CStr;

use super::remove::shards_on;
use crate::catalog::write::{self, NodeChange};
use crate::catalog::{self, Node};
use crate::ddl;
use crate::error::{sqlstate, Error, Result};
use std::rc::Rc;

/// Called for every event of an object access hook that concerns a foreign server.
pub fn server_event(access: pg_sys::ObjectAccessType::Type, server: pg_sys::Oid) -> Result<()> {
    // DROP EXTENSION has cleaned the nodes up and takes all servers along.
    if ddl::is_leaving() || !catalog::installed() {
        return Ok(());
    }
    match access {
        pg_sys::ObjectAccessType::OAT_DROP => dropped(server),
        pg_sys::ObjectAccessType::OAT_POST_ALTER => altered(server),
        _ => Ok(()),
    }
}

fn node_of(server: pg_sys::Oid) -> Result<Option<Rc<Node>>> {
    Ok(catalog::nodes()?
        .into_iter()
        .find(|node| node.server == server))
}

/// Before a server is dropped. Its node goes with it, unless something would be lost.
fn dropped(server: pg_sys::Oid) -> Result<()> {
    let Some(node) = node_of(server)? else {
        return Ok(());
    };
    if let Some(detail) = shards_on(node.id)? {
        return Err(Error::new(
            sqlstate::DEPENDENT_OBJECTS_STILL_EXIST,
            format!(
                "cannot drop server {} because it is a node with shards",
                node.name
            ),
        )
        .detail(detail)
        .hint("Use shard_ext.remove_node() when no shards are there any more."));
    }
    write::delete_node(node.id)
}

/// After a server was altered; the change is not visible yet.
fn altered(server: pg_sys::Oid) -> Result<()> {
    let Some(node) = node_of(server)? else {
        return Ok(());
    };
    match new_name(server) {
        Some(name) if name != node.name => write::update_node(
            node.id,
            &NodeChange {
                server_name: Some(&name),
                ..Default::default()
            },
        ),
        _ => Ok(()),
    }
}

/// The name of a server with this command's change.
fn new_name(server: pg_sys::Oid) -> Option<String> {
    // SAFETY: a catalog scan by oid with SnapshotSelf, as objectaccess.h advises for this event.
    unsafe {
        let relation = pg_sys::table_open(
            pg_sys::ForeignServerRelationId,
            pg_sys::AccessShareLock as i32,
        );
        let mut key: pg_sys::ScanKeyData = std::mem::zeroed();
        pg_sys::ScanKeyInit(
            &mut key,
            pg_sys::Anum_pg_foreign_server_oid as i16,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::Oid::from(pg_sys::F_OIDEQ),
            server.into(),
        );
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::Oid::from(pg_sys::ForeignServerOidIndexId),
            true,
            &raw mut pg_sys::SnapshotSelfData,
            1,
            &mut key,
        );
        let tuple = pg_sys::systable_getnext(scan);
        let name = (!tuple.is_null()).then(|| {
            let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_foreign_server>();
            CStr::from_ptr((*form).srvname.data.as_ptr())
                .to_string_lossy()
                .into_owned()
        });
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        name
    }
}
