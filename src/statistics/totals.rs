//! How big shards are by their nodes' catalogs, and the sum of it in this database's `pg_class`.

use crate::catalog::NodeId;
use crate::cluster;
use crate::ddl;
use crate::error::Result;
use crate::remote::{Access, Format, Gather, Params, Request, Statement};
use pgrx::pg_sys;
use std::collections::BTreeMap;
use std::rc::Rc;

/// One shard, as its node's last VACUUM or ANALYZE saw it.
#[derive(Debug, Clone)]
pub struct ShardTotals {
    pub node: NodeId,
    /// Qualified and quoted.
    pub name: String,
    /// Negative: never counted.
    pub rows: f64,
    pub pages: f64,
    pub all_visible: f64,
    /// How many it has now.
    pub current_pages: f64,
}

impl ShardTotals {
    /// What `estimate_rel_size` makes of it: as dense as when it was counted, but of today's size.
    pub fn grow(&mut self) {
        if self.rows > 0.0 && self.pages > 0.0 {
            self.rows *= self.current_pages / self.pages;
        } else if self.current_pages > 0.0 {
            // at least one; whoever must know better reads them
            self.rows = 1.0;
        }
        self.pages = self.current_pages;
        self.all_visible = self.all_visible.min(self.pages);
    }
}

/// The sum over shards.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    pub rows: f64,
    pub pages: f64,
    pub all_visible: f64,
}

impl Totals {
    pub fn of(shards: &[ShardTotals]) -> Totals {
        let sum = |value: fn(&ShardTotals) -> f64| shards.iter().map(value).sum::<f64>();
        Totals {
            rows: sum(|shard| shard.rows.max(0.0)),
            pages: sum(|shard| shard.pages),
            all_visible: sum(|shard| shard.all_visible),
        }
    }

    /// What `estimate_rel_size` makes of each shard: as dense as when it was counted, but of today's size. None: no
    /// shard was ever counted.
    pub fn grown(shards: &[ShardTotals]) -> Option<Totals> {
        let counted = || shards.iter().filter(|shard| shard.rows >= 0.0);
        let (rows, pages) = counted().fold((0.0, 0.0), |(rows, pages), shard| {
            (rows + shard.rows, pages + shard.pages)
        });
        counted().next()?;
        let density = if pages > 0.0 { rows / pages } else { 0.0 };
        let mut totals = Totals::default();
        for shard in shards {
            totals.pages += shard.current_pages;
            totals.all_visible += shard.all_visible.min(shard.current_pages);
            totals.rows += if shard.rows >= 0.0 && shard.pages > 0.0 {
                shard.rows / shard.pages * shard.current_pages
            } else {
                density * shard.current_pages
            };
        }
        totals.rows = totals.rows.round();
        Some(totals)
    }

    /// What `pg_class` has.
    pub fn stored(relid: pg_sys::Oid) -> Totals {
        // SAFETY: a syscache look-up; the tuple is released after it was read.
        unsafe {
            let tuple =
                pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, relid.into());
            if tuple.is_null() {
                return Totals::default();
            }
            let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
            let totals = Totals {
                rows: f64::from((*form).reltuples),
                pages: f64::from((*form).relpages as u32),
                all_visible: f64::from((*form).relallvisible as u32),
            };
            pg_sys::ReleaseSysCache(tuple);
            totals
        }
    }

    /// Writes them into `pg_class` in place, as ANALYZE does.
    ///
    /// # Safety
    /// `relation` is open and locked.
    pub unsafe fn store(&self, relation: pg_sys::Relation) {
        let pages = |value: f64| value.min(f64::from(i32::MAX)) as u32;
        pg_sys::vac_update_relstats(
            relation,
            pages(self.pages),
            self.rows,
            pages(self.all_visible),
            true,
            pg_sys::InvalidTransactionId,
            pg_sys::MultiXactId::from(0_u32),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            // indexes, rules and triggers are none of ours
            true,
        );
    }
}

/// Asks the nodes, in parallel, about all shards of each table. The answers are in the order of the tables.
pub fn of_tables(relids: &[pg_sys::Oid]) -> Result<Vec<Vec<ShardTotals>>> {
    let mut by_node: BTreeMap<NodeId, Vec<(usize, String)>> = BTreeMap::new();
    for (table, relid) in relids.iter().enumerate() {
        for (node, name) in ddl::on_nodes(*relid)?.unwrap_or_default() {
            by_node.entry(node).or_default().push((table, name));
        }
    }
    let asked: Vec<(NodeId, Vec<(usize, String)>)> = by_node.into_iter().collect();
    let requests = asked
        .iter()
        .map(|(node, shards)| question(*node, shards))
        .collect();
    let mut answers: Vec<Vec<ShardTotals>> = relids.iter().map(|_| Vec::new()).collect();
    if asked.is_empty() {
        return Ok(answers);
    }
    let mut gather = Gather::start(requests)?;
    while let Some((request, row)) = gather.next()? {
        let number = |column: usize| -> f64 {
            let text = row.get(column).and_then(|v| std::str::from_utf8(v).ok());
            text.and_then(|text| text.parse().ok()).unwrap_or(0.0)
        };
        let (node, shards) = &asked[request];
        let Some((table, name)) = shards.get(number(0) as usize) else {
            continue;
        };
        answers[*table].push(ShardTotals {
            node: *node,
            name: name.clone(),
            rows: number(1),
            pages: number(2),
            all_visible: number(3),
            current_pages: number(4),
        });
    }
    Ok(answers)
}

fn question(node: NodeId, shards: &[(usize, String)]) -> Request {
    let names = cluster::text_array(shards.iter().map(|(_, name)| name.as_str()));
    Request {
        node,
        groups: Rc::from([]),
        access: Access::Read,
        statement: Statement {
            sql: "SELECT s.i - 1, c.reltuples, c.relpages, c.relallvisible, pg_catalog.pg_relation_size(c.oid) \
                       / pg_catalog.current_setting('block_size')::int8 \
                  FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS s(name, i) \
                  JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(s.name)"
                .into(),
            params: Rc::new(Params {
                types: Vec::new(),
                values: vec![Some(names.into_bytes())],
                formats: Vec::new(),
            }),
            results: Format::Text,
            named: false,
        },
        sole: false,
        bulk: false,
        as_others: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(rows: f64, pages: f64, current_pages: f64) -> ShardTotals {
        ShardTotals {
            node: 1,
            name: String::new(),
            rows,
            pages,
            all_visible: 0.0,
            current_pages,
        }
    }

    #[test]
    fn shards_grow_with_their_files() {
        let shards = [
            shard(100.0, 1.0, 2.0),
            shard(-1.0, 0.0, 3.0),
            shard(0.0, 0.0, 1.0),
        ];
        let totals = Totals::grown(&shards).unwrap_or_default();
        assert_eq!((totals.rows, totals.pages), (600.0, 6.0));
        assert_eq!(Totals::grown(&[shard(-1.0, 0.0, 3.0)]), None);
    }
}
