//! Where the apply thread puts what it has applied.

use state::{Block, LeaseChange, LogId, Reader};

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
    fn applied(&mut self, blocks: Vec<Block>, lease_changes: Vec<LeaseChange>, _applied: LogId) {
        // First the leases: a client that has its grant may keep it alive at once.
        self.lessor.apply(&lease_changes);
        count(&blocks);
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
