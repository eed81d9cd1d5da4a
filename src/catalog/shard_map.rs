//! Which shard group takes a key: hash ranges, ordered ranges and lists of values, over any ordered type.
//!
//! Pure: keys come with the comparison to use, and all answers are positions in the list of groups.

use std::cmp::Ordering;

/// One end of a search interval: the key, and whether it belongs to the interval.
pub type End<K> = Option<(K, bool)>;

/// Groups by 32-bit hash; together they cover the whole space.
pub struct HashRanges {
    /// Lower ends in ascending order.
    lower: Vec<i32>,
}

impl HashRanges {
    pub fn new(lower: Vec<i32>) -> HashRanges {
        debug_assert!(lower.is_sorted());
        HashRanges { lower }
    }

    pub fn group_for(&self, hash: i32) -> Option<usize> {
        self.lower
            .partition_point(|lower| *lower <= hash)
            .checked_sub(1)
    }
}

/// Groups by half-open ranges of the key that do not overlap, with an optional group for the rest.
pub struct RangeMap<K> {
    /// Lower end (inclusive, none: unbounded), upper end (exclusive, none: unbounded), group;
    /// in ascending order.
    ranges: Vec<(Option<K>, Option<K>, usize)>,
    default: Option<usize>,
}

impl<K: Copy> RangeMap<K> {
    pub fn new(
        mut ranges: Vec<(Option<K>, Option<K>, usize)>,
        default: Option<usize>,
        compare: impl Fn(K, K) -> Ordering,
    ) -> RangeMap<K> {
        ranges.sort_by(|a, b| match (a.0, b.0) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => compare(a, b),
        });
        RangeMap { ranges, default }
    }

    pub fn group_for(&self, key: Option<K>, compare: impl Fn(K, K) -> Ordering) -> Option<usize> {
        let Some(key) = key else { return self.default };
        let after = self
            .ranges
            .partition_point(|range| range.0.is_none_or(|lower| compare(lower, key).is_le()));
        after
            .checked_sub(1)
            .map(|i| &self.ranges[i])
            .filter(|range| range.1.is_none_or(|upper| compare(key, upper).is_lt()))
            .map(|range| range.2)
            .or(self.default)
    }

    /// The groups that may hold keys of the interval, in ascending order of groups.
    pub fn groups_between(
        &self,
        lower: End<K>,
        upper: End<K>,
        compare: impl Fn(K, K) -> Ordering,
    ) -> Vec<usize> {
        if is_empty(lower, upper, &compare) {
            return Vec::new();
        }
        let begins_before_end = |start: Option<K>| match (start, upper) {
            (None, _) | (_, None) => true,
            (Some(start), Some((upper, inclusive))) => match compare(start, upper) {
                Ordering::Less => true,
                Ordering::Equal => inclusive,
                Ordering::Greater => false,
            },
        };
        // Upper ends of ranges are exclusive: a range that ends at the lower bound has nothing of it.
        let ends_after_begin = |end: Option<K>| match (end, lower) {
            (None, _) | (_, None) => true,
            (Some(end), Some((lower, _))) => compare(end, lower).is_gt(),
        };
        let hit: Vec<_> = self
            .ranges
            .iter()
            .filter(|range| begins_before_end(range.0) && ends_after_begin(range.1))
            .collect();
        let mut groups: Vec<usize> = hit.iter().map(|range| range.2).collect();
        if let Some(default) = self.default {
            if !covers(&hit, lower, upper, &compare) {
                groups.push(default);
            }
        }
        groups.sort_unstable();
        groups
    }
}

/// Whether `ranges` (ascending, each touching the interval) leave no gap in the interval.
fn covers<K: Copy>(
    ranges: &[&(Option<K>, Option<K>, usize)],
    lower: End<K>,
    upper: End<K>,
    compare: &impl Fn(K, K) -> Ordering,
) -> bool {
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
        return false;
    };
    let starts = match (first.0, lower) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(start), Some((lower, _))) => compare(start, lower).is_le(),
    };
    let ends = match (last.1, upper) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(end), Some((upper, inclusive))) => match compare(end, upper) {
            Ordering::Greater => true,
            Ordering::Equal => !inclusive,
            Ordering::Less => false,
        },
    };
    starts
        && ends
        && ranges.windows(2).all(|pair| match (pair[0].1, pair[1].0) {
            (Some(end), Some(start)) => compare(end, start).is_eq(),
            _ => false,
        })
}

/// Groups by lists of keys, with an optional group for the rest and one for NULL.
pub struct ListMap<K> {
    /// In ascending order of keys.
    keys: Vec<(K, usize)>,
    null: Option<usize>,
    default: Option<usize>,
}

impl<K: Copy> ListMap<K> {
    pub fn new(
        mut keys: Vec<(K, usize)>,
        null: Option<usize>,
        default: Option<usize>,
        compare: impl Fn(K, K) -> Ordering,
    ) -> ListMap<K> {
        keys.sort_by(|a, b| compare(a.0, b.0));
        ListMap {
            keys,
            null,
            default,
        }
    }

    pub fn group_for(&self, key: Option<K>, compare: impl Fn(K, K) -> Ordering) -> Option<usize> {
        match key {
            None => self.null,
            Some(key) => self
                .keys
                .binary_search_by(|entry| compare(entry.0, key))
                .ok()
                .map(|i| self.keys[i].1),
        }
        .or(self.default)
    }

    /// The groups that may hold keys of the interval, in ascending order of groups.
    pub fn groups_between(
        &self,
        lower: End<K>,
        upper: End<K>,
        compare: impl Fn(K, K) -> Ordering,
    ) -> Vec<usize> {
        if is_empty(lower, upper, &compare) {
            return Vec::new();
        }
        let from = lower.map_or(0, |(lower, inclusive)| {
            self.keys
                .partition_point(|entry| match compare(entry.0, lower) {
                    Ordering::Less => true,
                    Ordering::Equal => !inclusive,
                    Ordering::Greater => false,
                })
        });
        let to = upper.map_or(self.keys.len(), |(upper, inclusive)| {
            self.keys
                .partition_point(|entry| match compare(entry.0, upper) {
                    Ordering::Less => true,
                    Ordering::Equal => inclusive,
                    Ordering::Greater => false,
                })
        });
        let mut groups: Vec<usize> = self.keys[from..to.max(from)]
            .iter()
            .map(|entry| entry.1)
            .collect();
        // Keys of no list are anywhere between those of the lists.
        groups.extend(self.default);
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

fn is_empty<K: Copy>(lower: End<K>, upper: End<K>, compare: &impl Fn(K, K) -> Ordering) -> bool {
    match (lower, upper) {
        (Some((lower, with_lower)), Some((upper, with_upper))) => match compare(lower, upper) {
            Ordering::Less => false,
            Ordering::Equal => !(with_lower && with_upper),
            Ordering::Greater => true,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(a: i32, b: i32) -> Ordering {
        a.cmp(&b)
    }

    #[test]
    fn hashes_find_their_range() {
        let map = HashRanges::new(vec![i32::MIN, -10, 0, 100]);
        assert_eq!(map.group_for(i32::MIN), Some(0));
        assert_eq!(map.group_for(-11), Some(0));
        assert_eq!(map.group_for(-10), Some(1));
        assert_eq!(map.group_for(99), Some(2));
        assert_eq!(map.group_for(i32::MAX), Some(3));
        assert_eq!(HashRanges::new(vec![]).group_for(1), None);
    }

    fn ranges(default: Option<usize>) -> RangeMap<i32> {
        // 0: [10, 20)  1: [20, 30)  2: (-inf, 5)  3: [40, inf)
        RangeMap::new(
            vec![
                (Some(10), Some(20), 0),
                (Some(20), Some(30), 1),
                (None, Some(5), 2),
                (Some(40), None, 3),
            ],
            default,
            compare,
        )
    }

    #[test]
    fn keys_find_their_range() {
        let map = ranges(None);
        for (key, group) in [
            (-5, Some(2)),
            (4, Some(2)),
            (5, None),
            (9, None),
            (10, Some(0)),
            (19, Some(0)),
            (20, Some(1)),
            (30, None),
            (40, Some(3)),
            (9999, Some(3)),
        ] {
            assert_eq!(map.group_for(Some(key), compare), group, "key {key}");
        }
        assert_eq!(map.group_for(None, compare), None);
        assert_eq!(ranges(Some(4)).group_for(Some(7), compare), Some(4));
        assert_eq!(ranges(Some(4)).group_for(None, compare), Some(4));
    }

    #[test]
    fn intervals_find_the_ranges_they_touch() {
        let map = ranges(Some(4));
        let between = |lower, upper| map.groups_between(lower, upper, compare);
        assert_eq!(between(None, None), [0, 1, 2, 3, 4]);
        assert_eq!(between(Some((12, true)), Some((13, true))), [0]);
        assert_eq!(between(Some((12, true)), Some((20, false))), [0]);
        assert_eq!(between(Some((12, true)), Some((20, true))), [0, 1]);
        assert_eq!(between(Some((10, true)), Some((30, false))), [0, 1]);
        assert_eq!(between(Some((10, true)), Some((30, true))), [0, 1, 4]);
        assert_eq!(between(Some((9, true)), Some((12, true))), [0, 4]);
        assert_eq!(between(Some((29, false)), Some((50, true))), [1, 3, 4]);
        assert_eq!(between(Some((50, true)), None), [3]);
        assert_eq!(between(None, Some((4, true))), [2]);
        assert_eq!(between(Some((6, true)), Some((8, true))), [4]);
        assert_eq!(between(Some((8, true)), Some((6, true))), [] as [usize; 0]);
        assert_eq!(between(Some((8, true)), Some((8, false))), [] as [usize; 0]);
        assert_eq!(
            ranges(None).groups_between(Some((6, true)), Some((8, true)), compare),
            [] as [usize; 0]
        );
    }

    #[test]
    fn keys_find_their_list() {
        let map = ListMap::new(vec![(7, 0), (3, 0), (5, 1)], Some(2), None, compare);
        assert_eq!(map.group_for(Some(3), compare), Some(0));
        assert_eq!(map.group_for(Some(5), compare), Some(1));
        assert_eq!(map.group_for(Some(6), compare), None);
        assert_eq!(map.group_for(None, compare), Some(2));
        let with_default = ListMap::new(vec![(7, 0)], None, Some(1), compare);
        assert_eq!(with_default.group_for(Some(8), compare), Some(1));
        assert_eq!(with_default.group_for(None, compare), Some(1));
    }

    #[test]
    fn intervals_find_the_lists_with_keys_in_them() {
        let map = ListMap::new(vec![(7, 0), (3, 0), (5, 1)], Some(2), Some(3), compare);
        assert_eq!(
            map.groups_between(Some((4, true)), Some((6, true)), compare),
            [1, 3]
        );
        assert_eq!(map.groups_between(Some((5, false)), None, compare), [0, 3]);
        assert_eq!(map.groups_between(None, Some((5, false)), compare), [0, 3]);
        assert_eq!(map.groups_between(None, None, compare), [0, 1, 3]);
    }
}
