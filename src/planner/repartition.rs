//! Repartition: the rows of one operand of a join go to tables beside the shards of another, by the column that joins
//! them. There they are neighbours, and the join runs on the shards like one of colocated tables.

use crate::deparse;
use crate::error::Result;
use crate::pg::{expr, list, node};
use crate::planner::analysis::Analysis;
use crate::planner::broadcast::level_estimate;
use crate::planner::externals::Externals;
use crate::planner::moved::{self, Moving};
use crate::planner::pieces::trees::{refers_outside, same_column};
use crate::planner::pieces::{Level, Place};
use crate::planner::plan::{MoveColumn, MovePlan};
use crate::planner::{estimate, leaf, split};
use crate::settings::{self, JoinStrategy};
use pgrx::pg_sys::{self, Node, Query, RTEKind};
use std::rc::Rc;

/// An operand of the level's join.
struct Operand {
    items: Vec<usize>,
    rows: f64,
    width: f64,
}

/// Rows of one operand go to the shards of another.
struct Choice {
    moved: Operand,
    to: Vec<usize>,
    /// The columns of either that are equal.
    by: *mut pg_sys::Var,
    key: *mut pg_sys::Var,
    colocation: Rc<crate::catalog::Colocation>,
    /// What joining here costs beyond it.
    gain: f64,
    reason: String,
}

/// Moves operands of the level's join as far as it is worth it, and makes leaves of the pieces. True: nothing is left to
/// do in the level. Where it comes to nothing the level is as before.
///
/// # Safety
/// The level's query is owned by the caller.
pub unsafe fn pieces(level: &mut Level, externals: &mut Externals) -> Result<bool> {
    unsafe {
        let allowed = match settings::join_strategy() {
            JoinStrategy::Pull | JoinStrategy::Broadcast => false,
            JoinStrategy::Repartition => true,
            // In a block the tables are not temporary, and the login may lack the right to create others.
            JoinStrategy::Auto => !pg_sys::IsTransactionBlock(),
        };
        if !allowed || nodes_only_read() {
            return Ok(false);
        }
        let saved = level.save();
        let mut moves = 0;
        while let Some(choice) = best(level)? {
            if !carry_out(level, choice, externals)? {
                level.bring_back(&saved);
                return Ok(false);
            }
            moves += 1;
        }
        if moves == 0 {
            return Ok(false);
        }
        level.rebuild();
        if level.is_one_piece() && split::split_whole(level.query)? {
            return Ok(true);
        }
        level.make_subqueries()?;
        if deparse::moved::entries(level.query).is_empty() {
            return Ok(true);
        }
        // a piece turned out not to be a leaf
        level.bring_back(&saved);
        Ok(false)
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

/// The move that is worth most.
unsafe fn best(level: &mut Level) -> Result<Option<Choice>> {
    unsafe {
        let forced = settings::join_strategy() == JoinStrategy::Repartition;
        let mut pieces = level.pieces.clone();
        pieces.retain(|piece| !level.is_optional_alone(piece));
        let mut operands = pieces.clone();
        for item in 0..level.items.len() {
            if !level.items[item].node.is_null()
                && !level.is_optional(item)
                && level.items[item].place == Place::Here
                && level.is_independent(item)
            {
                operands.push(vec![item]);
            }
        }
        let mut best: Option<Choice> = None;
        for to in pieces {
            for items in &operands {
                if *items == to {
                    continue;
                }
                let Some(choice) = between(level, items, &to, forced)? else {
                    continue;
                };
                if best.as_ref().is_none_or(|known| choice.gain > known.gain) {
                    best = Some(choice);
                }
            }
        }
        Ok(best.filter(|choice| forced || choice.gain > 0.0))
    }
}

/// The move of some items to the shards of a piece, if a condition allows it.
unsafe fn between(
    level: &mut Level,
    items: &[usize],
    to: &[usize],
    forced: bool,
) -> Result<Option<Choice>> {
    unsafe {
        let (from, into) = (level.members(items), level.members(to));
        for index in 0..level.quals.len() {
            let Some((left, right, collation)) = equal_columns(level.quals[index]) else {
                continue;
            };
            let (by, key) = if from.contains(&(*left).varno) && into.contains(&(*right).varno) {
                (left, right)
            } else if from.contains(&(*right).varno) && into.contains(&(*left).varno) {
                (right, left)
            } else {
                continue;
            };
            let Some(colocation) = keyed(level, to, key)? else {
                continue;
            };
            if !moved::hashes_alike(&colocation, expr::signature(by.cast()), collation) {
                continue;
            }
            return weigh(level, items, to, (by, key), colocation, forced);
        }
        Ok(None)
    }
}

/// The columns that a condition of the level compares, and by which collation.
unsafe fn equal_columns(
    qual: *mut Node,
) -> Option<(*mut pg_sys::Var, *mut pg_sys::Var, pg_sys::Oid)> {
    unsafe {
        let op = node::cast::<pg_sys::OpExpr>(qual)?;
        if list::len((*op).args) != 2 {
            return None;
        }
        let column = |index: usize| {
            let arg = expr::strip_relabel(list::nth::<Node>((*op).args, index));
            node::cast::<pg_sys::Var>(arg)
                .filter(|var| (**var).varlevelsup == 0 && (**var).varattno > 0)
        };
        let (left, right) = (column(0)?, column(1)?);
        let hashable = pg_sys::op_hashjoinable(
            (*op).opno,
            pg_sys::exprType(list::nth::<Node>((*op).args, 0)),
        );
        hashable.then_some((left, right, (*op).inputcollid))
    }
}

/// The colocation group of a piece, if the column is its distribution column.
unsafe fn keyed(
    level: &Level,
    piece: &[usize],
    column: *mut pg_sys::Var,
) -> Result<Option<Rc<crate::catalog::Colocation>>> {
    unsafe {
        let part = level.part_of(piece, split::targets(&[column.cast()]));
        let analysis = Analysis::of(part)?;
        let value = list::nth::<pg_sys::TargetEntry>((*part).targetList, 0);
        let is_key = analysis.contains_key(part, &[(*value).expr.cast()]);
        Ok(analysis
            .distributed
            .first()
            .filter(|_| is_key)
            .map(|table| table.colocation.clone())
            .filter(|colocation| !colocation.groups.is_empty()))
    }
}

unsafe fn operand(level: &mut Level, items: &[usize]) -> Operand {
    unsafe {
        let width = level
            .outputs(items)
            .into_iter()
            .map(|unit| {
                let (type_oid, typmod, _) = expr::signature(unit);
                f64::from(pg_sys::get_typavgwidth(type_oid, typmod))
            })
            .sum();
        Operand {
            rows: level_estimate(level, items),
            width,
            items: items.to_vec(),
        }
    }
}

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

impl Operand {
    fn transfer(&self) -> f64 {
        self.rows * (ROW_COST + BYTE_COST * self.width)
    }
}

unsafe fn weigh(
    level: &mut Level,
    items: &[usize],
    to: &[usize],
    (by, key): (*mut pg_sys::Var, *mut pg_sys::Var),
    colocation: Rc<crate::catalog::Colocation>,
    forced: bool,
) -> Result<Option<Choice>> {
    unsafe {
        let part = level.part(items, true);
        if pg_sys::contain_volatile_functions(part.cast())
            || level
                .outputs(items)
                .into_iter()
                .any(|unit| moved::column(unit, 0).is_none())
        {
            return Ok(None);
        }
        let moved = operand(level, items);
        let other = operand(level, to);
        if !moved.rows.is_finite() || !other.rows.is_finite() {
            return Ok(None);
        }
        let union = [items, to].concat();
        let joined = operand(level, &union);
        let whole = level
            .items
            .iter()
            .enumerate()
            .all(|(index, item)| item.node.is_null() || union.contains(&index));
        let nodes = estimate::node_count(&colocation);
        let returned = if whole {
            returned(level, &joined, nodes)
        } else {
            joined.transfer()
        };
        let compared = (moved.rows + other.rows + joined.rows) * JOIN_COST;
        let here = moved.transfer() + other.transfer() + compared;
        let tables = colocation.groups.len() as f64 * TABLE_COST;
        let there =
            moved.transfer() * 2.0 + moved.rows * STORE_COST + tables + compared / nodes + returned;
        let stops_early = !(*level.query).limitCount.is_null()
            && (*level.query).sortClause.is_null()
            && !(*level.query).hasAggs
            && (*level.query).groupClause.is_null();
        let gain = if forced {
            // the cheapest move first
            1.0 / (1.0 + there)
        } else if stops_early {
            0.0
        } else {
            here - there * MARGIN
        };
        let reason = if forced {
            "shard_ext.join_strategy is repartition".to_owned()
        } else {
            format!(
                "about {} rows move, otherwise {} would come here to be joined",
                moved.rows.round(),
                (moved.rows + other.rows).round()
            )
        };
        Ok(Some(Choice {
            moved,
            to: to.to_vec(),
            by,
            key,
            colocation,
            gain,
            reason,
        }))
    }
}

/// What it costs to fetch the rows of the whole level, which the shards group where they can.
unsafe fn returned(level: &mut Level, joined: &Operand, nodes: f64) -> f64 {
    unsafe {
        level.rebuild();
        let query = level.query;
        let known = !(*query).hasModifyingCTE && !refers_outside(query.cast());
        let rows = if known {
            (estimate::rows_of(query) * nodes).min(joined.rows)
        } else {
            joined.rows
        };
        let width: f64 = list::iter::<pg_sys::TargetEntry>((*query).targetList)
            .map(|entry| {
                let (type_oid, typmod, _) = expr::signature((*entry).expr.cast());
                f64::from(pg_sys::get_typavgwidth(type_oid, typmod))
            })
            .sum();
        rows * (ROW_COST + BYTE_COST * width)
    }
}

/// False: the rows came beside the others, and are no piece with them all the same.
unsafe fn carry_out(level: &mut Level, choice: Choice, externals: &mut Externals) -> Result<bool> {
    unsafe {
        let (by, target) = (
            column_name(level.query, choice.by),
            table_of(level, &choice.to, choice.key)?,
        );
        let Some((schema, target)) = target else {
            return Ok(false);
        };
        let taken = level.take_here(&choice.moved.items)?;
        let (subquery, units) = (taken.query, &taken.units);
        let Some(key) = units.iter().position(|unit| same_column(*unit, choice.by)) else {
            return Ok(false);
        };
        let columns: Option<Vec<MoveColumn>> = units
            .iter()
            .enumerate()
            .map(|(index, unit)| moved::column(*unit, index))
            .collect();
        let Some(columns) = columns else {
            return Ok(false);
        };
        let origins = if refers_outside(subquery.cast()) {
            Vec::new()
        } else {
            estimate::origins_of(subquery)
        };
        without_nulls(subquery, units[key], key);
        split::transform(subquery)?;
        let number = leaf::move_count();
        let handle = moved::handle_of(subquery, number);
        leaf::add_move(Moving {
            colocation: choice.colocation.clone(),
            key: key as i16 + 1,
            handle: externals.stand_in(handle),
            plan: MovePlan {
                colocation: choice.colocation.id,
                schema,
                key: key + 1,
                key_type: pg_sys::exprType(units[key]).to_u32(),
                columns,
                handle: units.len() + 1,
                quiet: leaf::is_quiet(),
                by,
                target,
                reason: choice.reason,
            },
            origins,
        });
        let entry = moved::entry(number, units, choice.moved.rows);
        let item = level.put(entry, &taken, Place::Shards);
        level.merge()?;
        Ok(level
            .pieces
            .iter()
            .any(|piece| piece.contains(&item) && piece.len() > 1))
    }
}

/// Rows whose column is NULL join nothing: they stay where they are.
unsafe fn without_nulls(rows: *mut Query, unit: *mut Node, key: usize) {
    unsafe {
        let column = list::nth::<pg_sys::TargetEntry>((*rows).targetList, key);
        if is_never_null(rows, (*column).expr.cast()) {
            return;
        }
        let test = node::make::<pg_sys::NullTest>();
        (*test).arg = node::copy((*column).expr);
        (*test).nulltesttype = pg_sys::NullTestType::IS_NOT_NULL;
        (*test).argisrow = pg_sys::type_is_rowtype(pg_sys::exprType(unit));
        (*test).location = -1;
        let from = (*rows).jointree;
        (*from).quals = expr::and((*from).quals, test.cast());
    }
}

/// Is it a column of a table that says NOT NULL?
unsafe fn is_never_null(query: *mut Query, value: *mut Node) -> bool {
    unsafe {
        let Some(var) = node::cast::<pg_sys::Var>(value) else {
            return false;
        };
        let rte = list::nth::<pg_sys::RangeTblEntry>((*query).rtable, (*var).varno as usize - 1);
        if (*rte).rtekind != RTEKind::RTE_RELATION {
            return false;
        }
        let tuple = pg_sys::SearchSysCache2(
            pg_sys::SysCacheIdentifier::ATTNUM as i32,
            (*rte).relid.into(),
            (*var).varattno.into(),
        );
        if tuple.is_null() {
            return false;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_attribute>();
        let answer = (*form).attnotnull;
        pg_sys::ReleaseSysCache(tuple);
        answer
    }
}

unsafe fn column_name(query: *mut Query, var: *mut pg_sys::Var) -> String {
    unsafe {
        let rte = list::nth::<pg_sys::RangeTblEntry>((*query).rtable, (*var).varno as usize - 1);
        let name = pg_sys::get_rte_attribute_name(rte, (*var).varattno);
        let text = |p: *mut std::ffi::c_char| std::ffi::CStr::from_ptr(p).to_string_lossy();
        format!("{}.{}", text((*(*rte).eref).aliasname), text(name))
    }
}

/// Schema and name of a distributed table of a piece.
unsafe fn table_of(
    level: &Level,
    piece: &[usize],
    key: *mut pg_sys::Var,
) -> Result<Option<(String, String)>> {
    unsafe {
        let mut found = None;
        let mut members = level.members(piece);
        members.sort_by_key(|member| *member != (*key).varno);
        for member in members {
            let entry = level.entry(member);
            let mut relids = Vec::new();
            if (*entry).rtekind == RTEKind::RTE_RELATION {
                relids.push((*entry).relid);
            }
            if let Some(moving) = moved::of_entry(entry) {
                found.get_or_insert((moving.plan.schema.clone(), moving.plan.target.clone()));
            }
            node::walk((*entry).subquery.cast(), &mut |item, _| {
                if let Some(query) = node::cast::<Query>(item) {
                    relids.extend(
                        list::iter::<pg_sys::RangeTblEntry>((*query).rtable)
                            .filter(|rte| (**rte).rtekind == RTEKind::RTE_RELATION)
                            .map(|rte| (*rte).relid),
                    );
                }
                node::Step::Into
            });
            for relid in relids {
                if super::is_distributed(relid) {
                    return deparse::name_of(relid).map(Some);
                }
            }
        }
        Ok(found)
    }
}
