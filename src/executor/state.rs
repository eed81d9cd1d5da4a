//! The frame around every custom scan: a C struct that the executor sees, and Rust data that is dropped with the
//! query's memory, whether it ends well or not.

use crate::error::{Error, Result};
use pgrx::pg_guard;
use pgrx::pg_sys::{self, NodeTag};
use std::ffi::{c_void, CStr};

/// Tables of callbacks, which PostgreSQL only reads.
pub struct Methods<T>(pub T);
// SAFETY: constant data, read by one backend.
unsafe impl<T> Sync for Methods<T> {}

/// `CustomScanMethods` of a node that `create` makes the state of.
pub const fn scan_methods(
    name: &'static CStr,
    create: unsafe extern "C-unwind" fn(*mut pg_sys::CustomScan) -> *mut pg_sys::Node,
) -> Methods<pg_sys::CustomScanMethods> {
    Methods(pg_sys::CustomScanMethods {
        CustomName: name.as_ptr(),
        CreateCustomScanState: Some(create),
    })
}

/// The callbacks that a node has; parallel query and mark/restore are not for remote rows.
pub struct Callbacks {
    pub begin: unsafe extern "C-unwind" fn(*mut pg_sys::CustomScanState, *mut pg_sys::EState, i32),
    pub exec:
        unsafe extern "C-unwind" fn(*mut pg_sys::CustomScanState) -> *mut pg_sys::TupleTableSlot,
    pub end: unsafe extern "C-unwind" fn(*mut pg_sys::CustomScanState),
    pub rescan: unsafe extern "C-unwind" fn(*mut pg_sys::CustomScanState),
    pub explain: unsafe extern "C-unwind" fn(
        *mut pg_sys::CustomScanState,
        *mut pg_sys::List,
        *mut pg_sys::ExplainState,
    ),
}

/// `CustomExecMethods` of a node.
pub const fn exec_methods(
    name: &'static CStr,
    callbacks: Callbacks,
) -> Methods<pg_sys::CustomExecMethods> {
    Methods(pg_sys::CustomExecMethods {
        CustomName: name.as_ptr(),
        BeginCustomScan: Some(callbacks.begin),
        ExecCustomScan: Some(callbacks.exec),
        EndCustomScan: Some(callbacks.end),
        ReScanCustomScan: Some(callbacks.rescan),
        MarkPosCustomScan: None,
        RestrPosCustomScan: None,
        EstimateDSMCustomScan: None,
        InitializeDSMCustomScan: None,
        ReInitializeDSMCustomScan: None,
        InitializeWorkerCustomScan: None,
        ShutdownCustomScan: None,
        ExplainCustomScan: Some(callbacks.explain),
    })
}

/// What PostgreSQL allocates and passes around; `body` is ours.
#[repr(C)]
pub struct Frame<T> {
    pub scan: pg_sys::CustomScanState,
    body: *mut T,
}

/// A new state with its tag and methods set and no body yet.
///
/// # Safety
/// Called from CreateCustomScanState.
pub unsafe fn create<T>(methods: &'static pg_sys::CustomExecMethods) -> *mut pg_sys::Node {
    unsafe {
        let frame = pg_sys::palloc0(std::mem::size_of::<Frame<T>>()).cast::<Frame<T>>();
        (*frame).scan.ss.ps.type_ = NodeTag::T_CustomScanState;
        (*frame).scan.methods = methods;
        frame.cast()
    }
}

/// Gives the frame its body, which lives as long as the query's memory context.
///
/// # Safety
/// `state` was made by `create::<T>`; `estate` is the query's.
pub unsafe fn set_body<T>(
    state: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    body: T,
) {
    unsafe extern "C-unwind" fn free<T>(body: *mut c_void) {
        // SAFETY: registered once for a body that Box::into_raw gave up. Bodies do not throw when dropped.
        unsafe { drop(Box::from_raw(body.cast::<T>())) }
    }
    unsafe {
        let body = Box::into_raw(Box::new(body));
        (*state.cast::<Frame<T>>()).body = body;
        let callback = pg_sys::MemoryContextAllocZero(
            (*estate).es_query_cxt,
            std::mem::size_of::<pg_sys::MemoryContextCallback>(),
        )
        .cast::<pg_sys::MemoryContextCallback>();
        (*callback).func = Some(free::<T>);
        (*callback).arg = body.cast();
        pg_sys::MemoryContextRegisterResetCallback((*estate).es_query_cxt, callback);
    }
}

/// The body of a frame.
///
/// # Safety
/// `set_body::<T>` was called; no other reference to the body is alive.
pub unsafe fn body<'a, T>(state: *mut pg_sys::CustomScanState) -> Option<&'a mut T> {
    unsafe { (*state.cast::<Frame<T>>()).body.as_mut() }
}

/// The body of the node that a plan state is, if it is one with these methods.
///
/// # Safety
/// `state` is a valid plan state whose `begin` was called; bodies of nodes with these methods are of type `T`.
pub unsafe fn body_of<'a, T>(
    state: *mut pg_sys::PlanState,
    methods: &'static Methods<pg_sys::CustomExecMethods>,
) -> Option<&'a mut T> {
    unsafe {
        let custom = state.cast::<pg_sys::CustomScanState>();
        let ours = (*state).type_ == NodeTag::T_CustomScanState
            && std::ptr::eq((*custom).methods, &raw const methods.0);
        if ours {
            body(custom)
        } else {
            None
        }
    }
}

/// ExecCustomScan of a node that gives rows through a projection; `access` gives the next one.
///
/// # Safety
/// Called from the node's `exec`.
pub unsafe fn scan_rows(
    node: *mut pg_sys::CustomScanState,
    access: unsafe extern "C-unwind" fn(*mut pg_sys::ScanState) -> *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    unsafe { pg_sys::ExecScan(&raw mut (*node).ss, Some(access), Some(recheck)) }
}

/// The callbacks of a node (methods `EXEC`) whose body gives rows by a method: `create_state`, `exec`, and the `access`
/// of that.
macro_rules! gives_rows {
    ($body:ty, $next:ident) => {
        #[pgrx::pg_guard]
        unsafe extern "C-unwind" fn create_state(
            _scan: *mut pgrx::pg_sys::CustomScan,
        ) -> *mut pgrx::pg_sys::Node {
            // SAFETY: the body's type is that of every callback there.
            unsafe { $crate::executor::state::create::<$body>(&EXEC.0) }
        }

        #[pgrx::pg_guard]
        unsafe extern "C-unwind" fn exec(
            node: *mut pgrx::pg_sys::CustomScanState,
        ) -> *mut pgrx::pg_sys::TupleTableSlot {
            // SAFETY: ExecScan calls back with the same node.
            unsafe {
                if $crate::executor::state::is_plain(node) {
                    $crate::executor::state::start_row(node);
                    give_row(&raw mut (*node).ss)
                } else {
                    $crate::executor::state::scan_rows(node, access)
                }
            }
        }

        #[pgrx::pg_guard]
        unsafe extern "C-unwind" fn access(
            node: *mut pgrx::pg_sys::ScanState,
        ) -> *mut pgrx::pg_sys::TupleTableSlot {
            // SAFETY: ExecScan calls back with this node.
            unsafe { give_row(node) }
        }

        /// # Safety
        /// `node` is one of ours.
        unsafe fn give_row(
            node: *mut pgrx::pg_sys::ScanState,
        ) -> *mut pgrx::pg_sys::TupleTableSlot {
            // SAFETY: the body of the node has this type.
            unsafe {
                $crate::executor::state::next_row(node, |body: &mut $body, custom, slot| {
                    body.$next(custom, slot)
                })
            }
        }
    };
}
pub(crate) use gives_rows;

/// Does a node give the rows of its `access` as they are, so that ExecScan is not needed for them?
///
/// # Safety
/// Called from the node's `exec`.
pub unsafe fn is_plain(node: *mut pg_sys::CustomScanState) -> bool {
    unsafe {
        let ps = &(*node).ss.ps;
        ps.qual.is_null() && ps.ps_ProjInfo.is_null() && (*ps.state).es_epq_active.is_null()
    }
}

/// What ExecScan does before it asks a plain node for a row.
///
/// # Safety
/// Called from the node's `exec`.
pub unsafe fn start_row(node: *mut pg_sys::CustomScanState) {
    pgrx::check_for_interrupts!();
    unsafe {
        let memory = (*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
        if !(*memory).isReset {
            pg_sys::MemoryContextReset(memory);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn recheck(
    _node: *mut pg_sys::ScanState,
    _slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    true
}

/// The next row of a body, in the node's slot; `next` leaves the slot empty at the end.
///
/// # Safety
/// Called from the node's `access`; `set_body::<T>` was called.
pub unsafe fn next_row<T>(
    node: *mut pg_sys::ScanState,
    next: impl FnOnce(&mut T, *mut pg_sys::CustomScanState, *mut pg_sys::TupleTableSlot) -> Result<()>,
) -> *mut pg_sys::TupleTableSlot {
    unsafe {
        // `ss` is the first field of the CustomScanState
        let custom = node.cast::<pg_sys::CustomScanState>();
        let slot = (*node).ss_ScanTupleSlot;
        clear_virtual(slot);
        if let Some(body) = body::<T>(custom) {
            if let Err(error) = next(body, custom, slot) {
                error.raise();
            }
        }
        slot
    }
}

/// BeginCustomScan of a node above another: initialises that one, and makes the body of the plan.
///
/// # Safety
/// Called from the node's `begin`.
pub unsafe fn begin_above<T>(
    node: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    flags: i32,
    new: impl FnOnce(*mut pg_sys::CustomScan) -> Result<T>,
) {
    unsafe {
        let scan = (*node).ss.ps.plan.cast::<pg_sys::CustomScan>();
        init_child(node, scan, estate, flags);
        match new(scan) {
            Ok(body) => set_body(node, estate, body),
            Err(error) => error.raise(),
        }
    }
}

/// ReScanCustomScan of a node that changes rows.
#[pg_guard]
pub unsafe extern "C-unwind" fn never_again(_node: *mut pg_sys::CustomScanState) {
    Error::internal("a change cannot be scanned again").raise()
}

/// EndCustomScan of a node above another that keeps nothing else.
///
/// # Safety
/// The child was made in the node's `begin`.
#[pg_guard]
pub unsafe extern "C-unwind" fn end_above(node: *mut pg_sys::CustomScanState) {
    unsafe { end_child(node) }
}

/// Evaluates an expression; the value lives in the context's per-tuple memory.
///
/// # Safety
/// `state` was made by ExecInitExpr for a plan whose ExprContext is `econtext`.
pub unsafe fn evaluate(
    state: *mut pg_sys::ExprState,
    econtext: *mut pg_sys::ExprContext,
) -> Option<pg_sys::Datum> {
    unsafe {
        let function = (*state).evalfunc?;
        let old = pg_sys::MemoryContextSwitchTo((*econtext).ecxt_per_tuple_memory);
        let mut is_null = false;
        let value = pg_sys::ffi::pg_guard_ffi_boundary(|| function(state, econtext, &mut is_null));
        pg_sys::MemoryContextSwitchTo(old);
        (!is_null).then_some(value)
    }
}

/// A value of a slot's row; None for NULL.
///
/// # Safety
/// `slot` holds a tuple with so many attributes, which were all taken out of it (`slot_getallattrs`).
pub unsafe fn value(slot: *mut pg_sys::TupleTableSlot, index: usize) -> Option<pg_sys::Datum> {
    unsafe {
        let null = *(*slot).tts_isnull.add(index);
        (!null).then(|| *(*slot).tts_values.add(index))
    }
}

/// Stores what is in a virtual slot's arrays as its tuple.
///
/// # Safety
/// `slot` is a virtual slot whose values were set.
pub unsafe fn store_virtual(slot: *mut pg_sys::TupleTableSlot) {
    unsafe {
        (*slot).tts_flags &= !(pg_sys::TTS_FLAG_EMPTY as u16);
        (*slot).tts_nvalid = (*(*slot).tts_tupleDescriptor).natts as i16;
    }
}

/// Fills a virtual slot with the values of another slot, which keeps them.
///
/// # Safety
/// Both are valid slots of one width; `from` holds a tuple.
pub unsafe fn copy_into_virtual(
    from: *mut pg_sys::TupleTableSlot,
    to: *mut pg_sys::TupleTableSlot,
) {
    unsafe {
        pg_sys::slot_getallattrs(from);
        let width = (*(*from).tts_tupleDescriptor).natts as usize;
        std::ptr::copy_nonoverlapping((*from).tts_values, (*to).tts_values, width);
        std::ptr::copy_nonoverlapping((*from).tts_isnull, (*to).tts_isnull, width);
        store_virtual(to);
    }
}

/// Empties a virtual slot.
///
/// # Safety
/// `slot` is a virtual slot that owns no memory.
pub unsafe fn clear_virtual(slot: *mut pg_sys::TupleTableSlot) {
    unsafe {
        (*slot).tts_nvalid = 0;
        (*slot).tts_flags |= pg_sys::TTS_FLAG_EMPTY as u16;
    }
}

/// Initialises the plan below a custom scan.
///
/// # Safety
/// Called from BeginCustomScan.
pub unsafe fn init_child(
    node: *mut pg_sys::CustomScanState,
    scan: *mut pg_sys::CustomScan,
    estate: *mut pg_sys::EState,
    flags: i32,
) {
    unsafe {
        let below = crate::pg::list::nth::<pg_sys::Plan>((*scan).custom_plans, 0);
        let child = pg_sys::ExecInitNode(below, estate, flags);
        (*node).custom_ps = crate::pg::list::from([child]);
    }
}

/// `ExecProcNode`.
///
/// # Safety
/// `child` was initialised by `init_child`.
pub unsafe fn exec_child(child: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    unsafe {
        if !(*child).chgParam.is_null() {
            pg_sys::ExecReScan(child);
        }
        match (*child).ExecProcNode {
            Some(function) => pg_sys::ffi::pg_guard_ffi_boundary(|| function(child)),
            None => std::ptr::null_mut(),
        }
    }
}

/// Visits a plan state and those below it, not those of init plans and WITH queries, which keep their results.
///
/// # Safety
/// `root` is a valid plan state.
pub unsafe fn walk_below(
    root: *mut pg_sys::PlanState,
    visit: &mut dyn FnMut(*mut pg_sys::PlanState),
) {
    struct Walk<'a> {
        visit: &'a mut dyn FnMut(*mut pg_sys::PlanState),
        skipped: Vec<*mut pg_sys::PlanState>,
    }
    unsafe extern "C-unwind" fn step(state: *mut pg_sys::PlanState, context: *mut c_void) -> bool {
        // SAFETY: the context of this walk, on the same stack.
        unsafe {
            let walk = &mut *context.cast::<Walk>();
            if walk.skipped.contains(&state) {
                return false;
            }
            for plan in crate::pg::list::iter::<pg_sys::SubPlanState>((*state).initPlan) {
                walk.skipped.push((*plan).planstate);
            }
            pg_sys::panic::pgrx_extern_c_guard(|| {
                (walk.visit)(state);
                pg_sys::planstate_tree_walker(state, Some(step), context)
            })
        }
    }
    let mut walk = Walk {
        visit,
        skipped: Vec::new(),
    };
    unsafe {
        step(root, (&raw mut walk).cast());
    }
}

/// Makes a plan run anew from its leaves on, although none of its parameters has changed.
///
/// # Safety
/// `root` is a valid plan state.
pub unsafe fn run_anew(root: *mut pg_sys::PlanState) {
    unsafe {
        walk_below(root, &mut |state| {
            // Whichever number: what has changed below is not kept.
            (*state).chgParam = pg_sys::bms_add_member((*state).chgParam, 0);
        });
    }
}

/// `TupIsNull`.
///
/// # Safety
/// `slot` is null or valid.
pub unsafe fn is_empty(slot: *const pg_sys::TupleTableSlot) -> bool {
    unsafe { slot.is_null() || (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0 }
}

/// Ends the plan below a custom scan.
///
/// # Safety
/// Called from EndCustomScan.
pub unsafe fn end_child(node: *mut pg_sys::CustomScanState) {
    unsafe {
        for child in crate::pg::list::iter::<pg_sys::PlanState>((*node).custom_ps) {
            pg_sys::ExecEndNode(child);
        }
    }
}
