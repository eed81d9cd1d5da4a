//! Outer joins in FROM: those that are inner ones after all, and joins written anew once their operands have changed.

use super::trees::{lateral_references, members_of, retire, varnos};
use crate::pg::{expr, list, node};
use pgrx::pg_sys::{self, Bitmapset, JoinType, Node, Query, RTEKind, RangeTblEntry};

/// Makes outer joins inner ones, or of one side only, where conditions drop the rows that make the difference: what
/// PostgreSQL's planner does later (`reduce_outer_joins`).
///
/// # Safety
/// `query` is owned by the caller, and its expressions name columns of tables, not of joins.
pub unsafe fn reduce(query: *mut Query) {
    unsafe { reduce_with(query, &[], &|_| false) }
}

/// `reduce` for a level, by `conditions` on its rows as well, and for the subqueries in FROM that are part of it.
///
/// # Safety
/// As `reduce`; so are the parts.
pub unsafe fn reduce_with(
    query: *mut Query,
    conditions: &[*mut Node],
    is_part: &dyn Fn(*mut Query) -> bool,
) {
    unsafe { reduce_below(query, (*query).jointree.cast(), conditions, is_part) }
}

/// `conditions` are what rows have to pass above.
unsafe fn reduce_below(
    query: *mut Query,
    from: *mut Node,
    conditions: &[*mut Node],
    is_part: &dyn Fn(*mut Query) -> bool,
) {
    unsafe {
        if let Some(from) = node::cast::<pg_sys::FromExpr>(from) {
            let conditions = [conditions, &wanted((*from).quals)].concat();
            for child in list::iter::<Node>((*from).fromlist) {
                reduce_below(query, child, &conditions, is_part);
            }
            return;
        }
        if let Some(reference) = node::cast::<pg_sys::RangeTblRef>(from) {
            let entry = list::rt_fetch((*reference).rtindex, (*query).rtable);
            if (*entry).rtekind == RTEKind::RTE_SUBQUERY && is_part((*entry).subquery) {
                let below: Vec<*mut Node> = conditions
                    .iter()
                    .map(|condition| seen_below(*condition, (*reference).rtindex, entry))
                    .collect();
                reduce_with((*entry).subquery, &below, is_part);
            }
            return;
        }
        let Some(join) = node::cast::<pg_sys::JoinExpr>(from) else {
            return;
        };
        let present: Vec<*mut Bitmapset> = conditions
            .iter()
            .map(|condition| pg_sys::find_nonnullable_rels(*condition))
            .collect();
        let is_present = |side: *mut Node| {
            members_of(side)
                .into_iter()
                .any(|member| present.iter().any(|p| pg_sys::bms_is_member(member, *p)))
        };
        let (left, right) = (is_present((*join).larg), is_present((*join).rarg));
        let kind = match (*join).jointype {
            JoinType::JOIN_LEFT if right => JoinType::JOIN_INNER,
            JoinType::JOIN_RIGHT if left => JoinType::JOIN_INNER,
            JoinType::JOIN_FULL if left && right => JoinType::JOIN_INNER,
            JoinType::JOIN_FULL if left => JoinType::JOIN_LEFT,
            JoinType::JOIN_FULL if right => JoinType::JOIN_RIGHT,
            other => other,
        };
        (*join).jointype = kind;
        if (*join).rtindex > 0 {
            (*list::rt_fetch((*join).rtindex, (*query).rtable)).jointype = kind;
        }
        let matched = wanted((*join).quals);
        let both = [conditions, &matched].concat();
        let (left, right): (&[*mut Node], &[*mut Node]) = match kind {
            JoinType::JOIN_INNER => (&both, &both),
            // rows of the nullable side that do not match are not in the result
            JoinType::JOIN_LEFT => (conditions, &matched),
            JoinType::JOIN_RIGHT => (&matched, conditions),
            _ => (&[], &[]),
        };
        reduce_below(query, (*join).larg, left, is_part);
        reduce_below(query, (*join).rarg, right, is_part);
    }
}

/// What has to be true of rows that pass: of IN, its comparison.
unsafe fn wanted(quals: *mut Node) -> Vec<*mut Node> {
    unsafe {
        let compared = |qual: *mut Node| {
            node::cast::<pg_sys::SubLink>(qual)
                .filter(|in_| (**in_).subLinkType == pg_sys::SubLinkType::ANY_SUBLINK)
                .map_or(qual, |in_| (*in_).testexpr)
        };
        expr::conjuncts(quals).into_iter().map(compared).collect()
    }
}

/// A condition of a level as the subquery `entry` of that level would say it.
unsafe fn seen_below(condition: *mut Node, rtindex: i32, entry: *mut RangeTblEntry) -> *mut Node {
    unsafe {
        let Some(var) = node::cast::<pg_sys::Var>(condition) else {
            let below = |child| seen_below(child, rtindex, entry);
            return match node::cast::<pg_sys::SubLink>(condition) {
                None => node::map_children(condition, below),
                Some(_) => condition,
            };
        };
        if (*var).varlevelsup == 0 && (*var).varno == rtindex && (*var).varattno > 0 {
            let targets = (*(*entry).subquery).targetList;
            let column = list::nth::<pg_sys::TargetEntry>(targets, (*var).varattno as usize - 1);
            return (*column).expr.cast();
        }
        let above = node::copy(var);
        (*above).varlevelsup += 1;
        above.cast()
    }
}

/// The full join that FROM is, if it is one.
///
/// # Safety
/// `query` is valid.
pub unsafe fn full_join(query: *mut Query) -> Option<*mut pg_sys::JoinExpr> {
    unsafe {
        let from = (*(*query).jointree).fromlist;
        if list::len(from) != 1 {
            return None;
        }
        node::cast::<pg_sys::JoinExpr>(list::nth::<Node>(from, 0))
            .filter(|join| (**join).jointype == JoinType::JOIN_FULL)
    }
}

/// The sides of a join that keeps the rows of one of them: that one, and the one whose rows may be missing.
///
/// # Safety
/// `join` is valid.
pub unsafe fn sides(join: *mut pg_sys::JoinExpr) -> Option<(*mut Node, *mut Node)> {
    unsafe {
        match (*join).jointype {
            JoinType::JOIN_LEFT => Some(((*join).larg, (*join).rarg)),
            JoinType::JOIN_RIGHT => Some(((*join).rarg, (*join).larg)),
            _ => None,
        }
    }
}

/// Is the table in FROM below inner joins only?
///
/// # Safety
/// `item` is a valid part of FROM.
pub unsafe fn joined_plainly(item: *mut Node, rtindex: i32) -> bool {
    unsafe {
        if let Some(reference) = node::cast::<pg_sys::RangeTblRef>(item) {
            return (*reference).rtindex == rtindex;
        }
        if let Some(from) = node::cast::<pg_sys::FromExpr>(item) {
            return list::iter((*from).fromlist).any(|child| joined_plainly(child, rtindex));
        }
        node::cast::<pg_sys::JoinExpr>(item).is_some_and(|join| {
            (*join).jointype == JoinType::JOIN_INNER
                && (joined_plainly((*join).larg, rtindex) || joined_plainly((*join).rarg, rtindex))
        })
    }
}

/// Is one of some entries referred to by others (LATERAL)?
///
/// # Safety
/// `query` is valid.
pub unsafe fn are_referred_to(query: *mut Query, members: &[i32]) -> bool {
    unsafe {
        list::iter::<RangeTblEntry>((*query).rtable)
            .enumerate()
            .filter(|(index, _)| !members.contains(&(*index as i32 + 1)))
            .any(|(_, entry)| {
                lateral_references(entry)
                    .iter()
                    .any(|varno| members.contains(varno))
            })
    }
}

/// The FROM clause of some operands, each with the condition of its outer join, of this kind, if its rows may be missing:
/// these are joined to the operands that they speak of. `entries` are those of the joins written before, and then of these.
///
/// # Safety
/// `query` is owned by the caller; an operand comes after those that it speaks of.
pub unsafe fn from_clause(
    query: *mut Query,
    operands: &[(*mut Node, Option<*mut Node>)],
    kind: JoinType::Type,
    entries: &mut Vec<i32>,
) -> *mut pg_sys::List {
    unsafe {
        for index in entries.drain(..) {
            retire(list::rt_fetch(index, (*query).rtable));
        }
        let mut from: Vec<(*mut Node, Vec<i32>)> = Vec::new();
        for (operand, condition) in operands {
            let mut members = members_of(*operand);
            let Some(condition) = *condition else {
                from.push((*operand, members));
                continue;
            };
            let mut named = varnos(condition);
            for member in &members {
                named.extend(lateral_references(list::rt_fetch(*member, (*query).rtable)));
            }
            let mut partners: Vec<usize> = (0..from.len())
                .filter(|index| from[*index].1.iter().any(|m| named.contains(m)))
                .collect();
            if partners.is_empty() {
                partners.push(0);
            }
            let mut joined: *mut Node = std::ptr::null_mut();
            for partner in partners.iter().rev() {
                let (left, left_members) = from.remove(*partner);
                members.extend(left_members);
                joined = if joined.is_null() {
                    left
                } else {
                    let none = std::ptr::null_mut();
                    join(query, JoinType::JOIN_INNER, (left, joined), none, entries)
                };
            }
            let sides = (joined, *operand);
            let joined = join(query, kind, sides, condition, entries);
            members.push((*joined.cast::<pg_sys::JoinExpr>()).rtindex);
            from.insert(partners[0], (joined, members));
        }
        list::from(from.into_iter().map(|(operand, _)| operand))
    }
}

unsafe fn join(
    query: *mut Query,
    kind: JoinType::Type,
    (left, right): (*mut Node, *mut Node),
    quals: *mut Node,
    entries: &mut Vec<i32>,
) -> *mut Node {
    unsafe {
        let join = node::make::<pg_sys::JoinExpr>();
        (*join).jointype = kind;
        (*join).larg = left;
        (*join).rarg = right;
        (*join).quals = quals;
        give_entry(query, join);
        entries.push((*join).rtindex);
        join.cast()
    }
}

/// Gives a join an entry, whose columns nobody names, but which PostgreSQL's deparser looks at. It has to stand behind
/// those of the operands.
///
/// # Safety
/// The operands are RangeTblRefs or JoinExprs of `query`.
pub unsafe fn give_entry(query: *mut Query, join: *mut pg_sys::JoinExpr) {
    unsafe {
        let new = node::make::<RangeTblEntry>();
        (*new).rtekind = RTEKind::RTE_JOIN;
        (*new).jointype = (*join).jointype;
        (*new).inFromCl = true;
        let (mut vars, mut names) = (Vec::new(), Vec::new());
        let (mut left_columns, mut right_columns) = (Vec::new(), Vec::new());
        for (side, columns) in [
            ((*join).larg, &mut left_columns),
            ((*join).rarg, &mut right_columns),
        ] {
            for (number, var) in columns_of(query, side) {
                columns.push(number);
                let name = node::pstrdup(&format!("j{}", names.len() + 1));
                names.push(pg_sys::makeString(name));
                vars.push(var);
            }
        }
        (*new).joinaliasvars = list::from(vars);
        (*new).joinleftcols = list::from_ints(left_columns);
        (*new).joinrightcols = list::from_ints(right_columns);
        (*new).eref = pg_sys::makeAlias(c"joined".as_ptr(), list::from(names));
        (*query).rtable = pg_sys::lappend((*query).rtable, new.cast());
        (*join).rtindex = list::len((*query).rtable) as i32;
    }
}

/// The columns of an operand, with their numbers.
unsafe fn columns_of(query: *mut Query, operand: *mut Node) -> Vec<(i32, *mut Node)> {
    unsafe {
        if let Some(join) = node::cast::<pg_sys::JoinExpr>(operand) {
            return list::iter::<Node>(
                (*list::rt_fetch((*join).rtindex, (*query).rtable)).joinaliasvars,
            )
            .enumerate()
            .map(|(index, var)| (index as i32 + 1, node::copy(var)))
            .collect();
        }
        let rtindex = (*operand.cast::<pg_sys::RangeTblRef>()).rtindex;
        let (mut names, mut vars) = (std::ptr::null_mut(), std::ptr::null_mut());
        pg_sys::expandRTE(
            list::rt_fetch(rtindex, (*query).rtable),
            rtindex,
            0,
            -1,
            false,
            &mut names,
            &mut vars,
        );
        list::iter::<Node>(vars)
            .map(|var| (i32::from((*var.cast::<pg_sys::Var>()).varattno), var))
            .collect()
    }
}
