//! Streams of rows into `COPY … FROM STDIN` on nodes.

use super::chunks::Chunks;
use super::copy_queue::CopyQueue;
use crate::catalog::{NodeId, ShardGroupId};
use crate::error::{Error, Result};
use crate::settings;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

/// A stream's rows become a batch at this size.
const FULL_BATCH: usize = 1 << 20;

type Rows = Rc<Cell<u64>>;

/// The streams that are open at the same time, so that they take turns on the nodes' connections.
struct Streams {
    queue: CopyQueue<Rows>,
    /// Bytes in the buffers of all streams.
    buffered: usize,
    /// Their buffers; taken out by the streams when they finish.
    buffers: Vec<Option<Buffer>>,
}

struct Buffer {
    node: NodeId,
    command: Rc<str>,
    data: Chunks,
    size: usize,
    copied: Rows,
}

thread_local! {
    static OPEN: RefCell<Weak<RefCell<Streams>>> = const { RefCell::new(Weak::new()) };
}

/// One stream of rows into one table of a node. Any number may be open at once: streams to the same node take turns
/// on its connection, so `sql` may run several times and each `write` must hold whole rows.
pub struct CopyIn {
    streams: Rc<RefCell<Streams>>,
    index: usize,
}

impl CopyIn {
    /// `sql` is `COPY … FROM STDIN …`, text or csv without a header. Sends nothing yet.
    pub fn start(node: NodeId, _groups: Rc<[ShardGroupId]>, sql: &str) -> Result<CopyIn> {
        let streams = OPEN.with_borrow_mut(|open| match open.upgrade() {
            Some(streams) => streams,
            None => {
                let streams = Rc::new(RefCell::new(Streams {
                    queue: CopyQueue::new(),
                    buffered: 0,
                    buffers: Vec::new(),
                }));
                *open = Rc::downgrade(&streams);
                streams
            }
        });
        let index = {
            let buffers = &mut streams.borrow_mut().buffers;
            buffers.push(Some(Buffer {
                node,
                command: sql.into(),
                data: Chunks::default(),
                size: 0,
                copied: Rows::default(),
            }));
            buffers.len() - 1
        };
        Ok(CopyIn { streams, index })
    }

    /// Adds whole rows. Buffers, sends when there is enough, waits only when too much is buffered.
    pub fn write(&mut self, rows: &[u8]) -> Result<()> {
        self.streams.borrow_mut().write(self.index, rows)
    }

    /// Sends what is left and answers the number of rows copied. Dropping instead abandons the stream, which
    /// leaves the transaction fit only for ROLLBACK.
    pub fn finish(self) -> Result<u64> {
        let mut streams = self.streams.borrow_mut();
        // all at once: the nodes of the other streams work at the same time
        for index in 0..streams.buffers.len() {
            streams.send(index)?;
        }
        streams.queue.finish().map_err(|failed| failed.error)?;
        let copied = streams.buffers[self.index].as_ref().map(|b| b.copied.get());
        copied.ok_or_else(|| Error::internal("a COPY stream was finished twice"))
    }
}

impl Drop for CopyIn {
    fn drop(&mut self) {
        if let Ok(mut streams) = self.streams.try_borrow_mut() {
            if let Some(buffer) = streams.buffers[self.index].take() {
                streams.buffered -= buffer.size;
            }
        }
    }
}

impl Streams {
    fn write(&mut self, index: usize, rows: &[u8]) -> Result<()> {
        let Some(buffer) = &mut self.buffers[index] else {
            return Err(Error::internal(
                "a COPY stream was written to after its end",
            ));
        };
        let tail = buffer.data.tail(&mut self.queue.spare);
        tail.extend_from_slice(rows);
        buffer.size += rows.len();
        self.buffered += rows.len();
        let share = settings::copy_buffer_size() / 2;
        if buffer.size >= FULL_BATCH {
            self.send(index)?;
        } else if self.buffered >= share {
            let size = |i: &usize| self.buffers[*i].as_ref().map_or(0, |b| b.size);
            let biggest = (0..self.buffers.len()).max_by_key(size);
            self.send(biggest.unwrap_or(index))?;
        } else {
            return Ok(());
        }
        let sent = self.queue.wait_below(share);
        sent.map_err(|failed| failed.error)
    }

    fn send(&mut self, index: usize) -> Result<()> {
        let Some(buffer) = &mut self.buffers[index] else {
            return Ok(());
        };
        if buffer.data.is_empty() {
            return Ok(());
        }
        let data = std::mem::take(&mut buffer.data);
        self.buffered -= std::mem::take(&mut buffer.size);
        let (node, command) = (buffer.node, buffer.command.clone());
        let sent = self.queue.push(node, command, data, buffer.copied.clone());
        sent.map_err(|failed| failed.error)
    }
}
