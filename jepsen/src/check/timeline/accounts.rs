//! The accounts of a history, revision by revision, before they are put together.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::changed;
use crate::check::model::Write;
use crate::history::{Action, Body, Event, History, Nanos, Notice, Outcome, Pair, Request, Watch};

/// Revisions of which observers were told everything, joined where they touch.
pub fn told(history: &History) -> Vec<(i64, i64)> {
    let mut spans = Vec::new();
    for watch in history.watches.iter().filter(|watch| watch.observer) {
        let mut from = None;
        for seen in &watch.seen {
            let until = match &seen.what {
                Notice::Created { start: 0 } => {
                    from = Some(seen.revision + 1);
                    continue;
                }
                Notice::Created { start } => {
                    from = Some(*start);
                    continue;
                }
                Notice::Events(events) => events.iter().map(|event| event.pair.modified).max().unwrap_or(0),
                Notice::Progress => seen.revision,
                Notice::Cancelled { .. } | Notice::Lost(_) => {
                    from = None;
                    continue;
                }
            };
            spans.extend(from.filter(|from| *from <= until).map(|from| (from, until)));
        }
    }
    spans.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for (from, until) in spans {
        match joined.last_mut() {
            Some(last) if from <= last.1 + 1 => last.1 = last.1.max(until),
            _ => joined.push((from, until)),
        }
    }
    joined
}

/// What the observer was told of one revision.
pub struct Observed<'a> {
    /// When first.
    pub at: Nanos,
    /// In their order.
    pub events: Vec<&'a Event>,
}

impl Observed<'_> {
    fn has(&self, event: &Event) -> bool {
        let same = |own: &&Event| (own.deleted, &own.pair.value) == (event.deleted, &event.pair.value);
        self.events.iter().find(|own| own.pair.key == event.pair.key).is_some_and(same)
    }

    fn within(&self, other: &Self) -> bool {
        self.events.iter().all(|event| other.has(event))
    }

    /// As an operation would make them.
    pub fn writes(&self) -> Vec<Write> {
        let put = |event: &Event| (!event.deleted).then(|| (event.pair.value.clone(), event.pair.lease));
        self.events.iter().map(|event| Write { key: event.pair.key.clone(), put: put(event) }).collect()
    }
}

/// The accounts by revision.
#[derive(Default)]
pub struct Accounts<'a> {
    /// What the observer was told.
    pub observed: BTreeMap<i64, Observed<'a>>,
    /// Answered operations that say they made the revision.
    pub answered: BTreeMap<i64, Vec<usize>>,
    /// What was read of revisions that the others do not tell of.
    pub glimpsed: BTreeMap<i64, Vec<&'a Pair>>,
    /// Operations by the values they would put.
    pub values: HashMap<&'a str, Vec<usize>>,
    /// When somebody first heard of a revision.
    pub evidence: BTreeMap<i64, Nanos>,
    /// Revisions of which observers were told different things, and what.
    pub disagreed: Vec<(i64, Vec<Write>, Vec<Write>)>,
    /// At which revisions the observer was shown a value.
    pub shown: HashMap<&'a str, Vec<i64>>,
    /// The last revision anybody heard of.
    pub last: i64,
}

impl<'a> Accounts<'a> {
    /// Gathers them.
    pub fn of(history: &'a History) -> Self {
        let mut accounts = Self { last: 1, ..Self::default() };
        for watch in history.watches.iter().filter(|watch| watch.observer) {
            accounts.observe(watch);
        }
        accounts.note_shown();
        for (index, operation) in history.operations.iter().enumerate() {
            accounts.note_values(index, &operation.action);
            let Outcome::Done(answer) = &operation.outcome else { continue };
            accounts.hear(answer.revision, operation.returned);
            if changed(&operation.action, &answer.body) {
                accounts.answered.entry(answer.revision).or_default().push(index);
            }
        }
        for operation in &history.operations {
            if let Outcome::Done(answer) = &operation.outcome {
                accounts.glimpse(&answer.body);
            }
        }
        accounts
    }

    /// Every revision somebody tells of.
    pub fn numbers(&self) -> BTreeSet<i64> {
        let glimpsed = self.glimpsed.keys();
        self.observed.keys().chain(self.answered.keys()).chain(glimpsed).copied().collect()
    }

    fn hear(&mut self, revision: i64, at: Nanos) {
        self.last = self.last.max(revision);
        let first = self.evidence.entry(revision).or_insert(at);
        *first = (*first).min(at);
    }

    fn observe(&mut self, watch: &'a Watch) {
        let mut own: BTreeMap<i64, Observed<'a>> = BTreeMap::new();
        for seen in &watch.seen {
            let Notice::Events(events) = &seen.what else { continue };
            for event in events {
                self.hear(event.pair.modified, seen.at);
                let new = || Observed { at: seen.at, events: Vec::new() };
                let told = own.entry(event.pair.modified).or_insert_with(new);
                if told.events.iter().all(|other| other.pair.key != event.pair.key) {
                    told.events.push(event);
                } else if !told.has(event) {
                    let again = Observed { at: seen.at, events: vec![event] };
                    self.disagreed.push((event.pair.modified, again.writes(), told.writes()));
                }
            }
        }
        for (number, told) in own {
            match self.observed.entry(number) {
                Entry::Vacant(free) => drop(free.insert(told)),
                Entry::Occupied(mut other) => {
                    let other = other.get_mut();
                    other.at = other.at.min(told.at);
                    let (more, less) = (!told.within(other), !other.within(&told));
                    match (more, less) {
                        // What one was not told, the other was.
                        (true, false) => other.events = told.events,
                        (true, true) => self.disagreed.push((number, told.writes(), other.writes())),
                        (false, _) => {}
                    }
                }
            }
        }
    }

    /// Which revision showed which value, once all observers were heard.
    fn note_shown(&mut self) {
        for (number, told) in &self.observed {
            for event in told.events.iter().filter(|event| !event.deleted) {
                self.shown.entry(&event.pair.value).or_default().push(*number);
            }
        }
    }

    fn note_values(&mut self, index: usize, action: &'a Action) {
        match action {
            Action::Put(put) => self.values.entry(&put.value).or_default().push(index),
            Action::Txn(txn) => {
                for request in txn.then.iter().chain(&txn.otherwise) {
                    if let Request::Put(put) = request {
                        self.values.entry(&put.value).or_default().push(index);
                    }
                }
            }
            _ => {}
        }
    }

    fn glimpse(&mut self, body: &'a Body) {
        match body {
            Body::Range { pairs, .. } | Body::Delete { previous: pairs, .. } => {
                pairs.iter().for_each(|pair| self.glimpse_pair(pair));
            }
            Body::Put { previous } => previous.iter().for_each(|pair| self.glimpse_pair(pair)),
            Body::Txn { answers, .. } => answers.iter().for_each(|answer| self.glimpse(answer)),
            Body::Nothing | Body::Lease { .. } => {}
        }
    }

    fn glimpse_pair(&mut self, pair: &'a Pair) {
        let known = self.observed.contains_key(&pair.modified) || self.answered.contains_key(&pair.modified);
        if known || pair.modified < 2 {
            return;
        }
        let seen = self.glimpsed.entry(pair.modified).or_default();
        if !seen.iter().any(|other| other.key == pair.key) {
            seen.push(pair);
        }
    }
}
