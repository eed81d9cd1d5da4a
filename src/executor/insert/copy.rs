//! Rows that go by COPY, after the first batch.

use super::Insert;
use crate::catalog;
use crate::deparse::quote_identifier;
use crate::error::Result;
use crate::executor::raw::RawRows;
use crate::executor::shard_copy::ShardCopy;
use crate::pg::list;
use pgrx::pg_sys::{self, Oid};

impl Insert {
    /// Adds the current row to those that are copied to its shard group.
    pub(super) unsafe fn copy_row(&mut self, econtext: *mut pg_sys::ExprContext) -> Result<()> {
        let target = self.target()?;
        let Some(copy) = &mut self.copy else {
            return Ok(());
        };
        let (row, columns) = (&self.row, &self.plan.columns);
        // SAFETY: the row has the columns' values.
        unsafe {
            let old = pg_sys::MemoryContextSwitchTo((*econtext).ecxt_per_tuple_memory);
            copy.add(target, |index| row[columns[index].source]);
            pg_sys::MemoryContextSwitchTo(old);
        }
        self.attend_copy(target)
    }

    /// Copies the rest of what a scan below gives as it comes, where that is possible.
    pub(super) unsafe fn copy_raw(&mut self, node: *mut pg_sys::CustomScanState) -> Result<bool> {
        let Some(copy) = &self.copy else {
            return Ok(false);
        };
        if self.lists.is_some() || self.rest.is_some() {
            return Ok(false);
        }
        unsafe {
            let memory = (*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
            let child = list::nth((*node).custom_ps, 0);
            let columns = &self.plan.columns;
            let sources = columns.iter().map(|column| column.source);
            let key = self.plan.key.map(|index| {
                let column = &columns[index];
                (column.source, Oid::from(column.value))
            });
            let Some(mut raw) = RawRows::of(child, copy, sources, key) else {
                return Ok(false);
            };
            loop {
                let Some(row) = raw.next(memory)? else {
                    return Ok(true);
                };
                let target = self.target_of(row.key)?;
                if let Some(copy) = &mut self.copy {
                    copy.add_raw(target, |index| row.get(index));
                }
                self.attend_copy(target)?;
            }
        }
    }

    /// Sends what is due after a row was added for a shard group.
    fn attend_copy(&mut self, target: usize) -> Result<()> {
        let Some(copy) = &mut self.copy else {
            return Ok(());
        };
        let due = copy.due(target);
        copy.attend()?;
        match due {
            Some(group) => self.send_copy(group),
            None => Ok(()),
        }
    }

    fn send_copy(&mut self, index: usize) -> Result<()> {
        let Some(copy) = &mut self.copy else {
            return Ok(());
        };
        let group = &self.colocation.groups[index];
        let (schema, table) = self.plan.template.target();
        let schema = quote_identifier(&catalog::shard_schema(schema, group.id));
        let columns = self.plan.copied.as_deref().unwrap_or_default();
        let name = format!("{schema}.{}{columns}", quote_identifier(table));
        copy.send(index, group.node, &name)
    }

    pub(super) fn finish_copy(&mut self) -> Result<()> {
        let waiting = self.copy.as_ref().map(ShardCopy::waiting);
        for group in waiting.unwrap_or_default() {
            self.send_copy(group)?;
        }
        if let Some(mut copy) = self.copy.take() {
            self.affected += copy.finish()?;
        }
        Ok(())
    }
}
