//! Losing the connection: what was outstanding fails, or is sent again when nothing can have come of it.

use super::{Connection, Item, Step};
use crate::remote::answer::Answer;
use crate::remote::libpq::{field, Flush, PgResult};
use crate::remote::request::Access;
use crate::remote::{outcome, remote_error};
use std::rc::Rc;

impl Connection {
    pub(super) fn note_loss(&mut self, result: Option<&PgResult>) {
        if self.lost.is_none() {
            let why = match result {
                Some(result) => remote_error::of_result(result).fields().message.clone(),
                None => self.pg.error_message(),
            };
            // the node says why it ends, not libpq: it has undone what was not committed
            let told = result.is_some_and(|r| r.error_field(field::SQLSTATE).is_some());
            self.lose(&why, told);
        }
    }

    fn lose(&mut self, why: &str, told: bool) {
        let error = if self.commits && !told {
            outcome::unknown(&self.node_name)
        } else {
            remote_error::lost(&self.node_name, why)
        };
        if self.commits {
            self.autocommit_error = Some(error.clone());
        }
        self.lost = Some(error);
    }

    /// Gives the connection up, for instance because it did not answer in time. What is outstanding fails.
    pub fn give_up(&mut self, why: &str) {
        self.unanswered = false;
        if self.lost.is_none() {
            self.lose(why, false);
        }
        self.fail_outstanding();
    }

    pub(super) fn after_loss(&mut self) -> Step {
        if self.queue.is_empty() && self.again.is_empty() {
            return Step::Lost;
        }
        if self.may_resend() {
            return Step::Resend;
        }
        self.fail_outstanding();
        Step::Lost
    }

    /// Safe when the connection had been in use before (so it died while idle), nothing came back, and nothing can
    /// have been committed.
    pub(super) fn may_resend(&self) -> bool {
        let untouched = |answer: &Rc<Answer>| {
            answer.received().rows == 0
                && (self.participation.is_some() || answer.access == Access::Read)
        };
        let found_dead = !self.queue.iter().any(|item| matches!(item, Item::Sync));
        self.proven
            && self.unanswered
            && !self.commits
            && self
                .outstanding()
                .all(|answer| untouched(answer) || found_dead)
    }

    pub(super) fn fail_outstanding(&mut self) {
        let Some(error) = self.lost.clone() else {
            return;
        };
        for answer in self.again.drain(..) {
            answer.fail(error.clone());
            answer.finish();
        }
        for item in self.queue.drain(..) {
            match item {
                Item::Query(answer) | Item::Simple(answer) => {
                    let place = remote_error::context(&self.node_name, &answer.statement.sql);
                    answer.fail(error.clone().context(place));
                    answer.finish();
                }
                Item::Command(_) => self.command_error = Some(error.clone()),
                Item::Prepare(_) | Item::Sync => {}
            }
        }
    }

    /// Ends a COPY FROM STDIN that nobody feeds any more, as a failure.
    pub fn fail_copy(&mut self) {
        if self.pg.put_copy_end(Some(c"the copy was abandoned")) != Flush::Sent {
            self.give_up("An abandoned copy could not be ended.");
        }
    }
}
