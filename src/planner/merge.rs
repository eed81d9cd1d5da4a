//! MERGE into a distributed table. Where the join pairs rows of one shard group and new rows stay in it, the shards run it
//! (`pushed`). Otherwise the join of source and target is read as a distributed query that locks the target's
//! rows; levels above it choose each row's action and compute its values; the node on top changes rows by ctid and
//! inserts new ones (`executor/modify.rs`).

mod pushed;

use crate::catalog;
use crate::error::Result;
use crate::pg::{expr, list, node, types};
use crate::planner::apply::{self, Assigned};
use crate::planner::insert::{passing, row_checks};
use crate::planner::plan::{Action, CheckKind, Command, ModifyPlan, Repeats, RowCheck};
use crate::planner::pull::{self, MultipleAssignments, NewRow, Pulled, Target};
use crate::planner::reading::{self, Reading};
use crate::planner::{leaf, Planner};
use pgrx::pg_sys::{self, CmdType, JoinType, Node, NodeTag, PlannedStmt, Query, RTEKind, WCOKind};

/// A WHEN clause.
struct Clause {
    action: *mut pg_sys::MergeAction,
    /// What the column of choices says for it: 0 for DO NOTHING.
    number: i32,
    rows: MultipleAssignments,
}

impl Clause {
    unsafe fn command(&self) -> CmdType::Type {
        unsafe { (*self.action).commandType }
    }

    unsafe fn entries(&self) -> impl Iterator<Item = *mut pg_sys::TargetEntry> {
        unsafe {
            list::iter::<pg_sys::TargetEntry>((*self.action).targetList)
                .filter(|entry| !(**entry).resjunk)
                .collect::<Vec<_>>()
                .into_iter()
        }
    }
}

/// Plans a MERGE into a distributed table.
///
/// # Safety
/// As `planner::plan`.
pub unsafe fn plan(
    query: *mut Query,
    table: &catalog::Table,
    standard: Planner,
) -> Result<*mut PlannedStmt> {
    unsafe {
        let target = Target::of(query, table)?;
        if let Some(plan) = pushed::plan(query, &target)? {
            return Ok(plan);
        }
        leaf::refuse_system_columns(query)?;
        let session = leaf::Session::share(query);
        target.note_policies();
        leaf::give_row_identity();
        leaf::lock_optional_rows();
        let pulled = read(query, target)?;
        pull::plan_pulled(session, query, pulled, standard)
    }
}

unsafe fn read(query: *mut Query, target: Target) -> Result<Pulled> {
    unsafe {
        let mut clauses = clauses(query);
        let mut reading = joined(query, &target, &clauses);
        let key = reading.target_column(target.relid, target.key);
        let ctid = reading.ctid();

        let (conditions, checks) = row_checks(query, (*query).withCheckOptions)?;
        let kinds: Vec<WCOKind::Type> =
            list::iter::<pg_sys::WithCheckOption>((*query).withCheckOptions)
                .map(|option| (*option).kind)
                .collect();
        let generated = if conditions.is_empty() {
            Vec::new()
        } else {
            pull::generated_columns(target.relid, reading.target)
        };
        for clause in &clauses {
            reading.note_columns((*clause.action).qual);
            // Subqueries that give several columns are among the hidden entries.
            reading.note_columns((*clause.action).targetList.cast());
        }
        let trees = conditions.iter().copied();
        for tree in trees.chain(generated.iter().map(|(_, value)| *value)) {
            reading.note_columns(tree);
        }
        let moves = clauses.iter().any(|clause| {
            clause.command() == CmdType::CMD_UPDATE
                && clause.entries().any(|entry| (*entry).resno == target.key)
        });
        if moves || !conditions.is_empty() {
            for attno in apply::stored_columns(target.relid) {
                reading.target_column(target.relid, attno);
            }
        }

        // One level chooses, those above see the choice.
        let chooses = reading::level_above(reading.query);
        let choice = reading::append(chooses, choice(&clauses, &mut reading, ctid)?);
        (*chooses).limitOffset = expr::int8(0).cast();
        let mut levels = vec![reading.query, chooses];
        if let Some(level) = rows_of(&mut clauses, &mut reading, chooses, choice)? {
            levels.push(level);
        }
        let values = reading::level_above(levels[levels.len() - 1]);
        levels.push(values);
        let columns = values_of(&clauses, &target, &mut reading, values, choice)?;
        let assigned_by = |clause: &Clause| -> Vec<Assigned> {
            let mut assigned: Vec<Assigned> = clause
                .entries()
                .filter_map(|entry| columns.iter().find(|(a, _)| *a == (*entry).resno))
                .copied()
                .collect();
            let keyed = assigned.iter().any(|(attno, _)| *attno == target.key);
            if clause.command() == CmdType::CMD_INSERT && !keyed {
                // Nothing is said of the key: it is NULL.
                assigned.extend(columns.iter().find(|(a, _)| *a == target.key));
            }
            assigned
        };

        let mut top = values;
        let mut forbidding: Vec<Vec<(usize, RowCheck)>> = vec![Vec::new(); clauses.len()];
        if !conditions.is_empty() {
            top = reading::level_above(values);
            levels.push(top);
            for (index, clause) in clauses.iter().enumerate() {
                let assigned = assigned_by(clause);
                for ((condition, check), kind) in conditions.iter().zip(&checks).zip(&kinds) {
                    let Some(of_new_row) = concerns(*kind, clause.command()) else {
                        continue;
                    };
                    let row = NewRow {
                        relid: target.relid,
                        target: reading.target,
                        changed: of_new_row,
                        inserted: clause.command() == CmdType::CMD_INSERT,
                        below: values,
                        assigned: &assigned,
                        generated: &generated,
                    };
                    let value =
                        reading::lifted(*condition, &mut |var| row.value(&mut reading, var))?;
                    let guarded = expr::case(
                        vec![(is_choice(choice, clause.number), value)],
                        passing(value),
                        expr::signature(value),
                    );
                    let mut check = check.clone();
                    if !of_new_row {
                        check.kind = CheckKind::TargetRow;
                    }
                    forbidding[index].push((reading::append(top, guarded) as usize - 1, check));
                }
            }
        }
        reading::share_with(&levels);

        let mut actions = Vec::new();
        for (clause, checks) in clauses.iter().zip(forbidding) {
            if clause.number > 0 {
                let assigned = assigned_by(clause);
                actions.push(action(clause, &target, &mut reading, &assigned, checks)?);
            }
        }
        let plan = ModifyPlan {
            relid: target.relid.to_u32(),
            schema: target.schema,
            table: target.name,
            colocation: target.colocation,
            key: key as usize - 1,
            ctid: ctid as usize - 1,
            choice: Some(choice as usize - 1),
            actions,
            checks: Vec::new(),
            proposal: None,
            repeats: Repeats::Forbidden,
            referenced: if moves {
                apply::referenced(target.relid)?
            } else {
                Vec::new()
            },
            required_key: target.required_key,
            as_others: target.as_others,
            part: None,
            reason: "MERGE chooses for each row what happens to it".into(),
        };
        Ok(Pulled {
            rows: top,
            plan,
            returning: None,
        })
    }
}

unsafe fn clauses(query: *mut Query) -> Vec<Clause> {
    unsafe {
        let mut number = 0;
        let mut clauses = Vec::new();
        for action in list::iter::<pg_sys::MergeAction>((*query).mergeActionList) {
            let nothing = (*action).commandType == CmdType::CMD_NOTHING;
            if !nothing {
                number += 1;
            }
            clauses.push(Clause {
                action,
                number: if nothing { 0 } else { number },
                rows: MultipleAssignments::default(),
            });
        }
        clauses
    }
}

/// `SET (a, b) = (SELECT …)`: a level that asks such a subquery for the rows of its clause, where there is one.
unsafe fn rows_of(
    clauses: &mut [Clause],
    reading: &mut Reading,
    chooses: *mut Query,
    choice: i16,
) -> Result<Option<*mut Query>> {
    unsafe {
        let concerns = |clause: &Clause| pull::reads_multiple((*clause.action).targetList.cast());
        if !clauses.iter().any(concerns) {
            return Ok(None);
        }
        let level = reading::level_above(chooses);
        let record = (pg_sys::RECORDOID, -1, pg_sys::InvalidOid);
        for clause in clauses {
            let number = clause.number;
            let targets = (*clause.action).targetList;
            clause.rows = MultipleAssignments::of(targets, &mut |row| {
                let row = reading::lifted(row, &mut |var| Ok(reading.above(var)))?;
                let none = pg_sys::makeNullConst(record.0, record.1, record.2).cast();
                let row = expr::case(vec![(is_choice(choice, number), row)], none, record);
                Ok(reading::append(level, row))
            })?;
        }
        (*level).limitOffset = expr::int8(0).cast();
        Ok(Some(level))
    }
}

/// `source LEFT JOIN target`, or an inner join where nothing is inserted; the target's rows are locked when some clause
/// changes them (`transform_MERGE_to_join` of PostgreSQL).
unsafe fn joined(query: *mut Query, target: &Target, clauses: &[Clause]) -> Reading {
    unsafe {
        let mut set = Vec::new();
        let mut deletes = false;
        for clause in clauses {
            match clause.command() {
                CmdType::CMD_UPDATE => set.extend(clause.entries().map(|entry| (*entry).resno)),
                CmdType::CMD_DELETE => deletes = true,
                _ => {}
            }
        }
        let updates = clauses.iter().any(|c| c.command() == CmdType::CMD_UPDATE);
        let strength = pull::strength(target.relid, (!deletes).then_some(&set[..]));
        let reading = Reading::of(query, strength);
        let level = reading.query;
        if !deletes && !updates {
            (*level).rowMarks = std::ptr::null_mut();
            (*level).hasForUpdate = false;
        }
        let kind = if (*query).mergeUseOuterJoin {
            JoinType::JOIN_LEFT
        } else {
            JoinType::JOIN_INNER
        };
        let rte = node::make::<pg_sys::RangeTblEntry>();
        (*rte).rtekind = RTEKind::RTE_JOIN;
        (*rte).jointype = kind;
        (*rte).inFromCl = true;
        (*rte).eref = pg_sys::makeAlias(c"*MERGE*".as_ptr(), std::ptr::null_mut());
        let source = list::nth::<Node>((*(*level).jointree).fromlist, 0);
        (*rte).joinleftcols = add_columns(level, rte, index_of(source));
        (*rte).joinrightcols = add_columns(level, rte, reading.target);
        (*level).rtable = pg_sys::lappend((*level).rtable, rte.cast());
        let reference = node::make::<pg_sys::RangeTblRef>();
        (*reference).rtindex = reading.target;
        let join = node::make::<pg_sys::JoinExpr>();
        (*join).jointype = kind;
        (*join).larg = source;
        (*join).rarg = reference.cast();
        (*join).quals = (*(*level).jointree).quals;
        (*join).rtindex = list::len((*level).rtable) as i32;
        (*(*level).jointree).fromlist = list::from([join]);
        (*(*level).jointree).quals = std::ptr::null_mut();
        reading
    }
}

/// The range table index of an item of FROM.
unsafe fn index_of(item: *mut Node) -> i32 {
    unsafe {
        match node::cast::<pg_sys::JoinExpr>(item) {
            Some(join) => (*join).rtindex,
            None => node::cast::<pg_sys::RangeTblRef>(item).map_or(0, |r| (*r).rtindex),
        }
    }
}

/// Makes the columns of one side columns of the join: deparsing names them. Answers their numbers.
unsafe fn add_columns(
    level: *mut Query,
    join: *mut pg_sys::RangeTblEntry,
    side: i32,
) -> *mut pg_sys::List {
    unsafe {
        let rte = list::rt_fetch(side, (*level).rtable);
        let (mut names, mut vars) = (std::ptr::null_mut(), std::ptr::null_mut());
        pg_sys::expandRTE(rte, side, 0, -1, false, &mut names, &mut vars);
        let numbers: Vec<i32> = list::iter::<pg_sys::Var>(vars)
            .map(|var| i32::from((*var).varattno))
            .collect();
        (*(*join).eref).colnames = pg_sys::list_concat((*(*join).eref).colnames, names);
        (*join).joinaliasvars = pg_sys::list_concat((*join).joinaliasvars, vars);
        list::from_ints(numbers)
    }
}

/// Which clause a row follows: the first whose condition holds.
unsafe fn choice(clauses: &[Clause], reading: &mut Reading, ctid: i16) -> Result<*mut Node> {
    unsafe {
        let mut whens = Vec::new();
        for clause in clauses {
            let test = node::make::<pg_sys::NullTest>();
            (*test).arg = expr::var(1, ctid, (pg_sys::TIDOID, -1, pg_sys::InvalidOid)).cast();
            (*test).nulltesttype = if (*clause.action).matched {
                pg_sys::NullTestType::IS_NOT_NULL
            } else {
                pg_sys::NullTestType::IS_NULL
            };
            (*test).location = -1;
            let condition =
                reading::lifted((*clause.action).qual, &mut |var| Ok(reading.above(var)))?;
            let holds = expr::and(test.cast(), condition);
            whens.push((holds, expr::int4(clause.number).cast()));
        }
        Ok(expr::case(
            whens,
            expr::int4(0).cast(),
            (pg_sys::INT4OID, -1, pg_sys::InvalidOid),
        ))
    }
}

/// `choice = number`
///
/// # Safety
/// `choice` is a column of the one relation of a level.
pub unsafe fn is_choice(choice: i16, number: i32) -> *mut Node {
    unsafe {
        let op = node::make::<pg_sys::OpExpr>();
        (*op).opno = pg_sys::Int4EqualOperator.into();
        (*op).opfuncid = pg_sys::get_opcode((*op).opno);
        (*op).opresulttype = pg_sys::BOOLOID;
        let var = expr::var(1, choice, (pg_sys::INT4OID, -1, pg_sys::InvalidOid));
        (*op).args = list::from([var.cast::<Node>(), expr::int4(number).cast()]);
        (*op).location = -1;
        op.cast()
    }
}

/// For every column that some clause gives a value: an output that has the value of the chosen clause.
unsafe fn values_of(
    clauses: &[Clause],
    target: &Target,
    reading: &mut Reading,
    level: *mut Query,
    choice: i16,
) -> Result<Vec<Assigned>> {
    unsafe {
        let mut attributes: Vec<i16> = clauses
            .iter()
            .flat_map(|clause| clause.entries().map(|entry| (*entry).resno))
            .filter(|attno| pg_sys::get_attgenerated(target.relid, *attno) == 0)
            .collect();
        if clauses.iter().any(|c| c.command() == CmdType::CMD_INSERT) {
            attributes.push(target.key);
        }
        attributes.sort_unstable();
        attributes.dedup();
        let mut columns = Vec::new();
        for attno in attributes {
            let (type_oid, typmod, collation) = types::attribute_signature(target.relid, attno);
            let mut whens = Vec::new();
            for clause in clauses.iter().filter(|clause| clause.number > 0) {
                for entry in clause.entries().filter(|entry| (**entry).resno == attno) {
                    let value =
                        reading::lifted((*entry).expr.cast(), &mut |var| Ok(reading.above(var)))?;
                    let value = clause.rows.resolve(value);
                    whens.push((is_choice(choice, clause.number), value));
                }
            }
            let null = pg_sys::makeNullConst(type_oid, typmod, collation).cast();
            let value = if whens.is_empty() {
                null
            } else {
                expr::case(whens, null, (type_oid, typmod, collation))
            };
            columns.push((attno, reading::append(level, value) as usize - 1));
        }
        Ok(columns)
    }
}

/// Does a check concern a command's rows, and then the new one (or the one that is there)?
fn concerns(kind: WCOKind::Type, command: CmdType::Type) -> Option<bool> {
    match (kind, command) {
        (WCOKind::WCO_RLS_MERGE_UPDATE_CHECK, CmdType::CMD_UPDATE)
        | (WCOKind::WCO_RLS_MERGE_DELETE_CHECK, CmdType::CMD_DELETE) => Some(false),
        (WCOKind::WCO_RLS_UPDATE_CHECK, CmdType::CMD_UPDATE)
        | (WCOKind::WCO_RLS_INSERT_CHECK, CmdType::CMD_INSERT)
        | (WCOKind::WCO_VIEW_CHECK, CmdType::CMD_UPDATE | CmdType::CMD_INSERT) => Some(true),
        _ => None,
    }
}

unsafe fn action(
    clause: &Clause,
    target: &Target,
    reading: &mut Reading,
    assigned: &[Assigned],
    checks: Vec<(usize, RowCheck)>,
) -> Result<Action> {
    unsafe {
        Ok(match clause.command() {
            CmdType::CMD_DELETE => Action {
                command: Command::Delete,
                in_place: Some(apply::delete(target.relid)?),
                new_key: None,
                remove: None,
                insert: None,
                checks,
            },
            CmdType::CMD_INSERT => Action {
                command: Command::Insert,
                in_place: None,
                new_key: target.new_key(assigned),
                remove: None,
                insert: Some(apply::insert(target.relid, assigned)?),
                checks,
            },
            _ => pull::update(target, assigned, checks, &mut |attno| {
                reading.target_column(target.relid, attno) as usize - 1
            })?,
        })
    }
}

/// Are locked rows on a side of an outer join that may be missing? The shards refuse to lock those.
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn locks_optional_rows(query: *mut Query) -> bool {
    unsafe {
        let locked: Vec<i32> = list::iter::<pg_sys::RowMarkClause>((*query).rowMarks)
            .map(|mark| (*mark).rti as i32)
            .collect();
        node::walk((*query).jointree.cast(), &mut |item, _| {
            if node::tag(item) == NodeTag::T_Query {
                return node::Step::Over;
            }
            let Some(join) = node::cast::<pg_sys::JoinExpr>(item) else {
                return node::Step::Into;
            };
            let optional = (*join).jointype == JoinType::JOIN_LEFT
                && node::cast::<pg_sys::RangeTblRef>((*join).rarg)
                    .is_some_and(|reference| locked.contains(&(*reference).rtindex));
            if optional {
                node::Step::Stop
            } else {
                node::Step::Into
            }
        })
    }
}
