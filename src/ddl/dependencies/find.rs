//! The walk through `pg_depend`: from tables to every object they need, dependencies first.

use super::{create, Object};
use crate::ddl::rebuild::is_immutable;
use crate::error::{Error, Result};
use crate::pg::spi;
use pgrx::pg_sys;
use std::collections::HashSet;

/// Catalog and object id, as the text that queries take.
pub type Address = (String, String);

/// What the table, its indexes, constraints, policies and statistics refer to, outside of the system.
const OF_TABLE: &str = "
WITH part (classid, objid) AS (
    VALUES ('pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, $1::pg_catalog.oid)
    UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, indexrelid
                FROM pg_catalog.pg_index WHERE indrelid = $1::pg_catalog.oid
    UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid
                FROM pg_catalog.pg_constraint WHERE conrelid = $1::pg_catalog.oid AND contype IN ('c', 'p', 'u', 'x')
    UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, oid
                FROM pg_catalog.pg_policy WHERE polrelid = $1::pg_catalog.oid
    UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, oid
                FROM pg_catalog.pg_statistic_ext WHERE stxrelid = $1::pg_catalog.oid
    UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid
                FROM pg_catalog.pg_attrdef d WHERE d.oid = ANY ($2::pg_catalog.oid[])
)
SELECT DISTINCT d.refclassid::pg_catalog.text, d.refobjid::pg_catalog.text, d.refobjid
  FROM part p JOIN pg_catalog.pg_depend d USING (classid, objid)
 WHERE d.refobjid >= 16384 AND d.deptype IN ('n', 'a', 'i')
   AND d.refclassid <> 'pg_catalog.pg_class'::pg_catalog.regclass
   AND d.refclassid <> 'pg_catalog.pg_constraint'::pg_catalog.regclass
 ORDER BY d.refobjid";

/// Default expressions that the shards keep: generated columns, and what is immutable.
const DEFAULTS: &str = "
SELECT d.oid::pg_catalog.text, a.attgenerated::pg_catalog.text, d.adbin::pg_catalog.text
  FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
 WHERE d.adrelid = $1::pg_catalog.oid";

/// What an object refers to. Composite types and domains keep some of it in objects of their own; who names a field of a
/// composite type refers to the relation that has its fields.
const OF_OBJECT: &str = "
WITH part (classid, objid) AS (
    VALUES ($1::pg_catalog.oid, $2::pg_catalog.oid)
    UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, typrelid FROM pg_catalog.pg_type
               WHERE oid = $2::pg_catalog.oid AND typtype = 'c'
                 AND $1::pg_catalog.oid = 'pg_catalog.pg_type'::pg_catalog.regclass
    UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid FROM pg_catalog.pg_constraint
               WHERE contypid = $2::pg_catalog.oid
                 AND $1::pg_catalog.oid = 'pg_catalog.pg_type'::pg_catalog.regclass
), found (class, object) AS (
    SELECT CASE WHEN c.oid IS NULL THEN d.refclassid ELSE 'pg_catalog.pg_type'::pg_catalog.regclass END, coalesce(c.reltype, d.refobjid)
      FROM part p JOIN pg_catalog.pg_depend d USING (classid, objid)
      LEFT JOIN pg_catalog.pg_class c
        ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.refobjid AND c.relkind = 'c'
     WHERE d.refobjid >= 16384 AND d.deptype IN ('n', 'a', 'i')
)
SELECT DISTINCT class::pg_catalog.oid::pg_catalog.text, object::pg_catalog.text, object FROM found
 WHERE NOT (class = $1::pg_catalog.oid AND object = $2::pg_catalog.oid)
 ORDER BY 3";

const EXTENSION_OF: &str = "
SELECT refclassid::pg_catalog.text, refobjid::pg_catalog.text
  FROM pg_catalog.pg_depend
 WHERE classid = $1::pg_catalog.oid AND objid = $2::pg_catalog.oid AND deptype = 'e'";

/// All objects that `tables` need, each after those it needs itself.
pub fn objects_of(tables: &[pg_sys::Oid]) -> Result<Vec<Object>> {
    let mut walk = Walk::default();
    for &table in tables {
        let relid = u32::from(table).to_string();
        let mut defaults = Vec::new();
        for row in spi::query(DEFAULTS, &[Some(&relid)])? {
            if let [Some(oid), generated, Some(tree)] = row.as_slice() {
                if generated.as_deref().is_some_and(|g| !g.is_empty()) || is_immutable(tree) {
                    defaults.push(oid.clone());
                }
            }
        }
        let defaults = format!("{{{}}}", defaults.join(","));
        for row in spi::query(OF_TABLE, &[Some(&relid), Some(&defaults)])? {
            if let [Some(class), Some(object), _] = row.as_slice() {
                walk.visit((class.clone(), object.clone()))?;
            }
        }
    }
    Ok(walk.objects)
}

#[derive(Default)]
struct Walk {
    seen: HashSet<Address>,
    objects: Vec<Object>,
}

impl Walk {
    fn visit(&mut self, address: Address) -> Result<()> {
        if !self.seen.insert(address.clone()) {
            return Ok(());
        }
        let (class, object) = &address;
        let parameters = [Some(class.as_str()), Some(object.as_str())];
        if let Some([Some(class), Some(extension)]) =
            spi::query_one(EXTENSION_OF, &parameters)?.as_deref()
        {
            return self.visit((class.clone(), extension.clone()));
        }
        for row in spi::query(OF_OBJECT, &parameters)? {
            if let [Some(class), Some(object), _] = row.as_slice() {
                self.visit((class.clone(), object.clone()))?;
            }
        }
        if let Some(object) = create::describe(&address)? {
            self.objects.push(object);
        }
        Ok(())
    }
}

/// An error about an object that no node can be given.
pub fn refused(description: &str, way_out: &str) -> Error {
    Error::refused(
        format!("the table depends on {description}, which cannot be created on nodes"),
        way_out,
    )
}
