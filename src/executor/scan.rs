//! The custom scan of remote rows, and of remote changes: chooses shard groups when it starts, sends, then gives
//! rows as they come.

use crate::error::{Error, Result};
use crate::executor::decode::Decoder;
use crate::executor::encode::Encoder;
use crate::executor::merge::Merge;
use crate::executor::state::{self, body};
use crate::executor::task::{self, Tasks};
use crate::executor::explain;
use crate::pg::list;
use crate::planner::plan::{CachedPlan, Command, RemotePlan};
use crate::remote::{Format, Gather, Params};
use pgrx::pg_guard;
use pgrx::pg_sys::{self, Datum, Oid};
use std::rc::Rc;

struct ScanMethods(pg_sys::CustomScanMethods);
struct ExecMethods(pg_sys::CustomExecMethods);
// SAFETY: constant data, read by one backend.
unsafe impl Sync for ScanMethods {}
// SAFETY: as above.
unsafe impl Sync for ExecMethods {}

static SCAN: ScanMethods = ScanMethods(pg_sys::CustomScanMethods {
    CustomName: c"ShardScan".as_ptr(),
    CreateCustomScanState: Some(create_state),
});

static EXEC: ExecMethods = ExecMethods(pg_sys::CustomExecMethods {
    CustomName: c"ShardScan".as_ptr(),
    BeginCustomScan: Some(begin),
    ExecCustomScan: Some(exec),
    EndCustomScan: Some(end),
    ReScanCustomScan: Some(rescan),
    MarkPosCustomScan: None,
    RestrPosCustomScan: None,
    EstimateDSMCustomScan: None,
    InitializeDSMCustomScan: None,
    ReInitializeDSMCustomScan: None,
    InitializeWorkerCustomScan: None,
    ShutdownCustomScan: None,
    ExplainCustomScan: Some(explain_scan),
});

/// For `CustomScan.methods`.
pub fn scan_methods() -> *const pg_sys::CustomScanMethods {
    &raw const SCAN.0
}

/// One execution of a remote plan.
pub struct Scan {
    pub plan: Rc<CachedPlan>,
    exprs: Vec<(*mut pg_sys::ExprState, Oid)>,
    encoders: Vec<Encoder>,
    decoder: Decoder,
    running: Option<Running>,
    done: bool,
    /// What was received, over all executions of the node.
    pub totals: explain::Totals,
}

struct Running {
    gather: Gather,
    requests: usize,
    merge: Option<Merge>,
}

#[pg_guard]
unsafe extern "C-unwind" fn create_state(_scan: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: the body's type is that of every callback here.
    unsafe { state::create::<Scan>(&EXEC.0) }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(node: *mut pg_sys::CustomScanState, estate: *mut pg_sys::EState, _flags: i32) {
    // SAFETY: called by ExecInitCustomScan.
    unsafe {
        match Scan::new(node) {
            Ok(scan) => state::set_body(node, estate, scan),
            Err(error) => error.raise(),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn exec(node: *mut pg_sys::CustomScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: ExecScan calls back with the same node.
    unsafe { pg_sys::ExecScan(&raw mut (*node).ss, Some(access), Some(recheck)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn access(node: *mut pg_sys::ScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: `ss` is the first field of the CustomScanState.
    unsafe {
        let custom = node.cast::<pg_sys::CustomScanState>();
        let slot = (*node).ss_ScanTupleSlot;
        state::clear_virtual(slot);
        let Some(scan) = body::<Scan>(custom) else { return slot };
        match scan.next(custom, slot) {
            Ok(()) => slot,
            Err(error) => error.raise(),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn recheck(_node: *mut pg_sys::ScanState, _slot: *mut pg_sys::TupleTableSlot) -> bool {
    true
}

#[pg_guard]
unsafe extern "C-unwind" fn end(node: *mut pg_sys::CustomScanState) {
    // SAFETY: called by ExecEndCustomScan.
    if let Some(scan) = unsafe { body::<Scan>(node) } {
        scan.running = None;
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn rescan(node: *mut pg_sys::CustomScanState) {
    // SAFETY: called by ExecReScanCustomScan.
    if let Some(scan) = unsafe { body::<Scan>(node) } {
        scan.running = None;
        scan.done = false;
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn explain_scan(
    node: *mut pg_sys::CustomScanState,
    _ancestors: *mut pg_sys::List,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: called by ExplainNode.
    unsafe {
        if let Some(scan) = body::<Scan>(node) {
            if let Err(error) = explain::remote(scan, node, es) {
                error.raise();
            }
        }
    }
}

impl Scan {
    unsafe fn new(node: *mut pg_sys::CustomScanState) -> Result<Scan> {
        unsafe {
            let scan = (*node).ss.ps.plan.cast::<pg_sys::CustomScan>();
            let plan = RemotePlan::from_private((*scan).custom_private)?;
            let mut exprs = Vec::new();
            for expr in list::iter::<pg_sys::Expr>((*scan).custom_exprs) {
                let type_oid = pg_sys::exprType(expr.cast());
                exprs.push((pg_sys::ExecInitExpr(expr, &raw mut (*node).ss.ps), type_oid));
            }
            let encoders = plan.plan.params.iter().map(|p| Encoder::new(p)).collect();
            let decoder = Decoder::new(&plan.plan.columns);
            Ok(Scan { plan, exprs, encoders, decoder, running: None, done: false, totals: explain::Totals::default() })
        }
    }

    /// The values of `custom_exprs` now.
    unsafe fn values(&self, econtext: *mut pg_sys::ExprContext) -> Vec<(Oid, Option<Datum>)> {
        self.exprs.iter().map(|(expr, type_oid)| unsafe { (*type_oid, state::evaluate(*expr, econtext)) }).collect()
    }

    /// Chooses the tasks and encodes the parameters.
    ///
    /// # Safety
    /// `node` is this scan's state.
    pub unsafe fn prepare(&mut self, node: *mut pg_sys::CustomScanState) -> Result<(Tasks, Params)> {
        unsafe {
            let values = self.values((*node).ss.ps.ps_ExprContext);
            let tasks = task::plan_tasks(&self.plan, &values)?;
            let mut params = Params::default();
            for (index, encoder) in self.encoders.iter_mut().enumerate() {
                let declared = self.plan.plan.params[index].declared;
                params.types.push(Oid::from(declared));
                params.formats.push(if encoder.binary { Format::Binary } else { Format::Text });
                params.values.push(values[index].1.map(|value| {
                    let mut bytes = Vec::with_capacity(16);
                    encoder.write(value, &mut bytes);
                    bytes
                }));
            }
            Ok((tasks, params))
        }
    }

    unsafe fn start(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            let (tasks, params) = self.prepare(node)?;
            let requests =
                task::requests(
                    &tasks.tasks,
                    Rc::new(params),
                    self.plan.plan.writes,
                    self.decoder.is_binary(),
                    (*(*node).ss.ps.state).es_plannedstmt,
                );
            let count = requests.len();
            let merge = (count > 1 && !self.plan.plan.merge.is_empty()).then(|| {
                let memory = (*(*node).ss.ps.state).es_query_cxt;
                Merge::new(&self.plan.plan.merge, count, self.decoder.width(), memory)
            });
            self.running = Some(Running { gather: Gather::start(requests)?, requests: count, merge });
            Ok(())
        }
    }

    /// Puts the next row into the slot, or leaves it empty at the end.
    unsafe fn next(&mut self, node: *mut pg_sys::CustomScanState, slot: *mut pg_sys::TupleTableSlot) -> Result<()> {
        unsafe {
            if self.done {
                return Ok(());
            }
            if self.running.is_none() {
                self.start(node)?;
            }
            let Some(running) = self.running.as_mut() else { return Err(Error::internal("a scan did not start")) };
            let found = if let Some(merge) = &mut running.merge {
                match merge.next(&mut running.gather, &mut self.decoder)? {
                    Some((values, nulls)) => {
                        std::ptr::copy_nonoverlapping(values.as_ptr(), (*slot).tts_values, values.len());
                        std::ptr::copy_nonoverlapping(nulls.as_ptr(), (*slot).tts_isnull, nulls.len());
                        true
                    }
                    None => false,
                }
            } else {
                match running.gather.next()? {
                    Some((_, row)) => {
                        let memory = (*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
                        let old = pg_sys::MemoryContextSwitchTo(memory);
                        self.decoder.decode(|column| row.get(column), (*slot).tts_values, (*slot).tts_isnull)?;
                        pg_sys::MemoryContextSwitchTo(old);
                        true
                    }
                    None => false,
                }
            };
            if found {
                state::store_virtual(slot);
                return Ok(());
            }
            self.finish(node);
            Ok(())
        }
    }

    /// All rows are here: counts them, and the rows that a change affected.
    unsafe fn finish(&mut self, node: *mut pg_sys::CustomScanState) {
        self.done = true;
        let Some(running) = self.running.take() else { return };
        let mut affected = 0;
        for request in 0..running.requests {
            affected += running.gather.affected(request);
            self.totals.add(running.gather.received(request));
        }
        if self.plan.plan.command != Command::Select {
            // SAFETY: the executor state of the running query.
            unsafe { (*(*node).ss.ps.state).es_processed += affected };
        }
    }
}
