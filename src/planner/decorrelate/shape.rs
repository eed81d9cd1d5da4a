//! The trees that correlated subqueries are found in, and those that they become.

use super::Subquery;
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::aggregate::group_clause;
use crate::planner::externals::Externals;
use crate::planner::pieces::joins;
use crate::planner::pieces::trees::{self, reference};
use crate::planner::{broadcast, leaf, split};
use pgrx::pg_sys::{self, CmdType, Node, NodeTag, Query, RTEKind, RangeTblEntry, SubLinkType};

/// Does the level return all its rows, each once, so that its output is computed for all?
pub unsafe fn gives_all_rows(query: *mut Query) -> bool {
    unsafe {
        !(*query).hasAggs
            && (*query).groupClause.is_null()
            && (*query).groupingSets.is_null()
            && (*query).havingQual.is_null()
            && (*query).limitCount.is_null()
            && (*query).limitOffset.is_null()
    }
}

/// Does LIMIT end the level before all its rows are looked at?
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn wants_few_rows(query: *mut Query) -> bool {
    unsafe {
        !(*query).limitCount.is_null()
            && (*query).sortClause.is_null()
            && !(*query).hasAggs
            && (*query).groupClause.is_null()
            && (*query).distinctClause.is_null()
            && (*query).windowClause.is_null()
    }
}

/// A correlated subquery of one value, or of EXISTS, without anything between its rows and its aggregates; with
/// `filters`, which says that only its truth matters, also one of IN.
pub unsafe fn subquery(sublink: *mut pg_sys::SubLink, filters: bool) -> Option<Subquery> {
    unsafe {
        let query = node::cast::<Query>((*sublink).subselect)?;
        match (*sublink).subLinkType {
            SubLinkType::EXISTS_SUBLINK if !(*query).hasSubLinks => {
                let limit = (*query).limitCount;
                (limit.is_null() || is_some_rows(limit)).then(|| dependent(query, true))?
            }
            SubLinkType::EXPR_SUBLINK if !(*query).hasSubLinks => (*query)
                .limitCount
                .is_null()
                .then(|| dependent(query, false))?,
            SubLinkType::ANY_SUBLINK if filters => {
                let exists = as_exists(sublink, query)?;
                Some(Subquery {
                    test: Some((*sublink).testexpr),
                    ..dependent(exists, true)?
                })
            }
            _ => None,
        }
    }
}

/// The subquery of `EXISTS (SELECT … WHERE x = y)`, which is true when `x IN (SELECT y …)` is.
///
/// # Safety
/// `sublink` is a valid one of type ANY with `query` as its subquery.
pub unsafe fn as_exists(sublink: *mut pg_sys::SubLink, query: *mut Query) -> Option<*mut Query> {
    unsafe {
        let test = (*sublink).testexpr;
        let equalities = expr::conjuncts(test).into_iter().all(|part| {
            node::cast::<pg_sys::OpExpr>(part).is_some_and(|op| {
                let left = list::nth::<Node>((*op).args, 0);
                pg_sys::op_mergejoinable((*op).opno, pg_sys::exprType(left))
            })
        });
        if !equalities
            || node::has_sublink(test)
            || (*query).hasDistinctOn
            || !(*query).limitCount.is_null()
            || split::is_correlated(query)
            || split::reads_outer_cte(query)
        {
            return None;
        }
        let query = node::copy(query);
        let test: *mut Node = node::copy(test);
        node::shift_levels(test, 1, 0);
        let test = compared(test, (*query).targetList);
        (*(*query).jointree).quals = expr::and((*(*query).jointree).quals, test);
        (*query).distinctClause = std::ptr::null_mut();
        Some(query)
    }
}

/// The test of IN with the subquery's columns in the place of what stands for them.
unsafe fn compared(item: *mut Node, targets: *mut pg_sys::List) -> *mut Node {
    unsafe {
        if item.is_null() {
            return item;
        }
        if let Some(param) = node::cast::<pg_sys::Param>(item)
            .filter(|param| (**param).paramkind == pg_sys::ParamKind::PARAM_SUBLINK)
        {
            let target = list::nth::<pg_sys::TargetEntry>(targets, (*param).paramid as usize - 1);
            return node::copy((*target).expr).cast();
        }
        node::map_children(item, |child| compared(child, targets))
    }
}

/// What a subquery depends on; None when it is not of the kind that can be taken out.
unsafe fn dependent(query: *mut Query, exists: bool) -> Option<Subquery> {
    unsafe {
        let simple = (*query).commandType == CmdType::CMD_SELECT
            && (*query).groupClause.is_null()
            && (*query).groupingSets.is_null()
            && (*query).havingQual.is_null()
            && (*query).distinctClause.is_null()
            && (*query).windowClause.is_null()
            && (*query).limitOffset.is_null()
            && (*query).setOperations.is_null()
            && (*query).cteList.is_null()
            && (*query).rowMarks.is_null()
            && !(*query).hasTargetSRFs
            && (*query).hasAggs != exists;
        if !simple || !crate::planner::mentions_distributed(query) {
            return None;
        }
        let mut keys: Vec<*mut pg_sys::Var> = Vec::new();
        let mut aggregates: Vec<*mut pg_sys::Aggref> = Vec::new();
        let odd = node::walk(query.cast(), &mut |item, level| match node::tag(item) {
            NodeTag::T_Var => {
                let var = item.cast::<pg_sys::Var>();
                if (*var).varlevelsup > level || level > 1 && (*var).varlevelsup == level {
                    return Step::Stop;
                }
                if level == 1 && (*var).varlevelsup == 1 {
                    let key = node::copy(var);
                    (*key).varlevelsup = 0;
                    if !keys
                        .iter()
                        .any(|known| trees::same_column((*known).cast(), key))
                    {
                        keys.push(key);
                    }
                }
                Step::Into
            }
            NodeTag::T_Aggref if level == 1 => {
                let aggregate = item.cast::<pg_sys::Aggref>();
                if !aggregates
                    .iter()
                    .any(|known| node::equal(*known, aggregate))
                {
                    aggregates.push(aggregate);
                }
                Step::Into
            }
            NodeTag::T_Aggref if (*item.cast::<pg_sys::Aggref>()).agglevelsup >= level => {
                Step::Stop
            }
            NodeTag::T_GroupingFunc => Step::Stop,
            _ => Step::Into,
        });
        if odd || keys.is_empty() || has_odd_sources(query) {
            return None;
        }
        if exists {
            aggregates.clear();
        }
        Some(Subquery {
            query,
            keys,
            aggregates,
            exists,
            test: None,
        })
    }
}

/// A LIMIT of a number that is not zero.
unsafe fn is_some_rows(limit: *mut Node) -> bool {
    unsafe {
        node::cast::<pg_sys::Const>(limit)
            .is_some_and(|c| !(*c).constisnull && (*c).constvalue.value() as i64 > 0)
    }
}

/// Is something in FROM that is not a table, or refers to what is around the subquery?
unsafe fn has_odd_sources(query: *mut Query) -> bool {
    unsafe {
        let outside = |tree: *mut Node| {
            node::walk(
                tree,
                &mut |item, level| match node::cast::<pg_sys::Var>(item) {
                    Some(var) if (*var).varlevelsup > level => Step::Stop,
                    _ => Step::Into,
                },
            )
        };
        let all_tables = list::iter::<RangeTblEntry>((*query).rtable).all(|entry| {
            (*entry).rtekind == RTEKind::RTE_JOIN
                || (*entry).rtekind == RTEKind::RTE_RELATION
                    && (*entry).tablesample.is_null()
                    && (*entry).securityQuals.is_null()
        });
        !all_tables || list::iter::<Node>((*(*query).jointree).fromlist).any(outside)
    }
}

/// The subquery with the conditions that do not depend on what is around it, for an estimate.
pub unsafe fn without_correlation(query: *mut Query) -> *mut Query {
    unsafe {
        let copy: *mut Query = node::copy(query);
        let own: Vec<*mut Node> = expr::conjuncts((*(*copy).jointree).quals)
            .into_iter()
            .filter(|qual| !pg_sys::contain_vars_of_level(*qual, 1))
            .collect();
        (*(*copy).jointree).quals = split::conjunction(&own);
        let one = pg_sys::makeTargetEntry(expr::int4(1).cast(), 1, node::pstrdup("one"), false);
        (*copy).targetList = list::from([one]);
        (*copy).hasAggs = false;
        (*copy).limitCount = std::ptr::null_mut();
        (*copy).sortClause = std::ptr::null_mut();
        copy
    }
}

/// Makes `columns` what a query groups by.
///
/// # Safety
/// They are valid, and of types that can be grouped.
pub unsafe fn clauses(columns: &[*mut pg_sys::TargetEntry]) -> *mut pg_sys::List {
    unsafe {
        let clause = |(index, column): (usize, &*mut pg_sys::TargetEntry)| {
            let reference = index as u32 + 1;
            (**column).ressortgroupref = reference;
            group_clause(pg_sys::exprType((**column).expr.cast()), reference)
        };
        list::from(columns.iter().enumerate().map(clause).collect::<Vec<_>>())
    }
}

/// `SELECT DISTINCT keys FROM cte`, a WITH query beside it.
pub unsafe fn distinct(cte: *mut pg_sys::CommonTableExpr, keys: &[*mut pg_sys::Var]) -> *mut Query {
    unsafe {
        let columns: Vec<*mut pg_sys::TargetEntry> = keys
            .iter()
            .enumerate()
            .map(|(index, key)| {
                let var = expr::var(1, (**key).varattno, expr::signature((*key).cast()));
                let name = node::pstrdup(&format!("k{}", index + 1));
                pg_sys::makeTargetEntry(var.cast(), index as i16 + 1, name, false)
            })
            .collect();
        let distinct = clauses(&columns);
        let query = trees::select_from(broadcast::with_entry(cte, 1), list::from(columns));
        (*query).distinctClause = distinct;
        query
    }
}

/// What the subquery gives for each of the keys, about so many, as a subquery of the level that has the WITH query of keys.
pub unsafe fn answers(
    subquery: &Subquery,
    keys: *mut pg_sys::CommonTableExpr,
    rows: f64,
) -> Result<*mut Query> {
    unsafe {
        let mut externals = Externals::default();
        let query: *mut Query = node::copy(subquery.query);
        // the keys come first
        for rtindex in (1..=list::len((*query).rtable) as i32).rev() {
            node::renumber(query.cast(), rtindex, rtindex + 1);
        }
        let entry = broadcast::arrays_entry(keys, 2, rows, &mut externals);
        leaf::note_sent((*entry).functions.cast(), "what a subquery asks for");
        (*query).rtable = pg_sys::lcons(entry.cast(), (*query).rtable);
        (*(*query).jointree).fromlist =
            pg_sys::lcons(reference(1).cast(), (*(*query).jointree).fromlist);
        node::map_query(query, |child| lowered(child, 0, &subquery.keys));

        let columns: Vec<*mut pg_sys::TargetEntry> = subquery
            .keys
            .iter()
            .enumerate()
            .map(|(index, key)| {
                let column = index as i16 + 1;
                let var = expr::var(1, column, expr::signature((*key).cast()));
                let name = node::pstrdup(&format!("k{column}"));
                pg_sys::makeTargetEntry(var.cast(), column, name, false)
            })
            .collect();
        let mut targets = columns.clone();
        for (index, aggregate) in subquery.aggregates.iter().enumerate() {
            let aggregate: *mut Node = node::copy(*aggregate).cast();
            let holder = list::from([aggregate]);
            for rtindex in (1..=list::len((*query).rtable) as i32 - 1).rev() {
                node::renumber(holder.cast(), rtindex, rtindex + 1);
            }
            let aggregate = lowered(list::nth(holder, 0), 0, &subquery.keys);
            let name = node::pstrdup(&format!("a{}", index + 1));
            let number = targets.len() as i16 + 1;
            targets.push(pg_sys::makeTargetEntry(
                aggregate.cast(),
                number,
                name,
                false,
            ));
        }
        (*query).groupClause = clauses(&columns);
        (*query).targetList = list::from(targets);
        (*query).sortClause = std::ptr::null_mut();
        (*query).limitCount = std::ptr::null_mut();
        split::transform(query)?;
        externals.restore(query);
        Ok(query)
    }
}

/// Columns around the subquery become those of its first entry.
unsafe fn lowered(item: *mut Node, depth: u32, keys: &[*mut pg_sys::Var]) -> *mut Node {
    unsafe {
        if item.is_null() {
            return item;
        }
        if let Some(query) = node::cast::<Query>(item) {
            node::map_query(query, |child| lowered(child, depth + 1, keys));
            return item;
        }
        if let Some(var) = node::cast::<pg_sys::Var>(item) {
            let place = keys
                .iter()
                .position(|key| trees::same_column((*key).cast(), var));
            if let (true, Some(place)) = ((*var).varlevelsup == depth + 1, place) {
                let column = expr::var(1, place as i16 + 1, expr::signature(item));
                (*column).varlevelsup = depth;
                return column.cast();
            }
            return item;
        }
        node::map_children(item, |child| lowered(child, depth, keys))
    }
}

/// `from LEFT JOIN answers ON answers.key = key AND …`
pub unsafe fn left_join(
    query: *mut Query,
    from: *mut Node,
    rtindex: i32,
    keys: &[*mut pg_sys::Var],
) -> *mut Node {
    unsafe {
        let mut quals: *mut Node = std::ptr::null_mut();
        for (index, key) in keys.iter().enumerate() {
            let signature = expr::signature((*key).cast());
            let cache = pg_sys::lookup_type_cache(signature.0, pg_sys::TYPECACHE_EQ_OPR as i32);
            let equal = pg_sys::make_opclause(
                (*cache).eq_opr,
                pg_sys::BOOLOID,
                false,
                expr::var(rtindex, index as i16 + 1, signature).cast(),
                node::copy(*key).cast(),
                pg_sys::InvalidOid,
                signature.2,
            );
            pg_sys::set_opfuncid(equal.cast());
            quals = expr::and(quals, equal.cast());
        }
        let join = node::make::<pg_sys::JoinExpr>();
        (*join).jointype = pg_sys::JoinType::JOIN_LEFT;
        (*join).larg = from;
        (*join).rarg = reference(rtindex);
        (*join).quals = quals;
        joins::give_entry(query, join);
        join.cast()
    }
}

/// The value of the subquery for a row, from what was answered for its keys.
pub unsafe fn value(subquery: &Subquery, rtindex: i32, keys: &[*mut pg_sys::Var]) -> *mut Node {
    unsafe {
        if subquery.exists {
            let test = node::make::<pg_sys::NullTest>();
            let key = expr::var(rtindex, 1, expr::signature(keys[0].cast()));
            (*test).arg = key.cast();
            (*test).nulltesttype = pg_sys::NullTestType::IS_NOT_NULL;
            (*test).location = -1;
            return test.cast();
        }
        let target = list::iter::<pg_sys::TargetEntry>((*subquery.query).targetList)
            .find(|target| !(**target).resjunk);
        let value: *mut Node = target.map_or(std::ptr::null_mut(), |t| (*t).expr.cast());
        valued(value, subquery, rtindex, keys)
    }
}

unsafe fn valued(
    item: *mut Node,
    subquery: &Subquery,
    rtindex: i32,
    keys: &[*mut pg_sys::Var],
) -> *mut Node {
    unsafe {
        if item.is_null() {
            return item;
        }
        let place = subquery
            .aggregates
            .iter()
            .position(|aggregate| node::equal(*aggregate, item));
        if let Some(place) = place {
            let aggregate = item.cast::<pg_sys::Aggref>();
            let column = (subquery.keys.len() + place) as i16 + 1;
            let answer = expr::var(rtindex, column, expr::signature(item));
            let counts = matches!(
                (*aggregate).aggfnoid.to_u32(),
                pg_sys::F_COUNT_ | pg_sys::F_COUNT_ANY
            );
            if !counts {
                return answer.cast();
            }
            let coalesce = node::make::<pg_sys::CoalesceExpr>();
            (*coalesce).coalescetype = pg_sys::INT8OID;
            (*coalesce).args = list::from([answer.cast::<Node>(), expr::int8(0).cast()]);
            (*coalesce).location = -1;
            return coalesce.cast();
        }
        if let Some(var) = node::cast::<pg_sys::Var>(item) {
            let place = subquery
                .keys
                .iter()
                .position(|key| trees::same_column((*key).cast(), var));
            return match place {
                Some(place) if (*var).varlevelsup == 1 => node::copy(keys[place]).cast(),
                _ => item,
            };
        }
        node::map_children(item, |child| valued(child, subquery, rtindex, keys))
    }
}
