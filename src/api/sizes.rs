//! The SQL functions about sizes: what `pg_relation_size` and its family say of ordinary tables.

use super::answer;
use crate::cluster::{self, Measure};
use crate::statistics;
use pgrx::prelude::*;

#[pg_schema]
mod shard_ext {
    use super::*;

    #[pg_extern(sql = r#"
CREATE FUNCTION shard_ext.table_size(table_name regclass) RETURNS bigint
VOLATILE STRICT LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
COMMENT ON FUNCTION shard_ext.table_size(regclass)
    IS 'bytes of all shards or copies of a table with indexes and TOAST';
"#)]
    fn table_size(table_name: pg_sys::Oid) -> Option<i64> {
        answer(cluster::relation_size(table_name, Measure::Total, true))
    }
}

#[pg_extern(sql = r#"
CREATE FUNCTION pg_catalog.citus_relation_size(table_name regclass) RETURNS bigint
VOLATILE STRICT LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
COMMENT ON FUNCTION pg_catalog.citus_relation_size(regclass)
    IS 'pg_relation_size of all shards or copies of a table together';
"#)]
fn citus_relation_size(table_name: pg_sys::Oid) -> Option<i64> {
    answer(cluster::relation_size(table_name, Measure::Relation, true))
}

#[pg_extern(sql = r#"
CREATE FUNCTION pg_catalog.citus_table_size(table_name regclass) RETURNS bigint
VOLATILE STRICT LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
COMMENT ON FUNCTION pg_catalog.citus_table_size(regclass)
    IS 'pg_table_size of all shards or copies of a table together';
"#)]
fn citus_table_size(table_name: pg_sys::Oid) -> Option<i64> {
    answer(cluster::relation_size(table_name, Measure::Table, true))
}

#[pg_extern(sql = r#"
CREATE FUNCTION pg_catalog.citus_total_relation_size(table_name regclass, fail_on_error boolean DEFAULT true) RETURNS bigint
VOLATILE STRICT LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
COMMENT ON FUNCTION pg_catalog.citus_total_relation_size(regclass, boolean)
    IS 'pg_total_relation_size of all shards or copies of a table together; without fail_on_error a node that fails counts nothing';
"#)]
fn citus_total_relation_size(table_name: pg_sys::Oid, fail_on_error: bool) -> Option<i64> {
    answer(cluster::relation_size(
        table_name,
        Measure::Total,
        fail_on_error,
    ))
}

#[pg_extern(sql = r#"
CREATE FUNCTION pg_catalog.citus_update_table_statistics(relation regclass) RETURNS void
VOLATILE STRICT LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
COMMENT ON FUNCTION pg_catalog.citus_update_table_statistics(regclass)
    IS 'bring the numbers of rows and pages of a table''s shards into pg_class; ANALYZE does more';
"#)]
fn citus_update_table_statistics(relation: pg_sys::Oid) {
    answer(statistics::refresh_numbers(relation));
}
