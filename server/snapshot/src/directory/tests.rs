use super::*;
use crate::sample::{Compaction, LEASE, OnDisk, Store};
use crate::schema::Bucket;

fn member(id: u64, port: u16) -> Member {
    Member {
        id,
        name: format!("m{port}"),
        peer_urls: vec![format!("http://127.0.0.1:{port}")],
        ..Member::default()
    }
}

fn three() -> Restored {
    Restored {
        cluster_id: 0xc0ffee,
        member_id: 7,
        members: vec![member(3, 1), member(7, 2), member(u64::MAX, 3)],
    }
}

/// A file to restore, and what it is restored to.
struct Made {
    file: OnDisk,
    snap: PathBuf,
    wal: PathBuf,
}

impl Made {
    fn of(store: &Store, bump: Option<u64>) -> (Self, Result<Option<Bumped>, Error>) {
        let file = OnDisk::new(&store.memory().file());
        let (snap, wal) = (file.dir().join("snap"), file.dir().join("wal"));
        fs::create_dir(&snap).expect("space");
        fs::create_dir(&wal).expect("space");
        let image = Database::open(&file.path).expect("sound");
        let mut heard = (0, 0);
        let written = three().write(&image, bump, &snap, &wal, &mut |done, of| heard = (done, of));
        assert!(written.is_err() || heard.0 == heard.1 && heard.0 > 0);
        (Self { file, snap, wal }, written)
    }

    fn db(&self) -> PathBuf {
        self.snap.join("db")
    }

    fn read(&self) -> Result<Restored, Refusal> {
        Restored::read(&self.db(), &self.wal)
    }

    fn rows(path: &Path, bucket: Bucket) -> Vec<(Vec<u8>, Vec<u8>)> {
        let database = Database::open(path).expect("sound");
        let Some(bucket) = database.bucket(bucket.name().as_bytes()).expect("sound") else { return vec![] };
        bucket.rows().map(|row| row.expect("sound")).map(|(key, value)| (key.into(), value.into())).collect()
    }
}

#[test]
fn what_is_written_is_read_and_keeps_its_rows() {
    let mut store = Store::random(1, Compaction::Finished);
    store.put(b"leased", b"1", LEASE);
    let (made, bumped) = Made::of(&store, None);
    assert_eq!(bumped.expect("written"), None);
    assert_eq!(made.read().expect("just written"), three());
    assert!(is_database(&made.db()).expect("readable") && !is_database(&made.wal).expect("readable"));
    for bucket in Bucket::ALL {
        let (before, after) = (Made::rows(&made.file.path, bucket), Made::rows(&made.db(), bucket));
        match bucket {
            Bucket::Members => assert_eq!(after.len(), 3),
            Bucket::MembersRemoved => assert_eq!(after, []),
            Bucket::Meta => {
                let meta = Meta::read(&Database::open(&made.db()).expect("sound")).expect("sound");
                assert_eq!((meta.consistent_index, meta.term), (Some(3), Some(1)));
                assert_eq!(meta.conf_state.expect("there").voters, [3, 7, u64::MAX]);
                assert_eq!(meta.finished_compact_rev, store.meta.finished_compact_rev);
            }
            _ => assert_eq!(before, after, "{bucket}"),
        }
    }
}

#[test]
fn a_bump_raises_and_compacts() {
    let store = Store::random(2, Compaction::Never);
    let (made, bumped) = Made::of(&store, Some(1000));
    let raised = store.revision + 1000;
    assert_eq!(bumped.expect("written"), Some(Bumped { latest: store.revision, raised }));
    let rows = Made::rows(&made.db(), Bucket::Key);
    let (key, value) = rows.last().expect("rows");
    assert_eq!(&key[..8], raised.to_be_bytes());
    assert!(value.is_empty());
    let meta = Meta::read(&Database::open(&made.db()).expect("sound")).expect("sound");
    assert_eq!(meta.scheduled_compact_rev, Some(raised));
    for bump in [u64::MAX, i64::MAX as u64, i64::MAX as u64 - store.revision as u64] {
        let refused = Made::of(&store, Some(bump)).1.expect_err("too far");
        assert!(matches!(refused, Error::Bump { latest, .. } if latest == store.revision), "{refused}");
    }
}

/// A log of anything but founders, or one that cannot be right, is told from a restore's.
#[test]
fn a_log_that_says_more_is_refused() {
    let (made, _) = Made::of(&Store::random(3, Compaction::Never), None);
    let path = made.wal.join(FIRST);
    let whole = fs::read(&path).expect("readable");
    assert_eq!(whole.len() as u64, PREALLOCATED);
    let entry = |kind, term, index, data| raft::Entry { kind, term, index, data }.encode_to_vec();
    let with = |more: &[(Kind, Vec<u8>)]| {
        let mut log = wal::Writer::default();
        let mut records = wal::Reader::new(&whole);
        while let Some((kind, data)) = records.next().expect("sound") {
            log.put(kind, Some(data));
        }
        more.iter().for_each(|(kind, data)| log.put(*kind, Some(data.clone())));
        fs::write(&path, log.finish()).expect("space");
        made.read().expect_err("more than a restore's").to_string()
    };
    // The leader's first entry, as a start leaves it.
    assert!(with(&[(Kind::Entry, entry(Some(0), Some(2), Some(4), None))]).contains("an entry 4 of term 2"));
    let change =
        raft::ConfChange { kind: Some(1), node_id: Some(3), context: Some(member(3, 1).to_json().into()) };
    let change = entry(Some(1), Some(1), Some(4), Some(change.encode_to_vec()));
    assert!(with(&[(Kind::Entry, change)]).contains("adds no founder"));
    let state = raft::HardState { term: Some(1), vote: Some(3), commit: Some(2) };
    assert!(with(&[(Kind::State, state.encode_to_vec())]).contains("does not end with a snapshot"));
    assert!(with(&[(Kind::Entry, vec![0xff])]).contains("raftpb.Entry"));

    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    fs::write(&path, flipped).expect("space");
    let refusal = made.read().expect_err("another CRC").to_string();
    assert!(refusal.contains("at byte") && refusal.contains("CRC"), "{refusal}");
    // Cut anywhere it is no restore's, and nothing panics.
    let end = whole.iter().rposition(|byte| *byte != 0).expect("records") + 1;
    for len in 0..end {
        fs::write(&path, &whole[..len]).expect("space");
        made.read().expect_err("cut");
    }
    fs::write(&path, &whole).expect("space");
    fs::write(made.wal.join("0000000000000001-0000000000000004.wal"), []).expect("space");
    assert!(made.read().expect_err("a second file").to_string().contains("more than the first file"));
    fs::remove_dir_all(&made.wal).expect("there");
    fs::create_dir(&made.wal).expect("space");
    assert!(made.read().expect_err("no file").to_string().contains("there is no log"));
}

/// The entries are in the log, and the database is beyond them.
#[test]
fn a_database_of_another_log_is_refused() {
    let (made, _) = Made::of(&Store::random(4, Compaction::Never), None);
    let refusal = Restored::read(&made.file.path, &made.wal).expect_err("it is at 77").to_string();
    assert!(refusal.contains("up to 77"), "{refusal}");
}
