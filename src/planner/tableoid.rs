//! `tableoid` of a table of ours is that of the table here, whichever shard holds the row: a constant, before the
//! statement is planned. Where an outer join may add rows without the table, it depends on the row being there.

use crate::catalog;
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{list, node};
use pgrx::pg_sys::{self, JoinType, Node, NodeTag, Query, RTEKind};

/// Replaces `tableoid` in a statement (changed in place).
///
/// # Safety
/// `query` is a valid Query that the caller owns.
pub unsafe fn replace(query: *mut Query) -> Result<()> {
    unsafe {
        let named = node::walk(query.cast(), &mut |item, _| {
            if is_tableoid(item) {
                Step::Stop
            } else {
                Step::Into
            }
        });
        if !named {
            return Ok(());
        }
        let mut change = Change {
            levels: Vec::new(),
            failure: Ok(()),
        };
        change.query(query);
        change.failure
    }
}

unsafe fn is_tableoid(item: *mut Node) -> bool {
    unsafe {
        node::cast::<pg_sys::Var>(item)
            .is_some_and(|var| i32::from((*var).varattno) == pg_sys::TableOidAttributeNumber)
    }
}

struct Change {
    levels: Vec<*mut Query>,
    failure: Result<()>,
}

impl Change {
    unsafe fn query(&mut self, query: *mut Query) {
        self.levels.push(query);
        unsafe { node::map_query(query, |child| self.tree(child)) };
        self.levels.pop();
    }

    unsafe fn tree(&mut self, item: *mut Node) -> *mut Node {
        unsafe {
            if item.is_null() {
                return item;
            }
            if let Some(query) = node::cast::<Query>(item) {
                self.query(query);
                return item;
            }
            if is_tableoid(item) {
                return self.value(item.cast()).unwrap_or(item);
            }
            let changed = node::map_children(item, |child| self.tree(child));
            match node::tag(changed) {
                // What is constant now is so before anyone asks where it may run.
                NodeTag::T_RelabelType
                | NodeTag::T_OpExpr
                | NodeTag::T_ScalarArrayOpExpr
                | NodeTag::T_NullTest
                | NodeTag::T_DistinctExpr => {
                    pg_sys::eval_const_expressions(std::ptr::null_mut(), changed)
                }
                _ => changed,
            }
        }
    }

    unsafe fn value(&mut self, var: *mut pg_sys::Var) -> Option<*mut Node> {
        unsafe {
            let depth = self
                .levels
                .len()
                .checked_sub(1 + (*var).varlevelsup as usize)?;
            let level = self.levels[depth];
            let rte = list::rt_fetch((*var).varno, (*level).rtable);
            if (*rte).rtekind != RTEKind::RTE_RELATION {
                return None;
            }
            match catalog::table((*rte).relid) {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => {
                    self.failure = Err(error);
                    return None;
                }
            }
            let constant = pg_sys::makeConst(
                pg_sys::OIDOID,
                -1,
                pg_sys::InvalidOid,
                4,
                pg_sys::Datum::from((*rte).relid),
                false,
                true,
            )
            .cast::<Node>();
            if !is_nullable((*level).jointree.cast(), (*var).varno, false) {
                return Some(constant);
            }
            let row = pg_sys::makeWholeRowVar(rte, (*var).varno, (*var).varlevelsup, false);
            let test = node::make::<pg_sys::NullTest>();
            (*test).arg = row.cast();
            (*test).nulltesttype = pg_sys::NullTestType::IS_NOT_NULL;
            (*test).argisrow = false;
            (*test).location = -1;
            let when = node::make::<pg_sys::CaseWhen>();
            (*when).expr = test.cast();
            (*when).result = constant.cast();
            let case = node::make::<pg_sys::CaseExpr>();
            (*case).casetype = pg_sys::OIDOID;
            (*case).args = list::from([when]);
            (*case).defresult =
                pg_sys::makeNullConst(pg_sys::OIDOID, -1, pg_sys::InvalidOid).cast();
            (*case).location = -1;
            Some(case.cast())
        }
    }
}

/// Is the table on a side of an outer join that may be missing?
unsafe fn is_nullable(item: *mut Node, rtindex: i32, below: bool) -> bool {
    unsafe {
        if let Some(reference) = node::cast::<pg_sys::RangeTblRef>(item) {
            return below && (*reference).rtindex == rtindex;
        }
        if let Some(from) = node::cast::<pg_sys::FromExpr>(item) {
            return list::iter((*from).fromlist).any(|child| is_nullable(child, rtindex, below));
        }
        let Some(join) = node::cast::<pg_sys::JoinExpr>(item) else {
            return false;
        };
        let left = matches!((*join).jointype, JoinType::JOIN_RIGHT | JoinType::JOIN_FULL);
        let right = matches!((*join).jointype, JoinType::JOIN_LEFT | JoinType::JOIN_FULL);
        is_nullable((*join).larg, rtindex, below || left)
            || is_nullable((*join).rarg, rtindex, below || right)
    }
}
