//! Whether an expression may run statements of its own while it is evaluated: then it may need the
//! connections that COPY is using.

use crate::pg::node;
use pgrx::{pg_guard, pg_sys};
use std::ffi::c_void;
use std::ptr::null_mut;

/// `INTERNALlanguageId` and `ClanguageId` of `catalog/pg_language.h`.
const NATIVE_LANGUAGES: [u32; 2] = [12, 13];

/// Functions in C and the server's own are taken not to.
///
/// # Safety
/// `expression` is null or a valid expression tree.
pub unsafe fn may_run_statements(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: as the caller promises; so are its children.
    unsafe {
        !expression.is_null()
            && (calls_user_code(expression)
                || node::children(expression, |child| may_run_statements(child)))
    }
}

/// Whether a node of an expression itself calls such a function.
///
/// # Safety
/// `item` is a valid node.
pub unsafe fn calls_user_code(item: *mut pg_sys::Node) -> bool {
    // SAFETY: as the caller promises.
    unsafe { pg_sys::check_functions_in_node(item, Some(is_in_a_language), null_mut()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn is_in_a_language(function: pg_sys::Oid, _unused: *mut c_void) -> bool {
    if crate::pg::types::is_builtin(function) {
        return false;
    }
    // SAFETY: a syscache look-up; the tuple is released before returning.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::PROCOID as i32,
            pg_sys::Datum::from(function),
        );
        if tuple.is_null() {
            return false;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let language = (*form).prolang.to_u32();
        pg_sys::ReleaseSysCache(tuple);
        !NATIVE_LANGUAGES.contains(&language)
    }
}
