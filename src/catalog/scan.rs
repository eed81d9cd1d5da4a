//! Index scans of the extension's catalogs, as PostgreSQL scans its own: no SPI, the newest snapshot.

use pgrx::pg_sys;

/// A row of a catalog; Datums point into the scanned page and are good until the visitor returns.
pub struct Row {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    /// The row's address, to update or delete it.
    pub tid: pg_sys::ItemPointerData,
}

impl Row {
    pub fn datum(&self, attribute: i16) -> Option<pg_sys::Datum> {
        let i = attribute as usize - 1;
        (!self.nulls[i]).then(|| self.values[i])
    }

    /// The value of a column; none for NULL.
    pub fn get<T: pgrx::FromDatum>(&self, attribute: i16) -> Option<T> {
        let datum = self.datum(attribute)?;
        // SAFETY: the callers name the type that sql/catalog.sql gives the column.
        unsafe { T::from_datum(datum, false) }
    }

    /// Copies of the columns and which of them are NULL.
    pub fn parts(&self) -> (Vec<pg_sys::Datum>, Vec<bool>) {
        (self.values.clone(), self.nulls.clone())
    }

    pub fn name(&self, attribute: i16) -> Option<String> {
        let datum = self.datum(attribute)?;
        // SAFETY: the column is of type name, whose Datum is the address of a NUL-terminated string.
        Some(
            unsafe { std::ffi::CStr::from_ptr(datum.cast_mut_ptr()) }
                .to_string_lossy()
                .into_owned(),
        )
    }
}

/// An equality on one column of an index.
pub struct Equal {
    pub attribute: i16,
    pub function: u32,
    pub value: pg_sys::Datum,
}

/// Visits the rows that match, in any order.
pub fn scan(
    table: pg_sys::Oid,
    index: pg_sys::Oid,
    equal: Option<Equal>,
    lock: pg_sys::LOCKMODE,
    visit: impl FnMut(pg_sys::Relation, &Row),
) {
    scan_by(table, index, equal.as_slice(), lock, visit)
}

/// The same with an equality on each of the first columns of the index.
pub fn scan_by(
    table: pg_sys::Oid,
    index: pg_sys::Oid,
    equal: &[Equal],
    lock: pg_sys::LOCKMODE,
    mut visit: impl FnMut(pg_sys::Relation, &Row),
) {
    // SAFETY: systable_* as genam.c documents it; on error the resource owner closes everything.
    unsafe {
        let relation = pg_sys::table_open(table, lock);
        let descriptor = (*relation).rd_att;
        let natts = (*descriptor).natts as usize;
        let mut keys: Vec<pg_sys::ScanKeyData> = Vec::with_capacity(equal.len());
        for equal in equal {
            let mut key: pg_sys::ScanKeyData = std::mem::zeroed();
            pg_sys::ScanKeyInit(
                &mut key,
                equal.attribute,
                pg_sys::BTEqualStrategyNumber as u16,
                pg_sys::Oid::from(equal.function),
                equal.value,
            );
            keys.push(key);
        }
        let scan = pg_sys::systable_beginscan(
            relation,
            index,
            true,
            std::ptr::null_mut(),
            keys.len() as i32,
            keys.as_mut_ptr(),
        );
        let mut row = Row {
            values: vec![pg_sys::Datum::null(); natts],
            nulls: vec![true; natts],
            tid: Default::default(),
        };
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            pg_sys::heap_deform_tuple(
                tuple,
                descriptor,
                row.values.as_mut_ptr(),
                row.nulls.as_mut_ptr(),
            );
            row.tid = (*tuple).t_self;
            visit(relation, &row);
        }
        pg_sys::systable_endscan(scan);
        // A lock for writing is kept until the end of the transaction.
        let keep = lock != pg_sys::AccessShareLock as i32;
        pg_sys::table_close(relation, if keep { pg_sys::NoLock as i32 } else { lock });
    }
}
