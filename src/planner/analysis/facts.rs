//! What conditions say of columns.

use super::{Analysis, Frame, Point};
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::cursor;
use pgrx::pg_sys::{self, Node, NodeTag, Oid};
use std::collections::HashMap;

/// What a column is compared with. Expressions have no columns.
#[derive(Clone)]
pub enum Fact {
    Equal(*mut Node),
    AnyOf(*mut Node),
    Null,
    /// The row is in the shard group of this id.
    Group(*mut Node),
    Below(*mut Node, bool),
    Above(*mut Node, bool),
    And(Vec<Fact>),
    Or(Vec<Fact>),
}

impl Fact {
    pub(super) fn admits_null(&self) -> bool {
        match self {
            Fact::Null => true,
            Fact::And(facts) => facts.iter().all(Fact::admits_null),
            Fact::Or(facts) => facts.iter().any(Fact::admits_null),
            _ => false,
        }
    }
}

impl Analysis {
    /// What a condition says of columns.
    pub(super) unsafe fn facts_of(
        &mut self,
        qual: *mut Node,
        frames: &[Frame],
    ) -> Vec<(Point, Fact)> {
        unsafe {
            if let Some(op) = node::cast::<pg_sys::OpExpr>(qual) {
                if let Some((ctid, group)) = cursor::current_row(qual) {
                    let key = self.key_beside(ctid, frames);
                    return key
                        .map(|key| (key, Fact::Group(group)))
                        .into_iter()
                        .collect();
                }
                return self.comparison(op, frames).into_iter().collect();
            }
            if let Some(any) = node::cast::<pg_sys::ScalarArrayOpExpr>(qual) {
                let (left, array) = (
                    list::nth::<Node>((*any).args, 0),
                    list::nth::<Node>((*any).args, 1),
                );
                if (*any).useOr
                    && is_equality_operator((*any).opno, left)
                    && is_free(array)
                    && same_element_hash(left, array)
                {
                    if let Some(point) = self.column(left, frames) {
                        return vec![(point, Fact::AnyOf(array))];
                    }
                }
                return Vec::new();
            }
            if let Some(test) = node::cast::<pg_sys::NullTest>(qual) {
                if (*test).nulltesttype == pg_sys::NullTestType::IS_NULL {
                    if let Some(point) = self.column((*test).arg.cast(), frames) {
                        return vec![(point, Fact::Null)];
                    }
                }
                return Vec::new();
            }
            // A boolean column as a condition says that it is true; NOT, that it is false.
            if let Some(or) = node::cast::<pg_sys::BoolExpr>(qual)
                .filter(|b| (**b).boolop == pg_sys::BoolExprType::OR_EXPR)
            {
                return self.disjunction(or, frames);
            }
            Vec::new()
        }
    }

    /// The distribution column of the row whose system column it is.
    unsafe fn key_beside(&self, system: *mut pg_sys::Var, frames: &[Frame]) -> Option<Point> {
        unsafe {
            let depth = frames
                .len()
                .checked_sub(1 + (*system).varlevelsup as usize)?;
            let frame = &frames[depth];
            self.distributed.iter().map(|table| table.key).find(|key| {
                self.points.iter().any(|((level, varno, _), point)| {
                    point == key && *level == frame.id && *varno == (*system).varno
                })
            })
        }
    }

    unsafe fn comparison(
        &mut self,
        op: *mut pg_sys::OpExpr,
        frames: &[Frame],
    ) -> Option<(Point, Fact)> {
        unsafe {
            if list::len((*op).args) != 2 {
                return None;
            }
            let (mut left, mut right) = (
                list::nth::<Node>((*op).args, 0),
                list::nth::<Node>((*op).args, 1),
            );
            let mut operator = (*op).opno;
            if is_free(left) {
                std::mem::swap(&mut left, &mut right);
                operator = pg_sys::get_commutator(operator);
            }
            if operator == pg_sys::InvalidOid || !is_free(right) {
                return None;
            }
            let point = self.column(left, frames)?;
            if is_equality_operator(operator, left) {
                return same_hash(left, right).then_some((point, Fact::Equal(right)));
            }
            let fact = match btree_strategy(operator, left)? {
                pg_sys::BTLessStrategyNumber => Fact::Below(right, false),
                pg_sys::BTLessEqualStrategyNumber => Fact::Below(right, true),
                pg_sys::BTGreaterStrategyNumber => Fact::Above(right, false),
                pg_sys::BTGreaterEqualStrategyNumber => Fact::Above(right, true),
                _ => return None,
            };
            same_hash(left, right).then_some((point, fact))
        }
    }

    /// `a OR b` says something of a column when both arms do.
    unsafe fn disjunction(
        &mut self,
        or: *mut pg_sys::BoolExpr,
        frames: &[Frame],
    ) -> Vec<(Point, Fact)> {
        unsafe {
            let arms: Vec<HashMap<Point, Vec<Fact>>> = list::iter::<Node>((*or).args)
                .map(|arm| {
                    let mut facts: HashMap<Point, Vec<Fact>> = HashMap::new();
                    for conjunct in expr::conjuncts(arm) {
                        for (point, fact) in self.facts_of(conjunct, frames) {
                            facts.entry(point).or_default().push(fact);
                        }
                    }
                    facts
                })
                .collect();
            let Some(first) = arms.first() else {
                return Vec::new();
            };
            first
                .keys()
                .filter(|point| arms.iter().all(|arm| arm.contains_key(point)))
                .map(|point| {
                    let either = arms
                        .iter()
                        .map(|arm| Fact::And(arm[point].clone()))
                        .collect();
                    (*point, Fact::Or(either))
                })
                .collect()
        }
    }
}

/// The two sides of `a = b` for a hashable or mergeable equality.
pub(super) unsafe fn equality(qual: *mut Node) -> Option<(*mut Node, *mut Node)> {
    unsafe {
        let op = node::cast::<pg_sys::OpExpr>(qual)?;
        if list::len((*op).args) != 2 {
            return None;
        }
        let (left, right) = (
            list::nth::<Node>((*op).args, 0),
            list::nth::<Node>((*op).args, 1),
        );
        is_equality_operator((*op).opno, left).then_some((left, right))
    }
}

/// Is the operator an equality of its left side's default hash operator class?
pub unsafe fn is_equality_operator(operator: Oid, left: *mut Node) -> bool {
    unsafe {
        pg_sys::op_hashjoinable(operator, pg_sys::exprType(left))
            || btree_strategy(operator, left) == Some(pg_sys::BTEqualStrategyNumber)
    }
}

/// The operator's strategy in the default btree operator family of the type.
unsafe fn btree_strategy(operator: Oid, left: *mut Node) -> Option<u32> {
    unsafe {
        let entry = pg_sys::lookup_type_cache(
            pg_sys::exprType(expr::strip_relabel(left)),
            pg_sys::TYPECACHE_BTREE_OPFAMILY as i32,
        );
        let family = (*entry).btree_opf;
        if family == pg_sys::InvalidOid {
            return None;
        }
        let strategy = pg_sys::get_op_opfamily_strategy(operator, family);
        (strategy > 0).then_some(strategy as u32)
    }
}

/// Do equal values of both expressions' types hash alike? True for one type, and for those of one hash family
/// (int2, int4 and int8; text and varchar; a domain and its base).
pub unsafe fn same_hash(left: *mut Node, right: *mut Node) -> bool {
    unsafe {
        let family = |item: *mut Node| {
            let type_oid = crate::pg::types::base_type(pg_sys::exprType(expr::strip_relabel(item)));
            let entry = pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_HASH_OPFAMILY as i32);
            (type_oid, (*entry).hash_opf)
        };
        let (left, right) = (family(left), family(right));
        left.0 == right.0 || left.1 != pg_sys::InvalidOid && left.1 == right.1
    }
}

unsafe fn same_element_hash(left: *mut Node, array: *mut Node) -> bool {
    unsafe {
        let element = pg_sys::get_base_element_type(pg_sys::exprType(array));
        let left_type = crate::pg::types::base_type(pg_sys::exprType(expr::strip_relabel(left)));
        if element == left_type {
            return true;
        }
        let family =
            |t| (*pg_sys::lookup_type_cache(t, pg_sys::TYPECACHE_HASH_OPFAMILY as i32)).hash_opf;
        element != pg_sys::InvalidOid
            && family(element) != pg_sys::InvalidOid
            && family(element) == family(left_type)
    }
}

/// An expression without columns or subqueries that has one value for the whole statement.
pub(super) unsafe fn is_free(item: *mut Node) -> bool {
    unsafe {
        !node::walk(item, &mut |part, _| match node::tag(part) {
            NodeTag::T_Var
            | NodeTag::T_SubLink
            | NodeTag::T_Query
            | NodeTag::T_Aggref
            | NodeTag::T_WindowFunc => Step::Stop,
            NodeTag::T_Param => match (*part.cast::<pg_sys::Param>()).paramkind {
                pg_sys::ParamKind::PARAM_EXTERN | pg_sys::ParamKind::PARAM_EXEC => Step::Into,
                _ => Step::Stop,
            },
            _ => Step::Into,
        }) && !pg_sys::contain_volatile_functions(item)
    }
}
