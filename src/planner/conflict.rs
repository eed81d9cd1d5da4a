//! ON CONFLICT: it runs on the shard that has the row. What it may not do, and what row security and views demand of
//! the row that it finds and of what becomes of it.

use crate::error::{Error, Result};
use crate::pg::{expr, list, node};
use crate::planner::insert::{row_checks, target_relid};
use crate::planner::plan::{CheckKind, RowCheck};
use crate::planner::{reading, ship};
use pgrx::pg_sys::{self, Node, Query, WCOKind};

/// Error texts of shards that are conditions of ours, with the number of the condition behind.
pub const MARK: &str = "shard_ext condition ";

/// Newer releases of PostgreSQL 15 check that ON CONFLICT DO UPDATE through a view finds a row of the view.
pub const WCO_VIEW_CONFLICT_CHECK: WCOKind::Type = 6;

/// What views leave in the range table must not take the name `excluded` from the entry that has it.
///
/// # Safety
/// `query` is an INSERT that the caller owns.
pub unsafe fn name_excluded(query: *mut Query) {
    unsafe {
        let Some(conflict) = node::cast::<pg_sys::OnConflictExpr>((*query).onConflict) else {
            return;
        };
        for (index, rte) in list::iter::<pg_sys::RangeTblEntry>((*query).rtable).enumerate() {
            let number = index as i32 + 1;
            if number != (*conflict).exclRelIndex
                && number != (*query).resultRelation
                && !(*rte).inFromCl
                && (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION
            {
                let alias = node::make::<pg_sys::Alias>();
                (*alias).aliasname = node::pstrdup("of_view");
                (*rte).alias = alias;
            }
        }
    }
}

/// The clause, if it is DO UPDATE.
///
/// # Safety
/// `query` is an INSERT.
pub unsafe fn updates(query: *mut Query) -> Option<*mut pg_sys::OnConflictExpr> {
    unsafe {
        node::cast::<pg_sys::OnConflictExpr>((*query).onConflict)
            .filter(|c| (**c).action == pg_sys::OnConflictAction::ONCONFLICT_UPDATE)
    }
}

/// Does the row that DO UPDATE finds stay in its shard: is its key not set, or to what it is (`SET key = excluded.key`)?
///
/// # Safety
/// `query` is an INSERT into a table with that distribution column.
pub unsafe fn keeps_key(query: *mut Query, key: i16) -> bool {
    unsafe {
        updates(query).is_none_or(|conflict| {
            list::iter::<pg_sys::TargetEntry>((*conflict).onConflictSet)
                .filter(|entry| (**entry).resno == key && !(**entry).resjunk)
                .all(|entry| {
                    node::cast::<pg_sys::Var>((*entry).expr).is_some_and(|v| (*v).varattno == key)
                })
        })
    }
}

/// Why the clause cannot run on a node.
///
/// # Safety
/// `query` is an INSERT.
pub unsafe fn obstacle(query: *mut Query) -> Option<ship::Reason> {
    unsafe {
        let clause: *mut Node = node::copy((*query).onConflict).cast();
        ship::obstacle(without_values_of_the_moment(clause))
    }
}

/// The same as a refusal.
///
/// # Safety
/// As `obstacle`.
pub unsafe fn must_ship(query: *mut Query) -> Result<()> {
    match unsafe { obstacle(query) } {
        None => Ok(()),
        Some(reason) => Err(Error::refused(
            "this ON CONFLICT clause cannot run on the shards",
            "Compute the value first and use it in the statement.",
        )
        .detail(reason)),
    }
}

/// The tree without calls whose value is as good from a node as from here, and another one each time.
unsafe fn without_values_of_the_moment(tree: *mut Node) -> *mut Node {
    const FUNCTIONS: [u32; 4] = [
        pg_sys::F_RANDOM,
        pg_sys::F_GEN_RANDOM_UUID,
        pg_sys::F_CLOCK_TIMESTAMP,
        pg_sys::F_TIMEOFDAY,
    ];
    unsafe {
        if tree.is_null() {
            return tree;
        }
        if let Some(call) = node::cast::<pg_sys::FuncExpr>(tree) {
            if FUNCTIONS.contains(&(*call).funcid.to_u32()) {
                return pg_sys::makeNullConst((*call).funcresulttype, -1, (*call).funccollid)
                    .cast();
            }
        }
        if node::cast::<Query>(tree).is_some() {
            return tree;
        }
        node::map_children(tree, |child| without_values_of_the_moment(child))
    }
}

/// What is to be checked of the rows of an INSERT, by where that can be done.
#[derive(Default)]
pub struct Checks {
    /// Conditions on each row before it is sent.
    pub before: (Vec<*mut Node>, Vec<RowCheck>),
    /// Conditions on each row as it is on the shard afterwards.
    pub after: (Vec<*mut Node>, Vec<RowCheck>),
    /// Conditions that the clause now checks itself.
    pub inside: Vec<RowCheck>,
}

/// Takes the conditions off the statement. Those on the row that ON CONFLICT DO UPDATE finds, and on what it makes of
/// it, are put into the clause, where they raise an error.
///
/// # Safety
/// `query` is an INSERT that the caller owns.
pub unsafe fn take_checks(query: *mut Query) -> Result<Checks> {
    unsafe {
        let options = std::mem::replace(&mut (*query).withCheckOptions, std::ptr::null_mut());
        let mut checks = Checks::default();
        let mut inside = Vec::new();
        let mut visible = Vec::new();
        for option in list::iter::<pg_sys::WithCheckOption>(options) {
            let (conditions, described) = row_checks(query, list::from([option]))?;
            let kind = (*option).kind;
            if kind == WCOKind::WCO_RLS_INSERT_CHECK
                || kind == WCOKind::WCO_VIEW_CHECK && (*query).onConflict.is_null()
            {
                checks.before.0.extend(conditions);
                checks.before.1.extend(described);
            } else if kind == WCOKind::WCO_VIEW_CHECK {
                checks.after.0.extend(conditions);
                checks.after.1.extend(described);
            } else if let Some(conflict) = updates(query) {
                for (condition, check) in conditions.into_iter().zip(described) {
                    let number = checks.inside.len();
                    match check.kind {
                        CheckKind::FoundRowOfView => visible.push((number, condition)),
                        CheckKind::FoundRow => inside.push((number, condition)),
                        _ => inside.push((number, over_new_row(query, condition, conflict)?)),
                    }
                    checks.inside.push(check);
                }
            }
        }
        if let Some(conflict) = updates(query) {
            let target = (*query).resultRelation;
            let first = list::iter::<pg_sys::TargetEntry>((*conflict).onConflictSet).next();
            if let (Some(first), false) = (first, inside.is_empty()) {
                (*first).expr = guarded((*first).expr.cast(), target, inside).cast();
            }
            if !visible.is_empty() {
                // PostgreSQL looks at this before the clause's own condition.
                let own = (*conflict).onConflictWhere;
                let own = if own.is_null() {
                    pg_sys::makeBoolConst(true, false)
                } else {
                    own
                };
                (*conflict).onConflictWhere = guarded(own, target, visible);
            }
        }
        Ok(checks)
    }
}

/// A condition on the row's columns, over what the clause sets them to.
unsafe fn over_new_row(
    query: *mut Query,
    condition: *mut Node,
    conflict: *mut pg_sys::OnConflictExpr,
) -> Result<*mut Node> {
    unsafe {
        let (target, relid) = ((*query).resultRelation, target_relid(query));
        for entry in list::iter::<pg_sys::TargetEntry>((*conflict).onConflictSet) {
            if pg_sys::contain_volatile_functions((*entry).expr.cast()) {
                return Err(Error::refused(
                    "ON CONFLICT DO UPDATE under row security cannot set a value that is another one each time",
                    "Compute the value first and use it in the statement.",
                ));
            }
        }
        let mut refused = false;
        let changed = reading::lifted(condition, &mut |var| {
            if (*var).varno != target {
                return Ok(var.cast());
            }
            // whole rows and generated columns are not among what is set
            let attno = (*var).varattno;
            refused |= attno <= 0 || pg_sys::get_attgenerated(relid, attno) != 0;
            let entry = list::iter::<pg_sys::TargetEntry>((*conflict).onConflictSet)
                .find(|entry| (**entry).resno == attno);
            Ok(match entry {
                Some(entry) => node::copy((*entry).expr).cast(),
                None => var.cast(),
            })
        })?;
        if refused {
            return Err(Error::refused(
                "a row security policy on whole rows or generated columns cannot check what ON CONFLICT DO UPDATE makes of them",
                "Write the policy with the other columns.",
            ));
        }
        Ok(changed)
    }
}

/// The value, or an error with the number of a condition in its text where that does not hold:
/// `CASE WHEN condition IS NOT TRUE AND (text that is no number)::int = 0 THEN NULL … ELSE value END`.
unsafe fn guarded(value: *mut Node, target: i32, conditions: Vec<(usize, *mut Node)>) -> *mut Node {
    unsafe {
        let (type_oid, typmod, collation) = expr::signature(value);
        let case = node::make::<pg_sys::CaseExpr>();
        (*case).casetype = type_oid;
        (*case).casecollid = collation;
        (*case).defresult = value.cast();
        (*case).location = -1;
        let mut arms = Vec::new();
        for (number, condition) in conditions {
            let fails = node::make::<pg_sys::BooleanTest>();
            (*fails).arg = condition.cast();
            (*fails).booltesttype = pg_sys::BoolTestType::IS_NOT_TRUE;
            (*fails).location = -1;
            let arm = node::make::<pg_sys::CaseWhen>();
            (*arm).expr = expr::and(fails.cast(), error_with(number, target)).cast();
            (*arm).result = pg_sys::makeNullConst(type_oid, typmod, collation).cast();
            (*arm).location = -1;
            arms.push(arm);
        }
        (*case).args = list::from(arms);
        case.cast()
    }
}

/// Stand for the transaction and the command that wrote the rows of earlier batches.
pub const WRITER: &str = "shard_ext writer";
pub const WRITTEN_SINCE: i64 = 4_611_686_018_427_387_903;

/// Lets ON CONFLICT DO UPDATE fail when it finds a row of an earlier batch of the same statement; None for other clauses.
/// PostgreSQL looks at this when it locks the row, before all other conditions.
///
/// # Safety
/// `query` is an INSERT that the caller owns.
pub unsafe fn forbid_own_rows(query: *mut Query, number: usize) -> Option<RowCheck> {
    unsafe {
        let conflict = updates(query)?;
        let target = (*query).resultRelation;
        let (xmin, cmin) = (
            pg_sys::MinTransactionIdAttributeNumber,
            pg_sys::MinCommandIdAttributeNumber,
        );
        let writer = system_text(target, xmin, pg_sys::XIDOID);
        let command = expr::via_text(
            system_text(target, cmin, pg_sys::CIDOID),
            pg_sys::INT8OID,
            pg_sys::InvalidOid,
        );
        let own = test(pg_sys::TextEqualOperator, writer, text_const(WRITER));
        let before = expr::int8(WRITTEN_SINCE).cast();
        let before = test(pg_sys::Int8LessOperator, command, before);
        let others = pg_sys::makeBoolExpr(pg_sys::BoolExprType::NOT_EXPR, list::from([own]), -1);
        let allowed = pg_sys::makeBoolExpr(
            pg_sys::BoolExprType::OR_EXPR,
            list::from([others.cast::<Node>(), before]),
            -1,
        );
        let own = (*conflict).onConflictWhere;
        let own = if own.is_null() {
            pg_sys::makeBoolConst(true, false)
        } else {
            own
        };
        (*conflict).onConflictWhere = guarded(own, target, vec![(number, allowed.cast())]);
        Some(RowCheck {
            kind: CheckKind::OwnRow,
            relation: String::new(),
            table: 0,
            policy: None,
        })
    }
}

/// `(MARK 'n ' || ctid)::int = 0`: an error whenever it is evaluated, and not before, since it depends on the row.
unsafe fn error_with(number: usize, target: i32) -> *mut Node {
    unsafe {
        let ctid = pg_sys::SelfItemPointerAttributeNumber;
        let text = pg_sys::makeFuncExpr(
            pg_sys::Oid::from(pg_sys::F_TEXTCAT),
            pg_sys::TEXTOID,
            list::from([
                text_const(&format!("{MARK}{number} ")),
                system_text(target, ctid, pg_sys::TIDOID),
            ]),
            pg_sys::DEFAULT_COLLATION_OID,
            pg_sys::DEFAULT_COLLATION_OID,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        );
        let number = expr::via_text(text.cast(), pg_sys::INT4OID, pg_sys::InvalidOid);
        test(pg_sys::Int4EqualOperator, number, expr::int4(0).cast())
    }
}

/// A system column of the target as text.
unsafe fn system_text(target: i32, attno: i32, type_oid: pg_sys::Oid) -> *mut Node {
    unsafe {
        let column = expr::var(target, attno as i16, (type_oid, -1, pg_sys::InvalidOid));
        expr::via_text(
            column.cast(),
            pg_sys::TEXTOID,
            pg_sys::DEFAULT_COLLATION_OID,
        )
    }
}

unsafe fn text_const(text: &str) -> *mut Node {
    unsafe { expr::text(node::pstrdup(text)).cast() }
}

/// A comparison by an operator of PostgreSQL's own.
unsafe fn test(operator: u32, left: *mut Node, right: *mut Node) -> *mut Node {
    unsafe {
        let (_, _, collation) = expr::signature(left);
        let test = pg_sys::make_opclause(
            pg_sys::Oid::from(operator),
            pg_sys::BOOLOID,
            false,
            left.cast(),
            right.cast(),
            pg_sys::InvalidOid,
            collation,
        );
        pg_sys::fix_opfuncids(test.cast());
        test.cast()
    }
}

/// The number of the condition that an error of a shard tells of.
pub fn condition_of(message: &str) -> Option<usize> {
    let (_, rest) = message.split_once(MARK)?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_number_of_a_condition_is_in_the_errors_text() {
        let text = "invalid input syntax for type integer: \"shard_ext condition 12 (0,1)\"";
        assert_eq!(super::condition_of(text), Some(12));
        assert_eq!(super::condition_of("invalid input syntax"), None);
    }
}
