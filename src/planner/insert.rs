//! INSERT. One row of values goes out as the statement itself, its values computed here as parameters. Many rows,
//! and rows of a query, are computed by a plan below and sent in arrays to their shard groups.

mod arrays;

use crate::catalog::{self, Colocation, TableKind};
use crate::copy::calls_user_code;
use crate::error::{Error, Result};
use crate::pg::node::Step;
use crate::pg::{expr, list, node, types};
use crate::planner::conflict;
use crate::planner::early::Early;
use crate::planner::plan::{CheckKind, Private, Prune, RowCheck};
use crate::planner::proposed::Proposed;
use crate::planner::remote::{self, Order};
use crate::planner::route::Route;
use crate::planner::ship::{self, Parameters};
use crate::planner::{copies, insert_select, modify, proposed, pull, reading, statement, Planner};
pub use arrays::{insert_plan, ArrayColumn, Made};
use pgrx::pg_sys::{self, CmdType, Node, PlannedStmt, Query, RTEKind};
use std::ffi::CStr;
use std::rc::Rc;

/// Plans an INSERT in which a distributed table is named.
///
/// # Safety
/// As `planner::plan`.
pub unsafe fn plan(query: *mut Query, standard: Planner) -> Result<*mut PlannedStmt> {
    unsafe {
        let Some(target) = modify::target(query)? else {
            return super::plan_select(query, standard);
        };
        match &target.kind {
            TableKind::Reference => copies::plan(query, standard),
            TableKind::Distributed { key, colocation } => {
                if let Some(reason) = proposed::reason(query, &target)? {
                    return proposed::plan(query, &target, reason, standard);
                }
                if is_single_row(query) {
                    return single_row(query, *key, colocation);
                }
                match insert_select::pushed(query, *key, colocation)? {
                    Some(statement) => Ok(statement),
                    None => rows(query, *key, colocation, standard),
                }
            }
        }
    }
}

/// `INSERT … VALUES (one row)` whose values do not read tables.
///
/// # Safety
/// `query` is an INSERT.
pub unsafe fn is_single_row(query: *mut Query) -> bool {
    unsafe {
        list::len((*(*query).jointree).fromlist) == 0
            && (*(*query).jointree).quals.is_null()
            && !(*query).hasSubLinks
            && !(*query).hasTargetSRFs
            && (*query).cteList.is_null()
            && (*query).withCheckOptions.is_null()
    }
}

unsafe fn single_row(
    query: *mut Query,
    key: i16,
    colocation: &Rc<Colocation>,
) -> Result<*mut PlannedStmt> {
    unsafe {
        let copy: *mut Query = node::copy(query);
        conflict::name_excluded(copy);
        drop_generated(copy);
        (*copy).override_ = pg_sys::OverridingKind::OVERRIDING_NOT_SET;
        let mut parameters = Parameters::default();
        let mut prune = Prune::Null;
        for entry in list::iter::<pg_sys::TargetEntry>((*copy).targetList) {
            let value = pg_sys::eval_const_expressions(std::ptr::null_mut(), (*entry).expr.cast());
            // Two calls of a volatile function are two values, even where they look alike.
            let parameter = if pg_sys::contain_volatile_functions(value) {
                parameters.fresh(value)
            } else {
                parameters.parameter(value)
            };
            if (*entry).resno == key {
                let index = parameters.position_of(parameter);
                prune = Prune::Key(index);
            }
            (*entry).expr = parameter.cast();
        }
        conflict::must_ship(copy)?;
        let returning = modify::push_returning(copy)?;
        let route = Route {
            colocation: colocation.clone(),
            prune,
            values: Vec::new(),
            single: true,
        };
        let order = Order::default();
        let remote = remote::finish_with(copy, &route, order, parameters)?;
        statement::planned(query, remote, returning)
    }
}

/// Columns that the worker generates are not sent.
unsafe fn drop_generated(query: *mut Query) {
    unsafe {
        let relid = target_relid(query);
        let entries: Vec<_> = list::iter::<pg_sys::TargetEntry>((*query).targetList)
            .filter(|entry| pg_sys::get_attgenerated(relid, (**entry).resno) == 0)
            .collect();
        (*query).targetList = list::from(entries);
    }
}

/// The table that an INSERT names.
///
/// # Safety
/// `query` is an INSERT.
pub unsafe fn target_relid(query: *mut Query) -> pg_sys::Oid {
    unsafe { (*list::rt_fetch((*query).resultRelation, (*query).rtable)).relid }
}

/// The SELECT that computes an INSERT's rows, with one output column per inserted column; answers the columns'
/// attribute numbers.
///
/// # Safety
/// `query` is an INSERT.
pub unsafe fn source(query: *mut Query) -> (*mut Query, Vec<i16>) {
    unsafe {
        let select: *mut Query = node::copy(query);
        drop_generated(select);
        let mut attributes = Vec::new();
        if (*select).targetList.is_null() {
            // Rows of nothing but NULLs still have to be counted.
            let (attno, signature) = any_column(target_relid(query));
            let null = pg_sys::makeNullConst(signature.0, signature.1, signature.2);
            let entry = pg_sys::makeTargetEntry(null.cast(), attno, std::ptr::null_mut(), false);
            (*select).targetList = list::from([entry]);
        }
        for (index, entry) in list::iter::<pg_sys::TargetEntry>((*select).targetList).enumerate() {
            attributes.push((*entry).resno);
            (*entry).resno = index as i16 + 1;
        }
        (*select).commandType = CmdType::CMD_SELECT;
        (*select).resultRelation = 0;
        (*select).onConflict = std::ptr::null_mut();
        (*select).returningList = std::ptr::null_mut();
        (*select).withCheckOptions = std::ptr::null_mut();
        (*select).override_ = pg_sys::OverridingKind::OVERRIDING_NOT_SET;
        // The rows' source is in FROM now, and must be written there.
        for reference in list::iter::<Node>((*(*select).jointree).fromlist) {
            if let Some(reference) = node::cast::<pg_sys::RangeTblRef>(reference) {
                let rte = list::rt_fetch((*reference).rtindex, (*select).rtable);
                (*rte).inFromCl = true;
            }
        }
        (select, attributes)
    }
}

/// A column that can be given a value, with its type.
unsafe fn any_column(relid: pg_sys::Oid) -> (i16, (pg_sys::Oid, i32, pg_sys::Oid)) {
    unsafe {
        let attno = (1..=types::column_count(relid))
            .find(|attno| {
                types::has_column(relid, *attno) && pg_sys::get_attgenerated(relid, *attno) == 0
            })
            .unwrap_or(1);
        (attno, types::attribute_signature(relid, attno))
    }
}

/// What runs on the nodes, behind the rows, may read only what is whole on every one.
unsafe fn reads_same_rows(tree: *mut Node) -> Result<()> {
    if unsafe { reads_other_rows(tree)? } {
        return Err(Error::refused(
            "a subquery behind the rows of INSERT cannot read distributed or local tables",
            "Run it as a statement of its own.",
        ));
    }
    Ok(())
}

/// Does a subquery read a table that is not whole on every node?
///
/// # Safety
/// `tree` is null, an expression, a list or a Query.
pub unsafe fn reads_other_rows(tree: *mut Node) -> Result<bool> {
    let mut answer = Ok(false);
    unsafe {
        node::walk(tree, &mut |item, depth| {
            let Some(level) = node::cast::<Query>(item) else {
                return Step::Into;
            };
            for rte in list::iter::<pg_sys::RangeTblEntry>((*level).rtable) {
                if (*rte).rtekind == RTEKind::RTE_CTE && (*rte).ctelevelsup > depth {
                    // A WITH clause of the statement.
                    answer = Ok(true);
                }
                if (*rte).rtekind != RTEKind::RTE_RELATION || (*rte).relkind as u8 == b'v' {
                    continue;
                }
                match catalog::table((*rte).relid) {
                    Ok(Some(table)) if matches!(table.kind, TableKind::Reference) => {}
                    Ok(_) => answer = Ok(true),
                    Err(error) => answer = Err(error),
                }
            }
            if matches!(answer, Ok(false)) {
                Step::Into
            } else {
                Step::Stop
            }
        });
    }
    answer
}

/// Why the clauses behind the rows cannot run on the shards as they are, or None when they can.
///
/// # Safety
/// `query` is an INSERT into a distributed table.
pub unsafe fn clauses_obstacle(query: *mut Query) -> Result<Option<ship::Reason>> {
    unsafe {
        for tree in [
            (*query).returningList.cast::<Node>(),
            (*query).onConflict.cast(),
        ] {
            if reads_other_rows(tree)? {
                return Ok(Some("a subquery reads other tables".to_owned()));
            }
        }
        Ok(conflict::obstacle(query))
    }
}

/// Rows computed by a plan below, routed one by one.
unsafe fn rows(
    query: *mut Query,
    key: i16,
    colocation: &Rc<Colocation>,
    standard: Planner,
) -> Result<*mut PlannedStmt> {
    unsafe {
        let (select, attributes) = source(query);
        let mut early = Early::default();
        let mut prepared = prepare(query, key, colocation.id, &attributes, &mut early)?;
        if !may_be_copied(query, select, &prepared.made) {
            prepared.made.plan.copied = None;
        }
        let (select, checked) = with_checks(select, query, &prepared.made, &attributes)?;
        let first = list::len((*select).targetList);
        early.add_to(select);
        let below = super::plan_select(select, standard)?;
        let mut exprs = Vec::new();
        for (index, item) in prepared.made.exprs.iter().enumerate() {
            let over_columns = match checked {
                Some(from) if index < prepared.made.plan.checks.len() => {
                    let signature = expr::signature(*item);
                    expr::var(pg_sys::OUTER_VAR, (from + index) as i16 + 1, signature).cast()
                }
                _ => {
                    let changed = over_rows(*item, query, pg_sys::OUTER_VAR, &attributes)?;
                    pg_sys::fix_opfuncids(changed);
                    changed
                }
            };
            exprs.push(early.over_rows(over_columns, first));
        }
        above_rows(query, below, prepared, exprs)
    }
}

/// Can rows go to the shards by COPY: is there nothing but rows, and does nothing that computes them need the connections
/// while they are sent?
unsafe fn may_be_copied(query: *mut Query, select: *mut Query, made: &Made) -> bool {
    unsafe {
        (*query).onConflict.is_null()
            && (*query).returningList.is_null()
            // a node's own policies are not for COPY
            && !(*query).hasRowSecurity
            && made.exprs.is_empty()
            && made.plan.checks_after.is_empty()
            && !node::walk(select.cast(), &mut |item, _| {
                // a constraint may call any function
                if node::tag(item) == pg_sys::NodeTag::T_CoerceToDomain || calls_user_code(item) {
                    Step::Stop
                } else {
                    Step::Into
                }
            })
    }
}

/// What an INSERT of rows needs besides the rows.
struct Prepared {
    pub made: Made,
    /// What RETURNING computes here, over the columns that come back.
    pub returning: Option<*mut pg_sys::List>,
}

/// The statement that inserts rows with these columns on shards, and what RETURNING computes here.
///
/// # Safety
/// `query` is an INSERT into a distributed table.
pub unsafe fn prepare_rows(
    query: *mut Query,
    key: i16,
    colocation: i32,
    attributes: &[i16],
) -> Result<(Made, Option<*mut pg_sys::List>)> {
    unsafe {
        for tree in [
            (*query).returningList.cast::<Node>(),
            (*query).onConflict.cast(),
        ] {
            reads_same_rows(tree)?;
        }
        let mut early = Early::default();
        let prepared = prepare(query, key, colocation, attributes, &mut early)?;
        Ok((prepared.made, prepared.returning))
    }
}

/// The same with the subqueries that are to be computed with the rows.
unsafe fn prepare(
    query: *mut Query,
    key: i16,
    colocation: i32,
    attributes: &[i16],
    early: &mut Early,
) -> Result<Prepared> {
    unsafe {
        let copy: *mut Query = node::copy(query);
        conflict::name_excluded(copy);
        (*copy).onConflict = early.take((*copy).onConflict)?;
        (*copy).returningList = early.take((*copy).returningList)?;
        conflict::must_ship(copy)?;
        let mut checks = conflict::take_checks(copy)?;
        (*copy).onConflict = early.take((*copy).onConflict)?;
        for condition in &mut checks.after.0 {
            *condition = early.take(*condition)?;
        }
        for tree in [
            (*copy).returningList.cast::<Node>(),
            (*copy).onConflict.cast(),
        ] {
            reads_same_rows(tree)?;
        }
        let returning = modify::push_returning(copy)?;
        for condition in &checks.after.0 {
            reads_same_rows(*condition)?;
            if let Some(reason) = ship::obstacle(*condition) {
                return Err(Error::refused(
                    "a condition on new rows cannot be checked on the shards",
                    "Use INSERT and UPDATE as statements of their own, in one transaction.",
                )
                .detail(reason));
            }
            let number = list::len((*copy).returningList) as i16 + 1;
            let name = node::pstrdup(&format!("checked_{number}"));
            let entry = pg_sys::makeTargetEntry((*condition).cast(), number, name, false);
            (*copy).returningList = pg_sys::lappend((*copy).returningList, entry.cast());
        }
        let columns: Vec<(usize, i16)> = attributes.iter().copied().enumerate().collect();
        let key = attributes.iter().position(|a| *a == key);
        let made = insert_plan(copy, &columns, colocation, key, checks)?;
        Ok(Prepared { made, returning })
    }
}

/// Where a condition on the new rows has a subquery, a level above the rows computes all conditions as further columns.
/// Answers the rows' query, and the first of those columns.
unsafe fn with_checks(
    select: *mut Query,
    query: *mut Query,
    made: &Made,
    attributes: &[i16],
) -> Result<(*mut Query, Option<usize>)> {
    unsafe {
        let conditions = &made.exprs[..made.plan.checks.len()];
        if !conditions.iter().any(|tree| node::has_sublink(*tree)) {
            return Ok((select, None));
        }
        let mut entries = Vec::new();
        let mut names = std::ptr::null_mut();
        for (index, entry) in list::iter::<pg_sys::TargetEntry>((*select).targetList).enumerate() {
            let column = index as i16 + 1;
            (*entry).resname = node::pstrdup(&format!("c{column}"));
            (*entry).resjunk = false;
            names = pg_sys::lappend(names, pg_sys::makeString((*entry).resname).cast());
            let value = expr::var(1, column, expr::signature((*entry).expr.cast()));
            entries.push(pg_sys::makeTargetEntry(
                value.cast(),
                column,
                (*entry).resname,
                false,
            ));
        }
        let first = entries.len();
        for condition in conditions {
            let column = entries.len() as i16 + 1;
            let name = node::pstrdup(&format!("checked_{column}"));
            let over = over_rows(*condition, query, 1, attributes)?;
            entries.push(pg_sys::makeTargetEntry(over.cast(), column, name, false));
        }
        let rte = node::make::<pg_sys::RangeTblEntry>();
        (*rte).rtekind = RTEKind::RTE_SUBQUERY;
        (*rte).subquery = select;
        (*rte).inFromCl = true;
        let alias = node::make::<pg_sys::Alias>();
        (*alias).aliasname = node::pstrdup("new_rows");
        (*alias).colnames = names;
        (*rte).eref = alias;
        (*rte).alias = node::copy(alias);
        let reference = node::make::<pg_sys::RangeTblRef>();
        (*reference).rtindex = 1;
        let level = node::make::<Query>();
        (*level).commandType = CmdType::CMD_SELECT;
        (*level).canSetTag = true;
        (*level).hasSubLinks = true;
        (*level).hasRowSecurity = (*query).hasRowSecurity;
        (*level).rtable = list::from([rte]);
        (*level).jointree = pg_sys::makeFromExpr(list::from([reference]), std::ptr::null_mut());
        (*level).targetList = list::from(entries);
        Ok((level, Some(first)))
    }
}

/// A tree of the INSERT's level over the rows to insert, which are those of the relation `varno`.
unsafe fn over_rows(
    tree: *mut Node,
    query: *mut Query,
    varno: i32,
    attributes: &[i16],
) -> Result<*mut Node> {
    unsafe {
        let row = Proposed::of(target_relid(query), attributes.to_vec());
        reading::lifted(tree, &mut |var| {
            if (*var).varno != (*query).resultRelation {
                return Ok(var.cast());
            }
            row.value(var, &|index, var| {
                expr::var(varno, index as i16 + 1, expr::signature(var.cast())).cast()
            })
        })
    }
}

/// The conditions of WITH CHECK options, and what to say when one fails. Those of views are NULL where a row is fine, and
/// otherwise the row as text, for the error to show.
///
/// # Safety
/// `options` are some of the statement's.
pub unsafe fn row_checks(
    query: *mut Query,
    options: *mut pg_sys::List,
) -> Result<(Vec<*mut Node>, Vec<RowCheck>)> {
    unsafe {
        let relid = target_relid(query);
        let text = |p: *mut std::ffi::c_char| {
            (!p.is_null()).then(|| CStr::from_ptr(p).to_string_lossy().into_owned())
        };
        let mut exprs = Vec::new();
        let mut checks = Vec::new();
        for option in list::iter::<pg_sys::WithCheckOption>(options) {
            exprs.push(match (*option).kind {
                pg_sys::WCOKind::WCO_VIEW_CHECK => {
                    let text = (pg_sys::TEXTOID, -1, pg_sys::DEFAULT_COLLATION_OID);
                    let none = pg_sys::makeNullConst(text.0, text.1, text.2).cast();
                    expr::case(vec![((*option).qual, none)], row_text(query)?, text)
                }
                _ => (*option).qual,
            });
            checks.push(RowCheck {
                table: relid.to_u32(),
                kind: match (*option).kind {
                    pg_sys::WCOKind::WCO_VIEW_CHECK => CheckKind::NewRowOfView,
                    pg_sys::WCOKind::WCO_RLS_CONFLICT_CHECK => CheckKind::FoundRow,
                    conflict::WCO_VIEW_CONFLICT_CHECK => CheckKind::FoundRowOfView,
                    _ => CheckKind::NewRow,
                },
                relation: text((*option).relname).unwrap_or_default(),
                policy: text((*option).polname),
            });
        }
        Ok((exprs, checks))
    }
}

/// The text of a row of the changed table.
unsafe fn row_text(query: *mut Query) -> Result<*mut Node> {
    unsafe {
        let relid = target_relid(query);
        let row_type = pg_sys::get_rel_type_id(relid);
        let target = (*query).resultRelation;
        let row = pull::whole_row(relid, row_type, target, &mut |var| Ok(var.cast()))?;
        Ok(expr::via_text(
            row,
            pg_sys::TEXTOID,
            pg_sys::DEFAULT_COLLATION_OID,
        ))
    }
}

/// What such a condition gives for a row that is fine.
///
/// # Safety
/// `condition` is one of `row_checks`.
pub unsafe fn passing(condition: *mut Node) -> *mut Node {
    unsafe {
        match expr::signature(condition) {
            (pg_sys::BOOLOID, ..) => pg_sys::makeBoolConst(true, false),
            (text, typmod, collation) => pg_sys::makeNullConst(text, typmod, collation).cast(),
        }
    }
}

/// Puts the inserting node above the plan that computes the rows.
unsafe fn above_rows(
    query: *mut Query,
    below: *mut PlannedStmt,
    prepared: Prepared,
    exprs: Vec<*mut Node>,
) -> Result<*mut PlannedStmt> {
    unsafe {
        let Prepared { made, returning } = prepared;
        let names = (0..made.returned.len())
            .map(|i| format!("c{}", i + 1))
            .collect();
        let scan = statement::scan_over(below, &made.returned, names, returning);
        (*scan).custom_exprs = list::from(exprs);
        (*scan).custom_private = made.plan.to_private()?;
        (*scan).methods = crate::executor::insert_methods();
        (*below).commandType = CmdType::CMD_INSERT;
        (*below).hasReturning = !(*query).returningList.is_null();
        (*below).canSetTag = (*query).canSetTag;
        (*below).queryId = (*query).queryId;
        (*below).stmt_location = (*query).stmt_location;
        (*below).stmt_len = (*query).stmt_len;
        (*below).planTree = scan.cast();
        Ok(below)
    }
}
