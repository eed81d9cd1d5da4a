//! The catalog relations of the extension in this database, and whether it is installed at all.
//!
//! The answer is kept until a schema is created or dropped anywhere in the database or one of the
//! relations changes; then it costs one syscache look-up where there is no extension.

use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::CStr;

macro_rules! relations {
    ($($name:ident),* $(,)?) => {
        /// Oids of the tables and indexes of schema `shard_ext` that the extension reads and writes.
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct Relations { $(pub $name: pg_sys::Oid),* }

        impl Relations {
            /// None while CREATE EXTENSION has not made them all.
            fn find(schema: pg_sys::Oid) -> Option<Relations> {
                Some(Relations { $($name: relation(schema, concat!(stringify!($name), "\0"))?),* })
            }

            fn contains(&self, relid: pg_sys::Oid) -> bool {
                false $(|| self.$name == relid)*
            }
        }
    };
}

relations! {
    node, node_pkey, node_server_name_key,
    distributed_table, distributed_table_pkey, distributed_table_colocation_id_idx,
    colocation_group, colocation_group_pkey,
    shard_group, shard_group_pkey, shard_group_colocation_id_idx,
    placement, placement_pkey, placement_node_id_idx,
    commit_record, commit_record_pkey,
}

fn relation(schema: pg_sys::Oid, name: &str) -> Option<pg_sys::Oid> {
    let name = CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
    // SAFETY: a syscache look-up in a transaction.
    let oid = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

thread_local! {
    /// What was found last.
    static FOUND: Cell<Option<Relations>> = const { Cell::new(None) };
    /// Whether `FOUND` is still to be believed.
    static CURRENT: Cell<bool> = const { Cell::new(false) };
}

/// The relations, or none when the extension is not created in this database.
pub fn relations() -> Option<Relations> {
    if CURRENT.get() {
        return FOUND.get();
    }
    // SAFETY: plain reads and catalog look-ups, which need a transaction and a database.
    unsafe {
        if !pg_sys::IsTransactionState() || pg_sys::MyDatabaseId == pg_sys::InvalidOid {
            return None;
        }
        // Set first: an invalidation that arrives during the look-ups clears it again.
        CURRENT.set(true);
        let schema = pg_sys::get_namespace_oid(c"shard_ext".as_ptr(), true);
        let extension = if schema == pg_sys::InvalidOid {
            pg_sys::InvalidOid
        } else {
            pg_sys::get_extension_oid(c"shard_ext".as_ptr(), true)
        };
        let found = if extension == pg_sys::InvalidOid {
            None
        } else {
            let found = Relations::find(schema);
            // CREATE EXTENSION is still at it: ask again.
            if found.is_none() {
                CURRENT.set(false);
            }
            found
        };
        FOUND.set(found);
        found
    }
}

/// Whether the extension is created in this database.
pub fn installed() -> bool {
    relations().is_some()
}

/// A schema came or went.
pub(super) fn forget() {
    CURRENT.set(false);
}

/// Whether `relid` is one of the catalogs that are cached. Any relation of the extension is looked up again.
pub(super) fn is_changed(relid: pg_sys::Oid) -> bool {
    let Some(found) = FOUND.get().filter(|found| found.contains(relid)) else {
        return false;
    };
    forget();
    [
        found.node,
        found.distributed_table,
        found.colocation_group,
        found.shard_group,
        found.placement,
    ]
    .contains(&relid)
}
