//! What the glue needs of the state machine, so that tests can put a small one in its place.

use std::path::Path;

use bytes::Bytes;
use state::{Applied, Checkpoint, Fault, LogId};

/// Collects the files of the state in a new directory and says what is in them.
pub(crate) type Checkpointer = Box<dyn Fn(&Path) -> Result<Checkpoint, Fault> + Send + Sync>;

/// The replicated state, owned by the apply thread. Indexes begin at 1; 0 means nothing was applied.
pub(crate) trait Machine: Send + 'static {
    /// Applies entries in log order; on return readers see them.
    fn apply(&mut self, entries: Vec<state::Entry>) -> Result<Applied, Fault>;
    /// The last entry applied.
    fn applied(&self) -> LogId;
    /// The last membership applied and where it stood.
    fn membership(&self) -> Option<(LogId, Bytes)>;
    /// The last entry that would survive a crash.
    fn persisted(&self) -> Result<LogId, Fault>;
    /// Makes everything applied survive a crash.
    fn flush(&mut self) -> Result<LogId, Fault>;
    /// Does the same beside the machine, which goes on: covers what is applied by now.
    fn flusher(&self) -> Box<dyn FnOnce() -> Result<LogId, Fault> + Send>;
    /// Collects files for another member beside the machine, which goes on: they cover what is applied by then.
    fn checkpointer(&self) -> Checkpointer;
    /// Puts the state in these files, which are on disk and on the same file system, in the place of this one. They
    /// are taken from there. When it fails because of them, the state is what it was.
    fn install(&mut self, files: &Path) -> Result<(), Fault>;
}

/// The real one.
pub(crate) struct Persistent {
    state: state::State,
    reader: state::Reader,
}

impl Persistent {
    pub fn new(state: state::State, reader: state::Reader) -> Self {
        Self { state, reader }
    }
}

impl Machine for Persistent {
    fn apply(&mut self, entries: Vec<state::Entry>) -> Result<Applied, Fault> {
        self.state.apply(entries)
    }

    fn applied(&self) -> LogId {
        self.state.applied()
    }

    fn membership(&self) -> Option<(LogId, Bytes)> {
        self.state.membership()
    }

    fn persisted(&self) -> Result<LogId, Fault> {
        self.reader.persisted_applied()
    }

    fn flush(&mut self) -> Result<LogId, Fault> {
        self.state.flush()
    }

    fn flusher(&self) -> Box<dyn FnOnce() -> Result<LogId, Fault> + Send> {
        let reader = self.reader.clone();
        Box::new(move || reader.flush())
    }

    fn checkpointer(&self) -> Checkpointer {
        let reader = self.reader.clone();
        Box::new(move |dir| reader.checkpoint(dir))
    }

    fn install(&mut self, files: &Path) -> Result<(), Fault> {
        self.state.install(files)
    }
}
