//! The names of all nemeses.

use super::Nemesis;
use super::clock::{Clock, Which};
use super::compact::Compact;
use super::corrupt::{Corrupt, Files};
use super::disk::{Disk, How as DiskHow};
use super::kill::Kill;
use super::member::Member;
use super::mix::Mix;
use super::none::None;
use super::partition::{Partition, SHAPES, Shape};
use super::pause::Pause;
use super::slow::{How, Slow};
use super::snapshot::Snapshot;
use super::transfer::Transfer;
use super::unsynced::Unsynced;
use super::whom::Whom;

type Make = fn() -> Box<dyn Nemesis>;

/// Each name, and what it does.
///
/// Names that are several words choose one of those that begin with their first word.
pub const NAMES: &[(&str, &str, Make)] = &[
    ("none", "nothing", || Box::new(None)),
    ("kill", "kill -9: one, the leader, a majority or all", || {
        Box::new(Kill::new(&[Whom::One, Whom::Leader, Whom::Majority, Whom::All]))
    }),
    ("kill-one", "kill -9 of any member", || Box::new(Kill::new(&[Whom::One]))),
    ("kill-leader", "kill -9 of the leader", || Box::new(Kill::new(&[Whom::Leader]))),
    ("kill-majority", "kill -9 of a majority at once", || Box::new(Kill::new(&[Whom::Majority]))),
    ("kill-all", "kill -9 of everyone at once", || Box::new(Kill::new(&[Whom::All]))),
    ("pause", "SIGSTOP: one, the leader or a majority", || {
        Box::new(Pause::new(&[Whom::One, Whom::Leader, Whom::Majority]))
    }),
    ("pause-one", "SIGSTOP of any member", || Box::new(Pause::new(&[Whom::One]))),
    ("pause-leader", "SIGSTOP of the leader", || Box::new(Pause::new(&[Whom::Leader]))),
    ("pause-majority", "SIGSTOP of a majority", || Box::new(Pause::new(&[Whom::Majority]))),
    ("partition", "any of the partitions", || Box::new(Partition::new(SHAPES))),
    ("partition-halves", "a majority and the others do not hear each other", || {
        Box::new(Partition::new(&[Shape::Halves]))
    }),
    ("partition-leader", "the leader is alone", || Box::new(Partition::new(&[Shape::Leader]))),
    ("partition-ring", "everyone hears another majority", || Box::new(Partition::new(&[Shape::Ring]))),
    ("partition-bridge", "one member alone hears both halves", || Box::new(Partition::new(&[Shape::Bridge]))),
    ("partition-one-way", "a member is not heard, or hears nobody", || {
        Box::new(Partition::new(&[Shape::OneWay]))
    }),
    ("slow", "links with delay and jitter", || Box::new(Slow::new(How::Slow))),
    ("lossy", "links that lose, repeat and reorder packets", || Box::new(Slow::new(How::Lossy))),
    ("clock", "clocks that jump and strobe", || Box::new(Clock::new(&[Which::Wall, Which::Monotonic]))),
    ("clock-wall", "the time of day jumps and strobes", || Box::new(Clock::new(&[Which::Wall]))),
    ("clock-monotonic", "the monotonic clock leaps, or is too fast", || {
        Box::new(Clock::new(&[Which::Monotonic]))
    }),
    ("member", "members are removed and replaced; the cluster grows and shrinks", || {
        Box::new(Member::default())
    }),
    ("transfer", "the leader is told to let another one lead", || Box::new(Transfer)),
    ("compact", "compaction and defragmentation", || Box::new(Compact)),
    ("snapshot", "a member that was down for long is sent a whole state", || Box::new(Snapshot::default())),
    ("disk-full", "nothing more fits on a disk", || {
        Box::new(Disk::new(DiskHow::Full, &[Whom::One, Whom::Leader, Whom::Majority, Whom::All]))
    }),
    ("disk-hang", "a disk answers nothing", || {
        Box::new(Disk::new(DiskHow::Hang, &[Whom::One, Whom::Leader, Whom::Majority]))
    }),
    ("disk-fail", "writes and syncs end with an I/O error", || {
        Box::new(Disk::new(DiskHow::Fail, &[Whom::One, Whom::Leader]))
    }),
    ("unsynced", "machines stop: what was not synced is lost", || {
        Box::new(Unsynced::new(&[Whom::One, Whom::Leader, Whom::Majority, Whom::All]))
    }),
    ("unsynced-all", "all machines stop at once", || Box::new(Unsynced::new(&[Whom::All]))),
    ("corrupt-log", "flipped bits and torn sectors in the log of a stopped member", || {
        Box::new(Corrupt::new(Files::Log))
    }),
    ("corrupt-data", "flipped bits and torn sectors in the state of a stopped member", || {
        Box::new(Corrupt::new(Files::Data))
    }),
];

/// All names, `mix` among them.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, ..)| *name).chain(["mix"])
}

/// The nemesis of a name: one of [`NAMES`], `mix` of all, or a mix of some such as `kill+partition`.
pub fn by_name(name: &str) -> Option<Box<dyn Nemesis>> {
    let one = |name: &str| {
        let (.., make) = NAMES.iter().find(|(known, ..)| *known == name)?;
        Some(make())
    };
    if name == "mix" {
        return Some(Box::new(Mix::new(MIXED.iter().filter_map(|name| one(name)).collect())));
    }
    if name.contains('+') {
        let parts: Option<Vec<_>> = name.split('+').map(one).collect();
        return Some(Box::new(Mix::new(parts?)));
    }
    one(name)
}

/// What `mix` is made of.
///
/// Not the monotonic clock, under which little is promised of leases, and not broken files and disks, after which there is
/// one member less to rely on.
const MIXED: &[&str] = &[
    "kill",
    "pause",
    "partition",
    "slow",
    "lossy",
    "clock-wall",
    "member",
    "transfer",
    "compact",
    "snapshot",
    "disk-hang",
    "unsynced",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_nemesis() {
        for name in names().chain(MIXED.iter().copied()).chain(["kill+pause"]) {
            assert!(by_name(name).is_some(), "{name}");
        }
        assert!(by_name("kil").is_none());
        assert!(by_name("kill+kil").is_none());
    }
}
