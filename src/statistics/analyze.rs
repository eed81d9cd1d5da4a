//! ANALYZE of one distributed table: the nodes analyse its shards, then a sample of all shards' rows gives the
//! statistics that this database's planner uses. After `analyze_rel` and `do_analyze_rel` of PostgreSQL.

use super::attribute::Attribute;
use super::sample;
use super::totals::{self, ShardTotals, Totals};
use crate::catalog::NodeId;
use crate::ddl::{self, quote_identifier};
use crate::error::{Error, Result};
use crate::pg::spi;
use crate::remote;
use pgrx::pg_sys;
use std::collections::BTreeMap;
use std::ffi::CStr;

/// What ANALYZE is told besides the table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub verbose: bool,
    pub skip_locked: bool,
}

/// The shards of a table, or the copies of a reference table, analysed by their nodes.
pub fn analyze_on_nodes(relid: pg_sys::Oid, columns: &[String], options: Options) -> Result<()> {
    let columns = if columns.is_empty() {
        String::new()
    } else {
        let columns: Vec<String> = columns.iter().map(|name| quote_identifier(name)).collect();
        format!(" ({})", columns.join(", "))
    };
    let command = if options.skip_locked {
        "ANALYZE (SKIP_LOCKED)"
    } else {
        "ANALYZE"
    };
    let mut work: BTreeMap<NodeId, String> = BTreeMap::new();
    for (node, name) in ddl::on_nodes(relid)?.unwrap_or_default() {
        work.entry(node)
            .or_default()
            .push_str(&format!("{command} {name}{columns};\n"));
    }
    let work: Vec<(NodeId, String)> = work.into_iter().collect();
    if work.is_empty() {
        return Ok(());
    }
    remote::execute_all(&work).map(|_| ())
}

/// How many rows the shards have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// What the nodes have just counted.
    Counted,
    /// What follows from the last count and today's size.
    AsGrown,
}

/// Pages of a table that is read whole rather than wait for its nodes to count its rows.
const SMALL: f64 = 3000.0;

/// Brings the statistics of a distributed table here, all or those of some columns.
///
/// # Safety
/// `relation` is open and locked against another ANALYZE.
pub unsafe fn collect(
    relation: pg_sys::Relation,
    columns: &[String],
    options: Options,
    source: Source,
) -> Result<()> {
    let relid = (*relation).rd_id;
    let mut shards = totals::of_tables(&[relid])?.pop().unwrap_or_default();
    let mut known = true;
    if source == Source::AsGrown {
        known = shards
            .iter()
            .all(|shard| shard.rows >= 0.0 || shard.current_pages == 0.0);
        shards.iter_mut().for_each(ShardTotals::grow);
        if !known && shards.iter().map(|shard| shard.pages).sum::<f64>() > SMALL {
            return Ok(());
        }
    }
    let context = pg_sys::AllocSetContextCreateInternal(
        pg_sys::CurrentMemoryContext,
        c"ANALYZE of a distributed table".as_ptr(),
        pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
        pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
        pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
    );
    let before = pg_sys::MemoryContextSwitchTo(context);
    let outcome = column_statistics(relation, columns, options, &shards, known);
    pg_sys::MemoryContextSwitchTo(before);
    pg_sys::MemoryContextDelete(context);
    let totals = outcome?;
    pg_sys::CommandCounterIncrement();
    totals.store(relation);
    // what the table itself has seen of changes was before it was distributed, or is none
    pg_sys::pgstat_report_analyze(relation, totals.rows as i64, 0, columns.is_empty());
    Ok(())
}

/// With the rows of the shards `known`, a sample is enough; else all are read, and counted.
unsafe fn column_statistics(
    relation: pg_sys::Relation,
    columns: &[String],
    options: Options,
    shards: &[ShardTotals],
    known: bool,
) -> Result<Totals> {
    let mut totals = Totals::of(shards);
    let mut attributes = of_columns(relation, columns)?;
    if columns.is_empty() {
        of_index_expressions(relation, &mut attributes)?;
    }
    if attributes.is_empty() {
        return Ok(totals);
    }
    let wanted = attributes
        .iter()
        .map(|attribute| attribute.wanted_rows)
        .fold(100, i32::max);
    let wanted = if known {
        f64::from(wanted)
    } else {
        f64::INFINITY
    };
    progress(pg_sys::PROGRESS_ANALYZE_PHASE_ACQUIRE_SAMPLE_ROWS);
    let rd_rel = (*relation).rd_rel;
    let policies_hide = (*rd_rel).relforcerowsecurity;
    let mut sample = sample::take(&attributes, shards, wanted, policies_hide)?;
    let rows = sample.first().map_or(0, |values| values.datums.len());
    if !known {
        totals.rows = rows as f64;
    }
    if options.verbose {
        let name = CStr::from_ptr((*rd_rel).relname.data.as_ptr()).to_string_lossy();
        Error::new(
            *b"00000",
            format!(
                "\"{name}\": {} pages in {} shards; {rows} rows in sample, {} estimated total rows",
                totals.pages,
                shards.len(),
                totals.rows
            ),
        )
        .report(pg_sys::INFO as i32);
    }
    if rows == 0 {
        return Ok(totals);
    }
    progress(pg_sys::PROGRESS_ANALYZE_PHASE_COMPUTE_STATS);
    compute(
        (*rd_rel).relowner,
        &mut attributes,
        &mut sample,
        totals.rows,
    );
    progress(pg_sys::PROGRESS_ANALYZE_PHASE_FINALIZE_ANALYZE);
    let statistics =
        pg_sys::table_open(pg_sys::StatisticRelationId, pg_sys::RowExclusiveLock as i32);
    for attribute in &attributes {
        attribute.store(statistics);
    }
    pg_sys::table_close(statistics, pg_sys::RowExclusiveLock as i32);
    Ok(totals)
}

/// Functions of user-defined types run as the table's owner, restricted, as in PostgreSQL's ANALYZE.
unsafe fn compute(
    owner: pg_sys::Oid,
    attributes: &mut [Attribute],
    sample: &mut [sample::Values],
    total_rows: f64,
) {
    let (mut user, mut security) = (pg_sys::InvalidOid, 0);
    pg_sys::GetUserIdAndSecContext(&mut user, &mut security);
    pg_sys::SetUserIdAndSecContext(
        owner,
        security | pg_sys::SECURITY_RESTRICTED_OPERATION as i32,
    );
    let settings = spi::Settings::nested();
    let results = pg_sys::CurrentMemoryContext;
    let scratch = pg_sys::AllocSetContextCreateInternal(
        results,
        c"statistics of a column".as_ptr(),
        pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
        pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
        pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
    );
    for (attribute, values) in attributes.iter_mut().zip(sample) {
        pg_sys::MemoryContextSwitchTo(scratch);
        attribute.compute(values, total_rows);
        pg_sys::MemoryContextSwitchTo(results);
        pg_sys::MemoryContextReset(scratch);
    }
    drop(settings);
    pg_sys::SetUserIdAndSecContext(user, security);
}

fn progress(phase: u32) {
    // SAFETY: writes this backend's status.
    unsafe {
        pg_sys::pgstat_progress_update_param(
            pg_sys::PROGRESS_ANALYZE_PHASE as i32,
            i64::from(phase),
        );
    }
}

/// The columns named, or all.
unsafe fn of_columns(relation: pg_sys::Relation, columns: &[String]) -> Result<Vec<Attribute>> {
    Ok(column_numbers(relation, columns)?
        .into_iter()
        .filter_map(|attnum| {
            let sql = quote_identifier(&column_name(relation, attnum));
            Attribute::examine(relation, attnum, std::ptr::null_mut(), sql)
        })
        .collect())
}

unsafe fn column_name(relation: pg_sys::Relation, attnum: i16) -> String {
    let attribute = (*(*relation).rd_att)
        .attrs
        .as_ptr()
        .add(attnum as usize - 1);
    let name = CStr::from_ptr((*attribute).attname.data.as_ptr());
    name.to_string_lossy().into_owned()
}

/// The attribute numbers of columns, of all when none is named. Each must exist, and be named once.
///
/// # Safety
/// `relation` is open.
pub unsafe fn column_numbers(relation: pg_sys::Relation, columns: &[String]) -> Result<Vec<i16>> {
    let description = (*relation).rd_att;
    let mut wanted: Vec<i16> = Vec::new();
    if columns.is_empty() {
        wanted.extend(1..=(*description).natts as i16);
    }
    for column in columns {
        let table = CStr::from_ptr((*(*relation).rd_rel).relname.data.as_ptr()).to_string_lossy();
        let attnum = (1..=(*description).natts as i16).find(|attnum| {
            let attribute = (*description).attrs.as_ptr().add(*attnum as usize - 1);
            !(*attribute).attisdropped && column_name(relation, *attnum) == *column
        });
        let Some(attnum) = attnum else {
            return Err(Error::new(
                crate::error::sqlstate::UNDEFINED_COLUMN,
                format!("column \"{column}\" of relation \"{table}\" does not exist"),
            ));
        };
        if wanted.contains(&attnum) {
            return Err(Error::new(
                *b"42701",
                format!("column \"{column}\" of relation \"{table}\" appears more than once"),
            ));
        }
        wanted.push(attnum);
    }
    Ok(wanted)
}

/// Expressions of indexes, which the nodes evaluate. Those of partial indexes are left out: they speak of other rows.
unsafe fn of_index_expressions(
    relation: pg_sys::Relation,
    attributes: &mut Vec<Attribute>,
) -> Result<()> {
    let _settings = spi::Settings::qualified_names();
    let indexes = pg_sys::RelationGetIndexList(relation);
    for i in 0..crate::pg::list::len(indexes) {
        let relid = (*(*indexes).elements.add(i)).oid_value;
        let index = pg_sys::index_open(relid, pg_sys::AccessShareLock as i32);
        let info = pg_sys::BuildIndexInfo(index);
        let mut expressions = crate::pg::list::iter::<pg_sys::Node>((*info).ii_Expressions);
        if (*info).ii_Predicate.is_null() {
            for column in 0..(*info).ii_NumIndexAttrs as usize {
                if (*info).ii_IndexAttrNumbers[column] != 0 {
                    continue;
                }
                let Some(expression) = expressions.next() else {
                    break;
                };
                let attnum = column as i16 + 1;
                let text = definition(relid, attnum)?;
                attributes.extend(Attribute::examine(index, attnum, expression, text));
            }
        }
        pg_sys::index_close(index, pg_sys::NoLock as i32);
    }
    Ok(())
}

/// A column of an index in SQL.
fn definition(index: pg_sys::Oid, column: i16) -> Result<String> {
    spi::query_one(
        "SELECT pg_catalog.pg_get_indexdef($1::pg_catalog.oid, $2::pg_catalog.int4, false)",
        &[Some(&index.to_u32().to_string()), Some(&column.to_string())],
    )?
    .and_then(|mut row| row.pop().flatten())
    .ok_or_else(|| Error::internal("an index expression without a definition"))
}

/// ANALYZE of a distributed table, here and, with `on_nodes`, on its nodes first.
///
/// # Safety
/// `relation` is open and locked against another ANALYZE.
pub unsafe fn analyze_relation(
    relation: pg_sys::Relation,
    columns: &[String],
    options: Options,
    on_nodes: bool,
) -> Result<()> {
    let relid = (*relation).rd_id;
    column_numbers(relation, columns)?;
    if options.verbose {
        let name = |text: *const std::ffi::c_char| CStr::from_ptr(text).to_string_lossy();
        let schema = pg_sys::get_namespace_name((*(*relation).rd_rel).relnamespace);
        let table = (*(*relation).rd_rel).relname.data.as_ptr();
        Error::new(
            *b"00000",
            format!("analyzing \"{}.{}\"", name(schema), name(table)),
        )
        .report(pg_sys::INFO as i32);
    }
    pg_sys::pgstat_progress_start_command(
        pg_sys::ProgressCommandType::PROGRESS_COMMAND_ANALYZE,
        relid,
    );
    if on_nodes {
        analyze_on_nodes(relid, columns, options)?;
    }
    collect(relation, columns, options, Source::Counted)?;
    pg_sys::pgstat_progress_end_command();
    Ok(())
}

/// ANALYZE of a table that has just got its rows from here, on the nodes and, unless it is a reference table, here.
///
/// # Safety
/// The caller has locked the table against all others.
pub unsafe fn analyze_loaded(relid: pg_sys::Oid, reference: bool) -> Result<()> {
    if reference {
        return analyze_on_nodes(relid, &[], Options::default());
    }
    let relation = pg_sys::table_open(relid, pg_sys::NoLock as i32);
    analyze_relation(relation, &[], Options::default(), true)?;
    pg_sys::table_close(relation, pg_sys::NoLock as i32);
    Ok(())
}
