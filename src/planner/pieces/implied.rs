//! Equalities that follow from others: of `a.k = c.x AND b.k = c.x`, that `a.k = b.k` (PostgreSQL's equivalence classes).

use super::trees::varnos;
use super::Level;
use crate::error::Result;
use crate::pg::{expr, list, node};
use crate::planner::broadcast;
use pgrx::pg_sys::{self, Node, OpExpr};

/// Columns that are equal in all rows of the level's result.
struct Class {
    /// The orders in which they are, and their collation.
    families: *mut pg_sys::List,
    collation: pg_sys::Oid,
    /// With the types by which the operators know them.
    members: Vec<(*mut Node, pg_sys::Oid)>,
}

/// `=` of btree (`BTEqualStrategyNumber`).
const EQUAL: i16 = 3;

impl Level {
    /// Can two pieces run on the shards together as columns of both are equal to some of other tables? Then the equality
    /// is a condition of the level, in the place of one that follows from it. Not if they give more rows together than
    /// apart: what else the others are compared with might leave few of these.
    pub(super) unsafe fn unites_by_others(&mut self, a: &[usize], b: &[usize]) -> Result<bool> {
        unsafe {
            let implied = self.implied_between(&self.members(a), &self.members(b));
            if implied.is_empty() {
                return Ok(false);
            }
            let known = self.quals.len();
            self.quals.extend(&implied);
            let union = [a, b].concat();
            let unites = self.runs(&union)? && {
                let rows = |items: &[usize]| broadcast::level_estimate(self, items);
                rows(&union) <= rows(a) + rows(b)
            };
            if !unites {
                self.quals.truncate(known);
                return Ok(false);
            }
            for equality in implied {
                self.drop_redundant(equality, &self.members(&union));
            }
            Ok(true)
        }
    }

    /// Leaves out a comparison of the second column of `equality` with others that is implied by those of the first:
    /// estimates would take it for one more reason to drop rows.
    unsafe fn drop_redundant(&mut self, equality: *mut Node, members: &[i32]) {
        unsafe {
            let [_, second] = columns(equality);
            let redundant = (0..self.quals.len()).find(|index| {
                let Some(op) = equality_of_columns(self.quals[*index]) else {
                    return false;
                };
                let pair = columns(op.cast());
                let others = pair.iter().filter(|value| !node::equal(**value, second));
                let outside = |value: &*mut Node| !members.contains(&varnos(*value)[0]);
                if others.clone().count() != 1 || !others.clone().all(outside) {
                    return false;
                }
                let mut rest = self.quals.clone();
                rest.remove(*index);
                classes(&rest).iter().any(|class| {
                    class.is_ordered_as(op) && pair.iter().all(|value| class.has(*value))
                })
            });
            if let Some(index) = redundant {
                self.quals.remove(index);
            }
        }
    }

    unsafe fn implied_between(&self, a: &[i32], b: &[i32]) -> Vec<*mut Node> {
        unsafe {
            let mut implied = Vec::new();
            for class in classes(&self.quals) {
                let of = |entries: &[i32]| {
                    let is_of = |(value, _): &&(*mut Node, pg_sys::Oid)| {
                        varnos(*value).iter().all(|varno| entries.contains(varno))
                    };
                    class.members.iter().find(is_of).copied()
                };
                if let (Some(left), Some(right)) = (of(a), of(b)) {
                    implied.extend(class.equality(left, right));
                }
            }
            implied
        }
    }
}

impl Class {
    unsafe fn of(op: *mut OpExpr) -> Class {
        unsafe {
            let mut types = [pg_sys::InvalidOid; 2];
            let [left, right] = &mut types;
            pg_sys::op_input_types((*op).opno, left, right);
            Class {
                families: pg_sys::get_mergejoin_opfamilies((*op).opno),
                collation: (*op).inputcollid,
                members: columns(op.cast()).into_iter().zip(types).collect(),
            }
        }
    }

    unsafe fn is_ordered_as(&self, op: *mut OpExpr) -> bool {
        unsafe {
            let families = pg_sys::get_mergejoin_opfamilies((*op).opno);
            self.collation == (*op).inputcollid && node::equal(self.families, families)
        }
    }

    unsafe fn has(&self, value: *mut Node) -> bool {
        self.members
            .iter()
            .any(|(known, _)| unsafe { node::equal(*known, value) })
    }

    unsafe fn equality(
        &self,
        (left, left_type): (*mut Node, pg_sys::Oid),
        (right, right_type): (*mut Node, pg_sys::Oid),
    ) -> Option<*mut Node> {
        unsafe {
            let operator = list::oids(self.families)
                .into_iter()
                .map(|family| pg_sys::get_opfamily_member(family, left_type, right_type, EQUAL))
                .find(|operator| *operator != pg_sys::InvalidOid)?;
            let equality = pg_sys::make_opclause(
                operator,
                pg_sys::BOOLOID,
                false,
                node::copy(left).cast(),
                node::copy(right).cast(),
                pg_sys::InvalidOid,
                self.collation,
            );
            pg_sys::set_opfuncid(equality.cast());
            Some(equality.cast())
        }
    }
}

/// The classes of columns among conditions that all have to be true.
unsafe fn classes(quals: &[*mut Node]) -> Vec<Class> {
    unsafe {
        let mut classes: Vec<Class> = Vec::new();
        for op in quals.iter().filter_map(|qual| equality_of_columns(*qual)) {
            let mut united = Class::of(op);
            let (same, others): (Vec<Class>, Vec<Class>) = classes.into_iter().partition(|class| {
                class.is_ordered_as(op) && columns(op.cast()).iter().any(|value| class.has(*value))
            });
            classes = others;
            united
                .members
                .extend(same.into_iter().flat_map(|class| class.members));
            classes.push(united);
        }
        classes
    }
}

/// `column = column`, of which an order makes classes.
unsafe fn equality_of_columns(qual: *mut Node) -> Option<*mut OpExpr> {
    unsafe {
        let op = node::cast::<OpExpr>(qual).filter(|op| list::len((**op).args) == 2)?;
        let is_column = |value: *mut Node| {
            node::cast::<pg_sys::Var>(expr::strip_relabel(value))
                .is_some_and(|var| (*var).varlevelsup == 0 && (*var).varattno > 0)
        };
        let pair = columns(qual);
        let comparable = pair.iter().all(|value| is_column(*value))
            && pg_sys::op_mergejoinable((*op).opno, pg_sys::exprType(pair[0]));
        comparable.then_some(op)
    }
}

/// The arguments of an operator.
unsafe fn columns(op: *mut Node) -> [*mut Node; 2] {
    unsafe { [0, 1].map(|index| list::nth::<Node>((*op.cast::<OpExpr>()).args, index)) }
}
