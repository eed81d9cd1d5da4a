//! The catalogs' SQL: tables, and the trigger that notices changes by hand.

use pgrx::prelude::*;

extension_sql_file!("../../sql/catalog.sql", name = "catalog", bootstrap);

#[pg_schema]
mod shard_ext {
    use pgrx::prelude::*;

    /// Makes every session read the catalogs, and plan, anew.
    #[pg_trigger]
    fn catalog_changed<'a>(
        _trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, std::convert::Infallible> {
        // SAFETY: queues a message; any relation may be affected by what was written by hand.
        unsafe { pg_sys::CacheInvalidateRelcacheAll() };
        Ok(None::<PgHeapTuple<AllocatedByPostgres>>)
    }
}

extension_sql_file!(
    "../../sql/triggers.sql",
    name = "catalog_triggers",
    requires = ["catalog", shard_ext::catalog_changed]
);
