//! Row-level security and the barriers of views, which deparsing leaves out.

use super::into_subquery;
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use pgrx::pg_sys::{self, Node, NodeTag, Query, RTEKind};

/// Puts row-level security's conditions, which deparsing leaves out, into a subquery in place of the relation. Where
/// the query calls functions that could leak what they see, the subquery is fenced.
///
/// # Safety
/// `query` is owned by the caller.
pub unsafe fn fence(query: *mut Query) {
    unsafe {
        let leaky = calls_leaky_function(query);
        node::walk(query.cast(), &mut |item, _| {
            if let Some(q) = node::cast::<Query>(item) {
                for (index, rte) in list::iter::<pg_sys::RangeTblEntry>((*q).rtable).enumerate() {
                    if (*rte).rtekind == RTEKind::RTE_RELATION && !(*rte).securityQuals.is_null() {
                        if index as i32 + 1 == (*q).resultRelation {
                            let security = list::iter::<Node>((*rte).securityQuals)
                                .fold(std::ptr::null_mut(), |all, qual| expr::and(all, qual));
                            (*rte).securityQuals = std::ptr::null_mut();
                            (*(*q).jointree).quals = guarded(security, (*(*q).jointree).quals);
                        } else {
                            fence_relation(rte, index as i32 + 1, leaky);
                            hand_on_system_columns(q, rte, index as i32 + 1);
                        }
                    } else if (*rte).rtekind == RTEKind::RTE_SUBQUERY
                        && (*rte).security_barrier
                        && leaky
                    {
                        fence_view((*rte).subquery);
                    }
                }
            }
            Step::Into
        });
    }
}

/// A security-barrier view is fenced as well: deparsing leaves its barrier out.
unsafe fn fence_view(view: *mut Query) {
    unsafe {
        if (*view).limitCount.is_null() && (*view).limitOffset.is_null() {
            (*view).limitOffset = expr::int8(0).cast();
        }
    }
}

/// Does the statement call a function that is not leakproof, its security conditions aside?
unsafe fn calls_leaky_function(query: *mut Query) -> bool {
    unsafe { leaks_in(query.cast()) }
}

unsafe fn leaks_in(tree: *mut Node) -> bool {
    unsafe extern "C-unwind" fn leaks(function: pg_sys::Oid, _: *mut std::ffi::c_void) -> bool {
        // SAFETY: a syscache look-up, guarded.
        unsafe { pg_sys::panic::pgrx_extern_c_guard(|| !pg_sys::get_func_leakproof(function)) }
    }
    unsafe {
        node::walk(tree, &mut |item, _| {
            if node::tag(item) != NodeTag::T_Query
                && pg_sys::check_functions_in_node(item, Some(leaks), std::ptr::null_mut())
            {
                Step::Stop
            } else {
                Step::Into
            }
        })
    }
}

/// `security AND quals`, with those of `quals` that could leak rows behind a CASE: it is evaluated in order.
unsafe fn guarded(security: *mut Node, quals: *mut Node) -> *mut Node {
    unsafe {
        let (leaky, safe): (Vec<*mut Node>, Vec<*mut Node>) = expr::conjuncts(quals)
            .into_iter()
            .partition(|qual| leaks_in(*qual));
        let mut all = safe
            .into_iter()
            .fold(security, |all, qual| expr::and(all, qual));
        if !leaky.is_empty() {
            let condition = leaky
                .into_iter()
                .fold(std::ptr::null_mut(), |all, qual| expr::and(all, qual));
            let no = pg_sys::makeBoolConst(false, false);
            let boolean = (pg_sys::BOOLOID, -1, pg_sys::InvalidOid);
            let guarded = expr::case(vec![(node::copy(security), condition)], no, boolean);
            all = expr::and(all, guarded);
        }
        all
    }
}

unsafe fn fence_relation(rte: *mut pg_sys::RangeTblEntry, varno: i32, leaky: bool) {
    unsafe {
        let mut quals: *mut Node = std::ptr::null_mut();
        for qual in list::iter::<Node>((*rte).securityQuals) {
            let qual = expr::renumbered(qual, varno, 1);
            quals = expr::and(quals, qual);
        }
        (*rte).securityQuals = std::ptr::null_mut();
        into_subquery(rte, quals);
        if leaky {
            (*(*rte).subquery).limitOffset = expr::int8(0).cast();
        }
    }
}

/// A relation that has become a subquery gives the system columns that the level uses, under their names.
unsafe fn hand_on_system_columns(query: *mut Query, rte: *mut pg_sys::RangeTblEntry, varno: i32) {
    unsafe {
        let mut used: Vec<*mut pg_sys::Var> = Vec::new();
        node::walk(query.cast(), &mut |item, level| {
            if let Some(var) = node::cast::<pg_sys::Var>(item) {
                // `level` counts the query itself
                if (*var).varno == varno && (*var).varlevelsup + 1 == level && (*var).varattno < 0 {
                    used.push(var);
                }
            }
            Step::Into
        });
        let below = (*rte).subquery;
        let mut given: Vec<(i16, i16)> = Vec::new();
        for var in used {
            let attno = (*var).varattno;
            let known = given.iter().find(|(system, _)| *system == attno);
            let resno = match known {
                Some((_, resno)) => *resno,
                None => {
                    let resno = list::len((*below).targetList) as i16 + 1;
                    let name = node::pstrdup(system_column_name(attno));
                    let value = expr::var(1, attno, expr::signature(var.cast()));
                    let entry = pg_sys::makeTargetEntry(value.cast(), resno, name, false);
                    (*below).targetList = pg_sys::lappend((*below).targetList, entry.cast());
                    let eref = (*rte).eref;
                    (*eref).colnames =
                        pg_sys::lappend((*eref).colnames, pg_sys::makeString(name).cast());
                    given.push((attno, resno));
                    resno
                }
            };
            (*var).varattno = resno;
            (*var).varattnosyn = resno;
        }
    }
}

fn system_column_name(attno: i16) -> &'static str {
    match attno as i32 {
        pg_sys::SelfItemPointerAttributeNumber => "ctid",
        pg_sys::MinTransactionIdAttributeNumber => "xmin",
        pg_sys::MinCommandIdAttributeNumber => "cmin",
        pg_sys::MaxTransactionIdAttributeNumber => "xmax",
        pg_sys::MaxCommandIdAttributeNumber => "cmax",
        _ => "tableoid",
    }
}
