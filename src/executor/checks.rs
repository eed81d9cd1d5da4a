//! Conditions that policies and views put on rows, and constraints of the table that are looked at here. The errors are
//! PostgreSQL's own: it knows which columns of a row somebody may be shown.

use crate::error::Result;
use crate::pg::{list, node};
use crate::planner::plan::{CheckKind, RowCheck};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::CStr;

unsafe extern "C-unwind" {
    // executor/nodeModifyTable.h, not in pgrx's bindings
    fn ExecComputeStoredGenerated(
        info: *mut pg_sys::ResultRelInfo,
        estate: *mut pg_sys::EState,
        slot: *mut pg_sys::TupleTableSlot,
        command: pg_sys::CmdType::Type,
    );
}

/// Fails unless the value of a check's condition says that the row is fine.
///
/// # Safety
/// `value` is one of the condition, `estate` that of the statement.
pub unsafe fn examine(
    check: &RowCheck,
    value: Option<Datum>,
    estate: *mut pg_sys::EState,
) -> Result<()> {
    unsafe {
        match (check.kind, value) {
            (CheckKind::NewRowOfView, None) => Ok(()),
            (CheckKind::NewRowOfView, Some(row)) => forbidden_by_view(
                check,
                CStr::from_ptr(pg_sys::text_to_cstring(row.cast_mut_ptr())),
                estate,
            ),
            (_, Some(holds)) if holds.value() as u8 != 0 => Ok(()),
            _ => Err(check.violation()),
        }
    }
}

/// Raises what ExecWithCheckOptions says of a new row that a view does not allow, given as text. PostgreSQL looks at
/// constraints before.
///
/// # Safety
/// `estate` is that of the statement.
pub unsafe fn forbidden_by_view(
    check: &RowCheck,
    row: &CStr,
    estate: *mut pg_sys::EState,
) -> Result<()> {
    unsafe {
        let table = Constraints::of(Oid::from(check.table), estate);
        let record_in = Oid::from(pg_sys::F_RECORD_IN);
        let row_type = pg_sys::get_rel_type_id(Oid::from(check.table));
        let text = row.as_ptr().cast_mut();
        let value = pg_sys::OidInputFunctionCall(record_in, text, row_type, -1);
        pg_sys::ExecStoreHeapTupleDatum(value, table.slot);
        pg_sys::ExecConstraints(table.info, table.slot, estate);
        let option = node::make::<pg_sys::WithCheckOption>();
        (*option).kind = pg_sys::WCOKind::WCO_VIEW_CHECK;
        (*option).relname = node::pstrdup(&check.relation);
        let never = list::from([pg_sys::makeBoolConst(false, false)]);
        let never = pg_sys::ExecInitQual(never, std::ptr::null_mut());
        (*table.info).ri_WithCheckOptions = list::from([option]);
        (*table.info).ri_WithCheckOptionExprs = list::from([never]);
        pg_sys::ExecWithCheckOptions((*option).kind, table.info, table.slot, estate);
        Err(check.violation())
    }
}

/// A table's constraints.
pub struct Constraints {
    relation: pg_sys::Relation,
    info: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
}

impl Constraints {
    /// # Safety
    /// `estate` is that of a statement that changes the table.
    pub unsafe fn of(relid: Oid, estate: *mut pg_sys::EState) -> Constraints {
        unsafe {
            let relation = pg_sys::table_open(relid, pg_sys::RowExclusiveLock as i32);
            let info = node::make::<pg_sys::ResultRelInfo>();
            // errors show the columns that the statement gives, whoever may read them
            let entries = list::iter::<pg_sys::RangeTblEntry>((*estate).es_range_table);
            let changed = entries.enumerate().find(|(_, rte)| {
                let given = !(**rte).insertedCols.is_null() || !(**rte).updatedCols.is_null();
                (**rte).relid == relid && given
            });
            let number = changed.map_or(0, |(index, _)| index as u32 + 1);
            pg_sys::InitResultRelInfo(info, relation, number, std::ptr::null_mut(), 0);
            let methods = &raw const pg_sys::TTSOpsVirtual;
            let slot = pg_sys::ExecInitExtraTupleSlot(estate, (*relation).rd_att, methods);
            (*slot).tts_tableOid = relid;
            Constraints {
                relation,
                info,
                slot,
                estate,
            }
        }
    }

    /// Fails, as PostgreSQL does, when a row with these columns breaks one.
    ///
    /// # Safety
    /// They are columns of the table, with values of their types.
    pub unsafe fn check(&self, row: impl Iterator<Item = (i16, Option<Datum>)>) {
        unsafe {
            let constraints = (*(*self.relation).rd_att).constr;
            if constraints.is_null() {
                return;
            }
            let slot = self.slot;
            pg_sys::ExecStoreAllNullTuple(slot);
            for (attno, value) in row {
                let index = attno as usize - 1;
                *(*slot).tts_isnull.add(index) = value.is_none();
                *(*slot).tts_values.add(index) = value.unwrap_or(Datum::null());
            }
            if (*constraints).has_generated_stored {
                let insert = pg_sys::CmdType::CMD_INSERT;
                pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    ExecComputeStoredGenerated(self.info, self.estate, slot, insert)
                });
            }
            pg_sys::ExecConstraints(self.info, slot, self.estate);
            let context = (*self.estate).es_per_tuple_exprcontext;
            if !context.is_null() {
                pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            }
        }
    }

    /// # Safety
    /// Called once, when the statement ends.
    pub unsafe fn end(&mut self) {
        unsafe {
            if !self.relation.is_null() {
                pg_sys::table_close(self.relation, pg_sys::NoLock as i32);
                self.relation = std::ptr::null_mut();
            }
        }
    }
}
