//! Sending: requests and commands, with what must come before them.

use super::{Command, Connection, Item, Participation};
use crate::remote::answer::Answer;
use crate::remote::libpq::WireParams;
use crate::remote::outcome;
use crate::remote::prepared::Lookup;
use crate::remote::request::{Access, Format};
use crate::remote::scope;
use crate::remote::session::Settings;
use crate::remote::wait::is_readable;
use pgrx::pg_sys;
use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::CString;
use std::rc::Rc;

/// The name of the savepoint before reads; those of subtransactions have numbers.
macro_rules! guard {
    () => {
        "s_read"
    };
}
pub(super) use guard;

thread_local! {
    static WIRE: RefCell<WireParams> = RefCell::default();
}

impl Connection {
    /// Sends requests as one segment, with what must come before them. False: the connection is lost, see `advance`.
    pub fn send(&mut self, answers: &[Rc<Answer>]) -> bool {
        if !self.again.is_empty() {
            // in the order in which they were asked for
            self.again.extend_from_slice(answers);
            return true;
        }
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
        let row_security = self.row_security(answers);
        let mut prefix = Vec::new();
        if !autocommit {
            prefix = self.transaction_prefix(writes, !writes, row_security);
            if !writes && answers.iter().any(|a| a.may_be_long()) {
                prefix.extend(self.guard());
            }
        } else if !self.settings_are_current(row_security) {
            prefix.push(self.follow_settings(row_security));
        }
        if let [answer] = answers {
            if answer.bulk && !writes && self.queue.is_empty() {
                return self.send_bulk(answer.clone(), prefix);
            }
        }
        // nothing may be cancelled before it is known that there is a way back
        let savepoint = prefix.iter().any(|c| matches!(c, Command::Savepoint(_)));
        for command in prefix {
            if !self.send_command(command) {
                return self.sending_failed(answers);
            }
        }
        if savepoint && !self.pg.request_flush() {
            return self.sending_failed(answers);
        }
        for (i, answer) in answers.iter().enumerate() {
            // rows are wanted before the next statement has ended; the ends of changes only together
            let flush = i + 1 < answers.len() && answer.access == Access::Read;
            if !self.send_query(answer) || (flush && !self.pg.request_flush()) {
                return self.sending_failed(&answers[i + 1..]);
            }
        }
        self.commits = autocommit && writes;
        if self.commits {
            outcome::awaited();
        }
        self.send_sync()
    }

    /// Sends a text of one or more statements as part of the transaction. Only when idle.
    pub fn send_text(&mut self, answer: Rc<Answer>) -> bool {
        self.muted = true;
        self.begin_flight();
        let mut text = String::new();
        let row_security = self.row_security(&[]);
        for command in self.transaction_prefix(answer.access == Access::Write, false, row_security)
        {
            text.push_str(command.sql());
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

    /// Sends a query as COPY. What must come before it goes by pipeline, so the query waits for its end.
    fn send_bulk(&mut self, answer: Rc<Answer>, prefix: Vec<Command>) -> bool {
        if prefix.is_empty() {
            return self.send_copy(answer);
        }
        self.again.push(answer);
        prefix.into_iter().all(|command| self.send_command(command)) && self.send_sync()
    }

    /// Sends a query as COPY TO STDOUT. Only when idle.
    fn send_copy(&mut self, answer: Rc<Answer>) -> bool {
        let format = match answer.statement.results {
            Format::Text => "text",
            Format::Binary => "binary",
        };
        let text = format!(
            "COPY ({}) TO STDOUT (FORMAT {format})",
            answer.statement.sql
        );
        self.queue.push_back(Item::Simple(answer));
        let sent = self.leave_pipeline() && self.pg.send_simple(&c_text(&text));
        if !sent {
            self.note_loss(None);
        }
        sent
    }

    /// Sends a command in a segment of its own, for instance COMMIT.
    pub fn send_alone(&mut self, sql: impl Into<Cow<'static, str>>) -> bool {
        self.enter_pipeline() && self.send_command(Command::plain(sql)) && self.send_sync()
    }

    pub(super) fn begin_flight(&mut self) {
        if self.queue.is_empty() && self.participation.is_none() {
            self.unanswered = true;
        }
    }

    /// A dead connection that is idle shows as readable. One system call.
    pub(super) fn still_there(&mut self) -> bool {
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

    fn settings_are_current(&self, row_security: bool) -> bool {
        self.settings
            .as_ref()
            .is_some_and(|settings| settings.is_current(row_security))
    }

    /// May the node apply its policies? Those that matter have been applied here. The node's filter nothing more when
    /// its login has the name of the role whose policies they are; otherwise an error is better than missing rows.
    fn row_security(&self, answers: &[Rc<Answer>]) -> bool {
        // SAFETY: reads variables.
        let same_role = unsafe { pg_sys::GetUserId() } == self.user;
        self.own_name && same_role && !answers.iter().any(|a| a.as_others)
    }

    /// The statement that gives the connection the session's settings; they count as given.
    fn follow_settings(&mut self, row_security: bool) -> Command {
        let settings = Settings::current(row_security);
        let sql = settings.sql(self.settings.as_ref());
        self.settings = Some(settings);
        Command::Settings(sql)
    }

    /// What makes the node's transaction equal to ours: BEGIN, savepoints, settings. `reads`: what follows only reads, so
    /// it may run behind a guard that is there.
    pub(super) fn transaction_prefix(
        &mut self,
        writes: bool,
        reads: bool,
        row_security: bool,
    ) -> Vec<Command> {
        let mut prefix = Vec::new();
        let current = self.settings_are_current(row_security);
        let participation = self.participation.get_or_insert_with(|| {
            prefix.push(Command::Plain(scope::begin()));
            Participation {
                savepoints: Vec::new(),
                wrote: false,
                holds: 0,
                guarded: false,
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
            let same_savepoints = same == open.len() && same == participation.savepoints.len();
            if participation.guarded && !(reads && same_savepoints) {
                participation.guarded = false;
                prefix.push(Command::plain(concat!("RELEASE SAVEPOINT ", guard!())));
            }
            if let Some(committed) = participation.savepoints.get(same) {
                prefix.push(Command::plain(format!("RELEASE SAVEPOINT s{committed}")));
                participation.savepoints.truncate(same);
            }
            for id in &open[same..] {
                prefix.push(Command::Savepoint(format!("SAVEPOINT s{id}").into()));
                participation.savepoints.push(*id);
            }
        });
        if !current {
            participation
                .settings_before
                .get_or_insert_with(|| self.settings.clone());
            prefix.push(self.follow_settings(row_security));
        }
        prefix
    }

    /// A savepoint before reads that someone may stop reading, where the transaction on the node must survive that.
    fn guard(&mut self) -> Option<Command> {
        let participation = self.participation.as_mut()?;
        let must_survive = participation.is_needed() || !scope::has_snapshot_per_statement();
        if participation.guarded || !must_survive {
            return None;
        }
        participation.guarded = true;
        Some(Command::Savepoint(concat!("SAVEPOINT ", guard!()).into()))
    }

    pub(super) fn send_command(&mut self, command: Command) -> bool {
        let none = WireParams::default();
        let sent = self
            .pg
            .send_query(&c_text(command.sql()), &[], &none, false);
        self.queue.push_back(Item::Command(command));
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
                        if !self.send_command(Command::plain(sql)) {
                            return false;
                        }
                    }
                    let name = self.prepared.name(index);
                    let types: Vec<u32> =
                        statement.params.types.iter().map(|t| t.to_u32()).collect();
                    let sent = self.pg.send_prepare(name, &c_text(&statement.sql), &types);
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

    pub(super) fn send_sync(&mut self) -> bool {
        let sent = self.pg.sync();
        self.queue.push_back(Item::Sync);
        if !sent {
            self.note_loss(None);
        }
        sent
    }

    pub(super) fn leave_pipeline(&mut self) -> bool {
        if self.in_pipeline && self.pg.exit_pipeline() {
            self.in_pipeline = false;
        }
        !self.in_pipeline
    }

    pub(super) fn enter_pipeline(&mut self) -> bool {
        if !self.in_pipeline && self.pg.enter_pipeline() {
            self.in_pipeline = true;
        }
        self.in_pipeline
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
