//! The statement that finds and locks the rows of a shard that proposed rows are in conflict with, by the unique
//! indexes that ON CONFLICT names.

use crate::deparse::{self, SqlTemplate};
use crate::error::Result;
use crate::pg::{expr, list, node, types};
use crate::planner::insert::ArrayColumn;
use crate::planner::plan::InsertColumn;
use crate::planner::proposed::rows::Proposed;
use crate::planner::reading;
use pgrx::pg_sys::{self, Node, Oid, Query, RTEKind};

/// The numbers of the two tables in the statement.
const TABLE: i32 = 1;
const ROWS: i32 = 2;

/// `=` of int8 in `pg_operator.dat`.
const INT8_EQUAL: u32 = 410;

/// `SELECT number, ctid, columns FROM table, unnest(arrays) WHERE … ORDER BY number FOR UPDATE`, and how the proposed
/// columns travel. `found`: the columns to give; without a strength nothing is locked.
///
/// # Safety
/// `query` is an INSERT with ON CONFLICT into the relation.
pub unsafe fn statement(
    query: *mut Query,
    proposed: &Proposed,
    found: &[i16],
    strength: Option<pg_sys::LockClauseStrength::Type>,
) -> Result<(SqlTemplate, Vec<InsertColumn>)> {
    unsafe {
        let relid = proposed.relid;
        let arrays: Vec<ArrayColumn> = (proposed.attributes.iter().enumerate())
            .map(|(index, attno)| ArrayColumn::of(relid, *attno, index))
            .collect();
        let mut conditions = Vec::new();
        for index in arbiters(query, relid) {
            conditions.extend(conflict(index, proposed, &arrays)?);
        }
        let condition = match conditions[..] {
            [] => pg_sys::makeBoolConst(false, false),
            [only] => only,
            _ => pg_sys::makeBoolExpr(pg_sys::BoolExprType::OR_EXPR, list::from(conditions), -1)
                .cast(),
        };

        let level = node::make::<Query>();
        (*level).commandType = pg_sys::CmdType::CMD_SELECT;
        (*level).canSetTag = true;
        (*level).rtable = list::from([
            table_entry(list::rt_fetch((*query).resultRelation, (*query).rtable)),
            rows_entry(&arrays),
        ]);
        let references = [TABLE, ROWS].map(|number| {
            let reference = node::make::<pg_sys::RangeTblRef>();
            (*reference).rtindex = number;
            reference
        });
        (*level).jointree = pg_sys::makeFromExpr(list::from(references), condition);
        let number = expr::var(
            ROWS,
            arrays.len() as i16 + 1,
            (pg_sys::INT8OID, -1, pg_sys::InvalidOid),
        );
        let ctid = expr::var(
            TABLE,
            pg_sys::SelfItemPointerAttributeNumber as i16,
            (pg_sys::TIDOID, -1, pg_sys::InvalidOid),
        );
        reading::append(level, number.cast());
        reading::append(level, ctid.cast());
        for attno in found {
            let column = expr::var(TABLE, *attno, types::attribute_signature(relid, *attno));
            reading::append(level, column.cast());
        }
        let first = list::nth::<pg_sys::TargetEntry>((*level).targetList, 0);
        (*first).ressortgroupref = 1;
        let order = node::make::<pg_sys::SortGroupClause>();
        (*order).tleSortGroupRef = 1;
        (*order).eqop = INT8_EQUAL.into();
        (*order).sortop = pg_sys::Int8LessOperator.into();
        (*level).sortClause = list::from([order]);
        if let Some(strength) = strength {
            let mark = node::make::<pg_sys::RowMarkClause>();
            (*mark).rti = TABLE as u32;
            (*mark).strength = strength;
            (*mark).waitPolicy = pg_sys::LockWaitPolicy::LockWaitBlock;
            (*level).rowMarks = list::from([mark]);
            (*level).hasForUpdate = true;
        }
        let template = deparse::template(level)?;
        Ok((
            template,
            arrays.into_iter().map(|array| array.column).collect(),
        ))
    }
}

unsafe fn table_entry(target: *mut pg_sys::RangeTblEntry) -> *mut pg_sys::RangeTblEntry {
    unsafe {
        let rte = node::copy(target);
        (*rte).inFromCl = true;
        (*rte).securityQuals = std::ptr::null_mut();
        (*rte).alias = pg_sys::makeAlias(c"t".as_ptr(), std::ptr::null_mut());
        (*(*rte).eref).aliasname = node::pstrdup("t");
        rte
    }
}

/// `ROWS FROM (unnest($1), …) WITH ORDINALITY AS v(c1, …, n)`
unsafe fn rows_entry(arrays: &[ArrayColumn]) -> *mut pg_sys::RangeTblEntry {
    unsafe {
        let rte = node::make::<pg_sys::RangeTblEntry>();
        (*rte).rtekind = RTEKind::RTE_FUNCTION;
        (*rte).funcordinality = true;
        (*rte).inFromCl = true;
        let alias = pg_sys::makeAlias(c"v".as_ptr(), std::ptr::null_mut());
        let mut functions = Vec::new();
        for (index, array) in arrays.iter().enumerate() {
            let (element, _, collation) = element(array);
            let number = index as i32 + 1;
            let array_type = pg_sys::get_array_type(element);
            let param = expr::param(number, array_type, -1, collation);
            functions.push(expr::unnest(param.cast(), element, collation));
            let name = pg_sys::makeString(node::pstrdup(&format!("c{number}")));
            (*alias).colnames = pg_sys::lappend((*alias).colnames, name.cast());
        }
        let name = pg_sys::makeString(node::pstrdup("n"));
        (*alias).colnames = pg_sys::lappend((*alias).colnames, name.cast());
        (*rte).functions = list::from(functions);
        (*rte).alias = alias;
        (*rte).eref = node::copy(alias);
        rte
    }
}

/// Type of the elements in which a column travels.
unsafe fn element(array: &ArrayColumn) -> (Oid, i32, Oid) {
    unsafe {
        let element = Oid::from(array.column.element);
        (element, -1, pg_sys::get_typcollation(element))
    }
}

/// The unique indexes of an ON CONFLICT clause, as PostgreSQL infers them.
unsafe fn arbiters(query: *mut Query, relid: Oid) -> Vec<Oid> {
    unsafe {
        let target = (*query).resultRelation;
        let conflict = node::copy((*query).onConflict);
        let folded = |tree: *mut Node| {
            let tree = expr::renumbered(tree, target, 1);
            pg_sys::eval_const_expressions(std::ptr::null_mut(), tree)
        };
        (*conflict).arbiterElems = folded((*conflict).arbiterElems.cast()).cast();
        let predicate = folded((*conflict).arbiterWhere);
        if !predicate.is_null() {
            let predicate = pg_sys::canonicalize_qual(predicate.cast(), false);
            (*conflict).arbiterWhere = pg_sys::make_ands_implicit(predicate).cast();
        }
        let alone = node::make::<Query>();
        (*alone).rtable = list::from([list::rt_fetch(target, (*query).rtable)]);
        (*alone).resultRelation = 1;
        (*alone).onConflict = conflict;
        let root = node::make::<pg_sys::PlannerInfo>();
        (*root).parse = alone;
        if !(*conflict).arbiterElems.is_null() || (*conflict).constraint != pg_sys::InvalidOid {
            return list::oids(pg_sys::infer_arbiter_indexes(root));
        }
        // without a target: whatever forbids a row
        let relation = pg_sys::RelationIdGetRelation(relid);
        let indexes = list::oids(pg_sys::RelationGetIndexList(relation));
        pg_sys::RelationClose(relation);
        indexes
    }
}

/// When a row of the table and a proposed one are in conflict by an index, if it forbids any.
unsafe fn conflict(
    index: Oid,
    proposed: &Proposed,
    arrays: &[ArrayColumn],
) -> Result<Option<*mut Node>> {
    unsafe {
        let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
        let info = pg_sys::BuildIndexInfo(relation);
        if (*info).ii_Unique {
            pg_sys::BuildSpeculativeIndexInfo(relation, info);
        }
        let operators = if (*info).ii_Unique {
            (*info).ii_UniqueOps
        } else {
            (*info).ii_ExclusionOps
        };
        if operators.is_null() {
            pg_sys::index_close(relation, pg_sys::AccessShareLock as i32);
            return Ok(None);
        }
        let mut expressions = list::iter::<Node>((*info).ii_Expressions);
        let mut keys = Vec::new();
        for key in 0..(*info).ii_NumIndexKeyAttrs as usize {
            let attno = (*info).ii_IndexAttrNumbers[key];
            let value: *mut Node = if attno != 0 {
                let signature = types::attribute_signature(proposed.relid, attno);
                expr::var(TABLE, attno, signature).cast()
            } else {
                expressions.next().unwrap_or(std::ptr::null_mut())
            };
            let operator = *operators.add(key);
            let collation = *(*relation).rd_indcollation.add(key);
            keys.push((value, operator, collation));
        }
        let distinct_nulls = !(*info).ii_NullsNotDistinct;
        let predicate: *mut Node = match list::len((*info).ii_Predicate) {
            0 => std::ptr::null_mut(),
            _ => pg_sys::make_ands_explicit((*info).ii_Predicate).cast(),
        };
        pg_sys::index_close(relation, pg_sys::AccessShareLock as i32);

        let of_row = |tree: *mut Node| {
            reading::lifted(tree, &mut |var| {
                proposed.value(var, &|index, var| {
                    let array = &arrays[index];
                    let value = expr::var(ROWS, index as i16 + 1, element(array));
                    let (type_oid, _, collation) = expr::signature(var.cast());
                    if Oid::from(array.column.element) == type_oid {
                        value.cast()
                    } else {
                        expr::via_text(value.cast(), type_oid, collation)
                    }
                })
            })
        };
        let mut condition = std::ptr::null_mut();
        for (value, operator, collation) in keys {
            let other = of_row(value)?;
            let equal = equality(
                (with_collation(value, collation), other),
                operator,
                collation,
                distinct_nulls,
            );
            condition = expr::and(condition, equal);
        }
        let other = of_row(predicate)?;
        let predicate = expr::and(node::copy(predicate), other);
        Ok(Some(expr::and(condition, predicate)))
    }
}

/// The value with the collation by which it is compared.
unsafe fn with_collation(value: *mut Node, collation: Oid) -> *mut Node {
    unsafe {
        let value = node::copy(value);
        if collation == pg_sys::InvalidOid || collation == pg_sys::exprCollation(value) {
            return value;
        }
        expr::collate(value, collation)
    }
}

/// `a = b`, or `NOT (a IS DISTINCT FROM b)` where NULLs are equal.
unsafe fn equality(
    (a, b): (*mut Node, *mut Node),
    operator: Oid,
    collation: Oid,
    distinct_nulls: bool,
) -> *mut Node {
    unsafe {
        let test = pg_sys::make_opclause(
            operator,
            pg_sys::BOOLOID,
            false,
            a.cast(),
            b.cast(),
            pg_sys::InvalidOid,
            collation,
        );
        if distinct_nulls {
            return test.cast();
        }
        // a DistinctExpr is an OpExpr by another name
        (*test).type_ = pg_sys::NodeTag::T_DistinctExpr;
        pg_sys::makeBoolExpr(pg_sys::BoolExprType::NOT_EXPR, list::from([test]), -1).cast()
    }
}
