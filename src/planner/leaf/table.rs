//! A distributed table that no larger leaf covers is a leaf of its own.

use super::{is_row_identity, reads_row_identity, refused_system_column, BULK_ROWS};
use crate::catalog::{Table, TableKind};
use crate::error::{Error, Result};
use crate::pg::{expr, list, node};
use crate::planner::analysis::Analysis;
use crate::planner::remote::{self, Order};
use crate::planner::route::{self, Route};
use crate::planner::ship;
use pgrx::pg_sys::{self, Node, NodeTag};

/// The leaf of one table: the conditions that PostgreSQL's planner pushed down to it, and the columns it needs.
pub(super) unsafe fn plan_relation(
    scan: *mut pg_sys::CustomScan,
    rel: *mut pg_sys::RelOptInfo,
    rte: *mut pg_sys::RangeTblEntry,
    table: &Table,
    tlist: *mut pg_sys::List,
    clauses: *mut pg_sys::List,
) -> Result<()> {
    unsafe {
        let rti = (*rel).relid as i32;
        let mut kept = Vec::new();
        let mut shipped: *mut Node = std::ptr::null_mut();
        for info in list::iter::<pg_sys::RestrictInfo>(clauses) {
            if (*info).pseudoconstant {
                continue;
            }
            let clause = (*info).clause.cast::<Node>();
            // A condition that might leak rows must not run before those of row-level security.
            let secure =
                (*info).security_level <= (*rel).baserestrict_min_security || (*info).leakproof;
            if secure && clause_ships(clause, rti) {
                let clause = expr::with_collations(expr::renumbered(clause, rti, 1));
                shipped = expr::and(shipped, clause);
            } else {
                kept.push(clause);
            }
        }
        let kept = list::from(kept);
        // A projection put on the scan later sees what the relation was planned to give, not only `tlist`.
        let needed = [
            tlist.cast::<Node>(),
            kept.cast(),
            (*(*rel).reltarget).exprs.cast(),
        ];
        let columns = needed_columns(rti, needed)?;
        let entry: *mut pg_sys::RangeTblEntry = node::copy(rte);
        (*entry).securityQuals = std::ptr::null_mut();
        (*entry).inFromCl = true;
        let query = remote::select_from(entry, shipped, Some(&columns));
        let whole_row = whole_row_needed(rti, needed);
        if whole_row {
            let var = pg_sys::makeWholeRowVar(entry, 1, 0, false);
            let position = columns.len() as i16 + 1;
            (*query).targetList = pg_sys::lappend(
                (*query).targetList,
                pg_sys::makeTargetEntry(var.cast(), position, node::pstrdup("whole_row"), false)
                    .cast(),
            );
        }
        let analysis = Analysis::of(query)?;
        let route = route::route(&analysis)?.unwrap_or(everything(table)?);
        let order = Order::default();
        let mut finished = remote::finish(query, &route, order)?;
        finished.plan.bulk |= finished.plan.params.is_empty()
            && finished.plan.kind == crate::planner::plan::Kind::Scattered
            && (*rel).rows >= BULK_ROWS;
        let mut entries = Vec::new();
        for (index, attno) in columns
            .iter()
            .copied()
            .chain(whole_row.then_some(0))
            .enumerate()
        {
            let var = expr::var(rti, attno, finished.columns[index]);
            entries.push(pg_sys::makeTargetEntry(
                var.cast(),
                index as i16 + 1,
                node::pstrdup(&finished.names[index]),
                false,
            ));
        }
        (*scan).custom_scan_tlist = list::from(entries);
        (*scan).scan.plan.qual = kept;
        (*scan).custom_exprs = list::from(finished.exprs.iter().copied());
        (*scan).custom_private = finished.plan.to_private()?;
        Ok(())
    }
}

fn everything(table: &Table) -> Result<Route> {
    match &table.kind {
        TableKind::Distributed { colocation, .. } => Ok(Route {
            colocation: colocation.clone(),
            prune: crate::planner::plan::Prune::All,
            values: Vec::new(),
            single: false,
        }),
        TableKind::Reference => Err(Error::internal("a reference table is read where it is")),
    }
}

/// Only this relation's columns and parameters, and nothing that must run on the coordinator.
unsafe fn clause_ships(clause: *mut Node, rti: i32) -> bool {
    unsafe {
        let mut foreign = false;
        node::walk(clause, &mut |item, _| {
            let stop = match node::tag(item) {
                NodeTag::T_Var => {
                    (*item.cast::<pg_sys::Var>()).varno != rti
                        || (*item.cast::<pg_sys::Var>()).varlevelsup != 0
                }
                NodeTag::T_SubPlan
                | NodeTag::T_AlternativeSubPlan
                | NodeTag::T_SubLink
                | NodeTag::T_PlaceHolderVar => true,
                NodeTag::T_Param => !matches!(
                    (*item.cast::<pg_sys::Param>()).paramkind,
                    pg_sys::ParamKind::PARAM_EXTERN | pg_sys::ParamKind::PARAM_EXEC
                ),
                _ => false,
            };
            foreign |= stop;
            if stop {
                node::Step::Stop
            } else {
                node::Step::Into
            }
        });
        !foreign && ship::obstacle(clause).is_none() && !mentions_whole_row(clause)
    }
}

unsafe fn mentions_whole_row(tree: *mut Node) -> bool {
    unsafe {
        node::walk(tree, &mut |item, _| match node::cast::<pg_sys::Var>(item) {
            Some(var) if (*var).varattno <= 0 => node::Step::Stop,
            _ => node::Step::Into,
        })
    }
}

unsafe fn needed_columns(rti: i32, trees: [*mut Node; 3]) -> Result<Vec<i16>> {
    unsafe {
        let mut columns = Vec::new();
        let mut system = false;
        for tree in trees {
            node::walk(tree, &mut |item, _| {
                if let Some(var) = node::cast::<pg_sys::Var>(item) {
                    if (*var).varno == rti && (*var).varlevelsup == 0 {
                        let identity = is_row_identity((*var).varattno) && reads_row_identity();
                        system |= (*var).varattno < 0 && !identity;
                        if ((*var).varattno > 0 || identity) && !columns.contains(&(*var).varattno)
                        {
                            columns.push((*var).varattno);
                        }
                    }
                }
                node::Step::Into
            });
        }
        if system {
            return Err(refused_system_column());
        }
        columns.sort_unstable();
        Ok(columns)
    }
}

unsafe fn whole_row_needed(rti: i32, trees: [*mut Node; 3]) -> bool {
    unsafe {
        trees.into_iter().any(|tree| {
            node::walk(tree, &mut |item, _| match node::cast::<pg_sys::Var>(item) {
                Some(var) if (*var).varno == rti && (*var).varattno == 0 => node::Step::Stop,
                _ => node::Step::Into,
            })
        })
    }
}
