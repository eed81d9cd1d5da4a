//! The custom scan that inserts rows on workers: takes rows from the plan below, or from VALUES lists of its own, computes
//! each row's shard group, and sends arrays of columns, one statement per shard group and batch. When there are many
//! rows, and nothing but rows, they go by COPY after the first batch.

mod copy;
mod readers;

use crate::catalog::{self, Colocation, ShardGroup, ShardGroupId};
use crate::error::{Error, Result};
use crate::executor::decode::Decoder;
use crate::executor::encode::{encoders, Arrays, Encoder};
use crate::executor::explain::Explainer;
use crate::executor::kept::Kept;
use crate::executor::shard_copy::ShardCopy;
use crate::executor::state::{self, Body, Methods};
use crate::executor::task;
use crate::executor::value_rows::ValueRows;
use crate::executor::{changes, checks};
use crate::pg::list;
use crate::planner::plan::{InsertPlan, ParamType, Private};
use crate::planner::{conflict_condition, WRITER, WRITTEN_SINCE};
use crate::remote::{Access, Format, Gather, Params, Request, Statement};
use crate::settings;
use pgrx::pg_sys::{self, Datum, Oid};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::rc::Rc;

static METHODS: Methods = Methods::of::<Insert>();

/// For `CustomScan.methods`.
pub fn insert_methods() -> *const pg_sys::CustomScanMethods {
    METHODS.for_plan()
}

/// The insert that a plan state is, if it is one.
///
/// # Safety
/// `state` is a valid plan state whose `begin` was called.
pub unsafe fn of_state<'a>(state: *mut pg_sys::PlanState) -> Option<&'a mut Insert> {
    unsafe { state::body_of(state) }
}

/// Rows waiting for one shard group.
struct Batch {
    arrays: Arrays,
    /// Positions of the rows in the input.
    ordinals: Vec<usize>,
}

/// Bytes of rows held before they are sent.
fn batch_bytes() -> usize {
    settings::copy_buffer_size() / 4
}

/// One execution of an insert.
pub struct Insert {
    pub plan: InsertPlan,
    colocation: Rc<Colocation>,
    encoders: Vec<Encoder>,
    checks: Vec<*mut pg_sys::ExprState>,
    params: Vec<(*mut pg_sys::ExprState, ParamType, Encoder)>,
    /// Their values, which are the same for all rows: computed with the first.
    values: Option<Params>,
    /// The rows, when there is no plan below.
    lists: Option<ValueRows>,
    /// Rows of the plan below that had to be read before the first were sent.
    rest: Option<Kept>,
    /// What was to be read goes its own way: rows may be sent before the last is read.
    parted: bool,
    /// The current row.
    row: Vec<Option<Datum>>,
    /// Where the rows go after the first batch.
    copy: Option<ShardCopy>,
    /// Keyed by shard group index.
    batches: BTreeMap<usize, Batch>,
    waiting_bytes: usize,
    rows: usize,
    affected: u64,
    decoder: Decoder,
    /// Returned rows, in the order of the input where each input row returned one.
    returned: Vec<Vec<Option<Vec<u8>>>>,
    given: usize,
    texts: BTreeMap<ShardGroupId, Rc<str>>,
    /// Of ON CONFLICT DO UPDATE in batches: the transaction and the first command that wrote rows of each shard group.
    written: BTreeMap<usize, (String, String)>,
    finished: bool,
    /// Other parts of the statement read the table before rows are inserted.
    pub held: bool,
}

impl Body for Insert {
    const NAME: &'static CStr = c"ShardInsert";

    fn methods() -> &'static Methods {
        &METHODS
    }

    unsafe fn new(
        node: *mut pg_sys::CustomScanState,
        scan: *mut pg_sys::CustomScan,
    ) -> Result<Insert> {
        unsafe {
            let plan = InsertPlan::from_private((*scan).custom_private)?;
            let colocation = catalog::colocation(plan.colocation)?;
            let encoders = encoders(&plan.columns);
            let mut checks = Vec::new();
            let mut params = Vec::new();
            let mut computed = Vec::new();
            for (index, expr) in list::iter::<pg_sys::Expr>((*scan).custom_exprs).enumerate() {
                let state = pg_sys::ExecInitExpr(expr, &raw mut (*node).ss.ps);
                if index < plan.checks.len() {
                    checks.push(state);
                } else if let Some(param) = plan.params.get(index - plan.checks.len()) {
                    params.push((state, *param, Encoder::new(param)));
                } else {
                    computed.push(state);
                }
            }
            let private = (*scan).custom_private;
            let lists = (list::len(private) > 1)
                .then(|| ValueRows::new(list::nth::<pg_sys::List>(private, 1), computed));
            let decoder = Decoder::new(&plan.returned);
            Ok(Insert {
                plan,
                colocation,
                encoders,
                checks,
                params,
                values: None,
                lists,
                rest: None,
                parted: false,
                row: Vec::new(),
                copy: None,
                batches: BTreeMap::new(),
                waiting_bytes: 0,
                rows: 0,
                affected: 0,
                decoder,
                returned: Vec::new(),
                given: 0,
                texts: BTreeMap::new(),
                written: BTreeMap::new(),
                finished: false,
                held: false,
            })
        }
    }

    /// Reads everything below on the first call; then gives what the workers returned.
    unsafe fn next(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<()> {
        unsafe {
            if self.held && !self.finished {
                return Err(changes::too_early());
            }
            self.finish(node)?;
            if self.given >= self.returned.len() {
                return Ok(());
            }
            let row = if self.plan.part.is_some() {
                self.returned[self.given].clone()
            } else {
                std::mem::take(&mut self.returned[self.given])
            };
            self.given += 1;
            let memory = (*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
            let old = pg_sys::MemoryContextSwitchTo(memory);
            let get = |column: usize| row.get(column).and_then(|value| value.as_deref());
            if self.plan.part.is_some() {
                self.decode_part(get, slot)?;
            } else {
                self.decoder
                    .decode(get, (*slot).tts_values, (*slot).tts_isnull)?;
            }
            pg_sys::MemoryContextSwitchTo(old);
            state::store_virtual(slot);
            Ok(())
        }
    }

    unsafe fn end(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            state::end_child(node);
            if let Some(rest) = self.rest.take() {
                rest.end();
            }
        }
        Ok(())
    }

    unsafe fn rescan(&mut self, _node: *mut pg_sys::CustomScanState) -> Result<()> {
        if self.plan.part.is_none() {
            return Err(state::never_again());
        }
        self.given = 0;
        Ok(())
    }

    unsafe fn explain(
        &mut self,
        _node: *mut pg_sys::CustomScanState,
        es: *mut pg_sys::ExplainState,
    ) -> Result<()> {
        let explainer = Explainer(es);
        explainer.text("Kind", "rows to their shard groups");
        let groups = self.colocation.groups.len();
        explainer.text("Shard Groups", &format!("up to {groups} of {groups}"));
        if let Some(lists) = &self.lists {
            explainer.integer("Rows", None, lists.len() as i64);
        }
        explainer.text("Remote SQL", self.plan.template.text());
        Ok(())
    }
}

impl Insert {
    /// What came back, in its columns of a row that is as wide as those below.
    unsafe fn decode_part<'a>(
        &mut self,
        get: impl Fn(usize) -> Option<&'a [u8]>,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<()> {
        unsafe {
            let width = self.decoder.width();
            let mut values = vec![Datum::null(); width];
            let mut nulls = vec![true; width];
            self.decoder
                .decode(get, values.as_mut_ptr(), nulls.as_mut_ptr())?;
            for column in 0..(*(*slot).tts_tupleDescriptor).natts as usize {
                *(*slot).tts_values.add(column) = Datum::null();
                *(*slot).tts_isnull.add(column) = true;
            }
            for (index, place) in self.plan.outputs.iter().enumerate() {
                *(*slot).tts_values.add(*place) = values[index];
                *(*slot).tts_isnull.add(*place) = nulls[index];
            }
            Ok(())
        }
    }

    /// Reads all rows, to insert them later.
    ///
    /// # Safety
    /// `node` is this node's state.
    pub unsafe fn read_first(&mut self, node: *mut pg_sys::CustomScanState) {
        if !self.finished && self.rest.is_none() && self.lists.is_none() {
            self.parted = true;
            self.rest = Some(unsafe { Kept::of(list::nth((*node).custom_ps, 0)) });
        }
    }

    /// Inserts all rows, if that was not done yet.
    ///
    /// # Safety
    /// `node` is this node's state.
    pub unsafe fn finish(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        if !self.finished {
            self.finished = true;
            unsafe { self.run(node)? };
        }
        Ok(())
    }

    unsafe fn run(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            let keep = self.plan.returned.len() > self.plan.checks_after.len();
            loop {
                let econtext = self.begin_row(node);
                if !self.next_row(node, econtext) {
                    break;
                }
                if self.copy.is_some() {
                    self.copy_row(econtext)?;
                    continue;
                }
                self.take(econtext)?;
                // Returned rows keep the order of the input: all rows are sent at once.
                if !keep && self.waiting_bytes > batch_bytes() {
                    self.send_early(node)?;
                    if self.copy_raw(node)? {
                        break;
                    }
                }
            }
            self.flush((*node).ss.ps.state, false)?;
            self.finish_copy()?;
            if self.plan.counted {
                (*(*node).ss.ps.state).es_processed += self.affected;
            }
            Ok(())
        }
    }

    /// Makes way for the next row.
    unsafe fn begin_row(&self, node: *mut pg_sys::CustomScanState) -> *mut pg_sys::ExprContext {
        unsafe {
            let econtext = (*node).ss.ps.ps_ExprContext;
            pg_sys::MemoryContextReset((*econtext).ecxt_per_tuple_memory);
            econtext
        }
    }

    /// Computes the next row; false: there is none.
    unsafe fn next_row(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        econtext: *mut pg_sys::ExprContext,
    ) -> bool {
        unsafe {
            if let Some(lists) = &mut self.lists {
                return lists.next(&raw mut (*node).ss.ps, econtext, &mut self.row);
            }
            let slot = match &self.rest {
                Some(rest) => rest.next(),
                None => state::exec_child(list::nth((*node).custom_ps, 0)),
            };
            let found = !state::is_empty(slot);
            if found {
                self.hold(slot, econtext);
            }
            found
        }
    }

    /// Makes a slot's row the current one.
    unsafe fn hold(
        &mut self,
        slot: *mut pg_sys::TupleTableSlot,
        econtext: *mut pg_sys::ExprContext,
    ) {
        unsafe {
            pg_sys::slot_getallattrs(slot);
            let width = (*slot).tts_nvalid as usize;
            self.row.clear();
            self.row
                .extend((0..width).map(|index| state::value(slot, index)));
            (*econtext).ecxt_outertuple = slot;
        }
    }

    /// The shard group of the current row, as an index.
    fn target(&self) -> Result<usize> {
        let key = self
            .plan
            .key
            .and_then(|index| self.row[self.plan.columns[index].source]);
        self.target_of(key)
    }

    fn target_of(&self, key: Option<Datum>) -> Result<usize> {
        self.colocation.group_for(key).ok_or_else(|| {
            let (schema, table) = self.plan.template.target();
            catalog::no_shard(&self.colocation, schema, table, key)
        })
    }

    /// Adds the current row to the batch of its shard group.
    unsafe fn take(&mut self, econtext: *mut pg_sys::ExprContext) -> Result<()> {
        unsafe {
            self.check(econtext)?;
            if self.values.is_none() {
                self.values = Some(self.parameters(econtext));
            }
            let target = self.target()?;
            let columns = &self.plan.columns;
            let batch = self.batches.entry(target).or_insert_with(|| Batch {
                arrays: Arrays::new(columns),
                ordinals: Vec::new(),
            });
            let old = pg_sys::MemoryContextSwitchTo((*econtext).ecxt_per_tuple_memory);
            let value = |source: usize| self.row[source];
            self.waiting_bytes += batch.arrays.add(columns, &mut self.encoders, value);
            pg_sys::MemoryContextSwitchTo(old);
            batch.ordinals.push(self.rows);
            self.rows += 1;
            Ok(())
        }
    }

    /// Sends what there is before everything was read; the rows that follow may go by COPY.
    unsafe fn send_early(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        unsafe {
            if !std::mem::replace(&mut self.parted, true) {
                self.part_from_readers(node)?;
            }
            self.flush((*node).ss.ps.state, true)?;
            if self.plan.copied.is_some() {
                let columns = self.plan.columns.iter();
                let types: Vec<Oid> = columns.map(|column| Oid::from(column.value)).collect();
                let groups = self.colocation.groups.len();
                self.copy = Some(ShardCopy::new(groups, &types, Access::Write));
            }
            Ok(())
        }
    }

    /// WITH CHECK conditions of policies and views, as `ExecWithCheckOptions` reports them.
    unsafe fn check(&self, econtext: *mut pg_sys::ExprContext) -> Result<()> {
        unsafe {
            for (state, check) in self.checks.iter().zip(&self.plan.checks) {
                checks::examine(
                    check,
                    state::evaluate(*state, econtext),
                    (*econtext).ecxt_estate,
                )?;
            }
            Ok(())
        }
    }

    /// The values of the parameters behind those of the columns.
    unsafe fn parameters(&mut self, econtext: *mut pg_sys::ExprContext) -> Params {
        let mut params = Params::default();
        for (expr, param, encoder) in &mut self.params {
            // SAFETY: this node's expressions.
            let value = unsafe { state::evaluate(*expr, econtext) };
            params.types.push(Oid::from(param.declared));
            params.formats.push(if encoder.binary {
                Format::Binary
            } else {
                Format::Text
            });
            params.values.push(value.map(|value| {
                let mut bytes = Vec::new();
                // SAFETY: a value of the expression's type.
                unsafe { encoder.write(value, &mut bytes) };
                bytes
            }));
        }
        params
    }

    /// An error of a shard, as the condition that raised it says it.
    fn told(&self, error: Error) -> Error {
        conflict_condition(&error.fields().message)
            .and_then(|number| self.plan.conflict_checks.get(number))
            .map_or(error, |check| check.violation())
    }

    /// Sends every batch and waits for the answers; will others follow?
    fn flush(&mut self, estate: *mut pg_sys::EState, more: bool) -> Result<()> {
        let batches = std::mem::take(&mut self.batches);
        self.waiting_bytes = 0;
        if batches.is_empty() {
            return Ok(());
        }
        let extra = self.values.clone().unwrap_or_default();
        let mut requests = Vec::new();
        let mut ordinals = Vec::new();
        let mut targets = Vec::new();
        for (target, batch) in batches {
            let mut params = Params::default();
            batch.arrays.finish(&self.plan.columns, &mut params);
            params.types.extend(extra.types.iter().copied());
            params.formats.extend(extra.formats.iter().copied());
            params.values.extend(extra.values.iter().cloned());
            let colocation = self.colocation.clone();
            let group = &colocation.groups[target];
            requests.push(Request {
                node: group.node,
                groups: Rc::new([group.id]),
                access: Access::Write,
                statement: Statement {
                    named: !self.written.contains_key(&target),
                    sql: self.text_of_batch(target, group, more)?,
                    params: Rc::new(params),
                    results: self.decoder.format(),
                },
                sole: false,
                bulk: false,
                as_others: false,
            });
            ordinals.push(batch.ordinals);
            targets.push(target);
        }
        let mut gather = Gather::start(requests)?;
        let mut rows: Vec<Vec<Vec<Option<Vec<u8>>>>> =
            ordinals.iter().map(|_| Vec::new()).collect();
        let checks = self.plan.checks_after.len();
        let width = self.decoder.width() - checks;
        while let Some((request, row)) = gather.next().map_err(|error| self.told(error))? {
            for (index, check) in self.plan.checks_after.iter().enumerate() {
                if let Some(text) = row.get(width + index) {
                    let text = CString::new(text).unwrap_or_default();
                    // SAFETY: the statement runs.
                    unsafe { checks::forbidden_by_view(check, &text, estate)? };
                }
            }
            if let (Some(xmin), Some(cmin)) = (row.get(width + checks), row.get(width + checks + 1))
            {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.written
                    .entry(targets[request])
                    .or_insert_with(|| (text(xmin), text(cmin)));
            }
            if width == 0 {
                continue;
            }
            rows[request].push(
                (0..width)
                    .map(|column| row.get(column).map(<[u8]>::to_vec))
                    .collect(),
            );
        }
        for request in 0..ordinals.len() {
            self.affected += gather.affected(request);
        }
        self.put_in_order(rows, ordinals);
        Ok(())
    }

    /// Shards answer in the order of their rows; where every row returned one, the input's order is restored.
    fn put_in_order(&mut self, rows: Vec<Vec<Vec<Option<Vec<u8>>>>>, ordinals: Vec<Vec<usize>>) {
        let complete = rows
            .iter()
            .zip(&ordinals)
            .all(|(rows, ordinals)| rows.len() == ordinals.len());
        if complete {
            let mut all: Vec<(usize, Vec<Option<Vec<u8>>>)> = rows
                .into_iter()
                .zip(ordinals)
                .flat_map(|(rows, ordinals)| ordinals.into_iter().zip(rows))
                .collect();
            all.sort_by_key(|(ordinal, _)| *ordinal);
            self.returned.extend(all.into_iter().map(|(_, row)| row));
        } else {
            self.returned.extend(rows.into_iter().flatten());
        }
    }

    /// The statement for a batch. With ON CONFLICT DO UPDATE a batch before others also says who wrote its rows, and those
    /// behind it leave these alone.
    fn text_of_batch(&mut self, target: usize, group: &ShardGroup, more: bool) -> Result<Rc<str>> {
        let Some(later) = &self.plan.later else {
            return self.text(group);
        };
        if let Some((xmin, cmin)) = self.written.get(&target) {
            let node = catalog::node(group.node)?;
            let text = task::render(later, Some(group.id), &node)
                .replace(WRITER, xmin)
                .replace(&WRITTEN_SINCE.to_string(), cmin);
            return Ok(text.into());
        }
        let text = self.text(group)?;
        if !more {
            return Ok(text);
        }
        let before = if self.plan.returned.is_empty() {
            " RETURNING"
        } else {
            ","
        };
        Ok(format!("{text}{before} xmin::pg_catalog.text, cmin::pg_catalog.text").into())
    }

    fn text(&mut self, group: &ShardGroup) -> Result<Rc<str>> {
        if let Some(text) = self.texts.get(&group.id) {
            return Ok(text.clone());
        }
        let node = catalog::node(group.node)?;
        let text = task::shared_text(task::render(&self.plan.template, Some(group.id), &node));
        self.texts.insert(group.id, text.clone());
        Ok(text)
    }
}
