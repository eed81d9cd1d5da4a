//! Statements on nodes over libpq: connections owned by the session, requests pipelined on them, rows as they arrive.
//!
//! In: a node, SQL, parameters. Out: rows, affected counts, or an `Error` with every field the node sent. This
//! folder knows nodes and SQL, no shards beyond their use as affinity. Nothing here blocks without an interrupt check.

pub mod abandoned;
mod answer;
mod chunks;
pub mod connection;
mod copy_in;
mod copy_queue;
mod gather;
pub mod libpq;
mod lone;
mod options;
pub mod outcome;
pub mod pool;
mod prepared;
mod probe;
pub mod quiet;
mod remote_error;
mod request;
mod row;
pub mod scope;
mod session;
pub mod sessions;
mod simple;
#[cfg(any(test, feature = "pg_test"))]
mod tests;
pub mod wait;

pub use chunks::Chunks;
pub use copy_in::CopyIn;
pub use copy_queue::{CopyQueue, FailedBatch, Note};
pub use gather::Gather;
pub use lone::LoneConnection;
pub use options::ConnectOptions;
pub use pool::{hold, set_readers_aside, takes_part, Use};
pub use probe::{probe, NodeFacts, COLLATIONS_QUERY, COLLATION_QUERY, FUNCTIONS_QUERY};
pub use request::{Access, Format, Params, Received, Request, Statement};
pub use row::Row;
pub use simple::{execute, execute_all, execute_for_statement, query};

pub fn init() {
    sessions::init();
}
