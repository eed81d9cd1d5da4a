//! Rows on their way to shard groups by COPY: encoded into a buffer per shard group, whose batches the nodes take while
//! the next rows are computed. Memory is bounded by `shard_ext.copy_buffer_size`, whatever the number of shard groups.

use crate::catalog::NodeId;
use crate::copy::{encode, PortableOutput};
use crate::error::Result;
use crate::executor::encode::Encoder;
use crate::pg::types;
use crate::planner::plan::ParamType;
use crate::remote::{Access, Chunks, CopyQueue};
use crate::settings;
use pgrx::pg_sys::{Datum, Oid};
use std::cell::Cell;
use std::rc::Rc;

/// A shard group's buffer becomes a batch at this size, however much room is left.
const FULL_BATCH: usize = 1 << 20;
/// Bytes added between two looks at the nodes' sockets.
const ADVANCE_EVERY: usize = 64 << 10;

pub struct ShardCopy {
    encoders: Vec<Encoder>,
    binary: bool,
    shards: Vec<Shard>,
    /// Bytes in the buffers of all of them.
    buffered: usize,
    /// Bytes added since the nodes were looked at.
    unattended: usize,
    /// What the buffers, and what the batches on their way, may take.
    share: usize,
    queue: CopyQueue<Rc<Cell<u64>>>,
    stored: Rc<Cell<u64>>,
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Default)]
struct Shard {
    data: Chunks,
    size: usize,
}

impl ShardCopy {
    /// For rows of columns of these types to so many shard groups. `access`: `Read` for tables that do not outlive the
    /// statement.
    ///
    /// # Safety
    /// Called inside the server; look-up results live in the current memory context.
    pub unsafe fn new(groups: usize, columns: &[Oid], access: Access) -> ShardCopy {
        let binary = columns
            .iter()
            .all(|column| types::binary_is_portable(*column));
        let encoder = |column: &Oid| {
            // SAFETY: as the caller promises.
            unsafe {
                Encoder::new(&ParamType {
                    value: types::base_type(*column).to_u32(),
                    declared: 0,
                    binary,
                })
            }
        };
        let mut shards = Vec::new();
        shards.resize_with(groups, Shard::default);
        ShardCopy {
            encoders: columns.iter().map(encoder).collect(),
            binary,
            shards,
            buffered: 0,
            unattended: 0,
            share: settings::copy_buffer_size() / 2,
            queue: CopyQueue::with_access(access),
            stored: Rc::default(),
            rows: 0,
            bytes: 0,
        }
    }

    /// Adds a row to the buffer of its shard group. What the types' functions allocate is in the current memory context.
    ///
    /// # Safety
    /// `value` gives values of the columns' types.
    pub unsafe fn add(&mut self, group: usize, value: impl Fn(usize) -> Option<Datum>) {
        let binary = self.binary;
        self.append(group, |encoders, out| unsafe {
            if binary {
                binary_row(encoders, value, out);
            } else {
                text_row(encoders, value, out);
            }
        });
    }

    /// Do rows travel in the binary format?
    pub fn is_binary(&self) -> bool {
        self.binary
    }

    /// Adds a row whose values are in the binary format, in which all rows travel.
    pub fn add_raw<'a>(&mut self, group: usize, value: impl Fn(usize) -> Option<&'a [u8]>) {
        self.append(group, |encoders, out| {
            encode::binary_row(encoders.len(), out);
            for index in 0..encoders.len() {
                encode::binary_field(value(index), out);
            }
        });
    }

    fn append(&mut self, group: usize, write: impl FnOnce(&mut [Encoder], &mut Vec<u8>)) {
        let shard = &mut self.shards[group];
        let out = shard.data.tail(&mut self.queue.spare);
        let before = out.len();
        if self.binary && shard.size == 0 {
            out.extend_from_slice(encode::BINARY_HEADER);
        }
        write(&mut self.encoders, out);
        let added = out.len() - before;
        shard.size += added;
        self.buffered += added;
        self.unattended += added;
        self.rows += 1;
        self.bytes += added as u64;
    }

    /// The shard group to be sent before the next row, after one was added to `group`.
    pub fn due(&self, group: usize) -> Option<usize> {
        if self.shards[group].size >= FULL_BATCH {
            Some(group)
        } else if self.buffered >= self.share {
            (0..self.shards.len()).max_by_key(|index| self.shards[*index].size)
        } else {
            None
        }
    }

    /// The shard groups whose buffers hold rows.
    pub fn waiting(&self) -> Vec<usize> {
        let groups = 0..self.shards.len();
        groups
            .filter(|index| self.shards[*index].size > 0)
            .collect()
    }

    /// Queues a shard group's buffer as a COPY of its node, into `table` (a name, perhaps with a list of columns).
    pub fn send(&mut self, group: usize, node: NodeId, table: &str) -> Result<()> {
        let mut shard = std::mem::take(&mut self.shards[group]);
        if self.binary {
            let tail = shard.data.tail(&mut self.queue.spare);
            tail.extend_from_slice(encode::BINARY_TRAILER);
        }
        self.buffered -= shard.size;
        let format = if self.binary { "binary" } else { "text" };
        let command = format!("COPY {table} FROM STDIN (FORMAT {format})");
        self.queue
            .push(node, command.into(), shard.data, self.stored.clone())
            .and_then(|()| self.queue.wait_below(self.share))
            .map_err(|failed| failed.error)
    }

    /// Looks after the nodes now and then, without waiting.
    pub fn attend(&mut self) -> Result<()> {
        if self.unattended < ADVANCE_EVERY {
            return Ok(());
        }
        self.unattended = 0;
        self.queue.advance().map_err(|failed| failed.error)
    }

    /// Waits until the nodes have stored what was sent; answers the number of rows.
    pub fn finish(&mut self) -> Result<u64> {
        self.queue.finish().map_err(|failed| failed.error)?;
        Ok(self.stored.get())
    }
}

unsafe fn binary_row(
    encoders: &mut [Encoder],
    value: impl Fn(usize) -> Option<Datum>,
    out: &mut Vec<u8>,
) {
    encode::binary_row(encoders.len(), out);
    for (index, encoder) in encoders.iter_mut().enumerate() {
        match value(index) {
            None => encode::binary_field(None, out),
            Some(value) => {
                let at = out.len();
                out.extend_from_slice(&[0; 4]);
                // SAFETY: as the caller promises.
                unsafe { encoder.write(value, out) };
                let length = (out.len() - at - 4) as i32;
                out[at..at + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
    }
}

unsafe fn text_row(
    encoders: &mut [Encoder],
    value: impl Fn(usize) -> Option<Datum>,
    out: &mut Vec<u8>,
) {
    let _portable = PortableOutput::begin();
    let mut text = Vec::new();
    for (index, encoder) in encoders.iter_mut().enumerate() {
        if index > 0 {
            out.push(b'\t');
        }
        let value = value(index);
        text.clear();
        if let Some(value) = value {
            // SAFETY: as the caller promises.
            unsafe { encoder.write(value, &mut text) };
        }
        encode::text_field(value.is_some().then_some(&text[..]), out);
    }
    out.push(b'\n');
}
