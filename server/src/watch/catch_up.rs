//! Watchers that are behind read the history.
//!
//! A sweep is one sequential read of the store from a position to the head for
//! all watchers it meets on the way. Two sweeps at most take turns: one starts
//! at the oldest position, the other at the newest, so who is a little behind
//! does not wait for who is far behind.
//!
//! The store is read and keys are matched without the mutex; it is held only
//! to hand out what was found. What a watcher cannot take for lack of room is
//! not kept: the watcher leaves the sweep at its position.

use std::ops::ControlFlow;
use std::sync::Arc;

use state::Fault;

use super::matcher::Matcher;
use super::slice::{Slice, key_of};
use super::store::View;
use super::{Shared, queue};
use crate::threads;

// Under test all of them are small, so that short histories take many steps.

/// How far ahead of a sweep a position may be to be met in its next step.
const REVISIONS_PER_STEP: i64 = if cfg!(test) { 13 } else { 10_000 };
/// What ends a step early: records read, and revisions (etcd's own bound) and bytes found.
const RECORDS_PER_STEP_MAX: usize = if cfg!(test) { 10 } else { 20_000 };
const REVISIONS_PER_RESPONSE_MAX: usize = if cfg!(test) { 7 } else { 1000 };
const BYTES_PER_RESPONSE_MAX: usize = if cfg!(test) { 1500 } else { 256 << 10 };
/// How many watchers join the synced ones while the mutex is held.
const JOINS_PER_STEP: usize = if cfg!(test) { 2 } else { 4096 };
const SWEEPS_MAX: usize = 2;

/// The worker behind the thread `watch-catchup`.
pub(super) struct CatchUp {
    shared: Arc<Shared>,
    sweeps: Vec<Sweep>,
    turn: usize,
}

/// One read through the history.
struct Sweep {
    /// Everything below it was handed out.
    position: i64,
    /// The highest store revision told in a response so far.
    head: i64,
    /// It started at the oldest position: all who wait will be met by it.
    oldest: bool,
    watchers: Matcher,
}

/// What a step of a sweep read.
struct Found {
    slice: Slice,
    /// Everything below it was read.
    position: i64,
}

impl CatchUp {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, sweeps: Vec::new(), turn: 0 }
    }

    /// Works until the hub ends.
    pub(super) async fn run(mut self) {
        while self.wait().await {
            threads::turn().await;
            if let Err(fault) = self.step() {
                super::stop(&fault);
            }
        }
    }

    /// Waits for something to do; false when the hub ends.
    async fn wait(&self) -> bool {
        while !self.shared.ended() && self.sweeps.is_empty() && self.shared.table.lock().waiting().is_none() {
            self.shared.behind.notified().await;
        }
        !self.shared.ended()
    }

    /// Lets one sweep read on; false when there is nothing to do.
    pub(super) fn step(&mut self) -> Result<bool, Fault> {
        self.enlist();
        if self.sweeps.is_empty() {
            return Ok(false);
        }
        self.turn = (self.turn + 1) % self.sweeps.len();
        let sweep = &mut self.sweeps[self.turn];
        // Taken after the watchers were: so it shows all that they were told exists.
        let view = self.shared.store.view();
        let found = sweep.read(&*view)?;
        let mut events = 0;
        let mut news = Vec::new();
        {
            let mut table = self.shared.table.lock();
            let compacted = self.shared.store.view().compacted();
            if compacted > sweep.position {
                table.disband(&mut sweep.watchers, sweep.position, compacted);
            } else if let Some(mut found) = found {
                events =
                    table.offer_history(&mut sweep.watchers, &mut found.slice, sweep.position, &*view)?;
                sweep.position = found.position;
                sweep.head = view.revision();
            }
            table.join(&mut sweep.watchers, sweep.position, sweep.head, JOINS_PER_STEP);
            table.take_news(&mut news);
        }
        self.sweeps.retain(|sweep| sweep.watchers.len() > 0);
        queue::wake(&mut news);
        self.shared.sent(events);
        Ok(true)
    }

    /// Gives waiting watchers to the sweeps that will meet them, or to a new one.
    fn enlist(&mut self) {
        let mut table = self.shared.table.lock();
        for sweep in &mut self.sweeps {
            table.enlist(sweep.position, sweep.position + REVISIONS_PER_STEP, &mut sweep.watchers);
        }
        if self.sweeps.len() < SWEEPS_MAX
            && let Some((oldest, newest)) = table.waiting()
        {
            let is_oldest = !self.sweeps.iter().any(|sweep| sweep.oldest);
            let position = if is_oldest { oldest } else { newest };
            let mut sweep = Sweep { position, head: position, oldest: is_oldest, watchers: Matcher::new() };
            table.enlist(position, position + REVISIONS_PER_STEP, &mut sweep.watchers);
            self.sweeps.push(sweep);
        }
    }
}

impl Sweep {
    /// Reads on, up to where a response or the patience ends; none when the start is compacted.
    fn read(&mut self, view: &dyn View) -> Result<Option<Found>, Fault> {
        if view.compacted() > self.position {
            return Ok(None);
        }
        let mut slice = Slice::default();
        let mut end = (self.position + REVISIONS_PER_STEP).min(view.revision() + 1).max(self.position);
        let mut records = 0;
        let (mut current, mut last_found, mut revisions) = (0, 0, 0);
        let mut fault = None;
        let watchers = &mut self.watchers;
        let mut visit = |record: super::store::Record| {
            let revision = record.revision.main;
            if revision >= end {
                return ControlFlow::Break(());
            }
            if revision != current {
                let full = slice.bytes() >= BYTES_PER_RESPONSE_MAX || revisions >= REVISIONS_PER_RESPONSE_MAX;
                if full || records >= RECORDS_PER_STEP_MAX {
                    end = revision;
                    return ControlFlow::Break(());
                }
                current = revision;
            }
            records += 1;
            let key = match key_of(&record.kv) {
                Ok(key) => key,
                Err(corrupt) => {
                    fault = Some(corrupt);
                    return ControlFlow::Break(());
                }
            };
            if watchers.touch(&key, slice.len()) {
                revisions += usize::from(revision != last_found);
                last_found = revision;
                slice.push_record(key, record);
            }
            ControlFlow::Continue(())
        };
        view.scan(self.position, &mut visit)?;
        match fault {
            Some(fault) => Err(fault),
            None => Ok(Some(Found { slice, position: end })),
        }
    }
}
