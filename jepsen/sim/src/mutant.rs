//! Rules that are broken on purpose, one a run: a simulation that notices none of them proves nothing.

/// A broken rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mutant {
    /// The log's disk says it has synced, and has not.
    FsyncSkipped,
    /// A vote counts before it is on disk.
    VoteNotSaved,
    /// The first command after a start is applied as if it said nothing.
    CommandSkipped,
    /// Of 300 changes one is not told to watchers.
    EventLost,
    /// A linearizable read asks nobody.
    ReadWithoutIndex,
    /// A write that timed out is proposed again.
    RetriedBlindly,
}
