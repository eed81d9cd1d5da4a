//! Values that leaves take from the level they stand in: results of subqueries and of WITH queries. While the level is
//! split they are parameters with numbers of their own; then the expressions come back, as arguments of the leaves.

use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use pgrx::pg_sys::{self, Node, Query};
use std::cell::Cell;

/// No statement has so many parameters of its own.
const FIRST: i32 = 1 << 20;
/// From here on they are those of `early`.
const END: i32 = 3 << 19;

thread_local! {
    /// Levels are split within others: no two of them use the same numbers. They may be used again when all are done,
    /// which nobody tells, so they go round.
    static NEXT: Cell<i32> = const { Cell::new(FIRST) };
}

/// Does a tree read values that come from elsewhere, so that estimates know nothing of them?
///
/// # Safety
/// `tree` is an expression or a Query of the level that is being split.
pub unsafe fn reads_any(tree: *mut Node) -> bool {
    unsafe {
        node::walk(
            tree,
            &mut |item, _| match node::cast::<pg_sys::Param>(item) {
                Some(param)
                    if (*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN
                        && (FIRST..END).contains(&(*param).paramid) =>
                {
                    Step::Stop
                }
                _ => Step::Into,
            },
        )
    }
}

#[derive(Default)]
pub struct Externals {
    /// The numbers of the values.
    numbers: Vec<i32>,
    /// Expressions of the level being split.
    values: Vec<*mut Node>,
    /// WITH queries that they read.
    with: Vec<*mut pg_sys::CommonTableExpr>,
}

impl Externals {
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The parameter that stands for `value` until `restore`.
    ///
    /// # Safety
    /// `value` is an expression of the level that is being split.
    pub unsafe fn stand_in(&mut self, value: *mut Node) -> *mut Node {
        unsafe {
            let (type_oid, typmod, collation) = expr::signature(value);
            let number = NEXT.get();
            NEXT.set(if number + 1 < END { number + 1 } else { FIRST });
            self.values.push(value);
            self.numbers.push(number);
            expr::param(number, type_oid, typmod, collation).cast()
        }
    }

    /// Keeps a WITH query for the level until `restore`; answers the name that it gets.
    ///
    /// # Safety
    /// `cte` is complete but for its name; `query` is the level.
    pub unsafe fn add_with(
        &mut self,
        query: *mut Query,
        cte: *mut pg_sys::CommonTableExpr,
    ) -> *mut std::ffi::c_char {
        unsafe {
            let taken = |name: &str| {
                list::iter::<pg_sys::CommonTableExpr>((*query).cteList)
                    .chain(self.with.iter().copied())
                    .any(|other| {
                        std::ffi::CStr::from_ptr((*other).ctename).to_bytes() == name.as_bytes()
                    })
            };
            let mut number = self.with.len() + 1;
            let mut name = format!("sent {number}");
            while taken(&name) {
                number += 1;
                name = format!("sent {number}");
            }
            (*cte).ctename = node::pstrdup(&name);
            self.with.push(cte);
            (*cte).ctename
        }
    }

    /// Puts the expressions back, wherever in the level their parameters have got to.
    ///
    /// # Safety
    /// `query` is the level, owned by the caller.
    pub unsafe fn restore(&self, query: *mut Query) {
        unsafe {
            for cte in &self.with {
                (*query).cteList = pg_sys::lappend((*query).cteList, (*cte).cast());
            }
            if !self.values.is_empty() {
                self.restore_query(query, 0);
            }
        }
    }

    unsafe fn restore_query(&self, query: *mut Query, depth: i32) {
        unsafe {
            let mut sublinks = false;
            node::map_query(query, |child| self.put_back(child, depth, &mut sublinks));
            (*query).hasSubLinks |= sublinks;
        }
    }

    unsafe fn put_back(&self, item: *mut Node, depth: i32, sublinks: &mut bool) -> *mut Node {
        unsafe {
            if item.is_null() {
                return item;
            }
            if let Some(query) = node::cast::<Query>(item) {
                self.restore_query(query, depth + 1);
                return item;
            }
            if let Some(param) = node::cast::<pg_sys::Param>(item) {
                let is_ours = (*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN;
                let place = self.numbers.iter().position(|n| *n == (*param).paramid);
                let known = place.and_then(|place| self.values.get(place));
                return match known {
                    Some(value) if is_ours => {
                        let value: *mut Node = node::copy(*value);
                        // rows that are moved may have been joined with rows that were moved before
                        let value =
                            node::map_children(value, |child| self.put_back(child, 0, sublinks));
                        if depth > 0 {
                            node::shift_levels(value, depth, 0);
                        }
                        *sublinks |= node::has_sublink(value);
                        value
                    }
                    _ => item,
                };
            }
            node::map_children(item, |child| self.put_back(child, depth, sublinks))
        }
    }
}
