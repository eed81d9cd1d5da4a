//! The SQL functions about maintenance.

use pgrx::prelude::*;

use crate::error::Error;
use crate::transaction::recovery;

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
}

extension_sql!(
    "REVOKE EXECUTE ON FUNCTION shard_ext.recover_prepared_transactions() FROM PUBLIC;
     COMMENT ON FUNCTION shard_ext.recover_prepared_transactions() IS
       'commits or rolls back what transactions of this database have left prepared on nodes';",
    name = "recovery_privileges",
    requires = [shard_ext::recover_prepared_transactions]
);
