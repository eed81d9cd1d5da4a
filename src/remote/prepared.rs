//! The prepared statements of one connection: which text has which name, the least recently used one forgotten first.

use pgrx::pg_sys::Oid;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::rc::Rc;

struct Entry {
    name: CString,
    sql: Rc<str>,
    types: Box<[Oid]>,
    last_used: u64,
}

/// Looked up by the address of the text first, which callers keep; by the text itself when that fails.
#[derive(Default)]
pub struct Prepared {
    entries: Vec<Entry>,
    by_address: HashMap<*const u8, usize>,
    by_text: HashMap<Rc<str>, usize>,
    clock: u64,
    made: u64,
}

/// What to do before executing a statement.
pub enum Lookup {
    /// It is there: at this index.
    Known(usize),
    /// It is registered now, and must be prepared; the other name, if any, must be deallocated.
    New(usize, Option<CString>),
}

impl Prepared {
    pub fn find(&mut self, sql: &Rc<str>, types: &[Oid], most: usize) -> Lookup {
        self.clock += 1;
        let address = sql.as_ptr();
        if let Some(&index) = self.by_address.get(&address) {
            let entry = &mut self.entries[index];
            if *entry.types == *types {
                entry.last_used = self.clock;
                return Lookup::Known(index);
            }
        } else if let Some(&index) = self.by_text.get(sql) {
            let entry = &mut self.entries[index];
            if *entry.types == *types {
                // the new address is the one to expect from now on; the entry must keep it alive
                self.by_address.remove(&entry.sql.as_ptr());
                self.by_address.insert(address, index);
                entry.sql = sql.clone();
                entry.last_used = self.clock;
                return Lookup::Known(index);
            }
        }
        // new, or the same text with other types: that one takes the old one's place
        let replaced = self
            .by_text
            .get(sql)
            .copied()
            .or_else(|| (self.entries.len() >= most.max(1)).then(|| self.oldest()));
        self.made += 1;
        let name = CString::new(format!("shard_ext_{}", self.made)).unwrap_or_default();
        let entry = Entry {
            name,
            sql: sql.clone(),
            types: types.into(),
            last_used: self.clock,
        };
        let (index, old) = match replaced {
            Some(index) => {
                self.unlink(index);
                let old = std::mem::replace(&mut self.entries[index], entry);
                (index, (!old.name.is_empty()).then_some(old.name))
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1, None)
            }
        };
        self.by_address.insert(address, index);
        self.by_text.insert(sql.clone(), index);
        Lookup::New(index, old)
    }

    pub fn name(&self, index: usize) -> &CStr {
        &self.entries[index].name
    }

    /// The node does not have this one after all.
    pub fn forget(&mut self, name: &CStr) {
        if let Some(index) = self.entries.iter().position(|e| *e.name == *name) {
            self.forget_at(index);
        }
    }

    /// The same, by text.
    pub fn forget_text(&mut self, sql: &Rc<str>) {
        if let Some(index) = self.by_text.get(sql) {
            self.forget_at(*index);
        }
    }

    fn forget_at(&mut self, index: usize) {
        self.unlink(index);
        // an empty name: nothing to deallocate when the place is taken
        self.entries[index].name = CString::default();
        self.entries[index].last_used = 0;
    }

    fn oldest(&self) -> usize {
        (0..self.entries.len())
            .min_by_key(|i| self.entries[*i].last_used)
            .unwrap_or(0)
    }

    fn unlink(&mut self, index: usize) {
        let entry = &self.entries[index];
        let address = entry.sql.as_ptr();
        if self.by_address.get(&address) == Some(&index) {
            self.by_address.remove(&address);
        }
        if self.by_text.get(&entry.sql) == Some(&index) {
            self.by_text.remove(&entry.sql);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lookup, Prepared};
    use pgrx::pg_sys::Oid;
    use std::rc::Rc;

    fn is_new(found: Lookup) -> Option<Option<String>> {
        match found {
            Lookup::Known(_) => None,
            Lookup::New(_, old) => Some(old.map(|name| name.to_string_lossy().into_owned())),
        }
    }

    #[test]
    fn a_statement_is_known_by_address_and_by_text() {
        let mut prepared = Prepared::default();
        let sql: Rc<str> = "SELECT 1".into();
        assert_eq!(is_new(prepared.find(&sql, &[], 10)), Some(None));
        assert_eq!(is_new(prepared.find(&sql, &[], 10)), None);
        let same: Rc<str> = "SELECT 1".into();
        assert_eq!(is_new(prepared.find(&same, &[], 10)), None);
        // both have been seen; the first is known by its text again
        assert_eq!(is_new(prepared.find(&sql, &[], 10)), None);
    }

    #[test]
    fn other_parameter_types_are_another_statement() {
        let mut prepared = Prepared::default();
        let sql: Rc<str> = "SELECT $1".into();
        assert_eq!(
            is_new(prepared.find(&sql, &[Oid::from(23)], 10)),
            Some(None)
        );
        let replaced = Some(Some("shard_ext_1".to_string()));
        assert_eq!(is_new(prepared.find(&sql, &[Oid::from(20)], 10)), replaced);
        assert_eq!(is_new(prepared.find(&sql, &[Oid::from(20)], 10)), None);
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut prepared = Prepared::default();
        let texts: Vec<Rc<str>> = vec!["a".into(), "b".into(), "c".into()];
        assert_eq!(is_new(prepared.find(&texts[0], &[], 2)), Some(None));
        assert_eq!(is_new(prepared.find(&texts[1], &[], 2)), Some(None));
        assert_eq!(is_new(prepared.find(&texts[0], &[], 2)), None);
        let forgotten = Some(Some("shard_ext_2".to_string()));
        assert_eq!(is_new(prepared.find(&texts[2], &[], 2)), forgotten);
        assert_eq!(is_new(prepared.find(&texts[0], &[], 2)), None);
        prepared.forget_text(&texts[0]);
        // nothing to deallocate for one the node has lost
        assert_eq!(is_new(prepared.find(&texts[1], &[], 2)), Some(None));
    }
}
