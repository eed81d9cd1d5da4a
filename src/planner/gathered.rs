//! Arrays that go to the shards. Estimates decide what is sent, and they may be wrong: so the rows are not gathered by
//! `ARRAY(SELECT …)`, which takes what memory it needs, but by an aggregate that stops at `shard_ext.broadcast_memory`.

use crate::error::{sqlstate, Error};
use crate::pg::{expr, levels, list, node};
use crate::settings;
use pgrx::pg_sys::{self, CmdType, Node, Oid, Query, RTEKind, RangeTblEntry};

/// The array of an ARRAY subquery, `COALESCE((SELECT gather(x) FROM (subquery)), '{}')`.
///
/// # Safety
/// `array` is a valid ARRAY subquery that the caller owns; an array has no arrays in it.
pub unsafe fn gathered(array: *mut pg_sys::SubLink) -> *mut Node {
    unsafe {
        let array_type = pg_sys::exprType(array.cast());
        let subquery = (*array).subselect.cast::<Query>();
        let column = list::nth::<pg_sys::TargetEntry>((*subquery).targetList, 0);
        let signature = expr::signature((*column).expr.cast());
        levels::push_down(subquery);
        let entry = node::make::<RangeTblEntry>();
        (*entry).rtekind = RTEKind::RTE_SUBQUERY;
        (*entry).subquery = subquery;
        (*entry).inFromCl = true;
        let names = list::from([pg_sys::makeString(node::pstrdup("value"))]);
        (*entry).eref = pg_sys::makeAlias(c"sent".as_ptr(), names);
        (*entry).alias = node::copy((*entry).eref);

        let value = expr::var(1, (*column).resno, signature);
        let aggregate = node::make::<pg_sys::Aggref>();
        (*aggregate).aggfnoid = gather_function();
        (*aggregate).aggtype = array_type;
        (*aggregate).aggcollid = signature.2;
        (*aggregate).inputcollid = signature.2;
        (*aggregate).aggtranstype = pg_sys::InvalidOid;
        (*aggregate).aggargtypes = list::from_oids([signature.0]);
        let argument = pg_sys::makeTargetEntry(value.cast(), 1, std::ptr::null_mut(), false);
        (*aggregate).args = list::from([argument]);
        (*aggregate).aggkind = b'n' as std::ffi::c_char;
        (*aggregate).aggsplit = pg_sys::AggSplit::AGGSPLIT_SIMPLE;
        (*aggregate).aggno = -1;
        (*aggregate).aggtransno = -1;
        (*aggregate).location = -1;

        let query = node::make::<Query>();
        (*query).commandType = CmdType::CMD_SELECT;
        (*query).canSetTag = true;
        (*query).hasAggs = true;
        (*query).stmt_location = -1;
        (*query).rtable = list::from([entry]);
        let reference = node::make::<pg_sys::RangeTblRef>();
        (*reference).rtindex = 1;
        (*query).jointree = pg_sys::makeFromExpr(list::from([reference]), std::ptr::null_mut());
        let name = node::pstrdup("gather");
        let target = pg_sys::makeTargetEntry(aggregate.cast(), 1, name, false);
        (*query).targetList = list::from([target]);

        let sublink = node::make::<pg_sys::SubLink>();
        (*sublink).subLinkType = pg_sys::SubLinkType::EXPR_SUBLINK;
        (*sublink).subselect = query.cast();
        (*sublink).location = -1;
        let coalesce = node::make::<pg_sys::CoalesceExpr>();
        (*coalesce).coalescetype = array_type;
        (*coalesce).coalescecollid = signature.2;
        let args = [sublink.cast::<Node>(), empty(array_type, signature)];
        (*coalesce).args = list::from(args);
        (*coalesce).location = -1;
        coalesce.cast()
    }
}

unsafe fn empty(array_type: Oid, (type_oid, _, collation): (Oid, i32, Oid)) -> *mut Node {
    unsafe {
        let none = pg_sys::construct_empty_array(type_oid);
        pg_sys::makeConst(
            array_type,
            -1,
            collation,
            -1,
            pg_sys::Datum::from(none),
            false,
            false,
        )
        .cast()
    }
}

unsafe fn gather_function() -> Oid {
    unsafe {
        let name = list::from([
            pg_sys::makeString(node::pstrdup("shard_ext")),
            pg_sys::makeString(node::pstrdup("gather")),
        ]);
        let argument = pg_sys::ANYNONARRAYOID;
        pg_sys::LookupFuncName(name, 1, &argument, false)
    }
}

#[pgrx::pg_schema]
mod shard_ext {
    use super::*;
    use pgrx::{pg_extern, Internal};

    /// `array_agg`'s transition, which looks at the memory now and then.
    #[pg_extern(
        sql = "CREATE FUNCTION shard_ext.gather_step(internal, anynonarray) RETURNS internal LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
               COMMENT ON FUNCTION shard_ext.gather_step(internal, anynonarray) IS 'transition function of shard_ext.gather';
               CREATE AGGREGATE shard_ext.gather(anynonarray) (SFUNC = shard_ext.gather_step, STYPE = internal, FINALFUNC = array_agg_finalfn, FINALFUNC_EXTRA);
               COMMENT ON AGGREGATE shard_ext.gather(anynonarray) IS 'array_agg within the memory of shard_ext.broadcast_memory, for values that are sent to shards';"
    )]
    fn gather_step(fcinfo: pg_sys::FunctionCallInfo) -> Internal {
        // SAFETY: PostgreSQL's own function of the same arguments, which checks that it is called by an aggregate.
        unsafe {
            let state = pg_sys::ffi::pg_guard_ffi_boundary(|| array_agg_transfn(fcinfo));
            let build = state.cast_mut_ptr::<pg_sys::ArrayBuildState>();
            if !build.is_null() && (*build).nelems % LOOK == 0 {
                let used = pg_sys::MemoryContextMemAllocated((*build).mcontext, true);
                if used > settings::broadcast_memory() {
                    too_large((*build).nelems).raise();
                }
            }
            Internal::from(Some(state))
        }
    }
}

/// From how many values to how many the memory is looked at.
const LOOK: i32 = 256;

unsafe extern "C-unwind" {
    fn array_agg_transfn(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
}

fn too_large(values: i32) -> Error {
    Error::new(
        sqlstate::PROGRAM_LIMIT_EXCEEDED,
        "rows that a join or subquery sends to the shards exceed shard_ext.broadcast_memory",
    )
    .detail(format!(
        "There are more than {values} of them; the planner expected fewer."
    ))
    .hint("ANALYZE the tables, or SET shard_ext.join_strategy = pull, or raise shard_ext.broadcast_memory.")
}
