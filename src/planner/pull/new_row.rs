//! The changed row, over the columns of the level below.

use crate::error::Result;
use crate::pg::{expr, list, node, types};
use crate::planner::apply::Assigned;
use crate::planner::reading::{self, Reading};
use pgrx::pg_sys::{self, Node, Query};

/// The row as RETURNING and checks see it, over the columns of the level below them.
pub struct NewRow<'a> {
    pub relid: pg_sys::Oid,
    /// The changed table in the joining level.
    pub target: i32,
    /// It is the row after the change; otherwise the one that is there.
    pub changed: bool,
    /// There was none before: columns without a value are NULL.
    pub inserted: bool,
    pub below: *mut Query,
    pub assigned: &'a [Assigned],
    pub generated: &'a [(i16, *mut Node)],
}

impl NewRow<'_> {
    /// What a column of the joining level is for the level above the values.
    ///
    /// # Safety
    /// `var` is a Var of the joining level.
    pub unsafe fn value(&self, reading: &mut Reading, var: *mut pg_sys::Var) -> Result<*mut Node> {
        unsafe {
            if (*var).varno != self.target || !self.changed {
                return Ok(reading.above(var));
            }
            if (*var).varattno == 0 {
                return self.row(reading, var);
            }
            self.column(reading, (*var).varattno, var)
        }
    }

    unsafe fn column(
        &self,
        reading: &mut Reading,
        attno: i16,
        var: *mut pg_sys::Var,
    ) -> Result<*mut Node> {
        unsafe {
            if let Some((_, position)) = self.assigned.iter().find(|(a, _)| *a == attno) {
                let entry = list::nth::<pg_sys::TargetEntry>((*self.below).targetList, *position);
                let signature = expr::signature((*entry).expr.cast());
                return Ok(expr::var(1, *position as i16 + 1, signature).cast());
            }
            if let Some((_, value)) = self.generated.iter().find(|(a, _)| *a == attno) {
                return reading::lifted(*value, &mut |var| self.value(reading, var));
            }
            if self.inserted {
                let (type_oid, typmod, collation) = expr::signature(var.cast());
                return Ok(pg_sys::makeNullConst(type_oid, typmod, collation).cast());
            }
            Ok(reading.above(var))
        }
    }

    /// The whole row, of the table's type.
    unsafe fn row(&self, reading: &mut Reading, var: *mut pg_sys::Var) -> Result<*mut Node> {
        unsafe {
            whole_row(self.relid, (*var).vartype, self.target, &mut |column| {
                self.column(reading, (*column).varattno, column)
            })
        }
    }
}

/// A row of the relation, of this type; `value` answers each column's, given the Var of `varno`.
///
/// # Safety
/// Called inside the server.
pub unsafe fn whole_row(
    relid: pg_sys::Oid,
    type_oid: pg_sys::Oid,
    varno: i32,
    value: &mut dyn FnMut(*mut pg_sys::Var) -> Result<*mut Node>,
) -> Result<*mut Node> {
    unsafe {
        let row = node::make::<pg_sys::RowExpr>();
        let mut values = Vec::new();
        let mut names = Vec::new();
        for attno in 1..=types::column_count(relid) {
            if !types::has_column(relid, attno) {
                let null = pg_sys::makeNullConst(pg_sys::INT4OID, -1, pg_sys::InvalidOid);
                values.push(null.cast::<Node>());
                names.push(pg_sys::makeString(node::pstrdup("dropped")));
                continue;
            }
            let column = expr::var(varno, attno, types::attribute_signature(relid, attno));
            values.push(value(column)?);
            names.push(pg_sys::makeString(pg_sys::get_attname(relid, attno, false)));
        }
        (*row).args = list::from(values);
        (*row).colnames = list::from(names);
        (*row).row_typeid = type_oid;
        (*row).row_format = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
        (*row).location = -1;
        Ok(row.cast())
    }
}
