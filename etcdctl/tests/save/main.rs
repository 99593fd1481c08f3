//! `snapshot save` where things go wrong: what it leaves, what it says, its exit status.
//!
//! The member is one that ends its snapshot as asked ([`member`]); the tool is the real one.

mod member;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use self::member::{End, Member};

/// Bytes of an image that takes many messages.
const IMAGE: usize = 10 * 1024 * 1024;

/// Bytes of a small image.
const SMALL: usize = 128 * 1024;

/// Starts `snapshot save`.
fn start(endpoint: &str, args: &[&OsStr]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_etcdctl"))
        .args(["snapshot", "save", "--endpoints", endpoint])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool can be started")
}

fn save(member: &Member, args: &[&OsStr]) -> Output {
    start(&member.endpoint(), args).wait_with_output().expect("the tool ends")
}

/// The last thing that was said, after `Error: `.
fn error(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().rev().find_map(|line| line.strip_prefix("Error: "));
    line.unwrap_or_else(|| panic!("no error in {text}")).to_owned()
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("text")).collect();
    names.sort();
    names
}

/// Half of what comes, as the message says it.
fn half() -> String {
    format!("[bytes: {} of {IMAGE}]", IMAGE / 2)
}

/// Waits until half of the snapshot is in the part.
fn wait_for_half(part: &Path) {
    while fs::metadata(part).map_or(0, |metadata| metadata.len()) < IMAGE as u64 / 2 {
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_snapshot_is_there_whole_and_private() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("a.db");
    let output = save(&Member::start(IMAGE, End::Well), &[file.as_ref()]);
    assert!(output.status.success(), "{output:?}");
    let said = format!("Snapshot saved at {}\nServer version 3.7.0\n", file.display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), said);
    assert!(fs::read(&file).expect("a file") == member::file(IMAGE));
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    assert_eq!(names(dir.path()), ["a.db"]);
}

#[test]
fn what_does_not_come_whole_leaves_what_was_there() {
    let refused =
        "could not write snapshot: rpc error: code = Unavailable desc = the disk of this member is gone";
    let cases = [
        (End::Refused, format!("{refused} {}", half())),
        (End::Short, format!("sha256 checksum not found [bytes: {IMAGE}]")),
        (End::Damaged, "the snapshot that came is damaged: expected sha256 0000".to_owned()),
    ];
    for (end, expected) in cases {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a.db");
        fs::write(&file, "the one of yesterday").expect("written");
        let output = save(&Member::start(IMAGE, end), &[file.as_ref()]);
        assert_eq!(output.status.code(), Some(5), "{end:?}");
        assert!(output.stdout.is_empty(), "{end:?}");
        assert!(error(&output).starts_with(&expected), "{end:?}: {}", error(&output));
        assert_eq!(names(dir.path()), ["a.db"]);
        assert_eq!(fs::read_to_string(&file).expect("a file"), "the one of yesterday");
    }
}

#[test]
fn a_member_that_dies_leaves_no_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("a.db");
    let member = Member::start(IMAGE, End::Never);
    let tool = start(&member.endpoint(), &[file.as_ref()]);
    wait_for_half(&dir.path().join("a.db.part"));
    drop(member);
    let output = tool.wait_with_output().expect("the tool ends");
    assert_eq!(output.status.code(), Some(5));
    let error = error(&output);
    assert!(error.starts_with("could not write snapshot: ") && error.ends_with(&half()), "{error}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_member_that_hangs_is_left_when_the_time_given_is_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("a.db");
    let member = Member::start(IMAGE, End::Never);
    let output = save(&member, &[file.as_ref(), "--command-timeout".as_ref(), "3s".as_ref()]);
    assert_eq!(output.status.code(), Some(5));
    assert!(error(&output).contains("context deadline exceeded"), "{}", error(&output));
    assert!(names(dir.path()).is_empty());
}

#[test]
fn an_interrupt_leaves_no_file() {
    for signal in ["INT", "TERM"] {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a.db");
        let member = Member::start(IMAGE, End::Never);
        let tool = start(&member.endpoint(), &[file.as_ref()]);
        wait_for_half(&dir.path().join("a.db.part"));
        let killed = Command::new("kill").args(["-s", signal, &tool.id().to_string()]).status();
        assert!(killed.expect("kill").success());
        let output = tool.wait_with_output().expect("the tool ends");
        assert_eq!(output.status.code(), Some(5), "{signal}");
        assert!(error(&output).ends_with("nothing was saved"), "{}", error(&output));
        assert!(names(dir.path()).is_empty(), "{signal}");
    }
}

/// A file system of a few megabytes, gone with the test.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one, where this process may.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=4m", "small"]).arg(dir.path());
        let mounted = command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A test that failed has more to say than this.
        Command::new("umount").arg(self.0.path()).status().ok();
    }
}

#[test]
fn a_full_disk_leaves_no_file() {
    let Some(disk) = SmallDisk::mount() else {
        let text = b"SKIPPED full disk: this process may not mount a tmpfs\n";
        return std::io::stderr().write_all(text).expect("stderr can be written to");
    };
    let file = disk.0.path().join("a.db");
    let output = save(&Member::start(IMAGE, End::Well), &[file.as_ref()]);
    assert_eq!(output.status.code(), Some(5));
    let expected =
        format!("could not write snapshot: write {}.part: no space left on device [bytes: ", file.display());
    assert!(error(&output).starts_with(&expected), "{}", error(&output));
    assert!(names(disk.0.path()).is_empty());
}

#[test]
fn a_directory_keeps_the_newest() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("etcd-snapshot-abd-20261121T075955.000001Z.db"), "of another cluster")
        .expect("written");
    let member = Member::start(SMALL, End::Well);
    let mut saved = Vec::new();
    for _ in 0..4 {
        let output = save(&member, &[dir.path().as_ref(), "--keep".as_ref(), "2".as_ref()]);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.lines().next().unwrap_or_default();
        let prefix = format!("Snapshot saved at {}/etcd-snapshot-abc-", dir.path().display());
        assert!(line.starts_with(&prefix) && line.ends_with("Z.db"), "{line}");
        saved.push(line.rsplit('/').next().unwrap_or_default().to_owned());
    }
    let mut expected = saved.split_off(2);
    expected.push("etcd-snapshot-abd-20261121T075955.000001Z.db".to_owned());
    assert_eq!(names(dir.path()), expected);

    // Without --keep nothing goes, and a snapshot that fails takes none away.
    assert!(save(&member, &[dir.path().as_ref()]).status.success());
    assert_eq!(names(dir.path()).len(), 4);
    let broken = Member::start(SMALL, End::Short);
    assert_eq!(save(&broken, &[dir.path().as_ref(), "--keep=1".as_ref()]).status.code(), Some(5));
    assert_eq!(names(dir.path()).len(), 4);
}

#[test]
fn what_was_asked_for_has_to_make_sense() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("a.db");
    let file = file.as_os_str();
    let cases: [(&str, &[&OsStr], i32, &str); 6] = [
        ("127.0.0.1:1", &[], 128, "snapshot save expects one argument <filename>"),
        ("127.0.0.1:1", &[file, file], 128, "snapshot save expects one argument <filename>"),
        ("127.0.0.1:1", &[file, "--keep=2".as_ref()], 128, "--keep needs a directory, "),
        (
            "127.0.0.1:1",
            &[dir.path().as_ref(), "--keep=0".as_ref()],
            128,
            "--keep must keep at least one snapshot",
        ),
        (
            "127.0.0.1:1,127.0.0.1:2",
            &[file],
            5,
            "snapshot must be requested to one selected node, not multiple [127.0.0.1:1 127.0.0.1:2]",
        ),
        ("127.0.0.1:1", &[file, "--command-timeout=1s".as_ref()], 5, "context deadline exceeded"),
    ];
    for (endpoint, args, status, text) in cases {
        let output = start(endpoint, args).wait_with_output().expect("the tool ends");
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert!(error(&output).starts_with(text), "{}", error(&output));
    }
    assert!(names(dir.path()).is_empty());
}

/// Every change of a command or flag shows here. To accept it:
/// `UPDATE_GOLDEN=1 cargo test -p etcdctl --test save help`.
#[test]
fn help_is_golden() {
    let mut text = String::new();
    for words in [&["snapshot"][..], &["snapshot", "get"], &["snapshot", "save"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_etcdctl"));
        let output = command.args(words).arg("--help").output().expect("the tool can be started");
        assert!(output.status.success(), "{output:?}");
        text +=
            &format!("$ etcdctl {} --help\n{}\n", words.join(" "), String::from_utf8_lossy(&output.stdout));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testdata/snapshot-help.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, &text).expect("writing the golden file");
    }
    assert_eq!(text, fs::read_to_string(path).expect("the golden file"));
}
