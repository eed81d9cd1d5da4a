//! What a column is, in the levels above proposed rows: of the row that is proposed, of the one that it is in conflict
//! with, of what becomes of that one.

use crate::error::Result;
use crate::pg::expr;
use crate::planner::apply::Assigned;
use crate::planner::{pull, reading};
use pgrx::pg_sys::{self, Node, Oid};

/// A row as it is proposed for insertion.
pub struct Proposed {
    pub relid: Oid,
    /// The columns that have values, in the order of the rows'.
    pub attributes: Vec<i16>,
    /// Those that are computed, over the columns of a relation 1.
    pub generated: Vec<(i16, *mut Node)>,
}

impl Proposed {
    /// # Safety
    /// Called inside the server.
    pub unsafe fn of(relid: Oid, attributes: Vec<i16>) -> Proposed {
        Proposed {
            relid,
            attributes,
            generated: unsafe { pull::generated_columns(relid, 1) },
        }
    }

    /// A column, or the whole row; `given` answers the rows' column at an index, for the relation's column that it is.
    ///
    /// # Safety
    /// `var` is a Var of the relation.
    pub unsafe fn value(
        &self,
        var: *mut pg_sys::Var,
        given: &dyn Fn(usize, *mut pg_sys::Var) -> *mut Node,
    ) -> Result<*mut Node> {
        unsafe { row_or_column(self.relid, var, &mut |var| self.column(var, given)) }
    }

    unsafe fn column(
        &self,
        var: *mut pg_sys::Var,
        given: &dyn Fn(usize, *mut pg_sys::Var) -> *mut Node,
    ) -> Result<*mut Node> {
        unsafe {
            let attno = (*var).varattno;
            if let Some(index) = self.attributes.iter().position(|a| *a == attno) {
                return Ok(given(index, var));
            }
            if let Some((_, value)) = self.generated.iter().find(|(a, _)| *a == attno) {
                return reading::lifted(*value, &mut |var| self.column(var, given));
            }
            let (type_oid, typmod, collation) = expr::signature(var.cast());
            Ok(pg_sys::makeNullConst(type_oid, typmod, collation).cast())
        }
    }
}

/// The rows that the levels see: the proposed one, and the one that was found.
pub struct Rows {
    pub proposed: Proposed,
    pub excluded: i32,
    /// Attribute numbers of the found row, and the numbers of the columns that have them.
    pub found: Vec<(i16, i16)>,
}

impl Rows {
    /// The place of a column of the found row among those of a level.
    pub fn place(&self, attno: i16) -> usize {
        let column = self.found.iter().find(|(a, _)| *a == attno);
        column.map_or(0, |(_, column)| *column as usize - 1)
    }

    /// A column of the proposed row.
    ///
    /// # Safety
    /// `var` is a Var of the table.
    pub unsafe fn proposed(&self, var: *mut pg_sys::Var) -> Result<*mut Node> {
        unsafe {
            self.proposed.value(var, &|index, var| {
                expr::var(1, index as i16 + 1, expr::signature(var.cast())).cast()
            })
        }
    }

    /// A column of the row that was found.
    ///
    /// # Safety
    /// `var` is a Var of the table.
    pub unsafe fn found(&self, var: *mut pg_sys::Var) -> Result<*mut Node> {
        unsafe {
            row_or_column(self.proposed.relid, var, &mut |var| {
                let column = self.place((*var).varattno) as i16 + 1;
                Ok(expr::var(1, column, expr::signature(var.cast())).cast())
            })
        }
    }

    /// A column in the clause's own expressions.
    ///
    /// # Safety
    /// `var` is a Var of the table.
    pub unsafe fn of_clause(&self, var: *mut pg_sys::Var) -> Result<*mut Node> {
        unsafe {
            if (*var).varno == self.excluded {
                self.proposed(var)
            } else {
                self.found(var)
            }
        }
    }

    /// A column of what becomes of the row that was found.
    ///
    /// # Safety
    /// `var` is a Var of the table.
    pub unsafe fn updated(
        &self,
        var: *mut pg_sys::Var,
        assigned: &[(Assigned, *mut Node)],
    ) -> Result<*mut Node> {
        unsafe {
            row_or_column(self.proposed.relid, var, &mut |var| {
                let attno = (*var).varattno;
                if let Some(((_, position), value)) =
                    assigned.iter().find(|((a, _), _)| *a == attno)
                {
                    let signature = expr::signature(*value);
                    return Ok(expr::var(1, *position as i16 + 1, signature).cast());
                }
                let generated = self.proposed.generated.iter().find(|(a, _)| *a == attno);
                match generated {
                    Some((_, value)) => {
                        reading::lifted(*value, &mut |var| self.updated(var, assigned))
                    }
                    None => self.found(var),
                }
            })
        }
    }
}

/// The value of a Var of the table, by that of its columns.
unsafe fn row_or_column(
    relid: Oid,
    var: *mut pg_sys::Var,
    column: &mut dyn FnMut(*mut pg_sys::Var) -> Result<*mut Node>,
) -> Result<*mut Node> {
    unsafe {
        if (*var).varattno == 0 {
            pull::whole_row(relid, (*var).vartype, (*var).varno, column)
        } else {
            column(var)
        }
    }
}
