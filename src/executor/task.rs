//! From a plan and the values of its parameters to requests: which shard groups, on which nodes, with what text.

use crate::catalog::{self, Colocation, NodeId, ShardGroup, ShardGroupId};
use crate::deparse::{quote_identifier, Place, SqlTemplate};
use crate::error::Result;
use crate::executor::moved::{self, Moved};
use crate::planner::plan::{CachedPlan, Command, Kind, RemotePlan};
use crate::planner::route;
use crate::remote::{Access, Format, Params, Request, Statement};
use crate::transaction::moves::Watch;
use crate::{settings, transaction};
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

/// A statement for one node, before it has parameters.
#[derive(Clone)]
pub struct Task {
    pub node: catalog::NodeId,
    pub groups: Rc<[ShardGroupId]>,
    pub sql: Rc<str>,
}

/// The tasks of an execution, and how many shard groups there are to choose from.
pub struct Tasks {
    pub tasks: Vec<Task>,
    /// The shard groups chosen, as indexes of the colocation group's.
    pub groups: Vec<usize>,
    pub colocation: Rc<Colocation>,
    moved: Tables,
}

impl Tasks {
    /// Looks out for rows of these tables that move between the shard groups, from now on.
    pub fn watch(&self, tables: &[u32]) -> Result<Option<Watch>> {
        if tables.is_empty() {
            return Ok(None);
        }
        let group = |index: &usize| &self.colocation.groups[*index];
        let groups: Vec<&ShardGroup> = self.groups.iter().map(group).collect();
        let watched: Vec<_> = tables
            .iter()
            .map(|table| (*table, groups.clone()))
            .collect();
        Watch::start(&watched)
    }

    /// The first shard group's task alone, for EXPLAIN.
    pub fn sample(&self, plan: &CachedPlan) -> Result<Option<Task>> {
        match self.groups.first() {
            Some(first) => Ok(per_group(plan, &self.colocation, &[*first], &self.moved)?.pop()),
            None => Ok(None),
        }
    }
}

/// Chooses shard groups by the values (numbered as `custom_exprs`) and makes a task per node or per shard group.
pub fn plan_tasks(plan: &CachedPlan, values: &[(Oid, Option<Datum>)]) -> Result<Tasks> {
    let colocation = catalog::colocation(plan.plan.colocation)?;
    let mut chosen = route::groups(&colocation, &plan.plan.prune, values);
    if plan.plan.command == Command::Insert {
        require_shard(&colocation, &chosen, plan, values)?;
    } else if plan.plan.kind == Kind::Routed && chosen.is_empty() {
        // No row can match; any shard group gives the right empty answer (count(*) still has a row).
        chosen.push(0);
    }
    let several = plan.plan.command == Command::Select && chosen.len() > 1;
    let moved = Tables::of(&plan.plan, values)?;
    let tasks = if several {
        per_node(plan, &colocation, &chosen, &moved)?
    } else {
        per_group(plan, &colocation, &chosen, &moved)?
    };
    Ok(Tasks {
        tasks,
        groups: chosen,
        colocation,
        moved,
    })
}

fn require_shard(
    colocation: &Colocation,
    chosen: &[usize],
    plan: &CachedPlan,
    values: &[(Oid, Option<Datum>)],
) -> Result<()> {
    if !chosen.is_empty() {
        return Ok(());
    }
    let (schema, table) = plan.plan.template.target();
    let value = match plan.plan.prune {
        crate::planner::plan::Prune::Key(i) => values[i].1,
        _ => None,
    };
    Err(catalog::no_shard(colocation, schema, table, value))
}

/// Do all nodes with shard groups of a plan write values as texts as this server does? Other major versions differ in some.
pub fn nodes_write_alike(plan: &CachedPlan) -> Result<bool> {
    let colocation = catalog::colocation(plan.plan.colocation)?;
    let nodes: BTreeSet<_> = colocation.groups.iter().map(|group| group.node).collect();
    for node in nodes {
        if catalog::node(node)?.major() != pg_sys::PG_MAJORVERSION_NUM as i32 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The text of a template for a shard group of a node.
pub fn render(template: &SqlTemplate, group: Option<ShardGroupId>, node: &catalog::Node) -> String {
    render_with(template, group, node, &Tables::default())
}

/// The tables of moved rows, by their names in the template.
#[derive(Default)]
struct Tables(Vec<(String, Rc<Moved>)>);

impl Tables {
    /// Those that the values of a plan name by their handles. None while the plan is only explained.
    fn of(plan: &RemotePlan, values: &[(Oid, Option<Datum>)]) -> Result<Tables> {
        let mut tables = Vec::new();
        for moved in &plan.moved {
            if let Some((_, Some(handle))) = values.get(moved.handle) {
                tables.push((moved.name.clone(), moved::of_handle(handle.value() as i32)?));
            }
        }
        Ok(Tables(tables))
    }

    fn name(&self, name: &str, group: ShardGroupId) -> String {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, moved)) => moved.table(group),
            None => quote_identifier(name),
        }
    }
}

fn render_with(
    template: &SqlTemplate,
    group: Option<ShardGroupId>,
    node: &catalog::Node,
    tables: &Tables,
) -> String {
    template.render(|hole| match (hole.place, group) {
        (Place::ShardGroup, Some(group)) => catalog::shard_schema(&hole.schema, group),
        (Place::Moved, Some(group)) => tables.name(&hole.name, group),
        _ => catalog::reference_schema(&hole.schema, node),
    })
}

fn per_group(
    plan: &CachedPlan,
    colocation: &Colocation,
    chosen: &[usize],
    moved: &Tables,
) -> Result<Vec<Task>> {
    chosen
        .iter()
        .map(|index| {
            let group = &colocation.groups[*index];
            let groups: Rc<[ShardGroupId]> = Rc::new([group.id]);
            let sql = cached(plan, group.node, &groups, |node| {
                let arm = render_with(&plan.plan.template, Some(group.id), node, moved);
                plan.plan.statement(&[arm])
            })?;
            Ok(Task {
                node: group.node,
                groups,
                sql,
            })
        })
        .collect()
}

/// One statement per node that appends its shard groups' rows: fewer messages, parses and plans than one each.
fn per_node(
    plan: &CachedPlan,
    colocation: &Colocation,
    chosen: &[usize],
    moved: &Tables,
) -> Result<Vec<Task>> {
    let mut by_node: BTreeMap<catalog::NodeId, Vec<ShardGroupId>> = BTreeMap::new();
    for index in chosen {
        let group = &colocation.groups[*index];
        by_node.entry(group.node).or_default().push(group.id);
    }
    let mut tasks = Vec::new();
    for (node, groups) in by_node {
        for part in groups.chunks(settings::shard_groups_per_statement()) {
            let groups: Rc<[ShardGroupId]> = part.into();
            let sql = cached(plan, node, &groups, |node| {
                let arms: Vec<String> = part
                    .iter()
                    .map(|group| render_with(&plan.plan.template, Some(*group), node, moved))
                    .collect();
                plan.plan.statement(&arms)
            })?;
            tasks.push(Task { node, groups, sql });
        }
    }
    Ok(tasks)
}

/// The text for some shard groups of a node, made once per plan.
fn cached(
    plan: &CachedPlan,
    node: catalog::NodeId,
    groups: &[ShardGroupId],
    make: impl FnOnce(&catalog::Node) -> String,
) -> Result<Rc<str>> {
    let mut key = Vec::with_capacity(groups.len() + 1);
    key.push(i64::from(node));
    key.extend_from_slice(groups);
    if !plan.plan.moved.is_empty() {
        // the tables have other names next time
        return Ok(make(&*catalog::node(node)?).into());
    }
    if let Some(text) = plan.texts.borrow().get(&key) {
        return Ok(text.clone());
    }
    let text = shared_text(make(&*catalog::node(node)?));
    plan.texts.borrow_mut().insert(key, text.clone());
    Ok(text)
}

thread_local! {
    /// Texts seen before in this session, so that a statement planned anew finds its prepared statement.
    static SEEN: RefCell<HashMap<Rc<str>, u32>> = RefCell::new(HashMap::new());
}

const SEEN_TEXTS: usize = 4096;

/// One `Rc` per text.
pub fn shared_text(text: String) -> Rc<str> {
    SEEN.with(|seen| {
        let mut seen = seen.borrow_mut();
        if let Some((known, _)) = seen.get_key_value(text.as_str()) {
            return known.clone();
        }
        if seen.len() >= SEEN_TEXTS {
            seen.clear();
        }
        let text: Rc<str> = text.into();
        seen.insert(text.clone(), 0);
        text
    })
}

/// A text that comes again is worth a prepared statement.
pub fn seen_before(text: &Rc<str>) -> bool {
    SEEN.with(|seen| match seen.borrow_mut().get_mut(text) {
        Some(count) => {
            *count = count.saturating_add(1);
            *count > 1
        }
        None => false,
    })
}

/// A change of rows of a shard group.
pub fn change_in(
    group: &ShardGroup,
    template: &SqlTemplate,
    params: Params,
    results: Format,
    as_others: bool,
) -> Result<Request> {
    let params = Rc::new(params);
    change(
        template,
        group.node,
        Some(group.id),
        params,
        results,
        as_others,
    )
}

/// A change of rows of a shard group on a node (none: of a reference copy there).
pub fn change(
    template: &SqlTemplate,
    node: NodeId,
    group: Option<ShardGroupId>,
    params: Rc<Params>,
    results: Format,
    as_others: bool,
) -> Result<Request> {
    let sql = shared_text(render(template, group, &*catalog::node(node)?));
    Ok(Request {
        node,
        groups: group.into_iter().collect(),
        access: Access::Write,
        statement: Statement {
            named: seen_before(&sql),
            sql,
            params,
            results,
        },
        sole: false,
        bulk: false,
        as_others,
    })
}

/// The requests of tasks that share parameters.
///
/// `statement` is the plan of the user's statement when the tasks are all that it does remotely.
pub fn requests(
    tasks: &[Task],
    params: Rc<Params>,
    plan: &RemotePlan,
    results: Format,
    statement: *const pgrx::pg_sys::PlannedStmt,
) -> Vec<Request> {
    let writes = plan.writes;
    // what watches over several shard groups may find out at the end that the change has missed rows
    let autocommit = (!writes || matches!(tasks, [task] if task.groups.len() < 2))
        && !statement.is_null()
        && transaction::may_autocommit(statement);
    tasks
        .iter()
        .map(|task| Request {
            node: task.node,
            groups: task.groups.clone(),
            access: if writes { Access::Write } else { Access::Read },
            statement: Statement {
                sql: task.sql.clone(),
                params: params.clone(),
                results,
                named: seen_before(&task.sql),
            },
            sole: autocommit,
            bulk: plan.bulk,
            as_others: plan.as_others,
        })
        .collect()
}
