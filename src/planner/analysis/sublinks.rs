//! Subqueries in expressions.

use super::facts::{equality, same_hash};
use super::ties::{Carries, Part};
use super::{answers_without_rows, is_barrier, Analysis, Frame, Region, Requirement};
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, node};
use pgrx::pg_sys::{self, Node, NodeTag, Query};

impl Analysis {
    /// `column IN (SELECT …)` as a conjunct: a semi-join.
    pub(super) unsafe fn visit_in_subquery(
        &mut self,
        conjunct: *mut Node,
        region: Region,
        frames: &mut Vec<Frame>,
    ) -> Result<bool> {
        unsafe {
            let Some(sublink) = node::cast::<pg_sys::SubLink>(conjunct)
                .filter(|s| (**s).subLinkType == pg_sys::SubLinkType::ANY_SUBLINK)
                .filter(|s| !answers_without_rows((**s).subselect.cast()))
            else {
                return Ok(false);
            };
            let level = self.visit_query((*sublink).subselect.cast(), region, frames, false)?;
            for part in expr::conjuncts((*sublink).testexpr) {
                self.visit_sublinks_of_test(part, region, frames)?;
                let Some((left, right)) = equality(part) else {
                    continue;
                };
                let (outer, inner) =
                    if node::cast::<pg_sys::Param>(expr::strip_relabel(right)).is_some() {
                        (left, right)
                    } else {
                        (right, left)
                    };
                let Some(param) = node::cast::<pg_sys::Param>(expr::strip_relabel(inner)) else {
                    continue;
                };
                let output = level
                    .outputs
                    .get((*param).paramid as usize - 1)
                    .copied()
                    .flatten();
                if let (Some(output), Some(outer_point)) = (output, self.column(outer, frames)) {
                    if same_hash(outer, inner) {
                        self.tie(
                            outer_point,
                            output,
                            Carries::unless(is_barrier((*sublink).subselect.cast())),
                            region,
                        );
                    }
                }
            }
            Ok(true)
        }
    }

    unsafe fn visit_sublinks_of_test(
        &mut self,
        test: *mut Node,
        region: Region,
        frames: &mut Vec<Frame>,
    ) -> Result<()> {
        unsafe { self.visit_sublinks(test, region, frames) }
    }

    /// Sublinks anywhere in an expression: their rows matter only to the row they are evaluated for, so what is
    /// distributed inside must be tied by the sublink's own conditions.
    pub(super) unsafe fn visit_sublinks(
        &mut self,
        tree: *mut Node,
        region: Region,
        frames: &mut Vec<Frame>,
    ) -> Result<()> {
        unsafe {
            let mut sublinks = Vec::new();
            node::walk(tree, &mut |item, _| {
                if let Some(sublink) = node::cast::<pg_sys::SubLink>(item) {
                    sublinks.push(sublink);
                    return Step::Into;
                }
                if node::tag(item) == NodeTag::T_Query {
                    Step::Over
                } else {
                    Step::Into
                }
            });
            for sublink in sublinks {
                let inner = self.new_region(region);
                let query = (*sublink).subselect.cast::<Query>();
                let before = self.requirements.len();
                let id = self.next_level;
                self.next_level += 1;
                frames.push(Frame {
                    id,
                    query,
                    region: inner,
                    correlated: Vec::new(),
                    open: !is_barrier(query),
                });
                self.open_scope(Part::Optional(inner));
                let level = self.visit_level(query, id, inner, frames, true);
                self.close_scope();
                let frame = frames.pop();
                if level?.sharded {
                    self.requirements.insert(
                        before,
                        Requirement {
                            any_of: frame.map(|f| f.correlated).unwrap_or_default(),
                            reason:
                                "a subquery in an expression is not tied to the distribution column"
                                    .into(),
                        },
                    );
                }
            }
            Ok(())
        }
    }
}
