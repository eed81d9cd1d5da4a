//! One transaction over the coordinator and its nodes: begin, savepoints, two-phase commit, recovery.
//!
//! In: PostgreSQL's transaction and subtransaction events. BEGIN and savepoints travel with the statements, see
//! `remote::scope`; here is the end: what each node is told before and after the local commit or abort.
//! `moves` counts the commits of rows that move between shards, for statements that could miss such a row.

mod autocommit;
mod callbacks;
mod commit;
mod crash_point;
pub mod deadlocks;
pub mod gid;
pub mod moves;
pub mod recovery;
mod unfinished;

pub use autocommit::may_autocommit;

pub fn init() {
    callbacks::register();
    moves::init();
    unfinished::init();
}
