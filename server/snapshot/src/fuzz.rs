//! Files that are not what they should be: changed ones, and pages of nonsense.
//!
//! Whatever is in a file, reading it ends, without a panic, after reading no more
//! than a few times its length; and what the check finds in order can be read.
//!
//! `SNAPSHOT_FUZZ_SEEDS` asks for more inputs than the usual ones.

use std::collections::BTreeMap;
use std::panic::RefUnwindSafe;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::bbolt::{self, Database};
use crate::etcd::Tools;
use crate::hash_kv::hash_kv;
use crate::keys;
use crate::sample::{Compaction, LEASE, Memory, OnDisk, Store};
use crate::status::status;
use crate::verify::verify;

/// Paste a seed a failure printed to run only that one.
const REPLAY: Option<u64> = None;
const SEEDS: u64 = 800;
/// Files for etcd's tool, which takes its time to start.
const SEEDS_OF_ETCD: u64 = 40;

const PAGE: usize = 4096;

fn run(what: &str, usual: u64, case: impl Fn(u64) + RefUnwindSafe) {
    let asked = std::env::var("SNAPSHOT_FUZZ_SEEDS").ok();
    let seeds = asked.map_or(usual, |seeds| seeds.parse().expect("a number"));
    let seeds = REPLAY.map_or(0..seeds, |seed| seed..seed + 1);
    for seed in seeds.clone() {
        if let Err(panic) = std::panic::catch_unwind(|| case(seed)) {
            eprintln!("failed with seed {seed}: paste it into REPLAY");
            std::panic::resume_unwind(panic);
        }
    }
    eprintln!("{what}: {} inputs", seeds.end - seeds.start);
}

/// Reads a file in every way there is. Whether it is a sound image.
fn read_all(path: &Path) -> bool {
    let file_len = path.metadata().expect("it is there").len();
    let report = verify(path, &mut |done, of| assert!(done <= of, "{done} of {of}")).expect("readable");
    let database = match Database::open(path) {
        Ok(database) => database,
        Err(error) => {
            assert!(matches!(error, bbolt::Error::Damaged { .. }), "{error}");
            assert!(report.errors > 0 && error.to_string().contains("page"), "{error}");
            return false;
        }
    };
    let bounded = |what: &str, times: u64| {
        let read = database.bytes_read.swap(0, Ordering::Relaxed);
        let most = times * (4 * file_len + (1 << 20));
        assert!(read <= most, "{what} read {read} bytes of a file of {file_len}");
    };
    let problems = database.check(&mut |done, of| assert!(done <= of)).expect("readable");
    bounded("the check", 1);
    let sound = problems.is_empty();
    assert!(sound || report.errors > 0);
    let readable = |error: bbolt::Error| {
        assert!(!sound && matches!(error, bbolt::Error::Damaged { .. }), "{error}");
    };
    let buckets = database.buckets().map_err(readable).unwrap_or_default();
    bounded("the list of buckets", 1);
    for bucket in &buckets {
        let (mut len, mut last) = (0, Vec::new());
        for row in bucket.rows() {
            match row.map_err(readable) {
                Ok((key, value)) => {
                    assert!(last < key, "out of order");
                    len += (key.len() + value.len()) as u64;
                    last = key.into();
                }
                Err(()) => break,
            }
        }
        assert!(len <= file_len);
        bounded("a bucket", 1);
        for key in [&last[..], b"", &[0, 0, 0, 0, 0, 0, 0, 9], &[255; 20]] {
            let found = bucket.get(key).map_err(readable).unwrap_or_default();
            assert!(!sound || key != last || last.is_empty() || found.is_some());
            bounded("a search", 1);
        }
    }
    let times = buckets.len() as u64 + 4;
    if let Err(crate::Error::Image(error)) = status(&database, &mut |done, of| assert!(done <= of)) {
        readable(error);
    }
    bounded("the status", times);
    for revision in [0, 5] {
        if let Err(crate::Error::Image(error)) =
            hash_kv(&database, revision, &mut |done, of| assert!(done <= of))
        {
            readable(error);
        }
        bounded("the hash", 2 * times);
        match keys::at(&database, revision, |_| true, &mut |done, of| assert!(done <= of)) {
            Ok(found) => {
                bounded("the keys", times);
                // Of values, one at a time.
                for key in found.keys.iter().take(20) {
                    if let Err(crate::Error::Image(error)) = found.read(key) {
                        readable(error);
                    }
                    bounded("a value", 1);
                }
            }
            Err(crate::Error::Image(error)) => readable(error),
            Err(_) => {}
        }
        database.bytes_read.swap(0, Ordering::Relaxed);
    }
    sound
}

/// Sound files to begin with.
fn sound_files() -> &'static [Vec<u8>] {
    static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut files = vec![Memory::default().file()];
        for (seed, compaction) in
            [(1, Compaction::Never), (2, Compaction::Finished), (3, Compaction::Scheduled)]
        {
            files.push(Store::random(seed, compaction).memory().file());
        }
        let mut store = Store::new();
        for at in 0..900 {
            store.begin();
            let len = if at % 211 == 0 { 20_000 } else { at % 90 };
            store.put(
                format!("k{}", at % 300).as_bytes(),
                &vec![1; len],
                if at % 7 == 0 { LEASE } else { 0 },
            );
        }
        let mut memory = store.memory();
        let long = (0..9_u8).map(|at| ([&[1; 1200][..], &[at]].concat(), vec![2; 3000]));
        memory.0.insert(b"wide".to_vec(), long.collect());
        memory.0.insert(b"long".to_vec(), [(vec![1], vec![2; 70_000]), (vec![2], vec![])].into());
        files.push(memory.file());
        files
    })
}

/// Changes a file a little: bits, fields of headers and elements, pages, its length.
fn damage(random: &mut StdRng, file: &mut Vec<u8>) {
    for _ in 0..random.random_range(1..6) {
        if file.len() < 2 * PAGE {
            return;
        }
        let page = random.random_range(0..file.len() / PAGE) * PAGE;
        let field = page + 16 * random.random_range(0..6) + [0, 4, 8, 10, 12][random.random_range(0..5)];
        match random.random_range(0..10) {
            0 => {
                let at = random.random_range(0..file.len());
                file[at] ^= 1 << random.random_range(0..8);
            }
            1 => {
                let at = random.random_range(0..file.len());
                let len = random.random_range(1..200).min(file.len() - at);
                random.fill_bytes(&mut file[at..at + len]);
            }
            2..5 => {
                let value: u32 = match random.random_range(0..5) {
                    0 => random.random(),
                    1 => u32::MAX,
                    2 => 1 << random.random_range(0..32),
                    3 => (file.len() / PAGE) as u32,
                    _ => random.random_range(0..40),
                };
                let len = if random.random() { 4 } else { 1 };
                file[field..field + len].copy_from_slice(&value.to_le_bytes()[..len]);
            }
            5 => {
                let value = u16::from_le_bytes([file[field], file[field + 1]]);
                let value = value.wrapping_add([1, u16::MAX, 16, 4096][random.random_range(0..4)]);
                file[field..field + 2].copy_from_slice(&value.to_le_bytes());
            }
            6 => {
                let from = random.random_range(0..file.len() / PAGE) * PAGE;
                file.copy_within(from..from + PAGE, page);
                if random.random() {
                    file[page..page + 8].copy_from_slice(&((page / PAGE) as u64).to_le_bytes());
                }
            }
            7 => file[page..page + PAGE].fill([0, 255, 1][random.random_range(0..3)]),
            8 if random.random_ratio(1, 4) => {
                let len = random.random_range(0..file.len());
                file.truncate(len);
            }
            _ => {
                let end = [0, 7, 32, 4096, 5000][random.random_range(0..5)];
                file.extend(vec![0; end]);
            }
        }
    }
    if random.random_ratio(1, 3) {
        seal(file);
    }
}

/// Makes the checksums of the metas right.
fn seal(file: &mut [u8]) {
    for meta in [PAGE + 16, 16] {
        if let Some(meta) = file.get_mut(meta..meta + 64) {
            let hash = meta[..56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
            });
            meta[56..].copy_from_slice(&hash.to_le_bytes());
        }
    }
}

/// Pages whose headers and elements are nearly plausible, and refer to each other at random.
fn soup(random: &mut StdRng) -> Vec<u8> {
    let pages = random.random_range(3..40_u64);
    let mut file = vec![0; pages as usize * PAGE];
    random.fill_bytes(&mut file[2 * PAGE..]);
    let any_page = |random: &mut StdRng| match random.random_range(0..12) {
        0 => random.random(),
        _ => random.random_range(2..=pages),
    };
    for page in 0..pages {
        let at = page as usize * PAGE;
        let body = &mut file[at..at + PAGE];
        let id = if random.random_ratio(1, 30) { any_page(random) } else { page };
        body[..8].copy_from_slice(&id.to_le_bytes());
        if page < 2 {
            body[8..10].copy_from_slice(&4_u16.to_le_bytes());
            let freelist = if random.random_ratio(2, 3) { u64::MAX } else { any_page(random) };
            let numbers = [any_page(random), 0, freelist, pages, 9 - page];
            body[16..32].copy_from_slice(
                &[&0xED0C_DAED_u32.to_le_bytes()[..], &[2, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0]].concat(),
            );
            for (index, number) in numbers.into_iter().enumerate() {
                body[32 + index * 8..40 + index * 8].copy_from_slice(&number.to_le_bytes());
            }
            continue;
        }
        let kind = [1, 1, 2, 2, 2, 16, random.random()][random.random_range(0..7)];
        let count = if random.random_ratio(1, 20) { random.random() } else { random.random_range(0..9) };
        let overflow = if random.random_ratio(1, 15) { random.random_range(0..pages as u32) } else { 0 };
        body[8..10].copy_from_slice(&u16::to_le_bytes(kind));
        body[10..12].copy_from_slice(&u16::to_le_bytes(count));
        body[12..16].copy_from_slice(&overflow.to_le_bytes());
        let mut start = 16 * (1 + usize::from(count.min(200)));
        for element in 0..usize::from(count.min(200)) {
            let place = 16 + element * 16;
            let (key_len, value_len) = (random.random_range(1..5_u32), random.random_range(0..90_u32));
            let pos = (start - place) as u32;
            let fields = match kind {
                1 => {
                    let child = any_page(random);
                    [pos, key_len, child as u32, (child >> 32) as u32]
                }
                _ => [u32::from(random.random_ratio(1, 3)), pos, key_len, value_len],
            };
            for (index, field) in fields.into_iter().enumerate() {
                body[place + index * 4..place + index * 4 + 4].copy_from_slice(&field.to_le_bytes());
            }
            if start + 8 < PAGE && random.random_ratio(9, 10) {
                body[start] = element as u8 + 1;
            }
            // What may be the entry of a bucket.
            if start + 30 < PAGE && kind == 2 {
                let root = if random.random() { 0 } else { any_page(random) };
                let at = start + key_len as usize;
                body[at..at + 8].copy_from_slice(&root.to_le_bytes());
            }
            start += key_len as usize + if kind == 1 { 0 } else { value_len as usize };
            if start + 8 > PAGE {
                break;
            }
        }
    }
    seal(&mut file);
    file
}

#[test]
fn changed_files_do_no_harm() {
    let counts = std::sync::Mutex::new(BTreeMap::<bool, u64>::new());
    run("changed files", SEEDS, |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let files = sound_files();
        let mut file = files[random.random_range(0..files.len())].clone();
        damage(&mut random, &mut file);
        let sound = read_all(&OnDisk::new(&file).path);
        *counts.lock().expect("nobody panicked").entry(sound).or_default() += 1;
    });
    eprintln!("sound or not: {:?}", counts.lock().expect("nobody panicked"));
}

#[test]
fn pages_of_nonsense_do_no_harm() {
    run("page soup", SEEDS, |seed| {
        let file = soup(&mut StdRng::seed_from_u64(seed));
        read_all(&OnDisk::new(&file).path);
    });
}

#[test]
fn files_of_noise_do_no_harm() {
    run("noise", SEEDS / 10, |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let mut file = vec![0; random.random_range(0..3 * PAGE)];
        random.fill_bytes(&mut file);
        assert!(!read_all(&OnDisk::new(&file).path));
    });
}

/// What is sound here is sound for etcd, and gives the same figures.
///
/// Other files are not shown to its tool: a page below itself makes bbolt's check recurse until memory ends.
#[test]
fn etcd_finds_sound_what_is_found_sound() {
    let Some(tools) = Tools::find("changed files for etcdutl") else { return };
    run("changed files for etcdutl", SEEDS_OF_ETCD, |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let files = sound_files();
        let mut file = files[random.random_range(0..files.len())].clone();
        damage(&mut random, &mut file);
        let file = OnDisk::new(&file);
        let Ok(database) = Database::open(&file.path) else { return };
        if database.check(&mut |_, _| {}).expect("readable").is_empty()
            && let Ok(ours) = status(&database, &mut |_, _| {})
        {
            let theirs = tools.status(&file.path).unwrap_or_else(|e| panic!("{ours:?} here, and there {e}"));
            assert_eq!(theirs, crate::etcd::json(&ours));
        }
    });
}
