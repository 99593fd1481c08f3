//! Which items come most often, in memory that does not grow with how many there are.
//!
//! Space-saving (Metwally, Agrawal, El Abbadi 2005): a new item takes the place of the rarest one and goes on from its
//! count. So of each item counted here
//!  1. the count is never too low, and too high by no more than `uncertain`;
//!  2. `uncertain` is at most all that was counted, divided by the capacity;
//!  3. what came more often than that is in it.
//!
//! Counting an item that is in it allocates nothing.

use std::hash::{BuildHasher, RandomState};

/// An item and how often it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// The item.
    pub item: Vec<u8>,
    /// How often it came, at most.
    pub count: u64,
    /// How much of that may be other items'.
    pub uncertain: u64,
    /// The sum of its sizes since it is in here.
    pub bytes: u64,
}

/// The counts of the items that come most often.
#[derive(Debug)]
pub struct Sketch {
    hasher: RandomState,
    /// Hashes of the items and their counts stand apart, each closely together: both are searched from end to end.
    hashes: Vec<u64>,
    counts: Vec<u64>,
    rest: Vec<Rest>,
    capacity: usize,
}

#[derive(Debug)]
struct Rest {
    item: Vec<u8>,
    uncertain: u64,
    bytes: u64,
}

impl Sketch {
    /// A sketch of so many items, at least one.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            hasher: RandomState::new(),
            hashes: Vec::with_capacity(capacity),
            counts: Vec::with_capacity(capacity),
            rest: Vec::with_capacity(capacity),
            capacity,
        }
    }

    /// Counts an item that came `times`, `bytes` in all.
    pub fn add(&mut self, item: &[u8], times: u64, bytes: u64) {
        let hash = self.hasher.hash_one(item);
        let found = self.hashes.iter().position(|known| *known == hash);
        // Of two items with one hash, the second is counted as if it were the first: once in 2^64.
        if let Some(at) = found {
            self.counts[at] += times;
            self.rest[at].bytes += bytes;
            return;
        }
        if self.hashes.len() < self.capacity {
            self.hashes.push(hash);
            self.counts.push(times);
            self.rest.push(Rest { item: item.to_vec(), uncertain: 0, bytes });
            return;
        }
        let least = self.counts.iter().copied().min().unwrap_or(0);
        let at = self.counts.iter().position(|count| *count == least).unwrap_or(0);
        self.hashes[at] = hash;
        self.counts[at] = least + times;
        let rest = &mut self.rest[at];
        rest.item.clear();
        rest.item.extend_from_slice(item);
        (rest.uncertain, rest.bytes) = (least, bytes);
    }

    /// The items that came most often, so many at most: those first that came most often for certain.
    pub fn top(&self, max: usize) -> Vec<Counted> {
        let mut order: Vec<usize> = (0..self.rest.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(self.counts[*at] - self.rest[*at].uncertain));
        order.truncate(max);
        let counted = |at: usize| {
            let Rest { item, uncertain, bytes } = &self.rest[at];
            Counted { item: item.clone(), count: self.counts[at], uncertain: *uncertain, bytes: *bytes }
        };
        order.into_iter().map(counted).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any stream, of few items or many, that come evenly or not.
        #[test]
        fn counts_are_within_their_bounds(
            stream in proptest::collection::vec((prop_oneof![0..5u8, 0..60u8, any::<u8>()], 1..4u64), 0..400),
            capacity in 1..20usize,
        ) {
            let mut sketch = Sketch::new(capacity);
            let mut exact: HashMap<Vec<u8>, u64> = HashMap::new();
            for (item, times) in &stream {
                sketch.add(&[*item], *times, 10 * times);
                *exact.entry(vec![*item]).or_default() += times;
            }
            let total: u64 = exact.values().sum();
            let all = sketch.top(usize::MAX);
            prop_assert!(all.len() <= capacity);
            prop_assert_eq!(all.iter().map(|counted| counted.count).sum::<u64>(), total);
            let mut seen = HashMap::new();
            for counted in &all {
                let truth = exact[&counted.item];
                prop_assert!(counted.count >= truth && counted.count - counted.uncertain <= truth);
                prop_assert!(counted.uncertain <= total / capacity as u64);
                prop_assert!(counted.bytes <= 10 * truth);
                prop_assert!(counted.uncertain > 0 || counted.bytes == 10 * truth);
                prop_assert!(seen.insert(counted.item.clone(), ()).is_none(), "an item is in it once");
            }
            for (item, truth) in exact {
                prop_assert!(truth <= total / capacity as u64 || seen.contains_key(&item));
            }
            let certain: Vec<u64> = all.iter().map(|counted| counted.count - counted.uncertain).collect();
            prop_assert!(certain.is_sorted_by(|a, b| a >= b));
            prop_assert_eq!(sketch.top(3), &all[..all.len().min(3)]);
        }
    }
}
