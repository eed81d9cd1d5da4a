//! Changes of rows that a subquery picks by ctid: `DELETE FROM t WHERE ctid IN (SELECT ctid FROM t … LIMIT 1000)`. A ctid
//! means a row of one shard, so ctids of several are not compared: a picked row *is* the row that changes. The subquery
//! gives the other columns of its row as well, its key above all, and takes the table's place in FROM. Recognised are
//! `ctid IN (SELECT …)`, `ctid = ANY (ARRAY (SELECT …))`, `ctid = (SELECT … LIMIT 1)`, and `t.ctid = s.ctid` of a subquery
//! or WITH query `s` in FROM, where that ctid comes from one row of the table.

mod trace;

use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, levels, list, node, types};
use crate::planner::{leaf, reading, remote, whole_rows};
use pgrx::pg_sys::{self, LockClauseStrength, Node, Oid, Query, RTEKind, RangeTblEntry};
use trace::{Link, Source, Trace};

pub use trace::compares_only;

/// The subquery in the place of the changed table. Its first columns are the table's, by their numbers (NULL as long as
/// nobody asked for them); then come ctid, xmin, and what else the subquery gives.
pub struct Picked {
    relid: Oid,
    query: *mut Query,
    /// From `query` down to the level that names the table: what each of them reads the picked row from.
    chain: Vec<Link>,
    /// Columns of the table that the levels give, and where the first of them has each.
    given: Vec<(i16, i16)>,
    /// The subquery's rows are locked already, as strongly as the change needs.
    pub locked: bool,
}

/// Puts the subquery that picks the rows of an UPDATE or DELETE into the table's place; None: there is none. The rows
/// are to be locked with `strength`. Fails when a system column is named elsewhere.
///
/// # Safety
/// `query` is a valid Query that the caller owns, about a distributed table.
pub unsafe fn take(
    query: *mut Query,
    relid: Oid,
    strength: LockClauseStrength::Type,
) -> Result<Option<Picked>> {
    unsafe {
        let conjuncts = expr::conjuncts((*(*query).jointree).quals);
        for (index, conjunct) in conjuncts.iter().enumerate() {
            let Some((source, mut trace)) = trace::picks(query, *conjunct, relid) else {
                continue;
            };
            let locked = trace.locks(strength);
            if !locked && !trace.can_be_read_again() || trace::names_other_rows(query) {
                continue;
            }
            let rest = conjuncts.iter().enumerate().filter(|(i, _)| *i != index);
            (*(*query).jointree).quals =
                rest.fold(std::ptr::null_mut(), |all, (_, qual)| expr::and(all, *qual));
            trace::refuse_others(query, &trace.vars)?;
            if !locked {
                trace.inline();
            }
            return replace(query, relid, source, trace, locked).map(Some);
        }
        Ok(None)
    }
}

/// Makes the rows of `source` those of the target.
unsafe fn replace(
    query: *mut Query,
    relid: Oid,
    source: Source,
    trace: Trace,
    locked: bool,
) -> Result<Picked> {
    unsafe {
        let target = (*query).resultRelation;
        let before = list::rt_fetch(target, (*query).rtable);
        leaf::add_relation(before);
        let below = source_entry(query, &source);
        (*below).inFromCl = true;
        let (cte, owner) = match &source {
            Source::Entry(_) => (trace.links[0].cte, trace.links[0].owner),
            Source::Sublink(_) => (std::ptr::null_mut(), std::ptr::null_mut()),
        };
        let level = remote::select_from(below, std::ptr::null_mut(), Some(&[]));
        (*level).hasRowSecurity = (*query).hasRowSecurity;
        let mut chain = vec![Link {
            query: level,
            rti: 1,
            cte,
            owner,
        }];
        let own = usize::from(matches!(source, Source::Entry(_)));
        chain.extend(trace.links.into_iter().skip(own));
        let mut picked = Picked {
            relid,
            query: level,
            chain,
            given: Vec::new(),
            locked,
        };
        picked.reveal();
        for attno in 1..=types::column_count(relid) {
            picked.give_nothing(attno);
        }
        let rte = picked.entry(before);
        list::set((*query).rtable, target as usize - 1, rte);
        whole_rows::spell_out(query, target);
        picked.give_identity(rte, &source, query);
        picked.secure(rte, before, target)?;
        for attno in named_columns(query, target) {
            picked.column(attno);
        }
        if trace.optional {
            let test = node::make::<pg_sys::NullTest>();
            (*test).arg = picked.ctid(target).cast();
            (*test).nulltesttype = pg_sys::NullTestType::IS_NOT_NULL;
            (*test).location = -1;
            (*(*query).jointree).quals = expr::and(test.cast(), (*(*query).jointree).quals);
        }
        Ok(picked)
    }
}

/// The subquery as an entry one level below the statement; what was an item of FROM is none any more.
unsafe fn source_entry(query: *mut Query, source: &Source) -> *mut RangeTblEntry {
    unsafe {
        match source {
            Source::Sublink(below) => {
                levels::push_down(*below);
                let rte = node::make::<RangeTblEntry>();
                (*rte).rtekind = RTEKind::RTE_SUBQUERY;
                (*rte).subquery = *below;
                (*rte).eref = pg_sys::makeAlias(c"picked".as_ptr(), std::ptr::null_mut());
                (*rte).alias = node::copy((*rte).eref);
                rte
            }
            Source::Entry(rti) => {
                let given = list::rt_fetch(*rti, (*query).rtable);
                let rte = node::make::<RangeTblEntry>();
                std::ptr::copy_nonoverlapping(given, rte, 1);
                match (*rte).rtekind {
                    RTEKind::RTE_CTE => (*rte).ctelevelsup += 1,
                    _ => levels::push_down((*rte).subquery),
                }
                (*given).rtekind = RTEKind::RTE_RESULT;
                (*given).subquery = std::ptr::null_mut();
                (*given).inFromCl = false;
                let items = list::iter::<Node>((*(*query).jointree).fromlist).filter(|item| {
                    node::cast::<pg_sys::RangeTblRef>(*item).is_none_or(|r| (*r).rtindex != *rti)
                });
                (*(*query).jointree).fromlist = list::from(items.collect::<Vec<_>>());
                rte
            }
        }
    }
}

/// The columns of an entry that the statement names at any depth.
unsafe fn named_columns(query: *mut Query, rti: i32) -> Vec<i16> {
    unsafe {
        let mut columns = Vec::new();
        node::walk(query.cast(), &mut |item, level| {
            if let Some(var) = node::cast::<pg_sys::Var>(item) {
                if (*var).varno == rti && (*var).varlevelsup + 1 == level && (*var).varattno > 0 {
                    columns.push((*var).varattno);
                }
            }
            Step::Into
        });
        columns
    }
}

impl Picked {
    /// How many columns the table has.
    fn width(&self) -> i16 {
        types::column_count(self.relid)
    }

    /// The picked row's `ctid` in the statement, where the subquery is entry `rti`.
    ///
    /// # Safety
    /// Called inside the server.
    pub unsafe fn ctid(&self, rti: i32) -> *mut pg_sys::Var {
        unsafe {
            let signature = (pg_sys::TIDOID, -1, pg_sys::InvalidOid);
            expr::var(rti, self.width() + 1, signature)
        }
    }

    /// The same of `xmin`.
    ///
    /// # Safety
    /// Called inside the server.
    pub unsafe fn xmin(&self, rti: i32) -> *mut pg_sys::Var {
        unsafe {
            let signature = (pg_sys::XIDOID, -1, pg_sys::InvalidOid);
            expr::var(rti, self.width() + 2, signature)
        }
    }

    /// Gives a column of the table, if it does not yet.
    ///
    /// # Safety
    /// Called inside the server, before the statement is planned.
    pub unsafe fn column(&mut self, attno: i16) {
        unsafe {
            if attno > self.width() || !types::has_column(self.relid, attno) {
                return;
            }
            let output =
                list::nth::<pg_sys::TargetEntry>((*self.query).targetList, attno as usize - 1);
            if node::cast::<pg_sys::Const>((*output).expr).is_some() {
                (*output).expr = self.read(attno).cast();
            }
        }
    }

    /// A column of the picked row as the first of the levels sees it.
    unsafe fn read(&mut self, attno: i16) -> *mut pg_sys::Var {
        unsafe {
            let signature = types::attribute_signature(self.relid, attno);
            if let Some((_, number)) = self.given.iter().find(|(column, _)| *column == attno) {
                return expr::var(1, *number, signature);
            }
            let mut number = attno;
            for index in (1..self.chain.len()).rev() {
                let link = &self.chain[index];
                let value = expr::var(link.rti, number, signature);
                number = reading::append(link.query, value.cast());
                let column =
                    list::nth::<pg_sys::TargetEntry>((*link.query).targetList, number as usize - 1);
                name_column(&self.chain[index - 1], column);
            }
            self.given.push((attno, number));
            expr::var(1, number, signature)
        }
    }

    /// Makes hidden columns of the levels, by which they sort, visible: others will follow them.
    unsafe fn reveal(&mut self) {
        unsafe {
            for index in 1..self.chain.len() {
                let above = &self.chain[index - 1];
                let rte = above.entry();
                let named = list::len((*(*rte).eref).colnames);
                let columns =
                    list::iter::<pg_sys::TargetEntry>((*self.chain[index].query).targetList);
                for (position, column) in columns.enumerate() {
                    (*column).resjunk = false;
                    if (*column).resname.is_null() {
                        (*column).resname = node::pstrdup(&format!("c{}", position + 1));
                    }
                    if position >= named {
                        name_column(above, column);
                    }
                }
            }
        }
    }

    unsafe fn output(&self, value: *mut Node, name: *mut std::ffi::c_char) {
        unsafe {
            let number = list::len((*self.query).targetList) as i16 + 1;
            let column = pg_sys::makeTargetEntry(value.cast(), number, name, false);
            (*self.query).targetList = pg_sys::lappend((*self.query).targetList, column.cast());
        }
    }

    unsafe fn give_nothing(&self, attno: i16) {
        unsafe {
            let (type_oid, typmod, collation) = types::attribute_signature(self.relid, attno);
            let name = pg_sys::get_attname(self.relid, attno, true);
            let (value, name) = if types::has_column(self.relid, attno) {
                (pg_sys::makeNullConst(type_oid, typmod, collation), name)
            } else {
                let null = pg_sys::makeNullConst(pg_sys::INT4OID, -1, pg_sys::InvalidOid);
                (null, node::pstrdup(&format!("dropped_{attno}")))
            };
            self.output(value.cast(), name);
        }
    }

    /// The entry of the statement, so far with the columns of the table.
    unsafe fn entry(&self, before: *mut RangeTblEntry) -> *mut RangeTblEntry {
        unsafe {
            let rte = node::make::<RangeTblEntry>();
            (*rte).rtekind = RTEKind::RTE_SUBQUERY;
            (*rte).subquery = self.query;
            (*rte).inFromCl = true;
            (*rte).eref = pg_sys::makeAlias((*(*before).eref).aliasname, std::ptr::null_mut());
            for column in list::iter::<pg_sys::TargetEntry>((*self.query).targetList) {
                name_in((*rte).eref, column);
            }
            (*rte).alias = pg_sys::makeAlias((*(*before).eref).aliasname, std::ptr::null_mut());
            rte
        }
    }

    /// Gives ctid and xmin, and the columns of a subquery in FROM, which the statement then reads here.
    unsafe fn give_identity(
        &mut self,
        rte: *mut RangeTblEntry,
        source: &Source,
        query: *mut Query,
    ) {
        unsafe {
            let ctid = self.read(pg_sys::SelfItemPointerAttributeNumber as i16);
            self.output(ctid.cast(), node::pstrdup("ctid"));
            let xmin: *mut Node = if self.locked {
                pg_sys::makeNullConst(pg_sys::XIDOID, -1, pg_sys::InvalidOid).cast()
            } else {
                self.read(pg_sys::MinTransactionIdAttributeNumber as i16)
                    .cast()
            };
            self.output(xmin, node::pstrdup("xmin"));
            if let Source::Entry(rti) = source {
                let target = (*query).resultRelation;
                let mut columns = named_columns(query, *rti);
                columns.sort_unstable();
                columns.dedup();
                for attno in columns {
                    let value = self.given(attno);
                    let number = list::len((*self.query).targetList) as i16 + 1;
                    self.output(value.cast(), node::pstrdup(&format!("c{number}")));
                    renumber(query, (*rti, attno), (target, number));
                }
            }
            let columns = list::iter::<pg_sys::TargetEntry>((*self.query).targetList);
            for column in columns.skip(self.width() as usize) {
                name_in((*rte).eref, column);
            }
        }
    }

    /// A column that the subquery gives of its own.
    unsafe fn given(&self, attno: i16) -> *mut pg_sys::Var {
        unsafe {
            let below = self.chain[1].query;
            let column = list::nth::<pg_sys::TargetEntry>((*below).targetList, attno as usize - 1);
            expr::var(1, attno, expr::signature((*column).expr.cast()))
        }
    }

    /// The conditions of policies on the target come before all that the statement says of it.
    unsafe fn secure(
        &mut self,
        rte: *mut RangeTblEntry,
        before: *mut RangeTblEntry,
        target: i32,
    ) -> Result<()> {
        unsafe {
            let mut quals = std::ptr::null_mut();
            for qual in list::iter::<Node>((*before).securityQuals) {
                let qual = reading::lifted(qual, &mut |var| {
                    Ok(if (*var).varno == target {
                        self.read((*var).varattno).cast()
                    } else {
                        var.cast()
                    })
                })?;
                quals = expr::and(quals, qual);
            }
            if !quals.is_null() {
                (*rte).security_barrier = true;
                (*self.query).hasSubLinks = node::has_sublink(quals);
                (*(*self.query).jointree).quals = quals;
            }
            Ok(())
        }
    }
}

/// All Vars of one column of the statement's level become those of another.
unsafe fn renumber(query: *mut Query, from: (i32, i16), to: (i32, i16)) {
    unsafe {
        node::walk(query.cast(), &mut |item, level| {
            if let Some(var) = node::cast::<pg_sys::Var>(item) {
                if ((*var).varno, (*var).varattno) == from && (*var).varlevelsup + 1 == level {
                    (*var).varno = to.0;
                    (*var).varattno = to.1;
                    (*var).varnosyn = to.0 as u32;
                    (*var).varattnosyn = to.1;
                }
            }
            Step::Into
        });
    }
}

/// Names a new column of the level below in the entry that reads it.
unsafe fn name_column(link: &Link, column: *mut pg_sys::TargetEntry) {
    unsafe {
        let rte = link.entry();
        name_in((*rte).eref, column);
        if link.cte.is_null() {
            return;
        }
        let cte = link.cte;
        let name = pg_sys::makeString(pg_sys::pstrdup((*column).resname));
        let (type_oid, typmod, collation) = expr::signature((*column).expr.cast());
        (*cte).ctecolnames = pg_sys::lappend((*cte).ctecolnames, name.cast());
        (*cte).ctecoltypes = pg_sys::lappend_oid((*cte).ctecoltypes, type_oid);
        (*cte).ctecoltypmods = pg_sys::lappend_int((*cte).ctecoltypmods, typmod);
        (*cte).ctecolcollations = pg_sys::lappend_oid((*cte).ctecolcollations, collation);
        (*rte).coltypes = node::copy((*cte).ctecoltypes);
        (*rte).coltypmods = node::copy((*cte).ctecoltypmods);
        (*rte).colcollations = node::copy((*cte).ctecolcollations);
    }
}

unsafe fn name_in(alias: *mut pg_sys::Alias, column: *mut pg_sys::TargetEntry) {
    unsafe {
        let name = pg_sys::makeString(pg_sys::pstrdup((*column).resname));
        (*alias).colnames = pg_sys::lappend((*alias).colnames, name.cast());
    }
}
