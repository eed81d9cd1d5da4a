//! Values from the wire into Datums. Common types are decoded here, in one allocation per row; the rest by their
//! own receive or input function.

use crate::error::{Error, Result};
use crate::executor::wire::Layout;
use crate::pg::encoding::DatabaseEncoding;
use crate::pg::types;
use crate::remote::Format;
use pgrx::pg_sys::{self, Datum, Oid};

/// How the columns of a result are read.
pub struct Decoder {
    columns: Vec<Column>,
    binary: bool,
    scratch: Vec<u8>,
    /// The values of the row that was decoded last by `decode_next`.
    row: Vec<u64>,
}

struct Column {
    layout: Layout,
    function: Box<pg_sys::FmgrInfo>,
    parameter: Oid,
}

impl Decoder {
    /// For columns of these types; binary when every type allows it.
    ///
    /// # Safety
    /// Called inside the server; look-up results live in the current memory context.
    pub unsafe fn new(type_oids: &[u32]) -> Decoder {
        let oids: Vec<Oid> = type_oids.iter().map(|t| Oid::from(*t)).collect();
        let binary = oids.iter().all(|t| types::binary_is_portable(*t));
        let columns = oids
            .iter()
            .map(|t| unsafe { Column::new(*t, binary) })
            .collect();
        Decoder {
            columns,
            binary,
            scratch: Vec::new(),
            row: Vec::new(),
        }
    }

    pub fn is_binary(&self) -> bool {
        self.binary
    }

    /// That in which it reads the columns.
    pub fn format(&self) -> Format {
        if self.binary {
            Format::Binary
        } else {
            Format::Text
        }
    }

    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Decodes a row into `values` and `nulls`; what is passed by reference lives in the current memory context.
    ///
    /// # Safety
    /// `values` and `nulls` have room for `width` entries.
    pub unsafe fn decode<'a>(
        &mut self,
        get: impl Fn(usize) -> Option<&'a [u8]>,
        values: *mut Datum,
        nulls: *mut bool,
    ) -> Result<()> {
        unsafe {
            let memory = match self.needed(&get) {
                0 => std::ptr::null_mut(),
                needed => pg_sys::palloc(needed).cast(),
            };
            self.decode_into(memory, get, values, nulls)
        }
    }

    /// The same for a row that is gone when the next comes: what is passed by reference lives until the next call, or
    /// in the current memory context.
    ///
    /// # Safety
    /// As above.
    pub unsafe fn decode_next<'a>(
        &mut self,
        get: impl Fn(usize) -> Option<&'a [u8]>,
        values: *mut Datum,
        nulls: *mut bool,
    ) -> Result<()> {
        let words = self.needed(&get).div_ceil(8);
        if words > self.row.len() {
            self.row.resize(words, 0);
        }
        let memory = self.row.as_mut_ptr().cast();
        unsafe { self.decode_into(memory, get, values, nulls) }
    }

    /// The bytes that `decode_into` fills.
    fn needed<'a>(&self, get: impl Fn(usize) -> Option<&'a [u8]>) -> usize {
        let mut needed = 0;
        for (index, column) in self.columns.iter().enumerate() {
            if column.layout == Layout::Bytes {
                needed += get(index).map_or(0, |bytes| aligned(bytes.len() + 4));
            }
        }
        needed
    }

    unsafe fn decode_into<'a>(
        &mut self,
        mut memory: *mut u8,
        get: impl Fn(usize) -> Option<&'a [u8]>,
        values: *mut Datum,
        nulls: *mut bool,
    ) -> Result<()> {
        unsafe {
            for (index, column) in self.columns.iter_mut().enumerate() {
                let Some(bytes) = get(index) else {
                    *nulls.add(index) = true;
                    *values.add(index) = if column.layout == Layout::Text {
                        column.input(None, &mut self.scratch)
                    } else {
                        Datum::from(0)
                    };
                    continue;
                };
                *nulls.add(index) = false;
                *values.add(index) = match column.layout {
                    Layout::Bool => Datum::from(fixed::<1>(bytes)?[0] != 0),
                    Layout::Int2 => Datum::from(i16::from_be_bytes(fixed(bytes)?)),
                    Layout::Int4 => Datum::from(i32::from_be_bytes(fixed(bytes)?)),
                    Layout::Int8 => Datum::from(i64::from_be_bytes(fixed(bytes)?)),
                    Layout::Float4 => Datum::from(u32::from_be_bytes(fixed(bytes)?)),
                    Layout::Bytes => {
                        let start = memory;
                        let size = bytes.len() + 4;
                        // A 4-byte varlena header on a little-endian machine: the length shifted by two.
                        start.cast::<u32>().write_unaligned((size as u32) << 2);
                        std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(4), bytes.len());
                        memory = memory.add(aligned(size));
                        Datum::from(start)
                    }
                    Layout::Binary => column.receive(bytes),
                    Layout::Text => column.input(Some(bytes), &mut self.scratch),
                };
            }
        }
        Ok(())
    }
}

fn aligned(size: usize) -> usize {
    (size + 7) & !7
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| {
        Error::new(
            crate::error::sqlstate::PROTOCOL_VIOLATION,
            format!("a node sent {} bytes where {N} were expected", bytes.len()),
        )
    })
}

impl Column {
    unsafe fn new(type_oid: Oid, binary: bool) -> Column {
        unsafe {
            let mut function: Box<pg_sys::FmgrInfo> = Box::new(std::mem::zeroed());
            let mut oid = pg_sys::InvalidOid;
            let mut parameter = pg_sys::InvalidOid;
            if binary {
                pg_sys::getTypeBinaryInputInfo(type_oid, &mut oid, &mut parameter);
            } else {
                pg_sys::getTypeInputInfo(type_oid, &mut oid, &mut parameter);
            }
            pg_sys::fmgr_info(oid, &mut *function);
            Column {
                // the base type's: the worker has checked a domain's constraints already
                layout: Layout::of(types::base_type(type_oid), binary),
                function,
                parameter,
            }
        }
    }

    unsafe fn receive(&mut self, bytes: &[u8]) -> Datum {
        let _encoding = DatabaseEncoding::enter();
        unsafe {
            let mut buffer: pg_sys::StringInfoData = std::mem::zeroed();
            buffer.data = bytes.as_ptr().cast_mut().cast();
            buffer.len = bytes.len() as i32;
            buffer.maxlen = bytes.len() as i32 + 1;
            pg_sys::ReceiveFunctionCall(&mut *self.function, &mut buffer, self.parameter, -1)
        }
    }

    unsafe fn input(&mut self, text: Option<&[u8]>, scratch: &mut Vec<u8>) -> Datum {
        let _nulls = ArrayNulls::on();
        unsafe {
            let text = match text {
                None => std::ptr::null_mut(),
                Some(text) => {
                    scratch.clear();
                    scratch.extend_from_slice(text);
                    scratch.push(0);
                    scratch.as_mut_ptr().cast()
                }
            };
            pg_sys::InputFunctionCall(&mut *self.function, text, self.parameter, -1)
        }
    }
}

/// `array_nulls` is on while this lives: output functions write NULL so, and on the nodes the setting is not the session's.
struct ArrayNulls(bool);

impl ArrayNulls {
    fn on() -> ArrayNulls {
        // SAFETY: a plain variable of this process.
        unsafe {
            let before = pg_sys::Array_nulls;
            pg_sys::Array_nulls = true;
            ArrayNulls(before)
        }
    }
}

impl Drop for ArrayNulls {
    fn drop(&mut self) {
        // SAFETY: as above; reached by unwinding as well.
        unsafe { pg_sys::Array_nulls = self.0 }
    }
}
