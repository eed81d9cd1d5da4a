//! Facts about a node, asked over a connection of their own: for adding and checking nodes.

use super::lone::{LoneConnection, TextRows};
use super::options::ConnectOptions;
use super::session;
use crate::error::{sqlstate, Error, Result};
use pgrx::pg_sys::Oid;
use std::collections::HashSet;
use std::time::{Duration, Instant};

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
    /// Locales of this session that the node lacks, as (setting, value).
    pub lacking_locales: Vec<(&'static str, String)>,
    /// What `FUNCTIONS_QUERY` and `COLLATIONS_QUERY` say there.
    pub functions: HashSet<String>,
    pub collations: HashSet<String>,
}

/// Asks for `NodeFacts::collation`, on any server version; the coordinator asks itself the same to compare.
pub const COLLATION_QUERY: &str = "SELECT pg_catalog.concat_ws(' ',
 pg_catalog.lower(pg_catalog.replace(d.datcollate, '-', '')),
 pg_catalog.lower(pg_catalog.replace(d.datctype, '-', '')),
 coalesce(pg_catalog.to_jsonb(d)->>'datlocprovider', 'c'),
 coalesce(pg_catalog.to_jsonb(d)->>'datlocale', pg_catalog.to_jsonb(d)->>'daticulocale'),
 pg_catalog.to_jsonb(d)->>'datcollversion')
 FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";

/// Asks for PostgreSQL's own functions that may run on nodes: what defines each, and its oid. Equal text, equal function, but
/// for what releases have changed in the code that is behind a name.
pub const FUNCTIONS_QUERY: &str = "SELECT pg_catalog.concat_ws(' ',
 proname, proargtypes, prorettype, proretset, prokind, proisstrict, prosrc), oid
 FROM pg_catalog.pg_proc WHERE oid < 10000 AND provolatile <> 'v'";

/// The same of collations, with the version of the library that compares. One version is all of ICU's: to ask for each is slow.
pub const COLLATIONS_QUERY: &str = "SELECT pg_catalog.concat_ws(' ',
 c.collname, c.collencoding, c.collprovider, c.collisdeterministic,
 coalesce(pg_catalog.to_jsonb(c)->>'colllocale', pg_catalog.to_jsonb(c)->>'colliculocale', c.collcollate),
 CASE c.collprovider WHEN 'c' THEN c.collctype END,
 CASE c.collprovider WHEN 'i' THEN icu.version ELSE pg_catalog.pg_collation_actual_version(c.oid) END), c.oid
 FROM pg_catalog.pg_collation c,
      (SELECT pg_catalog.pg_collation_actual_version(pg_catalog.min(oid)) AS version FROM pg_catalog.pg_collation WHERE collprovider = 'i') icu
 WHERE c.oid < 16384 AND c.collprovider <> 'd'";

/// Connects, asks, disconnects. Errors say why the node cannot be reached, without the password.
pub fn probe(options: &ConnectOptions, timeout: Duration) -> Result<NodeFacts> {
    let limit = Instant::now() + timeout;
    let name = options.place();
    let mut connection = LoneConnection::open(options, &name, limit)?;
    let facts = connection.query(
        "SELECT pg_catalog.current_setting('server_version_num'), \
                pg_catalog.pg_encoding_to_char(d.encoding), \
                pg_catalog.current_setting('max_prepared_transactions'), d.oid, \
                pg_catalog.has_database_privilege(d.oid, 'CREATE'), \
                pg_catalog.pg_is_in_recovery(), \
                pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') \
           FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()",
        limit,
    )?;
    let Some([version, encoding, prepared, database, create, recovery, control]) = facts
        .first()
        .and_then(|row| <&[_; 7]>::try_from(row.as_slice()).ok())
    else {
        return Err(Error::internal("a node does not find its own database"));
    };
    let number = |text: &Option<String>| text.as_ref().and_then(|t| t.parse().ok()).unwrap_or(0);
    let truth = |text: &Option<String>| text.as_deref() == Some("t");
    let system_identifier = if truth(control) {
        let sql = "SELECT system_identifier FROM pg_catalog.pg_control_system()";
        one_value(connection.query(sql, limit)?).and_then(|text| text.parse().ok())
    } else {
        None
    };
    let mut lacking_locales = Vec::new();
    for (setting, value) in session::locales() {
        let sql = format!("SELECT {}", session::set_config(setting, &value));
        match connection.query(&sql, limit) {
            Ok(_) => {}
            Err(error) if error.fields().sqlstate == sqlstate::INVALID_PARAMETER_VALUE => {
                lacking_locales.push((setting, value));
            }
            Err(error) => return Err(error),
        }
    }
    let mut definitions = |sql| -> Result<HashSet<String>> {
        let rows = connection.query(sql, limit)?;
        Ok(rows
            .into_iter()
            .filter_map(|row| row.into_iter().next()?)
            .collect())
    };
    let functions = definitions(FUNCTIONS_QUERY)?;
    let collations = definitions(COLLATIONS_QUERY)?;
    Ok(NodeFacts {
        version_num: number(version),
        encoding: encoding.clone().unwrap_or_default(),
        collation: one_value(connection.query(COLLATION_QUERY, limit)?).unwrap_or_default(),
        max_prepared_transactions: number(prepared),
        system_identifier,
        database: Oid::from(
            database
                .as_ref()
                .and_then(|t| t.parse::<u32>().ok())
                .unwrap_or(0),
        ),
        may_create_schemas: truth(create),
        in_recovery: truth(recovery),
        lacking_locales,
        functions,
        collations,
    })
}

fn one_value(rows: TextRows) -> Option<String> {
    rows.into_iter().next()?.into_iter().next()?
}
