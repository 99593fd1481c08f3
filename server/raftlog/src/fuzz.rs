//! Crashes at random places on a disk that lies: what was acknowledged is there
//! after every restart, and what is there was written, in order.
//!
//! `RAFTLOG_FUZZ_SEEDS` asks for another number of inputs than the usual one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::fake::{End, FakeDisk, Fault};
use crate::{Done, Entry, Error, Log, LogId, NoObserver, Options};

/// Paste a seed a failure printed to run only that one.
const REPLAY: Option<u64> = None;
const CRASH_SEEDS: u64 = 2000;
const DAMAGE_SEEDS: u64 = 1000;

/// What the log must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Model {
    vote: Option<Bytes>,
    purged: Option<LogId>,
    pub last: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

/// One record's worth of change: what a torn group can end after.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Entry(Entry),
    Vote(Bytes),
    Truncate(Option<LogId>),
    Purge(LogId),
}

impl Model {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Entry(entry) => {
                self.last = Some(entry.log_id);
                self.entries.insert(entry.log_id.index, entry.clone());
            }
            Step::Vote(vote) => self.vote = Some(vote.clone()),
            Step::Truncate(after) => {
                self.entries.split_off(&after.map_or(0, |after| after.index + 1));
                self.last = *after.max(&self.purged);
            }
            Step::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = Some(*upto);
                if self.last.is_none_or(|last| last.index <= upto.index) {
                    self.last = Some(*upto);
                }
            }
        }
    }

    pub fn after(mut self, step: &Step) -> Self {
        self.step(step);
        self
    }

    pub fn of(log: &Log) -> Self {
        let state = log.state();
        let entries = log.read(0..u64::MAX, usize::MAX).expect("a log that opened can be read");
        Self {
            vote: log.vote(),
            purged: state.purged,
            last: state.last,
            entries: entries.into_iter().map(|entry| (entry.log_id.index, entry)).collect(),
        }
    }
}

pub(crate) struct Case {
    pub random: StdRng,
    pub disk: FakeDisk,
    pub log: Log,
    /// As it was when the run began.
    base: Model,
    pub steps: Vec<Step>,
    /// How many steps the log said are durable.
    acknowledged: Arc<AtomicUsize>,
    now: Model,
    term: u64,
}

/// The member whose log is written.
pub(crate) const OWNER: u64 = 7;

fn options(random: &mut StdRng) -> Options {
    Options {
        owner: OWNER,
        segment_bytes: 1 << random.random_range(12..15),
        first_segment_bytes: 4096,
        first_segment: 1,
        ring_bytes: random.random_range(0..4000),
        fsync: true,
    }
}

impl Case {
    fn new(seed: u64) -> Self {
        Self::of(OWNER, seed)
    }

    /// A new log of a member.
    pub fn of(owner: u64, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = FakeDisk::new(seed);
        let options = Options { owner, ..options(&mut random) };
        let log =
            Log::open_manual(Arc::new(disk.clone()), options, Arc::new(NoObserver)).expect("a new log opens");
        Self {
            random,
            disk,
            log,
            base: Model::default(),
            steps: Vec::new(),
            acknowledged: Arc::default(),
            now: Model::default(),
            term: 1,
        }
    }

    fn done(&self) -> Done {
        let (acknowledged, count) = (self.acknowledged.clone(), self.steps.len());
        Box::new(move |result| {
            if result.is_ok() {
                acknowledged.fetch_max(count, Ordering::Relaxed);
            }
        })
    }

    fn took(&mut self, steps: Vec<Step>) {
        for step in &steps {
            self.now.step(step);
        }
        self.steps.extend(steps);
    }

    /// One operation; `Err` once the log does not work any more.
    pub fn act(&mut self, flushes: bool) -> Result<(), Error> {
        let next = self.now.last.map_or(0, |last| last.index + 1);
        let first = self.now.purged.map_or(0, |purged| purged.index + 1);
        match self.random.random_range(0..if flushes { 20 } else { 14 }) {
            0..9 => {
                let mut entries = Vec::new();
                for index in next..next + self.random.random_range(1..6) {
                    let size = if self.random.random_ratio(1, 20) { 6000 } else { 600 };
                    let len = self.random.random_range(0..size);
                    let mut payload = vec![0; len];
                    self.random.fill(&mut payload[..]);
                    let log_id = LogId { term: self.term, index };
                    entries.push(Entry { log_id, tag: self.random.random(), payload: payload.into() });
                }
                self.took(entries.iter().cloned().map(Step::Entry).collect());
                self.log.append(entries, self.done())
            }
            9 => {
                self.term += 1;
                let vote = Bytes::from(self.term.to_le_bytes().to_vec());
                self.took(vec![Step::Vote(vote.clone())]);
                self.log.save_vote(vote, self.done())
            }
            10 if next > first => {
                let keep = self.random.random_range(first..next);
                let after = match keep.checked_sub(1) {
                    Some(before) => {
                        self.now.entries.get(&before).map(|entry| entry.log_id).or(self.now.purged)
                    }
                    None => None,
                };
                self.term += 1;
                self.took(vec![Step::Truncate(after)]);
                self.log.truncate_after(after, self.done())
            }
            11 if next > first => {
                let beyond = if self.random.random_ratio(1, 20) { 10 } else { 0 };
                let index = self.random.random_range(first..next + beyond);
                let upto = self
                    .now
                    .entries
                    .get(&index)
                    .map_or(LogId { term: self.term, index }, |entry| entry.log_id);
                self.took(vec![Step::Purge(upto)]);
                self.log.purge(upto)
            }
            12 => {
                self.log.hint_committed(self.now.last);
                Ok(())
            }
            13 => {
                let start = self.random.random_range(first..=next);
                let end = self.random.random_range(start..=next);
                let read = self.log.read(start..end, usize::MAX)?;
                let expected: Vec<Entry> =
                    self.now.entries.range(start..end).map(|(_, entry)| entry.clone()).collect();
                assert!(read == expected, "a read of {start}..{end} is wrong");
                Ok(())
            }
            _ => {
                self.log.run_pending();
                Ok(())
            }
        }
    }

    /// Ends the run, opens the log again and looks whether it holds what it may.
    fn restart(&mut self) {
        for attempt in 0.. {
            let end = if self.random.random_bool(0.3) { End::Kill } else { End::PowerCut };
            self.disk = self.disk.restart(end);
            // Opening can be hit as well; then nothing was said yet, and it is tried again.
            if attempt < 2 && self.random.random_ratio(1, 6) {
                self.arm(12);
            }
            let options = options(&mut self.random);
            match Log::open_manual(Arc::new(self.disk.clone()), options, Arc::new(NoObserver)) {
                Ok(_) if !self.disk.disarm() => {}
                Ok(log) => {
                    self.log = log;
                    break;
                }
                Err(error) => {
                    assert!(matches!(error, Error::Io { .. }) && attempt < 2, "cannot open: {error}")
                }
            }
        }
        let held = Model::of(&self.log);
        let acknowledged = self.acknowledged.swap(0, Ordering::Relaxed);
        let mut model = self.base.clone();
        let mut fits = false;
        for (at, step) in self.steps.iter().enumerate() {
            fits |= at >= acknowledged && model == held;
            model.step(step);
        }
        fits |= model == held;
        assert!(
            fits,
            "held {held:?}\nfits nothing from step {acknowledged} of {:?}\non {:?}",
            self.steps, self.base
        );
        assert!(self.log.committed() <= held.last);
        self.base = held.clone();
        self.now = held;
        self.steps.clear();
    }

    fn arm(&mut self, within: u64) {
        let fault = [Fault::Io, Fault::Full, Fault::Death, Fault::Death][self.random.random_range(0..4)];
        let after = self.random.random_range(0..within);
        self.disk.arm(after, fault);
    }
}

/// Runs a case for each seed, and says how many there were.
pub(crate) fn run(what: &str, usual: u64, case: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let asked = std::env::var("RAFTLOG_FUZZ_SEEDS").ok();
    let seeds = asked.map_or(usual, |seeds| seeds.parse().expect("a number"));
    let seeds = REPLAY.map_or(0..seeds, |seed| seed..seed + 1);
    for seed in seeds.clone() {
        if let Err(panic) = std::panic::catch_unwind(|| case(seed)) {
            eprintln!("{what} failed with seed {seed}: paste it into REPLAY");
            std::panic::resume_unwind(panic);
        }
    }
    eprintln!("{what}: {} inputs", seeds.end - seeds.start);
}

#[test]
fn what_was_acknowledged_survives() {
    run("crashes", CRASH_SEEDS, |seed| {
        let mut case = Case::new(seed);
        for _ in 0..case.random.random_range(1..5) {
            if case.random.random_bool(0.7) {
                case.arm(60);
            }
            for _ in 0..case.random.random_range(1..40) {
                if case.act(true).is_err() {
                    break;
                }
            }
            case.restart();
        }
    });
}

#[test]
fn damage_is_never_silent() {
    run("one changed bit", DAMAGE_SEEDS, |seed| {
        let mut case = Case::new(seed);
        let mut before_last = Model::default();
        let mut last_steps = Vec::new();
        let mut last_group = (0, 0);
        for _ in 0..case.random.random_range(2..12) {
            for _ in 0..case.random.random_range(1..6) {
                case.act(false).expect("the disk works");
            }
            if !case.steps.is_empty() {
                last_group = case.log.written();
                before_last = last_steps.iter().fold(before_last, Model::after);
                last_steps = std::mem::take(&mut case.steps);
            }
            case.log.run_pending();
        }
        let whole = Model::of(&case.log);
        let disk = case.disk.restart(End::Kill);
        let segments: Vec<(String, usize)> =
            disk.files().into_iter().filter(|(name, _)| name.ends_with(".log")).collect();
        let (name, len) = &segments[case.random.random_range(0..segments.len())];
        let seq = crate::segment::parse_name(name).expect("a segment");
        let offset = case.random.random_range(0..*len);
        disk.flip(name, offset, 1 << case.random.random_range(0..8));

        let end = case.log.ends().into_iter().find(|(segment, _)| *segment == seq).map(|(_, end)| end);
        let used = end.is_some_and(|end| (offset as u64) < end);
        let durable_before = (seq, offset as u64) < last_group;
        let opened = Log::open_manual(Arc::new(disk), options(&mut case.random), Arc::new(NoObserver));
        match opened {
            Ok(log) if !used => assert!(Model::of(&log) == whole, "damage behind the end had an effect"),
            Ok(log) => {
                assert!(
                    !durable_before,
                    "damage at {offset} of {name} was not noticed, last group at {last_group:?}"
                );
                let held = Model::of(&log);
                let mut model = before_last;
                let mut fits = model == held;
                for step in &last_steps {
                    model.step(step);
                    fits |= model == held;
                }
                assert!(fits, "more is gone than a part of the last group");
            }
            Err(error) => {
                assert!(used, "refused without need: {error}");
                let text = error.to_string();
                assert!(text.contains(name.as_str()) || text.contains(".log"), "no file in: {text}");
            }
        }
    });
}

#[test]
fn a_full_disk_is_an_error_and_the_log_starts_again() {
    let small = Options { segment_bytes: 4096, first_segment_bytes: 4096, ..Options::default() };
    let entry = |index| Entry { log_id: LogId { term: 1, index }, tag: 0, payload: vec![7; 3000].into() };
    let ignore = || -> Done { Box::new(|_| {}) };
    let mut refused = 0;
    for full_at in 0..60 {
        let disk = FakeDisk::new(1);
        let log =
            Log::open_manual(Arc::new(disk.clone()), small.clone(), Arc::new(NoObserver)).expect("opens");
        log.append(vec![entry(0)], ignore()).expect("works");
        log.run_pending();
        log.append(vec![entry(1), entry(2), entry(3)], ignore()).expect("is queued");
        disk.arm(full_at, Fault::Full);
        log.run_pending();
        // Not every operation needs space, and a spare file that cannot be made is no fault yet.
        if let Err(error) = log.append(vec![entry(4)], ignore()) {
            assert_eq!(error.clone().into_io().kind(), std::io::ErrorKind::StorageFull, "{error}");
            assert!(error.to_string().contains("fake/"), "{error}");
            refused += 1;
        }
        let log = Log::open_manual(Arc::new(disk.restart(End::Kill)), small.clone(), Arc::new(NoObserver))
            .expect("opens once there is space");
        let last = log.state().last.expect("what was durable is there");
        log.append(vec![entry(last.index + 1)], ignore()).expect("works again");
        log.run_pending();
        assert_eq!(log.read(0..100, usize::MAX).expect("reads").len() as u64, last.index + 2);
    }
    assert!(refused > 0);
}
