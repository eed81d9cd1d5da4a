//! The SQL functions: arguments checked, then one call into the folders below.

mod citus_nodes;
mod copies;
mod maintenance;
mod nodes;
mod sizes;
mod tables;

use crate::error::{sqlstate, Error, Result};

/// Turns the result of a folder into that of an SQL function.
fn answer<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| error.raise())
}

/// An argument that must not be NULL.
fn required<T>(argument: Option<T>, name: &str) -> Result<T> {
    argument.ok_or_else(|| {
        Error::new(
            sqlstate::NULL_VALUE_NOT_ALLOWED,
            format!("{name} must not be null"),
        )
    })
}
