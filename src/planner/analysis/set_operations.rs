//! UNION, INTERSECT and EXCEPT: each arm is a region, and a column of all of them is tied to what it is in each.

use super::ties::{Carries, Edge};
use super::{Analysis, Frame, Level, Point, Region, Requirement};
use crate::error::Result;
use crate::pg::{list, node};
use pgrx::pg_sys::{self, Node, Query, RTEKind};

/// An arm of a set operation.
struct Arm {
    outputs: Vec<Option<Point>>,
    region: Region,
    /// The distribution column of its first table.
    key: Option<Point>,
}

impl Analysis {
    pub(super) unsafe fn visit_set_operation(
        &mut self,
        query: *mut Query,
        id: usize,
        region: Region,
        frames: &mut Vec<Frame>,
        top: bool,
    ) -> Result<Level> {
        unsafe {
            let before = self.distributed.len();
            let mut sharded = Vec::new();
            let mut arms = Vec::new();
            for (index, rte) in list::iter::<pg_sys::RangeTblEntry>((*query).rtable).enumerate() {
                let is_arm = arm_of((*query).setOperations, index as i32 + 1);
                if (*rte).rtekind != RTEKind::RTE_SUBQUERY || !is_arm {
                    continue;
                }
                let first = self.distributed.len();
                let (arm, inner) = self.visit_optional((*rte).subquery, region, frames)?;
                sharded.push(arm.sharded);
                arms.push(Arm {
                    outputs: arm.outputs,
                    region: inner,
                    key: self.distributed.get(first).map(|table| table.key),
                });
            }
            for cte in list::iter::<pg_sys::CommonTableExpr>((*query).cteList) {
                let body = (*cte).ctequery.cast::<Query>();
                if (*body).commandType != pg_sys::CmdType::CMD_SELECT {
                    self.cannot_ship("a data-modifying WITH clause is run by the coordinator");
                }
            }
            let columns = arms.iter().map(|arm| arm.outputs.len()).min().unwrap_or(0);
            let open = frames.last().is_some_and(|f| f.open);
            let carries = if open {
                Carries::Down
            } else {
                Carries::Nothing
            };
            let outputs = (0..columns)
                .map(|column| self.output_of_arms(id, column, &arms, region, carries))
                .collect::<Vec<_>>();
            let any = sharded.iter().any(|s| *s);
            if any && !sharded.iter().all(|s| *s) {
                self.has_other_rows("a set operation mixes distributed and other rows");
            }
            let over_shards = any || self.distributed.len() > before;
            if over_shards
                && (!only_union_all((*query).setOperations) || !(*query).limitCount.is_null())
            {
                let any_of = outputs
                    .iter()
                    .flatten()
                    .copied()
                    .filter(|output| !self.is_null_extended(*output, region))
                    .collect();
                self.requirements.push(Requirement {
                    any_of,
                    reason: "a set operation lacks the distribution column".into(),
                });
                if !(*query).limitCount.is_null() && !top {
                    self.cannot_scatter("a subquery has LIMIT");
                }
            }
            Ok(Level {
                outputs,
                sharded: any,
            })
        }
    }

    /// A column of a set operation. It is tied to the distribution column when it is that in every arm.
    fn output_of_arms(
        &mut self,
        id: usize,
        column: usize,
        arms: &[Arm],
        region: Region,
        carries: Carries,
    ) -> Option<Point> {
        let points = arms
            .iter()
            .map(|arm| arm.outputs[column])
            .collect::<Option<Vec<Point>>>()?;
        let extended = arms
            .iter()
            .zip(&points)
            .any(|(arm, point)| self.is_null_extended(*point, arm.region));
        let keys = arms
            .iter()
            .zip(&points)
            .map(|(arm, point)| arm.key.filter(|key| self.are_tied(*key, *point)))
            .collect::<Option<Vec<Point>>>();
        let region = if extended {
            self.new_region(region)
        } else {
            region
        };
        let output = self.point(id, 0, column as i16 + 1, region);
        for (arm, point) in arms.iter().zip(&points) {
            self.edges.push(Edge {
                a: output,
                b: *point,
                carries,
                region: arm.region,
            });
        }
        if let Some(keys) = keys {
            // Arms that follow different rows outside must not tie these.
            let alike = keys.iter().all(|key| self.are_tied(*key, keys[0]));
            let free = arms
                .iter()
                .zip(&keys)
                .all(|(arm, key)| !self.is_tied_outside(*key, arm.region));
            if alike || free {
                keys.iter().for_each(|key| self.unite(output, *key));
            }
        }
        Some(output)
    }
}

unsafe fn arm_of(operations: *mut Node, rtindex: i32) -> bool {
    unsafe {
        if let Some(reference) = node::cast::<pg_sys::RangeTblRef>(operations) {
            return (*reference).rtindex == rtindex;
        }
        node::cast::<pg_sys::SetOperationStmt>(operations)
            .is_some_and(|set| arm_of((*set).larg, rtindex) || arm_of((*set).rarg, rtindex))
    }
}

unsafe fn only_union_all(operations: *mut Node) -> bool {
    unsafe {
        match node::cast::<pg_sys::SetOperationStmt>(operations) {
            Some(set) => {
                (*set).op == pg_sys::SetOperation::SETOP_UNION
                    && (*set).all
                    && only_union_all((*set).larg)
                    && only_union_all((*set).rarg)
            }
            None => true,
        }
    }
}
