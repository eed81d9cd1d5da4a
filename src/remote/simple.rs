//! Statements run to their end in one call: DDL, catalogs, small queries.

use crate::catalog::NodeId;
use crate::error::{Error, Result};

/// Runs `sql` (one or more statements) in the distributed transaction as a write; answers the affected rows of the
/// last statement.
pub fn execute(node: NodeId, sql: &str) -> Result<u64> {
    let answers = execute_all(&[(node, sql.to_string())])?;
    Ok(answers.first().copied().unwrap_or(0))
}

/// The same for many: in parallel over nodes, in order on each node. Answers are in the order of `work`.
pub fn execute_all(_work: &[(NodeId, String)]) -> Result<Vec<u64>> {
    Err(Error::internal("remote requests are not there yet"))
}

/// Reads a small result, all values as text, within the distributed transaction if the node is part of it.
pub fn query(
    _node: NodeId,
    _sql: &str,
    _params: &[Option<&str>],
) -> Result<Vec<Vec<Option<String>>>> {
    Err(Error::internal("remote requests are not there yet"))
}
