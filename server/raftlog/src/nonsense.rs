//! Folders that are not what a log left there: changed, cut, mixed up and made up.
//!
//! Whatever is in the files, opening them ends, without a panic: with an error
//! that names the file, or with a log that can be read, written and opened
//! again. Where no checksum was made to fit, that log is what had been written
//! up to some point.
//!
//! `RAFTLOG_FUZZ_SEEDS` asks for another number of inputs than the usual one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::fake::{End, FakeDisk};
use crate::fuzz::{Case, Model, OWNER, run};
use crate::record::{self, HEADER_BYTES, Head, Kind, u32_at};
use crate::segment::{self, Header};
use crate::{Entry, Error, Log, LogId, NoObserver, Options};

const SEEDS: u64 = 1500;

/// A folder: names and contents.
type Files = BTreeMap<String, Vec<u8>>;

/// A log that was written as it should be.
struct History {
    files: Files,
    /// The folder as it was some time before.
    earlier: Files,
    /// What the log held after each step, from none on.
    prefixes: Vec<Model>,
}

impl History {
    fn new(owner: u64, seed: u64) -> Self {
        let mut case = Case::of(owner, seed);
        let files = |case: &Case| -> Files {
            case.disk.files().into_iter().map(|(name, _)| (name.clone(), case.disk.content(&name))).collect()
        };
        let mut earlier = Files::new();
        let count = case.random.random_range(3..90);
        for at in 0..count {
            case.act(true).expect("the disk works");
            if at == count * 2 / 3 {
                case.log.run_pending();
                earlier = files(&case);
            }
        }
        case.log.run_pending();
        let mut prefixes = vec![Model::default()];
        for step in &case.steps {
            prefixes.push(prefixes[prefixes.len() - 1].clone().after(step));
        }
        Self { files: files(&case), earlier, prefixes }
    }
}

/// Logs of this member, and, behind them, two of another one.
fn histories() -> &'static [History] {
    static HISTORIES: OnceLock<Vec<History>> = OnceLock::new();
    HISTORIES.get_or_init(|| {
        let owner = |seed| if seed < 14 { OWNER } else { OWNER + 1 };
        (0..16).map(|seed| History::new(owner(seed), 1000 + seed)).collect()
    })
}

/// What became of the folders of one kind.
#[derive(Default)]
struct Counts {
    opened: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    fn count(&self, opened: bool) {
        if opened { &self.opened } else { &self.refused }.fetch_add(1, Ordering::Relaxed);
    }

    fn tell(&self, what: &str) {
        let [opened, refused] = [&self.opened, &self.refused].map(|count| count.load(Ordering::Relaxed));
        eprintln!("{what}: {opened} opened, {refused} refused");
    }
}

fn open(disk: &FakeDisk, random: &mut StdRng) -> Result<Log, Error> {
    let ring_bytes = random.random_range(0..4000);
    let options = Options {
        owner: OWNER,
        segment_bytes: 1 << 14,
        first_segment_bytes: 4096,
        ring_bytes,
        ..Options::default()
    };
    Log::open_manual(Arc::new(disk.clone()), options, Arc::new(NoObserver))
}

/// Opens a folder and, if that works, uses the log. What it holds, unless it is refused.
///
/// A folder in which checksums were made to fit may be refused later: a header counts once its segment is the first.
fn judge(files: &Files, forged: bool, random: &mut StdRng) -> Option<Model> {
    let disk = FakeDisk::new(1);
    for (name, bytes) in files {
        disk.put(name, bytes.clone());
    }
    let log = match open(&disk, random) {
        Ok(log) => log,
        Err(error) => {
            told(&error);
            // Trying once more does not make it better.
            assert!(open(&disk, random).is_err(), "opened at the second attempt, after: {error}");
            return None;
        }
    };
    let held = Model::of(&log);
    assert!(log.committed() <= held.last);
    let next = held.last.map_or(0, |last| last.index + 1);
    if next < u64::MAX {
        let entry = Entry { log_id: LogId { term: u64::MAX, index: next }, tag: 1, payload: "more".into() };
        log.append(vec![entry], Box::new(|result| result.expect("the disk works"))).expect("follows on");
        log.run_pending();
    }
    let written = Model::of(&log);
    drop(log);
    match open(&disk.restart(End::PowerCut), random) {
        Ok(log) => assert!(forged || Model::of(&log) == written, "what was just written is another now"),
        Err(error) => {
            told(&error);
            assert!(forged, "what was just written does not open: {error}");
        }
    }
    Some(held)
}

/// An error says which file it is about.
fn told(error: &Error) {
    assert!(matches!(error, Error::Damaged { .. } | Error::Format { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(".log") || text.contains(".wal"), "no file in: {text}");
}

fn pick<'a>(files: &'a Files, random: &mut StdRng) -> Option<&'a String> {
    let names: Vec<&String> = files.keys().filter(|name| name.ends_with(".log")).collect();
    (!names.is_empty()).then(|| names[random.random_range(0..names.len())])
}

/// A folder to begin with.
fn history(random: &mut StdRng) -> &'static History {
    &histories()[random.random_range(0..14)]
}

/// Where the records of a file begin, as long as their lengths make sense.
fn records(file: &[u8]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at + HEADER_BYTES <= file.len() && u32_at(file, at + 12) != 0 {
        starts.push(at);
        at += record::size(u32_at(file, at) as usize) as usize;
    }
    starts
}

#[test]
fn changed_bytes_do_no_harm() {
    let counts = Counts::default();
    run("changed bytes", SEEDS, |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let history = history(&mut random);
        let mut files = history.files.clone();
        for _ in 0..random.random_range(1..6) {
            let Some(name) = pick(&files, &mut random).cloned() else { break };
            let file = files.get_mut(&name).expect("picked");
            let starts = records(file);
            // Mostly where something stands.
            let used = starts.last().map_or(file.len(), |last| (last + 400).min(file.len()));
            let within = if random.random_ratio(1, 8) { file.len() } else { used };
            let at = random.random_range(0..within);
            let len = random.random_range(1..600).min(file.len() - at);
            match random.random_range(0..4) {
                0 => file[at] ^= 1 << random.random_range(0..8),
                1 => random.fill_bytes(&mut file[at..at + len]),
                2 => file[at..at + len].fill(0),
                _ => {
                    let from = random.random_range(0..=file.len() - len);
                    file.copy_within(from..from + len, at);
                }
            }
        }
        let held = judge(&files, false, &mut random);
        counts.count(held.is_some());
        assert!(held.is_none_or(|held| history.prefixes.contains(&held)), "it holds what never was");
    });
    counts.tell("changed bytes");
}

#[test]
fn cut_files_do_no_harm() {
    let counts = Counts::default();
    run("cut files", SEEDS, |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let history = history(&mut random);
        let mut files = history.files.clone();
        let last = files.keys().rfind(|name| name.ends_with(".log")).cloned().expect("a segment");
        // A log without its end is one, unless the end says what was purged.
        let only_last = random.random_ratio(1, 2);
        for _ in 0..random.random_range(1..3) {
            let Some(picked) = pick(&files, &mut random).cloned() else { break };
            let name = if only_last { &last } else { &picked };
            let file = files.get_mut(name).expect("picked");
            let starts = records(file);
            if starts.is_empty() {
                continue;
            }
            let len = match random.random_range(0..5) {
                0 => random.random_range(0..=file.len()),
                1 => starts[random.random_range(0..starts.len())],
                2 => (starts[random.random_range(0..starts.len())] + random.random_range(0..48))
                    .min(file.len()),
                3 => 0,
                _ => file.len() + random.random_range(0..9000),
            };
            file.resize(len, 0);
        }
        let held = judge(&files, false, &mut random);
        counts.count(held.is_some());
        assert!(held.is_none_or(|held| history.prefixes.contains(&held)), "it holds what never was");
    });
    counts.tell("cut files");
}

#[test]
fn mixed_up_files_do_no_harm() {
    let counts = Counts::default();
    run("mixed up files", SEEDS, |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let history = history(&mut random);
        let mut others = vec![history];
        let mut files = history.files.clone();
        for _ in 0..random.random_range(1..4) {
            let Some(name) = pick(&files, &mut random).cloned() else { break };
            let other = pick(&files, &mut random).cloned().expect("there is one");
            match random.random_range(0..7) {
                // Swapped, and one in the place of another.
                0 => {
                    let [first, second] = [&name, &other].map(|name| files[name].clone());
                    files.insert(name, second);
                    files.insert(other, first);
                }
                1 => {
                    let copy = files[&other].clone();
                    files.insert(name, copy);
                }
                // Under another name: another number, the same one, none.
                2 => {
                    let Some(seq) = segment::parse_name(&name) else { continue };
                    let renamed = match random.random_range(0..5) {
                        0 => segment::name(
                            seq.wrapping_add(random.random_range(0..3)),
                            random.random_range(0..99),
                        ),
                        1 => segment::name(seq.wrapping_add(1 << 32), 0),
                        2 => segment::name(u64::MAX, 0),
                        3 => "0000000000000000-0000000000000000.wal".to_owned(),
                        _ => "spare-0000000000000001".to_owned(),
                    };
                    let file = match random.random() {
                        true => files.remove(&name).expect("picked"),
                        false => files[&name].clone(),
                    };
                    files.insert(renamed, file);
                }
                3 => {
                    files.remove(&name);
                }
                // From a backup.
                4 => match history.earlier.get(&name) {
                    Some(earlier) => {
                        files.insert(name, earlier.clone());
                    }
                    None => files.extend(history.earlier.clone()),
                },
                // From other logs: one file under its own name or this one's, or all.
                5 => {
                    let foreign = &histories()[random.random_range(0..histories().len())];
                    let picked = pick(&foreign.files, &mut random).expect("a log has files");
                    let file = foreign.files[picked].clone();
                    files.insert(if random.random() { picked.clone() } else { name }, file);
                    others.push(foreign);
                }
                _ => {
                    let foreign = &histories()[random.random_range(0..histories().len())];
                    files.extend(foreign.files.clone());
                    others.push(foreign);
                }
            }
        }
        let held = judge(&files, false, &mut random);
        counts.count(held.is_some());
        let fits = |held: &Model| others.iter().any(|history| history.prefixes.contains(held));
        assert!(held.as_ref().is_none_or(fits), "it holds what never was: {held:?}");
    });
    counts.tell("mixed up files");
}

/// Numbers that are at the edge of something.
fn extreme(random: &mut StdRng, file_len: usize) -> u64 {
    match random.random_range(0..7) {
        0 => 0,
        1 => u64::MAX - random.random_range(0..3),
        2 => u64::from(u32::MAX) - random.random_range(0..48),
        3 => (file_len as u64).saturating_sub(random.random_range(0..60)),
        4 => 1 << random.random_range(0..64),
        5 => random.random_range(0..200),
        _ => random.random(),
    }
}

#[test]
fn extreme_fields_do_no_harm() {
    let counts = [Counts::default(), Counts::default()];
    run("extreme fields", SEEDS, |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let history = history(&mut random);
        let mut files = history.files.clone();
        let sealed = random.random_ratio(2, 3);
        for _ in 0..random.random_range(1..3) {
            let Some(name) = pick(&files, &mut random).cloned() else { break };
            let file = files.get_mut(&name).expect("picked");
            let starts = records(file);
            if starts.is_empty() {
                continue;
            }
            // The first record of a file is one in four, not one in a hundred.
            let which = if random.random_ratio(1, 4) { 0 } else { random.random_range(0..starts.len()) };
            let at = starts[which];
            for _ in 0..random.random_range(1..3) {
                let value = extreme(&mut random, file.len()).to_le_bytes();
                let (field, len) = [
                    (0, 4),
                    (0, 4),
                    (0, 4),
                    (8, 4),
                    (12, 4),
                    (16, 1),
                    (17, 1),
                    (20, 4),
                    (24, 8),
                    (32, 8),
                    (41, 8),
                    // What stands in a segment's header: ids, the vote.
                    (HEADER_BYTES + 4, 8),
                    (HEADER_BYTES + 12 + 17 * random.random_range(0..3), 8),
                    (HEADER_BYTES + 21 + 17 * random.random_range(0..3), 8),
                    (HEADER_BYTES + 63, 1),
                ][random.random_range(0..15)];
                if let Some(bytes) = file.get_mut(at + field..at + field + len) {
                    bytes.copy_from_slice(&value[..len]);
                }
            }
            if sealed {
                seal(&mut files, &name, which, &starts);
            }
        }
        let held = judge(&files, sealed, &mut random);
        counts[usize::from(sealed)].count(held.is_some());
        assert!(
            sealed || held.is_none_or(|held| history.prefixes.contains(&held)),
            "it holds what never was"
        );
    });
    counts[0].tell("extreme fields");
    counts[1].tell("extreme fields with checksums that fit");
}

/// Makes the checksums fit from a record of a file on, each to the one before, to the end of the folder.
fn seal(files: &mut Files, from: &str, which: usize, starts: &[usize]) {
    let mut before = None;
    for (name, file) in files.range_mut(from.to_owned()..).filter(|(name, _)| name.ends_with(".log")) {
        let starts = if name == from { starts[which..].to_vec() } else { records(file) };
        for at in starts {
            if let Some(crc) = before {
                file[at + 8..at + 12].copy_from_slice(&u32::to_le_bytes(crc));
            }
            let len = record::size(u32_at(file, at) as usize) as usize;
            // A record that is not whole is the last one.
            let Some(bytes) = file.get_mut(at..at + len) else { break };
            let crc = record::checksum(bytes);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            before = Some(crc);
        }
    }
}

#[test]
fn noise_does_no_harm() {
    let counts = Counts::default();
    run("noise", SEEDS / 2, |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let mut files = Files::new();
        for _ in 0..random.random_range(1..4) {
            let seq = random.random_range(0..4_u64);
            let mut file = vec![0; random.random_range(0..9000)];
            match random.random_range(0..3) {
                0 => random.fill_bytes(&mut file),
                1 => file.fill(random.random()),
                // Every word could be the epoch.
                _ => file.chunks_exact_mut(4).for_each(|word| {
                    let value =
                        if random.random_ratio(5, 6) { seq as u32 } else { random.random_range(0..99) };
                    word.copy_from_slice(&value.to_le_bytes());
                }),
            }
            files.insert(segment::name(seq, random.random_range(0..9)), file);
        }
        let held = judge(&files, false, &mut random);
        counts.count(held.is_some());
        assert!(held.is_none_or(|held| held == Model::default()), "something in noise");
    });
    counts.tell("noise");
}

/// Segments whose records fit each other and say anything. Most follow on, or nothing else would be seen.
fn soup(random: &mut StdRng) -> Files {
    let id = |random: &mut StdRng, near: u64| {
        let index = match random.random_range(0..40) {
            0 => extreme(random, 4096),
            1..8 => random.random_range(0..40),
            _ => near,
        };
        LogId { term: if random.random_ratio(1, 8) { random.random() } else { 1 }, index }
    };
    let mut files = Files::new();
    let mut crc = random.random();
    // The index that follows on.
    let mut next = random.random_range(0..20_u64);
    let first = if random.random_ratio(1, 20) { (1 << 63) - 2 } else { random.random_range(0..9) };
    for seq in (first..=u64::MAX).take(random.random_range(1..4)) {
        let mut file = Vec::new();
        let at = LogId { term: 1, index: next.wrapping_sub(1) };
        let maybe = |random: &mut StdRng| random.random_ratio(3, 4).then(|| id(random, at.index));
        let header = Header {
            owner: if random.random_ratio(1, 40) { random.random() } else { OWNER },
            vote: random.random_ratio(1, 2).then(|| Bytes::from_static(b"a vote")),
            purged: maybe(random),
            last: maybe(random),
            committed: maybe(random),
        };
        let mut put = |random: &mut StdRng, file: &mut Vec<u8>, kind, log_id, payload: &[u8]| {
            let (tag, synced) = (random.random_range(0..3), random.random_range(0..=file.len() as u32));
            let prev = if random.random_ratio(1, 200) { random.random() } else { crc };
            let epoch = segment::epoch(seq);
            crc = record::encode(
                file,
                Head { len: 0, crc: 0, prev, epoch, kind, tag, synced, log_id },
                payload,
            );
            tag
        };
        let mut payload = header.encode();
        if random.random_ratio(1, 40) {
            payload.truncate(random.random_range(0..payload.len()));
        }
        put(random, &mut file, Kind::Header, LogId::default(), &payload);
        if seq == first {
            let counts = header.last.or(header.purged);
            next = counts.map_or(next, |last| last.index.wrapping_add(1));
        }
        for _ in 0..random.random_range(0..40) {
            let kind = match random.random_range(0..20) {
                0 => Kind::Vote,
                1 => Kind::Truncate,
                2 => Kind::Purged,
                3 => Kind::Committed,
                4 if random.random_ratio(1, 20) => Kind::Header,
                _ => Kind::Entry,
            };
            let mut log_id = id(random, next.wrapping_sub(1));
            if kind == Kind::Entry && !random.random_ratio(1, 60) {
                log_id.index = next;
            }
            let payload = vec![7; random.random_range(0..60)];
            let tag = put(random, &mut file, kind, log_id, &payload);
            let behind = log_id.index.wrapping_add(1);
            next = match kind {
                Kind::Entry => behind,
                Kind::Truncate if tag == 1 => next.min(behind),
                Kind::Purged => next.max(behind),
                _ => next,
            };
        }
        let padding = random.random_range(0..3000);
        file.resize(file.len() + padding, 0);
        files.insert(segment::name(seq, 0), file);
    }
    files
}

#[test]
fn records_of_nonsense_do_no_harm() {
    let counts = Counts::default();
    run("records of nonsense", SEEDS, |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let files = soup(&mut random);
        counts.count(judge(&files, true, &mut random).is_some());
    });
    counts.tell("records of nonsense");
}

/// A last segment without a first record was removed before the rest was looked at: of two damaged ones
/// the first attempt to open the log removed one and refused, and the second removed the other and opened it.
#[test]
fn a_folder_that_is_refused_stays_as_it_is() {
    let mut files = histories()[0].files.clone();
    let names: Vec<String> =
        files.keys().rev().filter(|name| name.ends_with(".log")).take(2).cloned().collect();
    assert_eq!(names.len(), 2);
    for name in &names {
        files.insert(name.clone(), vec![0; 4096]);
    }
    let disk = FakeDisk::new(1);
    files.iter().for_each(|(name, bytes)| disk.put(name, bytes.clone()));
    let random = &mut StdRng::seed_from_u64(1);
    for _ in 0..3 {
        told(&open(&disk, random).err().expect("refused"));
        assert_eq!(disk.files().len(), files.len());
    }
}

/// The length of a record was believed before its checksum was, and that much memory taken.
#[test]
fn a_length_takes_no_memory_before_it_checks() {
    let mut file = Vec::new();
    let head = |kind, prev| Head {
        len: 0,
        crc: 0,
        prev,
        epoch: 1,
        kind,
        tag: 0,
        synced: 0,
        log_id: LogId { term: 1, index: 0 },
    };
    let header = Header { owner: OWNER, ..Header::default() }.encode();
    let crc = record::encode(&mut file, head(Kind::Header, 0), &header);
    let start = file.len();
    record::encode(&mut file, head(Kind::Entry, crc), &vec![3; 5 << 20]);
    file[start + 4] ^= 1;
    for (damaged, last) in [(true, None), (false, Some(LogId { term: 1, index: 0 }))] {
        let disk = FakeDisk::new(1);
        disk.put(&segment::name(1, 0), file.clone());
        let log = open(&disk, &mut StdRng::seed_from_u64(1)).expect("a torn tail at most");
        assert_eq!(log.state().last, last);
        assert!(disk.read_max() <= 1 << 20, "{} bytes at once, damaged: {damaged}", disk.read_max());
        assert_eq!(log.read(0..9, usize::MAX).expect("reads").len(), usize::from(!damaged));
        file[start + 4] ^= 1;
    }
}
