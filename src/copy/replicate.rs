//! COPY FROM into a reference table: every row goes to the local table and to the copy on each node.
//!
//! PostgreSQL's own COPY loads the local table. It takes its input from us, line by line: each line has
//! been read from the user's input and completed with the computed columns, and the same bytes go to
//! the nodes.

use super::distribute::located;
use super::input::Input;
use super::lines::LineMap;
use super::statement::Target;
use crate::catalog::{self, NodeId};
use crate::error::Result;
use crate::pg::copyfrom::CopyFromState;
use crate::remote::{CopyQueue, FailedBatch};
use crate::settings;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::rc::Rc;

const FULL_BATCH: usize = 1 << 20;

thread_local! {
    /// The load that runs now: PostgreSQL's callback for COPY data takes no argument.
    static RUNNING: Cell<*mut Replication<'static>> = const { Cell::new(null_mut()) };
}

struct Replication<'a> {
    target: &'a Target,
    input: Input,
    /// The COPY into the local table.
    local: *mut CopyFromState,
    /// The error context around the local COPY, without its own line.
    outer_context: *mut pg_sys::ErrorContextCallback,
    /// The current line, and how much of it the local COPY has taken.
    line: Vec<u8>,
    taken: usize,
    batch: Vec<u8>,
    lines: LineMap,
    copies: Vec<(NodeId, Rc<str>)>,
    queue: CopyQueue<LineMap>,
}

/// Runs the statement and answers the number of rows.
pub fn copy_from(target: &Target) -> Result<u64> {
    // SAFETY: the target is open for as long as the statement runs. The callback reaches the load only
    // through RUNNING, which is reset before the load goes.
    unsafe {
        let input = Input::begin(target.relation, &target.source(None), false);
        let mut copies = Vec::new();
        for node in catalog::nodes()? {
            let schema = catalog::reference_schema(&target.schema(), &node);
            let command = input.copy_command(&super::qualified(&schema, &target.name()));
            copies.push((node.id, Rc::from(command)));
        }
        let local: *mut CopyFromState = pg_sys::BeginCopyFrom(
            target.parse_state,
            target.relation,
            null_mut(),
            null_mut(),
            false,
            Some(next_bytes),
            input.column_list(),
            input.local_options(target.statement),
        )
        .cast();
        let mut load = Replication {
            target,
            input,
            local,
            outer_context: pg_sys::error_context_stack,
            line: Vec::new(),
            taken: 0,
            batch: Vec::new(),
            lines: LineMap::default(),
            copies,
            queue: CopyQueue::new(),
        };
        let rows = {
            let _running = Running::set(&mut load);
            pg_sys::CopyFrom(local.cast())
        };
        load.send()?;
        let Replication {
            mut queue, input, ..
        } = load;
        let computed = input.computed_columns();
        queue
            .finish()
            .map_err(|failed| located(failed, target, computed))?;
        pg_sys::EndCopyFrom(local.cast());
        input.end();
        Ok(rows)
    }
}

/// Makes a load the running one, and the one before it again when dropped.
struct Running(*mut Replication<'static>);

impl Running {
    unsafe fn set(load: &mut Replication<'_>) -> Running {
        let load: *mut Replication<'_> = load;
        Running(RUNNING.replace(load.cast()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(self.0);
    }
}

/// The local COPY's source of data: at most one line a call, so that its line number is the user's.
#[pg_guard]
unsafe extern "C-unwind" fn next_bytes(buffer: *mut c_void, _least: c_int, most: c_int) -> c_int {
    // SAFETY: only called by the CopyFrom in `copy_from`, with room for `most` bytes.
    unsafe {
        let load = &mut *RUNNING.get();
        if load.taken == load.line.len() && !load.next_line() {
            return 0;
        }
        let rest = &load.line[load.taken..];
        let length = rest.len().min(most as usize);
        std::ptr::copy_nonoverlapping(rest.as_ptr(), buffer.cast(), length);
        load.taken += length;
        length as c_int
    }
}

impl Replication<'_> {
    /// Reads the next line and buffers it for the nodes; false at the end.
    unsafe fn next_line(&mut self) -> bool {
        // SAFETY: errors of the user's input name their own line, not the local COPY's as well. The
        // guard around this callback restores the context stack after an error.
        let more = unsafe {
            let inner = pg_sys::error_context_stack;
            pg_sys::error_context_stack = self.outer_context;
            let more = self.input.next();
            pg_sys::error_context_stack = inner;
            more
        };
        if !more {
            return false;
        }
        self.line.clear();
        self.taken = 0;
        self.input.encode(&mut self.line);
        let extra_lines = self.input.extra_lines(self.batch.is_empty());
        self.lines.push(self.input.line(), extra_lines);
        self.batch.extend_from_slice(&self.line);
        // SAFETY: the local COPY is reading this line.
        unsafe { (*self.local).cur_lineno = self.input.line() };
        if self.batch.len() >= FULL_BATCH {
            if let Err(error) = self.send() {
                // SAFETY: as above.
                unsafe { pg_sys::error_context_stack = self.outer_context };
                error.raise();
            }
        }
        true
    }

    /// Queues the buffered lines for every node.
    fn send(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let lines = std::mem::take(&mut self.lines);
        let outcome = self.push(batch, lines);
        outcome.map_err(|failed| located(failed, self.target, self.input.computed_columns()))
    }

    fn push(
        &mut self,
        batch: Vec<u8>,
        lines: LineMap,
    ) -> std::result::Result<(), FailedBatch<LineMap>> {
        for (node, command) in &self.copies {
            let (node, command) = (*node, command.clone());
            self.queue
                .push(node, command, batch.clone().into(), lines.clone())?;
        }
        self.queue.wait_below(settings::copy_buffer_size() / 2)
    }
}
