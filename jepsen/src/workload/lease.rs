//! Leases: grants, keys that live with them, keep-alives, revocations and expiry.

use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::{Script, Step, Workload, World, answer, one, put, read};
use crate::history::{Action, Body, Operation, Put, Range};
use crate::watcher::under;

const KEYS: u32 = 20;
/// How many leases a client keeps in mind.
const LEASES_MAX: usize = 4;

/// The workload.
pub(super) struct Leases;

impl Workload for Leases {
    fn name(&self) -> &'static str {
        "lease"
    }

    fn about(&self) -> &'static str {
        "leases of a few seconds: keys attached, moved and detached, kept alive, revoked or left to expire"
    }

    fn script(&self, _client: u32) -> Box<dyn Script> {
        Box::new(Holder { leases: Vec::new() })
    }
}

/// A lease, and when it was granted, of the time clients have been at work.
struct Lease {
    id: i64,
    granted: Duration,
    /// Until when it is kept alive; then it is left to expire.
    kept: Duration,
}

struct Holder {
    leases: Vec<Lease>,
}

impl Script for Holder {
    fn next(&mut self, world: &mut World<'_>) -> Step {
        // What has expired for certain is not of interest any longer.
        let now = world.elapsed;
        self.leases.retain(|lease| now < lease.kept.max(lease.granted) + Duration::from_secs(10));
        let key = format!("lease/{}", world.rng.random_range(0..KEYS));
        let Some(lease) = self.leases.choose(world.rng) else { return self.grant(world) };
        let (id, kept) = (lease.id, now < lease.kept);
        Step::Ask(match world.rng.random_range(0..100) {
            0..10 if self.leases.len() < LEASES_MAX => return self.grant(world),
            0..40 => {
                let previous = world.rng.random_bool(0.3);
                Action::Put(Put { lease: id, previous, ..put(&key, world.value()) })
            }
            // Taken out of its lease, if it is in one.
            40..45 => Action::Put(put(&key, world.value())),
            45..65 if kept => Action::LeaseKeepAlive { id },
            45..72 => Action::LeaseTimeToLive { id },
            72..76 => {
                self.leases.retain(|lease| lease.id != id);
                Action::LeaseRevoke { id }
            }
            76..88 => read(one(&key)),
            88..94 => read(under("lease/")),
            _ => Action::Range(Range { keys: under("lease/"), serializable: true, ..Range::default() }),
        })
    }

    fn heard(&mut self, operation: &Operation) {
        // Time is up for what a keep-alive did not find.
        if let (Action::LeaseKeepAlive { id }, Some(answer)) = (&operation.action, answer(operation))
            && matches!(answer.body, Body::Lease { ttl, .. } if ttl <= 0)
        {
            self.leases.retain(|lease| lease.id != *id);
        }
    }
}

impl Holder {
    fn grant(&mut self, world: &mut World<'_>) -> Step {
        let id = world.number();
        let kept = world.elapsed + Duration::from_secs(world.rng.random_range(0..12));
        self.leases.push(Lease { id, granted: world.elapsed, kept });
        Step::Ask(Action::LeaseGrant { id, ttl: world.rng.random_range(2..6) })
    }
}
