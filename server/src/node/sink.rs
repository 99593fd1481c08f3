//! Where the apply thread puts what it has applied.

use state::{Block, LeaseChange, LogId};

use crate::lessor::Lessor;
use crate::raft::ApplySink;
use crate::watch::Hub;

/// Hands events to the watchers and lease changes to the lessor, before the replies go out.
pub struct Sink {
    hub: Hub,
    lessor: Lessor,
}

impl Sink {
    /// A sink that feeds these two.
    pub fn new(hub: Hub, lessor: Lessor) -> Self {
        Self { hub, lessor }
    }
}

impl ApplySink for Sink {
    fn applied(&mut self, blocks: Vec<Block>, lease_changes: Vec<LeaseChange>, _applied: LogId) {
        // First the leases: a client that has its grant may keep it alive at once.
        self.lessor.apply(&lease_changes);
        if !blocks.is_empty() {
            self.hub.publish(blocks);
        }
    }
}
