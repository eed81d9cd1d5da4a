//! Repartition: rows of operands of a join go to tables beside shards, by the values that join them. There they are
//! neighbours, and the join runs on the shards like one of colocated tables. Of two operands that a condition compares with the
//! key of one, the other one moves; otherwise both move, to the shard groups of some hash-distributed table.

mod cost;
mod equality;
mod inner;
mod load;
mod nested;
mod subqueries;

use crate::deparse;
use crate::error::Result;
use crate::planner::externals::Externals;
use crate::planner::pieces::Level;
use crate::planner::split;
use crate::settings::{self, JoinStrategy};
use cost::Terms;
use pgrx::pg_sys;

/// Moves operands of the level's joins as far as it is worth it, and makes leaves of the pieces. True: nothing is left to
/// do in the level. Where it comes to nothing the level is as before.
///
/// # Safety
/// The level's query is owned by the caller.
pub unsafe fn pieces(level: &mut Level, externals: &mut Externals) -> Result<bool> {
    unsafe {
        let forced = match settings::join_strategy() {
            JoinStrategy::Pull | JoinStrategy::Broadcast => return Ok(false),
            JoinStrategy::Repartition => true,
            // In a block the tables are not temporary, and the login may lack the right to create others.
            JoinStrategy::Auto if pg_sys::IsTransactionBlock() => return Ok(false),
            JoinStrategy::Auto => false,
        };
        if nodes_only_read() {
            return Ok(false);
        }
        let saved = level.save();
        for nested in [true, false] {
            let moved = move_operands(level, externals, forced, nested)?;
            // where not all comes together, joins in joins are looked at by themselves
            if moved && (forced || !nested || level.is_one_piece()) {
                level.rebuild();
                if level.is_one_piece() && split::split_whole(level.query)? {
                    return Ok(true);
                }
                level.make_subqueries()?;
                if deparse::moved::entries(level.query).is_empty() {
                    return Ok(true);
                }
            }
            // a piece turned out not to be a leaf
            level.bring_back(&saved);
        }
        Ok(false)
    }
}

/// Did anything move, and stand beside what it is joined with? With `nested`, operands of joins in joins first.
unsafe fn move_operands(
    level: &mut Level,
    externals: &mut Externals,
    forced: bool,
    nested: bool,
) -> Result<bool> {
    unsafe {
        let mut moves = 0;
        if nested {
            moves += nested::settle(level, externals, forced)?;
            if moves == 0 {
                return Ok(false);
            }
        }
        let terms = Terms {
            forced,
            around: None,
        };
        let Some(more) = inner::operands(level, externals, &terms)? else {
            return Ok(false);
        };
        moves += more;
        moves += subqueries::conditions(level, externals, forced)?;
        Ok(moves > 0)
    }
}

/// Nodes are told that they only read: see `remote::scope`.
fn nodes_only_read() -> bool {
    // SAFETY: reads variables.
    unsafe {
        pg_sys::XactReadOnly
            && pg_sys::XactDeferrable
            && pg_sys::XactIsoLevel as u32 == pg_sys::XACT_SERIALIZABLE
    }
}
