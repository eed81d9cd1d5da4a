//! Rows that go from shards to other shards as their nodes sent them: only the value that says where a row goes is read.

use crate::error::Result;
use crate::executor::decode::Decoder;
use crate::executor::scan::{self, Scan};
use crate::executor::shard_copy::ShardCopy;
use crate::pg::{list, node};
use crate::remote::Row;
use pgrx::pg_sys::{self, Datum, NodeTag, Oid};

/// The rows of a scan below a plan, as nodes send them, in the binary format.
pub struct RawRows<'a> {
    scan: &'a mut Scan,
    state: *mut pg_sys::CustomScanState,
    /// Where the columns that are wanted stand in a row.
    places: Vec<usize>,
    key: Option<Key>,
}

struct Key {
    place: usize,
    decoder: Decoder,
}

/// One of them.
pub struct RawRow<'a> {
    row: &'a Row,
    places: &'a [usize],
    /// Lives until the next row.
    pub key: Option<Datum>,
}

impl RawRow<'_> {
    /// The bytes of the column that is wanted as this one; None: it is NULL.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.row.get(self.places[index])
    }
}

impl<'a> RawRows<'a> {
    /// The rows of a plan, if it only hands on what a scan receives, for a copy that sends them on. `wanted`: the numbers of
    /// its columns that are needed; `key`: the one that says where a row goes, and its type.
    ///
    /// # Safety
    /// `plan` is a valid plan state that is asked for rows in no other way from now on.
    pub unsafe fn of(
        plan: *mut pg_sys::PlanState,
        copy: &ShardCopy,
        wanted: impl Iterator<Item = usize>,
        key: Option<(usize, Oid)>,
    ) -> Option<RawRows<'a>> {
        unsafe {
            let mut wanted: Vec<usize> = wanted.chain(key.map(|(place, _)| place)).collect();
            let mut plan = plan;
            if (*plan).type_ == NodeTag::T_SubqueryScanState {
                if !hands_on(plan) {
                    return None;
                }
                follow(plan, &mut wanted)?;
                plan = (*plan.cast::<pg_sys::SubqueryScanState>()).subplan;
            }
            let scan = scan::of_state(plan)?;
            if !hands_on(plan) || !scan.is_raw() || !copy.is_binary() {
                return None;
            }
            if !(*plan).ps_ProjInfo.is_null() {
                follow(plan, &mut wanted)?;
            }
            let key = key.and_then(|(_, type_oid)| {
                Some(Key {
                    place: wanted.pop()?,
                    decoder: Decoder::new(&[type_oid.to_u32()]),
                })
            });
            Some(RawRows {
                scan,
                state: plan.cast(),
                places: wanted,
                key,
            })
        }
    }

    /// The next row. `memory` is reset before.
    ///
    /// # Safety
    /// The plan is still there.
    pub unsafe fn next(&mut self, memory: pg_sys::MemoryContext) -> Result<Option<RawRow<'_>>> {
        unsafe {
            let Some(row) = self.scan.next_raw(self.state)? else {
                return Ok(None);
            };
            let mut key = None;
            if let Some(Key { place, decoder }) = &mut self.key {
                if !(*memory).isReset {
                    pg_sys::MemoryContextReset(memory);
                }
                let old = pg_sys::MemoryContextSwitchTo(memory);
                let (mut value, mut null) = (Datum::null(), true);
                decoder.decode_next(|_| row.get(*place), &mut value, &mut null)?;
                pg_sys::MemoryContextSwitchTo(old);
                key = (!null).then_some(value);
            }
            Ok(Some(RawRow {
                row,
                places: &self.places,
                key,
            }))
        }
    }
}

/// Does a scan neither filter nor wait for values, and does nobody count its rows?
unsafe fn hands_on(state: *mut pg_sys::PlanState) -> bool {
    unsafe {
        (*state).qual.is_null()
            && (*state).instrument.is_null()
            && (*state).chgParam.is_null()
            && (*(*state).state).es_epq_active.is_null()
    }
}

/// From columns of a scan's result to those of what it scans; None: it computes one.
unsafe fn follow(state: *mut pg_sys::PlanState, columns: &mut [usize]) -> Option<()> {
    unsafe {
        for column in columns {
            let target = list::nth::<pg_sys::TargetEntry>((*(*state).plan).targetlist, *column);
            let var = node::cast::<pg_sys::Var>((*target).expr.cast::<pg_sys::Node>())?;
            *column = usize::try_from((*var).varattno).ok()?.checked_sub(1)?;
        }
        Some(())
    }
}
