//! Values that leaves take from the level they stand in: results of subqueries and of WITH queries. While the level is
//! split they are parameters with numbers of their own; then the expressions come back, as arguments of the leaves.

use crate::pg::{expr, list, node};
use pgrx::pg_sys::{self, Node, Query};

/// No statement has so many parameters of its own.
const FIRST: i32 = 1 << 20;

#[derive(Default)]
pub struct Externals {
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
            self.values.push(value);
            let number = FIRST + self.values.len() as i32 - 1;
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
                let number = (*param).paramid - FIRST;
                let is_ours = (*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN;
                let known = usize::try_from(number)
                    .ok()
                    .and_then(|n| self.values.get(n));
                return match known {
                    Some(value) if is_ours => {
                        let value: *mut Node = node::copy(*value);
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
