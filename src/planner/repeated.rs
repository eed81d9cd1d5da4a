//! Statements that come again with other constants, as most drivers send them. The plan of a routed one is made once, for
//! parameters in the place of the constants, and kept; the next statement of the same form only gets its own constants.
//! Forms are found by PostgreSQL's query jumbling, and are the same only if `equal` says so. Kept plans go when
//! anything changes that invalidation messages tell of.

use crate::catalog;
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, memory, node};
use crate::planner::plan::{Kind, RemotePlan};
use crate::planner::ship;
use pgrx::pg_guard;
use pgrx::pg_sys::{self, CmdType, Node, PlannedStmt, Query};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

/// Numbers of the parameters that stand for constants: no statement has so many of its own.
const FIRST: i32 = 1 << 21;

/// When there are more, all are forgotten.
const MOST_FORMS: usize = 500;
const MOST_KEYS: usize = 10_000;

/// Plans a statement whose constants are parameters. None: it is not routed by what is known of it.
pub type Make<'a> = &'a dyn Fn(*mut Query) -> Result<Option<*mut PlannedStmt>>;

/// A statement without its constants.
struct Form {
    /// Views and policies mean what they mean to a role.
    user: pg_sys::Oid,
    query: *mut Query,
    /// None: it is planned each time.
    statement: Option<*mut PlannedStmt>,
    /// Where both live.
    _memory: memory::Owned,
}

#[derive(Default)]
struct Known {
    generation: u64,
    /// Forms seen once, by their jumble: planning one for parameters is worth it when it comes again.
    once: HashSet<u64>,
    forms: HashMap<u64, Vec<Form>>,
    count: usize,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
    /// Counts changes of functions, operators and types.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

pub fn init() {
    // SAFETY: called once, in the postmaster; backends inherit the registrations.
    unsafe {
        for cache in [
            pg_sys::SysCacheIdentifier::PROCOID,
            pg_sys::SysCacheIdentifier::OPEROID,
            pg_sys::SysCacheIdentifier::TYPEOID,
            pg_sys::SysCacheIdentifier::AMOPOPID,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(
                cache as i32,
                Some(changed),
                pg_sys::Datum::null(),
            );
        }
    }
}

#[pg_guard]
extern "C-unwind" fn changed(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    CHANGES.set(CHANGES.get() + 1);
}

/// Counts what kept plans may depend on.
fn generation() -> u64 {
    catalog::generation() + CHANGES.get()
}

/// The plan of a statement whose form was planned before, or is planned by `make` now.
///
/// # Safety
/// `query` is what a planner hook is given.
pub unsafe fn plan(query: *mut Query, make: Make) -> Option<*mut PlannedStmt> {
    unsafe {
        if (*query).hasModifyingCTE || (*query).commandType == CmdType::CMD_MERGE {
            return None;
        }
        let key = jumble(query);
        if !KNOWN.with_borrow_mut(|known| known.comes_again(key)) {
            return None;
        }
        let lifted = node::copy(query);
        let constants = lift(lifted)?;
        let user = pg_sys::GetUserId();
        let found = KNOWN.with_borrow(|known| known.find(key, user, lifted));
        let statement = match found {
            Some(statement) => statement?,
            None => prepare(key, user, lifted, make)?,
        };
        let statement = node::copy(statement);
        let scan = (*statement).planTree.cast::<pg_sys::CustomScan>();
        let values = list::iter::<Node>((*scan).custom_exprs).map(|value| bind(value, &constants));
        (*scan).custom_exprs = list::from(values.collect::<Vec<_>>());
        (*statement).queryId = (*query).queryId;
        (*statement).canSetTag = (*query).canSetTag;
        (*statement).stmt_location = (*query).stmt_location;
        (*statement).stmt_len = (*query).stmt_len;
        Some(statement)
    }
}

impl Known {
    /// Has the jumble been seen before? Forgets what may not be true any more.
    fn comes_again(&mut self, key: u64) -> bool {
        let generation = generation();
        if self.generation != generation || self.count >= MOST_FORMS {
            self.generation = generation;
            self.forms.clear();
            self.count = 0;
        }
        if self.once.len() >= MOST_KEYS {
            self.once.clear();
        }
        !self.once.insert(key)
    }

    /// The kept plan of a form, when the form is known.
    unsafe fn find(
        &self,
        key: u64,
        user: pg_sys::Oid,
        lifted: *mut Query,
    ) -> Option<Option<*mut PlannedStmt>> {
        let form = self
            .forms
            .get(&key)?
            .iter()
            .find(|form| form.user == user && unsafe { node::equal(form.query, lifted) })?;
        Some(form.statement)
    }
}

/// Plans a form for parameters and keeps it.
unsafe fn prepare(
    key: u64,
    user: pg_sys::Oid,
    lifted: *mut Query,
    make: Make,
) -> Option<*mut PlannedStmt> {
    unsafe {
        let before = generation();
        // a refusal is raised when the statement itself is planned
        let made = make(node::copy(lifted)).ok().flatten();
        let made = made.filter(|statement| is_routed(*statement));
        let memory = memory::Owned::new(c"shard_ext statement");
        let (query, statement) = memory.inside(|| {
            (
                node::copy(lifted),
                made.map(|statement| node::copy(statement)),
            )
        });
        KNOWN.with_borrow_mut(|known| {
            if known.generation == before && generation() == before {
                known.count += 1;
                known.forms.entry(key).or_default().push(Form {
                    user,
                    query,
                    statement,
                    _memory: memory,
                });
            }
        });
        made
    }
}

/// Is the plan one scan of one shard group, whose parameters are the only place of constants?
unsafe fn is_routed(statement: *mut PlannedStmt) -> bool {
    unsafe {
        let Some(scan) = node::cast::<pg_sys::CustomScan>((*statement).planTree) else {
            return false;
        };
        if !std::ptr::eq((*scan).methods, crate::executor::scan_methods())
            || !(*scan).custom_plans.is_null()
            || stands_in((*scan).scan.plan.targetlist.cast())
            || stands_in((*scan).scan.plan.qual.cast())
        {
            return false;
        }
        RemotePlan::from_private((*scan).custom_private)
            .is_ok_and(|known| known.plan.kind == Kind::Routed)
    }
}

/// Does a constant's parameter stand in the tree?
unsafe fn stands_in(tree: *mut Node) -> bool {
    unsafe {
        node::walk(
            tree,
            &mut |item, _| match node::cast::<pg_sys::Param>(item) {
                Some(param) if is_ours(param) => Step::Stop,
                _ => Step::Into,
            },
        )
    }
}

unsafe fn is_ours(param: *mut pg_sys::Param) -> bool {
    unsafe { (*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN && (*param).paramid >= FIRST }
}

/// PostgreSQL's fingerprint of a statement, whatever its constants are.
unsafe fn jumble(query: *mut Query) -> u64 {
    unsafe {
        let own = (*query).queryId;
        pg_sys::JumbleQuery(query, c"".as_ptr());
        let found = (*query).queryId;
        (*query).queryId = own;
        found
    }
}

/// Puts parameters in the place of constants that are compared with columns or stored in them; equal ones share
/// one. None: there are none, or the statement has parameters of its own.
unsafe fn lift(query: *mut Query) -> Option<Vec<*mut Node>> {
    unsafe {
        (*query).stmt_location = 0;
        (*query).stmt_len = 0;
        let mut constants: Vec<*mut Node> = Vec::new();
        let mut stand_in = |constant: *mut pg_sys::Const| -> *mut Node {
            let value = constant.cast::<Node>();
            let known = constants.iter().position(|c| node::equal(*c, value));
            let index = known.unwrap_or_else(|| {
                constants.push(value);
                constants.len() - 1
            });
            let (type_oid, typmod, collation) = expr::signature(value);
            expr::param(FIRST + index as i32, type_oid, typmod, collation).cast()
        };
        if matches!(
            (*query).commandType,
            CmdType::CMD_INSERT | CmdType::CMD_UPDATE
        ) {
            for entry in list::iter::<pg_sys::TargetEntry>((*query).targetList) {
                if let Some(constant) = node::cast::<pg_sys::Const>((*entry).expr) {
                    if ship::liftable(constant) {
                        (*entry).expr = stand_in(constant).cast();
                    }
                }
            }
        }
        let parameters = node::walk(query.cast(), &mut |item, _| {
            if let Some(param) = node::cast::<pg_sys::Param>(item) {
                let own = (*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN && !is_ours(param);
                return if own { Step::Stop } else { Step::Into };
            }
            if let Some((args, index, constant)) = ship::compared_constant(item) {
                list::set(args, index, stand_in(constant));
            }
            Step::Into
        });
        (!parameters && !constants.is_empty()).then_some(constants)
    }
}

/// The expression with constants in their places.
unsafe fn bind(value: *mut Node, constants: &[*mut Node]) -> *mut Node {
    unsafe {
        if value.is_null() {
            return value;
        }
        if let Some(param) = node::cast::<pg_sys::Param>(value) {
            if is_ours(param) {
                return node::copy(constants[((*param).paramid - FIRST) as usize]);
            }
            return value;
        }
        node::map_children(value, |child| bind(child, constants))
    }
}
