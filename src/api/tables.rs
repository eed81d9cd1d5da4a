//! SQL functions that distribute tables. In `pg_catalog`, so that every `search_path` finds them.

use super::{answer, required};
use crate::catalog::{self, Method};
use crate::ddl::{self, Colocate, Keys};
use crate::error::{sqlstate, Error, Result};
use pgrx::prelude::*;
use std::ffi::CString;

fn check_installed() -> Result<()> {
    if catalog::installed() {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "extension \"shard_ext\" is not created in this database",
    )
    .hint("CREATE EXTENSION shard_ext;"))
}

#[pg_extern(sql = r#"
CREATE FUNCTION pg_catalog.create_distributed_table(
    table_name regclass, distribution_column text, distribution_type text DEFAULT 'hash',
    colocate_with text DEFAULT 'default', shard_count int DEFAULT NULL
) RETURNS void VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
COMMENT ON FUNCTION pg_catalog.create_distributed_table(regclass, text, text, text, int)
    IS 'spread the rows of a table over shards by a column';
"#)]
fn create_distributed_table(
    table_name: Option<pg_sys::Oid>,
    distribution_column: Option<&str>,
    distribution_type: Option<&str>,
    colocate_with: Option<&str>,
    shard_count: Option<i32>,
) {
    let run = || -> Result<()> {
        check_installed()?;
        let relid = required(table_name, "table_name")?;
        let Some(column) = distribution_column else {
            return Err(Error::refused(
                "a table without a distribution column is not supported yet",
                "Name a column, or use create_reference_table for a small table.",
            ));
        };
        let named = required(distribution_type, "distribution_type")?;
        let mut method = Method::from_name(named).ok_or_else(|| {
            Error::new(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("unknown distribution type \"{named}\""),
            )
            .hint("Use 'hash', 'range' or 'list'.")
        })?;
        let colocate = match required(colocate_with, "colocate_with")? {
            "default" => Colocate::Default,
            "none" => Colocate::Alone,
            name => Colocate::With(relation_named(name)?),
        };
        if let Colocate::With(relid) = colocate {
            // the default type gives way to the one of the table named
            if method == Method::Hash {
                method = ddl::method_of(relid)?;
            }
        }
        if let Some(count) = shard_count {
            check_shard_count(count, method, &colocate)?;
        }
        ddl::distribute_table(relid, column, method, &colocate, shard_count)
    };
    answer(run())
}

fn check_shard_count(count: i32, method: Method, colocate: &Colocate) -> Result<()> {
    let wrong = |message: String, hint: &str| {
        Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message).hint(hint))
    };
    if !(1..=64000).contains(&count) {
        return wrong(
            format!("{count} is outside the valid range for shard_count (1 .. 64000)"),
            "Choose a few shards per processor of all nodes together.",
        );
    }
    if method != Method::Hash {
        return wrong(
            format!("shard_count has no meaning for distribution type '{}'", method.name()),
            "Leave it out, and add shards with shard_ext.add_range_shard or shard_ext.add_list_shard.",
        );
    }
    if matches!(colocate, Colocate::With(_)) {
        return wrong(
            "shard_count and colocate_with a table exclude each other".to_owned(),
            "Colocated tables have the same shards: leave shard_count out.",
        );
    }
    Ok(())
}

/// A relation by its possibly qualified name, as `regclass` reads it.
fn relation_named(name: &str) -> Result<pg_sys::Oid> {
    let text = CString::new(name).map_err(|_| Error::internal("a NUL byte in a name"))?;
    // SAFETY: a live C string; the list and the RangeVar are palloc'd. A name that does not exist raises.
    unsafe {
        let names = pg_sys::stringToQualifiedNameList(text.as_ptr());
        let relation = pg_sys::makeRangeVarFromNameList(names);
        Ok(pg_sys::RangeVarGetRelidExtended(
            relation,
            pg_sys::NoLock as i32,
            0,
            None,
            std::ptr::null_mut(),
        ))
    }
}

#[pg_extern(sql = r#"
CREATE FUNCTION pg_catalog.create_reference_table(table_name regclass)
RETURNS void VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
COMMENT ON FUNCTION pg_catalog.create_reference_table(regclass)
    IS 'keep a copy of a table on every node';
"#)]
fn create_reference_table(table_name: Option<pg_sys::Oid>) {
    let run = || -> Result<()> {
        check_installed()?;
        ddl::distribute_reference_table(required(table_name, "table_name")?)
    };
    answer(run())
}

#[pg_extern(sql = r#"
CREATE FUNCTION pg_catalog.undistribute_table(
    table_name regclass, cascade_via_foreign_keys boolean DEFAULT false
) RETURNS void VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
COMMENT ON FUNCTION pg_catalog.undistribute_table(regclass, boolean)
    IS 'make a distributed or reference table an ordinary one again, with its rows';
"#)]
fn undistribute_table(table_name: Option<pg_sys::Oid>, cascade_via_foreign_keys: Option<bool>) {
    let run = || -> Result<()> {
        check_installed()?;
        ddl::undistribute_table(
            required(table_name, "table_name")?,
            required(cascade_via_foreign_keys, "cascade_via_foreign_keys")?,
        )
    };
    answer(run())
}

#[pg_extern(sql = r#"
CREATE FUNCTION shard_ext.add_range_shard(
    table_name regclass, lower text, upper text, node text DEFAULT NULL
) RETURNS bigint VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
COMMENT ON FUNCTION shard_ext.add_range_shard(regclass, text, text, text)
    IS 'add a shard for keys from lower (inclusive; NULL: unbounded) to upper (exclusive; NULL: unbounded)';
"#)]
fn add_range_shard(
    table_name: Option<pg_sys::Oid>,
    lower: Option<&str>,
    upper: Option<&str>,
    node: Option<&str>,
) -> i64 {
    let keys = Keys::Range(lower.map(str::to_owned), upper.map(str::to_owned));
    add_shard(table_name, Ok(keys), node)
}

#[pg_extern(sql = r#"
CREATE FUNCTION shard_ext.add_list_shard(
    table_name regclass, "values" text[], node text DEFAULT NULL
) RETURNS bigint VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
COMMENT ON FUNCTION shard_ext.add_list_shard(regclass, text[], text)
    IS 'add a shard for the keys listed, of which one may be NULL';
"#)]
fn add_list_shard(
    table_name: Option<pg_sys::Oid>,
    values: Option<Vec<Option<String>>>,
    node: Option<&str>,
) -> i64 {
    let keys = required(values, "values").map(Keys::List);
    add_shard(table_name, keys, node)
}

#[pg_extern(sql = r#"
CREATE FUNCTION shard_ext.add_default_shard(table_name regclass, node text DEFAULT NULL)
RETURNS bigint VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
COMMENT ON FUNCTION shard_ext.add_default_shard(regclass, text)
    IS 'add a shard for the keys that no other shard takes';
"#)]
fn add_default_shard(table_name: Option<pg_sys::Oid>, node: Option<&str>) -> i64 {
    add_shard(table_name, Ok(Keys::Default), node)
}

fn add_shard(table_name: Option<pg_sys::Oid>, keys: Result<Keys>, node: Option<&str>) -> i64 {
    let run = || -> Result<i64> {
        check_installed()?;
        ddl::add_shard(required(table_name, "table_name")?, &keys?, node)
    };
    answer(run())
}
