//! The foreign-data wrapper `shard_ext` and its validator: options are libpq's, split between servers and
//! user mappings as postgres_fdw's option.c does. It has no handler: nobody scans a node as a foreign table.

use pgrx::pg_sys;
use std::ffi::CStr;

use crate::error::{sqlstate, Error, Result};

/// One of libpq's connection options that may be set here.
pub struct Known {
    pub keyword: String,
    /// Belongs to a user mapping: who connects, and secrets.
    pub of_user: bool,
    pub of_server: bool,
}

/// Options that depend on who connects, though libpq does not mark them as secret.
const ALSO_OF_USER: [&str; 3] = ["sslcert", "sslkey", "passfile"];

/// What libpq offers, without its debug options and what the extension decides itself.
pub fn known_options() -> Result<Vec<Known>> {
    // SAFETY: PQconndefaults returns an array that ends with a NULL keyword, or NULL when out of memory.
    unsafe {
        let defaults = pq_sys::PQconndefaults();
        if defaults.is_null() {
            return Err(Error::new(*b"53200", "out of memory")
                .detail("Could not get libpq's default connection options."));
        }
        let mut known = Vec::new();
        let mut option = defaults;
        while !(*option).keyword.is_null() {
            let keyword = CStr::from_ptr((*option).keyword)
                .to_string_lossy()
                .into_owned();
            let display = CStr::from_ptr((*option).dispchar).to_bytes();
            let hidden = display.contains(&b'D')
                || matches!(
                    keyword.as_str(),
                    "fallback_application_name" | "client_encoding" | "replication"
                );
            if !hidden {
                let of_user = keyword == "user" || display.contains(&b'*');
                known.push(Known {
                    of_server: !of_user,
                    of_user: of_user || ALSO_OF_USER.contains(&keyword.as_str()),
                    keyword,
                });
            }
            option = option.add(1);
        }
        pq_sys::PQconninfoFree(defaults);
        Ok(known)
    }
}

/// Checks the options of one object, `name=value` each, of a catalog that may have them.
pub fn validate(options: &[String], catalog: pg_sys::Oid) -> Result<()> {
    let allowed: Vec<String> = known_options()?
        .into_iter()
        .filter(|known| {
            (catalog == pg_sys::ForeignServerRelationId && known.of_server)
                || (catalog == pg_sys::UserMappingRelationId && known.of_user)
        })
        .map(|known| known.keyword)
        .collect();
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if !allowed.iter().any(|keyword| keyword == name) {
            let hint = if allowed.is_empty() {
                "There are no valid options in this context.".to_string()
            } else {
                format!("Valid options in this context are: {}", allowed.join(", "))
            };
            return Err(Error::new(
                sqlstate::FDW_INVALID_OPTION_NAME,
                format!("invalid option \"{name}\""),
            )
            .hint(hint));
        }
        check_value(name, value)?;
    }
    Ok(())
}

/// libpq would find these too, but only when the node is next connected.
fn check_value(name: &str, value: &str) -> Result<()> {
    let valid = match name {
        // A list goes with a list of hosts.
        "port" => value
            .split(',')
            .all(|port| port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0)),
        "connect_timeout"
        | "keepalives"
        | "keepalives_idle"
        | "keepalives_interval"
        | "keepalives_count"
        | "tcp_user_timeout" => value.parse::<i32>().is_ok(),
        _ => true,
    };
    if valid {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::INVALID_PARAMETER_VALUE,
        format!("invalid value \"{value}\" for option \"{name}\""),
    ))
}

mod sql {
    use pgrx::prelude::*;

    #[pg_schema]
    mod shard_ext {
        use pgrx::prelude::*;

        /// Checks the options of a foreign server or user mapping of the wrapper.
        #[pg_extern]
        fn fdw_validator(options: Vec<Option<String>>, catalog: pg_sys::Oid) {
            let options: Vec<String> = options.into_iter().flatten().collect();
            super::super::validate(&options, catalog).unwrap_or_else(|error| error.raise())
        }
    }

    extension_sql_file!(
        "../../sql/wrapper.sql",
        name = "wrapper",
        requires = [shard_ext::fdw_validator]
    );
}
