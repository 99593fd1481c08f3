//! A state that takes the place of another: as if it had been there from the start, and after a crash one or the other.

mod support;

use std::path::Path;

use rand::RngExt;
use state::Checkpoint;
use support::generate::Generator;
use support::with_seeds;
use support::world::World;

/// What was applied and flushed is in the files, and what they say is what is in them.
#[test]
fn a_checkpoint_says_what_is_in_it() {
    with_seeds(3, |seed| {
        let mut generator = Generator::new(seed);
        let mut world = World::new(8 << 20);
        let dir = tempfile::tempdir().expect("a temporary directory");
        for number in 0..5 {
            for _ in 0..generator.rng.random_range(0..30) {
                let body = generator.entry(world.model.revision);
                world.append(vec![body]);
            }
            let files = dir.path().join(number.to_string());
            let taken = world.reader().checkpoint(&files).expect("a checkpoint");
            assert_eq!(taken.applied, world.state().applied());
            assert_eq!(taken.membership, world.model.membership);
            let before = listing(&files);
            assert_eq!(Checkpoint::read(&files).expect("read"), taken);
            assert_eq!(listing(&files), before, "reading leaves the files alone");
        }
        assert!(Checkpoint::read(&dir.path().join("none")).is_err());
    });
}

fn listing(dir: &Path) -> Vec<String> {
    let files = std::fs::read_dir(dir).expect("list");
    let mut names: Vec<_> =
        files.map(|file| file.expect("list").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}
