//! The one clock of a run.

use std::time::{Duration, Instant};

use crate::history::Nanos;

/// Tells how long the run has been going on.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    began: Instant,
}

impl Stopwatch {
    /// The run begins now.
    pub fn start() -> Stopwatch {
        Stopwatch { began: Instant::now() }
    }

    /// When the run began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Nanoseconds since the run began.
    pub fn now(&self) -> Nanos {
        nanos(self.began.elapsed())
    }
}

/// A time of a run as histories have it.
pub fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).expect("a run is over within five centuries")
}
