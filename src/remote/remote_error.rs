//! Errors and notices of nodes, turned into the extension's `Error` with every field they came with; the schemas of
//! shards are named in the context only.

use super::libpq::{error_field, field, PgResult};
use crate::catalog;
use crate::error::{sqlstate, Error, Fields};
use crate::pg::privileges::may_see_values;
use pq_sys as pq;
use std::cell::RefCell;
use std::ffi::c_void;

/// Remote SQL in a context line is cut here.
const SHOWN_SQL: usize = 2000;

fn fill(error: &mut Error, get: impl Fn(u8) -> Option<String>) {
    let fields = error.fields_mut();
    let users = |text: Option<String>| text.map(|text| catalog::with_users_schemas(&text));
    fields.message = catalog::with_users_schemas(&fields.message);
    fields.detail = users(get(field::DETAIL));
    fields.hint = users(get(field::HINT));
    fields.context = get(field::CONTEXT);
    fields.schema =
        get(field::SCHEMA).map(|schema| catalog::users_schema(&schema).unwrap_or(schema));
    fields.table = get(field::TABLE);
    fields.column = get(field::COLUMN);
    fields.datatype = get(field::DATATYPE);
    fields.constraint = get(field::CONSTRAINT);
}

fn sqlstate_of(text: Option<String>) -> Option<sqlstate::SqlState> {
    text.and_then(|t| <[u8; 5]>::try_from(t.as_bytes()).ok())
}

/// The error that a result carries, without the context of node and SQL.
pub fn of_result(result: &PgResult) -> Error {
    match result.error_field(field::MESSAGE) {
        Some(message) => {
            let state = sqlstate_of(result.error_field(field::SQLSTATE))
                .unwrap_or(sqlstate::INTERNAL_ERROR);
            let mut error = Error::new(state, message);
            fill(&mut error, |code| result.error_field(code));
            if !shows_readable(error.fields()) {
                error.fields_mut().detail = None;
            }
            if state == sqlstate::INSUFFICIENT_PRIVILEGE && error.fields().hint.is_none() {
                match result.error_field(field::ROUTINE).as_deref() {
                    // row_security is off where policies of the node could differ from those applied here
                    Some("check_enable_rls") => {
                        error = error.hint(
                            "Let the user mapping log in at the node as the owner of the shards or a role with BYPASSRLS.",
                        );
                    }
                    // privileges have been checked here
                    Some("aclcheck_error") => {
                        error = error.hint(
                            "The login at the node lacks the privilege: let the user mapping log in as the owner of the shards, or grant it there.",
                        );
                    }
                    _ => {}
                }
            }
            error
        }
        // made by libpq itself
        None => Error::new(sqlstate::CONNECTION_FAILURE, result.error_message()),
    }
}

/// The login at the node may read more than the user: does a violated constraint show what this one may see?
fn shows_readable(fields: &Fields) -> bool {
    match (&fields.schema, &fields.table) {
        (Some(schema), Some(table)) if fields.detail.is_some() => {
            may_see_values(schema, table, fields.constraint.as_deref())
        }
        _ => true,
    }
}

/// Whether the node ends the connection with this error.
pub fn is_fatal(result: &PgResult) -> bool {
    matches!(
        result.error_field(field::SEVERITY).as_deref(),
        Some("FATAL" | "PANIC")
    )
}

/// The context line that tells where an error happened.
pub fn context(node: &str, sql: &str) -> String {
    let mut shown = sql.trim();
    let mut dots = "";
    if shown.len() > SHOWN_SQL {
        let end = (0..=SHOWN_SQL)
            .rev()
            .find(|i| shown.is_char_boundary(*i))
            .unwrap_or(0);
        shown = &shown[..end];
        dots = " …";
    }
    format!("node \"{node}\", remote SQL: {shown}{dots}")
}

/// An error for a connection that has gone.
pub fn lost(node: &str, why: &str) -> Error {
    let error = Error::new(
        sqlstate::CONNECTION_FAILURE,
        format!("connection to node \"{node}\" was lost"),
    );
    if why.is_empty() {
        error
    } else {
        error.detail(why)
    }
}

/// Notices that wait until it is safe to report them.
#[derive(Default)]
pub struct Notices(RefCell<Vec<(i32, Error)>>);

impl Notices {
    /// More than this at once are dropped.
    const MOST: usize = 1000;

    pub fn take(&self) -> Vec<(i32, Error)> {
        match self.0.try_borrow_mut() {
            Ok(mut list) if !list.is_empty() => std::mem::take(&mut *list),
            _ => Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.try_borrow().map_or(true, |list| list.is_empty())
    }
}

/// libpq's notice receiver; `arg` is a `Notices`.
///
/// # Safety
/// Called by libpq with the argument it was given and a valid result.
pub unsafe extern "C" fn receive_notice(arg: *mut c_void, result: *const pq::PGresult) {
    let notices = &*arg.cast::<Notices>();
    let Ok(mut list) = notices.0.try_borrow_mut() else {
        return;
    };
    if list.len() >= Notices::MOST {
        return;
    }
    let get = |code| error_field(result, code);
    let level = match get(field::SEVERITY).as_deref() {
        Some("WARNING") => pgrx::PgLogLevel::WARNING as i32,
        Some("NOTICE") => pgrx::PgLogLevel::NOTICE as i32,
        Some("INFO") => pgrx::PgLogLevel::INFO as i32,
        // LOG and DEBUG are the node's own affair; an error while idle shows when the connection is next used
        _ => return,
    };
    let Some(message) = get(field::MESSAGE) else {
        return;
    };
    let state = sqlstate_of(get(field::SQLSTATE)).unwrap_or(*b"00000");
    let mut notice = Error::new(state, message);
    fill(&mut notice, get);
    list.push((level, notice));
}
