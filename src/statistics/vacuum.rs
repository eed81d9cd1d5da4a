//! The statements VACUUM and ANALYZE. PostgreSQL does its part for all other relations; of distributed tables it must not
//! analyse the empty relation here, which would make all estimates zero. Their shards, and the copies of reference
//! tables, are vacuumed by their nodes in transactions of their own, as VACUUM has to be.

use super::analyze::{self, Options};
use super::refresh;
use super::totals::Totals;
use crate::catalog::{self, NodeId};
use crate::ddl::{self, quote_identifier};
use crate::error::Result;
use crate::pg::{list, node, spi};
use crate::remote::{ConnectOptions, LoneConnection};
use pgrx::pg_sys::{self, Oid};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::time::{Duration, Instant};

/// The statement as the utility hook has it.
pub struct VacuumCall<'a> {
    pub statement: *mut pg_sys::VacuumStmt,
    pub top_level: bool,
    /// Lets PostgreSQL run a statement in the place of the original.
    pub chain: &'a dyn Fn(*mut pg_sys::VacuumStmt),
}

/// A distributed or reference table that the statement names.
struct Target {
    relid: Oid,
    relation: *mut pg_sys::RangeVar,
    columns: Vec<String>,
    reference: bool,
}

/// What the statement asks for.
struct Request {
    vacuum: bool,
    analyze: bool,
    options: Options,
    /// Options of VACUUM for the nodes, in SQL.
    node_options: Vec<String>,
}

/// Runs the statement.
///
/// # Safety
/// Called by the utility hook; the statement is valid.
pub unsafe fn vacuum_statement(call: &VacuumCall) -> Result<()> {
    let statement = call.statement;
    let request = Request::of(statement);
    let named = !(*statement).rels.is_null();
    let (targets, others) = if named {
        named_tables(statement)?
    } else {
        (all_tables()?, std::ptr::null_mut())
    };
    if targets.is_empty() {
        (call.chain)(statement);
        return Ok(());
    }
    if request.vacuum {
        pg_sys::PreventInTransactionBlock(call.top_level, c"VACUUM".as_ptr());
    }
    let in_block = pg_sys::IsInTransactionBlock(call.top_level);
    let mut run = Run {
        call,
        request,
        own_transactions: false,
    };
    let count = list::len((*statement).rels);
    run.own_transactions = run.request.vacuum || (!in_block && (!named || count > 1));
    let before: Vec<Totals> = targets
        .iter()
        .map(|target| Totals::stored(target.relid))
        .collect();
    run.locally(&targets, others, named)?;
    if run.own_transactions {
        next_transaction();
    }
    if run.request.vacuum {
        run.vacuum_on_nodes(&targets);
        next_transaction();
    }
    for (target, before) in targets.iter().zip(&before) {
        run.statistics(target, before)?;
        if run.own_transactions {
            next_transaction();
        } else {
            pg_sys::CommandCounterIncrement();
        }
    }
    if run.own_transactions && pg_sys::ActiveSnapshotSet() {
        // PostgreSQL's VACUUM leaves none either
        pg_sys::PopActiveSnapshot();
    }
    Ok(())
}

/// Ends the transaction and starts another, as `vacuum()` does between tables.
unsafe fn next_transaction() {
    while pg_sys::ActiveSnapshotSet() {
        pg_sys::PopActiveSnapshot();
    }
    pg_sys::CommitTransactionCommand();
    pg_sys::StartTransactionCommand();
    pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
}

impl Request {
    unsafe fn of(statement: *mut pg_sys::VacuumStmt) -> Request {
        let vacuum = (*statement).is_vacuumcmd;
        let mut request = Request {
            vacuum,
            analyze: !vacuum,
            options: Options::default(),
            node_options: Vec::new(),
        };
        for option in list::iter::<pg_sys::DefElem>((*statement).options) {
            match CStr::from_ptr((*option).defname).to_str() {
                Ok("analyze") => request.analyze = pg_sys::defGetBoolean(option),
                Ok("verbose") => request.options.verbose = pg_sys::defGetBoolean(option),
                Ok(name) => {
                    if name == "skip_locked" {
                        request.options.skip_locked = pg_sys::defGetBoolean(option);
                    }
                    let value = if (*option).arg.is_null() {
                        String::new()
                    } else {
                        let value = CStr::from_ptr(pg_sys::defGetString(option)).to_string_lossy();
                        if (*(*option).arg).type_ == pg_sys::NodeTag::T_Integer {
                            format!(" {value}")
                        } else {
                            format!(" {}", ddl::quote_literal(&value))
                        }
                    };
                    request.node_options.push(format!("{name}{value}"));
                }
                Err(_) => {}
            }
        }
        request
    }
}

/// The tables of ours in the statement's list, and the other entries.
unsafe fn named_tables(
    statement: *mut pg_sys::VacuumStmt,
) -> Result<(Vec<Target>, *mut pg_sys::List)> {
    let mut targets = Vec::new();
    let mut others: *mut pg_sys::List = std::ptr::null_mut();
    for entry in list::iter::<pg_sys::VacuumRelation>((*statement).rels) {
        let relid = if (*entry).oid != pg_sys::InvalidOid {
            (*entry).oid
        } else {
            node::relation_named((*entry).relation)
        };
        let table = if relid == pg_sys::InvalidOid {
            None
        } else {
            catalog::table(relid)?
        };
        let Some(table) = table else {
            others = pg_sys::lappend(others, entry.cast());
            continue;
        };
        targets.push(Target {
            relid,
            relation: (*entry).relation,
            columns: list::iter::<pg_sys::String>((*entry).va_cols)
                .map(|name| CStr::from_ptr((*name).sval).to_string_lossy().into_owned())
                .collect(),
            reference: table.is_reference(),
        });
        if table.is_reference() {
            others = pg_sys::lappend(others, entry.cast());
        }
    }
    Ok((targets, others))
}

/// All tables of ours that the user may vacuum; PostgreSQL warns of the others.
unsafe fn all_tables() -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for relid in catalog::tables()? {
        let Some(table) = catalog::table(relid)? else {
            continue;
        };
        targets.push(Target {
            relid,
            relation: std::ptr::null_mut(),
            columns: Vec::new(),
            reference: table.is_reference(),
        });
    }
    Ok(targets)
}

struct Run<'a> {
    call: &'a VacuumCall<'a>,
    request: Request,
    own_transactions: bool,
}

impl Run<'_> {
    /// PostgreSQL's part: everything else as it was said, and VACUUM alone of the empty relations.
    unsafe fn locally(
        &self,
        targets: &[Target],
        others: *mut pg_sys::List,
        named: bool,
    ) -> Result<()> {
        let statement = self.call.statement;
        if !self.request.analyze {
            (self.call.chain)(statement);
            return Ok(());
        }
        let others = if named { others } else { all_others()? };
        let mut parts = Vec::new();
        if !others.is_null() {
            let copy = flat_copy(statement);
            (*copy).rels = others;
            parts.push(copy);
        }
        let shells: Vec<*mut pg_sys::VacuumRelation> = targets
            .iter()
            .filter(|target| self.request.vacuum && !target.reference)
            .map(|target| {
                pg_sys::makeVacuumRelation(target.relation, target.relid, std::ptr::null_mut())
            })
            .collect();
        if !shells.is_empty() {
            let copy = flat_copy(statement);
            (*copy).rels = list::from(shells);
            (*copy).options = list::from(
                list::iter::<pg_sys::DefElem>((*statement).options)
                    .filter(|option| CStr::from_ptr((**option).defname) != c"analyze")
                    .collect::<Vec<_>>(),
            );
            parts.push(copy);
        }
        let memory = pg_sys::CurrentMemoryContext;
        for part in parts {
            // each ends the transaction, and leaves another's memory current
            pg_sys::MemoryContextSwitchTo(memory);
            (self.call.chain)(part);
        }
        Ok(())
    }

    /// Every node vacuums its shards and copies one by one. One that fails gets a warning: what it has done is done.
    unsafe fn vacuum_on_nodes(&self, targets: &[Target]) {
        let mut commands: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
        for target in targets.iter().filter(|target| may_vacuum(target.relid)) {
            let mut options = self.request.node_options.clone();
            if self.request.analyze {
                options.push("analyze".to_owned());
            }
            let options = match options.as_slice() {
                [] => String::new(),
                some => format!(" ({})", some.join(", ")),
            };
            let columns: Vec<String> = target.columns.iter().map(|c| quote_identifier(c)).collect();
            let columns = match columns.as_slice() {
                [] => String::new(),
                some => format!(" ({})", some.join(", ")),
            };
            let shards = match ddl::on_nodes(target.relid) {
                Ok(shards) => shards.unwrap_or_default(),
                Err(error) => error.raise(),
            };
            for (node, name) in shards {
                commands
                    .entry(node)
                    .or_default()
                    .push(format!("VACUUM{options} {name}{columns}"));
            }
        }
        for (node, commands) in commands {
            if let Err(error) = on_node(node, &commands) {
                error.warn();
            }
        }
    }

    /// A distributed table's numbers and, if asked for, statistics. VACUUM of the empty relation has made the numbers
    /// zero: when the nodes cannot say, they are what they were.
    unsafe fn statistics(&self, target: &Target, before: &Totals) -> Result<()> {
        let Request {
            vacuum,
            analyze,
            options,
            ..
        } = self.request;
        if target.reference {
            // PostgreSQL has analysed the table here; the copies' planners want to know as well
            if analyze && !vacuum && may_vacuum(target.relid) {
                analyze::analyze_on_nodes(target.relid, &target.columns, options)?;
            }
            return Ok(());
        }
        if vacuum && !may_vacuum(target.relid) {
            return Ok(());
        }
        let flags = if analyze {
            pg_sys::VACOPT_ANALYZE
        } else {
            pg_sys::VACOPT_VACUUM
        } | if options.skip_locked {
            pg_sys::VACOPT_SKIP_LOCKED
        } else {
            0
        };
        let relation = pg_sys::vacuum_open_relation(
            target.relid,
            target.relation,
            flags,
            true,
            pg_sys::ShareUpdateExclusiveLock as i32,
        );
        if relation.is_null() {
            return Ok(());
        }
        if pg_sys::vacuum_is_relation_owner(target.relid, (*relation).rd_rel, flags) {
            if analyze {
                analyze::analyze_relation(relation, &target.columns, options, !vacuum)?;
            } else {
                before.store(relation);
                refresh::update(relation, before)?;
            }
        }
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        Ok(())
    }
}

/// Entries for everything that a statement without a list means, our distributed tables aside.
unsafe fn all_others() -> Result<*mut pg_sys::List> {
    let rows = spi::query(
        "SELECT c.oid FROM pg_catalog.pg_class c
          WHERE c.relkind IN ('r', 'm', 'p')
            AND NOT EXISTS (SELECT FROM shard_ext.distributed_table t WHERE t.relid = c.oid AND t.kind = 'd')",
        &[],
    )?;
    let oids = rows
        .into_iter()
        .filter_map(|mut row| row.pop().flatten()?.parse::<u32>().ok());
    Ok(list::from(
        oids.map(|oid| {
            let none = std::ptr::null_mut();
            pg_sys::makeVacuumRelation(none, Oid::from(oid), std::ptr::null_mut())
        })
        .collect::<Vec<_>>(),
    ))
}

/// A statement that can be given other relations or options than the original, which may belong to a cached plan.
unsafe fn flat_copy(statement: *mut pg_sys::VacuumStmt) -> *mut pg_sys::VacuumStmt {
    let copy =
        pg_sys::palloc(std::mem::size_of::<pg_sys::VacuumStmt>()).cast::<pg_sys::VacuumStmt>();
    std::ptr::copy_nonoverlapping(statement, copy, 1);
    copy
}

/// Whether the user may, with PostgreSQL's warning given before by its own part of the statement.
unsafe fn may_vacuum(relid: Oid) -> bool {
    pg_sys::pg_class_ownercheck(relid, pg_sys::GetUserId())
        || pg_sys::pg_database_ownercheck(pg_sys::MyDatabaseId, pg_sys::GetUserId())
}

/// VACUUM takes as long as it takes; the session can be interrupted at any time.
const LONG: Duration = Duration::from_secs(10 * 365 * 86_400);

fn on_node(id: NodeId, commands: &[String]) -> Result<()> {
    let node = catalog::node(id)?;
    let options = ConnectOptions::of_server(node.server)?;
    let limit = Instant::now() + Duration::from_millis(crate::settings::node_connection_timeout());
    let mut connection = LoneConnection::open(&options, &node.name, limit)?;
    for command in commands {
        connection.query(command, Instant::now() + LONG)?;
    }
    Ok(())
}
