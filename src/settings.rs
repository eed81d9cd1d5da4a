//! Every setting of the extension, each with a typed getter.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static SHARD_COUNT: GucSetting<i32> = GucSetting::<i32>::new(32);

static COPY_BUFFER_SIZE: GucSetting<i32> = GucSetting::<i32>::new(16 * 1024);

/// Bytes of rows that one COPY FROM keeps in memory.
pub fn copy_buffer_size() -> usize {
    COPY_BUFFER_SIZE.get() as usize * 1024
}

/// Shard groups of a newly hash-distributed table.
pub fn shard_count() -> i32 {
    SHARD_COUNT.get()
}

pub fn init() {
    GucRegistry::define_int_guc(
        c"shard_ext.shard_count",
        c"Number of shard groups of a table that create_distributed_table distributes by hash.",
        c"Used when no shard_count is given and no colocation group is joined.",
        &SHARD_COUNT,
        1,
        64000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"shard_ext.copy_buffer_size",
        c"Memory in which COPY FROM gathers rows by shard group.",
        c"Half of it for rows being gathered, half for batches on their way to the nodes.",
        &COPY_BUFFER_SIZE,
        256,
        2 * 1024 * 1024 - 1,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    );
}

/// Makes the server reject unknown `shard_ext.*` settings from here on.
pub fn reserve_prefix() {
    // SAFETY: a NUL-terminated literal, called once at load.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"shard_ext".as_ptr()) }
}
