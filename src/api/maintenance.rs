//! The SQL functions about maintenance.

use pgrx::prelude::*;

use crate::error::Error;
use crate::transaction::{deadlocks, recovery};

use super::answer;

#[pg_schema]
mod shard_ext {
    use super::*;

    /// Finishes transactions that a crash or a lost connection has left prepared on nodes, as the background worker
    /// does by itself. Returns how many were committed or rolled back.
    #[pg_extern]
    fn recover_prepared_transactions() -> i32 {
        let recovered = answer(recovery::recover_all(|_, error: Error| error.warn()));
        (recovered.committed + recovered.rolled_back) as i32
    }

    /// Sessions that wait for others, here or on a node. Behind the view `lock_waits`.
    #[pg_extern]
    fn lock_waits() -> TableIterator<
        'static,
        (
            name!(waiting_pid, i32),
            name!(blocking_pid, i32),
            name!(node_name, Option<String>),
            name!(lock, String),
            name!(waiting_since, f64),
        ),
    > {
        let waits = answer(deadlocks::waits(|_, error: Error| error.warn()));
        TableIterator::new(waits.into_iter().map(|edge| {
            (
                edge.waiter,
                edge.blocker,
                edge.node,
                edge.lock,
                edge.since.parse().unwrap_or(0.0),
            )
        }))
    }
}

extension_sql!(
    "CREATE VIEW shard_ext.lock_waits AS
     SELECT l.waiting_pid,
            w.query AS waiting_statement,
            l.blocking_pid,
            b.query AS blocking_statement,
            l.node_name,
            l.lock,
            pg_catalog.to_timestamp(l.waiting_since) AS waiting_since
     FROM shard_ext.lock_waits() l
     LEFT JOIN pg_catalog.pg_stat_activity w ON w.pid = l.waiting_pid
     LEFT JOIN pg_catalog.pg_stat_activity b ON b.pid = l.blocking_pid;
     CREATE VIEW shard_ext.citus_lock_waits AS
     SELECT waiting_pid::bigint AS waiting_gpid,
            blocking_pid::bigint AS blocking_gpid,
            waiting_statement AS blocked_statement,
            blocking_statement AS current_statement_in_blocking_process,
            coalesce((SELECT node_id FROM shard_ext.node WHERE is_coordinator), 0) AS waiting_nodeid,
            coalesce((SELECT node_id FROM shard_ext.node WHERE is_coordinator), 0) AS blocking_nodeid
     FROM shard_ext.lock_waits;
     ALTER VIEW shard_ext.citus_lock_waits SET SCHEMA pg_catalog;
     GRANT SELECT ON shard_ext.lock_waits, pg_catalog.citus_lock_waits TO PUBLIC;
     COMMENT ON FUNCTION shard_ext.lock_waits() IS 'sessions that wait for others, see the view of this name';
     COMMENT ON VIEW shard_ext.lock_waits IS
       'sessions that wait for locks of other sessions, on a node (node_name) or here; pids are those of sessions here';
     COMMENT ON VIEW pg_catalog.citus_lock_waits IS
       'sessions that wait for locks of other sessions, with the columns of Citus';",
    name = "lock_waits_views",
    requires = ["catalog", shard_ext::lock_waits]
);

extension_sql!(
    "REVOKE EXECUTE ON FUNCTION shard_ext.recover_prepared_transactions() FROM PUBLIC;
     COMMENT ON FUNCTION shard_ext.recover_prepared_transactions() IS
       'commits or rolls back what transactions of this database have left prepared on nodes';",
    name = "recovery_privileges",
    requires = [shard_ext::recover_prepared_transactions]
);
