//! Rewrites a query that is not routed: each level whose tables are tied becomes a leaf, with what must be done
//! over all shards (aggregates, DISTINCT, ORDER BY, LIMIT) left above it for PostgreSQL's planner.

mod units;

use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::aggregate;
use crate::planner::analysis::Analysis;
use crate::planner::broadcast;
use crate::planner::decorrelate::{self, duplicates};
use crate::planner::externals::Externals;
use crate::planner::insert_select;
use crate::planner::leaf;
use crate::planner::locks;
use crate::planner::merge;
use crate::planner::not_in;
use crate::planner::pieces::{trees, Level};
use crate::planner::plan::SortKey;
use crate::planner::remote::{self, Order};
use crate::planner::repartition;
use crate::planner::route::{self, Route};
use crate::planner::rowmarks;
use crate::planner::ship::{self, Reason};
use crate::planner::wrapped;
use crate::settings::{self, JoinStrategy};
use pgrx::pg_sys::{self, Node, NodeTag, Query, RTEKind};
use units::replace_above;
pub use units::{above, collect_units, replace, targets};

/// Puts leaves into `query` (changed in place), as large as they can be.
///
/// # Safety
/// `query` is a valid Query that the caller owns; a `leaf::Session` is open.
pub unsafe fn transform(query: *mut Query) -> Result<()> {
    unsafe {
        if !super::mentions_distributed(query) {
            return Ok(());
        }
        if locks::concern(query)? && locks::make_explicit(query) {
            if leaf::locks_optional_rows() && merge::locks_optional_rows(query) {
                return locks::lock_above(query);
            }
            return match split_level(query, Mode::Locking)? {
                None => Ok(()),
                Some(_) => locks::lock_above(query),
            };
        }
        let apart = rowmarks::wrap(query)?;
        locks::leave_to_subqueries(query)?;
        if let Some(reason) = split_level(query, Mode::Plain)? {
            if can_be_taken_apart(query) {
                split_joins(query, reason)?;
            } else if decorrelate::concerns(query) {
                take_subqueries_out(query)?;
            }
            duplicates::leave_away(query)?;
            transform_children(query)?;
        }
        rowmarks::keep_apart(&apart);
        Ok(())
    }
}

/// Puts leaves into a level that gives candidates for a lock; with `lock`, that asks for some of them at a time.
///
/// # Safety
/// As `transform`; the level has no LIMIT.
pub unsafe fn transform_candidates(query: *mut Query, lock: Option<u32>) -> Result<()> {
    unsafe {
        let Some(lock) = lock else {
            return transform(query);
        };
        (*query).limitCount = expr::int8(0).cast();
        let done = split_level(query, Mode::Candidates(lock))?.is_none();
        (*query).limitCount = std::ptr::null_mut();
        if done {
            return Ok(());
        }
        transform_children(query)
    }
}

/// What a level is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    /// Shards lock the rows that they return.
    Locking,
    /// The rows are candidates for the lock of this number.
    Candidates(u32),
}

impl Mode {
    fn candidates(self) -> Option<u32> {
        match self {
            Mode::Candidates(lock) => Some(lock),
            _ => None,
        }
    }
}

/// Makes a subquery that `pieces` made a leaf.
///
/// # Safety
/// As `transform`.
pub unsafe fn transform_piece(query: *mut Query) -> Result<()> {
    unsafe {
        match split_level(query, Mode::Plain)? {
            None => Ok(()),
            Some(_) => transform_children(query),
        }
    }
}

/// Is it a SELECT of which a FROM item names a distributed table, without row locks?
unsafe fn can_be_taken_apart(query: *mut Query) -> bool {
    unsafe {
        (*query).commandType == pg_sys::CmdType::CMD_SELECT
            && (*query).rowMarks.is_null()
            && list::iter::<pg_sys::RangeTblEntry>((*query).rtable).any(|entry| {
                match (*entry).rtekind {
                    RTEKind::RTE_RELATION => super::is_distributed((*entry).relid),
                    RTEKind::RTE_SUBQUERY => super::mentions_distributed((*entry).subquery),
                    _ => false,
                }
            })
    }
}

/// Sends what is small to the shards; then the level may be a leaf after all. Otherwise the largest pieces of its FROM
/// are leaves, and PostgreSQL joins them. `reason` says why the level is no leaf as it is.
unsafe fn split_joins(query: *mut Query, reason: Reason) -> Result<()> {
    unsafe {
        let mut externals = Externals::default();
        not_in::beside_rows(query)?;
        broadcast::subqueries(query, &mut externals)?;
        if not_in::all(query) {
            broadcast::subqueries(query, &mut externals)?;
        }
        let mut done = !externals.is_empty() && split_whole(query)?;
        if !done {
            if let Some(mut level) = Level::of(query)? {
                broadcast::rows_of_subqueries(&mut level, &mut externals)?;
                if decorrelate::subqueries(&mut level, &mut externals)? {
                    externals.restore(query);
                    return Ok(());
                }
                let too_large = broadcast::operands(&mut level, &mut externals)?;
                level.rebuild();
                done = level.is_one_piece() && split_whole(query)?
                    || repartition::pieces(&mut level, &mut externals)?;
                if !done {
                    if level.is_join() {
                        leaf::note_joined(query, why_here(reason, too_large));
                    }
                    level.make_subqueries()?;
                }
            }
        }
        externals.restore(query);
        Ok(())
    }
}

/// What EXPLAIN says of a join that PostgreSQL makes here; `too_large` is how many rows its smaller side has, if it was
/// looked at.
fn why_here(reason: Reason, too_large: Option<f64>) -> String {
    match (settings::join_strategy(), too_large) {
        (JoinStrategy::Pull, _) => format!("{reason}; shard_ext.join_strategy is pull"),
        (_, Some(rows)) => format!("{reason}; the smaller side has about {} rows", rows.round()),
        _ => reason,
    }
}

/// Has subqueries that read distributed tables answer for all rows of a level that is here.
unsafe fn take_subqueries_out(query: *mut Query) -> Result<()> {
    unsafe {
        let mut externals = Externals::default();
        not_in::all(query);
        if let Some(mut level) = Level::of(query)? {
            decorrelate::subqueries(&mut level, &mut externals)?;
        }
        externals.restore(query);
        Ok(())
    }
}

/// `split_level`, with the WITH queries kept that values sent to the leaf may read.
///
/// # Safety
/// As `transform`.
pub unsafe fn split_whole(query: *mut Query) -> Result<bool> {
    unsafe {
        let with = (*query).cteList;
        let recursive = (*query).hasRecursive;
        (*query).cteList = trees::live_with(query);
        let done = split_level(query, Mode::Plain)?.is_none();
        (*query).cteList = with;
        (*query).hasRecursive = recursive;
        Ok(done)
    }
}

unsafe fn transform_children(query: *mut Query) -> Result<()> {
    unsafe {
        for child in node::queries_below(query) {
            transform(child)?;
        }
        Ok(())
    }
}

/// Does the query use columns of levels above it?
pub unsafe fn is_correlated(query: *mut Query) -> bool {
    unsafe {
        node::walk(query.cast(), &mut |item, level| {
            // `level` counts queries entered, the outermost one included.
            let up = match node::tag(item) {
                NodeTag::T_Var => (*item.cast::<pg_sys::Var>()).varlevelsup,
                NodeTag::T_Aggref => (*item.cast::<pg_sys::Aggref>()).agglevelsup,
                _ => return Step::Into,
            };
            if up >= level && level > 0 && up > level - 1 {
                Step::Stop
            } else {
                Step::Into
            }
        })
    }
}

/// Does the query read a WITH query of a level above it?
pub unsafe fn reads_outer_cte(query: *mut Query) -> bool {
    unsafe {
        node::walk(query.cast(), &mut |item, level| {
            if let Some(q) = node::cast::<Query>(item) {
                for rte in list::iter::<pg_sys::RangeTblEntry>((*q).rtable) {
                    if (*rte).rtekind == RTEKind::RTE_CTE && (*rte).ctelevelsup > level {
                        return Step::Stop;
                    }
                }
            }
            Step::Into
        })
    }
}

/// Tries to make this level a leaf; answers why it could not.
unsafe fn split_level(query: *mut Query, mode: Mode) -> Result<Option<Reason>> {
    unsafe {
        let refuse = |reason: &str| Ok(Some(reason.to_owned()));
        if (*query).commandType != pg_sys::CmdType::CMD_SELECT {
            return refuse("it changes rows");
        }
        if let Some(reason) = wrapped::obstacle(query) {
            return Ok(Some(reason));
        }
        if is_correlated(query) || reads_outer_cte(query) {
            return refuse("it uses columns of the query around it");
        }
        if !(*query).rowMarks.is_null() && mode != Mode::Locking {
            return refuse("it locks rows");
        }
        let analysis = Analysis::of(query)?;
        let Some(route) = route::route(&analysis)? else {
            return refuse("nothing in it is distributed");
        };
        if let Some(reason) = analysis.local.clone() {
            return Ok(Some(reason));
        }
        if route.colocation.groups.is_empty() {
            return refuse("its tables have no shards");
        }
        if !route.single {
            if let Some(reason) = analysis.scatter_obstacle() {
                return Ok(Some(reason));
            }
        }
        if let Some(reason) = obstacle_below(query) {
            return Ok(Some(reason));
        }
        let limited = !(*query).limitCount.is_null() || !(*query).limitOffset.is_null();
        if mode == Mode::Locking && limited && !route.single {
            return refuse("LIMIT takes some of the rows of all shards");
        }
        let limited_by_subquery =
            node::has_sublink((*query).limitCount) || node::has_sublink((*query).limitOffset);
        if !route.single && limited_by_subquery {
            return refuse("the coordinator computes LIMIT by a subquery");
        }
        // Shards sort for windows, DISTINCT ON and, where there is only one, for the level itself.
        let sorts_for_good =
            route.single || (*query).hasDistinctOn || !(*query).windowClause.is_null();
        let sorted_here = sorts_for_good && ship::sorts_otherwise(query);
        if !(*query).setOperations.is_null() {
            if sorted_here {
                return refuse(ship::OTHER_COLLATION);
            }
            return whole(query, &route, mode);
        }
        if !route.single && hands_on_order(query) {
            return refuse("its rows come in the order of a subquery");
        }
        if shippable_above(query)
            && !sorted_here
            && (route.single || keeps_groups_whole(query, &analysis))
        {
            return whole(query, &route, mode);
        }
        if limited_by_subquery {
            return refuse("the coordinator computes LIMIT by a subquery");
        }
        if !route.single && aggregate::shows_order_of_subquery(query) {
            return refuse("an aggregate takes its rows in the order of a subquery");
        }
        if let Some(done) = aggregate::split(query, &analysis, &route)? {
            return Ok(done);
        }
        if mode == Mode::Plain {
            if let Some(done) = aggregate::split_distinct(query, &analysis, &route)? {
                return Ok(done);
            }
        }
        ship_rows(query, &route, mode)
    }
}

/// What prevents FROM, WITH and the join conditions from running on workers. The top WHERE is not looked at.
pub unsafe fn obstacle_below(query: *mut Query) -> Option<Reason> {
    unsafe {
        for rte in list::iter::<pg_sys::RangeTblEntry>((*query).rtable) {
            let found = match (*rte).rtekind {
                RTEKind::RTE_SUBQUERY => ship::obstacle((*rte).subquery.cast()),
                RTEKind::RTE_FUNCTION => ship::obstacle((*rte).functions.cast()),
                RTEKind::RTE_VALUES => ship::obstacle((*rte).values_lists.cast()),
                RTEKind::RTE_TABLEFUNC => ship::obstacle((*rte).tablefunc.cast()),
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
        if let Some(found) = ship::obstacle((*query).cteList.cast()) {
            return Some(found);
        }
        if !(*query).setOperations.is_null() {
            return None;
        }
        for item in list::iter::<Node>((*(*query).jointree).fromlist) {
            if let Some(found) = ship::obstacle(item) {
                return Some(found);
            }
        }
        None
    }
}

/// Do the level's rows come in the order of a sorted subquery, all that it reads?
unsafe fn hands_on_order(query: *mut Query) -> bool {
    unsafe {
        (*query).sortClause.is_null()
            && !(*query).hasAggs
            && (*query).groupClause.is_null()
            && (*query).groupingSets.is_null()
            && (*query).havingQual.is_null()
            && (*query).distinctClause.is_null()
            && list::len((*(*query).jointree).fromlist) == 1
            && node::cast::<pg_sys::RangeTblRef>(list::nth::<Node>(
                (*(*query).jointree).fromlist,
                0,
            ))
            .is_some()
            && reads_sorted_subquery(query)
    }
}

/// Does a subquery in FROM, at any depth, sort its rows?
pub unsafe fn reads_sorted_subquery(query: *mut Query) -> bool {
    unsafe {
        list::iter::<pg_sys::RangeTblEntry>((*query).rtable)
            .filter(|rte| (**rte).rtekind == RTEKind::RTE_SUBQUERY && !(**rte).subquery.is_null())
            .any(|rte| {
                !(*(*rte).subquery).sortClause.is_null() || reads_sorted_subquery((*rte).subquery)
            })
    }
}

/// May everything above FROM run on workers as well?
unsafe fn shippable_above(query: *mut Query) -> bool {
    unsafe {
        let trees: [*mut Node; 6] = [
            (*query).targetList.cast(),
            (*(*query).jointree).quals,
            (*query).havingQual,
            (*query).windowClause.cast(),
            (*query).limitCount,
            (*query).limitOffset,
        ];
        trees.into_iter().all(|tree| ship::obstacle(tree).is_none())
            && !insert_select::assigns_part((*query).targetList.cast())
            && list::iter::<pg_sys::TargetEntry>((*query).targetList)
                .all(|entry| ship::readable_type(pg_sys::exprType((*entry).expr.cast())).is_ok())
    }
}

/// Does no group, duplicate or window frame of this level span shards?
unsafe fn keeps_groups_whole(query: *mut Query, analysis: &Analysis) -> bool {
    unsafe {
        let exprs = |clauses: *mut pg_sys::List| -> Vec<*mut Node> {
            list::iter::<pg_sys::SortGroupClause>(clauses)
                .map(|clause| pg_sys::get_sortgroupclause_expr(clause, (*query).targetList))
                .collect()
        };
        if !(*query).groupingSets.is_null() {
            return false;
        }
        let aggregates =
            (*query).hasAggs || !(*query).groupClause.is_null() || !(*query).havingQual.is_null();
        if aggregates && !analysis.contains_key(query, &exprs((*query).groupClause)) {
            return false;
        }
        if !(*query).distinctClause.is_null()
            && !analysis.contains_key(query, &exprs((*query).distinctClause))
        {
            return false;
        }
        list::iter::<pg_sys::WindowClause>((*query).windowClause)
            .all(|window| analysis.contains_key(query, &exprs((*window).partitionClause)))
    }
}

/// The whole level runs on the shards; above it remain ORDER BY and LIMIT.
unsafe fn whole(query: *mut Query, route: &Route, mode: Mode) -> Result<Option<Reason>> {
    unsafe {
        if (*query).setOperations.is_null() {
            for entry in list::iter::<pg_sys::TargetEntry>((*query).targetList) {
                if ship::readable_type(pg_sys::exprType((*entry).expr.cast())).is_err() {
                    return Ok(Some("a value has no named type".into()));
                }
            }
        } else if let Some(found) = ship::obstacle((*query).targetList.cast()) {
            return Ok(Some(found));
        }
        let inner: *mut Query = node::copy(query);
        (*inner).limitOffset = std::ptr::null_mut();
        (*inner).limitCount = std::ptr::null_mut();
        let set_operation = !(*query).setOperations.is_null();
        let one_group_limit = route.single && mode.candidates().is_none();
        let keys = if set_operation {
            None
        } else {
            sort_keys(query)?
        };
        let mut order = Order::default();
        let mut sorted = false;
        if one_group_limit {
            // All rows come from one shard group: its answer is the answer.
            (*inner).limitOffset = (*query).limitOffset;
            (*inner).limitCount = (*query).limitCount;
            sorted = !(*query).sortClause.is_null() && !set_operation;
        } else {
            match keys {
                Some(keys)
                    if (*query).limitOption == pg_sys::LimitOption::LIMIT_OPTION_COUNT
                        && !(*query).hasDistinctOn =>
                {
                    sorted = !keys.is_empty();
                    order.keys = keys;
                    order.limit = limit_with_offset(query);
                    order.candidates = mode.candidates();
                }
                _ => {
                    if !(*query).hasDistinctOn {
                        (*inner).sortClause = std::ptr::null_mut();
                    }
                }
            }
        }
        for entry in list::iter::<pg_sys::TargetEntry>((*inner).targetList) {
            (*entry).resjunk = false;
            if (*entry).resname.is_null() {
                (*entry).resname = node::pstrdup("?column?");
            }
        }
        let limit_done = one_group_limit;
        let remote = remote::finish(inner, route, order)?;
        let signatures = remote.columns.clone();
        let entry = leaf::placeholder(remote, sorted && !one_group_limit);
        for (index, target) in list::iter::<pg_sys::TargetEntry>((*query).targetList).enumerate() {
            (*target).expr = expr::var(1, index as i16 + 1, signatures[index]).cast();
            (*target).resorigtbl = pg_sys::InvalidOid;
            (*target).resorigcol = 0;
        }
        leaf::from_leaf(query, entry, std::ptr::null_mut());
        clear_grouping(query);
        (*query).setOperations = std::ptr::null_mut();
        (*query).distinctClause = std::ptr::null_mut();
        (*query).hasDistinctOn = false;
        (*query).windowClause = std::ptr::null_mut();
        (*query).hasWindowFuncs = false;
        (*query).hasTargetSRFs = false;
        (*query).hasSubLinks = false;
        if limit_done {
            (*query).limitOffset = std::ptr::null_mut();
            (*query).limitCount = std::ptr::null_mut();
            (*query).sortClause = std::ptr::null_mut();
        }
        Ok(None)
    }
}

pub unsafe fn clear_grouping(query: *mut Query) {
    unsafe {
        (*query).groupClause = std::ptr::null_mut();
        (*query).groupDistinct = false;
        (*query).groupingSets = std::ptr::null_mut();
        (*query).havingQual = std::ptr::null_mut();
        (*query).hasAggs = false;
    }
}

/// ORDER BY as merge keys over the target list; None when the shards may sort otherwise than we do.
unsafe fn sort_keys(query: *mut Query) -> Result<Option<Vec<SortKey>>> {
    unsafe {
        let mut keys = Vec::new();
        for clause in list::iter::<pg_sys::SortGroupClause>((*query).sortClause) {
            let position = list::iter::<pg_sys::TargetEntry>((*query).targetList)
                .position(|entry| (*entry).ressortgroupref == (*clause).tleSortGroupRef);
            let Some(column) = position else {
                return Ok(None);
            };
            let entry = list::nth::<pg_sys::TargetEntry>((*query).targetList, column);
            let (type_oid, _, collation) = expr::signature((*entry).expr.cast());
            let cache = pg_sys::lookup_type_cache(
                type_oid,
                (pg_sys::TYPECACHE_LT_OPR | pg_sys::TYPECACHE_GT_OPR) as i32,
            );
            let default_order =
                (*clause).sortop == (*cache).lt_opr || (*clause).sortop == (*cache).gt_opr;
            if !default_order || !remote::sorts_alike(type_oid, collation)? {
                return Ok(None);
            }
            keys.push(SortKey {
                column,
                operator: (*clause).sortop.to_u32(),
                collation: collation.to_u32(),
                nulls_first: (*clause).nulls_first,
            });
        }
        Ok(Some(keys))
    }
}

/// `int8pl`, by `pg_proc.dat`.
const INT8PL: u32 = 463;

/// `limit + offset`: as many rows as any one shard could contribute.
unsafe fn limit_with_offset(query: *mut Query) -> *mut Node {
    unsafe {
        let limit = (*query).limitCount;
        if node::has_sublink(limit) || node::has_sublink((*query).limitOffset) {
            return std::ptr::null_mut();
        }
        if limit.is_null() || (*query).limitOffset.is_null() {
            return node::copy(limit);
        }
        let sum = pg_sys::makeFuncExpr(
            INT8PL.into(),
            pg_sys::INT8OID,
            list::from([node::copy(limit), node::copy((*query).limitOffset)]),
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        );
        pg_sys::eval_const_expressions(std::ptr::null_mut(), sum.cast())
    }
}

/// The shards give joined and filtered rows with the columns that the rest of the level needs.
unsafe fn ship_rows(query: *mut Query, route: &Route, mode: Mode) -> Result<Option<Reason>> {
    unsafe {
        let (shipped, kept) = split_quals((*(*query).jointree).quals);
        if mode == Mode::Locking && !kept.is_empty() {
            return Ok(Some("the coordinator decides which rows are locked".into()));
        }
        if kept.iter().any(|q| node::has_sublink(*q)) {
            return Ok(Some(
                "a condition with a subquery runs on the coordinator".into(),
            ));
        }
        if aggregate::has_subquery_of_groups(query) {
            return Ok(Some(
                "groups have a subquery, which runs on the coordinator".into(),
            ));
        }
        let mut units = aggregate::argument_units(query);
        for tree in above(query).into_iter().chain(kept.iter().copied()) {
            if !collect_units(tree, &mut units) {
                return Ok(Some(
                    "an expression with a subquery runs on the coordinator".into(),
                ));
            }
        }
        for unit in &units {
            if ship::obstacle(*unit).is_some()
                || ship::readable_type(pg_sys::exprType(*unit)).is_err()
            {
                return Ok(Some("a value cannot be read back from the workers".into()));
            }
        }
        let inner: *mut Query = node::copy(query);
        strip_above(inner);
        (*(*inner).jointree).quals = conjunction(&shipped);
        (*inner).targetList = targets(&units);
        let mut order = Order::default();
        if kept.is_empty() && plain_rows(query) && (*query).sortClause.is_null() && !route.single {
            order.limit = limit_with_offset(query);
            order.candidates = mode.candidates();
        }
        let remote = remote::finish(inner, route, order)?;
        let entry = leaf::placeholder(remote, false);
        let kept = kept
            .into_iter()
            .map(|q| replace(q, &units, 0))
            .collect::<Vec<_>>();
        replace_above(query, &units);
        leaf::from_leaf(query, entry, conjunction(&kept));
        (*query).hasSubLinks = false;
        Ok(None)
    }
}

/// No aggregate, window, DISTINCT or set-returning function between the rows and LIMIT.
unsafe fn plain_rows(query: *mut Query) -> bool {
    unsafe {
        !(*query).hasAggs
            && (*query).groupClause.is_null()
            && (*query).groupingSets.is_null()
            && (*query).havingQual.is_null()
            && (*query).distinctClause.is_null()
            && (*query).windowClause.is_null()
            && !(*query).hasTargetSRFs
            && (*query).limitOption == pg_sys::LimitOption::LIMIT_OPTION_COUNT
            && ship::obstacle((*query).limitCount).is_none()
            && ship::obstacle((*query).limitOffset).is_none()
    }
}

/// The WHERE conditions that workers evaluate, and those that stay here.
pub unsafe fn split_quals(quals: *mut Node) -> (Vec<*mut Node>, Vec<*mut Node>) {
    unsafe {
        expr::conjuncts(quals)
            .into_iter()
            .partition(|qual| ship::obstacle(*qual).is_none())
    }
}

pub unsafe fn conjunction(quals: &[*mut Node]) -> *mut Node {
    quals.iter().fold(std::ptr::null_mut(), |all, qual| unsafe {
        expr::and(all, node::copy(*qual))
    })
}

/// Takes from a copied level all that is done above FROM and WHERE.
pub unsafe fn strip_above(inner: *mut Query) {
    unsafe {
        clear_grouping(inner);
        (*inner).distinctClause = std::ptr::null_mut();
        (*inner).hasDistinctOn = false;
        (*inner).windowClause = std::ptr::null_mut();
        (*inner).hasWindowFuncs = false;
        (*inner).hasTargetSRFs = false;
        (*inner).sortClause = std::ptr::null_mut();
        (*inner).limitCount = std::ptr::null_mut();
        (*inner).limitOffset = std::ptr::null_mut();
        (*inner).limitOption = pg_sys::LimitOption::LIMIT_OPTION_COUNT;
    }
}
