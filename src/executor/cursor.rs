//! The custom scan on top of a cursor over distributed tables. It remembers where the row that it gave last is, for
//! `WHERE CURRENT OF`, and finds that row again: the version that was read, or what this transaction has made of it.

use crate::catalog::{self, Colocation};
use crate::error::{sqlstate, Error, Result};
use crate::executor::lock::{version, version_of_text, Version};
use crate::executor::state::{self, Body, Methods};
use crate::executor::task;
use crate::pg::list;
use crate::planner::plan::{CursorPlan, FollowedRelation, Private};
use crate::remote::{Format, Gather, Params};
use pgrx::pg_sys::{self, Oid};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::rc::Rc;

static METHODS: Methods = Methods::of::<Cursor>();

/// For `CustomScan.methods`.
pub fn cursor_methods() -> *const pg_sys::CustomScanMethods {
    METHODS.for_plan()
}

/// A row version, and the index of its shard group.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    group: usize,
    version: Version,
}

struct Cursor {
    plan: CursorPlan,
    colocations: Vec<Rc<Colocation>>,
    /// Where the current row is, for each followed table.
    places: Vec<Option<Place>>,
    /// The subtransactions that started to read, and that read the current row.
    since: Option<pg_sys::SubTransactionId>,
    at: pg_sys::SubTransactionId,
    /// Rows that were found since, and the subtransactions that have locked them.
    found: Vec<HashMap<Place, pg_sys::SubTransactionId>>,
}

impl Body for Cursor {
    const NAME: &'static CStr = c"ShardCursor";

    fn methods() -> &'static Methods {
        &METHODS
    }

    unsafe fn new(
        _node: *mut pg_sys::CustomScanState,
        scan: *mut pg_sys::CustomScan,
    ) -> Result<Cursor> {
        let plan = unsafe { CursorPlan::from_private((*scan).custom_private)? };
        let mut colocations = Vec::new();
        for relation in &plan.relations {
            colocations.push(catalog::colocation(relation.colocation)?);
        }
        let count = plan.relations.len();
        Ok(Cursor {
            plan,
            colocations,
            places: vec![None; count],
            since: None,
            at: 0,
            found: vec![HashMap::new(); count],
        })
    }

    /// Hands on the next row, or the one before.
    unsafe fn next(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<()> {
        unsafe {
            self.at = pg_sys::GetCurrentSubTransactionId();
            self.since.get_or_insert(self.at);
            self.places.fill(None);
            let child = list::nth::<pg_sys::PlanState>((*node).custom_ps, 0);
            let row = state::exec_child(child);
            if state::is_empty(row) {
                return Ok(());
            }
            state::copy_into_virtual(row, slot);
            for (index, relation) in self.plan.relations.iter().enumerate() {
                let [key, ctid, xmin] = relation.columns;
                let identity = state::value(slot, ctid).zip(state::value(slot, xmin));
                self.places[index] = identity.and_then(|(ctid, xmin)| {
                    Some(Place {
                        group: self.colocations[index].group_for(state::value(slot, key))?,
                        version: version(ctid, xmin),
                    })
                });
            }
            Ok(())
        }
    }

    unsafe fn rescan(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            let child = state::tell_child_changes(node);
            if (*child).chgParam.is_null() {
                pg_sys::ExecReScan(child);
            }
        }
        Ok(())
    }
}

impl Cursor {
    /// Locks the current row and answers its ctid; None: it is deleted, or there is none.
    unsafe fn locate(&mut self, index: usize) -> Result<Option<String>> {
        let Some(place) = self.places[index] else {
            return Ok(None);
        };
        let relation = &self.plan.relations[index];
        let (block, offset, xmin) = place.version;
        let read = self.ask(index, &place, xmin.to_string(), pg_sys::XIDOID)?;
        if read.is_some() {
            let now = unsafe { pg_sys::GetCurrentSubTransactionId() };
            self.found[index].insert(place, now);
            return Ok(read);
        }
        // Only what this transaction has done to a row that it holds can be followed: other versions may be gone, and
        // others be in their places.
        let holds = |subtransaction: Option<pg_sys::SubTransactionId>| {
            // SAFETY: it compares numbers.
            subtransaction.is_some_and(|id| unsafe { pg_sys::SubTransactionIsActive(id) })
        };
        let since_read = relation.locks && holds(self.since) && holds(Some(self.at));
        if !since_read && !holds(self.found[index].get(&place).copied()) {
            return Err(Error::new(
                sqlstate::SERIALIZATION_FAILURE,
                "the row that the cursor is on was changed after it was read",
            )
            .detail(format!("It was row ({block},{offset}) of its shard."))
            .hint("Declare the cursor FOR UPDATE."));
        }
        let group = &self.colocations[index].groups[place.group];
        let node = catalog::node(group.node)?;
        let name = task::render(&relation.name, Some(group.id), &node);
        self.ask(index, &place, name, pg_sys::TEXTOID)
    }

    /// Asks the row's shard for a version of it, by ctid and another value.
    fn ask(
        &self,
        index: usize,
        place: &Place,
        value: String,
        value_type: Oid,
    ) -> Result<Option<String>> {
        let relation = &self.plan.relations[index];
        let group = &self.colocations[index].groups[place.group];
        let template = if value_type == pg_sys::XIDOID {
            &relation.lock
        } else {
            &relation.newest
        };
        let (block, offset, _) = place.version;
        let params = Params {
            types: vec![pg_sys::TIDOID, value_type],
            values: vec![
                Some(format!("({block},{offset})").into_bytes()),
                Some(value.into_bytes()),
            ],
            formats: Vec::new(),
        };
        let request = task::change_in(group, template, params, Format::Text, relation.as_others)?;
        let mut gather = Gather::start(vec![request])?;
        let mut found = None;
        while let Some((_, row)) = gather.next()? {
            let (block, offset, _) = version_of_text(row.get(0), row.get(1))
                .ok_or_else(|| Error::new(sqlstate::PROTOCOL_VIOLATION, "a node sent no ctid"))?;
            found = Some(format!("({block},{offset})"));
        }
        Ok(found)
    }
}

/// The state of an open cursor, and which of its tables this is: what `execCurrentOf` finds out, with its errors.
unsafe fn current<'a>(name: &str, relid: Oid) -> Result<(&'a mut Cursor, usize)> {
    unsafe {
        let invalid = |what: String| {
            Error::new(
                sqlstate::INVALID_CURSOR_STATE,
                format!("cursor \"{name}\" {what}"),
            )
        };
        let c_name = CString::new(name).unwrap_or_default();
        let portal = pg_sys::GetPortalByName(c_name.as_ptr());
        if portal.is_null() {
            return Err(Error::new(
                sqlstate::UNDEFINED_CURSOR,
                format!("cursor \"{name}\" does not exist"),
            ));
        }
        if (*portal).strategy != pg_sys::PortalStrategy::PORTAL_ONE_SELECT {
            return Err(invalid("is not a SELECT query".into()));
        }
        let running = (*portal).queryDesc;
        if running.is_null() || (*running).estate.is_null() {
            return Err(invalid("is held from a previous transaction".into()));
        }
        let (_, table) = crate::deparse::name_of(relid)?;
        let not_updatable = || {
            invalid(format!(
                "is not a simply updatable scan of table \"{table}\""
            ))
        };
        let cursor = of_state((*running).planstate).ok_or_else(not_updatable)?;
        let mut found = cursor
            .plan
            .relations
            .iter()
            .enumerate()
            .filter(|(_, relation)| relation.relid == relid.to_u32());
        let Some((index, _)) = found.next() else {
            let locks = cursor
                .plan
                .relations
                .iter()
                .any(|r: &FollowedRelation| r.locks);
            return Err(if locks {
                invalid(format!(
                    "does not have a FOR UPDATE/SHARE reference to table \"{table}\""
                ))
            } else {
                not_updatable()
            });
        };
        if found.next().is_some() {
            return Err(invalid(format!(
                "has multiple FOR UPDATE/SHARE references to table \"{table}\""
            )));
        }
        if (*portal).atStart || (*portal).atEnd {
            return Err(invalid("is not positioned on a row".into()));
        }
        Ok((cursor, index))
    }
}

unsafe fn of_state<'a>(state: *mut pg_sys::PlanState) -> Option<&'a mut Cursor> {
    unsafe { state::body_of(state) }
}

#[pgrx::pg_schema]
mod shard_ext {
    use super::*;
    use pgrx::pg_extern;

    #[pg_extern(
        sql = "CREATE FUNCTION shard_ext.current_row(cursor_name text, table_oid oid) RETURNS text LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
               COMMENT ON FUNCTION shard_ext.current_row(text, oid) IS 'ctid of the row that a cursor is on, on its shard, where it is locked: for WHERE CURRENT OF';"
    )]
    fn current_row(cursor_name: &str, table_oid: Oid) -> Option<String> {
        // SAFETY: called by the executor.
        let found = unsafe {
            current(cursor_name, table_oid).and_then(|(cursor, index)| cursor.locate(index))
        };
        found.unwrap_or_else(|error| error.raise())
    }

    #[pg_extern(
        sql = "CREATE FUNCTION shard_ext.current_shard_group(cursor_name text, table_oid oid) RETURNS bigint LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
               COMMENT ON FUNCTION shard_ext.current_shard_group(text, oid) IS 'shard group of the row that a cursor is on: for WHERE CURRENT OF';"
    )]
    fn current_shard_group(cursor_name: &str, table_oid: Oid) -> Option<i64> {
        // SAFETY: called by the executor.
        match unsafe { current(cursor_name, table_oid) } {
            Ok((cursor, index)) => {
                cursor.places[index].map(|place| cursor.colocations[index].groups[place.group].id)
            }
            Err(error) => error.raise(),
        }
    }
}
