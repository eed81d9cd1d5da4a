//! The SQL functions about nodes: `shard_ext.add_node` and its family.

use pgrx::prelude::*;

use crate::cluster;
use crate::error::{sqlstate, Error};

use super::{answer, required};

#[pg_schema]
mod shard_ext {
    use super::*;
    use crate::cluster::{Check, NewServer, Outcome};
    use serde_json::{Map, Value};

    #[pg_extern]
    fn add_node(
        name: Option<&str>,
        host: default!(Option<&str>, "NULL"),
        port: default!(Option<i32>, "NULL"),
        dbname: default!(Option<&str>, "NULL"),
        options: default!(Option<pgrx::JsonB>, "NULL"),
    ) -> i32 {
        let options: Map<String, Value> = match options.map(|json| json.0) {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(options)) => options,
            Some(_) => Error::new(
                sqlstate::INVALID_PARAMETER_VALUE,
                "options must be a JSON object of connection options",
            )
            .hint("For example '{\"user\": \"app\", \"sslmode\": \"require\"}'.")
            .raise(),
        };
        answer(cluster::add_node(&NewServer {
            name: answer(required(name, "name")),
            host,
            port,
            dbname,
            options: &options,
        }))
    }

    #[pg_extern]
    fn remove_node(name: Option<&str>) {
        answer(required(name, "name").and_then(cluster::remove_node));
    }

    #[pg_extern]
    fn set_node_property(name: Option<&str>, property: Option<&str>, value: Option<bool>) {
        answer((|| {
            cluster::set_node_property(
                required(name, "name")?,
                required(property, "property")?,
                required(value, "value")?,
            )
        })());
    }

    #[pg_extern]
    #[allow(clippy::type_complexity)]
    fn check_node(
        name: Option<&str>,
    ) -> TableIterator<
        'static,
        (
            name!(check_name, &'static str),
            name!(passed, bool),
            name!(found, String),
            name!(reason, Option<String>),
            name!(hint, Option<String>),
        ),
    > {
        let rows = answer(required(name, "name").and_then(cluster::check_node))
            .into_iter()
            .map(|check| {
                let Check { name, fact, result } = check;
                let (passed, error) = match result {
                    Outcome::Passed => (true, None),
                    Outcome::Noted(error) | Outcome::Failed(error) => (false, Some(error)),
                };
                let reason = error.as_ref().map(|error| {
                    let fields = error.fields();
                    match &fields.detail {
                        Some(detail) => format!("{}: {detail}", fields.message),
                        None => fields.message.clone(),
                    }
                });
                let hint = error.and_then(|error| error.fields().hint.clone());
                (name, passed, fact, reason, hint)
            });
        TableIterator::new(rows.collect::<Vec<_>>())
    }

    #[pg_extern]
    #[allow(clippy::type_complexity)]
    fn shard_sizes() -> TableIterator<
        'static,
        (
            name!(relid, pg_sys::Oid),
            name!(shard_group_id, Option<i64>),
            name!(node_id, i32),
            name!(size, Option<i64>),
        ),
    > {
        let sizes = answer(cluster::shard_sizes());
        TableIterator::new(
            sizes
                .into_iter()
                .map(|size| (size.relid, size.group, size.node, size.bytes)),
        )
    }

    /// The schema that holds a shard group's tables of a schema, on its node.
    #[pg_extern(immutable, parallel_safe)]
    fn shard_schema(schema: &str, shard_group_id: i64) -> String {
        crate::catalog::shard_schema(schema, shard_group_id)
    }

    /// The schema that holds the copies of a schema's reference tables on the coordinator's own node.
    #[pg_extern(immutable, parallel_safe)]
    fn reference_schema(schema: &str) -> String {
        crate::catalog::own_reference_schema(schema)
    }

    extension_sql_file!(
        "../../sql/nodes.sql",
        name = "nodes",
        requires = [
            "catalog_triggers",
            add_node,
            remove_node,
            set_node_property,
            check_node,
            shard_sizes,
            shard_schema,
            reference_schema
        ]
    );
    extension_sql_file!(
        "../../sql/views.sql",
        name = "views",
        requires = ["nodes", "wrapper"]
    );
}
