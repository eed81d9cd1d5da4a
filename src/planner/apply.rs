//! The statements that change rows of a shard which were read before: by ctid, their values as arrays. And what has to
//! be looked at before a row leaves its shard: the foreign keys that point to it.

use crate::deparse::{self, quote_identifier, Hole, Place, SqlTemplate};
use crate::error::{Error, Result};
use crate::pg::{list, types};
use crate::planner::insert::ArrayColumn;
use crate::planner::plan::{Referenced, RowsStatement};
use pgrx::pg_sys::{self, Oid};
use std::ffi::CStr;

/// A column and where the rows have its new value.
pub type Assigned = (i16, usize);

/// Text in which tables are named.
#[derive(Default)]
pub struct Text {
    text: String,
    holes: Vec<Hole>,
}

impl Text {
    pub fn push(&mut self, text: &str) -> &mut Text {
        self.text.push_str(text);
        self
    }

    /// A table of ours, which has another schema on the nodes.
    pub fn table(&mut self, schema: &str, name: &str) -> &mut Text {
        let start = self.text.len();
        let named = format!("{}.{}", quote_identifier(schema), quote_identifier(name));
        self.text.push_str(&named);
        self.holes.push(Hole {
            start,
            end: self.text.len(),
            schema: schema.to_owned(),
            name: name.to_owned(),
            place: Place::ShardGroup,
        });
        self
    }

    pub fn done(self) -> SqlTemplate {
        SqlTemplate::new(self.text, self.holes)
    }
}

/// `UPDATE t SET … FROM the rows WHERE t.ctid = …`
///
/// # Safety
/// The columns are those of the relation.
pub unsafe fn update(relid: Oid, key: i16, assigned: &[Assigned]) -> Result<RowsStatement> {
    unsafe {
        let (schema, name) = deparse::name_of(relid)?;
        let mut columns = Vec::new();
        let mut sets = Vec::new();
        let mut arrays = vec!["pg_catalog.unnest($1::pg_catalog.tid[])".to_owned()];
        let mut names = vec!["c1".to_owned()];
        for (attno, source) in assigned {
            let number = names.len() as i32 + 1;
            let array = ArrayColumn::of(relid, *attno, *source);
            let column = quote_identifier(&column_name(relid, *attno));
            sets.push(format!("{column} = v.c{number}{}", array.cast));
            arrays.push(array.unnest(number));
            names.push(format!("c{number}"));
            columns.push(array.column);
        }
        if sets.is_empty() {
            // SET of a generated column to its default: the row gets a new version all the same.
            let column = quote_identifier(&column_name(relid, key));
            sets.push(format!("{column} = t.{column}"));
        }
        let mut text = Text::default();
        text.push("UPDATE ").table(&schema, &name).push(&format!(
            " AS t SET {} FROM ROWS FROM ({}) AS v({}) WHERE t.ctid = v.c1",
            sets.join(", "),
            arrays.join(", "),
            names.join(", ")
        ));
        Ok(RowsStatement {
            template: text.done(),
            by_ctid: true,
            columns,
        })
    }
}

/// `DELETE FROM t WHERE ctid = ANY ($1)`
pub fn delete(relid: Oid) -> Result<RowsStatement> {
    let (schema, name) = deparse::name_of(relid)?;
    let mut text = Text::default();
    text.push("DELETE FROM ")
        .table(&schema, &name)
        .push(" WHERE ctid = ANY ($1)");
    Ok(RowsStatement {
        template: text.done(),
        by_ctid: true,
        columns: Vec::new(),
    })
}

/// `INSERT INTO t (…) SELECT … FROM the rows`
///
/// # Safety
/// The columns are those of the relation.
pub unsafe fn insert(relid: Oid, assigned: &[Assigned]) -> Result<RowsStatement> {
    unsafe {
        let (schema, name) = deparse::name_of(relid)?;
        let mut columns = Vec::new();
        let (mut targets, mut values) = (Vec::new(), Vec::new());
        let (mut arrays, mut names) = (Vec::new(), Vec::new());
        for (index, (attno, source)) in assigned.iter().enumerate() {
            let number = index as i32 + 1;
            let array = ArrayColumn::of(relid, *attno, *source);
            targets.push(quote_identifier(&column_name(relid, *attno)));
            values.push(format!("v.c{number}{}", array.cast));
            arrays.push(array.unnest(number));
            names.push(format!("c{number}"));
            columns.push(array.column);
        }
        let mut text = Text::default();
        text.push("INSERT INTO ")
            .table(&schema, &name)
            .push(&format!(
                " ({}) SELECT {} FROM ROWS FROM ({}) WITH ORDINALITY AS v({}, n) ORDER BY v.n",
                targets.join(", "),
                values.join(", "),
                arrays.join(", "),
                names.join(", ")
            ));
        Ok(RowsStatement {
            template: text.done(),
            by_ctid: false,
            columns,
        })
    }
}

/// The name of a column.
///
/// # Safety
/// Called inside the server.
pub unsafe fn column_name(relid: Oid, attno: i16) -> String {
    unsafe {
        CStr::from_ptr(pg_sys::get_attname(relid, attno, false))
            .to_string_lossy()
            .into_owned()
    }
}

/// The columns of a table that can be given values: neither dropped nor generated.
///
/// # Safety
/// Called inside the server.
pub unsafe fn stored_columns(relid: Oid) -> Vec<i16> {
    unsafe {
        (1..=types::column_count(relid))
            .filter(|attno| {
                types::has_column(relid, *attno) && pg_sys::get_attgenerated(relid, *attno) == 0
            })
            .collect()
    }
}

/// The foreign keys for which a row that leaves its shard must not be deleted without a look: DELETE there would do
/// something to the rows that refer to it, or UPDATE of the key here would.
///
/// # Safety
/// Called inside the server.
pub unsafe fn referenced(relid: Oid) -> Result<Vec<Referenced>> {
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(relid);
        if relation.is_null() {
            return Err(Error::internal("a changed table that is gone"));
        }
        let mut found = Vec::new();
        let triggers = (*relation).trigdesc;
        if !triggers.is_null() {
            for index in 0..(*triggers).numtriggers as usize {
                let trigger = &*(*triggers).triggers.add(index);
                let acts = match trigger.tgfoid.to_u32() {
                    pg_sys::F_RI_FKEY_CASCADE_UPD
                    | pg_sys::F_RI_FKEY_SETNULL_UPD
                    | pg_sys::F_RI_FKEY_SETDEFAULT_UPD => Some(true),
                    pg_sys::F_RI_FKEY_CASCADE_DEL
                    | pg_sys::F_RI_FKEY_SETNULL_DEL
                    | pg_sys::F_RI_FKEY_SETDEFAULT_DEL => Some(false),
                    _ => None,
                };
                if let Some(follows) = acts {
                    found.push((trigger.tgconstraint, trigger.tgconstrrelid, follows));
                }
            }
        }
        pg_sys::RelationClose(relation);
        // ON UPDATE decides where both act.
        found.sort_by_key(|(constraint, _, follows)| (constraint.to_u32(), !*follows));
        found.dedup_by_key(|(constraint, _, _)| *constraint);
        found
            .into_iter()
            .map(|(constraint, from, follows)| reference(constraint, from, relid, follows))
            .collect()
    }
}

unsafe fn reference(constraint: Oid, from: Oid, to: Oid, follows: bool) -> Result<Referenced> {
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(from);
        if relation.is_null() {
            return Err(Error::internal("a referring table that is gone"));
        }
        let keys = list::iter::<pg_sys::ForeignKeyCacheInfo>(pg_sys::RelationGetFKeyList(relation))
            .find(|key| (**key).conoid == constraint)
            .map(|key| {
                let key = &*key;
                let count = key.nkeys as usize;
                (key.conkey[..count].to_vec(), key.confkey[..count].to_vec())
            });
        pg_sys::RelationClose(relation);
        let (from_columns, to_columns) =
            keys.ok_or_else(|| Error::internal("a foreign key without columns"))?;
        let (schema, table) = deparse::name_of(from)?;
        let (to_schema, to_table) = deparse::name_of(to)?;
        let names: Vec<String> = to_columns.iter().map(|c| column_name(to, *c)).collect();
        let mut joined: Vec<String> = Vec::new();
        for (referring, name) in from_columns.iter().zip(&names) {
            let referring = quote_identifier(&column_name(from, *referring));
            joined.push(format!("f.{referring} = t.{}", quote_identifier(name)));
        }
        if from == to {
            // Rows that leave together.
            joined.push("f.ctid <> ALL ($1)".to_owned());
        }
        let values: Vec<String> = names
            .iter()
            .map(|name| format!("t.{}::text", quote_identifier(name)))
            .collect();
        let mut text = Text::default();
        text.push(&format!(
            "SELECT pg_catalog.concat_ws(', ', {}) FROM ",
            values.join(", ")
        ))
        .table(&to_schema, &to_table)
        .push(" t JOIN ")
        .table(&schema, &table)
        .push(&format!(
            " f ON {} WHERE t.ctid = ANY ($1) LIMIT 1",
            joined.join(" AND ")
        ));
        let name = pg_sys::get_constraint_name(constraint);
        Ok(Referenced {
            constraint: if name.is_null() {
                String::new()
            } else {
                CStr::from_ptr(name).to_string_lossy().into_owned()
            },
            schema,
            table,
            follows,
            look: text.done(),
            columns: names.join(", "),
        })
    }
}
