//! The settings of the session that change results, followed by each connection.

use pgrx::pg_sys;
use std::ffi::{c_char, c_int, CStr};

extern "C" {
    /// `utils/bytea.h`, not in pgrx's bindings.
    static bytea_output: c_int;
}

/// The settings in the form the server itself keeps them, quick to compare.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    date_style: c_int,
    date_order: c_int,
    interval_style: c_int,
    extra_float_digits: c_int,
    bytea_output: c_int,
    /// Time zones are loaded once and never freed: the address is the identity.
    time_zone: usize,
    search_path: Box<CStr>,
    text_search: Box<CStr>,
}

/// Names as `set_config` wants them, in the order of `values`.
const NAMES: [&CStr; 7] = [
    c"DateStyle",
    c"IntervalStyle",
    c"extra_float_digits",
    c"bytea_output",
    c"TimeZone",
    c"search_path",
    c"default_text_search_config",
];

// SAFETY, for the functions below: server variables of this process, read by its one thread; the strings are
// NUL-terminated and stay until the setting changes.
unsafe fn c_str<'a>(pointer: *const c_char) -> &'a CStr {
    if pointer.is_null() {
        c""
    } else {
        CStr::from_ptr(pointer)
    }
}

impl Settings {
    pub fn current() -> Settings {
        unsafe {
            Settings {
                date_style: pg_sys::DateStyle,
                date_order: pg_sys::DateOrder,
                interval_style: pg_sys::IntervalStyle,
                extra_float_digits: pg_sys::extra_float_digits,
                bytea_output,
                time_zone: pg_sys::session_timezone as usize,
                search_path: c_str(pg_sys::namespace_search_path).into(),
                text_search: c_str(pg_sys::TSCurrentConfig).into(),
            }
        }
    }

    /// Whether these are the session's settings of this moment; allocates nothing.
    pub fn is_current(&self) -> bool {
        unsafe {
            self.date_style == pg_sys::DateStyle
                && self.date_order == pg_sys::DateOrder
                && self.interval_style == pg_sys::IntervalStyle
                && self.extra_float_digits == pg_sys::extra_float_digits
                && self.bytea_output == bytea_output
                && self.time_zone == pg_sys::session_timezone as usize
                && *self.search_path == *c_str(pg_sys::namespace_search_path)
                && *self.text_search == *c_str(pg_sys::TSCurrentConfig)
        }
    }

    /// One statement that gives a connection the settings of the session.
    pub fn sql() -> String {
        let mut sql = String::from("SELECT ");
        for (i, name) in NAMES.iter().enumerate() {
            // SAFETY: the name exists; the value is copied at once.
            let value = unsafe {
                c_str(pg_sys::GetConfigOption(name.as_ptr(), false, false)).to_string_lossy()
            };
            if i > 0 {
                sql.push_str(", ");
            }
            sql.push_str("pg_catalog.set_config(");
            super::simple::push_literal(&mut sql, &name.to_string_lossy());
            sql.push_str(", ");
            super::simple::push_literal(&mut sql, &value);
            sql.push_str(", false)");
        }
        sql
    }
}
