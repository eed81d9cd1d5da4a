//! SQL functions in FROM that PostgreSQL's planner replaces by their bodies (`inline_set_returning_function`) are
//! replaced before the statement is looked at: so what they read can be routed, tied and locked like any subquery.

use crate::pg::node::Step;
use crate::pg::{list, node};
use pgrx::pg_sys::{self, Node, Query, RTEKind, RangeTblEntry};

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
                name_columns(body, (*(*entry).eref).colnames);
                (*entry).rtekind = RTEKind::RTE_SUBQUERY;
                (*entry).subquery = body;
                (*entry).security_barrier = false;
                (*entry).functions = std::ptr::null_mut();
                (*entry).funcordinality = false;
                any = true;
            }
        }
        any
    }
}

/// The body's columns get the function's names, by which the statement around it calls them.
unsafe fn name_columns(body: *mut Query, names: *mut pg_sys::List) {
    unsafe {
        let columns = list::iter::<pg_sys::TargetEntry>((*body).targetList)
            .filter(|column| !(**column).resjunk);
        for (column, name) in columns.zip(list::iter::<pg_sys::String>(names)) {
            (*column).resname = (*name).sval;
        }
    }
}
