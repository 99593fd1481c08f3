//! Which ranges hold a key.
//!
//! Single keys stand in a hash map; spans in a treap ordered by (start, end)
//! in which each node knows the farthest end at or below it, so a question
//! costs O(log n) plus the answers, whatever the ranges are.

use std::cmp::Ordering;
use std::collections::HashMap;

use bytes::Bytes;
use state::KeyRange;

/// Where a range stands in an [`Index`]; free for another range once removed.
pub(super) type Slot = u32;

const NONE: Slot = Slot::MAX;

/// A map from key ranges to values that answers which ranges hold a key.
pub(super) struct Index<T> {
    nodes: Vec<Node<T>>,
    free: Vec<Slot>,
    singles: HashMap<Bytes, Slot>,
    root: Slot,
    random: u64,
}

struct Node<T> {
    range: KeyRange,
    value: T,
    left: Slot,
    right: Slot,
    /// The node at or below this one whose end is the farthest.
    farthest: Slot,
    priority: u64,
}

impl<T: Default> Index<T> {
    pub(super) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            singles: HashMap::new(),
            root: NONE,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// How many ranges are in it.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    pub(super) fn get(&self, slot: Slot) -> &T {
        &self.nodes[slot as usize].value
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut T {
        &mut self.nodes[slot as usize].value
    }

    /// The slot of a range, which is added with a default value when it is new.
    pub(super) fn entry(&mut self, range: &KeyRange) -> Slot {
        if let KeyRange::Single(key) = range {
            if let Some(slot) = self.singles.get(&key[..]) {
                return *slot;
            }
            let slot = self.allocate(range);
            self.singles.insert(key.clone(), slot);
            return slot;
        }
        let mut at = self.root;
        while at != NONE {
            at = match self.order(range, at) {
                Ordering::Less => self.node(at).left,
                Ordering::Greater => self.node(at).right,
                Ordering::Equal => return at,
            };
        }
        let slot = self.allocate(range);
        let (left, right) = self.split(self.root, range);
        let left = self.merge(left, slot);
        self.root = self.merge(left, right);
        slot
    }

    /// Takes a range out and gives its value back.
    pub(super) fn remove(&mut self, slot: Slot) -> T {
        let range = self.node(slot).range.clone();
        match &range {
            KeyRange::Single(key) => {
                self.singles.remove(&key[..]);
            }
            _ => self.root = self.unlink(self.root, &range),
        }
        self.free.push(slot);
        let node = &mut self.nodes[slot as usize];
        node.range = KeyRange::Single(Bytes::new());
        std::mem::take(&mut node.value)
    }

    /// Adds the slots of all ranges that hold `key` to `found`.
    pub(super) fn holding(&self, key: &[u8], found: &mut Vec<Slot>) {
        if let Some(slot) = self.singles.get(key) {
            found.push(*slot);
        }
        self.descend(self.root, key, found);
    }

    /// Any slot in use.
    pub(super) fn any(&self) -> Option<Slot> {
        if self.root != NONE { Some(self.root) } else { self.singles.values().next().copied() }
    }

    fn descend(&self, at: Slot, key: &[u8], found: &mut Vec<Slot>) {
        if at == NONE || self.node(self.node(at).farthest).range.is_before(key) {
            return;
        }
        let node = self.node(at);
        self.descend(node.left, key, found);
        if &node.range.start()[..] <= key {
            if !node.range.is_before(key) {
                found.push(at);
            }
            self.descend(node.right, key, found);
        }
    }

    fn node(&self, slot: Slot) -> &Node<T> {
        &self.nodes[slot as usize]
    }

    fn allocate(&mut self, range: &KeyRange) -> Slot {
        // xorshift: the shape of the tree must not follow the order of the ranges, nothing more.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let node = |slot| Node {
            range: range.clone(),
            value: T::default(),
            left: NONE,
            right: NONE,
            farthest: slot,
            priority: self.random,
        };
        if let Some(slot) = self.free.pop() {
            self.nodes[slot as usize] = node(slot);
            slot
        } else {
            let slot = Slot::try_from(self.nodes.len()).expect("fewer ranges than memory holds");
            self.nodes.push(node(slot));
            slot
        }
    }

    fn order(&self, range: &KeyRange, slot: Slot) -> Ordering {
        let other = &self.node(slot).range;
        range.start().cmp(other.start()).then_with(|| order_ends(range, other))
    }

    /// Cuts a tree into what is less than `range` and the rest.
    fn split(&mut self, at: Slot, range: &KeyRange) -> (Slot, Slot) {
        if at == NONE {
            return (NONE, NONE);
        }
        if self.order(range, at) == Ordering::Greater {
            let (less, rest) = self.split(self.node(at).right, range);
            self.nodes[at as usize].right = less;
            self.refresh(at);
            (at, rest)
        } else {
            let (less, rest) = self.split(self.node(at).left, range);
            self.nodes[at as usize].left = rest;
            self.refresh(at);
            (less, at)
        }
    }

    /// Joins two trees; all of `left` is less than all of `right`.
    fn merge(&mut self, left: Slot, right: Slot) -> Slot {
        if left == NONE || right == NONE {
            return left.min(right);
        }
        if self.node(left).priority > self.node(right).priority {
            let below = self.merge(self.node(left).right, right);
            self.nodes[left as usize].right = below;
            self.refresh(left);
            left
        } else {
            let below = self.merge(left, self.node(right).left);
            self.nodes[right as usize].left = below;
            self.refresh(right);
            right
        }
    }

    fn unlink(&mut self, at: Slot, range: &KeyRange) -> Slot {
        match self.order(range, at) {
            Ordering::Equal => return self.merge(self.node(at).left, self.node(at).right),
            Ordering::Less => {
                let below = self.unlink(self.node(at).left, range);
                self.nodes[at as usize].left = below;
            }
            Ordering::Greater => {
                let below = self.unlink(self.node(at).right, range);
                self.nodes[at as usize].right = below;
            }
        }
        self.refresh(at);
        at
    }

    fn refresh(&mut self, at: Slot) {
        let mut farthest = at;
        for below in [self.node(at).left, self.node(at).right] {
            if below != NONE {
                let candidate = self.node(below).farthest;
                if order_ends(&self.node(candidate).range, &self.node(farthest).range).is_gt() {
                    farthest = candidate;
                }
            }
        }
        self.nodes[at as usize].farthest = farthest;
    }
}

fn order_ends(a: &KeyRange, b: &KeyRange) -> Ordering {
    match (a, b) {
        (KeyRange::Span { end: a, .. }, KeyRange::Span { end: b, .. }) => a.cmp(b),
        (KeyRange::Span { .. }, _) => Ordering::Less,
        (_, KeyRange::Span { .. }) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn some_key(rng: &mut StdRng) -> Bytes {
        let len = rng.random_range(0..4);
        (0..len).map(|_| rng.random_range(b'a'..b'e')).collect()
    }

    fn some_range(rng: &mut StdRng) -> KeyRange {
        loop {
            let (key, end) = (some_key(rng), some_key(rng));
            match rng.random_range(0..10) {
                0..3 => return KeyRange::Single(key),
                3 => return KeyRange::From(key),
                _ if key < end => return KeyRange::Span { start: key, end },
                _ => {}
            }
        }
    }

    #[test]
    fn holds_what_a_list_holds() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut index = Index::<u32>::new();
            let mut list: BTreeMap<Slot, KeyRange> = BTreeMap::new();
            for step in 0..300 {
                if rng.random_bool(0.6) {
                    let range = some_range(&mut rng);
                    let slot = index.entry(&range);
                    match list.get(&slot) {
                        Some(known) => assert_eq!(*known, range, "seed {seed} step {step}"),
                        None => assert!(!list.values().any(|r| *r == range), "seed {seed} step {step}"),
                    }
                    list.insert(slot, range);
                } else if let Some(slot) = list.keys().nth(rng.random_range(0..list.len().max(1))).copied() {
                    index.remove(slot);
                    list.remove(&slot);
                }
                assert_eq!(index.len(), list.len());
                assert_eq!(index.any().is_some(), !list.is_empty());
                let key = some_key(&mut rng);
                let mut found = Vec::new();
                index.holding(&key, &mut found);
                found.sort_unstable();
                let expected: Vec<Slot> =
                    list.iter().filter(|(_, r)| r.contains(&key)).map(|(slot, _)| *slot).collect();
                assert_eq!(found, expected, "seed {seed} step {step} key {key:?}");
            }
        }
    }
}
