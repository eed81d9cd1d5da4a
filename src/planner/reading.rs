//! The query that reads what a change of rows needs: levels of SELECT on top of the one that joins and locks. Each level
//! hands on all columns of the one below, under their numbers, and adds some.

use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, levels, list, node, types};
use crate::planner::picked::Picked;
use pgrx::pg_sys::{
    self, CmdType, LockClauseStrength, LockWaitPolicy, Node, NodeTag, Query, RTEKind,
};

/// The joining level.
pub struct Reading {
    pub query: *mut Query,
    /// The changed table in it, or the subquery that picks its rows.
    pub target: i32,
    picked: Option<Picked>,
}

impl Reading {
    /// `SELECT … FROM what the statement joins … FOR UPDATE OF target`, without columns yet.
    ///
    /// # Safety
    /// `statement` is an UPDATE, DELETE or MERGE.
    pub unsafe fn of(statement: *mut Query, strength: LockClauseStrength::Type) -> Reading {
        unsafe {
            let query: *mut Query = node::copy(statement);
            let target = become_select(query);
            // The table below an updatable view is not written in FROM.
            let rte = list::rt_fetch(target, (*query).rtable);
            (*rte).inFromCl = true;
            let mark = node::make::<pg_sys::RowMarkClause>();
            (*mark).rti = target as u32;
            (*mark).strength = strength;
            (*mark).waitPolicy = LockWaitPolicy::LockWaitBlock;
            (*query).rowMarks = list::from([mark]);
            (*query).hasForUpdate = true;
            Reading {
                query,
                target,
                picked: None,
            }
        }
    }

    /// The same where a subquery picks the rows: without a lock yet. The level shares its FROM with the statement.
    ///
    /// # Safety
    /// `picked` was taken from the statement.
    pub unsafe fn of_picked(statement: *mut Query, picked: Picked) -> Reading {
        unsafe {
            let query = node::make::<Query>();
            std::ptr::copy_nonoverlapping(statement, query, 1);
            let target = become_select(query);
            Reading {
                query,
                target,
                picked: Some(picked),
            }
        }
    }

    /// The `xmin` of picked rows that are to be locked; None: they are locked by what reads them.
    ///
    /// # Safety
    /// Called inside the server.
    pub unsafe fn xmin_to_lock(&mut self) -> Option<i16> {
        unsafe {
            let picked = self.picked.as_ref().filter(|picked| !picked.locked)?;
            let xmin = picked.xmin(self.target);
            Some(self.column(xmin.cast()))
        }
    }

    /// The number of the output column that gives `value`, which is added when it is not there.
    ///
    /// # Safety
    /// `value` is an expression of the joining level.
    pub unsafe fn column(&mut self, value: *mut Node) -> i16 {
        unsafe {
            if let Some(var) = node::cast::<pg_sys::Var>(value) {
                let of_target = (*var).varno == self.target && (*var).varattno > 0;
                if let Some(picked) = self.picked.as_mut().filter(|_| of_target) {
                    picked.column((*var).varattno);
                }
            }
            let known = list::iter::<pg_sys::TargetEntry>((*self.query).targetList)
                .find(|entry| node::equal((**entry).expr, value));
            match known {
                Some(entry) => (*entry).resno,
                None => append(self.query, node::copy(value)),
            }
        }
    }

    /// The number of a column of the changed table.
    ///
    /// # Safety
    /// `attno` is a column of the relation `relid`, which is the target.
    pub unsafe fn target_column(&mut self, relid: pg_sys::Oid, attno: i16) -> i16 {
        unsafe {
            let var = expr::var(self.target, attno, types::attribute_signature(relid, attno));
            self.column(var.cast())
        }
    }

    /// The number of the target's `ctid`.
    ///
    /// # Safety
    /// Called inside the server.
    pub unsafe fn ctid(&mut self) -> i16 {
        unsafe {
            let var = match &self.picked {
                Some(picked) => picked.ctid(self.target),
                None => expr::var(
                    self.target,
                    pg_sys::SelfItemPointerAttributeNumber as i16,
                    (pg_sys::TIDOID, -1, pg_sys::InvalidOid),
                ),
            };
            self.column(var.cast())
        }
    }

    /// Adds the columns that a tree of a level above will need.
    ///
    /// # Safety
    /// `tree` is null or an expression of the joining level.
    pub unsafe fn note_columns(&mut self, tree: *mut Node) {
        unsafe {
            let mut vars = Vec::new();
            node::walk(tree, &mut |item, depth| {
                if let Some(var) = node::cast::<pg_sys::Var>(item) {
                    if (*var).varlevelsup == depth {
                        let var = node::copy(var);
                        (*var).varlevelsup = 0;
                        vars.push(var);
                    }
                }
                Step::Into
            });
            for var in vars {
                self.column(var.cast());
            }
        }
    }
}

/// Makes an UPDATE, DELETE or MERGE a SELECT without columns; answers its target.
unsafe fn become_select(query: *mut Query) -> i32 {
    unsafe {
        let target = (*query).resultRelation;
        (*query).commandType = CmdType::CMD_SELECT;
        (*query).resultRelation = 0;
        (*query).targetList = std::ptr::null_mut();
        (*query).returningList = std::ptr::null_mut();
        (*query).withCheckOptions = std::ptr::null_mut();
        (*query).mergeActionList = std::ptr::null_mut();
        (*query).mergeUseOuterJoin = false;
        target
    }
}

/// A level above: `SELECT * FROM (below)`.
///
/// # Safety
/// `below` is a SELECT that the caller owns, whose columns are complete.
pub unsafe fn level_above(below: *mut Query) -> *mut Query {
    unsafe {
        levels::push_down(below);
        let query = node::make::<Query>();
        (*query).commandType = CmdType::CMD_SELECT;
        (*query).querySource = (*below).querySource;
        (*query).canSetTag = true;
        (*query).hasRowSecurity = (*below).hasRowSecurity;
        let rte = node::make::<pg_sys::RangeTblEntry>();
        (*rte).rtekind = RTEKind::RTE_SUBQUERY;
        (*rte).subquery = below;
        (*rte).inFromCl = true;
        let alias = node::make::<pg_sys::Alias>();
        (*alias).aliasname = node::pstrdup("rows");
        let mut targets = Vec::new();
        let visible = list::iter::<pg_sys::TargetEntry>((*below).targetList)
            .filter(|entry| !(**entry).resjunk);
        for entry in visible {
            let name = pg_sys::makeString(pg_sys::pstrdup((*entry).resname));
            (*alias).colnames = pg_sys::lappend((*alias).colnames, name.cast());
            let var = expr::var(1, (*entry).resno, expr::signature((*entry).expr.cast()));
            targets.push(pg_sys::makeTargetEntry(
                var.cast(),
                (*entry).resno,
                pg_sys::pstrdup((*entry).resname),
                false,
            ));
        }
        (*rte).eref = alias;
        (*rte).alias = node::copy(alias);
        (*query).rtable = list::from([rte]);
        let reference = node::make::<pg_sys::RangeTblRef>();
        (*reference).rtindex = 1;
        (*query).jointree = pg_sys::makeFromExpr(list::from([reference]), std::ptr::null_mut());
        (*query).targetList = list::from(targets);
        query
    }
}

/// Adds an output column; answers its number.
///
/// # Safety
/// `value` is an expression of the level.
pub unsafe fn append(query: *mut Query, value: *mut Node) -> i16 {
    unsafe {
        let number = list::len((*query).targetList) as i16 + 1;
        let name = node::pstrdup(&format!("c{number}"));
        (*query).targetList = pg_sys::lappend(
            (*query).targetList,
            pg_sys::makeTargetEntry(value.cast(), number, name, false).cast(),
        );
        (*query).hasSubLinks |= node::has_sublink(value);
        number
    }
}

/// A copy of `tree`, an expression of the joining level, with its columns as `change` gives them for the level above.
/// What `change` answers belongs to the top of the tree; below subqueries it is shifted.
///
/// # Safety
/// `tree` is null or a valid expression.
pub unsafe fn lifted(
    tree: *mut Node,
    change: &mut dyn FnMut(*mut pg_sys::Var) -> Result<*mut Node>,
) -> Result<*mut Node> {
    unsafe {
        let mut failure = Ok(());
        let lifted = lift(node::copy(tree), 0, change, &mut failure);
        failure.map(|()| lifted)
    }
}

unsafe fn lift(
    tree: *mut Node,
    depth: u32,
    change: &mut dyn FnMut(*mut pg_sys::Var) -> Result<*mut Node>,
    failure: &mut Result<()>,
) -> *mut Node {
    unsafe {
        if tree.is_null() {
            return tree;
        }
        match node::tag(tree) {
            NodeTag::T_Query => {
                let query = tree.cast::<Query>();
                node::map_query(query, |child| lift(child, depth + 1, change, failure));
                tree
            }
            NodeTag::T_Var if (*tree.cast::<pg_sys::Var>()).varlevelsup == depth => {
                let var = node::copy(tree.cast::<pg_sys::Var>());
                (*var).varlevelsup = 0;
                match change(var) {
                    Ok(value) => {
                        if depth > 0 {
                            node::shift_levels(value, depth as i32, 0);
                        }
                        value
                    }
                    Err(error) => {
                        *failure = Err(error);
                        tree
                    }
                }
            }
            _ => node::map_children(tree, |child| lift(child, depth, change, failure)),
        }
    }
}

/// WITH queries move from the joining level to the top, when what stands in a level above reads them.
///
/// # Safety
/// `levels` are the levels from the joining one up to the top.
pub unsafe fn share_with(levels: &[*mut Query]) {
    unsafe {
        let [bottom, above @ ..] = levels else { return };
        let (bottom, Some(top)) = (*bottom, above.last().copied()) else {
            return;
        };
        if (*bottom).cteList.is_null() {
            return;
        }
        let mut read = false;
        for level in above {
            with_references((**level).targetList.cast(), 1, &mut |_| read = true);
        }
        if !read {
            return;
        }
        (*top).cteList = std::mem::replace(&mut (*bottom).cteList, std::ptr::null_mut());
        (*top).hasRecursive = std::mem::replace(&mut (*bottom).hasRecursive, false);
        (*top).hasModifyingCTE = std::mem::replace(&mut (*bottom).hasModifyingCTE, false);
        let height = above.len() as u32;
        with_references(bottom.cast(), 0, &mut |rte| (*rte).ctelevelsup += height);
        for (index, level) in above.iter().enumerate() {
            let below_top = height - 1 - index as u32;
            with_references((**level).targetList.cast(), 1, &mut |rte| {
                (*rte).ctelevelsup += below_top;
            });
        }
    }
}

/// Visits what reads a WITH query of a level in one of its trees; `first`: how many levels below it the Queries of
/// the tree stand.
unsafe fn with_references(
    tree: *mut Node,
    first: u32,
    visit: &mut dyn FnMut(*mut pg_sys::RangeTblEntry),
) {
    unsafe {
        node::walk(tree, &mut |item, depth| {
            if let Some(query) = node::cast::<Query>(item) {
                for rte in list::iter::<pg_sys::RangeTblEntry>((*query).rtable) {
                    if (*rte).rtekind == RTEKind::RTE_CTE && (*rte).ctelevelsup == depth + first {
                        visit(rte);
                    }
                }
            }
            Step::Into
        });
    }
}
