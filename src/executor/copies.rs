//! The custom scan that changes the copies of a reference table as PostgreSQL has changed the table here. It stands above
//! the ModifyTable and hands on its rows. The rows that have changed are taken from PostgreSQL's transition tables, which
//! statement triggers get: one that exists in this execution only sends them, a statement per batch, when everything
//! here is done. So the copies see what the statement did, not the statement.
//!
//! Changes of a table with a key come in one order on all copies by the locks of the rows here. In a table without a key
//! rows are found by all of their values; there one statement at a time changes the table.

use crate::catalog::{self, NodeId};
use crate::error::{sqlstate, Error, Result};
use crate::executor::encode::{encoders, Arrays};
use crate::executor::explain::Explainer;
use crate::executor::state::{self, Body, Methods};
use crate::executor::task;
use crate::pg::list;
use crate::planner::plan::{CopiesPlan, CopyStatement, Private};
use crate::remote::{scope, Format, Gather, Params};
use pgrx::pg_guard;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{c_void, CStr};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long to wait for a node to commit what is committed here, and how long between two looks.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// Bytes of rows held before they are sent.
const BATCH_BYTES: usize = 4 << 20;

/// As object id of the trigger and its function: none of the catalog has it.
const NOWHERE: u32 = 1;

static METHODS: Methods = Methods::of::<Copies>();

/// For `CustomScan.methods`.
pub fn copies_methods() -> *const pg_sys::CustomScanMethods {
    METHODS.for_plan()
}

struct Copies {
    plan: CopiesPlan,
    /// For what one row needs while it is encoded.
    row_memory: pg_sys::MemoryContext,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Insert,
    Update,
    Delete,
}

/// Locks the table until the end of the transaction: against changes of tables without a key, in such a table against
/// all. This is a lock beside that of the relation, which every writer has by now: two that asked for a stronger one
/// would wait for each other.
unsafe fn lock_table(relation: pg_sys::Relation, keyed: bool) {
    let mode = if keyed {
        pg_sys::RowExclusiveLock
    } else {
        pg_sys::ShareRowExclusiveLock
    };
    unsafe {
        let class = pg_sys::RelationRelationId;
        pg_sys::LockDatabaseObject(class, (*relation).rd_id, 0, mode as pg_sys::LOCKMODE);
    }
}

/// Has PostgreSQL keep the rows that change, and call `send_changes` with them.
unsafe fn watch(
    copies: &mut Copies,
    modify: *mut pg_sys::ModifyTableState,
    estate: *mut pg_sys::EState,
) {
    unsafe {
        let old = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
        let relation = (*modify).resultRelInfo;
        let triggers = with_trigger(relation, copies, (*estate).es_instrument);
        let relid = (*(*relation).ri_RelationDesc).rd_id;
        let capture = |command| pg_sys::MakeTransitionCaptureState(triggers, relid, command);
        (*modify).mt_transition_capture = capture((*modify).operation);
        let plan = (*modify).ps.plan.cast::<pg_sys::ModifyTable>();
        if (*plan).onConflictAction == pg_sys::OnConflictAction::ONCONFLICT_UPDATE {
            (*modify).mt_oc_transition_capture = capture(pg_sys::CmdType::CMD_UPDATE);
        }
        pg_sys::MemoryContextSwitchTo(old);
    }
}

/// Adds the trigger to those of the relation in this execution: first those that the relation has, foreign keys.
unsafe fn with_trigger(
    relation: *mut pg_sys::ResultRelInfo,
    copies: *mut Copies,
    instrument: i32,
) -> *mut pg_sys::TriggerDesc {
    unsafe fn grown<T>(old: *const T, count: usize) -> *mut T {
        // SAFETY: zero is a valid value of what these arrays hold; `old` has `count` elements.
        unsafe {
            let new = pg_sys::palloc0(std::mem::size_of::<T>() * (count + 1)).cast::<T>();
            if !old.is_null() {
                std::ptr::copy_nonoverlapping(old, new, count);
            }
            new
        }
    }
    unsafe {
        let known = (*relation).ri_TrigDesc;
        let triggers = grown::<pg_sys::TriggerDesc>(known, usize::from(!known.is_null()));
        let count = (*triggers).numtriggers as usize;
        (*triggers).triggers = grown((*triggers).triggers, count);
        (*triggers).numtriggers += 1;
        (*triggers).trig_insert_after_statement = true;
        (*triggers).trig_update_after_statement = true;
        (*triggers).trig_delete_after_statement = true;
        (*triggers).trig_insert_new_table = true;
        (*triggers).trig_update_old_table = true;
        (*triggers).trig_update_new_table = true;
        (*triggers).trig_delete_old_table = true;

        let trigger = (*triggers).triggers.add(count);
        (*trigger).tgoid = Oid::from(NOWHERE);
        (*trigger).tgfoid = Oid::from(NOWHERE);
        (*trigger).tgname = c"shard_ext copies".as_ptr().cast_mut();
        (*trigger).tgtype = (pg_sys::TRIGGER_TYPE_INSERT
            | pg_sys::TRIGGER_TYPE_UPDATE
            | pg_sys::TRIGGER_TYPE_DELETE
            | pg_sys::TRIGGER_TYPE_AFTER
            | pg_sys::TRIGGER_TYPE_STATEMENT) as i16;
        (*trigger).tgenabled = pg_sys::TRIGGER_FIRES_ALWAYS as std::ffi::c_char;
        (*trigger).tgisinternal = true;
        (*trigger).tgoldtable = c"old".as_ptr().cast_mut();
        (*trigger).tgnewtable = c"new".as_ptr().cast_mut();

        (*relation).ri_TrigFunctions = grown((*relation).ri_TrigFunctions, count);
        let function = (*relation).ri_TrigFunctions.add(count);
        (*function).fn_addr = Some(send_changes);
        (*function).fn_oid = Oid::from(NOWHERE);
        (*function).fn_stats = pg_sys::TrackFunctionsLevel::TRACK_FUNC_ALL as u8;
        (*function).fn_mcxt = pg_sys::CurrentMemoryContext;
        (*function).fn_extra = copies.cast::<c_void>();

        (*relation).ri_TrigWhenExprs = grown((*relation).ri_TrigWhenExprs, count);
        if instrument != 0 {
            (*relation).ri_TrigInstrument = pg_sys::InstrAlloc(count as i32 + 1, instrument, false);
        }
        (*relation).ri_TrigDesc = triggers;
        triggers
    }
}

/// The trigger's function.
#[pg_guard]
unsafe extern "C-unwind" fn send_changes(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: called by ExecCallTriggerFunc for the trigger of `with_trigger`, whose executor state, and with it the body
    // that it points to, lives until the end of the query.
    unsafe {
        let data = (*call).context.cast::<pg_sys::TriggerData>();
        let copies = (*(*call).flinfo).fn_extra.cast::<Copies>();
        if let Err(error) = (*copies).send(&*data) {
            error.raise();
        }
        Datum::null()
    }
}

/// One of the two tables that a trigger gets, read row by row.
struct Rows {
    store: *mut pg_sys::Tuplestorestate,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Rows {
    /// None where the event has no such rows.
    unsafe fn of(store: *mut pg_sys::Tuplestorestate, relation: pg_sys::Relation) -> Option<Rows> {
        if store.is_null() {
            return None;
        }
        unsafe {
            pg_sys::tuplestore_rescan(store);
            let slot = pg_sys::MakeSingleTupleTableSlot(
                (*relation).rd_att,
                &raw const pg_sys::TTSOpsMinimalTuple,
            );
            Some(Rows { store, slot })
        }
    }

    unsafe fn next(&self) -> bool {
        unsafe {
            let found = pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot);
            if found {
                pg_sys::slot_getallattrs(self.slot);
            }
            found
        }
    }

    unsafe fn drop_slot(self) {
        unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) }
    }
}

impl Body for Copies {
    const NAME: &'static CStr = c"ShardCopies";

    fn methods() -> &'static Methods {
        &METHODS
    }

    unsafe fn new(
        node: *mut pg_sys::CustomScanState,
        scan: *mut pg_sys::CustomScan,
    ) -> Result<Copies> {
        unsafe {
            Ok(Copies {
                plan: CopiesPlan::from_private((*scan).custom_private)?,
                row_memory: (*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory,
            })
        }
    }

    unsafe fn begun(&mut self, node: *mut pg_sys::CustomScanState, flags: i32) -> Result<()> {
        if flags as u32 & pg_sys::EXEC_FLAG_EXPLAIN_ONLY != 0 {
            return Ok(());
        }
        // SAFETY: the child is the ModifyTable that the planner put there.
        unsafe {
            let modify = list::nth::<pg_sys::ModifyTableState>((*node).custom_ps, 0);
            let table = (*(*modify).resultRelInfo).ri_RelationDesc;
            lock_table(table, self.plan.keyed);
            watch(self, modify, (*node).ss.ps.state);
        }
        Ok(())
    }

    unsafe fn exec(node: *mut pg_sys::CustomScanState) -> Result<*mut pg_sys::TupleTableSlot> {
        unsafe { Ok(state::exec_child(list::nth((*node).custom_ps, 0))) }
    }

    unsafe fn explain(
        &mut self,
        _node: *mut pg_sys::CustomScanState,
        es: *mut pg_sys::ExplainState,
    ) -> Result<()> {
        let explainer = Explainer(es);
        explainer.text("Kind", "every node");
        let plan = &self.plan;
        for (happens, statement) in [
            (plan.deletes, &plan.delete),
            (plan.updates, &plan.update),
            (plan.inserts, &plan.insert),
        ] {
            if happens {
                explainer.text("Remote SQL", statement.template.text());
            }
        }
        Ok(())
    }
}

impl Copies {
    /// Sends the rows of an event to all copies.
    unsafe fn send(&self, data: &pg_sys::TriggerData) -> Result<()> {
        let (event, statement) = match data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => (Event::Insert, &self.plan.insert),
            pg_sys::TRIGGER_EVENT_UPDATE => (Event::Update, &self.plan.update),
            _ => (Event::Delete, &self.plan.delete),
        };
        unsafe {
            let before = Rows::of(data.tg_oldtable, data.tg_relation);
            let after = Rows::of(data.tg_newtable, data.tg_relation);
            let (old, new) = (&statement.old, &statement.new);
            let mut arrays = [Arrays::new(old), Arrays::new(new)];
            let mut encoders = [encoders(old), encoders(new)];
            let (mut rows, mut bytes) = (0, 0);
            loop {
                pgrx::check_for_interrupts!();
                let more = [&before, &after]
                    .into_iter()
                    .flatten()
                    .all(|rows| rows.next());
                if rows > 0 && (!more || bytes > BATCH_BYTES) {
                    let mut params = Params::default();
                    let [of_old, of_new] =
                        std::mem::replace(&mut arrays, [Arrays::new(old), Arrays::new(new)]);
                    of_old.finish(old, &mut params);
                    of_new.finish(new, &mut params);
                    self.change(event, statement, params, rows)?;
                    (rows, bytes) = (0, 0);
                }
                if !more {
                    break;
                }
                let outer = pg_sys::MemoryContextSwitchTo(self.row_memory);
                for (index, (rows, columns)) in
                    [(&before, old), (&after, new)].into_iter().enumerate()
                {
                    if let Some(rows) = rows {
                        let (arrays, encoders) = (&mut arrays[index], &mut encoders[index]);
                        let value = |source| state::value(rows.slot, source);
                        bytes += arrays.add(columns, encoders, value);
                    }
                }
                pg_sys::MemoryContextSwitchTo(outer);
                pg_sys::MemoryContextReset(self.row_memory);
                rows += 1;
            }
            for rows in [before, after].into_iter().flatten() {
                rows.drop_slot();
            }
        }
        Ok(())
    }

    /// Changes rows on every node, and waits until all have done it.
    fn change(
        &self,
        event: Event,
        statement: &CopyStatement,
        params: Params,
        rows: u64,
    ) -> Result<()> {
        let params = Rc::new(params);
        let deadline = Instant::now() + PATIENCE;
        let mut behind: Vec<(NodeId, u64)> = catalog::nodes()?
            .iter()
            .map(|node| (node.id, rows))
            .collect();
        // Another try of an UPDATE that gives keys to other rows could find those.
        let may_try_again = self.plan.keyed
            && event != Event::Insert
            && !(event == Event::Update && self.plan.changes_key)
            && scope::has_snapshot_per_statement();
        loop {
            let requests = behind
                .iter()
                .map(|(node, _)| {
                    let text = Format::Text;
                    task::change(
                        &statement.template,
                        *node,
                        None,
                        params.clone(),
                        text,
                        false,
                    )
                })
                .collect::<Result<Vec<_>>>()?;
            let mut gather = Gather::start(requests)?;
            while gather.next()?.is_some() {}
            for (index, (_, missing)) in behind.iter_mut().enumerate() {
                let changed = gather.affected(index);
                // Rows are deleted once, and updated each time.
                *missing = match event {
                    Event::Update if changed == rows => 0,
                    Event::Update => *missing,
                    _ => missing.wrapping_sub(changed),
                };
            }
            behind.retain(|(_, missing)| *missing != 0);
            if behind.is_empty() {
                return Ok(());
            }
            // Committed here, the last change of a row may be about to be committed on a node.
            if !may_try_again || Instant::now() > deadline {
                return Err(not_serializable());
            }
            std::thread::sleep(PAUSE);
            pgrx::check_for_interrupts!();
        }
    }
}

fn not_serializable() -> Error {
    Error::new(
        sqlstate::SERIALIZATION_FAILURE,
        "could not serialize access due to concurrent update",
    )
    .detail("A node has other rows than the coordinator to change: it sees another moment.")
    .hint("Try the transaction again.")
}
