//! Catalog queries in SQL, for the paths where a query costs nothing that counts: DDL and administration.
//! Every value comes back as text. Not for the query path (SPI assigns a transaction id on the way).

use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// A row, each column as the text its type's output function gives; `None` is NULL.
pub type TextRow = Vec<Option<String>>;

/// Runs `sql` with text parameters (cast them in the statement) and returns all rows.
/// It sees the effects of everything this transaction has done so far.
pub fn query(sql: &str, params: &[Option<&str>]) -> Result<Vec<TextRow>> {
    let text = CString::new(sql).map_err(|_| Error::internal("a NUL byte in an SQL statement"))?;
    let mut types = vec![pg_sys::TEXTOID; params.len()];
    let mut values = Vec::with_capacity(params.len());
    let mut nulls = Vec::with_capacity(params.len());
    for param in params {
        match param {
            Some(value) => {
                // SAFETY: length and pointer are those of a live string; the datum is palloc'd.
                let datum = unsafe {
                    pg_sys::cstring_to_text_with_len(value.as_ptr().cast(), value.len() as i32)
                };
                values.push(pg_sys::Datum::from(datum));
                nulls.push(b' ' as std::ffi::c_char);
            }
            None => {
                values.push(pg_sys::Datum::from(0usize));
                nulls.push(b'n' as std::ffi::c_char);
            }
        }
    }
    // SAFETY: SPI's own protocol, connect to finish; an error in between unwinds to the
    // transaction's abort, which resets the SPI stack. Values are copied before SPI_finish frees them.
    unsafe {
        pg_sys::SPI_connect();
        let code = pg_sys::SPI_execute_with_args(
            text.as_ptr(),
            params.len() as i32,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            nulls.as_ptr(),
            false,
            0,
        );
        if code < 0 {
            pg_sys::SPI_finish();
            return Err(Error::internal(format!(
                "catalog query failed with SPI code {code}"
            )));
        }
        let mut rows = Vec::new();
        let table = pg_sys::SPI_tuptable;
        if !table.is_null() {
            let description = (*table).tupdesc;
            for i in 0..pg_sys::SPI_processed as usize {
                let tuple = *(*table).vals.add(i);
                let row = (1..=(*description).natts)
                    .map(|column| {
                        let value = pg_sys::SPI_getvalue(tuple, description, column);
                        (!value.is_null())
                            .then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
                    })
                    .collect();
                rows.push(row);
            }
        }
        pg_sys::SPI_finish();
        Ok(rows)
    }
}

/// The same for a statement that returns at most one row.
pub fn query_one(sql: &str, params: &[Option<&str>]) -> Result<Option<TextRow>> {
    Ok(query(sql, params)?.into_iter().next())
}

/// A nesting level of settings: those set through it last until it is dropped, or to the end of a
/// transaction that aborts.
pub struct Settings(i32);

impl Settings {
    /// A level for whatever is set until its end.
    pub fn nested() -> Settings {
        // SAFETY: opens a nesting level, closed by Drop or by the transaction's abort.
        Settings(unsafe { pg_sys::NewGUCNestLevel() })
    }

    /// Names that are not in `pg_catalog` come out of the server qualified, and every text that
    /// names one is read the same way. They are quoted: another server's version has other keywords.
    pub fn qualified_names() -> Settings {
        let settings = Settings::nested();
        settings.set(c"search_path", c"pg_catalog");
        settings.set(c"quote_all_identifiers", c"on");
        settings
    }

    /// Values come out in the one form that every server reads alike, whatever the session has set.
    pub fn portable_values() -> Settings {
        let settings = Settings::qualified_names();
        settings.set(c"datestyle", c"ISO, YMD");
        settings.set(c"intervalstyle", c"postgres");
        settings.set(c"extra_float_digits", c"3");
        settings.set(c"bytea_output", c"hex");
        settings
    }

    pub fn set(&self, name: &CStr, value: &CStr) {
        // SAFETY: NUL-terminated strings, copied by the server.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // While an error unwinds nothing of the server may be called; the abort restores the settings.
        if !std::thread::panicking() {
            // SAFETY: closes the level that this value opened.
            unsafe { pg_sys::AtEOXact_GUC(true, self.0) }
        }
    }
}
