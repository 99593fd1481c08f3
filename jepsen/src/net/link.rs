//! What happens to packets on their way from one place to another.

use std::time::Duration;

/// One way between two places; the default lets everything through at once.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Link {
    /// Nothing arrives.
    pub cut: bool,
    /// What arrives does so that much later …
    pub delay: Duration,
    /// … and up to that much more, without overtaking.
    pub jitter: Duration,
    /// The share of packets that do not arrive.
    pub loss: f64,
    /// The share that arrives twice.
    pub duplicate: f64,
    /// The share that is overtaken by those behind it.
    pub reorder: f64,
}

impl Link {
    /// Nothing arrives.
    pub const CUT: Link = Link {
        cut: true,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
    };

    /// Whether a proxy of bytes can do this as well as a switch of packets.
    pub fn is_of_bytes(&self) -> bool {
        self.jitter.is_zero() && self.loss == 0.0 && self.duplicate == 0.0 && self.reorder == 0.0
    }
}

/// What happened to the packets of one link so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that arrived, late or not.
    pub passed: u64,
    /// Those that did not, because the link was cut.
    pub cut: u64,
    /// Those that did not, by chance.
    pub lost: u64,
    /// Those that arrived late.
    pub delayed: u64,
    /// Those that arrived twice.
    pub duplicated: u64,
    /// Those that were held back for others to overtake.
    pub reordered: u64,
}
