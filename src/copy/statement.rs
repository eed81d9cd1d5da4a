//! What `DoCopy` of PostgreSQL's copy.c does before COPY FROM reads its first byte: privileges, row-level
//! security, the WHERE clause.

use super::input::Source;
use super::CopyStatement;
use crate::error::{sqlstate, Error, Result};
use crate::pg::list;
use pgrx::pg_sys;
use std::ffi::{c_int, CStr};

/// The opened target of a COPY FROM.
pub struct Target {
    pub relation: pg_sys::Relation,
    pub parse_state: *mut pg_sys::ParseState,
    pub statement: *const pg_sys::CopyStmt,
    filter: *mut pg_sys::List,
}

impl Target {
    pub fn schema(&self) -> String {
        // SAFETY: the relation is open, so its schema exists.
        unsafe {
            let name = pg_sys::get_namespace_name((*(*self.relation).rd_rel).relnamespace);
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }

    /// Unquoted.
    pub fn name(&self) -> String {
        // SAFETY: the relation is open.
        unsafe { CStr::from_ptr((*(*self.relation).rd_rel).relname.data.as_ptr()) }
            .to_string_lossy()
            .into_owned()
    }

    pub fn source(&self, key: Option<i16>) -> Source {
        Source {
            parse_state: self.parse_state,
            statement: self.statement,
            filter: self.filter,
            key,
        }
    }

    /// Closes the relation and keeps its lock.
    pub fn close(self) {
        // SAFETY: opened by `open`.
        unsafe { pg_sys::table_close(self.relation, pg_sys::NoLock as i32) }
    }
}

/// Opens, locks and checks the target of a COPY FROM.
pub unsafe fn open(copy: &CopyStatement, lock: u32) -> Result<Target> {
    // SAFETY: the statement's pointers are valid, and every structure is built as DoCopy builds it.
    unsafe {
        let statement = &*copy.statement;
        check_source(statement)?;
        pg_sys::PreventCommandDuringRecovery(c"COPY FROM".as_ptr());

        let parse_state = pg_sys::make_parsestate(std::ptr::null_mut());
        (*parse_state).p_sourcetext = copy.query_string;
        (*parse_state).p_queryEnv = copy.query_environment;

        let lock = lock as c_int;
        let relation = pg_sys::table_openrv(statement.relation, lock);
        let item = pg_sys::addRangeTableEntryForRelation(
            parse_state,
            relation,
            lock,
            std::ptr::null_mut(),
            false,
            false,
        );
        let entry = &mut *(*item).p_rte;
        entry.requiredPerms = pg_sys::ACL_INSERT as pg_sys::AclMode;
        let filter = if statement.whereClause.is_null() {
            std::ptr::null_mut()
        } else {
            plan_filter(parse_state, relation, item, statement.whereClause)?
        };
        let columns = pg_sys::CopyGetAttnums((*relation).rd_att, relation, statement.attlist);
        for column in list::ints(columns) {
            entry.insertedCols = pg_sys::bms_add_member(
                entry.insertedCols,
                column - pg_sys::FirstLowInvalidHeapAttributeNumber,
            );
        }
        pg_sys::ExecCheckRTPerms((*parse_state).p_rtable, true);
        let enforced = pg_sys::check_enable_rls(entry.relid, pg_sys::InvalidOid, false);
        if enforced == pg_sys::CheckEnableRlsResult::RLS_ENABLED as c_int {
            return Err(Error::new(
                sqlstate::FEATURE_NOT_SUPPORTED,
                "COPY FROM not supported with row-level security",
            )
            .hint("Use INSERT statements instead."));
        }
        if pg_sys::XactReadOnly {
            pg_sys::PreventCommandIfReadOnly(c"COPY FROM".as_ptr());
        }
        Ok(Target {
            relation,
            parse_state,
            statement,
            filter,
        })
    }
}

/// Files and programs of the server need a role.
fn check_source(statement: &pg_sys::CopyStmt) -> Result<()> {
    if statement.filename.is_null() {
        return Ok(());
    }
    let (role, message) = if statement.is_program {
        (
            pg_sys::ROLE_PG_EXECUTE_SERVER_PROGRAM,
            "must be superuser or have privileges of the pg_execute_server_program role to COPY to or from an external program",
        )
    } else {
        (
            pg_sys::ROLE_PG_READ_SERVER_FILES,
            "must be superuser or have privileges of the pg_read_server_files role to COPY from a file",
        )
    };
    // SAFETY: a look-up of role membership.
    if unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), pg_sys::Oid::from(role)) } {
        return Ok(());
    }
    Err(Error::new(sqlstate::INSUFFICIENT_PRIVILEGE, message).hint(
        "Anyone can COPY to stdout or from stdin. psql's \\copy command also works for anyone.",
    ))
}

/// Analyses and plans the WHERE clause; an implicitly ANDed list.
unsafe fn plan_filter(
    parse_state: *mut pg_sys::ParseState,
    relation: pg_sys::Relation,
    item: *mut pg_sys::ParseNamespaceItem,
    raw: *mut pg_sys::Node,
) -> Result<*mut pg_sys::List> {
    // SAFETY: the same calls, in the same order, as in DoCopy.
    unsafe {
        pg_sys::addNSItemToQuery(parse_state, item, false, true, true);
        let clause = pg_sys::transformExpr(
            parse_state,
            raw,
            pg_sys::ParseExprKind::EXPR_KIND_COPY_WHERE,
        );
        let clause = pg_sys::coerce_to_boolean(parse_state, clause, c"WHERE".as_ptr());
        pg_sys::assign_expr_collations(parse_state, clause);
        refuse_generated(relation, clause)?;
        let clause = pg_sys::eval_const_expressions(std::ptr::null_mut(), clause);
        let clause = pg_sys::canonicalize_qual(clause.cast(), false);
        Ok(pg_sys::make_ands_implicit(clause.cast()))
    }
}

/// Generated columns are computed by the worker, after the WHERE clause was applied.
unsafe fn refuse_generated(relation: pg_sys::Relation, clause: *mut pg_sys::Node) -> Result<()> {
    // SAFETY: `clause` is an analysed expression over the open relation as range table entry 1.
    unsafe {
        let offset = pg_sys::FirstLowInvalidHeapAttributeNumber;
        let mut used: *mut pg_sys::Bitmapset = std::ptr::null_mut();
        pg_sys::pull_varattnos(clause, 1, &mut used);
        let whole_row = pg_sys::bms_is_member(-offset, used);
        for column in 0..(*(*relation).rd_att).natts {
            let attribute = super::columns::attribute(relation, column as usize);
            let generated = attribute.attgenerated != 0 && !attribute.attisdropped;
            if generated && (whole_row || pg_sys::bms_is_member(column + 1 - offset, used)) {
                let name = CStr::from_ptr(attribute.attname.data.as_ptr()).to_string_lossy();
                return Err(Error::new(
                    sqlstate::INVALID_COLUMN_REFERENCE,
                    "generated columns are not supported in COPY FROM WHERE conditions",
                )
                .detail(format!("Column \"{name}\" is a generated column.")));
            }
        }
        Ok(())
    }
}
