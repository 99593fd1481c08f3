//! Which keys are busy and which are many, for whoever looks at a member: `quorate.Insight`.
//!
//! Nobody looks most of the time, and then it costs a write and a read one look at a flag. Once somebody asks, changes
//! and reads are counted by the prefix asked for, until a minute has passed without being asked: memory for a few
//! [`Sketch`]es, whatever the keys are. The counts are this process's; the state knows nothing of them.
//!
//! A read never waits to be counted: what finds the counts held is carried over to the next read of its thread.

mod sketch;
mod split;
mod survey;

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use state::{Block, Fault, View};

pub use sketch::{Counted, Sketch};
pub use split::Split;
pub use survey::{Size, survey};

/// Prefixes counted of each kind.
const PREFIXES_MAX: usize = 256;
/// Ways of dividing keys that are counted at the same time.
const VIEWERS_MAX: usize = 4;
/// After how long without being asked it is no longer counted.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// How old the sizes by prefix may be: finding them out is work.
const SIZES_AGE_MAX: Duration = Duration::from_secs(5);

/// What this process has counted.
pub static INSIGHT: LazyLock<Insight> = LazyLock::new(Insight::new);

thread_local! {
    /// Reads of this thread that are not counted yet.
    static CARRIED: Cell<u64> = const { Cell::new(0) };
}

/// Counts by prefix, while somebody wants them.
pub struct Insight {
    began: Instant,
    /// Whether there is any viewer.
    wanted: AtomicBool,
    viewers: Mutex<Vec<Viewer>>,
}

/// One way of dividing keys that somebody asks for.
struct Viewer {
    split: Split,
    since: Instant,
    asked: Instant,
    changed: Sketch,
    read: Sketch,
    sizes: Option<Sizes>,
}

/// Sizes by prefix, and when they were found out.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// When, after the process began.
    pub at: Duration,
    /// The largest first.
    pub largest: Vec<Size>,
}

/// What was counted by one way of dividing keys.
#[derive(Debug)]
pub struct Counts {
    /// When it was read, after the process began.
    pub at: Duration,
    /// Since when it is counted, after the process began.
    pub since: Duration,
    /// Prefixes that were changed most.
    pub changed: Vec<Counted>,
    /// Prefixes that were read most.
    pub read: Vec<Counted>,
    /// The sizes by prefix; `None` when they are not known or too old.
    pub sizes: Option<Sizes>,
}

impl Insight {
    fn new() -> Self {
        Self { began: Instant::now(), wanted: AtomicBool::new(false), viewers: Mutex::new(Vec::new()) }
    }

    /// Counts changes that were applied.
    pub fn changed(&self, blocks: &[Block]) {
        if self.wanted.load(Ordering::Relaxed) {
            self.count_changes(blocks);
        }
    }

    #[cold]
    fn count_changes(&self, blocks: &[Block]) {
        let mut viewers = self.viewers.lock();
        self.forget(&mut viewers, Instant::now());
        for viewer in viewers.iter_mut() {
            for event in blocks.iter().flat_map(|block| &block.events) {
                // The record has the key in it.
                viewer.changed.add(viewer.split.prefix(&event.key), 1, event.kv.len() as u64);
            }
        }
    }

    /// Counts a read that begins at this key.
    pub fn read(&self, key: &[u8]) {
        if self.wanted.load(Ordering::Relaxed) {
            self.count_read(key);
        }
    }

    #[cold]
    fn count_read(&self, key: &[u8]) {
        let times = CARRIED.get() + 1;
        let Some(mut viewers) = self.viewers.try_lock() else { return CARRIED.set(times) };
        CARRIED.set(0);
        for viewer in viewers.iter_mut() {
            viewer.read.add(viewer.split.prefix(key), times, 0);
        }
    }

    /// What is counted by this way of dividing keys, so many prefixes of each kind at most; `None` while it is not
    /// counted because others are.
    pub fn counts(&self, split: &Split, max: usize) -> Option<Counts> {
        let now = Instant::now();
        let mut viewers = self.viewers.lock();
        self.forget(&mut viewers, now);
        let known = viewers.iter().position(|viewer| viewer.split == *split);
        let at = match known {
            Some(at) => at,
            None if viewers.len() == VIEWERS_MAX => return None,
            None => {
                let (changed, read) = (Sketch::new(PREFIXES_MAX), Sketch::new(PREFIXES_MAX));
                viewers.push(Viewer {
                    split: split.clone(),
                    since: now,
                    asked: now,
                    changed,
                    read,
                    sizes: None,
                });
                self.wanted.store(true, Ordering::Relaxed);
                viewers.len() - 1
            }
        };
        let viewer = &mut viewers[at];
        viewer.asked = now;
        let at = now.duration_since(self.began);
        let sizes = viewer.sizes.clone().filter(|sizes| at.saturating_sub(sizes.at) < SIZES_AGE_MAX);
        Some(Counts {
            at,
            since: viewer.since.duration_since(self.began),
            changed: viewer.changed.top(max),
            read: viewer.read.top(max),
            sizes,
        })
    }

    /// Finds out the sizes by prefix, and remembers them for as long as they are counted.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn measure(&self, view: &View, split: &Split) -> Result<Sizes, Fault> {
        let sizes = Sizes { at: self.began.elapsed(), largest: survey(view, split, PREFIXES_MAX)? };
        let mut viewers = self.viewers.lock();
        if let Some(viewer) = viewers.iter_mut().find(|viewer| viewer.split == *split) {
            viewer.sizes = Some(sizes.clone());
        }
        Ok(sizes)
    }

    /// Drops what nobody has asked for lately.
    fn forget(&self, viewers: &mut Vec<Viewer>, now: Instant) {
        viewers.retain(|viewer| now.saturating_duration_since(viewer.asked) < FORGOTTEN_AFTER);
        self.wanted.store(!viewers.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use state::Event;

    use super::*;

    fn block(keys: &[&'static str]) -> Block {
        let event = |key: &&'static str| Event {
            key: (*key).into(),
            kv: vec![0; 10].into(),
            delete: false,
            previous: None,
        };
        Block { revision: 2, events: keys.iter().map(event).collect() }
    }

    fn of(counted: &[Counted]) -> Vec<(&str, u64, u64)> {
        let text = |item| std::str::from_utf8(item).expect("text");
        counted.iter().map(|counted| (text(&counted.item), counted.count, counted.bytes)).collect()
    }

    #[test]
    fn nothing_is_counted_until_somebody_asks() {
        let insight = Insight::new();
        let split = Split::new(b"/", 1).expect("within bounds");
        insight.changed(&[block(&["/a/1"])]);
        insight.read(b"/a/1");
        let counts = insight.counts(&split, 9).expect("the first");
        assert_eq!((of(&counts.changed), of(&counts.read)), (vec![], vec![]));
        insight.changed(&[block(&["/a/1", "/b/1"]), block(&["/a/2"])]);
        insight.read(b"/b/");
        let counts = insight.counts(&split, 9).expect("the same");
        assert_eq!(of(&counts.changed), [("/a/", 2, 20), ("/b/", 1, 10)]);
        assert_eq!(of(&counts.read), [("/b/", 1, 0)]);
        let other = insight.counts(&Split::new(b"/", 2).expect("within bounds"), 9).expect("a second one");
        assert_eq!(of(&other.changed), []);
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let insight = Insight::new();
        let split = |depth| Split::new(b"/", depth).expect("within bounds");
        for depth in 1..=VIEWERS_MAX {
            assert!(insight.counts(&split(depth), 9).is_some());
        }
        assert!(insight.counts(&split(VIEWERS_MAX + 1), 9).is_none());
        let later = Instant::now() + FORGOTTEN_AFTER;
        insight.forget(&mut insight.viewers.lock(), later);
        assert!(!insight.wanted.load(Ordering::Relaxed));
        assert!(insight.counts(&split(VIEWERS_MAX + 1), 9).is_some());
    }

    #[test]
    fn a_read_that_cannot_be_counted_is_carried_over() {
        let insight = Insight::new();
        let split = Split::new(b"/", 1).expect("within bounds");
        assert!(insight.counts(&split, 9).is_some());
        let held = insight.viewers.lock();
        insight.read(b"/a/1");
        insight.read(b"/a/1");
        drop(held);
        insight.read(b"/b/1");
        assert_eq!(of(&insight.counts(&split, 9).expect("the same").read), [("/b/", 3, 0)]);
    }
}
