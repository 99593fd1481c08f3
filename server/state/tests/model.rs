//! Every kind of command against a naive model, with compactions, groups of any size, crashes and restarts.

mod support;

use rand::RngExt;
use support::generate::Generator;
use support::with_seeds;
use support::world::{End, World, check_range};

/// Little enough that index pages and rows are dropped and loaded again all the time.
const LITTLE_MEMORY: usize = 256 << 10;
const MUCH_MEMORY: usize = 64 << 20;

fn run(seed: u64, steps: usize) {
    let mut generator = Generator::new(seed);
    let memory = if generator.chance(50) { LITTLE_MEMORY } else { MUCH_MEMORY };
    let mut world = World::new(memory);
    let mut held = None;
    for _ in 0..steps {
        let bodies = (0..generator.rng.random_range(1..12)).map(|_| generator.entry(world.model.revision));
        let bodies = bodies.collect();
        world.append(bodies);
        match generator.rng.random_range(0..40) {
            0 => world.flush(),
            1..4 => {
                held = None;
                let end = [End::Clean, End::Dropped, End::Crash][generator.rng.random_range(0..3)];
                world.reopen(end, &mut generator);
                world.check(&mut generator);
            }
            4..14 => world.check(&mut generator),
            14 => held = Some((world.reader().view(), world.model.clone())),
            15..20 => {
                // However long a view is held, it shows what it showed: also what was compacted since.
                if let Some((view, model)) = &held {
                    let request = generator.range(model.revision);
                    check_range(view, model, &request, &mut generator);
                }
            }
            _ => {}
        }
    }
    drop(held);
    world.check_all(&mut generator);
}

#[test]
fn state_does_what_the_model_does() {
    with_seeds(12, |seed| run(seed, 120));
}

/// Enough keys for many index pages, written in one go and then thinned out again.
#[test]
fn many_keys() {
    use proto::command::{Command, command::Op};
    use proto::etcdserverpb as pb;
    use state::EntryBody;

    let body = |op| EntryBody::Command(prost::Message::encode_to_vec(&Command { op: Some(op) }).into());
    with_seeds(2, |seed| {
        let mut generator = Generator::new(seed);
        let mut world = World::new(LITTLE_MEMORY);
        let mut numbers: Vec<u32> = (0..3000).collect();
        for at in (1..numbers.len()).rev() {
            numbers.swap(at, generator.rng.random_range(0..=at));
        }
        for group in numbers.chunks(150) {
            let put = |n: &u32| pb::PutRequest {
                key: format!("/registry/pods/{n:05}").into(),
                value: format!("{n}").into(),
                ..Default::default()
            };
            world.append(group.iter().map(|n| body(Op::Put(put(n)))).collect());
            world.check(&mut generator);
        }
        world.reopen(End::Crash, &mut generator);
        for group in numbers.chunks(100) {
            let delete = |n: &u32| pb::DeleteRangeRequest {
                key: format!("/registry/pods/{n:05}").into(),
                ..Default::default()
            };
            let deletes = group[10..].iter().map(|n| body(Op::DeleteRange(delete(n))));
            let revision = world.model.revision - 5;
            let compaction = body(Op::Compaction(pb::CompactionRequest { revision, physical: false }));
            world.append(deletes.chain([compaction]).collect());
            world.check(&mut generator);
        }
        world.reopen(End::Clean, &mut generator);
        world.check(&mut generator);
    });
}
