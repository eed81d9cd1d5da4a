//! The custom scan that moves rows: it reads the plan below to its end and copies each row into a table beside the shard
//! group of its key. Its only row is the handle by which leaves find the tables. It stands on top of an init plan, so it
//! runs once, before the first leaf that asks for the handle.

use crate::catalog::{self, Colocation, NodeId};
use crate::copy::{encode, PortableOutput};
use crate::error::{Error, Result};
use crate::executor::encode::Encoder;
use crate::executor::explain::Explainer;
use crate::executor::moved::{self, Moved};
use crate::executor::state::{self, body, Callbacks, Methods};
use crate::pg::{list, types};
use crate::planner::plan::{MovePlan, ParamType, Private};
use crate::planner::route;
use crate::remote::{Access, Chunks, CopyQueue};
use crate::{settings, transaction};
use pgrx::pg_guard;
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::Cell;
use std::rc::Rc;

static SCAN: Methods<pg_sys::CustomScanMethods> = state::scan_methods(c"ShardMove", create_state);

static EXEC: Methods<pg_sys::CustomExecMethods> = state::exec_methods(
    c"ShardMove",
    Callbacks {
        begin,
        exec,
        end,
        rescan,
        explain: explain_move,
    },
);

/// For `CustomScan.methods`.
pub fn move_methods() -> *const pg_sys::CustomScanMethods {
    &raw const SCAN.0
}

/// A shard group's buffer becomes a batch at this size, however much room is left.
const FULL_BATCH: usize = 1 << 20;
/// Bytes read between two looks at the nodes' sockets.
const ADVANCE_EVERY: usize = 64 << 10;

/// One execution of a move.
struct Move {
    plan: MovePlan,
    colocation: Rc<Colocation>,
    encoders: Vec<Encoder>,
    binary: bool,
    shards: Vec<Shard>,
    /// Bytes in the buffers of all of them.
    buffered: usize,
    /// Bytes added since the nodes were looked at.
    unattended: usize,
    tables: Option<Rc<Moved>>,
    /// The handle was given since the last rescan.
    given: bool,
    rows: u64,
    bytes: u64,
}

/// Rows on their way to a shard group.
#[derive(Default)]
struct Shard {
    data: Chunks,
    size: usize,
}

type Queue = CopyQueue<Rc<Cell<u64>>>;

impl Drop for Move {
    fn drop(&mut self) {
        if let Some(tables) = &self.tables {
            moved::forget(tables.handle());
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn create_state(_scan: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: the body's type is that of every callback here.
    unsafe { state::create::<Move>(&EXEC.0) }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(
    node: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    flags: i32,
) {
    // SAFETY: called by ExecInitCustomScan.
    unsafe { state::begin_above(node, estate, flags, |scan| Move::new(scan)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn exec(
    node: *mut pg_sys::CustomScanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: ExecScan calls back with the same node.
    unsafe { state::scan_rows(node, access) }
}

#[pg_guard]
unsafe extern "C-unwind" fn access(node: *mut pg_sys::ScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: ExecScan calls back with this node, whose body has this type.
    unsafe {
        state::next_row(node, |movement: &mut Move, custom, slot| {
            movement.next(custom, slot)
        })
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end(node: *mut pg_sys::CustomScanState) {
    // SAFETY: the child was made in begin; the leaves above have ended before.
    unsafe {
        state::end_child(node);
        if let Some(movement) = body::<Move>(node) {
            if let Some(tables) = movement.tables.take() {
                moved::forget(tables.handle());
                if let Err(error) = tables.drop_tables() {
                    error.raise();
                }
            }
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn rescan(node: *mut pg_sys::CustomScanState) {
    // SAFETY: called by ExecReScanCustomScan. Nothing below takes values from outside.
    if let Some(movement) = unsafe { body::<Move>(node) } {
        movement.given = false;
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn explain_move(
    node: *mut pg_sys::CustomScanState,
    _ancestors: *mut pg_sys::List,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: called by ExplainNode.
    unsafe {
        if let Some(movement) = body::<Move>(node) {
            let explainer = Explainer(es);
            explainer.text("Moved By", &movement.plan.by);
            explainer.text(
                "To",
                &format!(
                    "{} shard groups of {}",
                    movement.colocation.groups.len(),
                    movement.plan.target
                ),
            );
            explainer.text("Reason", &movement.plan.reason);
            if (*es).analyze {
                explainer.integer("Rows Moved", None, movement.rows as i64);
                explainer.integer("Bytes Moved", None, movement.bytes as i64);
            }
        }
    }
}

impl Move {
    /// One row, which says in the column for it by what handle the tables are known.
    unsafe fn next(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<()> {
        unsafe {
            if std::mem::replace(&mut self.given, true) {
                return Ok(());
            }
            let handle = self.handle(node)?;
            for column in 0..(*(*slot).tts_tupleDescriptor).natts as usize {
                *(*slot).tts_values.add(column) = Datum::null();
                *(*slot).tts_isnull.add(column) = true;
            }
            *(*slot).tts_values.add(self.plan.handle) = Datum::from(handle);
            *(*slot).tts_isnull.add(self.plan.handle) = false;
            state::store_virtual(slot);
            Ok(())
        }
    }

    unsafe fn new(scan: *mut pg_sys::CustomScan) -> Result<Move> {
        unsafe {
            let plan = MovePlan::from_private((*scan).custom_private)?;
            let colocation = catalog::colocation(plan.colocation)?;
            let binary = plan
                .columns
                .iter()
                .all(|column| types::binary_is_portable(Oid::from(column.value)));
            let encoders = plan
                .columns
                .iter()
                .map(|column| {
                    Encoder::new(&ParamType {
                        value: types::base_type(Oid::from(column.value)).to_u32(),
                        declared: 0,
                        binary,
                    })
                })
                .collect();
            let mut shards = Vec::new();
            shards.resize_with(colocation.groups.len(), Shard::default);
            Ok(Move {
                plan,
                colocation,
                encoders,
                binary,
                shards,
                buffered: 0,
                unattended: 0,
                tables: None,
                given: false,
                rows: 0,
                bytes: 0,
            })
        }
    }

    /// Moves the rows, unless that was done.
    unsafe fn handle(&mut self, node: *mut pg_sys::CustomScanState) -> Result<i32> {
        if self.tables.is_none() {
            unsafe { self.run(node)? };
        }
        match &self.tables {
            Some(tables) => Ok(tables.handle()),
            None => Err(Error::internal("rows were not moved")),
        }
    }

    unsafe fn run(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            let child = list::nth::<pg_sys::PlanState>((*node).custom_ps, 0);
            let statement = (*(*node).ss.ps.state).es_plannedstmt;
            let memory = (*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
            let share = settings::copy_buffer_size() / 2;
            let mut queue = Queue::with_access(Access::Read);
            loop {
                let slot = state::exec_child(child);
                if state::is_empty(slot) {
                    break;
                }
                pg_sys::MemoryContextReset(memory);
                let old = pg_sys::MemoryContextSwitchTo(memory);
                let full = self.take(slot, &mut queue);
                pg_sys::MemoryContextSwitchTo(old);
                if let Some(group) = full {
                    self.send(group, &mut queue, statement)?;
                } else if self.buffered >= share {
                    let biggest = (0..self.shards.len()).max_by_key(|i| self.shards[*i].size);
                    self.send(biggest.unwrap_or(0), &mut queue, statement)?;
                }
                queue.wait_below(share).map_err(|failed| failed.error)?;
                if self.unattended >= ADVANCE_EVERY {
                    self.unattended = 0;
                    queue.advance().map_err(|failed| failed.error)?;
                }
            }
            self.create_tables(statement)?;
            for group in 0..self.shards.len() {
                if self.shards[group].size > 0 {
                    self.send(group, &mut queue, statement)?;
                }
            }
            queue.finish().map_err(|failed| failed.error)
        }
    }

    /// Adds a row to the buffer of its shard group; answers the group when that is full. Rows that join nothing stay out.
    unsafe fn take(
        &mut self,
        slot: *mut pg_sys::TupleTableSlot,
        queue: &mut Queue,
    ) -> Option<usize> {
        unsafe {
            pg_sys::slot_getallattrs(slot);
            let value = |index: usize| -> Option<Datum> {
                let null = *(*slot).tts_isnull.add(index);
                (!null).then(|| *(*slot).tts_values.add(index))
            };
            let key = value(self.plan.key)?;
            let group = route::group_of(&self.colocation, Oid::from(self.plan.key_type), key)?;
            let shard = &mut self.shards[group];
            let out = shard.data.tail(&mut queue.spare);
            let before = out.len();
            if self.binary && shard.size == 0 {
                out.extend_from_slice(encode::BINARY_HEADER);
            }
            if self.binary {
                encode::binary_row(self.plan.columns.len(), out);
            }
            let _portable = (!self.binary).then(PortableOutput::begin);
            let mut text = Vec::new();
            for (index, column) in self.plan.columns.iter().enumerate() {
                let encoder = &mut self.encoders[index];
                match (value(column.source), self.binary) {
                    (None, true) => encode::binary_field(None, out),
                    (Some(value), true) => {
                        let at = out.len();
                        out.extend_from_slice(&[0; 4]);
                        encoder.write(value, out);
                        let length = (out.len() - at - 4) as i32;
                        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
                    }
                    (value, false) => {
                        if index > 0 {
                            out.push(b'\t');
                        }
                        text.clear();
                        if let Some(value) = value {
                            encoder.write(value, &mut text);
                        }
                        encode::text_field(value.is_some().then_some(&text[..]), out);
                    }
                }
            }
            if !self.binary {
                out.push(b'\n');
            }
            let added = out.len() - before;
            shard.size += added;
            self.buffered += added;
            self.unattended += added;
            self.rows += 1;
            self.bytes += added as u64;
            (shard.size >= FULL_BATCH).then_some(group)
        }
    }

    fn create_tables(&mut self, statement: *const pg_sys::PlannedStmt) -> Result<Rc<Moved>> {
        if let Some(tables) = &self.tables {
            return Ok(tables.clone());
        }
        // the part that was planned as a SELECT may be that of an INSERT
        // SAFETY: the statement that runs.
        let reads = unsafe {
            (*statement).commandType == pg_sys::CmdType::CMD_SELECT && !(*statement).hasModifyingCTE
        };
        let temporary = reads && self.plan.quiet && transaction::may_autocommit(statement);
        let columns: Vec<&str> = self
            .plan
            .columns
            .iter()
            .map(|column| column.definition.as_str())
            .collect();
        let tables = Moved::create(
            &self.colocation,
            &self.plan.schema,
            &columns.join(", "),
            temporary,
        )?;
        self.tables = Some(tables.clone());
        Ok(tables)
    }

    /// Queues a shard group's buffer as a COPY of its node.
    fn send(
        &mut self,
        group: usize,
        queue: &mut Queue,
        statement: *const pg_sys::PlannedStmt,
    ) -> Result<()> {
        let tables = self.create_tables(statement)?;
        let mut shard = std::mem::take(&mut self.shards[group]);
        if self.binary {
            let tail = shard.data.tail(&mut queue.spare);
            tail.extend_from_slice(encode::BINARY_TRAILER);
        }
        self.buffered -= shard.size;
        let id = self.colocation.groups[group].id;
        let node: NodeId = catalog::group_node(id)?;
        let format = if self.binary { "binary" } else { "text" };
        let command = format!("COPY {} FROM STDIN (FORMAT {format})", tables.table(id));
        queue
            .push(node, command.into(), shard.data, Rc::default())
            .map_err(|failed| failed.error)
    }
}
