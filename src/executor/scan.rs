//! The custom scan of remote rows, and of remote changes: chooses shard groups when it starts, sends, then gives
//! rows as they come.

use crate::error::{Error, Result};
use crate::executor::answers::Answers;
use crate::executor::changes;
use crate::executor::checks;
use crate::executor::decode::Decoder;
use crate::executor::encode::Encoder;
use crate::executor::explain;
use crate::executor::kept::Kept;
use crate::executor::merge::Merge;
use crate::executor::state::{self, Body, Methods};
use crate::executor::task::{self, Tasks};
use crate::pg::{list, node};
use crate::planner::asks_for_row;
use crate::planner::plan::{CachedPlan, Command, Prune, RemotePlan};
use crate::remote::{Format, Gather, Params, Row, Use};
use crate::transaction::moves::Watch;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::CStr;
use std::rc::Rc;

static METHODS: Methods = Methods::of::<Scan>();

/// For `CustomScan.methods`.
pub fn scan_methods() -> *const pg_sys::CustomScanMethods {
    METHODS.for_plan()
}

/// The scan that a plan state is, if it is one of ours.
///
/// # Safety
/// `state` is a valid plan state whose `begin` was called.
pub unsafe fn of_state<'a>(state: *mut pg_sys::PlanState) -> Option<&'a mut Scan> {
    unsafe { state::body_of(state) }
}

/// One execution of a remote plan.
pub struct Scan {
    pub plan: Rc<CachedPlan>,
    exprs: Vec<Value>,
    /// Conditions on the rows that come back.
    checks: Vec<*mut pg_sys::ExprState>,
    encoders: Vec<Encoder>,
    decoder: Decoder,
    running: Option<Running>,
    done: bool,
    /// How many rows each shard gives to the lock above.
    window: i64,
    /// Rows are read over other connections than the one that takes the transaction's changes.
    pub beside: bool,
    /// A change that must not run yet: other parts of the statement read the table first.
    pub held: bool,
    /// The client gets the rows as nodes send them, in this format.
    forward: Option<Format>,
    /// All rows, where they had to be read at once.
    kept: Option<Kept>,
    /// What executions before this one received.
    pub answers: Answers,
    runs: u64,
    /// The tasks of the last execution.
    pub tasks: Option<Tasks>,
    /// What was received, over all executions of the node.
    pub totals: explain::Totals,
}

/// An expression of `custom_exprs`.
struct Value {
    state: *mut pg_sys::ExprState,
    type_oid: Oid,
    volatile: bool,
    /// EXPLAIN computes it, too: that changes nothing, and gives the same value.
    explained: bool,
}

struct Running {
    gather: Gather,
    watch: Option<Watch>,
    requests: usize,
    merge: Option<Merge>,
}

impl Body for Scan {
    const NAME: &'static CStr = c"ShardScan";

    fn methods() -> &'static Methods {
        &METHODS
    }

    unsafe fn new(
        node: *mut pg_sys::CustomScanState,
        scan: *mut pg_sys::CustomScan,
    ) -> Result<Scan> {
        unsafe {
            let plan = RemotePlan::from_private((*scan).custom_private)?;
            let mut exprs = Vec::new();
            for expr in list::iter::<pg_sys::Expr>((*scan).custom_exprs) {
                exprs.push(Value {
                    state: pg_sys::ExecInitExpr(expr, &raw mut (*node).ss.ps),
                    type_oid: pg_sys::exprType(expr.cast()),
                    explained: !pg_sys::contain_volatile_functions(expr.cast())
                        && !asks_for_row(expr.cast()),
                    volatile: pg_sys::contain_volatile_functions(expr.cast()),
                });
            }
            let first_check = exprs.len() - plan.plan.checks.len();
            let checks = exprs
                .split_off(first_check)
                .into_iter()
                .map(|value| value.state)
                .collect();
            let encoders = plan.plan.params.iter().map(|p| Encoder::new(p)).collect();
            let decoder = Decoder::new(&plan.plan.columns);
            Ok(Scan {
                plan,
                exprs,
                checks,
                encoders,
                decoder,
                running: None,
                done: false,
                window: i64::MAX,
                beside: false,
                held: false,
                forward: None,
                kept: None,
                answers: Answers::default(),
                runs: 0,
                tasks: None,
                totals: explain::Totals::default(),
            })
        }
    }

    /// Puts the next row into the slot, or leaves it empty at the end: one that was kept, where rows were read at once.
    unsafe fn next(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<()> {
        unsafe {
            if self.plan.plan.part.is_some() {
                if self.held {
                    return Err(changes::too_early());
                }
                self.keep(node)?;
            }
            if self.kept.is_some() {
                self.next_kept(slot);
                return Ok(());
            }
            if self.forward.is_some() {
                if self.next_raw(node)?.is_some() {
                    state::store_virtual(slot);
                }
                return Ok(());
            }
            self.next_answered(node, slot)
        }
    }

    unsafe fn end(&mut self, _node: *mut pg_sys::CustomScanState) -> Result<()> {
        if self.running.take().is_some() {
            // not read to the end: the nodes need not go on
            crate::remote::abandoned::make_way()?;
        }
        if let Some(kept) = self.kept.take() {
            unsafe { kept.end() };
        }
        Ok(())
    }

    unsafe fn rescan(&mut self, _node: *mut pg_sys::CustomScanState) -> Result<()> {
        if let Some(kept) = &self.kept {
            unsafe { kept.rewind() };
            return Ok(());
        }
        self.running = None;
        self.done = false;
        self.answers.rescan();
        Ok(())
    }

    unsafe fn explain(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        es: *mut pg_sys::ExplainState,
    ) -> Result<()> {
        unsafe { explain::remote(self, node, es) }
    }
}

impl Scan {
    /// The values of `custom_exprs` now; for EXPLAIN, without those that would change something or differ each time.
    unsafe fn values(
        &self,
        econtext: *mut pg_sys::ExprContext,
        explain: bool,
    ) -> Vec<(Oid, Option<Datum>)> {
        self.exprs
            .iter()
            .map(|value| {
                let skip = explain && !value.explained;
                // SAFETY: this node's expressions.
                (
                    value.type_oid,
                    if skip {
                        None
                    } else {
                        unsafe { state::evaluate(value.state, econtext) }
                    },
                )
            })
            .collect()
    }

    /// Is a value that chooses the shard groups unknown until the statement runs?
    pub fn chooses_by_volatile(&self) -> bool {
        matches!(self.plan.plan.prune, Prune::Key(index) if self.exprs[index].volatile)
    }

    /// The tasks of the last execution, or those that an execution now would have, with parameters: for EXPLAIN.
    ///
    /// # Safety
    /// `node` is this scan's state.
    pub unsafe fn explain(
        &mut self,
        node: *mut pg_sys::CustomScanState,
    ) -> Result<(Tasks, Params)> {
        unsafe {
            let values = self.values((*node).ss.ps.ps_ExprContext, true);
            let tasks = match self.tasks.take() {
                Some(tasks) => tasks,
                None => task::plan_tasks(&self.plan, &values)?,
            };
            Ok((tasks, self.encode(&values)))
        }
    }

    /// The parameters on the wire.
    unsafe fn encode(&mut self, values: &[(Oid, Option<Datum>)]) -> Params {
        unsafe {
            let mut params = Params::default();
            for (index, encoder) in self.encoders.iter_mut().enumerate() {
                let declared = self.plan.plan.params[index].declared;
                params.types.push(Oid::from(declared));
                params.formats.push(if encoder.binary {
                    Format::Binary
                } else {
                    Format::Text
                });
                params.values.push(values[index].1.map(|value| {
                    let mut bytes = Vec::with_capacity(16);
                    encoder.write(value, &mut bytes);
                    bytes
                }));
            }
            params
        }
    }

    /// Runs to the end now and keeps the rows.
    ///
    /// # Safety
    /// `node` is this scan's state.
    pub unsafe fn keep(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            if self.kept.is_some() {
                return Ok(());
            }
            let slot = (*node).ss.ss_ScanTupleSlot;
            let kept = Kept::for_scan(node);
            loop {
                pg_sys::MemoryContextReset((*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory);
                state::clear_virtual(slot);
                self.next_answered(node, slot)?;
                if state::is_empty(slot) {
                    break;
                }
                kept.put(slot);
            }
            self.kept = Some(kept);
            Ok(())
        }
    }

    unsafe fn next_kept(&self, slot: *mut pg_sys::TupleTableSlot) {
        unsafe {
            let Some(kept) = &self.kept else { return };
            let stored = kept.next();
            if !stored.is_null() {
                state::copy_into_virtual(stored, slot);
            }
        }
    }

    /// Does a value come from the rows of a plan around this one, so that the scan cannot run before it?
    ///
    /// # Safety
    /// `node` is this scan's state, and nothing of the statement has run.
    pub unsafe fn follows_other_rows(&self, node: *mut pg_sys::CustomScanState) -> bool {
        unsafe {
            let scan = (*node).ss.ps.plan.cast::<pg_sys::CustomScan>();
            let values = (*(*node).ss.ps.state).es_param_exec_vals;
            crate::pg::node::walk((*scan).custom_exprs.cast(), &mut |item, _| {
                match crate::pg::node::cast::<pg_sys::Param>(item) {
                    Some(param)
                        if (*param).paramkind == pg_sys::ParamKind::PARAM_EXEC
                            && (*values.add((*param).paramid as usize)).execPlan.is_null() =>
                    {
                        crate::pg::node::Step::Stop
                    }
                    _ => crate::pg::node::Step::Into,
                }
            })
        }
    }

    /// Says how many rows each shard gives, when the scan asks for candidates of the lock of this number.
    pub fn set_window(&mut self, lock: u32, rows: i64) -> bool {
        let asked = self
            .plan
            .plan
            .window
            .is_some_and(|(number, _)| number == lock);
        if asked {
            self.window = rows;
        }
        asked
    }

    /// Gives an answer again that is known, or asks for the rows.
    unsafe fn start(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            let (values, params) = self.parameters(node);
            self.runs += 1;
            if self.runs > 1 && self.keeps_answers() {
                let mut key = params.values.clone();
                key.extend(self.plan.plan.moved.iter().map(|moved| {
                    let handle = values[moved.handle].1?.value() as i32;
                    Some(handle.to_ne_bytes().to_vec())
                }));
                self.answers.start(node, key);
                if self.answers.is_known() {
                    return Ok(());
                }
            }
            self.ask(node, &values, params)
        }
    }

    unsafe fn parameters(
        &mut self,
        node: *mut pg_sys::CustomScanState,
    ) -> (Vec<(Oid, Option<Datum>)>, Params) {
        unsafe {
            let mut values = self.values((*node).ss.ps.ps_ExprContext, false);
            if let Some((_, index)) = self.plan.plan.window {
                values[index].1 = Some(Datum::from(self.window));
            }
            let params = self.encode(&values);
            (values, params)
        }
    }

    unsafe fn ask(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        values: &[(Oid, Option<Datum>)],
        params: Params,
    ) -> Result<()> {
        unsafe {
            let tasks = task::plan_tasks(&self.plan, values)?;
            // Rows that are checked here may turn out forbidden after they were changed there, and what is computed of
            // them may fail.
            let alone = self.checks.is_empty()
                && self.plan.plan.part.is_none()
                && (!self.plan.plan.writes || computes_nothing(node));
            let whole = if alone {
                (*(*node).ss.ps.state).es_plannedstmt
            } else {
                std::ptr::null_mut()
            };
            let requests = task::requests(
                &tasks.tasks,
                Rc::new(params),
                &self.plan.plan,
                self.forward.unwrap_or(self.decoder.format()),
                whole,
            );
            let watch = tasks.watch(&self.plan.plan.watched)?;
            self.tasks = Some(tasks);
            let count = requests.len();
            let merge = (count > 1 && !self.plan.plan.merge.is_empty()).then(|| {
                let memory = (*(*node).ss.ps.state).es_query_cxt;
                Merge::new(&self.plan.plan.merge, count, self.decoder.width(), memory)
            });
            let wanted = if self.beside {
                Use::ReadingBeside
            } else {
                Use::Transaction
            };
            let mut gather = Gather::start_for(requests, wanted)?;
            if (*(*node).ss.ps.state).es_instrument != 0 {
                gather.measure_bytes();
            }
            self.running = Some(Running {
                gather,
                watch,
                requests: count,
                merge,
            });
            Ok(())
        }
    }

    /// Are the rows the same whenever the values are? What it is asked for once only is not kept.
    fn keeps_answers(&self) -> bool {
        let plan = &self.plan.plan;
        plan.command == Command::Select
            && !plan.writes
            && plan.part.is_none()
            && plan.window.is_none()
            && plan.params.len() + plan.moved.len() == self.exprs.len()
            && !self.exprs.iter().any(|value| value.volatile)
    }

    /// The same for a row that nodes send, or that an answer before had.
    unsafe fn next_answered(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<()> {
        unsafe {
            if self.done {
                return Ok(());
            }
            if self.running.is_none() && !self.answers.is_known() {
                self.start(node)?;
            }
            if self.answers.is_known() {
                if self.answers.next(slot) {
                    return Ok(());
                }
                let (values, params) = self.parameters(node);
                self.ask(node, &values, params)?;
            }
            while self.receive(node, slot)? {
                if self.answers.keep(slot) {
                    return self.check(node, slot);
                }
                state::clear_virtual(slot);
            }
            self.finish(node)
        }
    }

    /// Puts a row that a node sends into the slot; false: that was all.
    unsafe fn receive(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<bool> {
        unsafe {
            let Some(running) = self.running.as_mut() else {
                return Err(Error::internal("a scan did not start"));
            };
            let found = if let Some(merge) = &mut running.merge {
                match merge.next(&mut running.gather, &mut self.decoder)? {
                    Some((values, nulls)) => {
                        std::ptr::copy_nonoverlapping(
                            values.as_ptr(),
                            (*slot).tts_values,
                            values.len(),
                        );
                        std::ptr::copy_nonoverlapping(
                            nulls.as_ptr(),
                            (*slot).tts_isnull,
                            nulls.len(),
                        );
                        true
                    }
                    None => false,
                }
            } else {
                match running.gather.next()? {
                    Some((_, row)) => {
                        let memory = (*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
                        let old = pg_sys::MemoryContextSwitchTo(memory);
                        self.decoder.decode_next(
                            |column| row.get(column),
                            (*slot).tts_values,
                            (*slot).tts_isnull,
                        )?;
                        pg_sys::MemoryContextSwitchTo(old);
                        true
                    }
                    None => false,
                }
            };
            if found {
                state::store_virtual(slot);
            }
            Ok(found)
        }
    }

    /// Could its rows be taken as nodes send them, in the binary format?
    pub fn is_raw(&self) -> bool {
        let plan = &self.plan.plan;
        self.decoder.is_binary()
            && self.checks.is_empty()
            && plan.merge.is_empty()
            && plan.part.is_none()
            && plan.window.is_none()
            && self.kept.is_none()
            && !self.answers.is_known()
    }

    /// Asks for the rows in the format that the client wants, and leaves them as they come, if that is possible and
    /// worth it; the slot then has a row of NULLs for each. `columns`: what the client gets.
    ///
    /// # Safety
    /// `node` is this scan's state, which has given no row, and all rows of which go to the client.
    pub unsafe fn forward(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        columns: pg_sys::TupleDesc,
        format: Format,
    ) -> Result<bool> {
        unsafe {
            let width = (*columns).natts as usize;
            let possible = self.plan.plan.bulk
                && self.is_raw()
                && self.running.is_none()
                && !self.done
                && state::is_plain(node)
                && width > 0
                && width == self.decoder.width();
            if !possible || !task::nodes_write_alike(&self.plan)? {
                return Ok(false);
            }
            let slot = (*node).ss.ss_ScanTupleSlot;
            for column in 0..width {
                *(*slot).tts_values.add(column) = Datum::null();
                *(*slot).tts_isnull.add(column) = true;
            }
            self.forward = Some(format);
            Ok(true)
        }
    }

    /// The row that the slot stands for, when rows are forwarded.
    pub fn forwarded(&self) -> Option<&Row> {
        self.forward?;
        self.running.as_ref().map(|running| running.gather.row())
    }

    /// The next row, as its node sent it.
    ///
    /// # Safety
    /// `is_raw`, and `node` is this scan's state.
    pub unsafe fn next_raw(&mut self, node: *mut pg_sys::CustomScanState) -> Result<Option<&Row>> {
        pgrx::check_for_interrupts!();
        if self.done {
            return Ok(None);
        }
        if self.running.is_none() {
            // SAFETY: as the caller promises.
            unsafe {
                let (values, params) = self.parameters(node);
                self.ask(node, &values, params)?;
            }
        }
        let ended = match self.running.as_mut() {
            Some(running) => running.gather.advance()?.is_none(),
            None => return Err(Error::internal("a scan did not start")),
        };
        if ended {
            // SAFETY: as the caller promises.
            unsafe { self.finish(node)? };
        }
        Ok(self.running.as_ref().map(|running| running.gather.row()))
    }

    unsafe fn check(
        &self,
        node: *mut pg_sys::CustomScanState,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<()> {
        unsafe {
            let econtext = (*node).ss.ps.ps_ExprContext;
            for (condition, check) in self.checks.iter().zip(&self.plan.plan.checks) {
                (*econtext).ecxt_scantuple = slot;
                let value = state::evaluate(*condition, econtext);
                checks::examine(check, value, (*node).ss.ps.state)?;
            }
            Ok(())
        }
    }

    /// All rows are here: counts them, and the rows that a change affected.
    unsafe fn finish(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        self.done = true;
        self.answers.complete();
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        if let Some(watch) = running.watch {
            watch.check()?;
        }
        let mut affected = 0;
        for request in 0..running.requests {
            affected += running.gather.affected(request);
            self.totals.add(running.gather.received(request));
        }
        if self.plan.plan.command != Command::Select && self.plan.plan.part.is_none() {
            // SAFETY: the executor state of the running query.
            unsafe { (*(*node).ss.ps.state).es_processed += affected };
        }
        Ok(())
    }
}

/// Is there nothing between the rows that come and those that the statement returns that could fail?
///
/// # Safety
/// `node` is the state of a scan.
unsafe fn computes_nothing(node: *mut pg_sys::CustomScanState) -> bool {
    unsafe {
        let plan = (*node).ss.ps.plan;
        let mut entries = list::iter::<pg_sys::TargetEntry>((*plan).targetlist);
        (*plan).qual.is_null()
            && plan == (*(*(*node).ss.ps.state).es_plannedstmt).planTree
            && entries.all(|entry| {
                use pg_sys::NodeTag::*;
                let expression = (*entry).expr.cast();
                matches!(node::tag(expression), T_Var | T_Const | T_Param)
            })
    }
}
