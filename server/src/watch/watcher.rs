//! What the table knows of a watch and of a stream.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;

use state::KeyRange;

use super::matcher::{Form, Seat};
use super::queue::Queue;
use super::slab::Key;

/// What a client asks for when it creates a watch.
#[derive(Debug, Clone)]
pub struct Create {
    /// The keys.
    pub range: KeyRange,
    /// The first revision wanted; 0 for what comes from now on.
    pub start_revision: i64,
    /// The id wanted; 0 for the next free one of the stream.
    pub watch_id: i64,
    /// Tell now and then how far the watch got when it has nothing to tell.
    pub progress_notify: bool,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletes out.
    pub no_delete: bool,
    /// With the record each change replaced.
    pub prev_kv: bool,
    /// Big responses may come in fragments.
    pub fragment: bool,
}

/// One watch.
pub(super) struct Watcher {
    pub(super) stream: Key,
    pub(super) id: i64,
    pub(super) range: KeyRange,
    pub(super) form: Form,
    pub(super) fragment: bool,
    /// Nothing was sent since the last tick.
    pub(super) quiet: bool,
    /// Everything below it was sent, if there was anything.
    pub(super) next: i64,
    /// No progress below this revision may be told.
    pub(super) floor: i64,
    /// It is counted in `Stream::floors`.
    pub(super) counted: bool,
    pub(super) place: Place,
}

/// Who moves a watcher's position.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The dispatcher.
    Synced(Seat),
    /// In `Table::waiting` or with a sweep.
    CatchingUp,
    /// In `Stream::lagging`.
    Lagging,
    /// Its history was compacted away; the client has not cancelled it yet.
    Over,
}

/// One gRPC stream.
pub(super) struct Stream {
    pub(super) queue: Arc<Queue>,
    pub(super) ids: HashMap<i64, Key>,
    pub(super) next_id: i64,
    pub(super) lagging: Vec<Key>,
    /// Watchers that are not synced.
    pub(super) unsynced: usize,
    /// How many synced watchers may not be told progress below a revision; those that dispatch
    /// has reached go when somebody looks.
    pub(super) floors: BTreeMap<i64, usize>,
    /// Those with `progress_notify`, and some that are gone.
    pub(super) notified: Vec<Key>,
    /// Progress asked for and not yet answered: how often, and at which revision.
    pub(super) asked: Option<(usize, i64)>,
    pub(super) has_news: bool,
}

impl Stream {
    /// A stream without watches.
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self {
            queue,
            ids: HashMap::new(),
            next_id: 0,
            lagging: Vec::new(),
            unsynced: 0,
            floors: BTreeMap::new(),
            notified: Vec::new(),
            asked: None,
            has_news: false,
        }
    }

    /// The id for a watch whose client leaves it to the stream: ids are not given twice.
    pub(super) fn free_id(&mut self) -> i64 {
        while self.ids.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// A watcher's floor does not count any more.
    pub(super) fn discount(&mut self, watcher: &mut Watcher) {
        if std::mem::take(&mut watcher.counted)
            && let Entry::Occupied(mut floor) = self.floors.entry(watcher.floor)
        {
            *floor.get_mut() -= 1;
            if *floor.get() == 0 {
                floor.remove();
            }
        }
    }
}
