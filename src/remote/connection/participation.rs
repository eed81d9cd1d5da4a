//! The node's part in the transaction.

use super::send::guard;
use super::{Command, Connection};
use crate::error::{sqlstate, Error};
use pgrx::pg_sys;

impl Connection {
    /// The subtransaction is rolled back: tells the node, without waiting, when it has a savepoint for it.
    pub fn rollback_to(&mut self, subtransaction: pg_sys::SubTransactionId) {
        let Some(participation) = self.participation.as_mut() else {
            return;
        };
        let Some(at) = participation
            .savepoints
            .iter()
            .position(|id| *id == subtransaction)
        else {
            return;
        };
        participation.savepoints.truncate(at);
        participation.guarded = false;
        if participation.settings_before.is_some() {
            self.settings = None;
        }
        if self.lost.is_none() {
            let _ = self.enter_pipeline()
                && self.send_command(Command::plain(format!(
                    "ROLLBACK TO SAVEPOINT s{subtransaction}"
                )))
                && self.send_command(Command::plain(format!(
                    "RELEASE SAVEPOINT s{subtransaction}"
                )))
                && self.send_sync();
        }
    }

    /// Reads behind the guard were cancelled: goes on from there, without waiting.
    pub fn rollback_to_guard(&mut self) {
        if self
            .participation
            .as_ref()
            .is_some_and(|p| p.settings_before.is_some())
        {
            self.settings = None;
        }
        self.send_alone(concat!("ROLLBACK TO SAVEPOINT ", guard!()));
    }

    /// The node has tables that a statement under way reads, or (not `held`) has them no more.
    pub fn hold(&mut self, held: bool) {
        if let Some(participation) = self.participation.as_mut() {
            participation.holds = if held {
                participation.holds + 1
            } else {
                participation.holds.saturating_sub(1)
            };
        }
    }

    /// Asks the node to prepare its part.
    pub fn prepare(&mut self, gid: &str) {
        if let Some(participation) = self.participation.as_mut() {
            participation.prepared = Some(gid.into());
            self.send_alone(format!("PREPARE TRANSACTION '{gid}'"));
        }
    }

    /// The node has refused to prepare, and has rolled back.
    pub fn not_prepared(&mut self) {
        if let Some(participation) = self.participation.as_mut() {
            participation.prepared = None;
        }
    }

    /// The node's part has ended.
    pub fn end_participation(&mut self, committed: bool) {
        if let Some(participation) = self.participation.take() {
            if !committed {
                if let Some(before) = participation.settings_before {
                    self.settings = before;
                }
            }
        }
    }

    /// An error when the connection cannot serve the transaction any more.
    pub fn check_usable(&self) -> Result<(), Error> {
        match &self.lost {
            None => Ok(()),
            Some(error) => {
                let mut error = error.clone();
                if error.fields().hint.is_none() {
                    error = error.hint("Roll back and run the transaction again.");
                }
                Err(error)
            }
        }
    }

    /// An error when the node has aborted its transaction although ours goes on.
    pub fn check_not_aborted(&self) -> Result<(), Error> {
        if self.is_aborted() && self.queue.is_empty() {
            return Err(self.aborted_by.clone().unwrap_or_else(|| {
                let message = format!("the transaction on node \"{}\" has failed", self.node_name);
                Error::new(sqlstate::IN_FAILED_SQL_TRANSACTION, message)
            }));
        }
        Ok(())
    }
}
