//! Histories of a store that is correct, from a seed.
//!
//! No cluster runs: clients are played one event after another, and each
//! operation takes effect at one moment between its request and its answer.
//! Some answers are lost, and some operations with them. What checkers find in
//! such a history is the checkers' own fault; what they miss after something in
//! it was changed is theirs too.

mod clients;
mod store;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::history::{
    Action, Answer, End, Event, History, Keys, Nanos, Notice, Operation, Outcome, Run, Seen, Watch,
};
use clients::Client;
use store::Store;

const MILLISECOND: Nanos = 1_000_000;

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Some of everything.
    Mix,
    /// Reads, writes, deletes and compare-and-set of single keys.
    Register,
    /// Lists that only grow, read and written back whole in transactions.
    Append,
    /// Keys that stay.
    Set,
    /// Leases, and locks that live as long as they do.
    Lock,
}

/// What to generate.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Everything random comes from it.
    pub seed: u64,
    /// What clients do.
    pub workload: Workload,
    /// How many clients.
    pub clients: u32,
    /// How many operations.
    pub operations: usize,
    /// How many keys.
    pub keys: usize,
    /// How many of a thousand operations get no answer.
    pub unknown: u32,
    /// How many of a thousand operations are refused.
    pub refused: u32,
    /// Whether a mix has leases.
    pub leases: bool,
}

impl Plan {
    /// Five clients on four keys, and some trouble.
    pub fn new(workload: Workload, seed: u64) -> Self {
        Self { seed, workload, clients: 5, operations: 300, keys: 4, unknown: 40, refused: 20, leases: true }
    }
}

/// What becomes of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    /// Done in time, but the answer is lost.
    Unheard,
    /// Done after the client gave up.
    Late,
    /// Never done, and nobody knows.
    Lost,
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Invoke(usize),
    Effect(usize),
    Return(usize),
    Expire(i64),
}

/// The history of a correct store.
pub fn history(plan: &Plan) -> History {
    let mut play = Play::new(plan);
    while let Some(Reverse((at, _, step))) = play.agenda.pop() {
        play.now = at;
        match step {
            Step::Invoke(client) => play.invoke(client),
            Step::Effect(index) => play.effect(index),
            Step::Return(index) => play.finish(index),
            Step::Expire(lease) => play.store.expire(lease, at),
        }
    }
    play.into_history()
}

struct Play<'a> {
    plan: &'a Plan,
    random: StdRng,
    now: Nanos,
    agenda: BinaryHeap<Reverse<(Nanos, u64, Step)>>,
    steps: u64,
    store: Store,
    clients: Vec<Client>,
    operations: Vec<Operation>,
    fates: Vec<Fate>,
    answers: Vec<Option<Result<Answer, String>>>,
    /// How far each member has applied, where an old state is read.
    applied: [i64; 3],
}

impl<'a> Play<'a> {
    fn new(plan: &'a Plan) -> Self {
        let mut play = Self {
            plan,
            random: StdRng::seed_from_u64(plan.seed),
            now: 0,
            agenda: BinaryHeap::new(),
            steps: 0,
            store: Store::default(),
            clients: (0..plan.clients).map(|_| Client::default()).collect(),
            operations: Vec::new(),
            fates: Vec::new(),
            answers: Vec::new(),
            applied: [1; 3],
        };
        for client in 0..plan.clients as usize {
            let at = play.random.random_range(0..MILLISECOND);
            play.plan_step(at, Step::Invoke(client));
        }
        play
    }

    fn plan_step(&mut self, at: Nanos, step: Step) {
        self.steps += 1;
        self.agenda.push(Reverse((at, self.steps, step)));
    }

    fn invoke(&mut self, client: usize) {
        let index = self.operations.len();
        if index == self.plan.operations {
            return;
        }
        let action = self.clients[client].choose(self.plan, &mut self.random, client, index);
        let member = self.random.random_range(0..3);
        let returned = self.now + self.random.random_range(2..8 * MILLISECOND);
        let roll = self.random.random_range(0..1000);
        let fate = match roll {
            _ if roll < self.plan.unknown => match self.random.random_range(0..3) {
                0 => Fate::Unheard,
                1 => Fate::Late,
                _ => Fate::Lost,
            },
            _ if roll < self.plan.unknown + self.plan.refused => Fate::Refused,
            _ => Fate::Answered,
        };
        match fate {
            Fate::Answered | Fate::Unheard => {
                let at = self.random.random_range(self.now + 1..returned);
                self.plan_step(at, Step::Effect(index));
            }
            Fate::Late => {
                let at = returned + self.random.random_range(0..100 * MILLISECOND);
                self.plan_step(at, Step::Effect(index));
            }
            Fate::Lost | Fate::Refused => {}
        }
        self.plan_step(returned, Step::Return(index));
        let outcome = Outcome::Unknown("timed out".into());
        self.operations.push(Operation {
            client: client as u32,
            member,
            invoked: self.now,
            returned,
            action,
            outcome,
        });
        self.fates.push(fate);
        self.answers.push(None);
    }

    fn effect(&mut self, index: usize) {
        let operation = &self.operations[index];
        let applied = &mut self.applied[operation.member];
        let answer = match &operation.action {
            Action::Range(range) if range.serializable => {
                let oldest = (*applied).max(self.store.revision - 15).max(self.store.compacted);
                *applied = self.random.random_range(oldest..=self.store.revision);
                self.store.read_at(range, *applied)
            }
            action => {
                let answer = self.store.apply(action, self.now);
                *applied = self.store.revision;
                answer
            }
        };
        if let Action::LeaseGrant { id, .. } | Action::LeaseKeepAlive { id } = operation.action
            && let Some(deadline) = self.store.deadline(id)
        {
            let late = self.random.random_range(0..400 * MILLISECOND);
            self.plan_step(deadline + late, Step::Expire(id));
        }
        self.answers[index] = Some(answer);
    }

    fn finish(&mut self, index: usize) {
        let operation = &mut self.operations[index];
        operation.outcome = match self.fates[index] {
            Fate::Refused => Outcome::Refused("too many requests".into()),
            Fate::Answered => match self.answers[index].take() {
                Some(Ok(answer)) => Outcome::Done(answer),
                Some(Err(reason)) => Outcome::Refused(reason),
                None => Outcome::Unknown("timed out".into()),
            },
            Fate::Unheard | Fate::Late | Fate::Lost => Outcome::Unknown("timed out".into()),
        };
        let client = operation.client as usize;
        self.clients[client].learn(&operation.action, &operation.outcome);
        let pause = match self.plan.workload {
            Workload::Lock => 100 * MILLISECOND,
            _ => 5 * MILLISECOND,
        };
        let at = self.now + self.random.random_range(1..pause);
        self.plan_step(at, Step::Invoke(client));
    }

    fn into_history(mut self) -> History {
        let observer = self.observer();
        let workload = format!("{:?}", self.plan.workload).to_lowercase();
        let run = Run { seed: self.plan.seed, workload, members: 3, duration: self.now, ..Run::default() };
        let end = |member| End {
            member,
            revision: self.store.revision,
            hash: self.plan.seed as u32,
            compacted: self.store.compacted,
        };
        let ends = (0..3).map(end).collect();
        History { run, operations: self.operations, watches: vec![observer], ends, ..History::default() }
    }

    /// What one that watches everything is told, over some reconnections.
    fn observer(&mut self) -> Watch {
        let mut seen = vec![Seen { at: 0, member: 0, revision: 1, what: Notice::Created { start: 1 } }];
        let (mut at, mut member) = (0, 0);
        for (time, events) in &self.store.log {
            at = (time + self.random.random_range(1..3 * MILLISECOND)).max(at + 1);
            let revision = events[0].pair.modified;
            if self.random.random_range(0..100) == 0 {
                seen.push(Seen { at, member, revision: 0, what: Notice::Lost("connection".into()) });
                member = self.random.random_range(0..3);
                let what = Notice::Created { start: revision };
                seen.push(Seen { at, member, revision, what });
            }
            let told = events.iter().map(|event| Event { previous: event.previous.clone(), ..event.clone() });
            seen.push(Seen { at, member, revision, what: Notice::Events(told.collect()) });
        }
        let everything = Keys { key: "\0".into(), end: "\0".into() };
        Watch { keys: everything, start: 1, previous: true, observer: true, seen, ..Watch::default() }
    }
}
