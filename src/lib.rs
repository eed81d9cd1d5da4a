//! `shard_ext` makes one PostgreSQL database the coordinator of a sharded cluster of stock PostgreSQL workers.
//!
//! Read `docs/architecture.md` first; `_PG_init` below is the table of contents.
#![allow(clippy::missing_safety_doc)]

use pgrx::prelude::*;

mod api;
mod catalog;
mod cluster;
mod copy;
mod ddl;
mod deparse;
mod error;
mod executor;
mod hooks;
mod maintenance;
mod pg;
mod planner;
mod remote;
mod settings;
mod statistics;
mod transaction;

::pgrx::pg_module_magic!();

/// Called when the library is loaded: by the postmaster when it is in `shared_preload_libraries`.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: a plain flag that PostgreSQL sets before it loads any library.
    if !unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        error::Error::new(
            error::sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "shard_ext must be loaded by shared_preload_libraries",
        )
        .hint(
            "Add shard_ext to shared_preload_libraries in postgresql.conf and restart the server.",
        )
        .raise();
    }
    settings::init();
    catalog::init();
    remote::init();
    transaction::init();
    planner::init();
    executor::init();
    hooks::init();
    maintenance::init();
    settings::reserve_prefix();
}

#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![
            "shared_preload_libraries = 'shard_ext'",
            "max_prepared_transactions = 100",
        ]
    }
}
