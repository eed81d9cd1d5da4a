//! Rows that a default shard keeps for keys of no other shard: when a shard for them is added, they move there.

use super::checks;
use super::sql::{quote_identifier, quote_literal, quote_qualified};
use super::undistribute::referenced_first;
use super::unload::{copied_columns, RowsOf};
use crate::catalog::{self, Bounds, Colocation, NodeId, ShardGroup, ShardGroupId};
use crate::error::{Error, Result};
use crate::pg::spi;
use crate::remote::{self, CopyIn};
use pgrx::pg_sys;

/// Moves the rows with keys of `new` from the default shards of `tables` to those of shard group `to`.
/// The new shards have no foreign keys yet; the caller keeps writers out.
pub fn move_rows(
    group: &Colocation,
    tables: &[pg_sys::Oid],
    default: &ShardGroup,
    new: &Bounds,
    to: (ShardGroupId, NodeId),
) -> Result<()> {
    let mut deletes = Vec::new();
    for relid in referenced_first(tables)? {
        let Some(table) = catalog::table(relid)? else {
            continue;
        };
        let Some((key, _)) = table.distribution() else {
            continue;
        };
        let (schema, name) = (checks::schema_name(relid)?, checks::relation_name(relid)?);
        let shard = |group| quote_qualified(&catalog::shard_schema(&schema, group), &name);
        let (source, target) = (shard(default.id), shard(to.0));
        let condition = condition(group, &column_name(relid, key)?, new)?;
        let any = format!("SELECT 1 FROM ONLY {source} WHERE {condition} LIMIT 1");
        if remote::query(default.node, &any, &[])?.is_empty() {
            continue;
        }
        check_collation(group, default.node)?;
        let columns = copied_columns(relid)?;
        if default.node == to.1 {
            let sql = format!(
                "INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM ONLY {source} WHERE {condition}"
            );
            remote::execute(to.1, &sql)?;
        } else {
            let sql = format!("SELECT {columns} FROM ONLY {source} WHERE {condition}");
            let mut rows = RowsOf::start(vec![(default.node, default.id, sql)])?;
            let sql = format!("COPY {target} ({columns}) FROM STDIN");
            let mut copy = CopyIn::start(to.1, [to.0].as_slice().into(), &sql)?;
            let mut buffer = Vec::new();
            while rows.append_to(&mut buffer)? {
                copy.write(&buffer)?;
                buffer.clear();
            }
            copy.finish()?;
        }
        deletes.push((
            default.node,
            format!("DELETE FROM ONLY {source} WHERE {condition}"),
        ));
    }
    // rows that reference others go first
    deletes.reverse();
    if deletes.is_empty() {
        return Ok(());
    }
    remote::execute_all(&deletes).map(|_| ())
}

/// A node that sorts otherwise would take other rows for those of a range.
fn check_collation(group: &Colocation, node: NodeId) -> Result<()> {
    let node = catalog::node(node)?;
    if group.key_collation != pg_sys::DEFAULT_COLLATION_OID || node.same_collation {
        return Ok(());
    }
    Err(Error::refused(
        format!(
            "rows of the default shard cannot be moved to the new shard, because node \"{}\" sorts text differently",
            node.name
        ),
        "Give the distribution column an explicit collation, such as \"C\".",
    ))
}

fn column_name(relid: pg_sys::Oid, attnum: i16) -> Result<String> {
    // SAFETY: a look-up by oid and number; raises if there is no such column, so it is not null.
    Ok(
        unsafe { std::ffi::CStr::from_ptr(pg_sys::get_attname(relid, attnum, false)) }
            .to_string_lossy()
            .into_owned(),
    )
}

/// The keys of `bounds` as an SQL condition.
fn condition(group: &Colocation, column: &str, bounds: &Bounds) -> Result<String> {
    let data_type = spi::query_one(
        "SELECT pg_catalog.format_type($1::pg_catalog.oid, -1)",
        &[Some(&u32::from(group.key_type).to_string())],
    )?
    .and_then(|row| row.into_iter().next().flatten())
    .unwrap_or_default();
    let column = quote_identifier(column);
    let literal = |datum: &pg_sys::Datum| {
        format!(
            "{}::{data_type}",
            quote_literal(&catalog::bound_text(group.key_type, *datum))
        )
    };
    Ok(match bounds {
        Bounds::Range { lower, upper } => {
            let mut all = vec![format!("{column} IS NOT NULL")];
            all.extend(
                lower
                    .iter()
                    .map(|lower| format!("{column} >= {}", literal(lower))),
            );
            all.extend(
                upper
                    .iter()
                    .map(|upper| format!("{column} < {}", literal(upper))),
            );
            all.join(" AND ")
        }
        Bounds::List { values, null } => {
            let mut any: Vec<String> = values
                .iter()
                .map(|value| format!("{column} = {}", literal(value)))
                .collect();
            if *null {
                any.push(format!("{column} IS NULL"));
            }
            any.join(" OR ")
        }
        Bounds::Default | Bounds::Hash { .. } => "false".to_owned(),
    })
}
