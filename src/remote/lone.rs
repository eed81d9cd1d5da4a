//! A connection outside of the session's transaction, for questions about a node and for recovery.

use super::libpq::{Flush, PgConn, PgResult, ResultStatus};
use super::options::ConnectOptions;
use super::pool;
use super::remote_error;
use super::wait::{FileSlot, Interest, WaitSet};
use crate::error::{sqlstate, Error, Result};
use std::ffi::CString;
use std::time::Instant;

/// Rows as text; `None` is NULL.
pub type TextRows = Vec<Vec<Option<String>>>;

/// Closed when dropped. Statements run one at a time, each in its own transaction.
pub struct LoneConnection {
    pg: PgConn,
    name: String,
    /// A statement has been sent, and its answer not read to the end.
    running: bool,
    _file: FileSlot,
}

impl Drop for LoneConnection {
    fn drop(&mut self) {
        // the session was interrupted while it waited: the node need not go on
        if self.running && std::thread::panicking() {
            if let Some(canceller) = self.pg.canceller() {
                canceller.cancel();
            }
        }
    }
}

impl LoneConnection {
    /// `name` is for errors only.
    pub fn open(options: &ConnectOptions, name: &str, limit: Instant) -> Result<LoneConnection> {
        let (pg, file) = pool::connect_alone(options, name, limit)?;
        Ok(LoneConnection {
            pg,
            name: name.to_string(),
            running: false,
            _file: file,
        })
    }

    /// Runs one statement. Serves interrupts while it waits. After an error that `limit` or the network caused, the
    /// connection is of no more use.
    pub fn query(&mut self, sql: &str, limit: Instant) -> Result<TextRows> {
        let text = CString::new(sql)
            .map_err(|_| Error::internal("a statement for a node contains a NUL byte"))?;
        if !self.pg.set_nonblocking() || !self.pg.send_simple(&text) {
            return Err(self.lost());
        }
        let mut rows = Vec::new();
        let mut failure = None;
        self.running = true;
        loop {
            if self.pg.is_busy() {
                self.wait(sql, limit)?;
                continue;
            }
            let Some(result) = self.pg.result() else {
                break;
            };
            match result.status() {
                ResultStatus::Error => failure = Some(self.explain(&result, sql)),
                _ => take_rows(&result, &mut rows),
            }
        }
        self.running = false;
        match failure {
            Some(error) => Err(error),
            None if self.pg.is_bad() => Err(self.lost()),
            None => Ok(rows),
        }
    }

    fn wait(&mut self, sql: &str, limit: Instant) -> Result<()> {
        let interest = Interest {
            socket: self.pg.socket(),
            write: self.pg.flush() == Flush::Pending,
        };
        let mut set = WaitSet::new(&[interest]);
        if !set.wait(&[interest], limit, |_| {}) {
            return Err(Error::new(
                sqlstate::CONNECTION_FAILURE,
                format!("node \"{}\" did not answer in time", self.name),
            )
            .context(remote_error::context(&self.name, sql)));
        }
        self.pg.consume_input();
        Ok(())
    }

    fn lost(&self) -> Error {
        remote_error::lost(&self.name, &self.pg.error_message())
    }

    fn explain(&self, result: &PgResult, sql: &str) -> Error {
        if self.pg.is_bad() || remote_error::is_fatal(result) {
            return self.lost();
        }
        remote_error::of_result(result).context(remote_error::context(&self.name, sql))
    }
}

fn take_rows(result: &PgResult, rows: &mut TextRows) {
    for row in 0..result.rows() {
        let values = (0..result.columns())
            .map(|column| {
                result
                    .value(row, column)
                    .map(|value| String::from_utf8_lossy(value).into_owned())
            })
            .collect();
        rows.push(values);
    }
}
