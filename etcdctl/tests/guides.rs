//! `etcdctl snapshot status` and `restore` as guides for older releases write them.

#[path = "../utl/tests/offline/sample.rs"]
mod sample;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the tool in a folder, with the variable that every guide sets.
fn run(folder: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcdctl"));
    command.args(line.split_whitespace()).current_dir(folder).env("ETCDCTL_API", "3");
    command.stdin(Stdio::null()).output().expect("the tool can be started")
}

fn printed(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_commands_of_old_guides_work() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let here = folder.path();
    fs::write(here.join("snap.db"), sample::file()).expect("written");
    let tls = "--endpoints=https://127.0.0.1:2379 --cacert=ca.crt --cert=server.crt --key=server.key";

    let table = printed(here, "--write-out=table snapshot status snap.db");
    assert!(table.contains("│   HASH   │ REVISION │ TOTAL KEYS │ TOTAL SIZE │ VERSION │"), "{table}");
    assert_eq!(printed(here, "snapshot status snap.db -w table"), table);
    assert_eq!(printed(here, &format!("{tls} snapshot status snap.db --write-out table")), table);
    assert!(printed(here, "snapshot status snap.db").contains(", 41, 40, "));

    printed(here, &format!("{tls} snapshot restore snap.db --data-dir a"));
    let member = "--name m1 --initial-cluster m1=http://host1:2380,m2=http://host2:2380 \
                  --initial-cluster-token etcd-cluster-1 --initial-advertise-peer-urls http://host1:2380";
    printed(here, &format!("snapshot restore snap.db {member}"));
    for made in ["a", "m1.etcd"] {
        assert!(here.join(made).join("member/snap/db").is_file(), "{made}");
    }
    // Nobody is asked for a password that a command without a cluster has no use for.
    printed(here, "--user root snapshot restore snap.db --data-dir b");
    printed(here, "snapshot verify snap.db");
}

#[test]
fn what_fails_has_the_status_of_etcdutl() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::write(folder.path().join("snap.db"), sample::file()).expect("written");
    for (line, status, text) in [
        ("snapshot status", 128, "snapshot status requires exactly one argument"),
        ("snapshot status none.db", 1, "stat none.db: no such file or directory"),
        ("snapshot status snap.db -w protobuf", 4, "protobuf not supported as output format"),
        (
            "snapshot restore snap.db --mark-compacted",
            128,
            "--mark-compacted required if --revision-bump > 0",
        ),
        (
            "snapshot restore snap.db --data-dir r --name x",
            1,
            "couldn't find local name \"x\" in the initial cluster configuration",
        ),
    ] {
        let output = run(folder.path(), line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{line}: {stderr}");
        assert!(stderr.contains(&format!("Error: {text}\n")), "{line}: {stderr}");
        assert!(!stderr.contains("eprecat"), "{line}: {stderr}");
    }
    assert!(run(folder.path(), "snapshot bogus").status.success());
}
