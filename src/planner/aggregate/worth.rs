//! Is it worth it that nodes group? Where nearly every row is a group of its own, it costs them much and saves nothing.

use crate::planner::estimate;
use crate::planner::remote::Remote;
use crate::planner::route::Route;

/// Fewer rows are grouped in no time.
const FEW_ROWS: f64 = 20_000.0;

/// So many groups for each row that comes in, and rows are sent instead.
const NOTHING_SAVED: f64 = 0.6;

/// So many, and parallel workers on a node would send each other more than they save.
const MANY: f64 = 0.02;

pub enum Worth {
    Nothing,
    Groups { many: bool },
}

/// By PostgreSQL's estimates for the groups of all shards.
///
/// # Safety
/// `remote` is of an aggregating level, made for `route`.
pub unsafe fn of(remote: &Remote, route: &Route) -> Worth {
    if remote.plan.over.is_none() {
        return Worth::Groups { many: false };
    }
    // SAFETY: the leaf's query stands for itself.
    let (rows, groups) = unsafe { estimate::grouping_of(remote.query) };
    if rows < FEW_ROWS {
        return Worth::Groups { many: false };
    }
    let share = share(rows, groups, estimate::node_count(&route.colocation));
    if share > NOTHING_SAVED {
        Worth::Nothing
    } else {
        Worth::Groups { many: share > MANY }
    }
}

/// Do nodes that group so many rows, of which there are so many groups in all, send less than half?
pub fn saves_half(rows: f64, groups: f64, nodes: f64) -> bool {
    rows >= FEW_ROWS && share(rows, groups, nodes) < 0.5
}

/// For each row that the nodes group, how many groups they send.
fn share(rows: f64, groups: f64, nodes: f64) -> f64 {
    groups_among(rows / nodes, groups) * nodes / rows
}

/// How many of `all` groups are met among so many rows, if groups are of one size.
fn groups_among(rows: f64, all: f64) -> f64 {
    if all < 1.0 {
        return 1.0;
    }
    (all * (1.0 - (1.0 - 1.0 / all).powf(rows))).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::{groups_among, saves_half};

    #[test]
    fn groups_of_a_sample() {
        assert!((groups_among(1000.0, 10.0) - 10.0).abs() < 1e-6);
        assert!((groups_among(500.0, 1e6) - 500.0).abs() < 1.0);
        assert_eq!(groups_among(5.0, 0.0), 1.0);
        assert_eq!(groups_among(5.0, 1.0), 1.0);
    }

    #[test]
    fn rows_that_groups_replace() {
        assert!(saves_half(300_000.0, 20_000.0, 2.0));
        assert!(!saves_half(300_000.0, 200_000.0, 2.0));
        assert!(!saves_half(1000.0, 10.0, 2.0));
    }
}
