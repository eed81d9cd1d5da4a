//! Tables of moved rows: entries of the range table that no catalog knows. In a Query they are transition tables, which
//! need no definition; PostgreSQL writes them as the names of WITH queries, which are holes of the template then.

use crate::pg::{list, node};
use pgrx::pg_sys::{Query, RTEKind, RangeTblEntry};
use std::ffi::CStr;

/// With a number behind it, the name of such an entry.
pub const MARK: &str = "shard_ext moved ";

/// The number of an entry that stands for moved rows.
///
/// # Safety
/// `entry` is valid.
pub unsafe fn number(entry: *mut RangeTblEntry) -> Option<u32> {
    unsafe {
        if (*entry).rtekind != RTEKind::RTE_NAMEDTUPLESTORE || (*entry).enrname.is_null() {
            return None;
        }
        let name = CStr::from_ptr((*entry).enrname).to_str().ok()?;
        name.strip_prefix(MARK)?.parse().ok()
    }
}

/// The entries for moved rows in a tree, of all levels.
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn entries(query: *mut Query) -> Vec<*mut RangeTblEntry> {
    let mut found = Vec::new();
    unsafe {
        node::walk(query.cast(), &mut |item, _| {
            if let Some(level) = node::cast::<Query>(item) {
                found.extend(
                    list::iter::<RangeTblEntry>((*level).rtable)
                        .filter(|entry| number(*entry).is_some()),
                );
            }
            node::Step::Into
        });
    }
    found
}

/// While this lives, those entries are names of WITH queries.
pub struct AsNames {
    entries: Vec<*mut RangeTblEntry>,
    names: Vec<String>,
}

impl AsNames {
    /// # Safety
    /// `query` is a valid Query that the caller owns, for as long as the answer lives.
    pub unsafe fn of(query: *mut Query) -> AsNames {
        unsafe {
            let entries = entries(query);
            let mut names = Vec::new();
            for entry in &entries {
                (**entry).rtekind = RTEKind::RTE_CTE;
                (**entry).ctename = (**entry).enrname;
                names.push(
                    CStr::from_ptr((**entry).ctename)
                        .to_string_lossy()
                        .into_owned(),
                );
            }
            AsNames { entries, names }
        }
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }
}

impl Drop for AsNames {
    fn drop(&mut self) {
        for entry in &self.entries {
            // SAFETY: the Query outlives this value.
            unsafe {
                (**entry).rtekind = RTEKind::RTE_NAMEDTUPLESTORE;
                (**entry).ctename = std::ptr::null_mut();
            }
        }
    }
}
