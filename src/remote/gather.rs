//! Rows of several requests, in whatever order they come or request by request.
//!
//! Requests to one node share its connection and are answered one after the other. Whoever needs a row drives the
//! connection; rows of others that come first are kept in their stores. Nothing is read ahead of need otherwise, so a
//! node that produces faster than its reader consumes is stopped by its full socket.

use super::abandoned;
use super::answer::{Answer, Progress, State};
use super::connection::{Shared, Step};
use super::outcome;
use super::pool::{self, Use};
use super::request::{Received, Request};
use super::row::Row;
use super::simple::drain;
use super::wait::{Interest, WaitSet};
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::rc::Rc;

/// Requests under way. Dropping it abandons what is unread: the nodes are told to stop, later and without an error.
pub struct Gather {
    answers: Vec<Rc<Answer>>,
    /// The connection of each request.
    connections: Vec<Shared>,
    /// Connections that may still bring rows, each once.
    open: Vec<Shared>,
    /// The place in `open` to look first.
    turn: usize,
    progress: Rc<Progress>,
    row: Row,
}

impl Gather {
    /// Sends the requests; does not wait for answers (but for connections to be established).
    pub fn start(requests: Vec<Request>) -> Result<Gather> {
        Gather::start_for(requests, Use::Transaction)
    }

    /// The same over the connections of another use.
    pub fn start_for(requests: Vec<Request>, wanted: Use) -> Result<Gather> {
        let nodes: Vec<_> = requests.iter().map(|r| r.node).collect();
        abandoned::make_way()?;
        let connections = pool::acquire_for(&nodes, wanted)?;
        let progress = Rc::new(Progress::default());
        let answers: Vec<Rc<Answer>> = requests
            .into_iter()
            .enumerate()
            .map(|(index, request)| Answer::new(request, index, &progress))
            .collect();
        let mut gather = Gather {
            answers,
            connections,
            open: Vec::new(),
            turn: 0,
            progress,
            row: Row::none(),
        };
        gather.send()?;
        Ok(gather)
    }

    /// Sends to each connection its requests as one segment.
    fn send(&mut self) -> Result<()> {
        for connection in &self.connections {
            let occupied = connection.borrow().is_occupied();
            if occupied {
                drain(connection)?;
            }
        }
        if let [connection] = self.connections.as_slice() {
            connection.borrow().check_not_aborted()?;
            connection.borrow_mut().send(&self.answers);
            self.open.push(connection.clone());
            return Ok(());
        }
        let mut segment = Vec::new();
        for (i, connection) in self.connections.iter().enumerate() {
            let same = |other: &Shared| Rc::ptr_eq(other, connection);
            if self.connections[..i].iter().any(same) {
                continue;
            }
            connection.borrow().check_not_aborted()?;
            segment.clear();
            segment.extend(
                (i..self.answers.len())
                    .filter(|j| same(&self.connections[*j]))
                    .map(|j| self.answers[j].clone()),
            );
            // a failure shows when the connection is driven
            connection.borrow_mut().send(&segment);
            self.open.push(connection.clone());
        }
        Ok(())
    }

    /// Counts the bytes of values too, from now on; see `received`.
    pub fn measure_bytes(&mut self) {
        self.progress.measured.set(true);
    }

    /// The next row of any request, with the index of the request. `None`: all are done.
    pub fn next(&mut self) -> Result<Option<(usize, &Row)>> {
        Ok(self.advance()?.map(|index| (index, &self.row)))
    }

    /// Goes on to the next row of any request: `row` has it. Answers the index of the request; `None`: all are done.
    pub fn advance(&mut self) -> Result<Option<usize>> {
        loop {
            if self.progress.stored.get() > 0 {
                for index in 0..self.answers.len() {
                    if self.answers[index].kept(&mut self.row) {
                        return Ok(Some(index));
                    }
                }
            }
            if let Some(index) = self.step()? {
                return Ok(Some(index));
            }
            if self.progress.running.get() == 0 && self.progress.stored.get() == 0 {
                self.check_failed()?;
                return Ok(None);
            }
        }
    }

    /// The row that `advance` went to.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// One round over the open connections: takes the first row of ours that has arrived into `self.row`, or waits.
    fn step(&mut self) -> Result<Option<usize>> {
        let mut place = 0;
        while place < self.open.len() {
            let at = (self.turn + place) % self.open.len();
            let connection = &self.open[at];
            // the guard lives for the step only: what follows may wait or raise
            let step = connection.borrow_mut().advance();
            match step {
                Step::Row(answer, row) => {
                    if Rc::ptr_eq(&answer.progress, &self.progress) {
                        self.turn = at;
                        self.row = row;
                        return Ok(Some(answer.index));
                    }
                    answer.keep_row(&row);
                }
                Step::Ended => {
                    if self.progress.failed.get() {
                        self.check_failed()?;
                    }
                    if self.progress.running.get() == 0 {
                        // leaves the Sync that follows unread when it is not here yet
                        let connection = connection.clone();
                        connection.borrow_mut().settle();
                        report_notices(&connection);
                        return Ok(None);
                    }
                }
                Step::NeedsInput => {
                    place += 1;
                    continue;
                }
                Step::Idle | Step::Lost => {
                    self.open.swap_remove(at);
                    self.check_failed()?;
                    continue;
                }
                Step::Resend => pool::resend(&connection.clone())?,
                // a COPY of someone else's, who was given the connection after its answers to us were read
                Step::CopyIn => {
                    place += 1;
                    continue;
                }
            }
            if self.progress.stored.get() > 0 {
                return Ok(None);
            }
        }
        if self.progress.running.get() > 0 {
            if self.open.is_empty() {
                return Err(Error::internal("a remote request has got lost"));
            }
            self.turn = (self.turn + 1) % self.open.len();
            wait(&self.open);
        }
        Ok(None)
    }

    /// The next row of one request. `None`: it is done.
    pub fn next_from(&mut self, request: usize) -> Result<Option<&Row>> {
        let answer = self.answers[request].clone();
        let connection = self.connections[request].clone();
        loop {
            if answer.kept(&mut self.row) {
                return Ok(Some(&self.row));
            }
            if answer.state() != State::Running {
                return match answer.error() {
                    Some(error) => Err(outcome::failed(error)),
                    None => Ok(None),
                };
            }
            // the guard lives for the step only: what follows may wait or raise
            let step = connection.borrow_mut().advance();
            match step {
                Step::Row(owner, row) => {
                    if Rc::ptr_eq(&owner, &answer) {
                        self.row = row;
                        return Ok(Some(&self.row));
                    }
                    owner.keep_row(&row);
                    pgrx::check_for_interrupts!();
                }
                Step::Ended => report_notices(&connection),
                Step::NeedsInput => wait(std::slice::from_ref(&connection)),
                Step::Resend => pool::resend(&connection)?,
                Step::Idle | Step::Lost => {
                    if answer.state() == State::Running {
                        return Err(Error::internal("a remote request has got lost"));
                    }
                }
                Step::CopyIn => {
                    return Err(Error::internal(
                        "COPY FROM STDIN was sent where a query was expected",
                    ))
                }
            }
        }
    }

    fn check_failed(&self) -> Result<()> {
        if !self.progress.failed.get() {
            return Ok(());
        }
        match self.answers.iter().find_map(|a| a.error()) {
            Some(error) => Err(outcome::failed(error)),
            None => Ok(()),
        }
    }

    /// Rows that the statement changed or returned, by its command tag; 0 before it is done.
    pub fn affected(&self, request: usize) -> u64 {
        self.answers[request].affected()
    }

    /// Rows and bytes received so far, per request. Bytes only after `measure_bytes`.
    pub fn received(&self, request: usize) -> Received {
        self.answers[request].received()
    }
}

impl Drop for Gather {
    fn drop(&mut self) {
        self.progress.abandoned.set(true);
        for answer in &self.answers {
            answer.forget_rows();
        }
    }
}

/// Reports the notices that have arrived. No connection may be borrowed: reporting may raise.
pub fn report_notices(connection: &Shared) {
    if connection.borrow().has_notices() {
        let notices = connection.borrow().take_notices();
        for (level, notice) in notices {
            notice.report(level);
        }
    }
}

thread_local! {
    /// The wait set of the last wait for several connections.
    static SEVERAL: RefCell<Option<WaitSet>> = const { RefCell::new(None) };
}

/// To be called before or right after sockets are closed.
pub fn forget_wait_set() {
    SEVERAL.with(|kept| {
        if let Ok(mut kept) = kept.try_borrow_mut() {
            *kept = None;
        }
    });
}

/// Waits until one of the connections has input, or could send more, and reads it. Serves interrupts, so it may raise.
pub fn wait(connections: &[Shared]) {
    for connection in connections {
        report_notices(connection);
    }
    if let [connection] = connections {
        let (mut set, interest) = {
            let mut connection = connection.borrow_mut();
            let interest = connection.interest();
            if is_closed(interest) {
                return;
            }
            (connection.take_wait_set(interest), interest)
        };
        set.wait_for_answers(&[interest], connections, |_| {});
        let mut connection = connection.borrow_mut();
        connection.put_wait_set(set);
        connection.read();
        return;
    }
    let interests: Vec<Interest> = connections
        .iter()
        .map(|c| c.borrow_mut().interest())
        .collect();
    if interests.iter().copied().any(is_closed) {
        return;
    }
    let kept = SEVERAL.take();
    let mut set = match kept {
        Some(set) if set.covers(&interests) => set,
        _ => WaitSet::new(&interests),
    };
    set.wait_for_answers(&interests, connections, |i| {
        connections[i].borrow_mut().read()
    });
    SEVERAL.set(Some(set));
}

/// Has libpq closed the socket? It may notice the end of a connection while it sends; the connection's next step tells.
fn is_closed(interest: Interest) -> bool {
    let closed = interest.socket < 0;
    if closed {
        pgrx::check_for_interrupts!();
    }
    closed
}
