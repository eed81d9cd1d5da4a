//! Statistics of distributed tables: VACUUM and ANALYZE reach the shards, and what the nodes know of them comes into
//! `pg_class` and `pg_statistic` here, so that this database's planner estimates with the tables' real contents.
//!
//! Comes in: VACUUM and ANALYZE statements, oids of distributed tables. Goes out: commands to the nodes and catalog rows
//! in the local transaction. Fails when a node does. The background worker does the same when shards grow.

mod analyze;
mod attribute;
mod refresh;
mod sample;
mod totals;
mod vacuum;

pub use analyze::analyze_loaded;
pub use refresh::{catch_up, outdated, refresh_numbers};
pub use vacuum::{vacuum_statement, VacuumCall};
