//! Whether a statement needs a transaction on its node.

use pgrx::pg_sys;
use std::ffi::c_int;

extern "C-unwind" {
    // libpq/libpq.h, not in pgrx's bindings
    fn pq_buffer_has_data() -> bool;
    fn pq_startmsgread();
    fn pq_peekbyte() -> c_int;
    fn pq_endmsgread();
}

/// Whether the remote work of `statement` may run on a node without BEGIN and COMMIT: it is the one statement that
/// the client has sent, outside of any transaction block, function or procedure, and nothing can follow it in its
/// transaction. The executor passes `estate->es_plannedstmt`.
pub fn may_autocommit(statement: *const pg_sys::PlannedStmt) -> bool {
    // SAFETY: server variables; a portal that is active has its statements, and lists have as many cells as they say.
    unsafe {
        // no block, explicit or implicit (several statements in one message), and no savepoint
        if pg_sys::IsTransactionBlock() || pg_sys::GetCurrentTransactionNestLevel() != 1 {
            return false;
        }
        let portal = pg_sys::ActivePortal;
        if portal.is_null() || (*portal).stmts.is_null() || (*(*portal).stmts).length != 1 {
            return false;
        }
        // the very statement of the portal, not one that it calls
        let first = (*(*(*portal).stmts).elements).ptr_value;
        if first.cast_const().cast() != statement {
            return false;
        }
        // local changes must not be committed apart from remote ones
        if pg_sys::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId {
            return false;
        }
        // Portals of the simple protocol (and of EXECUTE) are the only ones that pg_cursors hides. In the extended
        // protocol a pipeline may go on within the transaction unless Sync comes next.
        !(*portal).visible || sync_is_next()
    }
}

/// # Safety
/// Only between messages: while a statement runs.
unsafe fn sync_is_next() -> bool {
    if pg_sys::whereToSendOutput != pg_sys::CommandDest::DestRemote || !pq_buffer_has_data() {
        return false;
    }
    pq_startmsgread();
    let next = pq_peekbyte();
    pq_endmsgread();
    next == c_int::from(b'S')
}
