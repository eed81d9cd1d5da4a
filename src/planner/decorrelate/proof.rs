//! When a correlated subquery may be computed for all values it depends on at once.

use super::Subquery;
use crate::pg::node::Step;
use crate::pg::{expr, list, node, types};
use pgrx::pg_sys::{self, Node, NodeTag, Oid};

/// `BTEQUALIMAGE_PROC` of `access/nbtree.h`
const EQUAL_IMAGE: i16 = 4;

pub unsafe fn is_right(subquery: &Subquery) -> bool {
    unsafe {
        subquery.keys.iter().all(|key| {
            is_identity(*key)
                && list::iter::<pg_sys::Var>(nonnull_columns(subquery))
                    .any(|var| (*var).varno == (**key).varno && (*var).varattno == (**key).varattno)
        }) && subquery
            .aggregates
            .iter()
            .all(|aggregate| gives_null_for_nothing(*aggregate))
            && cannot_fail(subquery)
    }
}

/// Can equal values of the column not be told apart, by any expression (a btree `equalimage` support function says so)?
unsafe fn is_identity(key: *mut pg_sys::Var) -> bool {
    unsafe {
        let (type_oid, collation) = ((*key).vartype, (*key).varcollid);
        if !types::is_builtin(type_oid)
            || collation != pg_sys::get_typcollation(type_oid)
            || pg_sys::get_array_type(type_oid) == pg_sys::InvalidOid
            || (*key).varattno <= 0
        {
            return false;
        }
        let cache = pg_sys::lookup_type_cache(
            type_oid,
            (pg_sys::TYPECACHE_BTREE_OPFAMILY | pg_sys::TYPECACHE_EQ_OPR) as i32,
        );
        if (*cache).btree_opf == pg_sys::InvalidOid || (*cache).eq_opr == pg_sys::InvalidOid {
            return false;
        }
        let image = pg_sys::get_opfamily_proc(
            (*cache).btree_opf,
            (*cache).btree_opintype,
            (*cache).btree_opintype,
            EQUAL_IMAGE,
        );
        image != pg_sys::InvalidOid
            && pg_sys::OidFunctionCall1Coll(image, collation, type_oid.into()).value() != 0
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

/// Can no expression that is evaluated for rows of the subquery's tables raise an error?
unsafe fn cannot_fail(subquery: &Subquery) -> bool {
    unsafe {
        let mut trees: Vec<*mut Node> = vec![(*(*subquery.query).jointree).quals];
        for item in list::iter::<Node>((*(*subquery.query).jointree).fromlist) {
            trees.push(item);
        }
        for aggregate in &subquery.aggregates {
            trees.extend([
                (**aggregate).args.cast::<Node>(),
                (**aggregate).aggfilter.cast(),
                (**aggregate).aggdistinct.cast(),
            ]);
        }
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
