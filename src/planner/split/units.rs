//! What a level needs of a leaf below it: columns and subqueries, each a column of the leaf.

use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::early;
use pgrx::pg_sys::{self, Node, NodeTag, Query};

/// The expressions of a level above its FROM and WHERE.
pub unsafe fn above(query: *mut Query) -> Vec<*mut Node> {
    unsafe {
        vec![
            (*query).targetList.cast(),
            (*query).havingQual,
            (*query).windowClause.cast(),
            (*query).limitCount,
            (*query).limitOffset,
        ]
    }
}

/// Columns and whole subqueries that a tree needs from below, beside the units that are there; false when it holds
/// something that cannot be a unit.
pub unsafe fn collect_units(tree: *mut Node, units: &mut Vec<*mut Node>) -> bool {
    unsafe {
        !node::walk(tree, &mut |item, _| match node::tag(item) {
            _ if units.iter().any(|u| node::equal(*u, item)) => Step::Over,
            NodeTag::T_Var => {
                units.push(item);
                Step::Over
            }
            NodeTag::T_Param if early::is_stand_in(item) => {
                units.push(item);
                Step::Over
            }
            NodeTag::T_SubLink => {
                let sublink = item.cast::<pg_sys::SubLink>();
                let scalar = matches!(
                    (*sublink).subLinkType,
                    pg_sys::SubLinkType::EXISTS_SUBLINK
                        | pg_sys::SubLinkType::EXPR_SUBLINK
                        | pg_sys::SubLinkType::ARRAY_SUBLINK
                );
                if !scalar || aggregates_outside(sublink) {
                    return Step::Stop;
                }
                units.push(item);
                Step::Over
            }
            NodeTag::T_Query => Step::Stop,
            _ => Step::Into,
        })
    }
}

/// Does a subquery aggregate the rows of the level around it?
unsafe fn aggregates_outside(sublink: *mut pg_sys::SubLink) -> bool {
    unsafe {
        node::walk(
            (*sublink).subselect,
            &mut |item, level| match node::cast::<pg_sys::Aggref>(item) {
                Some(aggregate) if level > 0 && (*aggregate).agglevelsup >= level => Step::Stop,
                _ => Step::Into,
            },
        )
    }
}

/// A target list of units, named after their columns where they have names.
pub unsafe fn targets(units: &[*mut Node]) -> *mut pg_sys::List {
    unsafe {
        list::from(
            units
                .iter()
                .enumerate()
                .map(|(index, unit)| {
                    let name = node::pstrdup(&format!("c{}", index + 1));
                    let unit: *mut Node = node::copy(*unit);
                    pg_sys::makeTargetEntry(unit.cast(), index as i16 + 1, name, false)
                })
                .collect::<Vec<_>>(),
        )
    }
}

/// The tree with each unit replaced by the leaf's column of the same number, offset by `first`.
pub unsafe fn replace(tree: *mut Node, units: &[*mut Node], first: usize) -> *mut Node {
    unsafe {
        if tree.is_null() {
            return tree;
        }
        if let Some(index) = units.iter().position(|unit| node::equal(*unit, tree)) {
            return expr::var(1, (first + index) as i16 + 1, expr::signature(tree)).cast();
        }
        node::map_children(tree, |child| replace(child, units, first))
    }
}

pub(super) unsafe fn replace_above(query: *mut Query, units: &[*mut Node]) {
    unsafe {
        (*query).targetList = replace((*query).targetList.cast(), units, 0).cast();
        for entry in list::iter::<pg_sys::TargetEntry>((*query).targetList) {
            (*entry).resorigtbl = pg_sys::InvalidOid;
            (*entry).resorigcol = 0;
        }
        (*query).havingQual = replace((*query).havingQual, units, 0);
        (*query).windowClause = replace((*query).windowClause.cast(), units, 0).cast();
        (*query).limitCount = replace((*query).limitCount, units, 0);
        (*query).limitOffset = replace((*query).limitOffset, units, 0);
    }
}
