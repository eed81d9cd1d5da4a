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
        crate::settings::crash_point()
            .is_some_and(|value| value.split(':').next() == Some(self.name()))
    }

    /// The setting is the name of a place, alone (the process is killed, so that the server restarts), or with `:error`
    /// (an error is raised, where one may be) or `:sleep:<milliseconds>`.
    pub fn reached(self) -> Result<()> {
        let Some(value) = crate::settings::crash_point() else {
            return Ok(());
        };
        let mut words = value.split(':');
        if words.next() != Some(self.name()) {
            return Ok(());
        }
        match words.next() {
            Some("sleep") => {
                let time = words.next().and_then(|t| t.parse().ok()).unwrap_or(1000);
                std::thread::sleep(Duration::from_millis(time));
                Ok(())
            }
            Some("error") => Err(Error::new(
                sqlstate::INTERNAL_ERROR,
                format!("crash point {} was reached", self.name()),
            )),
            _ => {
                // SAFETY: this very process, which is what the setting asks for.
                unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
                Ok(())
            }
        }
    }
}
