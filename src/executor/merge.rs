//! Merges rows that each request delivers in order: one current row per request, the smallest goes first.

use crate::error::Result;
use crate::executor::decode::Decoder;
use crate::planner::plan::SortKey;
use crate::remote::Gather;
use pgrx::pg_sys::{self, Datum};

pub struct Merge {
    keys: Vec<(usize, Box<pg_sys::SortSupportData>)>,
    streams: Vec<Stream>,
    /// The stream whose row was given last: it advances before the next comparison.
    last: Option<usize>,
    primed: bool,
}

struct Stream {
    memory: pg_sys::MemoryContext,
    values: Vec<Datum>,
    nulls: Vec<bool>,
    alive: bool,
}

impl Merge {
    /// # Safety
    /// `parent` outlives the merge.
    pub unsafe fn new(
        keys: &[SortKey],
        streams: usize,
        width: usize,
        parent: pg_sys::MemoryContext,
    ) -> Merge {
        let keys = keys
            .iter()
            .map(|key| unsafe {
                let mut support: Box<pg_sys::SortSupportData> = Box::new(std::mem::zeroed());
                support.ssup_cxt = parent;
                support.ssup_collation = key.collation.into();
                support.ssup_nulls_first = key.nulls_first;
                support.ssup_attno = key.column as i16 + 1;
                pg_sys::PrepareSortSupportFromOrderingOp(key.operator.into(), &mut *support);
                (key.column, support)
            })
            .collect();
        let streams = (0..streams)
            .map(|_| unsafe {
                Stream {
                    memory: pg_sys::AllocSetContextCreateInternal(
                        parent,
                        c"shard_ext merge".as_ptr(),
                        0,
                        1024,
                        pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                    ),
                    values: vec![Datum::from(0); width],
                    nulls: vec![true; width],
                    alive: true,
                }
            })
            .collect();
        Merge {
            keys,
            streams,
            last: None,
            primed: false,
        }
    }

    /// The next row in order, as values that live until the next call.
    ///
    /// # Safety
    /// `gather` has a request per stream, whose rows `decoder` reads.
    pub unsafe fn next(
        &mut self,
        gather: &mut Gather,
        decoder: &mut Decoder,
    ) -> Result<Option<(&[Datum], &[bool])>> {
        unsafe {
            if self.primed {
                if let Some(last) = self.last {
                    self.advance(last, gather, decoder)?;
                }
            } else {
                for stream in 0..self.streams.len() {
                    self.advance(stream, gather, decoder)?;
                }
                self.primed = true;
            }
            let mut best: Option<usize> = None;
            for index in 0..self.streams.len() {
                if self.streams[index].alive && best.is_none_or(|b| self.compare(index, b) < 0) {
                    best = Some(index);
                }
            }
            self.last = best;
            Ok(best.map(|index| {
                (
                    self.streams[index].values.as_slice(),
                    self.streams[index].nulls.as_slice(),
                )
            }))
        }
    }

    unsafe fn advance(
        &mut self,
        index: usize,
        gather: &mut Gather,
        decoder: &mut Decoder,
    ) -> Result<()> {
        let stream = &mut self.streams[index];
        if !stream.alive {
            return Ok(());
        }
        match gather.next_from(index)? {
            None => stream.alive = false,
            Some(row) => unsafe {
                pg_sys::MemoryContextReset(stream.memory);
                let old = pg_sys::MemoryContextSwitchTo(stream.memory);
                decoder.decode(
                    |column| row.get(column),
                    stream.values.as_mut_ptr(),
                    stream.nulls.as_mut_ptr(),
                )?;
                pg_sys::MemoryContextSwitchTo(old);
            },
        }
        Ok(())
    }

    /// `ApplySortComparator` over the keys.
    unsafe fn compare(&mut self, a: usize, b: usize) -> i32 {
        for (column, support) in &mut self.keys {
            let (left, right) = (&self.streams[a], &self.streams[b]);
            let order = match (left.nulls[*column], right.nulls[*column]) {
                (true, true) => 0,
                (true, false) => {
                    if support.ssup_nulls_first {
                        -1
                    } else {
                        1
                    }
                }
                (false, true) => {
                    if support.ssup_nulls_first {
                        1
                    } else {
                        -1
                    }
                }
                (false, false) => {
                    let Some(comparator) = support.comparator else {
                        return 0;
                    };
                    let (x, y) = (left.values[*column], right.values[*column]);
                    let pointer: pg_sys::SortSupport = &mut **support;
                    // SAFETY: the comparator that PostgreSQL chose for the type; it may raise.
                    let order =
                        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| comparator(x, y, pointer)) };
                    if support.ssup_reverse {
                        -order
                    } else {
                        order
                    }
                }
            };
            if order != 0 {
                return order;
            }
        }
        0
    }
}
