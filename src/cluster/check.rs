//! What a database must be to hold shards. A failed check says why, and how to get it right.

use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::CStr;
use std::time::Duration;

use super::find_node;
use super::lacking::lacking;
use crate::catalog;
use crate::catalog::write::{self, NodeChange};
use crate::ddl;
use crate::error::{sqlstate, Error, Result};
use crate::remote::{self, ConnectOptions, NodeFacts, COLLATION_QUERY};
use crate::settings;

/// The oldest `server_version_num` that works.
const OLDEST: i32 = 140000;

/// One thing looked at.
pub struct Check {
    pub name: &'static str,
    /// What was found.
    pub fact: String,
    pub result: Outcome,
}

pub enum Outcome {
    Passed,
    /// Works, but not as well: the reason and a way out.
    Noted(Error),
    Failed(Error),
}

impl Check {
    fn new(name: &'static str, fact: impl Into<String>, failure: Option<Error>) -> Check {
        Check {
            name,
            fact: fact.into(),
            result: failure.map_or(Outcome::Passed, Outcome::Failed),
        }
    }
}

/// Connects to a server of the wrapper and asks for what the checks look at.
pub fn probe(name: &str, server: pg_sys::Oid) -> Result<NodeFacts> {
    let timeout = Duration::from_millis(settings::node_connection_timeout());
    ConnectOptions::of_server(server)
        .and_then(|options| remote::probe(&options, timeout))
        .map_err(|error| {
            if error.fields().hint.is_some() {
                return error;
            }
            let fields = error.fields();
            let said = fields.detail.as_deref().unwrap_or(&fields.message);
            // libpq hands on what a server said to a connection attempt without its SQLSTATE.
            let hint = if said.contains("password") || said.contains("role") {
                format!(
                    "Give the role and its password in the options of add_node, or with CREATE USER MAPPING FOR \
                     CURRENT_USER SERVER {} OPTIONS (user '...', password '...').",
                    pgrx::spi::quote_identifier(name)
                )
            } else if said.contains("database \"") {
                "Create the database there first.".to_string()
            } else {
                format!(
                    "Check host, port and the node's pg_hba.conf; shard_ext.node_connection_timeout is {} ms.",
                    timeout.as_millis()
                )
            };
            error.hint(hint)
        })
}

/// All checks that can be made of a node's facts.
pub fn checks(name: &str, facts: &NodeFacts) -> Result<Vec<Check>> {
    let prerequisite =
        |message: String| Error::new(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message);
    let mut checks = Vec::new();

    let version = version_text(facts.version_num);
    checks.push(Check::new(
        "version",
        format!("PostgreSQL {version}"),
        (facts.version_num < OLDEST).then(|| {
            Error::new(
                sqlstate::FEATURE_NOT_SUPPORTED,
                format!("node \"{name}\" runs PostgreSQL {version}"),
            )
            .detail("A node needs PostgreSQL 14 or newer.")
            .hint("Upgrade that server, or add another.")
        }),
    ));

    let encoding = own_encoding();
    checks.push(Check::new(
        "encoding",
        &*facts.encoding,
        (facts.encoding != encoding).then(|| {
            prerequisite(format!(
                "node \"{name}\" has database encoding {}",
                facts.encoding
            ))
            .detail(format!(
                "This database has {encoding}, and all nodes need the same."
            ))
            .hint(format!(
                "Create its database with ENCODING '{encoding}' TEMPLATE template0."
            ))
        }),
    ));

    checks.push(Check::new(
        "prepared transactions",
        format!("max_prepared_transactions = {}", facts.max_prepared_transactions),
        (facts.max_prepared_transactions <= 0).then(|| {
            prerequisite(format!("node \"{name}\" has max_prepared_transactions = 0"))
                .detail("Transactions over several nodes are committed in two phases.")
                .hint(
                    "Set it there to at least the max_connections of this server, and restart that server.",
                )
        }),
    ));

    checks.push(Check::new(
        "read and write",
        if facts.in_recovery { "standby" } else { "primary" },
        facts.in_recovery.then(|| {
            prerequisite(format!("node \"{name}\" is a standby server"))
                .detail("A node must accept writes.")
                .hint("Give several hosts and target_session_attrs = read-write to follow a failover.")
        }),
    ));

    checks.push(Check::new(
        "create schemas",
        if facts.may_create_schemas {
            "granted"
        } else {
            "not granted"
        },
        (!facts.may_create_schemas).then(|| {
            Error::new(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!("the role used on node \"{name}\" may not create schemas in its database"),
            )
            .detail("Shards are kept in schemas of their own.")
            .hint("GRANT CREATE ON DATABASE ... TO that role, on the node.")
        }),
    ));

    let lacking: Vec<String> = facts
        .lacking_locales
        .iter()
        .map(|(setting, value)| format!("{setting} = '{value}'"))
        .collect();
    checks.push(Check::new(
        "locales",
        if lacking.is_empty() { "known" } else { "unknown" },
        (!lacking.is_empty()).then(|| {
            prerequisite(format!(
                "node \"{name}\" does not know a locale of this session"
            ))
            .detail(format!(
                "Nodes format numbers, money and dates as the session does, which has {}.",
                lacking.join(", ")
            ))
            .hint("Install the locale on the node's machine, or choose one here that it has, for instance 'C'.")
        }),
    ));

    let same = facts.collation == own_collation()?;
    checks.push(Check {
        name: "collation",
        fact: facts.collation.clone(),
        result: if same {
            Outcome::Passed
        } else {
            Outcome::Noted(
                prerequisite(format!(
                    "node \"{name}\" has another default collation than this database"
                ))
                .detail("What depends on it, such as orders of text and upper and lower case, is computed here instead of on the nodes.")
                .hint("Create its database with the locale, provider and operating system of this one."),
            )
        },
    });
    Ok(checks)
}

/// The node's answer to every check; the first says whether it was reached at all. Notes what changed
/// since it was added: an upgrade, a collation.
pub fn check_node(name: &str) -> Result<Vec<Check>> {
    let node = find_node(name)?;
    let facts = match probe(name, node.server) {
        Ok(facts) => facts,
        Err(error) => return Ok(vec![Check::new("connection", "failed", Some(error))]),
    };
    let mut all = vec![Check::new("connection", "established", None)];
    all.extend(checks(name, &facts)?);
    let same_collation = facts.collation == own_collation()?;
    let lacking = lacking(&facts)?;
    if (facts.version_num, same_collation, &lacking)
        != (node.version_num, node.same_collation, &node.lacking)
    {
        write::update_node(
            node.id,
            &NodeChange {
                version_num: Some(facts.version_num),
                same_collation: Some(same_collation),
                lacking: Some(lacking),
                ..Default::default()
            },
        )?;
    }
    let evaluated = ddl::check_evaluated(&catalog::tables()?, &[node.id]);
    let fact = if evaluated.is_ok() {
        "same"
    } else {
        "different"
    };
    all.push(Check::new("expressions of tables", fact, evaluated.err()));
    Ok(all)
}

pub fn own_encoding() -> &'static str {
    // SAFETY: returns a static string.
    unsafe { CStr::from_ptr(pg_sys::GetDatabaseEncodingName()) }
        .to_str()
        .unwrap_or_default()
}

/// The default collation of this database, as nodes describe theirs.
pub fn own_collation() -> Result<String> {
    Spi::get_one::<String>(COLLATION_QUERY)
        .ok()
        .flatten()
        .ok_or_else(|| Error::internal("the collation of this database cannot be read"))
}

fn version_text(version_num: i32) -> String {
    format!("{}.{}", version_num / 10000, version_num % 10000)
}
