//! Moves the rows of a local table to its shards or copies: read from the heap, routed by their key, and
//! streamed as COPY text. Memory is that of the streams' buffers.

use super::checks::{Candidate, Key};
use super::sql::{quote_identifier, quote_qualified};
use crate::catalog::{self, Colocation, Node, NodeId, ShardGroupId};
use crate::error::{sqlstate, Error, Result};
use crate::remote::CopyIn;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::rc::Rc;

/// `1 row`, `2 rows`: for messages.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Whether the table has any row, without reading more than the first.
pub fn has_rows(relid: pg_sys::Oid) -> Result<bool> {
    let mut any = false;
    let first = scan(relid, |_| {
        any = true;
        Err(Error::internal("one row is enough"))
    });
    if any {
        return Ok(true);
    }
    first.map(|_| false)
}

/// Routes every row of `table` to its shard. Returns how many there were.
pub fn to_shards(table: &Candidate, key: &Key, colocation: &Colocation) -> Result<u64> {
    let schema = super::checks::schema_name(table.relid)?;
    let mut streams: Vec<Option<CopyIn>> = colocation.groups.iter().map(|_| None).collect();
    let rows = scan(table.relid, |row| {
        let value = row.datum(key.attnum);
        let Some(index) = colocation.group_for(value) else {
            return Err(no_shard(table, key, row.text(key.attnum)));
        };
        let stream = match &mut streams[index] {
            Some(stream) => stream,
            empty => {
                let group = &colocation.groups[index];
                let schema = catalog::shard_schema(&schema, group.id);
                empty.insert(stream(group.node, &[group.id], &schema, &table.name, row)?)
            }
        };
        stream.write(row.copy_text())
    })?;
    for stream in streams.into_iter().flatten() {
        stream.finish()?;
    }
    Ok(rows)
}

/// Sends every row of a table to each node.
pub fn to_reference_copies(relid: pg_sys::Oid, name: &str, nodes: &[Rc<Node>]) -> Result<u64> {
    let schema = super::checks::schema_name(relid)?;
    let mut streams: Vec<CopyIn> = Vec::new();
    let rows = scan(relid, |row| {
        if streams.is_empty() {
            for node in nodes {
                let schema = catalog::reference_schema(&schema, node);
                streams.push(stream(node.id, &[], &schema, name, row)?);
            }
        }
        streams
            .iter_mut()
            .try_for_each(|stream| stream.write(row.copy_text()))
    })?;
    for stream in streams {
        stream.finish()?;
    }
    Ok(rows)
}

fn stream(
    node: NodeId,
    groups: &[ShardGroupId],
    schema: &str,
    table: &str,
    row: &Row,
) -> Result<CopyIn> {
    let columns = match row.column_names() {
        names if names.is_empty() => names,
        names => format!(" ({names})"),
    };
    let sql = format!(
        "COPY {}{columns} FROM STDIN",
        quote_qualified(schema, table)
    );
    CopyIn::start(node, groups.into(), &sql)
}

fn no_shard(table: &Candidate, key: &Key, value: Option<String>) -> Error {
    let value = value.unwrap_or_else(|| "null".to_owned());
    Error::new(
        sqlstate::CHECK_VIOLATION,
        format!("no shard of table \"{}\" found for row", table.name),
    )
    .detail(format!(
        "Distribution column of the failing row contains ({}) = ({value}).",
        key.name
    ))
    .hint(
        "Add a shard for the value to the table that this one is to be colocated with, or a default \
         shard, or use colocate_with => 'none'.",
    )
}

/// The rows of a table as COPY text. The caller holds a lock that keeps writers out.
struct Row {
    slot: *mut pg_sys::TupleTableSlot,
    columns: Vec<Column>,
    buffer: Vec<u8>,
}

struct Column {
    attnum: i16,
    name: String,
    output: pg_sys::FmgrInfo,
}

impl Row {
    fn datum(&self, attnum: i16) -> Option<pg_sys::Datum> {
        let index = attnum as usize - 1;
        // SAFETY: all attributes of the slot are deformed; attnum is one of them.
        unsafe {
            (!*(*self.slot).tts_isnull.add(index)).then(|| *(*self.slot).tts_values.add(index))
        }
    }

    fn text(&mut self, attnum: i16) -> Option<String> {
        let datum = self.datum(attnum)?;
        let column = self
            .columns
            .iter_mut()
            .find(|column| column.attnum == attnum)?;
        // SAFETY: the output function of the column's type returns a palloc'd C string.
        unsafe {
            Some(
                CStr::from_ptr(pg_sys::OutputFunctionCall(&raw mut column.output, datum))
                    .to_string_lossy()
                    .into_owned(),
            )
        }
    }

    fn column_names(&self) -> String {
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|column| quote_identifier(&column.name))
            .collect();
        names.join(", ")
    }

    fn copy_text(&self) -> &[u8] {
        &self.buffer
    }

    /// Writes the slot's row into the buffer, in the text format of COPY.
    fn encode(&mut self) {
        self.buffer.clear();
        for i in 0..self.columns.len() {
            if i > 0 {
                self.buffer.push(b'\t');
            }
            match self.datum(self.columns[i].attnum) {
                None => self.buffer.extend_from_slice(b"\\N"),
                Some(datum) => {
                    // SAFETY: as in `text`.
                    let value = unsafe {
                        CStr::from_ptr(pg_sys::OutputFunctionCall(
                            &raw mut self.columns[i].output,
                            datum,
                        ))
                    };
                    escape(value.to_bytes(), &mut self.buffer);
                }
            }
        }
        self.buffer.push(b'\n');
    }
}

/// Every server encoding keeps ASCII bytes to themselves, so bytes can be escaped one by one.
pub fn escape(value: &[u8], buffer: &mut Vec<u8>) {
    for &byte in value {
        let escaped = match byte {
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            8 => b'b',
            11 => b'v',
            12 => b'f',
            _ => {
                buffer.push(byte);
                continue;
            }
        };
        buffer.extend_from_slice(&[b'\\', escaped]);
    }
}

/// Calls `each` for every row that is committed or our own, and counts them, also in
/// `pg_stat_progress_copy`.
fn scan(relid: pg_sys::Oid, mut each: impl FnMut(&mut Row) -> Result<()>) -> Result<u64> {
    // SAFETY: the relation is locked by the caller and open until the end of the scan; each pointer taken
    // from it is used only until then. On an error the transaction's abort closes what is open.
    unsafe {
        let relation = pg_sys::table_open(relid, pg_sys::NoLock as i32);
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let mut row = Row {
            slot,
            columns: columns(relation),
            buffer: Vec::with_capacity(1024),
        };
        let context = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"row on its way to a node".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        start_progress(relid);
        let access = (*relation).rd_tableam;
        let (Some(begin), Some(next), Some(end)) = (
            (*access).scan_begin,
            (*access).scan_getnextslot,
            (*access).scan_end,
        ) else {
            return Err(Error::internal("table access method without scans"));
        };
        let flags = pg_sys::ScanOptions::SO_TYPE_SEQSCAN
            | pg_sys::ScanOptions::SO_ALLOW_STRAT
            | pg_sys::ScanOptions::SO_ALLOW_SYNC
            | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE;
        let scan = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            begin(
                relation,
                snapshot,
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                flags,
            )
        });
        let natts = (*(*relation).rd_att).natts;
        let mut count = 0_u64;
        let mut outcome = Ok(());
        while outcome.is_ok()
            && pg_sys::ffi::pg_guard_ffi_boundary(|| {
                next(scan, pg_sys::ScanDirection::ForwardScanDirection, slot)
            })
        {
            pgrx::check_for_interrupts!();
            pg_sys::slot_getsomeattrs_int(slot, natts);
            let before = pg_sys::MemoryContextSwitchTo(context);
            row.encode();
            outcome = each(&mut row);
            pg_sys::MemoryContextSwitchTo(before);
            pg_sys::MemoryContextReset(context);
            count += 1;
            if count.is_multiple_of(1024) {
                pg_sys::pgstat_progress_update_param(
                    pg_sys::PROGRESS_COPY_TUPLES_PROCESSED as i32,
                    count as i64,
                );
            }
        }
        pg_sys::ffi::pg_guard_ffi_boundary(|| end(scan));
        pg_sys::pgstat_progress_end_command();
        pg_sys::MemoryContextDelete(context);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        outcome.map(|()| count)
    }
}

unsafe fn start_progress(relid: pg_sys::Oid) {
    pg_sys::pgstat_progress_start_command(
        pg_sys::ProgressCommandType::PROGRESS_COMMAND_COPY,
        relid,
    );
    pg_sys::pgstat_progress_update_param(
        pg_sys::PROGRESS_COPY_COMMAND as i32,
        i64::from(pg_sys::PROGRESS_COPY_COMMAND_FROM),
    );
    pg_sys::pgstat_progress_update_param(
        pg_sys::PROGRESS_COPY_TYPE as i32,
        i64::from(pg_sys::PROGRESS_COPY_TYPE_CALLBACK),
    );
}

/// The columns that are sent: all but dropped and generated ones.
unsafe fn columns(relation: pg_sys::Relation) -> Vec<Column> {
    let description = (*relation).rd_att;
    let mut columns = Vec::new();
    for i in 0..(*description).natts as usize {
        let attribute = &*(*description).attrs.as_ptr().add(i);
        if attribute.attisdropped || attribute.attgenerated != 0 {
            continue;
        }
        let mut function = pg_sys::InvalidOid;
        let mut is_varlena = false;
        pg_sys::getTypeOutputInfo(attribute.atttypid, &mut function, &mut is_varlena);
        let mut output = pg_sys::FmgrInfo::default();
        pg_sys::fmgr_info(function, &raw mut output);
        columns.push(Column {
            attnum: attribute.attnum,
            name: CStr::from_ptr(attribute.attname.data.as_ptr())
                .to_string_lossy()
                .into_owned(),
            output,
        });
    }
    columns
}

/// Empties the heap of a table in a way that a rollback undoes, as TRUNCATE does, but without following
/// foreign keys: rows that reference it are where the table's own rows are now, or follow.
pub fn empty(relid: pg_sys::Oid) -> Result<()> {
    // SAFETY: the caller holds AccessExclusiveLock; the calls are those of ExecuteTruncateGuts.
    unsafe {
        let relation = pg_sys::table_open(relid, pg_sys::AccessExclusiveLock as i32);
        pg_sys::CheckTableNotInUse(relation, c"create_distributed_table()".as_ptr());
        let persistence = (*(*relation).rd_rel).relpersistence;
        pg_sys::RelationSetNewRelfilenode(relation, persistence);
        let toast = (*(*relation).rd_rel).reltoastrelid;
        if toast != pg_sys::InvalidOid {
            let toast = pg_sys::relation_open(toast, pg_sys::AccessExclusiveLock as i32);
            pg_sys::RelationSetNewRelfilenode(toast, (*(*toast).rd_rel).relpersistence);
            pg_sys::relation_close(toast, pg_sys::NoLock as i32);
        }
        let mut options = pg_sys::ReindexParams::default();
        pg_sys::reindex_relation(
            relid,
            pg_sys::REINDEX_REL_PROCESS_TOAST as i32,
            &raw mut options,
        );
        pg_sys::pgstat_count_truncate(relation);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn copy_text_is_escaped() {
        let mut buffer = Vec::new();
        super::escape("a\tb\\\nä".as_bytes(), &mut buffer);
        assert_eq!(buffer, "a\\tb\\\\\\nä".as_bytes());
    }
}
