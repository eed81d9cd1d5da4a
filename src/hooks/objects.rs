//! The object access hook: distributed tables that are dropped, by whatever way, are dropped on nodes too;
//! the foreign servers of nodes are watched.

use crate::cluster;
use crate::ddl;
use pgrx::pg_sys;

static mut PREVIOUS: pg_sys::object_access_hook_type = None;

pub fn init() {
    // SAFETY: called once, while the postmaster loads its libraries.
    unsafe {
        PREVIOUS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(object_access);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub_object: i32,
    argument: *mut std::ffi::c_void,
) {
    if let Some(previous) = PREVIOUS {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            previous(access, class, object, sub_object, argument)
        });
    }
    if class == pg_sys::ForeignServerRelationId {
        return cluster::server_event(access, object).unwrap_or_else(|error| error.raise());
    }
    if access != pg_sys::ObjectAccessType::OAT_DROP {
        return;
    }
    // SAFETY: the argument of OAT_DROP.
    let flags = argument
        .cast::<pg_sys::ObjectAccessDrop>()
        .as_ref()
        .map_or(0, |drop| drop.dropflags);
    let internal = flags & pg_sys::PERFORM_DELETION_INTERNAL as i32 != 0;
    if let Err(error) = ddl::about_to_drop(class, object, sub_object, internal) {
        error.raise();
    }
}
