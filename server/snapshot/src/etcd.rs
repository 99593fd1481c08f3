//! Against etcd's own tools: they read what is written here, and say of a file
//! what is said here.
//!
//! | variable | what it names |
//! |---|---|
//! | `REAL_ETCD_BIN` | etcd's server, with its `etcdctl` and `etcdutl` beside it |
//! | `REAL_ETCDUTL` | its `etcdutl`, if it is somewhere else |
//!
//! Without them the tests are skipped, and say so.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::bbolt::Database;
use crate::directory::{FIRST, Restored};
use crate::hash_kv::hash_kv;
use crate::sample::{Compaction, LEASE, Memory, OnDisk, Store};
use crate::schema::{Bucket, Role, User, UserOptions};
use crate::status::{Status, status};
use crate::verify::verify;
use crate::{Error, file};

pub(crate) struct Tools {
    etcd: Option<PathBuf>,
    etcdutl: PathBuf,
}

impl Tools {
    pub(crate) fn find(what: &str) -> Option<Self> {
        let etcd = std::env::var_os("REAL_ETCD_BIN").map(PathBuf::from);
        let etcdutl = std::env::var_os("REAL_ETCDUTL")
            .map(PathBuf::from)
            .or_else(|| etcd.as_ref().map(|etcd| etcd.with_file_name("etcdutl")))
            .filter(|etcdutl| etcdutl.exists());
        let Some(etcdutl) = etcdutl else {
            eprintln!("SKIPPED {what}: neither REAL_ETCDUTL nor an etcdutl beside REAL_ETCD_BIN");
            return None;
        };
        Some(Self { etcd, etcdutl })
    }

    /// Runs etcdutl; gives what it printed.
    fn etcdutl(&self, args: &[&str]) -> Result<String, String> {
        run(Command::new(&self.etcdutl).args(args))
    }

    pub(crate) fn status(&self, path: &Path) -> Result<serde_json::Value, String> {
        // Whatever is in the file, the tool must not take the machine's memory.
        let limited = "ulimit -v 3000000; exec \"$0\" \"$@\"";
        let args = ["snapshot", "status", text(path), "-w", "json"];
        let text = run(Command::new("sh").args(["-c", limited]).arg(&self.etcdutl).args(args))?;
        Ok(serde_json::from_str(&text).expect("JSON"))
    }

    /// etcd's tool writes to the file that it hashes: it gets a copy.
    fn hash_kv(&self, path: &Path, revision: i64) -> Result<(u32, i64, i64), String> {
        let copy = OnDisk::new(&std::fs::read(path).expect("readable"));
        let revision = revision.to_string();
        let text = self.etcdutl(&["hashkv", text(&copy.path), "--rev", &revision, "-w", "json"])?;
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let number = |name| json[name].as_i64().expect("a number");
        Ok((number("hash") as u32, number("hashRevision"), number("compactRevision")))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ASCII")
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().expect("the program is there");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr) + &text(&output.stdout))
    }
}

fn ours(path: &Path) -> Status {
    status(&Database::open(path).expect("sound"), &mut |_, _| {}).expect("sound")
}

/// As etcdutl prints it.
pub(crate) fn json(status: &Status) -> serde_json::Value {
    serde_json::json!({
        "hash": status.hash, "revision": status.revision, "totalKey": status.total_key,
        "totalSize": status.total_size, "version": status.version,
    })
}

/// Both tools say the same of a file.
fn agree(tools: &Tools, path: &Path, what: &str) {
    let (theirs, ours) = (tools.status(path).expect(what), ours(path));
    assert_eq!(theirs, json(&ours), "{what}");
    let database = Database::open(path).expect("sound");
    assert_eq!(database.check(&mut |_, _| {}).expect("readable"), [], "{what}");
    let newest = hash_kv(&database, 0, &mut |_, _| {}).expect(what);
    let revisions = [0, newest.compact_revision.max(1), newest.hash_revision, newest.hash_revision + 1];
    for revision in
        revisions.into_iter().chain((newest.compact_revision - 1 > 0).then_some(newest.compact_revision - 1))
    {
        let ours = hash_kv(&database, revision, &mut |_, _| {});
        match (tools.hash_kv(path, revision), ours) {
            (Ok(theirs), Ok(ours)) => {
                assert_eq!(
                    (ours.hash, ours.hash_revision, ours.compact_revision),
                    theirs,
                    "{what}, {revision}"
                );
            }
            (Err(theirs), Err(Error::Compacted { .. })) => assert!(theirs.contains("compacted"), "{theirs}"),
            (Err(theirs), Err(Error::FutureRevision { .. })) => {
                assert!(theirs.contains("future"), "{theirs}")
            }
            (theirs, ours) => panic!("{what}, {revision}: {theirs:?} and {ours:?}"),
        }
    }
}

#[test]
fn etcdutl_reads_what_is_written() {
    let Some(tools) = Tools::find("reading a written file with etcdutl") else { return };
    for (seed, compaction) in
        (0..9).zip([Compaction::Never, Compaction::Finished, Compaction::Scheduled].iter().cycle())
    {
        let store = Store::random(seed, *compaction);
        let file = OnDisk::new(&store.memory().file());
        agree(&tools, &file.path, &format!("seed {seed}, {compaction:?}"));
        assert_eq!(verify(&file.path, &mut |_, _| {}).expect("readable").findings, [], "seed {seed}");
    }
    // Wide trees, pages longer than a page, values of every length, 65536 rows.
    let mut store = Store::new();
    for at in 0..66_000_u32 {
        store.begin();
        let len = match at {
            0..300 => 1300 + 13 * at as usize,
            1000 => 1_400_000,
            1001..1100 => at as usize * 50,
            _ => at as usize % 20,
        };
        store.put(format!("key{at}").as_bytes(), &vec![b'v'; len], if at % 1000 == 0 { LEASE } else { 0 });
    }
    let mut memory = store.memory();
    for at in 0..40 {
        let user = User {
            name: format!("user{at}").into(),
            options: Some(UserOptions::default()),
            ..User::default()
        };
        memory.rows(Bucket::AuthUsers).insert(user.name.clone(), user.to_bytes());
        let role = Role { name: [&[b'r'; 3000][..], &[b'0' + at]].concat(), key_permission: vec![] };
        memory.rows(Bucket::AuthRoles).insert(role.name.clone(), role.to_bytes());
    }
    let file = OnDisk::new(&memory.file());
    agree(&tools, &file.path, "a large one");
    assert_eq!(verify(&file.path, &mut |_, _| {}).expect("readable").errors, 0);
    // Nothing but the buckets.
    let file = OnDisk::new(&Memory::default().file());
    agree(&tools, &file.path, "an empty one");
}

/// etcd's own check accepts what ours does, and no more, where a key is out of place.
#[test]
fn etcdutl_finds_the_same_damage() {
    let Some(tools) = Tools::find("damage as etcdutl finds it") else { return };
    let mut memory = Store::random(3, Compaction::Never).memory();
    let rows = (2..400_u32).map(|at| (at.to_be_bytes().to_vec(), vec![7; 200])).collect();
    memory.0.insert(b"other".to_vec(), rows);
    let image = memory.file();
    let file = OnDisk::new(&image);
    let database = Database::open(&file.path).expect("sound");
    let mut rows = database.bucket(b"other").expect("sound").expect("there").rows();
    rows.next().expect("a row").expect("sound");
    let at = rows.page() as usize * 4096;
    let second = 16 + 16;
    let pos = u32::from_le_bytes(image[at + second + 4..at + second + 8].try_into().expect("four bytes"));
    for (offset, bytes) in [(0, [99]), (8, [16]), (second + pos as usize, [200])] {
        let mut image = image.clone();
        image[at + offset..at + offset + 1].copy_from_slice(&bytes);
        let file = OnDisk::new(&image);
        let problems = Database::open(&file.path).expect("opens").check(&mut |_, _| {}).expect("readable");
        let theirs = tools.status(&file.path);
        assert!(!problems.is_empty() && theirs.is_err(), "{offset}: {problems:?} and {theirs:?}");
    }
}

#[test]
fn etcdutl_restores_what_is_written() {
    let Some(tools) = Tools::find("restoring a written file with etcdutl") else { return };
    let mut store = Store::random(5, Compaction::Finished);
    store.put(b"leased", b"1", LEASE);
    let file = OnDisk::new(&store.memory().file());
    let data = file.dir().join("data");
    let restored = tools.etcdutl(&["snapshot", "restore", text(&file.path), "--data-dir", text(&data)]);
    restored.expect("etcd takes the file");
    let db = data.join("member/snap/db");
    // A file from a data directory has no digest, and may be longer than its image.
    assert_eq!(ours(&db).revision, store.revision);
    agree(&tools, &db, "the restored one");
    let before = hash_kv(&Database::open(&file.path).expect("sound"), 0, &mut |_, _| {}).expect("held");
    let after = hash_kv(&Database::open(&db).expect("sound"), 0, &mut |_, _| {}).expect("held");
    assert_eq!(before, after);

    // What its tool made is read here, and what is made here of it is the same.
    let theirs = data.join("member");
    let read = Restored::read(&db, &theirs.join("wal")).expect("a restore");
    assert_eq!(read.members.len(), 1);
    let (snap, wal) = (file.dir().join("snap"), file.dir().join("wal"));
    std::fs::create_dir(&snap).expect("space");
    std::fs::create_dir(&wal).expect("space");
    let image = Database::open(&file.path).expect("sound");
    read.write(&image, None, &snap, &wal, &mut |_, _| {}).expect("space");
    let log = |wal: &Path| std::fs::read(wal.join(FIRST)).expect("readable");
    assert!(log(&wal) == log(&theirs.join("wal")), "the logs differ");
    agree(&tools, &snap.join("db"), "one restored here");
    assert_eq!(ours(&snap.join("db")).hash, ours(&db).hash);

    let bumped = file.dir().join("bumped");
    let args = ["--data-dir", text(&bumped), "--bump-revision", "1000", "--mark-compacted"];
    tools
        .etcdutl(&[&["snapshot", "restore", text(&file.path)][..], &args].concat())
        .expect("etcd takes the file");
    let db = bumped.join("member/snap/db");
    assert_eq!(ours(&db).revision, store.revision + 1000);
    agree(&tools, &db, "the bumped one");
    let report = verify(&db, &mut |_, _| {}).expect("readable");
    assert_eq!((report.errors, report.revision), (1, store.revision + 1000), "{:?}", report.findings);
    assert!(report.findings[0].text.contains("no SHA-256"), "{:?}", report.findings);
}

/// A server of etcd's, which ends with the test.
struct Server {
    child: Child,
    dir: tempfile::TempDir,
    etcdctl: PathBuf,
    endpoint: String,
}

impl Server {
    fn start(etcd: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [client, peer] = ports.map(|port| format!("http://{}", port.local_addr().expect("it is bound")));
        let child = Command::new(etcd)
            .args(["--name", "n<1>", "--data-dir", text(dir.path()), "--log-level", "error"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("n<1>={peer}"), "--unsafe-no-fsync"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        let server = Self { child, dir, etcdctl: etcd.with_file_name("etcdctl"), endpoint: client };
        let deadline = Instant::now() + Duration::from_secs(120);
        while server.ctl(&["endpoint", "health"]).is_err() {
            assert!(Instant::now() < deadline, "etcd does not answer");
        }
        server
    }

    fn ctl(&self, args: &[&str]) -> Result<String, String> {
        run(Command::new(&self.etcdctl)
            .args(["--endpoints", &self.endpoint, "--command-timeout", "60s"])
            .args(args))
    }

    fn snapshot(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        self.ctl(&["snapshot", "save", text(&path)]).expect("saved");
        path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

#[test]
fn a_file_of_etcds_is_read_alike() {
    let what = "reading a file of etcd's";
    let Some(tools) = Tools::find(what) else { return };
    let Some(etcd) = &tools.etcd else {
        eprintln!("SKIPPED {what}: REAL_ETCD_BIN is not set");
        return;
    };
    let server = Server::start(etcd);
    let ctl = |args: &[&str]| server.ctl(args).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    let empty = server.snapshot("empty");
    agree(&tools, &empty, "a new one");
    assert_eq!(verify(&empty, &mut |_, _| {}).expect("readable").findings, []);

    let grant = ctl(&["lease", "grant", "6000"]);
    let lease = grant.split(' ').nth(1).expect("lease ID granted …").to_owned();
    ctl(&["put", "leased", "1", "--lease", &lease]);
    ctl(&["put", "large", &"x".repeat(100_000)]);
    for at in 0..8 {
        ctl(&["put", "many", &format!("{at}")]);
        ctl(&["put", &format!("k{}", at % 3), "v"]);
        ctl(&["del", &format!("k{}", at % 2)]);
    }
    ctl(&["del", "k2"]);
    agree(&tools, &server.snapshot("before"), "one without compactions");
    ctl(&["compact", "12", "--physical"]);
    ctl(&["role", "add", "reader"]);
    ctl(&["role", "grant-permission", "reader", "readwrite", "a", "b"]);
    ctl(&["user", "add", "alice:secret"]);
    ctl(&["user", "add", "bob", "--no-password"]);
    ctl(&["user", "grant-role", "alice", "reader"]);
    ctl(&["member", "add", "n2", "--learner", "--peer-urls", "http://127.0.0.1:1"]);
    let path = server.snapshot("after");
    agree(&tools, &path, "one with everything");
    file::verify(&path, &mut |_, _| {}).expect("etcd wrote a digest");
    let report = verify(&path, &mut |_, _| {}).expect("readable");
    assert_eq!(report.findings, []);
    assert_eq!(report.compact_revision, 12);
    same_bytes(&path);
    // The file that the server works on has no digest, free pages, and no freelist.
    let db = server.dir.path().join("member/snap/db");
    let copy = OnDisk::new(&std::fs::read(db).expect("readable"));
    agree(&tools, &copy.path, "the server's own");
    ctl(&["defrag"]);
    agree(&tools, &server.snapshot("defragmented"), "a defragmented one");
}

/// Rows read as values and written again are the bytes that etcd wrote.
fn same_bytes(path: &Path) {
    use crate::schema::*;
    let database = Database::open(path).expect("sound");
    let mut seen = std::collections::BTreeSet::new();
    let mut meta = Meta::default();
    let mut meta_rows = Vec::new();
    for bucket in database.buckets().expect("sound") {
        let kind = crate::schema::Bucket::from_name(bucket.name()).expect("a bucket of etcd's");
        for row in bucket.rows() {
            let (key, value) = row.expect("sound");
            seen.insert(kind);
            let again: Vec<u8> = match kind {
                Bucket::Alarm => continue,
                Bucket::Auth if key == AUTH_REVISION => continue,
                Bucket::Auth => vec![0],
                Bucket::AuthRoles => Role::parse(&value).expect("a role").to_bytes(),
                Bucket::AuthUsers => User::parse(&value).expect("a user").to_bytes(),
                Bucket::Cluster if key == CLUSTER_VERSION => {
                    Version::from_bytes(&value).expect("a version").to_string().into()
                }
                Bucket::Cluster => Downgrade::from_json(&value).expect("a downgrade").to_json().into(),
                Bucket::Key => {
                    let at = RevisionKey::parse(&key).expect("a revision");
                    assert_eq!(at.to_bytes().as_ref(), key);
                    KeyValue::parse(value.clone()).expect("a value").to_bytes()
                }
                Bucket::Lease => {
                    let lease = Lease::parse(&value).expect("a lease");
                    assert_eq!(lease_key(lease.id), key[..]);
                    lease.to_bytes()
                }
                Bucket::Members => {
                    let member = Member::from_json(&value).expect("a member");
                    assert_eq!(member_key(member.id).as_bytes(), key);
                    member.to_json().into()
                }
                Bucket::MembersRemoved => MEMBER_REMOVED.into(),
                Bucket::Meta => {
                    assert!(meta.take(&key, &value).expect("a row"), "{key:?}");
                    meta_rows.push((key, value));
                    continue;
                }
            };
            assert_eq!(again, value, "{kind}, {key:?}");
        }
    }
    assert_eq!(meta, Meta::read(&database).expect("sound"));
    let rows: Vec<_> = meta.rows().into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    assert_eq!(rows, meta_rows);
    for bucket in
        [Bucket::AuthRoles, Bucket::AuthUsers, Bucket::Cluster, Bucket::Key, Bucket::Lease, Bucket::Members]
    {
        assert!(seen.contains(&bucket), "{bucket} was empty");
    }
}
