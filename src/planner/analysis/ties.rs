//! Which columns carry the key of the shard that their row is in, and where facts about columns hold.
//!
//! *Tied* columns (a union-find) hold in each row of the result the same value, or NULL where an outer join gave
//! none. An equality inside of an outer join's condition, a sublink or an arm of a set operation ties the columns
//! in there to one column outside, but never two columns outside to each other: rows for which it is false stay.

use super::{Analysis, Fact, Point, Region};
use std::collections::{HashMap, HashSet};

/// Two columns that are equal in the rows of a region.
pub(super) struct Edge {
    pub a: Point,
    pub b: Point,
    pub carries: Carries,
    pub region: Region,
}

/// Where facts may cross an edge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    BothWays,
    /// From `a` to `b`: what is said of a set operation's column holds in each arm, not the other way round.
    Down,
    /// Not at all: through LIMIT or window functions.
    Nothing,
}

impl Carries {
    pub fn unless(barrier: bool) -> Carries {
        if barrier {
            Carries::Nothing
        } else {
            Carries::BothWays
        }
    }
}

/// A part of the query whose equalities say nothing of the rows outside.
pub(super) enum Part {
    /// What may be missing: the nullable side of an outer join, a sublink, an arm.
    Optional(Region),
    /// One side of a full join: even what ties it to columns outside says nothing of the join's other rows.
    Sealed(Region),
    /// The condition of a full join between two sides.
    Full(Region, Region),
}

pub(super) struct Scope {
    part: Part,
    /// Equalities that name columns outside.
    pending: Vec<(Point, Point)>,
}

impl Analysis {
    /// An equality of two columns in the rows of `region`.
    pub(super) fn tie(&mut self, a: Point, b: Point, carries: Carries, region: Region) {
        self.edges.push(Edge {
            a,
            b,
            carries,
            region,
        });
        self.unite(a, b);
    }

    /// Ties two columns, as far as the innermost open scope allows it now.
    pub(super) fn unite(&mut self, a: Point, b: Point) {
        let inside = |analysis: &Analysis, region: Region| {
            analysis.within(analysis.region_of[a], region)
                && analysis.within(analysis.region_of[b], region)
        };
        let now = match self.scopes.last().map(|scope| &scope.part) {
            None => true,
            Some(Part::Optional(region) | Part::Sealed(region)) => inside(self, *region),
            // A sublink or subquery in the condition has a scope of its own.
            Some(Part::Full(..)) => false,
        };
        if now {
            join(&mut self.tied, a, b);
        } else if let Some(scope) = self.scopes.last_mut() {
            scope.pending.push((a, b));
        }
    }

    pub(super) fn open_scope(&mut self, part: Part) {
        self.scopes.push(Scope {
            part,
            pending: Vec::new(),
        });
    }

    /// Ties what is inside to one column outside; of a full join, one class of either side.
    pub(super) fn close_scope(&mut self) {
        let Some(scope) = self.scopes.pop() else {
            return;
        };
        if matches!(scope.part, Part::Sealed(_)) {
            return;
        }
        let mut together = self.tied.clone();
        for (a, b) in &scope.pending {
            join(&mut together, *a, *b);
        }
        let mut classes: HashMap<Point, Vec<Point>> = HashMap::new();
        for point in scope.pending.iter().flat_map(|(a, b)| [*a, *b]) {
            classes
                .entry(find(&together, point))
                .or_default()
                .push(point);
        }
        let mut classes: Vec<Vec<Point>> = classes.into_values().collect();
        classes.sort();
        for points in classes {
            let side = |region: Region| -> Vec<Point> {
                points
                    .iter()
                    .copied()
                    .filter(|p| self.within(self.region_of[*p], region))
                    .collect()
            };
            match scope.part {
                Part::Optional(region) | Part::Sealed(region) => {
                    let inside = side(region);
                    let outside: Vec<Point> = points
                        .iter()
                        .copied()
                        .filter(|p| !inside.contains(p))
                        .collect();
                    if let Some(one) = self.best(&outside).or(inside.first().copied()) {
                        inside.iter().for_each(|point| self.unite(*point, one));
                    }
                }
                Part::Full(left, right) => {
                    if let (Some(a), Some(b)) = (self.best(&side(left)), self.best(&side(right))) {
                        self.unite(a, b);
                    }
                }
            }
        }
    }

    /// The column that is most useful to be tied to: one tied to a distribution column.
    fn best(&self, points: &[Point]) -> Option<Point> {
        let is_key = |point: &&Point| {
            self.distributed
                .iter()
                .any(|table| self.are_tied(table.key, **point))
        };
        points.iter().find(is_key).or(points.first()).copied()
    }

    pub(super) fn are_tied(&self, a: Point, b: Point) -> bool {
        find(&self.tied, a) == find(&self.tied, b)
    }

    /// Is the column tied to one that is not in `region`?
    pub(super) fn is_tied_outside(&self, point: Point, region: Region) -> bool {
        (0..self.region_of.len())
            .any(|other| !self.within(self.region_of[other], region) && self.are_tied(point, other))
    }

    /// May an outer join inside of `region` have made the column NULL?
    pub(super) fn is_null_extended(&self, point: Point, region: Region) -> bool {
        !self.within(region, self.region_of[point])
    }

    /// Everything known of a distribution column, wherever in the query it is said.
    pub fn facts_about(&self, key: Point) -> Vec<&Fact> {
        self.facts
            .iter()
            .filter(|(point, region, fact)| self.reaches(*point, key, *region, fact.admits_null()))
            .map(|(_, _, fact)| fact)
            .collect()
    }

    pub(super) fn within(&self, region: Region, ancestor: Region) -> bool {
        let mut at = Some(region);
        while let Some(r) = at {
            if r == ancestor {
                return true;
            }
            at = self.parent[r];
        }
        false
    }

    /// Does a fact on `from`, said in `region`, hold for `to`? Crossing an edge, it holds only for the rows for which
    /// that edge's equality does. A fact that admits NULL says nothing of columns that an outer join may have made
    /// NULL.
    fn reaches(&self, from: Point, to: Point, region: Region, admits_null: bool) -> bool {
        if admits_null && (self.region_of[from] != region || self.region_of[to] != region) {
            return false;
        }
        let mut seen = HashSet::from([(from, region)]);
        let mut queue = vec![(from, region)];
        while let Some((at, context)) = queue.pop() {
            if at == to
                && self.within(self.region_of[to], context)
                && (!admits_null || context == region)
            {
                return true;
            }
            for edge in self.edges.iter().filter(|e| e.carries != Carries::Nothing) {
                let next = if edge.a == at {
                    edge.b
                } else if edge.b == at && edge.carries == Carries::BothWays {
                    edge.a
                } else {
                    continue;
                };
                if let Some(inner) = self.crossing(edge.region, at, next, context, admits_null) {
                    if seen.insert((next, inner)) {
                        queue.push((next, inner));
                    }
                }
            }
        }
        false
    }

    /// Where a fact that holds in `context` holds behind an edge of the region `edge`; None: nowhere.
    fn crossing(
        &self,
        edge: Region,
        at: Point,
        next: Point,
        context: Region,
        admits_null: bool,
    ) -> Option<Region> {
        if let Some((left, right)) = self.full_joins.get(&edge) {
            // The fact must have been said above the join: rows of one side that it leaves out stay otherwise.
            let above = self.parent[edge].is_some_and(|parent| self.within(parent, context));
            return [*left, *right]
                .into_iter()
                .find(|side| above && self.within(self.region_of[next], *side));
        }
        if self.within(context, edge) {
            return Some(context);
        }
        if !self.within(edge, context) {
            return None;
        }
        // A column with a value was not made NULL: the outer join that it comes from found its match.
        let matched = !admits_null && self.within(self.region_of[at], edge);
        Some(if matched { context } else { edge })
    }
}

fn find(tied: &[Point], point: Point) -> Point {
    let mut at = point;
    while tied[at] != at {
        at = tied[at];
    }
    at
}

fn join(tied: &mut [Point], a: Point, b: Point) {
    let (a, b) = (find(tied, a), find(tied, b));
    tied[a] = b;
}
