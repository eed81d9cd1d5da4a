//! The statistics of one column or index expression: PostgreSQL's own functions compute them from sampled values, as
//! `do_analyze_rel` has them do, and they are written to `pg_statistic` as `update_attstats` does.

use super::sample::Values;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

/// What is to be analysed.
pub struct Attribute {
    stats: *mut pg_sys::VacAttrStats,
    /// The table, or the index of an expression.
    relid: Oid,
    /// In SQL, over the table's columns.
    pub expression: String,
    pub type_oid: Oid,
    /// Sampled rows that the statistics target asks for.
    pub wanted_rows: i32,
    pub widths: Widths,
    /// Short values are stored with a header of one byte, and so counted.
    pub packed: bool,
}

/// Which values are not looked at, so that they need not be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Widths {
    All,
    /// The analysis only counts wide values, whatever they are.
    WideAreCounted,
    /// The type's own analysis reads every value; beyond a limit they count as NULL.
    HugeAreNull,
}

#[repr(C)]
struct AttributeOptions {
    length: i32,
    n_distinct: f64,
    n_distinct_inherited: f64,
}

extern "C-unwind" {
    // utils/attoptcache.h, not in pgrx's bindings
    fn get_attribute_options(relid: Oid, attnum: c_int) -> *mut AttributeOptions;
}

impl Attribute {
    /// `examine_attribute` of analyze.c; none: the column is dropped, its statistics target is 0, or its type has none.
    /// For an index, `expression` is the indexed one.
    ///
    /// # Safety
    /// `relation` is open and has the attribute; what is allocated lives in the current memory context, which must
    /// outlive the `Attribute`.
    pub unsafe fn examine(
        relation: pg_sys::Relation,
        attnum: i16,
        expression: *mut pg_sys::Node,
        sql: String,
    ) -> Option<Attribute> {
        let description = (*relation).rd_att;
        let attribute = (*description).attrs.as_mut_ptr().add(attnum as usize - 1);
        if (*attribute).attisdropped || (*attribute).attstattarget == 0 {
            return None;
        }
        let stats = pg_sys::palloc0(std::mem::size_of::<pg_sys::VacAttrStats>())
            .cast::<pg_sys::VacAttrStats>();
        let copy = pg_sys::palloc0(std::mem::size_of::<pg_sys::FormData_pg_attribute>())
            .cast::<pg_sys::FormData_pg_attribute>();
        std::ptr::copy_nonoverlapping(attribute, copy, 1);
        (*stats).attr = copy;
        if expression.is_null() {
            (*stats).attrtypid = (*copy).atttypid;
            (*stats).attrtypmod = (*copy).atttypmod;
            (*stats).attrcollid = (*copy).attcollation;
        } else {
            (*stats).attrtypid = pg_sys::exprType(expression);
            (*stats).attrtypmod = pg_sys::exprTypmod(expression);
            let collation = *(*relation).rd_indcollation.add(attnum as usize - 1);
            (*stats).attrcollid = if collation == pg_sys::InvalidOid {
                pg_sys::exprCollation(expression)
            } else {
                collation
            };
        }
        let tuple = pg_sys::SearchSysCacheCopy(
            pg_sys::SysCacheIdentifier::TYPEOID as i32,
            (*stats).attrtypid.into(),
            Datum::null(),
            Datum::null(),
            Datum::null(),
        );
        if tuple.is_null() {
            return None;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
        (*stats).attrtype = form;
        (*stats).anl_context = pg_sys::CurrentMemoryContext;
        (*stats).tupattnum = c_int::from(attnum);
        for slot in 0..pg_sys::STATISTIC_NUM_SLOTS as usize {
            (*stats).statypid[slot] = (*stats).attrtypid;
            (*stats).statyplen[slot] = (*form).typlen;
            (*stats).statypbyval[slot] = (*form).typbyval;
            (*stats).statypalign[slot] = (*form).typalign;
        }
        let own = (*form).typanalyze;
        let has_statistics = if own == pg_sys::InvalidOid {
            pg_sys::std_typanalyze(stats)
        } else {
            pg_sys::OidFunctionCall1Coll(own, pg_sys::InvalidOid, Datum::from(stats)).value() != 0
        };
        if !has_statistics || (*stats).compute_stats.is_none() || (*stats).minrows <= 0 {
            return None;
        }
        let widths = if (*form).typlen != -1 {
            Widths::All
        } else if own == pg_sys::InvalidOid || own == Oid::from(pg_sys::F_ARRAY_TYPANALYZE) {
            Widths::WideAreCounted
        } else {
            Widths::HugeAreNull
        };
        Some(Attribute {
            stats,
            relid: (*relation).rd_id,
            expression: sql,
            type_oid: (*stats).attrtypid,
            wanted_rows: (*stats).minrows,
            widths,
            packed: expression.is_null()
                && (*form).typlen == -1
                && (*copy).attstorage as u8 != pg_sys::TYPSTORAGE_PLAIN,
        })
    }

    /// Computes the statistics of a table of `total_rows` from a sample of the values.
    ///
    /// # Safety
    /// The values are of the attribute's type and live in memory that lasts as long as this call.
    pub unsafe fn compute(&mut self, values: &mut Values, total_rows: f64) {
        let stats = self.stats;
        (*stats).exprvals = values.datums.as_mut_ptr();
        (*stats).exprnulls = values.nulls.as_mut_ptr();
        (*stats).rowstride = 1;
        let rows = values.datums.len() as c_int;
        if let Some(compute) = (*stats).compute_stats {
            pg_sys::ffi::pg_guard_ffi_boundary(|| compute(stats, Some(fetch), rows, total_rows));
        }
        let options = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            get_attribute_options(self.relid, c_int::from((*(*stats).attr).attnum))
        });
        if let Some(options) = options.as_ref().filter(|o| o.n_distinct != 0.0) {
            (*stats).stadistinct = options.n_distinct as f32;
        }
        // the order in which rows arrive says nothing about where they lie
        for slot in 0..pg_sys::STATISTIC_NUM_SLOTS as usize {
            if (*stats).stakind[slot] == pg_sys::STATISTIC_KIND_CORRELATION as i16 {
                (*stats).stakind[slot] = 0;
                (*stats).staop[slot] = pg_sys::InvalidOid;
                (*stats).stacoll[slot] = pg_sys::InvalidOid;
                (*stats).numnumbers[slot] = 0;
            }
        }
    }

    /// Writes what was computed in place of what `pg_statistic` has.
    ///
    /// # Safety
    /// `statistics` is `pg_statistic`, open and locked for writing.
    pub unsafe fn store(&self, statistics: pg_sys::Relation) {
        let stats = &*self.stats;
        if !stats.stats_valid {
            return;
        }
        const COLUMNS: usize = pg_sys::Natts_pg_statistic as usize;
        let mut values = [Datum::null(); COLUMNS];
        let mut nulls = [false; COLUMNS];
        let mut replaces = [true; COLUMNS];
        let attnum = (*stats.attr).attnum;
        let mut set = |column: u32, value: Option<Datum>| {
            let index = column as usize - 1;
            nulls[index] = value.is_none();
            values[index] = value.unwrap_or(Datum::null());
        };
        set(pg_sys::Anum_pg_statistic_starelid, Some(self.relid.into()));
        set(pg_sys::Anum_pg_statistic_staattnum, Some(attnum.into()));
        set(pg_sys::Anum_pg_statistic_stainherit, Some(false.into()));
        set(
            pg_sys::Anum_pg_statistic_stanullfrac,
            Some(float4(stats.stanullfrac)),
        );
        set(
            pg_sys::Anum_pg_statistic_stawidth,
            Some(stats.stawidth.into()),
        );
        set(
            pg_sys::Anum_pg_statistic_stadistinct,
            Some(float4(stats.stadistinct)),
        );
        for slot in 0..pg_sys::STATISTIC_NUM_SLOTS {
            let i = slot as usize;
            set(
                pg_sys::Anum_pg_statistic_stakind1 + slot,
                Some(stats.stakind[i].into()),
            );
            set(
                pg_sys::Anum_pg_statistic_staop1 + slot,
                Some(stats.staop[i].into()),
            );
            set(
                pg_sys::Anum_pg_statistic_stacoll1 + slot,
                Some(stats.stacoll[i].into()),
            );
            set(
                pg_sys::Anum_pg_statistic_stanumbers1 + slot,
                numbers(stats, i),
            );
            set(pg_sys::Anum_pg_statistic_stavalues1 + slot, most(stats, i));
        }
        let before = pg_sys::SearchSysCache3(
            pg_sys::SysCacheIdentifier::STATRELATTINH as i32,
            self.relid.into(),
            attnum.into(),
            false.into(),
        );
        let tuple = if before.is_null() {
            let tuple = pg_sys::heap_form_tuple(
                (*statistics).rd_att,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            pg_sys::CatalogTupleInsert(statistics, tuple);
            tuple
        } else {
            let tuple = pg_sys::heap_modify_tuple(
                before,
                (*statistics).rd_att,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                replaces.as_mut_ptr(),
            );
            pg_sys::ReleaseSysCache(before);
            pg_sys::CatalogTupleUpdate(statistics, &raw mut (*tuple).t_self, tuple);
            tuple
        };
        pg_sys::heap_freetuple(tuple);
    }
}

fn float4(value: f32) -> Datum {
    Datum::from(value.to_bits())
}

/// The slot's numbers as an array of float4.
unsafe fn numbers(stats: &pg_sys::VacAttrStats, slot: usize) -> Option<Datum> {
    let count = stats.numnumbers[slot];
    if count <= 0 {
        return None;
    }
    let numbers = std::slice::from_raw_parts(stats.stanumbers[slot], count as usize);
    let mut datums: Vec<Datum> = numbers.iter().map(|number| float4(*number)).collect();
    let array = pg_sys::construct_array(
        datums.as_mut_ptr(),
        count,
        pg_sys::FLOAT4OID,
        4,
        true,
        pg_sys::TYPALIGN_INT as std::ffi::c_char,
    );
    Some(Datum::from(array))
}

/// The slot's values as an array.
unsafe fn most(stats: &pg_sys::VacAttrStats, slot: usize) -> Option<Datum> {
    let count = stats.numvalues[slot];
    (count > 0).then(|| {
        Datum::from(pg_sys::construct_array(
            stats.stavalues[slot],
            count,
            stats.statypid[slot],
            i32::from(stats.statyplen[slot]),
            stats.statypbyval[slot],
            stats.statypalign[slot],
        ))
    })
}

/// How the computing functions get at the sampled values; as `ind_fetch_func` of analyze.c.
///
/// # Safety
/// Called back by `compute_stats` with what `compute` has set and a row within the sample.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn fetch(
    stats: pg_sys::VacAttrStatsP,
    row: c_int,
    is_null: *mut bool,
) -> Datum {
    let index = row as usize * (*stats).rowstride as usize;
    *is_null = *(*stats).exprnulls.add(index);
    *(*stats).exprvals.add(index)
}
