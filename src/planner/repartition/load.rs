//! Rows on their way to shards: the move that the executor makes, and the entry that stands for its rows.

use super::equality::{self, Column};
use crate::catalog::{self, Colocation, Method};
use crate::deparse;
use crate::error::Result;
use crate::pg::{expr, list, node, types};
use crate::planner::externals::Externals;
use crate::planner::moved::{self, Moving};
use crate::planner::pieces::trees::{refers_outside, same_column};
use crate::planner::plan::{MoveColumn, MovePlan};
use crate::planner::{estimate, is_distributed, leaf, split};
use pgrx::pg_sys::{self, Node, Query, RTEKind, RangeTblEntry};
use std::rc::Rc;

/// Shards beside which rows can be.
#[derive(Clone)]
pub struct Home {
    pub colocation: Rc<Colocation>,
    /// A distributed table that is there.
    pub schema: String,
    pub table: String,
    /// Rows are there by the hash of a column's own type, not as keys of the tables.
    pub hashed: bool,
}

impl Home {
    pub fn nodes(&self) -> f64 {
        estimate::node_count(&self.colocation)
    }

    pub fn groups(&self) -> usize {
        self.colocation.groups.len()
    }

    /// Where the distributed tables in a tree are, and rows that were moved before; each table once.
    ///
    /// # Safety
    /// `tree` is a valid Query or list of range table entries.
    pub unsafe fn all_in(tree: *mut Query) -> Result<Vec<Home>> {
        unsafe {
            let mut entries: Vec<*mut RangeTblEntry> = Vec::new();
            node::walk(tree.cast(), &mut |item, _| {
                if let Some(query) = node::cast::<Query>(item) {
                    entries.extend(list::iter::<RangeTblEntry>((*query).rtable));
                }
                node::Step::Into
            });
            let mut homes = Vec::new();
            for entry in entries {
                homes.extend(Home::of_entry(entry)?);
            }
            Ok(homes)
        }
    }

    unsafe fn of_entry(entry: *mut RangeTblEntry) -> Result<Option<Home>> {
        unsafe {
            if let Some(moving) = moved::of_entry(entry) {
                return Ok(Some(Home {
                    colocation: moving.colocation.clone(),
                    schema: moving.plan.schema.clone(),
                    table: moving.plan.target.clone(),
                    hashed: moving.plan.hashed,
                }));
            }
            if (*entry).rtekind != RTEKind::RTE_RELATION || !is_distributed((*entry).relid) {
                return Ok(None);
            }
            let table = catalog::table((*entry).relid)?;
            let Some((_, colocation)) = table.as_deref().and_then(|table| table.distribution())
            else {
                return Ok(None);
            };
            if colocation.groups.is_empty() {
                return Ok(None);
            }
            let (schema, table) = deparse::name_of((*entry).relid)?;
            Ok(Some(Home {
                colocation: colocation.clone(),
                schema,
                table,
                hashed: false,
            }))
        }
    }

    /// The first of these where rows of any type can be by their hash.
    pub fn for_hashes(homes: Vec<Home>) -> Option<Home> {
        let mut home = homes.into_iter().find(Home::takes_hashes)?;
        home.hashed = true;
        Some(home)
    }

    fn takes_hashes(&self) -> bool {
        let collation = self.colocation.key_collation;
        self.colocation.method == Method::Hash
            && (collation == pg_sys::InvalidOid
                // SAFETY: a look-up in the syscache.
                || unsafe { pg_sys::get_collation_isdeterministic(collation) })
    }
}

/// Which rows move, and to where.
pub struct Load<'a> {
    /// A Query of its own.
    pub rows: *mut Query,
    /// Its columns, as expressions of the level that it was taken from.
    pub units: &'a [*mut Node],
    pub by: Column,
    pub home: &'a Home,
    /// Rows that join nothing are needed, too.
    pub keep: bool,
    pub estimate: f64,
    /// For EXPLAIN.
    pub reason: String,
}

impl Load<'_> {
    /// Has the rows moved: the entry that stands for them. None: they cannot be.
    ///
    /// # Safety
    /// The Query is owned by the caller.
    pub unsafe fn entry(self, externals: &mut Externals) -> Result<Option<*mut RangeTblEntry>> {
        unsafe {
            let Some(key) = self
                .units
                .iter()
                .position(|unit| same_column(*unit, self.by.var))
            else {
                return Ok(None);
            };
            let columns: Option<Vec<MoveColumn>> = self
                .units
                .iter()
                .enumerate()
                .map(|(index, unit)| moved::column(*unit, index))
                .collect();
            let Some(columns) = columns else {
                return Ok(None);
            };
            let origins = if refers_outside(self.rows.cast()) {
                Vec::new()
            } else {
                estimate::origins_of(self.rows)
            };
            let names = list::iter::<pg_sys::TargetEntry>((*self.rows).targetList)
                .map(|target| equality::name(self.rows, (*target).expr.cast()))
                .collect();
            if !self.keep {
                without_nulls(self.rows, self.units[key], key);
            }
            split::transform(self.rows)?;
            if !deparse::moved::entries(self.rows).is_empty() {
                return Ok(None);
            }
            let number = leaf::move_count();
            let handle = moved::handle_of(self.rows, number);
            leaf::add_move(Moving {
                colocation: self.home.colocation.clone(),
                key: key as i16 + 1,
                is_key: !self.home.hashed && !self.keep,
                handle: externals.stand_in(handle),
                plan: MovePlan {
                    colocation: self.home.colocation.id,
                    schema: self.home.schema.clone(),
                    key: key + 1,
                    key_type: pg_sys::exprType(self.units[key]).to_u32(),
                    hashed: self.home.hashed,
                    keep: self.keep,
                    columns,
                    handle: self.units.len() + 1,
                    quiet: leaf::is_quiet(),
                    by: self.by.name,
                    target: self.home.table.clone(),
                    reason: self.reason,
                },
                origins,
                names,
            });
            Ok(Some(moved::entry(number, self.units, self.estimate)))
        }
    }
}

/// Rows whose column is NULL join nothing: they stay where they are.
unsafe fn without_nulls(rows: *mut Query, unit: *mut Node, key: usize) {
    unsafe {
        let column = list::nth::<pg_sys::TargetEntry>((*rows).targetList, key);
        if is_never_null(rows, (*column).expr.cast()) {
            return;
        }
        let test = node::make::<pg_sys::NullTest>();
        (*test).arg = node::copy((*column).expr);
        (*test).nulltesttype = pg_sys::NullTestType::IS_NOT_NULL;
        (*test).argisrow = pg_sys::type_is_rowtype(pg_sys::exprType(unit));
        (*test).location = -1;
        let from = (*rows).jointree;
        (*from).quals = expr::and((*from).quals, test.cast());
    }
}

/// Is it a column of a table that says NOT NULL?
unsafe fn is_never_null(query: *mut Query, value: *mut Node) -> bool {
    unsafe {
        let Some(var) = equality::column(value) else {
            return false;
        };
        let rte = list::rt_fetch((*var).varno, (*query).rtable);
        if (*rte).rtekind != RTEKind::RTE_RELATION {
            return false;
        }
        types::is_not_null((*rte).relid, (*var).varattno)
    }
}
