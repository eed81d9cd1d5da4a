//! Whole rows (`SELECT s FROM (…) s`) of subqueries that get more columns than the statement knows of.

use crate::pg::{expr, list, node};
use pgrx::pg_sys::{self, Node, Query, RangeTblEntry};

/// Makes whole rows of an entry of `query`, a subquery, rows of the columns that it has now. From then on it may have
/// more of them.
///
/// # Safety
/// `query` is a valid Query that the caller owns; `rtindex` is a subquery of its own.
pub unsafe fn spell_out(query: *mut Query, rtindex: i32) {
    unsafe {
        let entry = list::rt_fetch(rtindex, (*query).rtable);
        // what the planner makes of the whole row itself is of no named type either
        (*entry).relid = pg_sys::InvalidOid;
        (*entry).relkind = 0;
        node::map_query(query, |child| replaced(child, 0, rtindex, entry));
    }
}

unsafe fn replaced(
    item: *mut Node,
    depth: u32,
    rtindex: i32,
    entry: *mut RangeTblEntry,
) -> *mut Node {
    unsafe {
        if item.is_null() {
            return item;
        }
        if let Some(query) = node::cast::<Query>(item) {
            node::map_query(query, |child| replaced(child, depth + 1, rtindex, entry));
            return item;
        }
        if let Some(var) = node::cast::<pg_sys::Var>(item) {
            let whole =
                (*var).varattno == 0 && (*var).varno == rtindex && (*var).varlevelsup == depth;
            return if whole { row(var, entry) } else { item };
        }
        node::map_children(item, |child| replaced(child, depth, rtindex, entry))
    }
}

/// `ROW(column, …)` of the type that the whole row has.
unsafe fn row(var: *mut pg_sys::Var, entry: *mut RangeTblEntry) -> *mut Node {
    unsafe {
        let columns: Vec<*mut pg_sys::TargetEntry> =
            list::iter::<pg_sys::TargetEntry>((*(*entry).subquery).targetList)
                .filter(|column| !(**column).resjunk)
                .collect();
        let row = node::make::<pg_sys::RowExpr>();
        let mut names: Vec<*mut Node> = Vec::new();
        let mut args = Vec::new();
        for (index, column) in columns.into_iter().enumerate() {
            let signature = expr::signature((*column).expr.cast());
            let value = expr::var((*var).varno, (*column).resno, signature);
            (*value).varlevelsup = (*var).varlevelsup;
            args.push(value);
            let known = list::len((*(*entry).eref).colnames) > index;
            names.push(if known {
                node::copy(list::nth::<Node>((*(*entry).eref).colnames, index))
            } else {
                pg_sys::makeString((*column).resname).cast()
            });
        }
        (*row).args = list::from(args);
        (*row).row_typeid = (*var).vartype;
        (*row).row_format = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
        if (*var).vartype == pg_sys::RECORDOID {
            (*row).colnames = list::from(names);
        }
        (*row).location = (*var).location;
        row.cast()
    }
}
