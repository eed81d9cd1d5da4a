//! INSERT … VALUES of many rows. Each look at the statement would cost as much as its lists are long, so they are taken
//! out of it before it is planned: the executor computes the rows one after the other, and no planner sees them.

use crate::catalog::{self, TableKind};
use crate::error::Result;
use crate::pg::{expr, list, node};
use crate::planner::insert::Made;
use crate::planner::plan::Private;
use crate::planner::{insert, proposed, statement, tableoid};
use pgrx::pg_sys::{self, CmdType, Node, NodeTag, PlannedStmt, Query, RTEKind, RangeTblEntry};

/// Plans such a statement; None: it is another one, or its rows need a planner.
///
/// # Safety
/// `query` is what a planner hook is given.
pub unsafe fn plan(query: *mut Query) -> Result<Option<*mut PlannedStmt>> {
    unsafe {
        let Some(number) = values_of(query) else {
            return Ok(None);
        };
        let Some(table) = catalog::table(insert::target_relid(query))? else {
            return Ok(None);
        };
        let TableKind::Distributed { key, colocation } = &table.kind else {
            return Ok(None);
        };
        if proposed::reason(query, &table)?.is_some() {
            return Ok(None);
        }
        let entry = list::rt_fetch(number, (*query).rtable);
        let lists = std::mem::replace(&mut (*entry).values_lists, std::ptr::null_mut());
        let Some(columns) = Columns::of(query, number, lists) else {
            (*entry).values_lists = lists;
            return Ok(None);
        };
        tableoid::replace(query)?;
        let attributes = &columns.attributes;
        let (made, returning) = insert::prepare_rows(query, *key, colocation.id, attributes)?;
        statement_of(query, lists, columns, made, returning).map(Some)
    }
}

/// The number of the entry whose lists are all that an INSERT reads, if nothing in it is a query of its own.
unsafe fn values_of(query: *mut Query) -> Option<i32> {
    unsafe {
        let from = (*query).jointree;
        if (*query).commandType != CmdType::CMD_INSERT
            || list::len((*from).fromlist) != 1
            || !(*from).quals.is_null()
            || !(*query).cteList.is_null()
            || !(*query).withCheckOptions.is_null()
            || (*query).hasSubLinks
            || (*query).hasTargetSRFs
            || (*query).hasRowSecurity
        {
            return None;
        }
        let reference = node::cast::<pg_sys::RangeTblRef>(list::nth::<Node>((*from).fromlist, 0))?;
        let number = (*reference).rtindex;
        let entry = list::rt_fetch(number, (*query).rtable);
        ((*entry).rtekind == RTEKind::RTE_VALUES).then_some(number)
    }
}

/// Where the inserted columns come from.
struct Columns {
    attributes: Vec<i16>,
    /// Their places in a row: the values of its list, then what is computed.
    sources: Vec<usize>,
    /// Values that no list has: defaults.
    computed: Vec<*mut Node>,
}

impl Columns {
    /// None: a column is made of several values.
    unsafe fn of(query: *mut Query, number: i32, lists: *mut pg_sys::List) -> Option<Columns> {
        unsafe {
            let width = list::len(list::nth::<pg_sys::List>(lists, 0));
            let (select, attributes) = insert::source(query);
            let mut sources = Vec::new();
            let mut computed = Vec::new();
            for entry in list::iter::<pg_sys::TargetEntry>((*select).targetList) {
                let value = (*entry).expr.cast::<Node>();
                match node::cast::<pg_sys::Var>(value) {
                    Some(var) if (*var).varno == number && (*var).varattno > 0 => {
                        sources.push((*var).varattno as usize - 1)
                    }
                    _ if pg_sys::contain_var_clause(value) => return None,
                    _ => {
                        sources.push(width + computed.len());
                        computed.push(value);
                    }
                }
            }
            Some(Columns {
                attributes,
                sources,
                computed,
            })
        }
    }
}

/// The plan: the inserting node, which has the rows.
unsafe fn statement_of(
    query: *mut Query,
    lists: *mut pg_sys::List,
    columns: Columns,
    made: Made,
    returning: Option<*mut pg_sys::List>,
) -> Result<*mut PlannedStmt> {
    unsafe {
        let Made {
            mut plan,
            mut exprs,
            returned,
        } = made;
        plan.copied = None;
        for column in &mut plan.columns {
            column.source = columns.sources[column.source];
        }
        let planner = Folding::new();
        for row in list::iter::<pg_sys::List>(lists) {
            for index in 0..list::len(row) {
                list::set(row, index, planner.fold(list::nth(row, index)));
            }
        }
        exprs.extend(columns.computed.iter().map(|value| planner.fold(*value)));
        let names = (1..=returned.len()).map(|i| format!("c{i}")).collect();
        let count = list::len(lists) as f64;
        let mut rtable = (*query).rtable;
        let scan = statement::scan_of(&mut rtable, &returned, names, returning, count);
        (*scan).scan.plan.total_cost = count * pg_sys::cpu_tuple_cost;
        (*scan).custom_exprs = list::from(exprs);
        (*scan).custom_private = pg_sys::lappend(plan.to_private()?, lists.cast());
        (*scan).methods = crate::executor::insert_methods();
        let relations = list::iter::<RangeTblEntry>((*query).rtable)
            .filter(|entry| (**entry).rtekind == RTEKind::RTE_RELATION)
            .map(|entry| (*entry).relid);
        let statement = statement::of_scan(query, scan, rtable, relations);
        (*statement).invalItems = (*planner.global).invalItems;
        Ok(statement)
    }
}

/// What PostgreSQL's planner does to an expression before it is executed.
struct Folding {
    root: *mut pg_sys::PlannerInfo,
    global: *mut pg_sys::PlannerGlobal,
}

impl Folding {
    unsafe fn new() -> Folding {
        unsafe {
            let global = node::make::<pg_sys::PlannerGlobal>();
            let root = node::make::<pg_sys::PlannerInfo>();
            (*root).glob = global;
            Folding { root, global }
        }
    }

    /// Constants, parameters and their casts, of which long lists are made, stay what they are.
    unsafe fn fold(&self, value: *mut Node) -> *mut Node {
        unsafe {
            if matches!(node::tag(value), NodeTag::T_Const | NodeTag::T_Param)
                || expr::plain_cast(value).is_some()
            {
                return value;
            }
            let folded = pg_sys::eval_const_expressions(self.root, value);
            pg_sys::fix_opfuncids(folded);
            folded
        }
    }
}
