//! Small constructors and questions about expressions.

use crate::pg::{list, node, types};
use pgrx::pg_sys::{self, Expr, Node};

/// The conjuncts of a qual: nested ANDs and lists flattened.
///
/// # Safety
/// `qual` is null, an expression, or an implicit-AND list.
pub unsafe fn conjuncts(qual: *mut Node) -> Vec<*mut Node> {
    let mut found = Vec::new();
    unsafe { collect(qual, &mut found) };
    found
}

unsafe fn collect(qual: *mut Node, found: &mut Vec<*mut Node>) {
    unsafe {
        if qual.is_null() {
            return;
        }
        if node::tag(qual) == pg_sys::NodeTag::T_List {
            for item in list::iter::<Node>(qual.cast()) {
                collect(item, found);
            }
        } else if let Some(and) = node::cast::<pg_sys::BoolExpr>(qual)
            .filter(|b| (**b).boolop == pg_sys::BoolExprType::AND_EXPR)
        {
            for item in list::iter::<Node>((*and).args) {
                collect(item, found);
            }
        } else {
            found.push(qual);
        }
    }
}

/// `expr` below any RelabelType (binary-compatible casts).
///
/// # Safety
/// `expr` is null or a valid expression.
pub unsafe fn strip_relabel(mut expr: *mut Node) -> *mut Node {
    unsafe {
        while let Some(relabel) = node::cast::<pg_sys::RelabelType>(expr) {
            expr = (*relabel).arg.cast();
        }
    }
    expr
}

/// An external Param `$number` of a type.
///
/// # Safety
/// Allocates: call it inside the server.
pub unsafe fn param(
    number: i32,
    type_oid: pg_sys::Oid,
    typmod: i32,
    collation: pg_sys::Oid,
) -> *mut pg_sys::Param {
    unsafe {
        let param = node::make::<pg_sys::Param>();
        (*param).paramkind = pg_sys::ParamKind::PARAM_EXTERN;
        (*param).paramid = number;
        (*param).paramtype = type_oid;
        (*param).paramtypmod = typmod;
        (*param).paramcollid = collation;
        (*param).location = -1;
        param
    }
}

/// A non-null int4 constant.
///
/// # Safety
/// Allocates: call it inside the server.
pub unsafe fn int4(value: i32) -> *mut pg_sys::Const {
    unsafe {
        pg_sys::makeConst(
            pg_sys::INT4OID,
            -1,
            pg_sys::InvalidOid,
            4,
            pg_sys::Datum::from(value),
            false,
            true,
        )
    }
}

/// A non-null int8 constant.
///
/// # Safety
/// Allocates: call it inside the server.
pub unsafe fn int8(value: i64) -> *mut pg_sys::Const {
    unsafe {
        pg_sys::makeConst(
            pg_sys::INT8OID,
            -1,
            pg_sys::InvalidOid,
            8,
            pg_sys::Datum::from(value),
            false,
            true,
        )
    }
}

/// A text constant.
///
/// # Safety
/// `value` ends with NUL, and is in the database's encoding.
pub unsafe fn text(value: *const std::ffi::c_char) -> *mut pg_sys::Const {
    unsafe {
        let collation = pg_sys::DEFAULT_COLLATION_OID;
        let value = pg_sys::Datum::from(pg_sys::cstring_to_text(value));
        pg_sys::makeConst(pg_sys::TEXTOID, -1, collation, -1, value, false, false)
    }
}

/// A cast by the text of the value.
///
/// # Safety
/// `value` is a valid expression.
pub unsafe fn via_text(
    value: *mut Node,
    type_oid: pg_sys::Oid,
    collation: pg_sys::Oid,
) -> *mut Node {
    unsafe {
        let cast = node::make::<pg_sys::CoerceViaIO>();
        (*cast).arg = value.cast();
        (*cast).resulttype = type_oid;
        (*cast).resultcollid = collation;
        (*cast).coerceformat = pg_sys::CoercionForm::COERCE_EXPLICIT_CAST;
        (*cast).location = -1;
        cast.cast()
    }
}

/// Type, typmod and collation of an expression.
///
/// # Safety
/// `expr` is a valid expression.
pub unsafe fn signature(expr: *const Node) -> (pg_sys::Oid, i32, pg_sys::Oid) {
    unsafe {
        (
            pg_sys::exprType(expr),
            pg_sys::exprTypmod(expr),
            pg_sys::exprCollation(expr),
        )
    }
}

/// `a AND b`; either may be null.
///
/// # Safety
/// Both are null or valid boolean expressions.
pub unsafe fn and(a: *mut Node, b: *mut Node) -> *mut Node {
    unsafe {
        if a.is_null() {
            b
        } else if b.is_null() {
            a
        } else {
            pg_sys::makeBoolExpr(pg_sys::BoolExprType::AND_EXPR, list::from([a, b]), -1)
                .cast::<Expr>()
                .cast()
        }
    }
}

/// `CASE WHEN … THEN … ELSE … END`
///
/// # Safety
/// They are valid expressions, the values of the type.
pub unsafe fn case(
    whens: Vec<(*mut Node, *mut Node)>,
    otherwise: *mut Node,
    (type_oid, _, collation): (pg_sys::Oid, i32, pg_sys::Oid),
) -> *mut Node {
    unsafe {
        let case = node::make::<pg_sys::CaseExpr>();
        (*case).casetype = type_oid;
        (*case).casecollid = collation;
        (*case).args = list::from(
            whens
                .into_iter()
                .map(|(condition, value)| {
                    let when = node::make::<pg_sys::CaseWhen>();
                    (*when).expr = condition.cast();
                    (*when).result = value.cast();
                    (*when).location = -1;
                    when
                })
                .collect::<Vec<_>>(),
        );
        (*case).defresult = otherwise.cast();
        (*case).location = -1;
        case.cast()
    }
}

/// A Var of this level.
///
/// # Safety
/// Allocates: call it inside the server.
pub unsafe fn var(
    varno: i32,
    attno: i16,
    (type_oid, typmod, collation): (pg_sys::Oid, i32, pg_sys::Oid),
) -> *mut pg_sys::Var {
    unsafe { pg_sys::makeVar(varno, attno, type_oid, typmod, collation, 0) }
}

/// A copy of `tree` in which this level's Vars of `from` are those of `to`.
///
/// # Safety
/// `tree` is an expression without subqueries.
pub unsafe fn renumbered(tree: *mut Node, from: i32, to: i32) -> *mut Node {
    unsafe {
        if tree.is_null() {
            return tree;
        }
        if let Some(var) = node::cast::<pg_sys::Var>(tree) {
            let copy = node::copy(var);
            if (*copy).varno == from && (*copy).varlevelsup == 0 {
                (*copy).varno = to;
                (*copy).varnosyn = to as u32;
            }
            return copy.cast();
        }
        node::map_children(tree, |child| renumbered(child, from, to))
    }
}

/// `value COLLATE …` when its collation is not `usual`.
///
/// # Safety
/// `value` is a valid expression.
pub unsafe fn collated(value: *mut Node, usual: pg_sys::Oid) -> *mut Node {
    unsafe {
        let collation = pg_sys::exprCollation(value);
        if collation == pg_sys::InvalidOid || collation == usual {
            return value;
        }
        collate(value, collation)
    }
}

/// `value COLLATE …`.
///
/// # Safety
/// `value` is a valid expression.
pub unsafe fn collate(value: *mut Node, collation: pg_sys::Oid) -> *mut Node {
    unsafe {
        let collate = node::make::<pg_sys::CollateExpr>();
        (*collate).arg = value.cast();
        (*collate).collOid = collation;
        (*collate).location = -1;
        collate.cast()
    }
}

/// `unnest(array)` in ROWS FROM.
///
/// # Safety
/// `array` is an expression of an array with such elements.
pub unsafe fn unnest(
    array: *mut Node,
    element: pg_sys::Oid,
    collation: pg_sys::Oid,
) -> *mut pg_sys::RangeTblFunction {
    unsafe {
        let call = pg_sys::makeFuncExpr(
            pg_sys::F_UNNEST_ANYARRAY.into(),
            element,
            list::from([array]),
            collation,
            collation,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        );
        (*call).funcretset = true;
        let function = node::make::<pg_sys::RangeTblFunction>();
        (*function).funcexpr = call.cast();
        (*function).funccolcount = 1;
        function
    }
}

/// A copy of `tree`, which PostgreSQL's planner has simplified, with COLLATE where it was taken out: deparsing says
/// nothing of the collation of a RelabelType.
///
/// # Safety
/// `tree` is null or a valid expression.
pub unsafe fn with_collations(tree: *mut Node) -> *mut Node {
    unsafe {
        if tree.is_null() {
            return tree;
        }
        let changed = node::map_children(tree, |child| with_collations(child));
        match node::cast::<pg_sys::RelabelType>(changed) {
            Some(relabel) => {
                let below = pg_sys::exprCollation((*relabel).arg.cast());
                collated(changed, below)
            }
            None => changed,
        }
    }
}

/// A cast by one of the server's own functions, as the parser puts it around a constant: all arguments are there, each a
/// constant, a parameter or such a cast.
///
/// # Safety
/// `item` is a valid expression.
pub unsafe fn plain_cast(item: *mut Node) -> Option<*mut pg_sys::FuncExpr> {
    unsafe {
        let call = node::cast::<pg_sys::FuncExpr>(item)?;
        let is_cast = matches!(
            (*call).funcformat,
            pg_sys::CoercionForm::COERCE_IMPLICIT_CAST | pg_sys::CoercionForm::COERCE_EXPLICIT_CAST
        );
        let plain = is_cast
            && types::is_builtin((*call).funcid)
            && !(*call).funcretset
            && list::iter::<Node>((*call).args).all(|argument| {
                matches!(
                    node::tag(argument),
                    pg_sys::NodeTag::T_Const | pg_sys::NodeTag::T_Param
                ) || plain_cast(argument).is_some()
            });
        plain.then_some(call)
    }
}
