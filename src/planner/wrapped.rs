//! Subqueries whose plan gets a custom scan of ours on top: PostgreSQL plans the subquery as one that is not merged with
//! the level around it, and the path hook, which knows it by a mark, puts a custom path above.

use crate::error::{Error, Result};
use crate::pg::{list, node};
use crate::planner::{leaf, locks, merge, moved, proposed, writing};
use pgrx::pg_guard;
use pgrx::pg_sys::{self, NodeTag, Query, RTEKind};
use std::ffi::CStr;

/// What the custom scan does.
#[derive(Clone, Copy)]
pub enum Kind {
    Lock,
    Insert,
    Change,
    Move,
    Find,
}

impl Kind {
    const ALL: [Kind; 5] = [
        Kind::Lock,
        Kind::Insert,
        Kind::Change,
        Kind::Move,
        Kind::Find,
    ];

    fn mark(self) -> &'static str {
        match self {
            Kind::Lock => "shard_ext lock ",
            Kind::Insert => "shard_ext insert ",
            Kind::Change => "shard_ext change ",
            Kind::Move => "shard_ext move ",
            Kind::Find => "shard_ext find ",
        }
    }
}

/// `FROM (inner)`, marked; the number is the caller's.
///
/// # Safety
/// `inner` is a valid Query, of which every output column has a name.
pub unsafe fn entry(
    inner: *mut Query,
    kind: Kind,
    number: usize,
    name: &str,
) -> *mut pg_sys::RangeTblEntry {
    unsafe {
        let rte = node::make::<pg_sys::RangeTblEntry>();
        (*rte).rtekind = RTEKind::RTE_SUBQUERY;
        (*rte).subquery = inner;
        // Keeps the level below apart.
        (*rte).security_barrier = true;
        (*rte).inFromCl = true;
        // A field that subqueries do not use.
        (*rte).enrname = node::pstrdup(&format!("{}{number}", kind.mark()));
        let alias = node::make::<pg_sys::Alias>();
        (*alias).aliasname = node::pstrdup(name);
        for below in list::iter::<pg_sys::TargetEntry>((*inner).targetList) {
            (*alias).colnames = pg_sys::lappend(
                (*alias).colnames,
                pg_sys::makeString(pg_sys::pstrdup((*below).resname)).cast(),
            );
        }
        (*rte).eref = alias;
        (*rte).alias = node::copy(alias);
        rte
    }
}

/// Why a level whose subquery has a custom scan above it does not run on workers.
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn obstacle(query: *mut Query) -> Option<String> {
    unsafe {
        let marked = list::iter::<pg_sys::RangeTblEntry>((*query).rtable)
            .any(|rte| (*rte).rtekind == RTEKind::RTE_SUBQUERY && !(*rte).enrname.is_null());
        let optional = leaf::locks_optional_rows() && merge::locks_optional_rows(query);
        (marked || optional).then(|| "rows are changed or locked on the way".to_owned())
    }
}

/// What stands above the subquery of an entry, and the caller's number.
///
/// # Safety
/// `rte` is a valid entry.
pub unsafe fn of(rte: *mut pg_sys::RangeTblEntry) -> Option<(Kind, usize)> {
    unsafe {
        if (*rte).rtekind != RTEKind::RTE_SUBQUERY || (*rte).enrname.is_null() {
            return None;
        }
        let name = CStr::from_ptr((*rte).enrname).to_str().ok()?;
        Kind::ALL.into_iter().find_map(|kind| {
            let number = name.strip_prefix(kind.mark())?.parse().ok()?;
            Some((kind, number))
        })
    }
}

/// Puts a custom path above the cheapest of the subquery's; its private data are number and kind.
///
/// # Safety
/// Called by the path hook for the subquery's relation.
pub unsafe fn set_paths(rel: *mut pg_sys::RelOptInfo, (kind, number): (Kind, usize)) -> Result<()> {
    unsafe {
        let best = list::iter::<pg_sys::Path>((*rel).pathlist)
            .min_by(|a, b| (**a).total_cost.total_cmp(&(**b).total_cost))
            .ok_or_else(|| Error::internal("a subquery without a path"))?;
        (*rel).pathlist = std::ptr::null_mut();
        (*rel).partial_pathlist = std::ptr::null_mut();
        (*rel).consider_parallel = false;
        let path =
            pg_sys::palloc0(std::mem::size_of::<pg_sys::CustomPath>()).cast::<pg_sys::CustomPath>();
        (*path).path.type_ = NodeTag::T_CustomPath;
        (*path).path.pathtype = NodeTag::T_CustomScan;
        (*path).path.parent = rel;
        (*path).path.pathtarget = (*rel).reltarget;
        (*path).path.param_info = (*best).param_info;
        (*path).path.rows = (*best).rows;
        (*path).path.startup_cost = (*best).startup_cost;
        (*path).path.total_cost = (*best).total_cost + (*best).rows * 0.05;
        (*path).path.pathkeys = (*best).pathkeys;
        (*path).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
        (*path).custom_paths = list::from([best]);
        (*path).custom_private = list::from_ints([number as i32, kind as i32]);
        (*path).methods = &raw const PATH_METHODS.0;
        pg_sys::add_path(rel, path.cast());
        Ok(())
    }
}

static PATH_METHODS: leaf::Methods = leaf::Methods(pg_sys::CustomPathMethods {
    CustomName: c"shard_ext above a subquery".as_ptr(),
    PlanCustomPath: Some(plan_custom_path),
    ReparameterizeCustomPathByChild: None,
});

#[pg_guard]
unsafe extern "C-unwind" fn plan_custom_path(
    _root: *mut pg_sys::PlannerInfo,
    _rel: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::CustomPath,
    tlist: *mut pg_sys::List,
    _clauses: *mut pg_sys::List,
    plans: *mut pg_sys::List,
) -> *mut pg_sys::Plan {
    // SAFETY: called by create_customscan_plan with its own arguments.
    unsafe {
        let above = Above::new(path, tlist, plans);
        let kind = list::ints((*path).custom_private)[1];
        let planned = if kind == Kind::Lock as i32 {
            locks::plan_lock(&above)
        } else if kind == Kind::Insert as i32 {
            writing::plan_insert(&above)
        } else if kind == Kind::Change as i32 {
            writing::plan_change(&above)
        } else if kind == Kind::Find as i32 {
            proposed::plan_find(&above)
        } else {
            moved::plan_move(&above)
        };
        match planned {
            Ok(()) => above.scan.cast(),
            Err(error) => error.raise(),
        }
    }
}

/// A custom scan above the plan below, whose rows are as wide as those of that plan.
pub struct Above {
    pub scan: *mut pg_sys::CustomScan,
    below: *mut pg_sys::Plan,
    /// The caller's.
    pub number: usize,
}

impl Above {
    unsafe fn new(
        path: *mut pg_sys::CustomPath,
        tlist: *mut pg_sys::List,
        plans: *mut pg_sys::List,
    ) -> Above {
        unsafe {
            let number = list::ints((*path).custom_private)[0] as usize;
            let below = list::nth::<pg_sys::Plan>(plans, 0);
            let scan = node::make::<pg_sys::CustomScan>();
            // The plan below evaluates the relation's conditions.
            (*scan).scan.plan.targetlist = tlist;
            (*scan).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
            (*scan).custom_scan_tlist = node::copy((*below).targetlist);
            (*scan).custom_plans = plans;
            Above {
                scan,
                below,
                number,
            }
        }
    }

    /// Where the plan below gives a column of the relation.
    ///
    /// # Safety
    /// The plan below is still there.
    pub unsafe fn place(&self, column: i16) -> Result<usize> {
        unsafe {
            list::iter::<pg_sys::TargetEntry>((*self.below).targetlist)
                .position(|entry| {
                    node::cast::<pg_sys::Var>((*entry).expr)
                        .is_some_and(|v| (*v).varattno == column)
                })
                .ok_or_else(|| Error::internal("a column of a subquery without its place"))
        }
    }
}
