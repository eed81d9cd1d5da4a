//! The rows of VALUES lists, computed one after the other as `nodeValuesscan.c` does; constants, parameters and their
//! casts, of which long lists are made, without an expression of their own.

use crate::executor::state;
use crate::pg::{expr, list, node};
use pgrx::pg_sys::{self, Datum, Node, Oid};

pub struct ValueRows {
    /// A list of lists of expressions.
    lists: *mut pg_sys::List,
    next: usize,
    /// What each row has behind the values of its list.
    computed: Vec<*mut pg_sys::ExprState>,
    casts: Casts,
}

impl ValueRows {
    /// # Safety
    /// The lists are those of a plan that is initialised in the current memory context.
    pub unsafe fn new(
        lists: *mut pg_sys::List,
        computed: Vec<*mut pg_sys::ExprState>,
    ) -> ValueRows {
        ValueRows {
            lists,
            next: 0,
            computed,
            casts: Casts {
                known: Vec::new(),
                // SAFETY: reads a variable.
                memory: unsafe { pg_sys::CurrentMemoryContext },
            },
        }
    }

    pub fn len(&self) -> usize {
        // SAFETY: a list of the plan, which lives as long as this.
        unsafe { list::len(self.lists) }
    }

    /// Computes the next row, in the per-tuple memory; false: there is none.
    ///
    /// # Safety
    /// `parent` is the state of the plan node that has the lists, `econtext` its context.
    pub unsafe fn next(
        &mut self,
        parent: *mut pg_sys::PlanState,
        econtext: *mut pg_sys::ExprContext,
        row: &mut Vec<Option<Datum>>,
    ) -> bool {
        if self.next == self.len() {
            return false;
        }
        unsafe {
            let values = list::nth::<pg_sys::List>(self.lists, self.next);
            self.next += 1;
            row.clear();
            let old = pg_sys::MemoryContextSwitchTo((*econtext).ecxt_per_tuple_memory);
            for item in list::iter::<Node>(values) {
                let value = match self.casts.value(item, econtext) {
                    Some(value) => value,
                    // the expression goes with the row's memory
                    None => state::evaluate(pg_sys::ExecInitExpr(item.cast(), parent), econtext),
                };
                row.push(value);
            }
            pg_sys::MemoryContextSwitchTo(old);
            let computed = self.computed.iter();
            row.extend(computed.map(|item| state::evaluate(*item, econtext)));
        }
        true
    }
}

/// The functions of casts, looked up once.
struct Casts {
    known: Vec<(Oid, Option<Box<pg_sys::FmgrInfo>>)>,
    memory: pg_sys::MemoryContext,
}

impl Casts {
    /// The value of a constant, a parameter or a cast of them; None: it is something else.
    unsafe fn value(
        &mut self,
        item: *mut Node,
        econtext: *mut pg_sys::ExprContext,
    ) -> Option<Option<Datum>> {
        unsafe {
            if let Some(constant) = node::cast::<pg_sys::Const>(item) {
                return Some((!(*constant).constisnull).then(|| (*constant).constvalue));
            }
            match expr::plain_cast(item) {
                Some(call) => self.call(call, econtext),
                None => parameter(item, econtext),
            }
        }
    }

    unsafe fn call(
        &mut self,
        call: *mut pg_sys::FuncExpr,
        econtext: *mut pg_sys::ExprContext,
    ) -> Option<Option<Datum>> {
        unsafe {
            let mut values = [Datum::null(); 3];
            let count = list::len((*call).args);
            if !(1..=values.len()).contains(&count) {
                return None;
            }
            let known = self.function(call)?;
            for (index, argument) in list::iter::<Node>((*call).args).enumerate() {
                match self.value(argument, econtext)? {
                    Some(value) => values[index] = value,
                    None => return Some(None),
                }
            }
            let function = self.known[known].1.as_deref_mut()?;
            let collation = (*call).inputcollid;
            let [a, b, c] = values;
            Some(Some(match count {
                1 => pg_sys::FunctionCall1Coll(function, collation, a),
                2 => pg_sys::FunctionCall2Coll(function, collation, a, b),
                _ => pg_sys::FunctionCall3Coll(function, collation, a, b, c),
            }))
        }
    }

    /// The place of a function that is strict and allowed to the user.
    unsafe fn function(&mut self, call: *mut pg_sys::FuncExpr) -> Option<usize> {
        let oid = unsafe { (*call).funcid };
        let place = match self.known.iter().position(|(known, _)| *known == oid) {
            Some(place) => place,
            None => {
                // SAFETY: look-ups; the function lives as long as the plan's state.
                let function = unsafe {
                    let user = pg_sys::GetUserId();
                    let acl =
                        pg_sys::pg_proc_aclcheck(oid, user, pg_sys::ACL_EXECUTE as pg_sys::AclMode);
                    let mut function: Box<pg_sys::FmgrInfo> = Box::new(std::mem::zeroed());
                    pg_sys::fmgr_info_cxt(oid, &mut *function, self.memory);
                    function.fn_expr = call.cast();
                    let usable = acl == pg_sys::AclResult::ACLCHECK_OK && function.fn_strict;
                    usable.then_some(function)
                };
                self.known.push((oid, function));
                self.known.len() - 1
            }
        };
        self.known[place].1.is_some().then_some(place)
    }
}

/// The value of a parameter of the statement that is given as it is; None: it is something else.
unsafe fn parameter(item: *mut Node, econtext: *mut pg_sys::ExprContext) -> Option<Option<Datum>> {
    unsafe {
        let param = node::cast::<pg_sys::Param>(item)?;
        let given = (*econtext).ecxt_param_list_info;
        if (*param).paramkind != pg_sys::ParamKind::PARAM_EXTERN
            || given.is_null()
            || (*given).paramFetch.is_some()
            || !(1..=(*given).numParams).contains(&(*param).paramid)
        {
            return None;
        }
        let value = &*(*given).params.as_ptr().add((*param).paramid as usize - 1);
        (value.ptype == (*param).paramtype).then(|| (!value.isnull).then_some(value.value))
    }
}
