//! Places in two-phase commit where a test can make the coordinator die, fail or wait: the setting
//! `shard_ext.crash_point`.

use crate::error::{sqlstate, Error, Result};
use std::time::Duration;

/// Where a transaction is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// Commit records are written, no node has prepared.
    BeforePrepare,
    /// All nodes have prepared, nothing is committed.
    AfterPrepare,
    /// Committed here, still prepared on all nodes.
    AfterLocalCommit,
    /// Committed here and on the first node, prepared on the others.
    AfterFirstCommitPrepared,
    /// The transaction is being rolled back, and prepared on nodes.
    BeforeRollbackPrepared,
}

impl CrashPoint {
    fn name(self) -> &'static str {
        match self {
            CrashPoint::BeforePrepare => "before_prepare",
            CrashPoint::AfterPrepare => "after_prepare",
            CrashPoint::AfterLocalCommit => "after_local_commit",
            CrashPoint::AfterFirstCommitPrepared => "after_first_commit_prepared",
            CrashPoint::BeforeRollbackPrepared => "before_rollback_prepared",
        }
    }

    /// Whether the setting names this place.
    pub fn is_set(self) -> bool {
        self.action().is_some()
    }

    /// What the setting, a list separated by commas, says after the name of this place.
    fn action(self) -> Option<String> {
        let setting = crate::settings::crash_point()?;
        let item = setting
            .split(',')
            .find(|item| item.trim().split(':').next() == Some(self.name()))?;
        Some(item.trim()[self.name().len()..].to_string())
    }

    /// The name of a place alone: the process is killed, so that the server restarts. With `:error`: an error is
    /// raised, where one may be. With `:sleep:<milliseconds>`: it waits.
    pub fn reached(self) -> Result<()> {
        let Some(action) = self.action() else {
            return Ok(());
        };
        if let Some(time) = action.strip_prefix(":sleep:") {
            std::thread::sleep(Duration::from_millis(time.parse().unwrap_or(1000)));
            return Ok(());
        }
        if action == ":error" {
            return Err(Error::new(
                sqlstate::INTERNAL_ERROR,
                format!("crash point {} was reached", self.name()),
            ));
        }
        // SAFETY: this very process, which is what the setting asks for.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        Ok(())
    }
}
