//! Every setting of the extension, each with a typed getter.

use std::ffi::CString;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static SHARD_COUNT: GucSetting<i32> = GucSetting::<i32>::new(32);

static COPY_BUFFER_SIZE: GucSetting<i32> = GucSetting::<i32>::new(16 * 1024);

/// Bytes of rows that COPY FROM, or a statement that moves rows, keeps in memory.
pub fn copy_buffer_size() -> usize {
    COPY_BUFFER_SIZE.get() as usize * 1024
}

/// Shard groups of a newly hash-distributed table.
pub fn shard_count() -> i32 {
    SHARD_COUNT.get()
}

static NODE_CONNECTION_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5000);
static MAX_CACHED_CONNECTIONS: GucSetting<i32> = GucSetting::<i32>::new(1);
static MAX_PREPARED_STATEMENTS: GucSetting<i32> = GucSetting::<i32>::new(256);

static CRASH_POINT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

static RECOVERY_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);

/// Time between two looks for transactions that were left prepared on nodes.
pub fn recovery_interval() -> std::time::Duration {
    std::time::Duration::from_secs(RECOVERY_INTERVAL.get().max(1) as u64)
}

static STATISTICS_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);

/// Time between two looks for tables whose statistics are out of date; none: they are not looked for.
pub fn statistics_interval() -> Option<std::time::Duration> {
    let seconds = u64::try_from(STATISTICS_INTERVAL.get()).unwrap_or(0);
    (seconds > 0).then(|| std::time::Duration::from_secs(seconds))
}

/// See `transaction::crash_point`.
pub fn crash_point() -> Option<String> {
    CRASH_POINT
        .get()
        .filter(|value| !value.is_empty())
        .map(|value| value.to_string_lossy().into_owned())
}

/// Milliseconds to establish a connection to a node.
pub fn node_connection_timeout() -> u64 {
    NODE_CONNECTION_TIMEOUT.get().max(1) as u64
}

/// Idle connections kept per node by each session between transactions.
pub fn max_cached_connections_per_node() -> usize {
    MAX_CACHED_CONNECTIONS.get().max(0) as usize
}

/// Named prepared statements per connection; 0: none are used.
pub fn max_prepared_statements_per_connection() -> i32 {
    MAX_PREPARED_STATEMENTS.get()
}

static EXPLAIN_ALL_TASKS: GucSetting<bool> = GucSetting::<bool>::new(false);

/// EXPLAIN shows the statement and the worker's plan of every task, not of the first only.
pub fn explain_all_tasks() -> bool {
    EXPLAIN_ALL_TASKS.get()
}

static SHARD_GROUPS_PER_STATEMENT: GucSetting<i32> = GucSetting::<i32>::new(64);

/// Shard groups of one node that a single statement reads.
pub fn shard_groups_per_statement() -> usize {
    SHARD_GROUPS_PER_STATEMENT.get().max(1) as usize
}

/// How tables are joined that are not neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, pgrx::PostgresGucEnum)]
pub enum JoinStrategy {
    /// By the planner's estimates.
    #[name = c"auto"]
    Auto,
    /// Rows come to the coordinator.
    #[name = c"pull"]
    Pull,
    /// Operands of up to `shard_ext.broadcast_rows` rows go to the shards.
    #[name = c"broadcast"]
    Broadcast,
    /// Operands of any size go to temporary tables beside the shards of another.
    #[name = c"repartition"]
    Repartition,
}

static JOIN_STRATEGY: GucSetting<JoinStrategy> =
    GucSetting::<JoinStrategy>::new(JoinStrategy::Auto);
static BROADCAST_ROWS: GucSetting<i32> = GucSetting::<i32>::new(100_000);
static BROADCAST_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(256 * 1024);

pub fn join_strategy() -> JoinStrategy {
    JOIN_STRATEGY.get()
}

/// The most rows that the planner, by its estimates, sends to the shards for a join.
pub fn broadcast_rows() -> i32 {
    BROADCAST_ROWS.get()
}

/// The memory that a column of such rows may take, in bytes.
pub fn broadcast_memory() -> usize {
    BROADCAST_MEMORY.get() as usize * 1024
}

pub fn init() {
    define_planner_settings();
    GucRegistry::define_int_guc(
        c"shard_ext.node_connection_timeout",
        c"Time to wait for a connection to a node to be established.",
        c"Beyond it the statement fails. Also limits how long ending a transaction waits for a node that does not answer.",
        &NODE_CONNECTION_TIMEOUT,
        10,
        3_600_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"shard_ext.recovery_interval",
        c"Time between two looks for transactions that were left prepared on nodes.",
        c"The background worker also looks when the server starts and after a transaction that lost a node while it ended.",
        &RECOVERY_INTERVAL,
        1,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"shard_ext.statistics_interval",
        c"Time between two looks for distributed tables to be analyzed automatically.",
        c"The background worker then asks every node for the sizes of its shards, and brings the statistics of tables that have grown or shrunk up to date. 0 turns it off.",
        &STATISTICS_INTERVAL,
        0,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_string_guc(
        c"shard_ext.crash_point",
        c"Place in two-phase commit where the session dies, fails or waits.",
        c"For tests of recovery. The name of a place, alone or with \":error\" or \":sleep:<milliseconds>\".",
        &CRASH_POINT,
        GucContext::Suset,
        GucFlags::NO_SHOW_ALL,
    );
    GucRegistry::define_int_guc(
        c"shard_ext.max_cached_connections_per_node",
        c"Connections to a node that a session keeps open between transactions.",
        c"0 closes every connection at the end of its transaction.",
        &MAX_CACHED_CONNECTIONS,
        0,
        1000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"shard_ext.max_prepared_statements_per_connection",
        c"Prepared statements that a session keeps on each of its connections to nodes.",
        c"The least recently used one makes room. 0 uses none, which a transaction pooler between coordinator and node may need.",
        &MAX_PREPARED_STATEMENTS,
        0,
        100_000,
        GucContext::Userset,
        GucFlags::default(),
    );
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
        c"Memory in which COPY FROM, INSERT ... SELECT, and joins that move rows, gather rows by shard group.",
        c"Half of it for rows being gathered, half for batches on their way to the nodes.",
        &COPY_BUFFER_SIZE,
        256,
        2 * 1024 * 1024 - 1,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    );
}

fn define_planner_settings() {
    GucRegistry::define_enum_guc(
        c"shard_ext.join_strategy",
        c"How tables are joined that are not colocated and tied by their distribution columns.",
        c"auto chooses by estimates; pull joins rows on the coordinator; broadcast sends small operands to all shards; repartition moves the rows of one operand to the shards of another, by the column that joins them.",
        &JOIN_STRATEGY,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"shard_ext.broadcast_rows",
        c"Estimated rows up to which an operand of a join or a subquery is sent to the shards.",
        c"They are sent as array parameters, once to each node.",
        &BROADCAST_ROWS,
        0,
        10_000_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"shard_ext.broadcast_memory",
        c"Memory that one column of the rows sent to the shards may take.",
        c"A statement whose rows take more, because estimates were wrong, fails.",
        &BROADCAST_MEMORY,
        64,
        1_048_576,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_bool_guc(
        c"shard_ext.explain_all_tasks",
        c"EXPLAIN shows the statement and plan of every task.",
        c"When off, only the first task is shown.",
        &EXPLAIN_ALL_TASKS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"shard_ext.shard_groups_per_statement",
        c"Shard groups of one node that a single statement reads.",
        c"The rows of that many shard groups are appended by the node; more groups take more statements.",
        &SHARD_GROUPS_PER_STATEMENT,
        1,
        1000,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// Makes the server reject unknown `shard_ext.*` settings from here on.
pub fn reserve_prefix() {
    // SAFETY: a NUL-terminated literal, called once at load.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"shard_ext".as_ptr()) }
}
