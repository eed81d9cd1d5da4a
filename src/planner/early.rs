//! Subqueries in the clauses behind the rows of an INSERT (ON CONFLICT, RETURNING, conditions of policies) that are the
//! same for every row, but read what the shards do not have: computed with the rows, and sent as parameters.

use crate::error::Result;
use crate::pg::{expr, list, node};
use crate::planner::{broadcast, insert, ship, split};
use pgrx::pg_sys::{self, Node, Query};

/// Parameters that stand for them until the plan is made. No statement has so many of its own.
const FIRST: i32 = 3 << 19;

/// Is it one of those parameters?
///
/// # Safety
/// `item` is a valid node.
pub unsafe fn is_stand_in(item: *mut Node) -> bool {
    unsafe {
        node::cast::<pg_sys::Param>(item).is_some_and(|param| {
            (*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN && (*param).paramid >= FIRST
        })
    }
}

#[derive(Default)]
pub struct Early {
    values: Vec<*mut Node>,
}

impl Early {
    /// The tree with parameters for such subqueries.
    ///
    /// # Safety
    /// `tree` is null, or a valid expression or list of the INSERT's level.
    pub unsafe fn take<T>(&mut self, tree: *mut T) -> Result<*mut T> {
        unsafe { Ok(self.replaced(tree.cast())?.cast()) }
    }

    unsafe fn replaced(&mut self, tree: *mut Node) -> Result<*mut Node> {
        unsafe {
            if tree.is_null() {
                return Ok(tree);
            }
            if let Some(sublink) = node::cast::<pg_sys::SubLink>(tree) {
                if self.can_take(sublink)? {
                    if let Some(value) = self.value_of(sublink) {
                        return Ok(value);
                    }
                }
            }
            let mut failure = None;
            let changed = node::map_children(tree, |child| {
                if node::cast::<Query>(child).is_some() {
                    return child;
                }
                match self.replaced(child) {
                    Ok(child) => child,
                    Err(error) => {
                        failure = Some(error);
                        child
                    }
                }
            });
            failure.map_or(Ok(changed), Err)
        }
    }

    unsafe fn can_take(&self, sublink: *mut pg_sys::SubLink) -> Result<bool> {
        unsafe {
            let subquery = (*sublink).subselect;
            Ok(!split::is_correlated(subquery.cast())
                && (insert::reads_other_rows(subquery)? || ship::obstacle(subquery).is_some()))
        }
    }

    unsafe fn value_of(&mut self, sublink: *mut pg_sys::SubLink) -> Option<*mut Node> {
        unsafe {
            match (*sublink).subLinkType {
                pg_sys::SubLinkType::EXPR_SUBLINK
                | pg_sys::SubLinkType::EXISTS_SUBLINK
                | pg_sys::SubLinkType::ARRAY_SUBLINK => self.stand_in(sublink.cast()),
                pg_sys::SubLinkType::ANY_SUBLINK => {
                    let (left, array, test) = broadcast::as_array(sublink)?;
                    let array = self.stand_in(array.cast())?;
                    (*test).args = list::from([left, array]);
                    Some(test.cast())
                }
                _ => None,
            }
        }
    }

    unsafe fn stand_in(&mut self, value: *mut Node) -> Option<*mut Node> {
        unsafe {
            let (type_oid, typmod, collation) = expr::signature(value);
            ship::readable_type(type_oid).ok()?;
            let number = FIRST + self.values.len() as i32;
            self.values.push(value);
            Some(expr::param(number, type_oid, typmod, collation).cast())
        }
    }

    /// Lets the rows' query compute the values too, as its last columns.
    ///
    /// # Safety
    /// `query` computes the rows, at the level of the clauses.
    pub unsafe fn add_to(&self, query: *mut Query) {
        unsafe {
            for value in &self.values {
                let number = list::len((*query).targetList) as i16 + 1;
                let value: *mut Node = node::copy(*value);
                let name = node::pstrdup(&format!("early_{number}"));
                let entry = pg_sys::makeTargetEntry(value.cast(), number, name, false);
                (*query).targetList = pg_sys::lappend((*query).targetList, entry.cast());
                (*query).hasSubLinks = true;
            }
        }
    }

    /// The tree with columns of the rows in place of the parameters; the first of them is `first`, from zero.
    ///
    /// # Safety
    /// `tree` is null or a valid expression.
    pub unsafe fn over_rows(&self, tree: *mut Node, first: usize) -> *mut Node {
        unsafe {
            if tree.is_null() || self.values.is_empty() {
                return tree;
            }
            if let Some(param) = node::cast::<pg_sys::Param>(tree) {
                let index = (*param).paramid - FIRST;
                let ours = (*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN
                    && (0..self.values.len() as i32).contains(&index);
                if ours {
                    let column = (first as i32 + index) as i16 + 1;
                    return expr::var(pg_sys::OUTER_VAR, column, expr::signature(tree)).cast();
                }
            }
            node::map_children(tree, |child| self.over_rows(child, first))
        }
    }
}
