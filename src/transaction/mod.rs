//! One transaction over the coordinator and its nodes: begin, savepoints, two-phase commit, recovery.

use pgrx::pg_sys;

pub fn init() {}

/// Whether the remote work of `statement` may run on a node without BEGIN and COMMIT: it is the one statement that
/// the client has sent, outside of any transaction block, function or procedure, and nothing can follow it in its
/// transaction. The executor passes `estate->es_plannedstmt`.
pub fn may_autocommit(statement: *const pg_sys::PlannedStmt) -> bool {
    let _ = statement;
    false
}
