//! Nodes of PostgreSQL's trees: tags, casts, copies, and walkers and mutators that take closures.

use pgrx::pg_sys::{self, Node, NodeTag};
use std::ffi::c_void;

/// A node struct and its tag, so that `cast` can check.
pub trait NodeType {
    const TAG: NodeTag;
}

macro_rules! node_types {
    ($($name:ident $tag:ident),* $(,)?) => {
        $(impl NodeType for pg_sys::$name { const TAG: NodeTag = NodeTag::$tag; })*
    };
}

node_types! {
    Query T_Query, RangeTblEntry T_RangeTblEntry, RangeTblRef T_RangeTblRef, JoinExpr T_JoinExpr, FromExpr T_FromExpr,
    Var T_Var, Const T_Const, Param T_Param, OpExpr T_OpExpr, BoolExpr T_BoolExpr, FuncExpr T_FuncExpr,
    RelabelType T_RelabelType, CoerceViaIO T_CoerceViaIO, CoerceToDomain T_CoerceToDomain, NullTest T_NullTest,
    ScalarArrayOpExpr T_ScalarArrayOpExpr, SubLink T_SubLink, Aggref T_Aggref, TargetEntry T_TargetEntry,
    CommonTableExpr T_CommonTableExpr, SetOperationStmt T_SetOperationStmt, SortGroupClause T_SortGroupClause,
    WindowFunc T_WindowFunc, WindowClause T_WindowClause, SQLValueFunction T_SQLValueFunction, NextValueExpr T_NextValueExpr,
    RowExpr T_RowExpr, CustomScan T_CustomScan, RangeVar T_RangeVar, TypeName T_TypeName, RawStmt T_RawStmt,
    OnConflictExpr T_OnConflictExpr, ModifyTable T_ModifyTable, RestrictInfo T_RestrictInfo, ArrayExpr T_ArrayExpr,
    GroupingFunc T_GroupingFunc, CurrentOfExpr T_CurrentOfExpr, RangeTblFunction T_RangeTblFunction,
    PlaceHolderVar T_PlaceHolderVar, ArrayCoerceExpr T_ArrayCoerceExpr, MinMaxExpr T_MinMaxExpr, RowCompareExpr T_RowCompareExpr, CollateExpr T_CollateExpr,
    FieldStore T_FieldStore, ConvertRowtypeExpr T_ConvertRowtypeExpr, WithCheckOption T_WithCheckOption,
    RowMarkClause T_RowMarkClause, CopyStmt T_CopyStmt, SetToDefault T_SetToDefault, ColumnRef T_ColumnRef, ResTarget T_ResTarget, SelectStmt T_SelectStmt, Alias T_Alias, BooleanTest T_BooleanTest,
    CaseExpr T_CaseExpr, CaseWhen T_CaseWhen, FieldSelect T_FieldSelect, ResultRelInfo T_ResultRelInfo,
    PlannerGlobal T_PlannerGlobal, PlannerInfo T_PlannerInfo, CoalesceExpr T_CoalesceExpr,
}

/// The tag of a node.
///
/// # Safety
/// `node` is a valid, non-null node.
pub unsafe fn tag(node: *const Node) -> NodeTag {
    unsafe { (*node).type_ }
}

/// `node` as a `T`, or None when it is null or another kind.
///
/// # Safety
/// `node` is null or a valid node.
pub unsafe fn cast<T: NodeType>(node: *const impl Sized) -> Option<*mut T> {
    let node = node.cast::<Node>();
    if !node.is_null() && unsafe { (*node).type_ } == T::TAG {
        Some(node.cast_mut().cast())
    } else {
        None
    }
}

/// A zeroed node of type `T` with its tag set, in the current memory context.
///
/// # Safety
/// Allocates: call it inside the server. The caller fills what the type requires.
pub unsafe fn make<T: NodeType>() -> *mut T {
    unsafe {
        let node = pg_sys::palloc0(std::mem::size_of::<T>()).cast::<T>();
        (*node.cast::<Node>()).type_ = T::TAG;
        node
    }
}

/// `copyObject`.
///
/// # Safety
/// `node` is null or a valid node or list.
pub unsafe fn copy<T>(node: *const T) -> *mut T {
    unsafe { pg_sys::copyObjectImpl(node.cast()).cast() }
}

/// `equal()` of two nodes.
///
/// # Safety
/// Both are null or valid nodes.
pub unsafe fn equal<A, B>(a: *const A, b: *const B) -> bool {
    unsafe { pg_sys::equal(a.cast(), b.cast()) }
}

/// A string in the current memory context.
///
/// # Safety
/// Allocates: call it inside the server.
pub unsafe fn pstrdup(text: &str) -> *mut std::ffi::c_char {
    unsafe {
        let memory = pg_sys::palloc(text.len() + 1).cast::<u8>();
        std::ptr::copy_nonoverlapping(text.as_ptr(), memory, text.len());
        *memory.add(text.len()) = 0;
        memory.cast()
    }
}

unsafe extern "C-unwind" fn walk_callback<F: FnMut(*mut Node) -> bool>(
    node: *mut Node,
    context: *mut c_void,
) -> bool {
    // SAFETY: `context` is the closure that `children` passed; PostgreSQL calls back on the same stack.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(|| (*context.cast::<F>())(node)) }
}

/// Calls `visit` for each direct child of an expression (`expression_tree_walker`); stops at the first `true`.
/// A child that is a Query is handed over as such.
///
/// # Safety
/// `node` is null or a valid expression tree.
pub unsafe fn children<F: FnMut(*mut Node) -> bool>(node: *mut Node, mut visit: F) -> bool {
    unsafe {
        pg_sys::expression_tree_walker(node, Some(walk_callback::<F>), (&raw mut visit).cast())
    }
}

/// Calls `visit` for each direct child of a Query (`query_tree_walker`); stops at the first `true`.
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn query_children<F: FnMut(*mut Node) -> bool>(
    query: *mut pg_sys::Query,
    flags: u32,
    mut visit: F,
) -> bool {
    unsafe {
        pg_sys::query_tree_walker(
            query,
            Some(walk_callback::<F>),
            (&raw mut visit).cast(),
            flags as i32,
        )
    }
}

/// The relation that a name means, or `InvalidOid`. It is not locked.
///
/// # Safety
/// `name` is a valid RangeVar.
pub unsafe fn relation_named(name: *const pg_sys::RangeVar) -> pg_sys::Oid {
    unsafe {
        pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    }
}

/// The queries directly below a Query: those in FROM, WITH and its expressions.
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn queries_below(query: *mut pg_sys::Query) -> Vec<*mut pg_sys::Query> {
    let mut found = Vec::new();
    unsafe {
        query_children(query, 0, |child| {
            walk(child, &mut |item, _| match cast::<pg_sys::Query>(item) {
                Some(below) => {
                    found.push(below);
                    Step::Over
                }
                None => Step::Into,
            })
        });
    }
    found
}

/// Calls `visit` for each direct child of a raw parse tree.
///
/// # Safety
/// `node` is null or a valid raw parse tree.
pub unsafe fn raw_children<F: FnMut(*mut Node) -> bool>(node: *mut Node, mut visit: F) -> bool {
    unsafe {
        pg_sys::raw_expression_tree_walker(node, Some(walk_callback::<F>), (&raw mut visit).cast())
    }
}

/// Visits every node below `node`, queries included, in depth-first order. `visit` answers `Step`.
///
/// # Safety
/// `node` is null, an expression, a list or a Query.
pub unsafe fn walk(node: *mut Node, visit: &mut dyn FnMut(*mut Node, u32) -> Step) -> bool {
    unsafe { walk_level(node, 0, visit) }
}

/// What a visitor of `walk` wants next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// On to the children.
    Into,
    /// Not into the children.
    Over,
    /// Found: the walk ends and answers true.
    Stop,
}

unsafe fn walk_level(
    node: *mut Node,
    level: u32,
    visit: &mut dyn FnMut(*mut Node, u32) -> Step,
) -> bool {
    if node.is_null() {
        return false;
    }
    unsafe {
        match visit(node, level) {
            Step::Stop => true,
            Step::Over => false,
            Step::Into => {
                // Lists and leaves are most of a large statement: they need no help of the server's.
                match tag(node) {
                    NodeTag::T_Query => {
                        query_children(node.cast(), 0, |child| walk_level(child, level + 1, visit))
                    }
                    NodeTag::T_List => super::list::iter::<Node>(node.cast())
                        .any(|item| walk_level(item, level, visit)),
                    NodeTag::T_Const | NodeTag::T_Var | NodeTag::T_Param => false,
                    _ => children(node, |child| walk_level(child, level, visit)),
                }
            }
        }
    }
}

unsafe extern "C-unwind" fn mutate_callback<F: FnMut(*mut Node) -> *mut Node>(
    node: *mut Node,
    context: *mut c_void,
) -> *mut Node {
    // SAFETY: as walk_callback.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(|| (*context.cast::<F>())(node)) }
}

/// A copy of `node` whose direct children are what `change` makes of them (`expression_tree_mutator`).
///
/// # Safety
/// `node` is null or a valid expression tree (not a Query).
pub unsafe fn map_children<F: FnMut(*mut Node) -> *mut Node>(
    node: *mut Node,
    mut change: F,
) -> *mut Node {
    type Callback = unsafe extern "C-unwind" fn(*mut Node, *mut c_void) -> *mut Node;
    // SAFETY: PostgreSQL 15 declares the callback without arguments and calls it with these two.
    unsafe {
        let callback: unsafe extern "C-unwind" fn() -> *mut Node =
            std::mem::transmute(mutate_callback::<F> as Callback);
        pg_sys::expression_tree_mutator(node, Some(callback), (&raw mut change).cast())
    }
}

/// The same for a Query, changed in place (`query_tree_mutator` with QTW_DONT_COPY_QUERY).
///
/// # Safety
/// `query` is a valid Query that the caller owns.
pub unsafe fn map_query<F: FnMut(*mut Node) -> *mut Node>(
    query: *mut pg_sys::Query,
    mut change: F,
) {
    type Callback = unsafe extern "C-unwind" fn(*mut Node, *mut c_void) -> *mut Node;
    // SAFETY: as map_children.
    unsafe {
        let callback: unsafe extern "C-unwind" fn() -> *mut Node =
            std::mem::transmute(mutate_callback::<F> as Callback);
        pg_sys::query_tree_mutator(
            query,
            Some(callback),
            (&raw mut change).cast(),
            pg_sys::QTW_DONT_COPY_QUERY as i32,
        );
    }
}

/// Functions of `rewrite/rewriteManip.h`, which pgrx does not bind.
mod manip {
    use super::Node;
    unsafe extern "C-unwind" {
        pub fn IncrementVarSublevelsUp(node: *mut Node, delta: i32, min: i32);
        pub fn ChangeVarNodes(node: *mut Node, from: i32, to: i32, levels_up: i32);
    }
}

/// Adds `delta` to the level of everything that belongs to a level at least `min` above.
///
/// # Safety
/// `node` is valid and owned by the caller: it is changed in place.
pub unsafe fn shift_levels(node: *mut Node, delta: i32, min: i32) {
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| manip::IncrementVarSublevelsUp(node, delta, min))
    }
}

/// Gives one range table entry another number in everything that refers to it.
///
/// # Safety
/// As `shift_levels`.
pub unsafe fn renumber(node: *mut Node, from: i32, to: i32) {
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| manip::ChangeVarNodes(node, from, to, 0)) }
}

/// Does the expression contain a subquery?
///
/// # Safety
/// `tree` is null or a valid expression.
pub unsafe fn has_sublink(tree: *mut Node) -> bool {
    unsafe {
        walk(tree, &mut |item, _| {
            if tag(item) == NodeTag::T_SubLink {
                Step::Stop
            } else {
                Step::Into
            }
        })
    }
}
