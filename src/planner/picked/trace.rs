//! Which condition picks the rows of a change by ctid, and how that ctid comes from the table.

use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{list, node};
use crate::planner::{inline, leaf, split};
use pgrx::pg_sys::{self, CmdType, LockClauseStrength, Node, Oid, Query, RTEKind, RangeTblEntry};
use std::ffi::CStr;

/// An entry of a level through which the picked row comes.
pub struct Link {
    pub query: *mut Query,
    pub rti: i32,
    /// Where the entry reads a WITH query: that, and the level that has it.
    pub cte: *mut pg_sys::CommonTableExpr,
    pub owner: *mut Query,
}

impl Link {
    pub unsafe fn entry(&self) -> *mut RangeTblEntry {
        unsafe { list::rt_fetch(self.rti, (*self.query).rtable) }
    }
}

/// Where the statement names the picked rows.
pub enum Source {
    Sublink(*mut Query),
    Entry(i32),
}

/// How the ctid of a row comes out of a subquery.
#[derive(Default)]
pub struct Trace {
    pub links: Vec<Link>,
    pub vars: Vec<*mut pg_sys::Var>,
    /// An outer join on the way may give NULL.
    pub optional: bool,
}

/// What a condition says of the target's ctid, with how the other side comes from the table.
///
/// # Safety
/// `query` changes the relation.
pub unsafe fn picks(query: *mut Query, conjunct: *mut Node, relid: Oid) -> Option<(Source, Trace)> {
    unsafe {
        let mut trace = Trace::default();
        if let Some(link) = node::cast::<pg_sys::SubLink>(conjunct) {
            let test = node::cast::<pg_sys::OpExpr>((*link).testexpr)?;
            let any = (*link).subLinkType == pg_sys::SubLinkType::ANY_SUBLINK;
            let (left, right) = sides((*test).opno, (*test).args)?;
            node::cast::<pg_sys::Param>(right)?;
            (any && is_ctid_of_target(query, left)).then_some(())?;
            let below = trace.subquery(query, (*link).subselect.cast(), relid)?;
            return Some((Source::Sublink(below), trace));
        }
        if let Some(any) = node::cast::<pg_sys::ScalarArrayOpExpr>(conjunct) {
            let (left, right) = sides((*any).opno, (*any).args)?;
            let link = node::cast::<pg_sys::SubLink>(right)?;
            let array = (*link).subLinkType == pg_sys::SubLinkType::ARRAY_SUBLINK;
            ((*any).useOr && array && is_ctid_of_target(query, left)).then_some(())?;
            let below = trace.subquery(query, (*link).subselect.cast(), relid)?;
            return Some((Source::Sublink(below), trace));
        }
        let op = node::cast::<pg_sys::OpExpr>(conjunct)?;
        let (mut left, mut right) = sides((*op).opno, (*op).args)?;
        if !is_ctid_of_target(query, left) {
            std::mem::swap(&mut left, &mut right);
        }
        is_ctid_of_target(query, left).then_some(())?;
        if let Some(link) = node::cast::<pg_sys::SubLink>(right) {
            let scalar = (*link).subLinkType == pg_sys::SubLinkType::EXPR_SUBLINK;
            (scalar && is_one_row((*link).subselect.cast())).then_some(())?;
            let below = trace.subquery(query, (*link).subselect.cast(), relid)?;
            return Some((Source::Sublink(below), trace));
        }
        let var = node::cast::<pg_sys::Var>(right)?;
        let rti = (*var).varno;
        let beside = rti != (*query).resultRelation && stands_alone(query, rti);
        (beside && (*var).varattno > 0).then_some(())?;
        trace.follow(&mut vec![query], right, relid, false)?;
        Some((Source::Entry(rti), trace))
    }
}

/// The arguments of an equality of ctids.
unsafe fn sides(operator: Oid, args: *mut pg_sys::List) -> Option<(*mut Node, *mut Node)> {
    unsafe {
        let equal = operator == Oid::from(pg_sys::TIDEqualOperator) && list::len(args) == 2;
        equal.then(|| (list::nth(args, 0), list::nth(args, 1)))
    }
}

unsafe fn is_ctid(var: *mut pg_sys::Var) -> bool {
    unsafe { i32::from((*var).varattno) == pg_sys::SelfItemPointerAttributeNumber }
}

unsafe fn is_ctid_of_target(query: *mut Query, item: *mut Node) -> bool {
    unsafe {
        node::cast::<pg_sys::Var>(item).is_some_and(|var| {
            (*var).varno == (*query).resultRelation && (*var).varlevelsup == 0 && is_ctid(var)
        })
    }
}

/// `LIMIT 1`: otherwise a scalar subquery of several rows is an error.
unsafe fn is_one_row(query: *mut Query) -> bool {
    unsafe {
        let limit = pg_sys::eval_const_expressions(std::ptr::null_mut(), (*query).limitCount);
        (*query).limitOption == pg_sys::LimitOption::LIMIT_OPTION_COUNT
            && node::cast::<pg_sys::Const>(limit).is_some_and(|limit| {
                !(*limit).constisnull && (*limit).constvalue.value() as i64 == 1
            })
    }
}

/// Is it an item of FROM itself, that does not follow others?
unsafe fn stands_alone(query: *mut Query, rti: i32) -> bool {
    unsafe {
        !(*list::rt_fetch(rti, (*query).rtable)).lateral
            && list::iter::<Node>((*(*query).jointree).fromlist).any(|item| {
                node::cast::<pg_sys::RangeTblRef>(item).is_some_and(|r| (*r).rtindex == rti)
            })
    }
}

/// Does the statement name rows as a whole, other than the target's? Those of what gets more columns would be other ones.
///
/// # Safety
/// `query` is an UPDATE or DELETE.
pub unsafe fn names_other_rows(query: *mut Query) -> bool {
    unsafe {
        node::walk(query.cast(), &mut |item, level| {
            let whole = node::cast::<pg_sys::Var>(item).is_some_and(|var| {
                let changed =
                    (*var).varno == (*query).resultRelation && (*var).varlevelsup + 1 == level;
                (*var).varattno == 0 && !changed
            });
            if whole {
                Step::Stop
            } else {
                Step::Into
            }
        })
    }
}

/// Fails when a system column, or a ctid that came out of a subquery, is named besides those of `known`.
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn refuse_others(query: *mut Query, known: &[*mut pg_sys::Var]) -> Result<()> {
    unsafe {
        let other = node::walk(query.cast(), &mut |item, _| {
            let names = node::cast::<pg_sys::Var>(item).is_some_and(|var| {
                let system = (*var).varattno < 0
                    && i32::from((*var).varattno) != pg_sys::TableOidAttributeNumber;
                (system || (*var).vartype == pg_sys::TIDOID) && !known.contains(&var)
            });
            if names {
                Step::Stop
            } else {
                Step::Into
            }
        });
        if other {
            return Err(leaf::refused_system_column());
        }
        Ok(())
    }
}

impl Trace {
    /// Follows the only column of a subquery in an expression of `query`; answers the subquery.
    unsafe fn subquery(
        &mut self,
        query: *mut Query,
        below: *mut Query,
        relid: Oid,
    ) -> Option<*mut Query> {
        unsafe {
            if split::is_correlated(below) {
                return None;
            }
            let column = list::nth::<pg_sys::TargetEntry>((*below).targetList, 0);
            self.follow(&mut vec![query, below], (*column).expr.cast(), relid, true)?;
            Some(below)
        }
    }

    /// Follows a value of the innermost of `levels` to the table. `checked`: the level must hand its rows on as they are.
    unsafe fn follow(
        &mut self,
        levels: &mut Vec<*mut Query>,
        value: *mut Node,
        relid: Oid,
        checked: bool,
    ) -> Option<()> {
        unsafe {
            let query = *levels.last()?;
            if checked && !hands_on_rows(query) {
                return None;
            }
            self.optional |= checked && has_outer_join(query);
            let var = node::cast::<pg_sys::Var>(value)?;
            let rti = (*var).varno;
            ((*var).varlevelsup == 0).then_some(())?;
            let rte = list::rt_fetch(rti, (*query).rtable);
            self.vars.push(var);
            let mut link = Link {
                query,
                rti,
                cte: std::ptr::null_mut(),
                owner: std::ptr::null_mut(),
            };
            match (*rte).rtekind {
                RTEKind::RTE_RELATION => {
                    ((*rte).relid == relid && is_ctid(var)).then(|| self.links.push(link))
                }
                RTEKind::RTE_SUBQUERY if !(*rte).lateral => {
                    self.links.push(link);
                    levels.push((*rte).subquery);
                    self.follow(levels, output((*rte).subquery, var)?, relid, true)
                }
                RTEKind::RTE_CTE => {
                    let owner = levels.len().checked_sub(1 + (*rte).ctelevelsup as usize)?;
                    link.owner = levels[owner];
                    link.cte = with_query(link.owner, (*rte).ctename)?;
                    let body = (*link.cte).ctequery.cast::<Query>();
                    self.links.push(link);
                    levels.truncate(owner + 1);
                    levels.push(body);
                    self.follow(levels, output(body, var)?, relid, true)
                }
                _ => None,
            }
        }
    }

    /// Does the level that names the table lock its rows so?
    ///
    /// # Safety
    /// The levels are valid.
    pub unsafe fn locks(&self, strength: LockClauseStrength::Type) -> bool {
        unsafe {
            self.links.last().is_some_and(|base| {
                list::iter::<pg_sys::RowMarkClause>((*base.query).rowMarks)
                    .any(|mark| (*mark).rti as i32 == base.rti && (*mark).strength >= strength)
            })
        }
    }

    /// Rows that have changed before they were locked are read again. A WITH query that others read as well keeps its.
    ///
    /// # Safety
    /// The levels are valid.
    pub unsafe fn can_be_read_again(&self) -> bool {
        self.links
            .iter()
            .all(|link| link.cte.is_null() || unsafe { (*link.cte).cterefcount == 1 })
    }

    /// Makes WITH queries subqueries.
    ///
    /// # Safety
    /// The levels are valid.
    pub unsafe fn inline(&mut self) {
        unsafe {
            for link in &mut self.links {
                let cte = std::mem::replace(&mut link.cte, std::ptr::null_mut());
                if cte.is_null() {
                    continue;
                }
                let rte = list::rt_fetch(link.rti, (*link.query).rtable);
                let body = (*cte).ctequery.cast::<Query>();
                node::shift_levels(body.cast(), (*rte).ctelevelsup as i32, 1);
                inline::become_subquery(rte, body);
                let others = list::iter((*link.owner).cteList).filter(|other| *other != cte);
                (*link.owner).cteList = list::from(others.collect::<Vec<_>>());
            }
        }
    }
}

/// May a row get further columns without the level giving other rows?
unsafe fn hands_on_rows(query: *mut Query) -> bool {
    unsafe {
        (*query).commandType == CmdType::CMD_SELECT
            && (*query).setOperations.is_null()
            && (*query).groupClause.is_null()
            && (*query).groupingSets.is_null()
            && !(*query).hasAggs
            && (*query).havingQual.is_null()
            && ((*query).distinctClause.is_null() || (*query).hasDistinctOn)
    }
}

unsafe fn has_outer_join(query: *mut Query) -> bool {
    unsafe {
        node::walk(
            (*query).jointree.cast(),
            &mut |item, _| match node::cast::<pg_sys::JoinExpr>(item) {
                Some(join) if (*join).jointype != pg_sys::JoinType::JOIN_INNER => Step::Stop,
                _ if node::cast::<Query>(item).is_some() => Step::Over,
                _ => Step::Into,
            },
        )
    }
}

/// The expression of the column that a Var names.
unsafe fn output(below: *mut Query, var: *mut pg_sys::Var) -> Option<*mut Node> {
    unsafe {
        list::iter::<pg_sys::TargetEntry>((*below).targetList)
            .find(|column| (**column).resno == (*var).varattno)
            .map(|column| (*column).expr.cast())
    }
}

unsafe fn with_query(
    owner: *mut Query,
    name: *const std::ffi::c_char,
) -> Option<*mut pg_sys::CommonTableExpr> {
    unsafe {
        list::iter::<pg_sys::CommonTableExpr>((*owner).cteList).find(|cte| {
            !(**cte).cterecursive && CStr::from_ptr((**cte).ctename) == CStr::from_ptr(name)
        })
    }
}

/// Does a statement name system columns only to compare the ctids of two rows of one table? Where the shards run the
/// statement by themselves, both are in one shard.
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn compares_only(query: *mut Query) -> bool {
    unsafe { !names_otherwise(query.cast(), &mut Vec::new()) }
}

unsafe fn names_otherwise(item: *mut Node, levels: &mut Vec<*mut Query>) -> bool {
    unsafe {
        if item.is_null() {
            return false;
        }
        if let Some(query) = node::cast::<Query>(item) {
            levels.push(query);
            let found = node::query_children(query, 0, |child| names_otherwise(child, levels));
            levels.pop();
            return found;
        }
        if let Some(var) = node::cast::<pg_sys::Var>(item) {
            return (*var).varattno < 0
                && i32::from((*var).varattno) != pg_sys::TableOidAttributeNumber;
        }
        if let Some(op) = node::cast::<pg_sys::OpExpr>(item) {
            let tables: Vec<Option<Oid>> = list::iter::<Node>((*op).args)
                .map(|argument| table_of_ctid(argument, levels))
                .collect();
            if matches!(tables[..], [Some(one), Some(other)] if one == other) {
                return false;
            }
        }
        node::children(item, |child| names_otherwise(child, levels))
    }
}

/// The relation whose ctid it is.
unsafe fn table_of_ctid(item: *mut Node, levels: &[*mut Query]) -> Option<Oid> {
    unsafe {
        let var = node::cast::<pg_sys::Var>(item).filter(|var| is_ctid(*var))?;
        let level = levels.len().checked_sub(1 + (*var).varlevelsup as usize)?;
        let rte = list::rt_fetch((*var).varno, (*levels[level]).rtable);
        ((*rte).rtekind == RTEKind::RTE_RELATION).then_some((*rte).relid)
    }
}
