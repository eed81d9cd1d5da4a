//! One aggregating level taken apart: its groups, its aggregates and how each splits.

use super::recipe::{self, Recipe};
use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{list, node, sql};
use crate::planner::analysis::Analysis;
use crate::planner::route::Route;
use crate::planner::ship;
use crate::planner::split;
use pgrx::pg_sys::{self, Aggref, Node, NodeTag, Oid, Query};

/// Columns that GROUPING can speak of.
const MOST_KEYS: usize = 31;

pub struct Level {
    pub groups: Vec<*mut Node>,
    /// Columns that depend on a primary key that is grouped by: groups of their own on the shards.
    pub loose: Vec<*mut Node>,
    /// What the shards group by besides, so that a DISTINCT aggregate gets each value once.
    pub keys: Vec<*mut Node>,
    /// The sets of `keys` that DISTINCT aggregates need, each with all the groups.
    pub sets: Vec<Vec<usize>>,
    pub aggregates: Vec<Aggregate>,
    /// No group spans shards: the shards' groups are the groups.
    pub whole: bool,
    /// Conditions on whole groups that the shards check.
    pub having: *mut Node,
    /// The level has GROUPING SETS, ROLLUP or CUBE.
    pub grouping_sets: bool,
}

pub struct Aggregate {
    pub node: *mut Aggref,
    pub way: Way,
}

pub enum Way {
    Split(Recipe),
    /// Aggregated here, over the values that the shards found; `sets` says in which of its groupings they are.
    Distinct {
        arguments: Vec<Option<*mut Node>>,
        filter: Option<*mut Node>,
        set: usize,
    },
}

impl Level {
    /// The parts of a level, when each of its aggregates splits or none of its groups spans shards.
    pub unsafe fn of(
        query: *mut Query,
        analysis: &Analysis,
        route: &Route,
    ) -> Result<Option<Level>> {
        unsafe {
            let groups: Vec<*mut Node> =
                list::iter::<pg_sys::SortGroupClause>((*query).groupClause)
                    .map(|clause| pg_sys::get_sortgroupclause_expr(clause, (*query).targetList))
                    .collect();
            let grouping_sets = !(*query).groupingSets.is_null();
            let whole = !grouping_sets && (route.single || analysis.contains_key(query, &groups));
            let mut level = Level {
                groups,
                loose: Vec::new(),
                keys: Vec::new(),
                sets: Vec::new(),
                aggregates: Vec::new(),
                whole,
                having: std::ptr::null_mut(),
                grouping_sets,
            };
            for aggregate in aggregates_of(query) {
                let Some(aggregate) = aggregate else {
                    return Ok(None);
                };
                if level.find(aggregate).is_some() {
                    continue;
                }
                let Some(way) = level.way(aggregate, query, analysis)? else {
                    return Ok(None);
                };
                level.aggregates.push(Aggregate {
                    node: aggregate,
                    way,
                });
            }
            for tree in split::above(query) {
                if !level.add_loose_columns(tree) {
                    return Ok(None);
                }
            }
            if level.fits() {
                if whole && ship::obstacle((*query).havingQual).is_none() {
                    level.having = (*query).havingQual;
                }
                return Ok(Some(level));
            }
            Ok(None)
        }
    }

    unsafe fn way(
        &mut self,
        aggregate: *mut Aggref,
        query: *mut Query,
        analysis: &Analysis,
    ) -> Result<Option<Way>> {
        unsafe {
            if self.whole {
                return Ok(recipe::complete(aggregate).map(Way::Split));
            }
            let arguments = arguments_of(aggregate);
            let distinct = !(*aggregate).aggdistinct.is_null();
            let disjoint =
                distinct && !self.grouping_sets && analysis.contains_key(query, &arguments);
            if let Some(recipe) = recipe::recipe(aggregate, disjoint)? {
                return Ok(Some(Way::Split(recipe)));
            }
            if distinct {
                self.distinct(aggregate, &arguments)
            } else {
                Ok(None)
            }
        }
    }

    /// A DISTINCT aggregate's arguments as keys.
    unsafe fn distinct(
        &mut self,
        aggregate: *mut Aggref,
        arguments: &[*mut Node],
    ) -> Result<Option<Way>> {
        unsafe {
            let a = &*aggregate;
            let default_equality = list::iter::<pg_sys::SortGroupClause>(a.aggdistinct)
                .all(|clause| is_default_equality(clause, a.args));
            if a.agglevelsup != 0 || a.aggkind as u8 != b'n' || !default_equality {
                return Ok(None);
            }
            let filter: *mut Node = a.aggfilter.cast();
            let mut set = Vec::new();
            let mut values = Vec::new();
            let mut add = |level: &mut Level, item: *mut Node| {
                if level.position(item).is_none() {
                    level.keys.push(item);
                }
                if let Some(key) = level.keys.iter().position(|k| node::equal(*k, item)) {
                    if !set.contains(&key) {
                        set.push(key);
                    }
                }
            };
            for argument in arguments {
                if !ship::depends_on_rows(*argument) {
                    values.push(None);
                    continue;
                }
                // Where the filter fails the argument must not be computed.
                let value = if filter.is_null() {
                    *argument
                } else {
                    sql::expression("CASE WHEN $1 THEN $2 END", &[filter, *argument])?
                };
                add(self, value);
                values.push(Some(value));
            }
            if values.iter().all(Option::is_none) {
                return Ok(None);
            }
            let filter = (!filter.is_null()).then_some(filter);
            if let Some(filter) = filter {
                add(self, filter);
            }
            set.sort_unstable();
            let set = self.sets.iter().position(|s| *s == set).unwrap_or_else(|| {
                self.sets.push(set);
                self.sets.len() - 1
            });
            Ok(Some(Way::Distinct {
                arguments: values,
                filter,
                set,
            }))
        }
    }

    /// Can the shards group by all that they must group by, and send it?
    unsafe fn fits(&self) -> bool {
        unsafe {
            let columns = self.group_columns();
            // A constant among grouping sets could not be told from others of the same value.
            let constant = |item: &*mut Node| node::tag(*item) == NodeTag::T_Const;
            self.keys.len() <= MOST_KEYS
                && !(self.grouping_sets
                    && (!self.loose.is_empty() || self.groups.iter().any(constant)))
                && columns.iter().all(|column| {
                    ship::obstacle(*column).is_none()
                        && ship::readable_type(pg_sys::exprType(*column)).is_ok()
                })
                && self
                    .loose
                    .iter()
                    .chain(&self.keys)
                    .all(|column| is_groupable(pg_sys::exprType(*column)))
                && !(self.grouping_sets && self.recipes().any(|recipe| !recipe.combines_often()))
        }
    }

    fn recipes(&self) -> impl Iterator<Item = &Recipe> {
        self.aggregates.iter().filter_map(|a| match &a.way {
            Way::Split(recipe) => Some(recipe),
            Way::Distinct { .. } => None,
        })
    }

    pub unsafe fn find(&self, aggregate: *mut Aggref) -> Option<usize> {
        self.aggregates
            .iter()
            .position(|known| unsafe { node::equal(known.node, aggregate) })
    }

    /// What the leaf groups by.
    pub fn group_columns(&self) -> Vec<*mut Node> {
        let parts = [&self.groups, &self.loose, &self.keys];
        parts.into_iter().flatten().copied().collect()
    }

    /// The leaf groups in several ways, and a column says which one a row is of: by each set of keys, and by the groups
    /// alone for the partial aggregates.
    pub fn has_sets(&self) -> bool {
        match &self.sets[..] {
            // the groups alone are as fine as what a DISTINCT aggregate of them needs
            [] => false,
            [set] if set.is_empty() => false,
            [_] => self.recipes().any(|recipe| !recipe.combines_often()),
            _ => true,
        }
    }

    /// What the shards compute for the aggregates, each thing once.
    pub unsafe fn partials(&self) -> Vec<*mut Node> {
        let mut partials: Vec<*mut Node> = Vec::new();
        for partial in self.recipes().flat_map(|recipe| &recipe.partials) {
            if !partials
                .iter()
                .any(|p| unsafe { node::equal(*p, *partial) })
            {
                partials.push(*partial);
            }
        }
        partials
    }

    /// The leaf's groupings over its group columns.
    pub fn groupings(&self) -> Vec<Vec<usize>> {
        let first_key = self.groups.len() + self.loose.len();
        let with = |set: &Vec<usize>| -> Vec<usize> {
            (0..first_key)
                .chain(set.iter().map(|key| first_key + key))
                .collect()
        };
        let mut groupings: Vec<Vec<usize>> = self.sets.iter().map(with).collect();
        let alone = with(&Vec::new());
        if self.recipes().next().is_some() && !groupings.contains(&alone) {
            groupings.push(alone);
        }
        groupings
    }

    /// What `GROUPING(keys)` is for a set.
    pub fn mask(&self, set: &[usize]) -> i32 {
        let count = self.keys.len();
        (0..count)
            .filter(|key| !set.contains(key))
            .fold(0, |mask, key| mask | 1 << (count - 1 - key))
    }

    /// The leaf's column, counted from one, that has a group or key.
    pub unsafe fn position(&self, item: *mut Node) -> Option<i16> {
        let columns = self.group_columns();
        let found = columns
            .iter()
            .position(|column| unsafe { node::equal(*column, item) });
        found.map(|index| index as i16 + 1)
    }

    /// Columns outside of groups and aggregates; false when there is something else that needs rows.
    unsafe fn add_loose_columns(&mut self, tree: *mut Node) -> bool {
        unsafe {
            let (groups, aggregates) = (&self.groups, &self.aggregates);
            let loose = &mut self.loose;
            !node::walk(tree, &mut |item, _| {
                if groups.iter().any(|g| node::equal(*g, item))
                    || aggregates.iter().any(|a| node::equal(a.node, item))
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
}

/// The aggregates of a level; None stands for what cannot be above a leaf.
unsafe fn aggregates_of(query: *mut Query) -> Vec<Option<*mut Aggref>> {
    let mut found = Vec::new();
    unsafe {
        for tree in split::above(query) {
            node::walk(tree, &mut |item, _| match node::tag(item) {
                NodeTag::T_Aggref => {
                    found.push(Some(item.cast::<Aggref>()));
                    Step::Over
                }
                NodeTag::T_SubLink => {
                    found.push(None);
                    Step::Stop
                }
                _ => Step::Into,
            });
        }
    }
    found
}

unsafe fn arguments_of(aggregate: *mut Aggref) -> Vec<*mut Node> {
    unsafe {
        list::iter::<pg_sys::TargetEntry>((*aggregate).args)
            .map(|entry| (*entry).expr.cast())
            .collect()
    }
}

/// Is DISTINCT by the equality that GROUP BY uses?
unsafe fn is_default_equality(
    clause: *mut pg_sys::SortGroupClause,
    args: *mut pg_sys::List,
) -> bool {
    unsafe {
        let value = pg_sys::get_sortgroupclause_expr(clause, args);
        let cache =
            pg_sys::lookup_type_cache(pg_sys::exprType(value), pg_sys::TYPECACHE_EQ_OPR as i32);
        (*clause).eqop == (*cache).eq_opr
    }
}

unsafe fn is_groupable(type_oid: Oid) -> bool {
    unsafe {
        (*pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_EQ_OPR as i32)).eq_opr
            != pg_sys::InvalidOid
    }
}
