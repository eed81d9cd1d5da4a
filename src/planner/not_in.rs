//! `x NOT IN (SELECT y …)` as NOT EXISTS, which can be joined where NOT IN has to be asked for each row. It is true of no
//! row if a `y` is NULL, and of a NULL `x` only if there are no rows to look in:
//!
//! ```sql
//! NOT EXISTS (SELECT … WHERE x = y) AND (x IS NOT NULL OR NOT EXISTS (SELECT …)) AND NOT EXISTS (SELECT … WHERE y IS NULL)
//! ```
//!
//! What is asked about NULL is left out where there can be none. `x <> ALL (SELECT …)` is the same.

use crate::error::Result;
use crate::pg::{expr, list, node, types};
use crate::planner::decorrelate::{as_exists, duplicates::gives_rows};
use crate::planner::pieces::{joins, trees, Level};
use pgrx::pg_sys::{self, BoolExprType, Node, NullTestType, Query, RTEKind, SubLink, SubLinkType};

/// Rewrites conditions of the level that the shards can check then, as the rows to look in are beside those of the level.
///
/// # Safety
/// `query` is a SELECT that the caller owns.
pub unsafe fn beside_rows(query: *mut Query) -> Result<()> {
    unsafe {
        for (index, condition) in expr::conjuncts((*(*query).jointree).quals)
            .into_iter()
            .enumerate()
        {
            if let Some(NotIn {
                mut parts,
                nulls: false,
            }) = NotIn::of(query, condition)
            {
                let changed: *mut Query = node::copy(query);
                put(changed, index, &parts);
                if runs_on_shards(changed, parts.remove(0))? {
                    std::ptr::copy_nonoverlapping(changed, query, 1);
                }
            }
        }
        Ok(())
    }
}

/// Rewrites all conditions of the level that can be; answers whether there are any.
///
/// # Safety
/// As `beside_rows`.
pub unsafe fn all(query: *mut Query) -> bool {
    unsafe {
        let mut found = false;
        for (index, condition) in expr::conjuncts((*(*query).jointree).quals)
            .into_iter()
            .enumerate()
        {
            if let Some(not_in) = NotIn::of(query, condition) {
                put(query, index, &not_in.parts);
                found = true;
            }
        }
        found
    }
}

/// A condition that is NOT IN.
struct NotIn {
    /// What it becomes.
    parts: Vec<*mut Node>,
    /// Is there anything about NULL among them?
    nulls: bool,
}

impl NotIn {
    unsafe fn of(query: *mut Query, condition: *mut Node) -> Option<NotIn> {
        unsafe {
            let sublink = negated(condition)?;
            let rows: *mut Query = node::copy((*sublink).subselect).cast();
            if !(*rows).hasDistinctOn {
                (*rows).distinctClause = std::ptr::null_mut();
            }
            if !gives_rows(rows) || pg_sys::contain_volatile_functions((*sublink).testexpr) {
                return None;
            }
            let found = as_exists(sublink, rows)?;
            let tests = expr::conjuncts((*sublink).testexpr);
            let mut parts = vec![not(exists(found))];
            for (number, test) in tests.iter().enumerate() {
                let [x, other] = [0, 1]
                    .map(|index| list::nth::<Node>((*test.cast::<pg_sys::OpExpr>()).args, index));
                if !stands_for_column(other, number) {
                    return None;
                }
                let y = list::nth::<pg_sys::TargetEntry>((*rows).targetList, number);
                let y = (*y).expr.cast::<Node>();
                if !is_never_null(query, x) {
                    let some = is_null(x, NullTestType::IS_NOT_NULL)?;
                    let either = list::from([some, not(exists(first(rows)))]);
                    parts.push(pg_sys::makeBoolExpr(BoolExprType::OR_EXPR, either, -1).cast());
                }
                if !is_never_null(rows, y) {
                    let with_null = first(rows);
                    let from = (*with_null).jointree;
                    (*from).quals = expr::and((*from).quals, is_null(y, NullTestType::IS_NULL)?);
                    parts.push(not(exists(with_null)));
                }
            }
            let nulls = parts.len() > 1;
            // of several columns some may differ while others are NULL
            (tests.len() == 1 || !nulls).then_some(NotIn { parts, nulls })
        }
    }
}

/// The IN that a condition denies.
unsafe fn negated(condition: *mut Node) -> Option<*mut SubLink> {
    unsafe {
        if let Some(sublink) = node::cast::<SubLink>(condition) {
            let test = node::cast::<pg_sys::OpExpr>((*sublink).testexpr)?;
            let equality = pg_sys::get_negator((*test).opno);
            if (*sublink).subLinkType != SubLinkType::ALL_SUBLINK || equality == pg_sys::InvalidOid
            {
                return None;
            }
            let sublink = node::copy(sublink);
            let test = (*sublink).testexpr.cast::<pg_sys::OpExpr>();
            (*sublink).subLinkType = SubLinkType::ANY_SUBLINK;
            (*test).opno = equality;
            (*test).opfuncid = pg_sys::get_opcode(equality);
            return Some(sublink);
        }
        let not = node::cast::<pg_sys::BoolExpr>(condition)
            .filter(|not| (**not).boolop == BoolExprType::NOT_EXPR)?;
        node::cast::<SubLink>(list::nth::<Node>((*not).args, 0))
            .filter(|sublink| (**sublink).subLinkType == SubLinkType::ANY_SUBLINK)
    }
}

/// Is it a column of the subquery, perhaps cast, which is NULL when the column is?
unsafe fn stands_for_column(value: *mut Node, number: usize) -> bool {
    unsafe {
        let value = expr::strip_relabel(value);
        if let Some(cast) = node::cast::<pg_sys::FuncExpr>(value) {
            return types::is_builtin((*cast).funcid)
                && pg_sys::func_strict((*cast).funcid)
                && list::len((*cast).args) == 1
                && stands_for_column(list::nth((*cast).args, 0), number);
        }
        node::cast::<pg_sys::Param>(value)
            .is_some_and(|param| (*param).paramid == number as i32 + 1)
    }
}

unsafe fn not(value: *mut Node) -> *mut Node {
    unsafe { pg_sys::makeBoolExpr(BoolExprType::NOT_EXPR, list::from([value]), -1).cast() }
}

unsafe fn exists(rows: *mut Query) -> *mut Node {
    unsafe {
        let sublink = node::make::<SubLink>();
        (*sublink).subLinkType = SubLinkType::EXISTS_SUBLINK;
        (*sublink).subselect = rows.cast();
        (*sublink).location = -1;
        sublink.cast()
    }
}

/// The first row, whatever it has.
unsafe fn first(rows: *mut Query) -> *mut Query {
    unsafe {
        let rows = node::copy(rows);
        (*rows).sortClause = std::ptr::null_mut();
        (*rows).limitCount = expr::int8(1).cast();
        rows
    }
}

/// None of composite values, which may be neither.
unsafe fn is_null(value: *mut Node, kind: NullTestType::Type) -> Option<*mut Node> {
    unsafe {
        if pg_sys::type_is_rowtype(pg_sys::exprType(value)) {
            return None;
        }
        let test = node::make::<pg_sys::NullTest>();
        (*test).arg = node::copy(value).cast();
        (*test).nulltesttype = kind;
        (*test).location = -1;
        Some(test.cast())
    }
}

/// Puts `parts` in the place of a condition, the first exactly there.
unsafe fn put(query: *mut Query, index: usize, parts: &[*mut Node]) {
    unsafe {
        let mut quals = expr::conjuncts((*(*query).jointree).quals);
        quals[index] = parts[0];
        quals.extend(&parts[1..]);
        let all = list::from(quals);
        (*(*query).jointree).quals = pg_sys::makeBoolExpr(BoolExprType::AND_EXPR, all, -1).cast();
    }
}

/// Is the condition one of a piece of the level?
unsafe fn runs_on_shards(query: *mut Query, condition: *mut Node) -> Result<bool> {
    unsafe {
        let query: *mut Query = node::copy(query);
        let condition = pg_sys::flatten_join_alias_vars(query, node::copy(condition));
        let Some(level) = Level::of(query)? else {
            return Ok(false);
        };
        let Some(index) = level
            .quals
            .iter()
            .position(|qual| node::equal(*qual, condition))
        else {
            return Ok(false);
        };
        let speaks_of = trees::varnos(condition);
        for piece in &level.pieces {
            let members = level.members(piece);
            if !level.is_optional_alone(piece)
                && speaks_of.iter().all(|varno| members.contains(varno))
                && level.runs_with(piece, index)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Is it a column that a table says is NOT NULL, or that conditions want to be something, with no outer join that could
/// leave it out?
unsafe fn is_never_null(query: *mut Query, value: *mut Node) -> bool {
    unsafe {
        let value = pg_sys::flatten_join_alias_vars(query, node::copy(expr::strip_relabel(value)));
        let Some(var) = node::cast::<pg_sys::Var>(value).filter(|var| (**var).varlevelsup == 0)
        else {
            return false;
        };
        let wanted = pg_sys::find_nonnullable_vars((*(*query).jointree).quals);
        if list::iter::<Node>(wanted).any(|known| node::equal(known, value)) {
            return true;
        }
        let entry = list::rt_fetch((*var).varno, (*query).rtable);
        (*entry).rtekind == RTEKind::RTE_RELATION
            && joins::joined_plainly((*query).jointree.cast(), (*var).varno)
            && types::is_not_null((*entry).relid, (*var).varattno)
    }
}
