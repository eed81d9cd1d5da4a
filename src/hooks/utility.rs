//! The utility hook: COPY, TRUNCATE, VACUUM, ANALYZE, GRANT and DROP reach the nodes; changes of a distributed
//! table's definition are refused; everything else is PostgreSQL's.

use crate::copy::{self, CopyStatement};
use crate::error::Result;
use crate::pg::node;
use crate::statistics::{self, VacuumCall};
use crate::{catalog, ddl, maintenance};
use pgrx::pg_sys;
use std::ffi::{c_char, CStr};

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

pub fn init() {
    // SAFETY: called once, while the postmaster loads its libraries.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

/// The hook's arguments.
struct Utility {
    planned: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
}

#[pgrx::pg_guard]
#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn process_utility(
    planned: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let utility = Utility {
        planned,
        query,
        read_only_tree,
        context,
        params,
        environment,
        destination,
        completion,
    };
    let stopped = maintenance::make_way((*planned).utilityStmt);
    if let Some(database) = stopped {
        utility.chain();
        return maintenance::start_again(database);
    }
    // COMMIT and ROLLBACK also come where no catalog may be read
    if (*(*planned).utilityStmt).type_ == pg_sys::NodeTag::T_TransactionStmt
        || !catalog::installed()
    {
        return utility.chain();
    }
    if let Err(error) = utility.run() {
        error.raise();
    }
}

impl Utility {
    /// Lets the next hook, or PostgreSQL, run the statement.
    unsafe fn chain(&self) {
        macro_rules! call {
            ($function:expr) => {
                $function(
                    self.planned,
                    self.query,
                    self.read_only_tree,
                    self.context,
                    self.params,
                    self.environment,
                    self.destination,
                    self.completion,
                )
            };
        }
        match PREVIOUS {
            Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| call!(previous)),
            None => call!(pg_sys::standard_ProcessUtility),
        }
    }

    /// The same for another statement in its place.
    unsafe fn chain_other(&self, statement: *mut pg_sys::Node) {
        let mut planned = *self.planned;
        planned.utilityStmt = statement;
        Utility {
            planned: &raw mut planned,
            ..*self
        }
        .chain();
    }

    unsafe fn run(&self) -> Result<()> {
        use pg_sys::NodeTag::*;
        let statement = (*self.planned).utilityStmt;
        let drops = ddl::DropStatement::start();
        match (*statement).type_ {
            T_CopyStmt => return self.copy(statement.cast()),
            T_TruncateStmt => self.truncate(statement.cast())?,
            T_VacuumStmt => self.vacuum(statement.cast())?,
            T_GrantStmt => self.grant(statement.cast())?,
            T_ConstraintsSetStmt => self.set_constraints(statement.cast())?,
            T_DropStmt => self.drop(statement.cast())?,
            T_AlterTableStmt => self.alter_table(statement.cast())?,
            _ => {
                ddl::refuse_change(statement)?;
                self.chain();
            }
        }
        drops.finish()
    }

    unsafe fn copy(&self, statement: *mut pg_sys::CopyStmt) -> Result<()> {
        let copied = copy::copy_statement(&CopyStatement {
            statement,
            query_string: self.query,
            query_environment: self.environment,
            location: (*self.planned).stmt_location,
            length: (*self.planned).stmt_len,
        })?;
        match copied {
            None => self.chain(),
            Some(rows) => {
                if let Some(completion) = self.completion.as_mut() {
                    completion.commandTag = pg_sys::CommandTag::CMDTAG_COPY;
                    completion.nprocessed = rows;
                }
            }
        }
        Ok(())
    }

    unsafe fn truncate(&self, statement: *mut pg_sys::TruncateStmt) -> Result<()> {
        let mut relids = Vec::new();
        for relation in elements((*statement).relations) {
            relids.push(node::relation_named(relation.cast()));
        }
        relids.retain(|relid| *relid != pg_sys::InvalidOid);
        self.chain();
        let cascade = (*statement).behavior == pg_sys::DropBehavior::DROP_CASCADE;
        ddl::truncate(&ddl::with_referencing(&relids, cascade))
    }

    unsafe fn vacuum(&self, statement: *mut pg_sys::VacuumStmt) -> Result<()> {
        statistics::vacuum_statement(&VacuumCall {
            statement,
            top_level: self.context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL,
            chain: &|statement| self.chain_other(statement.cast()),
        })
    }

    unsafe fn grant(&self, statement: *mut pg_sys::GrantStmt) -> Result<()> {
        self.chain();
        ddl::after_grant(statement)
    }

    unsafe fn set_constraints(&self, statement: *mut pg_sys::ConstraintsSetStmt) -> Result<()> {
        self.chain();
        // of a statement by itself nothing would be left
        let alone = self.context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL
            && !pg_sys::IsTransactionBlock();
        if alone {
            return Ok(());
        }
        ddl::after_set_constraints(statement)
    }

    unsafe fn alter_table(&self, statement: *mut pg_sys::AlterTableStmt) -> Result<()> {
        ddl::refuse_change(statement.cast())?;
        let table = ddl::named_table((*statement).relation)?;
        self.chain();
        match table {
            // what is not refused changes the owner
            Some(relid) => ddl::after_owner_change(relid),
            None => Ok(()),
        }
    }

    unsafe fn drop(&self, statement: *mut pg_sys::DropStmt) -> Result<()> {
        if (*statement).removeType == pg_sys::ObjectType::OBJECT_EXTENSION
            && elements((*statement).objects).any(|name| string(name) == "shard_ext")
        {
            let extension = pg_sys::get_extension_oid(c"shard_ext".as_ptr(), false);
            if pg_sys::pg_extension_ownercheck(extension, pg_sys::GetUserId()) {
                ddl::drop_everything()?;
            }
        }
        self.chain();
        Ok(())
    }
}

/// SAFETY: `list` is null or a valid list of node pointers.
unsafe fn elements(list: *mut pg_sys::List) -> impl Iterator<Item = *mut pg_sys::Node> {
    let length = if list.is_null() {
        0
    } else {
        (*list).length as usize
    };
    (0..length).map(move |i| (*(*list).elements.add(i)).ptr_value.cast())
}

/// SAFETY: `node` is a String node.
unsafe fn string(node: *mut pg_sys::Node) -> String {
    CStr::from_ptr((*node.cast::<pg_sys::String>()).sval)
        .to_string_lossy()
        .into_owned()
}
