//! Which parts of a statement read what others change. PostgreSQL shows every part the tables as they were, so rows of a
//! table that a part reads late must change later still.

use crate::catalog::TableKind;
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{list, node};
use crate::planner::modify;
use pgrx::pg_sys::{self, CmdType, Oid, Query, RTEKind};
use std::collections::HashSet;
use std::ffi::CStr;

/// The WITH clauses of a statement, and the statement itself as the last.
pub struct Order(Vec<Piece>);

struct Piece {
    command: CmdType::Type,
    /// The table of ours that it changes.
    changes: Option<Oid>,
    /// PostgreSQL's own ModifyTable changes rows, while it reads and whenever it likes.
    changes_here: bool,
    /// Relations that it names, but for the target of an INSERT.
    reads: HashSet<Oid>,
    /// Those of which it locks rows.
    locks: HashSet<Oid>,
    /// WITH clauses that it reads.
    refers: Vec<usize>,
    /// Other tables that foreign keys of its own name.
    referenced: HashSet<Oid>,
}

impl Order {
    /// # Safety
    /// `query` is a valid Query, not changed yet.
    pub unsafe fn of(query: *mut Query) -> Result<Order> {
        unsafe {
            let ctes: Vec<*mut pg_sys::CommonTableExpr> = list::iter((*query).cteList).collect();
            let names: Vec<&CStr> = ctes.iter().map(|c| CStr::from_ptr((**c).ctename)).collect();
            let mut pieces = Vec::new();
            for cte in &ctes {
                pieces.push(Piece::of((**cte).ctequery.cast(), 1, &names)?);
            }
            pieces.push(Piece::of(query, 0, &names)?);
            Ok(Order(pieces))
        }
    }

    /// The index of the statement itself.
    fn main(&self) -> usize {
        self.0.len() - 1
    }

    /// What a piece reads, itself and through WITH clauses that only read.
    fn reach(&self, piece: usize) -> HashSet<Oid> {
        self.through(piece)
            .into_iter()
            .filter(|p| *p == piece || self.0[*p].command == CmdType::CMD_SELECT)
            .flat_map(|p| self.0[p].reads.iter().copied())
            .collect()
    }

    /// Does a piece read what a change of a table of ours returns?
    fn depends(&self, piece: usize) -> bool {
        self.through(piece)
            .into_iter()
            .any(|p| p != piece && self.0[p].changes.is_some())
    }

    /// The piece and the WITH clauses that it reads, through others that only read.
    fn through(&self, piece: usize) -> Vec<usize> {
        self.reached(piece, &|at| self.0[at].command == CmdType::CMD_SELECT)
    }

    /// The piece and the WITH clauses that it reads, also through those for which `passes` holds.
    fn reached(&self, piece: usize, passes: &dyn Fn(usize) -> bool) -> Vec<usize> {
        let mut found = vec![piece];
        let mut next = 0;
        while next < found.len() {
            let at = found[next];
            next += 1;
            if at != piece && !passes(at) {
                continue;
            }
            for other in &self.0[at].refers {
                if !found.contains(other) {
                    found.push(*other);
                }
            }
        }
        found
    }

    /// Does somebody read what the WITH clause returns?
    pub fn is_read(&self, clause: usize) -> bool {
        self.0.iter().any(|piece| piece.refers.contains(&clause))
    }

    /// The order in which parts, given by index and number, change rows, so that foreign keys hold whenever they are
    /// checked: rows go before those that they refer to, then new ones come after those. None: the statement itself, which
    /// otherwise comes last.
    pub fn steps(&self, parts: Vec<(usize, u32)>) -> Vec<Option<u32>> {
        let main = self.main();
        let tied = parts.iter().any(|(part, _)| {
            let (a, b) = (&self.0[*part], &self.0[main]);
            a.refers_to(b) || b.refers_to(a)
        });
        let mut steps: Vec<(usize, Option<u32>)> = parts
            .into_iter()
            .map(|(part, number)| (part, Some(number)))
            .collect();
        if tied {
            steps.push((main, None));
        }
        steps.sort_by_key(|(piece, _)| {
            let depth = self.depth(*piece, 0) as isize;
            let inserts = self.inserts(*piece);
            (inserts, if inserts { depth } else { -depth })
        });
        steps.pop_if(|(_, number)| number.is_none());
        steps.into_iter().map(|(_, number)| number).collect()
    }

    /// How many changed tables the table of a piece refers to, one through the other.
    fn depth(&self, piece: usize, below: usize) -> usize {
        if below > self.0.len() {
            // they refer to each other
            return 0;
        }
        let referred = (0..self.0.len()).filter(|other| self.0[piece].refers_to(&self.0[*other]));
        referred
            .map(|other| 1 + self.depth(other, below + 1))
            .max()
            .unwrap_or(0)
    }

    /// Must a WITH clause that inserts say what it returns before it does so? Where some piece, or the clause itself, reads
    /// the table, and where its rows refer to those of another.
    pub fn is_asked_first(&self, clause: usize) -> bool {
        let piece = &self.0[clause];
        let read = |table| self.0.iter().any(|piece| piece.reads.contains(&table));
        let refers = self.is_read(clause) && self.0.iter().any(|other| piece.refers_to(other));
        refers || piece.changes.is_some_and(read)
    }

    /// Are rows of the table of an UPDATE or DELETE locked after they have changed? By pieces that read what it returns, also
    /// through others, or for pieces in which PostgreSQL itself changes rows.
    pub fn locked_later(&self, clause: usize) -> bool {
        let Some(table) = self.0[clause].changes else {
            return false;
        };
        let pieces = 0..self.0.len();
        let locking = |piece: &usize| self.0[*piece].locks.contains(&table);
        pieces.clone().filter(locking).any(|piece| {
            let reads =
                |from: usize, what: usize| self.reached(from, &|_| true)[1..].contains(&what);
            let mut here = pieces.clone().filter(|at| self.0[*at].changes_here);
            reads(piece, clause) || here.any(|at| at == piece || reads(at, piece))
        })
    }

    fn inserts(&self, piece: usize) -> bool {
        self.0[piece].command == CmdType::CMD_INSERT
    }

    /// Must an UPDATE or DELETE wait with its changes until others have read?
    pub fn waits(&self, clause: usize) -> bool {
        let Some(table) = self.0[clause].changes else {
            return false;
        };
        let reads = self.reach(clause);
        // New rows may take the place of those that have changed, and others may ask for them early.
        let replaced = (0..self.main()).any(|x| {
            let inserts = self.inserts(x) && self.0[x].changes == Some(table);
            inserts && self.is_read(x) && self.through(x).contains(&clause)
        });
        (0..self.0.len()).filter(|x| *x != clause).any(|x| {
            let other = &self.0[x];
            if other.locks.contains(&table) {
                return true;
            }
            // what refers to rows that go is to go before
            let goes = self.0[clause].command == CmdType::CMD_DELETE && !self.inserts(x);
            if goes && other.refers_to(&self.0[clause]) {
                return true;
            }
            if !replaced && self.depends(x) && self.reach(x).contains(&table) {
                return true;
            }
            let Some(changed) = other.changes else {
                return false;
            };
            if self.inserts(x) {
                let early = x != self.main() && self.is_read(x);
                early && reads.contains(&changed) && !self.through(x).contains(&clause)
            } else {
                changed == table || reads.contains(&changed)
            }
        })
    }

    /// Must the statement itself be read to its end before these tables change? Also where it locks rows of a table that
    /// changes, and where several parts change a table: PostgreSQL runs them when the statement asks for what they return,
    /// and a row is changed by the first.
    pub fn main_reads(&self, tables: &HashSet<Oid>) -> bool {
        let main = self.main();
        let changed = |table: &Oid| self.0.iter().any(|piece| piece.changes == Some(*table));
        let locks = (self.through(main).into_iter()).any(|at| self.0[at].locks.iter().any(changed));
        let several = tables.iter().any(|table| {
            let changing = (0..self.0.len())
                .filter(|piece| self.0[*piece].changes == Some(*table) && !self.inserts(*piece));
            changing.count() > 1
        });
        !self.0[main].changes_here && (several || locks || !self.reach(main).is_disjoint(tables))
    }

    /// What is read by pieces in which PostgreSQL itself changes rows.
    pub fn read_here(&self) -> HashSet<Oid> {
        (0..self.0.len())
            .filter(|piece| self.0[*piece].changes_here)
            .flat_map(|piece| self.reach(piece))
            .collect()
    }
}

/// The other tables that foreign keys of a table name.
unsafe fn referenced_by(relid: Oid) -> HashSet<Oid> {
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(relid);
        if relation.is_null() {
            return HashSet::new();
        }
        let keys = list::iter::<pg_sys::ForeignKeyCacheInfo>(pg_sys::RelationGetFKeyList(relation))
            .map(|key| (*key).confrelid)
            .filter(|other| *other != relid)
            .collect();
        pg_sys::RelationClose(relation);
        keys
    }
}

impl Piece {
    /// Do rows of its table refer to rows of another's?
    fn refers_to(&self, other: &Piece) -> bool {
        other
            .changes
            .is_some_and(|table| self.referenced.contains(&table))
    }

    /// `depth`: how many levels below the statement the piece stands.
    unsafe fn of(query: *mut Query, depth: u32, names: &[&CStr]) -> Result<Piece> {
        unsafe {
            let command = (*query).commandType;
            let writes = command != CmdType::CMD_SELECT;
            let target = if writes { modify::target(query)? } else { None };
            let distributed = target
                .as_ref()
                .is_some_and(|table| matches!(table.kind, TableKind::Distributed { .. }));
            let changes = target.map(|table| table.relid);
            let mut piece = Piece {
                command,
                changes,
                changes_here: writes && !distributed,
                reads: HashSet::new(),
                locks: HashSet::new(),
                refers: Vec::new(),
                referenced: changes.map_or_else(HashSet::new, |relid| referenced_by(relid)),
            };
            node::walk(query.cast(), &mut |item, level| {
                // The statement's own WITH clauses are pieces themselves.
                if depth == 0 && level == 1 && node::cast::<pg_sys::CommonTableExpr>(item).is_some()
                {
                    return Step::Over;
                }
                if let Some(at) = node::cast::<Query>(item) {
                    piece.add(at, at == query, level + depth, names);
                }
                Step::Into
            });
            Ok(piece)
        }
    }

    /// Adds what a level names that stands `depth` levels below the statement.
    unsafe fn add(&mut self, level: *mut Query, top: bool, depth: u32, names: &[&CStr]) {
        unsafe {
            let inserts = top && self.command == CmdType::CMD_INSERT;
            let excluded = node::cast::<pg_sys::OnConflictExpr>((*level).onConflict)
                .map_or(0, |conflict| (*conflict).exclRelIndex);
            for mark in list::iter::<pg_sys::RowMarkClause>((*level).rowMarks) {
                let rte = list::rt_fetch((*mark).rti as i32, (*level).rtable);
                self.locks.insert((*rte).relid);
            }
            let entries = list::iter::<pg_sys::RangeTblEntry>((*level).rtable);
            for (index, rte) in entries.enumerate() {
                let rti = index as i32 + 1;
                match (*rte).rtekind {
                    RTEKind::RTE_RELATION => {
                        let target = rti == (*level).resultRelation || rti == excluded;
                        if !(inserts && target) {
                            self.reads.insert((*rte).relid);
                        }
                    }
                    RTEKind::RTE_CTE if (*rte).ctelevelsup == depth => {
                        let name = CStr::from_ptr((*rte).ctename);
                        self.refers
                            .extend(names.iter().position(|known| *known == name));
                    }
                    _ => {}
                }
            }
        }
    }
}
