//! One row of a result, as slices of the message it came in, and the store of rows that had to be read ahead.

use super::libpq::{CopyData, PgResult};
use pgrx::pg_sys;
use std::cell::Cell;

/// A row; `get` is `None` for NULL and for a column that the result does not have.
pub struct Row(Source);

enum Source {
    None,
    /// A row still in the result that libpq made of it.
    Result {
        result: PgResult,
        columns: usize,
    },
    /// A row of COPY: its number of columns, then of each column the length (-1: NULL) and the bytes.
    Copied {
        data: Bytes,
        start: usize,
        /// The column that was looked up last, and where its length stands.
        place: Cell<(usize, usize)>,
    },
    /// A row that came through a store; see `Packed`.
    Packed(Vec<u8>),
}

enum Bytes {
    Received(CopyData),
    Own(Vec<u8>),
}

impl Bytes {
    #[inline]
    fn get(&self) -> &[u8] {
        match self {
            Bytes::Received(data) => data.bytes(),
            Bytes::Own(bytes) => bytes,
        }
    }
}

impl Row {
    pub(super) fn none() -> Row {
        Row(Source::None)
    }

    pub(super) fn of_result(result: PgResult) -> Row {
        let columns = result.columns();
        Row(Source::Result { result, columns })
    }

    /// A row that begins at `start` in a message of a binary COPY. None: it is the end marker.
    pub(super) fn of_copy(data: CopyData, start: usize) -> Option<Row> {
        let count = data.bytes().get(start..start + 2)?;
        if i16::from_be_bytes([count[0], count[1]]) < 0 {
            return None;
        }
        Some(Row::copied(Bytes::Received(data), start))
    }

    /// A line of a COPY in text format, whose values stay texts.
    pub(super) fn of_line(data: &CopyData) -> Row {
        Row::copied(Bytes::Own(line::columns(data.bytes())), 0)
    }

    fn copied(data: Bytes, start: usize) -> Row {
        Row(Source::Copied {
            data,
            start,
            place: Cell::new((0, start + 2)),
        })
    }

    /// The row as the body of a DataRow message has it, which is also how COPY in binary format has rows, if it came so.
    pub fn body(&self) -> Option<&[u8]> {
        match &self.0 {
            Source::Copied { data, start, .. } => data.get().get(*start..),
            _ => None,
        }
    }

    pub fn len(&self) -> usize {
        match &self.0 {
            Source::None => 0,
            Source::Copied { data, start, .. } => match data.get().get(*start..*start + 2) {
                Some(count) => u16::from_be_bytes([count[0], count[1]]) as usize,
                None => 0,
            },
            Source::Result { columns, .. } => *columns,
            Source::Packed(bytes) => packed::columns(bytes),
        }
    }

    #[inline]
    pub fn get(&self, column: usize) -> Option<&[u8]> {
        match &self.0 {
            Source::None => None,
            Source::Result { result, columns } => {
                if column < *columns {
                    result.value(0, column)
                } else {
                    None
                }
            }
            Source::Copied { data, start, place } => {
                copied_column(data.get(), *start, place, column)
            }
            Source::Packed(bytes) => packed::get(bytes, column),
        }
    }

    /// Bytes of all values.
    pub(super) fn size(&self) -> u64 {
        (0..self.len())
            .filter_map(|column| self.get(column))
            .map(|value| value.len() as u64)
            .sum()
    }
}

/// A column of a binary COPY row; columns are asked for in order mostly, so the last place is remembered.
#[inline]
fn copied_column<'a>(
    bytes: &'a [u8],
    start: usize,
    place: &Cell<(usize, usize)>,
    column: usize,
) -> Option<&'a [u8]> {
    let (mut at, mut offset) = place.get();
    if at > column {
        (at, offset) = (0, start + 2);
    }
    loop {
        let length = bytes.get(offset..offset + 4)?;
        let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        if at == column {
            place.set((at, offset));
            let length = usize::try_from(length).ok()?;
            return bytes.get(offset + 4..offset + 4 + length);
        }
        offset += 4 + length.max(0) as usize;
        at += 1;
    }
}

/// Lines of COPY in text format, as COPY TO writes them: values between tabs, `\\N` for NULL, one newline at the end.
mod line {
    /// The line's values as `Source::Copied` has them.
    pub fn columns(line: &[u8]) -> Vec<u8> {
        let mut rest = line.strip_suffix(b"\n").unwrap_or(line);
        let mut out = Vec::with_capacity(rest.len() + 64);
        let mut columns = 0u16;
        out.extend_from_slice(&[0; 2]);
        loop {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            let (null, after) = value(rest, &mut out);
            let length = if null {
                -1
            } else {
                (out.len() - start - 4) as i32
            };
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            columns += 1;
            match after {
                Some(after) => rest = after,
                None => break,
            }
        }
        out[..2].copy_from_slice(&columns.to_be_bytes());
        out
    }

    /// Appends the first value; whether it is NULL, and what comes after its tab.
    fn value<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> (bool, Option<&'a [u8]>) {
        loop {
            let Some(at) = memchr::memchr2(b'\t', b'\\', rest) else {
                out.extend_from_slice(rest);
                return (false, None);
            };
            out.extend_from_slice(&rest[..at]);
            if rest[at] == b'\t' {
                return (false, Some(&rest[at + 1..]));
            }
            let Some(escaped) = rest.get(at + 1) else {
                return (false, None);
            };
            rest = &rest[at + 2..];
            match escaped {
                // in a value this letter is never escaped
                b'N' => return (true, rest.strip_prefix(b"\t")),
                b'b' => out.push(8),
                b'f' => out.push(12),
                b'n' => out.push(b'\n'),
                b'r' => out.push(b'\r'),
                b't' => out.push(b'\t'),
                b'v' => out.push(11),
                other => out.push(*other),
            }
        }
    }
}

/// Rows as plain bytes: number of columns, then per column where its value ends (with the highest bit: NULL), then
/// the values. All numbers are four bytes.
mod packed {
    const NULL: u32 = 1 << 31;

    fn word(bytes: &[u8], index: usize) -> u32 {
        match bytes.get(index * 4..index * 4 + 4) {
            Some(b) => u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            None => 0,
        }
    }

    pub fn columns(bytes: &[u8]) -> usize {
        word(bytes, 0) as usize
    }

    pub fn get(bytes: &[u8], column: usize) -> Option<&[u8]> {
        let columns = columns(bytes);
        if column >= columns {
            return None;
        }
        let end = word(bytes, column + 1);
        if end & NULL != 0 {
            return None;
        }
        let start = if column == 0 {
            0
        } else {
            word(bytes, column) & !NULL
        };
        let values = (columns + 1) * 4;
        bytes.get(values + start as usize..values + end as usize)
    }

    /// Appends a row, preceded by its length.
    pub fn push<'a>(
        bytes: &mut Vec<u8>,
        columns: usize,
        value: impl Fn(usize) -> Option<&'a [u8]>,
    ) {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(columns as u32).to_ne_bytes());
        let ends = bytes.len();
        bytes.resize(ends + columns * 4, 0);
        let mut end = 0u32;
        for column in 0..columns {
            let mark = match value(column) {
                Some(v) => {
                    bytes.extend_from_slice(v);
                    end += v.len() as u32;
                    end
                }
                None => end | NULL,
            };
            bytes[ends + column * 4..ends + column * 4 + 4].copy_from_slice(&mark.to_ne_bytes());
        }
        let length = (bytes.len() - start - 4) as u32;
        bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

thread_local! {
    /// Bytes in the memory of all stores of this session.
    static IN_MEMORY: Cell<usize> = const { Cell::new(0) };
}

/// A store spills in pieces of at least this many bytes.
const SPILL_PIECE: usize = 64 * 1024;

/// First in, first out; in memory as long as all stores together fit into `work_mem`, beyond that in a temporary file.
#[derive(Default)]
pub struct RowStore {
    head: Vec<u8>,
    head_read: usize,
    file: Option<SpillFile>,
    tail: Vec<u8>,
    rows: u64,
}

impl RowStore {
    /// Adds row `row` of a result. May raise when a temporary file cannot be written.
    pub fn push(&mut self, result: &PgResult, row: usize) {
        let before = self.tail.len();
        packed::push(&mut self.tail, result.columns(), |column| {
            result.value(row, column)
        });
        self.note_growth(before);
    }

    fn note_growth(&mut self, before: usize) {
        self.rows += 1;
        let total = IN_MEMORY.get() + self.tail.len() - before;
        IN_MEMORY.set(total);
        // SAFETY: a server variable, in kilobytes.
        let limit = unsafe { pg_sys::work_mem } as usize * 1024;
        if total > limit && self.tail.len() >= SPILL_PIECE {
            self.file
                .get_or_insert_with(SpillFile::create)
                .append(&self.tail);
            IN_MEMORY.set(IN_MEMORY.get() - self.tail.len());
            self.tail = Vec::new();
        }
    }

    /// Adds a row that nobody has asked for yet. May raise when a temporary file cannot be written.
    pub fn push_row(&mut self, row: &Row) {
        let before = self.tail.len();
        packed::push(&mut self.tail, row.len(), |column| row.get(column));
        self.note_growth(before);
    }

    /// Takes the next row out. May raise when a temporary file cannot be read.
    pub fn pop(&mut self, into: &mut Row) -> bool {
        if self.rows == 0 {
            return false;
        }
        if self.head_read == self.head.len() {
            self.refill();
        }
        let Some(length) = self.head.get(self.head_read..self.head_read + 4) else {
            return false;
        };
        let length = u32::from_ne_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let start = self.head_read + 4;
        let bytes = &self.head[start..start + length];
        match &mut into.0 {
            Source::Packed(old) => {
                old.clear();
                old.extend_from_slice(bytes);
            }
            other => *other = Source::Packed(bytes.to_vec()),
        }
        self.head_read = start + length;
        self.rows -= 1;
        true
    }

    fn refill(&mut self) {
        let freed = self.head.len();
        self.head_read = 0;
        match self.file.as_mut().and_then(SpillFile::next_piece) {
            Some(piece) => {
                self.head = piece;
                IN_MEMORY.set(IN_MEMORY.get() + self.head.len());
            }
            None => {
                self.file = None;
                self.head = std::mem::take(&mut self.tail);
            }
        }
        IN_MEMORY.set(IN_MEMORY.get().saturating_sub(freed));
    }

    pub fn clear(&mut self) {
        let memory = self.head.len() + self.tail.len();
        IN_MEMORY.set(IN_MEMORY.get().saturating_sub(memory));
        self.head = Vec::new();
        self.tail = Vec::new();
        self.head_read = 0;
        self.file = None;
        self.rows = 0;
    }
}

impl Drop for RowStore {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A temporary file of pieces, each as long as it was written. It belongs to no resource owner: a store may outlive
/// the portal or subtransaction in which it was made, and closes its file itself.
struct SpillFile {
    file: *mut pg_sys::BufFile,
    /// Lengths of the pieces not read yet.
    pieces: std::collections::VecDeque<usize>,
    write: (i32, pg_sys::off_t),
    read: (i32, pg_sys::off_t),
}

const SEEK_SET: i32 = 0;

impl SpillFile {
    fn create() -> SpillFile {
        // SAFETY: the file's memory must live as long as this value, so it is made in TopMemoryContext.
        let file = unsafe {
            pg_sys::PrepareTempTablespaces();
            let old = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let file = pg_sys::BufFileCreateTemp(true);
            pg_sys::MemoryContextSwitchTo(old);
            file
        };
        SpillFile {
            file,
            pieces: Default::default(),
            write: (0, 0),
            read: (0, 0),
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        // SAFETY: an open file; BufFileWrite reads `bytes` only. It may allocate segments, so in TopMemoryContext.
        unsafe {
            let old = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            pg_sys::BufFileSeek(self.file, self.write.0, self.write.1, SEEK_SET);
            pg_sys::BufFileWrite(self.file, bytes.as_ptr().cast_mut().cast(), bytes.len());
            pg_sys::BufFileTell(self.file, &mut self.write.0, &mut self.write.1);
            pg_sys::MemoryContextSwitchTo(old);
        }
        self.pieces.push_back(bytes.len());
    }

    fn next_piece(&mut self) -> Option<Vec<u8>> {
        let length = self.pieces.pop_front()?;
        let mut bytes = vec![0; length];
        // SAFETY: an open file, and as many bytes as asked.
        let read = unsafe {
            pg_sys::BufFileSeek(self.file, self.read.0, self.read.1, SEEK_SET);
            let read = pg_sys::BufFileRead(self.file, bytes.as_mut_ptr().cast(), length);
            pg_sys::BufFileTell(self.file, &mut self.read.0, &mut self.read.1);
            read
        };
        if read != length {
            crate::error::Error::internal("a temporary file of remote rows ended early").raise();
        }
        Some(bytes)
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        // SAFETY: closes and deletes; problems are logged, not raised.
        unsafe { pg_sys::BufFileClose(self.file) }
    }
}

#[cfg(test)]
mod tests {
    use super::{line, packed};

    fn values(line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let columns = line::columns(line);
        let row = super::Row::copied(super::Bytes::Own(columns), 0);
        (0..row.len())
            .map(|column| row.get(column).map(<[u8]>::to_vec))
            .collect()
    }

    #[test]
    fn a_line_of_copy_gives_its_values() {
        let text = |value: &str| Some(value.as_bytes().to_vec());
        assert_eq!(values(b"one\t2\n"), [text("one"), text("2")]);
        assert_eq!(values(b"\\N\t\t\\N\n"), [None, text(""), None]);
        assert_eq!(values(b"\n"), [text("")]);
        assert_eq!(values(b"\\N\n"), [None]);
        let escaped = [text("\\N"), text("a\tb\\")];
        assert_eq!(values(b"\\\\N\ta\\tb\\\\\n"), escaped);
        let escaped = [text("\u{8}\u{c}\n\r\u{b}."), text("")];
        assert_eq!(values(b"\\b\\f\\n\\r\\v\\.\t\n"), escaped);
    }

    #[test]
    fn a_packed_row_gives_back_its_values() {
        let values: [Option<&[u8]>; 5] = [Some(b"one"), None, Some(b""), Some(b"four"), None];
        let mut bytes = Vec::new();
        packed::push(&mut bytes, values.len(), |column| values[column]);
        let row = &bytes[4..];
        assert_eq!(bytes[..4], (row.len() as u32).to_ne_bytes());
        assert_eq!(packed::columns(row), values.len());
        for (column, value) in values.iter().enumerate() {
            assert_eq!(packed::get(row, column), *value);
        }
        assert_eq!(packed::get(row, values.len()), None);
    }
}
