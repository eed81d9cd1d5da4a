//! Taking items out of a level and putting others in their place.

use super::trees::{members_of, reference, replace_columns, retire, subquery_entry, units_of};
use super::{joins, sendable, split, Item, Level, Place, Saved, Taken};
use crate::error::Result;
use crate::pg::{expr, list, node};
use pgrx::pg_sys::{self, JoinType, Node, Query, RangeTblEntry};

impl Level {
    /// Makes a join that is an operand a subquery; of a full join, the joins that are its sides.
    pub(super) unsafe fn look_into(&mut self, item: usize) -> Result<()> {
        unsafe {
            let Some(join) = node::cast::<pg_sys::JoinExpr>(self.items[item].node) else {
                return Ok(());
            };
            if (*join).jointype == JoinType::JOIN_FULL {
                self.look_into_sides(item);
                return Ok(());
            }
            if self.is_optional(item) {
                self.wrap(&[item], Place::Here)?;
            }
            Ok(())
        }
    }

    /// Puts items and the conditions that are theirs alone into a subquery, which it answers.
    ///
    /// # Safety
    /// As `make_subqueries`.
    pub unsafe fn wrap(&mut self, piece: &[usize], place: Place) -> Result<*mut Query> {
        unsafe {
            let taken = self.take(piece)?;
            let item = self.put(subquery_entry(taken.query), &taken, place);
            let reference = self.items[item].node.cast::<pg_sys::RangeTblRef>();
            Ok((*self.entry((*reference).rtindex)).subquery)
        }
    }

    /// What `take` would give columns for.
    pub unsafe fn outputs(&mut self, piece: &[usize]) -> Vec<*mut Node> {
        unsafe {
            let conditions = self.own_conditions(piece);
            self.outputs_with(piece, &conditions)
        }
    }

    unsafe fn outputs_with(&mut self, piece: &[usize], conditions: &[usize]) -> Vec<*mut Node> {
        unsafe {
            let (items, quals) = (self.items.clone(), self.quals.clone());
            self.without(piece, conditions);
            let units = units_of(self.query, &self.members(piece));
            self.items = items;
            self.quals = quals;
            self.rebuild();
            units
        }
    }

    pub(super) unsafe fn own_conditions(&self, piece: &[usize]) -> Vec<usize> {
        unsafe {
            let mut conditions = self.conditions(piece, true);
            let quals = self.quals_about(piece);
            let sublinks = conditions
                .iter()
                .any(|index| node::has_sublink(quals[*index]));
            if sublinks && !matches!(sendable(self.part(piece, true)), Ok(true)) {
                conditions.retain(|index| !node::has_sublink(quals[*index]));
            }
            conditions
        }
    }

    /// Leaves out items and their conditions. What else the condition of a LEFT JOIN says stays.
    unsafe fn without(&mut self, piece: &[usize], conditions: &[usize]) {
        unsafe {
            let left: Vec<*mut Node> = self
                .quals_about(piece)
                .iter()
                .enumerate()
                .filter(|(index, _)| !conditions.contains(index))
                .map(|(_, qual)| *qual)
                .collect();
            if self.is_optional_alone(piece) {
                self.items[piece[0]].on = Some(left);
                let none = std::ptr::null_mut();
                self.items[piece[0]].node = pg_sys::makeFromExpr(std::ptr::null_mut(), none).cast();
            } else {
                self.quals = left;
                for item in piece {
                    self.items[*item].node = std::ptr::null_mut();
                }
            }
            self.park();
        }
    }

    /// Takes items out of the query, to run on the shards, with those of their conditions that can run there.
    pub unsafe fn take(&mut self, piece: &[usize]) -> Result<Taken> {
        unsafe {
            let conditions = self.own_conditions(piece);
            self.take_with(piece, &conditions)
        }
    }

    /// Takes items and all of their conditions out of the query.
    pub unsafe fn take_here(&mut self, piece: &[usize]) -> Result<Taken> {
        unsafe {
            let conditions = self.conditions(piece, true);
            self.take_with(piece, &conditions)
        }
    }

    unsafe fn take_with(&mut self, piece: &[usize], conditions: &[usize]) -> Result<Taken> {
        unsafe {
            let members = self.members(piece);
            let units = self.outputs_with(piece, conditions);
            let query = self.part_with(piece, conditions, targets_of(&units));
            let alone = self.is_optional_alone(piece);
            self.without(piece, conditions);
            for item in piece {
                self.items[*item].node = std::ptr::null_mut();
            }
            for member in &members {
                retire(self.entry(*member));
            }
            let on = self.items[piece[0]].on.clone().filter(|_| alone);
            Ok(Taken {
                query,
                units,
                members,
                on,
            })
        }
    }

    /// Puts an entry in the place of what was taken; answers the item that it is.
    pub unsafe fn put(&mut self, entry: *mut RangeTblEntry, taken: &Taken, place: Place) -> usize {
        unsafe {
            (*self.query).rtable = pg_sys::lappend((*self.query).rtable, entry.cast());
            let rtindex = list::len((*self.query).rtable) as i32;
            let item = self.add_item(reference(rtindex), place);
            self.items[item].on.clone_from(&taken.on);
            self.park();
            replace_columns(self.query, &taken.members, &taken.units, rtindex);
            self.reread();
            self.rebuild();
            item
        }
    }

    /// Makes the joins that are sides of a full join subqueries.
    unsafe fn look_into_sides(&mut self, item: usize) {
        unsafe {
            for left in [true, false] {
                let join = self.items[item].node.cast::<pg_sys::JoinExpr>();
                let side = if left { (*join).larg } else { (*join).rarg };
                if node::cast::<pg_sys::JoinExpr>(side).is_none() {
                    continue;
                }
                self.wrap_side(item, left, side);
            }
        }
    }

    /// Puts one side of a full join into a subquery.
    unsafe fn wrap_side(&mut self, item: usize, left: bool, side: *mut Node) {
        unsafe {
            let operand = |level: &Level| {
                let join = level.items[item].node.cast::<pg_sys::JoinExpr>();
                if left {
                    &raw mut (*join).larg
                } else {
                    &raw mut (*join).rarg
                }
            };
            let members = members_of(side);
            let none = std::ptr::null_mut();
            *operand(self) = pg_sys::makeFromExpr(std::ptr::null_mut(), none).cast();
            self.park();
            let units = units_of(self.query, &members);
            let alone = Level {
                query: self.query,
                items: vec![Item {
                    node: side,
                    members: members.clone(),
                    needs: Vec::new(),
                    place: Place::Here,
                    on: None,
                }],
                quals: Vec::new(),
                pieces: Vec::new(),
                full: false,
                joins: Vec::new(),
            };
            let subquery = alone.part_with(&[0], &[], targets_of(&units));
            for member in &members {
                retire(self.entry(*member));
            }
            (*self.query).rtable =
                pg_sys::lappend((*self.query).rtable, subquery_entry(subquery).cast());
            let rtindex = list::len((*self.query).rtable) as i32;
            *operand(self) = reference(rtindex);
            self.park();
            replace_columns(self.query, &members, &units, rtindex);
            self.reread();
            let join = self.items[item].node.cast::<pg_sys::JoinExpr>();
            self.forget_join(join);
            joins::give_entry(self.query, join);
            self.items[item].members = members_of(join.cast());
            self.rebuild();
        }
    }

    /// The level as it is now.
    ///
    /// # Safety
    /// As `make_subqueries`.
    pub unsafe fn save(&mut self) -> Saved {
        unsafe {
            self.park();
            let saved = Saved {
                query: node::copy(self.query),
                items: self.items.clone(),
                pieces: self.pieces.clone(),
                joins: self.joins.clone(),
            };
            self.rebuild();
            saved
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
            self.joins.clone_from(&saved.joins);
            self.reread();
            self.rebuild();
        }
    }

    /// The items that are there.
    pub fn present(&self) -> Vec<usize> {
        (0..self.items.len())
            .filter(|item| !self.items[*item].node.is_null())
            .collect()
    }

    /// Items in an order in which each comes behind those that it refers to, which PostgreSQL's planner relies on.
    pub(super) unsafe fn in_order(&self, items: &[usize]) -> Vec<usize> {
        unsafe {
            let (mut waiting, mut ordered): (Vec<usize>, Vec<usize>) =
                items.iter().partition(|item| self.is_optional(**item));
            ordered.sort_by_key(|item| !self.is_independent(*item));
            while !waiting.is_empty() {
                let elsewhere = self.members(&waiting);
                let next = waiting
                    .iter()
                    .position(|item| {
                        self.partners(*item)
                            .iter()
                            .all(|varno| !elsewhere.contains(varno))
                    })
                    .unwrap_or(0);
                ordered.push(waiting.remove(next));
            }
            ordered
        }
    }

    /// Gives the query the items and conditions as they are now.
    ///
    /// # Safety
    /// As `make_subqueries`.
    pub unsafe fn rebuild(&mut self) {
        unsafe {
            let operands: Vec<(*mut Node, Option<*mut Node>)> = self
                .in_order(&self.present())
                .into_iter()
                .map(|item| &self.items[item])
                .map(|item| (item.node, item.on.as_ref().map(|on| all_of(on))))
                .collect();
            let from = joins::from_clause(self.query, &operands, self.kind(), &mut self.joins);
            (*self.query).jointree = pg_sys::makeFromExpr(from, split::conjunction(&self.quals));
        }
    }

    /// Leaves the items and conditions in the query only to be looked at or changed there, until the next `rebuild`.
    unsafe fn park(&mut self) {
        unsafe {
            let present = self.present();
            let operands: Vec<(*mut Node, Option<*mut Node>)> = present
                .into_iter()
                .map(|item| &self.items[item])
                .map(|item| (item.node, item.on.as_ref().map(|on| conjuncts_as_one(on))))
                .collect();
            (*self.query).jointree = side_by_side(&operands, conjuncts_as_one(&self.quals));
        }
    }

    /// Takes the items and conditions over from the query, where they were parked and have been changed.
    unsafe fn reread(&mut self) {
        unsafe {
            let from = (*self.query).jointree;
            let present = self.present();
            let mut quals = list::iter::<pg_sys::BoolExpr>((*from).quals.cast::<pg_sys::List>())
                .map(|all| list::iter::<Node>((*all).args).collect::<Vec<_>>());
            self.quals = quals.next().unwrap_or_default();
            for (item, from) in present.into_iter().zip(list::iter((*from).fromlist)) {
                self.items[item].node = from;
                if self.items[item].on.is_some() {
                    self.items[item].on = quals.next();
                }
            }
        }
    }
}

/// Operands and all conditions, apart from each other: a tree to be walked, not planned.
pub(super) unsafe fn side_by_side(
    operands: &[(*mut Node, Option<*mut Node>)],
    quals: *mut Node,
) -> *mut pg_sys::FromExpr {
    unsafe {
        let from = list::from(operands.iter().map(|(operand, _)| *operand));
        let conditions = operands.iter().filter_map(|(_, on)| *on);
        let all = [quals]
            .into_iter()
            .chain(conditions)
            .filter(|qual| !qual.is_null());
        pg_sys::makeFromExpr(from, list::from(all).cast())
    }
}

/// Conjuncts as one node, however many they are.
unsafe fn conjuncts_as_one(quals: &[*mut Node]) -> *mut Node {
    unsafe {
        let all = list::from(quals.iter().copied());
        pg_sys::makeBoolExpr(pg_sys::BoolExprType::AND_EXPR, all, -1).cast()
    }
}

/// The condition of a join, which is there even if it says nothing.
pub(super) unsafe fn all_of(quals: &[*mut Node]) -> *mut Node {
    unsafe {
        if quals.is_empty() {
            return pg_sys::makeBoolConst(true, false);
        }
        split::conjunction(quals)
    }
}

/// A target list of columns that are asked for, or of something, if none is.
unsafe fn targets_of(units: &[*mut Node]) -> *mut pg_sys::List {
    unsafe {
        if units.is_empty() {
            let name = node::pstrdup("c1");
            return list::from([pg_sys::makeTargetEntry(
                expr::int4(1).cast(),
                1,
                name,
                false,
            )]);
        }
        split::targets(units)
    }
}
