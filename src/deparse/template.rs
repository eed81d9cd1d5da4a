//! SQL text with holes where tables of ours are named. Plain Rust: it knows nothing of the server.

use serde::{Deserialize, Serialize};

/// The text of a statement, and where in it tables are named.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SqlTemplate {
    text: String,
    /// In order of position, not overlapping.
    holes: Vec<Hole>,
}

/// A name in the text: bytes `start..end` name `schema.name`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    pub start: usize,
    pub end: usize,
    pub schema: String,
    pub name: String,
    pub place: Place,
}

/// Where the named table lives on a node.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the schema of a shard group.
    ShardGroup,
    /// In the schema of the reference tables' copies.
    Reference,
    /// A table of moved rows beside the shard group's; it has no schema here.
    Moved,
}

impl SqlTemplate {
    pub fn new(text: String, mut holes: Vec<Hole>) -> SqlTemplate {
        holes.sort_by_key(|hole| hole.start);
        SqlTemplate { text, holes }
    }

    /// The text with each hole's schema replaced by what `schema` answers, and each table of moved rows by its name and
    /// schema in one.
    pub fn render(&self, mut schema: impl FnMut(&Hole) -> String) -> String {
        let mut sql = String::with_capacity(self.text.len() + self.holes.len() * 16);
        let mut from = 0;
        for hole in &self.holes {
            sql.push_str(&self.text[from..hole.start]);
            if hole.place == Place::Moved {
                sql.push_str(&schema(hole));
            } else {
                sql.push_str(&quote_identifier(&schema(hole)));
                sql.push('.');
                sql.push_str(&quote_identifier(&hole.name));
            }
            from = hole.end;
        }
        sql.push_str(&self.text[from..]);
        sql
    }

    /// Lets the text go on; no table is named in what follows.
    pub fn append(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// The text as written on the coordinator.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Schema and name of the table that is named first: the target of an INSERT.
    pub fn target(&self) -> (&str, &str) {
        self.holes
            .first()
            .map_or(("", ""), |hole| (&hole.schema, &hole.name))
    }

    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }
}

/// An identifier in double quotes.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_and_literals_left_alone() {
        let text = "SELECT 'app.users' FROM app.users JOIN ref.x ON true".to_string();
        let at = text.find("FROM app").unwrap() + 5;
        let rf = text.find("ref.x").unwrap();
        let template = SqlTemplate::new(
            text,
            vec![
                Hole {
                    start: rf,
                    end: rf + 5,
                    schema: "ref".into(),
                    name: "x".into(),
                    place: Place::Reference,
                },
                Hole {
                    start: at,
                    end: at + 9,
                    schema: "app".into(),
                    name: "users".into(),
                    place: Place::ShardGroup,
                },
            ],
        );
        let sql = template.render(|hole| match hole.place {
            Place::ShardGroup => format!("{}_7", hole.schema),
            Place::Reference | Place::Moved => hole.schema.clone(),
        });
        assert_eq!(
            sql,
            "SELECT 'app.users' FROM \"app_7\".\"users\" JOIN \"ref\".\"x\" ON true"
        );
    }

    #[test]
    fn quoting() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
    }
}
