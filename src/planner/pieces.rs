//! Splits the FROM clause of a level that cannot run on the shards as a whole into the largest pieces that can: tied
//! tables with the reference tables, functions and conditions that belong to them become subqueries, and those leaves.
//!
//! The nullable side of a LEFT JOIN is an operand like those of the inner join, with the condition of its own: it may be
//! joined to the others at any time after those that its condition speaks of.

mod change;
mod implied;
pub mod joins;
pub mod trees;

use super::split;
use crate::error::Result;
use crate::pg::{expr, list, node};
use crate::planner::analysis::Analysis;
use crate::planner::route;
use crate::planner::ship;
use change::{all_of, side_by_side};
use pgrx::pg_sys::{self, JoinType, Node, Query, RTEKind, RangeTblEntry};
use trees::{
    forget_names, has_sublinks, implied_by, lateral_references, members_of, move_with, reads_with,
    refers_outside, retire, varnos,
};

/// An operand of the level's join.
#[derive(Clone)]
pub struct Item {
    /// A RangeTblRef, or a JoinExpr.
    pub node: *mut Node,
    /// The range table entries in it, joins included.
    pub members: Vec<i32>,
    /// Entries outside that it refers to (LATERAL).
    needs: Vec<i32>,
    pub place: Place,
    /// Of the nullable side of a LEFT JOIN, or one side of a full join: the conjuncts of its condition.
    pub on: Option<Vec<*mut Node>>,
}

/// Where an item's rows can be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Shards,
    /// On every node alike: reference tables, functions, constants.
    Everywhere,
    /// On the coordinator only.
    Here,
}

/// What was taken out of a level.
pub struct Taken {
    pub query: *mut Query,
    /// The columns that it gives.
    pub units: Vec<*mut Node>,
    members: Vec<i32>,
    on: Option<Vec<*mut Node>>,
}

/// A level of the query whose FROM is an inner join of items, to some of which others are left joined.
pub struct Level {
    pub query: *mut Query,
    pub items: Vec<Item>,
    /// The conjuncts of WHERE and of inner joins.
    pub quals: Vec<*mut Node>,
    /// Sets of items that run on the shards together, by index. A nullable side stands alone, or with what it is joined to.
    pub pieces: Vec<Vec<usize>>,
    /// FROM is a full join of two items, of which the second one has the condition: both keep their rows.
    pub full: bool,
    /// Range table entries of the joins that `rebuild` writes.
    joins: Vec<i32>,
}

/// A level as it was.
pub struct Saved {
    query: *mut Query,
    items: Vec<Item>,
    pieces: Vec<Vec<usize>>,
    joins: Vec<i32>,
}

impl Level {
    /// Takes the FROM clause of `query` apart. None when its statement is not of the kind that can be.
    ///
    /// # Safety
    /// `query` is a valid Query that the caller owns.
    pub unsafe fn of(query: *mut Query) -> Result<Option<Level>> {
        unsafe { Level::taken_apart(query, false) }
    }

    /// The same; if FROM is a full join, its sides are the items.
    ///
    /// # Safety
    /// As `of`.
    pub unsafe fn of_sides(query: *mut Query) -> Result<Option<Level>> {
        unsafe { Level::taken_apart(query, true) }
    }

    unsafe fn taken_apart(query: *mut Query, sides: bool) -> Result<Option<Level>> {
        unsafe {
            if (*query).commandType != pg_sys::CmdType::CMD_SELECT
                || !(*query).setOperations.is_null()
                || !(*query).rowMarks.is_null()
            {
                return Ok(None);
            }
            node::map_query(query, |child| pg_sys::flatten_join_alias_vars(query, child));
            forget_names(query);
            joins::reduce(query);
            let mut level = Level {
                query,
                items: Vec::new(),
                quals: Vec::new(),
                pieces: Vec::new(),
                full: false,
                joins: Vec::new(),
            };
            match joins::full_join(query).filter(|_| sides) {
                Some(join) => level.take_sides(join),
                None => level.flatten((*query).jointree.cast()),
            }
            for index in 0..level.items.len() {
                level.locate(index)?;
            }
            level.merge()?;
            // the entries of the joins that it had are gone
            level.rebuild();
            Ok(Some(level))
        }
    }

    unsafe fn flatten(&mut self, from: *mut Node) {
        unsafe {
            if let Some(from) = node::cast::<pg_sys::FromExpr>(from) {
                for child in list::iter::<Node>((*from).fromlist) {
                    self.flatten(child);
                }
                self.quals.extend(expr::conjuncts((*from).quals));
                return;
            }
            let Some(join) = node::cast::<pg_sys::JoinExpr>(from) else {
                self.add_item(from, Place::Here);
                return;
            };
            if (*join).jointype == JoinType::JOIN_INNER {
                self.forget_join(join);
                self.flatten((*join).larg);
                self.flatten((*join).rarg);
                self.quals.extend(expr::conjuncts((*join).quals));
                return;
            }
            match joins::sides(join) {
                Some((kept, nullable))
                    if !joins::are_referred_to(self.query, &members_of(nullable)) =>
                {
                    self.forget_join(join);
                    self.flatten(kept);
                    let item = self.add_item(nullable, Place::Here);
                    self.items[item].on = Some(expr::conjuncts((*join).quals));
                }
                _ => {
                    self.add_item(from, Place::Here);
                }
            }
        }
    }

    /// Takes the full join apart that FROM is.
    unsafe fn take_sides(&mut self, join: *mut pg_sys::JoinExpr) {
        unsafe {
            self.full = true;
            self.quals = expr::conjuncts((*(*self.query).jointree).quals);
            self.forget_join(join);
            self.add_item((*join).larg, Place::Here);
            let second = self.add_item((*join).rarg, Place::Here);
            self.items[second].on = Some(expr::conjuncts((*join).quals));
        }
    }

    /// How items with a condition of their own are joined.
    fn kind(&self) -> JoinType::Type {
        if self.full {
            JoinType::JOIN_FULL
        } else {
            JoinType::JOIN_LEFT
        }
    }

    unsafe fn forget_join(&self, join: *mut pg_sys::JoinExpr) {
        unsafe {
            if (*join).rtindex > 0 {
                retire(self.entry((*join).rtindex));
            }
        }
    }

    unsafe fn add_item(&mut self, from: *mut Node, place: Place) -> usize {
        unsafe {
            let members = members_of(from);
            let mut needs = Vec::new();
            for member in &members {
                for varno in lateral_references(self.entry(*member)) {
                    if !members.contains(&varno) && !needs.contains(&varno) {
                        needs.push(varno);
                    }
                }
            }
            self.items.push(Item {
                node: from,
                members,
                needs,
                place,
                on: None,
            });
            self.items.len() - 1
        }
    }

    pub unsafe fn entry(&self, rtindex: i32) -> *mut RangeTblEntry {
        unsafe { list::rt_fetch(rtindex, (*self.query).rtable) }
    }

    pub fn members(&self, items: &[usize]) -> Vec<i32> {
        items
            .iter()
            .flat_map(|item| self.items[*item].members.iter().copied())
            .collect()
    }

    /// Is it the nullable side of a LEFT JOIN?
    pub fn is_optional(&self, item: usize) -> bool {
        self.items[item].on.is_some()
    }

    /// Is it such a side, without what it is joined to?
    pub fn is_optional_alone(&self, items: &[usize]) -> bool {
        matches!(items, [only] if self.is_optional(*only))
    }

    /// Is it one side of a full join, of which no condition may drop rows?
    fn is_side(&self, items: &[usize]) -> bool {
        self.full && items.len() == 1
    }

    /// The entries outside that an item refers to, in the condition of its LEFT JOIN as well.
    unsafe fn partners(&self, item: usize) -> Vec<i32> {
        unsafe {
            let item = &self.items[item];
            let mut partners = item.needs.clone();
            for qual in item.on.iter().flatten() {
                partners.extend(varnos(*qual));
            }
            partners.retain(|varno| !item.members.contains(varno));
            partners
        }
    }

    /// The conditions for rows of these items to be in the result: of a nullable side alone, for them to be joined.
    fn quals_about(&self, items: &[usize]) -> &[*mut Node] {
        match items {
            [only] => self.items[*only].on.as_ref().unwrap_or(&self.quals),
            _ => &self.quals,
        }
    }

    /// What the items are called in the statement, for EXPLAIN.
    pub unsafe fn names(&self, items: &[usize]) -> String {
        unsafe {
            let entries = self
                .members(items)
                .into_iter()
                .map(|member| self.entry(member));
            let names: Vec<_> = entries
                .filter(|entry| (**entry).rtekind != RTEKind::RTE_JOIN)
                .map(|entry| std::ffi::CStr::from_ptr((*(*entry).eref).aliasname).to_string_lossy())
                .collect();
            names.join(" and ")
        }
    }

    /// May the item's rows be looked at apart from the others?
    pub fn is_independent(&self, item: usize) -> bool {
        self.items[item].needs.is_empty()
    }

    /// Finds out where an item's rows can be had. Sides of a full join have to give each row once.
    ///
    /// # Safety
    /// The level's query is valid.
    pub unsafe fn locate(&mut self, item: usize) -> Result<()> {
        unsafe {
            let place = self.place_of(item)?;
            self.items[item].place = match place {
                Place::Everywhere if self.full => Place::Here,
                place => place,
            };
            Ok(())
        }
    }

    unsafe fn place_of(&self, item: usize) -> Result<Place> {
        unsafe {
            if !self.is_independent(item) || self.reads_with(item) {
                return Ok(Place::Here);
            }
            // subqueries in its conditions may run elsewhere
            let alone = self.part(&[item], false);
            if split::obstacle_below(alone).is_some() {
                return Ok(Place::Here);
            }
            let analysis = Analysis::of(alone)?;
            if analysis.local.is_some() {
                return Ok(Place::Here);
            }
            Ok(match route::route(&analysis)? {
                None => Place::Everywhere,
                Some(_) if sendable(alone)? => Place::Shards,
                Some(_) => Place::Here,
            })
        }
    }

    /// Does the item read a WITH query?
    unsafe fn reads_with(&self, item: usize) -> bool {
        unsafe {
            refers_outside(self.items[item].node)
                || self.items[item]
                    .members
                    .iter()
                    .any(|member| reads_with(self.entry(*member)))
        }
    }

    /// The conditions that speak of these items only and that a node can evaluate.
    pub unsafe fn conditions(&self, items: &[usize], sublinks: bool) -> Vec<usize> {
        unsafe {
            if self.is_side(items) {
                return Vec::new();
            }
            let members = self.members(items);
            let quals = self.quals_about(items);
            (0..quals.len())
                .filter(|index| {
                    let qual = quals[*index];
                    let vars = varnos(qual);
                    !vars.is_empty()
                        && vars.iter().all(|varno| members.contains(varno))
                        && !pg_sys::contain_vars_of_level(qual, 1)
                        && !refers_outside(qual)
                        && (sublinks || !node::has_sublink(qual))
                        && ship::obstacle(qual).is_none()
                })
                .collect()
        }
    }

    /// `SELECT 1 FROM items WHERE conditions`, a Query of its own.
    pub unsafe fn part(&self, items: &[usize], sublinks: bool) -> *mut Query {
        unsafe {
            let conditions = self.conditions(items, sublinks);
            let one = pg_sys::makeTargetEntry(expr::int4(1).cast(), 1, node::pstrdup("one"), false);
            self.part_with(items, &conditions, list::from([one]))
        }
    }

    /// The same with a target list of the items' columns.
    pub unsafe fn part_of(&self, items: &[usize], targets: *mut pg_sys::List) -> *mut Query {
        unsafe {
            let conditions = self.conditions(items, false);
            self.part_with(items, &conditions, targets)
        }
    }

    /// A Query of some items, conditions (by index) and a target list, all copied.
    pub unsafe fn part_with(
        &self,
        items: &[usize],
        conditions: &[usize],
        targets: *mut pg_sys::List,
    ) -> *mut Query {
        unsafe {
            let mut members = self.members(items);
            members.sort_unstable();
            let part = node::make::<Query>();
            (*part).commandType = pg_sys::CmdType::CMD_SELECT;
            (*part).canSetTag = true;
            (*part).hasRowSecurity = (*self.query).hasRowSecurity;
            (*part).stmt_location = -1;
            (*part).rtable = list::from(
                members
                    .iter()
                    .map(|member| node::copy(self.entry(*member)))
                    .collect::<Vec<_>>(),
            );
            (*part).targetList = node::copy(targets);
            let about = self.quals_about(items);
            let mut quals: Vec<*mut Node> = conditions.iter().map(|i| about[*i]).collect();
            for (index, qual) in about.iter().enumerate() {
                if !conditions.contains(&index) && !self.is_side(items) {
                    quals.extend(implied_by(*qual, &members));
                }
            }
            let alone = self.is_optional_alone(items);
            let operands: Vec<(*mut Node, Option<*mut Node>)> = self
                .in_order(items)
                .into_iter()
                .map(|item| {
                    let item = &self.items[item];
                    let on = item.on.as_ref().filter(|_| !alone);
                    (node::copy(item.node), on.map(|on| all_of(on)))
                })
                .collect();
            let quals = split::conjunction(&quals);
            (*part).jointree = side_by_side(&operands, quals);
            (*part).hasSubLinks = has_sublinks(part);
            for (index, member) in members.iter().enumerate() {
                let number = index as i32 + 1;
                if number != *member {
                    node::renumber(part.cast(), *member, number);
                }
            }
            // one level more than before
            node::shift_levels(part.cast(), 1, 1);
            move_with(part, 0, 1);
            let from = joins::from_clause(part, &operands, self.kind(), &mut Vec::new());
            (*part).jointree = pg_sys::makeFromExpr(from, quals);
            part
        }
    }

    /// Unites items of shards whose rows are neighbours, then adds what is on every node and joined with them.
    pub unsafe fn merge(&mut self) -> Result<()> {
        unsafe {
            let mut pieces: Vec<Vec<usize>> = (0..self.items.len())
                .filter(|item| self.is_on_shards(*item) && !self.is_optional(*item))
                .map(|item| vec![item])
                .collect();
            'again: loop {
                for by_others in [false, true] {
                    for a in 0..pieces.len() {
                        for b in a + 1..pieces.len() {
                            let union: Vec<usize> = [&pieces[a][..], &pieces[b]].concat();
                            let unites = match by_others {
                                false => self.runs(&union)?,
                                true => self.unites_by_others(&pieces[a], &pieces[b])?,
                            };
                            if unites {
                                pieces[a] = union;
                                pieces.remove(b);
                                continue 'again;
                            }
                        }
                    }
                }
                break;
            }
            pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
            self.pieces = pieces;
            self.attach()?;
            for item in 0..self.items.len() {
                if self.is_on_shards(item) && self.is_optional(item) && !self.is_in_piece(item) {
                    self.pieces.push(vec![item]);
                }
            }
            Ok(())
        }
    }

    fn is_on_shards(&self, item: usize) -> bool {
        self.items[item].place == Place::Shards && !self.items[item].node.is_null()
    }

    pub fn is_in_piece(&self, item: usize) -> bool {
        self.pieces.iter().any(|piece| piece.contains(&item))
    }

    /// Can the item be joined to a piece as it is?
    unsafe fn belongs_to(&self, item: usize, piece: &[usize]) -> bool {
        unsafe {
            let members = self.members(piece);
            let within = |varnos: &[i32]| varnos.iter().all(|varno| members.contains(varno));
            if self.is_optional(item) {
                let somewhere = !self.is_independent(item) || self.items[item].place != Place::Here;
                somewhere && within(&self.partners(item))
            } else if self.is_independent(item) {
                self.items[item].place == Place::Everywhere && self.is_joined(piece, item)
            } else {
                within(&self.items[item].needs)
            }
        }
    }

    /// Adds to pieces what is on every node, or among the rows that it may be left joined to, and joined with them.
    pub unsafe fn attach(&mut self) -> Result<()> {
        unsafe {
            let mut attached = true;
            while attached {
                attached = false;
                for item in 0..self.items.len() {
                    let waits = if self.is_optional(item) {
                        self.pieces
                            .iter()
                            .all(|piece| !piece.contains(&item) || piece.len() == 1)
                    } else {
                        self.items[item].place != Place::Shards && !self.is_in_piece(item)
                    };
                    if !waits || self.items[item].node.is_null() {
                        continue;
                    }
                    for index in 0..self.pieces.len() {
                        if self.is_optional_alone(&self.pieces[index])
                            || !self.belongs_to(item, &self.pieces[index])
                        {
                            continue;
                        }
                        let union = [&self.pieces[index][..], &[item]].concat();
                        if self.runs(&union)? {
                            self.pieces[index] = union;
                            self.pieces.retain(|piece| *piece != [item]);
                            attached = true;
                            break;
                        }
                    }
                }
            }
            Ok(())
        }
    }

    /// Does a condition compare the item with the piece?
    pub unsafe fn is_joined(&self, piece: &[usize], item: usize) -> bool {
        unsafe {
            let inside = self.members(piece);
            let own = &self.items[item].members;
            self.quals.iter().any(|qual| {
                let vars = varnos(*qual);
                vars.iter().any(|varno| own.contains(varno))
                    && vars.iter().any(|varno| inside.contains(varno))
                    && vars
                        .iter()
                        .all(|varno| own.contains(varno) || inside.contains(varno))
            })
        }
    }

    /// Would other items be joined with the piece if they were on every node?
    pub unsafe fn would_join(&self, piece: &[usize], others: &[usize]) -> bool {
        unsafe {
            if !self.is_optional_alone(others) {
                return others.iter().any(|item| self.is_joined(piece, *item));
            }
            let members = self.members(piece);
            let on = self.items[others[0]].on.iter().flatten();
            self.partners(others[0])
                .iter()
                .all(|varno| members.contains(varno))
                && on
                    .into_iter()
                    .all(|qual| !refers_outside(*qual) && ship::obstacle(*qual).is_none())
        }
    }

    /// Can these items run on the shards together?
    pub unsafe fn runs(&self, items: &[usize]) -> Result<bool> {
        unsafe {
            if items.iter().any(|item| self.reads_with(*item)) {
                return Ok(false);
            }
            let part = self.part(items, false);
            Ok(split::obstacle_below(part).is_none() && sendable(part)?)
        }
    }

    /// Can these items run on the shards together with a condition of the level?
    pub unsafe fn runs_with(&self, items: &[usize], condition: usize) -> Result<bool> {
        unsafe {
            let mut conditions = self.conditions(items, false);
            conditions.push(condition);
            let part = self.part_with(items, &conditions, split::targets(&[]));
            Ok(split::obstacle_below(part).is_none() && sendable(part)?)
        }
    }

    /// Can a subquery in an expression run on the shards of what it depends on, together with that? As a condition of the
    /// level it may say that its rows belong to theirs.
    pub unsafe fn runs_beside(&self, sublink: *mut pg_sys::SubLink) -> Result<bool> {
        unsafe {
            let is_it = |qual: &*mut Node| node::equal(*qual, sublink.cast::<Node>());
            let condition = self.quals.iter().position(is_it);
            for piece in self
                .pieces
                .iter()
                .filter(|piece| !self.is_optional_alone(piece))
            {
                let members = self.members(piece);
                if !varnos(sublink.cast())
                    .iter()
                    .all(|varno| members.contains(varno))
                {
                    continue;
                }
                if let Some(condition) = condition {
                    if self.runs_with(piece, condition)? {
                        return Ok(true);
                    }
                    continue;
                }
                let value = node::copy(sublink).cast();
                let target = pg_sys::makeTargetEntry(value, 1, node::pstrdup("value"), false);
                let conditions = self.conditions(piece, false);
                let part = self.part_with(piece, &conditions, list::from([target]));
                (*part).hasSubLinks = true;
                if sendable(part)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }

    /// Does the level join anything?
    pub unsafe fn is_join(&self) -> bool {
        let present = self.present();
        present.len() > 1
            || present.iter().any(|item| unsafe {
                node::cast::<pg_sys::JoinExpr>(self.items[*item].node).is_some()
            })
    }

    /// The joins among the items that do not run on the shards.
    pub unsafe fn nested_joins(&self) -> Vec<usize> {
        let is_nested = |item: &usize| {
            let item = &self.items[*item];
            // SAFETY: the level's query is valid.
            let is_join = unsafe { node::cast::<pg_sys::JoinExpr>(item.node).is_some() };
            is_join && item.place == Place::Here && item.needs.is_empty()
        };
        self.present().into_iter().filter(is_nested).collect()
    }

    /// Does everything in FROM and WHERE belong to one piece?
    pub unsafe fn is_one_piece(&self) -> bool {
        let present = self.items.iter().filter(|item| !item.node.is_null());
        self.pieces.len() == 1 && self.pieces[0].len() == present.count()
    }

    /// Is the piece more than a table that is a leaf by itself?
    unsafe fn is_worth_a_leaf(&self, piece: &[usize]) -> bool {
        unsafe {
            let [only] = piece else { return true };
            let item = &self.items[*only];
            let Some(reference) = node::cast::<pg_sys::RangeTblRef>(item.node) else {
                return true;
            };
            let entry = self.entry((*reference).rtindex);
            let conditions = self.conditions(piece, true);
            let quals = self.quals_about(piece);
            match (*entry).rtekind {
                RTEKind::RTE_RELATION => conditions
                    .iter()
                    .any(|index| node::has_sublink(quals[*index])),
                // it is a leaf by itself, too, and keeps its order then
                RTEKind::RTE_SUBQUERY => {
                    !conditions.is_empty() && (*(*entry).subquery).sortClause.is_null()
                }
                _ => true,
            }
        }
    }

    /// Makes each piece that is worth it a subquery, and that a leaf. Joins that are operands become subqueries, too, which
    /// are levels of their own.
    ///
    /// # Safety
    /// The query is not used by others.
    pub unsafe fn make_subqueries(&mut self) -> Result<()> {
        unsafe {
            for item in 0..self.items.len() {
                if self.is_independent(item) && !self.is_in_piece(item) {
                    self.look_into(item)?;
                }
            }
            for piece in std::mem::take(&mut self.pieces) {
                if self.is_worth_a_leaf(&piece) {
                    let subquery = self.wrap(&piece, Place::Shards)?;
                    split::transform_piece(subquery)?;
                }
            }
            self.rebuild();
            Ok(())
        }
    }
}

/// May this Query run on each shard, or on one, with its rows appended?
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn sendable(query: *mut Query) -> Result<bool> {
    unsafe {
        if split::is_correlated(query) || split::reads_outer_cte(query) {
            return Ok(false);
        }
        let analysis = Analysis::of(query)?;
        if analysis.local.is_some() {
            return Ok(false);
        }
        let Some(route) = route::route(&analysis)? else {
            return Ok(false);
        };
        Ok(!route.colocation.groups.is_empty()
            && (route.single || analysis.scatter_obstacle().is_none()))
    }
}
