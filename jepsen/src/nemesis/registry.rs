//! The names of all nemeses.

use super::Nemesis;
use super::kill::Kill;
use super::mix::Mix;
use super::none::None;
use super::partition::{Partition, SHAPES, Shape};
use super::pause::Pause;
use super::slow::{How, Slow};
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
const MIXED: &[&str] = &["kill", "pause", "partition", "slow", "lossy"];

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
