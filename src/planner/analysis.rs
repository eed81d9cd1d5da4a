//! Which shard groups a query needs, and whether it may run whole on each of them.
//!
//! One walk over the query tree builds a graph. Its points are columns of range table entries (and outputs of set
//! operations); an edge ties two columns that are equal in every row that matters; a fact says what a column is
//! compared with. A *region* is the part of a query whose conditions say nothing about rows outside: the nullable
//! side of an outer join, a sublink, an arm of a set operation. Facts flow along edges, but never out of their
//! region; what is tied, and how facts flow, is in `ties`.
//!
//! - *routed*: facts pin the distribution column of every distributed table to the same value;
//! - *tied*: the distribution columns of all of them are connected, and every level below keeps the key.

mod facts;
mod from;
mod set_operations;
mod sublinks;
mod ties;

use crate::catalog::{self, Colocation, TableKind};
use crate::error::Result;
use crate::pg::{expr, list, node};
use crate::planner::ship::Reason;
use facts::{equality, is_free};
pub use facts::{is_equality_operator, same_hash, Fact};
use pgrx::pg_sys::{self, Node, Query, RTEKind};
use std::collections::HashMap;
use std::rc::Rc;
use ties::{Carries, Edge, Part, Scope};

type Point = usize;
type Region = usize;

/// A distributed table where the query names it.
pub struct Distributed {
    pub colocation: Rc<Colocation>,
    pub key: Point,
}

struct Requirement {
    /// One of these columns must be tied to the distribution columns.
    any_of: Vec<Point>,
    reason: Reason,
}

/// What a level looks like from outside.
struct Level {
    outputs: Vec<Option<Point>>,
    sharded: bool,
}

struct Frame {
    id: usize,
    query: *mut Query,
    region: Region,
    /// Points of this level tied to a level above by its own conditions.
    correlated: Vec<Point>,
    /// False where facts from above must not enter.
    open: bool,
}

#[derive(Default)]
pub struct Analysis {
    points: HashMap<(usize, i32, i16), Point>,
    region_of: Vec<Region>,
    /// The regions of range table entries, by level.
    entries: HashMap<(usize, i32), Region>,
    edges: Vec<Edge>,
    /// A union-find over points, and the parts of the query that are being visited.
    tied: Vec<Point>,
    scopes: Vec<Scope>,
    /// The two sides, by the region of the condition.
    full_joins: HashMap<Region, (Region, Region)>,
    facts: Vec<(Point, Region, Fact)>,
    parent: Vec<Option<Region>>,
    requirements: Vec<Requirement>,
    pub distributed: Vec<Distributed>,
    /// A relation that lives on the coordinator only: nothing that contains it can be sent.
    pub local: Option<Reason>,
    /// Why the query as a whole cannot run shard by shard, though it might be routed.
    pub unscatterable: Option<Reason>,
    /// There may be rows that come from no distributed table: what these are compared with says nothing of them.
    pub has_other_rows: bool,
    pub references: bool,
    next_level: usize,
}

impl Analysis {
    /// Analyses a whole query.
    ///
    /// # Safety
    /// `query` is a valid, rewritten Query that is not changed while the answer is used.
    pub unsafe fn of(query: *mut Query) -> Result<Analysis> {
        let mut analysis = Analysis {
            parent: vec![None],
            ..Analysis::default()
        };
        let mut frames = Vec::new();
        let level = unsafe { analysis.visit_query(query, 0, &mut frames, true)? };
        if !level.sharded && !analysis.distributed.is_empty() {
            analysis
                .has_other_rows("rows of the outermost query do not come from a distributed table");
        }
        Ok(analysis)
    }

    fn has_other_rows(&mut self, reason: &str) {
        self.has_other_rows = true;
        self.cannot_scatter(reason);
    }

    fn cannot_scatter(&mut self, reason: &str) {
        self.unscatterable.get_or_insert_with(|| reason.to_owned());
    }

    fn cannot_ship(&mut self, reason: &str) {
        self.local.get_or_insert_with(|| reason.to_owned());
    }

    fn new_region(&mut self, parent: Region) -> Region {
        self.parent.push(Some(parent));
        self.parent.len() - 1
    }

    fn point(&mut self, level: usize, varno: i32, attno: i16, region: Region) -> Point {
        let next = self.region_of.len();
        let point = *self.points.entry((level, varno, attno)).or_insert(next);
        if point == next {
            self.region_of.push(region);
            self.tied.push(point);
        }
        point
    }

    unsafe fn visit_query(
        &mut self,
        query: *mut Query,
        region: Region,
        frames: &mut Vec<Frame>,
        top: bool,
    ) -> Result<Level> {
        let id = self.next_level;
        self.next_level += 1;
        let open = unsafe { top || !is_barrier(query) };
        frames.push(Frame {
            id,
            query,
            region,
            correlated: Vec::new(),
            open,
        });
        let level = unsafe { self.visit_level(query, id, region, frames, top) };
        frames.pop();
        level
    }

    /// A subquery whose rows join those beside it. One that answers even without rows below says nothing of them.
    unsafe fn visit_joined(
        &mut self,
        query: *mut Query,
        region: Region,
        frames: &mut Vec<Frame>,
    ) -> Result<Level> {
        unsafe {
            if answers_without_rows(query) {
                self.visit_optional(query, region, frames)
                    .map(|(level, _)| level)
            } else {
                self.visit_query(query, region, frames, false)
            }
        }
    }

    /// A subquery in a region of its own.
    unsafe fn visit_optional(
        &mut self,
        query: *mut Query,
        region: Region,
        frames: &mut Vec<Frame>,
    ) -> Result<(Level, Region)> {
        let inner = self.new_region(region);
        self.open_scope(Part::Optional(inner));
        let level = unsafe { self.visit_query(query, inner, frames, false) };
        self.close_scope();
        Ok((level?, inner))
    }

    unsafe fn visit_level(
        &mut self,
        query: *mut Query,
        id: usize,
        region: Region,
        frames: &mut Vec<Frame>,
        top: bool,
    ) -> Result<Level> {
        unsafe {
            if !(*query).setOperations.is_null() {
                return self.visit_set_operation(query, id, region, frames, top);
            }
            for cte in list::iter::<pg_sys::CommonTableExpr>((*query).cteList) {
                let body = (*cte).ctequery.cast::<Query>();
                let modifies = (*body).commandType != pg_sys::CmdType::CMD_SELECT;
                if modifies {
                    self.cannot_scatter("a WITH clause changes rows");
                    if let Some(reason) = super::modify::with_clause_obstacle(body)? {
                        self.cannot_ship(&reason);
                    }
                }
                if modifies || (*cte).cterefcount == 0 {
                    let inner = self.new_region(region);
                    self.visit_query(body, inner, frames, false)?;
                }
            }
            // The target of UPDATE and DELETE is in the join tree; that of INSERT is not.
            if (*query).commandType == pg_sys::CmdType::CMD_INSERT {
                self.visit_relation(query, id, (*query).resultRelation, region)?;
                self.visit_inserted_key(query, region);
            }
            let before = self.distributed.len();
            let from = (*query).jointree;
            let mut sharded = self.visit_from(from.cast(), region, frames)?;
            if (*query).commandType == pg_sys::CmdType::CMD_UPDATE
                || (*query).commandType == pg_sys::CmdType::CMD_DELETE
            {
                // Deparsed FROM items join the target inside.
                sharded = true;
            }
            for tree in [
                (*query).targetList.cast::<Node>(),
                (*query).havingQual,
                (*query).returningList.cast(),
                (*query).onConflict.cast(),
                (*query).limitCount,
                (*query).limitOffset,
            ] {
                self.visit_sublinks(tree, region, frames)?;
            }
            let outputs = if (*query).commandType == pg_sys::CmdType::CMD_SELECT {
                (*query).targetList
            } else {
                (*query).returningList
            };
            let outputs = list::iter::<pg_sys::TargetEntry>(outputs)
                .filter(|entry| !(**entry).resjunk)
                .map(|entry| self.column((*entry).expr.cast(), frames))
                .collect::<Vec<_>>();
            for mark in list::iter::<pg_sys::RowMarkClause>((*query).rowMarks) {
                self.visit_row_mark(query, mark)?;
            }
            // Rows that a subquery over shards chooses depend on the shard, too.
            if !top && self.distributed.len() > before {
                self.require_key(query, frames);
            }
            // one that answers without rows does so on every shard
            sharded &= top || !answers_without_rows(query);
            Ok(Level { outputs, sharded })
        }
    }

    /// Rows of a reference table are locked here: all copies follow this one.
    unsafe fn visit_row_mark(
        &mut self,
        query: *mut Query,
        mark: *mut pg_sys::RowMarkClause,
    ) -> Result<()> {
        unsafe {
            let rte = list::rt_fetch((*mark).rti as i32, (*query).rtable);
            if (*rte).rtekind == RTEKind::RTE_RELATION {
                let table = catalog::table((*rte).relid)?;
                if table.is_some_and(|t| matches!(t.kind, TableKind::Reference)) {
                    self.cannot_ship("rows of a reference table are locked on the coordinator");
                }
            }
            Ok(())
        }
    }

    /// The key of an inserted row is what the target list says.
    unsafe fn visit_inserted_key(&mut self, query: *mut Query, region: Region) {
        unsafe {
            let Some(key) = self.distributed.last().map(|d| d.key) else {
                return;
            };
            let attno = self
                .points
                .iter()
                .find(|(_, point)| **point == key)
                .map(|((_, _, attno), _)| *attno);
            for entry in list::iter::<pg_sys::TargetEntry>((*query).targetList) {
                if Some((*entry).resno) == attno && is_free((*entry).expr.cast()) {
                    self.facts
                        .push((key, region, Fact::Equal((*entry).expr.cast())));
                }
            }
        }
    }

    /// Conditions under which a level below the top gives the same rows shard by shard.
    unsafe fn require_key(&mut self, query: *mut Query, frames: &mut [Frame]) {
        unsafe {
            let region = frames.last().map_or(0, |f| f.region);
            let correlated = frames
                .last()
                .map(|f| f.correlated.clone())
                .unwrap_or_default();
            let key_points = |clauses: *mut pg_sys::List, this: &Analysis| -> Vec<Point> {
                list::iter::<pg_sys::SortGroupClause>(clauses)
                    .filter_map(|clause| {
                        this.known_column(
                            pg_sys::get_sortgroupclause_expr(clause, (*query).targetList),
                            frames,
                        )
                    })
                    .filter(|point| !this.is_null_extended(*point, region))
                    .collect()
            };
            let grouped = key_points((*query).groupClause, self);
            let distinct = key_points((*query).distinctClause, self);
            let mut windows = Vec::new();
            for window in list::iter::<pg_sys::WindowClause>((*query).windowClause) {
                windows.push(key_points((*window).partitionClause, self));
            }
            let mut add = |any_of: Vec<Point>, reason: &str| {
                let mut any_of = any_of;
                any_of.extend(correlated.iter().copied());
                self.requirements.push(Requirement {
                    any_of,
                    reason: reason.to_owned(),
                });
            };
            if !(*query).groupingSets.is_null() {
                add(Vec::new(), "a subquery has grouping sets");
            } else if (*query).hasAggs || !(*query).groupClause.is_null() {
                add(
                    grouped,
                    "a subquery aggregates without grouping by the distribution column",
                );
            }
            if !(*query).distinctClause.is_null() {
                add(
                    distinct,
                    "a subquery's DISTINCT lacks the distribution column",
                );
            }
            for window in windows {
                add(
                    window,
                    "a subquery's window is not partitioned by the distribution column",
                );
            }
            if !(*query).limitCount.is_null() || !(*query).limitOffset.is_null() {
                add(Vec::new(), "a subquery has LIMIT");
            }
        }
    }

    fn tie_outputs(
        &mut self,
        id: usize,
        rtindex: i32,
        outputs: &[Option<Point>],
        region: Region,
        carries: Carries,
    ) {
        for (column, output) in outputs.iter().enumerate() {
            if let Some(output) = output {
                // What is NULL for want of a match below says nothing of this level's rows either.
                let extended = self.is_null_extended(*output, region);
                let region = if extended {
                    self.new_region(region)
                } else {
                    region
                };
                let outside = self.point(id, rtindex, column as i16 + 1, region);
                self.tie(outside, *output, carries, region);
            }
        }
    }

    /// The point of an expression that is a plain column, of this level or one above.
    unsafe fn column(&mut self, item: *mut Node, frames: &[Frame]) -> Option<Point> {
        unsafe {
            let (id, varno, attno) = column_of(item, frames)?;
            let region = self.entries.get(&(id, varno)).copied().unwrap_or(0);
            Some(self.point(id, varno, attno, region))
        }
    }

    unsafe fn known_column(&self, item: *mut Node, frames: &[Frame]) -> Option<Point> {
        unsafe { self.points.get(&column_of(item, frames)?).copied() }
    }

    unsafe fn visit_qual(
        &mut self,
        qual: *mut Node,
        region: Region,
        frames: &mut Vec<Frame>,
    ) -> Result<()> {
        unsafe {
            for conjunct in expr::conjuncts(qual) {
                if let Some((left, right)) = equality(conjunct) {
                    let a = self.column(left, frames);
                    let b = self.column(right, frames);
                    if let (Some(a), Some(b)) = (a, b) {
                        if same_hash(left, right) {
                            self.tie(a, b, Carries::BothWays, region);
                            self.note_correlation(left, right, a, b, frames);
                        }
                        continue;
                    }
                }
                if self.visit_in_subquery(conjunct, region, frames)? {
                    continue;
                }
                for (point, fact) in self.facts_of(conjunct, frames) {
                    self.facts.push((point, region, fact));
                }
                self.visit_sublinks(conjunct, region, frames)?;
            }
            Ok(())
        }
    }

    unsafe fn note_correlation(
        &self,
        left: *mut Node,
        right: *mut Node,
        a: Point,
        b: Point,
        frames: &mut [Frame],
    ) {
        unsafe {
            let up = |item: *mut Node| {
                node::cast::<pg_sys::Var>(flatten(item, frames)).map_or(0, |v| (*v).varlevelsup)
            };
            let (left_up, right_up) = (up(left), up(right));
            if let Some(frame) = frames.last_mut() {
                if left_up == 0 && right_up > 0 {
                    frame.correlated.push(a);
                } else if right_up == 0 && left_up > 0 {
                    frame.correlated.push(b);
                }
            }
        }
    }

    /// Why the query cannot run shard by shard with its rows just appended, or None when it can.
    pub fn scatter_obstacle(&self) -> Option<Reason> {
        if let Some(reason) = self.local.as_ref().or(self.unscatterable.as_ref()) {
            return Some(reason.clone());
        }
        let first = self.distributed.first()?;
        if self
            .distributed
            .iter()
            .any(|d| d.colocation.id != first.colocation.id)
        {
            return Some("the tables are not colocated".into());
        }
        let tied = |point: Point| self.are_tied(first.key, point);
        if self.distributed.iter().any(|d| !tied(d.key)) {
            return Some("the tables are not joined on their distribution columns".into());
        }
        self.requirements
            .iter()
            .find(|requirement| !requirement.any_of.iter().any(|point| tied(*point)))
            .map(|requirement| requirement.reason.clone())
    }

    /// Is one of the expressions the distribution column itself, never null-extended, of the top level?
    ///
    /// # Safety
    /// `query` is the Query that was analysed.
    pub unsafe fn contains_key(&self, query: *mut Query, exprs: &[*mut Node]) -> bool {
        let Some(first) = self.distributed.first() else {
            return false;
        };
        let frames = [Frame {
            id: 0,
            query,
            region: 0,
            correlated: Vec::new(),
            open: true,
        }];
        exprs.iter().any(|item| unsafe {
            self.known_column(*item, &frames)
                .is_some_and(|point| self.are_tied(first.key, point) && self.region_of[point] == 0)
        })
    }
}

/// Does the query give a row even when its tables give none?
unsafe fn answers_without_rows(query: *mut Query) -> bool {
    unsafe {
        !(*query).groupingSets.is_null()
            || (*query).groupClause.is_null()
                && ((*query).hasAggs || !(*query).havingQual.is_null())
    }
}

/// Must facts stay out of a subquery, because fewer input rows would change its answer?
unsafe fn is_barrier(query: *mut Query) -> bool {
    unsafe {
        !(*query).limitCount.is_null()
            || !(*query).limitOffset.is_null()
            || (*query).hasWindowFuncs
            || (*query).hasDistinctOn
            || !(*query).groupingSets.is_null()
            || (*query).hasRecursive
    }
}

/// `item` with references to a join's merged columns resolved to the joined tables.
unsafe fn flatten(item: *mut Node, frames: &[Frame]) -> *mut Node {
    unsafe {
        let stripped = expr::strip_relabel(item);
        let Some(var) = node::cast::<pg_sys::Var>(stripped) else {
            return stripped;
        };
        let Some(depth) = frames.len().checked_sub(1 + (*var).varlevelsup as usize) else {
            return stripped;
        };
        let query = frames[depth].query;
        let entry = (*var).varno - 1;
        if entry < 0 || entry as usize >= list::len((*query).rtable) || (*var).varattno <= 0 {
            return stripped;
        }
        let rte = list::nth::<pg_sys::RangeTblEntry>((*query).rtable, entry as usize);
        if (*rte).rtekind != RTEKind::RTE_JOIN {
            return stripped;
        }
        let alias = expr::strip_relabel(list::nth::<Node>(
            (*rte).joinaliasvars,
            (*var).varattno as usize - 1,
        ));
        match node::cast::<pg_sys::Var>(alias) {
            Some(inner) => {
                let inner = node::copy(inner);
                (*inner).varlevelsup = (*var).varlevelsup;
                flatten(inner.cast(), frames)
            }
            None => alias,
        }
    }
}

unsafe fn column_of(item: *mut Node, frames: &[Frame]) -> Option<(usize, i32, i16)> {
    unsafe {
        let var = node::cast::<pg_sys::Var>(flatten(item, frames))?;
        let depth = frames.len().checked_sub(1 + (*var).varlevelsup as usize)?;
        ((*var).varattno > 0).then(|| (frames[depth].id, (*var).varno, (*var).varattno))
    }
}
