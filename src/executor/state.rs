//! The frame around every custom scan: a C struct that the executor sees, and Rust data that is dropped with the
//! query's memory, whether it ends well or not.

use crate::catalog;
use crate::error::{Error, Result};
use pgrx::pg_guard;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use pgrx::pg_sys::{self, NodeTag};
use std::ffi::{c_void, CStr};

/// What a custom scan keeps for one execution, and what it does.
pub trait Body: Sized + 'static {
    const NAME: &'static CStr;

    /// A static of this type, by which its nodes are known.
    fn methods() -> &'static Methods;

    /// BeginCustomScan, after the plan below, if there is one, was initialised.
    ///
    /// # Safety
    /// Called by ExecInitCustomScan.
    unsafe fn new(
        node: *mut pg_sys::CustomScanState,
        scan: *mut pg_sys::CustomScan,
    ) -> Result<Self>;

    /// What remains to be done once the body has its place.
    ///
    /// # Safety
    /// Called by ExecInitCustomScan with the node of this body.
    unsafe fn begun(&mut self, _node: *mut pg_sys::CustomScanState, _flags: i32) -> Result<()> {
        Ok(())
    }

    /// ExecCustomScan: the rows of `next`, through the projection.
    ///
    /// # Safety
    /// Called by ExecCustomScan with the node of a body of this type.
    unsafe fn exec(node: *mut pg_sys::CustomScanState) -> Result<*mut pg_sys::TupleTableSlot> {
        unsafe { Ok(exec::<Self>(node)) }
    }

    /// Puts the next row into the slot, which is empty, or leaves it empty at the end.
    ///
    /// # Safety
    /// Called from `exec` with the node of this body.
    unsafe fn next(
        &mut self,
        _node: *mut pg_sys::CustomScanState,
        _slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<()> {
        Ok(())
    }

    /// EndCustomScan: ends the plan below, and frees what does not go with the query's memory.
    ///
    /// # Safety
    /// Called by ExecEndCustomScan with the node of this body.
    unsafe fn end(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe { end_child(node) };
        Ok(())
    }

    /// ReScanCustomScan.
    ///
    /// # Safety
    /// Called by ExecReScanCustomScan with the node of this body.
    unsafe fn rescan(&mut self, _node: *mut pg_sys::CustomScanState) -> Result<()> {
        Err(never_again())
    }

    /// ExplainCustomScan.
    ///
    /// # Safety
    /// Called by ExplainNode with the node of this body.
    unsafe fn explain(
        &mut self,
        _node: *mut pg_sys::CustomScanState,
        _es: *mut pg_sys::ExplainState,
    ) -> Result<()> {
        Ok(())
    }
}

/// A node that changes rows is scanned once.
pub fn never_again() -> Error {
    Error::internal("a change cannot be scanned again")
}

/// The callbacks of a kind of node, which PostgreSQL only reads.
pub struct Methods {
    scan: pg_sys::CustomScanMethods,
    exec: pg_sys::CustomExecMethods,
}

// SAFETY: constant data, read by one backend.
unsafe impl Sync for Methods {}

impl Methods {
    /// Parallel query and mark/restore are not for remote rows.
    pub const fn of<T: Body>() -> Methods {
        Methods {
            scan: pg_sys::CustomScanMethods {
                CustomName: T::NAME.as_ptr(),
                CreateCustomScanState: Some(on_create::<T>),
            },
            exec: pg_sys::CustomExecMethods {
                CustomName: T::NAME.as_ptr(),
                BeginCustomScan: Some(on_begin::<T>),
                ExecCustomScan: Some(on_exec::<T>),
                EndCustomScan: Some(on_end::<T>),
                ReScanCustomScan: Some(on_rescan::<T>),
                MarkPosCustomScan: None,
                RestrPosCustomScan: None,
                EstimateDSMCustomScan: None,
                InitializeDSMCustomScan: None,
                ReInitializeDSMCustomScan: None,
                InitializeWorkerCustomScan: None,
                ShutdownCustomScan: None,
                ExplainCustomScan: Some(on_explain::<T>),
            },
        }
    }

    /// For `CustomScan.methods`.
    pub fn for_plan(&'static self) -> *const pg_sys::CustomScanMethods {
        &raw const self.scan
    }
}

/// What PostgreSQL allocates and passes around; `body` is ours.
#[repr(C)]
struct Frame<T> {
    scan: pg_sys::CustomScanState,
    body: *mut T,
}

// SAFETY of the callbacks: PostgreSQL calls them with nodes of `on_create::<T>`, whose bodies are of type `T`.

unsafe extern "C-unwind" fn on_create<T: Body>(
    _scan: *mut pg_sys::CustomScan,
) -> *mut pg_sys::Node {
    unsafe {
        pgrx_extern_c_guard(|| {
            let frame = pg_sys::palloc0(std::mem::size_of::<Frame<T>>()).cast::<Frame<T>>();
            (*frame).scan.ss.ps.type_ = NodeTag::T_CustomScanState;
            (*frame).scan.methods = &raw const T::methods().exec;
            frame.cast()
        })
    }
}

unsafe extern "C-unwind" fn on_begin<T: Body>(
    node: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    flags: i32,
) {
    unsafe { guarded(|| begin::<T>(node, estate, flags)) }
}

unsafe extern "C-unwind" fn on_exec<T: Body>(
    node: *mut pg_sys::CustomScanState,
) -> *mut pg_sys::TupleTableSlot {
    unsafe { guarded(|| T::exec(node)) }
}

unsafe extern "C-unwind" fn on_end<T: Body>(node: *mut pg_sys::CustomScanState) {
    unsafe { guarded(|| of_node::<T>(node, |body| body.end(node))) }
}

unsafe extern "C-unwind" fn on_rescan<T: Body>(node: *mut pg_sys::CustomScanState) {
    unsafe { guarded(|| of_node::<T>(node, |body| body.rescan(node))) }
}

unsafe extern "C-unwind" fn on_explain<T: Body>(
    node: *mut pg_sys::CustomScanState,
    _ancestors: *mut pg_sys::List,
    es: *mut pg_sys::ExplainState,
) {
    unsafe { guarded(|| of_node::<T>(node, |body| body.explain(node, es))) }
}

unsafe fn of_node<T: Body>(
    node: *mut pg_sys::CustomScanState,
    act: impl FnOnce(&mut T) -> Result<()>,
) -> Result<()> {
    match unsafe { body::<T>(node) } {
        Some(body) => act(body),
        None => Ok(()),
    }
}

/// Errors become PostgreSQL's at the edge.
unsafe fn guarded<R>(act: impl FnOnce() -> Result<R>) -> R {
    unsafe { pgrx_extern_c_guard(|| act().unwrap_or_else(|error| error.raise())) }
}

unsafe fn begin<T: Body>(
    node: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    flags: i32,
) -> Result<()> {
    unsafe {
        let scan = (*node).ss.ps.plan.cast::<pg_sys::CustomScan>();
        if !(*scan).custom_plans.is_null() {
            let below = crate::pg::list::nth::<pg_sys::Plan>((*scan).custom_plans, 0);
            let child = pg_sys::ExecInitNode(below, estate, flags);
            (*node).custom_ps = crate::pg::list::from([child]);
        }
        use_tables(estate)?;
        set_body(node, estate, T::new(node, scan)?);
        of_node::<T>(node, |body| body.begun(node, flags))
    }
}

/// Marks the distributed tables of a statement as in use while it runs, as PostgreSQL does with those that it scans itself:
/// TRUNCATE and DROP in the same session refuse them (`CheckTableNotInUse`).
unsafe fn use_tables(estate: *mut pg_sys::EState) -> Result<()> {
    unsafe {
        for index in 0..(*estate).es_range_table_size {
            let entry = crate::pg::list::rt_fetch(index as i32 + 1, (*estate).es_range_table);
            if (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                && (*(*estate).es_relations.add(index as usize)).is_null()
                && catalog::table((*entry).relid)?.is_some()
            {
                pg_sys::ExecGetRangeTableRelation(estate, index + 1);
            }
        }
        Ok(())
    }
}

/// Gives the frame its body, which lives as long as the query's memory context.
///
/// # Safety
/// `state` was made by `on_create::<T>`; `estate` is the query's.
unsafe fn set_body<T>(state: *mut pg_sys::CustomScanState, estate: *mut pg_sys::EState, body: T) {
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

/// The body of the node that a plan state is, if it is one with such a body.
///
/// # Safety
/// `state` is a valid plan state whose `begin` was called.
pub unsafe fn body_of<'a, T: Body>(state: *mut pg_sys::PlanState) -> Option<&'a mut T> {
    unsafe {
        let custom = state.cast::<pg_sys::CustomScanState>();
        let ours = (*state).type_ == NodeTag::T_CustomScanState
            && std::ptr::eq((*custom).methods, &raw const T::methods().exec);
        if ours {
            body(custom)
        } else {
            None
        }
    }
}

/// As `Body::exec` says.
unsafe fn exec<T: Body>(node: *mut pg_sys::CustomScanState) -> *mut pg_sys::TupleTableSlot {
    unsafe {
        let scan = &raw mut (*node).ss;
        if is_plain(node) {
            start_row(node);
            next_row::<T>(scan)
        } else {
            pg_sys::ExecScan(scan, Some(access::<T>), Some(recheck))
        }
    }
}

unsafe extern "C-unwind" fn access<T: Body>(
    node: *mut pg_sys::ScanState,
) -> *mut pg_sys::TupleTableSlot {
    unsafe { pgrx_extern_c_guard(|| next_row::<T>(node)) }
}

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
unsafe fn start_row(node: *mut pg_sys::CustomScanState) {
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

/// The next row of a body, in the node's slot.
unsafe fn next_row<T: Body>(node: *mut pg_sys::ScanState) -> *mut pg_sys::TupleTableSlot {
    unsafe {
        // `ss` is the first field of the CustomScanState
        let custom = node.cast::<pg_sys::CustomScanState>();
        let slot = (*node).ss_ScanTupleSlot;
        clear_virtual(slot);
        if let Some(body) = body::<T>(custom) {
            if let Err(error) = body.next(custom, slot) {
                error.raise();
            }
        }
        slot
    }
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

/// `ExecProcNode`.
///
/// # Safety
/// `child` was initialised.
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
            pgrx_extern_c_guard(|| {
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

/// Tells the plan below a custom scan which parameters have changed, and answers it.
///
/// # Safety
/// Called from ReScanCustomScan, with a plan below.
pub unsafe fn tell_child_changes(node: *mut pg_sys::CustomScanState) -> *mut pg_sys::PlanState {
    unsafe {
        let child = crate::pg::list::nth::<pg_sys::PlanState>((*node).custom_ps, 0);
        if !(*node).ss.ps.chgParam.is_null() {
            pg_sys::UpdateChangedParamSet(child, (*node).ss.ps.chgParam);
        }
        child
    }
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
