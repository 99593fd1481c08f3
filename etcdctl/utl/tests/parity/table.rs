//! The commands.

/// A command line and how to compare it.
#[derive(Clone, Debug)]
pub struct Case {
    /// Words after the program.
    pub args: Vec<String>,
    /// Stdout has to be there but is not compared.
    pub own_words: bool,
    /// A message has to be there but is not compared.
    pub own_messages: bool,
    /// Runs with little memory.
    pub broken_file: bool,
}

/// Splits a command line at spaces; single quotes keep words together.
fn case(line: &str) -> Case {
    let mut args = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, tail) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').expect("quotes are closed"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        args.push(word.to_owned());
        rest = tail.trim_start();
    }
    Case { args, own_words: false, own_messages: false, broken_file: false }
}

/// All of them, on the files that [`super::files`] makes.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for file in ["good.db", "copied.db", "old.db", "empty-store.db"] {
        for form in ["", " -w simple", " -w table", " -w json", " -w fields", " -w protobuf", " -w xml"] {
            cases.push(case(&format!("snapshot status {file}{form}")));
            cases.push(case(&format!("hashkv {file}{form}")));
        }
    }
    for revision in ["1", "2", "3", "5", "6", "12", "0x7", "1000"] {
        cases.push(case(&format!("hashkv good.db --rev {revision}")));
    }
    let same = [
        "hashkv",
        "hashkv a b",
        "hashkv nofile",
        "hashkv nofile -w xml",
        "hashkv good.db --rev x",
        "hashkv good.db --rev",
        "snapshot status",
        "snapshot status good.db old.db",
        "snapshot status nofile",
        "snapshot status nofile -w xml",
        "snapshot status damaged.db",
        "snap stat good.db",
        "-w json snapshot status good.db",
        "snapshot -w json status --timeout 3s good.db",
        "snapshot status good.db --write-out=json -w fields",
        "snapshot status good.db --timeout x",
        "snapshot status --nope good.db",
        "bogus",
        "--nope",
        "snapshot --nope",
        "version",
        "version x",
        "version -w xml",
        "completion",
        "completion tcsh",
        "completion bash zsh",
        "defrag",
        "defrag --data-dir nodir",
        "defrag --data-dir",
        "migrate",
        "migrate --data-dir nodir",
        "migrate --target-version 3.6",
        "migrate --data-dir nodir --target-version 3.6",
        "migrate --data-dir nodir --target-version 3",
        "migrate --data-dir nodir --target-version 3.5.0",
        "migrate --data-dir nodir --target-version 3.x",
        "migrate --data-dir nodir --target-version 3.4",
        "migrate --data-dir nodir --target-version 2.9",
        "snapshot restore",
        "snapshot restore good.db old.db",
        "snapshot restore good.db --bump-revision 3",
        "snapshot restore good.db --mark-compacted",
        "snapshot restore good.db --bump-revision -1",
        "snapshot restore nofile --data-dir r",
        "snapshot restore empty.db --data-dir r",
        "snapshot restore text.db --data-dir r",
        "snapshot restore copied.db --data-dir r",
        "snapshot restore damaged.db --data-dir r",
        "snapshot restore good.db --data-dir full",
        "snapshot restore good.db --data-dir r --wal-dir full",
        "snapshot restore good.db --data-dir r --name x",
        "snapshot restore good.db --data-dir r --name a --initial-cluster a=http://localhost:2380,b=http://localhost:2380",
        "snapshot restore good.db --data-dir r --name a --initial-cluster a=http://localhost",
        "snapshot restore good.db --data-dir r --name a --initial-cluster a",
        "snapshot restore good.db --data-dir r --name a --initial-cluster ''",
        "snapshot restore good.db --data-dir r --name a --initial-cluster a=http://localhost:1",
        "snapshot restore good.db --data-dir r --initial-advertise-peer-urls ftp://x:1",
        "snapshot restore good.db --data-dir r --initial-advertise-peer-urls ''",
        "snapshot restore good.db",
        "snapshot restore good.db --data-dir r",
        "snapshot restore good.db --data-dir r --wal-dir w",
        "snapshot restore good.db --data-dir r --initial-cluster-token other",
        "snapshot restore good.db --data-dir r --initial-cluster-token ''",
        "snapshot restore good.db --data-dir r --initial-memory-map-size 1024",
        "snapshot restore good.db --data-dir r --bump-revision 1000 --mark-compacted",
        "snapshot restore good.db --data-dir r --skip-hash-check",
        "snapshot restore copied.db --data-dir r --skip-hash-check",
        "snapshot restore old.db --data-dir r",
        "snapshot restore good.db --name b --initial-cluster a=http://a:1,b=http://b:1,c=http://c:1 --initial-advertise-peer-urls http://b:1",
        "snapshot restore good.db --name b --initial-cluster b=http://b:1,b=https://b:2 --initial-advertise-peer-urls https://b:2,http://b:1",
    ];
    cases.extend(same.map(case));
    // What is wrong with a file is told in other words, and where theirs panics ours does not.
    for line in ["snapshot status short.db", "snapshot status empty.db", "snapshot status text.db"] {
        cases.push(Case { own_messages: true, broken_file: true, ..case(line) });
    }
    for line in [
        "",
        "help",
        "--help",
        "help snapshot",
        "help nope",
        "snapshot",
        "snapshot bogus",
        "snapshot save x.db",
        "snapshot restore --help",
        "hashkv -h",
        "completion bash",
        "completion zsh",
        "completion fish",
        "completion powershell",
    ] {
        cases.push(Case { own_words: true, ..case(line) });
    }
    cases
}
