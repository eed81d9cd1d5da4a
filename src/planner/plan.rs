//! What the planner tells the executor: plain data that survives copyObject and cached plans as one JSON string.

use crate::deparse::SqlTemplate;
use crate::error::{sqlstate, Error, Result};
use crate::pg::{list, node};
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;
use std::rc::Rc;

/// A statement, or part of one, that runs on shard groups.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct RemotePlan {
    pub kind: Kind,
    pub command: Command,
    pub template: SqlTemplate,
    /// The colocation group whose shard groups are asked.
    pub colocation: i32,
    pub prune: Prune,
    /// How each parameter travels; its value is the expression at the same index of `custom_exprs`.
    pub params: Vec<ParamType>,
    /// Types of the columns that come back.
    pub columns: Vec<u32>,
    /// Sort order of each shard's rows, to be kept when they are merged.
    pub merge: Vec<SortKey>,
    /// What follows the UNION ALL of several shard groups' queries: `ORDER BY 1 LIMIT $2`.
    pub union_tail: String,
    /// The lock that decides how many rows each shard gives, and the parameter that says it.
    pub window: Option<(u32, usize)>,
    /// What a node does with the rows of all its shard groups, which it reads as the CTE `shards`: aggregation.
    pub over: Option<String>,
    /// The node makes so many groups that parallel workers, each with groups of its own, would cost more than they save.
    pub serial: bool,
    /// The part of the statement that this change is, when it is one of several.
    pub part: Option<u32>,
    /// Rows stay locked or change: the statement needs a transaction on the node.
    pub writes: bool,
    /// Tables whose rows it changes or locks in several shards: one that moves from shard to shard meanwhile may be missed.
    pub watched: Vec<u32>,
    /// Many rows are expected, and the text has no parameters: they may come by COPY.
    pub bulk: bool,
    /// Policies of other roles than the current one were applied, those of the owners of views.
    pub as_others: bool,
    /// Conditions on the rows that come back, the last of `custom_exprs`: new rows that a policy or view forbids.
    pub checks: Vec<RowCheck>,
    /// Tables of moved rows that the text names.
    pub moved: Vec<MovedName>,
    /// For EXPLAIN: rows of others that go to the shards as parameters, and why the rows are joined here.
    pub sent: Vec<String>,
    pub reason: String,
}

/// A table of moved rows as a template names it.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct MovedName {
    pub name: String,
    /// Index into `custom_exprs` of the handle under which the executor knows the tables.
    pub handle: usize,
}

#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The whole statement, to one shard group.
    Routed,
    /// The same query to several shard groups.
    Scattered,
}

#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Select,
    /// Of values: the key among them chooses the shard group.
    Insert,
    /// Of rows that are on the shards.
    InsertSelect,
    Update,
    Delete,
    Merge,
}

/// Which shard groups a statement needs. Numbers are indexes into `custom_exprs`.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub enum Prune {
    All,
    /// The shard group of a value (NULL: none, `=` never holds).
    Equal(usize),
    /// The shard group of a value, NULL included: an inserted row's key.
    Key(usize),
    /// The shard groups of an array's elements.
    AnyOf(usize),
    Null,
    /// The shard group of this id (NULL: none).
    Group(usize),
    Below(usize, bool),
    Above(usize, bool),
    And(Vec<Prune>),
    Or(Vec<Prune>),
}

/// How a parameter is sent.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamType {
    /// Type of the coordinator's value.
    pub value: u32,
    /// Type declared to the worker; 0: the text says it with a cast.
    pub declared: u32,
    pub binary: bool,
}

/// One column of a sort order, as `SortSupport` takes it.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey {
    /// Index into the columns.
    pub column: usize,
    pub operator: u32,
    pub collation: u32,
    pub nulls_first: bool,
}

thread_local! {
    static NEXT_ID: Cell<i32> = const { Cell::new(1) };
    static KNOWN: RefCell<HashMap<i32, Rc<CachedPlan>>> = RefCell::new(HashMap::new());
}

/// A plan with what the executor derives from it once.
pub struct CachedPlan {
    pub plan: RemotePlan,
    /// SQL per shard group (or list of shard groups), made on first use.
    pub texts: RefCell<HashMap<Vec<i64>, Rc<str>>>,
}

impl CachedPlan {
    fn new(plan: RemotePlan) -> CachedPlan {
        CachedPlan {
            plan,
            texts: RefCell::default(),
        }
    }
}

fn remember(id: i32, plan: Rc<CachedPlan>) {
    KNOWN.with(|known| {
        let mut known = known.borrow_mut();
        if known.len() >= KNOWN_PLANS {
            known.clear();
        }
        known.insert(id, plan);
    });
}

/// Plans kept parsed; past that all are forgotten and parsed again from their text.
const KNOWN_PLANS: usize = 1000;

/// Rows that the coordinator computes and the workers insert.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct InsertPlan {
    /// `INSERT INTO t (a, b) SELECT … FROM unnest($1, $2) … ON CONFLICT … RETURNING …`
    pub template: SqlTemplate,
    /// Of ON CONFLICT DO UPDATE: the same for a batch after others, whose rows it must not update.
    pub later: Option<SqlTemplate>,
    pub colocation: i32,
    /// Column of the rows that is the distribution column; None: the row's key is NULL.
    pub key: Option<usize>,
    pub columns: Vec<InsertColumn>,
    /// Parameters after those of the columns; their values are `custom_exprs` after the checks.
    pub params: Vec<ParamType>,
    pub returned: Vec<u32>,
    /// Conditions on each row, in `custom_exprs`.
    pub checks: Vec<RowCheck>,
    /// Conditions on the rows as they are on the shards afterwards: the last columns that come back.
    pub checks_after: Vec<RowCheck>,
    /// Conditions that ON CONFLICT DO UPDATE checks on the shards; the text of an error has the number.
    pub conflict_checks: Vec<RowCheck>,
    /// The list of columns behind the table's name, when rows may go by COPY too.
    pub copied: Option<String>,
    /// The part of the statement that this is, when it is one of several.
    pub part: Option<u32>,
    /// The rows are what the command tag counts.
    pub counted: bool,
    /// Of a part: where in its rows, which are as wide as those below, each returned column stands.
    pub outputs: Vec<usize>,
}

/// How rows of a reference table that have changed here change on every copy.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct CopiesPlan {
    /// Rows are found by their key; otherwise by all of their values.
    pub keyed: bool,
    /// Rows may get another key.
    pub changes_key: bool,
    pub insert: CopyStatement,
    pub update: CopyStatement,
    pub delete: CopyStatement,
    /// What this part of the statement does, for EXPLAIN.
    pub inserts: bool,
    pub updates: bool,
    pub deletes: bool,
}

/// A statement that changes rows of a copy. Its parameters are arrays: of columns as they were, then of columns as they
/// are now.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct CopyStatement {
    pub template: SqlTemplate,
    pub old: Vec<InsertColumn>,
    pub new: Vec<InsertColumn>,
}

/// A statement that changes several things at once.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct ChangesPlan {
    /// Parts that the shards run.
    pub pushed: Vec<u32>,
    /// Parts whose rows are read before anything changes, and change after all else was read.
    pub pulled: Vec<u32>,
    /// Parts that insert rows.
    pub inserts: Vec<u32>,
    /// The order in which those two change rows; None: the statement itself, when it does not come last.
    pub steps: Vec<Option<u32>>,
    /// Schema and name of the tables that they change.
    pub tables: Vec<(String, String)>,
    /// Those that change before everything was read: what reads them comes first.
    pub read_first: Vec<(String, String)>,
    /// The statement itself reads tables that change later: it is read to its end before.
    pub whole: bool,
}

/// Rows of the plan below that go to tables beside the shards of a colocation group.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct MovePlan {
    pub colocation: i32,
    /// A schema whose shard schemas can hold the tables.
    pub schema: String,
    /// Where the rows below have the value that chooses the shard group, and its type.
    pub key: usize,
    pub key_type: u32,
    /// The hash of the value's own type chooses, not the value as a key.
    pub hashed: bool,
    /// Rows whose value is NULL, or no key, go somewhere, too.
    pub keep: bool,
    pub columns: Vec<MoveColumn>,
    /// Where this node's only row has the handle.
    pub handle: usize,
    /// The statement writes nothing, and nothing that it calls could.
    pub quiet: bool,
    /// What EXPLAIN says: the column, the table whose shard groups are the rows' places, and why.
    pub by: String,
    pub target: String,
    pub reason: String,
}

/// A column of moved rows.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct MoveColumn {
    /// Where the rows below have it.
    pub source: usize,
    pub value: u32,
    /// Name and type, as `CREATE TABLE` takes them.
    pub definition: String,
}

/// Rows that are locked on their shards after the plan below has read them.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct LockPlan {
    /// Its number in the statement.
    pub number: u32,
    /// LIMIT and OFFSET above, as indexes of `custom_exprs`. No limit: all rows are locked.
    pub limit: Option<usize>,
    pub offset: Option<usize>,
    pub relations: Vec<LockedRelation>,
}

/// A table of which each row that passes is locked.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct LockedRelation {
    pub relid: u32,
    pub name: String,
    /// `FOR UPDATE SKIP LOCKED`
    pub clause: String,
    pub colocation: i32,
    /// Locks the rows whose ctids are `$1`, and answers which those are.
    pub lock: SqlTemplate,
    /// The same without a lock.
    pub look: SqlTemplate,
    /// Columns of the plan below: key, ctid, xmin.
    pub columns: [usize; 3],
    /// SKIP LOCKED
    pub skips: bool,
    pub as_others: bool,
}

/// A cursor whose current row may be changed.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct CursorPlan {
    pub relations: Vec<FollowedRelation>,
}

/// A table of which a cursor is on a row.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct FollowedRelation {
    pub relid: u32,
    pub colocation: i32,
    /// Columns of the plan below: key, ctid, xmin.
    pub columns: [usize; 3],
    /// The cursor locks the rows that it reads.
    pub locks: bool,
    /// The shard's name alone.
    pub name: SqlTemplate,
    /// Locks the version of ctid `$1` and xmin `$2`.
    pub lock: SqlTemplate,
    /// Locks what the version of ctid `$1` has become; `$2` is the shard's name.
    pub newest: SqlTemplate,
    pub as_others: bool,
}

/// Rows that the plan below has read and locked, and that are changed where they are.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct ModifyPlan {
    pub relid: u32,
    pub schema: String,
    pub table: String,
    pub colocation: i32,
    /// Columns of the rows below that say where the row to change is.
    pub key: usize,
    pub ctid: usize,
    /// The column that says which action a row gets, counted from 1; 0: none. Without it: the only one.
    pub choice: Option<usize>,
    pub actions: Vec<Action>,
    /// Columns that say whether a row is allowed, whatever happens to it.
    pub checks: Vec<(usize, RowCheck)>,
    /// The column with the number of the row that an INSERT with ON CONFLICT proposes.
    pub proposal: Option<usize>,
    pub repeats: Repeats,
    /// Foreign keys that forbid rows to leave their shard.
    pub referenced: Vec<Referenced>,
    /// Rows cannot leave for a NULL in the distribution column.
    pub required_key: bool,
    pub as_others: bool,
    /// The part of the statement that this is, when it is one of several.
    pub part: Option<u32>,
    /// Why the statement does not run on the shards, for EXPLAIN.
    pub reason: String,
}

impl ModifyPlan {
    /// The same for rows whose columns stand where `place` says.
    pub fn over(&self, place: &dyn Fn(usize) -> Result<usize>) -> Result<ModifyPlan> {
        let mut plan = self.clone();
        plan.key = place(plan.key)?;
        plan.ctid = place(plan.ctid)?;
        plan.choice = plan.choice.map(place).transpose()?;
        plan.proposal = plan.proposal.map(place).transpose()?;
        for (column, _) in &mut plan.checks {
            *column = place(*column)?;
        }
        for action in &mut plan.actions {
            action.new_key = action.new_key.map(place).transpose()?;
            let statements = [&mut action.in_place, &mut action.remove, &mut action.insert];
            for statement in statements.into_iter().flatten() {
                for column in &mut statement.columns {
                    column.source = place(column.source)?;
                }
            }
            for (column, _) in &mut action.checks {
                *column = place(*column)?;
            }
        }
        Ok(plan)
    }
}

/// Rows that are proposed for insertion: the ones that they are in conflict with are found, and locked to be updated.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct FindPlan {
    pub relid: u32,
    pub colocation: i32,
    /// Column of the rows below that is the distribution column; None: it is NULL.
    pub key: Option<usize>,
    /// Finds the rows that are in conflict with those of the parameters: their number in these, ctid, columns.
    pub lookup: SqlTemplate,
    /// What is found is updated, not only left alone.
    pub updates: bool,
    /// The columns that are proposed, and their attribute numbers.
    pub columns: Vec<InsertColumn>,
    pub attributes: Vec<i16>,
    /// Types of what the shards answer.
    pub answer: Vec<u32>,
    /// Where that goes in the rows; the number becomes that of the row.
    pub outputs: Vec<usize>,
    pub as_others: bool,
}

/// What happens to a row.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct Action {
    pub command: Command,
    /// UPDATE and DELETE of rows by ctid.
    pub in_place: Option<RowsStatement>,
    /// The column that is the distribution column of the new row, where it may differ from the old; with INSERT: where
    /// it is given.
    pub new_key: Option<usize>,
    /// Takes a row away that gets another key.
    pub remove: Option<RowsStatement>,
    /// INSERT of new rows, and of those that were taken away elsewhere.
    pub insert: Option<RowsStatement>,
    /// Columns that say whether the new row is allowed.
    pub checks: Vec<(usize, RowCheck)>,
}

/// A statement about many rows of one shard, which it is given as arrays.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct RowsStatement {
    pub template: SqlTemplate,
    /// The first parameter is the rows' ctids.
    pub by_ctid: bool,
    pub columns: Vec<InsertColumn>,
}

/// May one row come several times?
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    Never,
    /// It is changed the first time only.
    Once,
    /// That is an error: MERGE.
    Forbidden,
}

/// A foreign key that points to the changed table.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct Referenced {
    pub constraint: String,
    pub schema: String,
    /// The table that refers.
    pub table: String,
    /// ON UPDATE says that referring rows change as well.
    pub follows: bool,
    /// The values of one row of `$1` (ctids) that is referred to.
    pub look: SqlTemplate,
    pub columns: String,
}

/// A column of the rows to insert.
#[derive(Serialize, Deserialize, Debug, Clone, Copy)]
pub struct InsertColumn {
    /// Index in the rows that the plan below gives.
    pub source: usize,
    pub value: u32,
    /// Element type of the array parameter: the type itself, or text.
    pub element: u32,
}

impl InsertColumn {
    /// How an element travels.
    pub fn travels(&self) -> ParamType {
        ParamType {
            value: self.value,
            declared: self.element,
            binary: self.element == self.value,
        }
    }
}

/// A condition that a policy or view puts on rows.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct RowCheck {
    pub kind: CheckKind,
    /// The table or view that has it.
    pub relation: String,
    /// The table that the rows are of.
    pub table: u32,
    pub policy: Option<String>,
}

/// What the condition is about.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// A new row, by a policy.
    NewRow,
    /// A new row, by the check option of a view: the condition gives the text of a row that the view does not allow.
    NewRowOfView,
    /// The row that ON CONFLICT DO UPDATE finds, by a policy.
    FoundRow,
    /// The same by the WHERE clause of a view.
    FoundRowOfView,
    /// A row that ON CONFLICT DO NOTHING does not find, since policies hide it from the login at the node.
    HiddenRow,
    /// The row that MERGE changes, by a policy.
    TargetRow,
    /// The row that ON CONFLICT DO UPDATE finds, which the statement itself has made.
    OwnRow,
}

impl RowCheck {
    /// The error that `ExecWithCheckOptions` reports.
    pub fn violation(&self) -> Error {
        let relation = &self.relation;
        let policy = match &self.policy {
            Some(policy) => format!(" \"{policy}\""),
            None => String::new(),
        };
        let by_policy = |which: &str| {
            Error::new(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!("new row violates row-level security policy{policy}{which} for table \"{relation}\""),
            )
        };
        match self.kind {
            CheckKind::NewRow => by_policy(""),
            CheckKind::FoundRow => by_policy(" (USING expression)"),
            CheckKind::HiddenRow => Error::new(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!("row-level security policies for table \"{relation}\" hide rows that new ones are in conflict with"),
            )
            .hint("Let the user mapping log in at the node as the owner of the shards or a role with BYPASSRLS."),
            CheckKind::TargetRow => Error::new(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!("target row violates row-level security policy{policy} (USING expression) for table \"{relation}\""),
            ),
            CheckKind::NewRowOfView => Error::new(
                sqlstate::WITH_CHECK_OPTION_VIOLATION,
                format!("new row violates check option for view \"{relation}\""),
            ),
            CheckKind::FoundRowOfView => Error::new(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("conflicting row is not visible through view \"{relation}\""),
            ),
            CheckKind::OwnRow => Error::new(
                sqlstate::CARDINALITY_VIOLATION,
                "ON CONFLICT DO UPDATE command cannot affect row a second time",
            )
            .hint("Ensure that no rows proposed for insertion within the same command have duplicate constrained values."),
        }
    }
}

/// A plan as `custom_private`: one String node.
pub trait Private: Serialize + serde::de::DeserializeOwned {
    /// As `custom_private`.
    ///
    /// # Safety
    /// Allocates: call it inside the server.
    unsafe fn to_private(&self) -> Result<*mut pg_sys::List> {
        let json = serde_json::to_string(self)
            .map_err(|e| Error::internal(format!("plan to JSON: {e}")))?;
        unsafe {
            let text: *mut pg_sys::Node = pg_sys::makeString(node::pstrdup(&json)).cast();
            Ok(list::from([text]))
        }
    }

    /// The plan of a `custom_private`.
    ///
    /// # Safety
    /// `private` was made by `to_private`, perhaps copied since.
    unsafe fn from_private(private: *mut pg_sys::List) -> Result<Self> {
        // SAFETY: one String node.
        let json = unsafe { CStr::from_ptr((*list::nth::<pg_sys::String>(private, 0)).sval) };
        serde_json::from_slice(json.to_bytes())
            .map_err(|e| Error::internal(format!("plan from JSON: {e}")))
    }
}

impl Private for InsertPlan {}
impl Private for CopiesPlan {}
impl Private for LockPlan {}
impl Private for MovePlan {}
impl Private for ChangesPlan {}
impl Private for ModifyPlan {}
impl Private for FindPlan {}
impl Private for CursorPlan {}

/// A WITH query that nobody reads is not run, but its parallel-unsafe function is seen by the node's planner. That one
/// has no statistics of what UNION ALL gives, takes the groups for few and would spread them over workers.
const NOT_PARALLEL: &str = ", serial AS (SELECT pg_catalog.set_config('', '', true))";

impl RemotePlan {
    /// The statement for a node, of the texts for its shard groups.
    pub fn statement(&self, arms: &[String]) -> String {
        let rows = match arms {
            [only] => only.clone(),
            several => {
                // An arm of UNION ALL cannot lock, a subquery in it can.
                let (select, alias) = if self.writes {
                    ("SELECT * FROM ", " locked")
                } else {
                    ("", "")
                };
                let arms: Vec<String> = several
                    .iter()
                    .map(|arm| format!("{select}({arm}){alias}"))
                    .collect();
                arms.join(" UNION ALL ")
            }
        };
        match &self.over {
            Some(over) => {
                let serial = if self.serial { NOT_PARALLEL } else { "" };
                format!("WITH {} AS ({rows}){serial} {over}", crate::planner::SHARDS)
            }
            None if arms.len() == 1 => rows,
            None => rows + &self.union_tail,
        }
    }

    /// As `custom_private`: an id under which this backend finds the parsed plan, and the plan itself.
    ///
    /// # Safety
    /// Allocates: call it inside the server.
    pub unsafe fn to_private(&self) -> Result<*mut pg_sys::List> {
        let json = serde_json::to_string(self)
            .map_err(|e| Error::internal(format!("plan to JSON: {e}")))?;
        let id = NEXT_ID.with(|next| {
            let id = next.get();
            next.set(id.wrapping_add(1).max(1));
            id
        });
        remember(id, Rc::new(CachedPlan::new(self.clone())));
        unsafe {
            let id_node: *mut pg_sys::Node = pg_sys::makeInteger(id).cast();
            let text: *mut pg_sys::Node = pg_sys::makeString(node::pstrdup(&json)).cast();
            Ok(list::from([id_node, text]))
        }
    }

    /// The plan of a `custom_private`.
    ///
    /// # Safety
    /// `private` was made by `to_private`, perhaps copied since.
    pub unsafe fn from_private(private: *mut pg_sys::List) -> Result<Rc<CachedPlan>> {
        // SAFETY: two nodes, an Integer and a String.
        let (id, json) = unsafe {
            let id = (*list::nth::<pg_sys::Integer>(private, 0)).ival;
            (
                id,
                CStr::from_ptr((*list::nth::<pg_sys::String>(private, 1)).sval),
            )
        };
        if let Some(plan) = KNOWN.with(|known| known.borrow().get(&id).cloned()) {
            return Ok(plan);
        }
        let plan: RemotePlan = serde_json::from_slice(json.to_bytes())
            .map_err(|e| Error::internal(format!("plan from JSON: {e}")))?;
        let plan = Rc::new(CachedPlan::new(plan));
        remember(id, plan.clone());
        Ok(plan)
    }
}
