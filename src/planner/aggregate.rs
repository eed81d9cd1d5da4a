//! Splits aggregation: the shards compute partial aggregates per group, the coordinator combines them.

use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node, types};
use crate::planner::leaf;
use crate::planner::remote::{self, Order};
use crate::planner::route::Route;
use crate::planner::ship::{self, Reason};
use crate::planner::split;
use pgrx::pg_sys::{self, Aggref, Node, NodeTag, Oid, Query};

/// Object ids of PostgreSQL's own functions and operators, fixed by `pg_proc.dat` and `pg_operator.dat`.
pub mod functions {
    pub const INT8PL: u32 = 463;
    pub const INT8_OF_NUMERIC: u32 = 1779;
    pub const NUMERIC_OF_INT8: u32 = 1781;
    pub const NUMERIC_DIV: u32 = 1727;
    pub const FLOAT8DIV: u32 = 217;
    pub const FLOAT8_OF_INT8: u32 = 482;
    pub const INTERVAL_DIV: u32 = 1326;
    pub const INT8EQ_OPERATOR: u32 = 410;
    pub const INT8EQ: u32 = 467;
}
use functions as f;

/// How the coordinator combines what the shards computed.
enum Combine {
    /// The same aggregate over the partial results.
    Same,
    /// Sum of counts, 0 over nothing.
    Count,
    /// Sum of int8 partial sums, as int8.
    SumInt8,
    /// Sum of sums over sum of counts.
    Average,
}

/// Makes an aggregating level a leaf of partial aggregates below combining ones. None: this level's aggregates
/// do not all split; Some(None): done.
///
/// # Safety
/// `query` is owned by the caller; its FROM is tied and shippable.
pub unsafe fn split(query: *mut Query, route: &Route) -> Result<Option<Option<Reason>>> {
    unsafe {
        let aggregates_at_all = (*query).hasAggs || !(*query).groupClause.is_null();
        if !aggregates_at_all || !(*query).groupingSets.is_null() {
            return Ok(None);
        }
        let (shipped, kept) = split::split_quals((*(*query).jointree).quals);
        if !kept.is_empty() {
            return Ok(None);
        }
        let Some(mut parts) = Parts::collect(query) else {
            return Ok(None);
        };
        // Columns beside the groups (a primary key is grouped by) become groups of their own.
        for tree in split::above(query) {
            if !parts.add_loose_columns(tree) {
                return Ok(None);
            }
        }
        let everything_ships = parts.groups.iter().chain(parts.loose.iter()).all(|g| {
            ship::obstacle(*g).is_none() && ship::readable_type(pg_sys::exprType(*g)).is_ok()
        });
        if !everything_ships
            || parts
                .loose
                .iter()
                .any(|column| !is_groupable(pg_sys::exprType(*column)))
        {
            return Ok(None);
        }

        let inner: *mut Query = node::copy(query);
        let group_clauses = (*inner).groupClause;
        split::strip_above(inner);
        (*(*inner).jointree).quals = split::conjunction(&shipped);
        let mut units: Vec<*mut Node> = parts.groups.clone();
        units.extend(parts.loose.iter().copied());
        let group_columns = units.len();
        units.extend(parts.partials());
        (*inner).targetList = split::targets(&units);
        (*inner).hasAggs = true;
        (*inner).groupClause = regroup(group_clauses, (*inner).targetList, &parts);
        let order = Order::default();
        let remote = remote::finish(inner, route, order, String::new())?;
        let columns = remote.columns.clone();
        let entry = leaf::placeholder(remote, false);

        parts.rewrite_above(query, group_columns, &columns);
        leaf::from_leaf(query, entry, std::ptr::null_mut());
        (*query).hasSubLinks = false;
        (*query).hasAggs = (*query).hasAggs || !parts.aggregates.is_empty();
        Ok(Some(None))
    }
}

/// Group clauses for the leaf: the level's own, over the first columns, then one per loose column.
unsafe fn regroup(
    clauses: *mut pg_sys::List,
    targets: *mut pg_sys::List,
    parts: &Parts,
) -> *mut pg_sys::List {
    unsafe {
        let mut result = Vec::new();
        for (index, clause) in list::iter::<pg_sys::SortGroupClause>(clauses).enumerate() {
            let clause = node::copy(clause);
            (*clause).tleSortGroupRef = index as u32 + 1;
            let entry = list::nth::<pg_sys::TargetEntry>(targets, index);
            (*entry).ressortgroupref = index as u32 + 1;
            result.push(clause);
        }
        for (index, column) in parts.loose.iter().enumerate() {
            let position = parts.groups.len() + index;
            let entry = list::nth::<pg_sys::TargetEntry>(targets, position);
            (*entry).ressortgroupref = position as u32 + 1;
            result.push(group_clause(pg_sys::exprType(*column), position as u32 + 1));
        }
        list::from(result)
    }
}

unsafe fn group_clause(type_oid: Oid, reference: u32) -> *mut pg_sys::SortGroupClause {
    unsafe {
        let flags =
            pg_sys::TYPECACHE_LT_OPR | pg_sys::TYPECACHE_EQ_OPR | pg_sys::TYPECACHE_HASH_PROC;
        let cache = pg_sys::lookup_type_cache(type_oid, flags as i32);
        let clause = node::make::<pg_sys::SortGroupClause>();
        (*clause).tleSortGroupRef = reference;
        (*clause).eqop = (*cache).eq_opr;
        (*clause).sortop = (*cache).lt_opr;
        (*clause).hashable = (*cache).hash_proc != pg_sys::InvalidOid;
        clause
    }
}

unsafe fn is_groupable(type_oid: Oid) -> bool {
    unsafe {
        (*pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_EQ_OPR as i32)).eq_opr
            != pg_sys::InvalidOid
    }
}

struct Parts {
    groups: Vec<*mut Node>,
    loose: Vec<*mut Node>,
    aggregates: Vec<(*mut Aggref, Combine)>,
}

impl Parts {
    /// The groups and aggregates of a level, when each aggregate splits.
    unsafe fn collect(query: *mut Query) -> Option<Parts> {
        unsafe {
            let groups = list::iter::<pg_sys::SortGroupClause>((*query).groupClause)
                .map(|clause| pg_sys::get_sortgroupclause_expr(clause, (*query).targetList))
                .collect();
            let mut parts = Parts {
                groups,
                loose: Vec::new(),
                aggregates: Vec::new(),
            };
            let mut fits = true;
            for tree in split::above(query) {
                node::walk(tree, &mut |item, _| match node::tag(item) {
                    NodeTag::T_Aggref => {
                        let aggregate = item.cast::<Aggref>();
                        match combine(aggregate) {
                            Some(how) => {
                                if !parts
                                    .aggregates
                                    .iter()
                                    .any(|(known, _)| node::equal(*known, aggregate))
                                {
                                    parts.aggregates.push((aggregate, how));
                                }
                                Step::Over
                            }
                            None => {
                                fits = false;
                                Step::Stop
                            }
                        }
                    }
                    NodeTag::T_SubLink | NodeTag::T_GroupingFunc => {
                        fits = false;
                        Step::Stop
                    }
                    _ => Step::Into,
                });
            }
            fits.then_some(parts)
        }
    }

    /// Columns outside of groups and aggregates; false when there is something else that needs rows.
    unsafe fn add_loose_columns(&mut self, tree: *mut Node) -> bool {
        unsafe {
            if tree.is_null() {
                return true;
            }
            let (groups, aggregates) = (&self.groups, &self.aggregates);
            let loose = &mut self.loose;
            !node::walk(tree, &mut |item, _| {
                if groups.iter().any(|g| node::equal(*g, item))
                    || aggregates
                        .iter()
                        .any(|(a, _)| node::equal(*a, item.cast::<Aggref>()))
                {
                    return Step::Over;
                }
                match node::tag(item) {
                    NodeTag::T_Var => {
                        if (*item.cast::<pg_sys::Var>()).varattno <= 0 {
                            return Step::Stop;
                        }
                        if !loose.iter().any(|l| node::equal(*l, item)) {
                            loose.push(item);
                        }
                        Step::Over
                    }
                    NodeTag::T_Query => Step::Stop,
                    _ => Step::Into,
                }
            })
        }
    }

    /// The aggregates that the shards compute, in the order of `aggregates`; an average takes two.
    unsafe fn partials(&self) -> Vec<*mut Node> {
        let mut partials: Vec<*mut Node> = Vec::new();
        for (aggregate, how) in &self.aggregates {
            unsafe {
                match how {
                    Combine::Average => {
                        partials.push(renamed(*aggregate, "sum", *aggregate).cast());
                        partials.push(renamed(*aggregate, "count", *aggregate).cast());
                    }
                    _ => partials.push(node::copy(*aggregate).cast()),
                }
            }
        }
        partials
    }

    unsafe fn rewrite_above(
        &self,
        query: *mut Query,
        group_columns: usize,
        columns: &[(Oid, i32, Oid)],
    ) {
        unsafe {
            let rewrite = |tree: *mut Node| self.rewrite(tree, group_columns, columns);
            (*query).targetList = rewrite((*query).targetList.cast()).cast();
            for entry in list::iter::<pg_sys::TargetEntry>((*query).targetList) {
                (*entry).resorigtbl = pg_sys::InvalidOid;
                (*entry).resorigcol = 0;
            }
            (*query).havingQual = rewrite((*query).havingQual);
            (*query).windowClause = rewrite((*query).windowClause.cast()).cast();
            self.group_by_loose_columns(query);
        }
    }

    /// The level above groups by the loose columns too: PostgreSQL would not know that they depend on the key.
    unsafe fn group_by_loose_columns(&self, query: *mut Query) {
        unsafe {
            for (index, column) in self.loose.iter().enumerate() {
                let value = expr::var(
                    1,
                    (self.groups.len() + index) as i16 + 1,
                    expr::signature(*column),
                );
                let entry = pg_sys::makeTargetEntry(
                    value.cast(),
                    list::len((*query).targetList) as i16 + 1,
                    node::pstrdup("group"),
                    true,
                );
                let reference = list::iter::<pg_sys::TargetEntry>((*query).targetList)
                    .map(|e| (*e).ressortgroupref)
                    .max()
                    .unwrap_or(0)
                    + 1;
                (*entry).ressortgroupref = reference;
                (*query).targetList = pg_sys::lappend((*query).targetList, entry.cast());
                (*query).groupClause = pg_sys::lappend(
                    (*query).groupClause,
                    group_clause(pg_sys::exprType(*column), reference).cast(),
                );
            }
        }
    }

    unsafe fn rewrite(
        &self,
        tree: *mut Node,
        group_columns: usize,
        columns: &[(Oid, i32, Oid)],
    ) -> *mut Node {
        unsafe {
            if tree.is_null() {
                return tree;
            }
            for (index, unit) in self.groups.iter().chain(self.loose.iter()).enumerate() {
                if node::equal(*unit, tree) {
                    return expr::var(1, index as i16 + 1, expr::signature(tree)).cast();
                }
            }
            if let Some(aggregate) = node::cast::<Aggref>(tree) {
                let mut column = group_columns;
                for (known, how) in &self.aggregates {
                    if node::equal(*known, aggregate) {
                        return combined(aggregate, how, column, columns);
                    }
                    column += if matches!(how, Combine::Average) {
                        2
                    } else {
                        1
                    };
                }
            }
            node::map_children(tree, |child| self.rewrite(child, group_columns, columns))
        }
    }
}

/// How an aggregate splits, if it does.
unsafe fn combine(aggregate: *mut Aggref) -> Option<Combine> {
    unsafe {
        let a = &*aggregate;
        if !a.aggdistinct.is_null()
            || !a.aggorder.is_null()
            || a.agglevelsup != 0
            || a.aggkind as u8 != b'n'
            || !types::is_builtin(a.aggfnoid)
        {
            return None;
        }
        if ship::obstacle(a.args.cast()).is_some() || ship::obstacle(a.aggfilter.cast()).is_some() {
            return None;
        }
        let name = std::ffi::CStr::from_ptr(pg_sys::get_func_name(a.aggfnoid))
            .to_string_lossy()
            .into_owned();
        match name.as_str() {
            "count" => Some(Combine::Count),
            "sum" => Some(match list::oids(a.aggargtypes).first().copied() {
                Some(pg_sys::INT2OID | pg_sys::INT4OID) => Combine::SumInt8,
                _ => Combine::Same,
            }),
            "avg" => Some(Combine::Average),
            "min" | "max" | "bool_and" | "bool_or" | "every" | "bit_and" | "bit_or" | "bit_xor" => {
                // min(anyarray) and the like come back as the argument's type.
                ship::readable_type(a.aggtype)
                    .is_ok()
                    .then_some(Combine::Same)
            }
            _ => None,
        }
    }
}

/// A partial aggregate of another name over the same rows: `sum` and `count` for an average.
unsafe fn renamed(aggregate: *mut Aggref, name: &str, like: *mut Aggref) -> *mut Aggref {
    unsafe {
        let copy = node::copy(aggregate);
        let argument = list::oids((*like).aggargtypes)[0];
        let (function, result) = if name == "count" {
            (aggregate_function("count", pg_sys::ANYOID), pg_sys::INT8OID)
        } else {
            let function = aggregate_function(name, argument);
            (function, pg_sys::get_func_rettype(function))
        };
        (*copy).aggfnoid = function;
        (*copy).aggtype = result;
        (*copy).aggcollid = pg_sys::InvalidOid;
        (*copy).aggtranstype = pg_sys::InvalidOid;
        if name == "count" {
            (*copy).aggargtypes = list::from_oids([argument]);
        }
        copy
    }
}

unsafe fn aggregate_function(name: &str, argument: Oid) -> Oid {
    unsafe {
        let qualified = list::from([
            pg_sys::makeString(node::pstrdup("pg_catalog")),
            pg_sys::makeString(node::pstrdup(name)),
        ]);
        pg_sys::LookupFuncName(qualified, 1, &argument, false)
    }
}

/// A new aggregate of `function` over one column of the leaf.
unsafe fn over(
    name: &str,
    column: usize,
    columns: &[(Oid, i32, Oid)],
    input_collation: Oid,
) -> *mut Aggref {
    unsafe {
        let signature = columns[column];
        let argument_type = signature.0;
        // Polymorphic aggregates (min over enums, arrays) are found under their declared type.
        let function = match polymorphic(name, argument_type) {
            Some(declared) => aggregate_function(name, declared),
            None => aggregate_function(name, argument_type),
        };
        let aggregate = node::make::<Aggref>();
        (*aggregate).aggfnoid = function;
        (*aggregate).aggtype = if polymorphic(name, argument_type).is_some() {
            argument_type
        } else {
            pg_sys::get_func_rettype(function)
        };
        (*aggregate).aggcollid = if pg_sys::type_is_collatable((*aggregate).aggtype) {
            signature.2
        } else {
            pg_sys::InvalidOid
        };
        (*aggregate).inputcollid = input_collation;
        (*aggregate).aggargtypes = list::from_oids([argument_type]);
        let value = expr::var(1, column as i16 + 1, signature);
        (*aggregate).args = list::from([pg_sys::makeTargetEntry(
            value.cast(),
            1,
            std::ptr::null_mut(),
            false,
        )]);
        (*aggregate).aggkind = b'n' as std::ffi::c_char;
        (*aggregate).aggsplit = pg_sys::AggSplit::AGGSPLIT_SIMPLE;
        (*aggregate).aggno = -1;
        (*aggregate).aggtransno = -1;
        (*aggregate).location = -1;
        aggregate
    }
}

/// The declared argument type of min and max over enums and arrays.
unsafe fn polymorphic(name: &str, argument: Oid) -> Option<Oid> {
    unsafe {
        if name != "min" && name != "max" {
            return None;
        }
        if pg_sys::type_is_enum(argument) {
            Some(pg_sys::ANYENUMOID)
        } else if pg_sys::get_element_type(argument) != pg_sys::InvalidOid {
            Some(pg_sys::ANYARRAYOID)
        } else {
            None
        }
    }
}

unsafe fn call(function: u32, result: Oid, args: Vec<*mut Node>) -> *mut Node {
    unsafe {
        pg_sys::makeFuncExpr(
            function.into(),
            result,
            list::from(args),
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        )
        .cast()
    }
}

/// The expression over the leaf's columns that takes the place of an aggregate.
unsafe fn combined(
    aggregate: *mut Aggref,
    how: &Combine,
    column: usize,
    columns: &[(Oid, i32, Oid)],
) -> *mut Node {
    unsafe {
        let collation = (*aggregate).inputcollid;
        match how {
            Combine::Same => {
                let name = std::ffi::CStr::from_ptr(pg_sys::get_func_name((*aggregate).aggfnoid))
                    .to_string_lossy()
                    .into_owned();
                over(&name, column, columns, collation).cast()
            }
            Combine::SumInt8 => sum_of_int8(column, columns),
            Combine::Count => {
                let coalesce = pg_sys::palloc0(std::mem::size_of::<pg_sys::CoalesceExpr>())
                    .cast::<pg_sys::CoalesceExpr>();
                (*coalesce).xpr.type_ = NodeTag::T_CoalesceExpr;
                (*coalesce).coalescetype = pg_sys::INT8OID;
                (*coalesce).args =
                    list::from([sum_of_int8(column, columns), expr::int8(0).cast::<Node>()]);
                (*coalesce).location = -1;
                coalesce.cast()
            }
            Combine::Average => average(aggregate, column, columns),
        }
    }
}

unsafe fn sum_of_int8(column: usize, columns: &[(Oid, i32, Oid)]) -> *mut Node {
    unsafe {
        let sum = over("sum", column, columns, pg_sys::InvalidOid);
        call(f::INT8_OF_NUMERIC, pg_sys::INT8OID, vec![sum.cast()])
    }
}

/// `sum / nullif(count, 0)` in the type of the average.
unsafe fn average(aggregate: *mut Aggref, column: usize, columns: &[(Oid, i32, Oid)]) -> *mut Node {
    unsafe {
        let sum: *mut Node = over("sum", column, columns, pg_sys::InvalidOid).cast();
        // NullIfExpr is OpExpr under another tag.
        let nullif = node::make::<pg_sys::OpExpr>();
        (*nullif).xpr.type_ = NodeTag::T_NullIfExpr;
        (*nullif).opno = f::INT8EQ_OPERATOR.into();
        (*nullif).opfuncid = f::INT8EQ.into();
        (*nullif).opresulttype = pg_sys::INT8OID;
        (*nullif).args = list::from([
            sum_of_int8(column + 1, columns),
            expr::int8(0).cast::<Node>(),
        ]);
        (*nullif).location = -1;
        let count: *mut Node = nullif.cast();
        match (*aggregate).aggtype {
            pg_sys::FLOAT8OID => {
                let sum = if pg_sys::exprType(sum) == pg_sys::FLOAT4OID {
                    // float4 to float8
                    call(311, pg_sys::FLOAT8OID, vec![sum])
                } else {
                    sum
                };
                let count = call(f::FLOAT8_OF_INT8, pg_sys::FLOAT8OID, vec![count]);
                call(f::FLOAT8DIV, pg_sys::FLOAT8OID, vec![sum, count])
            }
            pg_sys::INTERVALOID => {
                let count = call(f::FLOAT8_OF_INT8, pg_sys::FLOAT8OID, vec![count]);
                call(f::INTERVAL_DIV, pg_sys::INTERVALOID, vec![sum, count])
            }
            _ => {
                let sum = if pg_sys::exprType(sum) == pg_sys::INT8OID {
                    call(f::NUMERIC_OF_INT8, pg_sys::NUMERICOID, vec![sum])
                } else {
                    sum
                };
                let count = call(f::NUMERIC_OF_INT8, pg_sys::NUMERICOID, vec![count]);
                call(f::NUMERIC_DIV, pg_sys::NUMERICOID, vec![sum, count])
            }
        }
    }
}
