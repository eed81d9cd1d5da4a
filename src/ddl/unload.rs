//! Brings the rows of shards back into the local table: fetched as text, inserted by PostgreSQL's own COPY.

use super::drop::Gone;
use super::load::escape;
use super::sql::{quote_identifier, quote_qualified};
use crate::catalog::{self, Colocation, NodeId, ShardGroupId};
use crate::error::Result;
use crate::pg::spi;
use crate::remote::{Access, Format, Gather, Params, Request, Statement};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{c_int, c_void, CString};
use std::rc::Rc;

/// Rows of several queries, one after the other, as COPY text.
pub struct RowsOf(Gather);

impl RowsOf {
    /// Each query with its node and the shard group that it reads.
    pub fn start(queries: Vec<(NodeId, ShardGroupId, String)>) -> Result<RowsOf> {
        let requests = queries
            .into_iter()
            .map(|(node, group, sql)| Request {
                node,
                groups: Rc::new([group]),
                access: Access::Read,
                statement: Statement {
                    sql: sql.into(),
                    params: Rc::new(Params::default()),
                    results: Format::Text,
                    named: false,
                },
                sole: false,
                bulk: false,
                as_others: false,
            })
            .collect();
        Gather::start(requests).map(RowsOf)
    }

    /// Appends a row; false: there are no more.
    pub fn append_to(&mut self, buffer: &mut Vec<u8>) -> Result<bool> {
        let Some((_, row)) = self.0.next()? else {
            return Ok(false);
        };
        for column in 0..row.len() {
            if column > 0 {
                buffer.push(b'\t');
            }
            match row.get(column) {
                Some(value) => escape(value, buffer),
                None => buffer.extend_from_slice(b"\\N"),
            }
        }
        buffer.push(b'\n');
        Ok(true)
    }
}

/// Rows under way, as COPY reads them: its callback has no argument of its own.
struct Source {
    rows: RowsOf,
    buffer: Vec<u8>,
    taken: usize,
}

thread_local! {
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// Forgets the rows when COPY is done, or has failed.
struct Reset;

impl Drop for Reset {
    fn drop(&mut self) {
        let source = SOURCE.with(|source| source.try_borrow_mut().ok().and_then(|mut s| s.take()));
        drop(source);
    }
}

/// Inserts all rows of the shards into the heap of the table, which is a local one by now.
pub fn from_shards(gone: &Gone, colocation: &Colocation) -> Result<u64> {
    let columns = columns(gone.relid)?;
    if columns.is_empty() || colocation.groups.is_empty() {
        return Ok(0);
    }
    let list = copied_columns(gone.relid)?;
    let queries = colocation
        .groups
        .iter()
        .map(|group| {
            let shard = quote_qualified(&catalog::shard_schema(&gone.schema, group.id), &gone.name);
            (
                group.node,
                group.id,
                format!("SELECT {list} FROM ONLY {shard}"),
            )
        })
        .collect();
    SOURCE.set(Some(Source {
        rows: RowsOf::start(queries)?,
        buffer: Vec::new(),
        taken: 0,
    }));
    let _reset = Reset;
    // SAFETY: as PostgreSQL's own initial table synchronisation does it (tablesync.c); the caller holds
    // AccessExclusiveLock. Lists and strings are palloc'd in a context that outlives the COPY.
    unsafe {
        let relation = pg_sys::table_open(gone.relid, pg_sys::NoLock as i32);
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        pg_sys::addRangeTableEntryForRelation(
            state,
            relation,
            pg_sys::RowExclusiveLock as i32,
            std::ptr::null_mut(),
            false,
            false,
        );
        let mut names: *mut pg_sys::List = std::ptr::null_mut();
        for name in &columns {
            let name = CString::new(name.as_str()).unwrap_or_default();
            let string = pg_sys::makeString(pg_sys::pstrdup(name.as_ptr()));
            names = pg_sys::lappend(names, string.cast());
        }
        let copy = pg_sys::BeginCopyFrom(
            state,
            relation,
            std::ptr::null_mut(),
            std::ptr::null(),
            false,
            Some(read),
            names,
            std::ptr::null_mut(),
        );
        let rows = pg_sys::CopyFrom(copy);
        pg_sys::EndCopyFrom(copy);
        pg_sys::free_parsestate(state);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        pg_sys::CommandCounterIncrement();
        Ok(rows)
    }
}

/// Columns of the table in their order, without dropped and generated ones.
fn columns(relid: pg_sys::Oid) -> Result<Vec<String>> {
    let rows = spi::query(
        "SELECT attname FROM pg_catalog.pg_attribute
          WHERE attrelid = $1::pg_catalog.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
          ORDER BY attnum",
        &[Some(&u32::from(relid).to_string())],
    )?;
    Ok(rows.into_iter().flatten().flatten().collect())
}

/// The same as a list in SQL.
pub fn copied_columns(relid: pg_sys::Oid) -> Result<String> {
    let names: Vec<String> = columns(relid)?
        .iter()
        .map(|name| quote_identifier(name))
        .collect();
    Ok(names.join(", "))
}

/// COPY asks for at least `minimum` bytes; fewer mean the end.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn read(target: *mut c_void, minimum: c_int, maximum: c_int) -> c_int {
    let bytes = SOURCE.with_borrow_mut(|source| match source {
        Some(source) => source.take(minimum as usize, maximum as usize),
        None => Ok(Vec::new()),
    });
    match bytes {
        Ok(bytes) => {
            // SAFETY: COPY's buffer has room for `maximum` bytes.
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.cast::<u8>(), bytes.len());
            bytes.len() as c_int
        }
        Err(error) => error.raise(),
    }
}

impl Source {
    fn take(&mut self, minimum: usize, maximum: usize) -> Result<Vec<u8>> {
        while self.buffer.len() - self.taken < minimum.max(1) {
            if !self.rows.append_to(&mut self.buffer)? {
                break;
            }
        }
        let end = (self.taken + maximum).min(self.buffer.len());
        let bytes = self.buffer[self.taken..end].to_vec();
        self.taken = end;
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
        }
        Ok(bytes)
    }
}
