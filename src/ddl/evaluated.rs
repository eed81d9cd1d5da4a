//! What the default collation of a database decides is the coordinator's to compute, and so is what a node's version of
//! PostgreSQL computes otherwise. But nodes themselves evaluate CHECK constraints, generated columns and the expressions of
//! unique indexes. A table in which such a one depends on either cannot be on a node that differs there.

use super::checks;
use crate::catalog::{self, NodeId};
use crate::error::{Error, Result};
use crate::pg::spi;
use crate::planner::{function_within, uses_default_collation};
use pgrx::pg_sys;
use std::ffi::CString;

/// What it is, and its expressions: those of the table and of the domains of its columns.
const EXPRESSIONS: &str = "
WITH RECURSIVE domains (oid, base) AS (
  SELECT t.oid, t.typbasetype FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
   WHERE a.attrelid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped AND t.typtype = 'd'
   UNION SELECT t.oid, t.typbasetype FROM domains JOIN pg_catalog.pg_type t ON t.oid = base AND t.typtype = 'd')
SELECT pg_catalog.format('constraint \"%s\"', conname), conbin::pg_catalog.text FROM pg_catalog.pg_constraint
 WHERE conrelid = $1::pg_catalog.oid AND contype = 'c'
UNION ALL
SELECT pg_catalog.format('constraint \"%s\" of domain %s', conname, pg_catalog.format_type(contypid, NULL)), conbin::pg_catalog.text
  FROM pg_catalog.pg_constraint WHERE contypid IN (SELECT oid FROM domains) AND contype = 'c'
UNION ALL
SELECT pg_catalog.format('generated column \"%s\"', a.attname), d.adbin::pg_catalog.text
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = $1::pg_catalog.oid AND a.attgenerated <> ''
UNION ALL
SELECT pg_catalog.format('index \"%s\"', c.relname), e::pg_catalog.text
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid,
       LATERAL (VALUES (i.indexprs), (i.indpred)) expressions (e)
 WHERE i.indrelid = $1::pg_catalog.oid AND (i.indisunique OR i.indisexclusion) AND e IS NOT NULL
 ORDER BY 1";

/// Fails if one of the tables cannot be on one of the nodes.
pub fn check(tables: &[pg_sys::Oid], nodes: &[NodeId]) -> Result<()> {
    for node in nodes {
        let node = catalog::node(*node)?;
        let lacking = &node.lacking.functions;
        if node.same_collation && lacking.is_empty() {
            continue;
        }
        for relid in tables {
            for (what, tree) in expressions(*relid)? {
                // SAFETY: the text is a node tree out of the catalog.
                let (function, collates) = unsafe {
                    let tree: *mut pg_sys::Node = pg_sys::stringToNode(tree.as_ptr()).cast();
                    (
                        function_within(tree, &|function| lacking.contains(&function)),
                        !node.same_collation && uses_default_collation(tree),
                    )
                };
                let refused = |why: String, detail: String, hint: &str| {
                    let table = checks::relation_name(*relid)?;
                    Err(Error::refused(
                        format!(
                            "table \"{table}\" cannot be on node \"{}\", which {why}",
                            node.name
                        ),
                        hint,
                    )
                    .detail(detail))
                };
                if let Some(function) = function {
                    return refused(
                        format!("lacks this server's function {function}"),
                        format!("The node would evaluate {what}, and PostgreSQL {} has no such function or computes it otherwise.", node.major()),
                        "Compute it in the statements that write the table, or use nodes with the version of this server.",
                    );
                }
                if collates {
                    return refused(
                        "has another default collation than this database".to_owned(),
                        format!("The node would evaluate {what}, which depends on the default collation."),
                        "Name a collation in the expression, as in lower(name COLLATE \"C\"), or create the node's database \
                         with the locale and provider of this one.",
                    );
                }
            }
        }
    }
    Ok(())
}

/// What of the table nodes evaluate: what it is, and its node tree.
fn expressions(relid: pg_sys::Oid) -> Result<Vec<(String, CString)>> {
    let oid = u32::from(relid).to_string();
    let mut found = Vec::new();
    for row in spi::query(EXPRESSIONS, &[Some(&oid)])? {
        if let [Some(what), Some(tree)] = row.as_slice() {
            let tree = CString::new(tree.as_str())
                .map_err(|_| Error::internal("an expression with a zero byte"))?;
            found.push((what.clone(), tree));
        }
    }
    Ok(found)
}
