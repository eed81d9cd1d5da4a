//! Keys, exclusion constraints, indexes, foreign keys and extended statistics.

use super::{Source, Step};
use crate::ddl::sql::{self, quote_identifier, Sql};
use crate::error::{Error, Result};
use crate::pg::spi;
use pgrx::pg_sys;

/// Primary keys before the rest: other constraints may rest on them.
const CONSTRAINTS: &str = "
SELECT conname, pg_catalog.pg_get_constraintdef(oid), confrelid::pg_catalog.text
  FROM pg_catalog.pg_constraint
 WHERE conrelid = $1::pg_catalog.oid
   AND contype::pg_catalog.text = ANY ($2::pg_catalog.text[]) AND (contype <> 'c' OR NOT convalidated)
 ORDER BY contype <> 'p', conname";

const INDEXES: &str = "
SELECT c.relname, pg_catalog.pg_get_indexdef(i.indexrelid),
       (EXISTS (SELECT FROM pg_catalog.pg_constraint k
                 WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')))::pg_catalog.text,
       i.indisclustered::pg_catalog.text, i.indisreplident::pg_catalog.text,
       (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(pg_catalog.split_part(o, '=', 1)) || ' = '
                 || pg_catalog.quote_literal(pg_catalog.substr(o, pg_catalog.strpos(o, '=') + 1)), ', ')
          FROM pg_catalog.unnest(c.reloptions) o),
       (SELECT pg_catalog.string_agg('ALTER COLUMN ' || a.attnum || ' SET STATISTICS ' || a.attstattarget, ', ')
          FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attstattarget >= 0)
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = $1::pg_catalog.oid AND i.indisvalid
 ORDER BY c.relname";

const STATISTICS: &str = "
SELECT n.nspname, s.stxname, pg_catalog.pg_get_statisticsobjdef(s.oid),
       CASE WHEN s.stxstattarget >= 0 THEN s.stxstattarget::pg_catalog.text END
  FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
 WHERE s.stxrelid = $1::pg_catalog.oid
 ORDER BY s.stxname";

pub fn keys_and_indexes(source: &Source, steps: &mut Vec<Step>) -> Result<()> {
    let relid = Some(source.relid.as_str());
    for row in spi::query(CONSTRAINTS, &[relid, Some("{p,u,x}")])? {
        if let [Some(name), Some(definition), ..] = row.as_slice() {
            steps.push(add_constraint(source, name, Sql::text(definition)));
        }
    }
    for row in spi::query(CONSTRAINTS, &[relid, Some("{c}")])? {
        // those that are not valid: the others are part of CREATE TABLE
        if let [Some(name), Some(definition), ..] = row.as_slice() {
            steps.push(add_constraint(source, name, Sql::text(definition)));
        }
    }
    for row in spi::query(INDEXES, &[relid])? {
        let [Some(name), Some(definition), of_constraint, clustered, identity, options, statistics] =
            row.as_slice()
        else {
            continue;
        };
        let alter_index = || Sql::text("ALTER INDEX ").relation(source.place, name);
        if of_constraint.as_deref() == Some("true") {
            // pg_get_constraintdef leaves the options out
            if let Some(options) = options {
                steps.push(Step::Always(
                    alter_index().push(format!(" SET ({options})")),
                ));
            }
        } else {
            let place = source.place.clone();
            steps.push(Step::Always(sql::template(definition, &mut |_| {
                Ok(Some(place.clone()))
            })?));
        }
        if let Some(statistics) = statistics {
            steps.push(Step::Always(alter_index().push(" ").push(statistics)));
        }
        if clustered.as_deref() == Some("true") {
            steps.push(Step::Always(
                source
                    .alter()
                    .push("CLUSTER ON ")
                    .push(quote_identifier(name)),
            ));
        }
        if identity.as_deref() == Some("true") {
            steps.push(Step::Always(
                source
                    .alter()
                    .push("REPLICA IDENTITY USING INDEX ")
                    .push(quote_identifier(name)),
            ));
        }
    }
    let identity = spi::query_one(
        "SELECT CASE relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' END
           FROM pg_catalog.pg_class WHERE oid = $1::pg_catalog.oid",
        &[relid],
    )?;
    if let Some([Some(identity)]) = identity.as_deref() {
        steps.push(Step::Always(
            source.alter().push("REPLICA IDENTITY ").push(identity),
        ));
    }
    Ok(())
}

pub fn foreign_keys(source: &Source, steps: &mut Vec<Step>) -> Result<()> {
    let prefix = "ALTER TABLE x ADD ";
    let rows = spi::query(CONSTRAINTS, &[Some(source.relid.as_str()), Some("{f}")])?;
    for row in rows {
        let [Some(name), Some(definition), Some(referenced)] = row.as_slice() else {
            continue;
        };
        let referenced = pg_sys::Oid::from(referenced.parse::<u32>().unwrap_or(0));
        // The definition alone is no statement: put it into one to find the name, and take it out again.
        let whole = format!("{prefix}{definition}");
        let definition = sql::template_after(&whole, prefix.len(), &mut |relation| {
            let schema = relation.schema.as_deref().unwrap_or_default();
            source.place_of(schema, referenced)
        })?;
        if definition.is_plain() {
            return Err(Error::internal(format!(
                "foreign key \"{name}\" references a table that is not on the nodes"
            )));
        }
        steps.push(add_constraint(source, name, definition));
    }
    Ok(())
}

fn add_constraint(source: &Source, name: &str, definition: Sql) -> Step {
    Step::Always(
        source
            .alter()
            .push(format!("ADD CONSTRAINT {} ", quote_identifier(name)))
            .append(definition),
    )
}

/// Statistics objects live in the schema of their table's shard, whatever schema they are in here.
pub fn statistics(source: &Source, steps: &mut Vec<Step>) -> Result<()> {
    for row in spi::query(STATISTICS, &[Some(source.relid.as_str())])? {
        let [Some(schema), Some(name), Some(definition), target] = row.as_slice() else {
            continue;
        };
        let head = format!("CREATE STATISTICS {}", quoted_as_server(schema, name)?);
        let Some(rest) = definition.strip_prefix(&head) else {
            return Err(Error::internal(format!(
                "unexpected definition of statistics object \"{name}\": {definition}"
            )));
        };
        let place = source.place.clone();
        let prefix = "CREATE STATISTICS x";
        let whole = format!("{prefix}{rest}");
        let rest = sql::template_after(&whole, prefix.len(), &mut |_| Ok(Some(place.clone())))?;
        steps.push(Step::Always(
            Sql::text("CREATE STATISTICS ")
                .relation(source.place, name)
                .append(rest),
        ));
        if let Some(target) = target {
            steps.push(Step::Always(
                Sql::text("ALTER STATISTICS ")
                    .relation(source.place, name)
                    .push(format!(" SET STATISTICS {target}")),
            ));
        }
    }
    Ok(())
}

/// `quote_qualified_identifier` of the server, which quotes only where it must.
fn quoted_as_server(schema: &str, name: &str) -> Result<String> {
    let row = spi::query_one(
        "SELECT pg_catalog.quote_ident($1) || '.' || pg_catalog.quote_ident($2)",
        &[Some(schema), Some(name)],
    )?;
    row.and_then(|row| row.into_iter().next().flatten())
        .ok_or_else(|| Error::internal("no quoted name"))
}
