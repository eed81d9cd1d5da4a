//! UPDATE and DELETE that the shards cannot run by themselves: the rows are read and locked as a distributed query,
//! with their new values and what RETURNING says of them; a node on top changes them by ctid.

mod multiple;
mod new_row;

use crate::catalog::{self, TableKind};
use crate::error::{Error, Result};
use crate::pg::node::Step;
use crate::pg::{expr, list, node, types};
use crate::planner::apply::{self, Assigned};
use crate::planner::insert::row_checks;
use crate::planner::picked::{self, Picked};
use crate::planner::plan::{Action, Command, ModifyPlan, Private, Repeats, RowCheck};
use crate::planner::reading::{self, Reading};
use crate::planner::{leaf, locks, statement, Planner};
pub use multiple::{reads_multiple, MultipleAssignments};
pub use new_row::{whole_row, NewRow};
use pgrx::pg_sys::{self, CmdType, LockClauseStrength, Node, PlannedStmt, Query};

/// Where the rows of a changed table are known by their distribution column.
pub struct Target {
    pub relid: pg_sys::Oid,
    pub key: i16,
    pub colocation: i32,
    pub schema: String,
    pub name: String,
    pub as_others: bool,
    /// The distribution column is not to be NULL.
    pub required_key: bool,
    /// Policies of nodes could hide rows when they are locked.
    locking_hides: bool,
}

impl Target {
    /// Before the rows are read: what nodes must not do with them. A `leaf::Session` is open.
    pub fn note_policies(&self) {
        if self.locking_hides {
            leaf::read_as_others();
        }
    }

    /// # Safety
    /// `query` changes the table.
    pub unsafe fn of(query: *mut Query, table: &catalog::Table) -> Result<Target> {
        unsafe {
            let TableKind::Distributed { key, colocation } = &table.kind else {
                return Err(Error::internal("a changed table that is not distributed"));
            };
            let rte = list::rt_fetch((*query).resultRelation, (*query).rtable);
            let user = (*rte).checkAsUser;
            let (schema, name) = crate::deparse::name_of(table.relid)?;
            let locking_hides = locking_hides_rows(table.relid, (*query).commandType);
            Ok(Target {
                relid: table.relid,
                key: *key,
                colocation: colocation.id,
                schema,
                name,
                required_key: types::is_not_null(table.relid, *key),
                locking_hides,
                as_others: locking_hides
                    || user != pg_sys::InvalidOid && user != pg_sys::GetUserId(),
            })
        }
    }

    /// The position of the new key among the new values, where there is one.
    pub fn new_key(&self, assigned: &[Assigned]) -> Option<usize> {
        assigned
            .iter()
            .find(|(attno, _)| *attno == self.key)
            .map(|(_, position)| *position)
    }
}

/// Would the policies of a node hide rows that the statement may change? Rows are read `FOR UPDATE`, for which PostgreSQL
/// applies the policies of UPDATE; those of DELETE, and those by which MERGE sees rows, may be others.
unsafe fn locking_hides_rows(relid: pg_sys::Oid, command: pg_sys::CmdType::Type) -> bool {
    let others: &[u8] = match command {
        pg_sys::CmdType::CMD_DELETE => b"wd",
        pg_sys::CmdType::CMD_MERGE => b"rwd",
        _ => return false,
    };
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(relid);
        if relation.is_null() {
            return false;
        }
        let policies = (*relation).rd_rsdesc;
        let hides = !policies.is_null()
            && list::iter::<pg_sys::RowSecurityPolicy>((*policies).policies)
                .any(|policy| others.contains(&((*policy).polcmd as u8)));
        pg_sys::RelationClose(relation);
        hides
    }
}

/// What reads the rows of an UPDATE or DELETE, and what is done with them.
pub struct Pulled {
    pub rows: *mut Query,
    pub plan: ModifyPlan,
    /// RETURNING over the columns of the rows.
    pub returning: Option<*mut pg_sys::List>,
}

/// Plans an UPDATE or DELETE of a distributed table; `reason` says why the shards do not run it.
///
/// # Safety
/// As `planner::plan`.
pub unsafe fn plan(
    query: *mut Query,
    table: &catalog::Table,
    reason: String,
    standard: Planner,
) -> Result<*mut PlannedStmt> {
    unsafe {
        let session = leaf::Session::share(query);
        let pulled = prepare(query, table, reason)?;
        leaf::give_row_identity();
        plan_pulled(session, query, pulled, standard)
    }
}

/// Makes an UPDATE or DELETE a query that reads its rows.
///
/// # Safety
/// `query` changes the table; a `leaf::Session` is open.
pub unsafe fn prepare(query: *mut Query, table: &catalog::Table, reason: String) -> Result<Pulled> {
    unsafe {
        let target = Target::of(query, table)?;
        target.note_policies();
        let (query, picked) = picked(query, &target)?;
        let once = picked.is_none() && reads_target_only(query);
        let read = read(query, &target, picked)?;
        let plan = ModifyPlan {
            relid: target.relid.to_u32(),
            schema: target.schema,
            table: target.name,
            colocation: target.colocation,
            key: read.key,
            ctid: read.ctid,
            choice: None,
            actions: vec![read.action],
            checks: Vec::new(),
            proposal: None,
            repeats: if once { Repeats::Never } else { Repeats::Once },
            referenced: read.referenced,
            required_key: target.required_key,
            as_others: target.as_others,
            part: None,
            reason,
        };
        Ok(Pulled {
            rows: read.query,
            plan,
            returning: read.returning,
        })
    }
}

/// The statement with the subquery that picks its rows by ctid in the table's place, when there is one.
unsafe fn picked(query: *mut Query, target: &Target) -> Result<(*mut Query, Option<Picked>)> {
    unsafe {
        // What a statement of several parts names was looked at before.
        if leaf::reads_row_identity() || !leaf::reads_system_column(query) {
            return Ok((query, None));
        }
        let query = node::copy(query);
        match picked::take(query, target.relid, strength_of(query, target.relid))? {
            Some(picked) => Ok((query, Some(picked))),
            None => Err(leaf::refused_system_column()),
        }
    }
}

/// Plans the query that reads the rows, and puts the node that changes them above it.
///
/// # Safety
/// `pulled` was made of `query`, in this session.
pub unsafe fn plan_pulled(
    session: leaf::Session,
    query: *mut Query,
    pulled: Pulled,
    standard: Planner,
) -> Result<*mut PlannedStmt> {
    unsafe {
        let planned = super::plan_select(pulled.rows, standard)?;
        drop(session);
        let below = (*planned).planTree;
        let columns: Vec<_> = list::iter::<pg_sys::TargetEntry>((*below).targetlist)
            .map(|entry| expr::signature((*entry).expr.cast()))
            .collect();
        let names = (1..=columns.len()).map(|n| format!("c{n}")).collect();
        let scan = statement::scan_over(planned, &columns, names, pulled.returning);
        (*scan).custom_private = pulled.plan.to_private()?;
        (*scan).methods = crate::executor::modify_methods();
        (*planned).commandType = (*query).commandType;
        (*planned).hasReturning = !(*query).returningList.is_null();
        (*planned).hasModifyingCTE = (*query).hasModifyingCTE;
        (*planned).canSetTag = (*query).canSetTag;
        (*planned).queryId = (*query).queryId;
        (*planned).stmt_location = (*query).stmt_location;
        (*planned).stmt_len = (*query).stmt_len;
        (*planned).planTree = scan.cast();
        Ok(planned)
    }
}

/// A join may give a row several times.
unsafe fn reads_target_only(query: *mut Query) -> bool {
    unsafe {
        let from = (*(*query).jointree).fromlist;
        list::len(from) == 1
            && node::cast::<pg_sys::RangeTblRef>(list::nth::<Node>(from, 0)).is_some()
    }
}

/// The reading query, and what is done with its rows.
struct Read {
    query: *mut Query,
    key: usize,
    ctid: usize,
    action: Action,
    returning: Option<*mut pg_sys::List>,
    referenced: Vec<crate::planner::plan::Referenced>,
}

unsafe fn read(query: *mut Query, target: &Target, picked: Option<Picked>) -> Result<Read> {
    unsafe {
        let update = (*query).commandType == CmdType::CMD_UPDATE;
        let entries = assignments(query);
        let moves = entries.iter().any(|entry| (**entry).resno == target.key);
        let strength = strength_of(query, target.relid);
        let mut reading = match picked {
            Some(picked) => Reading::of_picked(query, picked),
            None => Reading::of(query, strength),
        };
        let key = reading.target_column(target.relid, target.key);
        let ctid = reading.ctid();

        // Values first: two volatile ones that look alike are two values.
        let level = reading.query;
        let rows = MultipleAssignments::of((*query).targetList, &mut |row| {
            Ok(reading::append(level, row))
        })?;
        let mut late = Vec::new();
        let mut assigned: Vec<Assigned> = Vec::new();
        for entry in &entries {
            let value = (**entry).expr.cast::<Node>();
            if reads_multiple(value) {
                reading.note_columns(value);
                late.push(((**entry).resno, value));
            } else {
                let column = reading::append(reading.query, node::copy(value));
                assigned.push(((**entry).resno, column as usize - 1));
            }
        }
        let (conditions, checks) = row_checks(query, (*query).withCheckOptions)?;
        let above = !(*query).returningList.is_null() || !conditions.is_empty();
        let generated = if above && update {
            generated_columns(target.relid, reading.target)
        } else {
            Vec::new()
        };
        let trees = conditions
            .iter()
            .copied()
            .chain([(*query).returningList.cast()])
            .chain(generated.iter().map(|(_, value)| *value));
        for tree in trees {
            reading.note_columns(tree);
        }
        if moves || above && reads_whole_row(query, reading.target) {
            for attno in apply::stored_columns(target.relid) {
                reading.target_column(target.relid, attno);
            }
        }

        let unlocked = reading.xmin_to_lock();
        let mut top = reading.query;
        let mut levels = vec![top];
        if let Some(xmin) = unlocked {
            let columns = [key, ctid, xmin];
            top = locks::level_above(top, target.relid, target.as_others, strength, columns)?;
            levels.push(top);
        }
        if !late.is_empty() {
            top = reading::level_above(top);
            levels.push(top);
            for (attno, value) in late {
                let value = reading::lifted(value, &mut |var| Ok(reading.above(var)))?;
                let value = rows.resolve(value);
                assigned.push((attno, reading::append(top, value) as usize - 1));
            }
        }
        let mut returning = None;
        let mut row_checks = Vec::new();
        if above {
            let below = top;
            top = reading::level_above(top);
            levels.push(top);
            let new_row = NewRow {
                relid: target.relid,
                target: reading.target,
                changed: update,
                inserted: false,
                below,
                assigned: &assigned,
                generated: &generated,
            };
            let mut outputs = Vec::new();
            for entry in list::iter::<pg_sys::TargetEntry>((*query).returningList) {
                let value = reading::lifted((*entry).expr.cast(), &mut |var| {
                    new_row.value(&mut reading, var)
                })?;
                let signature = expr::signature(value);
                let attno = reading::append(top, value);
                let output = pg_sys::flatCopyTargetEntry(entry);
                (*output).expr = expr::var(1, attno, signature).cast();
                outputs.push(output);
            }
            if !(*query).returningList.is_null() {
                returning = Some(list::from(outputs));
            }
            for (condition, check) in conditions.into_iter().zip(checks) {
                let value =
                    reading::lifted(condition, &mut |var| new_row.value(&mut reading, var))?;
                row_checks.push((reading::append(top, value) as usize - 1, check));
            }
        }
        reading::share_with(&levels);

        let action = if update {
            self::update(target, &assigned, row_checks, &mut |attno| {
                reading.target_column(target.relid, attno) as usize - 1
            })?
        } else {
            Action {
                command: Command::Delete,
                in_place: Some(apply::delete(target.relid)?),
                new_key: None,
                remove: None,
                insert: None,
                checks: row_checks,
            }
        };
        Ok(Read {
            query: top,
            key: key as usize - 1,
            ctid: ctid as usize - 1,
            action,
            returning,
            referenced: if moves {
                apply::referenced(target.relid)?
            } else {
                Vec::new()
            },
        })
    }
}

/// What UPDATE assigns, and DELETE does not.
unsafe fn assignments(query: *mut Query) -> Vec<*mut pg_sys::TargetEntry> {
    unsafe {
        if (*query).commandType != CmdType::CMD_UPDATE {
            return Vec::new();
        }
        list::iter::<pg_sys::TargetEntry>((*query).targetList)
            .filter(|entry| !(**entry).resjunk)
            .collect()
    }
}

/// How an UPDATE or DELETE locks its rows.
unsafe fn strength_of(query: *mut Query, relid: pg_sys::Oid) -> LockClauseStrength::Type {
    unsafe {
        let set: Vec<i16> = assignments(query).iter().map(|e| (**e).resno).collect();
        let update = (*query).commandType == CmdType::CMD_UPDATE;
        strength(relid, update.then_some(&set[..]))
    }
}

/// UPDATE of rows that are given as these columns; `old` says where the others are, should the key be assigned.
///
/// # Safety
/// They are columns of the target.
pub unsafe fn update(
    target: &Target,
    assigned: &[Assigned],
    checks: Vec<(usize, RowCheck)>,
    old: &mut dyn FnMut(i16) -> usize,
) -> Result<Action> {
    unsafe {
        let new_key = target.new_key(assigned);
        let (mut remove, mut insert) = (None, None);
        if new_key.is_some() {
            let mut row = Vec::new();
            for attno in apply::stored_columns(target.relid) {
                let new = assigned.iter().find(|(a, _)| *a == attno).map(|(_, p)| *p);
                let position = match new {
                    Some(position) => position,
                    None => old(attno),
                };
                row.push((attno, position));
            }
            remove = Some(apply::delete(target.relid)?);
            insert = Some(apply::insert(target.relid, &row)?);
        }
        Ok(Action {
            command: Command::Update,
            in_place: Some(apply::update(target.relid, target.key, assigned)?),
            new_key,
            remove,
            insert,
            checks,
        })
    }
}

/// How rows are locked before they are changed: as PostgreSQL's own UPDATE (of these columns) and DELETE do.
///
/// # Safety
/// Called inside the server.
pub unsafe fn strength(relid: pg_sys::Oid, set: Option<&[i16]>) -> LockClauseStrength::Type {
    unsafe {
        let Some(set) = set else {
            return LockClauseStrength::LCS_FORUPDATE;
        };
        let relation = pg_sys::RelationIdGetRelation(relid);
        if relation.is_null() {
            return LockClauseStrength::LCS_FORUPDATE;
        }
        let keys = pg_sys::RelationGetIndexAttrBitmap(
            relation,
            pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_KEY,
        );
        pg_sys::RelationClose(relation);
        let of_key = set.iter().any(|attno| {
            let member = i32::from(*attno) - pg_sys::FirstLowInvalidHeapAttributeNumber;
            pg_sys::bms_is_member(member, keys)
        });
        if of_key {
            LockClauseStrength::LCS_FORUPDATE
        } else {
            LockClauseStrength::LCS_FORNOKEYUPDATE
        }
    }
}

/// The generated columns of a table with their expressions over the relation's columns, as those of `target`.
///
/// # Safety
/// Called inside the server.
pub unsafe fn generated_columns(relid: pg_sys::Oid, target: i32) -> Vec<(i16, *mut Node)> {
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(relid);
        if relation.is_null() {
            return Vec::new();
        }
        let found = (1..=types::column_count(relid))
            .filter(|attno| pg_sys::get_attgenerated(relid, *attno) != 0)
            .map(|attno| {
                let value = pg_sys::build_column_default(relation, i32::from(attno));
                (attno, expr::renumbered(value, 1, target))
            })
            .collect();
        pg_sys::RelationClose(relation);
        found
    }
}

/// Does RETURNING or a check name the changed row as a whole?
unsafe fn reads_whole_row(query: *mut Query, target: i32) -> bool {
    unsafe {
        let whole = |tree: *mut Node| {
            node::walk(
                tree,
                &mut |item, depth| match node::cast::<pg_sys::Var>(item) {
                    Some(var)
                        if (*var).varno == target
                            && (*var).varlevelsup == depth
                            && (*var).varattno == 0 =>
                    {
                        Step::Stop
                    }
                    _ => Step::Into,
                },
            )
        };
        whole((*query).returningList.cast()) || whole((*query).withCheckOptions.cast())
    }
}

impl Reading {
    /// A column of the joining level, in the levels above.
    ///
    /// # Safety
    /// `var` is a Var of the joining level.
    pub unsafe fn above(&mut self, var: *mut pg_sys::Var) -> *mut Node {
        unsafe {
            let attno = self.column(var.cast());
            expr::var(1, attno, expr::signature(var.cast())).cast()
        }
    }
}
