//! Rules that a server made for it breaks, one at a time, so that the checkers show that they notice.
//!
//! A place that keeps a rule asks [`on`] whether to break it. Without the
//! feature `armed` the answer is a constant `false`, and the compiler leaves
//! the question out. With it, the variable [`VARIABLE`] names the mutant of the
//! process.

/// The environment variable that names the mutant.
pub const VARIABLE: &str = "QUORATE_MUTANT";

/// What only a program with the feature says of its version, as a line of its own.
pub const MARK: &str = "Mutants: armed\n";
/// What this program says: [`MARK`] or nothing.
pub const SAID: &str = if cfg!(feature = "armed") { MARK } else { "" };

macro_rules! mutants {
    ($($(#[doc = $about:literal])+ $variant:ident = $name:literal, by $checkers:literal, under $nemesis:literal, with $workload:literal;)+) => {
        /// A rule that is broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $about])+ $variant,)+
        }

        /// All there are.
        pub const ALL: &[Mutant] = &[$(Mutant::$variant),+];

        impl Mutant {
            /// The mutant of a name.
            #[must_use]
            pub fn by_name(name: &str) -> Option<Self> {
                ALL.iter().copied().find(|mutant| mutant.name() == name)
            }

            /// What [`VARIABLE`] calls it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it does.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($about),+).trim_ascii(),)+ }
            }

            /// The checkers that are meant for it, separated by commas: one of them has to catch it.
            #[must_use]
            pub const fn checkers(self) -> &'static str {
                match self { $(Self::$variant => $checkers,)+ }
            }

            /// The nemesis under which it shows.
            #[must_use]
            pub const fn nemesis(self) -> &'static str {
                match self { $(Self::$variant => $nemesis,)+ }
            }

            /// The workload that meets it.
            #[must_use]
            pub const fn workload(self) -> &'static str {
                match self { $(Self::$variant => $workload,)+ }
            }
        }
    };
}

mutants! {
    /// The log is never synced.
    SkipFsync = "skip-fsync", by "linearizable,set,timeline", under "unsynced-all", with "set";
    /// Entries count as durable before they are: one sync in 100 is made.
    AcknowledgeBeforeFsync = "acknowledge-before-fsync", by "linearizable,set,timeline", under "unsynced-all", with "set";
    /// The leader takes what it has sent to its followers for what they have.
    AnswerBeforeCommit = "answer-before-commit", by "linearizable,set,timeline", under "partition-leader", with "set";
    /// A linearizable read asks nobody from where on it is safe.
    ReadWithoutIndex = "read-without-index", by "linearizable,wgl", under "none", with "register";
    /// One linearizable read in 20 is of three changes before.
    StaleRead = "stale-read", by "wgl", under "none", with "register";
    /// One serializable read in four is of three changes before, and says so.
    OldSerializable = "old-serializable", by "serializable", under "none", with "register";
    /// One transaction in ten that only reads has its first key from three changes before.
    TornRead = "torn-read", by "append", under "none", with "append";
    /// One command in 32 is done twice.
    RepeatCommand = "repeat-command", by "timeline", under "none", with "register";
    /// One put in about 50 loses its value, on each member another one.
    OtherValue = "other-value", by "hash", under "none", with "set";
    /// A member that does not lead any more ends.
    EndAfterLead = "end-after-lead", by "run", under "transfer", with "register";
    /// The last entries before a restart are applied once more.
    ApplyTwice = "apply-twice", by "hash,linearizable,timeline,run", under "kill-one", with "txn";
    /// One event in 300 reaches no watcher.
    DropEvent = "drop-event", by "watch", under "none", with "watch";
    /// A response overtakes the one before it.
    EventOrder = "event-order", by "watch", under "none", with "watch";
    /// An event that a watcher has is told again.
    RepeatEvent = "repeat-event", by "watch", under "none", with "watch";
    /// The changes of one transaction come in several responses.
    TornRevision = "torn-revision", by "watch", under "none", with "watch";
    /// A watch of past revisions tells only what is still to come.
    SkipPast = "skip-past", by "watch", under "none", with "watch";
    /// Progress is told of revisions that are still to come.
    EarlyProgress = "early-progress", by "watch", under "none", with "watch";
    /// The pair before is the one before that.
    StalePrevious = "stale-previous", by "watch", under "none", with "watch";
    /// A watch of a revision that is still to come tells what comes before it.
    EagerWatch = "eager-watch", by "watch", under "none", with "watch";
    /// A keep-alive is answered without the leader hearing of it.
    KeepAliveHere = "keep-alive-here", by "lease", under "none", with "lease";
    /// A member that does not lead any more goes on letting leases end.
    OldLeaderRevokes = "old-leader-revokes", by "lease", under "transfer", with "lease";
    /// A lease ends and leaves its keys.
    LeaseLeavesKeys = "lease-leaves-keys", by "linearizable,lease,timeline", under "none", with "lease";
    /// A compaction brings back a key that was deleted.
    CompactionLosesDelete = "compaction-loses-delete", by "linearizable,timeline,wgl", under "compact", with "kubernetes";
    /// One transaction in 16 does not compare.
    IgnoreCompare = "ignore-compare", by "linearizable,append", under "none", with "txn";
    /// One deletion in eight counts one key too many.
    WrongDeleted = "wrong-deleted", by "linearizable", under "none", with "txn";
    /// After a restart, once something was compacted, the last revision is given again.
    RevisionBack = "revision-back", by "hash,linearizable,timeline,run", under "snapshot", with "kubernetes";
    /// A state that is received is not installed, only where it ends is believed.
    InstallNothing = "install-nothing", by "hash,serializable,run", under "snapshot", with "set";
}

/// Whether this process breaks the rule.
#[cfg(not(feature = "armed"))]
#[must_use]
#[inline(always)]
pub const fn on(_mutant: Mutant) -> bool {
    false
}

/// Whether this process breaks the rule.
#[cfg(feature = "armed")]
#[must_use]
pub fn on(mutant: Mutant) -> bool {
    use std::sync::LazyLock;
    static NAME: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(VARIABLE).ok());
    NAME.as_deref() == Some(mutant.name())
}

/// Whether this process breaks the rule this time, which is one of so many.
#[must_use]
#[inline]
pub fn sometimes(mutant: Mutant, one_of: u64) -> bool {
    use std::sync::atomic::{AtomicU64, Ordering};
    static ASKED: AtomicU64 = AtomicU64::new(0);
    on(mutant) && ASKED.fetch_add(1, Ordering::Relaxed) % one_of == one_of - 1
}
