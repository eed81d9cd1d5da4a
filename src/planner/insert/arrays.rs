//! The statement of a shard group for rows that are given as arrays, one for each column.

use super::target_relid;
use crate::deparse::{self, SqlTemplate};
use crate::error::{Error, Result};
use crate::pg::{expr, list, node, types};
use crate::planner::conflict::{self, Checks};
use crate::planner::plan::{InsertColumn, InsertPlan};
use crate::planner::remote;
use crate::planner::ship::{self, Parameters};
use pgrx::pg_sys::{self, CmdType, Node, Query, RTEKind};
use std::ffi::CStr;

/// A plan to insert rows, with its `custom_exprs` and the columns that come back.
pub struct Made {
    pub plan: InsertPlan,
    pub exprs: Vec<*mut Node>,
    pub returned: Vec<(pg_sys::Oid, i32, pg_sys::Oid)>,
}

/// How the values of a table's column travel as an array.
pub struct ArrayColumn {
    pub column: InsertColumn,
    /// `::type` behind an element, where the array's type is another.
    pub cast: String,
    /// Name of the elements' type.
    element: String,
}

impl ArrayColumn {
    /// `source`: where the rows have the value.
    ///
    /// # Safety
    /// `attno` is a column of the relation.
    pub unsafe fn of(relid: pg_sys::Oid, attno: i16, source: usize) -> ArrayColumn {
        unsafe {
            let (type_oid, typmod, _) = types::attribute_signature(relid, attno);
            let portable = types::is_builtin(type_oid)
                && types::binary_is_portable(type_oid)
                && pg_sys::get_element_type(type_oid) == pg_sys::InvalidOid
                && pg_sys::get_array_type(type_oid) != pg_sys::InvalidOid;
            let element = if portable { type_oid } else { pg_sys::TEXTOID };
            let name = |type_oid, typmod| {
                let flags = pg_sys::FORMAT_TYPE_FORCE_QUALIFY | pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN;
                let name = pg_sys::format_type_extended(type_oid, typmod, flags as u16);
                CStr::from_ptr(name).to_string_lossy().into_owned()
            };
            ArrayColumn {
                column: InsertColumn {
                    source,
                    value: type_oid.to_u32(),
                    element: element.to_u32(),
                },
                cast: if portable {
                    String::new()
                } else {
                    format!("::{}", name(type_oid, typmod))
                },
                element: name(element, -1),
            }
        }
    }

    /// The elements of the parameter of this number.
    pub fn unnest(&self, number: i32) -> String {
        format!("pg_catalog.unnest(${number}::{}[])", self.element)
    }
}

/// The statement that inserts rows given as arrays. `columns`: index in the rows, attribute number.
///
/// # Safety
/// `query` is an INSERT that the caller owns.
pub unsafe fn insert_plan(
    query: *mut Query,
    columns: &[(usize, i16)],
    colocation: i32,
    key: Option<usize>,
    checks: Checks,
) -> Result<Made> {
    unsafe {
        let relid = target_relid(query);
        let mut insert_columns = Vec::new();
        let mut entries = Vec::new();
        let mut selected = Vec::new();
        let mut names = Vec::new();
        let mut parameters = Parameters::default();
        for (position, (source, attno)) in columns.iter().enumerate() {
            let number = position as i32 + 1;
            let array = ArrayColumn::of(relid, *attno, *source);
            insert_columns.push(array.column);
            let name = CStr::from_ptr(pg_sys::get_attname(relid, *attno, false));
            entries.push(pg_sys::makeTargetEntry(
                expr::param(number, pg_sys::INT4OID, -1, pg_sys::InvalidOid).cast(),
                *attno,
                pg_sys::pstrdup(name.as_ptr()),
                false,
            ));
            selected.push(format!("{}{}", array.unnest(number), array.cast));
            names.push(deparse::quote_identifier(&name.to_string_lossy()));
            // Keeps the numbers of the clauses' own parameters behind those of the columns.
            parameters.reserve();
        }
        (*query).commandType = CmdType::CMD_INSERT;
        (*query).targetList = list::from(entries);
        (*query).override_ = pg_sys::OverridingKind::OVERRIDING_NOT_SET;
        (*query).cteList = std::ptr::null_mut();
        (*query).hasModifyingCTE = false;
        only_target(query);
        let mut returned = Vec::new();
        for entry in list::iter::<pg_sys::TargetEntry>((*query).returningList) {
            let signature = expr::signature((*entry).expr.cast());
            ship::readable_type(signature.0)?;
            returned.push(signature);
        }
        let count = columns.len();
        parameters.extract_clauses(query);
        // the arrays of a batch are equally long; rows come out in their order
        let rows = format!("SELECT {}", selected.join(", "));
        let template = template_of_rows(query, count, &rows)?;
        let mut conflict_checks = checks.inside;
        let mut later = None;
        if let Some(check) = conflict::forbid_own_rows(query, conflict_checks.len()) {
            conflict_checks.push(check);
            later = Some(template_of_rows(query, count, &rows)?);
        }
        let (mut exprs, row_checks) = checks.before;
        exprs.extend(remote::own(parameters.exprs[count..].to_vec()));
        let plan = InsertPlan {
            template,
            later,
            colocation,
            key,
            columns: insert_columns,
            params: parameters.types[count..].to_vec(),
            returned: returned.iter().map(|(t, _, _)| t.to_u32()).collect(),
            checks: row_checks,
            checks_after: checks.after.1,
            conflict_checks,
            copied: Some(format!(" ({})", names.join(", "))),
            part: None,
            counted: (*query).canSetTag,
            outputs: Vec::new(),
        };
        Ok(Made {
            plan,
            exprs,
            returned,
        })
    }
}

/// The text of an INSERT of `count` parameters with rows in their place.
unsafe fn template_of_rows(query: *mut Query, count: usize, rows: &str) -> Result<SqlTemplate> {
    unsafe {
        deparse::template_edited(query, |text| {
            let values = format!(
                "VALUES ({})",
                (1..=count)
                    .map(|n| format!("${n}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            let at = deparse::parameter_location(&text, 1)
                .and_then(|at| at.checked_sub("VALUES (".len()))
                .filter(|at| text[*at..].starts_with(&values))
                .ok_or_else(|| Error::internal("no VALUES in a deparsed INSERT"))?;
            Ok(format!(
                "{}{rows}{}",
                &text[..at],
                &text[at + values.len()..]
            ))
        })
    }
}

/// Leaves in the range table nothing but what the INSERT itself names.
unsafe fn only_target(query: *mut Query) {
    unsafe {
        (*(*query).jointree).fromlist = std::ptr::null_mut();
        (*(*query).jointree).quals = std::ptr::null_mut();
        for (index, rte) in list::iter::<pg_sys::RangeTblEntry>((*query).rtable).enumerate() {
            let excluded = node::cast::<pg_sys::OnConflictExpr>((*query).onConflict)
                .is_some_and(|c| (*c).exclRelIndex == index as i32 + 1);
            if index as i32 + 1 != (*query).resultRelation && !excluded {
                (*rte).rtekind = RTEKind::RTE_RESULT;
                (*rte).subquery = std::ptr::null_mut();
                (*rte).values_lists = std::ptr::null_mut();
                (*rte).functions = std::ptr::null_mut();
                (*rte).inFromCl = false;
            }
        }
    }
}
