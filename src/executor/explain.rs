//! What EXPLAIN shows of a custom scan: where it goes, what is sent, what a worker plans, what came back.

use crate::catalog;
use crate::error::Result;
use crate::executor::scan::Scan;
use crate::executor::task::{self, Task, Tasks};
use crate::planner::plan::{CachedPlan, Command, Kind, Prune};
use crate::remote::{Access, Format, Gather, Params, Received, Request, Statement};
use crate::settings;
use pgrx::pg_sys;
use std::ffi::CString;
use std::rc::Rc;

/// Rows and bytes received.
#[derive(Default)]
pub struct Totals {
    pub rows: u64,
    pub bytes: u64,
}

impl Totals {
    pub fn add(&mut self, received: Received) {
        self.rows += received.rows;
        self.bytes += received.bytes;
    }
}

/// Properties of one node of the plan.
pub struct Explainer(pub *mut pg_sys::ExplainState);

impl Explainer {
    pub fn text(&self, label: &str, value: &str) {
        // SAFETY: the ExplainState of the running EXPLAIN; strings are copied.
        unsafe { pg_sys::ExplainPropertyText(c(label).as_ptr(), c(value).as_ptr(), self.0) }
    }

    pub fn integer(&self, label: &str, unit: Option<&str>, value: i64) {
        let unit = unit.map(c);
        // SAFETY: as above.
        unsafe {
            let unit = unit.as_ref().map_or(std::ptr::null(), |u| u.as_ptr());
            pg_sys::ExplainPropertyInteger(c(label).as_ptr(), unit, value, self.0)
        }
    }

    /// Lines of text: one below the other in text format, a list in the others.
    fn lines(&self, label: &str, lines: &[String]) {
        if self.is_text() {
            for line in lines {
                self.text(label, line);
            }
            return;
        }
        // SAFETY: as above; the strings live in the current memory context.
        unsafe {
            let items = crate::pg::list::from(
                lines
                    .iter()
                    .map(|line| crate::pg::node::pstrdup(line))
                    .collect::<Vec<_>>(),
            );
            pg_sys::ExplainPropertyList(c(label).as_ptr(), items, self.0);
        }
    }

    fn is_text(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.0).format == pg_sys::ExplainFormat::EXPLAIN_FORMAT_TEXT }
    }

    fn analyze(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.0).analyze }
    }

    fn verbose(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.0).verbose }
    }

    fn costs(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.0).costs }
    }

    fn group<T>(&self, label: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let name = c(label);
        // SAFETY: as above.
        unsafe {
            pg_sys::ExplainOpenGroup(name.as_ptr(), name.as_ptr(), true, self.0);
            if self.is_text() {
                (*self.0).indent += 1;
            }
            let answer = body();
            if self.is_text() {
                (*self.0).indent -= 1;
            }
            pg_sys::ExplainCloseGroup(name.as_ptr(), name.as_ptr(), true, self.0);
            answer
        }
    }
}

fn c(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

/// EXPLAIN of a remote scan or change.
///
/// # Safety
/// Called by ExplainCustomScan of this scan.
pub unsafe fn remote(
    scan: &mut Scan,
    node: *mut pg_sys::CustomScanState,
    es: *mut pg_sys::ExplainState,
) -> Result<()> {
    let explainer = Explainer(es);
    let plan = scan.plan.clone();
    explainer.text(
        "Kind",
        match (plan.plan.kind, plan.plan.command) {
            (Kind::Routed, Command::Select) => "routed",
            (Kind::Scattered, Command::Select) => "scattered",
            (Kind::Routed, _) => "routed change",
            (Kind::Scattered, _) => "scattered change",
        },
    );
    if !plan.plan.sent.is_empty() {
        explainer.lines("Broadcast", &plan.plan.sent);
    }
    if !plan.plan.reason.is_empty() {
        explainer.text("Reason", &plan.plan.reason);
    }
    // A generic plan's parameters have no values under plain EXPLAIN.
    // SAFETY: the query's executor state.
    let unknown = unsafe { has_unknown_params(node) } || scan.chooses_by_volatile();
    if unknown && scan.tasks.is_none() {
        return unless_executed(&explainer, &plan);
    }
    // SAFETY: `node` is this scan's.
    let (tasks, params) = unsafe { scan.explain(node)? };
    where_to(&explainer, &tasks)?;
    if explainer.analyze() {
        explainer.integer("Rows Received", None, scan.totals.rows as i64);
        explainer.integer("Bytes Received", None, scan.totals.bytes as i64);
        if scan.answers.repeated > 0 {
            explainer.integer("Answers Repeated", None, scan.answers.repeated as i64);
        }
    }
    let params = Rc::new(params);
    let shown = if settings::explain_all_tasks() {
        tasks.tasks.clone()
    } else {
        tasks.sample(&plan)?.into_iter().collect()
    };
    for task in &shown {
        let name = catalog::node(task.node)?.name.clone();
        explainer.group("Task", || {
            explainer.text("Node", &name);
            explainer.text("Remote SQL", &task.sql);
            let lines = worker_plan(task, params.clone(), &explainer)?;
            explainer.lines("Remote Plan", &lines);
            Ok(())
        })?;
    }
    Ok(())
}

/// What is known before the parameters have values.
fn unless_executed(explainer: &Explainer, plan: &CachedPlan) -> Result<()> {
    if plan.plan.prune != Prune::All {
        explainer.text("Shard Groups", "chosen when executed");
        let text = plan.plan.template.text().to_owned();
        explainer.text("Remote SQL", &plan.plan.statement(&[text]));
        return Ok(());
    }
    let tasks = task::plan_tasks(plan, &[])?;
    where_to(explainer, &tasks)?;
    if let Some(task) = tasks.sample(plan)? {
        let name = catalog::node(task.node)?.name.clone();
        explainer.group("Task", || {
            explainer.text("Node", &name);
            explainer.text("Remote SQL", &task.sql);
            Ok(())
        })?;
    }
    Ok(())
}

unsafe fn has_unknown_params(node: *mut pg_sys::CustomScanState) -> bool {
    unsafe {
        let scan = (*node).ss.ps.plan.cast::<pg_sys::CustomScan>();
        let estate = (*node).ss.ps.state;
        let depends = |kind| {
            crate::pg::node::walk((*scan).custom_exprs.cast(), &mut |item, _| {
                match crate::pg::node::cast::<pg_sys::Param>(item) {
                    Some(param) if (*param).paramkind == kind => crate::pg::node::Step::Stop,
                    _ => crate::pg::node::Step::Into,
                }
            })
        };
        depends(pg_sys::ParamKind::PARAM_EXEC)
            || (*estate).es_param_list_info.is_null() && depends(pg_sys::ParamKind::PARAM_EXTERN)
    }
}

/// Shard groups and nodes.
pub fn where_to(explainer: &Explainer, tasks: &Tasks) -> Result<()> {
    explainer.text(
        "Shard Groups",
        &format!(
            "{} of {}",
            tasks.groups.len(),
            tasks.colocation.groups.len()
        ),
    );
    let mut ids: Vec<catalog::NodeId> = tasks.tasks.iter().map(|task| task.node).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut names = Vec::new();
    for id in ids {
        names.push(catalog::node(id)?.name.clone());
    }
    explainer.text("Nodes", &names.join(", "));
    Ok(())
}

/// The worker's own EXPLAIN of a task, line by line.
fn worker_plan(task: &Task, params: Rc<Params>, explainer: &Explainer) -> Result<Vec<String>> {
    let switch = |on: bool| if on { "ON" } else { "OFF" };
    let options = format!(
        "VERBOSE {}, COSTS {}",
        switch(explainer.verbose()),
        switch(explainer.costs())
    );
    let request = Request {
        node: task.node,
        groups: task.groups.clone(),
        access: Access::Read,
        statement: Statement {
            sql: format!("EXPLAIN ({options}) {}", task.sql).into(),
            params,
            results: Format::Text,
            named: false,
        },
        sole: false,
        bulk: false,
        as_others: false,
    };
    let mut gather = Gather::start(vec![request])?;
    let mut lines = Vec::new();
    while let Some((_, row)) = gather.next()? {
        lines.push(String::from_utf8_lossy(row.get(0).unwrap_or_default()).into_owned());
    }
    Ok(lines)
}
