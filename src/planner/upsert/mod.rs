//! ON CONFLICT DO UPDATE that the shards cannot run by themselves. Above the proposed rows stands a node that finds
//! and locks the row that each is in conflict with (`executor/find.rs`); levels above it choose whether the row is
//! inserted or the one that was found is updated, and compute the values; the node on top changes the shards
//! (`executor/modify.rs`). It inserts with ON CONFLICT DO NOTHING, and has those looked for again that another was
//! faster with.

mod lookup;

use crate::catalog::{self, TableKind};
use crate::error::{sqlstate, Result};
use crate::pg::{expr, list, node, types};
use crate::planner::apply::{self, Assigned};
use crate::planner::conflict::{self, Checks};
use crate::planner::insert::{self, row_checks};
use crate::planner::merge::{is_choice, when};
use crate::planner::plan::{
    Action, CheckKind, Command, FindPlan, ModifyPlan, Private, Repeats, RowCheck, RowsStatement,
};
use crate::planner::pull::{self, MultipleAssignments, Pulled, Target};
use crate::planner::{leaf, reading, ship, wrapped, Planner};
use pgrx::pg_sys::{self, Node, Oid, PlannedStmt, Query, WCOKind};

/// What the choosing level says of a row.
const INSERT: i32 = 1;
const UPDATE: i32 = 2;

/// Rows whose conflicts are looked for: what the custom path becomes.
pub struct Finding {
    plan: FindPlan,
    /// Columns of the rows below that the node fills.
    outputs: Vec<i16>,
}

/// A row as it is proposed for insertion.
pub struct Proposed {
    pub relid: Oid,
    /// The columns that have values, in the order of the rows'.
    pub attributes: Vec<i16>,
    /// Those that are computed, over the columns of a relation 1.
    generated: Vec<(i16, *mut Node)>,
}

impl Proposed {
    /// The value of a column; `given` answers that of the rows' column at an index, for the relation's column that it is.
    ///
    /// # Safety
    /// `var` is a column of the relation.
    pub unsafe fn column(
        &self,
        var: *mut pg_sys::Var,
        given: &dyn Fn(usize, *mut pg_sys::Var) -> *mut Node,
    ) -> Result<*mut Node> {
        unsafe {
            let attno = (*var).varattno;
            if let Some(index) = self.attributes.iter().position(|a| *a == attno) {
                return Ok(given(index, var));
            }
            if let Some((_, value)) = self.generated.iter().find(|(a, _)| *a == attno) {
                return reading::lifted(*value, &mut |var| self.column(var, given));
            }
            let (type_oid, typmod, collation) = expr::signature(var.cast());
            Ok(pg_sys::makeNullConst(type_oid, typmod, collation).cast())
        }
    }
}

/// The rows that the levels see: the proposed one, and the one that was found.
struct Rows {
    proposed: Proposed,
    target: i32,
    excluded: i32,
    /// Attribute numbers of the found row, and the numbers of the columns that have them.
    found: Vec<(i16, i16)>,
}

impl Rows {
    /// A column of the proposed row.
    unsafe fn proposed(&self, var: *mut pg_sys::Var) -> Result<*mut Node> {
        unsafe {
            self.row_or_column(var, &mut |var| {
                self.proposed.column(var, &|index, var| {
                    expr::var(1, index as i16 + 1, expr::signature(var.cast())).cast()
                })
            })
        }
    }

    /// A column of the row that was found.
    unsafe fn found(&self, var: *mut pg_sys::Var) -> Result<*mut Node> {
        unsafe {
            self.row_or_column(var, &mut |var| {
                let column = self.found.iter().find(|(a, _)| *a == (*var).varattno);
                let column = column.map_or(0, |(_, column)| *column);
                Ok(expr::var(1, column, expr::signature(var.cast())).cast())
            })
        }
    }

    /// A column in the clause's own expressions.
    unsafe fn of_clause(&self, var: *mut pg_sys::Var) -> Result<*mut Node> {
        unsafe {
            if (*var).varno == self.excluded {
                self.proposed(var)
            } else {
                self.found(var)
            }
        }
    }

    /// A column of what becomes of the row that was found.
    unsafe fn updated(
        &self,
        var: *mut pg_sys::Var,
        assigned: &[(Assigned, *mut Node)],
    ) -> Result<*mut Node> {
        unsafe {
            self.row_or_column(var, &mut |var| {
                let attno = (*var).varattno;
                if let Some(((_, position), value)) =
                    assigned.iter().find(|((a, _), _)| *a == attno)
                {
                    let signature = expr::signature(*value);
                    return Ok(expr::var(1, *position as i16 + 1, signature).cast());
                }
                let generated = self.proposed.generated.iter().find(|(a, _)| *a == attno);
                match generated {
                    Some((_, value)) => {
                        reading::lifted(*value, &mut |var| self.updated(var, assigned))
                    }
                    None => self.found(var),
                }
            })
        }
    }

    /// A column of the row as it is afterwards.
    unsafe fn changed(
        &self,
        var: *mut pg_sys::Var,
        assigned: &[(Assigned, *mut Node)],
        choice: i16,
    ) -> Result<*mut Node> {
        unsafe {
            let updated = self.updated(var, assigned)?;
            let inserted = (is_choice(choice, INSERT), self.proposed(var)?);
            Ok(when(vec![inserted], updated, expr::signature(var.cast())))
        }
    }

    unsafe fn row_or_column(
        &self,
        var: *mut pg_sys::Var,
        column: &mut dyn FnMut(*mut pg_sys::Var) -> Result<*mut Node>,
    ) -> Result<*mut Node> {
        unsafe {
            if (*var).varattno == 0 {
                pull::whole_row(self.proposed.relid, (*var).vartype, self.target, column)
            } else {
                column(var)
            }
        }
    }
}

/// Why an INSERT is for this module, if it is.
///
/// # Safety
/// `query` is an INSERT into the table.
pub unsafe fn reason(query: *mut Query, table: &catalog::Table) -> Result<Option<ship::Reason>> {
    unsafe {
        let TableKind::Distributed { key, colocation } = &table.kind else {
            return Ok(None);
        };
        if conflict::updates(query).is_none() {
            return Ok(None);
        }
        if !conflict::keeps_key(query, *key) {
            return Ok(Some("rows may move to other shards".into()));
        }
        if (*query).withCheckOptions.is_null() && !(*query).hasSubLinks {
            return Ok(conflict::obstacle(query));
        }
        let (_, attributes) = insert::source(query);
        match insert::prepare_rows(query, *key, colocation.id, &attributes) {
            Ok(_) => Ok(None),
            Err(error) if error.fields().sqlstate == sqlstate::FEATURE_NOT_SUPPORTED => {
                Ok(Some(error.fields().message.clone()))
            }
            Err(error) => Err(error),
        }
    }
}

/// Plans such an INSERT.
///
/// # Safety
/// As `planner::plan`.
pub unsafe fn plan(
    query: *mut Query,
    table: &catalog::Table,
    reason: ship::Reason,
    standard: Planner,
) -> Result<*mut PlannedStmt> {
    unsafe {
        let session = leaf::Session::share(query);
        let pulled = prepare(query, table, reason)?;
        let planned = super::plan_select(pulled.rows, standard)?;
        drop(session);
        pull::above(query, planned, pulled.plan, pulled.returning)
    }
}

/// Makes such an INSERT a query that reads its rows and those that they are in conflict with.
///
/// # Safety
/// `query` is an INSERT with ON CONFLICT DO UPDATE into the table; a `leaf::Session` is open.
pub unsafe fn prepare(
    query: *mut Query,
    table: &catalog::Table,
    reason: ship::Reason,
) -> Result<Pulled> {
    unsafe {
        leaf::refuse_system_columns(query)?;
        let target = Target::of(query, table)?;
        let (source, attributes) = insert::source(query);
        let clause = (*query).onConflict;
        let set: Vec<*mut pg_sys::TargetEntry> =
            list::iter::<pg_sys::TargetEntry>((*clause).onConflictSet)
                .filter(|entry| {
                    !(**entry).resjunk
                        && pg_sys::get_attgenerated(target.relid, (**entry).resno) == 0
                })
                .collect();
        let proposed = Proposed {
            relid: target.relid,
            generated: pull::generated_columns(target.relid, 1),
            attributes,
        };
        let of_set: Vec<i16> = set.iter().map(|entry| (**entry).resno).collect();
        let strength = pull::strength(target.relid, Some(&of_set));
        let (level, ordinal, ctid, found) = finding(query, source, &target, &proposed, strength)?;
        let rows = Rows {
            proposed,
            target: (*query).resultRelation,
            excluded: (*clause).exclRelIndex,
            found,
        };

        // One level chooses, those above see the choice.
        let chooses = reading::level_above(level);
        let choice = reading::append(chooses, choice(&rows, clause, ctid)?);
        let (conditions, checks) = row_checks((*query).withCheckOptions);
        let mut first = Vec::new();
        let mut last = Vec::new();
        for (condition, check) in conditions.into_iter().zip(checks) {
            match check.kind {
                CheckKind::FoundRow | CheckKind::FoundRowOfView => {
                    let holds = reading::lifted(condition, &mut |var| rows.found(var))?;
                    let absent = null_test(ctid, pg_sys::NullTestType::IS_NULL);
                    let holds = when(vec![(absent, truth())], holds, BOOL);
                    first.push((reading::append(chooses, holds) as usize - 1, check));
                }
                CheckKind::NewRow if of_insert(query, &check, condition) => {
                    let holds = reading::lifted(condition, &mut |var| rows.proposed(var))?;
                    first.push((reading::append(chooses, holds) as usize - 1, check));
                }
                _ => last.push((condition, check)),
            }
        }
        (*chooses).limitOffset = expr::int8(0).cast();
        let mut levels = vec![source, level, chooses];

        let mut below = chooses;
        let mut subqueries = MultipleAssignments::default();
        if pull::reads_multiple((*clause).onConflictSet.cast()) {
            below = reading::level_above(chooses);
            subqueries = MultipleAssignments::of((*clause).onConflictSet, &mut |row| {
                let row = reading::lifted(row, &mut |var| rows.of_clause(var))?;
                let record = (pg_sys::RECORDOID, -1, pg_sys::InvalidOid);
                let none = pg_sys::makeNullConst(record.0, record.1, record.2).cast();
                let row = when(vec![(is_choice(choice, UPDATE), row)], none, record);
                Ok(reading::append(below, row))
            })?;
            (*below).limitOffset = expr::int8(0).cast();
            levels.push(below);
        }
        let values = reading::level_above(below);
        levels.push(values);
        let mut assigned: Vec<(Assigned, *mut Node)> = Vec::new();
        for entry in &set {
            let attno = (**entry).resno;
            let value = reading::lifted((**entry).expr.cast(), &mut |var| rows.of_clause(var))?;
            let value = subqueries.resolve(value);
            let signature = types::attribute_signature(target.relid, attno);
            let none = pg_sys::makeNullConst(signature.0, signature.1, signature.2).cast();
            let value = when(vec![(is_choice(choice, UPDATE), value)], none, signature);
            let position = reading::append(values, value) as usize - 1;
            assigned.push(((attno, position), value));
        }

        let mut top = values;
        let mut returning = None;
        let mut after = [Vec::new(), Vec::new()];
        if !(*query).returningList.is_null() || !last.is_empty() {
            // a value is computed once, though several columns name it
            (*values).limitOffset = expr::int8(0).cast();
            top = reading::level_above(values);
            levels.push(top);
            let mut changed = |var| rows.changed(var, &assigned, choice);
            let mut outputs = Vec::new();
            for entry in list::iter::<pg_sys::TargetEntry>((*query).returningList) {
                let value = reading::lifted((*entry).expr.cast(), &mut changed)?;
                let signature = expr::signature(value);
                let attno = reading::append(top, value);
                let output = pg_sys::flatCopyTargetEntry(entry);
                (*output).expr = expr::var(1, attno, signature).cast();
                outputs.push(output);
            }
            if !(*query).returningList.is_null() {
                returning = Some(list::from(outputs));
            }
            for (condition, check) in last {
                let value = reading::lifted(condition, &mut changed)?;
                // views check whatever comes of a row, policies what it is updated to
                let of_view = check.kind == CheckKind::NewRowOfView;
                let value = if of_view {
                    value
                } else {
                    when(vec![(is_choice(choice, UPDATE), value)], truth(), BOOL)
                };
                let column = reading::append(top, value) as usize - 1;
                if of_view {
                    after[0].push((column, check.clone()));
                }
                after[1].push((column, check));
            }
        }
        reading::share_with(&levels);

        let [of_inserted, of_updated] = after;
        let assigned: Vec<Assigned> = assigned.into_iter().map(|(assigned, _)| assigned).collect();
        let moves = target.new_key(&assigned).is_some();
        let found = &rows.found;
        let mut update = pull::update(&target, &assigned, of_updated, &mut |attno| {
            let column = found.iter().find(|(a, _)| *a == attno);
            column.map_or(0, |(_, column)| *column as usize - 1)
        })?;
        for statement in [&mut update.in_place, &mut update.insert]
            .into_iter()
            .flatten()
        {
            statement.template.append(" RETURNING ctid");
        }
        let key = found.iter().find(|(attno, _)| *attno == target.key);
        let plan = ModifyPlan {
            key: key.map_or(0, |(_, column)| *column as usize - 1),
            ctid: ctid as usize - 1,
            choice: Some(choice as usize - 1),
            actions: vec![
                inserted(query, &target, &rows.proposed, of_inserted)?,
                update,
            ],
            checks: first,
            proposal: Some(ordinal as usize - 1),
            repeats: Repeats::Forbidden,
            referenced: if moves {
                apply::referenced(target.relid)?
            } else {
                Vec::new()
            },
            as_others: target.as_others,
            part: None,
            reason,
            schema: target.schema,
            table: target.name,
            colocation: target.colocation,
        };
        Ok(Pulled {
            rows: top,
            plan,
            returning,
        })
    }
}

const BOOL: (Oid, i32, Oid) = (pg_sys::BOOLOID, -1, pg_sys::InvalidOid);

unsafe fn truth() -> *mut Node {
    unsafe { pg_sys::makeBoolConst(true, false) }
}

unsafe fn null_test(column: i16, test: pg_sys::NullTestType::Type) -> *mut Node {
    unsafe {
        let null = node::make::<pg_sys::NullTest>();
        (*null).arg = expr::var(1, column, (pg_sys::TIDOID, -1, pg_sys::InvalidOid)).cast();
        (*null).nulltesttype = test;
        (*null).location = -1;
        null.cast()
    }
}

/// Is a condition on new rows one on those that are proposed, whether they are inserted or not?
unsafe fn of_insert(query: *mut Query, check: &RowCheck, condition: *mut Node) -> bool {
    unsafe {
        list::iter::<pg_sys::WithCheckOption>((*query).withCheckOptions).any(|option| {
            check.kind == CheckKind::NewRow
                && (*option).qual == condition
                && (*option).kind == WCOKind::WCO_RLS_INSERT_CHECK
        })
    }
}

/// 1 for a row without a conflict, 2 for one whose row is updated, 0 for the others.
unsafe fn choice(rows: &Rows, clause: *mut pg_sys::OnConflictExpr, ctid: i16) -> Result<*mut Node> {
    unsafe {
        let absent = null_test(ctid, pg_sys::NullTestType::IS_NULL);
        let mut arms = vec![(absent, expr::int4(INSERT).cast())];
        let condition = (*clause).onConflictWhere;
        if condition.is_null() {
            arms.push((truth(), expr::int4(UPDATE).cast()));
        } else {
            let condition = reading::lifted(condition, &mut |var| rows.of_clause(var))?;
            arms.push((condition, expr::int4(UPDATE).cast()));
        }
        let integer = (pg_sys::INT4OID, -1, pg_sys::InvalidOid);
        Ok(when(arms, expr::int4(0).cast(), integer))
    }
}

/// A level that reads the proposed rows through the node that looks for conflicts. Answers it, and the numbers of the
/// columns that the node fills: the row's number, and the ctid and columns of what was found.
#[allow(clippy::type_complexity)]
unsafe fn finding(
    query: *mut Query,
    source: *mut Query,
    target: &Target,
    proposed: &Proposed,
    strength: pg_sys::LockClauseStrength::Type,
) -> Result<(*mut Query, i16, i16, Vec<(i16, i16)>)> {
    unsafe {
        for entry in list::iter::<pg_sys::TargetEntry>((*source).targetList) {
            (*entry).resjunk = false;
            if (*entry).resname.is_null() {
                (*entry).resname = node::pstrdup("?column?");
            }
        }
        let null = |(type_oid, typmod, collation)| {
            reading::append(
                source,
                pg_sys::makeNullConst(type_oid, typmod, collation).cast(),
            )
        };
        let ordinal = null((pg_sys::INT8OID, -1, pg_sys::InvalidOid));
        let ctid = null((pg_sys::TIDOID, -1, pg_sys::InvalidOid));
        let columns: Vec<i16> = (1..=types::column_count(target.relid))
            .filter(|attno| types::has_column(target.relid, *attno))
            .collect();
        let mut answer = vec![pg_sys::INT8OID.to_u32(), pg_sys::TIDOID.to_u32()];
        let mut found = Vec::new();
        for attno in &columns {
            let signature = types::attribute_signature(target.relid, *attno);
            ship::readable_type(signature.0)?;
            answer.push(signature.0.to_u32());
            found.push((*attno, null(signature)));
        }
        let (lookup, rows) = lookup::statement(query, proposed, &columns, strength)?;
        let key = proposed.attributes.iter().position(|a| *a == target.key);
        let outputs = [ordinal, ctid].into_iter();
        let number = leaf::finding_count();
        leaf::add_finding(Finding {
            plan: FindPlan {
                relid: target.relid.to_u32(),
                colocation: target.colocation,
                key,
                lookup,
                columns: rows,
                attributes: proposed.attributes.clone(),
                answer,
                outputs: Vec::new(),
                as_others: target.as_others,
            },
            outputs: outputs.chain(found.iter().map(|(_, c)| *c)).collect(),
        });
        let level = reading::level_above(source);
        let rte = wrapped::entry(source, wrapped::Kind::Find, number, "proposed");
        (*level).rtable = list::from([rte]);
        // A level below another is merged with it unless it locks.
        (*level).hasForUpdate = true;
        Ok((level, ordinal, ctid, found))
    }
}

/// INSERT of rows that no conflict was found for.
unsafe fn inserted(
    query: *mut Query,
    target: &Target,
    proposed: &Proposed,
    checks: Vec<(usize, RowCheck)>,
) -> Result<Action> {
    unsafe {
        let copy: *mut Query = node::copy(query);
        let clause = (*copy).onConflict;
        (*clause).action = pg_sys::OnConflictAction::ONCONFLICT_NOTHING;
        (*clause).onConflictSet = std::ptr::null_mut();
        (*clause).onConflictWhere = std::ptr::null_mut();
        (*clause).exclRelIndex = 0;
        (*clause).exclRelTlist = std::ptr::null_mut();
        (*copy).withCheckOptions = std::ptr::null_mut();
        (*copy).returningList = std::ptr::null_mut();
        let columns: Vec<(usize, i16)> = proposed.attributes.iter().copied().enumerate().collect();
        let key = proposed.attributes.iter().position(|a| *a == target.key);
        let none = Checks::default();
        let plan = insert::insert_plan(copy, &columns, target.colocation, key, none)?.plan;
        let mut template = plan.template;
        template.append(" RETURNING ctid");
        Ok(Action {
            command: Command::Insert,
            in_place: None,
            new_key: key,
            remove: None,
            insert: Some(RowsStatement {
                template,
                by_ctid: false,
                columns: plan.columns,
            }),
            checks,
        })
    }
}

/// The custom scan that a path of `wrapped` becomes.
///
/// # Safety
/// Called by PlanCustomPath with its arguments.
pub unsafe fn plan_find(
    path: *mut pg_sys::CustomPath,
    tlist: *mut pg_sys::List,
    plans: *mut pg_sys::List,
) -> Result<*mut pg_sys::Plan> {
    unsafe {
        let (scan, below, number) = wrapped::scan(path, tlist, plans);
        (*scan).methods = crate::executor::find_methods();
        let place = |attno: i16| wrapped::position((*below).targetlist, attno);
        leaf::with_finding(number, |finding| {
            let mut plan = finding.plan.clone();
            for column in &mut plan.columns {
                column.source = place(column.source as i16 + 1)?;
            }
            plan.key = plan.key.map(|key| place(key as i16 + 1)).transpose()?;
            for attno in &finding.outputs {
                plan.outputs.push(place(*attno)?);
            }
            (*scan).custom_private = plan.to_private()?;
            Ok(())
        })?;
        Ok(scan.cast())
    }
}
