//! Definitions: distributing tables and undoing it, creating and dropping shards, TRUNCATE.
//!
//! In: oids and the arguments of the SQL functions in `api`. Out: DDL on nodes and rows in the catalogs, all
//! in the distributed transaction. What cannot be done is an `Error` with its reason and a way out.

mod checks;
mod colocation;
mod dependencies;
mod distribute;
mod load;
mod rebuild;
mod replicate;
mod shards;
mod sql;

pub use colocation::Colocate;
pub use colocation::method_of;
pub use replicate::{drop_reference_tables_from, replicate_reference_tables_to};
pub use distribute::{distribute_reference_table, distribute_table};

