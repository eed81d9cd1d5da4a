//! SQL functions in FROM that PostgreSQL's planner replaces by their bodies (`inline_set_returning_function`), and WITH
//! queries that it replaces by subqueries (`inline_cte`), are replaced before the statement is looked at: so what they
//! read can be routed, tied and locked like any subquery, and joined with what is around it.

use crate::pg::node::Step;
use crate::pg::{list, node};
use crate::planner::pieces::trees;
use pgrx::pg_sys::{self, CTEMaterialize, CommonTableExpr, Node, Query, RTEKind, RangeTblEntry};
use std::ffi::CStr;

/// Functions within functions are followed so far; what calls itself is left to PostgreSQL, which reports it.
const DEPTH: usize = 16;

/// What the plan depends on beside its relations: the functions that were replaced.
pub struct Inlined {
    dependencies: *mut pg_sys::List,
    /// Policies apply in the functions.
    depends_on_role: bool,
}

impl Inlined {
    /// Replaces the functions, in place.
    ///
    /// # Safety
    /// `query` is a valid Query that the caller owns.
    pub unsafe fn functions(query: *mut Query) -> Inlined {
        unsafe {
            let global = node::make::<pg_sys::PlannerGlobal>();
            for _ in 0..DEPTH {
                let mut levels = Vec::new();
                node::walk(query.cast(), &mut |item, _| {
                    if let Some(level) = node::cast::<Query>(item) {
                        let calls = list::iter((*level).rtable).any(|entry| may_be_replaced(entry));
                        levels.extend(calls.then_some(level));
                    }
                    Step::Into
                });
                let mut any = false;
                for level in levels {
                    any |= replace(level, global);
                }
                if !any {
                    break;
                }
            }
            Inlined {
                dependencies: (*global).invalItems,
                depends_on_role: (*global).dependsOnRole,
            }
        }
    }

    /// Lets a change of the functions invalidate the plan.
    ///
    /// # Safety
    /// `statement` is the plan of the query.
    pub unsafe fn note(&self, statement: *mut pg_sys::PlannedStmt) {
        unsafe {
            (*statement).dependsOnRole |= self.depends_on_role;
            if !self.dependencies.is_null() {
                (*statement).invalItems =
                    pg_sys::list_concat((*statement).invalItems, self.dependencies);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.dependencies.is_null()
    }
}

/// A set-returning function that does not come with PostgreSQL.
unsafe fn may_be_replaced(entry: *mut RangeTblEntry) -> bool {
    unsafe {
        if (*entry).rtekind != RTEKind::RTE_FUNCTION || list::len((*entry).functions) != 1 {
            return false;
        }
        let function = list::nth::<pg_sys::RangeTblFunction>((*entry).functions, 0);
        node::cast::<pg_sys::FuncExpr>((*function).funcexpr).is_some_and(|call| {
            (*call).funcretset && (*call).funcid.to_u32() >= pg_sys::FirstNormalObjectId
        })
    }
}

unsafe fn replace(level: *mut Query, global: *mut pg_sys::PlannerGlobal) -> bool {
    unsafe {
        let root = node::make::<pg_sys::PlannerInfo>();
        (*root).parse = level;
        (*root).glob = global;
        let mut any = false;
        for entry in list::iter::<RangeTblEntry>((*level).rtable) {
            if !may_be_replaced(entry) {
                continue;
            }
            // arguments by name and defaults take their places
            (*entry).functions =
                pg_sys::eval_const_expressions(root, (*entry).functions.cast::<Node>()).cast();
            let body = pg_sys::inline_set_returning_function(root, entry);
            if !body.is_null() {
                become_subquery(entry, body);
                (*entry).functions = std::ptr::null_mut();
                (*entry).funcordinality = false;
                any = true;
            }
        }
        any
    }
}

/// Replaces WITH queries that PostgreSQL's planner would not compute once for all readers, in place.
///
/// # Safety
/// `query` is a valid Query that the caller owns.
pub unsafe fn with_queries(query: *mut Query) {
    unsafe {
        node::walk(query.cast(), &mut |item, _| {
            if let Some(level) = node::cast::<Query>(item) {
                if !(*level).cteList.is_null() {
                    replace_with_queries(level);
                }
            }
            Step::Into
        });
    }
}

/// Those of one level, each before the ones that may read it. What nobody reads goes, as in PostgreSQL.
unsafe fn replace_with_queries(level: *mut Query) {
    unsafe {
        if (*level).commandType == pg_sys::CmdType::CMD_SELECT {
            (*level).cteList = trees::live_with(level);
        }
        let mut kept: Vec<*mut CommonTableExpr> = Vec::new();
        for cte in list::iter::<CommonTableExpr>((*level).cteList) {
            if becomes_subquery(cte) {
                replace_readers(level, cte);
            } else {
                kept.push(cte);
            }
        }
        if kept.is_empty() {
            (*level).hasRecursive = false;
        }
        (*level).cteList = list::from(kept);
    }
}

/// PostgreSQL's rule (`SS_process_ctes`).
unsafe fn becomes_subquery(cte: *mut CommonTableExpr) -> bool {
    unsafe {
        let body = (*cte).ctequery;
        let wanted = match (*cte).ctematerialized {
            CTEMaterialize::CTEMaterializeNever => (*cte).cterefcount > 0,
            CTEMaterialize::CTEMaterializeDefault => (*cte).cterefcount == 1,
            _ => false,
        };
        wanted
            && !(*cte).cterecursive
            && !changes_or_locks(body)
            && ((*cte).cterefcount == 1 || !follows_outer_recursion(body))
            && !pg_sys::contain_volatile_functions(body)
    }
}

/// Does a statement, or a part of it, change or lock rows?
///
/// # Safety
/// `body` is a valid tree.
pub unsafe fn changes_or_locks(body: *mut Node) -> bool {
    unsafe {
        node::walk(body, &mut |item, _| match node::cast::<Query>(item) {
            Some(level)
                if (*level).commandType != pg_sys::CmdType::CMD_SELECT
                    || !(*level).rowMarks.is_null() =>
            {
                Step::Stop
            }
            _ => Step::Into,
        })
    }
}

/// Does it read a recursive query that it is part of? PostgreSQL wants that read in one place.
unsafe fn follows_outer_recursion(body: *mut Node) -> bool {
    unsafe {
        node::walk(body, &mut |item, level| match node::cast::<Query>(item) {
            Some(sub)
                if list::iter::<RangeTblEntry>((*sub).rtable).any(|entry| {
                    (*entry).rtekind == RTEKind::RTE_CTE
                        && (*entry).self_reference
                        && (*entry).ctelevelsup > level
                }) =>
            {
                Step::Stop
            }
            _ => Step::Into,
        })
    }
}

unsafe fn replace_readers(owner: *mut Query, cte: *mut CommonTableExpr) {
    unsafe {
        let name = CStr::from_ptr((*cte).ctename);
        node::walk(owner.cast(), &mut |item, depth| {
            if let Some(level) = node::cast::<Query>(item) {
                for entry in list::iter::<RangeTblEntry>((*level).rtable) {
                    if (*entry).rtekind == RTEKind::RTE_CTE
                        && (*entry).ctelevelsup == depth
                        && CStr::from_ptr((*entry).ctename) == name
                    {
                        let body: *mut Query = node::copy((*cte).ctequery).cast();
                        if depth > 0 {
                            node::shift_levels(body.cast(), depth as i32, 1);
                        }
                        become_subquery(entry, body);
                    }
                }
            }
            Step::Into
        });
    }
}

/// Makes an entry of a function or a WITH query one of a subquery. The statement around it goes on calling the columns as it
/// did.
///
/// # Safety
/// Both are owned by the caller; `body` is a level below that of the entry.
pub unsafe fn become_subquery(entry: *mut RangeTblEntry, body: *mut Query) {
    unsafe {
        (*entry).rtekind = RTEKind::RTE_SUBQUERY;
        (*entry).subquery = body;
        (*entry).security_barrier = false;
        (*entry).alias = node::copy((*entry).eref);
        (*entry).ctename = std::ptr::null_mut();
        (*entry).ctelevelsup = 0;
        (*entry).coltypes = std::ptr::null_mut();
        (*entry).coltypmods = std::ptr::null_mut();
        (*entry).colcollations = std::ptr::null_mut();
    }
}
