//! Rows of several requests, in whatever order they come or request by request.

use super::request::{Received, Request};
use super::row::Row;
use crate::error::{Error, Result};

/// Requests under way. Dropping it abandons what is unread: the nodes are told to stop, later and without an error.
pub struct Gather {}

impl Gather {
    /// Sends the requests; does not wait for answers.
    pub fn start(_requests: Vec<Request>) -> Result<Gather> {
        Err(Error::internal("remote requests are not there yet"))
    }

    /// The next row of any request, with the index of the request. `None`: all are done.
    pub fn next(&mut self) -> Result<Option<(usize, &Row)>> {
        Ok(None)
    }

    /// The next row of one request. `None`: it is done.
    pub fn next_from(&mut self, _request: usize) -> Result<Option<&Row>> {
        Ok(None)
    }

    /// Rows that the statement changed or returned, by its command tag; 0 before it is done.
    pub fn affected(&self, _request: usize) -> u64 {
        0
    }

    /// Rows and bytes received so far, per request.
    pub fn received(&self, _request: usize) -> Received {
        Received::default()
    }
}
