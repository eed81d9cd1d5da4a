//! When a correlated subquery may be computed for all values it depends on at once.

use super::Subquery;
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::broadcast::travels;
use crate::planner::pieces::trees;
use pgrx::pg_sys::{self, Node, NodeTag, Oid};

/// `BTEQUALIMAGE_PROC` of `access/nbtree.h`
const EQUAL_IMAGE: i16 = 4;

pub unsafe fn is_right(subquery: &Subquery) -> bool {
    unsafe {
        subquery.keys.iter().copied().all(|key| {
            travels(key.cast())
                && (*key).varattno > 0
                && equality_suffices(key.cast(), &evaluated(subquery), &|item| {
                    node::cast::<pg_sys::Var>(item).is_some_and(|var| {
                        (*var).varlevelsup == 1 && trees::same_column(key.cast(), var)
                    })
                })
                && list::iter::<pg_sys::Var>(nonnull_columns(subquery))
                    .any(|var| (*var).varno == (*key).varno && (*var).varattno == (*key).varattno)
        }) && subquery
            .aggregates
            .iter()
            .all(|aggregate| gives_null_for_nothing(*aggregate))
            && cannot_fail(subquery)
    }
}

/// Is it all the same to some expressions which of several equal values they are given in the place of `value`, which
/// `is_value` finds in them?
///
/// # Safety
/// All are valid expressions.
pub unsafe fn equality_suffices(
    value: *mut Node,
    trees: &[*mut Node],
    is_value: &dyn Fn(*mut Node) -> bool,
) -> bool {
    unsafe {
        let (type_oid, _, collation) = expr::signature(value);
        let Some((family, class_type)) = default_order(type_oid) else {
            return false;
        };
        let deterministic =
            collation == pg_sys::InvalidOid || pg_sys::get_collation_isdeterministic(collation);
        deterministic
            && (is_identity(type_oid, collation, (family, class_type))
                || trees
                    .iter()
                    .all(|tree| is_only_compared(*tree, family, is_value)))
    }
}

/// Can equal values of the type not be told apart, by any expression (a btree `equalimage` support function says so)?
unsafe fn is_identity(type_oid: Oid, collation: Oid, (family, class_type): (Oid, Oid)) -> bool {
    unsafe {
        let image = pg_sys::get_opfamily_proc(family, class_type, class_type, EQUAL_IMAGE);
        // that of bpchar means values of one length
        type_oid != pg_sys::BPCHAROID
            && image != pg_sys::InvalidOid
            && pg_sys::OidFunctionCall1Coll(image, collation, type_oid.into()).value() != 0
    }
}

/// The operator family that orders a type, whose equality groups its values, and the type by which it is known there.
unsafe fn default_order(type_oid: Oid) -> Option<(Oid, Oid)> {
    unsafe {
        let cache = pg_sys::lookup_type_cache(
            type_oid,
            (pg_sys::TYPECACHE_BTREE_OPFAMILY | pg_sys::TYPECACHE_EQ_OPR) as i32,
        );
        let known =
            (*cache).btree_opf != pg_sys::InvalidOid && (*cache).eq_opr != pg_sys::InvalidOid;
        known.then(|| ((*cache).btree_opf, (*cache).btree_opintype))
    }
}

/// Is the value only an operand of comparisons of its type's order? For them equal values are the same, though they may
/// look different (1.0 and 1.00, 0 and -0, 24:00:00 and 1 day).
unsafe fn is_only_compared(
    tree: *mut Node,
    family: Oid,
    is_value: &dyn Fn(*mut Node) -> bool,
) -> bool {
    unsafe {
        let (mut all, mut compared) = (0, 0);
        node::walk(tree, &mut |item, _| {
            all += usize::from(is_value(item));
            if let Some(op) = node::cast::<pg_sys::OpExpr>(item) {
                if belongs_to((*op).opno, family) {
                    compared += list::iter((*op).args).filter(|arg| is_value(*arg)).count();
                }
            }
            Step::Into
        });
        all == compared
    }
}

/// Is it one of the family's comparisons, or `<>`?
unsafe fn belongs_to(operator: Oid, family: Oid) -> bool {
    unsafe {
        list::iter::<pg_sys::OpBtreeInterpretation>(pg_sys::get_op_btree_interpretation(operator))
            .any(|known| (*known).opfamily_id == family)
    }
}

/// What is evaluated for rows of the subquery's tables.
unsafe fn evaluated(subquery: &Subquery) -> Vec<*mut Node> {
    unsafe {
        let from = (*subquery.query).jointree;
        let mut trees: Vec<*mut Node> = vec![(*from).quals];
        trees.extend(list::iter::<Node>((*from).fromlist));
        for aggregate in &subquery.aggregates {
            trees.extend([
                (**aggregate).args.cast::<Node>(),
                (**aggregate).aggfilter.cast(),
                (**aggregate).aggdistinct.cast(),
            ]);
        }
        trees
    }
}

/// The columns, of any level, that WHERE cannot be true for when they are NULL. Those around the subquery look like
/// its own to PostgreSQL's function when they are put on its level.
unsafe fn nonnull_columns(subquery: &Subquery) -> *mut pg_sys::List {
    unsafe {
        let quals: *mut Node = node::copy((*(*subquery.query).jointree).quals);
        let mut outer = Vec::new();
        for qual in expr::conjuncts(quals) {
            let lowered = lowered(qual);
            if let Some(lowered) = lowered {
                outer.extend(list::iter::<pg_sys::Var>(pg_sys::find_nonnullable_vars(
                    lowered,
                )));
            }
        }
        list::from(outer)
    }
}

/// The condition with the columns around as if they were the only ones: those of its own become NULLs of no use.
unsafe fn lowered(tree: *mut Node) -> Option<*mut Node> {
    unsafe fn change(item: *mut Node) -> *mut Node {
        unsafe {
            if item.is_null() {
                return item;
            }
            if let Some(var) = node::cast::<pg_sys::Var>(item) {
                let copy = node::copy(var);
                if (*copy).varlevelsup == 1 {
                    (*copy).varlevelsup = 0;
                } else {
                    // no entry has this number
                    (*copy).varno = i32::from(u16::MAX) - 10;
                }
                return copy.cast();
            }
            node::map_children(item, |child| change(child))
        }
    }
    unsafe { (!tree.is_null()).then(|| change(tree)) }
}

/// Is the value for no rows NULL, or of `count` 0, and is there one for any rows?
unsafe fn gives_null_for_nothing(aggregate: *mut pg_sys::Aggref) -> bool {
    unsafe {
        let function = (*aggregate).aggfnoid;
        if (*aggregate).aggkind != b'n' as std::ffi::c_char
            || function.to_u32() >= pg_sys::FirstNormalObjectId
        {
            return false;
        }
        let name = pg_sys::get_func_name(function);
        if name.is_null() {
            return false;
        }
        // sums of floats may overflow
        let exact = !list::oids((*aggregate).aggargtypes)
            .iter()
            .any(|t| matches!(*t, pg_sys::FLOAT4OID | pg_sys::FLOAT8OID));
        match std::ffi::CStr::from_ptr(name).to_bytes() {
            b"count" | b"min" | b"max" | b"bool_and" | b"bool_or" | b"every" => true,
            b"sum" | b"avg" => exact,
            _ => false,
        }
    }
}

/// Can no expression raise an error that is evaluated for more rows than before? Those of IN were evaluated for all rows
/// of the subquery's tables; but its test was for such rows around it only that meet the other conditions.
unsafe fn cannot_fail(subquery: &Subquery) -> bool {
    unsafe {
        let trees = match subquery.test {
            Some(test) => vec![test],
            None => evaluated(subquery),
        };
        trees.into_iter().all(|tree| {
            !node::walk(tree, &mut |item, _| {
                if is_constant(item) {
                    Step::Over
                } else if is_harmless(item) {
                    Step::Into
                } else {
                    Step::Stop
                }
            })
        })
    }
}

/// PostgreSQL's planner evaluates it, whoever would ask for it.
unsafe fn is_constant(item: *mut Node) -> bool {
    unsafe {
        matches!(node::tag(item), NodeTag::T_OpExpr | NodeTag::T_FuncExpr)
            && !pg_sys::contain_mutable_functions(item)
            && !node::walk(item, &mut |part, _| match node::tag(part) {
                NodeTag::T_Var | NodeTag::T_Param => Step::Stop,
                _ => Step::Into,
            })
    }
}

unsafe fn is_harmless(item: *mut Node) -> bool {
    unsafe {
        match node::tag(item) {
            NodeTag::T_OpExpr => operator_is_harmless((*item.cast::<pg_sys::OpExpr>()).opno),
            NodeTag::T_ScalarArrayOpExpr => {
                operator_is_harmless((*item.cast::<pg_sys::ScalarArrayOpExpr>()).opno)
            }
            NodeTag::T_FuncExpr => function_is_harmless((*item.cast::<pg_sys::FuncExpr>()).funcid),
            NodeTag::T_List
            | NodeTag::T_Var
            | NodeTag::T_Const
            | NodeTag::T_Param
            | NodeTag::T_RelabelType
            | NodeTag::T_BoolExpr
            | NodeTag::T_NullTest
            | NodeTag::T_BooleanTest
            | NodeTag::T_TargetEntry
            | NodeTag::T_SortGroupClause
            | NodeTag::T_RangeTblRef
            | NodeTag::T_FromExpr
            | NodeTag::T_JoinExpr
            | NodeTag::T_CollateExpr => true,
            _ => false,
        }
    }
}

unsafe fn function_is_harmless(function: Oid) -> bool {
    unsafe {
        function.to_u32() < pg_sys::FirstNormalObjectId
            && (pg_sys::get_func_leakproof(function) || TOTAL.contains(&function.to_u32()))
    }
}

unsafe fn operator_is_harmless(operator: Oid) -> bool {
    unsafe {
        if operator.to_u32() >= pg_sys::FirstNormalObjectId {
            return false;
        }
        // an ordering or equality of its type compares whatever it is given
        let families = pg_sys::get_op_btree_interpretation(operator);
        !families.is_null() || function_is_harmless(pg_sys::get_opcode(operator))
    }
}

/// Functions that are defined for all values but not called leakproof.
const TOTAL: [u32; 14] = [
    pg_sys::F_NUMERIC_ADD,
    pg_sys::F_NUMERIC_SUB,
    pg_sys::F_NUMERIC_MUL,
    pg_sys::F_NUMERIC_INT4,
    pg_sys::F_NUMERIC_INT8,
    pg_sys::F_NUMERIC_INT2,
    pg_sys::F_TEXTLIKE,
    pg_sys::F_TEXTNLIKE,
    pg_sys::F_BPCHARLIKE,
    pg_sys::F_BPCHARNLIKE,
    pg_sys::F_INT8_INT4,
    pg_sys::F_FLOAT8_INT4,
    pg_sys::F_TIMESTAMP_DATE,
    pg_sys::F_LENGTH_TEXT,
];
