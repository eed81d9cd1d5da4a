//! Comments on the table and its parts.

use super::{Source, Step};
use crate::ddl::sql::{quote_identifier, quote_literal, Sql};
use crate::error::Result;
use crate::pg::spi;

/// What, name of the part (none for the table), comment.
const COMMENTS: &str = "
SELECT 'TABLE', NULL, d.description, 1 AS part
  FROM pg_catalog.pg_description d
 WHERE d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objoid = $1::pg_catalog.oid AND d.objsubid = 0
UNION ALL
SELECT 'COLUMN', a.attname::pg_catalog.text, d.description, 2
  FROM pg_catalog.pg_description d
  JOIN pg_catalog.pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
 WHERE d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objoid = $1::pg_catalog.oid AND d.objsubid > 0
UNION ALL
SELECT 'CONSTRAINT', k.conname::pg_catalog.text, d.description, 3
  FROM pg_catalog.pg_description d
  JOIN pg_catalog.pg_constraint k ON k.oid = d.objoid
 WHERE d.classoid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.conrelid = $1::pg_catalog.oid
   AND k.contype IN ('c', 'p', 'u', 'x')
UNION ALL
SELECT 'INDEX', c.relname::pg_catalog.text, d.description, 4
  FROM pg_catalog.pg_description d
  JOIN pg_catalog.pg_index i ON i.indexrelid = d.objoid AND i.indisvalid
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
 WHERE d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.indrelid = $1::pg_catalog.oid
UNION ALL
SELECT 'STATISTICS', s.stxname::pg_catalog.text, d.description, 5
  FROM pg_catalog.pg_description d
  JOIN pg_catalog.pg_statistic_ext s ON s.oid = d.objoid
 WHERE d.classoid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND s.stxrelid = $1::pg_catalog.oid
 ORDER BY 4, 2";

pub fn rebuild(source: &Source, steps: &mut Vec<Step>) -> Result<()> {
    for row in spi::query(COMMENTS, &[Some(&source.relid)])? {
        let [Some(kind), name, Some(comment), _] = row.as_slice() else {
            continue;
        };
        let object = match (kind.as_str(), name) {
            ("TABLE", _) => source.table("TABLE "),
            ("COLUMN", Some(name)) => source
                .table("COLUMN ")
                .push(format!(".{}", quote_identifier(name))),
            ("CONSTRAINT", Some(name)) => {
                source.table(&format!("CONSTRAINT {} ON ", quote_identifier(name)))
            }
            (kind, Some(name)) => Sql::text(format!("{kind} ")).relation(source.place, name),
            _ => continue,
        };
        steps.push(Step::Always(
            Sql::text("COMMENT ON ")
                .append(object)
                .push(format!(" IS {}", quote_literal(comment))),
        ));
    }
    Ok(())
}
