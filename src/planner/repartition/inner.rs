//! Operands of the level's join: one moves to the shards of another, or two move to shards of both. What an outer join
//! keeps moves with the rows that match nothing.

use super::cost::{self, Size, Sizes, Terms};
use super::equality::{self, Column, Equality};
use super::load::{Home, Load};
use crate::error::Result;
use crate::pg::{expr, list};
use crate::planner::analysis::Analysis;
use crate::planner::broadcast::level_estimate;
use crate::planner::externals::Externals;
use crate::planner::pieces::{Level, Place};
use crate::planner::{decorrelate, moved, split};
use pgrx::pg_sys::{self, Node};

/// A move of one or two operands.
struct Choice {
    /// The operands of the equality; those that move.
    operands: [Vec<usize>; 2],
    moves: Vec<usize>,
    /// Which of the operands has the condition with the equality: the nullable side of a LEFT JOIN, or one of a full join.
    optional: Option<usize>,
    equality: Equality,
    home: Home,
    gain: f64,
    reason: String,
}

/// Moves operands as far as it is worth it; answers how often. None: it came to nothing.
///
/// # Safety
/// The level's query is owned by the caller.
pub unsafe fn operands(
    level: &mut Level,
    externals: &mut Externals,
    terms: &Terms,
) -> Result<Option<usize>> {
    unsafe {
        let mut moves = 0;
        while let Some(choice) = best(level, terms)? {
            if !carry_out(level, &choice, externals)? {
                return Ok(None);
            }
            moves += choice.moves.len();
        }
        Ok(Some(moves))
    }
}

/// The move that is worth most.
unsafe fn best(level: &mut Level, terms: &Terms) -> Result<Option<Choice>> {
    unsafe {
        let mut operands: Vec<Vec<usize>> = level.pieces.clone();
        for item in 0..level.items.len() {
            if !level.items[item].node.is_null()
                && level.items[item].place == Place::Here
                && level.is_independent(item)
            {
                operands.push(vec![item]);
            }
        }
        let mut best: Option<Choice> = None;
        for (index, first) in operands.iter().enumerate() {
            for second in &operands[index + 1..] {
                for choice in between(level, first, second, terms)? {
                    if best.as_ref().is_none_or(|known| choice.gain > known.gain) {
                        best = Some(choice);
                    }
                }
            }
        }
        Ok(best.filter(|choice| terms.forced || choice.gain > 0.0))
    }
}

/// The moves of two operands that their conditions allow.
unsafe fn between(
    level: &mut Level,
    first: &[usize],
    second: &[usize],
    terms: &Terms,
) -> Result<Vec<Choice>> {
    unsafe {
        let operands = [first.to_vec(), second.to_vec()];
        let optional = (0..2).find(|operand| level.is_optional_alone(&operands[*operand]));
        if let Some(optional) = optional {
            let kept = &operands[1 - optional];
            if level.is_optional_alone(kept) || !level.would_join(kept, &operands[optional]) {
                return Ok(Vec::new());
            }
        }
        let members = operands.each_ref().map(|items| level.members(items));
        let quals = conditions(level, &operands, optional);
        let equalities = equality::between(&quals, &members[0], &members[1]);
        let mut choices = Vec::new();
        for equality in &equalities {
            for stays in [0, 1] {
                if let Some(home) = home_of(level, &operands[stays], equality, stays)? {
                    let moves = vec![1 - stays];
                    choices.extend(weigh(level, &operands, moves, equality, home, terms)?);
                }
            }
            if !choices.is_empty() {
                return Ok(choices);
            }
        }
        for equality in &equalities {
            if !equality::can_be_hashed(&equality.values, equality.collation) {
                continue;
            }
            let Some(home) = common_home(level, &operands)? else {
                break;
            };
            choices.extend(weigh(level, &operands, vec![0, 1], equality, home, terms)?);
            if !choices.is_empty() {
                break;
            }
        }
        Ok(choices)
    }
}

/// The conditions among which equalities of two operands are.
fn conditions(
    level: &Level,
    operands: &[Vec<usize>; 2],
    optional: Option<usize>,
) -> Vec<*mut Node> {
    match optional {
        Some(optional) => level.items[operands[optional][0]]
            .on
            .clone()
            .unwrap_or_default(),
        None => level.quals.clone(),
    }
}

/// Where an operand is, if the equality compares its key, by which the other one could move.
unsafe fn home_of(
    level: &Level,
    items: &[usize],
    equality: &Equality,
    operand: usize,
) -> Result<Option<Home>> {
    unsafe {
        if !level.pieces.iter().any(|piece| piece == items) {
            return Ok(None);
        }
        let key = equality.values[operand];
        if equality::column(key).is_none() {
            return Ok(None);
        }
        let part = level.part_of(items, split::targets(&[key]));
        keyed(part, equality, operand)
    }
}

/// Where the rows of a Query are, if its only column is their key and can be found by the other value of the equality.
///
/// # Safety
/// `part` is a Query of its own.
pub unsafe fn keyed(
    part: *mut pg_sys::Query,
    equality: &Equality,
    operand: usize,
) -> Result<Option<Home>> {
    unsafe {
        let analysis = Analysis::of(part)?;
        let target = list::nth::<pg_sys::TargetEntry>((*part).targetList, 0);
        let moved = expr::signature(equality.values[1 - operand]);
        if !analysis.contains_key(part, &[(*target).expr.cast()])
            || analysis.scatter_obstacle().is_some()
        {
            return Ok(None);
        }
        let homes = Home::all_in(part)?;
        let hashed = homes.iter().any(|home| home.hashed);
        let alike = |home: &Home| {
            if hashed {
                home.hashed && equality::can_be_hashed(&equality.values, equality.collation)
            } else {
                moved::hashes_alike(&home.colocation, moved, equality.collation)
            }
        };
        Ok(homes.into_iter().find(alike))
    }
}

/// Shards on which rows of both operands can be.
unsafe fn common_home(level: &Level, operands: &[Vec<usize>; 2]) -> Result<Option<Home>> {
    unsafe {
        let (there, here): (Vec<_>, Vec<_>) = operands
            .iter()
            .partition(|operand| level.pieces.contains(operand));
        for operand in there.into_iter().chain(here) {
            if let Some(home) = Home::for_hashes(Home::all_in(level.part(operand, true))?) {
                return Ok(Some(home));
            }
        }
        Ok(None)
    }
}

/// Can the rows of an operand be read for a move, and stored with this value?
unsafe fn can_move(level: &mut Level, items: &[usize], by: *mut Node) -> bool {
    unsafe {
        let part = level.part(items, true);
        !pg_sys::contain_volatile_functions(part.cast()) && can_be_stored(&level.outputs(items), by)
    }
}

/// Can these values be columns of a table on the nodes?
///
/// # Safety
/// Valid expressions.
pub unsafe fn can_be_stored(columns: &[*mut Node], by: *mut Node) -> bool {
    columns
        .iter()
        .chain([&by])
        // SAFETY: as for this function.
        .all(|column| unsafe { moved::column(*column, 0).is_some() })
}

unsafe fn weigh(
    level: &mut Level,
    operands: &[Vec<usize>; 2],
    moves: Vec<usize>,
    equality: &Equality,
    home: Home,
    terms: &Terms,
) -> Result<Option<Choice>> {
    unsafe {
        for operand in &moves {
            if !can_move(level, &operands[*operand], equality.values[*operand]) {
                return Ok(None);
            }
        }
        let each = [
            Size::of_items(level, &operands[0]),
            Size::of_items(level, &operands[1]),
        ];
        let union = operands.concat();
        let joined = Size::of_items(level, &union);
        let whole = level
            .items
            .iter()
            .enumerate()
            .all(|(index, item)| item.node.is_null() || union.contains(&index));
        let returned = whole.then(|| {
            let around = terms.around.as_ref().map(|around| around.returned);
            around.unwrap_or_else(|| cost::returned(level, joined.rows))
        });
        let beside = terms.around.as_ref().map(|around| around.beside.clone());
        let sizes = Sizes {
            moved: moves.iter().map(|operand| each[*operand]).collect(),
            stays: (0..2)
                .find(|operand| !moves.contains(operand))
                .map(|stays| each[stays]),
            beside: beside.unwrap_or_default(),
            joined,
            returned: returned.map(|returned| returned.of_nodes(home.nodes())),
        };
        if !sizes.are_known() {
            return Ok(None);
        }
        let gain = if !terms.forced && decorrelate::wants_few_rows(level.query) {
            0.0
        } else {
            sizes.gain(home.groups(), home.nodes(), terms.forced)
        };
        Ok(Some(Choice {
            operands: operands.clone(),
            moves,
            optional: (0..2).find(|operand| level.is_optional_alone(&operands[*operand])),
            equality: *equality,
            home,
            gain,
            reason: sizes.reason(terms.forced),
        }))
    }
}

/// False: the rows came beside the others, and are no piece with them all the same.
unsafe fn carry_out(level: &mut Level, choice: &Choice, externals: &mut Externals) -> Result<bool> {
    unsafe {
        let qual = conditions(level, &choice.operands, choice.optional)[choice.equality.number];
        let columns = equality::columns(level.query, qual, &choice.equality, &choice.moves);
        let mut items: Vec<usize> = Vec::new();
        for (operand, by) in choice.moves.iter().zip(columns) {
            let moved = Taken {
                items: choice.operands[*operand].clone(),
                by,
                home: &choice.home,
                keep: level.full || choice.optional.is_some_and(|optional| optional != *operand),
                estimate: level_estimate(level, &choice.operands[*operand]),
                reason: choice.reason.clone(),
            };
            let Some(item) = moved.carry_out(level, externals)? else {
                return Ok(false);
            };
            items.push(item);
        }
        level.merge()?;
        let stays = (0..2).find(|operand| !choice.moves.contains(operand));
        if let Some(stays) = stays {
            items.extend(&choice.operands[stays]);
        }
        Ok(level
            .pieces
            .iter()
            .any(|piece| items.iter().all(|item| piece.contains(item))))
    }
}

/// Items of the level that move.
pub struct Taken<'a> {
    pub items: Vec<usize>,
    pub by: Column,
    pub home: &'a Home,
    pub keep: bool,
    pub estimate: f64,
    pub reason: String,
}

impl Taken<'_> {
    /// Answers the item that stands for the rows; None: they cannot move.
    ///
    /// # Safety
    /// The level's query is owned by the caller.
    pub unsafe fn carry_out(
        self,
        level: &mut Level,
        externals: &mut Externals,
    ) -> Result<Option<usize>> {
        unsafe {
            let members = level.members(&self.items);
            let taken = level.take(&self.items)?;
            if let Some(value) = self.by.computed {
                equality::compute(taken.query, &members, value);
            }
            let load = Load {
                rows: taken.query,
                units: &taken.units,
                by: self.by,
                home: self.home,
                keep: self.keep,
                estimate: self.estimate,
                reason: self.reason,
            };
            let Some(entry) = load.entry(externals)? else {
                return Ok(None);
            };
            Ok(Some(level.put(entry, &taken, Place::Shards)))
        }
    }
}
