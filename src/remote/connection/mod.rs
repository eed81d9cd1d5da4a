//! One connection: a queue of what was sent, in the order in which the node answers it.
//!
//! Outside COPY and multi-statement texts it is in pipeline mode. Several requests sent together form a segment that
//! ends with a Sync; the first error makes the node skip the rest of the segment. Nothing in this file waits: `advance`
//! goes as far as the input that has arrived allows. `pool`, `gather` and `quiet` do the waiting.
//!
//! `send`, `receive`, `loss` and `participation` are its methods by subject.

mod loss;
mod participation;
mod receive;
mod send;

use super::answer::Answer;
use super::libpq::{Flush, PgConn, RemoteState};
use super::prepared::Prepared;
use super::remote_error::{self, Notices};
use super::row::Row;
use super::session::Settings;
use super::sessions::{Connected, Published};
use super::wait::{FileSlot, Interest, WaitSet};
use crate::catalog::NodeId;
use crate::error::Error;
use pgrx::pg_sys;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::CString;
use std::rc::Rc;

/// Connections are owned by the pool; readers hold them too, and borrow them for one step at a time.
pub type Shared = Rc<RefCell<Connection>>;

/// What was sent and is not answered yet.
enum Item {
    Command(Command),
    Prepare(CString),
    Query(Rc<Answer>),
    Sync,
    /// A text of one or more statements, outside pipeline mode; it ends when the node is ready again.
    Simple(Rc<Answer>),
}

/// What the extension itself says to a node: no rows wanted.
enum Command {
    /// Gives the connection settings of the session.
    Settings(String),
    /// Opens a savepoint.
    Savepoint(Cow<'static, str>),
    /// BEGIN, ROLLBACK TO, COMMIT.
    Plain(Cow<'static, str>),
}

impl Command {
    fn plain(sql: impl Into<Cow<'static, str>>) -> Command {
        Command::Plain(sql.into())
    }

    fn sql(&self) -> &str {
        match self {
            Command::Settings(sql) => sql,
            Command::Savepoint(sql) | Command::Plain(sql) => sql,
        }
    }
}

/// How far `advance` came.
pub enum Step {
    /// The next row of a request.
    Row(Rc<Answer>, Row),
    /// A request has ended, one way or another.
    Ended,
    /// The node waits for COPY data.
    CopyIn,
    NeedsInput,
    /// Nothing is outstanding.
    Idle,
    /// The connection has gone, and all that was outstanding has failed.
    Lost,
    /// The connection went while idle, before the node saw anything: what is outstanding may be sent again over a
    /// new one.
    Resend,
}

/// The node's part of the transaction.
pub struct Participation {
    /// Savepoints open on the node, outermost first.
    savepoints: Vec<pg_sys::SubTransactionId>,
    pub wrote: bool,
    /// Tables there that statements under way still read: the transaction must go on.
    holds: usize,
    /// A savepoint is open in which nothing but reads ran: they may be cancelled.
    guarded: bool,
    /// The name under which the node has prepared, or may have prepared, its part.
    pub prepared: Option<Rc<str>>,
    /// Settings of the connection before the transaction changed them.
    settings_before: Option<Option<Settings>>,
}

pub struct Connection {
    pub node: NodeId,
    pub node_name: Rc<str>,
    pub user: pg_sys::Oid,
    // dropped in this order: the wait set before the socket it watches, the notices after their sender
    wait: Option<WaitSet>,
    pg: PgConn,
    notices: Rc<Notices>,
    _file: FileSlot,
    pub published: Published,
    queue: VecDeque<Item>,
    /// The statement under way is the extension's own: users want to hear its warnings, not its notices.
    muted: bool,
    in_pipeline: bool,
    /// COPY TO STDOUT runs; true once its header has been read.
    copying: Option<bool>,
    /// The last flush did not send everything.
    output_pending: bool,
    segment_error: Option<Error>,
    /// The error that made the node abort its transaction: none has succeeded since.
    aborted_by: Option<Error>,
    /// Requests that are sent after the segment under way: those for COPY, those that failed only because the node has
    /// lost or outgrown a prepared statement, and what was asked for after them.
    again: Vec<Rc<Answer>>,
    /// The last error of a command nobody waits for in particular.
    command_error: Option<Error>,
    /// Why the node could not commit what it was to commit by itself.
    autocommit_error: Option<Error>,
    lost: Option<Error>,
    /// A write is under way that the node commits by itself.
    commits: bool,
    participation: Option<Participation>,
    settings: Option<Settings>,
    /// The login has the name of the session user.
    own_name: bool,
    prepared: Prepared,
    /// The connection has answered before the flight now under way.
    proven: bool,
    /// Nothing of the flight now under way has been answered.
    unanswered: bool,
}

impl Participation {
    /// Would a ROLLBACK undo what the transaction still needs?
    pub fn is_needed(&self) -> bool {
        self.wrote || self.holds > 0
    }

    /// May what runs be cancelled, because only reads would be undone?
    pub fn is_guarded(&self) -> bool {
        self.guarded
    }
}

impl Connection {
    /// Takes over a connection that is just established.
    pub fn new(
        mut pg: PgConn,
        node: NodeId,
        node_name: Rc<str>,
        (user, own_name): (pg_sys::Oid, bool),
        file: FileSlot,
    ) -> Result<Connection, Error> {
        let notices = Rc::new(Notices::default());
        pg.set_notice_receiver(
            remote_error::receive_notice,
            Rc::as_ptr(&notices).cast_mut().cast(),
        );
        if !pg.set_nonblocking() || !pg.enter_pipeline() {
            return Err(remote_error::lost(&node_name, &pg.error_message()));
        }
        let published = Published::new(Connected {
            node,
            pid: pg.backend_pid(),
        });
        Ok(Connection {
            node,
            node_name,
            user,
            wait: None,
            pg,
            notices,
            _file: file,
            published,
            queue: VecDeque::new(),
            muted: false,
            in_pipeline: true,
            copying: None,
            output_pending: false,
            segment_error: None,
            aborted_by: None,
            again: Vec::new(),
            command_error: None,
            autocommit_error: None,
            lost: None,
            commits: false,
            participation: None,
            settings: None,
            own_name,
            prepared: Prepared::default(),
            proven: false,
            unanswered: true,
        })
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn lost(&self) -> Option<&Error> {
        self.lost.as_ref()
    }

    pub fn participation(&self) -> Option<&Participation> {
        self.participation.as_ref()
    }

    /// A text or COPY runs outside of pipeline mode: nothing can be sent before it has ended.
    pub fn is_occupied(&self) -> bool {
        !self.in_pipeline && !self.queue.is_empty() && self.lost.is_none()
    }

    /// Does the node still have to say that it has the savepoint in which the next request runs?
    pub fn is_opening_savepoint(&self) -> bool {
        self.queue
            .iter()
            .take_while(|item| !matches!(item, Item::Query(_) | Item::Simple(_)))
            .any(|item| matches!(item, Item::Command(Command::Savepoint(_))))
    }

    /// The node's view of the transaction, as of the last answer.
    pub fn is_in_transaction(&self) -> bool {
        matches!(
            self.pg.state(),
            RemoteState::InTransaction | RemoteState::Aborted | RemoteState::Active
        )
    }

    /// The node has aborted its transaction.
    pub fn is_aborted(&self) -> bool {
        self.pg.state() == RemoteState::Aborted
    }

    pub fn pg(&mut self) -> &mut PgConn {
        &mut self.pg
    }

    pub fn canceller(&self) -> Option<super::libpq::Canceller> {
        self.pg.canceller()
    }

    pub fn take_command_error(&mut self) -> Option<Error> {
        self.command_error.take()
    }

    pub fn take_autocommit_error(&mut self) -> Option<Error> {
        self.autocommit_error.take()
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> Flush {
        let flush = self.pg.flush();
        self.output_pending = flush == Flush::Pending;
        flush
    }

    /// What to wait for; sends more output first. Who was told that output is pending also wants to know that it is not
    /// any more, so the wait then ends at once.
    pub fn interest(&mut self) -> Interest {
        let was_pending = self.output_pending;
        let is_pending = self.flush() == Flush::Pending;
        Interest {
            socket: self.pg.socket(),
            write: was_pending || is_pending,
        }
    }

    /// The wait set over this connection alone, taken out for the time of the wait.
    pub fn take_wait_set(&mut self, interest: Interest) -> WaitSet {
        match self.wait.take() {
            Some(set) if set.covers(&[interest]) => set,
            _ => WaitSet::new(&[interest]),
        }
    }

    pub fn put_wait_set(&mut self, set: WaitSet) {
        self.wait = Some(set);
    }

    /// Reads what has arrived. A failure shows in `advance`.
    pub fn read(&mut self) {
        self.pg.consume_input();
    }

    pub fn take_notices(&self) -> Vec<(i32, Error)> {
        let mut notices = self.notices.take();
        if self.muted {
            notices.retain(|(level, _)| *level >= pgrx::PgLogLevel::WARNING as i32);
        }
        notices
    }

    pub fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    /// The answers outstanding, those that were sent before those that wait for their turn.
    pub fn outstanding(&self) -> impl Iterator<Item = &Rc<Answer>> {
        self.sent().chain(&self.again)
    }

    fn sent(&self) -> impl Iterator<Item = &Rc<Answer>> {
        self.queue.iter().filter_map(|item| match item {
            Item::Query(answer) | Item::Simple(answer) => Some(answer),
            _ => None,
        })
    }

    /// The answer that the node works on, if the next thing it answers is a request.
    pub fn running(&self) -> Option<&Rc<Answer>> {
        self.sent().next()
    }
}
