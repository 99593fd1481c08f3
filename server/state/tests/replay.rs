//! The same log gives the same state, however it is cut into groups and wherever the state crashes.

mod support;

use rand::RngExt;
use state::apply::FINGERPRINT_INTERVAL;
use state::{Entry, EntryBody, LogId, Options, State};
use support::digest::Digest;
use support::generate::Generator;
use support::with_seeds;
use support::world::{End, World};

/// Applies a log in groups of at most `group_max`, ending the state now and then.
fn replay(
    log: &[EntryBody],
    memory: usize,
    group_max: usize,
    ends: &[End],
    generator: &mut Generator,
) -> World {
    let mut world = World::new(memory);
    let mut rest = log;
    while !rest.is_empty() {
        let (group, behind) = rest.split_at(generator.rng.random_range(1..=group_max).min(rest.len()));
        world.append(group.to_vec());
        rest = behind;
        if !ends.is_empty() && generator.chance(10) {
            world.reopen(ends[generator.rng.random_range(0..ends.len())], generator);
        } else if generator.chance(5) {
            world.flush();
        }
    }
    world
}

#[test]
fn same_log_same_state() {
    with_seeds(6, |seed| {
        let mut generator = Generator::new(seed);
        // Commands that make sense need a state to refer to: the first one is where the log is made up.
        let mut first = World::new(8 << 20);
        for _ in 0..400 {
            let body = generator.entry(first.model.revision);
            first.append(vec![body]);
        }
        let log: Vec<_> = first.log.iter().map(|entry| entry.body.clone()).collect();
        let expected = Digest::of(&mut first);
        drop(first);
        let mut all = replay(&log, 64 << 20, log.len(), &[], &mut generator);
        assert_eq!(Digest::of(&mut all), expected);
        for ends in [&[End::Crash][..], &[End::Clean, End::Dropped, End::Crash]] {
            let mut world = replay(&log, 256 << 10, 30, ends, &mut generator);
            assert_eq!(Digest::of(&mut world), expected);
            world.check_all(&mut generator);
        }
    });
}

/// What has been applied is skipped, whoever sends it again.
#[test]
fn entries_apply_once() {
    with_seeds(2, |seed| {
        let mut generator = Generator::new(seed);
        let mut world = World::new(8 << 20);
        for _ in 0..30 {
            let bodies = (0..10).map(|_| generator.entry(world.model.revision)).collect();
            world.append(bodies);
            let log = world.log.clone();
            let again = log[generator.rng.random_range(0..log.len())..].to_vec();
            let len = again.len();
            let applied = world.state().apply(again).expect("apply");
            assert_eq!(applied.replies.len(), len);
            assert!(applied.blocks.is_empty() && applied.lease_changes.is_empty());
        }
        world.check_all(&mut generator);
    });
}

/// A member that got one other command differs from there on, although all that follows is the same.
#[test]
fn another_command_is_another_fingerprint() {
    with_seeds(2, |seed| {
        let mut generator = Generator::new(seed);
        let bodies: Vec<_> = (0..60).map(|_| generator.entry(1)).collect();
        let run = |bodies: &[EntryBody]| {
            let mut world = World::new(8 << 20);
            bodies.iter().for_each(|body| world.append(vec![body.clone()]));
            (world.state().fingerprint(), world.fingerprints)
        };
        let (last, all) = run(&bodies);
        for at in [0, generator.rng.random_range(0..bodies.len())] {
            let mut other = bodies.clone();
            other[at] = EntryBody::Command(proto_put());
            let (other_last, other_all) = run(&other);
            assert!(last.differs(other_last));
            for (index, fingerprint) in &all {
                assert_eq!(fingerprint.differs(other_all[index]), *index > at as u64, "entry {index}");
            }
        }
    });
}

fn proto_put() -> bytes::Bytes {
    use proto::command::{Command, command::Op};
    let put = proto::etcdserverpb::PutRequest { key: "other".into(), ..Default::default() };
    prost::Message::encode_to_vec(&Command { op: Some(Op::Put(put)) }).into()
}

/// Members that group entries differently tell the fingerprint of some of the same entries.
#[test]
fn fingerprints_of_certain_entries_are_told_whatever_the_grouping() {
    let run = |group: usize| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut state, _) = State::open(Options::new(dir.path().join("db"))).expect("open");
        let entry = |index| Entry { log_id: LogId { term: 1, index }, body: EntryBody::Blank };
        let entries: Vec<_> = (1..=5000).map(entry).collect();
        let mut told = Vec::new();
        for group in entries.chunks(group) {
            let applied = state.apply(group.to_vec()).expect("apply");
            assert_eq!(applied.fingerprints.last(), Some(&(state.applied().index, state.fingerprint())));
            told.extend(applied.fingerprints);
        }
        assert!(told.windows(2).all(|pair| pair[0].0 < pair[1].0));
        told.retain(|(index, _)| index.is_multiple_of(FINGERPRINT_INTERVAL) || *index == 5000);
        told
    };
    let told = run(5000);
    assert_eq!(told.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1024, 2048, 3072, 4096, 5000]);
    assert_eq!(run(300), told);
    assert_eq!(run(1024), told);
}
