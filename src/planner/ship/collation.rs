//! What a collation decides, above all the default one of a database: it is the coordinator's, so where a node has another
//! one, or another version of it, such expressions are computed here.

use crate::catalog;
use crate::pg::node::Step;
use crate::pg::{list, node, types};
use pgrx::pg_sys::{self, Node, NodeTag, Oid, Query};
use std::ffi::CStr;

pub const OTHER_COLLATION: &str = "a node has another default collation";

/// Do ORDER BY of the level or its windows sort otherwise on a node?
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn sorts_otherwise(query: *mut Query) -> bool {
    !catalog::nodes_collate_alike().unwrap_or(false) && unsafe { sorts(query, is_other) }
}

/// Does the node itself, not what is below it, compare, sort or classify characters by a collation that is another one on
/// a node of the cluster?
///
/// # Safety
/// `item` is a valid node of a Query.
pub unsafe fn differs(item: *mut Node) -> bool {
    !catalog::nodes_collate_alike().unwrap_or(false) && unsafe { uses(item, is_other) }
}

/// The same of anything in an expression.
///
/// # Safety
/// `tree` is null or a valid expression.
pub unsafe fn differs_within(tree: *mut Node) -> bool {
    !catalog::nodes_collate_alike().unwrap_or(false) && unsafe { uses_within(tree, is_other) }
}

/// Does anything in an expression depend on the default collation?
///
/// # Safety
/// `tree` is null or a valid expression.
pub unsafe fn uses_default_collation(tree: *mut Node) -> bool {
    unsafe { uses_within(tree, |collation| collation == pg_sys::DEFAULT_COLLATION_OID) }
}

/// Does the collation sort otherwise on a node of the cluster? Of those that users have made out of ICU's locales, ICU's
/// version decides, as it does for PostgreSQL's own.
pub fn is_other(collation: Oid) -> bool {
    catalog::collation_differs(collation).unwrap_or(true)
}

unsafe fn uses_within(tree: *mut Node, chosen: fn(Oid) -> bool) -> bool {
    unsafe {
        node::walk(tree, &mut |item, _| {
            if uses(item, chosen) {
                Step::Stop
            } else {
                Step::Into
            }
        })
    }
}

/// Does the node itself go by one of the chosen collations?
unsafe fn uses(item: *mut Node, chosen: fn(Oid) -> bool) -> bool {
    unsafe {
        match node::tag(item) {
            NodeTag::T_Query => sorts(item.cast(), chosen),
            NodeTag::T_OpExpr | NodeTag::T_DistinctExpr | NodeTag::T_NullIfExpr => {
                let operator = item.cast::<pg_sys::OpExpr>();
                chosen((*operator).inputcollid) && !is_blind(pg_sys::get_opcode((*operator).opno))
            }
            NodeTag::T_ScalarArrayOpExpr => {
                let operator = item.cast::<pg_sys::ScalarArrayOpExpr>();
                chosen((*operator).inputcollid) && !is_blind(pg_sys::get_opcode((*operator).opno))
            }
            NodeTag::T_FuncExpr => {
                let call = item.cast::<pg_sys::FuncExpr>();
                chosen((*call).inputcollid) && !is_blind((*call).funcid)
            }
            NodeTag::T_WindowFunc => {
                let call = item.cast::<pg_sys::WindowFunc>();
                chosen((*call).inputcollid) && !is_blind((*call).winfnoid)
            }
            NodeTag::T_Aggref => {
                let call = item.cast::<pg_sys::Aggref>();
                chosen((*call).inputcollid) && !is_blind((*call).aggfnoid)
                    || sorted_by((*call).aggorder, (*call).args, chosen)
            }
            NodeTag::T_MinMaxExpr => chosen((*item.cast::<pg_sys::MinMaxExpr>()).inputcollid),
            NodeTag::T_RowCompareExpr => {
                let compared = item.cast::<pg_sys::RowCompareExpr>();
                list::oids((*compared).inputcollids).into_iter().any(chosen)
            }
            _ => false,
        }
    }
}

/// ORDER BY of a level, and of its windows.
unsafe fn sorts(query: *mut Query, chosen: fn(Oid) -> bool) -> bool {
    unsafe {
        sorted_by((*query).sortClause, (*query).targetList, chosen)
            || list::iter::<pg_sys::WindowClause>((*query).windowClause)
                .any(|window| sorted_by((*window).orderClause, (*query).targetList, chosen))
    }
}

unsafe fn sorted_by(
    clauses: *mut pg_sys::List,
    targets: *mut pg_sys::List,
    chosen: fn(Oid) -> bool,
) -> bool {
    unsafe {
        list::iter::<pg_sys::SortGroupClause>(clauses).any(|clause| {
            let key = pg_sys::get_sortgroupclause_expr(clause, targets);
            chosen(pg_sys::exprCollation(key))
        })
    }
}

/// Functions that take texts as they are: equality, which default collations leave to the bytes, what cuts, joins and
/// counts, and those to which a text is the name of a field or a unit.
const BLIND: [&str; 64] = [
    "texteq",
    "textne",
    "bpchareq",
    "bpcharne",
    "nameeq",
    "namene",
    "nameeqtext",
    "namenetext",
    "texteqname",
    "textnename",
    "textlike",
    "textnlike",
    "textcat",
    "textanycat",
    "anytextcat",
    "array_eq",
    "array_ne",
    "text",
    "varchar",
    "bpchar",
    "name",
    "length",
    "char_length",
    "octet_length",
    "substr",
    "left",
    "right",
    "replace",
    "strpos",
    "btrim",
    "ltrim",
    "rtrim",
    "repeat",
    "reverse",
    "lpad",
    "rpad",
    "md5",
    "starts_with",
    "count",
    "array_agg",
    "string_agg",
    "array_append",
    "array_length",
    "unnest",
    "split_part",
    "position",
    "translate",
    "encode",
    "decode",
    "date_trunc",
    "date_part",
    "extract",
    "timezone",
    "json_object_field",
    "json_object_field_text",
    "json_extract_path",
    "json_extract_path_text",
    "jsonb_object_field",
    "jsonb_object_field_text",
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "jsonb_exists",
    "jsonb_exists_any",
    "jsonb_exists_all",
];

fn is_blind(function: Oid) -> bool {
    // SAFETY: a syscache look-up; the name is a copy.
    unsafe {
        let name = pg_sys::get_func_name(function);
        types::is_builtin(function)
            && !name.is_null()
            && BLIND.contains(&CStr::from_ptr(name).to_str().unwrap_or_default())
    }
}
