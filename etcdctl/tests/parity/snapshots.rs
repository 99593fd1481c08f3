//! `snapshot save`: the commands of both tools, against one kind of member or the other. And `snapshot get`,
//! which etcd's tool does not have: beside `get` at the member that the snapshot is of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use prost::Message as _;
use proto::etcdserverpb::{RangeResponse, ResponseHeader};

use super::case::{Case, case, script};
use super::server::{Server, free_port, skipped};

/// Saves that succeed, and what a save does not take.
pub fn saves() -> Vec<Case> {
    let folder = "cd $(mktemp -d) || exit 1; trap 'rm -r $PWD' EXIT";
    let mut cases = vec![
        case("put a b"),
        script("s", &format!("{folder}; $TOOL snapshot save s.db; echo $?; stat -c %a s.db; ls")),
        script("s", &format!("{folder}; $TOOL snapshot save s.db -w json; echo $?; ls")),
        script("s", &format!("{folder}; $TOOL snapshot save ./s.db --command-timeout 20s; echo $?; ls")),
        // A file that is there is replaced, and a part that was left is.
        script(
            "s",
            &format!(
                "{folder}; echo x > s.db; echo y > s.db.part; $TOOL snapshot save s.db; tail -c +4097 s.db | head -c 8 | od -An -tx1; ls"
            ),
        ),
        case("snapshot save"),
        case("snapshot save a b"),
        case("snapshot save /nonexistent/x"),
        case("snapshot save x --endpoints 127.0.0.1:1,127.0.0.1:2"),
        case("snapshot save x --endpoints="),
        case("snapshot save x --endpoints 127.0.0.1:1 --command-timeout 1s"),
        case("snapshot save x -w bogus"),
        case("snapshot save x --nope"),
    ];
    for line in ["snapshot", "snapshot bogus", "snapshot save --help", "help snapshot save"] {
        cases.push(case(line).own_words());
    }
    cases
}

/// What stands in the member: keys that were changed, deleted, made again and never there.
const HISTORY: &[&str] = &[
    "put a 1",
    "put b 2",
    "put /pods/x first",
    "put /pods/y other",
    "put /pods/x second",
    "del b",
    "put c bb",
    "put b again",
    "del /pods/ --prefix",
    "put /pods/x third",
    "put /podsz beside",
    "put d aa",
    "put a 10",
    "put a 11",
    "compaction 6",
];

/// What is asked for, of keys and in forms.
const KEYS: &[&str] = &[
    "a",
    "nothing",
    "/pods/ --prefix",
    "a c",
    "b --from-key",
    "'' --prefix",
    "'' --from-key",
    "a --prefix --print-value-only",
    "a d --keys-only",
    "'' --prefix --count-only",
    "a z --limit 2",
    "a z --limit 2 --sort-by VALUE",
    "a z --limit 2 --sort-by VALUE --order DESCEND",
    "a z --order DESCEND",
    "a z --order ASCEND --limit 3",
    "a z --sort-by CREATE",
    "a z --sort-by MODIFY --order DESCEND --limit 3",
    "a z --sort-by VERSION --order DESCEND --limit 1",
    "a z --keys-only --sort-by VALUE",
    "a z --min-mod-rev 9 --max-mod-rev 13",
    "a z --min-create-rev 7 --limit 1",
    "'' --prefix --rev 6",
    "'' --prefix --rev 7 --keys-only",
    "'' --prefix --rev 10",
    "'' --prefix --rev 5",
    "'' --prefix --rev 16",
    "'' --prefix --rev 17",
    "a --rev -3",
    "''",
    "a z --prefix",
    "a --prefix --from-key",
    "a --keys-only --count-only",
    "a --order up",
    "a --sort-by size",
    "a --min-mod-rev 5 --max-mod-rev 2",
];
const FORMS: &[&str] =
    &["", "-w json", "-w fields", "-w table", "-w protobuf", "-w x", "--hex", "--hex -w fields"];

/// Compares what a member shows, and a snapshot of it.
pub fn compare_inside(etcd: Option<PathBuf>, tool: &Path) {
    let Some(etcd) = etcd else { return skipped() };
    let port = free_port();
    let server = Server::start(&etcd, port, "http", &[]);
    let run = |words: &[String]| -> Output {
        let mut command = Command::new(tool);
        command.args(words).env("ETCDCTL_ENDPOINTS", format!("127.0.0.1:{port}")).stdin(Stdio::null());
        command.output().expect("the tool can be started")
    };
    let done = |line: &str| {
        let output = run(&case(line).args);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for line in HISTORY {
        done(line);
    }
    let lease = done("lease grant 600");
    let lease = lease.split(' ').nth(1).expect("an id");
    done(&format!("put leased v --lease {lease}"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("s.db").display().to_string();
    done(&format!("snapshot save {file}"));
    let saved = fs::read(&file).expect("saved");
    let asked = KEYS.iter().flat_map(|keys| FORMS.iter().map(move |form| format!("{keys} {form}")));
    let asked: Vec<_> = asked.map(|line| case(&line).args).collect();
    let shown = |args: &Vec<String>| told(&run(&[&["get".to_owned()], &args[..]].concat()), args);
    let shown: Vec<_> = asked.iter().map(shown).collect();
    drop(server);
    let mut different = 0;
    for (args, shown) in asked.iter().zip(shown) {
        let words = [&["snapshot", "get", &file].map(str::to_owned), &args[..]].concat();
        let found = told(&run(&words), args);
        if found != shown {
            different += 1;
            println!("--- {}\nmember: {shown:#?}\nfile:   {found:#?}", args.join(" "));
        }
    }
    assert!(different == 0, "{different} of {} differ", asked.len());
    assert!(fs::read(&file).expect("saved") == saved, "the file was changed");
    println!("{} commands agree", asked.len());
}

/// Stdout but for what a file does not know, the error, and the exit status.
fn told(output: &Output, args: &[String]) -> (String, String, Option<i32>) {
    let errors = String::from_utf8_lossy(&output.stderr);
    let error = errors.lines().find(|line| line.starts_with("Error: ")).unwrap_or_default().to_owned();
    let text = String::from_utf8_lossy(&output.stdout);
    let text = if args.iter().any(|word| word == "protobuf") {
        let mut reply = RangeResponse::decode(&output.stdout[..]).expect("a message");
        reply.header =
            reply.header.map(|header| ResponseHeader { revision: header.revision, ..Default::default() });
        format!("{reply:?}")
    } else if let Some((header, rest)) =
        text.strip_prefix("{\"header\":{").and_then(|text| text.split_once('}'))
    {
        let revision = header.split(',').find(|field| field.starts_with("\"revision\":"));
        format!("{revision:?}{rest}")
    } else {
        let unknown = ["\"ClusterID\"", "\"MemberID\"", "\"RaftTerm\""];
        let lines = text.lines().filter(|line| !unknown.iter().any(|name| line.starts_with(name)));
        lines.collect::<Vec<_>>().join("\n")
    };
    (text, error, output.status.code())
}
