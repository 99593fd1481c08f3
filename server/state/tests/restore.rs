//! From a state to an image of etcd's and back: the same keys, history, leases, alarms and hashes.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use proto::command::{Command, command::Op};
use proto::mvccpb::KeyValue;
use rand::RngExt;
use snapshot::bbolt::{Database, Plan, Source, Unwritable, Visitor};
use snapshot::schema::{Bucket, Complete, Lease, RevisionKey, User};
use state::snapshot::{ExportError, Restore, Restored, restore};
use state::{Entry, EntryBody, KeyRange, LogId, Node, Query, Reader, State};
use support::generate::{Generator, MEMBERS};
use support::with_seeds;
use support::world::{End, World, options};

/// So long that a compaction that began does not end.
const FOR_EVER: Duration = Duration::from_secs(3600);
const MEMORY: usize = 8 << 20;

type Rows = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

/// Buckets and rows as a test has them.
struct Image(Rows);

impl Source for Image {
    type Error = Unwritable;

    fn visit(&self, visitor: &mut dyn Visitor<Unwritable>) -> Result<(), Unwritable> {
        for (bucket, rows) in &self.0 {
            visitor.bucket(bucket.as_bytes())?;
            for (key, value) in rows {
                visitor.row(key, value)?;
            }
        }
        Ok(())
    }
}

fn write<S: Source<Error: std::fmt::Debug>>(source: &S, dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    let plan = Plan::of(source).expect("a plan");
    let mut bytes = Vec::new();
    plan.write(source, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })
    .expect("written");
    assert_eq!(bytes.len() as u64, plan.len());
    std::fs::write(&path, bytes).expect("written");
    path
}

fn save(reader: &Reader, dir: &Path, name: &str) -> PathBuf {
    reader.image(&|| true, |image| write(image, dir, name)).expect("read")
}

fn rows_of(file: &Path) -> Rows {
    let database = Database::open(file).expect("an image");
    let buckets = database.buckets().expect("read");
    let rows = buckets.iter().map(|bucket| {
        let rows =
            bucket.rows().map(|row| row.expect("read")).map(|(key, value)| (key.to_vec(), value.to_vec()));
        (String::from_utf8(bucket.name().to_vec()).expect("a name"), rows.collect())
    });
    rows.collect()
}

fn parameters() -> Restore {
    let node =
        |id| Node { id, name: format!("n{id}"), peer_urls: vec![format!("http://{id}:1")], learner: false };
    Restore {
        applied: LogId { term: 1, index: MEMBERS.len() as u64 },
        membership: "opaque".into(),
        nodes: MEMBERS.map(node).to_vec(),
    }
}

fn import(file: &Path, dir: &Path, bump: Option<u64>) -> Result<Restored, String> {
    let raised = tempfile::tempdir().expect("a folder");
    let mut database = Database::open(file).expect("an image");
    if let Some(bump) = bump {
        database = raise(&database, raised.path(), bump);
    }
    let options = options(dir, MEMORY, FOR_EVER);
    restore(options, &database, &parameters(), &mut |_| {}).map_err(|error| error.to_string())
}

/// The image as a restore makes it that raises the revision.
fn raise(image: &Database, dir: &Path, bump: u64) -> Database {
    let members = MEMBERS.map(|id| snapshot::schema::Member { id, ..Default::default() }).to_vec();
    let restored = snapshot::directory::Restored { cluster_id: 1, member_id: MEMBERS[0], members };
    let wal = dir.join("wal");
    std::fs::create_dir(&wal).expect("made");
    restored.write(image, Some(bump), dir, &wal, &mut |_, _| {}).expect("written");
    Database::open(&dir.join("db")).expect("an image")
}

/// The world of the state in a file, with what the model of the original becomes.
fn restored(file: &Path, original: &World, bump: Option<u64>) -> (World, Restored) {
    let dir = tempfile::tempdir().expect("a folder");
    let done = import(file, dir.path(), bump).expect("restored");
    let Restore { applied, membership, nodes } = parameters();
    let mut model = original.model.clone();
    let member = |node: Node| proto::etcdserverpb::Member {
        id: node.id,
        name: node.name,
        peer_ur_ls: node.peer_urls,
        ..Default::default()
    };
    model.members = nodes.into_iter().map(|node| (node.id, member(node))).collect();
    model.removed.clear();
    model.membership = Some((applied, membership));
    if let Some(bump) = bump {
        model.bump(bump as i64);
    }
    assert_eq!((done.revision, done.compacted), (model.revision, model.compacted));
    let blank = |index| Entry { log_id: LogId { term: 1, index }, body: EntryBody::Blank };
    let log = (1..=applied.index).map(blank).collect();
    (World::restored(dir, MEMORY, model, log), done)
}

fn some(generator: &mut Generator, entries: usize, compaction_pause: Duration) -> World {
    let mut world = World::with_pause(MEMORY, compaction_pause);
    while world.log.len() < entries {
        let bodies = (0..generator.rng.random_range(1..12)).map(|_| generator.entry(world.model.revision));
        let bodies = bodies.collect();
        world.append(bodies);
    }
    world
}

fn live_on(world: &mut World, generator: &mut Generator) {
    for _ in 0..generator.rng.random_range(1..8) {
        let bodies = (0..generator.rng.random_range(1..5)).map(|_| generator.entry(world.model.revision));
        let bodies = bodies.collect();
        world.append(bodies);
        world.check(generator);
    }
}

/// Whether etcd counts some key as live. Without one its rule is another: it counts what is still there, and so
/// comes to the hash once its compaction has ended.
fn counts_a_key(world: &World) -> bool {
    let model = &world.model;
    let deleted = |key: &Bytes| {
        let now = model.rows.iter().filter(|row| row.revision.main == model.revision);
        now.clone().any(|row| row.put.is_none() && row.key == *key)
    };
    model.at(i64::MAX).keys().any(|key| !deleted(key))
}

/// A state goes out and comes back, and goes on as the model does: through any end, with compactions that had ended
/// and such that had not.
#[test]
fn what_comes_back_is_what_went_out() {
    let (images, half_done) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    with_seeds(8, |seed| {
        let mut generator = Generator::new(seed);
        let pause = if generator.chance(50) { FOR_EVER } else { Duration::ZERO };
        let entries = generator.rng.random_range(0..200);
        let world = some(&mut generator, entries, pause);
        let dir = tempfile::tempdir().expect("a folder");
        let compacted = world.reader().compaction_finished() == world.model.compacted;
        let file = save(world.reader(), dir.path(), "image");
        let database = Database::open(&file).expect("an image");
        let hash = snapshot::hash_kv::hash_kv(&database, 0, &mut |_, _| {}).expect("read");
        let expected = world.model.hash_kv(0).expect("there");
        images.set(images.get() + 1);
        half_done.set(half_done.get() + u32::from(!compacted));
        if compacted || counts_a_key(&world) {
            assert_eq!((hash.hash, hash.compact_revision), (expected.hash, expected.compact_revision));
        }
        let bump = generator.chance(30).then(|| generator.rng.random_range(1..1_000_000));
        let (mut world, _) = restored(&file, &world, bump);
        world.check(&mut generator);
        live_on(&mut world, &mut generator);
        let end = [End::Clean, End::Dropped, End::Crash][generator.rng.random_range(0..3)];
        world.reopen(end, &mut generator);
        live_on(&mut world, &mut generator);
        world.check_all(&mut generator);
    });
    eprintln!("{} of {} images were taken during a compaction", half_done.get(), images.get());
}

/// Restored and saved again, it is the same file, but for who the members are and where the log stands.
#[test]
fn a_round_trip_changes_nothing() {
    with_seeds(6, |seed| {
        let mut generator = Generator::new(seed);
        let world = some(&mut generator, 120, FOR_EVER);
        let dir = tempfile::tempdir().expect("a folder");
        let file = save(world.reader(), dir.path(), "first");
        // What nothing here writes yet: users and roles.
        let mut first = rows_of(&file);
        let user = User { name: b"root".to_vec(), password: b"$2a$10$x".to_vec(), ..User::default() };
        first.insert("authUsers".into(), vec![(b"root".to_vec(), user.to_bytes())]);
        first.insert("authRoles".into(), vec![(b"reader".to_vec(), vec![10, 6]), (b"root".to_vec(), vec![])]);
        first.insert(
            "auth".into(),
            vec![
                (b"authEnabled".to_vec(), vec![0]),
                (b"authRevision".to_vec(), vec![0, 0, 0, 0, 0, 0, 0, 9]),
            ],
        );
        let file = write(&Image(first.clone()), dir.path(), "with users");
        let again = dir.path().join("again");
        std::fs::create_dir(&again).expect("made");
        import(&file, &again, None).expect("restored");
        let (state, reader) = State::open(options(&again, MEMORY, FOR_EVER)).expect("open");
        let file = save(&reader, dir.path(), "second");
        drop((state, reader));
        let mut second = rows_of(&file);
        for bucket in ["alarm", "auth", "authRoles", "authUsers", "cluster", "lease"] {
            assert_eq!(second[bucket], first[bucket], "{bucket}");
        }
        assert_eq!(second["members"].len(), MEMBERS.len());
        assert!(second["members_removed"].is_empty());
        // The compaction goes on as soon as the state is open.
        let (left, before) = (second.remove("key").expect("there"), first.remove("key").expect("there"));
        assert!(left.iter().all(|row| before.contains(row)));
        let compactions = |rows: &Rows| -> Vec<_> {
            let is_one = |(name, _): &&(Vec<u8>, Vec<u8>)| name.ends_with(b"CompactRev");
            rows["meta"].iter().filter(is_one).cloned().collect()
        };
        if compactions(&first).len() != 1 {
            assert_eq!(compactions(&second).last(), compactions(&first).last());
        }
    });
}

/// All that stands in an image is as of one batch, whatever is written meanwhile.
#[test]
fn an_image_is_of_one_moment() {
    let mut generator = Generator::new(1);
    let mut world = World::new(MEMORY);
    let reader = world.reader().clone();
    let (stop, dir) = (AtomicBool::new(false), tempfile::tempdir().expect("a folder"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut images = 0;
            while !stop.load(Ordering::Relaxed) || images < 10 {
                let file = save(&reader, dir.path(), "image");
                let database = Database::open(&file).expect("an image");
                let rows = rows_of(&file);
                let (_, index) =
                    rows["meta"].iter().find(|(name, _)| name == b"consistent_index").expect("there");
                let index = u64::from_be_bytes(index[..].try_into().expect("eight bytes"));
                // Entry n puts at revision n + 1, with n as its value.
                if let Some((key, value)) = rows["key"].last() {
                    let key = RevisionKey::parse(key).expect("a revision");
                    assert_eq!(key.main as u64, index + 1);
                    let kv = KeyValue::decode(&value[..]).expect("a record");
                    assert_eq!(kv.value, index.to_string());
                }
                snapshot::hash_kv::hash_kv(&database, 0, &mut |_, _| {}).expect("sound");
                images += 1;
            }
        });
        for index in 1..400 {
            let (key, value) = (generator.key(), index.to_string().into());
            let op = Op::Put(proto::etcdserverpb::PutRequest { key, value, ..Default::default() });
            world.append(vec![EntryBody::Command(Command { op: Some(op) }.encode_to_vec().into())]);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn an_image_that_is_not_wanted_any_more_ends() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut image = smallest();
    image.insert("key".into(), (2..3000).map(|main| record(main, "k")).collect());
    import(&write(&Image(image), dir.path(), "image"), dir.path(), None).expect("restored");
    let (_state, reader) = State::open(options(dir.path(), MEMORY, FOR_EVER)).expect("open");
    let asked = std::cell::Cell::new(0);
    let wanted = || {
        asked.set(asked.get() + 1);
        asked.get() < 2
    };
    let ended = reader.image(&wanted, |image| Plan::of(image)).expect("read");
    assert!(matches!(ended, Err(ExportError::Unwanted)), "{ended:?}");
}

fn record(main: i64, key: &str) -> (Vec<u8>, Vec<u8>) {
    let kv = KeyValue {
        key: key.to_owned().into(),
        create_revision: main,
        mod_revision: main,
        version: 1,
        ..Default::default()
    };
    (revision(main, 0), kv.encode_to_vec())
}

fn revision(main: i64, sub: i64) -> Vec<u8> {
    RevisionKey { main, sub, tombstone: false }.to_bytes().as_ref().to_vec()
}

fn smallest() -> Rows {
    Bucket::ALL.map(|bucket| (bucket.name().to_owned(), vec![])).into()
}

/// What etcd would not have written is refused, with the place.
#[test]
fn rows_that_cannot_be_right_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |main: i64, kv: KeyValue| (revision(main, 0), kv.encode_to_vec());
    let kv = |main: i64| KeyValue {
        key: "k".into(),
        create_revision: main,
        mod_revision: main,
        version: 1,
        ..Default::default()
    };
    let tombstone =
        |row: Vec<u8>| (RevisionKey { main: 5, sub: 0, tombstone: true }.to_bytes().as_ref().to_vec(), row);
    let mut longer = kv(5).encode_to_vec();
    longer.extend([0x3a, 1, b'x']);
    let mut marked = revision(5, 0);
    marked.push(b'x');
    let lease = |id: i64| Lease { id, ttl: 60, remaining_ttl: 0 }.to_bytes();
    let cases = [
        ("key", vec![(b"short".to_vec(), vec![])], "bucket key, key short: no revision key"),
        ("key", vec![(marked, kv(5).encode_to_vec())], "no revision key"),
        ("key", vec![(revision(0, 0), vec![])], "revision 0 is none"),
        ("key", vec![(revision(-5, 0), vec![])], "no revision key"),
        ("key", vec![(revision(5, 0), vec![0xff])], "mvccpb.KeyValue"),
        ("key", vec![at(5, KeyValue { key: Bytes::new(), ..kv(5) })], "a record without a key"),
        ("key", vec![tombstone(vec![])], "a record without a key"),
        ("key", vec![tombstone(kv(5).encode_to_vec())], "where 3 would do"),
        ("key", vec![at(5, kv(6))], "written at revision 6"),
        ("key", vec![at(5, KeyValue { create_revision: 6, ..kv(5) })], "created at revision 6"),
        ("key", vec![at(5, KeyValue { create_revision: 0, ..kv(5) })], "created at revision 0"),
        ("key", vec![at(5, KeyValue { version: 0, ..kv(5) })], "has version 0"),
        ("key", vec![(revision(5, 0), longer)], "12 bytes, where 9 would do"),
        (
            "key",
            vec![
                record(5, "k"),
                tombstone(KeyValue { key: "k".into(), ..Default::default() }.encode_to_vec()),
            ],
            "behind revision 5.0",
        ),
        ("lease", vec![(b"seven".to_vec(), lease(7))], "bucket lease, key seven: lease id of 5 bytes"),
        ("lease", vec![(7_i64.to_be_bytes().to_vec(), lease(8))], "its id is 8"),
        ("lease", vec![(0_i64.to_be_bytes().to_vec(), lease(0))], "its id is 0"),
        ("lease", vec![(7_i64.to_be_bytes().to_vec(), vec![8])], "leasepb.Lease"),
        ("alarm", vec![(vec![8], vec![])], "AlarmMember"),
        ("alarm", vec![(vec![8, 1, 16, 1], vec![1])], "an alarm with a value"),
        (
            "cluster",
            vec![(b"clusterVersion".to_vec(), b"four".to_vec())],
            "bucket cluster, key clusterVersion: \"four\" is no version",
        ),
        (
            "cluster",
            vec![(b"clusterVersion".to_vec(), b"3.8.0".to_vec())],
            "version 3.8.0 is newer than 3.7.0",
        ),
        (
            "meta",
            vec![(b"storageVersion".to_vec(), b"4.0.0".to_vec())],
            "bucket meta, key storageVersion: version 4.0.0 is newer",
        ),
        ("meta", vec![(b"finishedCompactRev".to_vec(), b"5".to_vec())], "no revision key"),
    ];
    for (number, (bucket, rows, expected)) in cases.into_iter().enumerate() {
        let mut image = smallest();
        image.insert(bucket.to_owned(), rows);
        let file = write(&Image(image), dir.path(), "image");
        let to = dir.path().join(number.to_string());
        std::fs::create_dir(&to).expect("made");
        let refusal = import(&file, &to, None).expect_err(expected);
        assert!(refusal.contains(expected) && refusal.contains(bucket), "{refusal} is not {expected}");
    }
    for missing in ["key", "meta"] {
        let mut image = smallest();
        image.remove(missing);
        let file = write(&Image(image), dir.path(), "image");
        let to = dir.path().join(missing);
        std::fs::create_dir(&to).expect("made");
        let refusal = import(&file, &to, None).expect_err(missing);
        assert!(refusal.contains(&format!("bucket {missing} is missing")), "{refusal}");
    }
}

/// The least there can be, a lease that is not there, and a revision that is above all rows.
#[test]
fn what_etcd_takes_is_taken() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = |image: Rows, name: &str, bump| {
        let file = write(&Complete(&Image(image)), dir.path(), name);
        let to = dir.path().join(format!("{name}.d"));
        std::fs::create_dir(&to).expect("made");
        let done = import(&file, &to, bump).expect("restored");
        let (state, reader) = State::open(options(&to, MEMORY, FOR_EVER)).expect("open");
        (state, reader, done)
    };
    let (_state, reader, done) = open(smallest(), "empty", None);
    assert_eq!((done.revision, done.compacted, reader.view().revision()), (1, -1, 1));
    let (_state, reader, done) = open(smallest(), "bumped", Some(1000));
    assert_eq!((done.revision, done.compacted, reader.view().revision()), (1000, 1000, 1000));

    let mut image = smallest();
    let attached = KeyValue {
        key: "k".into(),
        create_revision: 5,
        mod_revision: 5,
        version: 1,
        lease: 7,
        ..Default::default()
    };
    image.insert("key".into(), vec![(revision(5, 0), attached.encode_to_vec())]);
    image.insert("meta".into(), vec![(b"scheduledCompactRev".to_vec(), revision(9, 0))]);
    let (_state, reader, done) = open(image.clone(), "astray", None);
    assert_eq!((done.astray, done.revision, done.compacted), (1, 9, 9));
    assert_eq!(reader.lease_keys(7).expect("read"), ["k"]);
    assert!(!reader.auth_enabled().expect("read"));
    image.insert("auth".into(), vec![(b"authEnabled".to_vec(), vec![1])]);
    let (_state, reader, done) = open(image.clone(), "auth", None);
    assert!(done.auth_enabled && reader.auth_enabled().expect("read"));
}

/// Members that were restored from one file have one fingerprint, from different ones different ones.
#[test]
fn another_snapshot_is_another_fingerprint() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut number = 0;
    let mut fingerprint = |image: &Rows, bump| {
        number += 1;
        let to = dir.path().join(number.to_string());
        std::fs::create_dir(&to).expect("made");
        import(&write(&Image(image.clone()), dir.path(), "image"), &to, bump).expect("restored");
        State::open(options(&to, MEMORY, FOR_EVER)).expect("open").0.fingerprint()
    };
    let mut image = smallest();
    image.insert("key".into(), vec![record(5, "k")]);
    let first = fingerprint(&image, None);
    assert_eq!(fingerprint(&image, None), first);
    assert!(fingerprint(&image, Some(10)).differs(first));
    image.insert("key".into(), vec![record(5, "l")]);
    assert!(fingerprint(&image, None).differs(first));
}

/// A record as it might be, or anything.
fn anything() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let number = prop_oneof![4 => 0..40_i64, 1 => any::<i64>()];
    let kv =
        (prop_oneof![3 => Just("k"), 3 => Just("l"), 1 => Just("")], vec![number.clone(); 4], 0..3_usize);
    let kv = kv.prop_map(|(key, numbers, len)| KeyValue {
        key: key.into(),
        create_revision: numbers[0],
        mod_revision: numbers[1],
        version: numbers[2],
        lease: numbers[3],
        value: vec![b'v'; len].into(),
    });
    (number, 0..3_i64, any::<bool>(), kv, 0..12, any::<Vec<u8>>()).prop_map(
        |(main, sub, tombstone, kv, kind, bytes)| {
            let at = RevisionKey { main, sub, tombstone }.to_bytes().as_ref().to_vec();
            let sound =
                KeyValue { create_revision: main, mod_revision: main, version: 1, lease: 0, ..kv.clone() };
            match kind {
                0 => (bytes.clone(), bytes),
                1 => (at, bytes),
                2 => (at, vec![]),
                3 => (at, kv.encode_to_vec()),
                _ if tombstone => (at, KeyValue { key: kv.key, ..Default::default() }.encode_to_vec()),
                _ => (at, sound.encode_to_vec()),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever rows there are: they are refused, or make a state that opens and can be read.
    #[test]
    fn rows_are_refused_or_make_a_state(
        records in proptest::collection::vec(anything(), 0..12),
        others in proptest::collection::vec((0..6_usize, any::<Vec<u8>>(), any::<Vec<u8>>()), 0..2),
        compactions in (prop_oneof![Just(None), (-1..50_i64).prop_map(Some)], prop_oneof![Just(None), (-1..50_i64).prop_map(Some)]),
    ) {
        let mut image = smallest();
        let records: BTreeMap<_, _> = records.into_iter().filter(|(key, _)| !key.is_empty()).collect();
        image.insert("key".into(), records.into_iter().collect());
        for (bucket, key, value) in others {
            if !key.is_empty() {
                let bucket = ["alarm", "auth", "authUsers", "cluster", "lease", "members"][bucket];
                image.insert(bucket.into(), vec![(key, value)]);
            }
        }
        let compaction = |name: &str, at: Option<i64>| at.map(|at| (name.as_bytes().to_vec(), revision(at, 0)));
        let (finished, scheduled) = compactions;
        let meta = [compaction("finishedCompactRev", finished), compaction("scheduledCompactRev", scheduled)];
        image.insert("meta".into(), meta.into_iter().flatten().collect());
        let dir = tempfile::tempdir().expect("a folder");
        let file = write(&Image(image), dir.path(), "image");
        if let Ok(done) = import(&file, dir.path(), None) {
            let (_state, reader) = State::open(options(dir.path(), MEMORY, Duration::ZERO)).expect("open");
            let (view, everything) = (reader.view(), Query::all(KeyRange::From(vec![0].into())));
            prop_assert_eq!((view.revision(), view.compacted()), (done.revision, done.compacted));
            let mut rows = view.range(&everything).expect("read").expect("the newest");
            while rows.next_chunk(1000).expect("read").is_some() {}
            let before = reader.hash_kv(0).expect("read").expect("the newest");
            drop((rows, view));
            prop_assert!(reader.wait_compacted(done.compacted, Duration::from_secs(60)));
            // With no live key etcd counts what is not deleted yet; see `state::hash`.
            prop_assert_eq!(reader.hash_kv(0).expect("read").expect("the newest").current, before.current);
            reader.hash().expect("read");
        }
    }
}

/// More than is written at once, of keys in any order and with a long history; says how fast it was.
#[test]
fn many_records_come_over() {
    const RECORDS: i64 = 100_000;
    let keys = 20_011;
    let dir = tempfile::tempdir().expect("a folder");
    let mut image = smallest();
    let key = |main: i64| match main % 50 {
        0 => "often".to_owned(),
        _ => format!("k/{:05}", main * 7919 % keys),
    };
    image.insert("key".into(), (2..RECORDS + 2).map(|main| record(main, &key(main))).collect());
    let file = write(&Image(image), dir.path(), "image");
    let database = Database::open(&file).expect("an image");
    let (started, mut steps) = (std::time::Instant::now(), vec![]);
    let done = restore(options(dir.path(), MEMORY, FOR_EVER), &database, &parameters(), &mut |step| {
        steps.push(step);
    })
    .expect("restored");
    eprintln!("{RECORDS} records in {:?}", started.elapsed());
    assert!(steps.len() >= 4 && steps.windows(2).all(|pair| pair[0].bytes < pair[1].bytes));
    assert_eq!((done.taken.records, done.revision), (RECORDS as u64, RECORDS + 1));
    let (_state, reader) = State::open(options(dir.path(), MEMORY, FOR_EVER)).expect("open");
    let view = reader.view();
    let distinct: std::collections::BTreeSet<_> = (2..RECORDS + 2).map(key).collect();
    assert_eq!(view.keys(), distinct.len() as u64);
    let expected = snapshot::hash_kv::hash_kv(&database, 0, &mut |_, _| {}).expect("read").hash;
    assert_eq!(reader.hash_kv(0).expect("read").expect("now").hash, expected);
    for main in [2, 500, 50_000, RECORDS + 1] {
        let before = view.previous(key(main).as_bytes(), main + 1).expect("read").expect("there");
        assert_eq!(KeyValue::decode(before).expect("a record").mod_revision, main);
    }
}
