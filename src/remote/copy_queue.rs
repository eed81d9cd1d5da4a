//! Batches of rows for `COPY … FROM STDIN`, queued per node and sent as fast as the nodes take them.
//!
//! The batches of a node run one after the other on its connection of the transaction; different nodes work at the
//! same time, and while they do the caller prepares the next batches. `advance` never waits. The caller bounds what is
//! queued with `wait_below`.

use super::answer::{Answer, State};
use super::chunks::{Chunks, Spare};
use super::connection::{Shared, Step};
use super::gather::{report_notices, wait};
use super::libpq::Flush;
use super::pool;
use super::request::Access;
use super::simple::drain;
use crate::catalog::NodeId;
use crate::error::{Error, Result};
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

/// Handed to libpq at once; it sends what the socket takes and keeps the rest.
const CHUNK: usize = 64 << 10;

/// What a caller keeps with a batch.
pub trait Note {
    /// The node has stored the batch: so many rows.
    fn stored(&self, _rows: u64) {}
}

impl Note for Rc<Cell<u64>> {
    fn stored(&self, rows: u64) {
        self.set(self.get() + rows);
    }
}

/// A failure, with the note of the batch that failed, if it was one.
pub struct FailedBatch<T> {
    pub error: Error,
    pub batch: Option<T>,
}

type Outcome<T> = std::result::Result<(), FailedBatch<T>>;

/// Batches on their way to nodes, each with a note of the caller's. Dropping it abandons them, which leaves the
/// transaction fit only for ROLLBACK.
pub struct CopyQueue<T: Note> {
    lines: Vec<Line<T>>,
    /// Bytes not yet given to libpq.
    queued: usize,
    /// Pieces for new batches.
    pub spare: Spare,
    access: Access,
}

/// The batches of one node.
struct Line<T> {
    access: Access,
    node: NodeId,
    connection: Shared,
    waiting: VecDeque<Batch<T>>,
    running: Option<Running<T>>,
}

struct Batch<T> {
    command: Rc<str>,
    data: Chunks,
    note: T,
}

struct Running<T> {
    answer: Rc<Answer>,
    /// What is left to send,
    data: Chunks,
    /// and how much of its first piece is sent.
    sent: usize,
    ended: bool,
    note: T,
}

impl<T> From<Error> for FailedBatch<T> {
    fn from(error: Error) -> FailedBatch<T> {
        FailedBatch { error, batch: None }
    }
}

impl<T: Note> CopyQueue<T> {
    pub fn new() -> CopyQueue<T> {
        CopyQueue::with_access(Access::Write)
    }

    /// For tables that do not outlive the statement: `Access::Read`.
    pub fn with_access(access: Access) -> CopyQueue<T> {
        CopyQueue {
            lines: Vec::new(),
            queued: 0,
            spare: Spare::default(),
            access,
        }
    }

    /// Queues a batch: `command` is `COPY … FROM STDIN …`, `data` all it is to read. Waits only for the connection.
    pub fn push(&mut self, node: NodeId, command: Rc<str>, data: Chunks, note: T) -> Outcome<T> {
        let index = match self.lines.iter().position(|line| line.node == node) {
            Some(index) => index,
            None => {
                self.lines.push(Line::open(node, self.access)?);
                self.lines.len() - 1
            }
        };
        self.queued += data.len();
        let line = &mut self.lines[index];
        line.waiting.push_back(Batch {
            command,
            data,
            note,
        });
        line.advance(&mut self.queued, &mut self.spare).map(drop)
    }

    /// Goes as far as the sockets allow without waiting.
    pub fn advance(&mut self) -> Outcome<T> {
        for line in &mut self.lines {
            if line.is_working() {
                line.connection.borrow_mut().read();
                line.advance(&mut self.queued, &mut self.spare)?;
            }
        }
        Ok(())
    }

    /// Waits until at most so many bytes are queued.
    pub fn wait_below(&mut self, bytes: usize) -> Outcome<T> {
        self.drive(|queue| queue.queued <= bytes)
    }

    /// Waits until every node has answered every batch.
    pub fn finish(&mut self) -> Outcome<T> {
        self.drive(|queue| queue.lines.iter().all(|line| !line.is_working()))
    }

    fn drive(&mut self, done: impl Fn(&CopyQueue<T>) -> bool) -> Outcome<T> {
        while !done(self) {
            let mut blocked = Vec::new();
            for line in &mut self.lines {
                if line.is_working() && line.advance(&mut self.queued, &mut self.spare)? {
                    blocked.push(line.connection.clone());
                }
            }
            if !blocked.is_empty() && !done(self) {
                wait(&blocked);
            }
        }
        Ok(())
    }
}

impl<T: Note> Line<T> {
    fn open(node: NodeId, access: Access) -> Result<Line<T>> {
        let connection = pool::acquire(&[node])?
            .pop()
            .ok_or_else(|| Error::internal("a node has no connection"))?;
        drain(&connection)?;
        connection.borrow().check_not_aborted()?;
        Ok(Line {
            access,
            node,
            connection,
            waiting: VecDeque::new(),
            running: None,
        })
    }

    fn is_working(&self) -> bool {
        self.running.is_some() || !self.waiting.is_empty()
    }

    /// True when the node or the socket must go first; false when nothing is left to do.
    fn advance(
        &mut self,
        queued: &mut usize,
        spare: &mut Spare,
    ) -> std::result::Result<bool, FailedBatch<T>> {
        loop {
            let Some(running) = &mut self.running else {
                let Some(batch) = self.waiting.pop_front() else {
                    return Ok(false);
                };
                let answer = Answer::of_text(&batch.command, self.access);
                self.connection.borrow_mut().send_text(answer.clone());
                let Batch { data, note, .. } = batch;
                self.running = Some(Running {
                    answer,
                    data,
                    sent: 0,
                    ended: false,
                    note,
                });
                continue;
            };
            // the guard lives for the step only: what follows may wait or raise
            let step = self.connection.borrow_mut().advance();
            match step {
                Step::CopyIn => {
                    if !running.feed(&self.connection, queued, spare) {
                        return Ok(true);
                    }
                }
                Step::NeedsInput => return Ok(true),
                Step::Resend => pool::resend(&self.connection)?,
                Step::Row(owner, row) => owner.keep_row(&row),
                Step::Ended | Step::Idle | Step::Lost => {
                    report_notices(&self.connection);
                    if running.answer.state() == State::Running {
                        if matches!(step, Step::Ended) {
                            continue;
                        }
                        return Err(Error::internal("a remote COPY has got lost").into());
                    }
                    let error = running.answer.error();
                    let rows = running.answer.affected();
                    let ended = self.running.take().map(|r| r.note);
                    match (error, ended) {
                        (Some(error), batch) => return Err(FailedBatch { error, batch }),
                        (None, Some(note)) => note.stored(rows),
                        (None, None) => {}
                    }
                }
            }
        }
    }
}

impl<T> Running<T> {
    /// Gives libpq data until the socket takes no more. True when the batch is sent, with the end of COPY.
    fn feed(&mut self, connection: &Shared, queued: &mut usize, spare: &mut Spare) -> bool {
        let mut connection = connection.borrow_mut();
        while !self.ended {
            // a failure shows when the answer is read
            if connection.flush() == Flush::Pending {
                return false;
            }
            let Some(piece) = self.data.head() else {
                self.ended = true;
                connection.pg().put_copy_end(None);
                break;
            };
            let end = piece.len().min(self.sent + CHUNK);
            match connection.pg().put_copy(&piece[self.sent..end]) {
                Flush::Sent => *queued -= end - self.sent,
                // nothing is pending: it is memory that is missing
                Flush::Pending | Flush::Failed => {
                    *queued -= self.data.len() - self.sent;
                    self.data = Chunks::default();
                    connection.give_up("");
                    return true;
                }
            }
            self.sent = end;
            if end == piece.len() {
                self.data.drop_head(spare);
                self.sent = 0;
            }
        }
        connection.flush();
        true
    }
}
