//! A set: what was added is there from then on.
//!
//! Every element is a key of its own. Elements go into buckets of a hundred, so
//! that a read stays small however long the run is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rand::RngExt;

use super::{Script, Step, Workload, World, equals, put};
use crate::history::{Action, Operand, Operation, Put, Range, Request, Txn};
use crate::watcher::under;

const BUCKET: u32 = 100;

/// The workload; how many elements were added, by all clients.
#[derive(Default)]
pub(super) struct Set {
    added: Arc<AtomicU32>,
}

impl Workload for Set {
    fn name(&self) -> &'static str {
        "set"
    }

    fn about(&self) -> &'static str {
        "adds elements, each a key of its own, and reads all of a bucket or pages of it"
    }

    fn script(&self, _client: u32) -> Box<dyn Script> {
        Box::new(Adder { added: Arc::clone(&self.added) })
    }
}

struct Adder {
    added: Arc<AtomicU32>,
}

impl Script for Adder {
    fn next(&mut self, world: &mut World<'_>) -> Step {
        let bucket = self.added.load(Ordering::Relaxed) / BUCKET;
        // Often the one that is being filled, at times a full one.
        let older = bucket.saturating_sub(world.rng.random_range(0..20) / 15);
        let keys = under(&format!("set/{older:04}/"));
        Step::Ask(match world.rng.random_range(0..100) {
            0..60 => {
                let bucket = self.added.fetch_add(1, Ordering::Relaxed) / BUCKET;
                let value = world.value();
                let key = format!("set/{bucket:04}/{value}");
                match world.rng.random_bool(0.5) {
                    true => Action::Put(Put { previous: true, ..put(&key, value) }),
                    false => Action::Txn(Txn {
                        compares: vec![equals(&key, Operand::Version(0))],
                        then: vec![Request::Put(put(&key, value))],
                        otherwise: Vec::new(),
                    }),
                }
            }
            60..80 => Action::Range(Range { keys, ..Range::default() }),
            80..90 => Action::Range(Range { keys, limit: 10, ..Range::default() }),
            _ => Action::Range(Range { keys, serializable: true, ..Range::default() }),
        })
    }

    fn heard(&mut self, _operation: &Operation) {}
}
