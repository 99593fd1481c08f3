//! Registers: reads, writes and compare-and-set of a few single keys.

use std::collections::HashMap;

use rand::RngExt;

use super::{Script, Step, Workload, World, answer, delete, equals, get, one, put, shown};
use crate::history::{Action, Operand, Operation, Pair, Put, Range, Request, Txn};

const KEYS: u32 = 5;

/// The workload.
pub(super) struct Register;

impl Workload for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    fn about(&self) -> &'static str {
        "reads (some of them serializable, some of the past), writes and compare-and-set of five keys"
    }

    fn script(&self, _client: u32) -> Box<dyn Script> {
        Box::new(Registers::default())
    }
}

/// What a client knows of the keys, which may be old.
#[derive(Default)]
struct Registers {
    known: HashMap<String, Pair>,
}

impl Script for Registers {
    fn next(&mut self, world: &mut World<'_>) -> Step {
        let key = format!("register/{}", world.rng.random_range(0..KEYS));
        let revision = world.observed;
        Step::Ask(match world.rng.random_range(0..100) {
            0..32 => Action::Range(Range { keys: one(&key), ..Range::default() }),
            32..40 => Action::Range(Range { keys: one(&key), serializable: true, ..Range::default() }),
            40..44 => {
                let revision = (revision - world.rng.random_range(0..20)).max(0);
                Action::Range(Range { keys: one(&key), revision, ..Range::default() })
            }
            44..68 => {
                let previous = world.rng.random_bool(0.5);
                Action::Put(Put { previous, ..put(&key, world.value()) })
            }
            68..96 => {
                // A key that is not there has no value: it is created instead.
                let expected = match self.known.get(&key) {
                    Some(pair) => Operand::Value(pair.value.clone()),
                    None => Operand::Created(0),
                };
                Action::Txn(Txn {
                    compares: vec![equals(&key, expected)],
                    then: vec![Request::Put(put(&key, world.value()))],
                    otherwise: vec![get(&key)],
                })
            }
            _ => {
                let Request::Delete(delete) = delete(&key, true) else { unreachable!("it is one") };
                Action::Delete(delete)
            }
        })
    }

    fn heard(&mut self, operation: &Operation) {
        let Some(answer) = answer(operation) else { return };
        for pair in shown(&answer.body) {
            self.known.insert(pair.key.clone(), pair.clone());
        }
        match &operation.action {
            Action::Delete(delete) => {
                self.known.remove(&delete.keys.key);
            }
            Action::Put(put) => {
                let pair = Pair { key: put.key.clone(), value: put.value.clone(), ..Pair::default() };
                self.known.insert(put.key.clone(), pair);
            }
            // Nothing where something was expected.
            Action::Txn(txn) if shown(&answer.body).is_empty() => {
                self.known.remove(&txn.compares[0].key);
            }
            _ => {}
        }
    }
}
