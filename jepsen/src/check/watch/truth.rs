//! What happened, revision by revision, as far as a history tells.
//!
//! ```text
//!   answered writes ─┐
//!   the observer ────┼─► revision ─► key ─► the pair after, and before
//!   other watchers ──┘
//! ```
//!
//! The observer is a watcher like others, to be judged as well: a write's own
//! answer is believed before it, and other watchers only of revisions that
//! neither tells of. What a pair was before its change,
//! and how it was counted, follows from going through all revisions in order;
//! after one that nobody tells of wholly it is unknown until seen again.

use std::collections::{BTreeMap, HashMap};

use crate::check::compactions::Compactions;
use crate::check::model::covers;
use crate::history::{
    Action, Answer, Body, Delete, Event, History, Keys, Nanos, Notice, Outcome, Pair, Put, Request,
};

/// The revision of an empty key space; the first write makes the next one.
const FIRST: i64 = 1;

/// All that happened.
#[derive(Debug, Default)]
pub(super) struct Truth<'a> {
    revisions: BTreeMap<i64, Revision<'a>>,
    /// Which operation put a value.
    writers: HashMap<&'a str, usize>,
    compactions: Compactions,
}

/// What happened in one revision.
#[derive(Debug, Default)]
pub(super) struct Revision<'a> {
    /// By key: a revision changes a key only once.
    pub(super) changes: BTreeMap<&'a str, Change>,
    /// The operation that was answered with this revision.
    operation: Option<usize>,
    /// Whether the answers to writes tell of every change, so that there was no other.
    pub(super) answered: bool,
    /// Whether every change is known.
    whole: bool,
}

/// One change.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    /// Whether the key was deleted.
    pub(super) deleted: bool,
    /// The pair after the change; not counted, with `created` 0, where that cannot be known.
    pub(super) after: Pair,
    /// The pair before, if it was there; `None` where that cannot be known.
    pub(super) before: Option<Option<Pair>>,
}

impl<'a> Truth<'a> {
    /// What a history tells.
    pub(super) fn of(history: &'a History) -> Truth<'a> {
        let mut truth = Truth { compactions: Compactions::of(history), ..Truth::default() };
        truth.hear_writers(history);
        for seen in history.watches.iter().filter(|watch| watch.observer).flat_map(|watch| &watch.seen) {
            truth.hear_watcher(&seen.what, |_| true);
        }
        let whole = truth.revisions.iter().filter(|(_, what)| what.whole);
        let known: Vec<i64> = whole.map(|(&revision, _)| revision).collect();
        for watch in history.watches.iter().filter(|watch| !watch.observer) {
            for seen in &watch.seen {
                truth.hear_watcher(&seen.what, |revision| known.binary_search(&revision).is_err());
            }
        }
        truth.replay();
        truth
    }

    /// What happened in a revision.
    pub(super) fn at(&self, revision: i64) -> Option<&Revision<'a>> {
        self.revisions.get(&revision)
    }

    /// What happened to some keys from one revision to another, both included.
    pub(super) fn of_keys<'b>(
        &'b self,
        keys: &'b Keys,
        from: i64,
        to: i64,
    ) -> impl Iterator<Item = (i64, &'a str)> + 'b {
        let range = (from <= to).then(|| self.revisions.range(from..=to));
        range.into_iter().flatten().flat_map(move |(&revision, what)| {
            what.changes.keys().filter(|key| covers(keys, key)).map(move |&key| (revision, key))
        })
    }

    /// How many revisions are known.
    pub(super) fn len(&self) -> usize {
        self.revisions.len()
    }

    /// Revisions that nobody tells of, from one to another, as first and last ones.
    pub(super) fn holes(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let mut next = from.max(FIRST + 1);
        let mut holes = Vec::new();
        if next > to {
            return holes;
        }
        for &revision in self.revisions.range(next..=to).map(|(revision, _)| revision) {
            if revision > next {
                holes.push((next, revision - 1));
            }
            next = revision + 1;
        }
        if next <= to {
            holes.push((next, to));
        }
        holes
    }

    /// The operation behind a revision.
    pub(super) fn operation(&self, revision: i64) -> Option<usize> {
        let what = self.at(revision)?;
        what.operation.or_else(|| what.changes.values().find_map(|change| self.writer(&change.after.value)))
    }

    /// The operation that put a value.
    pub(super) fn writer(&self, value: &str) -> Option<usize> {
        self.writers.get(value).copied()
    }

    /// Whether a revision may have been compacted away by some time.
    pub(super) fn may_be_compacted(&self, revision: i64, by: Nanos) -> bool {
        self.compactions.may_reach(revision, by)
    }

    fn hear_writers(&mut self, history: &'a History) {
        for (number, operation) in history.operations.iter().enumerate() {
            match (&operation.action, &operation.outcome) {
                (_, Outcome::Refused(_)) => continue,
                (Action::Put(put), _) => drop(self.writers.insert(&put.value, number)),
                (Action::Txn(txn), _) => {
                    for request in txn.then.iter().chain(&txn.otherwise) {
                        if let Request::Put(put) = request {
                            self.writers.insert(&put.value, number);
                        }
                    }
                }
                _ => {}
            }
            if let Outcome::Done(answer) = &operation.outcome {
                self.hear_answer(number, &operation.action, answer);
            }
        }
    }

    fn hear_answer(&mut self, number: usize, action: &'a Action, answer: &'a Answer) {
        let mut told = Told { revision: answer.revision, changes: Vec::new(), whole: true };
        match (action, &answer.body) {
            (Action::Put(put), _) => told.put(put),
            (Action::Delete(delete), Body::Delete { deleted, previous }) => {
                told.delete(delete, *deleted, previous);
            }
            (Action::Txn(txn), Body::Txn { succeeded, answers }) => {
                let requests = if *succeeded { &txn.then } else { &txn.otherwise };
                for (request, body) in requests.iter().zip(answers) {
                    match (request, body) {
                        (Request::Put(put), _) => told.put(put),
                        (Request::Delete(delete), Body::Delete { deleted, previous }) => {
                            told.delete(delete, *deleted, previous);
                        }
                        _ => {}
                    }
                }
            }
            _ => return,
        }
        if told.changes.is_empty() && told.whole {
            return;
        }
        let revision = self.revisions.entry(answer.revision).or_default();
        let alone = revision.operation.is_none();
        revision.operation.get_or_insert(number);
        revision.answered = alone && told.whole;
        revision.whole = revision.answered;
        for (key, change) in told.changes {
            revision.changes.entry(key).or_insert(change);
        }
    }

    fn hear_watcher(&mut self, notice: &'a Notice, believed: impl Fn(i64) -> bool) {
        let Notice::Events(events) = notice else { return };
        for event in events.iter().filter(|event| believed(event.pair.modified)) {
            let revision = self.revisions.entry(event.pair.modified).or_default();
            if !revision.answered {
                revision.whole = true;
                revision.changes.entry(&event.pair.key).or_insert_with(|| Change::from(event));
            } else if let Some(change) = revision.changes.get_mut(event.pair.key.as_str()) {
                // How it is counted shows where its past is unknown.
                if change.after.created == 0 && change.after.value == event.pair.value {
                    change.after = event.pair.clone();
                }
            }
        }
    }

    /// Goes through all revisions in order, and settles what each pair was before and how it is counted.
    fn replay(&mut self) {
        let mut pairs: HashMap<&str, Option<Pair>> = HashMap::new();
        let mut all_known = true;
        let mut next = FIRST + 1;
        for (&number, revision) in &mut self.revisions {
            if number != next || !revision.whole {
                pairs.clear();
                all_known = false;
            }
            next = number + 1;
            for (&key, change) in &mut revision.changes {
                change.before = pairs.get(key).cloned().or(all_known.then_some(None));
                let after = &mut change.after;
                match &change.before {
                    _ if change.deleted => {}
                    Some(Some(before)) => {
                        (after.created, after.version) = (before.created, before.version + 1)
                    }
                    Some(None) => (after.created, after.version) = (number, 1),
                    None => {}
                }
                if change.deleted {
                    pairs.insert(key, None);
                } else if after.created > 0 {
                    pairs.insert(key, Some(after.clone()));
                } else {
                    pairs.remove(key);
                }
            }
        }
    }
}

impl From<&Event> for Change {
    fn from(event: &Event) -> Change {
        Change { deleted: event.deleted, after: event.pair.clone(), before: None }
    }
}

/// What one answer tells.
struct Told<'a> {
    revision: i64,
    changes: Vec<(&'a str, Change)>,
    whole: bool,
}

impl<'a> Told<'a> {
    fn put(&mut self, put: &'a Put) {
        let (key, value) = (put.key.clone(), put.value.clone());
        let after = Pair { key, value, modified: self.revision, lease: put.lease, ..Pair::default() };
        self.changes.push((&put.key, Change { after, ..Change::default() }));
    }

    fn delete(&mut self, delete: &'a Delete, deleted: i64, previous: &'a [Pair]) {
        let one = delete.keys.end.is_empty() && deleted > 0;
        let keys = one.then_some(delete.keys.key.as_str());
        let others = previous.iter().map(|pair| pair.key.as_str()).filter(|_| !one);
        let before = self.changes.len();
        for key in keys.into_iter().chain(others) {
            let after = Pair { key: key.to_owned(), modified: self.revision, ..Pair::default() };
            self.changes.push((key, Change { deleted: true, after, before: None }));
        }
        self.whole &= self.changes.len() - before == usize::try_from(deleted).unwrap_or(0);
    }
}

/// Whether these are all keys there can be.
pub(super) fn is_everything(keys: &Keys) -> bool {
    keys.end == "\0" && keys.key.as_str() <= "\0"
}
