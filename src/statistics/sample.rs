//! A random sample of a distributed table's rows. As ANALYZE does with a local table, blocks are chosen first where
//! there are very many, then rows; every row has the same chance, on whichever shard it is.

use super::attribute::{Attribute, Widths};
use super::totals::ShardTotals;
use crate::catalog::NodeId;
use crate::error::Result;
use crate::executor::Decoder;
use crate::remote::{Access, Format, Gather, Params, Request, Statement};
use pgrx::pg_sys::{self, Datum};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The sampled values of one attribute, by row.
#[derive(Default)]
pub struct Values {
    pub datums: Vec<Datum>,
    pub nulls: Vec<bool>,
}

/// Bytes beyond which a value is out of line anyway, and PostgreSQL's analysis only counts it.
const WIDE: usize = 2000;

/// Bytes of a value that a type's own analysis gets to see.
const HUGE: usize = 65536;

/// Asks all shards for their part of a sample of about `wanted` rows.
///
/// # Safety
/// The values are allocated in the current memory context.
pub unsafe fn take(
    attributes: &[Attribute],
    shards: &[ShardTotals],
    wanted: f64,
    policies_hide: bool,
) -> Result<Vec<Values>> {
    let rows: f64 = shards.iter().map(|shard| shard.rows).sum();
    let pages: f64 = shards.iter().map(|shard| shard.pages).sum();
    let share = Share::of(wanted, rows, pages);
    let wide: Vec<usize> = (0..attributes.len())
        .filter(|i| attributes[*i].widths == Widths::WideAreCounted)
        .collect();
    let mut types: Vec<u32> = attributes.iter().map(|a| a.type_oid.to_u32()).collect();
    if !wide.is_empty() {
        types.push(pg_sys::TEXTOID.to_u32());
    }
    let mut decoder = Decoder::new(&types);
    let mut by_node: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
    for shard in shards.iter().filter(|shard| shard.rows > 0.0) {
        by_node
            .entry(shard.node)
            .or_default()
            .push(share.query(attributes, &wide, &shard.name));
    }
    let requests: Vec<Request> = by_node
        .into_iter()
        .map(|(node, arms)| Request {
            node,
            groups: Rc::from([]),
            access: Access::Read,
            statement: Statement {
                sql: arms.join(" UNION ALL ").into(),
                params: Rc::new(Params::default()),
                results: if decoder.is_binary() {
                    Format::Binary
                } else {
                    Format::Text
                },
                named: false,
            },
            sole: false,
            bulk: false,
            as_others: !policies_hide,
        })
        .collect();
    let mut values: Vec<Values> = attributes.iter().map(|_| Values::default()).collect();
    if requests.is_empty() {
        return Ok(values);
    }
    let stand_in = too_wide();
    let mut gather = Gather::start(requests)?;
    let mut datums = vec![Datum::null(); types.len()];
    let mut nulls = vec![true; types.len()];
    while let Some((_, row)) = gather.next()? {
        decoder.decode(|i| row.get(i), datums.as_mut_ptr(), nulls.as_mut_ptr())?;
        if let Some(flags) = (!wide.is_empty())
            .then(|| row.get(attributes.len()))
            .flatten()
        {
            for (flag, i) in flags.iter().zip(&wide) {
                if *flag == b'1' {
                    (datums[*i], nulls[*i]) = (stand_in, false);
                }
            }
        }
        for (i, values) in values.iter_mut().enumerate() {
            if attributes[i].packed && !nulls[i] {
                datums[i] = packed(datums[i]);
            }
            values.datums.push(datums[i]);
            values.nulls.push(nulls[i]);
        }
    }
    Ok(values)
}

/// How much of each shard is read.
#[derive(Debug, PartialEq)]
struct Share {
    /// Of the blocks; none: all.
    blocks: Option<f64>,
    /// Of the rows in those blocks; none: all.
    rows: Option<f64>,
}

impl Share {
    /// As many blocks as rows are wanted, as `acquire_sample_rows` does.
    fn of(wanted: f64, rows: f64, pages: f64) -> Share {
        let blocks = (pages > wanted).then(|| wanted / pages);
        let fraction = wanted / rows.max(1.0) / blocks.unwrap_or(1.0);
        Share {
            blocks,
            rows: (fraction < 1.0).then_some(fraction),
        }
    }

    /// The query of one shard, whose name is qualified and quoted.
    fn query(&self, attributes: &[Attribute], wide: &[usize], shard: &str) -> String {
        let inner: Vec<String> = attributes
            .iter()
            .enumerate()
            .map(|(i, attribute)| format!("{} AS c{i}", attribute.expression))
            .collect();
        let mut outer: Vec<String> = attributes
            .iter()
            .enumerate()
            .map(|(i, attribute)| match attribute.widths {
                Widths::All => format!("c{i}"),
                Widths::WideAreCounted => narrower(i, WIDE),
                Widths::HugeAreNull => narrower(i, HUGE),
            })
            .collect();
        if !wide.is_empty() {
            let flags: Vec<String> = wide
                .iter()
                .map(|i| {
                    format!(
                        "CASE WHEN pg_catalog.pg_column_size(c{i}) > {WIDE} THEN '1' ELSE '0' END"
                    )
                })
                .collect();
            outer.push(format!("pg_catalog.concat({})", flags.join(", ")));
        }
        let blocks = self.blocks.map_or(String::new(), |fraction| {
            format!(" TABLESAMPLE SYSTEM ({:.6})", fraction * 100.0)
        });
        let rows = self.rows.map_or(String::new(), |fraction| {
            format!(" WHERE pg_catalog.random() < {fraction:.9}")
        });
        format!(
            "SELECT {} FROM (SELECT {} FROM {shard}{blocks}{rows}) AS sample",
            outer.join(", "),
            inner.join(", ")
        )
    }
}

fn narrower(column: usize, limit: usize) -> String {
    format!("CASE WHEN pg_catalog.pg_column_size(c{column}) <= {limit} THEN c{column} END")
}

/// Stands for a value that was not sent: a pointer to a value out of line, of which the analysis only sees that it is
/// too wide to be looked at.
unsafe fn too_wide() -> Datum {
    // varattrib_1b_e with a varatt_external: tag, raw size, stored size, value id, TOAST relation
    let mut bytes = vec![0x01_u8, pg_sys::vartag_external::VARTAG_ONDISK as u8];
    for field in [1_u32 << 20, 1 << 20, 0, 0] {
        bytes.extend_from_slice(&field.to_ne_bytes());
    }
    let memory = pg_sys::palloc(bytes.len()).cast::<u8>();
    std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory, bytes.len());
    Datum::from(memory)
}

/// A value as it is stored in a row: a short one has a header of one byte in the place of four.
///
/// SAFETY: a varlena that nobody else uses.
unsafe fn packed(value: Datum) -> Datum {
    let start = value.cast_mut_ptr::<u8>();
    let header = start.cast::<u32>().read_unaligned();
    // neither compressed nor short nor out of line
    if *start & 0x03 != 0 {
        return value;
    }
    let length = (header >> 2) as usize - 3;
    if length > 0x7f {
        return value;
    }
    let short = start.add(3);
    *short = (length as u8) << 1 | 0x01;
    Datum::from(short)
}

#[cfg(test)]
mod tests {
    use super::Share;

    #[test]
    fn small_tables_are_read_whole() {
        let all = Share {
            blocks: None,
            rows: None,
        };
        assert_eq!(Share::of(30000.0, 1000.0, 10.0), all);
        assert_eq!(Share::of(30000.0, 0.0, 0.0), all);
    }

    #[test]
    fn rows_have_equal_chances() {
        let few_blocks = Share::of(30000.0, 300_000.0, 3000.0);
        assert_eq!(few_blocks.blocks, None);
        assert_eq!(few_blocks.rows, Some(0.1));
        let many_blocks = Share::of(30000.0, 3_000_000.0, 60000.0);
        assert_eq!(many_blocks.blocks, Some(0.5));
        assert_eq!(many_blocks.rows, Some(0.02));
    }
}
