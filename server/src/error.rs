//! Why a request could not be carried out now, although nothing is wrong with it.

/// The member cannot answer at the moment; the client may try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No member leads.
    #[error("no leader")]
    NoLeader,
    /// This member does not lead, the one named does.
    #[error("not leader, member {leader:x} leads")]
    NotLeader {
        /// The member that leads.
        leader: u64,
    },
    /// No answer in time; whether a write took place is not known.
    #[error("request timed out")]
    TimedOut,
    /// The leader changed before the write was committed; whether it took place is not known.
    #[error("request timed out, leader changed")]
    LeaderChanged,
    /// Applying does not keep up with proposing.
    #[error("too many requests")]
    TooManyRequests,
    /// The member is stopping.
    #[error("server stopped")]
    Stopped,
}
