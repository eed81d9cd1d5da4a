//! LEFT JOINs of few rows, which are here, with many on the shards: those give only what may have a partner. The few
//! rows become a WITH query; what is compared with one of its columns has to be among the values there.

use super::{array_of, is_small, level_estimate, told, travels, with_entry, Others};
use crate::error::Result;
use crate::pg::{list, node};
use crate::planner::externals::Externals;
use crate::planner::pieces::{trees, Level, Place};
use crate::planner::{leaf, ship, split};
use pgrx::pg_sys::{self, CommonTableExpr, Node, RTEKind};

/// Does so for each nullable side that is a piece.
///
/// # Safety
/// The level's query is owned by the caller.
pub unsafe fn nullable_sides(level: &mut Level, externals: &mut Externals) -> Result<()> {
    unsafe {
        for piece in level.pieces.clone() {
            if !level.is_optional_alone(&piece) {
                continue;
            }
            let others = Others::of_piece(level, &piece, level_estimate(level, &piece))?;
            let optional = piece[0];
            let conjuncts = level.items[optional].on.as_ref().map_or(0, Vec::len);
            for conjunct in 0..conjuncts {
                let partner = match compared(level, optional, conjunct) {
                    Some((_, column)) => few_rows(level, (*column).varno, others),
                    None => None,
                };
                let Some((partner, rows)) = partner else {
                    continue;
                };
                let text = told(&level.names(&[partner]), rows);
                let taken = level.take_here(&[partner])?;
                split::transform(taken.query)?;
                let cte = trees::with_query(taken.query);
                externals.add_with(level.query, cte);
                level.put(with_entry(cte, 0), &taken, Place::Here);
                // the column has another number now, and others of the same rows may be compared, too
                for conjunct in 0..conjuncts {
                    add_filter(level, optional, conjunct, cte, externals, &text);
                }
                break;
            }
        }
        Ok(())
    }
}

/// The operand that has the entry, if it is whole in itself and gives few rows beside others, and how many.
unsafe fn few_rows(level: &Level, varno: i32, others: Others) -> Option<(usize, f64)> {
    unsafe {
        let item = (0..level.items.len()).find(|item| {
            let known = &level.items[*item];
            !known.node.is_null() && known.members.contains(&varno)
        })?;
        let apart = !level.is_optional(item)
            && !level.is_in_piece(item)
            && level.is_independent(item)
            && level.items[item].place != Place::Shards;
        let rows = if apart {
            level_estimate(level, &[item])
        } else {
            f64::INFINITY
        };
        is_small(rows, others).then_some((item, rows))
    }
}

/// What a conjunct of a LEFT JOIN's condition compares: something of the nullable side, with a column of other rows.
unsafe fn compared(
    level: &Level,
    optional: usize,
    conjunct: usize,
) -> Option<(*mut Node, *mut pg_sys::Var)> {
    unsafe {
        let item = &level.items[optional];
        let qual = *item.on.as_ref()?.get(conjunct)?;
        let test = node::cast::<pg_sys::OpExpr>(qual)?;
        if list::len((*test).args) != 2 || ship::obstacle(qual).is_some() || node::has_sublink(qual)
        {
            return None;
        }
        let args = [0, 1].map(|index| list::nth::<Node>((*test).args, index));
        let is_own = |arg: *mut Node| {
            let named = trees::varnos(arg);
            !named.is_empty()
                && named.iter().all(|varno| item.members.contains(varno))
                && !trees::refers_outside(arg)
        };
        let place = args.iter().position(|arg| is_own(*arg))?;
        let other = args[1 - place];
        let column = node::cast::<pg_sys::Var>(other).filter(|var| {
            (**var).varlevelsup == 0
                && (**var).varattno > 0
                && !item.members.contains(&(**var).varno)
        })?;
        let equal = pg_sys::op_hashjoinable((*test).opno, pg_sys::exprType(args[0]));
        (equal && travels(other)).then_some((args[place], column))
    }
}

/// Adds to the condition of a LEFT JOIN that what it compares with a column of the WITH query is among the values there.
unsafe fn add_filter(
    level: &mut Level,
    optional: usize,
    conjunct: usize,
    cte: *mut CommonTableExpr,
    externals: &mut Externals,
    text: &str,
) {
    unsafe {
        let Some((own, column)) = compared(level, optional, conjunct) else {
            return;
        };
        let entry = level.entry((*column).varno);
        let Some(on) = &mut level.items[optional].on else {
            return;
        };
        if (*entry).rtekind != RTEKind::RTE_CTE || (*entry).ctename != (*cte).ctename {
            return;
        }
        let test = on[conjunct].cast::<pg_sys::OpExpr>();
        let operator = if list::nth::<Node>((*test).args, 0) == own {
            (*test).opno
        } else {
            pg_sys::get_commutator((*test).opno)
        };
        if operator == pg_sys::InvalidOid {
            return;
        }
        let values = externals.stand_in(array_of(cte, (*column).varattno as usize - 1, 1));
        leaf::note_sent(values, text);
        let any = node::make::<pg_sys::ScalarArrayOpExpr>();
        (*any).opno = operator;
        (*any).opfuncid = pg_sys::get_opcode(operator);
        (*any).useOr = true;
        (*any).inputcollid = (*test).inputcollid;
        (*any).location = -1;
        (*any).args = list::from([node::copy(own), values]);
        on.push(any.cast());
    }
}
