//! All watchers and streams of a member, under one mutex.
//!
//! A watcher is a position: it was given everything of its range below it and
//! nothing from there on. Where it stands says who moves the position:
//!
//! ```text
//!             start ≤ now                 reached the head
//!   create ──────────────► catching up ─────────────────► synced ◄── create (start 0 or > now)
//!                            ▲      │ no room                │ no room
//!                    room    │      ▼                        ▼
//!                            └─── lagging ◄──────────────────┘
//! ```
//!
//! Invariants
//!  1. `dispatched` is the last revision offered to the synced watchers. One
//!     that is synced was given all of its range up to it, or starts later.
//!  2. Who joins the synced ones has a position above `dispatched`, and what
//!     the dispatcher still brings below that position is not for it. Hence no
//!     gap and no repeat, however far dispatch is behind the store.
//!  3. Whatever is put into a stream's queue is put there under the mutex, so
//!     the queue's order is the order of what happened here: created before
//!     events, events before the progress that covers them.

use std::collections::BTreeMap;
use std::sync::Arc;

use mutants::Mutant;
use state::{Fault, KeyRange};

use crate::metrics::METRICS;

use super::matcher::{Body, Form, Matcher, Seat};
use super::queue::{Item, Queue};
use super::slab::{Key, Slab};
use super::slice::Slice;
use super::store::View;
use super::watcher::{Create, Place, Stream, Watcher};

/// The id that answers "all of the stream" and "no watch was created".
pub(super) const NO_WATCH: i64 = -1;

/// The watchers and streams.
pub(super) struct Table {
    watchers: Slab<Watcher>,
    streams: Slab<Stream>,
    synced: Matcher,
    /// Those that catch up and are not yet with a sweep, by position.
    waiting: BTreeMap<i64, Vec<Key>>,
    dispatched: i64,
    /// Streams that asked for progress while dispatch was behind the store.
    asked: Vec<Key>,
    /// Streams whose queue has something new.
    news: Vec<Key>,
    slow: usize,
    /// The counts last shown as metrics.
    shown: Counts,
}

/// How many watchers there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open streams.
    pub streams: usize,
    /// Watchers.
    pub watchers: usize,
    /// Those of them that are not synced.
    pub slow: usize,
}

impl Table {
    pub(super) fn new(dispatched: i64) -> Self {
        Self {
            watchers: Slab::new(),
            streams: Slab::new(),
            synced: Matcher::new(),
            waiting: BTreeMap::new(),
            dispatched,
            asked: Vec::new(),
            news: Vec::new(),
            slow: 0,
            shown: Counts::default(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { streams: self.streams.len(), watchers: self.watchers.len(), slow: self.slow }
    }

    /// Brings the metrics up to date: they are the sum over all tables of the process.
    fn show(&mut self) {
        let (shown, counts) = (self.shown, self.counts());
        if shown == counts {
            return;
        }
        let differ = |now: usize, before: usize| now as i64 - before as i64;
        let metrics = &METRICS.storage;
        metrics.watch_streams.add(differ(counts.streams, shown.streams));
        metrics.watchers.add(differ(counts.watchers, shown.watchers));
        metrics.slow_watchers.add(differ(counts.slow, shown.slow));
        self.shown = counts;
    }

    pub(super) fn dispatched(&self) -> i64 {
        self.dispatched
    }

    // Requests of a stream.

    pub(super) fn open(&mut self, queue: Arc<Queue>) -> Key {
        let key = self.streams.insert(Stream::new(queue));
        self.show();
        key
    }

    /// Removes up to `max` watchers of a stream, then the stream; true when it is gone.
    pub(super) fn close(&mut self, stream: Key, max: usize) -> bool {
        let Some(open) = self.streams.get(stream) else { return true };
        let ids: Vec<i64> = open.ids.keys().copied().take(max).collect();
        let last = ids.len() == open.ids.len();
        for id in ids {
            self.remove(stream, id);
        }
        if last {
            self.streams.remove(stream);
        }
        self.show();
        last
    }

    /// Creates a watch or refuses it; true when it has to catch up.
    pub(super) fn create(&mut self, stream: Key, create: &Create, view: &dyn View) -> bool {
        let now = view.revision();
        let Some(open) = self.streams.get_mut(stream) else { return false };
        let empty = match &create.range {
            KeyRange::Span { start, end } => start >= end,
            _ => false,
        };
        let refusal = if empty {
            Some("mvcc: watcher range is empty")
        } else if create.watch_id != 0 && open.ids.contains_key(&create.watch_id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else {
            None
        };
        if let Some(reason) = refusal {
            open.queue.push(Item::Refused { revision: now, reason: reason.to_owned() });
            return false;
        }
        let id = if create.watch_id != 0 { create.watch_id } else { open.free_id() };
        open.queue.push(Item::Created { id, revision: now });

        let start = match create.start_revision {
            start if mutants::on(Mutant::EagerWatch) => start.min(now + 1),
            start if start <= now && mutants::on(Mutant::SkipPast) => 0,
            start => start,
        };
        let synced = start == 0 || start > now;
        let watcher = Watcher {
            stream,
            id,
            range: create.range.clone(),
            form: Form { no_put: create.no_put, no_delete: create.no_delete, prev_kv: create.prev_kv },
            fragment: create.fragment,
            quiet: true,
            next: if start == 0 { now + 1 } else { start },
            floor: start.max(now),
            counted: false,
            place: Place::CatchingUp,
        };
        let (next, floor) = (watcher.next, watcher.floor);
        let key = self.watchers.insert(watcher);
        let open = self.streams.get_mut(stream).expect("looked up above");
        open.ids.insert(id, key);
        open.unsynced += 1;
        self.slow += 1;
        if create.progress_notify {
            open.notified.push(key);
        }
        if synced {
            self.sync(key, next, floor);
        } else {
            self.waiting.entry(next).or_default().push(key);
        }
        self.show();
        !synced
    }

    /// Ends a watch at the client's wish; one that does not exist is not answered.
    pub(super) fn cancel(&mut self, stream: Key, id: i64, view: &dyn View) {
        if self.remove(stream, id)
            && let Some(open) = self.streams.get(stream)
        {
            open.queue.push(Item::Canceled { id, revision: view.revision() });
        }
        self.show();
    }

    /// Tells how far all of a stream's watches are, if all are synced and started; else says nothing.
    pub(super) fn ask_progress(&mut self, stream: Key, view: &dyn View) {
        let now = view.revision();
        let Some(open) = self.streams.get_mut(stream) else { return };
        let started = open.floors.last_key_value().is_none_or(|(floor, _)| *floor <= now);
        if open.ids.is_empty() || open.unsynced > 0 || !started {
            return;
        }
        if open.asked.is_none() {
            self.asked.push(stream);
        }
        let times = open.asked.map_or(0, |(times, _)| times) + 1;
        open.asked = Some((times, now));
        self.answer_progress();
    }

    /// Tells the quiet ones among a stream's `progress_notify` watches how far they are.
    pub(super) fn tick(&mut self, stream: Key) {
        let Self { watchers, streams, dispatched, .. } = self;
        let Some(open) = streams.get_mut(stream) else { return };
        open.notified.retain(|key| {
            let Some(watcher) = watchers.get_mut(*key) else { return false };
            let synced = matches!(watcher.place, Place::Synced(_));
            if watcher.quiet && synced && watcher.floor <= *dispatched && open.queue.has_room() {
                open.queue.push(Item::Progress { id: watcher.id, revision: *dispatched });
            }
            watcher.quiet = true;
            true
        });
    }

    /// Lets a stream's lagging watchers go on; true when there are any.
    pub(super) fn resume(&mut self, stream: Key) -> bool {
        let Some(open) = self.streams.get_mut(stream) else { return false };
        let lagging = std::mem::take(&mut open.lagging);
        let mut any = false;
        for key in lagging {
            if let Some(watcher) = self.watchers.get_mut(key) {
                watcher.place = Place::CatchingUp;
                self.waiting.entry(watcher.next).or_default().push(key);
                any = true;
            }
        }
        any
    }

    fn remove(&mut self, stream: Key, id: i64) -> bool {
        let Some(open) = self.streams.get_mut(stream) else { return false };
        let Some(key) = open.ids.remove(&id) else { return false };
        let mut watcher = self.watchers.remove(key).expect("a stream's ids are watchers");
        open.discount(&mut watcher);
        if let Place::Synced(seat) = watcher.place {
            self.leave(seat);
        } else {
            open.unsynced -= 1;
            self.slow -= 1;
        }
        let open = self.streams.get_mut(stream).expect("looked up above");
        // Of what is left behind in the lists, at most half may be stale.
        if open.notified.len() > 2 * open.ids.len() + 16 {
            open.notified.retain(|key| self.watchers.get(*key).is_some());
        }
        if open.lagging.len() > 2 * open.ids.len() + 16 {
            open.lagging.retain(|key| self.watchers.get(*key).is_some());
        }
        true
    }

    // The dispatcher.

    /// Offers the changes up to `last` to the synced watchers; says how many events were taken.
    pub(super) fn dispatch(&mut self, slice: &mut Slice, last: i64, view: &dyn View) -> Result<u64, Fault> {
        if last <= self.dispatched {
            return Ok(0);
        }
        let mut synced = std::mem::replace(&mut self.synced, Matcher::new());
        for at in 0..slice.len() {
            let change = slice.change(at);
            if change.revision > self.dispatched {
                synced.touch(&change.key, at);
            }
        }
        let position = self.dispatched + 1;
        let result = self.offer(&mut synced, slice, position, None, view);
        synced.reset();
        self.synced = synced;
        self.dispatched = last;
        self.answer_progress();
        result
    }

    /// The changes up to `last` will not be dispatched: the synced watchers fetch them from the store.
    pub(super) fn skip(&mut self, last: i64) {
        if last <= self.dispatched {
            return;
        }
        while let Some(watchers) = self.synced.take_some() {
            for key in watchers {
                let watcher = self.watchers.get_mut(key).expect("a seat is left before its watcher goes");
                watcher.next = watcher.next.max(self.dispatched + 1);
                watcher.place = Place::CatchingUp;
                self.streams.get_mut(watcher.stream).expect("it has watchers").unsynced += 1;
                self.slow += 1;
                self.waiting.entry(watcher.next).or_default().push(key);
            }
        }
        self.dispatched = last;
        // Those that start later have nothing to fetch.
        let later = self.waiting.split_off(&(last + 1));
        for key in later.into_values().flatten() {
            if let Some(watcher) = self.watchers.get(key) {
                let (next, floor) = (watcher.next, watcher.floor);
                self.sync(key, next, floor);
            }
        }
        self.answer_progress();
    }

    // Catching up.

    /// Hands the watchers that wait at positions in [from, to) to a sweep.
    pub(super) fn enlist(&mut self, from: i64, to: i64, sweep: &mut Matcher) {
        let positions: Vec<i64> = self.waiting.range(from..to).map(|(position, _)| *position).collect();
        for key in positions.iter().flat_map(|position| self.waiting.remove(position)).flatten() {
            if let Some(watcher) = self.watchers.get(key) {
                sweep.join(&watcher.range, key);
            }
        }
    }

    /// The lowest and the highest position somebody waits at.
    pub(super) fn waiting(&self) -> Option<(i64, i64)> {
        Some((*self.waiting.first_key_value()?.0, *self.waiting.last_key_value()?.0))
    }

    /// Offers what a sweep read to its watchers, all of which have a position of at least `position`.
    pub(super) fn offer_history(
        &mut self,
        sweep: &mut Matcher,
        slice: &mut Slice,
        position: i64,
        view: &dyn View,
    ) -> Result<u64, Fault> {
        let result = self.offer(sweep, slice, position, Some(view.revision()), view);
        sweep.reset();
        result
    }

    /// Puts a sweep's watchers back: cancelled if they stand below `compacted`, else waiting.
    pub(super) fn disband(&mut self, sweep: &mut Matcher, position: i64, compacted: i64) {
        sweep.reset();
        while let Some(watchers) = sweep.take_some() {
            for key in watchers {
                let Some(watcher) = self.watchers.get_mut(key) else { continue };
                watcher.next = watcher.next.max(position);
                if watcher.next >= compacted {
                    self.waiting.entry(watcher.next).or_default().push(key);
                    continue;
                }
                watcher.place = Place::Over;
                let (stream, id) = (watcher.stream, watcher.id);
                let open = self.streams.get(stream).expect("it has watchers");
                open.queue.push(Item::Compacted { id, compact_revision: compacted });
                self.tell(stream);
            }
        }
    }

    /// Lets watchers of a sweep that has read everything below `position` join the synced ones: all
    /// of them if that takes little time, else some. `head` is the revision their last responses told.
    pub(super) fn join(&mut self, sweep: &mut Matcher, position: i64, head: i64, max: usize) {
        let mut joined = 0;
        while joined < max && position > self.dispatched {
            let Some(watchers) = sweep.take_some() else { break };
            joined += watchers.len();
            for key in watchers {
                let Some(watcher) = self.watchers.get(key) else { continue };
                let (next, floor) = (watcher.next.max(position), watcher.floor.max(head));
                self.sync(key, next, floor);
            }
        }
    }

    /// The queues that got something since this was last asked.
    pub(super) fn take_news(&mut self, queues: &mut Vec<Arc<Queue>>) {
        for stream in self.news.drain(..) {
            if let Some(open) = self.streams.get_mut(stream) {
                open.has_news = false;
                queues.push(open.queue.clone());
            }
        }
        self.show();
    }

    /// The queues of all streams.
    pub(super) fn queues(&self) -> Vec<Arc<Queue>> {
        let queue = |key| self.streams.get(key).map(|open| open.queue.clone());
        self.streams.keys().filter_map(queue).collect()
    }

    /// Gives every watcher of a touched range its part of the slice, or makes it lagging at `position`.
    fn offer(
        &mut self,
        matcher: &mut Matcher,
        slice: &mut Slice,
        position: i64,
        head: Option<i64>,
        view: &dyn View,
    ) -> Result<u64, Fault> {
        let mut events = 0;
        for touched in 0..matcher.touched() {
            for at in (0..matcher.watchers(touched)).rev() {
                let (key, seat) = matcher.watcher(touched, at);
                let Some(watcher) = self.watchers.get_mut(key) else {
                    // Cancelled while it was with a sweep.
                    matcher.leave(seat);
                    continue;
                };
                let Some(body) = matcher.body(touched, watcher.form, watcher.next, slice, view)? else {
                    continue;
                };
                let Body { events: encoded, count, revision } = body;
                let open = self.streams.get_mut(watcher.stream).expect("it has watchers");
                let (id, fragment) = (watcher.id, watcher.fragment);
                let revision = head.unwrap_or(revision);
                if open.queue.offer(|| Item::Events { id, revision, fragment, count, events: encoded }) {
                    watcher.quiet = false;
                    events += u64::from(count);
                    let stream = watcher.stream;
                    self.tell(stream);
                    continue;
                }
                watcher.next = watcher.next.max(position);
                if matches!(watcher.place, Place::Synced(_)) {
                    open.unsynced += 1;
                    self.slow += 1;
                }
                watcher.place = Place::Lagging;
                open.lagging.push(key);
                let synced = head.is_none();
                if let Some(moved) = matcher.leave(seat)
                    && synced
                {
                    self.reseat(moved, seat);
                }
            }
        }
        Ok(events)
    }

    /// Makes a watcher that is not synced a synced one.
    fn sync(&mut self, key: Key, next: i64, floor: i64) {
        debug_assert!(next > self.dispatched, "a synced watcher has nothing to fetch");
        let watcher = self.watchers.get_mut(key).expect("the caller looked it up");
        let open = self.streams.get_mut(watcher.stream).expect("it has watchers");
        open.discount(watcher);
        watcher.next = next;
        watcher.floor = floor;
        watcher.place = Place::Synced(self.synced.join(&watcher.range, key));
        watcher.counted = floor > self.dispatched;
        if watcher.counted {
            *open.floors.entry(floor).or_default() += 1;
        }
        open.unsynced -= 1;
        self.slow -= 1;
    }

    fn leave(&mut self, seat: Seat) {
        if let Some(moved) = self.synced.leave(seat) {
            self.reseat(moved, seat);
        }
    }

    fn reseat(&mut self, moved: Key, seat: Seat) {
        self.watchers.get_mut(moved).expect("a seat is left before its watcher goes").place =
            Place::Synced(seat);
    }

    fn tell(&mut self, stream: Key) {
        if let Some(open) = self.streams.get_mut(stream)
            && !open.has_news
        {
            open.has_news = true;
            self.news.push(stream);
        }
    }

    /// Answers who asked for progress at a revision that is now dispatched.
    fn answer_progress(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        for stream in asked {
            let Some(open) = self.streams.get_mut(stream) else { continue };
            let Some((times, revision)) = open.asked else { continue };
            if revision > self.dispatched {
                self.asked.push(stream);
                continue;
            }
            open.asked = None;
            while let Some(floor) = open.floors.first_entry().filter(|floor| *floor.key() <= self.dispatched)
            {
                floor.remove();
            }
            if open.ids.is_empty() || open.unsynced > 0 || !open.floors.is_empty() {
                continue;
            }
            for _ in 0..times {
                open.queue.push(Item::Progress { id: NO_WATCH, revision: self.dispatched });
            }
            self.tell(stream);
        }
    }
}
