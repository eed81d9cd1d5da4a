//! Finishes a statement for the workers: parameters out, security barriers in, text with holes, pruning.

mod fence;

use crate::deparse;
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node, types};
use crate::planner::leaf;
use crate::planner::moved;
use crate::planner::plan::{Command, Kind, MovedName, RemotePlan, SortKey};
use crate::planner::route::Route;
use crate::planner::ship::{self, Parameters};
pub use fence::fence;
use pgrx::pg_sys::{self, Node, Query, RTEKind};

/// A remote statement on its way into a CustomScan.
pub struct Remote {
    pub plan: RemotePlan,
    /// `custom_exprs`: parameters first, then values that only pruning needs.
    pub exprs: Vec<*mut Node>,
    /// Type, typmod and collation of each column.
    pub columns: Vec<(pg_sys::Oid, i32, pg_sys::Oid)>,
    pub names: Vec<String>,
    /// The statement that was made text, for estimates.
    pub query: *mut Query,
    /// Every relation that the statement reads, for permission checks and invalidation.
    pub relations: Vec<*mut pg_sys::RangeTblEntry>,
}

/// What `finish` is told of a statement.
pub struct Order {
    pub keys: Vec<SortKey>,
    /// `limit + offset`, an expression without columns.
    pub limit: *mut Node,
    /// The number of the lock for which these are candidates: it says how many are read.
    pub candidates: Option<u32>,
}

impl Default for Order {
    fn default() -> Order {
        Order {
            keys: Vec::new(),
            limit: std::ptr::null_mut(),
            candidates: None,
        }
    }
}

/// Turns `query` (which the caller owns; it is changed) into a remote statement.
///
/// # Safety
/// `query` is a valid Query whose trees are shippable; `route` was found for it.
pub unsafe fn finish(query: *mut Query, route: &Route, order: Order) -> Result<Remote> {
    unsafe { finish_with(query, route, order, Parameters::default()) }
}

/// Name of the rows of a node's shard groups, where the node goes on with them.
pub const SHARDS: &str = "shards";

/// The same for a query whose rows each node aggregates: `over` reads them as a CTE named `SHARDS`, its columns named by
/// `short_name`. None: `over` names what differs between shards (both queries are used up then).
///
/// # Safety
/// As `finish`, for both.
pub unsafe fn finish_over(
    query: *mut Query,
    over: *mut Query,
    route: &Route,
) -> Result<Option<Remote>> {
    unsafe {
        let mut parameters = Parameters::default();
        parameters.extract(over, false);
        parameters.extract(query, false);
        let mut columns = Vec::new();
        let mut names = Vec::new();
        for entry in list::iter::<pg_sys::TargetEntry>((*over).targetList) {
            columns.push(expr::signature((*entry).expr.cast()));
            names.push(name_of(entry));
            (*entry).resname = node::pstrdup(&short_name(columns.len()));
        }
        let template = deparse::template(over)?;
        if !template.holes().is_empty() {
            return Ok(None);
        }
        let mut remote = finish_with(query, route, Order::default(), parameters)?;
        remote.plan.columns = columns.iter().map(|(t, _, _)| t.to_u32()).collect();
        remote.plan.over = Some(template.text().to_owned());
        remote.plan.bulk = false;
        remote.columns = columns;
        remote.names = names;
        remote.query = over_subquery(over, query);
        Ok(Some(remote))
    }
}

/// `over` with its CTE as a subquery.
unsafe fn over_subquery(over: *mut Query, rows: *mut Query) -> *mut Query {
    unsafe {
        let query = node::copy(over);
        let entry = list::nth::<pg_sys::RangeTblEntry>((*query).rtable, 0);
        (*entry).rtekind = RTEKind::RTE_SUBQUERY;
        (*entry).ctename = std::ptr::null_mut();
        (*entry).coltypes = std::ptr::null_mut();
        (*entry).coltypmods = std::ptr::null_mut();
        (*entry).colcollations = std::ptr::null_mut();
        (*entry).subquery = rows;
        query
    }
}

/// The same when parts of the statement are parameters already.
///
/// # Safety
/// As `finish`; `parameters` made those parts.
pub unsafe fn finish_with(
    query: *mut Query,
    route: &Route,
    order: Order,
    mut parameters: Parameters,
) -> Result<Remote> {
    unsafe {
        let ready = !parameters.exprs.is_empty();
        let relations = relations_of(query);
        let watched = if route.single {
            Vec::new()
        } else {
            changed_or_locked(query)
        };
        let mut columns = Vec::new();
        let mut names = Vec::new();
        let outputs = if (*query).commandType == pg_sys::CmdType::CMD_SELECT {
            (*query).targetList
        } else {
            (*query).returningList
        };
        for entry in list::iter::<pg_sys::TargetEntry>(outputs).filter(|e| !(**e).resjunk) {
            let signature = expr::signature((*entry).expr.cast());
            ship::readable_type(signature.0)?;
            columns.push(signature);
            names.push(name_of(entry));
            if !route.single && (*query).setOperations.is_null() {
                // libpq copies the names with every row.
                (*entry).resname = node::pstrdup(&short_name(columns.len()));
            }
            if is_row_of_relation(signature.0) {
                (*entry).expr = as_text((*entry).expr.cast()).cast();
            }
        }
        let (tail, window) = union_tail(&order, query, &mut parameters);
        let selects = list::len((*(*query).jointree).fromlist) > 0;
        if ready || (*query).commandType == pg_sys::CmdType::CMD_INSERT && !selects {
            parameters.extract_clauses(query);
        } else {
            parameters.extract(query, route.single);
        }
        if let Some(window) = window {
            (*query).limitCount = window;
        }
        fence(query);
        let template = deparse::template(query)?;
        let mut exprs = parameters.exprs.clone();
        let numbers: Vec<usize> = route
            .values
            .iter()
            .map(|value| {
                parameters.index_of(*value).unwrap_or_else(|| {
                    exprs.push(node::copy(*value));
                    exprs.len() - 1
                })
            })
            .collect();
        let moved = moved::named_in(query)
            .into_iter()
            .map(|(name, handle)| {
                exprs.push(node::copy(handle));
                MovedName {
                    name,
                    handle: exprs.len() - 1,
                }
            })
            .collect();
        let exprs = own(exprs);
        let command = match (*query).commandType {
            pg_sys::CmdType::CMD_INSERT if selects => Command::InsertSelect,
            pg_sys::CmdType::CMD_INSERT => Command::Insert,
            pg_sys::CmdType::CMD_UPDATE => Command::Update,
            pg_sys::CmdType::CMD_DELETE => Command::Delete,
            pg_sys::CmdType::CMD_MERGE => Command::Merge,
            _ => Command::Select,
        };
        let bulk = !route.single && parameters.types.is_empty() && reads_everything(query);
        let plan = RemotePlan {
            kind: if route.single {
                Kind::Routed
            } else {
                Kind::Scattered
            },
            command,
            template,
            colocation: route.colocation.id,
            prune: if numbers.is_empty() {
                route.prune.clone()
            } else {
                route.prune.renumbered(&|i| numbers[i])
            },
            params: parameters.types.clone(),
            columns: columns.iter().map(|(t, _, _)| t.to_u32()).collect(),
            merge: order.keys,
            union_tail: tail,
            window: order
                .candidates
                .zip(window)
                .map(|(lock, window)| (lock, parameters.position_of(window))),
            over: None,
            serial: false,
            part: None,
            writes: command != Command::Select || locks_rows(query),
            watched,
            bulk,
            as_others: leaf::reads_as_others()
                || relations.iter().any(|rte| applies_policies_of_others(*rte)),
            checks: Vec::new(),
            moved,
            sent: leaf::sent_by(&exprs),
            reason: leaf::joined_because(&relations)
                .map(|why| format!("joined on the coordinator: {why}"))
                .unwrap_or_default(),
        };
        Ok(Remote {
            plan,
            exprs,
            columns,
            names,
            query,
            relations,
        })
    }
}

/// Does a view read this relation as its owner, who is another role and for whom policies may hold?
unsafe fn applies_policies_of_others(rte: *mut pg_sys::RangeTblEntry) -> bool {
    unsafe {
        let owner = (*rte).checkAsUser;
        if owner == pg_sys::InvalidOid || owner == pg_sys::GetUserId() {
            return false;
        }
        let relation = pg_sys::RelationIdGetRelation((*rte).relid);
        if relation.is_null() {
            return false;
        }
        let secured = (*(*relation).rd_rel).relrowsecurity;
        pg_sys::RelationClose(relation);
        secured
    }
}

/// Is this the row type of a table or view? Each shard's table has one of its own, views are known here only.
fn is_row_of_relation(type_oid: pg_sys::Oid) -> bool {
    if types::is_builtin(type_oid) {
        return false;
    }
    // SAFETY: syscache look-ups.
    unsafe {
        let relid = pg_sys::get_typ_typrelid(type_oid);
        relid != pg_sys::InvalidOid && pg_sys::get_rel_relkind(relid) as u8 != b'c'
    }
}

unsafe fn as_text(value: *mut Node) -> *mut Node {
    unsafe {
        let cast = node::make::<pg_sys::CoerceViaIO>();
        (*cast).arg = value.cast();
        (*cast).resulttype = pg_sys::TEXTOID;
        (*cast).resultcollid = pg_sys::DEFAULT_COLLATION_OID;
        (*cast).coerceformat = pg_sys::CoercionForm::COERCE_EXPLICIT_CAST;
        (*cast).location = -1;
        cast.cast()
    }
}

/// No condition, grouping or LIMIT makes the rows fewer than the tables have.
unsafe fn reads_everything(query: *mut Query) -> bool {
    unsafe {
        (*query).commandType == pg_sys::CmdType::CMD_SELECT
            && (*query).setOperations.is_null()
            && !(*query).hasAggs
            && (*query).groupClause.is_null()
            && (*query).distinctClause.is_null()
            && (*query).limitCount.is_null()
            && (*query).rowMarks.is_null()
            && (*(*query).jointree).quals.is_null()
    }
}

/// A name for the column of this number: a, b, … z, aa, …
pub fn short_name(mut number: usize) -> String {
    let mut name = String::new();
    while number > 0 {
        number -= 1;
        name.insert(0, (b'a' + (number % 26) as u8) as char);
        number /= 26;
    }
    name
}

unsafe fn name_of(entry: *mut pg_sys::TargetEntry) -> String {
    unsafe {
        if (*entry).resname.is_null() {
            "?column?".to_owned()
        } else {
            std::ffi::CStr::from_ptr((*entry).resname)
                .to_string_lossy()
                .into_owned()
        }
    }
}

/// `ORDER BY 2 DESC LIMIT $1`, for the union of several shard groups' rows, and the parameter that a lock sets.
unsafe fn union_tail(
    order: &Order,
    query: *mut Query,
    parameters: &mut Parameters,
) -> (String, Option<*mut Node>) {
    unsafe {
        let mut tail = String::new();
        for (index, key) in order.keys.iter().enumerate() {
            tail.push_str(if index == 0 { " ORDER BY " } else { ", " });
            tail.push_str(&(key.column + 1).to_string());
            if pg_sys::Oid::from(key.operator) == greater_than(key, query) {
                tail.push_str(" DESC");
            }
            tail.push_str(if key.nulls_first {
                " NULLS FIRST"
            } else {
                " NULLS LAST"
            });
        }
        let mut window = None;
        if !order.limit.is_null() {
            let limit = if order.candidates.is_some() {
                parameters.fresh(order.limit)
            } else {
                parameters.parameter(order.limit)
            };
            if let Some(param) = node::cast::<pg_sys::Param>(limit) {
                tail.push_str(&format!(" LIMIT ${}", (*param).paramid));
            }
            (*query).limitCount = node::copy(order.limit);
            window = order.candidates.map(|_| limit);
        }
        (tail, window)
    }
}

unsafe fn greater_than(key: &SortKey, query: *mut Query) -> pg_sys::Oid {
    unsafe {
        let entry = list::nth::<pg_sys::TargetEntry>((*query).targetList, key.column);
        let type_oid = pg_sys::exprType((*entry).expr.cast());
        (*pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_GT_OPR as i32)).gt_opr
    }
}

unsafe fn locks_rows(query: *mut Query) -> bool {
    unsafe {
        node::walk(
            query.cast(),
            &mut |item, _| match node::cast::<Query>(item) {
                Some(q)
                    if !(*q).rowMarks.is_null()
                        || (*q).commandType != pg_sys::CmdType::CMD_SELECT =>
                {
                    Step::Stop
                }
                _ => Step::Into,
            },
        )
    }
}

/// Tables whose rows a statement changes or locks, itself or in parts; those that others lock are not skipped.
unsafe fn changed_or_locked(query: *mut Query) -> Vec<u32> {
    let mut tables = Vec::new();
    unsafe {
        node::walk(query.cast(), &mut |item, _| {
            if let Some(q) = node::cast::<Query>(item) {
                use pg_sys::CmdType::*;
                let changed = matches!((*q).commandType, CMD_UPDATE | CMD_DELETE | CMD_MERGE)
                    .then_some((*q).resultRelation);
                let locked = list::iter::<pg_sys::RowMarkClause>((*q).rowMarks)
                    .filter(|mark| (**mark).waitPolicy != pg_sys::LockWaitPolicy::LockWaitSkip)
                    .map(|mark| (*mark).rti as i32);
                for rtindex in locked.chain(changed) {
                    let rte = list::rt_fetch(rtindex, (*q).rtable);
                    if (*rte).rtekind == RTEKind::RTE_RELATION {
                        tables.push((*rte).relid.to_u32());
                    }
                }
            }
            Step::Into
        });
    }
    tables.sort_unstable();
    tables.dedup();
    tables
}

/// Copies of all relation entries of a tree, views included: the executor checks their permissions.
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn relations_of(query: *mut Query) -> Vec<*mut pg_sys::RangeTblEntry> {
    let mut found = Vec::new();
    unsafe {
        node::walk(query.cast(), &mut |item, _| {
            if let Some(q) = node::cast::<Query>(item) {
                for rte in list::iter::<pg_sys::RangeTblEntry>((*q).rtable) {
                    if (*rte).rtekind == RTEKind::RTE_RELATION {
                        found.push(relation_entry(rte));
                    }
                }
            }
            Step::Into
        });
    }
    found
}

/// A copy of a relation's entry as the executor needs it to check permissions.
///
/// # Safety
/// `rte` is a relation's entry.
pub unsafe fn relation_entry(rte: *mut pg_sys::RangeTblEntry) -> *mut pg_sys::RangeTblEntry {
    unsafe {
        let copy = node::copy(rte);
        // What the executor does not need would only cost.
        (*copy).securityQuals = std::ptr::null_mut();
        (*copy).tablesample = std::ptr::null_mut();
        copy
    }
}

/// Makes a relation's entry the subquery `SELECT columns FROM relation WHERE quals`.
///
/// # Safety
/// `rte` is a relation's entry that the caller owns; `quals` speaks of varno 1.
pub unsafe fn into_subquery(rte: *mut pg_sys::RangeTblEntry, quals: *mut Node) {
    unsafe {
        let sub = select_from(node::copy(rte), quals, None);
        if (*rte).alias.is_null() {
            let alias = node::make::<pg_sys::Alias>();
            (*alias).aliasname = pg_sys::pstrdup((*(*rte).eref).aliasname);
            (*rte).alias = alias;
        }
        (*rte).rtekind = RTEKind::RTE_SUBQUERY;
        (*rte).subquery = sub;
        (*rte).relid = pg_sys::InvalidOid;
        (*rte).relkind = 0;
        (*rte).requiredPerms = 0;
        (*rte).inh = false;
    }
}

/// `SELECT columns FROM relation WHERE quals`; all columns by attribute number unless `columns` names some.
///
/// # Safety
/// `rte` is a relation's entry that the new Query may own; `quals` speaks of varno 1.
pub unsafe fn select_from(
    rte: *mut pg_sys::RangeTblEntry,
    quals: *mut Node,
    columns: Option<&[i16]>,
) -> *mut Query {
    unsafe {
        let query = node::make::<Query>();
        (*query).commandType = pg_sys::CmdType::CMD_SELECT;
        (*query).canSetTag = true;
        // Set on a sampled relation whose LATERAL subquery PostgreSQL has pulled up.
        (*rte).lateral = false;
        (*query).rtable = list::from([rte]);
        let reference = node::make::<pg_sys::RangeTblRef>();
        (*reference).rtindex = 1;
        (*query).jointree = pg_sys::makeFromExpr(list::from([reference]), quals);
        let all: Vec<i16>;
        let wanted = match columns {
            Some(some) => some,
            None => {
                all = (1..=types::column_count((*rte).relid)).collect();
                &all
            }
        };
        let mut entries = Vec::new();
        for (index, attno) in wanted.iter().enumerate() {
            let value = column((*rte).relid, *attno);
            let name = pg_sys::get_attname((*rte).relid, *attno, true);
            let name = if name.is_null() {
                node::pstrdup("dropped")
            } else {
                name
            };
            entries.push(pg_sys::makeTargetEntry(
                value.cast(),
                index as i16 + 1,
                name,
                false,
            ));
        }
        (*query).targetList = list::from(entries);
        query
    }
}

/// Column `attno` of the relation at varno 1; NULL where the column was dropped.
unsafe fn column(relid: pg_sys::Oid, attno: i16) -> *mut Node {
    unsafe {
        let (type_oid, typmod, collation) = types::attribute_signature(relid, attno);
        if type_oid == pg_sys::InvalidOid {
            return pg_sys::makeNullConst(pg_sys::INT4OID, -1, pg_sys::InvalidOid).cast();
        }
        expr::var(1, attno, (type_oid, typmod, collation)).cast()
    }
}

/// May rows sorted on a worker be merged here? Not when a node's collation sorts otherwise.
pub fn sorts_alike(type_oid: pg_sys::Oid, collation: pg_sys::Oid) -> Result<bool> {
    if !types::is_builtin(types::base_type(type_oid)) {
        // Enums sort by their order of creation, which the nodes share.
        // SAFETY: a syscache look-up.
        return Ok(unsafe { pg_sys::type_is_enum(type_oid) });
    }
    Ok(!ship::is_other(collation))
}

/// Copies of expressions, ready for the executor.
///
/// # Safety
/// They are valid expressions.
pub unsafe fn own(exprs: Vec<*mut Node>) -> Vec<*mut Node> {
    exprs
        .into_iter()
        .map(|e| unsafe {
            let e: *mut Node = node::copy(e);
            pg_sys::expression_planner(e.cast()).cast()
        })
        .collect()
}
