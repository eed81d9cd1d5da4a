//! Expressions written as SQL text: PostgreSQL's own parser finds functions, casts and collations.

use crate::error::{Error, Result};
use crate::pg::{list, node};
use pgrx::pg_guard;
use pgrx::pg_sys::{self, Node};
use std::ffi::CString;

/// The expression `text` in which `$1`, `$2`, … are copies of `args`. Names are looked up in pg_catalog; others are
/// qualified in the text.
///
/// # Safety
/// `args` are analysed expressions of one query level; called while planning, in its memory context.
pub unsafe fn expression(text: &str, args: &[*mut Node]) -> Result<*mut Node> {
    let statement = CString::new(format!("SELECT {text}"))
        .map_err(|_| Error::internal("an expression with a NUL byte"))?;
    // SAFETY: the slice outlives the parse state that points to it; the override is popped below, and by the server
    // itself when parsing fails.
    unsafe {
        let raw = pg_sys::raw_parser(statement.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        let first = list::nth::<pg_sys::RawStmt>(raw, 0);
        let select = node::cast::<pg_sys::SelectStmt>((*first).stmt)
            .ok_or_else(|| Error::internal("not an expression"))?;
        let target = list::nth::<pg_sys::ResTarget>((*select).targetList, 0);
        let mut path: pg_sys::OverrideSearchPath = std::mem::zeroed();
        path.addCatalog = true;
        pg_sys::PushOverrideSearchPath(&mut path);
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        (*state).p_paramref_hook = Some(argument);
        (*state).p_ref_hook_state = (&raw const args).cast_mut().cast();
        let tree = pg_sys::transformExpr(
            state,
            (*target).val,
            pg_sys::ParseExprKind::EXPR_KIND_SELECT_TARGET,
        );
        pg_sys::assign_expr_collations(state, tree);
        pg_sys::free_parsestate(state);
        pg_sys::PopOverrideSearchPath();
        Ok(tree)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn argument(
    state: *mut pg_sys::ParseState,
    reference: *mut pg_sys::ParamRef,
) -> *mut Node {
    // SAFETY: called by transformExpr above with the parse state that `expression` made.
    unsafe {
        let args = *(*state).p_ref_hook_state.cast::<&[*mut Node]>();
        match args.get((*reference).number as usize - 1) {
            Some(value) => node::copy(*value),
            None => std::ptr::null_mut(),
        }
    }
}
