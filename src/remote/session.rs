//! The settings of the session that change results, followed by each connection.

use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{c_char, c_int, CStr};

extern "C" {
    // `utils/bytea.h`, `utils/xml.h` and `utils/pg_locale.h`, not in pgrx's bindings.
    static bytea_output: c_int;
    static xmlbinary: c_int;
    static xmloption: c_int;
    static locale_monetary: *const c_char;
    static locale_numeric: *const c_char;
    static locale_time: *const c_char;
}

/// A value in the form the server itself keeps it, quick to compare.
enum Value {
    Number(usize),
    Text(&'static CStr),
}

struct Setting {
    name: &'static CStr,
    value: fn() -> Value,
    /// Only a superuser may set it, even to what it is.
    restricted: bool,
}

const fn setting(name: &'static CStr, value: fn() -> Value) -> Setting {
    Setting {
        name,
        value,
        restricted: false,
    }
}

/// The role is not among them: what depends on it is computed here, see docs/nodes.md.
// SAFETY, for all: server variables of this process, read by its one thread; see `text` for the strings.
static FOLLOWED: [Setting; 14] = unsafe {
    [
        setting(c"DateStyle", || {
            Value::Number((pg_sys::DateStyle as usize) << 8 | pg_sys::DateOrder as usize)
        }),
        setting(c"IntervalStyle", || {
            Value::Number(pg_sys::IntervalStyle as usize)
        }),
        setting(c"extra_float_digits", || {
            Value::Number(pg_sys::extra_float_digits as usize)
        }),
        setting(c"bytea_output", || Value::Number(bytea_output as usize)),
        // Time zones are loaded once and never freed: the address is the identity.
        setting(c"TimeZone", || {
            Value::Number(pg_sys::session_timezone as usize)
        }),
        setting(c"search_path", || text(pg_sys::namespace_search_path)),
        setting(c"default_text_search_config", || {
            text(pg_sys::TSCurrentConfig)
        }),
        setting(c"lc_monetary", || text(locale_monetary)),
        setting(c"lc_numeric", || text(locale_numeric)),
        setting(c"lc_time", || text(locale_time)),
        setting(c"xmlbinary", || Value::Number(xmlbinary as usize)),
        setting(c"xmloption", || Value::Number(xmloption as usize)),
        setting(c"lock_timeout", || {
            Value::Number(pg_sys::LockTimeout as usize)
        }),
        Setting {
            name: c"session_replication_role",
            value: || Value::Number(pg_sys::SessionReplicationRole as usize),
            restricted: true,
        },
    ]
};

/// # Safety
/// NULL or a NUL-terminated string that stays until the setting changes.
unsafe fn text(pointer: *const c_char) -> Value {
    Value::Text(if pointer.is_null() {
        c""
    } else {
        unsafe { CStr::from_ptr(pointer) }
    })
}

/// A `Value` that stays.
#[derive(Clone)]
enum Kept {
    Number(usize),
    Text(Box<CStr>),
}

impl Kept {
    fn is(&self, value: Value) -> bool {
        match (self, value) {
            (Kept::Number(a), Value::Number(b)) => *a == b,
            (Kept::Text(a), Value::Text(b)) => **a == *b,
            _ => false,
        }
    }
}

/// What a connection has been told.
#[derive(Clone)]
pub struct Settings {
    followed: Vec<Kept>,
    custom: Vec<(Box<CStr>, Box<CStr>)>,
    row_security: bool,
}

impl Settings {
    /// The session's of this moment. `row_security`: whether policies of a node may be applied to its own login.
    pub fn current(row_security: bool) -> Settings {
        let keep = |setting: &Setting| match (setting.value)() {
            Value::Number(number) => Kept::Number(number),
            Value::Text(text) => Kept::Text(text.into()),
        };
        let mut custom = Vec::new();
        each_custom(|name, value| {
            custom.push((name.into(), value.into()));
            true
        });
        Settings {
            followed: FOLLOWED.iter().map(keep).collect(),
            custom,
            row_security,
        }
    }

    /// Whether these are `current(row_security)`; allocates nothing.
    pub fn is_current(&self, row_security: bool) -> bool {
        let mut position = 0;
        self.row_security == row_security
            && FOLLOWED
                .iter()
                .zip(&self.followed)
                .all(|(setting, kept)| kept.is((setting.value)()))
            && each_custom(|name, value| {
                let kept = self.custom.get(position);
                position += 1;
                kept.is_some_and(|(n, v)| **n == *name && **v == *value)
            })
    }

    /// One statement that gives a connection these settings of the session where it has others; `None` knows nothing
    /// of the connection's.
    pub fn sql(&self, known: Option<&Settings>) -> String {
        let mut calls = Vec::new();
        if known.is_none_or(|settings| settings.row_security != self.row_security) {
            let value = if self.row_security { "on" } else { "off" };
            calls.push(set_config("row_security", value));
        }
        for (i, setting) in FOLLOWED.iter().enumerate() {
            let known = known.map(|settings| &settings.followed[i]);
            if known.is_some_and(|kept| kept.is((setting.value)())) {
                continue;
            }
            let name = setting.name.to_string_lossy();
            let value = value_for_nodes(setting.name);
            let set = set_config(&name, &value);
            calls.push(if setting.restricted {
                let (name, value) = (literal(&name), literal(&value));
                format!("CASE WHEN pg_catalog.current_setting({name}) <> {value} THEN {set} END")
            } else {
                set
            });
        }
        for pair in &self.custom {
            if !known.is_some_and(|settings| settings.custom.contains(pair)) {
                let (name, value) = pair;
                calls.push(set_config(
                    &name.to_string_lossy(),
                    &value.to_string_lossy(),
                ));
            }
        }
        format!("SELECT {}", calls.join(", "))
    }
}

thread_local! {
    /// How many settings the server has, and the places of those that only have a value (`SET app.tenant = ...`).
    static CUSTOM: RefCell<(c_int, Vec<usize>)> = const { RefCell::new((0, Vec::new())) };
}

/// The settings that no module has defined, with their values; stops, and is false, when `look` is.
fn each_custom(mut look: impl FnMut(&'static CStr, &CStr) -> bool) -> bool {
    // SAFETY: the server's own table of settings, which changes only when their number does or when a module
    // defines one, which the flag shows; all entries are valid.
    unsafe {
        let count = pg_sys::GetNumConfigOptions();
        let all = pg_sys::get_guc_variables();
        let is_custom =
            |place: usize| (**all.add(place)).flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as c_int != 0;
        CUSTOM.with_borrow_mut(|(known, places)| {
            if *known != count || !places.iter().all(|place| is_custom(*place)) {
                *known = count;
                *places = (0..count as usize).filter(|i| is_custom(*i)).collect();
            }
            places.iter().all(|place| {
                let setting = (*all.add(*place)).cast::<pg_sys::config_string>();
                let value = *(*setting).variable;
                let value = if value.is_null() {
                    c""
                } else {
                    CStr::from_ptr(value)
                };
                look(CStr::from_ptr((*setting).gen_.name), value)
            })
        })
    }
}

/// The session's locales, which a node must have, as (setting, value).
pub fn locales() -> Vec<(&'static str, String)> {
    FOLLOWED
        .iter()
        .filter_map(|setting| setting.name.to_str().ok().map(|name| (name, setting)))
        .filter(|(name, _)| name.starts_with(LOCALE))
        .map(|(name, setting)| (name, value_for_nodes(setting.name)))
        .collect()
}

const LOCALE: &str = "lc_";

fn value_for_nodes(name: &CStr) -> String {
    // SAFETY: the name exists; the value is copied at once.
    let value = unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), false, false);
        CStr::from_ptr(value).to_string_lossy().into_owned()
    };
    // the locale "C" has many names, of which only that one is known everywhere
    let is_c = ["POSIX", "C.UTF-8", "C.utf8"].contains(&&*value);
    if is_c && name.to_bytes().starts_with(LOCALE.as_bytes()) {
        "C".into()
    } else {
        value
    }
}

/// Sets one setting for the session of a node.
pub fn set_config(name: &str, value: &str) -> String {
    let (name, value) = (literal(name), literal(value));
    format!("pg_catalog.set_config({name}, {value}, false)")
}

fn literal(text: &str) -> String {
    let mut literal = String::new();
    super::simple::push_literal(&mut literal, text);
    literal
}
