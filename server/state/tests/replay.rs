//! The same log gives the same state, however it is cut into groups and wherever the state crashes.

mod support;

use std::time::Duration;

use rand::RngExt;
use state::{EntryBody, KeyRange, Query};
use support::generate::Generator;
use support::with_seeds;
use support::world::{End, World};

/// All that members must agree on once they have applied the same log.
#[derive(Debug, PartialEq)]
struct Fingerprint {
    hash: u32,
    hash_kv: Vec<u32>,
    keys: Vec<Vec<bytes::Bytes>>,
    leases: Vec<(state::Lease, Vec<bytes::Bytes>)>,
}

fn fingerprint(world: &World) -> Fingerprint {
    let reader = world.reader();
    let view = reader.view();
    let revisions = view.compacted().max(1)..=view.revision();
    let hash_kv = revisions
        .clone()
        .map(|revision| reader.hash_kv(revision).expect("read").expect("not compacted").hash)
        .collect();
    let keys = revisions
        .map(|revision| {
            let range = KeyRange::From(vec![0].into());
            let query = Query { revision, ..Query::all(range) };
            let mut rows = view.range(&query).expect("read").expect("not compacted");
            rows.next_chunk(usize::MAX).expect("read").unwrap_or_default()
        })
        .collect();
    let leases = reader.leases();
    let leases =
        leases.into_iter().map(|lease| (lease, reader.lease_keys(lease.id).expect("read"))).collect();
    let compacted = view.compacted();
    drop(view);
    assert!(reader.wait_compacted(compacted, Duration::from_secs(60)), "compaction stands still");
    Fingerprint { hash: reader.hash().expect("read"), hash_kv, keys, leases }
}

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
        let expected = fingerprint(&first);
        drop(first);
        let all = replay(&log, 64 << 20, log.len(), &[], &mut generator);
        assert_eq!(fingerprint(&all), expected);
        for ends in [&[End::Crash][..], &[End::Clean, End::Dropped, End::Crash]] {
            let world = replay(&log, 256 << 10, 30, ends, &mut generator);
            assert_eq!(fingerprint(&world), expected);
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
