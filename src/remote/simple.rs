//! Statements run to their end in one call: DDL, catalogs, small queries.

use super::abandoned;
use super::answer::{Answer, State};
use super::connection::{Shared, Step};
use super::gather::{report_notices, wait, Gather};
use super::pool;
use super::request::{Access, Format, Params, Request, Statement};
use crate::catalog::NodeId;
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::rc::Rc;

/// Runs `sql` (one or more statements) in the distributed transaction as a write; answers the affected rows of the
/// last statement.
pub fn execute(node: NodeId, sql: &str) -> Result<u64> {
    let answers = execute_all(&[(node, sql.to_string())])?;
    Ok(answers.first().copied().unwrap_or(0))
}

/// The work of one node, in order.
struct Line {
    connection: Shared,
    waiting: VecDeque<usize>,
    current: Option<(usize, Rc<Answer>)>,
}

/// The same for many: in parallel over nodes, in order on each node. Answers are in the order of `work`.
pub fn execute_all(work: &[(NodeId, String)]) -> Result<Vec<u64>> {
    execute_as(work, Access::Write)
}

/// The same for what leaves nothing behind when the statement has ended: the nodes' transactions need not be prepared
/// for it.
pub fn execute_for_statement(work: &[(NodeId, String)]) -> Result<()> {
    execute_as(work, Access::Read).map(drop)
}

fn execute_as(work: &[(NodeId, String)], access: Access) -> Result<Vec<u64>> {
    let nodes: Vec<NodeId> = work.iter().map(|(node, _)| *node).collect();
    abandoned::make_way()?;
    let connections = pool::acquire(&nodes)?;
    let mut lines: Vec<Line> = Vec::new();
    for (i, connection) in connections.into_iter().enumerate() {
        match lines
            .iter_mut()
            .find(|line| Rc::ptr_eq(&line.connection, &connection))
        {
            Some(line) => line.waiting.push_back(i),
            None => lines.push(Line {
                connection,
                waiting: VecDeque::from([i]),
                current: None,
            }),
        }
    }
    for line in &lines {
        drain(&line.connection)?;
        line.connection.borrow().check_not_aborted()?;
    }
    let mut affected = vec![0; work.len()];
    while !lines.is_empty() {
        let mut blocked = Vec::new();
        let mut i = 0;
        while i < lines.len() {
            if advance_line(&mut lines[i], work, access, &mut affected)? {
                blocked.push(lines[i].connection.clone());
                i += 1;
            } else {
                lines.swap_remove(i);
            }
        }
        if !blocked.is_empty() {
            wait(&blocked);
        }
    }
    Ok(affected)
}

/// True when the line needs input; false when it is done.
fn advance_line(
    line: &mut Line,
    work: &[(NodeId, String)],
    access: Access,
    affected: &mut [u64],
) -> Result<bool> {
    loop {
        let Some((index, answer)) = &line.current else {
            let Some(next) = line.waiting.pop_front() else {
                return Ok(false);
            };
            let answer = Answer::of_text(&work[next].1, access);
            line.connection.borrow_mut().send_text(answer.clone());
            line.current = Some((next, answer));
            continue;
        };
        // the guard lives for the step only: what follows may wait or raise
        let step = line.connection.borrow_mut().advance();
        match step {
            Step::NeedsInput => return Ok(true),
            Step::Resend => pool::resend(&line.connection)?,
            Step::Row(owner, row) => owner.keep_row(&row),
            Step::CopyIn => {
                return Err(Error::internal(
                    "COPY FROM STDIN was sent where a command was expected",
                ))
            }
            Step::Ended | Step::Idle | Step::Lost => {
                report_notices(&line.connection);
                match (answer.state(), answer.error()) {
                    (State::Running, _) if matches!(step, Step::Ended) => {}
                    (State::Running, _) => {
                        return Err(Error::internal("a remote command has got lost"))
                    }
                    (_, Some(error)) => return Err(error),
                    (_, None) => {
                        affected[*index] = answer.affected();
                        answer.forget_rows();
                        line.current = None;
                    }
                }
            }
        }
    }
}

/// Reads everything outstanding, keeping the rows of those who still want them.
pub(super) fn drain(connection: &Shared) -> Result<()> {
    loop {
        // the guard lives for the step only: what follows may wait or raise
        let step = connection.borrow_mut().advance();
        match step {
            Step::Idle => return Ok(()),
            Step::Lost => {
                return match connection.borrow().lost() {
                    Some(error) => Err(error.clone()),
                    None => Ok(()),
                }
            }
            Step::Row(owner, row) => {
                owner.keep_row(&row);
                pgrx::check_for_interrupts!();
            }
            Step::Ended => report_notices(connection),
            Step::NeedsInput => wait(std::slice::from_ref(connection)),
            Step::Resend => pool::resend(connection)?,
            Step::CopyIn => {
                return Err(Error::internal(
                    "a connection is needed while COPY runs on it",
                ))
            }
        }
    }
}

/// Reads a small result, all values as text, within the distributed transaction if the node is part of it.
pub fn query(node: NodeId, sql: &str, params: &[Option<&str>]) -> Result<Vec<Vec<Option<String>>>> {
    let values = params
        .iter()
        .map(|p| p.map(|text| text.as_bytes().to_vec()))
        .collect();
    let mut gather = Gather::start(vec![Request {
        node,
        groups: Rc::from([]),
        access: Access::Read,
        statement: Statement {
            sql: sql.into(),
            params: Rc::new(Params {
                types: Vec::new(),
                values,
                formats: Vec::new(),
            }),
            results: Format::Text,
            named: false,
        },
        sole: true,
        bulk: false,
        as_others: false,
    }])?;
    let mut rows = Vec::new();
    while let Some((_, row)) = gather.next()? {
        rows.push(
            (0..row.len())
                .map(|column| {
                    row.get(column)
                        .map(|value| String::from_utf8_lossy(value).into_owned())
                })
                .collect(),
        );
    }
    Ok(rows)
}

/// Appends an SQL string literal.
pub(super) fn push_literal(sql: &mut String, text: &str) {
    if text.contains('\\') {
        sql.push_str(" E");
    }
    sql.push('\'');
    for c in text.chars() {
        match c {
            '\'' => sql.push_str("''"),
            '\\' => sql.push_str("\\\\"),
            c => sql.push(c),
        }
    }
    sql.push('\'');
}
