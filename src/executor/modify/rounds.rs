//! The rounds over the rows that were read: what each of them is for its shard group is sent, in batches.

use super::{Modify, Row};
use crate::catalog;
use crate::error::{sqlstate, Error, Result};
use crate::executor::checks::Constraints;
use crate::executor::encode::{ArrayBuilder, Arrays, Encoder};
use crate::executor::lock::ctid_of_text;
use crate::executor::places::Place;
use crate::executor::task;
use crate::planner::plan::{Action, Command, Referenced, RowsStatement};
use crate::planner::stored_columns;
use crate::remote::{Format, Gather, Params, Request};
use crate::transaction::moves;
use pgrx::pg_sys::{self, Oid};
use std::collections::BTreeMap;

/// Bytes of rows held before they are sent.
const BATCH_BYTES: usize = 4 << 20;

/// The rounds over the rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Round {
    Remove,
    InPlace,
    Insert,
}

/// Rows of one shard group waiting for a statement.
struct Batch {
    places: Vec<Place>,
    /// Their numbers, when they are proposed.
    numbers: Vec<i64>,
    ctids: ArrayBuilder,
    arrays: Arrays,
}

impl Modify {
    /// All rounds.
    pub(super) unsafe fn change(&mut self, node: *mut pg_sys::CustomScanState) -> Result<()> {
        let may_move = self.plan.actions.iter().any(|a| a.remove.is_some());
        let in_place = self.plan.actions.iter().any(|a| a.in_place.is_some());
        let inserts = self.plan.actions.iter().any(|a| a.insert.is_some());
        for (round, wanted) in [
            (Round::Remove, may_move),
            (Round::InPlace, in_place),
            (Round::Insert, inserts),
        ] {
            if wanted {
                unsafe { self.round(node, round)? };
            }
        }
        Ok(())
    }

    unsafe fn round(&mut self, node: *mut pg_sys::CustomScanState, round: Round) -> Result<()> {
        unsafe {
            if let Some(rows) = &self.rows {
                rows.rewind();
            }
            let econtext = (*node).ss.ps.ps_ExprContext;
            let mut batches: BTreeMap<(usize, usize), Batch> = BTreeMap::new();
            let mut waiting = 0;
            while let Some(row) = self.rows.as_ref().and_then(|rows| Row::next_of(rows)) {
                pgrx::check_for_interrupts!();
                let number = self.plan.number_of(&row);
                let Some(action) = number.and_then(|n| self.plan.actions.get(n)) else {
                    continue;
                };
                let number = number.unwrap_or_default();
                let Some((group, place)) =
                    self.part_in(round, action, &row, (*node).ss.ps.state)?
                else {
                    continue;
                };
                let Some(statement) = statement_of(round, action) else {
                    return Err(Error::internal("an action without its statement"));
                };
                let batch = batches
                    .entry((number, group))
                    .or_insert_with(|| Batch::of(statement));
                pg_sys::MemoryContextReset((*econtext).ecxt_per_tuple_memory);
                let old = pg_sys::MemoryContextSwitchTo((*econtext).ecxt_per_tuple_memory);
                let encoders = &mut self.encoders[number][usize::from(round == Round::Insert)];
                waiting += batch.add(place, statement, encoders, &row);
                batch.numbers.extend(self.plan.proposed(&row));
                pg_sys::MemoryContextSwitchTo(old);
                if waiting > BATCH_BYTES {
                    self.send(round, std::mem::take(&mut batches))?;
                    waiting = 0;
                }
            }
            self.send(round, batches)
        }
    }

    /// The shard group that a row concerns in a round, and the row's place there; None: it is not concerned.
    unsafe fn part_in(
        &self,
        round: Round,
        action: &Action,
        row: &Row,
        estate: *mut pg_sys::EState,
    ) -> Result<Option<(usize, Option<Place>)>> {
        let new_group = || -> Result<usize> {
            let key = action.new_key.and_then(|column| row.value(column));
            if key.is_none() && self.plan.required_key && action.command == Command::Update {
                // before anybody looks at the rows that refer to the one that would leave
                unsafe { self.check_constraints(action, row, estate) };
            }
            match self.colocation.group_for(key) {
                Some(group) => Ok(group),
                None => {
                    let (schema, table) = (&self.plan.schema, &self.plan.table);
                    Err(catalog::no_shard(&self.colocation, schema, table, key))
                }
            }
        };
        if action.command == Command::Insert {
            return Ok(match round {
                Round::Insert => Some((new_group()?, None)),
                _ => None,
            });
        }
        let place = self
            .place(row)
            .ok_or_else(|| Error::internal("a row without a place"))?;
        let group = place.0 as usize;
        let goes_to = if action.remove.is_some() {
            new_group()?
        } else {
            group
        };
        let stays = goes_to == group;
        if round == Round::Remove && !stays {
            let [from, to] = [group, goes_to].map(|index| self.colocation.groups[index].id);
            moves::rows_move(Oid::from(self.plan.relid), from, to);
        }
        Ok(match round {
            Round::Remove if !stays => Some((group, Some(place))),
            Round::InPlace if stays => Some((group, Some(place))),
            Round::Insert if !stays => Some((goes_to, None)),
            _ => None,
        })
    }

    /// Fails when the new row that leaves its shard breaks a constraint.
    unsafe fn check_constraints(&self, action: &Action, row: &Row, estate: *mut pg_sys::EState) {
        unsafe {
            let relid = Oid::from(self.plan.relid);
            let columns = action.insert.iter().flat_map(|insert| &insert.columns);
            let values = columns.map(|column| row.value(column.source));
            let mut constraints = Constraints::of(relid, estate);
            constraints.check(stored_columns(relid).into_iter().zip(values));
            constraints.end();
        }
    }

    /// Sends batches and waits for the answers.
    fn send(&mut self, round: Round, batches: BTreeMap<(usize, usize), Batch>) -> Result<()> {
        if batches.is_empty() {
            return Ok(());
        }
        if round == Round::Remove {
            for referenced in &self.plan.referenced {
                self.forbid_referenced(referenced, &batches)?;
            }
        }
        let mut requests = Vec::new();
        let mut about = Vec::new();
        for ((number, group), batch) in batches {
            let action = &self.plan.actions[number];
            let Some(statement) = statement_of(round, action) else {
                return Err(Error::internal("an action without its statement"));
            };
            let mut params = Params::default();
            if statement.by_ctid {
                params.push(pg_sys::TIDARRAYOID, batch.ctids.finish());
            }
            batch.arrays.finish(&statement.columns, &mut params);
            requests.push(self.request(group, &statement.template, params)?);
            let proposed = action.command == Command::Insert;
            about.push((group, proposed, batch.numbers));
        }
        let mut gather = Gather::start(requests)?;
        // rows come back where they are proposed: their new places
        let mut places: Vec<Vec<Place>> = vec![Vec::new(); about.len()];
        while let Some((answer, row)) = gather.next()? {
            let (block, offset) = row
                .get(0)
                .and_then(ctid_of_text)
                .ok_or_else(|| Error::new(sqlstate::PROTOCOL_VIOLATION, "a node sent no ctid"))?;
            places[answer].push((about[answer].0 as u32, block, offset));
        }
        for (places, (_, proposed, numbers)) in places.into_iter().zip(about) {
            for place in &places {
                self.seen.insert(*place);
            }
            if proposed && places.len() < numbers.len() {
                self.missed.extend(numbers);
                self.inserted.extend(places);
            }
        }
        Ok(())
    }

    fn request(
        &self,
        group: usize,
        template: &crate::deparse::SqlTemplate,
        params: Params,
    ) -> Result<Request> {
        let group = &self.colocation.groups[group];
        task::change_in(group, template, params, Format::Text, self.plan.as_others)
    }

    /// Rows that others refer to cannot leave their shard: DELETE would do there what ON DELETE says.
    fn forbid_referenced(
        &self,
        referenced: &Referenced,
        batches: &BTreeMap<(usize, usize), Batch>,
    ) -> Result<()> {
        let mut requests = Vec::new();
        for ((_, group), batch) in batches {
            let mut params = Params::default();
            params.push(pg_sys::TIDARRAYOID, ctids(&batch.places));
            requests.push(self.request(*group, &referenced.look, params)?);
        }
        let mut gather = Gather::start(requests)?;
        let mut found = None;
        while let Some((_, row)) = gather.next()? {
            let values = row.get(0).map(|v| String::from_utf8_lossy(v).into_owned());
            found.get_or_insert(values.unwrap_or_default());
        }
        let Some(values) = found else { return Ok(()) };
        let (table, child) = (&self.plan.table, &referenced.table);
        let constraint = &referenced.constraint;
        if referenced.follows {
            return Err(Error::refused(
                format!("the distribution column of a row of \"{table}\" cannot be changed while rows of \"{child}\" follow it to another shard"),
                "Change the referring rows first, in the same transaction.",
            )
            .detail(format!("Foreign key \"{constraint}\" says what happens to referring rows ON UPDATE.")));
        }
        let mut error = Error::new(
            *b"23503",
            format!("update or delete on table \"{table}\" violates foreign key constraint \"{constraint}\" on table \"{child}\""),
        )
        .detail(format!(
            "Key ({})=({values}) is still referenced from table \"{child}\".",
            referenced.columns
        ));
        let fields = error.fields_mut();
        fields.schema = Some(referenced.schema.clone());
        fields.table = Some(child.clone());
        fields.constraint = Some(constraint.clone());
        Err(error)
    }
}

fn statement_of(round: Round, action: &Action) -> Option<&RowsStatement> {
    match round {
        Round::Remove => action.remove.as_ref(),
        Round::InPlace => action.in_place.as_ref(),
        Round::Insert => action.insert.as_ref(),
    }
}

impl Batch {
    fn of(statement: &RowsStatement) -> Batch {
        Batch {
            places: Vec::new(),
            numbers: Vec::new(),
            ctids: ArrayBuilder::new(pg_sys::TIDOID.to_u32()),
            arrays: Arrays::new(&statement.columns),
        }
    }

    /// Adds a row; answers by how many bytes the batch grew.
    unsafe fn add(
        &mut self,
        place: Option<Place>,
        statement: &RowsStatement,
        encoders: &mut [Encoder],
        row: &Row,
    ) -> usize {
        let mut grown = 0;
        if let Some(place) = place {
            self.places.push(place);
            push_ctid(&mut self.ctids, place);
            grown += 20;
        }
        // SAFETY: values of the columns' types.
        grown
            + unsafe { (self.arrays).add(&statement.columns, encoders, |source| row.value(source)) }
    }
}

/// As `tid_recv` reads it.
fn push_ctid(array: &mut ArrayBuilder, (_, block, offset): Place) {
    array.push(|out| {
        out.extend_from_slice(&block.to_be_bytes());
        out.extend_from_slice(&offset.to_be_bytes());
    });
}

fn ctids(places: &[Place]) -> Vec<u8> {
    let mut array = ArrayBuilder::new(pg_sys::TIDOID.to_u32());
    for place in places {
        push_ctid(&mut array, *place);
    }
    array.finish()
}
