//! The one clock of a run.

use tokio::time::Instant;

use crate::history::Nanos;

/// Tells how long the run has been going on.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
}

impl Clock {
    /// The run begins now.
    pub fn start() -> Clock {
        Clock { began: Instant::now() }
    }

    /// Nanoseconds since the run began.
    pub fn now(&self) -> Nanos {
        u64::try_from(self.began.elapsed().as_nanos()).expect("a run is over within five centuries")
    }
}
