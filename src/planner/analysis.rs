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

mod ties;

use crate::catalog::{self, Colocation, TableKind};
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::ship::Reason;
use crate::planner::{cursor, moved};
use pgrx::pg_sys::{self, JoinType, Node, NodeTag, Oid, Query, RTEKind};
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

/// What a column is compared with. Expressions have no columns.
#[derive(Clone)]
pub enum Fact {
    Equal(*mut Node),
    AnyOf(*mut Node),
    Null,
    /// The row is in the shard group of this id.
    Group(*mut Node),
    Below(*mut Node, bool),
    Above(*mut Node, bool),
    And(Vec<Fact>),
    Or(Vec<Fact>),
}

impl Fact {
    fn admits_null(&self) -> bool {
        match self {
            Fact::Null => true,
            Fact::And(facts) => facts.iter().all(Fact::admits_null),
            Fact::Or(facts) => facts.iter().any(Fact::admits_null),
            _ => false,
        }
    }
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

/// An arm of a set operation.
struct Arm {
    outputs: Vec<Option<Point>>,
    region: Region,
    /// The distribution column of its first table.
    key: Option<Point>,
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

    unsafe fn visit_set_operation(
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
                if (*rte).rtekind != RTEKind::RTE_SUBQUERY
                    || !(*rte).inFromCl && !arm_of((*query).setOperations, index as i32 + 1)
                {
                    continue;
                }
                if !arm_of((*query).setOperations, index as i32 + 1) {
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

    /// Visits a FROM item; answers whether its rows come from shards.
    unsafe fn visit_from(
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

    unsafe fn visit_relation(
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

    /// `column IN (SELECT …)` as a conjunct: a semi-join.
    unsafe fn visit_in_subquery(
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
    unsafe fn visit_sublinks(
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

    /// What a condition says of columns.
    unsafe fn facts_of(&mut self, qual: *mut Node, frames: &[Frame]) -> Vec<(Point, Fact)> {
        unsafe {
            if let Some(op) = node::cast::<pg_sys::OpExpr>(qual) {
                if let Some((ctid, group)) = cursor::current_row(qual) {
                    let key = self.key_beside(ctid, frames);
                    return key
                        .map(|key| (key, Fact::Group(group)))
                        .into_iter()
                        .collect();
                }
                return self.comparison(op, frames).into_iter().collect();
            }
            if let Some(any) = node::cast::<pg_sys::ScalarArrayOpExpr>(qual) {
                let (left, array) = (
                    list::nth::<Node>((*any).args, 0),
                    list::nth::<Node>((*any).args, 1),
                );
                if (*any).useOr
                    && is_equality_operator((*any).opno, left)
                    && is_free(array)
                    && same_element_hash(left, array)
                {
                    if let Some(point) = self.column(left, frames) {
                        return vec![(point, Fact::AnyOf(array))];
                    }
                }
                return Vec::new();
            }
            if let Some(test) = node::cast::<pg_sys::NullTest>(qual) {
                if (*test).nulltesttype == pg_sys::NullTestType::IS_NULL {
                    if let Some(point) = self.column((*test).arg.cast(), frames) {
                        return vec![(point, Fact::Null)];
                    }
                }
                return Vec::new();
            }
            // A boolean column as a condition says that it is true; NOT, that it is false.
            if let Some(or) = node::cast::<pg_sys::BoolExpr>(qual)
                .filter(|b| (**b).boolop == pg_sys::BoolExprType::OR_EXPR)
            {
                return self.disjunction(or, frames);
            }
            Vec::new()
        }
    }

    /// The distribution column of the row whose system column it is.
    unsafe fn key_beside(&self, system: *mut pg_sys::Var, frames: &[Frame]) -> Option<Point> {
        unsafe {
            let depth = frames
                .len()
                .checked_sub(1 + (*system).varlevelsup as usize)?;
            let frame = &frames[depth];
            self.distributed.iter().map(|table| table.key).find(|key| {
                self.points.iter().any(|((level, varno, _), point)| {
                    point == key && *level == frame.id && *varno == (*system).varno
                })
            })
        }
    }

    unsafe fn comparison(
        &mut self,
        op: *mut pg_sys::OpExpr,
        frames: &[Frame],
    ) -> Option<(Point, Fact)> {
        unsafe {
            if list::len((*op).args) != 2 {
                return None;
            }
            let (mut left, mut right) = (
                list::nth::<Node>((*op).args, 0),
                list::nth::<Node>((*op).args, 1),
            );
            let mut operator = (*op).opno;
            if is_free(left) {
                std::mem::swap(&mut left, &mut right);
                operator = pg_sys::get_commutator(operator);
            }
            if operator == pg_sys::InvalidOid || !is_free(right) {
                return None;
            }
            let point = self.column(left, frames)?;
            if is_equality_operator(operator, left) {
                return same_hash(left, right).then_some((point, Fact::Equal(right)));
            }
            let fact = match btree_strategy(operator, left)? {
                pg_sys::BTLessStrategyNumber => Fact::Below(right, false),
                pg_sys::BTLessEqualStrategyNumber => Fact::Below(right, true),
                pg_sys::BTGreaterStrategyNumber => Fact::Above(right, false),
                pg_sys::BTGreaterEqualStrategyNumber => Fact::Above(right, true),
                _ => return None,
            };
            same_hash(left, right).then_some((point, fact))
        }
    }

    /// `a OR b` says something of a column when both arms do.
    unsafe fn disjunction(
        &mut self,
        or: *mut pg_sys::BoolExpr,
        frames: &[Frame],
    ) -> Vec<(Point, Fact)> {
        unsafe {
            let arms: Vec<HashMap<Point, Vec<Fact>>> = list::iter::<Node>((*or).args)
                .map(|arm| {
                    let mut facts: HashMap<Point, Vec<Fact>> = HashMap::new();
                    for conjunct in expr::conjuncts(arm) {
                        for (point, fact) in self.facts_of(conjunct, frames) {
                            facts.entry(point).or_default().push(fact);
                        }
                    }
                    facts
                })
                .collect();
            let Some(first) = arms.first() else {
                return Vec::new();
            };
            first
                .keys()
                .filter(|point| arms.iter().all(|arm| arm.contains_key(point)))
                .map(|point| {
                    let either = arms
                        .iter()
                        .map(|arm| Fact::And(arm[point].clone()))
                        .collect();
                    (*point, Fact::Or(either))
                })
                .collect()
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

/// The two sides of `a = b` for a hashable or mergeable equality.
unsafe fn equality(qual: *mut Node) -> Option<(*mut Node, *mut Node)> {
    unsafe {
        let op = node::cast::<pg_sys::OpExpr>(qual)?;
        if list::len((*op).args) != 2 {
            return None;
        }
        let (left, right) = (
            list::nth::<Node>((*op).args, 0),
            list::nth::<Node>((*op).args, 1),
        );
        is_equality_operator((*op).opno, left).then_some((left, right))
    }
}

/// Is the operator an equality of its left side's default hash operator class?
pub unsafe fn is_equality_operator(operator: Oid, left: *mut Node) -> bool {
    unsafe {
        pg_sys::op_hashjoinable(operator, pg_sys::exprType(left))
            || btree_strategy(operator, left) == Some(pg_sys::BTEqualStrategyNumber)
    }
}

/// The operator's strategy in the default btree operator family of the type.
unsafe fn btree_strategy(operator: Oid, left: *mut Node) -> Option<u32> {
    unsafe {
        let entry = pg_sys::lookup_type_cache(
            pg_sys::exprType(expr::strip_relabel(left)),
            pg_sys::TYPECACHE_BTREE_OPFAMILY as i32,
        );
        let family = (*entry).btree_opf;
        if family == pg_sys::InvalidOid {
            return None;
        }
        let strategy = pg_sys::get_op_opfamily_strategy(operator, family);
        (strategy > 0).then_some(strategy as u32)
    }
}

/// Do equal values of both expressions' types hash alike? True for one type, and for those of one hash family
/// (int2, int4 and int8; text and varchar; a domain and its base).
pub unsafe fn same_hash(left: *mut Node, right: *mut Node) -> bool {
    unsafe {
        let family = |item: *mut Node| {
            let type_oid = crate::pg::types::base_type(pg_sys::exprType(expr::strip_relabel(item)));
            let entry = pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_HASH_OPFAMILY as i32);
            (type_oid, (*entry).hash_opf)
        };
        let (left, right) = (family(left), family(right));
        left.0 == right.0 || left.1 != pg_sys::InvalidOid && left.1 == right.1
    }
}

unsafe fn same_element_hash(left: *mut Node, array: *mut Node) -> bool {
    unsafe {
        let element = pg_sys::get_base_element_type(pg_sys::exprType(array));
        let left_type = crate::pg::types::base_type(pg_sys::exprType(expr::strip_relabel(left)));
        if element == left_type {
            return true;
        }
        let family =
            |t| (*pg_sys::lookup_type_cache(t, pg_sys::TYPECACHE_HASH_OPFAMILY as i32)).hash_opf;
        element != pg_sys::InvalidOid
            && family(element) != pg_sys::InvalidOid
            && family(element) == family(left_type)
    }
}

/// An expression without columns or subqueries that has one value for the whole statement.
unsafe fn is_free(item: *mut Node) -> bool {
    unsafe {
        !node::walk(item, &mut |part, _| match node::tag(part) {
            NodeTag::T_Var
            | NodeTag::T_SubLink
            | NodeTag::T_Query
            | NodeTag::T_Aggref
            | NodeTag::T_WindowFunc => Step::Stop,
            NodeTag::T_Param => match (*part.cast::<pg_sys::Param>()).paramkind {
                pg_sys::ParamKind::PARAM_EXTERN | pg_sys::ParamKind::PARAM_EXEC => Step::Into,
                _ => Step::Stop,
            },
            _ => Step::Into,
        }) && !pg_sys::contain_volatile_functions(item)
    }
}
