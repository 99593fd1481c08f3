//! What a run is like: all of it follows from the seed and the command line.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::host::Slowness;
use crate::mutant::Mutant;
use crate::net::Link;
use crate::time::{MS, Nanos, SECOND};

/// What the command line says.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The seed.
    pub seed: u64,
    /// How many members found the cluster.
    pub members: u64,
    /// How long there are faults.
    pub faulty: Nanos,
    /// The rule that is broken, if one is.
    pub mutant: Option<Mutant>,
}

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What was asked for.
    pub wanted: Wanted,
    /// How long one step of the world is: nothing that one host does reaches another sooner.
    pub tick: Nanos,
    /// How links are that nothing is wrong with.
    pub link: Link,
    /// How hosts are that nothing is wrong with.
    pub slowness: Slowness,
    /// How many clients ask.
    pub clients: usize,
    /// The longest pause of a client between an answer and the next question.
    pub think_max: Nanos,
    /// How many watchers follow.
    pub watchers: usize,
    /// The pause between faults is at most this.
    pub calm_max: Nanos,
    /// Which faults there are, by how often.
    pub faults: Vec<(Fault, u32)>,
    /// Entries between two looks at how much of the log can go.
    pub snapshot_count: u64,
    /// Whether remaining times of leases go into the log.
    pub lease_checkpoint: bool,
    /// Whether members ask before they make the others vote.
    pub pre_vote: bool,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// One member is cut off, or two groups from each other.
    Partition,
    /// A way works in one direction alone.
    OneWay,
    /// In a ring each member reaches only its neighbours.
    Ring,
    /// A process is killed.
    Kill,
    /// A machine loses its power, perhaps in the middle of a write.
    PowerCut,
    /// All machines lose their power.
    Blackout,
    /// A process ends in good order.
    Stop,
    /// A process stands still for a while.
    Pause,
    /// A disk is slow, or hangs.
    SlowDisk,
    /// Clocks go at different speeds.
    Drift,
    /// The network is slow and loses packets.
    SlowLinks,
    /// Connections break.
    Reset,
    /// The leader is asked to hand over.
    Transfer,
    /// A member is added, or removed.
    Membership,
    /// A member brings its state to disk.
    Flush,
    /// A member is away for so long that the log cannot help it any more.
    FallBehind,
}

const ALL: [Fault; 16] = [
    Fault::Partition,
    Fault::OneWay,
    Fault::Ring,
    Fault::Kill,
    Fault::PowerCut,
    Fault::Blackout,
    Fault::Stop,
    Fault::Pause,
    Fault::SlowDisk,
    Fault::Drift,
    Fault::SlowLinks,
    Fault::Reset,
    Fault::Transfer,
    Fault::Membership,
    Fault::Flush,
    Fault::FallBehind,
];

impl Plan {
    /// The run of a seed.
    pub fn new(wanted: Wanted) -> Self {
        let mut random = StdRng::seed_from_u64(wanted.seed);
        let tick = [MS, 2 * MS, 2 * MS, 5 * MS][random.random_range(0..4)];
        let latency = tick + random.random_range(0..5) * MS;
        let link = Link { latency, jitter: random.random_range(0..6) * MS, loss: 0.0 };
        // Some runs have few kinds of faults, and more of each.
        let kinds = random.random_range(0.2..1.0);
        let mut faults: Vec<(Fault, u32)> = Vec::new();
        for fault in ALL {
            if random.random_bool(kinds) {
                faults.push((fault, random.random_range(1..5)));
            }
        }
        if faults.is_empty() {
            faults.push((Fault::Kill, 1));
        }
        Self {
            wanted,
            tick,
            link,
            slowness: Slowness {
                disk_min: 0,
                disk_max: random.random_range(1..8) * MS,
                turn_max: random.random_range(0..6) * MS,
            },
            clients: random.random_range(2..8),
            think_max: random.random_range(5..150) * MS,
            watchers: random.random_range(1..5),
            calm_max: random.random_range(500..6_000) * MS,
            faults,
            snapshot_count: random.random_range(10..200),
            lease_checkpoint: random.random_bool(0.3),
            pre_vote: random.random_bool(0.8),
        }
    }

    /// How long a cluster may take, once nothing is wrong any more, until all is well.
    pub const LIVENESS_MAX: Nanos = 60 * SECOND;
}
