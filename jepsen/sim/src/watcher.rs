//! Watchers: each must be told every change of its keys once, in order, in whole revisions.
//!
//! A watcher follows one stream of one member. When that is gone it goes on
//! elsewhere, from the revision behind the last it was told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use proto::etcdserverpb::WatchResponse;
use server::node::Node;
use server::watch::{Create, Item};
use state::KeyRange;

use crate::net::Id;
use crate::oracle::Oracle;

/// What arrived, with the number of the stream it came on; none at its end.
type Arrived = Arc<Mutex<Vec<(u64, Option<Item>)>>>;

/// One watcher.
pub struct Watcher {
    name: usize,
    range: KeyRange,
    prev_kv: bool,
    /// How long its client takes for a response.
    pause: Duration,
    /// Everything below it was told; 0: whatever comes from now on.
    next: i64,
    stream: u64,
    /// Where it is attached.
    pub host: Option<Id>,
    arrived: Arrived,
    /// Changes that were told.
    pub events: u64,
}

impl Watcher {
    /// A watcher that is attached nowhere yet.
    pub fn new(name: usize, range: KeyRange, prev_kv: bool, pause: Duration) -> Self {
        let arrived = Arrived::default();
        Self { name, range, prev_kv, pause, next: 0, stream: 0, host: None, arrived, events: 0 }
    }

    /// Whether it was told everything up to a revision.
    pub fn has(&self, oracle: &Oracle) -> bool {
        self.host.is_some() && self.next > 0 && oracle.model.changes(&self.range, self.next).next().is_none()
    }

    /// Follows a stream of this member from now on.
    pub fn attach(&mut self, host: Id, node: Node) -> impl Future<Output = ()> + Send + 'static {
        self.stream += 1;
        self.host = Some(host);
        let create = Create {
            range: self.range.clone(),
            start_revision: self.next,
            watch_id: 0,
            progress_notify: false,
            no_put: false,
            no_delete: false,
            prev_kv: self.prev_kv,
            fragment: false,
        };
        let (number, pause, arrived) = (self.stream, self.pause, self.arrived.clone());
        async move {
            let mut stream = node.hub().open();
            stream.create(&create);
            loop {
                let item = std::future::poll_fn(|context| stream.poll_next(context)).await;
                let over = item.is_none();
                arrived.lock().push((number, item));
                if over {
                    return;
                }
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Leaves the stream: what still comes on it is not looked at.
    pub fn detach(&mut self) {
        self.host = None;
        self.stream += 1;
    }

    /// Compares what has arrived with what changed.
    pub fn check(&mut self, oracle: &mut Oracle) {
        let arrived = std::mem::take(&mut *self.arrived.lock());
        for (stream, item) in arrived {
            if stream != self.stream {
                continue;
            }
            match item {
                None => self.detach(),
                Some(Item::Created { revision, .. }) if self.next == 0 => self.next = revision + 1,
                Some(Item::Created { .. } | Item::Canceled { .. }) => {}
                Some(Item::Refused { reason, .. }) => {
                    oracle.violated(format!("watcher {} is refused: {reason}", self.name));
                }
                Some(Item::Compacted { compact_revision, .. }) => {
                    if self.next >= compact_revision || compact_revision > oracle.model.compacted() {
                        oracle.violated(format!(
                            "watcher {} at revision {} is told that it was compacted at {compact_revision}",
                            self.name, self.next
                        ));
                    }
                    self.next = compact_revision;
                    self.detach();
                }
                Some(Item::Events { events, revision, .. }) => self.take(oracle, &events, revision),
                Some(Item::Progress { revision, .. }) => {
                    let missing = oracle.model.changes(&self.range, self.next).next();
                    if let Some(missing) = missing.filter(|change| change.revision <= revision) {
                        let missing = missing.revision;
                        oracle.violated(format!(
                            "watcher {} is told that it has all up to {revision}, and lacks {missing}",
                            self.name
                        ));
                    }
                }
            }
        }
    }

    fn take(&mut self, oracle: &mut Oracle, events: &Bytes, header: i64) {
        let Ok(response) = WatchResponse::decode(events.clone()) else {
            return oracle.violated(format!("watcher {} is sent what is no response", self.name));
        };
        let compacted = oracle.model.compacted();
        let mut wrong = None;
        let mut expected = oracle.model.changes(&self.range, self.next);
        let mut last = 0;
        for event in response.events {
            let Some(change) = expected.next() else {
                wrong = Some(format!("is told of {event:?}, behind the last change"));
                break;
            };
            last = change.revision;
            self.events += 1;
            let told = event.kv.as_ref();
            if told != Some(&change.kv) || (event.r#type != 0) != change.delete {
                wrong = Some(format!(
                    "is told of revision {:?} where {} comes next",
                    told.map(|kv| kv.mod_revision),
                    change.revision
                ));
                break;
            }
            // What was there before may be gone once it was compacted.
            let before_wrong = match &event.prev_kv {
                None => self.prev_kv && change.before.is_some() && change.revision > compacted + 1,
                Some(before) => !self.prev_kv || change.before.as_ref() != Some(before),
            };
            if before_wrong {
                wrong = Some(format!(
                    "is told at revision {} that before there was {:?}, not {:?}",
                    change.revision, event.prev_kv, change.before
                ));
                break;
            }
        }
        if wrong.is_none() && expected.next().is_some_and(|change| change.revision == last) {
            wrong = Some(format!("is told of a part of revision {last}"));
        }
        if wrong.is_none() && header < last {
            wrong = Some(format!("is told of revision {last} under {header}"));
        }
        drop(expected);
        if let Some(wrong) = wrong {
            oracle.violated(format!("watcher {} {wrong}", self.name));
        }
        oracle.trace((self.name, "told", last));
        self.next = self.next.max(last + 1);
    }
}
