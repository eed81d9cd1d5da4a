//! Definitions of distributed and reference tables that cannot be changed yet: a clear no, before anything
//! is changed here. Statements about other relations pass.

use super::checks::relation_name;
use crate::catalog;
use crate::error::{sqlstate, Error, Result};
use crate::pg::{node, spi};
use pgrx::pg_sys;
use std::ffi::CStr;

/// The refusal of a change of `relid`, with the way out.
pub fn not_yet(what: &str, relid: pg_sys::Oid) -> Error {
    let kind = match catalog::table(relid) {
        Ok(Some(table)) if table.is_reference() => "reference",
        _ => "distributed",
    };
    Error::refused(
        format!("{what}: the definition of {kind} tables cannot be changed yet"),
        format!(
            "Call undistribute_table({}), change the table, and distribute it again.",
            super::checks::regclass_literal(relid)
        ),
    )
}

/// The distributed or reference table that `relation` names, or whose index it names.
///
/// # Safety
/// `relation` is null or a valid RangeVar.
pub unsafe fn ours(relation: *const pg_sys::RangeVar) -> Result<Option<pg_sys::Oid>> {
    if relation.is_null() {
        return Ok(None);
    }
    let mut relid = node::relation_named(relation);
    if relid == pg_sys::InvalidOid {
        return Ok(None);
    }
    let table = pg_sys::IndexGetRelation(relid, true);
    if table != pg_sys::InvalidOid {
        relid = table;
    }
    Ok(catalog::table(relid)?.map(|table| table.relid))
}

unsafe fn refuse(what: &str, relation: *const pg_sys::RangeVar) -> Result<()> {
    match ours(relation)? {
        Some(relid) => Err(not_yet(
            &format!("{what} \"{}\"", relation_name(relid)?),
            relid,
        )),
        None => Ok(()),
    }
}

/// SAFETY: `list` is null or a valid list of node pointers.
pub unsafe fn elements(list: *mut pg_sys::List) -> impl Iterator<Item = *mut pg_sys::Node> {
    let length = if list.is_null() {
        0
    } else {
        (*list).length as usize
    };
    (0..length).map(move |i| (*(*list).elements.add(i)).ptr_value.cast())
}

/// Refuses `statement` if it would change the definition of a distributed or reference table.
///
/// # Safety
/// `statement` is a valid utility statement.
pub unsafe fn check(statement: *mut pg_sys::Node) -> Result<()> {
    use pg_sys::NodeTag::*;
    match (*statement).type_ {
        T_AlterTableStmt => alter_table(statement.cast()),
        T_IndexStmt => refuse(
            "cannot create an index on table",
            (*statement.cast::<pg_sys::IndexStmt>()).relation,
        ),
        T_CreateStmt => create_table(statement.cast()),
        T_CreateTrigStmt => refuse(
            "cannot create a trigger on table",
            (*statement.cast::<pg_sys::CreateTrigStmt>()).relation,
        ),
        T_RuleStmt => refuse(
            "cannot create a rule on table",
            (*statement.cast::<pg_sys::RuleStmt>()).relation,
        ),
        T_CreatePolicyStmt => refuse(
            "cannot create a policy on table",
            (*statement.cast::<pg_sys::CreatePolicyStmt>()).table,
        ),
        T_AlterPolicyStmt => refuse(
            "cannot alter a policy of table",
            (*statement.cast::<pg_sys::AlterPolicyStmt>()).table,
        ),
        T_CreateStatsStmt => {
            for relation in elements((*statement.cast::<pg_sys::CreateStatsStmt>()).relations) {
                if (*relation).type_ == T_RangeVar {
                    refuse("cannot create statistics on table", relation.cast())?;
                }
            }
            Ok(())
        }
        T_RenameStmt => rename(statement.cast()),
        T_AlterObjectSchemaStmt => refuse(
            "cannot move to another schema table",
            (*statement.cast::<pg_sys::AlterObjectSchemaStmt>()).relation,
        ),
        T_AlterObjectDependsStmt => refuse(
            "cannot alter table",
            (*statement.cast::<pg_sys::AlterObjectDependsStmt>()).relation,
        ),
        T_ClusterStmt => refuse(
            "cannot cluster table",
            (*statement.cast::<pg_sys::ClusterStmt>()).relation,
        ),
        T_ReindexStmt => refuse(
            "cannot reindex table",
            (*statement.cast::<pg_sys::ReindexStmt>()).relation,
        ),
        _ => Ok(()),
    }
}

/// `ALTER TABLE … OWNER TO` is not refused: see `privileges`.
///
/// # Safety
/// `statement` is valid.
pub unsafe fn changes_owner(statement: *const pg_sys::AlterTableStmt) -> bool {
    let mut commands = elements((*statement).cmds).peekable();
    commands.peek().is_some()
        && commands.all(|command| {
            (*command.cast::<pg_sys::AlterTableCmd>()).subtype
                == pg_sys::AlterTableType::AT_ChangeOwner
        })
}

unsafe fn alter_table(statement: *mut pg_sys::AlterTableStmt) -> Result<()> {
    if !changes_owner(statement) {
        refuse("cannot alter table", (*statement).relation)?;
    }
    for command in elements((*statement).cmds) {
        let command = command.cast::<pg_sys::AlterTableCmd>();
        let definition = (*command).def;
        if definition.is_null() {
            continue;
        }
        match (*definition).type_ {
            // ATTACH PARTITION, INHERIT
            pg_sys::NodeTag::T_PartitionCmd => refuse(
                "cannot attach table",
                (*definition.cast::<pg_sys::PartitionCmd>()).name,
            )?,
            pg_sys::NodeTag::T_RangeVar => {
                refuse("cannot inherit from table", definition.cast())?;
            }
            pg_sys::NodeTag::T_Constraint => {
                warn_of_foreign_key((*statement).relation, definition.cast())?;
            }
            _ => {}
        }
    }
    Ok(())
}

unsafe fn create_table(statement: *mut pg_sys::CreateStmt) -> Result<()> {
    for parent in elements((*statement).inhRelations) {
        refuse("cannot create a child of table", parent.cast())?;
    }
    Ok(())
}

/// A local table may get a foreign key to a distributed table: it is to be distributed next. CREATE TABLE comes
/// here too, because PostgreSQL adds its foreign keys by ALTER TABLE.
unsafe fn warn_of_foreign_key(
    table: *const pg_sys::RangeVar,
    constraint: *const pg_sys::Constraint,
) -> Result<()> {
    if (*constraint).contype != pg_sys::ConstrType::CONSTR_FOREIGN {
        return Ok(());
    }
    if let Some(relid) = ours((*constraint).pktable)? {
        if catalog::table(relid)?.is_some_and(|table| !table.is_reference()) {
            let name = CStr::from_ptr((*table).relname).to_string_lossy();
            super::checks::warn_of_local_reference(&name, &relation_name(relid)?);
        }
    }
    Ok(())
}

unsafe fn rename(statement: *mut pg_sys::RenameStmt) -> Result<()> {
    if (*statement).renameType == pg_sys::ObjectType::OBJECT_SCHEMA {
        let schema = CStr::from_ptr((*statement).subname).to_string_lossy();
        return schema_without_tables(&schema);
    }
    refuse("cannot rename (a part of) table", (*statement).relation)
}

/// The names of shards' schemas are made from the schema's.
fn schema_without_tables(schema: &str) -> Result<()> {
    let row = spi::query_one(
        "SELECT c.relname FROM shard_ext.distributed_table d
           JOIN pg_catalog.pg_class c ON c.oid = d.relid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = $1 ORDER BY 1",
        &[Some(schema)],
    )?;
    match row.as_deref() {
        Some([Some(table)]) => Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!("cannot rename schema \"{schema}\": it has distributed tables"),
        )
        .detail(format!("One of them is \"{table}\"."))
        .hint("Undistribute its tables, rename the schema, and distribute them again.")),
        _ => Ok(()),
    }
}
