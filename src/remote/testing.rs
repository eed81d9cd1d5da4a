//! SQL functions over this folder for tests; not part of a normal build (feature `pg_test`).

use super::*;
use crate::error::{Error, Result};
use pgrx::prelude::*;
use std::rc::Rc;

fn or_raise<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error: Error| error.raise())
}

fn request(node: i32, sql: &str, access: Access, sole: bool) -> Request {
    Request {
        node,
        groups: Rc::from([]),
        access,
        statement: Statement {
            sql: sql.into(),
            params: Rc::default(),
            results: Format::Text,
            named: true,
        },
        sole,
    }
}

/// First column of the rows of a statement.
#[pg_extern]
fn test_query(node: i32, sql: &str) -> SetOfIterator<'static, String> {
    let rows = or_raise(query(node, sql, &[]));
    SetOfIterator::new(rows.into_iter().map(|row| {
        row.into_iter()
            .map(|v| v.unwrap_or("NULL".into()))
            .collect::<Vec<_>>()
            .join(",")
    }))
}

#[pg_extern]
fn test_execute(node: i32, sql: &str) -> i64 {
    or_raise(execute(node, sql)) as i64
}

#[pg_extern]
fn test_execute_all(nodes: Vec<i32>, sql: Vec<String>) -> Vec<i64> {
    let work: Vec<_> = nodes.into_iter().zip(sql).collect();
    or_raise(execute_all(&work))
        .into_iter()
        .map(|n| n as i64)
        .collect()
}

/// Counts rows and bytes of one statement sent to several nodes.
#[pg_extern]
fn test_count(nodes: Vec<i32>, sql: &str, stop_after: default!(i64, -1)) -> String {
    let requests = nodes
        .iter()
        .map(|n| request(*n, sql, Access::Read, true))
        .collect();
    let mut gather = or_raise(Gather::start(requests));
    let (mut rows, mut bytes) = (0i64, 0usize);
    while let Some((_, row)) = or_raise(gather.next()) {
        rows += 1;
        for column in 0..row.len() {
            bytes += row.get(column).map_or(0, <[u8]>::len);
        }
        if rows == stop_after {
            break;
        }
    }
    format!("{rows} rows, {bytes} bytes")
}

/// Reads requests in the reverse order of sending, so that all but the last must be kept.
#[pg_extern]
fn test_backwards(nodes: Vec<i32>, sql: Vec<String>) -> Vec<String> {
    let requests = nodes
        .iter()
        .zip(&sql)
        .map(|(n, sql)| request(*n, sql, Access::Read, true))
        .collect();
    let mut gather = or_raise(Gather::start(requests));
    let mut answers = Vec::new();
    for i in (0..nodes.len()).rev() {
        let (mut rows, mut last) = (0, String::new());
        while let Some(row) = or_raise(gather.next_from(i)) {
            rows += 1;
            last = String::from_utf8_lossy(row.get(0).unwrap_or(b"NULL")).into_owned();
        }
        answers.push(format!(
            "{rows} rows, last {last}, affected {}",
            gather.affected(i)
        ));
    }
    answers
}

/// The same statement many times, one flight each.
#[pg_extern]
fn test_repeat(node: i32, sql: &str, times: i32) -> i64 {
    let statement = request(node, sql, Access::Read, true);
    let mut rows = 0;
    for _ in 0..times {
        let mut gather = or_raise(Gather::start(vec![statement.clone()]));
        while or_raise(gather.next()).is_some() {
            rows += 1;
        }
    }
    rows
}

/// A write in autocommit.
#[pg_extern]
fn test_autocommit_write(node: i32, sql: &str) -> i64 {
    let mut gather = or_raise(Gather::start(vec![request(node, sql, Access::Write, true)]));
    while or_raise(gather.next()).is_some() {}
    gather.affected(0) as i64
}

/// A write in the transaction.
#[pg_extern]
fn test_write(node: i32, sql: &str) -> i64 {
    let mut gather = or_raise(Gather::start(vec![request(
        node,
        sql,
        Access::Write,
        false,
    )]));
    while or_raise(gather.next()).is_some() {}
    gather.affected(0) as i64
}

/// Copies `rows` rows into table t(a int, b text) of each node, through several streams per node.
#[pg_extern]
fn test_copy(nodes: Vec<i32>, streams: i32, rows: i32, last: &str) -> Vec<i64> {
    let mut open = Vec::new();
    for node in &nodes {
        for _ in 0..streams {
            open.push(or_raise(CopyIn::start(
                *node,
                Rc::from([]),
                "COPY t FROM STDIN",
            )));
        }
    }
    let count = open.len();
    for i in 0..rows {
        or_raise(
            open[i as usize % count].write(format!("{i}\tthis is row number {i}\n").as_bytes()),
        );
    }
    or_raise(open[0].write(last.as_bytes()));
    open.into_iter()
        .map(|stream| or_raise(stream.finish()) as i64)
        .collect()
}
