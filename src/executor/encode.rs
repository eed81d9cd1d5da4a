//! Datums onto the wire: parameters, and arrays of them for many rows at once.

use crate::executor::wire::Layout;
use crate::pg::encoding::DatabaseEncoding;
use crate::planner::plan::{InsertColumn, ParamType};
use crate::remote::Params;
use pgrx::pg_sys::{self, Datum, Oid};

/// Writes values of one type in the format that its parameter declares.
pub struct Encoder {
    layout: Layout,
    function: Box<pg_sys::FmgrInfo>,
    pub binary: bool,
}

impl Encoder {
    /// # Safety
    /// Called inside the server; look-up results live in the current memory context.
    pub unsafe fn new(param: &ParamType) -> Encoder {
        let type_oid = Oid::from(param.value);
        unsafe {
            let mut function: Box<pg_sys::FmgrInfo> = Box::new(std::mem::zeroed());
            let mut oid = pg_sys::InvalidOid;
            let mut is_varlena = false;
            if param.binary {
                pg_sys::getTypeBinaryOutputInfo(type_oid, &mut oid, &mut is_varlena);
            } else {
                pg_sys::getTypeOutputInfo(type_oid, &mut oid, &mut is_varlena);
            }
            pg_sys::fmgr_info(oid, &mut *function);
            Encoder {
                layout: Layout::of(type_oid, param.binary),
                function,
                binary: param.binary,
            }
        }
    }

    /// Appends the value's bytes.
    ///
    /// # Safety
    /// `value` is a non-null value of the encoder's type.
    pub unsafe fn write(&mut self, value: Datum, out: &mut Vec<u8>) {
        unsafe {
            match self.layout {
                Layout::Bool => out.push(u8::from(value.value() as u8 != 0)),
                Layout::Int2 => out.extend_from_slice(&(value.value() as i16).to_be_bytes()),
                Layout::Int4 => out.extend_from_slice(&(value.value() as i32).to_be_bytes()),
                Layout::Int8 => out.extend_from_slice(&(value.value() as i64).to_be_bytes()),
                Layout::Float4 => out.extend_from_slice(&(value.value() as u32).to_be_bytes()),
                Layout::Bytes => {
                    let original = value.cast_mut_ptr::<pg_sys::varlena>();
                    let plain = pg_sys::pg_detoast_datum_packed(original);
                    let length = pgrx::varlena::varsize_any_exhdr(plain);
                    let data = pgrx::varlena::vardata_any(plain).cast::<u8>();
                    out.extend_from_slice(std::slice::from_raw_parts(data, length));
                    if plain != original {
                        pg_sys::pfree(plain.cast());
                    }
                }
                Layout::Binary => {
                    let _encoding = DatabaseEncoding::enter();
                    let bytes = pg_sys::SendFunctionCall(&mut *self.function, value)
                        .cast::<pg_sys::varlena>();
                    let length = pgrx::varlena::varsize_any_exhdr(bytes);
                    let data = pgrx::varlena::vardata_any(bytes).cast::<u8>();
                    out.extend_from_slice(std::slice::from_raw_parts(data, length));
                    pg_sys::pfree(bytes.cast());
                }
                Layout::Text => {
                    let text = pg_sys::OutputFunctionCall(&mut *self.function, value);
                    out.extend_from_slice(std::ffi::CStr::from_ptr(text).to_bytes());
                    pg_sys::pfree(text.cast());
                }
            }
        }
    }
}

/// A one-dimensional array in PostgreSQL's binary format (`array_recv`), built element by element.
pub struct ArrayBuilder {
    bytes: Vec<u8>,
    count: i32,
    has_null: bool,
}

const ARRAY_HEADER: usize = 20;

impl ArrayBuilder {
    pub fn new(element: u32) -> ArrayBuilder {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&1i32.to_be_bytes());
        bytes.extend_from_slice(&0i32.to_be_bytes());
        bytes.extend_from_slice(&element.to_be_bytes());
        bytes.extend_from_slice(&0i32.to_be_bytes());
        bytes.extend_from_slice(&1i32.to_be_bytes());
        ArrayBuilder {
            bytes,
            count: 0,
            has_null: false,
        }
    }

    pub fn push_null(&mut self) {
        self.bytes.extend_from_slice(&(-1i32).to_be_bytes());
        self.has_null = true;
        self.count += 1;
    }

    /// Appends the element that `write` puts into the buffer.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        write(&mut self.bytes);
        let length = (self.bytes.len() - at - 4) as i32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
        self.count += 1;
    }

    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[4..8].copy_from_slice(&i32::from(self.has_null).to_be_bytes());
        self.bytes[12..16].copy_from_slice(&self.count.to_be_bytes());
        debug_assert!(self.bytes.len() >= ARRAY_HEADER);
        self.bytes
    }
}

/// The values of some columns of many rows.
pub struct Arrays(Vec<ArrayBuilder>);

impl Arrays {
    pub fn new(columns: &[InsertColumn]) -> Arrays {
        let arrays = columns
            .iter()
            .map(|column| ArrayBuilder::new(column.element));
        Arrays(arrays.collect())
    }

    /// Adds a row; `value` answers what it has at the source of a column. Answers by how many bytes the arrays grew.
    ///
    /// # Safety
    /// The columns are those of the arrays, and their encoders; the values are of their types.
    pub unsafe fn add(
        &mut self,
        columns: &[InsertColumn],
        encoders: &mut [Encoder],
        value: impl Fn(usize) -> Option<Datum>,
    ) -> usize {
        let mut grown = 0;
        for ((column, array), encoder) in columns.iter().zip(&mut self.0).zip(encoders) {
            let before = array.size();
            match value(column.source) {
                None => array.push_null(),
                Some(value) => array.push(|out| unsafe { encoder.write(value, out) }),
            }
            grown += array.size() - before;
        }
        grown
    }

    /// Hands the values over to a statement.
    pub fn finish(self, columns: &[InsertColumn], params: &mut Params) {
        for (column, array) in columns.iter().zip(self.0) {
            // SAFETY: a syscache look-up.
            let array_type = unsafe { pg_sys::get_array_type(Oid::from(column.element)) };
            params.push(array_type, array.finish());
        }
    }
}

/// Encoders of columns.
///
/// # Safety
/// As `Encoder::new`.
pub unsafe fn encoders<'a>(columns: impl IntoIterator<Item = &'a InsertColumn>) -> Vec<Encoder> {
    columns
        .into_iter()
        .map(|column| unsafe { Encoder::new(&column.travels()) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::ArrayBuilder;

    #[test]
    fn arrays_are_laid_out_as_array_recv_reads_them() {
        let mut array = ArrayBuilder::new(23);
        array.push(|out| out.extend_from_slice(&7i32.to_be_bytes()));
        array.push_null();
        let bytes = array.finish();
        assert_eq!(
            bytes[..20],
            [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23, 0, 0, 0, 2, 0, 0, 0, 1]
        );
        assert_eq!(bytes[20..], [0, 0, 0, 4, 0, 0, 0, 7, 255, 255, 255, 255]);
    }
}
