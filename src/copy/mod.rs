//! COPY of distributed and reference tables.
//!
//! In: a `CopyStmt` as the utility hook gets it. Out: the number of rows, or `None` when the statement
//! is PostgreSQL's own to run. What PostgreSQL refuses is refused with its own errors, before a byte is
//! read; errors in the data name the user's line, wherever they were found.
//!
//! FROM: `statement` checks what `DoCopy` checks, `input` reads rows with PostgreSQL's parser,
//! `distribute` buffers them by shard group and feeds the nodes' COPY, `replicate` feeds every copy of a
//! reference table. TO: `output` hands a query to PostgreSQL's own COPY.

mod columns;
mod distribute;
pub mod encode;
mod form;
mod input;
mod lines;
mod output;
mod replicate;
mod statement;
mod user_code;

pub use columns::PortableOutput;
pub use user_code::calls_user_code;

use crate::catalog::{self, TableKind};
use crate::deparse::quote_identifier;
use crate::error::Result;
use crate::pg::node;
use pgrx::pg_sys;
use std::ffi::c_char;

/// A COPY statement with what the utility hook knows about it.
pub struct CopyStatement {
    pub statement: *mut pg_sys::CopyStmt,
    pub query_string: *const c_char,
    pub query_environment: *mut pg_sys::QueryEnvironment,
    pub location: i32,
    pub length: i32,
}

/// Runs the COPY of a distributed table, or COPY FROM of a reference table, and answers the number of
/// rows; `None` for any other.
///
/// # Safety
/// The pointers are those of a utility statement that is being executed.
pub unsafe fn copy_statement(copy: &CopyStatement) -> Result<Option<u64>> {
    // SAFETY: as the caller promises.
    unsafe {
        let relation = (*copy.statement).relation;
        if relation.is_null() || !catalog::installed() {
            return Ok(None);
        }
        // Not locked yet: PostgreSQL or `statement::open` does that, and looks again.
        let relid = node::relation_named(relation);
        if relid == pg_sys::InvalidOid {
            return Ok(None);
        }
        let Some(table) = catalog::table(relid)? else {
            return Ok(None);
        };
        match (&table.kind, (*copy.statement).is_from) {
            (TableKind::Reference, false) => Ok(None),
            (TableKind::Distributed { .. }, false) => output::copy_to(copy, relid).map(Some),
            (_, true) => {
                let (rows, target) = match &table.kind {
                    TableKind::Distributed { key, colocation } => {
                        let target = statement::open(copy, pg_sys::RowExclusiveLock)?;
                        (distribute::copy_from(&target, *key, colocation)?, target)
                    }
                    TableKind::Reference => {
                        // All copies take writers in the same order.
                        let target = statement::open(copy, pg_sys::ShareRowExclusiveLock)?;
                        (replicate::copy_from(&target)?, target)
                    }
                };
                target.close();
                Ok(Some(rows))
            }
        }
    }
}

/// A table's name for a statement sent to a node.
fn qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(table))
}
