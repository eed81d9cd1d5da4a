//! From a Query to a plan. Comes in: what PostgreSQL's analyser and rewriter made. Goes out: a PlannedStmt whose
//! remote parts are custom scans. A statement is tried as *routed* (whole, one shard group), then rewritten with
//! leaves and given to PostgreSQL's planner. Whoever cannot answer says why; only the last one raises.

mod aggregate;
mod analysis;
mod apply;
mod broadcast;
mod conflict;
mod copies;
mod cursor;
mod decorrelate;
mod early;
mod estimate;
mod externals;
mod gathered;
mod inline;
mod insert;
mod insert_select;
mod leaf;
mod locks;
mod merge;
mod modify;
mod moved;
mod not_in;
mod picked;
mod pieces;
pub mod plan;
mod proposed;
mod pull;
mod reading;
mod remote;
mod repartition;
mod repeated;
pub mod route;
mod rowmarks;
mod ship;
mod split;
mod statement;
mod tableoid;
mod values;
mod whole_rows;
mod wrapped;
mod writing;

use crate::catalog::{self, TableKind};
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{list, node};
use analysis::Analysis;
use pgrx::pg_sys::{self, PlannedStmt, Query, RTEKind};
use remote::Order;

pub use apply::stored_columns;
pub use conflict::{condition_of as conflict_condition, WRITER, WRITTEN_SINCE};
pub use cursor::asks_for_row;
pub use estimate::set_size;
pub use leaf::{column_statistics, set_paths};
pub use remote::SHARDS;
pub use repeated::init;
pub use ship::{function_within, uses_default_collation};
pub use statement::make_scrollable;

/// PostgreSQL's planner, or the next extension's.
pub type Planner<'a> = &'a dyn Fn(*mut Query) -> *mut PlannedStmt;

/// Plans a statement that names tables of ours, with PostgreSQL's options of cursors; None: it names none.
///
/// # Safety
/// `query` is what a planner hook is given; `standard` plans a Query that mentions no distributed table as rows to
/// be scanned.
pub unsafe fn plan(
    query: *mut Query,
    options: i32,
    standard: Planner,
) -> Result<Option<*mut PlannedStmt>> {
    let _in_earnest = estimate::in_earnest();
    unsafe {
        if let Some(statement) = values::plan(query)? {
            return Ok(Some(statement));
        }
        let inlined = inline::Inlined::functions(query);
        let planned = match interest(query)? {
            Interest::None if inlined.is_empty() => None,
            Interest::None => Some(standard(query)),
            Interest::ReferenceOnly => match modify::plan_reference(query, standard)? {
                None if !inlined.is_empty() => Some(standard(query)),
                planned => planned,
            },
            Interest::Distributed => {
                inline::with_queries(query);
                if let Some(statement) = cursor::plan(query, options, standard)? {
                    inlined.note(statement);
                    return Ok(Some(statement));
                }
                let make = |form: *mut Query| plan_form(form, standard);
                match repeated::plan(query, &make) {
                    Some(statement) => Some(statement),
                    None => {
                        let origins = Origins::of(query);
                        let statement = plan_distributed(query, standard)?;
                        origins.note(statement);
                        Some(statement)
                    }
                }
            }
        };
        if let Some(statement) = planned {
            inlined.note(statement);
        }
        Ok(planned)
    }
}

/// The columns of tables that a SELECT shows, as clients are told them. Levels that take the place of others lose them.
struct Origins(Vec<(pg_sys::Oid, i16)>);

impl Origins {
    unsafe fn of(query: *mut Query) -> Origins {
        unsafe {
            if (*query).commandType != pg_sys::CmdType::CMD_SELECT {
                return Origins(Vec::new());
            }
            let shown = list::iter::<pg_sys::TargetEntry>((*query).targetList);
            let origin = |entry: *mut pg_sys::TargetEntry| {
                (!(*entry).resjunk).then(|| ((*entry).resorigtbl, (*entry).resorigcol))
            };
            Origins(shown.filter_map(origin).collect())
        }
    }

    unsafe fn note(&self, statement: *mut PlannedStmt) {
        unsafe {
            let shown = list::iter::<pg_sys::TargetEntry>((*(*statement).planTree).targetlist);
            for (entry, origin) in shown.filter(|entry| !(**entry).resjunk).zip(&self.0) {
                ((*entry).resorigtbl, (*entry).resorigcol) = *origin;
            }
        }
    }
}

/// A statement that may be routed and come again with other constants.
unsafe fn plan_form(query: *mut Query, standard: Planner) -> Result<Option<*mut PlannedStmt>> {
    unsafe {
        tableoid::replace(query)?;
        cursor::replace(query);
        match (*query).commandType {
            pg_sys::CmdType::CMD_SELECT => plan_routed(query),
            pg_sys::CmdType::CMD_INSERT if insert::is_single_row(query) => {
                insert::plan(query, standard).map(Some)
            }
            pg_sys::CmdType::CMD_UPDATE | pg_sys::CmdType::CMD_DELETE => {
                modify::plan(query, standard).map(Some)
            }
            _ => Ok(None),
        }
    }
}

unsafe fn plan_distributed(query: *mut Query, standard: Planner) -> Result<*mut PlannedStmt> {
    unsafe {
        tableoid::replace(query)?;
        cursor::replace(query);
        if (*query).commandType == pg_sys::CmdType::CMD_SELECT {
            if let Some(statement) = plan_routed(query)? {
                return Ok(statement);
            }
        }
        locks::refuse_as_planned(query);
        if writing::concerns(query)? {
            return writing::plan(query, standard, plan_rest);
        }
        plan_rest(query, standard)
    }
}

/// What is neither routed nor changes tables of ours in WITH clauses.
unsafe fn plan_rest(query: *mut Query, standard: Planner) -> Result<*mut PlannedStmt> {
    unsafe {
        match (*query).commandType {
            pg_sys::CmdType::CMD_SELECT => plan_select(query, standard),
            pg_sys::CmdType::CMD_INSERT => insert::plan(query, standard),
            _ => modify::plan(query, standard),
        }
    }
}

/// The whole SELECT on one shard group.
unsafe fn plan_routed(query: *mut Query) -> Result<Option<*mut PlannedStmt>> {
    unsafe {
        let analysis = Analysis::of(query)?;
        if analysis.local.is_some() {
            return Ok(None);
        }
        let Some(route) = route::route(&analysis)? else {
            return Ok(None);
        };
        if !route.single
            || route.colocation.groups.is_empty()
            || ship::obstacle_to_routing(query.cast()).is_some()
            || !is_readable(query)
        {
            return Ok(None);
        }
        let copy = node::copy(query);
        let order = Order::default();
        let remote = remote::finish(copy, &route, order)?;
        let statement = statement::planned(query, remote, None)?;
        if let Some(mark) = list::iter::<pg_sys::RowMarkClause>((*query).rowMarks).next() {
            statement::note_lock(statement, (*mark).strength);
        }
        Ok(Some(statement))
    }
}

unsafe fn is_readable(query: *mut Query) -> bool {
    unsafe {
        list::iter::<pg_sys::TargetEntry>((*query).targetList)
            .filter(|entry| !(**entry).resjunk)
            .all(|entry| ship::readable_type(pg_sys::exprType((*entry).expr.cast())).is_ok())
    }
}

/// A SELECT as a coordinator query over leaves.
///
/// # Safety
/// As `plan`.
pub unsafe fn plan_select(query: *mut Query, standard: Planner) -> Result<*mut PlannedStmt> {
    unsafe {
        let session = leaf::Session::start(query);
        split::transform(query)?;
        let statement = standard(query);
        statement::add_relations(statement, &session.relations());
        if let Some(strength) = session.lock_strength() {
            statement::note_lock(statement, strength);
        }
        Ok(statement)
    }
}

enum Interest {
    None,
    ReferenceOnly,
    Distributed,
}

/// Which tables of ours a statement names, at any depth. Rows that were moved count as distributed.
unsafe fn interest(query: *mut Query) -> Result<Interest> {
    let mut answer = Interest::None;
    let mut failure = None;
    unsafe {
        node::walk(query.cast(), &mut |item, _| {
            let Some(level) = node::cast::<Query>(item) else {
                return Step::Into;
            };
            for rte in list::iter::<pg_sys::RangeTblEntry>((*level).rtable) {
                if moved::of_entry(rte).is_some() {
                    answer = Interest::Distributed;
                    return Step::Stop;
                }
                if (*rte).rtekind != RTEKind::RTE_RELATION {
                    continue;
                }
                match catalog::table((*rte).relid) {
                    Ok(None) => {}
                    Ok(Some(table)) => match table.kind {
                        TableKind::Distributed { .. } => {
                            answer = Interest::Distributed;
                            return Step::Stop;
                        }
                        TableKind::Reference => answer = Interest::ReferenceOnly,
                    },
                    Err(error) => {
                        failure = Some(error);
                        return Step::Stop;
                    }
                }
            }
            Step::Into
        });
    }
    failure.map_or(Ok(answer), Err)
}

/// Does the tree name a distributed table?
unsafe fn mentions_distributed(query: *mut Query) -> bool {
    matches!(unsafe { interest(query) }, Ok(Interest::Distributed))
}

fn is_distributed(relid: pg_sys::Oid) -> bool {
    let table = catalog::table(relid).ok().flatten();
    table.is_some_and(|table| matches!(table.kind, TableKind::Distributed { .. }))
}
