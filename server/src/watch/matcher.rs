//! Watchers by what they watch, and what each of them gets of a slice.
//!
//! Watchers of one range stand together: a change is looked up once, and all
//! that ask for the same form of it share one body.

use bytes::{Bytes, BytesMut};
use state::{Fault, KeyRange};

use super::index::{Index, Slot};
use super::slab::Key;
use super::slice::Slice;
use super::store::View;

/// Which changes a watcher wants, and in which form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) no_put: bool,
    pub(super) no_delete: bool,
    pub(super) prev_kv: bool,
}

impl Form {
    const COUNT: usize = 8;

    fn number(self) -> usize {
        usize::from(self.no_put) | usize::from(self.no_delete) << 1 | usize::from(self.prev_kv) << 2
    }

    fn wants(self, delete: bool) -> bool {
        if delete { !self.no_delete } else { !self.no_put }
    }
}

/// A place in a [`Matcher`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    slot: Slot,
    at: u32,
}

/// The events of one response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    /// Encoded elements of `WatchResponse.events`.
    pub(super) events: Bytes,
    pub(super) count: u32,
    /// The revision of the last one.
    pub(super) revision: i64,
}

/// Watchers by range.
pub(super) struct Matcher {
    index: Index<Interest>,
    touched: Vec<Touched>,
    found: Vec<Slot>,
    len: usize,
}

/// The watchers of one range.
#[derive(Default)]
struct Interest {
    watchers: Vec<Key>,
    /// Its place in `touched` plus one; zero while the slice has nothing for it.
    touched: u32,
}

/// What a slice has for one range.
struct Touched {
    slot: Slot,
    hits: Vec<u32>,
    bodies: [Option<Option<Body>>; Form::COUNT],
}

impl Matcher {
    pub(super) fn new() -> Self {
        Self { index: Index::new(), touched: Vec::new(), found: Vec::new(), len: 0 }
    }

    /// How many watchers are in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn join(&mut self, range: &KeyRange, key: Key) -> Seat {
        let slot = self.index.entry(range);
        let watchers = &mut self.index.get_mut(slot).watchers;
        watchers.push(key);
        self.len += 1;
        Seat { slot, at: u32::try_from(watchers.len() - 1).expect("fewer watchers than memory holds") }
    }

    /// Frees a seat; the watcher that moved into it, if any, has to be told.
    pub(super) fn leave(&mut self, seat: Seat) -> Option<Key> {
        let interest = self.index.get_mut(seat.slot);
        let at = seat.at as usize;
        interest.watchers.swap_remove(at);
        let moved = interest.watchers.get(at).copied();
        if interest.watchers.is_empty() && interest.touched == 0 {
            self.index.remove(seat.slot);
        }
        self.len -= 1;
        moved
    }

    /// Takes all watchers of some range out.
    pub(super) fn take_some(&mut self) -> Option<Vec<Key>> {
        debug_assert!(self.touched.is_empty(), "no slice is under way");
        let slot = self.index.any()?;
        let watchers = self.index.remove(slot).watchers;
        self.len -= watchers.len();
        Some(watchers)
    }

    /// Notes the change at `at` for every range that holds its key; false when there is none.
    pub(super) fn touch(&mut self, key: &[u8], at: usize) -> bool {
        let mut found = std::mem::take(&mut self.found);
        self.index.holding(key, &mut found);
        let any = !found.is_empty();
        let at = u32::try_from(at).expect("a slice is small");
        for slot in found.drain(..) {
            let interest = self.index.get_mut(slot);
            if interest.touched == 0 {
                self.touched.push(Touched { slot, hits: Vec::new(), bodies: Default::default() });
                interest.touched = u32::try_from(self.touched.len()).expect("fewer ranges than memory holds");
            }
            self.touched[interest.touched as usize - 1].hits.push(at);
        }
        self.found = found;
        any
    }

    /// How many ranges the slice touched.
    pub(super) fn touched(&self) -> usize {
        self.touched.len()
    }

    /// The watcher in a seat of a touched range, counted from the back so that the seat may be left.
    pub(super) fn watcher(&self, touched: usize, at: usize) -> (Key, Seat) {
        let slot = self.touched[touched].slot;
        let seat = Seat { slot, at: u32::try_from(at).expect("fewer watchers than memory holds") };
        (self.index.get(slot).watchers[at], seat)
    }

    /// How many watchers a touched range has.
    pub(super) fn watchers(&self, touched: usize) -> usize {
        self.index.get(self.touched[touched].slot).watchers.len()
    }

    /// What a watcher of a touched range that has seen all below `next` gets; none if all is filtered away.
    pub(super) fn body(
        &mut self,
        touched: usize,
        form: Form,
        next: i64,
        slice: &mut Slice,
        view: &dyn View,
    ) -> Result<Option<Body>, Fault> {
        let Touched { hits, bodies, .. } = &mut self.touched[touched];
        let seen = hits.partition_point(|at| slice.change(*at as usize).revision < next);
        if seen > 0 {
            return compose(&hits[seen..], form, slice, view);
        }
        let body = &mut bodies[form.number()];
        if let Some(body) = body {
            return Ok(body.clone());
        }
        Ok(body.insert(compose(hits, form, slice, view)?).clone())
    }

    /// Forgets the slice.
    pub(super) fn reset(&mut self) {
        for Touched { slot, .. } in self.touched.drain(..) {
            let interest = self.index.get_mut(slot);
            interest.touched = 0;
            if interest.watchers.is_empty() {
                self.index.remove(slot);
            }
        }
    }
}

fn compose(hits: &[u32], form: Form, slice: &mut Slice, view: &dyn View) -> Result<Option<Body>, Fault> {
    let wanted = |at: &&u32| form.wants(slice.change(**at as usize).delete);
    let hits: Vec<usize> = hits.iter().filter(wanted).map(|at| *at as usize).collect();
    let Some(last) = hits.last() else { return Ok(None) };
    let revision = slice.change(*last).revision;
    let count = u32::try_from(hits.len()).expect("a slice is small");
    if let [only] = hits[..] {
        let events = slice.encoded(only, form.prev_kv, view)?.clone();
        return Ok(Some(Body { events, count, revision }));
    }
    let mut events = BytesMut::new();
    for at in hits {
        events.extend_from_slice(slice.encoded(at, form.prev_kv, view)?);
    }
    Ok(Some(Body { events: events.freeze(), count, revision }))
}
