//! COPY FROM into a distributed table: rows gather in a buffer per shard group, and full buffers become
//! COPY statements on the group's node.
//!
//! One connection per node serves all of its shard groups in turn, so that the transaction keeps one
//! session per node; while the workers parse and store batches, the next ones are read. Memory is
//! bounded by `shard_ext.copy_buffer_size`, whatever the number of shard groups.

use super::input::Input;
use super::lines::LineMap;
use super::statement::Target;
use crate::catalog::{self, Colocation, NodeId};
use crate::error::{Error, Result};
use crate::remote::{Chunks, CopyQueue, FailedBatch};
use crate::settings;
use pgrx::pg_sys;
use std::rc::Rc;

/// A shard group's buffer becomes a batch at this size, however much room is left.
const FULL_BATCH: usize = 1 << 20;
/// Bytes read between two looks at the nodes' sockets.
const ADVANCE_EVERY: usize = 64 << 10;
/// Rows between two updates of `pg_stat_progress_copy`.
const REPORT_EVERY: u64 = 1024;

/// Runs the statement and answers the number of rows.
pub fn copy_from(target: &Target, key: i16, colocation: &Rc<Colocation>) -> Result<u64> {
    // SAFETY: the target is open for as long as the statement runs.
    let mut input = unsafe { Input::begin(target.relation, &target.source(Some(key)), true) };
    // SAFETY: as above.
    unsafe { input.check_freeze(target.relation)? };
    let mut shards = Shards::new(target, colocation, input.computed_columns());
    let mut rows = 0u64;
    while input.next() {
        match colocation.group_for(input.key()) {
            Some(group) => shards.add(group, &mut input)?,
            None => input.raise(catalog::no_shard(
                colocation,
                &target.schema(),
                &target.name(),
                input.key(),
            )),
        }
        if input.runs_statements() {
            shards.settle()?;
        }
        rows += 1;
        if rows.is_multiple_of(REPORT_EVERY) {
            report(rows);
        }
    }
    report(rows);
    shards.finish(&input)?;
    input.end();
    Ok(rows)
}

/// Tells `pg_stat_progress_copy` how far we are.
pub fn report(rows: u64) {
    // SAFETY: writes to this backend's own status entry.
    unsafe {
        pg_sys::pgstat_progress_update_param(
            pg_sys::PROGRESS_COPY_TUPLES_PROCESSED as i32,
            rows as i64,
        );
    }
}

/// The buffers of a table's shards.
struct Shards<'a> {
    target: &'a Target,
    colocation: &'a Colocation,
    shards: Vec<Shard>,
    /// Bytes in all of them.
    buffered: usize,
    /// Bytes added since the nodes were looked at.
    unattended: usize,
    /// What the buffers, and what the batches on their way, may take.
    share: usize,
    queue: CopyQueue<LineMap>,
    /// Columns at the end of each line that are not the user's.
    computed: usize,
}

#[derive(Default)]
struct Shard {
    batch: Batch,
    place: Option<Place>,
}

#[derive(Default)]
struct Batch {
    data: Chunks,
    size: usize,
    lines: LineMap,
}

/// Where a shard's batches go; known once it has one.
#[derive(Clone)]
struct Place {
    node: NodeId,
    command: Rc<str>,
}

impl<'a> Shards<'a> {
    fn new(target: &'a Target, colocation: &'a Colocation, computed: usize) -> Shards<'a> {
        let mut shards = Vec::new();
        shards.resize_with(colocation.groups.len(), Shard::default);
        Shards {
            target,
            colocation,
            shards,
            buffered: 0,
            unattended: 0,
            share: settings::copy_buffer_size() / 2,
            queue: CopyQueue::new(),
            computed,
        }
    }

    /// Adds the input's current row to a shard.
    fn add(&mut self, group: usize, input: &mut Input) -> Result<()> {
        let batch = &mut self.shards[group].batch;
        let tail = batch.data.tail(&mut self.queue.spare);
        let before = tail.len();
        let first = batch.size == 0;
        if first && input.is_binary() {
            tail.extend_from_slice(super::encode::BINARY_HEADER);
        }
        input.encode(tail);
        let added = tail.len() - before;
        batch.lines.push(input.line(), input.extra_lines(first));
        batch.size += added;
        let size = batch.size;
        self.buffered += added;
        self.unattended += added;
        if size >= FULL_BATCH {
            self.send(group, input)?;
        } else if self.buffered >= self.share {
            let biggest = (0..self.shards.len()).max_by_key(|i| self.shards[*i].batch.size);
            self.send(biggest.unwrap_or(group), input)?;
        }
        if self.unattended >= ADVANCE_EVERY {
            self.unattended = 0;
            let advanced = self.queue.advance();
            self.check(advanced)?;
        }
        Ok(())
    }

    /// Queues a shard's buffer as a COPY of its node.
    fn send(&mut self, group: usize, input: &Input) -> Result<()> {
        let place = self.place(group, input)?;
        let Batch {
            mut data,
            size,
            lines,
        } = std::mem::take(&mut self.shards[group].batch);
        if input.is_binary() {
            let tail = data.tail(&mut self.queue.spare);
            tail.extend_from_slice(super::encode::BINARY_TRAILER);
        }
        self.buffered -= size;
        let queued = self
            .queue
            .push(place.node, place.command, data, lines)
            .and_then(|()| self.queue.wait_below(self.share));
        self.check(queued)
    }

    fn place(&mut self, group: usize, input: &Input) -> Result<Place> {
        if let Some(place) = &self.shards[group].place {
            return Ok(place.clone());
        }
        let id = self.colocation.groups[group].id;
        let schema = catalog::shard_schema(&self.target.schema(), id);
        let place = Place {
            node: catalog::group_node(id)?,
            command: Rc::from(input.copy_command(&super::qualified(&schema, &self.target.name()))),
        };
        self.shards[group].place = Some(place.clone());
        Ok(place)
    }

    /// Leaves no batch under way.
    fn settle(&mut self) -> Result<()> {
        let finished = self.queue.finish();
        self.check(finished)
    }

    /// Sends what is left and waits for every node.
    fn finish(mut self, input: &Input) -> Result<()> {
        for group in 0..self.shards.len() {
            if self.shards[group].batch.size > 0 {
                self.send(group, input)?;
            }
        }
        let finished = self.queue.finish();
        self.check(finished)
    }

    fn check(&self, outcome: std::result::Result<(), FailedBatch<LineMap>>) -> Result<()> {
        outcome.map_err(|failed| located(failed, self.target, self.computed))
    }
}

/// A worker's error with the line of the user's input and the user's schema.
pub fn located(failed: FailedBatch<LineMap>, target: &Target, computed: usize) -> Error {
    let FailedBatch { mut error, batch } = failed;
    let fields = error.fields_mut();
    if fields.schema.is_some() && fields.table.as_deref() == Some(target.name().as_str()) {
        fields.schema = Some(target.schema());
    }
    if let (Some(lines), Some(context)) = (batch, &fields.context) {
        if let Some(rewritten) = lines.rewrite_context(context, &target.name(), computed) {
            fields.context = Some(rewritten);
        }
    }
    error
}
