//! The life of one request: waiting, its rows that were read before anyone asked, and how it ended.

use super::libpq::PgResult;
use super::request::{Access, Received, Request, Statement};
use super::row::RowStore;
use crate::catalog::NodeId;
use crate::error::Error;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Running,
    Done,
    Failed,
}

/// What the answers of one `Gather` have in common.
#[derive(Default)]
pub struct Progress {
    /// Answers that are still running.
    pub running: Cell<usize>,
    /// Rows in the stores of all answers.
    pub stored: Cell<usize>,
    pub failed: Cell<bool>,
    /// Nobody reads the answers any more.
    pub abandoned: Cell<bool>,
    /// Whether the bytes of values are counted.
    pub measured: Cell<bool>,
}

/// Owned by the connection while it runs and by the `Gather` that reads it.
pub struct Answer {
    pub statement: Statement,
    pub access: Access,
    pub sole: bool,
    /// A text of one or more statements, for the simple protocol.
    pub text: bool,
    /// Many rows are expected: COPY may bring them.
    pub bulk: bool,
    /// See `Request`.
    pub as_others: bool,
    /// It reads several shard groups.
    several_groups: bool,
    /// Its place among the requests of its `Gather`.
    pub index: usize,
    pub progress: Rc<Progress>,
    /// The subtransaction that asked.
    pub subtransaction: pg_sys::SubTransactionId,
    /// It was sent again because of a stale prepared statement.
    pub retried: Cell<bool>,
    state: Cell<State>,
    error: RefCell<Option<Error>>,
    store: RefCell<RowStore>,
    affected: Cell<u64>,
    received: Cell<Received>,
}

impl Answer {
    pub fn new(request: Request, index: usize, progress: &Rc<Progress>) -> Rc<Answer> {
        Answer::make(request, false, index, progress)
    }

    /// For a text of one or more statements.
    pub fn of_text(sql: &str, access: Access) -> Rc<Answer> {
        let request = Request {
            node: NodeId::default(),
            groups: Rc::new([]),
            access,
            statement: Statement {
                sql: sql.into(),
                params: Rc::default(),
                results: super::Format::Text,
                named: false,
            },
            sole: false,
            bulk: false,
            as_others: false,
        };
        Answer::make(request, true, 0, &Rc::default())
    }

    fn make(request: Request, text: bool, index: usize, progress: &Rc<Progress>) -> Rc<Answer> {
        progress.running.set(progress.running.get() + 1);
        Rc::new(Answer {
            statement: request.statement,
            access: request.access,
            sole: request.sole,
            text,
            bulk: request.bulk,
            as_others: request.as_others,
            several_groups: request.groups.len() > 1,
            index,
            progress: progress.clone(),
            // SAFETY: reads a number.
            subtransaction: unsafe { pg_sys::GetCurrentSubTransactionId() },
            retried: Cell::new(false),
            state: Cell::new(State::Running),
            error: RefCell::new(None),
            store: RefCell::default(),
            affected: Cell::new(0),
            received: Cell::default(),
        })
    }

    pub fn state(&self) -> State {
        self.state.get()
    }

    /// Asked while it is sent: is it a part of a statement over several shard groups, which may have much to do when its
    /// reader has had enough?
    pub fn may_be_long(&self) -> bool {
        self.several_groups || self.progress.running.get() > 1
    }

    pub fn affected(&self) -> u64 {
        self.affected.get()
    }

    pub fn set_affected(&self, rows: u64) {
        self.affected.set(rows);
    }

    pub fn received(&self) -> Received {
        self.received.get()
    }

    /// Counts row `row` of `result`.
    pub fn count(&self, result: &PgResult, row: usize) {
        let mut received = self.received.get();
        received.rows += 1;
        if self.progress.measured.get() {
            let values = (0..result.columns()).filter_map(|column| result.value(row, column));
            received.bytes += values.map(|v| v.len() as u64).sum::<u64>();
        }
        self.received.set(received);
    }

    /// Counts a row of COPY.
    pub fn count_row(&self, row: &super::Row) {
        let mut received = self.received.get();
        received.rows += 1;
        if self.progress.measured.get() {
            received.bytes += row.size();
        }
        self.received.set(received);
    }

    /// Keeps a row that was handed out for another request.
    pub fn keep_row(&self, row: &super::Row) {
        if !self.progress.abandoned.get() {
            self.store.borrow_mut().push_row(row);
            self.progress.stored.set(self.progress.stored.get() + 1);
        }
    }

    /// Keeps a row until someone asks for it, unless nobody will.
    pub fn keep(&self, result: &PgResult, row: usize) {
        if !self.progress.abandoned.get() {
            self.store.borrow_mut().push(result, row);
            self.progress.stored.set(self.progress.stored.get() + 1);
        }
    }

    /// The next kept row.
    pub fn kept(&self, into: &mut super::Row) -> bool {
        let popped = self.store.borrow_mut().pop(into);
        if popped {
            self.progress.stored.set(self.progress.stored.get() - 1);
        }
        popped
    }

    /// The first error counts.
    pub fn fail(&self, error: Error) {
        let mut slot = self.error.borrow_mut();
        if slot.is_none() {
            *slot = Some(error);
        }
    }

    /// No more rows will come.
    pub fn finish(&self) {
        if self.state.get() != State::Running {
            return;
        }
        let failed = self.error.borrow().is_some();
        self.state
            .set(if failed { State::Failed } else { State::Done });
        if failed {
            self.progress.failed.set(true);
        }
        self.progress.running.set(self.progress.running.get() - 1);
        if self.progress.abandoned.get() {
            self.forget_rows();
        }
    }

    pub fn forget_rows(&self) {
        if let Ok(mut store) = self.store.try_borrow_mut() {
            store.clear();
        }
    }

    /// Why it failed.
    pub fn error(&self) -> Option<Error> {
        self.error.borrow().clone()
    }
}
