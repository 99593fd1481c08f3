//! Whether the disk is full, hangs or fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

type Request = Box<dyn FnOnce() + Send>;

/// Set by the disk's owner, asked by its file system.
#[derive(Default)]
pub struct Switches {
    full: AtomicBool,
    failing: AtomicBool,
    refused: AtomicU64,
    hang: Mutex<Hang>,
}

#[derive(Default)]
struct Hang {
    on: bool,
    /// In the order they came.
    waiting: Vec<Request>,
}

impl Switches {
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    pub fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    pub fn set_hanging(&self, hanging: bool) {
        let mut hang = self.hang();
        hang.on = hanging;
        if !hanging {
            let waiting = std::mem::take(&mut hang.waiting);
            drop(hang);
            for request in waiting {
                request();
            }
        }
    }

    pub fn clear(&self) {
        self.set_full(false);
        self.set_failing(false);
        self.set_hanging(false);
    }

    /// Does it now, or once the disk no longer hangs.
    pub fn when_not_hanging(&self, request: impl FnOnce() + Send + 'static) {
        let mut hang = self.hang();
        if hang.on {
            hang.waiting.push(Box::new(request));
        } else {
            drop(hang);
            request();
        }
    }

    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub fn waiting(&self) -> usize {
        self.hang().waiting.len()
    }

    fn hang(&self) -> MutexGuard<'_, Hang> {
        self.hang.lock().expect("no panic holds it")
    }
}
