//! A state beside its model and its log; it can be closed, crash and come back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;
use rand::RngExt;
use state::{Entry, EntryBody, Fingerprint, LogId, Options, Query, Reader, State, View};
use tempfile::TempDir;

use super::generate::{Generator, MEMBERS};
use super::naive::{Naive, Outcome};

/// How a state ends before it is opened again.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// All is flushed first.
    Clean,
    /// It is dropped as it is.
    Dropped,
    /// What was only in memory is lost.
    Crash,
}

pub struct World {
    /// Before its folder: it must be closed by the time that goes.
    open: Option<(State, Reader)>,
    dir: TempDir,
    memory: usize,
    compaction_pause: Duration,
    pub model: Naive,
    pub log: Vec<Entry>,
    /// What applying each entry of the log gave, by the model.
    outcomes: Vec<Outcome>,
    /// The last entry known to be on disk.
    flushed: u64,
    /// What was told of entries, by index: the same whenever an entry is applied again.
    pub fingerprints: BTreeMap<u64, Fingerprint>,
}

pub fn options(dir: &Path, memory: usize, compaction_pause: Duration) -> Options {
    let mut options = Options::new(dir.join("db"));
    options.memory_budget = memory;
    options.compaction_batch_limit = 3;
    options.compaction_sleep = compaction_pause;
    options
}

fn open(dir: &Path, memory: usize, compaction_pause: Duration) -> (State, Reader) {
    State::open(options(dir, memory, compaction_pause)).expect("open")
}

impl World {
    pub fn new(memory: usize) -> Self {
        Self::with_pause(memory, Duration::ZERO)
    }

    /// A world whose compactions stop for so long after every few records.
    pub fn with_pause(memory: usize, compaction_pause: Duration) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = Some(open(dir.path(), memory, compaction_pause));
        let (model, log, outcomes) = (Naive::default(), vec![], vec![]);
        let fingerprints = BTreeMap::new();
        Self { dir, memory, compaction_pause, open, model, log, outcomes, flushed: 0, fingerprints }
    }

    /// The world of a state that was restored to the folder: `log` stands for what was before, and was never applied.
    pub fn restored(dir: TempDir, memory: usize, model: Naive, log: Vec<Entry>) -> Self {
        let outcome = Outcome {
            revision: model.revision,
            result: Ok(state::Response::Done),
            block: None,
            changes: vec![],
        };
        let (outcomes, flushed) = (vec![outcome; log.len()], log.len() as u64);
        let open = Some(open(dir.path(), memory, Duration::ZERO));
        let fingerprints = BTreeMap::new();
        Self {
            dir,
            memory,
            compaction_pause: Duration::ZERO,
            open,
            model,
            log,
            outcomes,
            flushed,
            fingerprints,
        }
    }

    pub fn state(&mut self) -> &mut State {
        &mut self.open.as_mut().expect("open between two calls").0
    }

    pub fn reader(&self) -> &Reader {
        &self.open.as_ref().expect("open between two calls").1
    }

    /// Takes over the state of another world, and all that led to it.
    pub fn install(&mut self, other: &World) {
        let files = tempfile::tempdir().expect("a temporary directory");
        let files = files.path().join("files");
        let checkpoint = other.reader().checkpoint(&files).expect("a checkpoint");
        assert_eq!(checkpoint.applied, other.reader().view().applied());
        self.state().install(&files).expect("installed");
        assert!(!files.exists());
        assert_eq!(
            (self.state().applied(), self.state().fingerprint()),
            (checkpoint.applied, checkpoint.fingerprint)
        );
        assert_eq!(self.state().membership(), checkpoint.membership);
        self.model = other.model.clone();
        (self.log, self.outcomes) = (other.log.clone(), other.outcomes.clone());
        (self.flushed, self.fingerprints) = (checkpoint.applied.index, other.fingerprints.clone());
    }

    /// The same world with the state in another folder.
    pub fn at(&self, dir: TempDir) -> Self {
        let open = Some(open(dir.path(), self.memory, self.compaction_pause));
        Self {
            open,
            dir,
            memory: self.memory,
            compaction_pause: self.compaction_pause,
            model: self.model.clone(),
            log: self.log.clone(),
            outcomes: self.outcomes.clone(),
            flushed: self.flushed,
            fingerprints: self.fingerprints.clone(),
        }
    }

    /// Where its state lives.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Puts entries at the end of the log and applies them in one call.
    pub fn append(&mut self, bodies: Vec<EntryBody>) {
        let from = self.log.len();
        for body in bodies {
            let index = self.log.len() as u64 + 1;
            let log_id = LogId { term: 1 + index / 50, index };
            self.outcomes.push(self.model.apply(log_id, &body));
            self.log.push(Entry { log_id, body });
        }
        self.apply(from, self.log.len());
    }

    /// Applies a part of the log and compares with the model.
    fn apply(&mut self, from: usize, to: usize) {
        let entries = self.log[from..to].to_vec();
        let applied = self.state().apply(entries.clone()).expect("apply");
        for (index, fingerprint) in applied.fingerprints {
            assert_eq!(*self.fingerprints.entry(index).or_insert(fingerprint), fingerprint, "entry {index}");
        }
        let outcomes = &self.outcomes[from..to];
        assert_eq!(applied.replies.len(), entries.len());
        for ((entry, outcome), reply) in entries.iter().zip(outcomes).zip(applied.replies) {
            assert_eq!(
                (reply.revision, reply.result),
                (outcome.revision, outcome.result.clone()),
                "{}",
                show(entry)
            );
        }
        let blocks: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.block.clone()).collect();
        assert_eq!(applied.blocks, blocks);
        let changes: Vec<_> = outcomes.iter().flat_map(|outcome| outcome.changes.clone()).collect();
        assert_eq!(applied.lease_changes, changes);
    }

    pub fn flush(&mut self) {
        let applied = self.state().applied();
        let flushed = self.state().flush().expect("flush");
        assert_eq!(flushed, applied);
        assert_eq!(self.reader().persisted_applied().expect("read"), applied);
        self.flushed = applied.index;
    }

    /// Ends the state, opens it again, and applies what of the log is missing, in groups of any size.
    pub fn reopen(&mut self, end: End, generator: &mut Generator) {
        let image = match end {
            End::Clean => {
                self.flush();
                None
            }
            End::Dropped => None,
            End::Crash => Some(crash_image(self.dir.path())),
        };
        // Readers share the database, which cannot be opened twice.
        self.open = None;
        if let Some(image) = image {
            self.dir = image;
        }
        self.open = Some(open(self.dir.path(), self.memory, self.compaction_pause));
        let applied = self.state().applied();
        assert!(applied.index >= self.flushed, "{applied:?} after {end:?}, but {} was flushed", self.flushed);
        assert_eq!(self.reader().view().applied(), applied);
        assert_eq!(self.reader().view().fingerprint(), self.state().fingerprint());
        let mut from = applied.index as usize;
        if from > 0 {
            assert_eq!(applied, self.log[from - 1].log_id);
        }
        while from < self.log.len() {
            let to = (from + generator.rng.random_range(1..40)).min(self.log.len());
            self.apply(from, to);
            from = to;
        }
    }

    /// Compares what readers see with the model.
    pub fn check(&self, generator: &mut Generator) {
        let (view, model) = (self.reader().view(), &self.model);
        assert_eq!(view.revision(), model.revision);
        assert_eq!(view.compacted(), model.compacted);
        for _ in 0..4 {
            check_range(&view, model, &generator.range(model.revision), generator);
        }
        let request = generator.read_txn(model.revision);
        let answer = state::txn::read(&view, &request).expect("read");
        assert_eq!(answer, model.read_txn(&request), "{request:?}");

        let revision = generator.revision(model.revision);
        assert_eq!(self.reader().hash_kv(revision).expect("read"), model.hash_kv(revision), "at {revision}");
        assert_eq!(self.reader().hash_kv(0).expect("read"), model.hash_kv(0));

        let key = generator.key();
        let before = generator.rng.random_range(model.compacted.max(0) + 1..=model.revision + 1);
        let previous = view.previous(&key, before).expect("read");
        let expected = model.at(before - 1).get(&key).map(|(_, kv)| kv.encode_to_vec().into());
        assert_eq!(previous, expected, "{key:?} before {before}");

        assert_eq!(self.reader().leases(), model.leases.values().copied().collect::<Vec<_>>());
        for id in model.leases.keys() {
            assert_eq!(self.reader().lease_keys(*id).expect("read"), model.lease_keys(*id));
            assert_eq!(self.reader().lease(*id), model.leases.get(id).copied());
        }
        let alarms = self.reader().alarms().into_iter().map(|a| (a.alarm, a.member_id));
        assert_eq!(alarms.collect::<Vec<_>>(), model.alarms.iter().copied().collect::<Vec<_>>());
        assert_eq!(self.reader().members(), model.members.values().cloned().collect::<Vec<_>>());
        assert_eq!(self.reader().cluster_version(), model.version);
        assert_eq!(self.reader().storage_version(), model.storage_version);
        assert_eq!(self.reader().downgrade(), model.downgrade);
        for id in MEMBERS {
            assert_eq!(self.reader().removed(id), model.removed.contains(&id));
        }
        assert_eq!(self.open.as_ref().expect("open").0.membership(), model.membership);
    }

    /// Compares everything: each revision that can be read, each record, and what is left on disk.
    pub fn check_all(&self, generator: &mut Generator) {
        self.check(generator);
        let (view, model) = (self.reader().view(), &self.model);
        for revision in model.compacted.max(1)..=model.revision {
            let request = pb::RangeRequest {
                key: vec![0].into(),
                range_end: vec![0].into(),
                revision,
                ..Default::default()
            };
            check_range(&view, model, &request, generator);
            assert_eq!(self.reader().hash_kv(revision).expect("read"), model.hash_kv(revision));
        }
        drop(view);
        // What the model has deleted at once is deleted in the end.
        assert!(
            self.reader().wait_compacted(model.compacted, Duration::from_secs(60)),
            "compaction stands still"
        );
        let rows: Vec<_> = self.reader().view().scan_revisions(0).map(|row| row.expect("read")).collect();
        let expected: Vec<_> =
            model.rows.iter().map(|row| (row.revision, row.put.is_none(), row.encoded())).collect();
        assert_eq!(rows, expected);
    }
}

/// Compares a range, read from a view in chunks, with the model's.
pub fn check_range(view: &View, model: &Naive, request: &pb::RangeRequest, generator: &mut Generator) {
    let query = Query::from_request(request).expect("valid sort options");
    let answer = view.range(&query).expect("read").map(|mut rows| {
        let (len, encoded_len) = (rows.len(), rows.encoded_len());
        let mut response = pb::RangeResponse { more: rows.more, count: rows.count, ..Default::default() };
        while let Some(chunk) = rows.next_chunk(generator.rng.random_range(1..5000)).expect("read") {
            assert!(!chunk.is_empty());
            response.kvs.extend(chunk.into_iter().map(|row| KeyValue::decode(row).expect("a record")));
        }
        assert_eq!(response.kvs.len(), len);
        let alone = pb::RangeResponse { kvs: response.kvs.clone(), ..Default::default() };
        assert_eq!(alone.encoded_len(), encoded_len, "{request:?}");
        response
    });
    assert_eq!(answer, model.range(request), "{request:?}");
}

fn show(entry: &Entry) -> String {
    let EntryBody::Command(bytes) = &entry.body else { return format!("{entry:?}") };
    format!("{} {:?}", entry.log_id.index, proto::command::Command::decode(&bytes[..]))
}

/// What would be found if the process ended now. RocksDB goes on in the background meanwhile:
/// only a copy during which nothing has changed is one.
pub fn crash_image(dir: &Path) -> TempDir {
    for _ in 0..1000 {
        let image = tempfile::tempdir().expect("a temporary directory");
        let before = listing(dir);
        let same = |after: std::io::Result<Vec<_>>| matches!((&before, after), (Ok(a), Ok(b)) if *a == b);
        if let Ok(files) = &before
            && copy(files, dir, image.path()).is_ok()
            && same(listing(dir))
        {
            return image;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the files in {} never stand still", dir.display());
}

/// All files below a directory with their sizes.
fn listing(dir: &Path) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.metadata()? {
            of if of.is_dir() => files.extend(listing(&entry.path())?),
            of => files.push((entry.path(), of.len())),
        }
    }
    files.sort();
    Ok(files)
}

fn copy(files: &[(PathBuf, u64)], from: &Path, to: &Path) -> std::io::Result<()> {
    for (file, _) in files {
        let copy = to.join(file.strip_prefix(from).expect("it was listed there"));
        std::fs::create_dir_all(copy.parent().expect("it is in a folder"))?;
        std::fs::copy(file, copy)?;
    }
    Ok(())
}
