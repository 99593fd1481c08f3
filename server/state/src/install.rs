//! Putting the state of another member in the place of this one.
//!
//! ```text
//!   files ─► db.<n> ─► opened and looked through ─► db.current names it ─► readers see it
//!                             │ fails                                        the old one closes
//!                             ▼                                              with its last view
//!                      removed, nothing has changed
//! ```

use std::path::Path;

use mutants::Mutant;

use crate::{Fault, State, home};

impl State {
    /// Replaces the state by the one in `files`, which another member's [`Reader::checkpoint`](crate::Reader::checkpoint)
    /// collected: on the same file system, complete and on disk. They are taken from there, also when this fails.
    /// Readers see the new state when it returns; views go on showing what they showed. After a crash at any point
    /// there is the old state or the new one.
    ///
    /// # Errors
    /// When the files are no state, or one that ends before this one: then nothing has changed. When the disk refuses.
    pub fn install(&mut self, files: &Path) -> Result<(), Fault> {
        let dir = self.home.receive(files)?;
        let mut next = match self.home.open_received(&dir).and_then(|s| State::load(self.home.clone(), s)) {
            Ok(next) => next,
            Err(fault) => {
                home::remove(&dir);
                return Err(fault);
            }
        };
        let (ours, theirs) = (self.applied(), next.applied());
        if theirs.index < ours.index {
            next.retire();
            let detail = format!("it ends at entry {}, this state at {}", theirs.index, ours.index);
            return Err(Fault::Corrupt { what: "state received", detail });
        }
        if mutants::on(Mutant::InstallNothing) {
            (self.applied, self.fingerprint) = (next.applied(), next.fingerprint());
            next.retire();
            return Ok(());
        }
        self.home.choose(&dir)?;
        self.reader.follow(&next.reader);
        next.reader = self.reader.clone();
        std::mem::replace(self, next).retire();
        Ok(())
    }

    /// Ends a state that does not count any more; its files go with its last view.
    fn retire(self) {
        let storage = self.storage.clone();
        drop(self);
        storage.retire();
    }
}
