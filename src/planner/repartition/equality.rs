//! Equalities of columns, or of expressions, by which rows of two operands come together.

use crate::catalog;
use crate::pg::{expr, list, node};
use crate::planner::analysis;
use crate::planner::moved;
use crate::planner::pieces::trees::{self, refers_outside, varnos};
use pgrx::pg_sys::{self, Node, OpExpr, Query};
use std::ffi::CStr;

/// An equality, the arguments of which are each of one operand.
#[derive(Clone, Copy)]
pub struct Equality {
    /// Where it stands among the conditions that were looked through.
    pub number: usize,
    pub collation: pg_sys::Oid,
    /// The arguments of the first and of the second operand.
    pub values: [*mut Node; 2],
    /// Which argument is that of the first operand.
    first: usize,
}

impl Equality {
    pub fn new(
        number: usize,
        collation: pg_sys::Oid,
        values: [*mut Node; 2],
        first: usize,
    ) -> Equality {
        Equality {
            number,
            collation,
            values,
            first,
        }
    }
}

/// The equalities between two operands among conditions.
///
/// # Safety
/// The conditions are valid expressions of one level.
pub unsafe fn between(quals: &[*mut Node], first: &[i32], second: &[i32]) -> Vec<Equality> {
    let mut found = Vec::new();
    for (number, qual) in quals.iter().enumerate() {
        // SAFETY: as for this function.
        unsafe {
            let Some((values, collation)) = arguments(*qual) else {
                continue;
            };
            for first_argument in [0, 1] {
                let (one, other) = (values[first_argument], values[1 - first_argument]);
                if is_of(one, first) && is_of(other, second) {
                    let values = [one, other];
                    found.push(Equality::new(number, collation, values, first_argument));
                    break;
                }
            }
        }
    }
    found
}

/// The arguments of a hashable equality whose equal values hash alike, and its collation.
///
/// # Safety
/// `qual` is a valid expression.
pub unsafe fn arguments(qual: *mut Node) -> Option<([*mut Node; 2], pg_sys::Oid)> {
    unsafe {
        let op = node::cast::<OpExpr>(qual)?;
        if list::len((*op).args) != 2 {
            return None;
        }
        let argument = |index| list::nth::<Node>((*op).args, index);
        let hashable = pg_sys::op_hashjoinable((*op).opno, pg_sys::exprType(argument(0)))
            && analysis::same_hash(argument(0), argument(1));
        let values = [0, 1].map(|index| expr::strip_relabel(argument(index)));
        hashable.then_some((values, (*op).inputcollid))
    }
}

/// Is it computed from columns of these entries alone, the same for the same row?
///
/// # Safety
/// `value` is a valid expression.
pub unsafe fn is_of(value: *mut Node, members: &[i32]) -> bool {
    unsafe {
        let vars = varnos(value);
        let whole_row = node::cast::<pg_sys::Var>(value).is_some_and(|var| (*var).varattno <= 0);
        !vars.is_empty()
            && vars.iter().all(|varno| members.contains(varno))
            && !whole_row
            && !refers_outside(value)
            && !node::has_sublink(value)
            && !pg_sys::contain_volatile_functions(value)
            && !pg_sys::contain_agg_clause(value)
            && !pg_sys::contain_window_function(value)
    }
}

/// The column that a value is, if it is one.
///
/// # Safety
/// `value` is a valid expression.
pub unsafe fn column(value: *mut Node) -> Option<*mut pg_sys::Var> {
    unsafe { node::cast(value) }
}

/// No table has a column of this number: it is the computed one.
const COMPUTED: i16 = 20_000;

/// The column by which rows of an operand move.
pub struct Column {
    pub var: *mut pg_sys::Var,
    /// What is to be computed for it, where it does not exist yet.
    pub computed: Option<*mut Node>,
    /// How EXPLAIN names it.
    pub name: String,
}

/// The columns by which operands move; those that do not exist yet are put in the place of the expressions.
///
/// # Safety
/// `qual` is the equality, of the level `query` and owned by the caller.
pub unsafe fn columns(
    query: *mut Query,
    qual: *mut Node,
    equality: &Equality,
    operands: &[usize],
) -> Vec<Column> {
    unsafe {
        operands
            .iter()
            .map(|operand| {
                let value = equality.values[*operand];
                let name = name(query, value);
                if let Some(var) = column(value) {
                    return Column {
                        var,
                        computed: None,
                        name,
                    };
                }
                let var = expr::var(varnos(value)[0], COMPUTED, expr::signature(value));
                put_in_place(qual, argument_of(equality, *operand), var.cast());
                Column {
                    var,
                    computed: Some(value),
                    name,
                }
            })
            .collect()
    }
}

fn argument_of(equality: &Equality, operand: usize) -> usize {
    if operand == 0 {
        equality.first
    } else {
        1 - equality.first
    }
}

/// Puts something else in the place of an argument, below casts that change nothing.
unsafe fn put_in_place(qual: *mut Node, argument: usize, value: *mut Node) {
    unsafe {
        let op = qual.cast::<OpExpr>();
        let mut relabel =
            node::cast::<pg_sys::RelabelType>(list::nth::<Node>((*op).args, argument));
        if relabel.is_none() {
            list::set((*op).args, argument, value);
        }
        while let Some(outer) = relabel {
            relabel = node::cast((*outer).arg);
            if relabel.is_none() {
                (*outer).arg = value.cast();
            }
        }
    }
}

/// Puts the expression in the place of the column that did not exist, in a Query that was taken out of the level with
/// these entries.
///
/// # Safety
/// `rows` is owned by the caller; `value` is an expression of the level.
pub unsafe fn compute(rows: *mut Query, members: &[i32], value: *mut Node) {
    unsafe {
        let value: *mut Node = node::copy(value);
        let mut members = members.to_vec();
        members.sort_unstable();
        for (index, member) in members.iter().enumerate() {
            node::renumber(value, *member, index as i32 + 1);
        }
        for target in list::iter::<pg_sys::TargetEntry>((*rows).targetList) {
            if column((*target).expr.cast()).is_some_and(|var| (*var).varattno == COMPUTED) {
                (*target).expr = node::copy(value).cast();
            }
        }
    }
}

/// Are rows with equal values brought together by the hash of the values, whatever they are compared with?
///
/// # Safety
/// The equality is valid.
pub unsafe fn can_be_hashed(values: &[*mut Node; 2], collation: pg_sys::Oid) -> bool {
    unsafe {
        values.iter().all(|value| {
            let type_oid = pg_sys::exprType(*value);
            catalog::check_key(catalog::Method::Hash, type_oid, collation).is_ok()
        }) && (collation == pg_sys::InvalidOid || pg_sys::get_collation_isdeterministic(collation))
    }
}

/// How EXPLAIN names a value.
///
/// # Safety
/// `value` is an expression of the level `query`.
pub unsafe fn name(query: *mut Query, value: *mut Node) -> String {
    unsafe {
        if let Some(var) = column(value) {
            return column_name(query, var);
        }
        let mut names = Vec::new();
        node::walk(value, &mut |item, level| {
            if let Some(var) = column(item).filter(|var| (**var).varlevelsup == level) {
                let name = column_name(query, var);
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            node::Step::Into
        });
        match names.is_empty() {
            true => "an expression".into(),
            false => format!("an expression of {}", names.join(", ")),
        }
    }
}

unsafe fn column_name(query: *mut Query, var: *mut pg_sys::Var) -> String {
    unsafe {
        let rte = list::rt_fetch((*var).varno, (*query).rtable);
        if let Some(column) = trees::column_of_piece(rte, (*var).varattno) {
            return name((*rte).subquery, column);
        }
        let moved_name = moved::of_entry(rte).and_then(|moving| {
            let index = usize::try_from((*var).varattno - 1).ok()?;
            moving.names.get(index).cloned()
        });
        if let Some(name) = moved_name {
            return name;
        }
        let text = |p: *mut std::ffi::c_char| CStr::from_ptr(p).to_string_lossy().into_owned();
        let entry = text((*(*rte).eref).aliasname);
        if (*var).varattno <= 0 {
            return entry;
        }
        format!(
            "{entry}.{}",
            text(pg_sys::get_rte_attribute_name(rte, (*var).varattno))
        )
    }
}
