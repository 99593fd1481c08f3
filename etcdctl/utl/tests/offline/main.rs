//! `etcdutl` by itself, on a file of our own writer and on the directory that it becomes.

mod sample;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use server::datadir::{DataDir, Founding, Identity};
use snapshot::bbolt::Database;
use state::LogId;
use state::snapshot::Restore;

/// Runs the tool in a folder.
fn run(folder: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcdutl"));
    command.args(line.split_whitespace()).current_dir(folder).stdin(Stdio::null());
    command.output().expect("the tool can be started")
}

/// What a command printed; it must have succeeded.
fn printed(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The status of a command that failed, and what it said.
fn refused(folder: &Path, line: &str) -> (i32, String) {
    let output = run(folder, line);
    let stderr = String::from_utf8(output.stderr).expect("text");
    let at = stderr.find("Error: ").unwrap_or_else(|| panic!("{line}: no error in {stderr:?}"));
    (output.status.code().expect("it ends by itself"), stderr[at + "Error: ".len()..].trim_end().to_owned())
}

/// A folder with a file `good.db`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::write(folder.path().join("good.db"), sample::file()).expect("written");
    folder
}

#[test]
fn a_file_is_read_and_stays_as_it_is() {
    let folder = folder();
    let path = folder.path().join("good.db");
    let before =
        (fs::read(&path).expect("a file"), fs::metadata(&path).and_then(|file| file.modified()).ok());
    let status = printed(folder.path(), "snapshot status good.db");
    assert!(status.contains(", 41, 40, ") && status.ends_with(" kB, 3.7.0\n"), "{status}");
    let hash = printed(folder.path(), "hashkv good.db");
    assert!(hash.ends_with(", 41, -1\n"), "{hash}");
    let verified = printed(folder.path(), "snapshot verify good.db");
    assert!(verified.ends_with("\nsound\n"), "{verified}");
    let json = printed(folder.path(), "snapshot verify good.db -w json");
    assert!(json.starts_with(r#"{"file":"good.db","sound":true,"#), "{json}");
    assert_eq!(refused(folder.path(), "snapshot verify good.db -w table").0, 4);
    let after = (fs::read(&path).expect("a file"), fs::metadata(&path).and_then(|file| file.modified()).ok());
    assert!(before == after, "the file has changed");
}

#[test]
fn what_is_no_snapshot_is_told_so_and_never_a_panic() {
    let folder = folder();
    let good = sample::file();
    let mut damaged = good.clone();
    // The digest alone tells.
    *damaged.last_mut().expect("a digest") ^= 1;
    for (name, content) in [
        ("damaged.db", damaged.as_slice()),
        ("short.db", &good[..9000]),
        ("empty.db", b""),
        ("text.db", b"hello\n"),
    ] {
        fs::write(folder.path().join(name), content).expect("written");
        for command in ["snapshot status", "snapshot verify", "hashkv", "snapshot restore --data-dir r"] {
            let line = format!("{command} {name}");
            if name == "damaged.db" && matches!(command, "snapshot status" | "hashkv") {
                // As etcd's, these do not look at the digest.
                printed(folder.path(), &line);
                continue;
            }
            let (status, text) = refused(folder.path(), &line);
            assert!(status == 1 && !text.contains("panicked"), "{line}: {status}, {text}");
            assert!(!folder.path().join("r").join("member").exists(), "{line} left something");
        }
    }
}

#[test]
fn a_directory_is_made_of_a_file() {
    let folder = folder();
    let restored = run(folder.path(), "snapshot restore good.db --data-dir d --initial-memory-map-size 5");
    assert!(restored.status.success() && restored.stdout.is_empty(), "{restored:?}");
    let said = String::from_utf8(restored.stderr).expect("text");
    for message in
        ["\tinfo\trestoring snapshot\t{", "\tinfo\trestored snapshot\t{", "\tinfo\tadded member\t{"]
    {
        assert!(said.contains(message), "no {message:?} in {said}");
    }
    assert_eq!(
        refused(folder.path(), "snapshot restore good.db --data-dir d"),
        (1, "data-dir \"d\" not empty or could not be read".to_owned())
    );
}

#[test]
fn a_directory_is_defragmented_and_its_version_confirmed() {
    let folder = folder();
    member_directory(folder.path());
    let defragmented = run(folder.path(), "defrag --data-dir d");
    assert!(defragmented.status.success(), "{defragmented:?}");
    let said = String::from_utf8(defragmented.stderr).expect("text");
    assert!(
        said.contains("\tinfo\tfinished defragmenting directory\t{\"path\": \"d/member/snap/db\""),
        "{said}"
    );

    let same = run(folder.path(), "migrate --data-dir d --target-version 3.7");
    assert!(same.status.success(), "{same:?}");
    let said = String::from_utf8(same.stderr).expect("text");
    assert!(said.contains("\tstorage version up-to-date\t{\"storage-version\": \"3.7\"}"), "{said}");
    for (target, text) in [
        ("3.6", "cannot migrate storage from 3.7 to 3.6: "),
        ("3.6 --force", "cannot migrate storage from 3.7 to 3.6: "),
        ("3.8", "cannot create migration plan: version \"3.8.0\" is not supported"),
        ("4.0", "cannot create migration plan: changing major storage version is not supported"),
    ] {
        let (status, said) =
            refused(folder.path(), &format!("migrate --data-dir d --target-version {target}"));
        assert!(status == 1 && said.starts_with(text), "{target}: {status}, {said}");
    }
}

/// The directory `d` of a member that has taken the rows of `good.db` over.
fn member_directory(folder: &Path) {
    let dir = folder.join("d");
    let mut data = DataDir::open(&dir, &dir.join("member").join("wal")).expect("a new directory");
    let identity = Identity { cluster_id: 1, member_id: 2 };
    data.found(Founding { identity, founders: vec![], peers: vec![] }).expect("written");
    let image = Database::open(&folder.join("good.db")).expect("an image");
    let begin = Restore { applied: LogId { term: 1, index: 1 }, membership: Bytes::new(), nodes: vec![] };
    state::snapshot::restore(state::Options::new(data.state()), &image, &begin, &mut |_| {})
        .expect("taken over");
}

#[test]
fn a_directory_in_use_is_waited_for_and_then_refused() {
    let folder = folder();
    member_directory(folder.path());
    let member = File::open(folder.path().join("d/member/lock")).expect("a lock");
    rustix::fs::flock(&member, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
    for command in ["defrag", "migrate --target-version 3.7"] {
        let (status, text) = refused(folder.path(), &format!("{command} --data-dir d --timeout 100ms"));
        assert!(status == 1 && text.contains("is in use by another process"), "{command}: {status}, {text}");
    }
    drop(member);
    printed(folder.path(), "defrag --data-dir d --timeout 100ms");
}

#[test]
fn a_directory_of_etcd_is_named_as_such() {
    let folder = folder();
    fs::create_dir_all(folder.path().join("d/member/snap")).expect("a directory");
    fs::copy(folder.path().join("good.db"), folder.path().join("d/member/snap/db")).expect("copied");
    let sentence = "d is a data directory of etcd, or one that no member has started on since it was restored: it takes etcd's own etcdutl to";
    assert_eq!(
        refused(folder.path(), "defrag --data-dir d"),
        (1, format!("Failed to defragment etcd data[d] ({sentence} defragment it)"))
    );
    assert_eq!(
        refused(folder.path(), "migrate --data-dir d --target-version 3.7"),
        (1, format!("{sentence} migrate it"))
    );
}

/// Every change of a command or flag shows here. To accept it:
/// `UPDATE_GOLDEN=1 cargo test -p etcdutl --test offline help`.
#[test]
fn help_is_golden() {
    let folder = folder();
    let mut text = String::new();
    for command in [
        "",
        "snapshot",
        "snapshot status",
        "snapshot restore",
        "snapshot verify",
        "hashkv",
        "defrag",
        "migrate",
        "completion",
    ] {
        text += &format!(
            "$ etcdutl {command} --help\n{}\n",
            printed(folder.path(), &format!("{command} --help"))
        );
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testdata/help.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, &text).expect("writing the golden file");
    }
    assert_eq!(text, fs::read_to_string(path).expect("the golden file"));
}
