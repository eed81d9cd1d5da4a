//! Receiving: one step at a time, as far as the input goes.

use super::{Command, Connection, Item, Step};
use crate::error::{sqlstate, Error};
use crate::remote::libpq::{field, CopyOut, PgResult, ResultStatus};
use crate::remote::remote_error;
use crate::remote::request::Format;
use crate::remote::row::Row;
use std::rc::Rc;

impl Connection {
    /// Takes the next step that the input allows.
    pub fn advance(&mut self) -> Step {
        loop {
            if self.lost.is_some() {
                return self.after_loss();
            }
            if self.queue.is_empty() {
                return Step::Idle;
            }
            if self.copying.is_some() {
                match self.next_copied() {
                    Some(step) => return step,
                    None => continue,
                }
            }
            if self.pg.is_busy() {
                return Step::NeedsInput;
            }
            let step = match self.pg.result() {
                None if self.pg.is_bad() => {
                    self.note_loss(None);
                    None
                }
                None => self.end_of_item(),
                Some(result) => self.take_result(result),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// Reads the Sync that follows a request, if it has arrived with it.
    pub fn settle(&mut self) {
        while matches!(self.queue.front(), Some(Item::Sync)) && !self.pg.is_busy() {
            match self.pg.result() {
                Some(result) => self.take_result(result),
                None => self.end_of_item(),
            };
        }
    }

    /// Throws away rows of abandoned requests that have arrived, and reads the ends of results.
    pub fn discard_arrived(&mut self) {
        if self.queue.is_empty() || self.lost.is_some() {
            return;
        }
        self.read();
        while self
            .running()
            .is_none_or(|answer| answer.progress.abandoned.get())
        {
            match self.advance() {
                Step::Row(..) | Step::Ended => {}
                _ => return,
            }
        }
    }

    /// A connection in its place is as new: not to be replaced once more.
    pub fn unproven(&mut self) {
        self.proven = false;
    }

    fn take_result(&mut self, result: PgResult) -> Option<Step> {
        match result.status() {
            ResultStatus::SingleRow => {
                if let Some(Item::Query(answer)) = self.queue.front() {
                    answer.count(&result, 0);
                    return Some(Step::Row(answer.clone(), Row::of_result(result)));
                }
            }
            ResultStatus::Rows | ResultStatus::Done => {
                self.aborted_by = None;
                if let Some(Item::Query(answer) | Item::Simple(answer)) = self.queue.front() {
                    answer.set_affected(result.affected());
                    for row in 0..result.rows() {
                        answer.count(&result, row);
                        answer.keep(&result, row);
                    }
                }
            }
            ResultStatus::Synced => {
                self.unanswered = false;
                self.proven = true;
                self.segment_error = None;
                self.queue.pop_front();
                // it is sent last, maybe before what ended earlier has been read to its end
                self.commits &= !self.queue.is_empty();
                self.arm();
                let mut again = std::mem::take(&mut self.again);
                again.retain(|answer| {
                    let wanted = !answer.progress.abandoned.get();
                    if !wanted {
                        answer.finish();
                    }
                    wanted
                });
                if !again.is_empty() {
                    self.send(&again);
                }
            }
            ResultStatus::Skipped if !self.again.is_empty() && self.keep_for_later() => {}
            ResultStatus::Skipped => {
                let error = self.segment_error.clone().unwrap_or_else(|| {
                    Error::internal("a node skipped a statement without saying why")
                });
                self.fail_front(error);
            }
            ResultStatus::Error => {
                if self.pg.is_bad() || remote_error::is_fatal(&result) {
                    self.note_loss(Some(&result));
                    return None;
                }
                if self.participation.is_none() {
                    self.settings = None; // they may have been given in what the error undoes
                }
                if is_stale_statement(&result) && self.forget_statement() {
                    // will be sent again
                } else {
                    let mut error = self.explain(&result);
                    if error.fields().sqlstate == sqlstate::IN_FAILED_SQL_TRANSACTION {
                        // rows that were asked for earlier, and that nobody has read yet, may have failed
                        error = self.aborted_by.clone().unwrap_or(error);
                    } else if self.participation.is_some() {
                        self.aborted_by = Some(error.clone());
                    }
                    self.fail_front(error.clone());
                    self.segment_error.get_or_insert(error);
                }
            }
            ResultStatus::CopyIn => {
                self.unanswered = false;
                return Some(Step::CopyIn);
            }
            ResultStatus::CopyOut => {
                self.unanswered = false;
                self.copying = Some(false);
            }
            ResultStatus::CopyOther => {
                self.note_loss(None);
            }
        }
        None
    }

    /// The next row of COPY TO STDOUT; None when the copy has ended and its result follows.
    fn next_copied(&mut self) -> Option<Step> {
        let Some(Item::Simple(answer)) = self.queue.front() else {
            self.copying = None;
            return None;
        };
        match self.pg.get_copy() {
            // libpq goes on waiting for data of a node that it has lost
            CopyOut::NeedsInput if self.pg.is_bad() => {
                self.note_loss(None);
                None
            }
            CopyOut::NeedsInput => Some(Step::NeedsInput),
            CopyOut::Ended => {
                self.copying = None;
                None
            }
            CopyOut::Data(data) if answer.statement.results == Format::Text => {
                let row = Row::of_line(&data);
                answer.count_row(&row);
                Some(Step::Row(answer.clone(), row))
            }
            CopyOut::Data(data) => {
                let start = if self.copying.replace(true) == Some(true) {
                    0
                } else {
                    binary_header(data.bytes())
                };
                let row = Row::of_copy(data, start)?;
                answer.count_row(&row);
                Some(Step::Row(answer.clone(), row))
            }
        }
    }

    /// The head of the queue has given all its results.
    fn end_of_item(&mut self) -> Option<Step> {
        let item = self.queue.pop_front();
        match item {
            Some(Item::Query(answer)) => {
                self.arm();
                if self.again.iter().any(|again| Rc::ptr_eq(again, &answer)) {
                    return None;
                }
                answer.finish();
                Some(Step::Ended)
            }
            Some(Item::Simple(answer)) => {
                self.unanswered = false;
                self.proven = true;
                self.segment_error = None;
                self.copying = None;
                self.enter_pipeline();
                answer.finish();
                Some(Step::Ended)
            }
            Some(Item::Command(_) | Item::Prepare(_)) => {
                self.arm();
                None
            }
            Some(Item::Sync) | None => {
                // libpq has nothing more to say although a Sync is outstanding: out of step, beyond repair
                self.note_loss(None);
                None
            }
        }
    }

    /// Prepares libpq for the item that is now at the head.
    pub(super) fn arm(&mut self) {
        if let Some(Item::Query(_)) = self.queue.front() {
            self.pg.single_row();
        }
    }

    fn fail_front(&mut self, error: Error) {
        match self.queue.front() {
            Some(Item::Query(answer) | Item::Simple(answer)) => answer.fail(error),
            Some(Item::Prepare(name)) => self.prepared.forget(name),
            Some(Item::Command(_) | Item::Sync) => {
                // those that wait for its end
                for answer in self.again.drain(..) {
                    answer.fail(error.clone());
                    answer.finish();
                }
                if self.participation.is_none() && matches!(self.queue.front(), Some(Item::Sync)) {
                    self.commits = false;
                    self.autocommit_error = Some(error);
                } else {
                    self.command_error = Some(error);
                }
                self.settings = None; // it may have been what sets them
            }
            None => {}
        }
    }

    /// The node has lost the prepared statement of the request at the head, or its result type has changed since. True:
    /// the request can be sent again, since outside of a transaction nothing has happened yet.
    fn forget_statement(&mut self) -> bool {
        let Some(Item::Query(answer)) = self.queue.front() else {
            return false;
        };
        self.prepared.forget_text(&answer.statement.sql);
        self.keep_for_later()
    }

    /// Puts the request at the head aside to be sent again, once, if nothing has come of it and nothing is at stake.
    fn keep_for_later(&mut self) -> bool {
        let Some(Item::Query(answer)) = self.queue.front() else {
            return false;
        };
        if self.participation.is_some()
            || answer.received().rows > 0
            || answer.retried.replace(true)
        {
            return false;
        }
        self.again.push(answer.clone());
        true
    }

    /// A remote error with its place.
    fn explain(&self, result: &PgResult) -> Error {
        let following = self.queue.iter().find_map(|item| match item {
            Item::Query(answer) | Item::Simple(answer) => Some(&*answer.statement.sql),
            _ => None,
        });
        let sql = match (self.queue.front(), following) {
            (Some(Item::Command(command)), _) => command.sql(),
            (_, Some(sql)) => sql,
            _ => "",
        };
        let error =
            remote_error::of_result(result).context(remote_error::context(&self.node_name, sql));
        match self.queue.front() {
            Some(Item::Command(Command::Settings(_))) if error.fields().hint.is_none() => error.hint(
                "Nodes get the settings of the session. Make the value valid there, too, or RESET the setting here.",
            ),
            _ => error,
        }
    }
}

/// Length of the header of a binary COPY: signature, flags, and an extension whose length is told.
fn binary_header(bytes: &[u8]) -> usize {
    const EXTENSION: usize = 11 + 4;
    match bytes.get(EXTENSION..EXTENSION + 4) {
        Some(b) => EXTENSION + 4 + u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize,
        None => bytes.len(),
    }
}

/// "prepared statement does not exist" and "cached plan must not change result type".
fn is_stale_statement(result: &PgResult) -> bool {
    match result.error_field(field::SQLSTATE).as_deref() {
        Some("26000") => true,
        Some("0A000") => {
            result.error_field(field::ROUTINE).as_deref() == Some("RevalidateCachedQuery")
        }
        _ => false,
    }
}
