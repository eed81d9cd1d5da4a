//! Joins that are operands of others: full joins, and joins on the nullable side of outer ones. Each is a level of its own,
//! in a subquery, if that can be on the shards once its operands have moved.

use super::cost::{self, Around, Size, Terms};
use super::inner;
use crate::error::Result;
use crate::planner::broadcast::level_estimate;
use crate::planner::decorrelate;
use crate::planner::externals::Externals;
use crate::planner::pieces::trees::refers_outside;
use crate::planner::pieces::{Level, Place};
use pgrx::pg_sys::{self, JoinType};

/// Moves operands of the joins in a level as far as it is worth it; answers how often.
///
/// # Safety
/// The level's query is owned by the caller.
pub unsafe fn settle(level: &mut Level, externals: &mut Externals, forced: bool) -> Result<usize> {
    unsafe {
        let nested = level.nested_joins();
        // a level that answers again and again would have its joins made again on the shards
        let pays = !decorrelate::wants_few_rows(level.query) && !refers_outside(level.query.cast());
        if nested.is_empty() || !forced && !pays {
            return Ok(0);
        }
        let joined = level_estimate(level, &level.present());
        // of several, none is the reason for all that comes here
        let pieces = match nested[..] {
            [_] => level.pieces.clone(),
            _ => Vec::new(),
        };
        let beside = pieces.iter().map(|piece| Size::of_items(level, piece));
        let beside = beside.collect();
        let terms = Terms {
            forced,
            around: Some(Around {
                returned: cost::returned(level, joined),
                beside,
            }),
        };
        joins(level, externals, &terms)
    }
}

unsafe fn joins(level: &mut Level, externals: &mut Externals, terms: &Terms) -> Result<usize> {
    unsafe {
        let mut moves = 0;
        for item in level.nested_joins() {
            moves += bring_together(level, item, externals, terms)?;
        }
        Ok(moves)
    }
}

/// Has the operands of a join move so that it is on the shards; if it comes to nothing the level is as before. What is an
/// operand itself has to be beside others then: it could move as it is, with fewer rows of its own.
unsafe fn bring_together(
    level: &mut Level,
    item: usize,
    externals: &mut Externals,
    terms: &Terms,
) -> Result<usize> {
    unsafe {
        let part = level.part(&[item], true);
        if refers_outside(part.cast()) || pg_sys::contain_volatile_functions(part.cast()) {
            return Ok(0);
        }
        let saved = level.save();
        let join = level.items[item].node.cast::<pg_sys::JoinExpr>();
        let full = (*join).jointype == JoinType::JOIN_FULL;
        let subquery = level.wrap(&[item], Place::Here)?;
        let item = level.items.len() - 1;
        if let Some(mut below) = Level::of_sides(subquery)? {
            let deeper = joins(&mut below, externals, terms)?;
            let moves = inner::operands(&mut below, externals, terms)?;
            below.rebuild();
            level.locate(item)?;
            level.merge()?;
            let found = level.pieces.iter().find(|piece| piece.contains(&item));
            if let (Some(moves), Some(piece)) = (moves, found) {
                if full || piece.len() > 1 {
                    return Ok(deeper + moves);
                }
            }
        }
        level.bring_back(&saved);
        Ok(0)
    }
}
