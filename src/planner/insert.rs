//! INSERT. One row of values goes out as the statement itself, its values computed here as parameters. Many rows,
//! and rows of a query, are computed by a plan below and sent in arrays to their shard groups. Rows for a reference
//! table are teed: inserted here by PostgreSQL and on every copy by us.

use crate::catalog::{self, Colocation, TableKind};
use crate::deparse;
use crate::error::{Error, Result};
use crate::pg::node::Step;
use crate::pg::{expr, list, node, types};
use crate::planner::modify;
use crate::planner::plan::{InsertColumn, InsertPlan, Private, Prune, RowCheck, ALL_NODES};
use crate::planner::remote::{self, Order, Remote};
use crate::planner::route::Route;
use crate::planner::ship::{self, Parameters};
use crate::planner::{statement, Planner};
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
            TableKind::Reference => plan_reference(query, standard),
            TableKind::Distributed { key, colocation } => {
                conflict_keeps_key(query, *key)?;
                if is_single_row(query) {
                    single_row(query, *key, colocation)
                } else {
                    rows(query, *key, colocation, standard)
                }
            }
        }
    }
}

/// `INSERT … VALUES (one row)` whose values do not read tables.
unsafe fn is_single_row(query: *mut Query) -> bool {
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
        conflict_ships(copy)?;
        let returning = modify::push_returning(copy)?;
        let route = Route {
            colocation: colocation.clone(),
            prune,
            values: Vec::new(),
            single: true,
        };
        let order = Order::default();
        let remote = remote::finish_with(copy, &route, order, String::new(), parameters)?;
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

unsafe fn target_relid(query: *mut Query) -> pg_sys::Oid {
    unsafe {
        (*list::nth::<pg_sys::RangeTblEntry>((*query).rtable, (*query).resultRelation as usize - 1))
            .relid
    }
}

/// ON CONFLICT runs on the shard: its expressions must.
unsafe fn conflict_ships(query: *mut Query) -> Result<()> {
    unsafe {
        if let Some(reason) = ship::obstacle((*query).onConflict.cast()) {
            return Err(Error::refused(
                "this ON CONFLICT clause cannot run on the shards",
                "Compute the value first and use it in the statement.",
            )
            .detail(reason));
        }
        Ok(())
    }
}

unsafe fn conflict_keeps_key(query: *mut Query, key: i16) -> Result<()> {
    unsafe {
        let Some(conflict) = node::cast::<pg_sys::OnConflictExpr>((*query).onConflict) else {
            return Ok(());
        };
        for entry in list::iter::<pg_sys::TargetEntry>((*conflict).onConflictSet) {
            if (*entry).resno != key {
                continue;
            }
            // `SET key = excluded.key` and `SET key = key` keep the row where it is.
            let same =
                node::cast::<pg_sys::Var>((*entry).expr).is_some_and(|v| (*v).varattno == key);
            if !same {
                return Err(Error::refused(
                    "ON CONFLICT DO UPDATE cannot change the distribution column",
                    "Delete the row and insert it with the new value, in one transaction.",
                ));
            }
        }
        Ok(())
    }
}

/// The rows to insert can be checked here; the row that ON CONFLICT DO UPDATE finds on a shard cannot.
unsafe fn checks_new_rows_only(query: *mut Query) -> Result<()> {
    unsafe {
        let new_rows = |kind| {
            matches!(
                kind,
                pg_sys::WCOKind::WCO_RLS_INSERT_CHECK | pg_sys::WCOKind::WCO_VIEW_CHECK
            )
        };
        let updates = node::cast::<pg_sys::OnConflictExpr>((*query).onConflict)
            .is_some_and(|c| (*c).action == pg_sys::OnConflictAction::ONCONFLICT_UPDATE);
        let others = list::iter::<pg_sys::WithCheckOption>((*query).withCheckOptions)
            .any(|option| updates || !new_rows((*option).kind));
        if others {
            return Err(Error::refused(
                "ON CONFLICT DO UPDATE on a distributed table with row security or through a view with a check option is not supported yet",
                "Use INSERT and UPDATE as statements of their own, in one transaction.",
            ));
        }
        Ok(())
    }
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
                let rte = list::nth::<pg_sys::RangeTblEntry>(
                    (*select).rtable,
                    (*reference).rtindex as usize - 1,
                );
                (*rte).inFromCl = true;
            }
        }
        (select, attributes)
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
unsafe fn reads_other_rows(tree: *mut Node) -> Result<bool> {
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

/// Rows computed by a plan below, routed one by one.
unsafe fn rows(
    query: *mut Query,
    key: i16,
    colocation: &Rc<Colocation>,
    standard: Planner,
) -> Result<*mut PlannedStmt> {
    unsafe {
        let (select, attributes) = source(query);
        let below = super::plan_select(select, standard)?;
        let (made, returning) = prepare_rows(query, key, colocation.id, &attributes)?;
        above_rows(query, below, made, returning, &attributes)
    }
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
        let copy: *mut Query = node::copy(query);
        conflict_ships(copy)?;
        checks_new_rows_only(copy)?;
        for tree in [
            (*copy).returningList.cast::<Node>(),
            (*copy).onConflict.cast(),
        ] {
            reads_same_rows(tree)?;
        }
        let returning = modify::push_returning(copy)?;
        let columns: Vec<(usize, i16)> = attributes.iter().copied().enumerate().collect();
        let key = attributes.iter().position(|a| *a == key);
        let made = insert_plan(copy, &columns, colocation, key, false)?;
        Ok((made, returning))
    }
}

/// A plan to insert rows, with its `custom_exprs` and the columns that come back.
pub struct Made {
    pub plan: InsertPlan,
    pub exprs: Vec<*mut Node>,
    pub returned: Vec<(pg_sys::Oid, i32, pg_sys::Oid)>,
}

/// The statement that inserts rows given as arrays. `columns`: index in the rows, attribute number.
unsafe fn insert_plan(
    query: *mut Query,
    columns: &[(usize, i16)],
    colocation: i32,
    key: Option<usize>,
    tee: bool,
) -> Result<Made> {
    unsafe {
        let relid = target_relid(query);
        let mut insert_columns = Vec::new();
        let mut entries = Vec::new();
        let mut selected = Vec::new();
        let mut arrays = Vec::new();
        let mut names = Vec::new();
        let mut parameters = Parameters::default();
        for (position, (source, attno)) in columns.iter().enumerate() {
            let (mut type_oid, mut typmod, mut collation) =
                (pg_sys::InvalidOid, -1, pg_sys::InvalidOid);
            pg_sys::get_atttypetypmodcoll(
                relid,
                *attno,
                &mut type_oid,
                &mut typmod,
                &mut collation,
            );
            let portable = types::is_builtin(type_oid)
                && types::binary_is_portable(type_oid)
                && pg_sys::get_element_type(type_oid) == pg_sys::InvalidOid
                && pg_sys::get_array_type(type_oid) != pg_sys::InvalidOid;
            let element = if portable { type_oid } else { pg_sys::TEXTOID };
            insert_columns.push(InsertColumn {
                source: *source,
                value: type_oid.to_u32(),
                element: element.to_u32(),
            });
            let number = position as i32 + 1;
            let name = CStr::from_ptr(pg_sys::get_attname(relid, *attno, false));
            entries.push(pg_sys::makeTargetEntry(
                expr::param(number, pg_sys::INT4OID, -1, pg_sys::InvalidOid).cast(),
                *attno,
                pg_sys::pstrdup(name.as_ptr()),
                false,
            ));
            let cast = if portable {
                String::new()
            } else {
                let name = pg_sys::format_type_extended(
                    type_oid,
                    typmod,
                    (pg_sys::FORMAT_TYPE_FORCE_QUALIFY | pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN) as u16,
                );
                format!("::{}", CStr::from_ptr(name).to_string_lossy())
            };
            selected.push(format!("c{number}{cast}"));
            let element_name = CStr::from_ptr(pg_sys::format_type_extended(
                element,
                -1,
                (pg_sys::FORMAT_TYPE_FORCE_QUALIFY | pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN) as u16,
            ));
            arrays.push(format!(
                "pg_catalog.unnest(${number}::{}[])",
                element_name.to_string_lossy()
            ));
            names.push(format!("c{number}"));
            // Keeps the numbers of the clauses' own parameters behind those of the columns.
            parameters.reserve();
        }
        (*query).commandType = CmdType::CMD_INSERT;
        (*query).targetList = list::from(entries);
        (*query).override_ = pg_sys::OverridingKind::OVERRIDING_NOT_SET;
        (*query).cteList = std::ptr::null_mut();
        (*query).hasModifyingCTE = false;
        let checks = std::mem::replace(&mut (*query).withCheckOptions, std::ptr::null_mut());
        only_target(query);
        let mut returned = Vec::new();
        for entry in list::iter::<pg_sys::TargetEntry>((*query).returningList) {
            let signature = expr::signature((*entry).expr.cast());
            ship::readable_type(signature.0)?;
            returned.push(signature);
        }
        let count = columns.len();
        parameters.extract_clauses(query);
        let template = deparse::template_edited(query, |text| {
            let values = format!(
                "VALUES ({})",
                (1..=count)
                    .map(|n| format!("${n}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            let select = format!(
                "SELECT {} FROM ROWS FROM ({}) WITH ORDINALITY AS rows({}, n) ORDER BY n",
                selected.join(", "),
                arrays.join(", "),
                names.join(", ")
            );
            let at = deparse::parameter_location(&text, 1)
                .and_then(|at| at.checked_sub("VALUES (".len()))
                .filter(|at| text[*at..].starts_with(&values))
                .ok_or_else(|| Error::internal("no VALUES in a deparsed INSERT"))?;
            Ok(format!(
                "{}{}{}",
                &text[..at],
                select,
                &text[at + values.len()..]
            ))
        })?;
        let conflict = !(*query).onConflict.is_null();
        let (check_exprs, row_checks) = row_checks(checks);
        let mut exprs = check_exprs;
        exprs.extend(remote::own(parameters.exprs[count..].to_vec()));
        let plan = InsertPlan {
            template,
            colocation,
            key,
            columns: insert_columns,
            params: parameters.types[count..].to_vec(),
            returned: returned.iter().map(|(t, _, _)| t.to_u32()).collect(),
            checks: row_checks,
            tee,
            conflict,
            part: None,
            outputs: Vec::new(),
        };
        Ok(Made {
            plan,
            exprs,
            returned,
        })
    }
}

/// Leaves in the range table nothing but what the INSERT itself names.
unsafe fn only_target(query: *mut Query) {
    unsafe {
        (*(*query).jointree).fromlist = std::ptr::null_mut();
        (*(*query).jointree).quals = std::ptr::null_mut();
        for (index, rte) in list::iter::<pg_sys::RangeTblEntry>((*query).rtable).enumerate() {
            let excluded = node::cast::<pg_sys::OnConflictExpr>((*query).onConflict)
                .is_some_and(|c| (*c).exclRelIndex == index as i32 + 1);
            if index as i32 + 1 != (*query).resultRelation && !excluded {
                (*rte).rtekind = RTEKind::RTE_RESULT;
                (*rte).subquery = std::ptr::null_mut();
                (*rte).values_lists = std::ptr::null_mut();
                (*rte).functions = std::ptr::null_mut();
                (*rte).inFromCl = false;
            }
        }
    }
}

/// The conditions of WITH CHECK options, and what to say when one fails.
///
/// # Safety
/// `options` is a list of WithCheckOption.
pub unsafe fn row_checks(options: *mut pg_sys::List) -> (Vec<*mut Node>, Vec<RowCheck>) {
    unsafe {
        let text = |p: *mut std::ffi::c_char| {
            (!p.is_null()).then(|| CStr::from_ptr(p).to_string_lossy().into_owned())
        };
        let mut exprs = Vec::new();
        let mut checks = Vec::new();
        for option in list::iter::<pg_sys::WithCheckOption>(options) {
            exprs.push((*option).qual);
            checks.push(RowCheck {
                view: (*option).kind == pg_sys::WCOKind::WCO_VIEW_CHECK,
                relation: text((*option).relname).unwrap_or_default(),
                policy: text((*option).polname),
            });
        }
        (exprs, checks)
    }
}

/// Checks speak of the target's columns: they read them from the rows of the plan below.
unsafe fn check_over_rows(tree: *mut Node, target: i32, attributes: &[i16]) -> Result<*mut Node> {
    unsafe {
        let mut failure = None;
        fn change(
            tree: *mut Node,
            target: i32,
            attributes: &[i16],
            failure: &mut Option<Error>,
        ) -> *mut Node {
            // SAFETY: a valid expression tree.
            unsafe {
                if tree.is_null() {
                    return tree;
                }
                if let Some(var) = node::cast::<pg_sys::Var>(tree) {
                    if (*var).varno == target {
                        return match attributes.iter().position(|a| *a == (*var).varattno) {
                            Some(index) => {
                                let copy = node::copy(var);
                                (*copy).varno = pg_sys::OUTER_VAR;
                                (*copy).varattno = index as i16 + 1;
                                copy.cast()
                            }
                            None => pg_sys::makeNullConst(
                                (*var).vartype,
                                (*var).vartypmod,
                                (*var).varcollid,
                            )
                            .cast(),
                        };
                    }
                }
                if node::tag(tree) == pg_sys::NodeTag::T_SubLink {
                    *failure = Some(Error::refused(
                        "a row security policy with a subquery cannot check new rows of a distributed table yet",
                        "Write the policy without a subquery.",
                    ));
                    return tree;
                }
                node::map_children(tree, |child| change(child, target, attributes, failure))
            }
        }
        let changed = change(tree, target, attributes, &mut failure);
        if let Some(error) = failure {
            return Err(error);
        }
        pg_sys::fix_opfuncids(changed);
        Ok(changed)
    }
}

/// Puts the inserting node above the plan that computes the rows.
unsafe fn above_rows(
    query: *mut Query,
    below: *mut PlannedStmt,
    made: Made,
    returning: Option<*mut pg_sys::List>,
    attributes: &[i16],
) -> Result<*mut PlannedStmt> {
    unsafe {
        let names = (0..made.returned.len())
            .map(|i| format!("c{}", i + 1))
            .collect();
        let mut exprs = Vec::new();
        for (index, e) in made.exprs.iter().enumerate() {
            exprs.push(if index < made.plan.checks.len() {
                check_over_rows(*e, (*query).resultRelation, attributes)?
            } else {
                *e
            });
        }
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

/// INSERT into a reference table: PostgreSQL's plan, with a tee below its ModifyTable.
///
/// # Safety
/// As `planner::plan`.
pub unsafe fn plan_reference(query: *mut Query, standard: Planner) -> Result<*mut PlannedStmt> {
    unsafe {
        let made = reference_tee(query)?;
        let statement = super::plan_select(query, standard)?;
        let Some(modify) = node::cast::<pg_sys::ModifyTable>((*statement).planTree) else {
            return Err(Error::internal("an INSERT without ModifyTable"));
        };
        let below = (*modify).plan.lefttree;
        let tee = statement::pass_through(statement, below);
        (*tee).custom_exprs = list::from(made.exprs);
        (*tee).custom_private = made.plan.to_private()?;
        (*tee).methods = crate::executor::insert_methods();
        (*modify).plan.lefttree = tee.cast();
        Ok(statement)
    }
}

/// The statement that inserts the rows into every copy of a reference table.
///
/// # Safety
/// `query` is an INSERT into one.
pub unsafe fn reference_tee(query: *mut Query) -> Result<Made> {
    unsafe {
        let copy: *mut Query = node::copy(query);
        conflict_ships(copy)?;
        reads_same_rows((*copy).onConflict.cast())?;
        (*copy).returningList = std::ptr::null_mut();
        let relid = target_relid(copy);
        let natts = types::column_count(relid);
        let mut columns = Vec::new();
        for attno in 1..=natts {
            let exists = !pg_sys::get_attname(relid, attno, true).is_null();
            if exists && pg_sys::get_attgenerated(relid, attno) == 0 {
                columns.push((attno as usize - 1, attno));
            }
        }
        (*copy).withCheckOptions = std::ptr::null_mut();
        insert_plan(copy, &columns, ALL_NODES, None, true)
    }
}

/// Puts the node that repeats a statement on every copy above its plan for the table here.
///
/// # Safety
/// `statement` is PostgreSQL's plan of the same statement.
pub unsafe fn above(statement: *mut PlannedStmt, remote: Remote) -> Result<()> {
    unsafe {
        let below = (*statement).planTree;
        let scan = statement::pass_through(statement, below);
        (*scan).custom_exprs = list::from(remote.exprs.iter().copied());
        (*scan).custom_private = remote.plan.to_private()?;
        (*scan).methods = crate::executor::replicate_methods();
        (*statement).planTree = scan.cast();
        Ok(())
    }
}
