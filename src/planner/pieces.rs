//! Splits the FROM clause of a level that cannot run on the shards as a whole into the largest pieces that can: tied
//! tables with the reference tables, functions and conditions that belong to them become subqueries, and those leaves.

pub mod trees;

use super::split;
use crate::error::Result;
use crate::pg::{expr, list, node};
use crate::planner::analysis::Analysis;
use crate::planner::route;
use crate::planner::ship;
use pgrx::pg_sys::{self, JoinType, Node, Query, RTEKind, RangeTblEntry};
use trees::{
    forget_names, implied_by, lateral_references, members_of, move_with, reads_with,
    refers_outside, replace_columns, retire, subquery_entry, units_of, varnos,
};

/// An operand of the level's inner join.
#[derive(Clone)]
pub struct Item {
    /// A RangeTblRef, or the JoinExpr of an outer join.
    pub node: *mut Node,
    /// The range table entries in it, joins included.
    pub members: Vec<i32>,
    /// Entries outside that it refers to (LATERAL).
    needs: Vec<i32>,
    pub place: Place,
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

/// A level of the query whose FROM is an inner join of items.
pub struct Level {
    pub query: *mut Query,
    pub items: Vec<Item>,
    /// The conjuncts of WHERE and of inner joins.
    pub quals: Vec<*mut Node>,
    /// Sets of items that run on the shards together, by index.
    pub pieces: Vec<Vec<usize>>,
}

/// A level as it was.
pub struct Saved {
    query: *mut Query,
    items: Vec<Item>,
    pieces: Vec<Vec<usize>>,
}

impl Level {
    /// Takes the FROM clause of `query` apart. None when its statement is not of the kind that can be.
    ///
    /// # Safety
    /// `query` is a valid Query that the caller owns.
    pub unsafe fn of(query: *mut Query) -> Result<Option<Level>> {
        unsafe {
            if (*query).commandType != pg_sys::CmdType::CMD_SELECT
                || !(*query).setOperations.is_null()
                || !(*query).rowMarks.is_null()
            {
                return Ok(None);
            }
            node::map_query(query, |child| pg_sys::flatten_join_alias_vars(query, child));
            forget_names(query);
            let mut level = Level {
                query,
                items: Vec::new(),
                quals: Vec::new(),
                pieces: Vec::new(),
            };
            level.flatten((*query).jointree.cast());
            for index in 0..level.items.len() {
                level.items[index].place = level.place_of(index)?;
            }
            level.merge()?;
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
            if let Some(join) = node::cast::<pg_sys::JoinExpr>(from)
                .filter(|join| (**join).jointype == JoinType::JOIN_INNER)
            {
                if (*join).rtindex > 0 {
                    retire(self.entry((*join).rtindex));
                }
                self.flatten((*join).larg);
                self.flatten((*join).rarg);
                self.quals.extend(expr::conjuncts((*join).quals));
                return;
            }
            self.add_item(from, Place::Here);
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
            });
            self.items.len() - 1
        }
    }

    pub unsafe fn entry(&self, rtindex: i32) -> *mut RangeTblEntry {
        unsafe { list::nth((*self.query).rtable, rtindex as usize - 1) }
    }

    pub fn members(&self, items: &[usize]) -> Vec<i32> {
        items
            .iter()
            .flat_map(|item| self.items[*item].members.iter().copied())
            .collect()
    }

    /// May the item's rows be looked at apart from the others?
    pub fn is_independent(&self, item: usize) -> bool {
        self.items[item].needs.is_empty()
    }

    unsafe fn place_of(&self, item: usize) -> Result<Place> {
        unsafe {
            if !self.is_independent(item) || self.reads_with(item) {
                return Ok(Place::Here);
            }
            let alone = self.part(&[item], true);
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
            let members = self.members(items);
            (0..self.quals.len())
                .filter(|index| {
                    let qual = self.quals[*index];
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
            let mut quals: Vec<*mut Node> = conditions.iter().map(|i| self.quals[*i]).collect();
            for (index, qual) in self.quals.iter().enumerate() {
                if !conditions.contains(&index) {
                    quals.extend(implied_by(*qual, &members));
                }
            }
            let from: Vec<*mut Node> = items
                .iter()
                .map(|item| node::copy(self.items[*item].node))
                .collect();
            (*part).jointree = pg_sys::makeFromExpr(list::from(from), split::conjunction(&quals));
            (*part).hasSubLinks = node::has_sublink((*part).jointree.cast());
            for (index, member) in members.iter().enumerate() {
                let number = index as i32 + 1;
                if number != *member {
                    node::renumber(part.cast(), *member, number);
                }
            }
            // one level more than before
            node::shift_levels(part.cast(), 1, 1);
            move_with(part, 0, 1);
            part
        }
    }

    /// Unites items of shards whose rows are neighbours, then adds what is on every node and joined with them.
    pub unsafe fn merge(&mut self) -> Result<()> {
        unsafe {
            let mut pieces: Vec<Vec<usize>> = (0..self.items.len())
                .filter(|item| {
                    self.items[*item].place == Place::Shards && !self.items[*item].node.is_null()
                })
                .map(|item| vec![item])
                .collect();
            'again: loop {
                for a in 0..pieces.len() {
                    for b in a + 1..pieces.len() {
                        let union: Vec<usize> = [&pieces[a][..], &pieces[b]].concat();
                        if self.runs(&union)? {
                            pieces[a] = union;
                            pieces.remove(b);
                            continue 'again;
                        }
                    }
                }
                break;
            }
            pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
            self.pieces = pieces;
            self.attach()
        }
    }

    /// Adds to pieces what is on every node and joined with them.
    pub unsafe fn attach(&mut self) -> Result<()> {
        unsafe {
            let mut attached = true;
            while attached {
                attached = false;
                for item in 0..self.items.len() {
                    if self.pieces.iter().any(|piece| piece.contains(&item))
                        || self.items[item].place == Place::Shards
                        || self.items[item].node.is_null()
                    {
                        continue;
                    }
                    for index in 0..self.pieces.len() {
                        let members = self.members(&self.pieces[index]);
                        let needs = &self.items[item].needs;
                        let belongs = if needs.is_empty() {
                            self.items[item].place == Place::Everywhere
                                && self.is_joined(&self.pieces[index], item)
                        } else {
                            needs.iter().all(|varno| members.contains(varno))
                        };
                        if !belongs {
                            continue;
                        }
                        let union = [&self.pieces[index][..], &[item]].concat();
                        if self.runs(&union)? {
                            self.pieces[index] = union;
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
            match (*entry).rtekind {
                RTEKind::RTE_RELATION => conditions
                    .iter()
                    .any(|index| node::has_sublink(self.quals[*index])),
                // it is a leaf by itself, too, and keeps its order then
                RTEKind::RTE_SUBQUERY => {
                    !conditions.is_empty() && (*(*entry).subquery).sortClause.is_null()
                }
                _ => true,
            }
        }
    }

    /// Makes each piece that is worth it a subquery, and that a leaf.
    ///
    /// # Safety
    /// The query is not used by others.
    pub unsafe fn make_subqueries(&mut self) -> Result<()> {
        unsafe {
            for piece in std::mem::take(&mut self.pieces) {
                if self.is_worth_a_leaf(&piece) {
                    let item = self.wrap(&piece)?;
                    let reference = self.items[item].node.cast::<pg_sys::RangeTblRef>();
                    split::transform_piece((*self.entry((*reference).rtindex)).subquery)?;
                }
            }
            self.rebuild();
            Ok(())
        }
    }

    /// Puts items and the conditions that are theirs alone into a subquery; answers the item that it is.
    ///
    /// # Safety
    /// As `make_subqueries`.
    pub unsafe fn wrap(&mut self, piece: &[usize]) -> Result<usize> {
        unsafe {
            let (subquery, units, members) = self.take(piece)?;
            let entry = subquery_entry(subquery);
            Ok(self.put(entry, &units, &members, Place::Shards))
        }
    }

    /// What `take` would give columns for.
    pub unsafe fn outputs(&mut self, piece: &[usize]) -> Vec<*mut Node> {
        unsafe {
            let conditions = self.own_conditions(piece);
            let (items, quals) = self.without(piece, &conditions);
            let units = units_of(self.query, &self.members(piece));
            for (item, from) in piece.iter().zip(items) {
                self.items[*item].node = from;
            }
            self.quals = quals;
            self.rebuild();
            units
        }
    }

    unsafe fn own_conditions(&self, piece: &[usize]) -> Vec<usize> {
        unsafe {
            let mut conditions = self.conditions(piece, true);
            let sublinks = conditions
                .iter()
                .any(|index| node::has_sublink(self.quals[*index]));
            if sublinks && !matches!(sendable(self.part(piece, true)), Ok(true)) {
                conditions.retain(|index| !node::has_sublink(self.quals[*index]));
            }
            conditions
        }
    }

    /// The query without items and conditions; answers both as they were.
    unsafe fn without(
        &mut self,
        piece: &[usize],
        conditions: &[usize],
    ) -> (Vec<*mut Node>, Vec<*mut Node>) {
        unsafe {
            let items = piece
                .iter()
                .map(|item| std::mem::replace(&mut self.items[*item].node, std::ptr::null_mut()))
                .collect();
            let quals = self.quals.clone();
            self.quals = quals
                .iter()
                .enumerate()
                .filter(|(index, _)| !conditions.contains(index))
                .map(|(_, qual)| *qual)
                .collect();
            self.rebuild();
            (items, quals)
        }
    }

    /// Takes items and their conditions out of the query: as a Query of its own, with the columns that it gives.
    pub unsafe fn take(
        &mut self,
        piece: &[usize],
    ) -> Result<(*mut Query, Vec<*mut Node>, Vec<i32>)> {
        unsafe {
            let conditions = self.own_conditions(piece);
            let members = self.members(piece);
            let units = self.outputs(piece);
            let targets = if units.is_empty() {
                list::from([pg_sys::makeTargetEntry(
                    expr::int4(1).cast(),
                    1,
                    node::pstrdup("c1"),
                    false,
                )])
            } else {
                split::targets(&units)
            };
            let subquery = self.part_with(piece, &conditions, targets);
            self.without(piece, &conditions);
            for member in &members {
                retire(self.entry(*member));
            }
            Ok((subquery, units, members))
        }
    }

    /// Puts an entry with the columns `units` in the place of what `take` took; answers the item that it is.
    pub unsafe fn put(
        &mut self,
        entry: *mut RangeTblEntry,
        units: &[*mut Node],
        members: &[i32],
        place: Place,
    ) -> usize {
        unsafe {
            (*self.query).rtable = pg_sys::lappend((*self.query).rtable, entry.cast());
            let rtindex = list::len((*self.query).rtable) as i32;
            let reference = node::make::<pg_sys::RangeTblRef>();
            (*reference).rtindex = rtindex;
            let item = self.add_item(reference.cast(), place);
            self.rebuild();
            replace_columns(self.query, members, units, rtindex);
            self.reread();
            item
        }
    }

    /// The level as it is now.
    ///
    /// # Safety
    /// As `make_subqueries`.
    pub unsafe fn save(&mut self) -> Saved {
        unsafe {
            self.rebuild();
            Saved {
                query: node::copy(self.query),
                items: self.items.clone(),
                pieces: self.pieces.clone(),
            }
        }
    }

    /// Makes the level what it was when it was saved.
    ///
    /// # Safety
    /// As `make_subqueries`; the level is the one that was saved.
    pub unsafe fn bring_back(&mut self, saved: &Saved) {
        unsafe {
            let copy: *mut Query = node::copy(saved.query);
            std::ptr::copy_nonoverlapping(copy, self.query, 1);
            self.items.clone_from(&saved.items);
            self.pieces.clone_from(&saved.pieces);
            self.reread();
        }
    }

    /// The items that are there: those that refer to others come behind these, which PostgreSQL's planner relies on.
    fn in_order(&self) -> Vec<usize> {
        let mut present: Vec<usize> = (0..self.items.len())
            .filter(|item| !self.items[*item].node.is_null())
            .collect();
        present.sort_by_key(|item| !self.is_independent(*item));
        present
    }

    /// Gives the query the items and conditions as they are now.
    ///
    /// # Safety
    /// As `make_subqueries`.
    pub unsafe fn rebuild(&mut self) {
        unsafe {
            let from: Vec<*mut Node> = self
                .in_order()
                .iter()
                .map(|item| self.items[*item].node)
                .collect();
            let quals = self
                .quals
                .iter()
                .fold(std::ptr::null_mut(), |all, qual| expr::and(all, *qual));
            (*self.query).jointree = pg_sys::makeFromExpr(list::from(from), quals);
        }
    }

    /// Takes the items and conditions over from the query, whose expressions have been replaced.
    pub unsafe fn reread(&mut self) {
        unsafe {
            let from = (*self.query).jointree;
            for (item, from) in self
                .in_order()
                .into_iter()
                .zip(list::iter((*from).fromlist))
            {
                self.items[item].node = from;
            }
            self.quals = expr::conjuncts((*from).quals);
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
