//! Deparses a Query with PostgreSQL's own `pg_get_querydef`, then finds the names of our tables by parsing the
//! text again: the `location` of a RangeVar or TypeName is the byte where the relation is named.

use crate::catalog::{self, TableKind};
use crate::deparse::template::{Hole, Place, SqlTemplate};
use crate::error::{Error, Result};
use crate::pg::node::Step;
use crate::pg::{list, node};
use pgrx::pg_sys::{self, Node};
use std::ffi::{CStr, CString};

/// The template of a Query (the caller's copy: joins in it may be rewritten).
///
/// # Safety
/// `query` is a valid, analysed and rewritten Query.
pub unsafe fn template(query: *mut pg_sys::Query) -> Result<SqlTemplate> {
    unsafe { template_edited(query, Ok) }
}

/// The same, with the deparsed text changed before names are looked for.
///
/// # Safety
/// As `template`.
pub unsafe fn template_edited(
    query: *mut pg_sys::Query,
    edit: impl FnOnce(String) -> Result<String>,
) -> Result<SqlTemplate> {
    unsafe {
        let _settings = Settings::of_text()?;
        super::joins::without_using(query);
        let moved = super::moved::AsNames::of(query);
        let text = edit(on_one_line(&deparse(query)?))?;
        let holes = find_holes(&text, moved.names())?;
        Ok(SqlTemplate::new(text, holes))
    }
}

/// Settings that deparsing and parsing go by, while this lives. The text is read with standard strings, here and on the
/// nodes; newer nodes have keywords that are names here.
struct Settings {
    standard_strings: bool,
    quoted_names: bool,
}

impl Settings {
    fn of_text() -> Result<Settings> {
        let newer = !catalog::nodes_run_at_most(pg_sys::PG_MAJORVERSION_NUM as i32)?;
        // SAFETY: plain variables of this process.
        unsafe {
            let before = Settings {
                standard_strings: pg_sys::standard_conforming_strings,
                quoted_names: pg_sys::quote_all_identifiers,
            };
            pg_sys::standard_conforming_strings = true;
            pg_sys::quote_all_identifiers |= newer;
            Ok(before)
        }
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe {
            pg_sys::standard_conforming_strings = self.standard_strings;
            pg_sys::quote_all_identifiers = self.quoted_names;
        }
    }
}

/// The Query as SQL in which every relation, type and operator outside pg_catalog is schema-qualified.
unsafe fn deparse(query: *mut pg_sys::Query) -> Result<String> {
    // SAFETY: the override stack is popped below, and by the server itself when deparsing fails.
    unsafe {
        let mut path: pg_sys::OverrideSearchPath = std::mem::zeroed();
        path.addCatalog = true;
        qualify_columns(query);
        keep_length_checks(query);
        pg_sys::PushOverrideSearchPath(&mut path);
        let text = pg_sys::pg_get_querydef(query, false);
        pg_sys::PopOverrideSearchPath();
        if text.is_null() {
            return Err(Error::internal("the query could not be deparsed"));
        }
        let owned = CStr::from_ptr(text)
            .to_str()
            .map_err(|_| Error::internal("the database encoding must be UTF8"))?
            .to_owned();
        pg_sys::pfree(text.cast());
        Ok(owned)
    }
}

/// Assignments check the length of a value with functions that look like casts when they are deparsed in a SELECT; a cast
/// would cut the value. They are written as calls.
unsafe fn keep_length_checks(query: *mut pg_sys::Query) {
    const CHECKS: [u32; 4] = [
        pg_sys::F_VARCHAR_VARCHAR_INT4_BOOL,
        pg_sys::F_BPCHAR_BPCHAR_INT4_BOOL,
        pg_sys::F_BIT_BIT_INT4_BOOL,
        pg_sys::F_VARBIT,
    ];
    unsafe {
        if (*query).commandType != pg_sys::CmdType::CMD_SELECT {
            return;
        }
        node::walk(query.cast(), &mut |item, _| {
            if let Some(call) = node::cast::<pg_sys::FuncExpr>(item) {
                if (*call).funcformat == pg_sys::CoercionForm::COERCE_IMPLICIT_CAST
                    && CHECKS.contains(&(*call).funcid.to_u32())
                {
                    (*call).funcformat = pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
                }
            }
            Step::Into
        });
    }
}

unsafe fn find_holes(text: &str, moved: &[String]) -> Result<Vec<Hole>> {
    let c_text =
        CString::new(text).map_err(|_| Error::internal("deparsed text with a NUL byte"))?;
    let mut names: Vec<(usize, String, String)> = Vec::new();
    // SAFETY: the text was deparsed by the server; the raw tree lives in the current memory context.
    unsafe {
        let statements =
            pg_sys::raw_parser(c_text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        for statement in list::iter::<pg_sys::RawStmt>(statements) {
            collect_names((*statement).stmt, &mut names);
        }
        let mut holes = Vec::with_capacity(names.len());
        for (start, schema, name) in names {
            let place = if schema.is_empty() {
                moved.contains(&name).then_some(Place::Moved)
            } else {
                place_of(&schema, &name)?
            };
            if let Some(place) = place {
                let end = start + qualified_name_length(&text[start..]);
                holes.push(Hole {
                    start,
                    end,
                    schema,
                    name,
                    place,
                });
            }
        }
        holes.sort_by_key(|hole| hole.start);
        holes.dedup_by_key(|hole| hole.start);
        Ok(holes)
    }
}

/// `ORDER BY created` means an output column before a table's. PostgreSQL qualifies columns only where a query has
/// several relations: another one, outside of FROM, makes it.
unsafe fn qualify_columns(query: *mut pg_sys::Query) {
    unsafe {
        if (*query).sortClause.is_null() && (*query).distinctClause.is_null()
            || list::len((*query).rtable) != 1
        {
            return;
        }
        let entry = node::make::<pg_sys::RangeTblEntry>();
        (*entry).rtekind = pg_sys::RTEKind::RTE_RESULT;
        let alias = node::make::<pg_sys::Alias>();
        (*alias).aliasname = node::pstrdup("result");
        (*entry).eref = alias;
        (*query).rtable = pg_sys::lappend((*query).rtable, entry.cast());
    }
}

/// The text with every run of white space outside of quotes as one space.
fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let mut quote = None;
    let mut space = false;
    for character in text.chars() {
        match quote {
            Some(mark) => {
                line.push(character);
                if character == mark {
                    quote = None;
                }
            }
            None if character.is_ascii_whitespace() => space = true,
            None => {
                if space && !line.is_empty() {
                    line.push(' ');
                }
                space = false;
                line.push(character);
                if character == '\'' || character == '"' {
                    quote = Some(character);
                }
            }
        }
    }
    line
}

/// Byte where parameter `$number` first stands in a statement.
///
/// # Safety
/// Called inside the server; `text` is a statement that it deparsed.
pub unsafe fn parameter_location(text: &str, number: i32) -> Option<usize> {
    unsafe fn search(raw: *mut Node, number: i32, best: &mut Option<usize>) -> bool {
        unsafe {
            if raw.is_null() {
                return false;
            }
            if node::tag(raw) == pg_sys::NodeTag::T_ParamRef {
                let param = raw.cast::<pg_sys::ParamRef>();
                if (*param).number == number && (*param).location >= 0 {
                    let at = (*param).location as usize;
                    *best = Some(best.map_or(at, |b| b.min(at)));
                }
            }
            node::raw_children(raw, |child| search(child, number, best))
        }
    }
    let c_text = CString::new(text).ok()?;
    let mut best = None;
    unsafe {
        let statements =
            pg_sys::raw_parser(c_text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        for statement in list::iter::<pg_sys::RawStmt>(statements) {
            search((*statement).stmt, number, &mut best);
        }
    }
    best
}

unsafe fn collect_names(raw: *mut Node, names: &mut Vec<(usize, String, String)>) -> bool {
    unsafe {
        if raw.is_null() {
            return false;
        }
        if let Some(relation) = node::cast::<pg_sys::RangeVar>(raw) {
            if (*relation).location >= 0 {
                let schema = if (*relation).schemaname.is_null() {
                    String::new()
                } else {
                    CStr::from_ptr((*relation).schemaname)
                        .to_string_lossy()
                        .into_owned()
                };
                names.push((
                    (*relation).location as usize,
                    schema,
                    CStr::from_ptr((*relation).relname)
                        .to_string_lossy()
                        .into_owned(),
                ));
            }
        } else if let Some(type_name) = node::cast::<pg_sys::TypeName>(raw) {
            // The row type of a table (`whole_row::app.users`) lives beside it.
            if list::len((*type_name).names) == 2 && (*type_name).location >= 0 {
                let part = |i| {
                    let string = list::nth::<pg_sys::String>((*type_name).names, i);
                    CStr::from_ptr((*string).sval)
                        .to_string_lossy()
                        .into_owned()
                };
                names.push(((*type_name).location as usize, part(0), part(1)));
            }
        }
        node::raw_children(raw, |child| collect_names(child, names))
    }
}

/// How a name is placed on the nodes, if it is a table of ours.
fn place_of(schema: &str, name: &str) -> Result<Option<Place>> {
    let (Ok(schema), Ok(name)) = (CString::new(schema), CString::new(name)) else {
        return Ok(None);
    };
    // SAFETY: syscache look-ups by name.
    let relid = unsafe {
        let namespace = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        if namespace == pg_sys::InvalidOid {
            return Ok(None);
        }
        pg_sys::get_relname_relid(name.as_ptr(), namespace)
    };
    if relid == pg_sys::InvalidOid {
        return Ok(None);
    }
    Ok(catalog::table(relid)?.map(|table| match table.kind {
        TableKind::Distributed { .. } => Place::ShardGroup,
        TableKind::Reference => Place::Reference,
    }))
}

/// Schema and name of a relation, as holes have them.
pub fn name_of(relid: pg_sys::Oid) -> Result<(String, String)> {
    // SAFETY: syscache look-ups that answer palloc'ed strings or null.
    unsafe {
        let name = pg_sys::get_rel_name(relid);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relid));
        if name.is_null() || schema.is_null() {
            return Err(Error::internal(format!("relation {relid} has no name")));
        }
        let text = |p| CStr::from_ptr(p).to_string_lossy().into_owned();
        Ok((text(schema), text(name)))
    }
}

/// Length in bytes of the `schema.name` that `text` starts with, each part quoted or not.
pub fn qualified_name_length(text: &str) -> usize {
    let first = identifier_length(text);
    match text.as_bytes().get(first) {
        Some(b'.') => first + 1 + identifier_length(&text[first + 1..]),
        _ => first,
    }
}

fn identifier_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    if bytes.first() == Some(&b'"') {
        let mut at = 1;
        while at < bytes.len() {
            if bytes[at] == b'"' {
                if bytes.get(at + 1) == Some(&b'"') {
                    at += 2;
                    continue;
                }
                return at + 1;
            }
            at += 1;
        }
        return at;
    }
    bytes
        .iter()
        .position(|b| !(b.is_ascii_alphanumeric() || *b == b'_' || *b == b'$' || *b >= 0x80))
        .unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::{on_one_line, qualified_name_length};

    #[test]
    fn white_space_folds_outside_of_quotes_only() {
        assert_eq!(
            on_one_line(" SELECT 1,\n    'a\n  b''  c' AS \"x  y\""),
            "SELECT 1, 'a\n  b''  c' AS \"x  y\""
        );
    }

    #[test]
    fn names_end_where_the_parser_ends_them() {
        assert_eq!(qualified_name_length("app.users u"), 9);
        assert_eq!(qualified_name_length("\"a.\"\"b\".\"t 1\" x"), 13);
        assert_eq!(qualified_name_length("app.users"), 9);
        assert_eq!(qualified_name_length("app.\"é\")"), 8);
    }
}
