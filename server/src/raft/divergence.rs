//! Whether this member has applied what its leader has.
//!
//! The leader's heartbeats say what the fingerprint of everything applied was at
//! some entry. A member that has another one there is not a copy any more:
//! whatever it answers may be wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use state::Fingerprint;
use tokio::sync::watch;

/// Own fingerprints remembered.
const OWN_MAX: usize = 4096;
/// Fingerprints of leaders that this member has not come to yet.
const AHEAD_MAX: usize = 256;

/// The entry at which a member was found to differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Divergence {
    /// Index of the entry.
    pub index: u64,
}

/// What was applied here, and what leaders say they applied.
pub(crate) struct Fingerprints {
    seen: Mutex<Seen>,
    divergence: watch::Sender<Option<Divergence>>,
    diverged: AtomicBool,
}

#[derive(Default)]
struct Seen {
    own: BTreeMap<u64, Fingerprint>,
    ahead: BTreeMap<u64, Fingerprint>,
}

impl Default for Fingerprints {
    fn default() -> Self {
        Self {
            seen: Mutex::default(),
            divergence: watch::Sender::new(None),
            diverged: AtomicBool::new(false),
        }
    }
}

impl Fingerprints {
    /// These were applied here.
    pub fn applied(&self, fingerprints: &[(u64, Fingerprint)]) {
        let mut seen = self.seen.lock();
        for (index, own) in fingerprints {
            seen.own.insert(*index, *own);
            while let Some((at, theirs)) = seen.ahead.first_key_value().map(|(at, theirs)| (*at, *theirs))
                && at <= *index
            {
                seen.ahead.remove(&at);
                if at == *index {
                    self.compare(at, *own, theirs);
                }
            }
        }
        while seen.own.len() > OWN_MAX {
            seen.own.pop_first();
        }
    }

    /// The state was replaced: what was applied here before says nothing any more.
    pub fn replaced(&self) {
        *self.seen.lock() = Seen::default();
        self.diverged.store(false, Ordering::Release);
        self.divergence.send_replace(None);
    }

    /// A leader had applied this much, with this fingerprint.
    pub fn hear(&self, index: u64, theirs: Fingerprint) {
        let mut seen = self.seen.lock();
        if let Some(own) = seen.own.get(&index) {
            self.compare(index, *own, theirs);
        } else if seen.own.last_key_value().is_none_or(|(last, _)| *last < index) {
            seen.ahead.insert(index, theirs);
            while seen.ahead.len() > AHEAD_MAX {
                seen.ahead.pop_first();
            }
        }
    }

    /// What to tell a follower: the newest at an entry that every member knows its own of, however it groups them,
    /// and the newest. A member that differs has nothing to tell.
    pub fn tell(&self) -> Vec<(u64, Fingerprint)> {
        let seen = self.seen.lock();
        let Some((newest, _)) = seen.own.last_key_value().filter(|_| !self.diverged()) else {
            return Vec::new();
        };
        let mark = newest - newest % state::apply::FINGERPRINT_INTERVAL;
        let marked = seen.own.range(mark..=mark).filter(|_| mark < *newest);
        marked.chain(seen.own.range(newest..)).map(|(index, fingerprint)| (*index, *fingerprint)).collect()
    }

    /// Tells once this member is found to differ.
    pub fn divergence(&self) -> watch::Receiver<Option<Divergence>> {
        self.divergence.subscribe()
    }

    /// Whether this member was found to differ.
    pub fn diverged(&self) -> bool {
        self.diverged.load(Ordering::Acquire)
    }

    fn compare(&self, index: u64, own: Fingerprint, theirs: Fingerprint) {
        if own.differs(theirs) && self.divergence.borrow().is_none() {
            tracing::error!(
                index,
                own = format!("{:016x}", own.value),
                leader = format!("{:016x}", theirs.value),
                "this member has applied something else than its leader"
            );
            self.diverged.store(true, Ordering::Release);
            self.divergence.send_replace(Some(Divergence { index }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(value: u64) -> Fingerprint {
        Fingerprint { since: 0, value }
    }

    #[test]
    fn differing_is_found_whoever_is_first() {
        for own_first in [true, false] {
            for (own, differs) in [(7, false), (8, true)] {
                let fingerprints = Fingerprints::default();
                let divergence = fingerprints.divergence();
                if own_first {
                    fingerprints.applied(&[(3, fingerprint(1)), (5, fingerprint(own))]);
                    fingerprints.hear(4, fingerprint(9));
                    fingerprints.hear(5, fingerprint(7));
                } else {
                    fingerprints.hear(4, fingerprint(9));
                    fingerprints.hear(5, fingerprint(7));
                    fingerprints.applied(&[(3, fingerprint(1)), (5, fingerprint(own))]);
                }
                let expected = differs.then_some(Divergence { index: 5 });
                assert_eq!(*divergence.borrow(), expected, "own first: {own_first}");
            }
        }
    }

    #[test]
    fn the_newest_and_the_newest_mark_are_told() {
        let fingerprints = Fingerprints::default();
        assert_eq!(fingerprints.tell(), []);
        fingerprints.applied(&[(1000, fingerprint(1)), (1024, fingerprint(2)), (1030, fingerprint(3))]);
        assert_eq!(fingerprints.tell(), [(1024, fingerprint(2)), (1030, fingerprint(3))]);
        fingerprints.applied(&[(2048, fingerprint(4))]);
        assert_eq!(fingerprints.tell(), [(2048, fingerprint(4))], "once, where they are the same");
    }
}
