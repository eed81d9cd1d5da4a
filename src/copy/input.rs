//! The user's COPY data, read row by row with PostgreSQL's own parser, and each row as workers get it.
//!
//! Text and CSV lines are only split into fields; of the values, the distribution key alone is parsed.
//! Whole rows are parsed where a WHERE clause asks for it, or nodes would read values otherwise. Columns that the input leaves out and that
//! have a default are computed here, so that every copy of a row gets the same value.

use super::columns::{Computed, Field, Key};
use super::encode;
use super::form::Form;
use super::user_code::may_run_statements;
use crate::error::{sqlstate, Error, Result};
use crate::pg::copyfrom::{with_line_context, CopyFromState};
use crate::pg::list;
use pgrx::pg_sys;
use std::ffi::{c_char, c_int, CStr};
use std::ptr::null_mut;

/// What `BeginCopyFrom` takes, besides the relation.
pub struct Source {
    pub parse_state: *mut pg_sys::ParseState,
    pub statement: *const pg_sys::CopyStmt,
    /// The WHERE clause, planned, or null.
    pub filter: *mut pg_sys::List,
    /// Attribute number of the distribution key; none for reference tables.
    pub key: Option<i16>,
}

pub struct Input {
    state: *mut CopyFromState,
    executor: *mut pg_sys::EState,
    context: *mut pg_sys::ExprContext,
    /// Where whole rows are parsed into; null when only the key is.
    slot: *mut pg_sys::TupleTableSlot,
    filter: *mut pg_sys::ExprState,
    relid: pg_sys::Oid,
    fields: Vec<Field>,
    computed: Vec<Computed>,
    key: Key,
    key_value: Option<pg_sys::Datum>,
    form: Form,
    /// Reading a row may run statements: a default or the WHERE clause calls a function that could.
    runs_statements: bool,
    excluded: i64,
}

impl Input {
    /// Opens the source; from here on a client that copies from STDIN sends data.
    ///
    /// # Safety
    /// The relation is open and locked; the pointers of `source` outlive the input.
    pub unsafe fn begin(relation: pg_sys::Relation, source: &Source, allow_binary: bool) -> Input {
        // SAFETY: as the caller promises; everything made here lives in the statement's memory context.
        unsafe {
            let statement = &*source.statement;
            let state: *mut CopyFromState = pg_sys::BeginCopyFrom(
                source.parse_state,
                relation,
                source.filter.cast(),
                statement.filename,
                statement.is_program,
                None,
                statement.attlist,
                statement.options,
            )
            .cast();
            let fields = Field::of(state, relation);
            let mut computed = Computed::of(state, relation);
            let executor = pg_sys::CreateExecutorState();
            let context = pg_sys::MakePerTupleExprContext(executor);
            let keep_binary = allow_binary && source.filter.is_null();
            let form = Form::choose(&*state, &fields, &computed, keep_binary);
            if form == Form::Binary {
                Field::keep_binary(state, &fields);
                computed.iter_mut().for_each(Computed::send_binary);
            }
            let whole = (*state).opts.binary || form == Form::Values || !source.filter.is_null();
            let slot = if whole {
                pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &pg_sys::TTSOpsVirtual)
            } else {
                null_mut()
            };
            let runs_statements = computed.iter().any(Computed::may_run_statements)
                || list::iter(source.filter).any(|clause| may_run_statements(clause));
            let key = Key::find(
                relation,
                source.key,
                &fields,
                &computed,
                (*state).opts.binary,
            );
            Input {
                state,
                executor,
                context,
                slot,
                filter: pg_sys::ExecInitQual(source.filter, null_mut()),
                relid: (*relation).rd_id,
                fields,
                computed,
                key,
                key_value: None,
                form,
                runs_statements,
                excluded: 0,
            }
        }
    }

    /// Reads the next row that passes the WHERE clause. Errors of the input are raised with its line.
    pub fn next(&mut self) -> bool {
        loop {
            pgrx::check_for_interrupts!();
            // SAFETY: the state lives until `end`; the per-tuple memory holds nothing of the last row
            // that is still needed.
            unsafe {
                let tuple_memory = (*self.context).ecxt_per_tuple_memory;
                pg_sys::MemoryContextReset(tuple_memory);
                let before = pg_sys::MemoryContextSwitchTo(tuple_memory);
                let state = self.state;
                let (more, wanted) = with_line_context(state, || {
                    let more = self.read();
                    let wanted = more && (self.filter.is_null() || self.passes_filter());
                    (more, wanted)
                });
                pg_sys::MemoryContextSwitchTo(before);
                if wanted || !more {
                    return more;
                }
                self.excluded += 1;
                pg_sys::pgstat_progress_update_param(
                    pg_sys::PROGRESS_COPY_TUPLES_EXCLUDED as c_int,
                    self.excluded,
                );
            }
        }
    }

    /// The distribution key of the row; none if it is NULL.
    pub fn key(&self) -> Option<pg_sys::Datum> {
        self.key_value
    }

    /// Appends the row as `copy_command` announces it.
    pub fn encode(&mut self, out: &mut Vec<u8>) {
        // SAFETY: the row is the current one of the parser, complete and checked by `next`.
        unsafe {
            match self.form {
                Form::Line { text } => {
                    let line = &(*self.state).line_buf;
                    let line = std::slice::from_raw_parts(line.data.cast(), line.len as usize);
                    out.extend_from_slice(if text {
                        encode::without_dangling_backslash(line)
                    } else {
                        line
                    });
                    self.append_computed(out);
                    out.push(b'\n');
                }
                Form::Fields => {
                    for (i, field) in self.fields.iter().enumerate() {
                        if i > 0 {
                            out.push(b'\t');
                        }
                        encode::text_field(field.value(&*self.state, i).map(CStr::to_bytes), out);
                    }
                    self.append_computed(out);
                    out.push(b'\n');
                }
                Form::Values => {
                    let _style = super::columns::PortableOutput::begin();
                    for i in 0..self.fields.len() {
                        if i > 0 {
                            out.push(b'\t');
                        }
                        let value = self.slot_value(self.fields[i].column);
                        self.fields[i].output_text(value, out);
                    }
                    self.append_computed(out);
                    out.push(b'\n');
                }
                Form::Binary => {
                    encode::binary_row(self.fields.len() + self.computed.len(), out);
                    for field in &self.fields {
                        let value = self.slot_value(field.column);
                        encode::binary_field(value.map(|v| super::columns::bytes(v)), out);
                    }
                    self.append_computed(out);
                }
            }
        }
    }

    /// `COPY table (columns) FROM STDIN …` for one shard; `table` is quoted and qualified.
    pub fn copy_command(&self, table: &str) -> String {
        let names = self.fields.iter().map(|f| &f.name);
        let columns: Vec<&str> = names
            .chain(self.computed.iter().map(|c| &c.name))
            .map(String::as_str)
            .collect();
        let columns = if columns.is_empty() {
            String::new()
        } else {
            format!(" ({})", columns.join(", "))
        };
        // SAFETY: the state lives until `end`.
        let options = unsafe { self.form.options(&*self.state, &self.fields) };
        format!("COPY {table}{columns} FROM STDIN{options}")
    }

    /// The columns of `copy_command`, as the grammar gives a column list.
    pub fn column_list(&self) -> *mut pg_sys::List {
        let fields = self.fields.iter().map(|f| f.attribute_name);
        let computed = self.computed.iter().map(|c| c.attribute_name);
        let mut list: *mut pg_sys::List = null_mut();
        for name in fields.chain(computed) {
            // SAFETY: names are NUL-terminated.
            unsafe {
                let name = pg_sys::makeString(pg_sys::pstrdup(name));
                list = pg_sys::lappend(list, name.cast());
            }
        }
        list
    }

    /// The options under which PostgreSQL's COPY reads here what `encode` writes, in the form of text.
    ///
    /// # Safety
    /// `statement` is the one the input was begun with.
    pub unsafe fn local_options(&self, statement: *const pg_sys::CopyStmt) -> *mut pg_sys::List {
        let mut options: *mut pg_sys::List = null_mut();
        // SAFETY: a valid list of DefElem; elements are shared with it, not changed.
        unsafe {
            if matches!(self.form, Form::Line { .. }) {
                for option in list::iter::<pg_sys::DefElem>((*statement).options) {
                    let name = CStr::from_ptr((*option).defname).to_bytes();
                    if name != b"header" && name != b"encoding" {
                        options = pg_sys::lappend(options, option.cast());
                    }
                }
            }
            let encoding = pg_sys::pstrdup(pg_sys::GetDatabaseEncodingName());
            let name = pg_sys::pstrdup(c"encoding".as_ptr());
            let option = pg_sys::makeDefElem(name, pg_sys::makeString(encoding).cast(), -1);
            pg_sys::lappend(options, option.cast())
        }
    }

    /// FREEZE is accepted where PostgreSQL accepts it; rows are then stored as without it.
    ///
    /// # Safety
    /// The relation is the one the input was begun with.
    pub unsafe fn check_freeze(&self, relation: pg_sys::Relation) -> Result<()> {
        // SAFETY: the same calls as in CopyFrom.
        unsafe {
            if !(*self.state).opts.freeze {
                return Ok(());
            }
            pg_sys::InvalidateCatalogSnapshot();
            if !pg_sys::ThereAreNoPriorRegisteredSnapshots() || !pg_sys::ThereAreNoReadyPortals() {
                return Err(Error::new(
                    sqlstate::INVALID_TRANSACTION_STATE,
                    "cannot perform COPY FREEZE because of prior transaction activity",
                ));
            }
            let current = pg_sys::GetCurrentSubTransactionId();
            let new = [
                (*relation).rd_createSubid,
                (*relation).rd_newRelfilenodeSubid,
            ];
            if !new.contains(&current) {
                return Err(Error::new(
                    sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "cannot perform COPY FREEZE because the table was not created or truncated in the current subtransaction",
                ));
            }
            Ok(())
        }
    }

    /// Whether reading a row may need the nodes' connections.
    pub fn runs_statements(&self) -> bool {
        self.runs_statements
    }

    /// How many columns are computed here; in the text format they end the line.
    pub fn computed_columns(&self) -> usize {
        self.computed.len()
    }

    pub fn is_binary(&self) -> bool {
        self.form == Form::Binary
    }

    /// The line of the input that the row ended on.
    pub fn line(&self) -> u64 {
        // SAFETY: the state lives until `end`.
        unsafe { (*self.state).cur_lineno }
    }

    /// How many lines beyond one the row counts for where a worker reads it: line ends inside CSV
    /// quotes, which are carriage returns to a parser that has not seen the end of a first line yet.
    pub fn extra_lines(&self, first_of_batch: bool) -> u64 {
        if self.form != (Form::Line { text: false }) {
            return 0;
        }
        let end = if first_of_batch { b'\r' } else { b'\n' };
        // SAFETY: the line buffer holds the current row.
        let line = unsafe {
            let line = &(*self.state).line_buf;
            std::slice::from_raw_parts(line.data.cast::<u8>(), line.len as usize)
        };
        line.iter().filter(|byte| **byte == end).count() as u64
    }

    /// Raises `error` with the line of the current row in its context.
    pub fn raise(&self, error: Error) -> ! {
        // SAFETY: the state lives until `end`.
        unsafe { with_line_context(self.state, || error.raise()) }
    }

    /// Closes the source, which reports a program that failed.
    pub fn end(self) {
        // SAFETY: nothing of the state is used afterwards.
        unsafe {
            if !self.slot.is_null() {
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            }
            pg_sys::FreeExecutorState(self.executor);
            pg_sys::EndCopyFrom(self.state.cast());
        }
    }

    /// Reads one row: into `slot`, or its fields and the key only. Called within the line's context.
    unsafe fn read(&mut self) -> bool {
        // SAFETY: called by `next` in the per-tuple memory context.
        unsafe {
            if !self.slot.is_null() {
                super::columns::clear(self.slot);
                let slot = &mut *self.slot;
                if !pg_sys::NextCopyFrom(
                    self.state.cast(),
                    self.context,
                    slot.tts_values,
                    slot.tts_isnull,
                ) {
                    return false;
                }
                pg_sys::ExecStoreVirtualTuple(self.slot);
                slot.tts_tableOid = self.relid;
                for computed in &mut self.computed {
                    let value = slot_value(slot, computed.column);
                    computed.take(value);
                }
                self.key_value = match &mut self.key {
                    Key::None => None,
                    Key::Field { column, input, .. } | Key::Computed { column, input, .. } => {
                        let value = slot_value(slot, *column);
                        match input {
                            Some(input) if self.form == Form::Binary => {
                                value.map(|raw| input.receive(super::columns::bytes(raw)))
                            }
                            _ => value,
                        }
                    }
                };
                return true;
            }

            let mut raw_fields: *mut *mut c_char = null_mut();
            let mut count: c_int = 0;
            if !pg_sys::NextCopyFromRawFields(self.state.cast(), &mut raw_fields, &mut count) {
                return false;
            }
            self.check_count(count as usize);
            for computed in &mut self.computed {
                computed.evaluate(self.context);
            }
            self.key_value = match &mut self.key {
                Key::None => None,
                Key::Computed { index, .. } => self.computed[*index].value(),
                Key::Field { index, input, .. } => {
                    let field = &self.fields[*index];
                    let value = field.value(&*self.state, *index);
                    match input {
                        Some(input) => {
                            let text = value.map_or(null_mut(), |v| v.as_ptr().cast_mut());
                            (*self.state).cur_attname = field.attribute_name;
                            (*self.state).cur_attval = text;
                            let datum = input.parse(text);
                            (*self.state).cur_attname = null_mut();
                            (*self.state).cur_attval = null_mut();
                            value.map(|_| datum)
                        }
                        None => None,
                    }
                }
            };
            true
        }
    }

    /// `NextCopyFrom`'s checks of the number of fields, with their errors.
    unsafe fn check_count(&self, count: usize) {
        let expected = self.fields.len();
        if count == expected {
            return;
        }
        if expected > 0 && count > expected {
            Error::new(
                sqlstate::BAD_COPY_FILE_FORMAT,
                "extra data after last expected column",
            )
            .raise();
        }
        // SAFETY: called by `read`; the line has `count` fields.
        unsafe {
            // The values before the gap are looked at first.
            for (index, field) in self.fields[..count].iter().enumerate() {
                let column = field.column;
                let text = field
                    .value(&*self.state, index)
                    .map_or(null_mut(), |v| v.as_ptr().cast_mut());
                (*self.state).cur_attname = field.attribute_name;
                (*self.state).cur_attval = text;
                pg_sys::InputFunctionCall(
                    (*self.state).in_functions.add(column),
                    text,
                    *(*self.state).typioparams.add(column),
                    field.modifier,
                );
                (*self.state).cur_attname = null_mut();
                (*self.state).cur_attval = null_mut();
            }
            if let Some(missing) = self.fields.get(count) {
                let name = CStr::from_ptr(missing.attribute_name).to_string_lossy();
                Error::new(
                    sqlstate::BAD_COPY_FILE_FORMAT,
                    format!("missing data for column \"{name}\""),
                )
                .raise();
            }
        }
    }

    unsafe fn passes_filter(&mut self) -> bool {
        // SAFETY: the slot holds the current row; a qual's null counts as false in ExecInitQual's code.
        unsafe {
            (*self.context).ecxt_scantuple = self.slot;
            let (value, _) = super::columns::evaluate(self.filter, self.context);
            value.value() != 0
        }
    }

    unsafe fn slot_value(&self, column: usize) -> Option<pg_sys::Datum> {
        // SAFETY: in the forms that ask, rows are parsed whole.
        unsafe { slot_value(&*self.slot, column) }
    }

    fn append_computed(&mut self, out: &mut Vec<u8>) {
        let mut first = self.fields.is_empty() || self.form == Form::Binary;
        for computed in &mut self.computed {
            if !first {
                out.push(b'\t');
            }
            first = self.form == Form::Binary;
            computed.append(out);
        }
    }
}

unsafe fn slot_value(slot: &pg_sys::TupleTableSlot, column: usize) -> Option<pg_sys::Datum> {
    // SAFETY: `column` is one of the slot's descriptor.
    unsafe { (!*slot.tts_isnull.add(column)).then(|| *slot.tts_values.add(column)) }
}
