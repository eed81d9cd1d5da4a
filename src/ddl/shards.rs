//! Shards and reference copies on nodes: the SQL that creates them, for every node in one go.

use super::rebuild::{self, NodeRoles, Step, TableDdl, Target};
use super::sql::{quote_identifier, quote_literal, Place, Sql};
use crate::catalog::{self, Node, NodeId, ShardGroup, Table, TableKind};
use crate::error::Result;
use crate::pg::spi;
use crate::remote;
use pgrx::pg_sys;
use std::collections::HashMap;

/// What a relation is on the nodes: none for a local table.
pub fn target_of(relid: pg_sys::Oid) -> Result<Option<Target>> {
    Ok(catalog::table(relid)?.map(|table| match table.kind {
        TableKind::Distributed { .. } => Target::Shard,
        TableKind::Reference => Target::ReferenceCopy,
    }))
}

/// One copy of a table: the shard of a group, or a reference copy on a node.
#[derive(Clone)]
pub struct Copy {
    pub node: NodeId,
    /// None for a reference copy.
    pub group: Option<i64>,
}

impl Copy {
    pub fn shards(groups: &[ShardGroup]) -> Vec<Copy> {
        groups
            .iter()
            .map(|group| Copy {
                node: group.node,
                group: Some(group.id),
            })
            .collect()
    }

    pub fn references(nodes: &[std::rc::Rc<Node>]) -> Vec<Copy> {
        nodes
            .iter()
            .map(|node| Copy {
                node: node.id,
                group: None,
            })
            .collect()
    }

    /// All copies of a distributed or reference table, where they are now.
    pub fn of(table: &Table) -> Result<Vec<Copy>> {
        Ok(match &table.kind {
            TableKind::Distributed { colocation, .. } => Copy::shards(&colocation.groups),
            TableKind::Reference => Copy::references(&catalog::nodes()?),
        })
    }

    /// Fills the holes of SQL for this copy.
    fn schema(&self, node: &Node, place: &Place) -> String {
        match place {
            Place::Shard(schema) => self.schema_of(schema, node),
            Place::Reference(schema) => catalog::reference_schema(schema, node),
        }
    }

    /// The schema on the node that holds this copy of a table of `schema`.
    pub fn schema_of(&self, schema: &str, node: &Node) -> String {
        match self.group {
            Some(group) => catalog::shard_schema(schema, group),
            None => catalog::reference_schema(schema, node),
        }
    }
}

/// The qualified, quoted names of all copies of `relid`, by node; none for a local table.
pub fn on_nodes(relid: pg_sys::Oid) -> Result<Option<Vec<(NodeId, String)>>> {
    let Some(table) = catalog::table(relid)? else {
        return Ok(None);
    };
    let schema = super::checks::schema_name(relid)?;
    let name = super::checks::relation_name(relid)?;
    let mut names = Vec::new();
    for copy in Copy::of(&table)? {
        let node = catalog::node(copy.node)?;
        names.push((
            copy.node,
            super::sql::quote_qualified(&copy.schema_of(&schema, &node), &name),
        ));
    }
    Ok(Some(names))
}

/// Tables and their copies, with what rendering needs to know about each node.
pub struct Builder {
    tables: Vec<TableDdl>,
    schemas: HashMap<String, SchemaSteps>,
    /// Schemas for reference copies that exist on nodes and where the login may grant nothing.
    of_others: Vec<(NodeId, String)>,
    /// Schemas of which the copies' nodes have the counterparts already, from other tables.
    existing: Vec<String>,
    nodes: HashMap<NodeId, (std::rc::Rc<Node>, NodeRoles)>,
}

impl Builder {
    /// Reads the tables and asks the nodes of `copies` which of their roles they have.
    pub fn new(tables: Vec<TableDdl>, copies: &[Copy]) -> Result<Builder> {
        Builder::revoking(tables, copies, &[])
    }

    /// The same; what these (none: PUBLIC) have on the schemas is taken from them first.
    pub fn revoking(
        tables: Vec<TableDdl>,
        copies: &[Copy],
        grantees: &[Option<String>],
    ) -> Result<Builder> {
        let mut schemas = HashMap::new();
        for table in &tables {
            if !schemas.contains_key(&table.schema) {
                schemas.insert(table.schema.clone(), schema_steps(&table.place, grantees)?);
            }
        }
        let mut roles: Vec<String> = tables.iter().flat_map(TableDdl::roles).collect();
        let steps = schemas.values().flat_map(|steps: &SchemaSteps| &steps.ours);
        roles.extend(steps.flat_map(|step| match step {
            Step::ForRole(role, _) | Step::ForOwner(role, _) => vec![role.clone()],
            Step::Always(_) | Step::ForRoles(..) => Vec::new(),
        }));
        roles.sort();
        roles.dedup();
        let mut nodes = HashMap::new();
        let mut of_others = Vec::new();
        for copy in copies {
            if let std::collections::hash_map::Entry::Vacant(entry) = nodes.entry(copy.node) {
                entry.insert((catalog::node(copy.node)?, roles_on(copy.node, &roles)?));
                if copy.group.is_none() {
                    let theirs = schemas_of_others(copy.node, schemas.keys())?;
                    of_others.extend(theirs.into_iter().map(|schema| (copy.node, schema)));
                }
            }
        }
        Ok(Builder {
            tables,
            schemas,
            of_others,
            existing: Vec::new(),
            nodes,
        })
    }

    /// Other tables of the same schemas have copies in the same places.
    pub fn beside(mut self, others: &[pg_sys::Oid]) -> Result<Builder> {
        for relid in others {
            self.existing.push(super::checks::schema_name(*relid)?);
        }
        Ok(self)
    }

    /// Schemas and empty tables.
    pub fn create(&self, copies: &[Copy]) -> Vec<(NodeId, String)> {
        self.for_each(copies, |copy, node, roles| {
            let schema = |place: &Place| copy.schema(node, place);
            let mut text = String::new();
            let mut done = Vec::new();
            for table in &self.tables {
                if !done.contains(&&table.schema) {
                    done.push(&table.schema);
                    text.push_str(&format!(
                        "CREATE SCHEMA IF NOT EXISTS {};\n",
                        quote_identifier(&schema(&table.place))
                    ));
                    // whoever made the schema has granted what is needed
                    if !self.existing.contains(&table.schema) {
                        let steps = self.privileges_on_schema(table, copy, node);
                        text.push_str(&rebuild::render(steps, roles, &schema));
                    }
                }
                text.push_str(&rebuild::render(&table.create, roles, &schema));
            }
            text
        })
    }

    /// Only the privileges on the schemas.
    pub fn grant_schemas(&self, copies: &[Copy]) -> Vec<(NodeId, String)> {
        self.for_each(copies, |copy, node, roles| {
            let schema = |place: &Place| copy.schema(node, place);
            let mut text = String::new();
            for table in &self.tables {
                let steps = self.privileges_on_schema(table, copy, node);
                text.push_str(&rebuild::render(steps, roles, &schema));
            }
            text
        })
    }

    fn privileges_on_schema(&self, table: &TableDdl, copy: &Copy, node: &Node) -> &[Step] {
        let steps = &self.schemas[&table.schema];
        let theirs = || {
            let mut schemas = self.of_others.iter();
            schemas.any(|(id, schema)| *id == node.id && *schema == table.schema)
        };
        if is_ours(copy, node) {
            &steps.ours
        } else if theirs() {
            &[]
        } else {
            &steps.shared
        }
    }

    /// Keys, indexes and the rest, then the foreign keys of all tables, then owners and privileges.
    pub fn complete(&self, copies: &[Copy]) -> Vec<(NodeId, String)> {
        self.for_each(copies, |copy, node, roles| {
            let schema = |place: &Place| copy.schema(node, place);
            let mut text = String::new();
            for table in &self.tables {
                text.push_str(&rebuild::render(&table.after_load, roles, &schema));
            }
            for table in &self.tables {
                text.push_str(&rebuild::render(&table.foreign_keys, roles, &schema));
            }
            for table in &self.tables {
                text.push_str(&rebuild::render(&table.privileges, roles, &schema));
            }
            text
        })
    }

    /// One text per node, in the order of the copies.
    fn for_each(
        &self,
        copies: &[Copy],
        text: impl Fn(&Copy, &Node, &NodeRoles) -> String,
    ) -> Vec<(NodeId, String)> {
        let mut work: Vec<(NodeId, String)> = Vec::new();
        for copy in copies {
            let (node, roles) = &self.nodes[&copy.node];
            let text = text(copy, node, roles);
            match work.iter_mut().find(|(node, _)| *node == copy.node) {
                Some((_, all)) => all.push_str(&text),
                None => work.push((
                    copy.node,
                    format!("SET LOCAL client_min_messages = warning;\n{text}"),
                )),
            }
        }
        work.retain(|(_, text)| !text.is_empty());
        work
    }
}

/// Does the schema of a copy hold nothing but copies?
fn is_ours(copy: &Copy, node: &Node) -> bool {
    copy.group.is_some() || node.is_coordinator
}

/// Privileges on a schema of copies.
struct SchemaSteps {
    /// Of one that holds nothing else: those on the schema of the tables, and whoever becomes the owner of a table must be
    /// allowed to create in it.
    ours: Vec<Step>,
    /// Of one that holds other things, too: what is needed to get at the copies.
    shared: Vec<Step>,
}

fn schema_steps(place: &Place, revoke_from: &[Option<String>]) -> Result<SchemaSteps> {
    let (Place::Shard(schema) | Place::Reference(schema)) = place;
    let rows = spi::query(
        "SELECT r.rolname, pg_catalog.string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type)
           FROM pg_catalog.pg_namespace n
          CROSS JOIN pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) x
           LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
          WHERE n.nspname = $1 AND (x.grantee = 0 OR r.oid IS NOT NULL) AND x.grantee <> n.nspowner
          GROUP BY r.rolname
          ORDER BY r.rolname",
        &[Some(schema)],
    )?;
    let grant = |privileges: &str, role: &str| {
        Sql::text(format!("GRANT {privileges} ON SCHEMA "))
            .schema(place)
            .push(format!(" TO {role}"))
    };
    let to = |role: &Option<String>, privileges: &str| match role {
        Some(role) => Step::ForRole(role.clone(), grant(privileges, &quote_identifier(role))),
        None => Step::Always(grant(privileges, "PUBLIC")),
    };
    let (mut ours, mut shared) = (Vec::new(), Vec::new());
    for grantee in revoke_from {
        let revoke = |privileges: &str, role: &str| {
            Sql::text(format!("REVOKE {privileges} ON SCHEMA "))
                .schema(place)
                .push(format!(" FROM {role}"))
        };
        match grantee {
            Some(role) => {
                let quoted = quote_identifier(role);
                ours.push(Step::ForRole(role.clone(), revoke("ALL", &quoted)));
                shared.push(Step::ForRole(role.clone(), revoke("USAGE", &quoted)));
            }
            // others may rely on it
            None => ours.push(Step::Always(revoke("ALL", "PUBLIC"))),
        }
    }
    for row in rows {
        if let [role, Some(privileges)] = row.as_slice() {
            ours.push(to(role, privileges));
            if privileges.contains("USAGE") {
                shared.push(to(role, "USAGE"));
            }
        }
    }
    let owners = spi::query(
        "SELECT pg_catalog.pg_get_userbyid(n.nspowner), 'true' FROM pg_catalog.pg_namespace n WHERE n.nspname = $1
         UNION
         SELECT pg_catalog.pg_get_userbyid(c.relowner), NULL FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relowner <> n.nspowner
          ORDER BY 1",
        &[Some(schema)],
    )?;
    for row in owners {
        if let [Some(owner), of_schema] = row.as_slice() {
            let sql = grant("USAGE, CREATE", &quote_identifier(owner));
            shared.push(to(&Some(owner.clone()), "USAGE"));
            ours.push(match of_schema {
                // so that GRANT … ON SCHEMA, done by its owner, can be repeated here
                Some(_) => Step::ForRole(owner.clone(), sql.push(" WITH GRANT OPTION")),
                None => Step::ForOwner(owner.clone(), sql),
            });
        }
    }
    Ok(SchemaSteps { ours, shared })
}

/// Which of the schemas exist on a node and belong to somebody for whom the login cannot grant.
fn schemas_of_others<'a>(
    node: NodeId,
    schemas: impl Iterator<Item = &'a String>,
) -> Result<Vec<String>> {
    let names: Vec<String> = schemas.map(|schema| quote_literal(schema)).collect();
    let rows = remote::query(
        node,
        &format!(
            "SELECT nspname FROM pg_catalog.pg_namespace
              WHERE nspname IN ({}) AND NOT pg_catalog.pg_has_role(current_user, nspowner, 'USAGE')",
            names.join(", ")
        ),
        &[],
    )?;
    Ok(rows.into_iter().flatten().flatten().collect())
}

fn roles_on(node: NodeId, roles: &[String]) -> Result<NodeRoles> {
    if roles.is_empty() {
        return Ok(NodeRoles::new());
    }
    let names: Vec<String> = roles.iter().map(|role| quote_literal(role)).collect();
    let rows = remote::query(
        node,
        &format!(
            "SELECT rolname, pg_catalog.pg_has_role(current_user, oid, 'MEMBER')::pg_catalog.text
               FROM pg_catalog.pg_roles WHERE rolname IN ({})",
            names.join(", ")
        ),
        &[],
    )?;
    Ok(rows
        .into_iter()
        .filter_map(|row| match row.as_slice() {
            [Some(role), Some(member)] => Some((role.clone(), member == "true")),
            _ => None,
        })
        .collect())
}
