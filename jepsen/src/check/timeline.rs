//! What happened, revision by revision.
//!
//! Two accounts are put together: what the run's observer was told, and what
//! answered writes say of themselves. Where neither knows a revision, what
//! reads saw of it and the unique values of operations without an answer fill in.
//!
//! ```text
//!   observer ─────┐
//!   answers ──────┼─► revision 7: a=1 by operation 12    a ─► 7, 9, 12
//!   values read ──┘   revision 8: ?                      b ─► 4
//! ```
//!
//! Where the accounts contradict each other, the observer is believed, and the
//! contradiction is among [`Timeline::anomalies`]. `created` and `version` are
//! counted here, never believed, unless a revision before is missing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use super::Anomaly;
use super::model::{self, Write, next};
use crate::history::{Action, Answer, Body, History, Keys, Nanos, Operation, Outcome, Pair, Request};
use accounts::{Accounts, told};

mod accounts;
mod writers;

/// One key's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub key: String,
    /// When, as a revision.
    pub revision: i64,
    /// The key after it; nothing where it was deleted.
    pub pair: Option<Pair>,
    /// Whether `created` and `version` are known: a missing revision before may hide them.
    pub sure: bool,
}

/// Who made a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// An operation, by its index.
    Operation(usize),
    /// The end of a lease that nobody revoked.
    Expiry(i64),
    /// Nobody that can be found.
    Nobody,
}

/// Everything that changed at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Which.
    pub number: i64,
    /// In their order.
    pub changes: Vec<Change>,
    /// By whom.
    pub writer: Writer,
    /// When the observer was told, if it was.
    pub observed: Option<Nanos>,
    /// A time by which it was certainly there: somebody had heard of it, or of a later one.
    pub known: Nanos,
    /// The lease all of whose keys were deleted, and no others.
    pub lease: Option<i64>,
}

/// What happened, revision by revision.
#[derive(Debug, Default)]
pub struct Timeline {
    revisions: BTreeMap<i64, Revision>,
    keys: BTreeMap<String, Vec<Change>>,
    missing: Vec<(i64, i64)>,
    told: Vec<(i64, i64)>,
    places: HashMap<usize, i64>,
    anomalies: Vec<Anomaly>,
}

impl Timeline {
    /// Puts the accounts of a history together.
    pub fn of(history: &History) -> Self {
        let accounts = Accounts::of(history);
        let mut timeline = Self { told: told(history), ..Self::default() };
        let mut attached = Attached::default();
        for number in accounts.numbers() {
            timeline.add(history, &accounts, &mut attached, number);
        }
        timeline.find_missing(accounts.last);
        timeline.find_known(&accounts.evidence);
        timeline.find_writers(history, &accounts);
        timeline
    }

    /// Every revision that is known, ascending.
    pub fn revisions(&self) -> impl Iterator<Item = &Revision> {
        self.revisions.values()
    }

    /// One revision, where it is known.
    pub fn revision(&self, number: i64) -> Option<&Revision> {
        self.revisions.get(&number)
    }

    /// The changes after one revision and up to another, ascending.
    pub fn changes(&self, after: i64, until: i64) -> impl Iterator<Item = &Change> {
        let known = (after < until).then(|| self.revisions.range(after + 1..=until));
        known.into_iter().flatten().flat_map(|(_, revision)| &revision.changes)
    }

    /// All changes of a key, ascending.
    pub fn changes_of(&self, key: &str) -> &[Change] {
        self.keys.get(key).map_or(&[], Vec::as_slice)
    }

    /// Every key that ever was.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// A key as it was at a revision.
    pub fn at(&self, key: &str, revision: i64) -> Option<&Pair> {
        last_until(self.changes_of(key), revision).and_then(|change| change.pair.as_ref())
    }

    /// Some keys as they were at a revision, in key order.
    pub fn range(&self, keys: &Keys, revision: i64) -> Vec<&Pair> {
        self.changes_at(keys, revision).filter_map(|change| change.pair.as_ref()).collect()
    }

    /// Whether what is known of some keys at a revision is all there is to know.
    pub fn certain(&self, keys: &Keys, revision: i64) -> bool {
        if self.missing.first().is_none_or(|(first, _)| *first > revision) {
            return true;
        }
        if !keys.end.is_empty() {
            return false;
        }
        last_until(self.changes_of(&keys.key), revision)
            .is_some_and(|change| change.sure && self.whole(change.revision, revision))
    }

    /// Whether every revision from one to another is known.
    pub fn whole(&self, from: i64, to: i64) -> bool {
        let next = self.missing.partition_point(|(_, last)| *last < from);
        self.missing.get(next).is_none_or(|(first, _)| *first > to)
    }

    /// Revisions that were, but of which nobody knows anything: from and to, ascending.
    pub fn missing(&self) -> &[(i64, i64)] {
        &self.missing
    }

    /// Revisions of which the observer was told everything: from and to, ascending.
    pub fn told(&self) -> &[(i64, i64)] {
        &self.told
    }

    /// The last revision that is known.
    pub fn last(&self) -> i64 {
        self.revisions.last_key_value().map_or(1, |(number, _)| *number)
    }

    /// The revision an operation made.
    pub fn place(&self, operation: usize) -> Option<i64> {
        self.places.get(&operation).copied()
    }

    /// Where the accounts contradict each other, or tell of what nobody asked for.
    pub fn anomalies(&self) -> &[Anomaly] {
        &self.anomalies
    }

    fn changes_at(&self, keys: &Keys, revision: i64) -> impl Iterator<Item = &Change> {
        let from = keys.key.as_str();
        let end = keys.end.as_str();
        self.keys
            .range::<str, _>((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(key, _)| match end {
                "" => key.as_str() == from,
                "\0" => true,
                end => key.as_str() < end,
            })
            .filter_map(move |(_, changes)| last_until(changes, revision))
    }

    /// Adds the next revision: from the observer, else from an answer, else from what was read.
    fn add(&mut self, history: &History, accounts: &Accounts<'_>, attached: &mut Attached, number: i64) {
        let observed = accounts.observed.get(&number);
        let claim = self.settle(history, accounts, number);
        let before = self.last();
        if number > before + 1 {
            self.missing.push((before + 1, number - 1));
        }
        let (writes, pairs) = match (observed, claim) {
            (Some(observed), _) => {
                (observed.writes(), observed.events.iter().map(|event| &event.pair).collect())
            }
            (None, Some(index)) => (effect(self, &history.operations[index], number - 1), Vec::new()),
            (None, None) => {
                let glimpsed = accounts.glimpsed.get(&number).map_or(&[][..], Vec::as_slice);
                (self.guess(history, accounts, glimpsed, number), glimpsed.to_vec())
            }
        };
        let sure = self.missing.is_empty();
        let lease = attached.lease_of(&writes);
        let changes: Vec<_> = writes
            .into_iter()
            .map(|write| {
                let told = pairs.iter().find(|pair| pair.key == write.key).copied();
                self.change(write, number, sure, told)
            })
            .collect();
        for change in &changes {
            attached.note(change);
            self.keys.entry(change.key.clone()).or_default().push(change.clone());
        }
        let (writer, observed) =
            (claim.map_or(Writer::Nobody, Writer::Operation), observed.map(|observed| observed.at));
        if let Some(index) = claim {
            self.places.insert(index, number);
        }
        let revision = Revision { number, changes, writer, observed, known: Nanos::MAX, lease };
        self.revisions.insert(number, revision);
    }

    fn change(&self, write: Write, revision: i64, sure: bool, told: Option<&Pair>) -> Change {
        let Write { key, put } = write;
        let Some((value, lease)) = put else {
            return Change { key, revision, pair: None, sure: true };
        };
        let last = self.changes_of(&key).last();
        let sure = sure || last.is_some_and(|last| last.sure && self.whole(last.revision, revision));
        let pair = next(last.and_then(|last| last.pair.as_ref()), &key, &value, lease, revision);
        match told {
            Some(told) if !sure && told.version > 0 => {
                Change { key, revision, pair: Some(told.clone()), sure: true }
            }
            _ => Change { key, revision, pair: Some(pair), sure },
        }
    }

    fn find_missing(&mut self, last: i64) {
        let known = self.last();
        if last > known {
            self.missing.push((known + 1, last));
        }
    }

    fn find_known(&mut self, evidence: &BTreeMap<i64, Nanos>) {
        let mut evidence = evidence.iter().rev().peekable();
        let mut known = Nanos::MAX;
        for (number, revision) in self.revisions.iter_mut().rev() {
            while let Some((_, at)) = evidence.next_if(|(of, _)| *of >= number) {
                known = known.min(*at);
            }
            revision.known = known;
        }
    }
}

/// The last change up to a revision.
fn last_until(changes: &[Change], revision: i64) -> Option<&Change> {
    let after = changes.partition_point(|change| change.revision <= revision);
    after.checked_sub(1).map(|index| &changes[index])
}

/// What an answered operation changed, by what it was answered.
fn effect(timeline: &Timeline, operation: &Operation, base: i64) -> Vec<Write> {
    let branch = match &operation.outcome {
        Outcome::Done(Answer { body: Body::Txn { succeeded, .. }, .. }) => Some(*succeeded),
        _ => None,
    };
    model::writes(timeline, &operation.action, base, branch)
}

/// Whether an answer says that something changed.
pub fn changed(action: &Action, body: &Body) -> bool {
    match (action, body) {
        (Action::Put(_), _) => true,
        (Action::Delete(_), Body::Delete { deleted, .. }) => *deleted > 0,
        (Action::Txn(txn), Body::Txn { succeeded, answers }) => {
            let requests = if *succeeded { &txn.then } else { &txn.otherwise };
            requests.iter().any(|request| matches!(request, Request::Put(_)))
                || answers.iter().any(|answer| matches!(answer, Body::Delete { deleted, .. } if *deleted > 0))
        }
        _ => false,
    }
}

/// Which keys each lease has, while revisions go by.
#[derive(Default)]
struct Attached {
    keys: HashMap<i64, BTreeSet<String>>,
    leases: HashMap<String, i64>,
}

impl Attached {
    /// The lease all of whose keys end here, and no others.
    fn lease_of(&self, writes: &[Write]) -> Option<i64> {
        let lease = *self.leases.get(&writes.first()?.key)?;
        let all = self.keys[&lease].len() == writes.len()
            && writes.iter().all(|write| write.put.is_none() && self.leases.get(&write.key) == Some(&lease));
        all.then_some(lease)
    }

    fn note(&mut self, change: &Change) {
        if let Some(lease) = self.leases.remove(&change.key) {
            self.keys.entry(lease).or_default().remove(&change.key);
        }
        if let Some(lease) = change.pair.as_ref().map(|pair| pair.lease).filter(|lease| *lease != 0) {
            self.leases.insert(change.key.clone(), lease);
            self.keys.entry(lease).or_default().insert(change.key.clone());
        }
    }
}

#[cfg(test)]
mod tests;
