//! The level put together again above its leaf: groups are the leaf's columns, aggregates combine its partial ones.

use super::columns;
use super::level::{Level, Way};
use super::recipe;
use crate::error::Result;
use crate::pg::{expr, list, node, sql};
use crate::planner::split;
use pgrx::pg_sys::{self, Aggref, Node, NodeTag, Oid, Query};

impl Level {
    /// Puts the level above its leaf, whose columns have these signatures; answers the conditions on its rows.
    pub unsafe fn put_above(
        &self,
        query: *mut Query,
        signatures: &[(Oid, i32, Oid)],
    ) -> Result<*mut Node> {
        unsafe {
            let finished = self.finished(signatures)?;
            let rewrite = |tree: *mut Node| self.rewrite(tree, &finished);
            (*query).targetList = rewrite((*query).targetList.cast()).cast();
            for entry in list::iter::<pg_sys::TargetEntry>((*query).targetList) {
                (*entry).resorigtbl = pg_sys::InvalidOid;
                (*entry).resorigcol = 0;
            }
            (*query).havingQual = rewrite((*query).havingQual);
            (*query).windowClause = rewrite((*query).windowClause.cast()).cast();
            if !self.whole {
                (*query).hasAggs = (*query).hasAggs || !self.aggregates.is_empty();
                self.group_by_loose_columns(query);
                return Ok(std::ptr::null_mut());
            }
            let having = if self.having.is_null() {
                (*query).havingQual
            } else {
                std::ptr::null_mut()
            };
            split::clear_grouping(query);
            Ok(having)
        }
    }

    /// What takes the place of each aggregate.
    unsafe fn finished(&self, signatures: &[(Oid, i32, Oid)]) -> Result<Vec<*mut Node>> {
        unsafe {
            let column = |index: usize| -> *mut Node {
                expr::var(1, index as i16 + 1, signatures[index]).cast()
            };
            let after_groups = self.group_columns().len();
            let of_set = |set: &[usize]| -> Result<*mut Node> {
                if !self.has_sets() {
                    return Ok(std::ptr::null_mut());
                }
                let text = format!("$1 = {}", self.mask(set));
                sql::expression(&text, &[column(after_groups)])
            };
            let first = after_groups + usize::from(self.has_sets());
            let partials = self.partials();
            let position = |partial: &*mut Node| {
                let found = partials.iter().position(|p| node::equal(*p, *partial));
                column(first + found.unwrap_or_default())
            };
            let mut finished = Vec::new();
            for aggregate in &self.aggregates {
                finished.push(match &aggregate.way {
                    Way::Split(recipe) => {
                        let columns: Vec<*mut Node> =
                            recipe.partials.iter().map(position).collect();
                        let tree = recipe.finish(&columns)?;
                        recipe::set_filter(tree, of_set(&[])?);
                        tree
                    }
                    Way::Distinct {
                        arguments,
                        filter,
                        set,
                    } => {
                        let copy = node::copy(aggregate.node);
                        for (entry, value) in
                            list::iter::<pg_sys::TargetEntry>((*copy).args).zip(arguments)
                        {
                            if let Some(value) = value {
                                (*entry).expr = self.column_of(*value).cast();
                            }
                        }
                        (*copy).aggfilter = match filter {
                            Some(filter) => self.column_of(*filter).cast(),
                            None => std::ptr::null_mut(),
                        };
                        recipe::set_filter(copy.cast(), of_set(&self.sets[*set])?);
                        copy.cast()
                    }
                });
            }
            Ok(finished)
        }
    }

    /// The leaf's column of a group or key that is there.
    unsafe fn column_of(&self, item: *mut Node) -> *mut Node {
        unsafe {
            match self.position(item) {
                Some(attno) => expr::var(1, attno, expr::signature(item)).cast(),
                None => item,
            }
        }
    }

    unsafe fn rewrite(&self, tree: *mut Node, finished: &[*mut Node]) -> *mut Node {
        unsafe {
            if tree.is_null() {
                return tree;
            }
            if node::tag(tree) != NodeTag::T_Const {
                let units = self.groups.iter().chain(&self.loose);
                for (index, unit) in units.enumerate() {
                    if node::equal(*unit, tree) {
                        return expr::var(1, index as i16 + 1, expr::signature(tree)).cast();
                    }
                }
            }
            if let Some(aggregate) = node::cast::<Aggref>(tree) {
                if let Some(index) = self.find(aggregate) {
                    return node::copy(finished[index]);
                }
            }
            node::map_children(tree, |child| self.rewrite(child, finished))
        }
    }

    /// The level above groups by the loose columns too: PostgreSQL would not know that they depend on the key.
    unsafe fn group_by_loose_columns(&self, query: *mut Query) {
        unsafe {
            for (index, column) in self.loose.iter().enumerate() {
                let value = expr::var(
                    1,
                    (self.groups.len() + index) as i16 + 1,
                    expr::signature(*column),
                );
                let entry = pg_sys::makeTargetEntry(
                    value.cast(),
                    list::len((*query).targetList) as i16 + 1,
                    node::pstrdup("group"),
                    true,
                );
                let reference = list::iter::<pg_sys::TargetEntry>((*query).targetList)
                    .map(|e| (*e).ressortgroupref)
                    .max()
                    .unwrap_or(0)
                    + 1;
                (*entry).ressortgroupref = reference;
                (*query).targetList = pg_sys::lappend((*query).targetList, entry.cast());
                (*query).groupClause = pg_sys::lappend(
                    (*query).groupClause,
                    columns::group_clause(pg_sys::exprType(*column), reference).cast(),
                );
            }
        }
    }
}
