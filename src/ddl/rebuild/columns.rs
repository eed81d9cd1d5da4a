//! `CREATE TABLE` with columns, immutable defaults, generated columns, checks and storage.

use super::{Source, Step};
use crate::ddl::sql::quote_identifier;
use crate::error::Result;
use crate::pg::spi;
use pgrx::pg_sys;
use std::ffi::CString;

/// Of the attribute options only those a user sets: a server may keep marks of its own among them.
const COLUMNS: &str = "
SELECT a.attname,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END,
       (SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.collname)
          FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
         WHERE c.oid = a.attcollation AND a.attcollation <> t.typcollation),
       CASE a.attgenerated WHEN '' THEN NULL ELSE 's' END,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid),
       d.adbin::pg_catalog.text,
       a.attnotnull::pg_catalog.text,
       CASE WHEN a.attstorage <> t.typstorage
            THEN CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL'
                                   WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END,
       CASE WHEN a.attstattarget >= 0 THEN a.attstattarget::pg_catalog.text END,
       (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(pg_catalog.split_part(o, '=', 1)) || ' = '
                 || pg_catalog.quote_literal(pg_catalog.substr(o, pg_catalog.strpos(o, '=') + 1)), ', ')
          FROM pg_catalog.unnest(a.attoptions) o
         WHERE pg_catalog.split_part(o, '=', 1) IN ('n_distinct', 'n_distinct_inherited'))
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum";

const CHECKS: &str = "
SELECT conname, pg_catalog.pg_get_constraintdef(oid)
  FROM pg_catalog.pg_constraint
 WHERE conrelid = $1::pg_catalog.oid AND contype = 'c' AND convalidated
 ORDER BY conname";

/// Access method (unless heap) and storage options, those of the TOAST table with their prefix.
const STORAGE: &str = "
SELECT (SELECT a.amname FROM pg_catalog.pg_am a WHERE a.oid = c.relam AND a.amname <> 'heap'),
       (SELECT pg_catalog.string_agg(o.prefix || pg_catalog.quote_ident(pg_catalog.split_part(o.o, '=', 1))
                 || ' = ' || pg_catalog.quote_literal(pg_catalog.substr(o.o, pg_catalog.strpos(o.o, '=') + 1)), ', ')
          FROM (SELECT '' AS prefix, o FROM pg_catalog.unnest(c.reloptions) o
                UNION ALL
                SELECT 'toast.', o FROM pg_catalog.pg_class t, pg_catalog.unnest(t.reloptions) o
                 WHERE t.oid = c.reltoastrelid) o)
  FROM pg_catalog.pg_class c WHERE c.oid = $1::pg_catalog.oid";

pub fn create_table(source: &Source, unlogged: bool, steps: &mut Vec<Step>) -> Result<()> {
    let relid = [Some(source.relid.as_str())];
    let mut parts = Vec::new();
    let mut settings = Vec::new();
    for row in spi::query(COLUMNS, &relid)? {
        let [Some(name), Some(data_type), compression, collation, generated, expression, tree, not_null, storage, statistics, options] =
            row.as_slice()
        else {
            continue;
        };
        let name = quote_identifier(name);
        let mut column = format!("{name} {data_type}");
        if let Some(method) = compression {
            column.push_str(&format!(" COMPRESSION {method}"));
        }
        if let Some(collation) = collation {
            column.push_str(&format!(" COLLATE {collation}"));
        }
        if let (Some(expression), Some(tree)) = (expression, tree) {
            if generated.is_some() {
                column.push_str(&format!(" GENERATED ALWAYS AS ({expression}) STORED"));
            } else if is_immutable(tree) {
                column.push_str(&format!(" DEFAULT {expression}"));
            }
        }
        if not_null.as_deref() == Some("true") {
            column.push_str(" NOT NULL");
        }
        parts.push(column);
        if let Some(storage) = storage {
            settings.push(format!("ALTER COLUMN {name} SET STORAGE {storage}"));
        }
        if let Some(target) = statistics {
            settings.push(format!("ALTER COLUMN {name} SET STATISTICS {target}"));
        }
        if let Some(options) = options {
            settings.push(format!("ALTER COLUMN {name} SET ({options})"));
        }
    }
    for row in spi::query(CHECKS, &relid)? {
        if let [Some(name), Some(definition)] = row.as_slice() {
            parts.push(format!(
                "CONSTRAINT {} {definition}",
                quote_identifier(name)
            ));
        }
    }
    let mut table = source
        .table(if unlogged {
            "CREATE UNLOGGED TABLE "
        } else {
            "CREATE TABLE "
        })
        .push(format!(" (\n    {}\n)", parts.join(",\n    ")));
    if let Some([method, options]) = spi::query_one(STORAGE, &relid)?.as_deref() {
        if let Some(method) = method {
            table = table.push(format!(" USING {}", quote_identifier(method)));
        }
        if let Some(options) = options {
            table = table.push(format!(" WITH ({options})"));
        }
    }
    steps.push(Step::Always(table));
    if !settings.is_empty() {
        steps.push(Step::Always(source.alter().push(settings.join(", "))));
    }
    Ok(())
}

/// Whether a stored expression gives the same value everywhere and always.
pub fn is_immutable(tree: &str) -> bool {
    let Ok(text) = CString::new(tree) else {
        return false;
    };
    // SAFETY: the text is a node tree out of the catalog.
    unsafe {
        let node = pg_sys::stringToNode(text.as_ptr()).cast::<pg_sys::Node>();
        !pg_sys::contain_mutable_functions(node)
    }
}
