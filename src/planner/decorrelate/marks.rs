//! Marks in the place of subqueries while their level is taken apart: calls of the leaf function, which no node can
//! evaluate, with the columns around the subquery as arguments, which so are replaced with all others.

use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::leaf;
use pgrx::pg_sys::{self, Node, Oid, Query};

/// The mark of a number.
pub unsafe fn mark(
    number: usize,
    (type_oid, collation): (Oid, Oid),
    keys: &[*mut pg_sys::Var],
) -> *mut Node {
    unsafe {
        let mut arguments: Vec<*mut Node> = vec![expr::int4(number as i32).cast()];
        arguments.extend(keys.iter().map(|key| node::copy(*key).cast::<Node>()));
        pg_sys::makeFuncExpr(
            leaf::leaf_function(),
            type_oid,
            list::from(arguments),
            collation,
            pg_sys::InvalidOid,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        )
        .cast()
    }
}

/// The number and the keys of a mark.
unsafe fn read(item: *mut Node) -> Option<(usize, Vec<*mut pg_sys::Var>)> {
    unsafe {
        let call = node::cast::<pg_sys::FuncExpr>(item)?;
        if (*call).funcretset || (*call).funcid != leaf::leaf_function() {
            return None;
        }
        let number = node::cast::<pg_sys::Const>(list::nth::<Node>((*call).args, 0))?;
        let keys = list::iter::<Node>((*call).args)
            .skip(1)
            .map(|key| node::cast::<pg_sys::Var>(key))
            .collect::<Option<Vec<_>>>()?;
        Some(((*number).constvalue.value(), keys))
    }
}

/// The keys of the mark, as columns of the level now.
pub unsafe fn keys_of(query: *mut Query, number: usize) -> Option<Vec<*mut pg_sys::Var>> {
    let mut found = None;
    unsafe {
        for tree in [(*query).jointree.cast::<Node>(), (*query).targetList.cast()] {
            node::walk(tree, &mut |item, _| match read(item) {
                Some((other, keys)) if other == number => {
                    found = Some(keys);
                    Step::Stop
                }
                _ => Step::Into,
            });
        }
    }
    found
}

/// Puts values in the place of the marks.
pub unsafe fn replace(query: *mut Query, values: &[*mut Node]) {
    unsafe fn change(item: *mut Node, values: &[*mut Node]) -> *mut Node {
        unsafe {
            if item.is_null() || node::cast::<Query>(item).is_some() {
                return item;
            }
            match read(item) {
                Some((number, _)) => node::copy(values[number]),
                None => node::map_children(item, |child| change(child, values)),
            }
        }
    }
    unsafe {
        (*query).jointree = change((*query).jointree.cast(), values).cast();
        (*query).targetList = change((*query).targetList.cast(), values).cast();
    }
}
