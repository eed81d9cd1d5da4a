//! May this table be distributed? Each refusal says why, and what to do instead.

use crate::catalog::{self, Method, TableKind};
use crate::error::{sqlstate, Error, Result};
use crate::pg::spi;
use pgrx::pg_sys;

/// A local table that is about to become a distributed or reference table, locked against all others.
pub struct Candidate {
    pub relid: pg_sys::Oid,
    /// Decimal, as parameter of catalog queries.
    pub oid: String,
    pub name: String,
}

/// The column that rows are distributed by.
pub struct Key {
    pub name: String,
    pub attnum: i16,
    /// The base type, if the column's is a domain.
    pub data_type: pg_sys::Oid,
    pub collation: pg_sys::Oid,
}

/// Locks the table and makes sure that it is one that can live on nodes at all.
pub fn candidate(relid: pg_sys::Oid) -> Result<Candidate> {
    // SAFETY: plain calls; the first raises in a read-only transaction, the lock goes with the transaction.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(c"distributing a table".as_ptr());
        owned(relid)?;
        pg_sys::LockRelationOid(relid, pg_sys::AccessExclusiveLock as i32);
    }
    // it may have changed hands or gone while we waited
    let name = owned(relid)?;
    catalog::write::lock_tables()?;
    let candidate = Candidate {
        relid,
        oid: u32::from(relid).to_string(),
        name,
    };
    if catalog::table(relid)?.is_some() {
        return Err(Error::new(
            sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table \"{}\" is distributed already", candidate.name),
        )
        .hint("To distribute it in another way, call undistribute_table first."));
    }
    kind(&candidate)?;
    // SAFETY: locked above; raises if a cursor or a statement of this session still reads the table.
    unsafe {
        let relation = pg_sys::table_open(relid, pg_sys::NoLock as i32);
        pg_sys::CheckTableNotInUse(relation, c"distribute".as_ptr());
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
    }
    Ok(candidate)
}

/// The relation's name, if the current user owns it.
pub fn owned(relid: pg_sys::Oid) -> Result<String> {
    let name = relation_name(relid)?;
    // SAFETY: a look-up by oid.
    if unsafe { pg_sys::pg_class_ownercheck(relid, pg_sys::GetUserId()) } {
        return Ok(name);
    }
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("must be owner of table {name}"),
    ))
}

pub fn relation_name(relid: pg_sys::Oid) -> Result<String> {
    // SAFETY: returns a palloc'd string, or null for a relation that is gone.
    let name = unsafe { pg_sys::get_rel_name(relid) };
    if name.is_null() {
        return Err(Error::new(
            sqlstate::UNDEFINED_TABLE,
            format!("relation with OID {} does not exist", u32::from(relid)),
        ));
    }
    // SAFETY: not null, NUL-terminated.
    Ok(unsafe { std::ffi::CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned())
}

/// The table as a string constant to call our functions with: quoted, and qualified unless the search path
/// finds it.
pub fn regclass_literal(relid: pg_sys::Oid) -> String {
    // SAFETY: regclassout takes any oid and returns a palloc'd C string.
    let name = unsafe {
        std::ffi::CStr::from_ptr(pg_sys::OidOutputFunctionCall(
            pg_sys::Oid::from(pg_sys::F_REGCLASSOUT),
            relid.into(),
        ))
    };
    super::sql::quote_literal(&name.to_string_lossy())
}

pub fn schema_name(relid: pg_sys::Oid) -> Result<String> {
    // SAFETY: look-ups by oid; the name is palloc'd, or null for a relation that is gone.
    unsafe {
        let name = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relid));
        if name.is_null() {
            return relation_name(relid)
                .and_then(|name| Err(Error::internal(format!("table \"{name}\" has no schema"))));
        }
        Ok(std::ffi::CStr::from_ptr(name)
            .to_string_lossy()
            .into_owned())
    }
}

const KIND: &str = "
SELECT c.relkind::pg_catalog.text, c.relpersistence::pg_catalog.text, c.relispartition::pg_catalog.text,
       n.nspname,
       (EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE c.oid IN (inhrelid, inhparent)))::pg_catalog.text,
       (SELECT pg_catalog.min(tgname::pg_catalog.text) FROM pg_catalog.pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal),
       (SELECT pg_catalog.min(rulename::pg_catalog.text) FROM pg_catalog.pg_rewrite WHERE ev_class = c.oid)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = $1::pg_catalog.oid";

fn kind(table: &Candidate) -> Result<()> {
    let row = spi::query_one(KIND, &[Some(&table.oid)])?.unwrap_or_default();
    let text = |index: usize| row.get(index).and_then(|value| value.as_deref());
    let name = &table.name;
    let wrong = |what: &str| {
        Err(Error::new(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("\"{name}\" is {what}, not a table that can be distributed"),
        )
        .hint("Distribute the ordinary tables that hold the rows."))
    };
    match text(0) {
        Some("r") => {}
        Some("p") => {
            return Err(Error::refused(
                format!("partitioned table \"{name}\" cannot be distributed yet"),
                "Distribute an ordinary table, by range or list if that is what the partitions are for.",
            ))
        }
        Some("v") => return wrong("a view"),
        Some("m") => return wrong("a materialized view"),
        Some("f") => return wrong("a foreign table"),
        _ => return wrong("an index, sequence or type"),
    }
    if text(1) == Some("t") {
        return Err(Error::refused(
            format!("temporary table \"{name}\" cannot be distributed"),
            "Use an ordinary or an unlogged table.",
        ));
    }
    if u32::from(table.relid) < pg_sys::FirstNormalObjectId
        || matches!(
            text(3),
            Some("pg_catalog" | "information_schema" | "shard_ext")
        )
    {
        return Err(Error::refused(
            format!("\"{name}\" is a system catalog and cannot be distributed"),
            "Copy the rows you need into a table of your own and distribute that.",
        ));
    }
    if text(2) == Some("true") || text(4) == Some("true") {
        return Err(Error::refused(
            format!("table \"{name}\" is part of an inheritance or partition tree and cannot be distributed yet"),
            "Take it out with ALTER TABLE … NO INHERIT or DETACH PARTITION first.",
        ));
    }
    if let Some(trigger) = text(5) {
        return Err(Error::refused(
            format!("table \"{name}\" has trigger \"{trigger}\", and triggers are not supported on distributed tables yet"),
            "Drop the trigger, or do its work in the statements that write the table.",
        ));
    }
    if let Some(rule) = text(6) {
        return Err(Error::refused(
            format!("table \"{name}\" has rule \"{rule}\", and rules are not supported on distributed tables"),
            "Drop the rule.",
        ));
    }
    Ok(())
}

const KEY: &str = "
SELECT a.attname, a.attnum::pg_catalog.text, a.atttypid::pg_catalog.text, a.attcollation::pg_catalog.text,
       (a.attgenerated <> '')::pg_catalog.text
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = $1::pg_catalog.oid AND a.attname = $2 AND NOT a.attisdropped";

/// The distribution column, checked for `method`.
pub fn key(table: &Candidate, column: &str, method: Method) -> Result<Key> {
    let row = spi::query_one(KEY, &[Some(&table.oid), Some(column)])?;
    let Some([Some(name), Some(attnum), Some(data_type), Some(collation), Some(generated)]) =
        row.as_deref()
    else {
        return Err(Error::new(
            sqlstate::UNDEFINED_COLUMN,
            format!(
                "column \"{column}\" of relation \"{}\" does not exist",
                table.name
            ),
        ));
    };
    let number = |text: &String| text.parse::<i64>().unwrap_or(0);
    if number(attnum) <= 0 {
        return Err(Error::refused(
            format!("system column \"{name}\" cannot be a distribution column"),
            "Choose a column that most queries and joins compare with =.",
        ));
    }
    if generated == "true" {
        return Err(Error::refused(
            format!("generated column \"{name}\" cannot be the distribution column"),
            "Choose the column that it is computed from.",
        ));
    }
    let key = Key {
        name: name.clone(),
        attnum: number(attnum) as i16,
        data_type: catalog::base_type(pg_sys::Oid::from(number(data_type) as u32)),
        collation: pg_sys::Oid::from(number(collation) as u32),
    };
    catalog::check_key(method, key.data_type, key.collation).map_err(|error| {
        error.hint(format!(
            "Choose a column of another type, or create_reference_table({}).",
            regclass_literal(table.relid)
        ))
    })?;
    Ok(key)
}

/// Unique indexes (those of keys among them): each with whether the column is one of its key columns.
const UNIQUE: &str = "
SELECT c.relname, ($2::pg_catalog.int2 = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1]))::pg_catalog.text
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = $1::pg_catalog.oid AND i.indisunique
 ORDER BY NOT i.indisprimary, c.relname";

const EXCLUSION: &str = "
SELECT k.conname, (EXISTS (
           SELECT FROM ROWS FROM (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.conexclop)) x (attnum, operator)
             JOIN pg_catalog.pg_operator o ON o.oid = x.operator
            WHERE x.attnum = $2::pg_catalog.int2 AND o.oprname = '='))::pg_catalog.text
  FROM pg_catalog.pg_constraint k
 WHERE k.conrelid = $1::pg_catalog.oid AND k.contype = 'x'
 ORDER BY k.conname";

/// Each shard enforces its own keys: they hold for the whole table only when equal keys meet in one shard.
pub fn unique_with_key(table: &Candidate, key: &Key) -> Result<()> {
    let attnum = key.attnum.to_string();
    let params = [Some(table.oid.as_str()), Some(attnum.as_str())];
    for row in spi::query(UNIQUE, &params)? {
        if let [Some(index), Some(with_key)] = row.as_slice() {
            if with_key != "true" {
                return Err(without_key(
                    table,
                    key,
                    &format!("unique index \"{index}\""),
                ));
            }
        }
    }
    for row in spi::query(EXCLUSION, &params)? {
        if let [Some(constraint), Some(with_key)] = row.as_slice() {
            if with_key != "true" {
                return Err(without_key(
                    table,
                    key,
                    &format!("exclusion constraint \"{constraint}\""),
                )
                .detail("It has to compare the distribution column with =."));
            }
        }
    }
    Ok(())
}

fn without_key(table: &Candidate, key: &Key, what: &str) -> Error {
    Error::refused(
        format!(
            "{what} of table \"{}\" does not include distribution column \"{}\"",
            table.name, key.name
        ),
        format!(
            "Add \"{}\" to it, distribute by one of its columns, or make the table a reference table \
             with create_reference_table({}).",
            key.name,
            regclass_literal(table.relid)
        ),
    )
}

/// A foreign key of the table or to it.
struct ForeignKey {
    name: String,
    from: pg_sys::Oid,
    to: pg_sys::Oid,
    /// Pairs of attribute numbers, referencing and referenced.
    columns: Vec<(i16, i16)>,
    /// Attributes that ON DELETE SET NULL or SET DEFAULT changes.
    set_on_delete: Vec<i16>,
}

const FOREIGN_KEYS: &str = "
SELECT k.conname, k.conrelid::pg_catalog.text, k.confrelid::pg_catalog.text,
       pg_catalog.array_to_json(k.conkey)::pg_catalog.text, pg_catalog.array_to_json(k.confkey)::pg_catalog.text,
       CASE WHEN k.confdeltype IN ('n', 'd')
            THEN pg_catalog.array_to_json(coalesce(k.confdelsetcols, k.conkey))::pg_catalog.text END
  FROM pg_catalog.pg_constraint k
 WHERE k.contype = 'f' AND $1::pg_catalog.oid IN (k.conrelid, k.confrelid)
 ORDER BY k.conname";

fn foreign_keys_of(table: &Candidate) -> Result<Vec<ForeignKey>> {
    let numbers = |json: Option<&String>| -> Vec<i16> {
        json.and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default()
    };
    let oid = |text: &String| pg_sys::Oid::from(text.parse::<u32>().unwrap_or(0));
    Ok(spi::query(FOREIGN_KEYS, &[Some(&table.oid)])?
        .iter()
        .filter_map(|row| match row.as_slice() {
            [Some(name), Some(from), Some(to), keys, referenced, set] => Some(ForeignKey {
                name: name.clone(),
                from: oid(from),
                to: oid(to),
                columns: numbers(keys.as_ref())
                    .into_iter()
                    .zip(numbers(referenced.as_ref()))
                    .collect(),
                set_on_delete: numbers(set.as_ref()),
            }),
            _ => None,
        })
        .collect())
}

/// Foreign keys of a table that is to be distributed by `key` in `colocation` (none: a new group).
pub fn foreign_keys_of_distributed(
    table: &Candidate,
    key: &Key,
    colocation: Option<catalog::ColocationId>,
) -> Result<()> {
    for foreign_key in foreign_keys_of(table)? {
        if foreign_key.from == table.relid {
            outgoing(table, key, colocation, &foreign_key)?;
        } else {
            incoming(table, key, &foreign_key)?;
        }
    }
    Ok(())
}

fn outgoing(
    table: &Candidate,
    key: &Key,
    colocation: Option<catalog::ColocationId>,
    foreign_key: &ForeignKey,
) -> Result<()> {
    let name = &foreign_key.name;
    if foreign_key.set_on_delete.contains(&key.attnum) {
        return Err(Error::refused(
            format!(
                "foreign key \"{name}\" of table \"{}\" would change distribution column \"{}\" on delete",
                table.name, key.name
            ),
            "Use ON DELETE CASCADE or RESTRICT, or name the other columns in SET NULL (…).",
        ));
    }
    let referenced_key = if foreign_key.to == table.relid {
        key.attnum
    } else {
        let referenced = relation_name(foreign_key.to)?;
        let known = catalog::table(foreign_key.to)?;
        match known.as_ref().map(|known| &known.kind) {
            None => {
                return Err(Error::refused(
                    format!(
                        "foreign key \"{name}\" of table \"{}\" references local table \"{referenced}\"",
                        table.name
                    ),
                    format!(
                        "Distribute \"{referenced}\" first, or make it a reference table with \
                         create_reference_table({}).",
                        regclass_literal(foreign_key.to)
                    ),
                ))
            }
            Some(TableKind::Reference) => return Ok(()),
            Some(TableKind::Distributed { key, colocation: theirs }) => {
                if Some(theirs.id) != colocation {
                    return Err(Error::refused(
                        format!(
                            "foreign key \"{name}\" of table \"{}\" references table \"{referenced}\", which is not colocated with it",
                            table.name
                        ),
                        format!(
                            "Distribute it with colocate_with => {}, or drop the foreign key.",
                            regclass_literal(foreign_key.to)
                        ),
                    ));
                }
                *key
            }
        }
    };
    if foreign_key.columns.contains(&(key.attnum, referenced_key)) {
        return Ok(());
    }
    Err(Error::refused(
        format!(
            "foreign key \"{name}\" of table \"{}\" does not pair its distribution column \"{}\" with the one of the table it references",
            table.name, key.name
        ),
        "Distribute by the column that references the other table's distribution column, add both \
         distribution columns to the foreign key, or make the referenced table a reference table.",
    ))
}

/// A local table may reference the table for as long as it takes to distribute that as well.
fn incoming(table: &Candidate, key: &Key, foreign_key: &ForeignKey) -> Result<()> {
    let name = &foreign_key.name;
    let referencing = relation_name(foreign_key.from)?;
    if catalog::table(foreign_key.from)?.is_some() {
        // only a reference table can reference a local one
        return Err(Error::refused(
            format!(
                "foreign key \"{name}\" of reference table \"{referencing}\" references table \"{}\"",
                table.name
            ),
            format!("Make \"{}\" a reference table as well, or drop the foreign key.", table.name),
        ));
    }
    if !foreign_key.columns.iter().any(|(_, to)| *to == key.attnum) {
        return Err(Error::refused(
            format!(
                "foreign key \"{name}\" of table \"{referencing}\" references table \"{}\" without its distribution column \"{}\"",
                table.name, key.name
            ),
            format!(
                "Add \"{}\" to the foreign key and to the key it references, drop it, or make \"{}\" a reference table.",
                key.name, table.name
            ),
        ));
    }
    warn_of_local_reference(&referencing, &table.name);
    Ok(())
}

pub fn warn_of_local_reference(referencing: &str, referenced: &str) {
    Error::new(
        sqlstate::WARNING,
        format!("local table \"{referencing}\" references distributed table \"{referenced}\""),
    )
    .hint(format!(
        "Distribute \"{referencing}\" as well: until then its foreign key finds no rows."
    ))
    .warn();
}

/// Foreign keys of a table that is to become a reference table.
pub fn foreign_keys_of_reference(table: &Candidate) -> Result<()> {
    for foreign_key in foreign_keys_of(table)? {
        if foreign_key.from != table.relid || foreign_key.to == table.relid {
            continue;
        }
        let known = catalog::table(foreign_key.to)?;
        if known.is_some_and(|known| known.is_reference()) {
            continue;
        }
        let referenced = relation_name(foreign_key.to)?;
        return Err(Error::refused(
            format!(
                "foreign key \"{}\" of table \"{}\" references table \"{referenced}\", which is not a reference table",
                foreign_key.name, table.name
            ),
            format!(
                "Make \"{referenced}\" a reference table first with create_reference_table({}), or drop the foreign key.",
                regclass_literal(foreign_key.to)
            ),
        ));
    }
    Ok(())
}
