//! What is known of one statement while it is planned: the leaves that its placeholders number, and what parts of the
//! planner tell each other of it.

use super::{reads_system_column, refused_system_column};
use crate::error::{Error, Result};
use crate::pg::{list, node};
use crate::planner::estimate::Estimate;
use crate::planner::locks::Locking;
use crate::planner::moved::{self, Moving};
use crate::planner::plan::ModifyPlan;
use crate::planner::proposed::Finding;
use crate::planner::remote::{self, Remote};
use crate::planner::writing::Inserting;
use pgrx::pg_sys::{self, Node, Oid, Query, RTEKind};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// One statement being planned: the leaves that its placeholders number.
#[derive(Default)]
struct Planning {
    leaves: Vec<Leaf>,
    /// Relations that leaves cover, for permission checks and invalidation.
    relations: Vec<*mut pg_sys::RangeTblEntry>,
    /// The statement.
    query: Option<*mut Query>,
    /// The levels whose rows are locked after they were read; their leaves give ctid and xmin.
    locks: Vec<Locking>,
    strength: Option<pg_sys::LockClauseStrength::Type>,
    reads_identity: bool,
    /// Locked rows may be missing: those of MERGE.
    optional_locks: bool,
    /// The policies of nodes must not be applied to what is read.
    as_others: bool,
    /// The subqueries whose rows a WITH clause inserts.
    inserts: Vec<Inserting>,
    /// What happens to the rows that WITH clauses read before they change them.
    changes: Vec<ModifyPlan>,
    /// Rows whose conflicts are looked for.
    findings: Vec<Finding>,
    /// Rows that go to tables beside shards.
    moves: Vec<Rc<Moving>>,
    /// What stands for values that are sent to shards, by number, and what EXPLAIN says of them.
    sent: Vec<(i32, String)>,
    /// Tables by id and alias whose rows are joined here, and why.
    joined: Vec<(Vec<(Oid, String)>, String)>,
    /// The statement writes nothing, and nothing that it calls could.
    quiet: bool,
    /// The next to start a session shares this one.
    shared: bool,
    /// About how many elements arrays have that are sent to shards, by the numbers that stand for them.
    sizes: HashMap<i32, f64>,
}

#[derive(Clone)]
pub struct Leaf {
    pub remote: Rc<Remote>,
    /// Made when it is first asked for.
    pub estimate: Rc<OnceCell<Estimate>>,
    /// The rows come in the order that the query around the leaf asks for.
    pub sorted: bool,
}

thread_local! {
    static PLANNING: RefCell<Vec<Planning>> = const { RefCell::new(Vec::new()) };
}

/// Runs PostgreSQL's planner with the leaves of one statement at hand.
pub struct Session {
    shares: bool,
}

impl Session {
    pub fn start(query: *mut Query) -> Session {
        let shared = current(|planning| std::mem::replace(&mut planning.shared, false));
        if shared == Some(true) {
            return Session { shares: true };
        }
        let planning = Planning {
            query: Some(query),
            // SAFETY: the statement is valid.
            quiet: unsafe { moved::is_quiet(query) },
            ..Planning::default()
        };
        PLANNING.with(|stack| stack.borrow_mut().push(planning));
        Session { shares: false }
    }

    /// One that the next `start` goes on with.
    pub fn share(query: *mut Query) -> Session {
        let session = Session::start(query);
        current(|planning| planning.shared = true);
        session
    }

    /// How the statement locks rows of distributed tables.
    pub fn lock_strength(&self) -> Option<pg_sys::LockClauseStrength::Type> {
        current(|planning| planning.strength).flatten()
    }

    /// The relations that leaves cover.
    pub fn relations(&self) -> Vec<*mut pg_sys::RangeTblEntry> {
        PLANNING.with(|stack| {
            stack
                .borrow()
                .last()
                .map(|p| p.relations.clone())
                .unwrap_or_default()
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.shares {
            PLANNING.with(|stack| stack.borrow_mut().pop());
        }
    }
}

fn current<T>(ask: impl FnOnce(&mut Planning) -> T) -> Option<T> {
    PLANNING.with(|stack| stack.borrow_mut().last_mut().map(ask))
}

/// A relation that no leaf reads, but whose permissions are to be checked.
///
/// # Safety
/// `rte` is its entry.
pub unsafe fn add_relation(rte: *mut pg_sys::RangeTblEntry) {
    let copy = unsafe { remote::relation_entry(rte) };
    current(|planning| planning.relations.push(copy));
}

/// How many levels of the statement lock rows that were read before.
pub fn lock_count() -> usize {
    current(|planning| planning.locks.len()).unwrap_or(0)
}

pub fn add_lock(locking: Locking) {
    current(|planning| planning.locks.push(locking));
}

pub fn note_strength(strength: pg_sys::LockClauseStrength::Type) {
    current(|planning| planning.strength = planning.strength.max(Some(strength)));
}

/// Nodes must not apply their policies to the statement's rows.
pub fn read_as_others() {
    current(|planning| planning.as_others = true);
}

pub fn reads_as_others() -> bool {
    current(|planning| planning.as_others).unwrap_or(false)
}

/// The lock of this number.
pub fn with_lock<T>(number: usize, ask: impl FnOnce(&Locking) -> Result<T>) -> Result<T> {
    current(|planning| planning.locks.get(number).map(ask))
        .flatten()
        .unwrap_or_else(|| Err(Error::internal("a lock without its plan")))
}

/// How many WITH clauses insert rows of a subquery.
pub fn insert_count() -> usize {
    current(|planning| planning.inserts.len()).unwrap_or(0)
}

pub fn add_insert(inserting: Inserting) {
    current(|planning| planning.inserts.push(inserting));
}

/// The insert of this number.
pub fn with_insert<T>(number: usize, ask: impl FnOnce(&Inserting) -> Result<T>) -> Result<T> {
    current(|planning| planning.inserts.get(number).map(ask))
        .flatten()
        .unwrap_or_else(|| Err(Error::internal("an insert without its plan")))
}

/// How many WITH clauses read rows before they change them.
pub fn change_count() -> usize {
    current(|planning| planning.changes.len()).unwrap_or(0)
}

pub fn add_change(plan: ModifyPlan) {
    current(|planning| planning.changes.push(plan));
}

/// The change of this number.
pub fn with_change<T>(number: usize, ask: impl FnOnce(&ModifyPlan) -> Result<T>) -> Result<T> {
    current(|planning| planning.changes.get(number).map(ask))
        .flatten()
        .unwrap_or_else(|| Err(Error::internal("a change without its plan")))
}

/// How many sets of rows the statement looks for conflicts of.
pub fn finding_count() -> usize {
    current(|planning| planning.findings.len()).unwrap_or(0)
}

pub fn add_finding(finding: Finding) {
    current(|planning| planning.findings.push(finding));
}

/// The set of this number.
pub fn with_finding<T>(number: usize, ask: impl FnOnce(&Finding) -> Result<T>) -> Result<T> {
    current(|planning| planning.findings.get(number).map(ask))
        .flatten()
        .unwrap_or_else(|| Err(Error::internal("a look for conflicts without its plan")))
}

/// How many sets of rows the statement moves.
pub fn move_count() -> usize {
    current(|planning| planning.moves.len()).unwrap_or(0)
}

pub fn add_move(moving: Moving) {
    current(|planning| planning.moves.push(Rc::new(moving)));
}

/// The move of this number.
pub fn move_of(number: usize) -> Option<Rc<Moving>> {
    current(|planning| planning.moves.get(number).cloned()).flatten()
}

/// Remembers how many elements the array of this number is expected to have.
pub fn note_size(number: i32, elements: f64) {
    current(|planning| planning.sizes.insert(number, elements));
}

/// What is known of the number of elements of what this number stands for.
pub fn size_of(number: i32) -> Option<f64> {
    current(|planning| planning.sizes.get(&number).copied()).flatten()
}

/// Says what is sent by the parameters in a tree.
///
/// # Safety
/// `tree` is valid.
pub unsafe fn note_sent(tree: *mut Node, text: &str) {
    unsafe {
        let mut numbers = Vec::new();
        node::walk(tree, &mut |item, _| {
            if let Some(param) = node::cast::<pg_sys::Param>(item) {
                numbers.push((*param).paramid);
            }
            node::Step::Into
        });
        current(|planning| {
            let sent = numbers.into_iter().map(|number| (number, text.to_owned()));
            planning.sent.extend(sent);
        });
    }
}

/// What is sent by the parameters in expressions, each thing once.
///
/// # Safety
/// They are valid expressions.
pub unsafe fn sent_by(exprs: &[*mut Node]) -> Vec<String> {
    unsafe {
        let mut found: Vec<String> = Vec::new();
        for tree in exprs {
            node::walk(*tree, &mut |item, _| {
                if let Some(param) = node::cast::<pg_sys::Param>(item) {
                    let number = (*param).paramid;
                    current(|planning| {
                        // numbers are used again some time
                        let known = planning
                            .sent
                            .iter()
                            .rev()
                            .find(|(known, _)| *known == number);
                        if let Some((_, text)) = known.filter(|(_, text)| !found.contains(text)) {
                            found.push(text.clone());
                        }
                    });
                }
                node::Step::Into
            });
        }
        found
    }
}

/// The rows of a level's tables are joined here.
///
/// # Safety
/// `level` is valid.
pub unsafe fn note_joined(level: *mut Query, why: String) {
    unsafe {
        let mut tables = Vec::new();
        node::walk(level.cast(), &mut |item, _| {
            if let Some(sub) = node::cast::<Query>(item) {
                tables.extend(list::iter((*sub).rtable).filter_map(|entry| table_and_alias(entry)));
            }
            node::Step::Into
        });
        current(|planning| planning.joined.push((tables, why)));
    }
}

/// Why the rows of some entries are joined here, if they are.
///
/// # Safety
/// They are valid.
pub unsafe fn joined_because(entries: &[*mut pg_sys::RangeTblEntry]) -> Option<String> {
    unsafe {
        let tables: Vec<_> = entries
            .iter()
            .filter_map(|entry| table_and_alias(*entry))
            .collect();
        current(|planning| {
            // levels inside are looked at after those around them
            let mut joined = planning.joined.iter().rev();
            joined
                .find(|(known, _)| tables.iter().any(|table| known.contains(table)))
                .map(|(_, why)| why.clone())
        })
        .flatten()
    }
}

unsafe fn table_and_alias(entry: *mut pg_sys::RangeTblEntry) -> Option<(Oid, String)> {
    unsafe {
        ((*entry).rtekind == RTEKind::RTE_RELATION).then(|| {
            let alias = std::ffi::CStr::from_ptr((*(*entry).eref).aliasname);
            ((*entry).relid, alias.to_string_lossy().into_owned())
        })
    }
}

/// May nothing in the statement write?
pub fn is_quiet() -> bool {
    current(|planning| planning.quiet).unwrap_or(false)
}

/// From now on leaves give ctid and xmin where they are asked for; fails when the statement itself asks.
///
/// # Safety
/// The statement of the session is valid.
pub unsafe fn read_row_identity() -> Result<()> {
    let Some((query, before)) = current(|planning| {
        let before = std::mem::replace(&mut planning.reads_identity, true);
        (planning.query, before)
    }) else {
        return Ok(());
    };
    match query {
        Some(query) if !before && unsafe { reads_system_column(query) } => {
            Err(refused_system_column())
        }
        _ => Ok(()),
    }
}

/// The same for a statement that was asked before, and that now reads ctid for the extension itself.
pub fn give_row_identity() {
    current(|planning| planning.reads_identity = true);
}

/// From now on locked rows may be on the side of an outer join that may be missing.
pub fn lock_optional_rows() {
    current(|planning| planning.optional_locks = true);
}

/// May they?
pub fn locks_optional_rows() -> bool {
    current(|planning| planning.optional_locks).unwrap_or(false)
}

/// May leaves give ctid and xmin, which are not the statement's own?
pub fn reads_row_identity() -> bool {
    current(|planning| planning.reads_identity).unwrap_or(false)
}

pub(super) fn add_leaf(remote: Remote, sorted: bool) -> i32 {
    PLANNING.with(|stack| {
        let mut stack = stack.borrow_mut();
        let planning = match stack.last_mut() {
            Some(planning) => planning,
            None => return -1,
        };
        planning.relations.extend(remote.relations.iter().copied());
        planning.leaves.push(Leaf {
            remote: Rc::new(remote),
            estimate: Rc::default(),
            sorted,
        });
        planning.leaves.len() as i32 - 1
    })
}

/// The leaf of this number.
pub(super) fn leaf(number: i32) -> Option<Leaf> {
    let number = usize::try_from(number).ok()?;
    PLANNING.with(|stack| stack.borrow().last()?.leaves.get(number).cloned())
}

/// Is no statement being planned?
pub(super) fn none_planned() -> bool {
    PLANNING.with(|stack| stack.borrow().is_empty())
}
