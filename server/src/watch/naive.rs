//! A store for tests that is too simple to be wrong.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use proto::mvccpb::{Event, KeyValue, event::EventType};
use state::{Block, Fault, Revision};

use super::store::{Record, Store, View};

/// A store that keeps every record in a map, and deletes at once what a compaction lets it delete.
#[derive(Default)]
pub(crate) struct Naive(pub(super) Mutex<History>);

#[derive(Default)]
pub(super) struct History {
    pub(super) revision: i64,
    pub(super) compacted: i64,
    rows: BTreeMap<Revision, (bool, KeyValue)>,
    /// All that ever happened.
    pub(super) changes: Vec<Past>,
}

#[derive(Clone)]
pub(super) struct Past {
    pub(super) revision: i64,
    pub(super) key: Bytes,
    pub(super) event: Event,
}

struct NaiveView {
    store: Arc<Naive>,
    revision: i64,
    compacted: i64,
}

/// The way to a naive store's views.
pub(crate) struct Source(pub(crate) Arc<Naive>);

impl Store for Source {
    fn view(&self) -> Box<dyn View> {
        let history = self.0.0.lock();
        Box::new(NaiveView {
            store: self.0.clone(),
            revision: history.revision,
            compacted: history.compacted,
        })
    }
}

impl View for NaiveView {
    fn revision(&self) -> i64 {
        self.revision
    }

    fn compacted(&self) -> i64 {
        self.compacted
    }

    fn scan(&self, from: i64, visit: &mut dyn FnMut(Record) -> ControlFlow<()>) -> Result<(), Fault> {
        let from = Revision { main: from, sub: 0 };
        let rows: Vec<_> = {
            let history = self.store.0.lock();
            history.rows.range(from..).map(|(revision, row)| (*revision, row.clone())).collect()
        };
        for (revision, (tombstone, kv)) in rows {
            if revision.main > self.revision {
                break;
            }
            let kv = if tombstone { KeyValue { key: kv.key, ..Default::default() } } else { kv };
            if visit(Record { revision, tombstone, kv: kv.encode_to_vec().into() }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn row(&self, revision: Revision) -> Result<Option<Bytes>, Fault> {
        let history = self.store.0.lock();
        Ok(history.rows.get(&revision).map(|(_, kv)| kv.encode_to_vec().into()))
    }

    fn previous(&self, key: &[u8], before: i64) -> Result<Option<Bytes>, Fault> {
        let history = self.store.0.lock();
        let before = Revision { main: before, sub: 0 };
        let last = history.rows.range(..before).rev().find(|(_, (_, kv))| kv.key == key);
        Ok(last.filter(|(_, (tombstone, _))| !tombstone).map(|(_, (_, kv))| kv.encode_to_vec().into()))
    }
}

impl Naive {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(History { revision: 1, compacted: -1, ..Default::default() })))
    }

    /// Puts (some value) or deletes (none) keys in one revision.
    pub(crate) fn apply(&self, changes: &[(Bytes, Option<Bytes>)]) -> Option<Block> {
        let mut history = self.0.lock();
        let main = history.revision + 1;
        let mut events = Vec::new();
        for (key, value) in changes {
            let last = history.rows.iter().rev().find(|(_, (_, kv))| kv.key == key);
            let live = last.filter(|(_, (tombstone, _))| !tombstone).map(|(at, (_, kv))| (*at, kv.clone()));
            let revision = Revision { main, sub: events.len() as i64 };
            let delete = value.is_none();
            let kv = match value {
                None if live.is_none() => continue,
                None => KeyValue { key: key.clone(), mod_revision: main, ..Default::default() },
                Some(value) => KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    mod_revision: main,
                    create_revision: live.as_ref().map_or(main, |(_, kv)| kv.create_revision),
                    version: live.as_ref().map_or(1, |(_, kv)| kv.version + 1),
                    lease: 0,
                },
            };
            let r#type = if delete { EventType::Delete } else { EventType::Put }.into();
            let previous = live.as_ref().map(|(at, _)| *at);
            // As etcd: what was before the whole revision, and nothing for a put that creates.
            let before =
                history.rows.range(..Revision { main, sub: 0 }).rev().find(|(_, (_, kv))| kv.key == key);
            let before = before.filter(|(_, (tombstone, _))| !tombstone).map(|(_, (_, kv))| kv.clone());
            let prev_kv = before.filter(|_| delete || kv.create_revision < main);
            events.push(state::Event { key: key.clone(), kv: kv.encode_to_vec().into(), delete, previous });
            history.rows.insert(revision, (delete, kv.clone()));
            let event = Event { r#type, kv: Some(kv), prev_kv };
            history.changes.push(Past { revision: main, key: key.clone(), event });
        }
        if events.is_empty() {
            return None;
        }
        history.revision = main;
        Some(Block { revision: main, events })
    }

    pub(crate) fn compact(&self, revision: i64) {
        let mut history = self.0.lock();
        if revision <= history.compacted || revision > history.revision {
            return;
        }
        history.compacted = revision;
        let mut newest: HashMap<Bytes, Revision> = HashMap::new();
        for (at, (_, kv)) in history.rows.iter().filter(|(at, _)| at.main <= revision) {
            newest.insert(kv.key.clone(), *at);
        }
        history.rows.retain(|at, (tombstone, kv)| {
            at.main > revision || newest[&kv.key] == *at && (!*tombstone || at.main == revision)
        });
    }
}
