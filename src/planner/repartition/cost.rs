//! What it costs to move rows and join them on the shards, beside fetching them and joining them here.

use crate::pg::{expr, list};
use crate::planner::broadcast::level_estimate;
use crate::planner::estimate;
use crate::planner::pieces::trees::{lacks_with, refers_outside};
use crate::planner::pieces::Level;
use pgrx::pg_sys::{self, Node};

/// What the planner's units say of a row that comes here, and of a byte of it; as for leaves.
const ROW_COST: f64 = 0.02;
const BYTE_COST: f64 = 0.0003;
/// To find the shard group of a row and to store it there.
const STORE_COST: f64 = 0.02;
/// To compare a row with those of the other operand, or to go on with one that comes of it.
const JOIN_COST: f64 = 0.01;
/// To make a table, to begin and to end its COPY.
const TABLE_COST: f64 = 5.0;
/// Estimates may be wrong, so a move must promise that much.
const MARGIN: f64 = 1.3;

/// Rows and the bytes of one.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub rows: f64,
    pub width: f64,
}

impl Size {
    pub fn of_columns(rows: f64, columns: &[*mut Node]) -> Size {
        // SAFETY: valid expressions; look-ups in the syscache.
        let width = columns.iter().map(|column| unsafe {
            let (type_oid, typmod, _) = expr::signature(*column);
            f64::from(pg_sys::get_typavgwidth(type_oid, typmod))
        });
        Size {
            rows,
            width: width.sum(),
        }
    }

    /// The size of some items of the level together.
    ///
    /// # Safety
    /// The level's query is valid.
    pub unsafe fn of_items(level: &mut Level, items: &[usize]) -> Size {
        unsafe {
            let columns = level.outputs(items);
            Size::of_columns(level_estimate(level, items), &columns)
        }
    }

    fn transfer(&self) -> f64 {
        self.rows * (ROW_COST + BYTE_COST * self.width)
    }
}

/// Operands that move to those that stay, and what comes of the join.
pub struct Sizes {
    pub moved: Vec<Size>,
    pub stays: Option<Size>,
    /// What would come here, too, to be joined with all that.
    pub beside: Vec<Size>,
    pub joined: Size,
    /// What of it comes here; none: all.
    pub returned: Option<Size>,
}

impl Sizes {
    pub fn are_known(&self) -> bool {
        self.moved
            .iter()
            .chain(&self.stays)
            .chain(&self.beside)
            .chain([&self.joined])
            .all(|size| size.rows.is_finite())
    }

    /// How many rows would come here to be joined.
    pub fn fetched(&self) -> f64 {
        let all = self.moved.iter().chain(&self.stays).chain(&self.beside);
        all.map(|size| size.rows).sum()
    }

    pub fn rows_moved(&self) -> f64 {
        self.moved.iter().map(|size| size.rows).sum()
    }

    /// What joining here costs beyond moving; with `forced`, more for cheaper moves, always above 0.
    pub fn gain(&self, groups: usize, nodes: f64, forced: bool) -> f64 {
        let transfers = |sizes: &[Size]| sizes.iter().map(Size::transfer).sum::<f64>();
        let compared = (self.fetched() + self.joined.rows) * JOIN_COST;
        let here = transfers(&self.moved)
            + self.stays.map_or(0.0, |s| s.transfer())
            + transfers(&self.beside)
            + compared;
        let tables = (groups * self.moved.len()) as f64 * TABLE_COST;
        let returned = self.returned.unwrap_or(self.joined).transfer();
        let there = transfers(&self.moved) * 2.0
            + self.rows_moved() * STORE_COST
            + tables
            + compared / nodes
            + returned;
        if forced {
            1.0 / (1.0 + there)
        } else {
            here - there * MARGIN
        }
    }

    pub fn reason(&self, forced: bool) -> String {
        if forced {
            "shard_ext.join_strategy is repartition".to_owned()
        } else {
            format!(
                "about {} rows move, otherwise {} would come here to be joined",
                self.rows_moved().round(),
                self.fetched().round()
            )
        }
    }
}

/// What is known before, and holds for a level and for those that its joins are.
pub struct Terms {
    /// Whatever it costs.
    pub forced: bool,
    pub around: Option<Around>,
}

/// What is around a join in another one, if all of it is on the shards then.
pub struct Around {
    pub returned: Returned,
    /// What else would come here.
    pub beside: Vec<Size>,
}

/// The rows of a whole level, which the shards group where they can, as far as they come here.
#[derive(Clone, Copy)]
pub struct Returned {
    /// If one node has them all; and before they are grouped.
    of_one: f64,
    joined: f64,
    width: f64,
}

impl Returned {
    pub fn of_nodes(&self, nodes: f64) -> Size {
        Size {
            rows: (self.of_one * nodes).min(self.joined),
            width: self.width,
        }
    }
}

/// What comes here of the level, of which so many rows are joined.
///
/// # Safety
/// The level's query is valid.
pub unsafe fn returned(level: &mut Level, joined: f64) -> Returned {
    unsafe {
        level.rebuild();
        let query = level.query;
        let known =
            !(*query).hasModifyingCTE && !refers_outside(query.cast()) && !lacks_with(query);
        let of_one = if known {
            estimate::rows_of(query)
        } else {
            joined
        };
        let columns: Vec<*mut Node> = list::iter::<pg_sys::TargetEntry>((*query).targetList)
            .map(|entry| (*entry).expr.cast())
            .collect();
        Returned {
            of_one,
            joined,
            width: Size::of_columns(joined, &columns).width,
        }
    }
}
