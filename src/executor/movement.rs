//! The custom scan that moves rows: it reads the plan below to its end and copies each row into a table beside the shard
//! group of its key. Its only row is the handle by which leaves find the tables. It stands on top of an init plan, so it
//! runs once, before the first leaf that asks for the handle.

use crate::catalog::{self, Colocation, Key, Method};
use crate::error::{Error, Result};
use crate::executor::explain::Explainer;
use crate::executor::moved::{self, Moved};
use crate::executor::raw::RawRows;
use crate::executor::shard_copy::ShardCopy;
use crate::executor::state::{self, Body, Methods};
use crate::pg::{list, types};
use crate::planner::plan::{MovePlan, Private};
use crate::planner::route;
use crate::remote::Access;
use crate::transaction;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::CStr;
use std::rc::Rc;

static METHODS: Methods = Methods::of::<Move>();

/// For `CustomScan.methods`.
pub fn move_methods() -> *const pg_sys::CustomScanMethods {
    METHODS.for_plan()
}

/// One execution of a move.
struct Move {
    plan: MovePlan,
    colocation: Rc<Colocation>,
    /// How values are hashed, where they are not looked for as keys.
    hash: Option<Key>,
    tables: Option<Rc<Moved>>,
    /// The handle was given since the last rescan.
    given: bool,
    rows: u64,
    bytes: u64,
}

impl Drop for Move {
    fn drop(&mut self) {
        if let Some(tables) = &self.tables {
            moved::forget(tables.handle());
        }
    }
}

impl Body for Move {
    const NAME: &'static CStr = c"ShardMove";

    fn methods() -> &'static Methods {
        &METHODS
    }

    unsafe fn new(
        _node: *mut pg_sys::CustomScanState,
        scan: *mut pg_sys::CustomScan,
    ) -> Result<Move> {
        unsafe {
            let plan = MovePlan::from_private((*scan).custom_private)?;
            let colocation = catalog::colocation(plan.colocation)?;
            let hash = plan.hashed.then(|| hash_of(Oid::from(plan.key_type)));
            Ok(Move {
                plan,
                colocation,
                hash: hash.transpose()?,
                tables: None,
                given: false,
                rows: 0,
                bytes: 0,
            })
        }
    }

    /// One row, which says in the column for it by what handle the tables are known.
    unsafe fn next(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<()> {
        unsafe {
            if std::mem::replace(&mut self.given, true) {
                return Ok(());
            }
            let handle = self.handle(node)?;
            for column in 0..(*(*slot).tts_tupleDescriptor).natts as usize {
                *(*slot).tts_values.add(column) = Datum::null();
                *(*slot).tts_isnull.add(column) = true;
            }
            *(*slot).tts_values.add(self.plan.handle) = Datum::from(handle);
            *(*slot).tts_isnull.add(self.plan.handle) = false;
            state::store_virtual(slot);
            Ok(())
        }
    }

    unsafe fn end(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        // the leaves above have ended before
        unsafe { state::end_child(node) };
        match self.tables.take() {
            Some(tables) => {
                moved::forget(tables.handle());
                tables.drop_tables()
            }
            None => Ok(()),
        }
    }

    unsafe fn rescan(&mut self, _node: *mut pg_sys::CustomScanState) -> Result<()> {
        // nothing below takes values from outside
        self.given = false;
        Ok(())
    }

    unsafe fn explain(
        &mut self,
        _node: *mut pg_sys::CustomScanState,
        es: *mut pg_sys::ExplainState,
    ) -> Result<()> {
        let explainer = Explainer(es);
        explainer.text("Moved By", &self.plan.by);
        explainer.text(
            "To",
            &format!(
                "{} shard groups of {}",
                self.colocation.groups.len(),
                self.plan.target
            ),
        );
        explainer.text("Reason", &self.plan.reason);
        if unsafe { (*es).analyze } {
            explainer.integer("Rows Moved", None, self.rows as i64);
            explainer.integer("Bytes Moved", None, self.bytes as i64);
        }
        Ok(())
    }
}

impl Move {
    /// Moves the rows, unless that was done.
    unsafe fn handle(&mut self, node: *mut pg_sys::CustomScanState) -> Result<i32> {
        if self.tables.is_none() {
            unsafe { self.run(node)? };
        }
        match &self.tables {
            Some(tables) => Ok(tables.handle()),
            None => Err(Error::internal("rows were not moved")),
        }
    }

    unsafe fn run(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            let child = list::nth::<pg_sys::PlanState>((*node).custom_ps, 0);
            let statement = (*(*node).ss.ps.state).es_plannedstmt;
            let memory = (*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
            let types: Vec<Oid> = self
                .plan
                .columns
                .iter()
                .map(|column| Oid::from(column.value))
                .collect();
            let mut copy = ShardCopy::new(self.colocation.groups.len(), &types, Access::Read);
            let sources = self.plan.columns.iter().map(|column| column.source);
            let key = Some((self.plan.key, Oid::from(self.plan.key_type)));
            let mut raw = RawRows::of(child, &copy, sources, key);
            loop {
                let group = if let Some(raw) = &mut raw {
                    let Some(row) = raw.next(memory)? else {
                        break;
                    };
                    let old = pg_sys::MemoryContextSwitchTo(memory);
                    let group = self.group_of(row.key);
                    pg_sys::MemoryContextSwitchTo(old);
                    if let Some(group) = group {
                        copy.add_raw(group, |index| row.get(index));
                    }
                    group
                } else {
                    let slot = state::exec_child(child);
                    if state::is_empty(slot) {
                        break;
                    }
                    pg_sys::MemoryContextReset(memory);
                    let old = pg_sys::MemoryContextSwitchTo(memory);
                    let group = self.take(slot, &mut copy);
                    pg_sys::MemoryContextSwitchTo(old);
                    group
                };
                if let Some(group) = group.and_then(|group| copy.due(group)) {
                    self.send(group, &mut copy, statement)?;
                }
                copy.attend()?;
            }
            self.create_tables(statement)?;
            for group in copy.waiting() {
                self.send(group, &mut copy, statement)?;
            }
            (self.rows, self.bytes) = (copy.rows, copy.bytes);
            copy.finish().map(drop)
        }
    }

    /// Adds a row to those of its shard group, and answers that. Rows that join nothing stay out.
    unsafe fn take(
        &self,
        slot: *mut pg_sys::TupleTableSlot,
        copy: &mut ShardCopy,
    ) -> Option<usize> {
        unsafe {
            pg_sys::slot_getallattrs(slot);
            let group = self.group_of(state::value(slot, self.plan.key))?;
            copy.add(group, |index| {
                state::value(slot, self.plan.columns[index].source)
            });
            Some(group)
        }
    }

    /// The shard group of a row; none: it joins nothing, and is not needed.
    fn group_of(&self, key: Option<Datum>) -> Option<usize> {
        let found = key.and_then(|key| match &self.hash {
            Some(hash) => self.colocation.group_for_hash(hash.hash(key)),
            None => route::group_of(&self.colocation, Oid::from(self.plan.key_type), key),
        });
        if !self.plan.keep {
            return found;
        }
        let somewhere = || self.colocation.group_for(None).unwrap_or(0);
        found.or_else(|| Some(somewhere()))
    }

    fn create_tables(&mut self, statement: *const pg_sys::PlannedStmt) -> Result<Rc<Moved>> {
        if let Some(tables) = &self.tables {
            return Ok(tables.clone());
        }
        // the part that was planned as a SELECT may be that of an INSERT
        // SAFETY: the statement that runs.
        let reads = unsafe {
            (*statement).commandType == pg_sys::CmdType::CMD_SELECT && !(*statement).hasModifyingCTE
        };
        let temporary = reads && self.plan.quiet && transaction::may_autocommit(statement);
        let columns: Vec<&str> = self
            .plan
            .columns
            .iter()
            .map(|column| column.definition.as_str())
            .collect();
        let tables = Moved::create(
            &self.colocation,
            &self.plan.schema,
            &columns.join(", "),
            temporary,
        )?;
        self.tables = Some(tables.clone());
        Ok(tables)
    }

    /// Sends the rows of a shard group.
    fn send(
        &mut self,
        group: usize,
        copy: &mut ShardCopy,
        statement: *const pg_sys::PlannedStmt,
    ) -> Result<()> {
        let tables = self.create_tables(statement)?;
        let id = self.colocation.groups[group].id;
        copy.send(group, catalog::group_node(id)?, &tables.table(id))
    }
}

/// The hash of a type that values of all operands of a join have in common: they are compared by a deterministic collation,
/// so any will do.
fn hash_of(type_oid: Oid) -> Result<Key> {
    // SAFETY: a look-up in the syscache.
    let collated = unsafe { pg_sys::get_typcollation(type_oid) } != pg_sys::InvalidOid;
    let collation = if collated {
        pg_sys::C_COLLATION_OID
    } else {
        pg_sys::InvalidOid
    };
    Key::new(Method::Hash, types::base_type(type_oid), collation)
}
