//! Repeats an UPDATE or DELETE of a reference table on every copy, after it ran on the table here. A lock here puts
//! concurrent statements into one order for all copies: of the row that a primary key names, else of the table.

use crate::error::{sqlstate, Error, Result};
use crate::executor::encode::Encoder;
use crate::executor::explain;
use crate::executor::state::{self, body, Callbacks, Methods};
use crate::executor::task;
use crate::pg::list;
use crate::planner::plan::{CachedPlan, RemotePlan};
use crate::remote::{Format, Gather, Params};
use pgrx::pg_guard;
use pgrx::pg_sys::{self, Oid};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long to wait for a node to commit what is committed here, and how long between two looks.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

static SCAN: Methods<pg_sys::CustomScanMethods> =
    state::scan_methods(c"ShardReplicate", create_state);

static EXEC: Methods<pg_sys::CustomExecMethods> = state::exec_methods(
    c"ShardReplicate",
    Callbacks {
        begin,
        exec,
        end,
        rescan: state::never_again,
        explain: explain_replicate,
    },
);

/// For `CustomScan.methods`.
pub fn replicate_methods() -> *const pg_sys::CustomScanMethods {
    &raw const SCAN.0
}

struct Replicate {
    plan: Rc<CachedPlan>,
    exprs: Vec<(*mut pg_sys::ExprState, Encoder)>,
    sent: bool,
}

#[pg_guard]
unsafe extern "C-unwind" fn create_state(_scan: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: the body's type is that of every callback here.
    unsafe { state::create::<Replicate>(&EXEC.0) }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(
    node: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    flags: i32,
) {
    // SAFETY: called by ExecInitCustomScan.
    unsafe {
        let scan = (*node).ss.ps.plan.cast::<pg_sys::CustomScan>();
        state::init_child(node, scan, estate, flags);
        match Replicate::new(node, scan) {
            Ok(replicate) => {
                // Statements on the same reference table change all copies in the same order.
                let runs = flags as u32 & pg_sys::EXEC_FLAG_EXPLAIN_ONLY == 0;
                if runs {
                    let company = if replicate.plan.plan.one_row {
                        Company::ByRow
                    } else {
                        Company::None
                    };
                    lock_targets(estate, company);
                }
                state::set_body(node, estate, replicate);
            }
            Err(error) => error.raise(),
        }
    }
}

/// Who else may change a reference table until the transaction ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Those whose rows are ordered by locks of rows and keys.
    ByRow,
    None,
}

/// Locks the tables that the statement changes, against other changes of reference tables. This is a lock beside that
/// of the relation, which every writer has by now: two that asked for a stronger one would wait for each other.
///
/// # Safety
/// `estate` is that of a running statement.
pub unsafe fn lock_targets(estate: *mut pg_sys::EState, company: Company) {
    let mode = match company {
        Company::ByRow => pg_sys::RowExclusiveLock,
        Company::None => pg_sys::ShareRowExclusiveLock,
    };
    unsafe {
        let statement = (*estate).es_plannedstmt;
        for relation in list::ints((*statement).resultRelations) {
            let rte =
                list::nth::<pg_sys::RangeTblEntry>((*statement).rtable, relation as usize - 1);
            pg_sys::LockDatabaseObject(
                pg_sys::RelationRelationId,
                (*rte).relid,
                0,
                mode as pg_sys::LOCKMODE,
            );
        }
        if company == Company::None && !one_snapshot() {
            // The copies will see what was committed while this statement waited; it has to see that here, too.
            pg_sys::UnregisterSnapshot((*estate).es_snapshot);
            (*estate).es_snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        }
    }
}

/// Do all statements of the transaction read one snapshot?
fn one_snapshot() -> bool {
    // SAFETY: reads a variable.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

fn not_serializable() -> Error {
    Error::new(
        sqlstate::SERIALIZATION_FAILURE,
        "could not serialize access due to concurrent update",
    )
    .detail("A node has other rows than the coordinator to change: it sees another moment.")
    .hint("Try the transaction again.")
}

#[pg_guard]
unsafe extern "C-unwind" fn exec(
    node: *mut pg_sys::CustomScanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the child was made in begin.
    unsafe {
        let child = list::nth::<pg_sys::PlanState>((*node).custom_ps, 0);
        let slot = state::exec_child(child);
        if !state::is_empty(slot) {
            return slot;
        }
        if let Some(replicate) = body::<Replicate>(node) {
            if !(*(*node).ss.ps.state).es_epq_active.is_null() {
                // PostgreSQL looks at one row again.
                return slot;
            }
            if let Err(error) = replicate.send(node) {
                error.raise();
            }
        }
        slot
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end(node: *mut pg_sys::CustomScanState) {
    // SAFETY: the child was made in begin.
    unsafe { state::end_child(node) }
}

#[pg_guard]
unsafe extern "C-unwind" fn explain_replicate(
    node: *mut pg_sys::CustomScanState,
    _ancestors: *mut pg_sys::List,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: called by ExplainNode.
    unsafe {
        if let Some(replicate) = body::<Replicate>(node) {
            if let Err(error) = explain::every_node(&replicate.plan, es) {
                error.raise();
            }
        }
    }
}

impl Replicate {
    unsafe fn new(
        node: *mut pg_sys::CustomScanState,
        scan: *mut pg_sys::CustomScan,
    ) -> Result<Replicate> {
        unsafe {
            let plan = RemotePlan::from_private((*scan).custom_private)?;
            let exprs = list::iter::<pg_sys::Expr>((*scan).custom_exprs)
                .zip(&plan.plan.params)
                .map(|(expr, param)| {
                    (
                        pg_sys::ExecInitExpr(expr, &raw mut (*node).ss.ps),
                        Encoder::new(param),
                    )
                })
                .collect();
            Ok(Replicate {
                plan,
                exprs,
                sent: false,
            })
        }
    }

    /// The statement to every node; waits until all have run it.
    unsafe fn send(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        if self.sent {
            return Ok(());
        }
        self.sent = true;
        let mut params = Params::default();
        for (index, (expr, encoder)) in self.exprs.iter_mut().enumerate() {
            // SAFETY: this node's expressions.
            let value = unsafe { state::evaluate(*expr, (*node).ss.ps.ps_ExprContext) };
            params
                .types
                .push(Oid::from(self.plan.plan.params[index].declared));
            params.formats.push(if encoder.binary {
                Format::Binary
            } else {
                Format::Text
            });
            params.values.push(value.map(|value| {
                let mut bytes = Vec::new();
                // SAFETY: a value of the expression's type.
                unsafe { encoder.write(value, &mut bytes) };
                bytes
            }));
        }
        let one_row = self.plan.plan.one_row;
        // SAFETY: the state of the running statement: rows that were changed here.
        let changed = unsafe { (*(*node).ss.ps.state).es_processed };
        if one_row && changed == 0 {
            // A row that is being inserted elsewhere is not to be found on a copy either.
            return Ok(());
        }
        let mut tasks = task::plan_tasks(&self.plan, &[])?.tasks;
        let params = Rc::new(params);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut requests = task::requests(
                &tasks,
                params.clone(),
                &self.plan.plan,
                false,
                std::ptr::null(),
            );
            for request in &mut requests {
                request.sole = false;
            }
            let mut gather = Gather::start(requests)?;
            while gather.next()?.is_some() {}
            if !one_row {
                // Of a statement with other parts, these count.
                // SAFETY: the running statement.
                let alone = unsafe {
                    let plan = (*node).ss.ps.plan;
                    (*(*(*node).ss.ps.state).es_plannedstmt).planTree == plan
                };
                let alike = (0..tasks.len()).all(|request| gather.affected(request) == changed);
                return if alike || !alone {
                    Ok(())
                } else {
                    Err(not_serializable())
                };
            }
            // Committed here, the last change of the row may be about to be committed on a node.
            let mut behind = (0..tasks.len()).map(|request| gather.affected(request) < changed);
            tasks.retain(|_| behind.next() == Some(true));
            drop(behind);
            if tasks.is_empty() {
                return Ok(());
            }
            if one_snapshot() || Instant::now() > deadline {
                return Err(not_serializable());
            }
            std::thread::sleep(PAUSE);
            pgrx::check_for_interrupts!();
        }
    }
}
