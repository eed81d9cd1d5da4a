//! SQL text with holes where a schema is named, so that one text serves every shard group and node.
//!
//! Names inside text that PostgreSQL generated are found by parsing it again: the `location` of each
//! `RangeVar` is the byte where a relation is named. Literals that look like names are never touched.

use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// Where a named relation lives on a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A table of this coordinator schema, in the schema of a shard group.
    Shard(String),
    /// A reference table of this coordinator schema.
    Reference(String),
}

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    Schema(Place),
}

/// SQL with holes for schemas.
#[derive(Debug, Clone, Default)]
pub struct Sql(Vec<Piece>);

impl Sql {
    pub fn text(text: impl Into<String>) -> Sql {
        Sql(vec![Piece::Text(text.into())])
    }

    pub fn push(mut self, text: impl AsRef<str>) -> Sql {
        self.push_str(text.as_ref());
        self
    }

    /// `schema.name`, the schema left open.
    pub fn relation(mut self, place: &Place, name: &str) -> Sql {
        self = self.schema(place);
        self.push_str(".");
        self.push_str(&quote_identifier(name));
        self
    }

    /// The schema alone.
    pub fn schema(mut self, place: &Place) -> Sql {
        self.0.push(Piece::Schema(place.clone()));
        self
    }

    pub fn append(mut self, other: Sql) -> Sql {
        self.0.extend(other.0);
        self
    }

    fn push_str(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.0.push(Piece::Text(text.to_owned())),
        }
    }

    /// Cuts `text` at the relations named at `names` (byte offset, new place).
    fn cut(text: &str, mut names: Vec<(usize, Place, String)>) -> Sql {
        names.sort_by_key(|(at, ..)| *at);
        let mut sql = Sql::default();
        let mut from = 0;
        for (at, place, name) in names {
            if at < from {
                continue;
            }
            sql.push_str(&text[from..at]);
            sql = sql.relation(&place, &name);
            from = at + qualified_name_length(&text[at..]);
        }
        sql.push_str(&text[from..]);
        sql
    }

    /// No holes at all.
    pub fn is_plain(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// The text with every hole filled by `schema`, which gets a place and returns the schema's
    /// (unquoted) name.
    pub fn render(&self, schema: &dyn Fn(&Place) -> String) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Schema(place) => quote_identifier(&schema(place)),
            })
            .collect()
    }
}

/// A relation found in a parsed statement.
pub struct NamedRelation {
    pub schema: Option<String>,
    pub name: String,
}

/// Parses one statement that PostgreSQL generated and gives every relation in it for which `place`
/// knows one a hole. Relations without a schema (those of `pg_catalog`, CTEs) are not asked for.
pub fn template(
    text: &str,
    place: &mut dyn FnMut(&NamedRelation) -> Result<Option<Place>>,
) -> Result<Sql> {
    template_after(text, 0, place)
}

/// The same for text that is a statement only behind a prefix of `skip` bytes, which is left out.
pub fn template_after(
    text: &str,
    skip: usize,
    place: &mut dyn FnMut(&NamedRelation) -> Result<Option<Place>>,
) -> Result<Sql> {
    let mut holes = Vec::new();
    for (location, relation) in relations(text)? {
        if location >= skip && relation.schema.is_some() {
            if let Some(place) = place(&relation)? {
                holes.push((location - skip, place, relation.name));
            }
        }
    }
    Ok(Sql::cut(&text[skip..], holes))
}

/// Every `RangeVar` of the statements in `text`, with the byte where it stands.
pub fn relations(text: &str) -> Result<Vec<(usize, NamedRelation)>> {
    let text = CString::new(text).map_err(|_| Error::internal("a NUL byte in SQL text"))?;
    let mut found = Vec::new();
    // SAFETY: the parser returns a list of RawStmt nodes, allocated in the current context.
    unsafe {
        let list = pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        for statement in elements(list) {
            let raw = statement.cast::<pg_sys::RawStmt>();
            walk_statement((*raw).stmt, &mut found);
        }
    }
    Ok(found)
}

/// SAFETY: `list` is null or a valid list of node pointers.
unsafe fn elements(list: *mut pg_sys::List) -> impl Iterator<Item = *mut pg_sys::Node> {
    let length = if list.is_null() {
        0
    } else {
        (*list).length as usize
    };
    (0..length).map(move |i| (*(*list).elements.add(i)).ptr_value.cast())
}

/// The utility statements this crate generates are not known to `raw_expression_tree_walker`; their
/// relations are taken by hand, and the walker goes into their expressions.
///
/// SAFETY: `node` is null or a valid raw parse node.
unsafe fn walk_statement(node: *mut pg_sys::Node, found: &mut Vec<(usize, NamedRelation)>) {
    if node.is_null() {
        return;
    }
    match (*node).type_ {
        pg_sys::NodeTag::T_AlterTableStmt => {
            let statement = node.cast::<pg_sys::AlterTableStmt>();
            note((*statement).relation, found);
            for command in elements((*statement).cmds) {
                let definition = (*command.cast::<pg_sys::AlterTableCmd>()).def;
                if !definition.is_null() && (*definition).type_ == pg_sys::NodeTag::T_Constraint {
                    note((*definition.cast::<pg_sys::Constraint>()).pktable, found);
                }
            }
        }
        pg_sys::NodeTag::T_IndexStmt => note((*node.cast::<pg_sys::IndexStmt>()).relation, found),
        pg_sys::NodeTag::T_CreateStatsStmt => {
            for relation in elements((*node.cast::<pg_sys::CreateStatsStmt>()).relations) {
                walk_expression(relation, found);
            }
        }
        pg_sys::NodeTag::T_CreatePolicyStmt => {
            let statement = node.cast::<pg_sys::CreatePolicyStmt>();
            note((*statement).table, found);
            walk_expression((*statement).qual, found);
            walk_expression((*statement).with_check, found);
        }
        _ => walk_expression(node, found),
    }
}

unsafe fn walk_expression(node: *mut pg_sys::Node, found: &mut Vec<(usize, NamedRelation)>) {
    walk(node, std::ptr::from_mut(found).cast());
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn walk(node: *mut pg_sys::Node, found: *mut std::ffi::c_void) -> bool {
    if node.is_null() {
        return false;
    }
    if (*node).type_ == pg_sys::NodeTag::T_RangeVar {
        note(
            node.cast(),
            &mut *found.cast::<Vec<(usize, NamedRelation)>>(),
        );
        return false;
    }
    pg_sys::raw_expression_tree_walker(node, Some(walk), found)
}

/// SAFETY: `relation` is null or a valid RangeVar.
unsafe fn note(relation: *mut pg_sys::RangeVar, found: &mut Vec<(usize, NamedRelation)>) {
    if relation.is_null() || (*relation).location < 0 {
        return;
    }
    let string =
        |pointer: *mut std::ffi::c_char| CStr::from_ptr(pointer).to_string_lossy().into_owned();
    found.push((
        (*relation).location as usize,
        NamedRelation {
            schema: (!(*relation).schemaname.is_null()).then(|| string((*relation).schemaname)),
            name: string((*relation).relname),
        },
    ));
}

/// Bytes of the dotted name that `text` begins with.
fn qualified_name_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        if bytes.get(at) == Some(&b'"') {
            at += 1;
            while at < bytes.len() {
                if bytes[at] == b'"' {
                    if bytes.get(at + 1) != Some(&b'"') {
                        break;
                    }
                    at += 1;
                }
                at += 1;
            }
            at = (at + 1).min(bytes.len());
        } else {
            while bytes.get(at).is_some_and(|b| {
                b.is_ascii_alphanumeric() || *b == b'_' || *b == b'$' || *b >= 0x80
            }) {
                at += 1;
            }
        }
        if bytes.get(at) != Some(&b'.') {
            return at;
        }
        at += 1;
    }
}

/// An identifier, always quoted: no list of keywords of another server's version is needed.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub fn quote_qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}

/// A string constant that reads the same with any `standard_conforming_strings`.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_where_the_lexer_ends_them() {
        assert_eq!(qualified_name_length("app.users USING"), 9);
        assert_eq!(qualified_name_length("\"a.\"\"b\".\"C d\"(x)"), 13);
        assert_eq!(qualified_name_length("größe(x)"), "größe".len());
    }

    #[test]
    fn holes_are_filled() {
        let place = Place::Shard("app".into());
        let sql = Sql::cut(
            "CREATE INDEX i ON app.users (a)",
            vec![(18, place, "users".into())],
        );
        assert_eq!(
            sql.render(&|place| match place {
                Place::Shard(schema) => format!("{schema}_1"),
                Place::Reference(schema) => schema.clone(),
            }),
            "CREATE INDEX i ON \"app_1\".\"users\" (a)"
        );
    }

    #[test]
    fn literals_are_quoted() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\b"), "E'a\\\\b'");
    }
}
