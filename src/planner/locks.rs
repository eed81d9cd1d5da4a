//! Row locks over several shard groups. Where every shard may lock the rows that it returns, its statement says
//! FOR UPDATE itself (`split`). Elsewhere (LIMIT over shards, joins that run here) the rows are read first, each with
//! its key, ctid and xmin, and a node above locks those that are passed up: what LockRows is for local tables.

use crate::catalog::{self, TableKind};
use crate::deparse::{quote_identifier, Hole, Place, SqlTemplate};
use crate::error::{Error, Result};
use crate::pg::node::Step;
use crate::pg::{expr, levels, list, node, types};
use crate::planner::pieces::{joins, trees::forget_names};
use crate::planner::plan::{LockPlan, LockedRelation, Private};
use crate::planner::wrapped::{self, Above};
use crate::planner::{estimate, leaf, reading, remote, rowmarks, split, whole_rows};
use pgrx::pg_sys::{
    self, JoinType, LockClauseStrength, LockWaitPolicy, Node, NodeTag, Query, RTEKind,
};

/// A level whose rows are locked after they were read: what the custom path becomes.
pub struct Locking {
    plan: LockPlan,
    /// LIMIT and OFFSET as far as the plan says that it has them.
    exprs: Vec<*mut Node>,
    /// Per relation: the columns of the level below that are its key, ctid and xmin.
    columns: Vec<[i16; 3]>,
}

/// A locked row of a distributed table, as expressions of one level.
struct RowId {
    relid: pg_sys::Oid,
    as_others: bool,
    strength: LockClauseStrength::Type,
    policy: LockWaitPolicy::Type,
    /// Its key, ctid and xmin.
    values: [*mut Node; 3],
}

/// Does this level lock rows of distributed tables, itself or through subqueries that are part of it?
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn concern(query: *mut Query) -> Result<bool> {
    unsafe {
        for mark in list::iter::<pg_sys::RowMarkClause>((*query).rowMarks) {
            let rte = list::rt_fetch((*mark).rti as i32, (*query).rtable);
            match (*rte).rtekind {
                RTEKind::RTE_RELATION if is_distributed(rte)? => return Ok(true),
                RTEKind::RTE_SUBQUERY if is_part((*rte).subquery) && concern((*rte).subquery)? => {
                    return Ok(true)
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

/// Does PostgreSQL itself lock rows at this level: of local and reference tables?
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn concern_local(query: *mut Query) -> Result<bool> {
    unsafe {
        for mark in list::iter::<pg_sys::RowMarkClause>((*query).rowMarks) {
            let rte = list::rt_fetch((*mark).rti as i32, (*query).rtable);
            match (*rte).rtekind {
                RTEKind::RTE_RELATION if !is_distributed(rte)? => return Ok(true),
                RTEKind::RTE_SUBQUERY
                    if is_part((*rte).subquery) && concern_local((*rte).subquery)? =>
                {
                    return Ok(true)
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

/// The marks of this level as a FOR UPDATE clause of its own. False, and no marks, where the rows are not those of tables:
/// PostgreSQL's planner has been asked about such levels, and does not run this one.
///
/// # Safety
/// `query` is a valid Query that the caller owns.
pub unsafe fn make_explicit(query: *mut Query) -> bool {
    unsafe {
        if !gives_table_rows(query) {
            (*query).rowMarks = std::ptr::null_mut();
            return false;
        }
        for mark in list::iter::<pg_sys::RowMarkClause>((*query).rowMarks) {
            (*mark).pushedDown = false;
            (*query).hasForUpdate = true;
            leaf::note_strength((*mark).strength);
        }
        true
    }
}

/// What `CheckSelectLocking` demands of a level that locks.
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn gives_table_rows(query: *mut Query) -> bool {
    unsafe {
        (*query).setOperations.is_null()
            && !(*query).hasAggs
            && !(*query).hasWindowFuncs
            && !(*query).hasTargetSRFs
            && (*query).groupClause.is_null()
            && (*query).groupingSets.is_null()
            && (*query).havingQual.is_null()
            && (*query).distinctClause.is_null()
    }
}

/// Fails when the statement says FOR UPDATE of rows that an outer join may not have found, or, through a view, of what is
/// no row of a table: PostgreSQL's planner refuses that where it comes to it, so it is asked. What it takes has outer
/// joins that are inner ones by conditions of levels around them; they become such, since their levels are planned apart.
///
/// # Safety
/// `query` is a valid statement that the caller owns.
pub unsafe fn refuse_as_planned(query: *mut Query) {
    unsafe {
        let (mut locking, mut odd) = (Vec::new(), false);
        node::walk(query.cast(), &mut |item, _| {
            if let Some(level) = node::cast::<Query>(item) {
                for mark in list::iter::<pg_sys::RowMarkClause>((*level).rowMarks) {
                    odd |= (*mark).pushedDown;
                }
                if !(*level).rowMarks.is_null() {
                    locking.push(level);
                }
                odd |= list::iter::<pg_sys::RangeTblEntry>((*level).rtable).any(|rte| {
                    (*rte).rtekind == RTEKind::RTE_JOIN && (*rte).jointype != JoinType::JOIN_INNER
                });
            }
            Step::Into
        });
        if locking.is_empty() || !odd {
            return;
        }
        estimate::plan(query);
        for level in &locking {
            node::map_query(*level, |child| {
                pg_sys::flatten_join_alias_vars(*level, child)
            });
            forget_names(*level);
        }
        for level in locking.into_iter().filter(|level| (**level).hasForUpdate) {
            joins::reduce_with(level, &[], &|sub| is_part(sub));
        }
    }
}

/// Takes marks from a level that does not lock itself: subqueries that do know it.
///
/// # Safety
/// `query` is a valid Query that the caller owns, and `concern` is false of it.
pub unsafe fn leave_to_subqueries(query: *mut Query) -> Result<()> {
    unsafe {
        for mark in list::iter::<pg_sys::RowMarkClause>((*query).rowMarks) {
            let rte = list::rt_fetch((*mark).rti as i32, (*query).rtable);
            if (*rte).rtekind == RTEKind::RTE_SUBQUERY && !is_part((*rte).subquery) {
                make_explicit((*rte).subquery);
            }
        }
        if !concern_local(query)? {
            (*query).rowMarks = std::ptr::null_mut();
        }
        Ok(())
    }
}

unsafe fn is_distributed(rte: *mut pg_sys::RangeTblEntry) -> Result<bool> {
    unsafe {
        Ok((*rte).rtekind == RTEKind::RTE_RELATION
            && catalog::table((*rte).relid)?
                .is_some_and(|t| matches!(t.kind, TableKind::Distributed { .. })))
    }
}

/// A subquery that PostgreSQL would merge with the level around it (`is_simple_subquery`): its rows are locked there.
///
/// # Safety
/// `sub` is a valid Query.
pub unsafe fn is_part(sub: *mut Query) -> bool {
    unsafe {
        !(*sub).hasForUpdate
            && gives_table_rows(sub)
            && (*sub).sortClause.is_null()
            && (*sub).limitCount.is_null()
            && (*sub).limitOffset.is_null()
            && (*sub).cteList.is_null()
    }
}

/// Makes `query` read its rows from itself one level below, through the node that locks them; then puts leaves there.
///
/// # Safety
/// `query` is a SELECT that the caller owns and `concern` is true of; a `leaf::Session` is open.
pub unsafe fn lock_above(query: *mut Query) -> Result<()> {
    unsafe {
        leaf::read_row_identity()?;
        let inner: *mut Query = node::copy(query);
        levels::push_down(inner);
        (*inner).limitCount = std::ptr::null_mut();
        (*inner).limitOffset = std::ptr::null_mut();
        (*inner).limitOption = pg_sys::LimitOption::LIMIT_OPTION_COUNT;
        (*inner).hasForUpdate = false;
        let (ids, apart) = take_row_ids(inner)?;
        for target in list::iter::<pg_sys::TargetEntry>((*inner).targetList) {
            (*target).resjunk = false;
            if (*target).resname.is_null() {
                (*target).resname = node::pstrdup("?column?");
            }
        }
        let columns: Vec<[i16; 3]> = ids
            .iter()
            .map(|id| id.values.map(|value| append(inner, value)))
            .collect();

        let ties = (*query).limitOption != pg_sys::LimitOption::LIMIT_OPTION_COUNT;
        let mut exprs = Vec::new();
        let mut limited = |clause: *mut Node| -> Option<usize> {
            let usable = !clause.is_null() && !ties && !reads_rows(clause);
            usable.then(|| {
                exprs.push(node::copy(clause));
                exprs.len() - 1
            })
        };
        let count = limited((*query).limitCount);
        let offset = limited((*query).limitOffset);
        let known = (*query).limitOffset.is_null() || offset.is_some();
        let limit = count.filter(|_| known);
        let number = leaf::lock_count() as u32;
        let mut relations = Vec::new();
        for id in &ids {
            relations.push(locked_relation(id)?);
        }
        leaf::note_strength(ids.iter().map(|id| id.strength).max().unwrap_or_default());
        leaf::add_lock(Locking {
            plan: LockPlan {
                number,
                limit,
                offset,
                relations,
            },
            exprs: remote::own(exprs),
            columns,
        });
        read_from(query, inner, number);
        split::transform_candidates(inner, limit.map(|_| number))?;
        rowmarks::keep_apart(&apart);
        Ok(())
    }
}

/// A level above that locks rows of a table as they pass; `columns` of the level below are their key, ctid and xmin.
///
/// # Safety
/// `below` is a SELECT that the caller owns, whose columns are complete; a `leaf::Session` is open.
pub unsafe fn level_above(
    below: *mut Query,
    relid: pg_sys::Oid,
    as_others: bool,
    strength: LockClauseStrength::Type,
    columns: [i16; 3],
) -> Result<*mut Query> {
    unsafe {
        let id = RowId {
            relid,
            as_others,
            strength,
            policy: LockWaitPolicy::LockWaitBlock,
            values: [std::ptr::null_mut(); 3],
        };
        let number = leaf::lock_count() as u32;
        leaf::note_strength(strength);
        leaf::add_lock(Locking {
            plan: LockPlan {
                number,
                limit: None,
                offset: None,
                relations: vec![locked_relation(&id)?],
            },
            exprs: Vec::new(),
            columns: vec![columns],
        });
        let level = reading::level_above(below);
        let rte = wrapped::entry(below, wrapped::Kind::Lock, number as usize, "locked");
        (*level).rtable = list::from([rte]);
        // A level that locks is not merged with the one around it.
        (*level).hasForUpdate = true;
        Ok(level)
    }
}

/// Does a LIMIT depend on more than parameters?
unsafe fn reads_rows(clause: *mut Node) -> bool {
    unsafe {
        pg_sys::contain_volatile_functions(clause)
            || node::walk(clause, &mut |item, _| match node::tag(item) {
                NodeTag::T_Var | NodeTag::T_SubLink | NodeTag::T_Query => Step::Stop,
                _ => Step::Into,
            })
    }
}

/// Adds an output column to a level; answers its number.
unsafe fn append(query: *mut Query, value: *mut Node) -> i16 {
    unsafe {
        let number = list::len((*query).targetList) as i16 + 1;
        let name = node::pstrdup(&format!("locked_{number}"));
        (*query).targetList = pg_sys::lappend(
            (*query).targetList,
            pg_sys::makeTargetEntry(value.cast(), number, name, false).cast(),
        );
        number
    }
}

/// Takes from a level the marks of distributed tables; answers the rows they are about, and subqueries that must not
/// be pulled up because local tables remain to be locked beside them.
unsafe fn take_row_ids(query: *mut Query) -> Result<(Vec<RowId>, Vec<*mut Query>)> {
    unsafe {
        let mut ids = Vec::new();
        let mut taken = Vec::new();
        let mut kept = Vec::new();
        let mut apart = Vec::new();
        for mark in list::iter::<pg_sys::RowMarkClause>((*query).rowMarks) {
            let rte = list::rt_fetch((*mark).rti as i32, (*query).rtable);
            let part = (*rte).rtekind == RTEKind::RTE_SUBQUERY
                && is_part((*rte).subquery)
                && concern((*rte).subquery)?;
            if part {
                whole_rows::spell_out(query, (*mark).rti as i32);
                let (below, apart_below) = take_row_ids((*rte).subquery)?;
                apart.extend(apart_below);
                for id in below {
                    ids.push(lifted(rte, (*mark).rti as i32, id));
                }
                if (*(*rte).subquery).rowMarks.is_null() {
                    continue;
                }
            } else if is_distributed(rte)? {
                taken.push((mark, (*rte).relid, (*rte).checkAsUser));
                continue;
            }
            kept.push(mark);
        }
        (*query).rowMarks = list::from(kept);
        leave_to_subqueries(query)?;
        apart.extend(rowmarks::wrap(query)?);
        for (mark, relid, as_user) in taken {
            let rti = (*mark).rti as i32;
            let id = RowId {
                relid,
                as_others: as_user != pg_sys::InvalidOid && as_user != pg_sys::GetUserId(),
                strength: (*mark).strength,
                policy: (*mark).waitPolicy,
                values: identity(relid)?
                    .map(|(attno, signature)| expr::var(1, attno, signature).cast::<Node>()),
            };
            let rte = list::rt_fetch(rti, (*query).rtable);
            ids.push(if (*rte).rtekind == RTEKind::RTE_SUBQUERY {
                whole_rows::spell_out(query, rti);
                lifted(rte, rti, id)
            } else {
                RowId {
                    values: id.values.map(|value| expr::renumbered(value, 1, rti)),
                    ..id
                }
            });
        }
        Ok((ids, apart))
    }
}

type Signature = (pg_sys::Oid, i32, pg_sys::Oid);

/// The columns that tell a row of a distributed table from all others: key, ctid and xmin.
///
/// # Safety
/// Called inside the server.
pub unsafe fn identity(relid: pg_sys::Oid) -> Result<[(i16, Signature); 3]> {
    unsafe {
        let table = catalog::table(relid)?;
        let Some(TableKind::Distributed { key, .. }) = table.as_deref().map(|t| &t.kind) else {
            return Err(Error::internal("a locked table that is not distributed"));
        };
        Ok([
            (*key, types::attribute_signature(relid, *key)),
            (
                pg_sys::SelfItemPointerAttributeNumber as i16,
                (pg_sys::TIDOID, -1, pg_sys::InvalidOid),
            ),
            (
                pg_sys::MinTransactionIdAttributeNumber as i16,
                (pg_sys::XIDOID, -1, pg_sys::InvalidOid),
            ),
        ])
    }
}

/// A row of a subquery as the level around it names it.
unsafe fn lifted(rte: *mut pg_sys::RangeTblEntry, rti: i32, id: RowId) -> RowId {
    unsafe {
        let values = given_by(rte, rti, id.values);
        RowId { values, ..id }
    }
}

/// Lets a subquery give values; answers them as the level around it names them.
///
/// # Safety
/// `rte` is the entry of a subquery, `rti` its number, which no whole row names; the values are those of the subquery's
/// level.
pub unsafe fn given_by(
    rte: *mut pg_sys::RangeTblEntry,
    rti: i32,
    values: [*mut Node; 3],
) -> [*mut Node; 3] {
    unsafe {
        values.map(|value| {
            let attno = append((*rte).subquery, value);
            let name = pg_sys::makeString(node::pstrdup(&format!("locked_{attno}")));
            (*(*rte).eref).colnames = pg_sys::lappend((*(*rte).eref).colnames, name.cast());
            expr::var(rti, attno, expr::signature(value)).cast()
        })
    }
}

/// The statements that lock a table's rows, and that look whether they are still there.
fn locked_relation(id: &RowId) -> Result<LockedRelation> {
    let table = catalog::table(id.relid)?;
    let Some(TableKind::Distributed { colocation, .. }) = table.as_deref().map(|t| &t.kind) else {
        return Err(Error::internal("a locked table that is not distributed"));
    };
    let (schema, name) = crate::deparse::name_of(id.relid)?;
    let strength = match id.strength {
        LockClauseStrength::LCS_FORKEYSHARE => "FOR KEY SHARE",
        LockClauseStrength::LCS_FORSHARE => "FOR SHARE",
        LockClauseStrength::LCS_FORNOKEYUPDATE => "FOR NO KEY UPDATE",
        _ => "FOR UPDATE",
    };
    let policy = match id.policy {
        LockWaitPolicy::LockWaitSkip => " SKIP LOCKED",
        LockWaitPolicy::LockWaitError => " NOWAIT",
        _ => "",
    };
    let statement = |tail: String| {
        let before = "SELECT ctid, xmin FROM ";
        let named = format!("{}.{}", quote_identifier(&schema), quote_identifier(&name));
        let hole = Hole {
            start: before.len(),
            end: before.len() + named.len(),
            schema: schema.clone(),
            name: name.clone(),
            place: Place::ShardGroup,
        };
        let text = format!("{before}{named} WHERE ctid = ANY ($1){tail}");
        SqlTemplate::new(text, vec![hole])
    };
    Ok(LockedRelation {
        relid: id.relid.to_u32(),
        name: name.clone(),
        clause: format!("{strength}{policy}"),
        colocation: colocation.id,
        lock: statement(format!(" {strength}{policy}")),
        look: statement(String::new()),
        columns: [0; 3],
        skips: id.policy == LockWaitPolicy::LockWaitSkip,
        as_others: id.as_others,
    })
}

/// `SELECT columns FROM (inner) LIMIT …`
unsafe fn read_from(query: *mut Query, inner: *mut Query, number: u32) {
    unsafe {
        let rte = wrapped::entry(inner, wrapped::Kind::Lock, number as usize, "locked");
        let mut outputs = Vec::new();
        let visible = list::iter::<pg_sys::TargetEntry>((*query).targetList)
            .filter(|target| !(**target).resjunk)
            .count();
        // WITH TIES looks at the sort columns.
        let ties = (*query).limitOption != pg_sys::LimitOption::LIMIT_OPTION_COUNT;
        let originals: Vec<*mut pg_sys::TargetEntry> = list::iter((*query).targetList).collect();
        for (index, below) in list::iter::<pg_sys::TargetEntry>((*inner).targetList).enumerate() {
            let var = expr::var(1, (*below).resno, expr::signature((*below).expr.cast()));
            // Sort columns of the level below are not needed any more; those that name rows are.
            let sorts_only = index >= visible && index < originals.len();
            if sorts_only && !ties {
                continue;
            }
            let number = outputs.len() as i16 + 1;
            let output =
                pg_sys::makeTargetEntry(var.cast(), number, (*below).resname, index >= visible);
            if let Some(original) = originals.get(index) {
                (*output).resorigtbl = (**original).resorigtbl;
                (*output).resorigcol = (**original).resorigcol;
                (*output).resname = (**original).resname;
                (*output).ressortgroupref = if ties {
                    (**original).ressortgroupref
                } else {
                    0
                };
            }
            outputs.push(output);
        }
        (*query).rtable = list::from([rte]);
        let reference = node::make::<pg_sys::RangeTblRef>();
        (*reference).rtindex = 1;
        (*query).jointree = pg_sys::makeFromExpr(list::from([reference]), std::ptr::null_mut());
        (*query).targetList = list::from(outputs);
        if !ties {
            (*query).sortClause = std::ptr::null_mut();
        }
        (*query).rowMarks = std::ptr::null_mut();
        (*query).cteList = std::ptr::null_mut();
        (*query).hasRecursive = false;
        (*query).hasSubLinks =
            node::has_sublink((*query).limitCount) || node::has_sublink((*query).limitOffset);
        // A level that locks is not merged with the one around it.
        (*query).hasForUpdate = true;
    }
}

/// The custom scan that a path of `wrapped` becomes.
///
/// # Safety
/// `above` is the scan that a path becomes.
pub unsafe fn plan_lock(above: &Above) -> Result<()> {
    unsafe {
        (*above.scan).methods = crate::executor::lock_methods();
        leaf::with_lock(above.number, |locking| {
            let mut plan = locking.plan.clone();
            for (relation, columns) in plan.relations.iter_mut().zip(&locking.columns) {
                for (place, column) in relation.columns.iter_mut().zip(columns) {
                    *place = above.place(*column)?;
                }
            }
            (*above.scan).custom_private = plan.to_private()?;
            let exprs = locking.exprs.iter().map(|e| node::copy(*e));
            (*above.scan).custom_exprs = list::from(exprs.collect::<Vec<_>>());
            Ok(())
        })
    }
}
