//! Questions about, and changes of, the trees of a level: which entries an expression speaks of, which columns of some
//! entries a query uses, who reads a WITH query.

use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::{ship, split};
use pgrx::pg_sys::{self, Node, NodeTag, Query, RTEKind, RangeTblEntry};

/// Columns are called by what they are, not by the join through which they were named: that may go.
pub unsafe fn forget_names(query: *mut Query) {
    unsafe {
        node::walk(query.cast(), &mut |item, _| {
            if let Some(var) = node::cast::<pg_sys::Var>(item) {
                (*var).varnosyn = (*var).varno as u32;
                (*var).varattnosyn = (*var).varattno;
            }
            Step::Into
        });
    }
}

/// What a disjunction says of some entries alone, when every arm says something: `(a AND b) OR (c AND d)` implies
/// `a OR c`. It stays itself, too.
pub unsafe fn implied_by(qual: *mut Node, members: &[i32]) -> Option<*mut Node> {
    unsafe {
        let or = node::cast::<pg_sys::BoolExpr>(qual)
            .filter(|or| (**or).boolop == pg_sys::BoolExprType::OR_EXPR)?;
        let mut arms: Vec<*mut Node> = Vec::new();
        for arm in list::iter::<Node>((*or).args) {
            let own: Vec<*mut Node> = expr::conjuncts(arm)
                .into_iter()
                .filter(|conjunct| {
                    let vars = varnos(*conjunct);
                    !vars.is_empty()
                        && vars.iter().all(|varno| members.contains(varno))
                        && !refers_outside(*conjunct)
                        && !node::has_sublink(*conjunct)
                        && ship::obstacle(*conjunct).is_none()
                })
                .collect();
            if own.is_empty() {
                return None;
            }
            arms.push(split::conjunction(&own));
        }
        let either = pg_sys::makeBoolExpr(pg_sys::BoolExprType::OR_EXPR, list::from(arms), -1);
        Some(either.cast::<Node>())
    }
}

/// The range table entries of a FROM item.
pub unsafe fn members_of(from: *mut Node) -> Vec<i32> {
    let mut members = Vec::new();
    unsafe {
        node::walk(from, &mut |item, _| {
            if let Some(reference) = node::cast::<pg_sys::RangeTblRef>(item) {
                members.push((*reference).rtindex);
            } else if let Some(join) = node::cast::<pg_sys::JoinExpr>(item) {
                if (*join).rtindex > 0 {
                    members.push((*join).rtindex);
                }
            } else if matches!(node::tag(item), NodeTag::T_Query | NodeTag::T_SubLink) {
                return Step::Over;
            }
            Step::Into
        });
    }
    members
}

/// The entries beside it that an entry's subquery or function refers to.
pub unsafe fn lateral_references(entry: *mut RangeTblEntry) -> Vec<i32> {
    let mut found = Vec::new();
    unsafe {
        let trees: [*mut Node; 5] = match (*entry).rtekind {
            RTEKind::RTE_JOIN => return found,
            _ => [
                (*entry).subquery.cast(),
                (*entry).functions.cast(),
                (*entry).values_lists.cast(),
                (*entry).tablefunc.cast(),
                (*entry).tablesample.cast(),
            ],
        };
        for tree in trees {
            node::walk(tree, &mut |item, level| {
                if let Some(var) = node::cast::<pg_sys::Var>(item) {
                    if (*var).varlevelsup == level {
                        found.push((*var).varno);
                    }
                }
                Step::Into
            });
        }
    }
    found
}

/// Readers of the WITH queries `from` levels above a query, the query's own being 0, become those of `to` levels above.
pub unsafe fn move_with(query: *mut Query, from: u32, to: u32) {
    unsafe {
        node::walk(query.cast(), &mut |item, level| {
            if let Some(sub) = node::cast::<Query>(item) {
                for entry in list::iter::<RangeTblEntry>((*sub).rtable) {
                    if (*entry).rtekind == RTEKind::RTE_CTE && (*entry).ctelevelsup == level + from
                    {
                        (*entry).ctelevelsup = level + to;
                    }
                }
            }
            Step::Into
        });
    }
}

/// The entries of this level that an expression speaks of.
pub unsafe fn varnos(tree: *mut Node) -> Vec<i32> {
    let mut found = Vec::new();
    unsafe {
        node::walk(tree, &mut |item, level| {
            if let Some(var) = node::cast::<pg_sys::Var>(item) {
                if (*var).varlevelsup == level && !found.contains(&(*var).varno) {
                    found.push((*var).varno);
                }
            }
            Step::Into
        });
    }
    found
}

/// Does a query read WITH queries of its own level that are not there (yet)?
pub unsafe fn lacks_with(query: *mut Query) -> bool {
    unsafe {
        let is_there = |name: *const std::ffi::c_char| {
            let name = std::ffi::CStr::from_ptr(name);
            list::iter::<pg_sys::CommonTableExpr>((*query).cteList)
                .any(|cte| std::ffi::CStr::from_ptr((*cte).ctename) == name)
        };
        node::walk(query.cast(), &mut |item, level| {
            let lacks = node::cast::<Query>(item).is_some_and(|sub| {
                list::iter::<RangeTblEntry>((*sub).rtable).any(|entry| {
                    (*entry).rtekind == RTEKind::RTE_CTE
                        && (*entry).ctelevelsup == level
                        && !is_there((*entry).ctename)
                })
            });
            if lacks {
                Step::Stop
            } else {
                Step::Into
            }
        })
    }
}

/// Does an entry read a WITH query of this level or above?
pub unsafe fn reads_with(entry: *mut RangeTblEntry) -> bool {
    unsafe {
        (*entry).rtekind == RTEKind::RTE_CTE
            || (*entry).rtekind == RTEKind::RTE_SUBQUERY && refers_outside((*entry).subquery.cast())
    }
}

/// Does a tree refer to rows or WITH queries of levels above its own?
pub unsafe fn refers_outside(tree: *mut Node) -> bool {
    unsafe {
        // a Query's own level is one deeper than that of an expression
        let own = u32::from(node::cast::<Query>(tree).is_some());
        node::walk(tree, &mut |item, level| {
            let outside = match node::tag(item) {
                NodeTag::T_Var => (*item.cast::<pg_sys::Var>()).varlevelsup + own > level,
                NodeTag::T_Aggref => (*item.cast::<pg_sys::Aggref>()).agglevelsup + own > level,
                NodeTag::T_Query => list::iter::<RangeTblEntry>((*item.cast::<Query>()).rtable)
                    .any(|rte| (*rte).rtekind == RTEKind::RTE_CTE && (*rte).ctelevelsup > level),
                _ => false,
            };
            if outside {
                Step::Stop
            } else {
                Step::Into
            }
        })
    }
}

/// Does a level have subqueries in FROM's expressions and conditions?
pub unsafe fn has_sublinks(query: *mut Query) -> bool {
    unsafe {
        node::has_sublink((*query).jointree.cast())
            || list::iter::<RangeTblEntry>((*query).rtable).any(|entry| {
                [(*entry).functions, (*entry).values_lists]
                    .into_iter()
                    .any(|tree| node::has_sublink(tree.cast()))
                    || node::has_sublink((*entry).tablefunc.cast())
            })
    }
}

/// Everything in a level but its WITH queries and the names of its joins' columns.
pub unsafe fn trees_of(query: *mut Query) -> Vec<*mut Node> {
    unsafe {
        let mut trees: Vec<*mut Node> = vec![
            (*query).targetList.cast(),
            (*query).jointree.cast(),
            (*query).havingQual,
            (*query).windowClause.cast(),
            (*query).limitCount,
            (*query).limitOffset,
        ];
        for entry in list::iter::<RangeTblEntry>((*query).rtable) {
            if (*entry).rtekind != RTEKind::RTE_JOIN {
                trees.extend([
                    (*entry).subquery.cast::<Node>(),
                    (*entry).functions.cast(),
                    (*entry).values_lists.cast(),
                    (*entry).tablefunc.cast(),
                    (*entry).tablesample.cast(),
                ]);
            }
        }
        trees
    }
}

/// The WITH queries that a level still reads, and those that change rows.
pub unsafe fn live_with(query: *mut Query) -> *mut pg_sys::List {
    unsafe {
        let all: Vec<*mut pg_sys::CommonTableExpr> = list::iter((*query).cteList).collect();
        let mut live = vec![false; all.len()];
        let find = |entry: *mut RangeTblEntry, live: &mut Vec<bool>| {
            let name = std::ffi::CStr::from_ptr((*entry).ctename);
            all.iter()
                .position(|cte| std::ffi::CStr::from_ptr((**cte).ctename) == name)
                .filter(|index| !std::mem::replace(&mut live[*index], true))
        };
        let visit = |tree: *mut Node, live: &mut Vec<bool>| {
            let mut found = Vec::new();
            node::walk(tree, &mut |item, level| {
                if let Some(sub) = node::cast::<Query>(item) {
                    for entry in list::iter::<RangeTblEntry>((*sub).rtable) {
                        if (*entry).rtekind == RTEKind::RTE_CTE && (*entry).ctelevelsup == level + 1
                        {
                            found.extend(find(entry, live));
                        }
                    }
                }
                Step::Into
            });
            found
        };
        let mut waiting = Vec::new();
        for (index, cte) in all.iter().enumerate() {
            let body = (**cte).ctequery.cast::<Query>();
            if (*body).commandType != pg_sys::CmdType::CMD_SELECT {
                live[index] = true;
                waiting.push(index);
            }
        }
        for tree in trees_of(query) {
            waiting.extend(visit(tree, &mut live));
        }
        for entry in list::iter::<RangeTblEntry>((*query).rtable) {
            if (*entry).rtekind == RTEKind::RTE_CTE && (*entry).ctelevelsup == 0 {
                waiting.extend(find(entry, &mut live));
            }
        }
        while let Some(index) = waiting.pop() {
            let more = visit((*all[index]).ctequery, &mut live);
            waiting.extend(more);
        }
        list::from(
            all.into_iter()
                .zip(live)
                .filter(|(_, live)| *live)
                .map(|(cte, _)| cte),
        )
    }
}

/// The columns of some entries that a query uses anywhere.
pub unsafe fn units_of(query: *mut Query, members: &[i32]) -> Vec<*mut Node> {
    let mut units: Vec<*mut Node> = Vec::new();
    unsafe {
        let mut trees = trees_of(query);
        trees.push((*query).cteList.cast());
        for tree in trees {
            node::walk(tree, &mut |item, level| {
                if let Some(var) = node::cast::<pg_sys::Var>(item) {
                    if (*var).varlevelsup == level && members.contains(&(*var).varno) {
                        let unit = node::copy(var);
                        (*unit).varlevelsup = 0;
                        if !units.iter().any(|known| same_column(*known, unit)) {
                            units.push(unit.cast());
                        }
                    }
                }
                Step::Into
            });
        }
    }
    units
}

pub unsafe fn same_column(unit: *mut Node, var: *mut pg_sys::Var) -> bool {
    unsafe {
        let unit = unit.cast::<pg_sys::Var>();
        (*unit).varno == (*var).varno && (*unit).varattno == (*var).varattno
    }
}

/// Puts columns of the entry `rtindex` in the place of `units`, the columns of `members`.
pub unsafe fn replace_columns(
    query: *mut Query,
    members: &[i32],
    units: &[*mut Node],
    rtindex: i32,
) {
    unsafe fn change(
        item: *mut Node,
        depth: u32,
        members: &[i32],
        units: &[*mut Node],
        rtindex: i32,
    ) -> *mut Node {
        unsafe {
            if item.is_null() {
                return item;
            }
            if let Some(query) = node::cast::<Query>(item) {
                node::map_query(query, |child| {
                    change(child, depth + 1, members, units, rtindex)
                });
                return item;
            }
            if let Some(var) = node::cast::<pg_sys::Var>(item) {
                let ours = (*var).varlevelsup == depth && members.contains(&(*var).varno);
                let position = units.iter().position(|unit| same_column(*unit, var));
                let (true, Some(position)) = (ours, position) else {
                    return item;
                };
                let column = node::copy(var);
                (*column).varno = rtindex;
                (*column).varattno = position as i16 + 1;
                (*column).varnosyn = rtindex as u32;
                (*column).varattnosyn = (*column).varattno;
                return column.cast();
            }
            node::map_children(item, |child| change(child, depth, members, units, rtindex))
        }
    }
    unsafe { node::map_query(query, |child| change(child, 0, members, units, rtindex)) }
}

/// What is left of an entry that nothing refers to any more. A relation stays, for its permissions.
pub unsafe fn retire(entry: *mut RangeTblEntry) {
    unsafe {
        (*entry).inFromCl = false;
        if (*entry).rtekind == RTEKind::RTE_RELATION {
            return;
        }
        let alias = (*entry).eref;
        let fresh = node::make::<RangeTblEntry>();
        std::ptr::copy_nonoverlapping(fresh, entry, 1);
        (*entry).rtekind = RTEKind::RTE_RESULT;
        (*entry).eref = pg_sys::makeAlias((*alias).aliasname, std::ptr::null_mut());
    }
}

/// `SELECT targets FROM entry`.
pub unsafe fn select_from(entry: *mut RangeTblEntry, targets: *mut pg_sys::List) -> *mut Query {
    unsafe {
        let query = node::make::<Query>();
        (*query).commandType = pg_sys::CmdType::CMD_SELECT;
        (*query).canSetTag = true;
        (*query).stmt_location = -1;
        (*query).rtable = list::from([entry]);
        let from = list::from([reference(1)]);
        (*query).jointree = pg_sys::makeFromExpr(from, std::ptr::null_mut());
        (*query).targetList = targets;
        query
    }
}

const PIECE: &std::ffi::CStr = c"piece";

/// What a column is in the subquery that `subquery_entry` made the entry of.
pub unsafe fn column_of_piece(entry: *mut RangeTblEntry, attno: i16) -> Option<*mut Node> {
    unsafe {
        let is_piece = (*entry).rtekind == RTEKind::RTE_SUBQUERY
            && std::ffi::CStr::from_ptr((*(*entry).eref).aliasname) == PIECE;
        if !is_piece {
            return None;
        }
        let index = usize::try_from(attno).ok()?.checked_sub(1)?;
        let column = columns((*entry).subquery).nth(index)?;
        Some((*column).expr.cast())
    }
}

pub unsafe fn subquery_entry(subquery: *mut Query) -> *mut RangeTblEntry {
    unsafe {
        let entry = node::make::<RangeTblEntry>();
        (*entry).rtekind = RTEKind::RTE_SUBQUERY;
        (*entry).subquery = subquery;
        (*entry).inFromCl = true;
        (*entry).eref = pg_sys::makeAlias(PIECE.as_ptr(), column_names(subquery));
        (*entry).alias = node::copy((*entry).eref);
        entry
    }
}

/// A WITH query of no name yet, whose rows are computed once.
pub unsafe fn with_query(query: *mut Query) -> *mut pg_sys::CommonTableExpr {
    unsafe {
        let signatures: Vec<_> = columns(query)
            .map(|column| expr::signature((*column).expr.cast()))
            .collect();
        let cte = node::make::<pg_sys::CommonTableExpr>();
        (*cte).ctematerialized = pg_sys::CTEMaterialize::CTEMaterializeAlways;
        (*cte).ctequery = query.cast();
        (*cte).cterefcount = 2;
        (*cte).location = -1;
        (*cte).ctecolnames = column_names(query);
        (*cte).ctecoltypes = list::from_oids(signatures.iter().map(|s| s.0));
        (*cte).ctecoltypmods = list::from_ints(signatures.iter().map(|s| s.1));
        (*cte).ctecolcollations = list::from_oids(signatures.iter().map(|s| s.2));
        cte
    }
}

unsafe fn column_names(query: *mut Query) -> *mut pg_sys::List {
    unsafe {
        let names = columns(query).map(|column| pg_sys::makeString((*column).resname));
        list::from(names.collect::<Vec<_>>())
    }
}

/// What a query gives, without what it only sorts or groups by.
unsafe fn columns(query: *mut Query) -> impl Iterator<Item = *mut pg_sys::TargetEntry> {
    unsafe {
        list::iter::<pg_sys::TargetEntry>((*query).targetList).filter(|column| !(**column).resjunk)
    }
}

/// An item of FROM.
pub unsafe fn reference(rtindex: i32) -> *mut Node {
    unsafe {
        let reference = node::make::<pg_sys::RangeTblRef>();
        (*reference).rtindex = rtindex;
        reference.cast()
    }
}
