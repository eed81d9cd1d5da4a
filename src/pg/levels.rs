//! Query levels: moving a Query one level down, below a new one.

use pgrx::pg_sys::{self, Node};

unsafe extern "C-unwind" {
    // rewrite/rewriteManip.h, not in pgrx's bindings
    fn IncrementVarSublevelsUp(node: *mut Node, delta: i32, min_sublevels_up: i32);
}

/// References of `query` to levels around it reach one level further.
///
/// # Safety
/// `query` is a valid Query that the caller owns.
pub unsafe fn push_down(query: *mut pg_sys::Query) {
    // SAFETY: it changes the tree in place; an error of the server passes the boundary.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| IncrementVarSublevelsUp(query.cast(), 1, 1));
    }
}
