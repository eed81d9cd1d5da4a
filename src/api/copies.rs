//! The SQL function about copies of reference tables.

use super::answer;
use crate::cluster;
use pgrx::prelude::*;

#[pg_schema]
mod shard_ext {
    use super::*;

    #[pg_extern(sql = r#"
CREATE FUNCTION shard_ext.check_reference_table(
    table_name regclass, OUT node text, OUT rows bigint, OUT checksum numeric, OUT equal boolean
) RETURNS SETOF record
VOLATILE STRICT LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
COMMENT ON FUNCTION shard_ext.check_reference_table(regclass)
    IS 'count and checksum of a reference table (node NULL: here) and of its copy on every node, and whether they are equal; writers wait meanwhile';
"#)]
    #[allow(clippy::type_complexity)]
    fn check_reference_table(
        table_name: pg_sys::Oid,
    ) -> TableIterator<
        'static,
        (
            name!(node, Option<String>),
            name!(rows, i64),
            name!(checksum, Option<AnyNumeric>),
            name!(equal, bool),
        ),
    > {
        let copies = answer(cluster::check_reference_table(table_name));
        TableIterator::new(copies.into_iter().map(|copy| {
            let checksum = AnyNumeric::try_from(copy.checksum.as_str()).ok();
            (copy.node, copy.rows, checksum, copy.equal)
        }))
    }
}
