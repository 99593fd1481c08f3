//! What etcd answers to an action, given what was there before.

use std::collections::BTreeMap;

use super::timeline::Timeline;
use crate::history::{
    Action, Body, Compare, Delete, Keys, Operand, Pair, Put, Range, Relation, Request, Txn,
};

/// Whether a key is among some.
pub fn covers(keys: &Keys, key: &str) -> bool {
    match keys.end.as_str() {
        "" => key == keys.key,
        "\0" => key >= keys.key.as_str(),
        end => key >= keys.key.as_str() && key < end,
    }
}

/// One change an action makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Of which key.
    pub key: String,
    /// Its new value and lease, or its end.
    pub put: Option<(String, i64)>,
}

/// What an action does and says.
#[derive(Debug, Clone, PartialEq)]
pub struct Performed {
    /// The answer without its header.
    pub body: Body,
    /// In the order in which they were made, each key once.
    pub writes: Vec<Write>,
}

/// What an action does on the state of revision `base`. `branch` says which list of a transaction
/// is taken; without it the compares decide.
pub fn perform(timeline: &Timeline, action: &Action, base: i64, branch: Option<bool>) -> Performed {
    let mut session = Session::new(timeline, base, true);
    let body = session.act(action, branch);
    Performed { body, writes: session.writes }
}

/// Only what an action changes, not what it says.
pub fn writes(timeline: &Timeline, action: &Action, base: i64, branch: Option<bool>) -> Vec<Write> {
    let mut session = Session::new(timeline, base, false);
    session.act(action, branch);
    session.writes
}

/// Whether a compare holds of a key as it is.
pub fn holds(compare: &Compare, pair: Option<&Pair>) -> bool {
    let number = |of: fn(&Pair) -> i64| pair.map_or(0, of);
    let order = match &compare.operand {
        Operand::Value(value) => match pair {
            Some(pair) => pair.value.as_str().cmp(value),
            None => return false,
        },
        Operand::Modified(operand) => number(|pair| pair.modified).cmp(operand),
        Operand::Created(operand) => number(|pair| pair.created).cmp(operand),
        Operand::Version(operand) => number(|pair| pair.version).cmp(operand),
        Operand::Lease(operand) => number(|pair| pair.lease).cmp(operand),
    };
    match compare.relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
    }
}

/// The pair after a put.
pub fn next(previous: Option<&Pair>, key: &str, value: &str, lease: i64, revision: i64) -> Pair {
    Pair {
        key: key.into(),
        value: value.into(),
        created: previous.map_or(revision, |pair| pair.created),
        modified: revision,
        version: previous.map_or(1, |pair| pair.version + 1),
        lease,
    }
}

/// One action under way: what was there, and what it changed so far.
struct Session<'a> {
    timeline: &'a Timeline,
    base: i64,
    /// Whether what it reads is asked for.
    reading: bool,
    overlay: BTreeMap<String, Option<Pair>>,
    writes: Vec<Write>,
}

impl<'a> Session<'a> {
    fn new(timeline: &'a Timeline, base: i64, reading: bool) -> Self {
        Self { timeline, base, reading, overlay: BTreeMap::new(), writes: Vec::new() }
    }

    fn act(&mut self, action: &Action, branch: Option<bool>) -> Body {
        match action {
            Action::Range(range) => self.range(range),
            Action::Put(put) => self.put(put),
            Action::Delete(delete) => self.delete(delete),
            Action::Txn(txn) => self.txn(txn, branch),
            Action::Compact { .. }
            | Action::LeaseGrant { .. }
            | Action::LeaseRevoke { .. }
            | Action::LeaseKeepAlive { .. }
            | Action::LeaseTimeToLive { .. } => Body::Nothing,
        }
    }

    fn read(&self, keys: &Keys) -> Vec<Pair> {
        let before = self.timeline.range(keys, self.base);
        if self.overlay.is_empty() {
            return before.into_iter().cloned().collect();
        }
        let mut merged: BTreeMap<&str, &Pair> =
            before.into_iter().map(|pair| (pair.key.as_str(), pair)).collect();
        for (key, pair) in self.overlay.iter().filter(|(key, _)| covers(keys, key)) {
            match pair {
                Some(pair) => merged.insert(key, pair),
                None => merged.remove(key.as_str()),
            };
        }
        merged.into_values().cloned().collect()
    }

    fn one(&self, key: &str) -> Option<&Pair> {
        match self.overlay.get(key) {
            Some(pair) => pair.as_ref(),
            None => self.timeline.at(key, self.base),
        }
    }

    fn range(&self, range: &Range) -> Body {
        if !self.reading {
            return Body::Nothing;
        }
        let mut pairs = match range.revision {
            0 => self.read(&range.keys),
            revision => self.timeline.range(&range.keys, revision).into_iter().cloned().collect(),
        };
        let count = pairs.len();
        let more = range.limit > 0 && count > range.limit as usize;
        if more {
            pairs.truncate(range.limit as usize);
        }
        Body::Range { pairs, count: count as i64, more }
    }

    fn put(&mut self, put: &Put) -> Body {
        let previous = self.one(&put.key).cloned();
        let pair = next(previous.as_ref(), &put.key, &put.value, put.lease, self.base + 1);
        self.overlay.insert(put.key.clone(), Some(pair));
        self.writes.push(Write { key: put.key.clone(), put: Some((put.value.clone(), put.lease)) });
        Body::Put { previous: previous.filter(|_| put.previous) }
    }

    fn end(&mut self, pairs: &[Pair]) {
        for pair in pairs {
            self.overlay.insert(pair.key.clone(), None);
            self.writes.push(Write { key: pair.key.clone(), put: None });
        }
    }

    fn delete(&mut self, delete: &Delete) -> Body {
        let pairs = self.read(&delete.keys);
        self.end(&pairs);
        let deleted = pairs.len() as i64;
        Body::Delete { deleted, previous: if delete.previous { pairs } else { Vec::new() } }
    }

    fn txn(&mut self, txn: &Txn, branch: Option<bool>) -> Body {
        let succeeded = branch
            .unwrap_or_else(|| txn.compares.iter().all(|compare| holds(compare, self.one(&compare.key))));
        let requests = if succeeded { &txn.then } else { &txn.otherwise };
        let answers = requests
            .iter()
            .map(|request| match request {
                Request::Range(range) => self.range(range),
                Request::Put(put) => self.put(put),
                Request::Delete(delete) => self.delete(delete),
            })
            .collect();
        Body::Txn { succeeded, answers }
    }
}
