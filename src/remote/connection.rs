//! One connection: a queue of what was sent, in the order in which the node answers it.
//!
//! Outside COPY and multi-statement texts it is in pipeline mode. Several requests sent together form a segment that
//! ends with a Sync; the first error makes the node skip the rest of the segment. Nothing in this file waits: `advance`
//! goes as far as the input that has arrived allows. `pool`, `gather` and `quiet` do the waiting.

use super::answer::Answer;
use super::libpq::{Flush, PgConn, PgResult, RemoteState, ResultStatus, WireParams};
use super::prepared::{Lookup, Prepared};
use super::remote_error::{self, Notices};
use super::request::{Access, Format};
use super::scope;
use super::session::Settings;
use super::wait::{is_readable, FileSlot, Interest, WaitSet};
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
    /// BEGIN, SAVEPOINT, settings, COMMIT: no rows wanted.
    Command(Cow<'static, str>),
    Prepare(CString),
    Query(Rc<Answer>),
    Sync,
    /// A text of one or more statements, outside pipeline mode; it ends when the node is ready again.
    Simple(Rc<Answer>),
}

/// How far `advance` came.
pub enum Step {
    /// The next row of a request.
    Row(Rc<Answer>, PgResult),
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
    queue: VecDeque<Item>,
    /// The statement under way is the extension's own: users want to hear its warnings, not its notices.
    muted: bool,
    in_pipeline: bool,
    segment_error: Option<Error>,
    /// The last error of a command nobody waits for in particular.
    command_error: Option<Error>,
    lost: Option<Error>,
    participation: Option<Participation>,
    settings: Option<Settings>,
    prepared: Prepared,
    /// The connection has answered before the flight now under way.
    proven: bool,
    /// Nothing of the flight now under way has been answered.
    unanswered: bool,
}

thread_local! {
    static WIRE: RefCell<WireParams> = RefCell::default();
}

impl Connection {
    /// Takes over a connection that is just established.
    pub fn new(
        mut pg: PgConn,
        node: NodeId,
        node_name: Rc<str>,
        user: pg_sys::Oid,
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
        Ok(Connection {
            node,
            node_name,
            user,
            wait: None,
            pg,
            notices,
            _file: file,
            queue: VecDeque::new(),
            muted: false,
            in_pipeline: true,
            segment_error: None,
            command_error: None,
            lost: None,
            participation: None,
            settings: None,
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

    /// The node's view of the transaction, as of the last answer.
    pub fn is_in_transaction(&self) -> bool {
        matches!(
            self.pg.state(),
            RemoteState::InTransaction | RemoteState::Aborted | RemoteState::Active
        )
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

    /// Whether libpq still has output to send; tries once more.
    pub fn interest(&mut self) -> Interest {
        Interest {
            socket: self.pg.socket(),
            write: self.pg.flush() == Flush::Pending,
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

    /// The answers outstanding, oldest first.
    pub fn outstanding(&self) -> impl Iterator<Item = &Rc<Answer>> {
        self.queue.iter().filter_map(|item| match item {
            Item::Query(answer) | Item::Simple(answer) => Some(answer),
            _ => None,
        })
    }

    /// The answer that the node works on, if the next thing it answers is a request.
    pub fn running(&self) -> Option<&Rc<Answer>> {
        self.outstanding().next()
    }

    // ---- sending -----------------------------------------------------------------------------------------------

    /// Sends requests as one segment, with what must come before them. False: the connection is lost, see `advance`.
    pub fn send(&mut self, answers: &[Rc<Answer>]) -> bool {
        self.muted = false;
        self.begin_flight();
        let autocommit = self.participation.is_none() && answers.iter().all(|a| a.sole);
        let writes = answers.iter().any(|a| a.access == Access::Write);
        if autocommit && writes && self.proven && !self.still_there() {
            // an autocommitted write is never sent twice, so make sure that it is sent to someone
            self.queue
                .extend(answers.iter().map(|a| Item::Query(a.clone())));
            return false;
        }
        if self.participation.is_none() && !self.settings_are_current() {
            let sql = Settings::sql();
            self.settings = Some(Settings::current());
            if !(self.send_command(sql.into()) && self.send_sync()) {
                return self.sending_failed(answers);
            }
        }
        if !autocommit {
            for sql in self.transaction_prefix(writes) {
                if !self.send_command(sql) {
                    return self.sending_failed(answers);
                }
            }
        }
        for (i, answer) in answers.iter().enumerate() {
            let last = i + 1 == answers.len();
            if !self.send_query(answer) || !(last || self.pg.request_flush()) {
                return self.sending_failed(&answers[i + 1..]);
            }
        }
        self.send_sync()
    }

    /// Sends a text of one or more statements as part of the transaction. Only when idle.
    pub fn send_text(&mut self, answer: Rc<Answer>) -> bool {
        self.muted = true;
        self.begin_flight();
        let mut text = String::new();
        for sql in self.transaction_prefix(answer.access == Access::Write) {
            text.push_str(&sql);
            text.push_str(";\n");
        }
        text.push_str(&answer.statement.sql);
        self.queue.push_back(Item::Simple(answer));
        let sent = self.leave_pipeline() && self.pg.send_simple(&c_text(&text));
        if !sent {
            self.note_loss(None);
        }
        sent
    }

    /// Sends a command in a segment of its own, for instance COMMIT.
    pub fn send_alone(&mut self, sql: impl Into<Cow<'static, str>>) -> bool {
        self.enter_pipeline() && self.send_command(sql.into()) && self.send_sync()
    }

    fn begin_flight(&mut self) {
        if self.queue.is_empty() && self.participation.is_none() {
            self.unanswered = true;
        }
    }

    /// A dead connection that is idle shows as readable. One system call.
    fn still_there(&mut self) -> bool {
        // a last message may come before the end
        while self.queue.is_empty() && !self.pg.is_bad() && is_readable(self.pg.socket()) {
            self.pg.consume_input();
            self.pg.is_busy(); // parses notices
        }
        if self.pg.is_bad() {
            self.note_loss(None);
            return false;
        }
        true
    }

    fn sending_failed(&mut self, unsent: &[Rc<Answer>]) -> bool {
        self.queue
            .extend(unsent.iter().map(|a| Item::Query(a.clone())));
        self.note_loss(None);
        false
    }

    fn settings_are_current(&self) -> bool {
        self.settings.as_ref().is_some_and(Settings::is_current)
    }

    /// What makes the node's transaction equal to ours: BEGIN, savepoints, settings.
    fn transaction_prefix(&mut self, writes: bool) -> Vec<Cow<'static, str>> {
        let mut prefix = Vec::new();
        let current = self.settings_are_current();
        let participation = self.participation.get_or_insert_with(|| {
            prefix.push(scope::begin());
            Participation {
                savepoints: Vec::new(),
                wrote: false,
                prepared: None,
                settings_before: None,
            }
        });
        participation.wrote |= writes;
        scope::with_subtransactions(|open| {
            let same = open
                .iter()
                .zip(&participation.savepoints)
                .take_while(|(a, b)| a == b)
                .count();
            if let Some(committed) = participation.savepoints.get(same) {
                prefix.push(format!("RELEASE SAVEPOINT s{committed}").into());
                participation.savepoints.truncate(same);
            }
            for id in &open[same..] {
                prefix.push(format!("SAVEPOINT s{id}").into());
                participation.savepoints.push(*id);
            }
        });
        if !current {
            prefix.push(Settings::sql().into());
            participation
                .settings_before
                .get_or_insert_with(|| self.settings.take());
            self.settings = Some(Settings::current());
        }
        prefix
    }

    fn send_command(&mut self, sql: Cow<'static, str>) -> bool {
        let none = WireParams::default();
        let sent = self.pg.send_query(&c_text(&sql), &[], &none, false);
        self.queue.push_back(Item::Command(sql));
        if !sent {
            self.note_loss(None);
        }
        sent
    }

    fn send_query(&mut self, answer: &Rc<Answer>) -> bool {
        let statement = &answer.statement;
        let binary = statement.results == Format::Binary;
        let most = crate::settings::max_prepared_statements_per_connection();
        let sent = WIRE.with_borrow_mut(|wire| {
            wire.fill(&statement.params);
            if !statement.named || most == 0 {
                let types = parameter_types(&statement.params.types, statement.params.values.len());
                return self
                    .pg
                    .send_query(&c_text(&statement.sql), &types, wire, binary);
            }
            let found = self
                .prepared
                .find(&statement.sql, &statement.params.types, most as usize);
            let index = match found {
                Lookup::Known(index) => index,
                Lookup::New(index, forgotten) => {
                    if let Some(name) = forgotten {
                        let sql = format!("DEALLOCATE {}", name.to_string_lossy());
                        if !self.send_command(sql.into()) {
                            return false;
                        }
                    }
                    let name = self.prepared.name(index);
                    let types: Vec<u32> =
                        statement.params.types.iter().map(|t| t.to_u32()).collect();
                    let sent = self
                        .pg
                        .send_prepare(name, &c_text(&statement.sql), &types);
                    self.queue.push_back(Item::Prepare(name.to_owned()));
                    if !sent {
                        return false;
                    }
                    index
                }
            };
            let name = self.prepared.name(index);
            self.pg.send_prepared(name, wire, binary)
        });
        self.queue.push_back(Item::Query(answer.clone()));
        if !sent {
            self.note_loss(None);
        } else if self.queue.len() == 1 {
            self.pg.single_row();
        }
        sent
    }

    fn send_sync(&mut self) -> bool {
        let sent = self.pg.sync();
        self.queue.push_back(Item::Sync);
        if !sent {
            self.note_loss(None);
        }
        sent
    }

    fn leave_pipeline(&mut self) -> bool {
        if self.in_pipeline && self.pg.exit_pipeline() {
            self.in_pipeline = false;
        }
        !self.in_pipeline
    }

    fn enter_pipeline(&mut self) -> bool {
        if !self.in_pipeline && self.pg.enter_pipeline() {
            self.in_pipeline = true;
        }
        self.in_pipeline
    }

    // ---- receiving ---------------------------------------------------------------------------------------------

    /// Takes the next step that the input allows.
    pub fn advance(&mut self) -> Step {
        loop {
            if self.lost.is_some() {
                return self.after_loss();
            }
            if self.queue.is_empty() {
                return Step::Idle;
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
                    return Some(Step::Row(answer.clone(), result));
                }
            }
            ResultStatus::Rows | ResultStatus::Done => {
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
                self.arm();
            }
            ResultStatus::Skipped => {
                let error = self.segment_error.clone().unwrap_or_else(|| {
                    Error::internal("a node skipped a statement without saying why")
                });
                self.fail_front(error);
            }
            ResultStatus::Error => {
                if self.pg.is_bad() || remote_error::is_fatal(&result) {
                    self.note_loss(Some(&result));
                } else {
                    let error = self.explain(&result);
                    self.fail_front(error.clone());
                    self.segment_error.get_or_insert(error);
                }
            }
            ResultStatus::CopyIn => {
                self.unanswered = false;
                return Some(Step::CopyIn);
            }
            ResultStatus::CopyOther => {
                self.note_loss(None);
            }
        }
        None
    }

    /// The head of the queue has given all its results.
    fn end_of_item(&mut self) -> Option<Step> {
        let item = self.queue.pop_front();
        match item {
            Some(Item::Query(answer)) => {
                self.arm();
                answer.finish();
                Some(Step::Ended)
            }
            Some(Item::Simple(answer)) => {
                self.unanswered = false;
                self.proven = true;
                self.segment_error = None;
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
    fn arm(&mut self) {
        if let Some(Item::Query(_)) = self.queue.front() {
            self.pg.single_row();
        }
    }

    fn fail_front(&mut self, error: Error) {
        match self.queue.front() {
            Some(Item::Query(answer) | Item::Simple(answer)) => answer.fail(error),
            Some(Item::Prepare(name)) => self.prepared.forget(name),
            Some(Item::Command(_) | Item::Sync) => self.command_error = Some(error),
            None => {}
        }
    }

    /// A remote error with its place.
    fn explain(&self, result: &PgResult) -> Error {
        let following = self.queue.iter().find_map(|item| match item {
            Item::Query(answer) | Item::Simple(answer) => Some(&*answer.statement.sql),
            _ => None,
        });
        let sql = match (self.queue.front(), following) {
            (Some(Item::Command(sql)), _) => sql,
            (_, Some(sql)) => sql,
            _ => "",
        };
        remote_error::of_result(result).context(remote_error::context(&self.node_name, sql))
    }

    // ---- losing ------------------------------------------------------------------------------------------------

    fn note_loss(&mut self, result: Option<&PgResult>) {
        if self.lost.is_none() {
            let why = match result {
                Some(result) => remote_error::of_result(result).fields().message.clone(),
                None => self.pg.error_message(),
            };
            self.lost = Some(remote_error::lost(&self.node_name, &why));
        }
    }

    /// Gives the connection up, for instance because it did not answer in time. What is outstanding fails.
    pub fn give_up(&mut self, why: &str) {
        self.unanswered = false;
        if self.lost.is_none() {
            self.lost = Some(remote_error::lost(&self.node_name, why));
        }
        self.fail_outstanding();
    }

    fn after_loss(&mut self) -> Step {
        if self.queue.is_empty() {
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
    fn may_resend(&self) -> bool {
        let untouched = |answer: &Rc<Answer>| {
            answer.received().rows == 0
                && (self.participation.is_some() || answer.access == Access::Read)
        };
        let found_dead = !self.queue.iter().any(|item| matches!(item, Item::Sync));
        self.proven
            && self.unanswered
            && self
                .outstanding()
                .all(|answer| untouched(answer) || found_dead)
    }

    fn fail_outstanding(&mut self) {
        let Some(error) = self.lost.clone() else {
            return;
        };
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

    // ---- transaction -------------------------------------------------------------------------------------------

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
        if participation.settings_before.is_some() {
            self.settings = None;
        }
        if self.lost.is_none() {
            let _ = self.enter_pipeline()
                && self.send_command(format!("ROLLBACK TO SAVEPOINT s{subtransaction}").into())
                && self.send_command(format!("RELEASE SAVEPOINT s{subtransaction}").into())
                && self.send_sync();
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
        if self.pg.state() == RemoteState::Aborted && self.queue.is_empty() {
            return Err(Error::new(
                *b"25P02",
                format!("the transaction on node \"{}\" has failed", self.node_name),
            ));
        }
        Ok(())
    }
}

/// SQL as libpq wants it; a NUL byte cannot be in a text that the server has accepted.
fn c_text(sql: &str) -> CString {
    CString::new(sql).unwrap_or_else(|_| CString::from(c""))
}

/// libpq wants none or one type per parameter.
fn parameter_types(types: &[pg_sys::Oid], count: usize) -> Vec<u32> {
    if types.is_empty() {
        return Vec::new();
    }
    (0..count)
        .map(|i| types.get(i).map_or(0, |t| t.to_u32()))
        .collect()
}

