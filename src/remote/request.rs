//! What is asked of a node: a statement with its parameters, and how it touches data.

use crate::catalog::{NodeId, ShardGroupId};
use pgrx::pg_sys::Oid;
use std::rc::Rc;

/// The wire format of a parameter or of all result columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Binary,
}

/// Whether a statement may change or lock data: its node then takes part in two-phase commit.
/// `SELECT … FOR UPDATE` is a `Write`: its locks must survive until the end of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// Values for `$1…$n`. `types` may be shorter than `values`; a missing or invalid one is inferred by the node.
#[derive(Debug, Clone, Default)]
pub struct Params {
    pub types: Vec<Oid>,
    pub values: Vec<Option<Vec<u8>>>,
    /// One per value, or empty when all are text.
    pub formats: Vec<Format>,
}

impl Params {
    /// Adds a value in binary format.
    pub fn push(&mut self, type_oid: Oid, value: Vec<u8>) {
        self.types.push(type_oid);
        self.formats.push(Format::Binary);
        self.values.push(Some(value));
    }
}

/// One SQL statement (extended protocol: no `;`).
#[derive(Debug, Clone)]
pub struct Statement {
    /// Keep the same `Rc` from one execution to the next: a prepared statement is found by its address first.
    pub sql: Rc<str>,
    pub params: Rc<Params>,
    pub results: Format,
    /// Worth a named prepared statement on the connection.
    pub named: bool,
}

/// A statement for one node.
#[derive(Debug, Clone)]
pub struct Request {
    pub node: NodeId,
    /// Shard groups the statement touches; empty: any connection to the node will do.
    #[allow(dead_code)]
    // for a second connection to a node, which must know what the first has touched
    pub groups: Rc<[ShardGroupId]>,
    pub access: Access,
    pub statement: Statement,
    /// The statement of the user needs no transaction on the node: `transaction::may_autocommit` said yes, and
    /// either this is its only remote request, or all of its requests are reads. It then runs without BEGIN and
    /// COMMIT as long as the node has no part in the current transaction.
    pub sole: bool,
    /// Many rows are expected: they may come by COPY, which costs less per row.
    pub bulk: bool,
    /// Row-level security that has been applied here was that of other roles, the owners of views: the node must not
    /// apply its own to its login.
    pub as_others: bool,
}

/// What a request has received so far, for EXPLAIN ANALYZE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    pub rows: u64,
    /// Bytes of column values.
    pub bytes: u64,
}
