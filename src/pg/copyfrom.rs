//! PostgreSQL's COPY FROM parser as `copyfrom_internal.h` declares it, which the bindings leave out.

use pgrx::pg_sys;
use std::ffi::{c_char, c_int, c_uint, c_void};

/// `CopyFromStateData` of PostgreSQL 15, up to the last field that is used here. Never made or copied
/// by us, only looked at behind the pointer that `BeginCopyFrom` returns.
#[repr(C)]
pub struct CopyFromState {
    copy_src: c_uint,
    copy_file: *mut c_void,
    fe_msgbuf: *mut c_void,
    eol_type: c_uint,
    file_encoding: c_int,
    need_transcoding: bool,
    conversion_proc: pg_sys::Oid,
    rel: pg_sys::Relation,
    /// The columns of the input, as attribute numbers (a list of integers).
    pub attnumlist: *mut pg_sys::List,
    filename: *mut c_char,
    is_program: bool,
    data_source_cb: pg_sys::copy_data_source_cb,
    pub opts: pg_sys::CopyFormatOptions,
    convert_select_flags: *mut bool,
    where_clause: *mut pg_sys::Node,
    cur_relname: *const c_char,
    pub cur_lineno: u64,
    pub cur_attname: *const c_char,
    pub cur_attval: *const c_char,
    pub copycontext: pg_sys::MemoryContext,
    /// How many of `defmap` (columns, from zero) and `defexprs` (their defaults) are filled.
    pub num_defaults: pg_sys::AttrNumber,
    /// By column, from zero: the input or receive function, and its type parameter.
    pub in_functions: *mut pg_sys::FmgrInfo,
    pub typioparams: *mut pg_sys::Oid,
    pub defmap: *mut c_int,
    pub defexprs: *mut *mut pg_sys::ExprState,
    volatile_defexprs: bool,
    range_table: *mut pg_sys::List,
    qualexpr: *mut pg_sys::ExprState,
    transition_capture: *mut c_void,
    attribute_buf: pg_sys::StringInfoData,
    max_fields: c_int,
    /// The fields of the current line; NULL where the null marker stood.
    pub raw_fields: *mut *mut c_char,
    /// The current line in the server's encoding, without its end.
    pub line_buf: pg_sys::StringInfoData,
}

const _: () = assert!(
    cfg!(feature = "pg15"),
    "CopyFromState is laid out as in PostgreSQL 15"
);

extern "C-unwind" {
    // The bindings' function is a guarded Rust wrapper; the error context stack takes the server's own.
    #[link_name = "CopyFromErrorCallback"]
    fn copy_from_error_callback(arg: *mut c_void);
}

/// Runs `work` with "COPY table, line n, column c" added to the context of its errors.
///
/// # Safety
/// `state` comes from `BeginCopyFrom` and is not ended yet.
pub unsafe fn with_line_context<T>(state: *mut CopyFromState, work: impl FnOnce() -> T) -> T {
    struct Restore(*mut pg_sys::ErrorContextCallback);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: also reached by unwinding, when the callback's frame is about to go.
            unsafe { pg_sys::error_context_stack = self.0 }
        }
    }
    // SAFETY: the callback lives on this frame and is taken off the stack before the frame ends.
    unsafe {
        let mut callback = pg_sys::ErrorContextCallback {
            previous: pg_sys::error_context_stack,
            callback: Some(copy_from_error_callback),
            arg: state.cast(),
        };
        let _restore = Restore(callback.previous);
        pg_sys::error_context_stack = &mut callback;
        work()
    }
}
