//! Definitions: distributing tables and undoing it, creating and dropping shards, TRUNCATE.
//!
//! In: oids and the arguments of the SQL functions in `api`. Out: DDL on nodes and rows in the catalogs, all
//! in the distributed transaction. What cannot be done is an `Error` with its reason and a way out.

mod add_shard;
mod checks;
mod colocation;
mod constraints;
mod default_shard;
mod dependencies;
mod distribute;
mod drop;
mod evaluated;
mod load;
mod privileges;
mod rebuild;
mod refuse;
mod replicate;
mod shards;
mod sql;
mod truncate;
mod undistribute;
mod unload;

pub use add_shard::{add_shard, Keys};
pub use checks::owned;
pub use colocation::{method_of, Colocate};
pub use constraints::after_set_constraints;
pub use distribute::{distribute_reference_table, distribute_table};
pub use drop::{
    about_to_drop, everything as drop_everything, is_leaving, Statement as DropStatement,
};
pub use evaluated::check as check_evaluated;
pub use privileges::{after_grant, after_owner_change};
pub use refuse::{check as refuse_change, ours as named_table};
pub use replicate::{drop_reference_tables_from, replicate_reference_tables_to};
pub use shards::on_nodes;
pub use sql::{quote_identifier, quote_literal};
pub use truncate::{truncate, with_referencing};
pub use undistribute::undistribute_table;
