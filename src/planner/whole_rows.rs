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
        replace(query, 0, rtindex, &|var| row(var, entry));
    }
}

/// Makes whole rows of a table that is a subquery now a column of that, of the table's type: PostgreSQL's planner wants
/// rows of no named type of it.
///
/// # Safety
/// `query` is a valid Query that the caller owns; `rtindex` is a subquery of its own that reads one table.
pub unsafe fn make_column(query: *mut Query, rtindex: i32) {
    unsafe {
        let entry = list::rt_fetch(rtindex, (*query).rtable);
        let table = (*entry).subquery;
        let columns = (*table).targetList;
        let number = list::len(columns) as i16 + 1;
        let used = std::cell::Cell::new(std::ptr::null_mut::<pg_sys::Var>());
        replace(query, 0, rtindex, &|var| {
            let column = node::copy(var);
            (*column).varattno = number;
            used.set(column);
            column.cast()
        });
        if used.get().is_null() {
            return;
        }
        let whole = expr::var(1, 0, expr::signature(used.get().cast()));
        let name = c"whole row".as_ptr().cast_mut();
        let column = pg_sys::makeTargetEntry(whole.cast(), number, name, false);
        (*table).targetList = pg_sys::lappend(columns, column.cast());
        let names = &mut (*(*entry).eref).colnames;
        *names = pg_sys::lappend(*names, pg_sys::makeString(name).cast());
    }
}

/// Puts what `make` says in the place of whole rows of an entry.
unsafe fn replace(
    query: *mut Query,
    depth: u32,
    rtindex: i32,
    make: &dyn Fn(*mut pg_sys::Var) -> *mut Node,
) {
    unsafe { node::map_query(query, |child| replaced(child, depth, rtindex, make)) }
}

unsafe fn replaced(
    item: *mut Node,
    depth: u32,
    rtindex: i32,
    make: &dyn Fn(*mut pg_sys::Var) -> *mut Node,
) -> *mut Node {
    unsafe {
        if item.is_null() {
            return item;
        }
        if let Some(query) = node::cast::<Query>(item) {
            replace(query, depth + 1, rtindex, make);
            return item;
        }
        if let Some(var) = node::cast::<pg_sys::Var>(item) {
            let whole =
                (*var).varattno == 0 && (*var).varno == rtindex && (*var).varlevelsup == depth;
            return if whole { make(var) } else { item };
        }
        node::map_children(item, |child| replaced(child, depth, rtindex, make))
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
