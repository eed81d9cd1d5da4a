//! Broadcast: what is small beside the rows on the shards goes to them. The result of a subquery becomes an array
//! parameter; a small operand of a join is computed first and sent as arrays, which the shards unnest.

use crate::error::Result;
use crate::pg::{expr, list, node, types};
use crate::planner::analysis::Analysis;
use crate::planner::decorrelate::duplicates;
use crate::planner::externals::Externals;
use crate::planner::gathered::gathered;
use crate::planner::pieces::{trees, Level, Place};
use crate::planner::{estimate, leaf, route, ship, split};
use crate::settings::{self, JoinStrategy};
use pgrx::pg_sys::{self, CmdType, Node, NodeTag, Query, RTEKind, RangeTblEntry};

mod filter;
mod inner;

pub use inner::subqueries as rows_of_subqueries;

/// So few rows are sent even beside few others.
const FEW_ROWS: f64 = 1000.0;

/// Replaces subqueries in expressions whose rows do not depend on the level's by parameters, where they would keep it
/// from running on the shards.
///
/// # Safety
/// `query` is a SELECT that the caller owns.
pub unsafe fn subqueries(query: *mut Query, externals: &mut Externals) -> Result<()> {
    unsafe {
        let mut failure = None;
        let level = query;
        let mut change = |tree: *mut Node| {
            if failure.is_some() {
                return tree;
            }
            match replaced(tree, level, externals) {
                Ok(tree) => tree,
                Err(error) => {
                    failure = Some(error);
                    tree
                }
            }
        };
        (*query).jointree = change((*query).jointree.cast()).cast();
        (*query).havingQual = change((*query).havingQual);
        (*query).targetList = change((*query).targetList.cast()).cast();
        failure.map_or(Ok(()), Err)
    }
}

unsafe fn replaced(
    tree: *mut Node,
    query: *mut Query,
    externals: &mut Externals,
) -> Result<*mut Node> {
    unsafe {
        if tree.is_null() {
            return Ok(tree);
        }
        if let Some(sublink) = node::cast::<pg_sys::SubLink>(tree) {
            return Ok(value_of(sublink, query, externals)?.unwrap_or(tree));
        }
        // what is evaluated only for some rows stays where it is
        if matches!(
            node::tag(tree),
            NodeTag::T_CaseExpr | NodeTag::T_CoalesceExpr | NodeTag::T_Query
        ) {
            return Ok(tree);
        }
        let mut failure = None;
        let changed = node::map_children(tree, |child| match replaced(child, query, externals) {
            Ok(child) => child,
            Err(error) => {
                failure = Some(error);
                child
            }
        });
        failure.map_or(Ok(changed), Err)
    }
}

/// The value of a subquery that is the same for all rows of the level, as a parameter.
unsafe fn value_of(
    sublink: *mut pg_sys::SubLink,
    query: *mut Query,
    externals: &mut Externals,
) -> Result<Option<*mut Node>> {
    unsafe {
        let subquery = (*sublink).subselect.cast::<Query>();
        if (*subquery).commandType != CmdType::CMD_SELECT || !needs_the_coordinator(subquery)? {
            return Ok(None);
        }
        match (*sublink).subLinkType {
            pg_sys::SubLinkType::EXPR_SUBLINK
            | pg_sys::SubLinkType::EXISTS_SUBLINK
            | pg_sys::SubLinkType::ARRAY_SUBLINK => {
                let value = node::copy(sublink);
                if ship::readable_type(pg_sys::exprType(value.cast())).is_err() {
                    return Ok(None);
                }
                split::transform((*value).subselect.cast())?;
                Ok(Some(externals.stand_in(value.cast())))
            }
            pg_sys::SubLinkType::ANY_SUBLINK if runs_with_others(sublink, query)? => Ok(None),
            pg_sys::SubLinkType::ANY_SUBLINK | pg_sys::SubLinkType::ALL_SUBLINK => {
                element_of(sublink, externals)
            }
            _ => Ok(None),
        }
    }
}

/// Do the rows of a subquery have to come here, and is it the same for every row around it?
unsafe fn needs_the_coordinator(subquery: *mut Query) -> Result<bool> {
    unsafe {
        if split::is_correlated(subquery) || split::reads_outer_cte(subquery) {
            return Ok(false);
        }
        let analysis = Analysis::of(subquery)?;
        Ok(!analysis.distributed.is_empty()
            || analysis.local.is_some()
            || ship::obstacle(subquery.cast()).is_some())
    }
}

/// Is the test a condition of the level that its tables' shards can check, as the subquery's tables are tied to them? Not
/// of groups: how many there are is a guess, and when they are few and known, indexes find what belongs to them.
unsafe fn runs_with_others(sublink: *mut pg_sys::SubLink, query: *mut Query) -> Result<bool> {
    unsafe {
        let subquery = (*sublink).subselect.cast::<Query>();
        let grouped = (*subquery).hasAggs || !(*subquery).groupClause.is_null();
        if grouped || ship::obstacle(sublink.cast()).is_some() {
            return Ok(false);
        }
        let conditions = expr::conjuncts((*(*query).jointree).quals);
        if !conditions.contains(&sublink.cast()) {
            return Ok(false);
        }
        let test = pg_sys::flatten_join_alias_vars(query, node::copy(sublink).cast());
        match Level::of(node::copy(query))? {
            Some(level) => level.runs_beside(test.cast()),
            None => Ok(false),
        }
    }
}

/// `x IN (SELECT …)` as `x = ANY ($n)`, and the like of ALL.
unsafe fn element_of(
    sublink: *mut pg_sys::SubLink,
    externals: &mut Externals,
) -> Result<Option<*mut Node>> {
    unsafe {
        let sublink = node::copy(sublink);
        duplicates::of_in(sublink)?;
        let Some((left, array, any)) = as_array(sublink) else {
            return Ok(None);
        };
        let rows = estimate::rows_of((*sublink).subselect.cast());
        if !is_small(rows, Others::ANY) {
            return Ok(None);
        }
        split::transform((*array).subselect.cast())?;
        let values = externals.stand_in(gathered(array));
        leaf::note_sent(values, &told("a subquery", rows));
        (*any).args = list::from([left, values]);
        Ok(Some(any.cast()))
    }
}

/// The parts of `x = ANY (ARRAY (SELECT …))` for `x IN (SELECT …)`: `x`, the array, and the test without its arguments.
///
/// # Safety
/// `sublink` is a valid one of type ANY or ALL.
pub unsafe fn as_array(
    sublink: *mut pg_sys::SubLink,
) -> Option<(
    *mut Node,
    *mut pg_sys::SubLink,
    *mut pg_sys::ScalarArrayOpExpr,
)> {
    unsafe {
        let test = node::cast::<pg_sys::OpExpr>((*sublink).testexpr)?;
        if list::len((*test).args) != 2 {
            return None;
        }
        let (left, right) = (
            list::nth::<Node>((*test).args, 0),
            list::nth::<Node>((*test).args, 1),
        );
        // a cast of the subquery's column would have to be one of the array
        if node::cast::<pg_sys::Param>(right).is_none() || node::has_sublink(left) {
            return None;
        }
        let subquery = (*sublink).subselect.cast::<Query>();
        let column = list::nth::<pg_sys::TargetEntry>((*subquery).targetList, 0);
        if !travels((*column).expr.cast()) {
            return None;
        }
        let array = node::copy(sublink);
        (*array).subLinkType = pg_sys::SubLinkType::ARRAY_SUBLINK;
        (*array).testexpr = std::ptr::null_mut();
        (*array).operName = std::ptr::null_mut();
        let any = node::make::<pg_sys::ScalarArrayOpExpr>();
        (*any).opno = (*test).opno;
        (*any).opfuncid = (*test).opfuncid;
        (*any).useOr = (*sublink).subLinkType == pg_sys::SubLinkType::ANY_SUBLINK;
        (*any).inputcollid = (*test).inputcollid;
        (*any).location = -1;
        Some((left, array, any))
    }
}

/// Can values of the expression be sent in an array, and mean there what they mean here?
///
/// # Safety
/// `value` is a valid expression.
pub unsafe fn travels(value: *mut Node) -> bool {
    unsafe {
        // Rows that are locked after they were read may have to be read again: what was sent would stay as it was.
        if pg_sys::exprType(value) == pg_sys::TIDOID {
            return false;
        }
        let (type_oid, _, collation) = expr::signature(value);
        types::is_builtin(type_oid)
            && pg_sys::get_array_type(type_oid) != pg_sys::InvalidOid
            && pg_sys::get_element_type(type_oid) == pg_sys::InvalidOid
            && ship::readable_type(type_oid).is_ok()
            && collation == pg_sys::get_typcollation(type_oid)
    }
}

/// Rows on shards that others could be sent to.
#[derive(Clone, Copy)]
struct Others {
    rows: f64,
    /// On so many shard groups, each of which looks at all that is sent.
    groups: f64,
}

impl Others {
    /// Whatever there is, it is more.
    const ANY: Others = Others {
        rows: f64::INFINITY,
        groups: 1.0,
    };

    /// Those of a piece of the level.
    unsafe fn of_piece(level: &Level, piece: &[usize], rows: f64) -> Result<Others> {
        // SAFETY: the part is a valid Query of its own.
        let route = unsafe { route::route(&Analysis::of(level.part(piece, false))?)? };
        let groups = route.map_or(1, |route| match route.single {
            true => 1,
            false => route.colocation.groups.len(),
        });
        Ok(Others {
            rows,
            groups: groups as f64,
        })
    }
}

/// Is the number of rows worth sending beside these? To take a row out of an array and to look at it on a shard costs about
/// half of what it costs to fetch one from there.
fn is_small(rows: f64, others: Others) -> bool {
    let most = f64::from(settings::broadcast_rows());
    let looked_at = rows * (others.groups / 2.0).max(4.0);
    match settings::join_strategy() {
        JoinStrategy::Pull | JoinStrategy::Repartition => false,
        JoinStrategy::Broadcast => rows <= most,
        JoinStrategy::Auto => rows <= most && (rows <= FEW_ROWS || looked_at <= others.rows),
    }
}

/// What EXPLAIN says of rows that are sent.
fn told(what: &str, rows: f64) -> String {
    match settings::join_strategy() {
        JoinStrategy::Auto => format!("{what}, about {} rows", rows.round()),
        _ => format!("{what}, shard_ext.join_strategy is broadcast"),
    }
}

/// Sends small operands of the level's join to the shards of its largest piece. Answers how many rows the smallest
/// operand has that was too large, if there is one.
///
/// # Safety
/// The level's query is owned by the caller.
pub unsafe fn operands(level: &mut Level, externals: &mut Externals) -> Result<Option<f64>> {
    unsafe {
        let strategy = settings::join_strategy();
        if level.pieces.is_empty()
            || matches!(strategy, JoinStrategy::Pull | JoinStrategy::Repartition)
        {
            return Ok(None);
        }
        let too_large = send_small(level, externals)?;
        filter::nullable_sides(level, externals)?;
        Ok(too_large)
    }
}

unsafe fn send_small(level: &mut Level, externals: &mut Externals) -> Result<Option<f64>> {
    unsafe {
        let sizes: Vec<f64> = level
            .pieces
            .iter()
            .map(|piece| level_estimate(level, piece))
            .collect();
        // rows that may be missing are no place to send those to that must not
        let Some(largest) = (0..sizes.len())
            .filter(|index| !level.is_optional_alone(&level.pieces[*index]))
            .max_by(|a, b| sizes[*a].total_cmp(&sizes[*b]))
        else {
            return Ok(None);
        };
        let others = Others::of_piece(level, &level.pieces[largest], sizes[largest])?;
        let mut too_large: Option<f64> = None;
        let mut candidates: Vec<(f64, Vec<usize>)> = Vec::new();
        for (index, piece) in level.pieces.iter().enumerate() {
            if index != largest {
                candidates.push((sizes[index], piece.clone()));
            }
        }
        level.pieces.swap(0, largest);
        for item in 0..level.items.len() {
            if !level.items[item].node.is_null()
                && level.is_independent(item)
                && level.items[item].place != Place::Shards
                && !level.is_in_piece(item)
            {
                candidates.push((f64::NAN, vec![item]));
            }
        }
        let mut sent = true;
        while sent {
            sent = false;
            // one that is on every node may have joined the piece meanwhile
            candidates.retain(|(_, piece)| !piece.iter().any(|i| level.pieces[0].contains(i)));
            for index in 0..candidates.len() {
                let piece = candidates[index].1.clone();
                if !level.would_join(&level.pieces[0], &piece) {
                    continue;
                }
                if candidates[index].0.is_nan() {
                    candidates[index].0 = level_estimate(level, &piece);
                }
                let rows = candidates[index].0;
                if !is_small(rows, others) && rows.is_finite() {
                    too_large = Some(too_large.map_or(rows, |least| least.min(rows)));
                }
                if !is_small(rows, others)
                    || !level.outputs(&piece).into_iter().all(|unit| travels(unit))
                {
                    continue;
                }
                level.pieces.retain(|other| *other != piece);
                send(level, &piece, rows, level.query, externals)?;
                candidates.remove(index);
                level.attach()?;
                sent = true;
                break;
            }
        }
        Ok(too_large)
    }
}

/// How many rows some items of the level give together, with the conditions that speak of them alone; infinitely many when
/// they cannot be looked at apart from the rest of the statement.
///
/// # Safety
/// The level's query is valid.
pub unsafe fn level_estimate(level: &Level, items: &[usize]) -> f64 {
    unsafe { rows_of_part(level, level.part(items, true)) }
}

/// The same for a part of the level, which the caller owns.
///
/// # Safety
/// As `level_estimate`.
pub unsafe fn rows_of_part(level: &Level, part: *mut Query) -> f64 {
    unsafe {
        // WITH queries that it reads come along
        trees::move_with(part, 1, 0);
        (*part).cteList = node::copy((*level.query).cteList);
        (*part).hasRecursive = (*level.query).hasRecursive;
        (*part).hasModifyingCTE = (*level.query).hasModifyingCTE;
        let follows_itself = list::iter::<RangeTblEntry>((*part).rtable)
            .any(|entry| (*entry).rtekind == RTEKind::RTE_CTE && (*entry).self_reference);
        if follows_itself
            || (*part).hasModifyingCTE
            || trees::refers_outside(part.cast())
            || trees::lacks_with(part)
        {
            return f64::INFINITY;
        }
        estimate::rows_of(part)
    }
}

/// Makes items of a level a WITH query of `owner`, the level or one around it, whose columns the shards get as arrays, of
/// about so many rows.
unsafe fn send(
    level: &mut Level,
    piece: &[usize],
    rows: f64,
    owner: *mut Query,
    externals: &mut Externals,
) -> Result<()> {
    unsafe {
        let text = told(&level.names(piece), rows);
        let taken = level.take_here(piece)?;
        split::transform(taken.query)?;
        let cte = trees::with_query(taken.query);
        externals.add_with(owner, cte);
        let entry = arrays_entry(cte, 1, rows, externals);
        leaf::note_sent((*entry).functions.cast(), &text);
        level.put(entry, &taken, Place::Everywhere);
        Ok(())
    }
}

/// `unnest(columns of a WITH query)`, as a function in FROM of the level `levels - 1` below the one that has the query,
/// which gives about so many rows.
pub unsafe fn arrays_entry(
    cte: *mut pg_sys::CommonTableExpr,
    levels: u32,
    rows: f64,
    externals: &mut Externals,
) -> *mut RangeTblEntry {
    unsafe {
        let mut functions = Vec::new();
        let targets = (*(*cte).ctequery.cast::<Query>()).targetList;
        for (index, target) in list::iter::<pg_sys::TargetEntry>(targets).enumerate() {
            let signature = expr::signature((*target).expr.cast());
            let array = externals.stand_in(array_of(cte, index, levels));
            if let Some(param) = node::cast::<pg_sys::Param>(array) {
                leaf::note_size((*param).paramid, rows);
            }
            functions.push(expr::unnest(array, signature.0, signature.2));
        }
        let entry = node::make::<RangeTblEntry>();
        (*entry).rtekind = RTEKind::RTE_FUNCTION;
        (*entry).functions = list::from(functions);
        (*entry).inFromCl = true;
        (*entry).eref = pg_sys::makeAlias((*cte).ctename, node::copy((*cte).ctecolnames));
        (*entry).alias = node::copy((*entry).eref);
        entry
    }
}

/// The entry of a level `levels` below the one that has the WITH query.
///
/// # Safety
/// `cte` is complete; allocates.
pub unsafe fn with_entry(cte: *mut pg_sys::CommonTableExpr, levels: u32) -> *mut RangeTblEntry {
    unsafe {
        let entry = node::make::<RangeTblEntry>();
        (*entry).rtekind = RTEKind::RTE_CTE;
        (*entry).ctename = (*cte).ctename;
        (*entry).ctelevelsup = levels;
        (*entry).coltypes = node::copy((*cte).ctecoltypes);
        (*entry).coltypmods = node::copy((*cte).ctecoltypmods);
        (*entry).colcollations = node::copy((*cte).ctecolcollations);
        (*entry).inFromCl = true;
        (*entry).eref = pg_sys::makeAlias((*cte).ctename, node::copy((*cte).ctecolnames));
        entry
    }
}

/// `ARRAY(SELECT column FROM cte)`, an expression `levels - 1` below the level that has the WITH query.
unsafe fn array_of(cte: *mut pg_sys::CommonTableExpr, column: usize, levels: u32) -> *mut Node {
    unsafe {
        let target =
            list::nth::<pg_sys::TargetEntry>((*(*cte).ctequery.cast::<Query>()).targetList, column);
        let var = expr::var(1, column as i16 + 1, expr::signature((*target).expr.cast()));
        let value = pg_sys::makeTargetEntry(var.cast(), 1, (*target).resname, false);
        let query = trees::select_from(with_entry(cte, levels), list::from([value]));
        let sublink = node::make::<pg_sys::SubLink>();
        (*sublink).subLinkType = pg_sys::SubLinkType::ARRAY_SUBLINK;
        (*sublink).subselect = query.cast();
        (*sublink).location = -1;
        gathered(sublink)
    }
}
