//! Moved rows while a statement is planned: in the level that joins them, an entry that counts as a distributed table; and
//! a subquery, the argument of every leaf that reads them, whose plan moves them.

use crate::catalog::{self, Colocation};
use crate::deparse;
use crate::error::{Error, Result};
use crate::pg::{expr, levels, list, node, types};
use crate::planner::estimate::Origin;
use crate::planner::plan::{MoveColumn, MovePlan, Private};
use crate::planner::wrapped::{self, Above};
use crate::planner::{inline, leaf, ship};
use pgrx::pg_sys::{self, CmdType, Node, Oid, Query, RTEKind, RangeTblEntry};
use std::ffi::CStr;
use std::rc::Rc;

/// Rows that are moved.
pub struct Moving {
    pub colocation: Rc<Colocation>,
    /// The column by which they are moved.
    pub key: i16,
    /// Its value says where a row is, as that of a distribution column does.
    pub is_key: bool,
    /// What stands for the handle in the level.
    pub handle: *mut Node,
    /// Complete but for where the plan below has the columns: there the columns' numbers stand.
    pub plan: MovePlan,
    pub origins: Vec<Option<Origin>>,
    /// What EXPLAIN calls the columns.
    pub names: Vec<String>,
}

/// The column that the handle comes in.
const HANDLE: &str = "handle";

/// The move whose rows an entry stands for.
///
/// # Safety
/// `rte` is a valid entry of the statement that is being planned.
pub unsafe fn of_entry(rte: *mut RangeTblEntry) -> Option<Rc<Moving>> {
    unsafe { leaf::move_of(deparse::moved::number(rte)? as usize) }
}

/// The moved rows that a query reads: their names in its text, and what stands for their handles.
///
/// # Safety
/// As `of_entry`.
pub unsafe fn named_in(query: *mut Query) -> Vec<(String, *mut Node)> {
    let mut found: Vec<(String, *mut Node)> = Vec::new();
    unsafe {
        for entry in deparse::moved::entries(query) {
            let name = CStr::from_ptr((*entry).enrname)
                .to_string_lossy()
                .into_owned();
            if let Some(moving) = of_entry(entry) {
                if !found.iter().any(|(known, _)| *known == name) {
                    found.push((name, moving.handle));
                }
            }
        }
    }
    found
}

/// Does a statement write nothing, and call nothing that could?
///
/// # Safety
/// `query` is a valid Query.
pub unsafe fn is_quiet(query: *mut Query) -> bool {
    unsafe {
        !inline::changes_or_locks(query.cast()) && !pg_sys::contain_volatile_functions(query.cast())
    }
}

/// A value of moved rows as a column of the tables; None: it cannot be one.
///
/// # Safety
/// `unit` is a valid expression.
pub unsafe fn column(unit: *mut Node, index: usize) -> Option<MoveColumn> {
    unsafe {
        let (type_oid, mut typmod, collation) = expr::signature(unit);
        let system = node::cast::<pg_sys::Var>(unit).is_some_and(|var| (*var).varattno <= 0);
        if system
            || ship::readable_type(type_oid).is_err()
            || !catalog::type_on_nodes(type_oid)
            || !catalog::collation_on_nodes(collation)
        {
            return None;
        }
        // a domain's condition was met before, and need not be by what an outer join has made NULL
        let base = pg_sys::getBaseTypeAndTypmod(type_oid, &mut typmod);
        let kind = pg_sys::get_typtype(base) as u8;
        if kind == b'p' || kind == b'c' || !catalog::type_on_nodes(base) {
            return None;
        }
        let name = pg_sys::format_type_extended(
            base,
            typmod,
            (pg_sys::FORMAT_TYPE_FORCE_QUALIFY | pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN) as u16,
        );
        let mut definition = format!("c{} {}", index + 1, CStr::from_ptr(name).to_string_lossy());
        if collation != pg_sys::InvalidOid && collation != pg_sys::get_typcollation(base) {
            definition.push_str(&format!(" COLLATE {}", collation_name(collation)?));
        }
        Some(MoveColumn {
            source: index + 1,
            value: type_oid.to_u32(),
            definition,
        })
    }
}

/// Schema and name, quoted.
unsafe fn collation_name(collation: Oid) -> Option<String> {
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::COLLOID as i32,
            pg_sys::Datum::from(collation),
        );
        if tuple.is_null() {
            return None;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_collation>();
        let name = CStr::from_ptr((*form).collname.data.as_ptr())
            .to_string_lossy()
            .into_owned();
        let schema = pg_sys::get_namespace_name((*form).collnamespace);
        pg_sys::ReleaseSysCache(tuple);
        (!schema.is_null()).then(|| {
            let schema = CStr::from_ptr(schema).to_string_lossy();
            format!(
                "{}.{}",
                deparse::quote_identifier(&schema),
                deparse::quote_identifier(&name)
            )
        })
    }
}

/// `(SELECT handle FROM (rows))` for the move of this number: an expression of the level that the rows were part of.
///
/// # Safety
/// `rows` is owned by the caller, a plain SELECT whose references to WITH queries of the level are one level up.
pub unsafe fn handle_of(rows: *mut Query, number: usize) -> *mut Node {
    unsafe {
        let attno = list::len((*rows).targetList) as i16 + 1;
        let zero =
            pg_sys::makeTargetEntry(expr::int4(0).cast(), attno, node::pstrdup(HANDLE), false);
        (*rows).targetList = pg_sys::lappend((*rows).targetList, zero.cast());
        levels::push_down(rows);
        let read = node::make::<Query>();
        (*read).commandType = CmdType::CMD_SELECT;
        (*read).querySource = pg_sys::QuerySource::QSRC_ORIGINAL;
        (*read).canSetTag = true;
        (*read).stmt_location = -1;
        let entry = wrapped::entry(rows, wrapped::Kind::Move, number, "moved");
        leaf::from_leaf(read, entry, std::ptr::null_mut());
        let mut targets = Vec::new();
        for target in list::iter::<pg_sys::TargetEntry>((*rows).targetList).rev() {
            let var = expr::var(1, (*target).resno, expr::signature((*target).expr.cast()));
            let resno = targets.len() as i16 + 1;
            // the planner leaves out columns that nobody asks for
            let junk = (*target).resno != attno;
            targets.push(pg_sys::makeTargetEntry(
                var.cast(),
                resno,
                (*target).resname,
                junk,
            ));
        }
        (*read).targetList = list::from(targets);
        let sublink = node::make::<pg_sys::SubLink>();
        (*sublink).subLinkType = pg_sys::SubLinkType::EXPR_SUBLINK;
        (*sublink).subselect = read.cast();
        (*sublink).location = -1;
        sublink.cast()
    }
}

/// The entry that stands for the rows of the move of this number, with columns like `units`.
///
/// # Safety
/// Allocates: call it while planning.
pub unsafe fn entry(number: usize, units: &[*mut Node], rows: f64) -> *mut RangeTblEntry {
    unsafe {
        let signatures: Vec<_> = units.iter().map(|unit| expr::signature(*unit)).collect();
        let names = (1..=units.len())
            .map(|index| pg_sys::makeString(node::pstrdup(&format!("c{index}"))))
            .collect::<Vec<_>>();
        let entry = node::make::<RangeTblEntry>();
        (*entry).rtekind = RTEKind::RTE_NAMEDTUPLESTORE;
        (*entry).enrname = node::pstrdup(&format!("{}{number}", deparse::moved::MARK));
        (*entry).enrtuples = rows;
        (*entry).coltypes = list::from_oids(signatures.iter().map(|s| s.0));
        (*entry).coltypmods = list::from_ints(signatures.iter().map(|s| s.1));
        (*entry).colcollations = list::from_oids(signatures.iter().map(|s| s.2));
        (*entry).inFromCl = true;
        (*entry).eref = pg_sys::makeAlias(c"moved".as_ptr(), list::from(names));
        (*entry).alias = pg_sys::makeAlias(c"moved".as_ptr(), std::ptr::null_mut());
        entry
    }
}

/// The custom scan that a path of `wrapped` becomes.
///
/// # Safety
/// `above` is the scan that a path becomes.
pub unsafe fn plan_move(above: &Above) -> Result<()> {
    unsafe {
        (*above.scan).methods = crate::executor::move_methods();
        let moving = leaf::move_of(above.number)
            .ok_or_else(|| Error::internal("rows to be moved without their plan"))?;
        let mut plan = moving.plan.clone();
        let place = |column: usize| above.place(column as i16);
        plan.key = place(plan.key)?;
        plan.handle = place(plan.handle)?;
        for column in &mut plan.columns {
            column.source = place(column.source)?;
        }
        (*above.scan).custom_private = plan.to_private()?;
        Ok(())
    }
}

/// Can rows be moved by a value of this type and collation, compared with the keys of the colocation group by an operator
/// of this collation, so that equal values come together?
///
/// # Safety
/// Called inside the server.
pub unsafe fn hashes_alike(
    colocation: &Colocation,
    (type_oid, _, _): (Oid, i32, Oid),
    compared: Oid,
) -> bool {
    let deterministic = |collation: Oid| {
        // SAFETY: a look-up in the syscache.
        collation == pg_sys::InvalidOid
            || unsafe { pg_sys::get_collation_isdeterministic(collation) }
    };
    super::route::becomes_key(colocation.key_type, types::base_type(type_oid))
        && (compared == colocation.key_collation
            || deterministic(compared) && deterministic(colocation.key_collation))
}
