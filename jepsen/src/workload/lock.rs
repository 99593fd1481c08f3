//! Locks: who creates the key of a lock, with a lease, holds it until the key is gone.
//!
//! A holder reads the account that goes with the lock and writes it, both only as
//! long as the lock's key is the one it created: the revision of its creation
//! fences. A holder that let its lease expire must therefore find that it holds
//! no longer.

use std::time::Duration;

use rand::RngExt;

use super::{Script, Step, Workload, World, answer, delete, equals, get, put};
use crate::history::{Action, Body, Operand, Operation, Put, Request, Txn};

const LOCKS: u32 = 3;
const TTL: i64 = 2;
/// A client that does not get a lock tries another so many times, then gives its lease back.
const ATTEMPTS_MAX: u32 = 8;

/// The workload.
pub(super) struct Lock;

impl Workload for Lock {
    fn name(&self) -> &'static str {
        "lock"
    }

    fn about(&self) -> &'static str {
        "locks that live with a lease; what they guard is written only under the holder's creation revision"
    }

    fn script(&self, _client: u32) -> Box<dyn Script> {
        Box::new(Contender { at: Stage::Idle, id: 0, lock: 0, work: 0 })
    }
}

/// How far a client is.
#[derive(Clone, Copy)]
enum Stage {
    /// Without a lease.
    Idle,
    /// With a lease, trying for a lock for so many times.
    Trying(u32),
    /// Holding the lock whose key was created at this revision.
    Holding(i64),
    /// Done: the lock is given back.
    Leaving(i64),
}

struct Contender {
    at: Stage,
    id: i64,
    lock: u32,
    /// How much is still to be done under the lock.
    work: u32,
}

impl Script for Contender {
    fn next(&mut self, world: &mut World<'_>) -> Step {
        let (key, account) = (format!("lock/{}", self.lock), format!("account/{}", self.lock));
        Step::Ask(match self.at {
            Stage::Idle => {
                self.id = world.number();
                Action::LeaseGrant { id: self.id, ttl: TTL }
            }
            Stage::Trying(ATTEMPTS_MAX..) => {
                self.at = Stage::Idle;
                Action::LeaseRevoke { id: self.id }
            }
            Stage::Trying(times) => {
                self.at = Stage::Trying(times + 1);
                self.lock = world.rng.random_range(0..LOCKS);
                self.work = world.rng.random_range(1..8);
                let key = format!("lock/{}", self.lock);
                Action::Txn(Txn {
                    compares: vec![equals(&key, Operand::Created(0))],
                    then: vec![Request::Put(Put { lease: self.id, ..put(&key, world.value()) })],
                    otherwise: vec![get(&key)],
                })
            }
            Stage::Holding(created) => {
                self.work = self.work.saturating_sub(1);
                if self.work == 0 {
                    self.at = Stage::Leaving(created);
                }
                match world.rng.random_range(0..20) {
                    0..5 => Action::LeaseKeepAlive { id: self.id },
                    // Longer than the lease lives.
                    5 => return Step::Wait(Duration::from_millis(world.rng.random_range(1500..4000))),
                    _ => Action::Txn(Txn {
                        compares: vec![equals(&key, Operand::Created(created))],
                        then: vec![get(&account), Request::Put(put(&account, world.value()))],
                        otherwise: vec![get(&key)],
                    }),
                }
            }
            Stage::Leaving(created) => {
                self.at = Stage::Idle;
                match world.rng.random_bool(0.5) {
                    true => Action::LeaseRevoke { id: self.id },
                    false => Action::Txn(Txn {
                        compares: vec![equals(&key, Operand::Created(created))],
                        then: vec![delete(&key, true)],
                        otherwise: vec![get(&key)],
                    }),
                }
            }
        })
    }

    fn heard(&mut self, operation: &Operation) {
        let answer = answer(operation);
        self.at = match (self.at, &operation.action, answer.map(|answer| &answer.body)) {
            (Stage::Idle, Action::LeaseGrant { .. }, Some(_)) => Stage::Trying(0),
            (Stage::Trying(_), Action::Txn(_), Some(Body::Txn { succeeded: true, .. })) => {
                Stage::Holding(answer.map_or(0, |answer| answer.revision))
            }
            // It may hold the lock now and not know; its lease ends that.
            (Stage::Trying(_), _, None) => Stage::Idle,
            (Stage::Holding(_) | Stage::Leaving(_), _, Some(Body::Txn { succeeded: false, .. })) => {
                Stage::Idle
            }
            (at, _, _) => at,
        };
    }
}
