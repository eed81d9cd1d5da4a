//! Row-level security of the shards. The coordinator enforces it for every statement; the policies on the
//! shards guard those who log in to a worker directly.
//!
//! FORCE stays on the coordinator: there the shard's owner is the login of the coordinator itself, which has
//! applied the policies already. A policy whose subquery reads tables that a node does not have, whole,
//! cannot be rebuilt, and then neither can any other: they are right only together.

use super::{Source, Step};
use crate::ddl::sql::{self, quote_identifier, NamedRelation};
use crate::error::Result;
use crate::pg::spi;
use pgrx::pg_sys;

const POLICIES: &str = "
SELECT p.polname,
       CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
       CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                     WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
       pg_catalog.pg_get_expr(p.polqual, p.polrelid),
       pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
       CASE WHEN 0 = ANY (p.polroles) THEN 'true' END,
       (SELECT pg_catalog.array_to_json(pg_catalog.array_agg(r.rolname ORDER BY r.rolname))
          FROM pg_catalog.pg_roles r WHERE r.oid = ANY (p.polroles))
  FROM pg_catalog.pg_policy p
 WHERE p.polrelid = $1::pg_catalog.oid
 ORDER BY p.polname";

pub fn rebuild(source: &Source, steps: &mut Vec<Step>) -> Result<()> {
    let relid = [Some(source.relid.as_str())];
    let enabled = spi::query_one(
        "SELECT relrowsecurity::pg_catalog.text FROM pg_catalog.pg_class WHERE oid = $1::pg_catalog.oid",
        &relid,
    )?;
    let enabled = enabled.is_some_and(|row| row[0].as_deref() == Some("true"));
    let mut policies = Vec::new();
    for row in spi::query(POLICIES, &relid)? {
        let [Some(name), Some(kind), Some(command), using, check, public, roles] = row.as_slice()
        else {
            continue;
        };
        let mut conditions = String::new();
        if let Some(using) = using {
            conditions.push_str(&format!(" USING ({using})"));
        }
        if let Some(check) = check {
            conditions.push_str(&format!(" WITH CHECK ({check})"));
        }
        let prefix = "CREATE POLICY x ON x";
        let whole = format!("{prefix}{conditions}");
        let mut possible = true;
        let tail = sql::template_after(&whole, prefix.len(), &mut |relation| {
            let place = readable_on_nodes(source, relation)?;
            possible &= place.is_some();
            Ok(place)
        })?;
        if !possible {
            return Ok(());
        }
        let head = source
            .table(&format!("CREATE POLICY {} ON ", quote_identifier(name)))
            .push(format!(" AS {kind} FOR {command} TO "));
        policies.push(if public.is_some() {
            Step::Always(head.push("PUBLIC").append(tail))
        } else {
            let roles: Vec<String> = roles
                .as_deref()
                .and_then(|json| serde_json::from_str(json).ok())
                .unwrap_or_default();
            Step::ForRoles(head, roles, tail)
        });
    }
    steps.append(&mut policies);
    if enabled {
        steps.push(Step::Always(
            source.alter().push("ENABLE ROW LEVEL SECURITY"),
        ));
    }
    Ok(())
}

/// Only a reference table is whole on every node.
fn readable_on_nodes(source: &Source, relation: &NamedRelation) -> Result<Option<sql::Place>> {
    let Some(schema) = &relation.schema else {
        return Ok(None);
    };
    let row = spi::query_one(
        "SELECT c.oid::pg_catalog.text FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = $1 AND c.relname = $2",
        &[Some(schema), Some(&relation.name)],
    )?;
    let Some([Some(oid)]) = row.as_deref() else {
        return Ok(None);
    };
    let relid = pg_sys::Oid::from(oid.parse::<u32>().unwrap_or(0));
    let place = source.place_of(schema, relid)?;
    Ok(place.filter(|place| matches!(place, sql::Place::Reference(_))))
}
