//! Connection options of a node: those of its foreign server and of the session user's mapping.

use crate::error::{Error, Result};
use pgrx::pg_sys::Oid;

/// libpq keywords and values. Never shown to users: a value may be a password.
#[derive(Clone, Default)]
pub struct ConnectOptions {
    pub keywords: Vec<(String, String)>,
}

impl ConnectOptions {
    /// The options to reach a foreign server as the session user: the server's, then those of the user's mapping,
    /// else of PUBLIC's; without a mapping the user is the session user's name.
    pub fn of_server(_server: Oid) -> Result<ConnectOptions> {
        Err(Error::internal("remote requests are not there yet"))
    }
}
