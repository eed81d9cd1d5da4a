//! Changes of reference tables. PostgreSQL changes the table here as it would any other, whatever the statement is and
//! reads; a node above its ModifyTable then gives every copy the rows that have changed, as they are here. Rows are found
//! on a copy by their key, or, in a table without one, by all of their values.

use crate::catalog::{self, TableKind};
use crate::deparse::{self, quote_identifier};
use crate::error::{Error, Result};
use crate::pg::{list, node, types};
use crate::planner::apply::{self, Text};
use crate::planner::insert::ArrayColumn;
use crate::planner::plan::{CopiesPlan, CopyStatement, InsertColumn, Private};
use crate::planner::{statement, Planner};
use pgrx::pg_sys::{self, CmdType, Oid, Plan, PlannedStmt, Query};

/// Plans a statement that changes a reference table.
///
/// # Safety
/// As `planner::plan`.
pub unsafe fn plan(query: *mut Query, standard: Planner) -> Result<*mut PlannedStmt> {
    unsafe {
        let planned = super::plan_select(query, standard)?;
        (*planned).planTree = kept_alike(planned, (*planned).planTree)?;
        Ok(planned)
    }
}

/// The same for the WITH clauses of a statement.
///
/// # Safety
/// `planned` is a finished plan that the caller owns.
pub unsafe fn keep_parts_alike(planned: *mut PlannedStmt) -> Result<()> {
    unsafe {
        let parts: Vec<*mut Plan> = list::iter((*planned).subplans).collect();
        for (index, part) in parts.into_iter().enumerate() {
            if !part.is_null() {
                list::set((*planned).subplans, index, kept_alike(planned, part)?);
            }
        }
        Ok(())
    }
}

/// A plan that changes a reference table with the node above it that changes the copies; other plans as they are.
unsafe fn kept_alike(planned: *mut PlannedStmt, plan: *mut Plan) -> Result<*mut Plan> {
    unsafe {
        let Some(modify) = node::cast::<pg_sys::ModifyTable>(plan) else {
            return Ok(plan);
        };
        let relid = result_relid(planned, list::ints((*modify).resultRelations)[0]);
        let table = catalog::table(relid)?;
        if !table.is_some_and(|table| matches!(table.kind, TableKind::Reference)) {
            return Ok(plan);
        }
        let scan = statement::pass_through(planned, plan);
        (*scan).custom_private = copies_plan(planned, modify, relid)?.to_private()?;
        (*scan).methods = crate::executor::copies_methods();
        Ok(scan.cast())
    }
}

unsafe fn result_relid(planned: *mut PlannedStmt, index: i32) -> Oid {
    unsafe { (*list::rt_fetch(index, (*planned).rtable)).relid }
}

unsafe fn copies_plan(
    planned: *mut PlannedStmt,
    modify: *mut pg_sys::ModifyTable,
    relid: Oid,
) -> Result<CopiesPlan> {
    unsafe {
        let set = set_columns(planned, relid);
        let copied = Copied::of(relid);
        let key = copied.key.clone().unwrap_or_default();
        let (mut inserts, mut updates, mut deletes) = (false, false, false);
        match (*modify).operation {
            CmdType::CMD_INSERT => {
                inserts = true;
                updates = (*modify).onConflictAction == pg_sys::OnConflictAction::ONCONFLICT_UPDATE;
            }
            CmdType::CMD_UPDATE => updates = true,
            CmdType::CMD_DELETE => deletes = true,
            _ => {
                let actions = list::nth::<pg_sys::List>((*modify).mergeActionLists, 0);
                for action in list::iter::<pg_sys::MergeAction>(actions) {
                    inserts |= (*action).commandType == CmdType::CMD_INSERT;
                    updates |= (*action).commandType == CmdType::CMD_UPDATE;
                    deletes |= (*action).commandType == CmdType::CMD_DELETE;
                }
            }
        }
        Ok(CopiesPlan {
            keyed: copied.key.is_some(),
            changes_key: set.iter().any(|attno| key.contains(attno)),
            insert: copied.insert()?,
            update: copied.update(&set)?,
            delete: copied.delete()?,
            inserts,
            updates,
            deletes,
        })
    }
}

/// The columns that the parts of a statement set in a table. Parts that change the same table share the rows that have
/// changed.
unsafe fn set_columns(planned: *mut PlannedStmt, relid: Oid) -> Vec<i16> {
    unsafe {
        let mut set = std::ptr::null_mut();
        for rte in list::iter::<pg_sys::RangeTblEntry>((*planned).rtable) {
            if (*rte).relid == relid {
                set = pg_sys::bms_add_members(set, (*rte).updatedCols);
            }
        }
        types::attributes(set)
            .into_iter()
            .filter(|attno| pg_sys::get_attgenerated(relid, *attno) == 0)
            .collect()
    }
}

/// A reference table whose copies are changed.
struct Copied {
    relid: Oid,
    /// Neither dropped nor generated.
    columns: Vec<i16>,
    /// The columns that tell a row from all others.
    key: Option<Vec<i16>>,
}

/// Arrays of columns as parameters, which a statement reads as the rows `v`.
#[derive(Default)]
struct Arrays {
    unnest: Vec<String>,
    names: Vec<String>,
    columns: Vec<InsertColumn>,
}

impl Arrays {
    /// Adds a column of the changed rows; answers its value as an expression.
    unsafe fn add(&mut self, relid: Oid, attno: i16) -> String {
        unsafe {
            let number = self.names.len() as i32 + 1;
            let array = ArrayColumn::of(relid, attno, attno as usize - 1);
            self.unnest.push(array.unnest(number));
            self.names.push(format!("c{number}"));
            self.columns.push(array.column);
            format!("v.c{number}{}", array.cast)
        }
    }

    fn from(&self) -> String {
        format!(
            "ROWS FROM ({}) WITH ORDINALITY AS v({}, n)",
            self.unnest.join(", "),
            self.names.join(", ")
        )
    }
}

impl Copied {
    unsafe fn of(relid: Oid) -> Copied {
        unsafe {
            Copied {
                relid,
                columns: apply::stored_columns(relid),
                key: key_of(relid),
            }
        }
    }

    unsafe fn insert(&self) -> Result<CopyStatement> {
        unsafe {
            let rows: Vec<apply::Assigned> = self
                .columns
                .iter()
                .map(|attno| (*attno, *attno as usize - 1))
                .collect();
            let statement = apply::insert(self.relid, &rows)?;
            Ok(CopyStatement {
                template: statement.template,
                old: Vec::new(),
                new: statement.columns,
            })
        }
    }

    unsafe fn update(&self, set: &[i16]) -> Result<CopyStatement> {
        unsafe {
            let mut arrays = Arrays::default();
            let old = self.old_values(&mut arrays);
            let old_count = arrays.columns.len();
            let mut assigned = Vec::new();
            for attno in set {
                let value = arrays.add(self.relid, *attno);
                assigned.push(format!("{} = {value}", self.column(*attno)));
            }
            if assigned.is_empty() {
                // SET of a generated column to its default
                let Some(any) = self.columns.first() else {
                    return Err(Error::internal("an UPDATE of a table without columns"));
                };
                let column = self.column(*any);
                assigned.push(format!("{column} = t.{column}"));
            }
            let mut text = Text::default();
            let (schema, name) = deparse::name_of(self.relid)?;
            text.push("UPDATE ")
                .table(&schema, &name)
                .push(&format!(" AS t SET {} FROM ", assigned.join(", ")));
            self.match_rows(&mut text, &old, &arrays)?;
            let new = arrays.columns.split_off(old_count);
            Ok(CopyStatement {
                template: text.done(),
                old: arrays.columns,
                new,
            })
        }
    }

    unsafe fn delete(&self) -> Result<CopyStatement> {
        unsafe {
            let mut arrays = Arrays::default();
            let old = self.old_values(&mut arrays);
            let mut text = Text::default();
            let (schema, name) = deparse::name_of(self.relid)?;
            text.push("DELETE FROM ")
                .table(&schema, &name)
                .push(" AS t USING ");
            self.match_rows(&mut text, &old, &arrays)?;
            Ok(CopyStatement {
                template: text.done(),
                old: arrays.columns,
                new: Vec::new(),
            })
        }
    }

    /// What rows are found by, with the values that they had.
    unsafe fn old_values(&self, arrays: &mut Arrays) -> Vec<(i16, String)> {
        unsafe {
            self.key
                .as_ref()
                .unwrap_or(&self.columns)
                .iter()
                .map(|attno| (*attno, arrays.add(self.relid, *attno)))
                .collect()
        }
    }

    /// Ends a statement about `t` with the rows `v` of the arrays, each with one row of the table. Of rows that are
    /// alike in all values, as many are taken as the arrays have.
    unsafe fn match_rows(
        &self,
        text: &mut Text,
        old: &[(i16, String)],
        arrays: &Arrays,
    ) -> Result<()> {
        unsafe {
            if self.key.is_some() {
                let tests: Vec<String> = old
                    .iter()
                    .map(|(attno, value)| format!("t.{} = {value}", self.column(*attno)))
                    .collect();
                text.push(&format!("{} WHERE {}", arrays.from(), tests.join(" AND ")));
                return Ok(());
            }
            let there: Vec<String> = old
                .iter()
                .map(|(attno, _)| format!("o.{}", self.column(*attno)))
                .collect();
            let here: Vec<String> = old.iter().map(|(_, value)| value.clone()).collect();
            let (there, here) = (self.image(&there), self.image(&here));
            let (schema, name) = deparse::name_of(self.relid)?;
            text.push(&format!(
                "(SELECT o.ctid AS place, {there} AS image, \
                 pg_catalog.row_number() OVER (PARTITION BY {there} ORDER BY o.ctid) AS number FROM "
            ))
            .table(&schema, &name)
            .push(&format!(
                " AS o) AS o, (SELECT v.*, {here} AS image, \
                 pg_catalog.row_number() OVER (PARTITION BY {here} ORDER BY v.n) AS number FROM {}) AS v \
                 WHERE t.ctid = o.place AND o.image = v.image AND o.number = v.number",
                arrays.from()
            ));
            Ok(())
        }
    }

    /// The name of a column.
    unsafe fn column(&self, attno: i16) -> String {
        unsafe { quote_identifier(&apply::column_name(self.relid, attno)) }
    }

    /// All values of a row as one that is equal where all are the same.
    fn image(&self, values: &[String]) -> String {
        let row = format!("ROW({})", values.join(", "));
        let binary = self.columns.iter().all(|attno| {
            // SAFETY: a syscache look-up.
            types::binary_is_portable(unsafe { pg_sys::get_atttype(self.relid, *attno) })
        });
        if binary {
            format!("pg_catalog.record_send({row})")
        } else {
            format!("{row}::pg_catalog.text COLLATE \"C\"")
        }
    }
}

/// The columns of the primary key, or of another unique index whose columns are never NULL.
unsafe fn key_of(relid: Oid) -> Option<Vec<i16>> {
    // SAFETY: the planner holds a lock on the relation; what the relcache answers is copied.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(relid);
        if relation.is_null() {
            return None;
        }
        let primary = types::attributes(pg_sys::RelationGetIndexAttrBitmap(
            relation,
            pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_PRIMARY_KEY,
        ));
        let key = if primary.is_empty() {
            list::oids(pg_sys::RelationGetIndexList(relation))
                .into_iter()
                .find_map(|index| unique_columns(relation, index))
        } else {
            Some(primary)
        };
        pg_sys::RelationClose(relation);
        key
    }
}

/// The columns of an index in which no two rows are alike.
unsafe fn unique_columns(relation: pg_sys::Relation, index: Oid) -> Option<Vec<i16>> {
    unsafe {
        let index = pg_sys::RelationIdGetRelation(index);
        if index.is_null() {
            return None;
        }
        let form = (*index).rd_index;
        let whole = (*form).indisunique
            && (*form).indimmediate
            && (*form).indisvalid
            && pg_sys::RelationGetIndexPredicate(index).is_null();
        let columns = (*form)
            .indkey
            .values
            .as_slice((*form).indnkeyatts as usize)
            .to_vec();
        pg_sys::RelationClose(index);
        let never_null = |attno: &i16| {
            let attributes = (*(*relation).rd_att).attrs.as_ptr();
            *attno > 0 && (*attributes.add(*attno as usize - 1)).attnotnull
        };
        (whole && columns.iter().all(never_null)).then_some(columns)
    }
}
