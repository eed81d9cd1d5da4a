//! What may be evaluated on a worker, and what becomes a parameter: stable expressions without columns are
//! computed once on the coordinator, volatile ones and objects the workers may lack keep the expression here.

mod collation;

use crate::catalog;
use crate::error::{Error, Result};
use crate::pg::node::Step;
use crate::pg::{expr, list, node, types};
use crate::planner::plan::ParamType;
use crate::planner::{leaf, wrapped};
use pgrx::pg_sys::{self, Node, NodeTag, Oid};
use std::ffi::c_void;

pub use collation::{is_other, sorts_otherwise, uses_default_collation, OTHER_COLLATION};

/// A reason in words, for EXPLAIN and for errors.
pub type Reason = String;

/// Why a tree cannot run on workers, or None when it can.
///
/// # Safety
/// `tree` is null, an expression, a list or a Query.
pub unsafe fn obstacle(tree: *mut Node) -> Option<Reason> {
    unsafe { find_obstacle(tree, false) }
}

/// The same for a statement that runs on one shard group whole: there `ctid` and `xmin` mean what they say.
///
/// # Safety
/// As `obstacle`.
pub unsafe fn obstacle_to_routing(tree: *mut Node) -> Option<Reason> {
    unsafe { find_obstacle(tree, true) }
}

unsafe fn find_obstacle(tree: *mut Node, one_shard_group: bool) -> Option<Reason> {
    let mut reason = None;
    unsafe {
        node::walk(
            tree,
            &mut |item, level| match check(item, one_shard_group) {
                _ if names_row_type(item, level) => {
                    reason = Some("the nodes lack the type of a row".to_owned());
                    Step::Stop
                }
                Some(found) => {
                    reason = Some(found);
                    Step::Stop
                }
                // A stable expression without columns becomes a parameter whole, whatever it calls.
                None if is_expression(item) && becomes_parameter(item) => Step::Over,
                None => Step::Into,
            },
        );
    }
    reason
}

unsafe fn check(item: *mut Node, one_shard_group: bool) -> Option<Reason> {
    unsafe {
        if let Some(unknown) = unknown_object(item) {
            return Some(unknown);
        }
        if collation::differs(item) {
            return Some(OTHER_COLLATION.into());
        }
        if is_expression(item) && has_unknown_scale(item) {
            return Some("a node's version lacks the scale of a numeric".into());
        }
        if is_expression(item) && becomes_parameter(item) {
            return type_obstacle(pg_sys::exprType(item));
        }
        match node::tag(item) {
            NodeTag::T_Query => return wrapped::obstacle(item.cast()),
            NodeTag::T_RangeTblEntry => return None,
            NodeTag::T_NextValueExpr => return Some("nextval runs on the coordinator".into()),
            NodeTag::T_ArrayCoerceExpr => {
                let coercion = item.cast::<pg_sys::ArrayCoerceExpr>();
                if (*coercion).resulttypmod >= 0
                    && (*coercion).coerceformat == pg_sys::CoercionForm::COERCE_IMPLICIT_CAST
                {
                    // A cast would cut them.
                    return Some("the length of elements is checked on the coordinator".into());
                }
            }
            NodeTag::T_CurrentOfExpr => {
                return Some("WHERE CURRENT OF names a cursor of the coordinator".into())
            }
            NodeTag::T_SQLValueFunction => {
                return Some("a value of the session is computed on the coordinator".into())
            }
            NodeTag::T_Var => {
                let var = item.cast::<pg_sys::Var>();
                let means_something =
                    one_shard_group && (*var).varattno as i32 != pg_sys::TableOidAttributeNumber;
                let identity = leaf::is_row_identity((*var).varattno) && leaf::reads_row_identity();
                if (*var).varattno < 0 && !means_something && !identity {
                    return Some("a system column means one shard's row only".into());
                }
            }
            NodeTag::T_Const => {
                let constant = item.cast::<pg_sys::Const>();
                if is_object_id_type((*constant).consttype) && !(*constant).constisnull {
                    return Some("an object id is the coordinator's".into());
                }
            }
            NodeTag::T_Param => {
                let param = item.cast::<pg_sys::Param>();
                if (*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN
                    && is_object_id_type((*param).paramtype)
                {
                    return Some("an object id is the coordinator's".into());
                }
            }
            _ => {}
        }
        if let Some(function) = unshippable_function(item) {
            return Some(format!(
                "function {} runs on the coordinator",
                function_name(function)
            ));
        }
        None
    }
}

/// Why the node itself names an object that the nodes of the cluster do not have.
unsafe fn unknown_object(item: *mut Node) -> Option<Reason> {
    unsafe {
        match node::tag(item) {
            NodeTag::T_Const => {
                let constant = item.cast::<pg_sys::Const>();
                if (*constant).consttype == pg_sys::REGCONFIGOID && !(*constant).constisnull {
                    let configuration = Oid::from((*constant).constvalue.value() as u32);
                    if !catalog::configuration_on_nodes(configuration) {
                        return Some("the nodes lack a text search configuration".into());
                    }
                }
                type_obstacle((*constant).consttype)
            }
            NodeTag::T_CollateExpr => {
                let collation = (*item.cast::<pg_sys::CollateExpr>()).collOid;
                (!catalog::collation_on_nodes(collation))
                    .then(|| "the nodes lack a collation".to_owned())
            }
            NodeTag::T_RelabelType => {
                let collation = (*item.cast::<pg_sys::RelabelType>()).resultcollid;
                if !catalog::collation_on_nodes(collation) {
                    return Some("the nodes lack a collation".into());
                }
                type_obstacle(pg_sys::exprType(item))
            }
            NodeTag::T_Param
            | NodeTag::T_CoerceViaIO
            | NodeTag::T_ArrayCoerceExpr
            | NodeTag::T_CoerceToDomain
            | NodeTag::T_ConvertRowtypeExpr
            | NodeTag::T_RowExpr
            | NodeTag::T_ArrayExpr
            | NodeTag::T_FuncExpr => type_obstacle(pg_sys::exprType(item)),
            _ => None,
        }
    }
}

fn type_obstacle(type_oid: Oid) -> Option<Reason> {
    (!catalog::type_on_nodes(type_oid)).then(|| "the nodes lack a type".to_owned())
}

/// Whole rows as columns of a subquery or of another row are deparsed with the name of their type, which for a view is
/// known here only.
unsafe fn names_row_type(item: *mut Node, level: u32) -> bool {
    unsafe {
        let unknown = |value: *mut Node| {
            node::cast::<pg_sys::Var>(value)
                .is_some_and(|var| (*var).varattno == 0 && !catalog::type_on_nodes((*var).vartype))
        };
        if let Some(entry) = node::cast::<pg_sys::TargetEntry>(item) {
            return level > 0 && unknown((*entry).expr.cast());
        }
        node::cast::<pg_sys::RowExpr>(item)
            .is_some_and(|row| list::iter::<Node>((*row).args).any(unknown))
    }
}

/// Is the expression written with a cast to a `numeric` that PostgreSQL 14 does not know, of a negative scale or one greater
/// than the precision, and has a node this version?
unsafe fn has_unknown_scale(item: *mut Node) -> bool {
    unsafe {
        if catalog::nodes_run_at_least(15).unwrap_or(false)
            || node::tag(item) == NodeTag::T_Var
            || !matches!(
                pg_sys::exprType(item),
                pg_sys::NUMERICOID | pg_sys::NUMERICARRAYOID
            )
        {
            return false;
        }
        // as numeric_typmod_precision and numeric_typmod_scale read it
        let typmod = pg_sys::exprTypmod(item) - std::mem::size_of::<i32>() as i32;
        let (precision, scale) = ((typmod >> 16) & 0xffff, ((typmod & 0x7ff) ^ 1024) - 1024);
        typmod >= 0 && !(0..=precision).contains(&scale)
    }
}

fn is_object_id_type(type_oid: Oid) -> bool {
    matches!(
        type_oid,
        pg_sys::REGCLASSOID
            | pg_sys::REGPROCOID
            | pg_sys::REGPROCEDUREOID
            | pg_sys::REGOPEROID
            | pg_sys::REGOPERATOROID
            | pg_sys::REGTYPEOID
            | pg_sys::REGROLEOID
            | pg_sys::REGNAMESPACEOID
            | pg_sys::REGCOLLATIONOID
    )
}

unsafe fn is_expression(item: *mut Node) -> bool {
    !matches!(
        unsafe { node::tag(item) },
        NodeTag::T_Query
            | NodeTag::T_RangeTblEntry
            | NodeTag::T_List
            | NodeTag::T_IntList
            | NodeTag::T_OidList
            | NodeTag::T_TargetEntry
            | NodeTag::T_CaseWhen
            | NodeTag::T_FromExpr
            | NodeTag::T_JoinExpr
            | NodeTag::T_RangeTblRef
            | NodeTag::T_SortGroupClause
            | NodeTag::T_GroupingSet
            | NodeTag::T_WindowClause
            | NodeTag::T_CommonTableExpr
            | NodeTag::T_SetOperationStmt
            | NodeTag::T_RangeTblFunction
            | NodeTag::T_OnConflictExpr
            | NodeTag::T_WithCheckOption
            | NodeTag::T_TableSampleClause
            | NodeTag::T_RowMarkClause
            | NodeTag::T_InferenceElem
            | NodeTag::T_TableFunc
            | NodeTag::T_CTESearchClause
            | NodeTag::T_CTECycleClause
            | NodeTag::T_MergeAction
    )
}

/// Is the expression free of columns, and to be computed once on the coordinator?
unsafe fn becomes_parameter(item: *mut Node) -> bool {
    unsafe {
        match node::tag(item) {
            NodeTag::T_Const | NodeTag::T_Var | NodeTag::T_Param => return false,
            _ => {}
        }
        if depends_on_rows(item)
            || pg_sys::contain_volatile_functions(item)
            || pg_sys::expression_returns_set(item)
        {
            return false;
        }
        pg_sys::contain_mutable_functions(item)
            || has_unshippable_function(item)
            || collation::differs_within(item)
    }
}

/// Does a tree have another value for each row?
///
/// # Safety
/// `tree` is null or a valid expression.
pub unsafe fn depends_on_rows(tree: *mut Node) -> bool {
    unsafe {
        node::walk(tree, &mut |item, _| match node::tag(item) {
            NodeTag::T_Var
            | NodeTag::T_Aggref
            | NodeTag::T_WindowFunc
            | NodeTag::T_GroupingFunc
            | NodeTag::T_SubLink
            | NodeTag::T_Query
            | NodeTag::T_PlaceHolderVar
            | NodeTag::T_SetToDefault
            | NodeTag::T_CaseTestExpr
            | NodeTag::T_CoerceToDomainValue => Step::Stop,
            NodeTag::T_Param => {
                if (*item.cast::<pg_sys::Param>()).paramkind == pg_sys::ParamKind::PARAM_EXTERN {
                    Step::Into
                } else {
                    Step::Stop
                }
            }
            _ => Step::Into,
        })
    }
}

unsafe fn has_unshippable_function(tree: *mut Node) -> bool {
    unsafe {
        node::walk(tree, &mut |item, _| {
            if unshippable_function(item).is_some() {
                Step::Stop
            } else {
                Step::Into
            }
        })
    }
}

/// What is looked for among the functions that a node calls, and what was found.
struct Wanted<'a> {
    is: &'a dyn Fn(Oid) -> bool,
    found: Option<Oid>,
}

unsafe extern "C-unwind" fn function_is_wanted(function: Oid, context: *mut c_void) -> bool {
    // SAFETY: called by check_functions_in_node with the Wanted of called_function.
    unsafe {
        pg_sys::panic::pgrx_extern_c_guard(|| {
            let wanted = &mut *context.cast::<Wanted>();
            if (wanted.is)(function) {
                wanted.found = Some(function);
            }
            wanted.found.is_some()
        })
    }
}

/// The function that this node itself calls and workers should not.
unsafe fn unshippable_function(item: *mut Node) -> Option<Oid> {
    unsafe { called_function(item, &|function| !function_ships(function)) }
}

/// A function that something in the tree calls and for which `is` is true.
///
/// # Safety
/// `tree` is null or a valid expression.
pub unsafe fn function_within(tree: *mut Node, is: &dyn Fn(Oid) -> bool) -> Option<String> {
    let mut found = None;
    unsafe {
        node::walk(tree, &mut |item, _| {
            found = called_function(item, is);
            if found.is_some() {
                Step::Stop
            } else {
                Step::Into
            }
        });
    }
    found.map(function_name)
}

/// A function that this node itself calls and for which `is` is true.
unsafe fn called_function(item: *mut Node, is: &dyn Fn(Oid) -> bool) -> Option<Oid> {
    // SAFETY: item is a valid node.
    if matches!(
        unsafe { node::tag(item) },
        NodeTag::T_Const | NodeTag::T_Var | NodeTag::T_Param | NodeTag::T_List
    ) {
        return None;
    }
    let mut wanted = Wanted { is, found: None };
    // SAFETY: item is a valid node; the callback writes into what is on this stack.
    unsafe {
        pg_sys::check_functions_in_node(item, Some(function_is_wanted), (&raw mut wanted).cast());
    }
    wanted.found
}

/// PostgreSQL's own functions that do not change rows' meaning between servers. Volatile ones run here; stable ones
/// too unless they only read settings that follow the session to the workers.
fn function_ships(function: Oid) -> bool {
    // SAFETY: syscache look-ups.
    unsafe {
        let volatility = pg_sys::func_volatile(function) as u8;
        if volatility == b'v' {
            return false;
        }
        if types::is_builtin(function) {
            return !reads_the_catalog(function)
                && catalog::builtin_function_on_nodes(function).unwrap_or(false);
        }
        volatility == b'i'
            && belongs_to_extension(function)
            && catalog::extension_function_on_nodes(function)
    }
}

/// Stable built-in functions that look into a server's catalogs or files; object ids differ between nodes.
unsafe fn reads_the_catalog(function: Oid) -> bool {
    unsafe {
        if pg_sys::func_volatile(function) as u8 == b'i' {
            return false;
        }
        let name = function_name(function);
        function == Oid::from(pg_sys::F_AGE_XID)
            || name.starts_with("pg_")
            || name.starts_with("has_")
            || name.starts_with("txid_")
            || name.ends_with("_to_xml")
            || name.starts_with("database_to")
            || name.starts_with("to_reg")
            || name.starts_with("reg")
            || name.contains("_description")
            || matches!(
                name.as_str(),
                "format_type"
                    | "mxid_age"
                    | "version"
                    | "current_schema"
                    | "current_schemas"
                    | "current_database"
                    | "inet_server_addr"
                    | "inet_client_addr"
                    | "inet_server_port"
                    | "inet_client_port"
                    | "row_security_active"
                    | "currval"
                    | "lastval"
            )
    }
}

/// Functions of extensions: types of an extension are used by distributed tables only after the extension was
/// created on the nodes.
unsafe fn belongs_to_extension(function: Oid) -> bool {
    unsafe {
        pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function) != pg_sys::InvalidOid
    }
}

fn function_name(function: Oid) -> String {
    // SAFETY: get_func_name answers a palloc'ed string or null.
    unsafe {
        let name = pg_sys::get_func_name(function);
        if name.is_null() {
            return function.to_u32().to_string();
        }
        std::ffi::CStr::from_ptr(name)
            .to_string_lossy()
            .into_owned()
    }
}

/// Collects the parameters of one remote statement while its tree is rewritten.
#[derive(Default)]
pub struct Parameters {
    /// The coordinator's expressions: external Params, stable expressions, constants lifted from the text.
    pub exprs: Vec<*mut Node>,
    pub types: Vec<ParamType>,
}

impl Parameters {
    /// The parameter that stands for `value` in the remote text: `$n`, or `$n::type` for types of the user.
    ///
    /// # Safety
    /// `value` is a valid expression.
    pub unsafe fn parameter(&mut self, value: *mut Node) -> *mut Node {
        unsafe {
            let (type_oid, typmod, collation) = expr::signature(value);
            let known = self.exprs.iter().position(|e| node::equal(*e, value));
            let index = known.unwrap_or_else(|| {
                self.exprs.push(value);
                self.types.push(param_type(type_oid));
                self.exprs.len() - 1
            });
            let number = index as i32 + 1;
            if types::is_builtin(type_oid) {
                let param = expr::param(number, type_oid, typmod, collation);
                return expr::collated(param.cast(), pg_sys::get_typcollation(type_oid));
            }
            let cast = node::make::<pg_sys::CoerceViaIO>();
            (*cast).arg =
                expr::param(number, pg_sys::TEXTOID, -1, pg_sys::DEFAULT_COLLATION_OID).cast();
            (*cast).resulttype = type_oid;
            (*cast).resultcollid = collation;
            (*cast).coerceformat = pg_sys::CoercionForm::COERCE_EXPLICIT_CAST;
            (*cast).location = -1;
            cast.cast()
        }
    }

    /// A parameter of its own for `value`, even when an equal expression is there.
    ///
    /// # Safety
    /// As `parameter`.
    pub unsafe fn fresh(&mut self, value: *mut Node) -> *mut Node {
        unsafe {
            let before = std::mem::take(&mut self.exprs);
            let offset = before.len();
            self.exprs = vec![std::ptr::null_mut(); offset];
            let made = self.parameter(value);
            let added = self.exprs.split_off(offset);
            self.exprs = before;
            self.exprs.extend(added);
            made
        }
    }

    /// Takes a number without an expression: the value comes with the rows.
    pub fn reserve(&mut self) {
        self.exprs.push(std::ptr::null_mut());
        self.types.push(ParamType {
            value: 0,
            declared: 0,
            binary: false,
        });
    }

    /// Index of what `parameter` made.
    ///
    /// # Safety
    /// `made` is an answer of `parameter` or `fresh`.
    pub unsafe fn position_of(&self, made: *mut Node) -> usize {
        unsafe {
            let inner = node::cast::<pg_sys::CoerceViaIO>(made).map_or(made, |c| (*c).arg.cast());
            let inner = node::cast::<pg_sys::CollateExpr>(inner).map_or(inner, |c| (*c).arg.cast());
            node::cast::<pg_sys::Param>(inner).map_or(0, |p| (*p).paramid as usize - 1)
        }
    }

    /// Extracts from the clauses behind an INSERT's rows only.
    ///
    /// # Safety
    /// `query` is an INSERT that the caller owns.
    pub unsafe fn extract_clauses(&mut self, query: *mut pg_sys::Query) {
        unsafe {
            (*query).onConflict = self.change((*query).onConflict.cast(), false).cast();
            (*query).returningList = self.change((*query).returningList.cast(), false).cast();
        }
    }

    /// Index of an expression in `custom_exprs`, added when it is not there (a pruning value).
    ///
    /// # Safety
    /// `value` is a valid expression.
    pub unsafe fn index_of(&self, value: *mut Node) -> Option<usize> {
        self.exprs
            .iter()
            .position(|e| unsafe { node::equal(*e, value) })
    }

    /// Replaces what the coordinator computes in `query` (changed in place) by parameters. With `lift`, constants
    /// compared with columns become parameters too, so that the text is the same for every value.
    ///
    /// # Safety
    /// `query` is a valid Query that the caller owns.
    pub unsafe fn extract(&mut self, query: *mut pg_sys::Query, lift: bool) {
        unsafe { node::map_query(query, |child| self.change(child, lift)) }
    }

    /// The same for an expression; answers the changed copy.
    ///
    /// # Safety
    /// `item` is null or a valid expression.
    pub unsafe fn change(&mut self, item: *mut Node, lift: bool) -> *mut Node {
        unsafe {
            if item.is_null() {
                return item;
            }
            if let Some(query) = node::cast::<pg_sys::Query>(item) {
                self.extract(query, lift);
                return item;
            }
            if let Some(param) = node::cast::<pg_sys::Param>(item) {
                if matches!(
                    (*param).paramkind,
                    pg_sys::ParamKind::PARAM_EXTERN | pg_sys::ParamKind::PARAM_EXEC
                ) {
                    return self.parameter(item);
                }
                return item;
            }
            if is_expression(item) && becomes_parameter(item) {
                return self.parameter(item);
            }
            if lift {
                if let Some(lifted) = self.lift_constants(item) {
                    return lifted;
                }
            }
            node::map_children(item, |child| self.change(child, lift))
        }
    }

    /// `column op constant`: the constant as a parameter.
    unsafe fn lift_constants(&mut self, item: *mut Node) -> Option<*mut Node> {
        unsafe {
            let (_, index, constant) = compared_constant(item)?;
            let changed = node::copy(item.cast::<pg_sys::OpExpr>());
            list::set((*changed).args, index, self.parameter(constant.cast()));
            Some(changed.cast())
        }
    }
}

/// The constant that `item` compares with a column: the list of arguments that it is in, and its place there.
///
/// # Safety
/// `item` is a valid node.
pub unsafe fn compared_constant(
    item: *mut Node,
) -> Option<(*mut pg_sys::List, usize, *mut pg_sys::Const)> {
    unsafe {
        let op = node::cast::<pg_sys::OpExpr>(item)?;
        if list::len((*op).args) != 2 {
            return None;
        }
        let argument = |index| list::nth::<Node>((*op).args, index);
        let index = (0..2).find(|index| {
            node::cast::<pg_sys::Const>(argument(*index)).is_some_and(|c| liftable(c))
        })?;
        node::cast::<pg_sys::Var>(expr::strip_relabel(argument(1 - index)))?;
        Some(((*op).args, index, argument(index).cast()))
    }
}

/// May the constant be a parameter of a remote statement?
///
/// # Safety
/// `constant` is valid.
pub unsafe fn liftable(constant: *mut pg_sys::Const) -> bool {
    unsafe {
        !(*constant).constisnull
            && types::is_builtin((*constant).consttype)
            && (*constant).consttype != pg_sys::UNKNOWNOID
    }
}

/// How values of a type travel as parameters.
pub fn param_type(type_oid: Oid) -> ParamType {
    let builtin = types::is_builtin(type_oid);
    ParamType {
        value: type_oid.to_u32(),
        declared: if builtin { type_oid.to_u32() } else { 0 },
        binary: builtin && types::binary_is_portable(type_oid),
    }
}

/// Fails when a tree names a type whose values cannot be read back from a worker.
pub fn readable_type(type_oid: Oid) -> Result<()> {
    if matches!(
        type_oid,
        pg_sys::RECORDOID | pg_sys::RECORDARRAYOID | pg_sys::UNKNOWNOID
    ) || is_object_id_type(type_oid)
    {
        return Err(Error::refused(
            "a value without a named type cannot be read back from a worker",
            "Cast it to a named type.",
        ));
    }
    Ok(())
}
