//! Subqueries in conditions of a piece: `EXISTS`, `NOT EXISTS`, a value computed of rows, `x IN (SELECT …)`. Their rows move
//! to the shards of what they are compared with, or both move; then the condition runs there, whatever it is part of.

use super::cost::{Size, Sizes};
use super::equality::{self, Column, Equality};
use super::inner::{can_be_stored, keyed, Taken};
use super::load::{Home, Load};
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::broadcast::rows_of_part;
use crate::planner::externals::Externals;
use crate::planner::pieces::trees::{refers_outside, select_from, subquery_entry, varnos};
use crate::planner::pieces::{Level, Place};
use crate::planner::{estimate, mentions_distributed, ship, split};
use pgrx::pg_sys::{self, CmdType, Node, NodeTag, Query, SubLink, SubLinkType};

/// Moves rows of subqueries as far as it is worth it; answers how often rows move.
///
/// # Safety
/// The level's query is owned by the caller.
pub unsafe fn conditions(
    level: &mut Level,
    externals: &mut Externals,
    forced: bool,
) -> Result<usize> {
    unsafe {
        let mut moves = 0;
        let mut number = 0;
        while let Some(index) = with_sublinks(level).get(number).copied() {
            number += 1;
            let mut condition = Condition {
                level,
                externals,
                forced,
                index,
                piece: Vec::new(),
            };
            moves += condition.settle()?;
        }
        Ok(moves)
    }
}

/// The conditions of the level that have subqueries.
unsafe fn with_sublinks(level: &Level) -> Vec<usize> {
    unsafe {
        (0..level.quals.len())
            .filter(|index| node::has_sublink(level.quals[*index]))
            .collect()
    }
}

/// A condition of the level, and the piece that it speaks of.
struct Condition<'a> {
    level: &'a mut Level,
    externals: &'a mut Externals,
    forced: bool,
    index: usize,
    piece: Vec<usize>,
}

/// What a subquery in the condition would have moved.
struct Choice {
    /// Of what comes out of the subquery's rows, and of the piece's column.
    equality: Equality,
    home: Home,
    /// The rows of the piece move, too.
    both: bool,
    sizes: Sizes,
}

impl Condition<'_> {
    /// Makes the condition one that runs on shards; answers how often rows move for it.
    unsafe fn settle(&mut self) -> Result<usize> {
        unsafe {
            let qual = self.qual();
            let speaks_of = varnos(qual);
            let found = self.level.pieces.iter().find(|piece| {
                let members = self.level.members(piece);
                !self.level.is_optional_alone(piece)
                    && speaks_of.iter().all(|varno| members.contains(varno))
            });
            let Some(piece) = found.filter(|_| !speaks_of.is_empty()) else {
                return Ok(0);
            };
            self.piece.clone_from(piece);
            if refers_outside(qual)
                || ship::obstacle(qual).is_some()
                || self.level.runs_with(&self.piece, self.index)?
            {
                return Ok(0);
            }
            let saved = self.level.save();
            let mut moves = 0;
            for number in 0..sublinks(self.qual()).len() {
                let sublink = sublinks(self.qual())[number];
                let subquery = (*sublink).subselect.cast::<Query>();
                if mentions_distributed(subquery) {
                    moves += match (*sublink).subLinkType {
                        SubLinkType::ANY_SUBLINK => self.move_members(number)?,
                        SubLinkType::EXISTS_SUBLINK | SubLinkType::EXPR_SUBLINK => {
                            self.move_rows(number)?
                        }
                        _ => 0,
                    };
                }
            }
            if moves > 0 && self.level.runs_with(&self.piece, self.index)? {
                self.level.merge()?;
                return Ok(moves);
            }
            // rows of the piece may have moved for nothing
            self.level.bring_back(&saved);
            Ok(0)
        }
    }

    fn qual(&self) -> *mut Node {
        self.level.quals[self.index]
    }

    /// Moves the rows in FROM of a subquery that depends on the piece.
    unsafe fn move_rows(&mut self, number: usize) -> Result<usize> {
        unsafe {
            let sublink = sublinks(self.qual())[number];
            let subquery = (*sublink).subselect.cast::<Query>();
            let exists = (*sublink).subLinkType == SubLinkType::EXISTS_SUBLINK;
            if !is_plain(subquery, exists) {
                return Ok(0);
            }
            if exists {
                // nobody looks at what it selects
                (*subquery).targetList = split::targets(&[expr::int4(1).cast()]);
                (*subquery).distinctClause = std::ptr::null_mut();
                (*subquery).hasDistinctOn = false;
                (*subquery).sortClause = std::ptr::null_mut();
            }
            let Some(mut below) = Level::of(subquery)? else {
                return Ok(0);
            };
            let items: Vec<usize> = (0..below.items.len()).collect();
            let part = below.part(&items, false);
            if items.is_empty()
                || !items.iter().all(|item| below.is_independent(*item))
                || refers_outside(part.cast())
                || pg_sys::contain_volatile_functions(part.cast())
            {
                return Ok(0);
            }
            below.rebuild();
            let columns = below.outputs(&items);
            let size = Size::of_columns(rows_of_part(&below, part), &columns);
            let members = below.members(&items);
            let equalities = (0..below.quals.len())
                .filter_map(|qual| correlation(below.quals[qual], qual, &members))
                .collect::<Vec<_>>();
            let Some(choice) = self.best(&equalities, &columns, size, subquery)? else {
                return Ok(0);
            };
            if choice.both && !self.move_piece(&choice, true)? {
                return Ok(0);
            }
            // the move of the piece has replaced its columns in here
            let Some(mut below) = Level::of(subquery)? else {
                return Ok(0);
            };
            let items: Vec<usize> = (0..below.items.len()).collect();
            let members = below.members(&items);
            let number = choice.equality.number;
            let qual = below.quals[number];
            let Some(equality) = correlation(qual, number, &members) else {
                return Ok(0);
            };
            let Some(by) = equality::columns(below.query, qual, &equality, &[0]).pop() else {
                return Ok(0);
            };
            let computed = by.computed;
            let taken = below.take(&items)?;
            if let Some(value) = computed {
                equality::compute(taken.query, &members, value);
            }
            let load = self.load(&choice, taken.query, &taken.units, by);
            let Some(entry) = load.entry(self.externals)? else {
                return Ok(0);
            };
            below.put(entry, &taken, Place::Shards);
            Ok(1 + usize::from(choice.both))
        }
    }

    /// Moves what a subquery selects that something of the piece is looked for in.
    unsafe fn move_members(&mut self, number: usize) -> Result<usize> {
        unsafe {
            let sublink = sublinks(self.qual())[number];
            let subquery = (*sublink).subselect.cast::<Query>();
            if !std::ptr::eq(sublink.cast(), self.qual())
                || split::is_correlated(subquery)
                || split::reads_outer_cte(subquery)
                || pg_sys::contain_volatile_functions(subquery.cast())
            {
                return Ok(0);
            }
            let Some((values, collation)) = equality::arguments((*sublink).testexpr) else {
                return Ok(0);
            };
            let Some(param) = values
                .iter()
                .position(|value| node::cast::<pg_sys::Param>(*value).is_some())
            else {
                return Ok(0);
            };
            let column = expr::var(1, 1, expr::signature(values[param]));
            let equality = Equality::new(0, collation, [column.cast(), values[1 - param]], param);
            let columns = [column.cast::<Node>()];
            let size = Size::of_columns(estimate::rows_of(subquery), &columns);
            let Some(choice) = self.best(&[equality], &columns, size, subquery)? else {
                return Ok(0);
            };
            if choice.both && !self.move_piece(&choice, false)? {
                return Ok(0);
            }
            let by = Column {
                var: column,
                computed: None,
                name: first_column(subquery),
            };
            let rows = select_from(subquery_entry(subquery), split::targets(&columns));
            let load = self.load(&choice, rows, &columns, by);
            let Some(entry) = load.entry(self.externals)? else {
                return Ok(0);
            };
            let sublink = sublinks(self.qual())[number];
            (*sublink).subselect = select_from(entry, split::targets(&columns)).cast();
            Ok(1 + usize::from(choice.both))
        }
    }

    fn load<'b>(
        &self,
        choice: &'b Choice,
        rows: *mut Query,
        units: &'b [*mut Node],
        by: Column,
    ) -> Load<'b> {
        Load {
            rows,
            units,
            by,
            home: &choice.home,
            keep: false,
            estimate: choice.sizes.moved[0].rows,
            reason: choice.sizes.reason(self.forced),
        }
    }

    /// The move that is worth most, of those that the equalities allow.
    unsafe fn best(
        &mut self,
        equalities: &[Equality],
        columns: &[*mut Node],
        size: Size,
        subquery: *mut Query,
    ) -> Result<Option<Choice>> {
        unsafe {
            let members = self.level.members(&self.piece);
            let piece = Size::of_columns(
                rows_of_part(self.level, self.level.part(&self.piece, false)),
                &self.level.outputs(&self.piece),
            );
            let joined = Size::of_items(self.level, &self.piece);
            let mut choices = Vec::new();
            for equality in equalities {
                let Some(var) = equality::column(equality.values[1])
                    .filter(|var| members.contains(&(**var).varno) && (**var).varattno > 0)
                else {
                    continue;
                };
                if !can_be_stored(columns, equality.values[0]) {
                    continue;
                }
                let part = self
                    .level
                    .part_of(&self.piece, split::targets(&[var.cast()]));
                let (home, both) = match keyed(part, equality, 1)? {
                    Some(home) => (home, false),
                    None => match self.common_home(equality, subquery)? {
                        Some(home) => (home, true),
                        None => continue,
                    },
                };
                let mut moved = vec![size];
                moved.extend(both.then_some(piece));
                let sizes = Sizes {
                    moved,
                    stays: (!both).then_some(piece),
                    beside: Vec::new(),
                    joined,
                    returned: None,
                };
                if sizes.are_known() {
                    let gain = sizes.gain(home.groups(), home.nodes(), self.forced);
                    choices.push((
                        gain,
                        Choice {
                            equality: *equality,
                            home,
                            both,
                            sizes,
                        },
                    ));
                }
            }
            Ok(choices
                .into_iter()
                .filter(|(gain, _)| self.forced || *gain > 0.0)
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .map(|(_, choice)| choice))
        }
    }

    /// Shards to which the rows of the piece and of the subquery can move.
    unsafe fn common_home(
        &mut self,
        equality: &Equality,
        subquery: *mut Query,
    ) -> Result<Option<Home>> {
        unsafe {
            let part = self.level.part(&self.piece, false);
            // other subqueries may be tied to where the rows are now
            let others = with_sublinks(self.level)
                .iter()
                .any(|index| *index != self.index);
            if others
                || pg_sys::contain_volatile_functions(part.cast())
                || !equality::can_be_hashed(&equality.values, equality.collation)
                || !can_be_stored(&self.level.outputs(&self.piece), equality.values[1])
            {
                return Ok(None);
            }
            let mut homes = Home::all_in(part)?;
            homes.extend(Home::all_in(subquery)?);
            Ok(Home::for_hashes(homes))
        }
    }

    /// Moves the rows of the piece by its column; false: they cannot.
    unsafe fn move_piece(&mut self, choice: &Choice, keep: bool) -> Result<bool> {
        unsafe {
            let Some(var) = equality::column(choice.equality.values[1]) else {
                return Ok(false);
            };
            let by = Column {
                var,
                computed: None,
                name: equality::name(self.level.query, var.cast()),
            };
            let before = with_sublinks(self.level)
                .iter()
                .position(|index| *index == self.index);
            let taken = Taken {
                items: self.piece.clone(),
                by,
                home: &choice.home,
                keep,
                estimate: choice.sizes.moved[1].rows,
                reason: choice.sizes.reason(self.forced),
            };
            let Some(item) = taken.carry_out(self.level, self.externals)? else {
                return Ok(false);
            };
            self.piece = vec![item];
            // conditions of the piece have gone with it
            let after = before.and_then(|place| with_sublinks(self.level).get(place).copied());
            self.index = after.unwrap_or(self.index);
            Ok(after.is_some())
        }
    }
}

/// The subqueries in an expression, not those in others.
unsafe fn sublinks(qual: *mut Node) -> Vec<*mut SubLink> {
    let mut found = Vec::new();
    // SAFETY: a valid expression.
    unsafe {
        node::walk(qual, &mut |item, _| {
            if let Some(sublink) = node::cast::<SubLink>(item) {
                found.push(sublink);
            }
            match node::tag(item) {
                NodeTag::T_Query => Step::Over,
                _ => Step::Into,
            }
        });
    }
    found
}

/// Is there nothing between the rows of a subquery and what it answers that depends on more than its rows?
unsafe fn is_plain(query: *mut Query, exists: bool) -> bool {
    unsafe {
        (*query).commandType == CmdType::CMD_SELECT
            && (*query).groupClause.is_null()
            && (*query).groupingSets.is_null()
            && (*query).havingQual.is_null()
            && (*query).windowClause.is_null()
            && (*query).limitOffset.is_null()
            && (*query).limitCount.is_null()
            && (*query).setOperations.is_null()
            && (*query).cteList.is_null()
            && (*query).rowMarks.is_null()
            && !(*query).hasTargetSRFs
            && !(*query).hasSubLinks
            && (*query).hasAggs != exists
            && ship::obstacle((*query).targetList.cast()).is_none()
    }
}

/// `value = column around`, where the value is one of the subquery's rows.
unsafe fn correlation(qual: *mut Node, number: usize, members: &[i32]) -> Option<Equality> {
    unsafe {
        let (values, collation) = equality::arguments(qual)?;
        (0..2).find_map(|inner| {
            let around = equality::column(values[1 - inner])?;
            let ours = equality::is_of(values[inner], members) && (*around).varlevelsup == 1;
            let around = node::copy(around);
            (*around).varlevelsup = 0;
            ours.then(|| Equality::new(number, collation, [values[inner], around.cast()], inner))
        })
    }
}

/// How EXPLAIN names what a subquery selects.
unsafe fn first_column(subquery: *mut Query) -> String {
    unsafe {
        let column = list::nth::<pg_sys::TargetEntry>((*subquery).targetList, 0);
        if (*subquery).setOperations.is_null() {
            return equality::name(subquery, (*column).expr.cast());
        }
        std::ffi::CStr::from_ptr((*column).resname)
            .to_string_lossy()
            .into_owned()
    }
}
