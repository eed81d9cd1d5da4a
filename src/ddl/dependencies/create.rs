//! `CREATE` statements for the objects a table may depend on, from the catalog.

use super::find::{refused, Address};
use super::{exists_in, Object};
use crate::ddl::rebuild::is_immutable;
use crate::ddl::sql::{quote_identifier, quote_literal, quote_qualified};
use crate::error::{Error, Result};
use crate::pg::spi::{self, TextRow};

/// How to look for and create the object at `address`; `None` for what comes with something else
/// (array and multirange types, the parts of a type).
pub fn describe(address: &Address) -> Result<Option<Object>> {
    let (class, oid) = address;
    let settings = spi::Settings::nested();
    settings.set(c"quote_all_identifiers", c"off"); // in messages
    let row = spi::query_one(
        "SELECT c.relname, pg_catalog.pg_describe_object($1::pg_catalog.oid, $2::pg_catalog.oid, 0)
           FROM pg_catalog.pg_class c WHERE c.oid = $1::pg_catalog.oid",
        &[Some(class), Some(oid)],
    )?;
    drop(settings);
    let Some([Some(catalog), Some(description)]) = row.as_deref() else {
        return Err(Error::internal(format!("no object {oid} of class {class}")));
    };
    let (exists, create) = match catalog.as_str() {
        "pg_namespace" => schema(oid)?,
        "pg_extension" => extension(oid)?,
        "pg_type" => match data_type(oid, description)? {
            Some(found) => found,
            None => return Ok(None),
        },
        "pg_proc" => function(oid)?,
        "pg_collation" => collation(oid)?,
        "pg_operator" => operator(oid)?,
        "pg_opclass" => with_access_method(oid, "pg_opclass", "opc")?,
        "pg_opfamily" => with_access_method(oid, "pg_opfamily", "opf")?,
        "pg_ts_config" => named(oid, "pg_ts_config", "cfg")?,
        "pg_ts_dict" => named(oid, "pg_ts_dict", "dict")?,
        "pg_language" => unqualified(oid, "pg_language", "lan")?,
        "pg_am" => unqualified(oid, "pg_am", "am")?,
        _ => return Err(refused(
            description,
            "Take it out of the table's definition, or move what the table needs into a function \
                 or type that depends on no table.",
        )),
    };
    Ok(Some(Object {
        description: description.clone(),
        exists,
        create,
    }))
}

type Found = (String, Option<String>);

fn row(sql: &str, oid: &str) -> Result<TextRow> {
    spi::query_one(sql, &[Some(oid)])?
        .ok_or_else(|| Error::internal(format!("object {oid} vanished while it was read")))
}

/// The column at `index`; the queries here make NULL impossible where it is used.
fn text(row: &TextRow, index: usize) -> &str {
    row.get(index)
        .and_then(|value| value.as_deref())
        .unwrap_or_default()
}

fn schema(oid: &str) -> Result<Found> {
    let row = row(
        "SELECT nspname,
                (SELECT pg_catalog.string_agg(x.privilege_type, ',') FROM pg_catalog.aclexplode(nspacl) x WHERE x.grantee = 0)
           FROM pg_catalog.pg_namespace WHERE oid = $1::pg_catalog.oid",
        oid,
    )?;
    let name = text(&row, 0);
    if name.starts_with("pg_temp_") {
        return Err(refused(
            "an object in a temporary schema",
            "Move it to another schema.",
        ));
    }
    let mut create = format!("CREATE SCHEMA {}", quote_identifier(name));
    if text(&row, 1).contains("USAGE") {
        create.push_str(&format!(
            "; GRANT USAGE ON SCHEMA {} TO PUBLIC",
            quote_identifier(name)
        ));
    }
    Ok((
        format!(
            "EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {})",
            quote_literal(name)
        ),
        Some(create),
    ))
}

fn extension(oid: &str) -> Result<Found> {
    let row = row(
        "SELECT e.extname, n.nspname FROM pg_catalog.pg_extension e
           JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.oid = $1::pg_catalog.oid",
        oid,
    )?;
    let (name, schema) = (text(&row, 0), text(&row, 1));
    let place = if schema == "pg_catalog" {
        String::new()
    } else {
        format!(" WITH SCHEMA {}", quote_identifier(schema))
    };
    Ok((
        format!(
            "EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = {})",
            quote_literal(name)
        ),
        Some(format!(
            "CREATE EXTENSION {}{place} CASCADE",
            quote_identifier(name)
        )),
    ))
}

const TYPE: &str = "
SELECT n.nspname, t.typname, t.typtype::pg_catalog.text, c.relkind::pg_catalog.text, t.typrelid::pg_catalog.text,
       (t.typtype = 'm' OR EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = t.oid))::pg_catalog.text
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
 WHERE t.oid = $1::pg_catalog.oid";

fn data_type(oid: &str, description: &str) -> Result<Option<Found>> {
    let row = row(TYPE, oid)?;
    let (schema, name) = (text(&row, 0), text(&row, 1));
    if text(&row, 5) == "true" {
        return Ok(None);
    }
    let qualified = quote_qualified(schema, name);
    let create = match text(&row, 2) {
        "e" => Some(enumeration(oid, &qualified)?),
        "d" => Some(domain(oid, &qualified)?),
        "r" => Some(range(oid, &qualified)?),
        "c" if text(&row, 3) == "c" => Some(composite(text(&row, 4), &qualified)?),
        "c" => {
            return Err(refused(
                &format!("the row type of a table ({description})"),
                "Use a composite type made by CREATE TYPE … AS instead.",
            ))
        }
        _ => None,
    };
    Ok(Some((
        exists_in("pg_type", "typ", schema, name, ""),
        create,
    )))
}

fn enumeration(oid: &str, name: &str) -> Result<String> {
    let rows = spi::query(
        "SELECT enumlabel FROM pg_catalog.pg_enum WHERE enumtypid = $1::pg_catalog.oid ORDER BY enumsortorder",
        &[Some(oid)],
    )?;
    let labels: Vec<String> = rows.iter().map(|row| quote_literal(text(row, 0))).collect();
    Ok(format!(
        "CREATE TYPE {name} AS ENUM ({})",
        labels.join(", ")
    ))
}

/// The collation of the column or domain `alias` when it is not that of its type.
macro_rules! collation_sql {
    () => {
        "(SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.collname)
            FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace"
    };
}

fn composite(relid: &str, name: &str) -> Result<String> {
    let rows = spi::query(
        concat!(
            "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), ",
            collation_sql!(),
            " WHERE c.oid = a.attcollation AND a.attcollation <> t.typcollation)
               FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
              WHERE a.attrelid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped
              ORDER BY a.attnum"
        ),
        &[Some(relid)],
    )?;
    let columns: Vec<String> = rows
        .iter()
        .map(|row| {
            let collation = row
                .get(2)
                .and_then(|value| value.as_deref())
                .map_or(String::new(), |name| format!(" COLLATE {name}"));
            format!(
                "{} {}{collation}",
                quote_identifier(text(row, 0)),
                text(row, 1)
            )
        })
        .collect();
    Ok(format!("CREATE TYPE {name} AS ({})", columns.join(", ")))
}

/// A default that is not immutable is the coordinator's to compute, like a column's.
fn domain(oid: &str, name: &str) -> Result<String> {
    let row = row(
        concat!(
            "SELECT pg_catalog.format_type(t.typbasetype, t.typtypmod), t.typnotnull::pg_catalog.text,
                    pg_catalog.pg_get_expr(t.typdefaultbin, 0), t.typdefaultbin::pg_catalog.text, ",
            collation_sql!(),
            " WHERE c.oid = t.typcollation AND t.typcollation <> b.typcollation)
               FROM pg_catalog.pg_type t JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
              WHERE t.oid = $1::pg_catalog.oid"
        ),
        oid,
    )?;
    let mut create = format!("CREATE DOMAIN {name} AS {}", text(&row, 0));
    if !text(&row, 4).is_empty() {
        create.push_str(&format!(" COLLATE {}", text(&row, 4)));
    }
    if !text(&row, 2).is_empty() && is_immutable(text(&row, 3)) {
        create.push_str(&format!(" DEFAULT {}", text(&row, 2)));
    }
    if text(&row, 1) == "true" {
        create.push_str(" NOT NULL");
    }
    let constraints = spi::query(
        "SELECT conname, pg_catalog.pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint
          WHERE contypid = $1::pg_catalog.oid AND contype = 'c' ORDER BY conname",
        &[Some(oid)],
    )?;
    for constraint in &constraints {
        create.push_str(&format!(
            "; ALTER DOMAIN {name} ADD CONSTRAINT {} {}",
            quote_identifier(text(constraint, 0)),
            text(constraint, 1)
        ));
    }
    Ok(create)
}

fn range(oid: &str, name: &str) -> Result<String> {
    let row = row(
        concat!(
            "SELECT pg_catalog.format_type(r.rngsubtype, -1), ",
            collation_sql!(),
            " WHERE c.oid = r.rngcollation AND r.rngcollation <> s.typcollation),
                    (SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(o.opcname)
                       FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_namespace n ON n.oid = o.opcnamespace
                      WHERE o.oid = r.rngsubopc),
                    (SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(p.proname)
                       FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                      WHERE p.oid = r.rngsubdiff),
                    (SELECT m.typname FROM pg_catalog.pg_type m WHERE m.oid = r.rngmultitypid),
                    r.rngcanonical::pg_catalog.oid::pg_catalog.text, n.nspname
               FROM pg_catalog.pg_range r
               JOIN pg_catalog.pg_type s ON s.oid = r.rngsubtype
               JOIN pg_catalog.pg_type t ON t.oid = r.rngtypid
               JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
              WHERE r.rngtypid = $1::pg_catalog.oid"
        ),
        oid,
    )?;
    if text(&row, 5) != "0" {
        return Err(refused(
            &format!("range type {name} with a canonical function"),
            "Create the type on every node as its administrator.",
        ));
    }
    let mut options = vec![format!("subtype = {}", text(&row, 0))];
    for (option, index) in [
        ("collation", 1),
        ("subtype_opclass", 2),
        ("subtype_diff", 3),
    ] {
        if !text(&row, index).is_empty() {
            options.push(format!("{option} = {}", text(&row, index)));
        }
    }
    if !text(&row, 4).is_empty() {
        options.push(format!(
            "multirange_type_name = {}",
            quote_qualified(text(&row, 6), text(&row, 4))
        ));
    }
    Ok(format!(
        "CREATE TYPE {name} AS RANGE ({})",
        options.join(", ")
    ))
}

/// Names of argument types, schema-qualified, as an SQL array: the same text on every node.
macro_rules! argument_types_sql {
    () => {
        "ARRAY(SELECT n2.nspname || '.' || t2.typname
                 FROM pg_catalog.unnest(o.proargtypes) WITH ORDINALITY a (type, place)
                 JOIN pg_catalog.pg_type t2 ON t2.oid = a.type
                 JOIN pg_catalog.pg_namespace n2 ON n2.oid = t2.typnamespace ORDER BY a.place)"
    };
}

fn function(oid: &str) -> Result<Found> {
    let row = row(
        concat!(
            "SELECT n.nspname, o.proname, ",
            argument_types_sql!(),
            "::pg_catalog.text,
                    CASE WHEN l.lanname NOT IN ('c', 'internal') AND o.prokind IN ('f', 'p')
                         THEN pg_catalog.pg_get_functiondef(o.oid) END
               FROM pg_catalog.pg_proc o
               JOIN pg_catalog.pg_namespace n ON n.oid = o.pronamespace
               JOIN pg_catalog.pg_language l ON l.oid = o.prolang
              WHERE o.oid = $1::pg_catalog.oid"
        ),
        oid,
    )?;
    let arguments = format!(
        concat!(" AND ", argument_types_sql!(), " = {}::pg_catalog.text[]"),
        quote_literal(text(&row, 2))
    );
    Ok((
        exists_in("pg_proc", "pro", text(&row, 0), text(&row, 1), &arguments),
        row.get(3).cloned().flatten(),
    ))
}

fn collation(oid: &str) -> Result<Found> {
    let row = row(
        "SELECT n.nspname, c.collname, c.collprovider::pg_catalog.text, c.collisdeterministic::pg_catalog.text,
                coalesce(c.colliculocale, c.collcollate), c.collctype
           FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
          WHERE c.oid = $1::pg_catalog.oid",
        oid,
    )?;
    let (schema, name) = (text(&row, 0), text(&row, 1));
    let options = if text(&row, 2) == "i" {
        format!(
            "provider = icu, locale = {}, deterministic = {}",
            quote_literal(text(&row, 4)),
            text(&row, 3)
        )
    } else {
        format!(
            "provider = libc, lc_collate = {}, lc_ctype = {}",
            quote_literal(text(&row, 4)),
            quote_literal(text(&row, 5))
        )
    };
    Ok((
        exists_in("pg_collation", "coll", schema, name, ""),
        Some(format!(
            "CREATE COLLATION {} ({options})",
            quote_qualified(schema, name)
        )),
    ))
}

fn operator(oid: &str) -> Result<Found> {
    let row = row(
        "SELECT n.nspname, o.oprname,
                (SELECT n2.nspname || '.' || t2.typname FROM pg_catalog.pg_type t2
                   JOIN pg_catalog.pg_namespace n2 ON n2.oid = t2.typnamespace WHERE t2.oid = o.oprleft),
                (SELECT n2.nspname || '.' || t2.typname FROM pg_catalog.pg_type t2
                   JOIN pg_catalog.pg_namespace n2 ON n2.oid = t2.typnamespace WHERE t2.oid = o.oprright),
                CASE WHEN o.oprleft <> 0 THEN pg_catalog.format_type(o.oprleft, -1) END,
                pg_catalog.format_type(o.oprright, -1),
                (SELECT pg_catalog.quote_ident(n2.nspname) || '.' || pg_catalog.quote_ident(p.proname)
                   FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n2 ON n2.oid = p.pronamespace
                  WHERE p.oid = o.oprcode)
           FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
          WHERE o.oid = $1::pg_catalog.oid",
        oid,
    )?;
    let side = |column: &str, index: usize| {
        match row.get(index).and_then(|v| v.as_deref()) {
        Some(name) => format!(
            " AND o.{column} = (SELECT t2.oid FROM pg_catalog.pg_type t2 JOIN pg_catalog.pg_namespace n2 \
             ON n2.oid = t2.typnamespace WHERE n2.nspname || '.' || t2.typname = {})",
            quote_literal(name)
        ),
        None => format!(" AND o.{column} = 0"),
    }
    };
    let arguments = format!("{}{}", side("oprleft", 2), side("oprright", 3));
    let left = match text(&row, 4) {
        "" => String::new(),
        left => format!(", LEFTARG = {left}"),
    };
    Ok((
        exists_in(
            "pg_operator",
            "opr",
            text(&row, 0),
            text(&row, 1),
            &arguments,
        ),
        Some(format!(
            "CREATE OPERATOR {}.{} (FUNCTION = {}{left}, RIGHTARG = {})",
            quote_identifier(text(&row, 0)),
            text(&row, 1),
            text(&row, 6),
            text(&row, 5)
        )),
    ))
}

/// Operator classes and families: looked for, never created.
fn with_access_method(oid: &str, catalog: &str, prefix: &str) -> Result<Found> {
    let row = row(
        &format!(
            "SELECT n.nspname, o.{prefix}name, m.amname FROM pg_catalog.{catalog} o
               JOIN pg_catalog.pg_namespace n ON n.oid = o.{prefix}namespace
               JOIN pg_catalog.pg_am m ON m.oid = o.{prefix}method WHERE o.oid = $1::pg_catalog.oid"
        ),
        oid,
    )?;
    let method = format!(
        " AND o.{prefix}method = (SELECT oid FROM pg_catalog.pg_am WHERE amname = {})",
        quote_literal(text(&row, 2))
    );
    Ok((
        exists_in(catalog, prefix, text(&row, 0), text(&row, 1), &method),
        None,
    ))
}

/// Objects with a schema that are looked for, never created.
fn named(oid: &str, catalog: &str, prefix: &str) -> Result<Found> {
    let row = row(
        &format!(
            "SELECT n.nspname, o.{prefix}name FROM pg_catalog.{catalog} o
               JOIN pg_catalog.pg_namespace n ON n.oid = o.{prefix}namespace WHERE o.oid = $1::pg_catalog.oid"
        ),
        oid,
    )?;
    Ok((
        exists_in(catalog, prefix, text(&row, 0), text(&row, 1), ""),
        None,
    ))
}

/// Objects without a schema that are looked for, never created.
fn unqualified(oid: &str, catalog: &str, prefix: &str) -> Result<Found> {
    let row = row(
        &format!("SELECT {prefix}name FROM pg_catalog.{catalog} WHERE oid = $1::pg_catalog.oid"),
        oid,
    )?;
    Ok((
        format!(
            "EXISTS (SELECT FROM pg_catalog.{catalog} WHERE {prefix}name = {})",
            quote_literal(text(&row, 0))
        ),
        None,
    ))
}
