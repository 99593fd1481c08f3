//! What is written is read back; and what is damaged is named.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;

use super::format::{FREELIST, HEADER_LEN, Header, META_LEN, Meta};
use super::walk::{PageSet, Walk};
use super::*;
use crate::sample::{Memory, OnDisk, Rows};

fn read(path: &Path) -> Result<Memory, Error> {
    let database = Database::open(path)?;
    let mut memory = Memory::default();
    for bucket in database.buckets()? {
        let rows = bucket.rows().map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())));
        let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
        assert!(rows.is_sorted_by(|(a, _), (b, _)| a < b));
        found_by_key(&bucket, &rows);
        memory.0.insert(bucket.name().to_vec(), rows.into_iter().collect());
    }
    Ok(memory)
}

/// Each row is found by its key, and none under keys beside it.
fn found_by_key(bucket: &Bucket<'_>, rows: &[(Vec<u8>, Vec<u8>)]) {
    // A page is looked through from its beginning: all of many rows would take long.
    for (key, value) in rows.iter().step_by(1 + rows.len() / 200).chain(rows.last()) {
        assert_eq!(bucket.get(key).expect("sound").as_deref(), Some(&value[..]));
        let behind = [key, &[0][..]].concat();
        if rows.binary_search_by(|(key, _)| key.cmp(&behind)).is_err() {
            assert_eq!(bucket.get(&behind).expect("sound"), None);
        }
    }
    for none in [&b""[..], &[255; 40]] {
        assert_eq!(bucket.get(none).expect("sound"), None);
    }
}

fn survives(memory: &Memory) -> usize {
    let image = memory.image();
    let file = OnDisk::new(&image);
    let again = read(&file.path).expect("a sound image");
    assert!(again.0 == memory.0, "rows changed");
    let database = Database::open(&file.path).expect("a sound image");
    assert_eq!(database.image_len(), image.len() as u64);
    assert_eq!(database.check(&mut |_, _| {}).expect("readable"), []);
    no_page_is_lost(&database);
    image.len()
}

/// Each page of a written image is in use.
fn no_page_is_lost(database: &Database) {
    let rows = |bucket: Bucket<'_>| {
        let mut rows = bucket.rows();
        assert!(rows.all(|row| row.is_ok()));
        rows.bytes_read()
    };
    let buckets: u64 = database.buckets().expect("sound").into_iter().map(rows).sum();
    let used = buckets + 2 * database.page_size();
    let mut root = Walk::new(database, PageSet::of(database));
    root.enter(database.meta().root, 0, 0).expect("sound");
    while root.next().is_some() {}
    assert_eq!(used + root.entered.len * database.page_size(), database.image_len());
}

fn rows(count: u32, value_len: impl Fn(u32) -> usize) -> Rows {
    (0..count).map(|at| (at.to_be_bytes().to_vec(), vec![at as u8; value_len(at)])).collect()
}

#[test]
fn sizes_around_every_limit() {
    survives(&Memory::default());
    survives(&Memory::one("empty", Rows::new()));
    for around in [1024, 4096, 8192, 1 << 16, 1 << 17] {
        for value_len in around - 60..=around + 4 {
            survives(&Memory::one("b", rows(3, |at| if at == 1 { value_len } else { 3 })));
        }
    }
    // Rows that have a page each, so that the count is that of a branch's children.
    for count in [1, 2, 122, 123, 124, 125, 126, 245, 246, 247, 370] {
        survives(&Memory::one("b", rows(count, |_| 4000)));
    }
    // Four of those keys fill a branch page: five levels.
    let long = |at: u32| [&[7; 990][..], &at.to_be_bytes()].concat();
    for count in (1..30).chain([63, 64, 65, 66, 255, 256, 257, 700]) {
        survives(&Memory::one("b", (0..count).map(|at| (long(at), vec![1; 3000])).collect()));
    }
}

#[test]
fn many_small_rows() {
    let len = survives(&Memory::one("key", rows(70_000, |at| (at % 3) as usize)));
    assert!(len < 70_000 * 23, "{len} bytes");
}

#[test]
fn a_level_whose_pages_are_longer_than_a_page() {
    let long = |at: u16| [&[7; KEY_LEN_MAX - 2][..], &at.to_be_bytes()].concat();
    for count in [1, 2, 3, 4, 5, 9, 17] {
        let rows = (0..count).map(|at| (long(at), vec![1; 10])).collect();
        survives(&Memory::one("b", rows));
    }
}

#[test]
fn values_of_megabytes() {
    let lens = [1_400_000, 0, 65_535, 65_536, 5, 3_000_000, 4000];
    let len = survives(&Memory::one("b", rows(7, |at| lens[at as usize])));
    assert!(len < lens.iter().sum::<usize>() + 12 * PAGE_SIZE);
}

/// Small buckets stand in their entries, as bbolt has them: so many bytes and not one more.
#[test]
fn small_buckets_are_inline() {
    let pages = |value_len| Memory::one("b", rows(1, |_| value_len)).image().len() / PAGE_SIZE;
    let fits = 1024 - 16 - 16 - 4;
    assert_eq!((pages(fits), pages(fits + 1)), (3, 4));
    let many = (0..200_u8).map(|at| (vec![at + 1], rows(u32::from(at % 5), |_| 100))).collect();
    survives(&Memory(many));
}

fn any_rows() -> impl Strategy<Value = Rows> {
    let key = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 1..40),
        1 => prop::collection::vec(any::<u8>(), 1..5000),
    ];
    let len = prop_oneof![6 => 0..300_usize, 2 => 0..9000_usize, 1 => 0..200_000_usize];
    let value = (any::<u8>(), len).prop_map(|(fill, len)| vec![fill; len]);
    let some = prop::collection::btree_map(key, value, 0..120);
    let many =
        (0..4000_u32, 0..200_usize).prop_map(|(count, len)| rows(count, |at| (at as usize * 7) % (len + 1)));
    prop_oneof![3 => some, 1 => many]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_written_is_read(
        buckets in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..20), any_rows(), 0..6)
    ) {
        survives(&Memory(buckets));
    }
}

#[test]
fn rows_that_bbolt_could_not_hold_are_refused() {
    type Step = (Option<&'static [u8]>, Vec<u8>, usize);
    struct Told(Vec<Step>);
    impl Source for Told {
        type Error = Unwritable;
        fn visit(&self, visitor: &mut dyn Visitor<Unwritable>) -> Result<(), Unwritable> {
            self.0.iter().try_for_each(|(bucket, key, value_len)| match bucket {
                Some(name) => visitor.bucket(name),
                None => visitor.row(key, &vec![0; *value_len]),
            })
        }
    }
    let bucket = |name: &'static [u8]| (Some(name), vec![], 0);
    let row = |key: &[u8]| (None, key.to_vec(), 0);
    let of = |steps| Plan::of(&Told(steps)).expect_err("refused");
    let name = || "b".to_owned();
    assert_eq!(of(vec![row(b"a")]), Unwritable::NoBucket);
    assert_eq!(of(vec![bucket(b"")]), Unwritable::EmptyKey { bucket: String::new() });
    assert_eq!(of(vec![bucket(b"b"), row(b"")]), Unwritable::EmptyKey { bucket: name() });
    let long = vec![1; KEY_LEN_MAX + 1];
    assert_eq!(of(vec![bucket(b"b"), row(&long)]), Unwritable::LongKey { bucket: name(), len: long.len() });
    for twice in [b"b", b"a"] {
        let order = Unwritable::Order { bucket: name(), key: twice.to_vec() };
        assert_eq!(of(vec![bucket(b"b"), row(b"b"), row(twice)]), order);
        let order = Unwritable::Order { bucket: String::new(), key: twice.to_vec() };
        assert_eq!(of(vec![bucket(b"b"), bucket(twice)]), order);
    }
    // The order of one bucket is not that of the next.
    assert!(Plan::of(&Told(vec![bucket(b"a"), row(b"z"), bucket(b"b"), row(b"a")])).is_ok());
}

#[test]
fn a_source_that_changes_is_noticed() {
    let planned = Memory::one("b", rows(1000, |_| 50));
    let plan = Plan::of(&planned).expect("can be written");
    let mut others = vec![
        Memory::default(),
        Memory::one("c", rows(1000, |_| 50)),
        Memory::one("b", rows(1001, |_| 50)),
        Memory::one("b", rows(999, |_| 50)),
        Memory::one("b", rows(100_000, |_| 50)),
        Memory::one("b", rows(1000, |at| if at == 500 { 51 } else { 50 })),
    ];
    let mut other = planned.clone();
    let rows = other.0.get_mut(&b"b"[..]).expect("the bucket");
    rows.remove(&500_u32.to_be_bytes()[..]);
    rows.insert([&499_u32.to_be_bytes()[..3], &[250]].concat(), vec![0; 50]);
    others.push(other);
    for other in others {
        let mut len = 0;
        let written = plan.write(&other, &mut |piece| {
            len += piece.len() as u64;
            Ok(())
        });
        assert_eq!(written, Err(Unwritable::Changed));
        assert!(len <= plan.len());
    }
}

/// What the file has behind the image does not matter, and a meta that is broken is replaced by the other.
#[test]
fn the_valid_meta_with_the_larger_txid_counts() {
    let memory = Memory::one("b", rows(300, |_| 50));
    let mut image = memory.image();
    image.extend_from_slice(&[9; 32]);
    let file = OnDisk::new(&image);
    assert_eq!(Database::open(&file.path).expect("opens").image_len(), image.len() as u64 - 32);
    assert!(read(&file.path).expect("reads").0 == memory.0);

    let meta = |page: usize| {
        let at = page * PAGE_SIZE + HEADER_LEN;
        Meta::parse(image[at..at + META_LEN].try_into().expect("its length")).expect("valid")
    };
    assert_eq!((meta(0).txid, meta(1).txid), (2, 1));
    let disk = File::options().write(true).open(&file.path).expect("opens");
    // A newer one that names fewer pages.
    let newer = Meta { txid: 3, high_water: 4, root: 3, ..meta(1) };
    disk.write_all_at(&newer.to_bytes(), (PAGE_SIZE + HEADER_LEN) as u64).expect("space");
    assert_eq!(Database::open(&file.path).expect("opens").image_len(), 4 * PAGE_SIZE as u64);
    disk.write_all_at(&[0; META_LEN], (PAGE_SIZE + HEADER_LEN) as u64).expect("space");
    assert!(read(&file.path).expect("reads").0 == memory.0);
    disk.write_all_at(&meta(1).to_bytes(), (PAGE_SIZE + HEADER_LEN) as u64).expect("space");
    disk.write_all_at(&[0; META_LEN], HEADER_LEN as u64).expect("space");
    assert!(read(&file.path).expect("reads").0 == memory.0);
    disk.write_all_at(&[0; META_LEN], (PAGE_SIZE + HEADER_LEN) as u64).expect("space");
    let problem = problem(Database::open(&file.path).expect_err("no meta"));
    assert_eq!(problem, Problem { page: 0, offset: 0, damage: Damage::Magic { found: 0 } });
}

fn problem(error: Error) -> Problem {
    match error {
        Error::Damaged { problem, .. } => problem,
        error => panic!("{error}"),
    }
}

#[test]
fn a_shorter_file_is_truncated() {
    let image = Memory::one("b", rows(300, |_| 50)).image();
    for len in [0, 1, 79, 80, 4095, 4096, 8192, image.len() - 1] {
        let file = OnDisk::new(&image[..len]);
        let problem = problem(Database::open(&file.path).expect_err("too short"));
        assert!(
            matches!(problem.damage, Damage::Truncated { len: found, .. } if found == len as u64),
            "{len}"
        );
    }
}

/// Writes `bytes` into an image of three leaf pages under one branch, and tells what reading and checking say.
fn with(at: usize, bytes: &[u8]) -> (Result<Memory, Problem>, Vec<Problem>) {
    let mut image = Memory::one("b", rows(9, |_| 1300)).image();
    assert_eq!(image.len(), 7 * PAGE_SIZE, "metas, three leaves, a branch, the root");
    image[at..at + bytes.len()].copy_from_slice(bytes);
    let file = OnDisk::new(&image);
    let database = Database::open(&file.path).expect("opens");
    let problems = database.check(&mut |_, _| {}).expect("readable");
    let read = read(&file.path).map_err(problem);
    if let Err(problem) = &read {
        assert_eq!(problems.first(), Some(problem), "the check finds what the reader does");
        assert_eq!(problem.offset / PAGE_SIZE as u64, problem.page);
    }
    (read, problems)
}

#[test]
fn damage_is_named_with_its_place() {
    let (leaf, branch, root) = (2 * PAGE_SIZE, 5 * PAGE_SIZE, 6 * PAGE_SIZE);
    let found = |at, bytes: &[u8]| with(at, bytes).0.expect_err("damaged");
    let here = |at: usize, damage| Problem { page: (at / PAGE_SIZE) as u64, offset: at as u64, damage };
    let two = leaf + HEADER_LEN + 16;
    for (at, bytes, problem) in [
        (leaf, &[9][..], here(leaf, Damage::PageId { found: 9 })),
        (leaf + 8, &[4], here(leaf, Damage::PageKind { found: 4 })),
        (
            leaf + 8,
            &[1],
            here(leaf + 16, Damage::ElementOutOfPage { element: 0, start: 16, len: 48, page_len: 4096 }),
        ),
        (leaf + 10, &[255, 255], here(leaf, Damage::Count { count: 65535, len: 4096 })),
        (leaf + 12, &[5, 0, 0, 0], here(leaf, Damage::Overflow { overflow: 5, pages: 7 })),
        (leaf + 12, &[2, 0, 0, 0], here(branch + 32, Damage::UsedTwice { page: 3 })),
        (leaf + 12, &[255; 4], here(leaf, Damage::Overflow { overflow: u32::MAX, pages: 7 })),
        (two, &[2], here(two, Damage::ElementFlags { element: 1, flags: 2 })),
        (two, &[1], here(two, Damage::NestedBucket { element: 1 })),
        (
            two + 4,
            &[0, 0],
            here(two, Damage::ElementOutOfPage { element: 1, start: 32, len: 1304, page_len: 4096 }),
        ),
        (two + 4, &[40, 0], here(two, Damage::Overlap { element: 1 })),
        (
            two + 7,
            &[255],
            here(
                two,
                Damage::ElementOutOfPage { element: 1, start: 32 + 0xff00_0538, len: 1304, page_len: 4096 },
            ),
        ),
        (two + 8, &[0], here(two, Damage::EmptyKey { element: 1 })),
        (two + 10, &[1], here(two, Damage::LongKey { element: 1, len: 65540 })),
        (two + 15, &[128], here(two, Damage::LongValue { element: 1, len: 0x8000_0514 })),
        // Its key becomes 0, which the element before has.
        (leaf + 64 + 1304 + 3, &[0], here(two, Damage::Order { element: 1 })),
        // The last key of the page becomes one of the next.
        (leaf + 64 + 2 * 1304 + 3, &[4], here(leaf + 48, Damage::Range { element: 2 })),
        (branch + 16 + 8, &[9], here(branch + 16, Damage::PageOutOfRange { page: 9, pages: 7 })),
        (branch + 16 + 8, &[1], here(branch + 16, Damage::PageOutOfRange { page: 1, pages: 7 })),
        (branch + 16 + 8, &[5], here(branch + 16, Damage::Loop { page: 5 })),
        (branch + 32 + 8, &[2], here(branch + 32, Damage::UsedTwice { page: 2 })),
        (branch + 10, &[0], here(branch, Damage::NoChildren)),
        (root + 16, &[0], here(root + 16, Damage::NoBucket { element: 0 })),
        (root + 16 + 12, &[8], here(root + 16, Damage::ShortBucket { element: 0, len: 8 })),
        (root + 32 + 1, &[77], here(root + 16, Damage::PageOutOfRange { page: 77, pages: 7 })),
        (root + 32 + 1, &[0], here(root + 16, Damage::ShortBucket { element: 0, len: 16 })),
        (root + 8, &[16], here(root, Damage::PageKind { found: 16 })),
    ] {
        assert_eq!(found(at, bytes), problem, "{bytes:?} at {at}");
    }
}

#[test]
fn a_check_goes_on_after_a_problem() {
    let mut image = Memory::one("b", rows(9, |_| 1300)).image();
    image[2 * PAGE_SIZE] = 9;
    image[4 * PAGE_SIZE + HEADER_LEN] = 4;
    let file = OnDisk::new(&image);
    let problems = Database::open(&file.path).expect("opens").check(&mut |_, _| {}).expect("readable");
    let pages: Vec<_> = problems.iter().map(|problem| problem.page).collect();
    assert_eq!(pages, [2, 4], "{problems:?}");
}

/// A stored freelist, which etcd does without: every page is used or free, and bbolt says the same.
#[test]
fn a_stored_freelist_accounts_for_every_page() {
    let tools = crate::etcd::Tools::find("freelists as etcdutl judges them");
    let sound = crate::sample::Store::random(4, crate::sample::Compaction::Never).memory().image();
    let pages = (sound.len() / PAGE_SIZE) as u64;
    // Behind the image: the list, and two pages that nobody uses.
    let (list, first, second) = (pages, pages + 1, pages + 2);
    let problems = |ids: &[u64]| {
        let mut image = sound.clone();
        image.resize(sound.len() + 3 * PAGE_SIZE, 0);
        let at = list as usize * PAGE_SIZE;
        let header = Header { id: list, kind: FREELIST, count: ids.len() as u16, overflow: 0 };
        image[at..at + HEADER_LEN].copy_from_slice(&header.to_bytes());
        for (index, id) in ids.iter().enumerate() {
            let at = at + HEADER_LEN + index * 8;
            image[at..at + 8].copy_from_slice(&id.to_le_bytes());
        }
        for page in 0..2 {
            let meta = &mut image[page * PAGE_SIZE + HEADER_LEN..][..META_LEN];
            let old = Meta::parse((&*meta).try_into().expect("its length")).expect("valid");
            let new = Meta { freelist: list, high_water: pages + 3, ..old };
            meta.copy_from_slice(&new.to_bytes());
        }
        let file = OnDisk::new(&image);
        let problems = Database::open(&file.path).expect("opens").check(&mut |_, _| {}).expect("readable");
        if let Some(tools) = &tools {
            assert_eq!(tools.status(&file.path).is_ok(), problems.is_empty(), "{problems:?}");
        }
        problems.into_iter().map(|problem| (problem.page, problem.damage)).collect::<Vec<_>>()
    };
    assert_eq!(problems(&[first, second]), []);
    assert_eq!(problems(&[first]), [(second, Damage::Leaked)]);
    let root = pages - 1;
    assert_eq!(problems(&[root, first, second]), [(root, Damage::FreeInUse)]);
    assert_eq!(problems(&[first, first, second]), [(list, Damage::FreeTwice { page: first })]);
}

#[test]
fn rows_end_after_an_error() {
    let mut image = Memory::one("b", rows(9, |_| 1300)).image();
    image[3 * PAGE_SIZE] = 9;
    let file = OnDisk::new(&image);
    let database = Database::open(&file.path).expect("opens");
    let rows: Vec<_> = database.bucket(b"b").expect("sound").expect("there").rows().collect();
    assert_eq!(rows.len(), 4);
    assert!(rows[..3].iter().all(Result::is_ok) && rows[3].is_err());
    assert!(database.bucket(b"c").expect("sound").is_none());
}

/// A leaf up to 64 KiB is read at once: its rows share a buffer.
#[test]
fn values_are_slices_of_their_page() {
    let file = OnDisk::new(&Memory::one("b", rows(40, |_| 60)).image());
    let database = Database::open(&file.path).expect("opens");
    let rows: Vec<(Bytes, Bytes)> =
        database.buckets().expect("sound")[0].rows().collect::<Result<_, _>>().expect("sound");
    let (first, second) = (rows[0].1.as_ptr() as usize, rows[1].1.as_ptr() as usize);
    assert_eq!(second - first, 64);
}
