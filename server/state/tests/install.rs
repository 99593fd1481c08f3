//! A state that takes the place of another: as if it had been there from the start, and after a crash one or the other.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt;
use state::{Checkpoint, KeyRange, Options, Query, Reader, State};
use support::digest::Digest;
use support::generate::Generator;
use support::with_seeds;
use support::world::{End, World, check_range, crash_image};

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

/// What an install leaves on disk after each of its steps, made by hand: before the pointer names the new
/// directory the old state opens, from then on the new one, and the directory of the other is gone.
#[test]
fn a_crash_during_an_install_leaves_the_one_or_the_other() {
    with_seeds(1, |seed| {
        let mut generator = Generator::new(seed);
        let mut ours = some(&mut generator, 8 << 20, 1..60);
        let mut theirs = some(&mut generator, 8 << 20, 80..120);
        ours.flush();
        let (old, new) = (Digest::of(&mut ours), Digest::of(&mut theirs));
        let files = theirs.dir().join("files");
        theirs.reader().checkpoint(&files).expect("a checkpoint");
        let (pointer, unfinished) = ("db.current", "db.current.new");
        type Step<'a> = &'a dyn Fn(&Path);
        let write =
            |dir: &Path, name: &str, text: &str| std::fs::write(dir.join(name), text).expect("written");
        let steps: [(Step<'_>, bool); 6] = [
            (&|_| {}, false),
            (&|dir| copy_dir(&files, &dir.join("db.1")), false),
            (&|dir| drop(open(&dir.join("db.1"))), false),
            (&|dir| write(dir, unfinished, "db."), false),
            (&|dir| std::fs::rename(dir.join(unfinished), dir.join(pointer)).expect("renamed"), true),
            (&|dir| std::fs::remove_file(dir.join("db/CURRENT")).expect("removed"), true),
        ];
        for crash_behind in 0..steps.len() {
            let image = crash_image(ours.dir());
            for (at, (step, _)) in steps[..=crash_behind].iter().enumerate() {
                if at == 4 {
                    write(image.path(), unfinished, "db.1\n");
                }
                step(image.path());
            }
            let (mut found, expected) = match steps[crash_behind].1 {
                true => (theirs.at(image), &new),
                false => (ours.at(image), &old),
            };
            assert_eq!(Digest::of(&mut found), *expected, "a crash behind step {crash_behind}");
            let left = listing(found.dir());
            let wanted: &[&str] = if steps[crash_behind].1 { &["db.1", pointer] } else { &["db"] };
            let ignored = |name: &&String| *name != unfinished;
            assert_eq!(left.iter().filter(ignored).collect::<Vec<_>>(), wanted);
            // And it can be done again.
            let last = theirs.log.len();
            found.install(&theirs);
            assert_eq!(found.log.len(), last);
            assert_eq!(Digest::of(&mut found), new);
        }
    });
}

/// Files that are no state, or one from before, change nothing.
#[test]
fn what_cannot_be_installed_is_refused() {
    let mut generator = Generator::new(1);
    let old = some(&mut generator, 8 << 20, 5..6);
    let mut ours = some(&mut generator, 8 << 20, 40..41);
    let expected = Digest::of(&mut ours);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let files = dir.path().join("files");

    let missing = ours.state().install(&files).expect_err("refused").to_string();
    assert!(missing.contains("files"), "{missing}");
    std::fs::create_dir(&files).expect("created");
    ours.state().install(&files).expect_err("an empty directory is no state");
    old.reader().checkpoint(&files).expect("a checkpoint");
    let older = ours.state().install(&files).expect_err("refused").to_string();
    assert!(older.contains("ends at entry"), "{older}");
    let newer = some(&mut generator, 8 << 20, 60..61);
    newer.reader().checkpoint(&files).expect("a checkpoint");
    let table = std::fs::read_dir(&files).expect("list").map(|file| file.expect("list").path());
    for table in table.filter(|file| file.extension().is_some_and(|extension| extension == "sst")) {
        // Not in place: they are links to the other state's own.
        std::fs::remove_file(&table).expect("removed");
        std::fs::write(table, "not any more").expect("written");
    }
    ours.state().install(&files).expect_err("damaged files are refused");

    assert_eq!(Digest::of(&mut ours), expected);
    ours.reopen(End::Crash, &mut generator);
    assert_eq!(Digest::of(&mut ours), expected);
    assert_eq!(listing(ours.dir()), ["db"]);
    ours.install(&newer);
    ours.check_all(&mut generator);
    old.check_all(&mut generator);
}

/// A pointer into nowhere is told, and nothing is made up or removed for it.
#[test]
fn a_lost_directory_is_not_replaced_by_an_empty_one() {
    let mut generator = Generator::new(1);
    let world = some(&mut generator, 8 << 20, 5..6);
    for name in ["db.7", "db", "elsewhere", ""] {
        let image = crash_image(world.dir());
        std::fs::write(image.path().join("db.current"), name).expect("written");
        let refused = State::open(Options::new(image.path().join("db"))).expect_err("refused").to_string();
        assert!(refused.contains("db.current") && refused.contains(name), "{refused}");
        assert_eq!(listing(image.path()), ["db", "db.current"]);
    }
}

/// The old database closes when nobody looks at it any more, and its files go.
#[test]
fn the_files_of_the_old_state_go_with_its_last_view() {
    let mut generator = Generator::new(1);
    let mut ours = some(&mut generator, 8 << 20, 30..31);
    let newer = some(&mut generator, 8 << 20, 60..61);
    let held = (ours.reader().view(), ours.model.clone());
    ours.install(&newer);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(listing(ours.dir()), ["db", "db.1", "db.current"]);
    for _ in 0..20 {
        check_range(&held.0, &held.1, &generator.range(held.1.revision), &mut generator);
    }
    drop(held);
    let gone = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        listing(ours.dir()) == ["db.1", "db.current"]
    });
    assert!(gone, "{:?} after half a minute", listing(ours.dir()));
    ours.reopen(End::Dropped, &mut generator);
    ours.check_all(&mut generator);
}

/// Whoever reads while a state takes the place of another sees one of them, and never an older one again.
#[test]
fn readers_go_on_during_installs() {
    let mut generator = Generator::new(1);
    let mut ours = World::new(8 << 20);
    let stop = AtomicBool::new(false);
    let reader = ours.reader().clone();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (mut last, mut rounds) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    let view = reader.view();
                    assert!(view.applied().index >= last);
                    last = view.applied().index;
                    let query = Query::all(KeyRange::From(vec![0].into()));
                    let mut rows = view.range(&query).expect("read").expect("the newest revision");
                    let len = rows.len();
                    let read = rows.next_chunk(usize::MAX).expect("read").unwrap_or_default();
                    assert_eq!((read.len(), len as u64), (len, view.keys()));
                    reader.lease_keys(1).expect("read");
                    reader.sizes().expect("read");
                    rounds += 1;
                    if rounds % 16 == 0 {
                        reader.flush().expect("written");
                    }
                }
            });
        }
        for _ in 0..4 {
            let from = ours.log.len() + 1;
            let newer = some(&mut generator, 8 << 20, from..from + 30);
            ours.install(&newer);
        }
        stop.store(true, Ordering::Relaxed);
    });
    ours.check_all(&mut generator);
}

fn open(dir: &Path) -> (State, Reader) {
    State::open(Options::new(dir)).expect("open")
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("created");
    for name in listing(from) {
        std::fs::copy(from.join(&name), to.join(&name)).expect("copied");
    }
}

fn listing(dir: &Path) -> Vec<String> {
    let files = std::fs::read_dir(dir).expect("list");
    let mut names: Vec<_> =
        files.map(|file| file.expect("list").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

/// A state with anything in it, somewhere in its log.
fn some(generator: &mut Generator, memory: usize, entries: std::ops::Range<usize>) -> World {
    let mut world = World::new(memory);
    let end = generator.rng.random_range(entries);
    while world.log.len() < end {
        let bodies = (0..generator.rng.random_range(1..12)).map(|_| generator.entry(world.model.revision));
        let bodies = bodies.collect();
        world.append(bodies);
        if generator.chance(5) {
            world.flush();
        }
    }
    world
}

/// Installed over whatever there was, a state goes on as the one it comes from, through any end.
#[test]
fn an_installed_state_is_the_other_one() {
    with_seeds(3, |seed| {
        let mut generator = Generator::new(seed);
        let memory = if generator.chance(50) { 256 << 10 } else { 64 << 20 };
        let mut ours = some(&mut generator, memory, 0..60);
        for _ in 0..2 {
            let from = ours.log.len() + 12;
            let mut theirs = some(&mut generator, 8 << 20, from..from + 60);
            let held = (ours.reader().view(), ours.model.clone());
            ours.install(&theirs);
            assert_eq!(Digest::of(&mut ours), Digest::of(&mut theirs));
            ours.check(&mut generator);
            for _ in 0..generator.rng.random_range(1..15) {
                let bodies: Vec<_> = (0..generator.rng.random_range(1..12))
                    .map(|_| generator.entry(ours.model.revision))
                    .collect();
                ours.append(bodies.clone());
                theirs.append(bodies);
                let request = generator.range(held.1.revision);
                check_range(&held.0, &held.1, &request, &mut generator);
            }
            drop(held);
            if generator.chance(70) {
                let end = [End::Clean, End::Dropped, End::Crash][generator.rng.random_range(0..3)];
                ours.reopen(end, &mut generator);
            }
            assert_eq!(Digest::of(&mut ours), Digest::of(&mut theirs));
            for (index, fingerprint) in &ours.fingerprints {
                assert!(theirs.fingerprints.get(index).is_none_or(|other| other == fingerprint), "{index}");
            }
        }
        ours.check_all(&mut generator);
    });
}
