//! INSERT whose rows, and what RETURNING and conditions say of them, are computed here before the first is sent: where
//! the shards cannot run the clauses behind the rows, and where others see the table as it was. With ON CONFLICT, a
//! node above the proposed rows finds and locks the row that each is in conflict with (`executor/find.rs`); the next
//! level chooses whether the row is inserted or the one that was found is updated, and the one above computes the
//! values. The node on top changes the shards (`executor/modify.rs`). It inserts with ON CONFLICT DO NOTHING, and has
//! those looked for again that another was faster with.

mod finding;
mod lookup;
mod rows;

use crate::catalog::{self, TableKind};
use crate::error::{sqlstate, Result};
use crate::pg::node::Step;
use crate::pg::{expr, list, node, types};
use crate::planner::apply::{self, Assigned};
use crate::planner::conflict::{self, Checks};
use crate::planner::insert::{self, row_checks};
use crate::planner::merge::is_choice;
use crate::planner::plan::{Action, Command, ModifyPlan, Repeats, RowCheck, RowsStatement};
use crate::planner::pull::{self, MultipleAssignments, Pulled, Target};
use crate::planner::{leaf, reading, ship, split, Planner};
pub use finding::{plan_find, Finding};
use pgrx::pg_sys::{self, Node, Oid, PlannedStmt, Query, WCOKind};
pub use rows::Proposed;
use rows::Rows;

/// What the choosing level says of a row.
const INSERT: i32 = 1;
const UPDATE: i32 = 2;

/// Why an INSERT is for this module, if it is.
///
/// # Safety
/// `query` is an INSERT into the table.
pub unsafe fn reason(query: *mut Query, table: &catalog::Table) -> Result<Option<ship::Reason>> {
    unsafe {
        let TableKind::Distributed { key, colocation } = &table.kind else {
            return Ok(None);
        };
        if (*query).hasSubLinks && returning_follows_rows(query)? {
            return Ok(Some("RETURNING reads other tables by the row".into()));
        }
        let returning = (*query).returningList.cast();
        if !insert::is_single_row(query) && pg_sys::contain_volatile_functions(returning) {
            return Ok(Some("RETURNING is computed with each row".into()));
        }
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

/// Does RETURNING have a subquery that reads other tables by the columns of the row that is returned?
unsafe fn returning_follows_rows(query: *mut Query) -> Result<bool> {
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
        pull::plan_pulled(session, query, pulled, standard)
    }
}

/// Makes an INSERT a query that reads its rows, and those that they are in conflict with.
///
/// # Safety
/// `query` is an INSERT into the table; a `leaf::Session` is open.
pub unsafe fn prepare(
    query: *mut Query,
    table: &catalog::Table,
    reason: ship::Reason,
) -> Result<Pulled> {
    unsafe {
        leaf::refuse_system_columns(query)?;
        let mut insert = Insert::of(query, Target::of(query, table)?);
        let conflict = if (*query).onConflict.is_null() {
            None
        } else {
            Some(insert.choose()?)
        };
        let returning = insert.describe(conflict.as_ref())?;
        reading::share_with(&insert.levels);
        let rows = insert.top();
        let plan = insert.plan(conflict, reason)?;
        Ok(Pulled {
            rows,
            plan,
            returning,
        })
    }
}

/// The levels as they grow.
struct Insert {
    query: *mut Query,
    target: Target,
    rows: Rows,
    levels: Vec<*mut Query>,
    /// Conditions on all proposed rows and those that were found, on those that are inserted, and on those updated.
    checks: Vec<(usize, RowCheck)>,
    of_inserted: Vec<(usize, RowCheck)>,
    of_updated: Vec<(usize, RowCheck)>,
}

/// What is done about conflicts.
struct Conflict {
    /// Columns: the number of the proposed row, the ctid of what was found, what is done.
    ordinal: i16,
    ctid: i16,
    choice: i16,
    /// What DO UPDATE sets, with the values.
    assigned: Option<Vec<(Assigned, *mut Node)>>,
}

impl Insert {
    unsafe fn of(query: *mut Query, target: Target) -> Insert {
        unsafe {
            let (source, attributes) = insert::source(query);
            for entry in list::iter::<pg_sys::TargetEntry>((*source).targetList) {
                (*entry).resjunk = false;
                if (*entry).resname.is_null() {
                    (*entry).resname = node::pstrdup("?column?");
                }
            }
            let clause = (*query).onConflict;
            Insert {
                query,
                rows: Rows {
                    proposed: Proposed::of(target.relid, attributes),
                    excluded: if clause.is_null() {
                        0
                    } else {
                        (*clause).exclRelIndex
                    },
                    found: Vec::new(),
                },
                target,
                levels: vec![source],
                checks: Vec::new(),
                of_inserted: Vec::new(),
                of_updated: Vec::new(),
            }
        }
    }

    fn top(&self) -> *mut Query {
        self.levels[self.levels.len() - 1]
    }

    unsafe fn grow(&mut self) -> *mut Query {
        let level = unsafe { reading::level_above(self.top()) };
        self.levels.push(level);
        level
    }

    /// Finds conflicts, chooses what is done about them, and computes what DO UPDATE sets.
    unsafe fn choose(&mut self) -> Result<Conflict> {
        unsafe {
            let clause = (*self.query).onConflict;
            let set = conflict::updates(self.query).map(|_| self.set());
            let strength = set.as_ref().map(|set| {
                let set: Vec<i16> = set.iter().map(|entry| (**entry).resno).collect();
                pull::strength(self.target.relid, Some(&set))
            });
            let (target, proposed) = (&self.target, &self.rows.proposed);
            let found = finding::above(self.query, self.top(), target, proposed, strength)?;
            let ctid = found.ctid;
            self.rows.found = found.columns;
            self.levels.push(found.level);

            // One level chooses, those above see the choice.
            let level = self.grow();
            let choice = reading::append(level, self.choice(clause, ctid)?);
            for (condition, check, kind) in self.conditions()? {
                let value = match kind {
                    WCOKind::WCO_RLS_CONFLICT_CHECK | conflict::WCO_VIEW_CONFLICT_CHECK => {
                        let holds = reading::lifted(condition, &mut |var| self.rows.found(var))?;
                        expr::case(vec![(is_absent(ctid), truth())], holds, BOOL)
                    }
                    WCOKind::WCO_RLS_INSERT_CHECK => {
                        reading::lifted(condition, &mut |var| self.rows.proposed(var))?
                    }
                    _ => continue,
                };
                self.checks
                    .push((reading::append(level, value) as usize - 1, check));
            }
            (*level).limitOffset = expr::int8(0).cast();
            let assigned = match set {
                Some(set) => Some(self.values(&set, choice)?),
                None => None,
            };
            Ok(Conflict {
                ordinal: found.ordinal,
                ctid,
                choice,
                assigned,
            })
        }
    }

    /// What DO UPDATE sets and the shards do not compute.
    unsafe fn set(&self) -> Vec<*mut pg_sys::TargetEntry> {
        unsafe {
            list::iter::<pg_sys::TargetEntry>((*(*self.query).onConflict).onConflictSet)
                .filter(|entry| {
                    !(**entry).resjunk
                        && pg_sys::get_attgenerated(self.target.relid, (**entry).resno) == 0
                })
                .collect()
        }
    }

    /// 1 for a row without a conflict, 2 for one whose row is updated, 0 for the others.
    unsafe fn choice(&self, clause: *mut pg_sys::OnConflictExpr, ctid: i16) -> Result<*mut Node> {
        unsafe {
            let mut arms = vec![(is_absent(ctid), expr::int4(INSERT).cast())];
            if conflict::updates(self.query).is_some() {
                let condition = match (*clause).onConflictWhere {
                    none if none.is_null() => truth(),
                    condition => reading::lifted(condition, &mut |var| self.rows.of_clause(var))?,
                };
                arms.push((condition, expr::int4(UPDATE).cast()));
            }
            let integer = (pg_sys::INT4OID, -1, pg_sys::InvalidOid);
            Ok(expr::case(arms, expr::int4(0).cast(), integer))
        }
    }

    /// WITH CHECK conditions, what to say of them, and their kinds.
    unsafe fn conditions(&self) -> Result<Vec<(*mut Node, RowCheck, WCOKind::Type)>> {
        unsafe {
            let options = (*self.query).withCheckOptions;
            let kinds = list::iter::<pg_sys::WithCheckOption>(options).map(|o| (*o).kind);
            let (conditions, checks) = row_checks(self.query, options)?;
            let described = conditions.into_iter().zip(checks).zip(kinds);
            Ok(described
                .map(|((c, check), kind)| (c, check, kind))
                .collect())
        }
    }

    /// The values that DO UPDATE sets.
    unsafe fn values(
        &mut self,
        set: &[*mut pg_sys::TargetEntry],
        choice: i16,
    ) -> Result<Vec<(Assigned, *mut Node)>> {
        unsafe {
            let targets = (*(*self.query).onConflict).onConflictSet;
            let mut subqueries = MultipleAssignments::default();
            if pull::reads_multiple(targets.cast()) {
                let level = self.grow();
                let record = (pg_sys::RECORDOID, -1, pg_sys::InvalidOid);
                subqueries = MultipleAssignments::of(targets, &mut |row| {
                    let row = reading::lifted(row, &mut |var| self.rows.of_clause(var))?;
                    Ok(reading::append(level, if_updated(choice, row, record)))
                })?;
                (*level).limitOffset = expr::int8(0).cast();
            }
            let level = self.grow();
            let mut assigned = Vec::new();
            for entry in set {
                let attno = (**entry).resno;
                let value = (**entry).expr.cast();
                let value = reading::lifted(value, &mut |var| self.rows.of_clause(var))?;
                let value = subqueries.resolve(value);
                let signature = types::attribute_signature(self.target.relid, attno);
                let value = if_updated(choice, value, signature);
                let position = reading::append(level, value) as usize - 1;
                assigned.push(((attno, position), value));
            }
            // A value is computed once, though several columns name it.
            (*level).limitOffset = expr::int8(0).cast();
            Ok(assigned)
        }
    }

    /// A column of the row as it is afterwards.
    unsafe fn changed(
        &self,
        var: *mut pg_sys::Var,
        conflict: Option<&Conflict>,
    ) -> Result<*mut Node> {
        unsafe {
            let proposed = self.rows.proposed(var)?;
            let Some((choice, assigned)) =
                conflict.and_then(|c| Some((c.choice, c.assigned.as_ref()?)))
            else {
                return Ok(proposed);
            };
            let updated = self.rows.updated(var, assigned)?;
            let inserted = (is_choice(choice, INSERT), proposed);
            Ok(expr::case(
                vec![inserted],
                updated,
                expr::signature(var.cast()),
            ))
        }
    }

    /// The level that says what RETURNING and conditions say of the rows as they are afterwards; answers RETURNING over it.
    unsafe fn describe(
        &mut self,
        conflict: Option<&Conflict>,
    ) -> Result<Option<*mut pg_sys::List>> {
        unsafe {
            let conditions: Vec<_> = (self.conditions()?.into_iter())
                .filter(|(_, _, kind)| {
                    matches!(
                        *kind,
                        WCOKind::WCO_VIEW_CHECK | WCOKind::WCO_RLS_UPDATE_CHECK
                    ) || *kind == WCOKind::WCO_RLS_INSERT_CHECK && conflict.is_none()
                })
                .collect();
            let list_of = (*self.query).returningList;
            if list_of.is_null() && conditions.is_empty() {
                return Ok(None);
            }
            let level = self.grow();
            let mut outputs = Vec::new();
            for entry in list::iter::<pg_sys::TargetEntry>(list_of) {
                let value =
                    reading::lifted((*entry).expr.cast(), &mut |var| self.changed(var, conflict))?;
                let signature = expr::signature(value);
                let attno = reading::append(level, value);
                let output = pg_sys::flatCopyTargetEntry(entry);
                (*output).expr = expr::var(1, attno, signature).cast();
                outputs.push(output);
            }
            for (condition, check, kind) in conditions {
                let mut value = reading::lifted(condition, &mut |var| self.changed(var, conflict))?;
                let of_update = kind == WCOKind::WCO_RLS_UPDATE_CHECK;
                if let (true, Some(conflict)) = (of_update, conflict) {
                    let updated = (is_choice(conflict.choice, UPDATE), value);
                    value = expr::case(vec![updated], truth(), BOOL);
                }
                let column = reading::append(level, value) as usize - 1;
                // a view looks at what is inserted and at what is updated
                if !of_update {
                    self.of_inserted.push((column, check.clone()));
                }
                self.of_updated.push((column, check));
            }
            Ok((!list_of.is_null()).then(|| list::from(outputs)))
        }
    }

    unsafe fn plan(
        mut self,
        conflict: Option<Conflict>,
        reason: ship::Reason,
    ) -> Result<ModifyPlan> {
        unsafe {
            let mut actions = vec![self.insert()?];
            let mut referenced = Vec::new();
            let assigned = conflict.as_ref().and_then(|c| c.assigned.as_ref());
            if let Some(assigned) = assigned {
                let assigned: Vec<Assigned> = assigned.iter().map(|(a, _)| *a).collect();
                if self.target.new_key(&assigned).is_some() {
                    referenced = apply::referenced(self.target.relid)?;
                }
                let checks = std::mem::take(&mut self.of_updated);
                let mut old = |attno| self.rows.place(attno);
                let mut update = pull::update(&self.target, &assigned, checks, &mut old)?;
                let statements = [&mut update.in_place, &mut update.insert];
                for statement in statements.into_iter().flatten() {
                    statement.template.append(" RETURNING ctid");
                }
                actions.push(update);
            }
            let place = |column: Option<i16>| column.map(|column| column as usize - 1);
            Ok(ModifyPlan {
                key: self.rows.place(self.target.key),
                ctid: place(conflict.as_ref().map(|c| c.ctid)).unwrap_or_default(),
                choice: place(conflict.as_ref().map(|c| c.choice)),
                proposal: place(conflict.as_ref().map(|c| c.ordinal)),
                actions,
                checks: self.checks,
                repeats: Repeats::Forbidden,
                referenced,
                relid: self.target.relid.to_u32(),
                required_key: self.target.required_key,
                as_others: self.target.as_others,
                part: None,
                reason,
                schema: self.target.schema,
                table: self.target.name,
                colocation: self.target.colocation,
            })
        }
    }

    /// INSERT of rows that no conflict was found for.
    unsafe fn insert(&mut self) -> Result<Action> {
        unsafe {
            let copy: *mut Query = node::copy(self.query);
            let clause = (*copy).onConflict;
            if !clause.is_null() {
                (*clause).action = pg_sys::OnConflictAction::ONCONFLICT_NOTHING;
                (*clause).onConflictSet = std::ptr::null_mut();
                (*clause).onConflictWhere = std::ptr::null_mut();
                (*clause).exclRelIndex = 0;
                (*clause).exclRelTlist = std::ptr::null_mut();
            }
            (*copy).withCheckOptions = std::ptr::null_mut();
            (*copy).returningList = std::ptr::null_mut();
            let attributes = &self.rows.proposed.attributes;
            let columns: Vec<(usize, i16)> = attributes.iter().copied().enumerate().collect();
            let key = attributes.iter().position(|a| *a == self.target.key);
            let none = Checks::default();
            let plan = insert::insert_plan(copy, &columns, self.target.colocation, key, none)?.plan;
            let mut template = plan.template;
            if !clause.is_null() {
                template.append(" RETURNING ctid");
            }
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
                checks: std::mem::take(&mut self.of_inserted),
            })
        }
    }
}

const BOOL: (Oid, i32, Oid) = (pg_sys::BOOLOID, -1, pg_sys::InvalidOid);

unsafe fn truth() -> *mut Node {
    unsafe { pg_sys::makeBoolConst(true, false) }
}

/// Was nothing found?
unsafe fn is_absent(ctid: i16) -> *mut Node {
    unsafe {
        let null = node::make::<pg_sys::NullTest>();
        (*null).arg = expr::var(1, ctid, (pg_sys::TIDOID, -1, pg_sys::InvalidOid)).cast();
        (*null).nulltesttype = pg_sys::NullTestType::IS_NULL;
        (*null).location = -1;
        null.cast()
    }
}

/// The value where what was found is updated, otherwise NULL.
unsafe fn if_updated(choice: i16, value: *mut Node, signature: (Oid, i32, Oid)) -> *mut Node {
    unsafe {
        let none = pg_sys::makeNullConst(signature.0, signature.1, signature.2).cast();
        expr::case(vec![(is_choice(choice, UPDATE), value)], none, signature)
    }
}
