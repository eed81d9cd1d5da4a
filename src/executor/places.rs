//! Places of rows on shards, and sets of them.

use std::collections::HashMap;

/// Where a row is: index of its shard group, block, offset.
pub type Place = (u32, u32, u16);

/// A set of places, in little memory where many rows of a page are in it: 64 neighbours share a word.
#[derive(Default)]
pub struct Places(HashMap<(u32, u32, u16), u64>);

impl Places {
    /// False: it was in the set.
    pub fn insert(&mut self, (group, block, offset): Place) -> bool {
        let word = self.0.entry((group, block, offset / 64)).or_default();
        let bit = 1 << (offset % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::Places;

    #[test]
    fn places_are_new_once() {
        let mut places = Places::default();
        for place in [(1, 0, 1), (1, 0, 65), (1, 1, 1), (2, 0, 1), (1, 0, 2)] {
            assert!(places.insert(place), "{place:?}");
            assert!(!places.insert(place), "{place:?}");
        }
    }
}
