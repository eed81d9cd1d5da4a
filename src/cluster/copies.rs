//! Whether the copies of a reference table hold the same rows: counted and summed up on every node at a moment when
//! nobody writes.

use super::sizes::{qualified_name, quoted};
use crate::catalog::{self, TableKind};
use crate::error::{sqlstate, Error, Result};
use crate::pg::spi;
use crate::remote;
use pgrx::pg_sys;

/// A copy, or the table itself, in numbers.
pub struct CopySum {
    /// None: the table itself, on the coordinator.
    pub node: Option<String>,
    pub rows: i64,
    /// Does not depend on the order of the rows.
    pub checksum: String,
    /// Whether both are those of the table itself.
    pub equal: bool,
}

/// Sums up the table and every copy. Waits for writers, and lets them wait until the end of the transaction.
pub fn check_reference_table(relid: pg_sys::Oid) -> Result<Vec<CopySum>> {
    let (schema, name) = qualified_name(relid).ok_or_else(|| {
        Error::new(
            sqlstate::UNDEFINED_TABLE,
            format!("relation with OID {} does not exist", relid.to_u32()),
        )
    })?;
    let table = catalog::table(relid)?;
    if !table.is_some_and(|table| matches!(table.kind, TableKind::Reference)) {
        return Err(Error::new(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("\"{name}\" is not a reference table"),
        ));
    }
    check_may_read(relid, &name)?;
    // SAFETY: a lock until the end of the transaction; writers take it here before they write anywhere, and hold it
    // until every node has committed.
    unsafe { pg_sys::LockRelationOid(relid, pg_sys::ShareLock as i32) };
    let portable = spi::Settings::portable_values();
    let sum = sum_of(relid)?;
    let here = format!("{}.{}", quoted(&schema), quoted(&name));
    let (rows, checksum) = numbers(spi::query(&format!("{sum} {here} t"), &[])?)?;
    let mut found = vec![CopySum {
        node: None,
        rows,
        checksum: checksum.clone(),
        equal: true,
    }];
    for node in catalog::nodes()? {
        let schema = catalog::reference_schema(&schema, &node);
        let there = format!("{}.{}", quoted(&schema), quoted(&name));
        let answer = remote::query(node.id, &format!("{sum} {there} t"), &[])?;
        let (its_rows, its_checksum) = numbers(answer)?;
        found.push(CopySum {
            node: Some(node.name.clone()),
            equal: its_rows == rows && its_checksum == checksum,
            rows: its_rows,
            checksum: its_checksum,
        });
    }
    drop(portable);
    Ok(found)
}

/// The sums tell of all rows.
fn check_may_read(relid: pg_sys::Oid, name: &str) -> Result<()> {
    let oid = relid.to_u32().to_string();
    let row = spi::query_one(
        "SELECT pg_catalog.has_table_privilege($1::oid, 'SELECT') AND NOT pg_catalog.row_security_active($1::oid)",
        &[Some(&oid)],
    )?;
    if row.and_then(|mut row| row.pop()?).as_deref() == Some("t") {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("permission denied for table {name}"),
    )
    .detail("Checking its copies takes the right to read all of its rows."))
}

/// `SELECT count, checksum FROM`: the sum of a hash of each row's text.
fn sum_of(relid: pg_sys::Oid) -> Result<String> {
    let oid = relid.to_u32().to_string();
    let columns = spi::query(
        "SELECT pg_catalog.quote_ident(attname) FROM pg_catalog.pg_attribute \
         WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        &[Some(&oid)],
    )?;
    let columns: Vec<String> = columns
        .into_iter()
        .filter_map(|mut row| Some(format!("t.{}", row.pop()??)))
        .collect();
    Ok(format!(
        "SELECT pg_catalog.count(*), coalesce(pg_catalog.sum(\
           (('x' || pg_catalog.substr(pg_catalog.md5(ROW({})::text), 1, 15))::bit(60))::bigint), 0)::text FROM",
        columns.join(", ")
    ))
}

fn numbers(rows: Vec<Vec<Option<String>>>) -> Result<(i64, String)> {
    let mut row = rows.into_iter().next().unwrap_or_default();
    match (row.pop().flatten(), row.pop().flatten()) {
        (Some(checksum), Some(count)) => count
            .parse()
            .map(|count| (count, checksum))
            .map_err(|_| Error::internal("a count that is no number")),
        _ => Err(Error::internal("a copy was not summed up")),
    }
}
