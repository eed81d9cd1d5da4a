//! Facts about a node, asked over a connection of their own: for adding and checking nodes.

use super::options::ConnectOptions;
use crate::error::{Error, Result};
use pgrx::pg_sys::Oid;
use std::time::Duration;

/// What a node says about itself.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// As `server_version_num`.
    pub version_num: i32,
    /// Name of the database's encoding.
    pub encoding: String,
    /// `datcollate`, `datctype`, the locale provider and the ICU locale of the database, joined: equal text, equal
    /// default collation (up to the versions of the C library or ICU).
    pub collation: String,
    pub max_prepared_transactions: i32,
    /// `None` when the role may not call `pg_control_system()`.
    pub system_identifier: Option<u64>,
    pub database: Oid,
    pub may_create_schemas: bool,
    pub in_recovery: bool,
}

/// Asks for `NodeFacts::collation`, on any server version; the coordinator asks itself the same to compare.
pub const COLLATION_QUERY: &str = "SELECT pg_catalog.concat_ws(' ',
 pg_catalog.lower(pg_catalog.replace(d.datcollate, '-', '')),
 pg_catalog.lower(pg_catalog.replace(d.datctype, '-', '')),
 coalesce(pg_catalog.to_jsonb(d)->>'datlocprovider', 'c'),
 coalesce(pg_catalog.to_jsonb(d)->>'datlocale', pg_catalog.to_jsonb(d)->>'daticulocale'),
 pg_catalog.to_jsonb(d)->>'datcollversion')
 FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";

/// Connects, asks, disconnects. Errors say why the node cannot be reached, without the password.
pub fn probe(_options: &ConnectOptions, _timeout: Duration) -> Result<NodeFacts> {
    Err(Error::internal("remote requests are not there yet"))
}
