//! The items of FROM: tables, joins, subqueries and WITH clauses.

use super::ties::{Carries, Part};
use super::{is_barrier, Analysis, Distributed, Frame, Region};
use crate::catalog::{self, TableKind};
use crate::error::Result;
use crate::pg::{list, node};
use crate::planner::moved;
use pgrx::pg_sys::{self, JoinType, Node, Query, RTEKind};

impl Analysis {
    /// Visits a FROM item; answers whether its rows come from shards.
    pub(super) unsafe fn visit_from(
        &mut self,
        item: *mut Node,
        region: Region,
        frames: &mut Vec<Frame>,
    ) -> Result<bool> {
        unsafe {
            if let Some(reference) = node::cast::<pg_sys::RangeTblRef>(item) {
                return self.visit_entry((*reference).rtindex, region, frames);
            }
            if let Some(from) = node::cast::<pg_sys::FromExpr>(item) {
                let mut sharded = false;
                for child in list::iter::<Node>((*from).fromlist) {
                    sharded |= self.visit_from(child, region, frames)?;
                }
                self.visit_qual((*from).quals, region, frames)?;
                return Ok(sharded);
            }
            if let Some(join) = node::cast::<pg_sys::JoinExpr>(item) {
                return self.visit_join(join, region, frames);
            }
            self.cannot_ship("an unknown kind of FROM item");
            Ok(false)
        }
    }

    unsafe fn visit_join(
        &mut self,
        join: *mut pg_sys::JoinExpr,
        region: Region,
        frames: &mut Vec<Frame>,
    ) -> Result<bool> {
        unsafe {
            let (left_region, right_region, qual_region) = match (*join).jointype {
                JoinType::JOIN_INNER => (region, region, region),
                JoinType::JOIN_LEFT => {
                    let nullable = self.new_region(region);
                    (region, nullable, nullable)
                }
                JoinType::JOIN_RIGHT => {
                    let nullable = self.new_region(region);
                    (nullable, region, nullable)
                }
                _ => {
                    let (left, right) = (self.new_region(region), self.new_region(region));
                    // Facts of a full join's condition say nothing of either side.
                    (left, right, self.new_region(region))
                }
            };
            // The nullable side comes last, so that its scope is open for the condition.
            let (left, right) = match (*join).jointype {
                JoinType::JOIN_INNER | JoinType::JOIN_LEFT => {
                    let left = self.visit_from((*join).larg, left_region, frames)?;
                    if (*join).jointype == JoinType::JOIN_LEFT {
                        self.open_scope(Part::Optional(right_region));
                    }
                    (left, self.visit_from((*join).rarg, right_region, frames)?)
                }
                JoinType::JOIN_RIGHT => {
                    let right = self.visit_from((*join).rarg, right_region, frames)?;
                    self.open_scope(Part::Optional(left_region));
                    (self.visit_from((*join).larg, left_region, frames)?, right)
                }
                _ => {
                    let left = self.visit_sealed((*join).larg, left_region, frames)?;
                    let right = self.visit_sealed((*join).rarg, right_region, frames)?;
                    self.full_joins
                        .insert(qual_region, (left_region, right_region));
                    self.open_scope(Part::Full(left_region, right_region));
                    (left, right)
                }
            };
            self.visit_qual((*join).quals, qual_region, frames)?;
            if (*join).jointype != JoinType::JOIN_INNER {
                self.close_scope();
            }
            let preserved_elsewhere = match (*join).jointype {
                JoinType::JOIN_LEFT => right && !left,
                JoinType::JOIN_RIGHT => left && !right,
                JoinType::JOIN_FULL => left != right,
                _ => false,
            };
            if preserved_elsewhere {
                self.has_other_rows("an outer join keeps rows that are not distributed");
            }
            Ok(left || right)
        }
    }

    /// A side of a full join.
    unsafe fn visit_sealed(
        &mut self,
        item: *mut Node,
        region: Region,
        frames: &mut Vec<Frame>,
    ) -> Result<bool> {
        self.open_scope(Part::Sealed(region));
        let sharded = unsafe { self.visit_from(item, region, frames) };
        self.close_scope();
        sharded
    }

    pub(super) unsafe fn visit_relation(
        &mut self,
        query: *mut Query,
        id: usize,
        rtindex: i32,
        region: Region,
    ) -> Result<bool> {
        unsafe {
            let rte = list::rt_fetch(rtindex, (*query).rtable);
            self.entries.insert((id, rtindex), region);
            match catalog::table((*rte).relid)?.as_deref().map(|t| &t.kind) {
                Some(TableKind::Distributed { key, colocation }) => {
                    let point = self.point(id, rtindex, *key, region);
                    self.distributed.push(Distributed {
                        colocation: colocation.clone(),
                        key: point,
                    });
                    Ok(true)
                }
                Some(TableKind::Reference) => {
                    self.references = true;
                    Ok(false)
                }
                None => {
                    self.cannot_ship("a table that is not distributed is joined");
                    Ok(false)
                }
            }
        }
    }

    unsafe fn visit_entry(
        &mut self,
        rtindex: i32,
        region: Region,
        frames: &mut Vec<Frame>,
    ) -> Result<bool> {
        unsafe {
            let (query, id) = frames
                .last()
                .map(|f| (f.query, f.id))
                .expect("a level is being visited");
            let rte = list::rt_fetch(rtindex, (*query).rtable);
            self.entries.insert((id, rtindex), region);
            match (*rte).rtekind {
                RTEKind::RTE_RELATION => {
                    if !(*rte).tablesample.is_null() {
                        self.cannot_scatter("TABLESAMPLE");
                    }
                    self.visit_relation(query, id, rtindex, region)
                }
                RTEKind::RTE_SUBQUERY => {
                    let carries = Carries::unless(is_barrier((*rte).subquery));
                    let level = self.visit_joined((*rte).subquery, region, frames)?;
                    self.tie_outputs(id, rtindex, &level.outputs, region, carries);
                    Ok(level.sharded)
                }
                RTEKind::RTE_CTE => self.visit_cte(rte, rtindex, region, frames),
                RTEKind::RTE_NAMEDTUPLESTORE => {
                    let Some(moving) = moved::of_entry(rte) else {
                        self.cannot_ship("a transition table is read");
                        return Ok(false);
                    };
                    let mut key = self.point(id, rtindex, moving.key, region);
                    if !moving.is_key {
                        // a column that nothing is said of, since facts would not find the rows
                        let hidden = self.point(id, rtindex, 0, region);
                        self.unite(hidden, key);
                        key = hidden;
                    }
                    self.distributed.push(Distributed {
                        colocation: moving.colocation.clone(),
                        key,
                    });
                    Ok(true)
                }
                RTEKind::RTE_FUNCTION
                | RTEKind::RTE_VALUES
                | RTEKind::RTE_TABLEFUNC
                | RTEKind::RTE_RESULT => {
                    self.visit_sublinks((*rte).functions.cast(), region, frames)?;
                    self.visit_sublinks((*rte).values_lists.cast(), region, frames)?;
                    self.visit_sublinks((*rte).tablefunc.cast(), region, frames)?;
                    Ok(false)
                }
                _ => {
                    self.cannot_ship("an unknown kind of FROM item");
                    Ok(false)
                }
            }
        }
    }

    unsafe fn visit_cte(
        &mut self,
        rte: *mut pg_sys::RangeTblEntry,
        rtindex: i32,
        region: Region,
        frames: &mut Vec<Frame>,
    ) -> Result<bool> {
        unsafe {
            let id = frames.last().map_or(0, |f| f.id);
            let Some(depth) = frames.len().checked_sub(1 + (*rte).ctelevelsup as usize) else {
                self.cannot_ship("a WITH query of an outer level is read");
                return Ok(false);
            };
            let owner = frames[depth].query;
            let name = std::ffi::CStr::from_ptr((*rte).ctename);
            let found = list::iter::<pg_sys::CommonTableExpr>((*owner).cteList)
                .find(|cte| std::ffi::CStr::from_ptr((**cte).ctename) == name);
            let Some(cte) = found else {
                self.cannot_ship("a WITH query of an outer level is read");
                return Ok(false);
            };
            if (*rte).self_reference {
                return Ok(false);
            }
            if (*cte).cterecursive {
                self.cannot_scatter("a recursive query follows rows from shard to shard");
            }
            // A WITH query sees the levels above its owner only; its references see each other's rows, so each
            // visit counts as a use of its tables.
            let below: Vec<Frame> = frames.drain(depth + 1..).collect();
            let body = (*cte).ctequery.cast::<Query>();
            let carries = Carries::unless(is_barrier(body) || (*cte).cterecursive);
            let level = self.visit_joined(body, region, frames);
            frames.extend(below);
            let level = level?;
            self.tie_outputs(id, rtindex, &level.outputs, region, carries);
            Ok(level.sharded)
        }
    }
}
