//! Many watchers, while others write.
//!
//! Two clients of three write; the third starts watchers of every kind. What is
//! old is compacted now and then, never further than the observer is.

use std::time::Duration;

use rand::RngExt;

use super::{Script, Step, Workload, World, delete, one, put};
use crate::history::{Action, Delete, Keys, Operation, Put, Request, Txn};
use crate::watcher::{Plan, under};

const KEYS: u32 = 20;
/// How long a watcher lives at most, in seconds.
const LIFE_MAX: u64 = 15;
const COMPACT_EVERY: Duration = Duration::from_secs(8);

/// The workload.
pub(super) struct Watches;

impl Workload for Watches {
    fn name(&self) -> &'static str {
        "watch"
    }

    fn about(&self) -> &'static str {
        "watchers with past, present and future starts, of keys and ranges, which reconnect, under compaction"
    }

    fn script(&self, client: u32) -> Box<dyn Script> {
        match client % 3 {
            2 => Box::new(Starter),
            _ => Box::new(Writer { compacts: client == 0, compacted: Duration::ZERO }),
        }
    }
}

struct Writer {
    compacts: bool,
    compacted: Duration,
}

impl Script for Writer {
    fn next(&mut self, world: &mut World<'_>) -> Step {
        if self.compacts && world.elapsed > self.compacted + COMPACT_EVERY {
            self.compacted = world.elapsed;
            let revision = world.observed - world.rng.random_range(0..200);
            if revision > 0 {
                return Step::Ask(Action::Compact { revision });
            }
        }
        let first = world.rng.random_range(0..KEYS);
        let key = name(first);
        Step::Ask(match world.rng.random_range(0..100) {
            0..50 => Action::Put(Put { previous: world.rng.random_bool(0.2), ..put(&key, world.value()) }),
            50..65 => Action::Delete(Delete { keys: one(&key), previous: false }),
            65..70 => {
                let end = name(first + world.rng.random_range(1..4));
                Action::Delete(Delete { keys: Keys { key, end }, previous: true })
            }
            // Several changes of one revision.
            _ => {
                let mut then = vec![Request::Put(put(&key, world.value()))];
                for step in 1..world.rng.random_range(2..5) {
                    let other = name((first + step) % KEYS);
                    then.push(match world.rng.random_bool(0.7) {
                        true => Request::Put(put(&other, world.value())),
                        false => delete(&other, false),
                    });
                }
                Action::Txn(Txn { then, ..Txn::default() })
            }
        })
    }

    fn heard(&mut self, _operation: &Operation) {}
}

struct Starter;

impl Script for Starter {
    fn next(&mut self, world: &mut World<'_>) -> Step {
        if world.rng.random_bool(0.5) {
            return Step::Wait(Duration::from_millis(world.rng.random_range(500..3000)));
        }
        let first = world.rng.random_range(0..KEYS);
        let keys = match world.rng.random_range(0..4) {
            0 => one(&name(first)),
            1 => under("watch/"),
            2 => Keys { key: name(first), end: "\0".to_owned() },
            _ => Keys { key: name(first), end: name(first + world.rng.random_range(1..8)) },
        };
        let observed = world.observed;
        let start = match world.rng.random_range(0..10) {
            0..3 => 0,
            3..7 => (observed - world.rng.random_range(0..300)).max(1),
            7 => 1,
            _ => observed + world.rng.random_range(1..200),
        };
        let seconds = |range: std::ops::Range<u64>, world: &mut World<'_>| {
            Duration::from_secs(world.rng.random_range(range))
        };
        let life = seconds(2..LIFE_MAX, world);
        let reconnect = world.rng.random_bool(0.4).then(|| seconds(1..4, world));
        let (previous, progress) = (world.rng.random_bool(0.5), world.rng.random_bool(0.5));
        Step::Watch(Plan { keys, start, previous, progress, life: Some(life), reconnect })
    }

    fn heard(&mut self, _operation: &Operation) {}
}

fn name(number: u32) -> String {
    format!("watch/{number:02}")
}
