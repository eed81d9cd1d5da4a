//! The planner's hooks: statements that name our tables go to `planner`, all else to the next planner.

use crate::{catalog, planner};
use pgrx::pg_guard;
use pgrx::pg_sys::{self, ParamListInfo, PlannedStmt, Query};
use std::cell::Cell;
use std::ffi::{c_char, CStr};

static mut PREVIOUS_PLANNER: pg_sys::planner_hook_type = None;
static mut PREVIOUS_PATHS: pg_sys::set_rel_pathlist_hook_type = None;
static mut PREVIOUS_RELATION_INFO: pg_sys::get_relation_info_hook_type = None;
static mut PREVIOUS_STATISTICS: pg_sys::get_relation_stats_hook_type = None;

thread_local! {
    /// Foreign-key triggers see the coordinator's own, empty copies of distributed tables: the workers check them.
    static LOCAL: Cell<bool> = const { Cell::new(false) };
}

pub fn init() {
    // SAFETY: called once, by the postmaster, before any backend plans.
    unsafe {
        PREVIOUS_PLANNER = pg_sys::planner_hook;
        pg_sys::planner_hook = Some(planner_hook);
        PREVIOUS_PATHS = pg_sys::set_rel_pathlist_hook;
        pg_sys::set_rel_pathlist_hook = Some(paths_hook);
        PREVIOUS_RELATION_INFO = pg_sys::get_relation_info_hook;
        pg_sys::get_relation_info_hook = Some(relation_info_hook);
        PREVIOUS_STATISTICS = pg_sys::get_relation_stats_hook;
        pg_sys::get_relation_stats_hook = Some(statistics_hook);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn planner_hook(
    query: *mut Query,
    text: *const c_char,
    options: i32,
    params: ParamListInfo,
) -> *mut PlannedStmt {
    // SAFETY: PostgreSQL's own arguments, handed on.
    unsafe {
        let standard = |query: *mut Query| next_planner(query, text, options, params);
        if !catalog::installed() {
            return standard(query);
        }
        if is_foreign_key_check(text) {
            let before = LOCAL.replace(true);
            let restore = Restore(before);
            let plan = standard(query);
            drop(restore);
            return plan;
        }
        match planner::plan(query, options, &standard) {
            Ok(Some(plan)) => {
                if options & pg_sys::CURSOR_OPT_SCROLL as i32 != 0 {
                    planner::make_scrollable(plan);
                }
                plan
            }
            Ok(None) => standard(query),
            Err(error) => error.raise(),
        }
    }
}

struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        LOCAL.set(self.0);
    }
}

unsafe fn next_planner(
    query: *mut Query,
    text: *const c_char,
    options: i32,
    params: ParamListInfo,
) -> *mut PlannedStmt {
    unsafe {
        match PREVIOUS_PLANNER {
            Some(previous) => {
                pg_sys::ffi::pg_guard_ffi_boundary(|| previous(query, text, options, params))
            }
            None => pg_sys::standard_planner(query, text, options, params),
        }
    }
}

/// The queries of `ri_triggers.c`, which always run inside a trigger and quote everything.
unsafe fn is_foreign_key_check(text: *const c_char) -> bool {
    unsafe {
        if text.is_null() {
            return false;
        }
        let text = CStr::from_ptr(text).to_bytes();
        let begins = |prefix: &[u8]| text.starts_with(prefix);
        (begins(b"SELECT 1 FROM ONLY \"")
            || begins(b"DELETE FROM ONLY \"")
            || begins(b"UPDATE ONLY \"")
            || begins(b"SELECT fk.\"")
            || begins(b"SELECT 1 FROM (SELECT \""))
            && in_trigger()
    }
}

/// `pg_trigger_depth()`.
unsafe fn in_trigger() -> bool {
    unsafe {
        let depth = pg_sys::OidFunctionCall0Coll(PG_TRIGGER_DEPTH.into(), pg_sys::InvalidOid);
        depth.value() as i32 > 0
    }
}

/// Object id of `pg_trigger_depth()` in `pg_proc.dat`.
const PG_TRIGGER_DEPTH: u32 = 3163;

#[pg_guard]
unsafe extern "C-unwind" fn paths_hook(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: PostgreSQL's own arguments.
    unsafe {
        if let Some(previous) = PREVIOUS_PATHS {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous(root, rel, rti, rte));
        }
        if LOCAL.get() || !catalog::installed() {
            return;
        }
        if let Err(error) = planner::set_paths(root, rel, rte) {
            error.raise();
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_info_hook(
    root: *mut pg_sys::PlannerInfo,
    relid: pg_sys::Oid,
    inhparent: bool,
    rel: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: PostgreSQL's own arguments.
    unsafe {
        if let Some(previous) = PREVIOUS_RELATION_INFO {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous(root, relid, inhparent, rel));
        }
        if LOCAL.get() || !catalog::installed() {
            return;
        }
        if let Err(error) = planner::set_size(relid, rel) {
            error.raise();
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn statistics_hook(
    root: *mut pg_sys::PlannerInfo,
    rte: *mut pg_sys::RangeTblEntry,
    attnum: i16,
    data: *mut pg_sys::VariableStatData,
) -> bool {
    // SAFETY: PostgreSQL's own arguments.
    unsafe {
        if !LOCAL.get() && catalog::installed() && planner::column_statistics(rte, attnum, data) {
            return true;
        }
        match PREVIOUS_STATISTICS {
            Some(previous) => {
                pg_sys::ffi::pg_guard_ffi_boundary(|| previous(root, rte, attnum, data))
            }
            None => false,
        }
    }
}
