//! Tables of moved rows: which there are, by the handles that leaves get as values, and how they come and go on nodes.
//!
//! A statement that is all there is to its transaction, and that nothing it calls can make write, gets temporary tables:
//! the node's transaction ends with it, by COMMIT. A transaction that has used temporary tables cannot be prepared, so any
//! other statement gets unlogged tables beside the shards, which it drops at its end. A rollback, of a savepoint or of all,
//! takes both away, and so does the end of the connection.

use crate::catalog::{self, Colocation, NodeId, ShardGroupId};
use crate::deparse::quote_identifier;
use crate::error::{sqlstate, Error, Result};
use crate::remote;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

thread_local! {
    static NEXT: Cell<i32> = const { Cell::new(1) };
    static KNOWN: RefCell<HashMap<i32, Rc<Moved>>> = RefCell::default();
}

/// The tables of one move.
pub struct Moved {
    handle: i32,
    /// As statements name them.
    names: HashMap<ShardGroupId, String>,
    nodes: BTreeMap<NodeId, Vec<ShardGroupId>>,
    temporary: bool,
}

/// The tables that leaves know by this handle.
pub fn of_handle(handle: i32) -> Result<Rc<Moved>> {
    KNOWN
        .with_borrow(|known| known.get(&handle).cloned())
        .ok_or_else(|| Error::internal("moved rows without their tables"))
}

/// Forgets the tables, whose statement has ended.
pub fn forget(handle: i32) {
    KNOWN.with(|known| {
        if let Ok(mut known) = known.try_borrow_mut() {
            known.remove(&handle);
        }
    });
}

impl Moved {
    /// Makes a table for each shard group, on its node. `schema` is one of whose shard schemas unlogged tables may go to;
    /// `columns` is what stands between the parentheses of CREATE TABLE.
    pub fn create(
        colocation: &Colocation,
        schema: &str,
        columns: &str,
        temporary: bool,
    ) -> Result<Rc<Moved>> {
        let handle = NEXT.replace(NEXT.get().wrapping_add(1).max(1));
        let mut moved = Moved {
            handle,
            names: HashMap::new(),
            nodes: BTreeMap::new(),
            temporary,
        };
        let mut work: BTreeMap<NodeId, String> = BTreeMap::new();
        for group in &colocation.groups {
            let node = catalog::group_node(group.id)?;
            let sql = work.entry(node).or_default();
            let name = if temporary {
                let name = quote_identifier(&format!("shard_ext_move_{handle}_{}", group.id));
                sql.push_str(&format!(
                    "CREATE TEMPORARY TABLE {name} ({columns}) ON COMMIT DROP;"
                ));
                format!("pg_temp.{name}")
            } else {
                // SAFETY: reads a variable.
                let process = unsafe { pgrx::pg_sys::MyProcPid };
                let name = format!(
                    "{}.{}",
                    quote_identifier(&catalog::shard_schema(schema, group.id)),
                    quote_identifier(&format!("shard_ext_move_{process}_{handle}"))
                );
                sql.push_str(&format!("CREATE UNLOGGED TABLE {name} ({columns});"));
                name
            };
            moved.names.insert(group.id, name);
            moved.nodes.entry(node).or_default().push(group.id);
        }
        let work: Vec<(NodeId, String)> = work.into_iter().collect();
        remote::execute_for_statement(&work).map_err(explained)?;
        for node in moved.nodes.keys() {
            remote::hold(*node, true);
        }
        let moved = Rc::new(moved);
        KNOWN.with_borrow_mut(|known| known.insert(handle, moved.clone()));
        Ok(moved)
    }

    pub fn handle(&self) -> i32 {
        self.handle
    }

    /// The table beside a shard group, as statements on its node name it.
    pub fn table(&self, group: ShardGroupId) -> String {
        self.names.get(&group).cloned().unwrap_or_default()
    }

    /// The statement that read the tables has ended well. Temporary ones go with the node's transaction, which is at its
    /// end, too.
    pub fn drop_tables(&self) -> Result<()> {
        for node in self.nodes.keys() {
            remote::hold(*node, false);
        }
        if self.temporary {
            return Ok(());
        }
        // a leaf that was not read to its end is stopped now, which may take the node's transaction, and the tables with it
        remote::abandoned::make_way()?;
        let mut work = Vec::new();
        for (node, groups) in &self.nodes {
            if !remote::takes_part(*node) {
                continue;
            }
            let names: Vec<&str> = groups
                .iter()
                .filter_map(|group| self.names.get(group).map(String::as_str))
                .collect();
            work.push((*node, format!("DROP TABLE IF EXISTS {}", names.join(", "))));
        }
        remote::execute_for_statement(&work)
    }
}

/// The login may lack the right to make tables.
fn explained(error: Error) -> Error {
    let code = error.fields().sqlstate;
    let refused = code == sqlstate::INSUFFICIENT_PRIVILEGE || code == *b"25006";
    if refused && error.fields().hint.is_none() {
        return error.hint(
            "A join moves rows into tables beside the shards. Where the nodes do not allow that, set shard_ext.join_strategy to pull.",
        );
    }
    error
}
