//! Cursors whose current row is changed, `UPDATE … WHERE CURRENT OF c`. What a cursor reads of a distributed table comes with
//! each row's key, ctid and xmin, hidden from its reader; a node on top of the plan keeps those of the current row
//! (`executor/cursor.rs`). A change of that row is a change by ctid, routed to the row's shard group.

use crate::catalog::{self, TableKind};
use crate::error::{Error, Result};
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::apply::Text;
use crate::planner::plan::{CursorPlan, FollowedRelation, Private};
use crate::planner::{leaf, locks, rowmarks, statement, tableoid, whole_rows, Planner};
use pgrx::pg_sys::{self, CmdType, Node, Oid, PlannedStmt, Query, RTEKind};

/// Plans the query of a cursor (`options` are those of DECLARE) whose current row may be changed. None: it is none.
///
/// # Safety
/// As `planner::plan`.
pub unsafe fn plan(
    query: *mut Query,
    options: i32,
    standard: Planner,
) -> Result<Option<*mut PlannedStmt>> {
    unsafe {
        let declared = options & pg_sys::CURSOR_OPT_FAST_PLAN as i32 != 0;
        let mut followed = if declared {
            followed(query)
        } else {
            Vec::new()
        };
        if followed.is_empty() || leaf::reads_system_column(query) {
            return Ok(None);
        }
        tableoid::replace(query)?;
        if locks::concern_local(query)? {
            keep_apart(query, &mut followed);
        }
        let mut relations = Vec::new();
        for path in &followed {
            relations.push(add_identity(query, path, relations.len())?);
        }
        let session = leaf::Session::share(query);
        leaf::give_row_identity();
        let planned = match super::plan_routed(query)? {
            Some(planned) => planned,
            None => {
                locks::refuse_as_planned(query);
                super::plan_select(query, standard)?
            }
        };
        drop(session);
        if options & pg_sys::CURSOR_OPT_SCROLL as i32 != 0 {
            statement::make_scrollable(planned);
        }
        above(planned, relations)?;
        Ok(Some(planned))
    }
}

/// The distributed tables whose rows a cursor is on: those that it locks, or the only one that it reads. Each as the entry
/// of the level that leads to it, through views, and those of the levels below.
unsafe fn followed(query: *mut Query) -> Vec<Vec<i32>> {
    unsafe {
        let plain = (*query).commandType == CmdType::CMD_SELECT
            && !(*query).hasModifyingCTE
            && locks::gives_table_rows(query);
        if !plain {
            return Vec::new();
        }
        let named: Vec<i32> = if (*query).rowMarks.is_null() {
            let from = (*(*query).jointree).fromlist;
            let only = (list::len(from) == 1).then(|| list::nth::<Node>(from, 0));
            only.and_then(|item| node::cast::<pg_sys::RangeTblRef>(item))
                .map(|reference| (*reference).rtindex)
                .into_iter()
                .collect()
        } else {
            list::iter::<pg_sys::RowMarkClause>((*query).rowMarks)
                .map(|mark| (*mark).rti as i32)
                .collect()
        };
        let mut paths = Vec::new();
        for rti in named {
            let rte = list::rt_fetch(rti, (*query).rtable);
            if (*rte).rtekind == RTEKind::RTE_RELATION && super::is_distributed((*rte).relid) {
                paths.push(vec![rti]);
            } else if (*rte).rtekind == RTEKind::RTE_SUBQUERY
                && locks::is_part((*rte).subquery)
                && !names_record(query, rti)
            {
                for below in followed((*rte).subquery) {
                    paths.push([vec![rti], below].concat());
                }
            }
        }
        paths
    }
}

/// Does a level name rows of an entry that are of no named type? They would get the hidden columns, too.
unsafe fn names_record(query: *mut Query, rti: i32) -> bool {
    unsafe {
        node::walk(query.cast(), &mut |item, depth| {
            let record = node::cast::<pg_sys::Var>(item).is_some_and(|var| {
                (*var).varattno == 0
                    && (*var).varno == rti
                    && (*var).varlevelsup + 1 == depth
                    && (*var).vartype == pg_sys::RECORDOID
            });
            if record {
                Step::Stop
            } else {
                Step::Into
            }
        })
    }
}

/// Beside tables that are locked here, those of ours are read through subqueries, which lock their rows.
unsafe fn keep_apart(query: *mut Query, followed: &mut [Vec<i32>]) {
    unsafe {
        for path in followed {
            let mut level = query;
            let [through @ .., rti] = &path[..] else {
                continue;
            };
            for rti in through {
                level = (*list::rt_fetch(*rti, (*level).rtable)).subquery;
            }
            let mark = list::iter::<pg_sys::RowMarkClause>((*level).rowMarks)
                .find(|mark| (**mark).rti as i32 == *rti);
            let Some(mark) = mark else { continue };
            rowmarks::into_subquery(level, *rti);
            whole_rows::make_column(level, *rti);
            let below = node::copy(mark);
            (*below).rti = 1;
            (*below).pushedDown = true;
            let subquery = (*list::rt_fetch(*rti, (*level).rtable)).subquery;
            (*subquery).rowMarks = list::from([below]);
            path.push(1);
        }
    }
}

/// The table at the end of a path, and key, ctid and xmin of its row, which the subqueries on the way then give.
unsafe fn identity(
    query: *mut Query,
    path: &[i32],
) -> Result<(*mut pg_sys::RangeTblEntry, [*mut Node; 3])> {
    unsafe {
        let rti = path[0];
        let rte = list::rt_fetch(rti, (*query).rtable);
        if path.len() == 1 {
            let columns = locks::identity((*rte).relid)?;
            let values = columns.map(|(attno, signature)| expr::var(rti, attno, signature).cast());
            return Ok((rte, values));
        }
        whole_rows::spell_out(query, rti);
        let (table, values) = identity((*rte).subquery, &path[1..])?;
        Ok((table, locks::given_by(rte, rti, values)))
    }
}

/// The name of a hidden column.
fn hidden(relation: usize, column: usize) -> String {
    format!("?current {relation} {column}?")
}

/// Lets the query give key, ctid and xmin of a table's row.
unsafe fn add_identity(query: *mut Query, path: &[i32], number: usize) -> Result<FollowedRelation> {
    unsafe {
        let (rte, identity) = identity(query, path)?;
        let relid = (*rte).relid;
        let table = catalog::table(relid)?;
        let Some(TableKind::Distributed { colocation, .. }) = table.as_deref().map(|t| &t.kind)
        else {
            return Err(Error::internal("a followed table that is not distributed"));
        };
        // Before the columns that only sort: those are not given.
        let (mut targets, junk): (Vec<*mut pg_sys::TargetEntry>, Vec<_>) =
            list::iter((*query).targetList)
                .partition(|target: &*mut pg_sys::TargetEntry| !(**target).resjunk);
        for (column, value) in identity.into_iter().enumerate() {
            let name = node::pstrdup(&hidden(number, column));
            targets.push(pg_sys::makeTargetEntry(value.cast(), 0, name, false));
        }
        targets.extend(junk);
        for (index, target) in targets.iter().enumerate() {
            (**target).resno = index as i16 + 1;
        }
        (*query).targetList = list::from(targets);
        let (schema, name) = crate::deparse::name_of(relid)?;
        let template = |before: &str, after: &str| {
            let mut text = Text::default();
            text.push(before).table(&schema, &name).push(after);
            text.done()
        };
        let user = (*rte).checkAsUser;
        let select = "SELECT ctid, xmin FROM ";
        Ok(FollowedRelation {
            relid: relid.to_u32(),
            colocation: colocation.id,
            columns: [0; 3],
            locks: !(*query).rowMarks.is_null(),
            name: template("", ""),
            lock: template(select, " WHERE ctid = $1 AND xmin = $2 FOR NO KEY UPDATE"),
            newest: template(
                select,
                " WHERE ctid = (SELECT pg_catalog.currtid2($2, $1)) FOR NO KEY UPDATE",
            ),
            as_others: user != pg_sys::InvalidOid && user != pg_sys::GetUserId(),
        })
    }
}

/// Puts the node that keeps the current row on top of the plan, which hides the columns that say where it is.
unsafe fn above(planned: *mut PlannedStmt, mut relations: Vec<FollowedRelation>) -> Result<()> {
    unsafe {
        let below = (*planned).planTree;
        let names: Vec<Option<String>> = list::iter::<pg_sys::TargetEntry>((*below).targetlist)
            .map(|target| {
                let name = (*target).resname;
                (!name.is_null()).then(|| {
                    std::ffi::CStr::from_ptr(name)
                        .to_string_lossy()
                        .into_owned()
                })
            })
            .collect();
        let mut positions = Vec::new();
        for (number, relation) in relations.iter_mut().enumerate() {
            for (column, place) in relation.columns.iter_mut().enumerate() {
                let wanted = hidden(number, column);
                *place = names
                    .iter()
                    .rposition(|name| name.as_deref() == Some(&wanted))
                    .ok_or_else(|| Error::internal("a cursor without the place of its row"))?;
                positions.push(*place);
            }
        }
        let scan = statement::pass_through(planned, below);
        let mut outputs = Vec::new();
        for (position, target) in
            list::iter::<pg_sys::TargetEntry>((*scan).scan.plan.targetlist).enumerate()
        {
            if positions.contains(&position) {
                continue;
            }
            let origin = list::nth::<pg_sys::TargetEntry>((*below).targetlist, position);
            (*target).resno = outputs.len() as i16 + 1;
            (*target).resorigtbl = (*origin).resorigtbl;
            (*target).resorigcol = (*origin).resorigcol;
            outputs.push(target);
        }
        (*scan).scan.plan.targetlist = list::from(outputs);
        if pg_sys::ExecSupportsBackwardScan(below) {
            (*scan).flags |= pg_sys::CUSTOMPATH_SUPPORT_BACKWARD_SCAN;
        }
        (*scan).custom_private = CursorPlan { relations }.to_private()?;
        (*scan).methods = crate::executor::cursor_methods();
        (*planned).planTree = scan.cast();
        Ok(())
    }
}

/// Makes `CURRENT OF c` of distributed tables `ctid = shard_ext.current_row(c, table)::tid` (in place).
///
/// # Safety
/// `query` is a valid Query that the caller owns.
pub unsafe fn replace(query: *mut Query) {
    unsafe {
        let named = node::walk(query.cast(), &mut |item, _| {
            if node::cast::<pg_sys::CurrentOfExpr>(item).is_some() {
                Step::Stop
            } else {
                Step::Into
            }
        });
        if named {
            node::map_query(query, |child| replaced(child, query));
        }
    }
}

unsafe fn replaced(item: *mut Node, level: *mut Query) -> *mut Node {
    unsafe {
        if item.is_null() {
            return item;
        }
        if let Some(query) = node::cast::<Query>(item) {
            node::map_query(query, |child| replaced(child, query));
            return item;
        }
        let Some(current) = node::cast::<pg_sys::CurrentOfExpr>(item) else {
            return node::map_children(item, |child| replaced(child, level));
        };
        let rti = (*current).cvarno as i32;
        let relid = (*list::rt_fetch(rti, (*level).rtable)).relid;
        if super::is_distributed(relid) {
            is_current_row(current, rti, relid)
        } else {
            item
        }
    }
}

unsafe fn is_current_row(current: *mut pg_sys::CurrentOfExpr, rti: i32, relid: Oid) -> *mut Node {
    unsafe {
        let cursor: *mut Node = if (*current).cursor_name.is_null() {
            let (type_oid, number) = (pg_sys::REFCURSOROID, (*current).cursor_param);
            let collation = pg_sys::get_typcollation(type_oid);
            expr::param(number, type_oid, -1, collation).cast()
        } else {
            expr::text((*current).cursor_name).cast()
        };
        let value = pg_sys::Datum::from(relid);
        let oid = pg_sys::OIDOID;
        let table = pg_sys::makeConst(oid, -1, pg_sys::InvalidOid, 4, value, false, true);
        let call = pg_sys::makeFuncExpr(
            function(Asked::Row),
            pg_sys::TEXTOID,
            list::from([cursor, table.cast()]),
            pg_sys::DEFAULT_COLLATION_OID,
            pg_sys::DEFAULT_COLLATION_OID,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        );
        let row = expr::via_text(call.cast(), pg_sys::TIDOID, pg_sys::InvalidOid);
        let ctid = pg_sys::SelfItemPointerAttributeNumber as i16;
        let var = expr::var(rti, ctid, (pg_sys::TIDOID, -1, pg_sys::InvalidOid));
        let test = node::make::<pg_sys::OpExpr>();
        (*test).opno = pg_sys::TIDEqualOperator.into();
        (*test).opfuncid = pg_sys::get_opcode((*test).opno);
        (*test).opresulttype = pg_sys::BOOLOID;
        (*test).args = list::from([var.cast::<Node>(), row]);
        (*test).location = -1;
        test.cast()
    }
}

/// What a plan asks about the current row of a cursor.
enum Asked {
    /// Its ctid, as text.
    Row,
    ShardGroup,
}

unsafe fn function(asked: Asked) -> Oid {
    unsafe {
        let name = match asked {
            Asked::Row => "current_row",
            Asked::ShardGroup => "current_shard_group",
        };
        let name = list::from([
            pg_sys::makeString(node::pstrdup("shard_ext")),
            pg_sys::makeString(node::pstrdup(name)),
        ]);
        let arguments = [pg_sys::TEXTOID, pg_sys::OIDOID];
        pg_sys::LookupFuncName(name, 2, arguments.as_ptr(), false)
    }
}

/// Of `ctid = the current row`: the Var of ctid, and the expression of the shard group.
///
/// # Safety
/// `item` is a valid node.
pub unsafe fn current_row(item: *mut Node) -> Option<(*mut pg_sys::Var, *mut Node)> {
    unsafe {
        let test = node::cast::<pg_sys::OpExpr>(item)?;
        let equal = (*test).opno == Oid::from(pg_sys::TIDEqualOperator);
        (equal && list::len((*test).args) == 2).then_some(())?;
        let row = node::cast::<pg_sys::CoerceViaIO>(list::nth::<Node>((*test).args, 1))?;
        let call = node::cast::<pg_sys::FuncExpr>((*row).arg)?;
        ((*call).funcid == function(Asked::Row)).then_some(())?;
        let group = node::copy(call);
        (*group).funcid = function(Asked::ShardGroup);
        (*group).funcresulttype = pg_sys::INT8OID;
        (*group).funccollid = pg_sys::InvalidOid;
        let var = node::cast::<pg_sys::Var>(list::nth::<Node>((*test).args, 0))?;
        Some((var, group.cast()))
    }
}

/// Does an expression ask for the current row of a cursor? To compute it locks the row.
///
/// # Safety
/// `tree` is null or a valid expression.
pub unsafe fn asks_for_row(tree: *mut Node) -> bool {
    unsafe {
        node::walk(tree, &mut |item, _| {
            let asks = node::cast::<pg_sys::CoerceViaIO>(item)
                .filter(|row| (**row).resulttype == pg_sys::TIDOID)
                .and_then(|row| node::cast::<pg_sys::FuncExpr>((*row).arg))
                .is_some_and(|call| (*call).funcid == function(Asked::Row));
            if asks {
                Step::Stop
            } else {
                Step::Into
            }
        })
    }
}
