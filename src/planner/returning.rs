//! RETURNING with a subquery that reads other tables by the columns of the row that is returned: the INSERT becomes a
//! WITH clause, whose rows the list is computed from.

use crate::error::{Error, Result};
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::{insert, reading, split, writing, Planner};
use pgrx::pg_sys::{self, CmdType, Node, PlannedStmt, Query, RTEKind};

/// Does RETURNING have such a subquery?
///
/// # Safety
/// `query` is an INSERT.
pub unsafe fn follows_rows(query: *mut Query) -> Result<bool> {
    unsafe {
        let mut answer = Ok(false);
        node::walk((*query).returningList.cast(), &mut |item, _| {
            let Some(sublink) = node::cast::<pg_sys::SubLink>(item) else {
                return Step::Into;
            };
            let subquery = (*sublink).subselect;
            if split::is_correlated(subquery.cast()) {
                answer = insert::reads_other_rows(subquery);
            }
            if matches!(answer, Ok(false)) {
                Step::Over
            } else {
                Step::Stop
            }
        });
        answer
    }
}

/// Plans such an INSERT.
///
/// # Safety
/// `query` is an INSERT into a distributed table.
pub unsafe fn plan(
    query: *mut Query,
    standard: Planner,
    rest: unsafe fn(*mut Query, Planner) -> Result<*mut PlannedStmt>,
) -> Result<*mut PlannedStmt> {
    unsafe {
        if !(*query).cteList.is_null() {
            return Err(Error::refused(
                "RETURNING of a statement with WITH clauses cannot read other tables by the columns of the row",
                "Run the subquery as a statement of its own.",
            ));
        }
        let mut units = Vec::new();
        collect(
            (*query).returningList.cast(),
            (*query).resultRelation,
            &mut units,
        );
        if units.is_empty() {
            return Err(Error::internal(
                "RETURNING follows rows without their columns",
            ));
        }
        let body: *mut Query = node::copy(query);
        (*body).returningList = split::targets(&units);

        let cte = node::make::<pg_sys::CommonTableExpr>();
        (*cte).ctename = node::pstrdup("inserted");
        (*cte).ctequery = body.cast();
        (*cte).cterefcount = 1;
        (*cte).location = -1;
        let rte = node::make::<pg_sys::RangeTblEntry>();
        (*rte).rtekind = RTEKind::RTE_CTE;
        (*rte).ctename = pg_sys::pstrdup((*cte).ctename);
        (*rte).inFromCl = true;
        let alias = node::make::<pg_sys::Alias>();
        (*alias).aliasname = pg_sys::pstrdup((*cte).ctename);
        for entry in list::iter::<pg_sys::TargetEntry>((*body).returningList) {
            let (type_oid, typmod, collation) = expr::signature((*entry).expr.cast());
            let name = || pg_sys::makeString(pg_sys::pstrdup((*entry).resname));
            (*alias).colnames = pg_sys::lappend((*alias).colnames, name().cast());
            (*cte).ctecolnames = pg_sys::lappend((*cte).ctecolnames, name().cast());
            for (of_cte, of_rte, value) in [
                (&mut (*cte).ctecoltypes, &mut (*rte).coltypes, type_oid),
                (
                    &mut (*cte).ctecolcollations,
                    &mut (*rte).colcollations,
                    collation,
                ),
            ] {
                *of_cte = pg_sys::lappend_oid(*of_cte, value);
                *of_rte = pg_sys::lappend_oid(*of_rte, value);
            }
            (*cte).ctecoltypmods = pg_sys::lappend_int((*cte).ctecoltypmods, typmod);
            (*rte).coltypmods = pg_sys::lappend_int((*rte).coltypmods, typmod);
        }
        (*rte).eref = alias;
        let reference = node::make::<pg_sys::RangeTblRef>();
        (*reference).rtindex = 1;
        let level = node::make::<Query>();
        (*level).commandType = CmdType::CMD_SELECT;
        (*level).canSetTag = true;
        (*level).hasSubLinks = true;
        (*level).hasModifyingCTE = true;
        (*level).cteList = list::from([cte]);
        (*level).rtable = list::from([rte]);
        (*level).jointree = pg_sys::makeFromExpr(list::from([reference]), std::ptr::null_mut());
        let over_units = reading::lifted((*query).returningList.cast(), &mut |var| {
            let unit = units
                .iter()
                .position(|unit| node::equal(*unit, var))
                .filter(|_| (*var).varno == (*query).resultRelation);
            Ok(match unit {
                Some(index) => expr::var(1, index as i16 + 1, expr::signature(var.cast())).cast(),
                None => var.cast(),
            })
        })?;
        (*level).targetList = over_units.cast();
        let planned = writing::plan(level, standard, rest)?;
        (*planned).commandType = CmdType::CMD_INSERT;
        (*planned).hasReturning = true;
        (*planned).canSetTag = (*query).canSetTag;
        (*planned).queryId = (*query).queryId;
        (*planned).stmt_location = (*query).stmt_location;
        (*planned).stmt_len = (*query).stmt_len;
        Ok(planned)
    }
}

/// The columns of the target that a tree names at any depth, as seen from the INSERT.
unsafe fn collect(tree: *mut Node, target: i32, units: &mut Vec<*mut Node>) {
    unsafe {
        node::walk(tree, &mut |item, level| {
            if let Some(var) = node::cast::<pg_sys::Var>(item) {
                if (*var).varno == target && (*var).varlevelsup == level {
                    let unit = node::copy(var);
                    (*unit).varlevelsup = 0;
                    if !units.iter().any(|known| node::equal(*known, unit)) {
                        units.push(unit.cast());
                    }
                }
            }
            Step::Into
        });
    }
}
