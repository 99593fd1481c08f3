//! Where the apply thread puts what it has applied.

use mutants::Mutant;
use state::{Block, LeaseChange, LogId, Reader};

use crate::insight::INSIGHT;
use crate::lessor::Lessor;
use crate::metrics::METRICS;
use crate::raft::ApplySink;
use crate::watch::Hub;

/// Hands events to the watchers and lease changes to the lessor, before the replies go out.
pub struct Sink {
    hub: Hub,
    lessor: Lessor,
    reader: Reader,
}

impl Sink {
    /// A sink that feeds these two, and reads what a new state says of leases.
    pub fn new(hub: Hub, lessor: Lessor, reader: Reader) -> Self {
        Self { hub, lessor, reader }
    }
}

impl ApplySink for Sink {
    fn applied(&mut self, mut blocks: Vec<Block>, lease_changes: Vec<LeaseChange>, _applied: LogId) {
        // First the leases: a client that has its grant may keep it alive at once.
        self.lessor.apply(&lease_changes);
        count(&blocks);
        INSIGHT.changed(&blocks);
        for block in &mut blocks {
            block.events.retain(|_| !mutants::sometimes(Mutant::DropEvent, 300));
        }
        if !blocks.is_empty() {
            self.hub.publish(blocks);
        }
    }

    fn replaced(&mut self, _applied: LogId) {
        self.lessor.replace(self.reader.leases());
        self.hub.replaced();
    }
}

/// Counts changes once a batch, so that the counters are touched seldom.
fn count(blocks: &[Block]) {
    let events = blocks.iter().flat_map(|block| &block.events);
    let (mut puts, mut deletes) = (0, 0);
    events.for_each(|event| if event.delete { deletes += 1 } else { puts += 1 });
    let txns = blocks.iter().filter(|block| block.events.len() > 1).count();
    let storage = &METRICS.storage;
    storage.puts.inc_by(puts);
    storage.deletes.inc_by(deletes);
    storage.txns.inc_by(txns as u64);
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use prost::Message;
    use proto::command::{Command, command::Op};
    use proto::etcdserverpb as pb;
    use state::{Entry, EntryBody, KeyRange, Options, State};

    use super::*;
    use crate::watch::{Create, Item};

    fn entry(index: u64, op: Op) -> Entry {
        let body = EntryBody::Command(Command { op: Some(op) }.encode_to_vec().into());
        Entry { log_id: LogId { term: 1, index }, body }
    }

    fn put(index: u64) -> Entry {
        let request =
            pb::PutRequest { key: "k".into(), value: index.to_string().into(), ..Default::default() };
        entry(index, Op::Put(request))
    }

    /// The member was away; what it missed comes with the leader's state, and its watchers see all of it.
    #[tokio::test]
    async fn a_state_that_was_replaced_reaches_watchers_and_lessor() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = |name| State::open(Options::new(dir.path().join(name))).expect("a state");
        let ((mut ours, reader), (mut theirs, their_reader)) = (open("ours"), open("theirs"));
        let lessor = Lessor::new([]);
        let views = reader.clone();
        let hub = Hub::start(Arc::new(move || views.view()), crate::watch::Options::default());
        let hub = hub.expect("threads");
        let mut sink = Sink::new(hub.clone(), lessor.clone(), reader);
        let mut stream = hub.open();
        stream.create(&Create {
            range: KeyRange::Single("k".into()),
            start_revision: 0,
            watch_id: 0,
            progress_notify: false,
            no_put: false,
            no_delete: false,
            prev_kv: false,
            fragment: false,
        });
        let lease = |index, id| entry(index, Op::LeaseGrant(pb::LeaseGrantRequest { id, ttl: 60 }));
        let log = vec![lease(1, 7), put(2), put(3)];
        theirs.apply(log.clone()).expect("applied");
        let applied = ours.apply(log).expect("applied");
        sink.applied(applied.blocks, applied.lease_changes, ours.applied());
        assert!(lessor.has(7));

        let revoke = entry(4, Op::LeaseRevoke(pb::LeaseRevokeRequest { id: 7 }));
        theirs.apply([vec![revoke, lease(5, 8)], (6..=20).map(put).collect()].concat()).expect("applied");
        let files = dir.path().join("files");
        their_reader.checkpoint(&files).expect("a checkpoint");
        ours.install(&files).expect("installed");
        sink.replaced(ours.applied());
        assert!(!lessor.has(7) && lessor.has(8));
        let applied = ours.apply(vec![put(21)]).expect("applied");
        sink.applied(applied.blocks, applied.lease_changes, ours.applied());

        let mut values = Vec::new();
        while values.last().is_none_or(|last| *last != "21") {
            match poll_fn(|context| stream.poll_next(context)).await.expect("the hub runs") {
                Item::Events { events, .. } => {
                    let events = pb::WatchResponse::decode(events).expect("events").events;
                    values.extend(events.into_iter().map(|event| event.kv.expect("a record").value));
                }
                other => assert!(matches!(other, Item::Created { .. })),
            }
        }
        let expected: Vec<_> = [2, 3].into_iter().chain(6..=21).map(|n: u64| n.to_string()).collect();
        assert_eq!(values, expected);
        hub.end();
    }
}
