//! Owner and privileges of the table and its columns, for the roles that a node has.

use super::{Source, Step};
use crate::ddl::sql::quote_identifier;
use crate::error::Result;
use crate::pg::spi;

/// Grantee (none: PUBLIC), privileges, columns (none: the table), with grant option.
/// The owner's own are not listed: nothing is ever taken from it on a node. Who may insert some columns may, on a node,
/// insert those with defaults as well: their values are computed here, and sent.
const GRANTS: &str = "
SELECT r.rolname, pg_catalog.string_agg(DISTINCT g.privilege_type, ', ' ORDER BY g.privilege_type), g.attname,
       g.is_grantable::pg_catalog.text
  FROM (SELECT x.*, NULL::pg_catalog.name AS attname, c.relowner
          FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) x
         WHERE c.oid = $1::pg_catalog.oid
        UNION ALL
        SELECT x.*, a.attname, c.relowner
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid,
               pg_catalog.aclexplode(a.attacl) x
         WHERE c.oid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT x.grantor, x.grantee, x.privilege_type, false, d.attname, c.relowner
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
          JOIN pg_catalog.pg_attribute d ON d.attrelid = c.oid,
               pg_catalog.aclexplode(a.attacl) x
         WHERE c.oid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped AND x.privilege_type = 'INSERT'
           AND (d.atthasdef AND d.attgenerated = '' OR d.attidentity <> '')
           AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(d.attacl) own
                            WHERE own.grantee = x.grantee AND own.privilege_type = 'INSERT')) g
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
 WHERE g.grantee <> g.relowner AND (g.grantee = 0 OR r.oid IS NOT NULL)
 GROUP BY r.rolname, g.attname, g.is_grantable
 ORDER BY r.rolname, g.attname NULLS FIRST, g.is_grantable";

pub fn rebuild(source: &Source, steps: &mut Vec<Step>) -> Result<()> {
    grants(source, steps)?;
    let owner = spi::query_one(
        "SELECT pg_catalog.pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid = $1::pg_catalog.oid",
        &[Some(&source.relid)],
    )?;
    if let Some([Some(owner)]) = owner.as_deref() {
        steps.push(Step::ForOwner(
            owner.clone(),
            source
                .alter()
                .push(format!("OWNER TO {}", quote_identifier(owner))),
        ));
    }
    Ok(())
}

fn grants(source: &Source, steps: &mut Vec<Step>) -> Result<()> {
    for row in spi::query(GRANTS, &[Some(&source.relid)])? {
        let [role, Some(privileges), column, Some(grantable)] = row.as_slice() else {
            continue;
        };
        let privileges = match column {
            Some(column) => privileges
                .split(", ")
                .map(|privilege| format!("{privilege} ({})", quote_identifier(column)))
                .collect::<Vec<_>>()
                .join(", "),
            None => privileges.clone(),
        };
        let grantee = role
            .as_deref()
            .map_or_else(|| "PUBLIC".to_owned(), quote_identifier);
        let option = if grantable == "true" {
            " WITH GRANT OPTION"
        } else {
            ""
        };
        let grant = source
            .table(&format!("GRANT {privileges} ON TABLE "))
            .push(format!(" TO {grantee}{option}"));
        steps.push(match role {
            Some(role) => Step::ForRole(role.clone(), grant),
            None => Step::Always(grant),
        });
    }
    Ok(())
}
