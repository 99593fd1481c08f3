use super::*;
use crate::history::{
    Compaction, Compare, Delete, End, Event, Fault, Keys, Notice, Put, Range, Run, Seen, Watch,
};

fn one(key: &str) -> Keys {
    Keys { key: key.to_owned(), end: String::new() }
}

fn get(key: &str) -> Range {
    Range { keys: one(key), ..Range::default() }
}

fn put(key: &str, value: &str) -> Put {
    Put { key: key.to_owned(), value: value.to_owned(), ..Put::default() }
}

fn found(key: &str, value: &str) -> Body {
    let pair = Pair { key: key.to_owned(), value: value.to_owned(), ..Pair::default() };
    Body::Range { pairs: vec![pair], count: 1, more: false }
}

fn nothing_found() -> Body {
    Body::Range { pairs: Vec::new(), count: 0, more: false }
}

fn done(revision: i64, body: Body) -> Outcome {
    Outcome::Done(Answer { revision, body })
}

/// Operations of clients 3 and 4 by turns, each 10 long and 5 after the one before.
fn history(workload: &str, operations: Vec<(Action, Outcome)>) -> History {
    let operations = operations.into_iter().enumerate().map(|(number, (action, outcome))| {
        let (client, invoked) = (3 + number as u32 % 2, number as u64 * 5);
        Operation { client, member: number % 3, invoked, returned: invoked + 9, action, outcome }
    });
    let run = Run { workload: workload.to_owned(), ..Run::default() };
    History { run, operations: operations.collect(), ..History::default() }
}

fn written(history: &History) -> String {
    let mut out = Vec::new();
    write(history, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// What is told of each invocation and completion, without index, time and member.
fn told(history: &History) -> Vec<String> {
    let short = |line: &str| {
        let line = line.split_once(":type ").unwrap().1;
        line.split_once(", :member").map_or(line, |(line, _)| line).to_owned()
    };
    written(history).lines().map(short).collect()
}

#[test]
fn appends_are_told_as_elle_reads_them() {
    let append = Txn {
        compares: vec![Compare {
            key: "a".to_owned(),
            relation: Relation::Equal,
            operand: Operand::Modified(4),
        }],
        then: vec![Request::Range(get("a")), Request::Range(get("b")), Request::Put(put("a", "1 2 7"))],
        otherwise: vec![Request::Range(get("a"))],
    };
    let answers = vec![found("a", "1 2"), nothing_found(), Body::Put { previous: None }];
    let held = done(5, Body::Txn { succeeded: true, answers });
    let too_late = done(6, Body::Txn { succeeded: false, answers: vec![found("a", "1 2 7")] });
    let range = Range { keys: Keys { key: "a".to_owned(), end: "b".to_owned() }, ..Range::default() };
    let history = history(
        "append",
        vec![
            (Action::Txn(append.clone()), held),
            (Action::Txn(append.clone()), too_late),
            (Action::Txn(append.clone()), Outcome::Unknown("late".to_owned())),
            (Action::Txn(append), Outcome::Refused("full".to_owned())),
            (Action::Range(get("b")), done(6, nothing_found())),
            (Action::Range(range), done(6, found("a", "1 2 7"))),
        ],
    );
    assert_eq!(
        told(&history),
        [
            ":invoke, :process 3, :f :txn, :value [[:r \"a\" nil] [:r \"b\" nil] [:append \"a\" 7]]",
            ":invoke, :process 4, :f :txn, :value [[:r \"a\" nil]]",
            ":ok, :process 3, :f :txn, :value [[:r \"a\" [1 2]] [:r \"b\" []] [:append \"a\" 7]]",
            ":invoke, :process 3, :f :txn, :value [[:r \"a\" nil] [:r \"b\" nil] [:append \"a\" 7]]",
            ":ok, :process 4, :f :txn, :value [[:r \"a\" [1 2 7]]]",
            ":invoke, :process 4, :f :txn, :value [[:r \"a\" nil] [:r \"b\" nil] [:append \"a\" 7]]",
            ":info, :process 3, :f :txn, :value [[:r \"a\" nil] [:r \"b\" nil] [:append \"a\" 7]]",
            // Client 3 does not know how its last one ended, and goes on as another process.
            ":invoke, :process 5, :f :txn, :value [[:r \"b\" nil]]",
            ":fail, :process 4, :f :txn, :value [[:r \"a\" nil] [:r \"b\" nil] [:append \"a\" 7]]",
            ":invoke, :process :aside-4, :f :range, :value {:end \"b\", :key \"a\", :limit 0, :revision 0, :serializable false}",
            ":ok, :process 5, :f :txn, :value [[:r \"b\" []]]",
            ":ok, :process :aside-4, :f :range, :value {:count 1, :more false, :pairs [{:created 0, :key \"a\", :lease 0, :modified 0, :value \"1 2 7\", :version 0}]}",
        ]
    );
}

#[test]
fn registers_are_told_as_reads_writes_and_cas() {
    let cas = |operand: Operand| {
        Action::Txn(Txn {
            compares: vec![Compare { key: "x".to_owned(), relation: Relation::Equal, operand }],
            then: vec![Request::Put(put("x", "9"))],
            otherwise: vec![Request::Range(get("x"))],
        })
    };
    let txn = |succeeded: bool| done(3, Body::Txn { succeeded, answers: Vec::new() });
    let delete = Delete { keys: one("x"), previous: true };
    let gone = Body::Delete { deleted: 1, previous: Vec::new() };
    let history = history(
        "register",
        vec![
            (Action::Range(get("x")), done(2, found("x", "8"))),
            (Action::Range(get("x")), done(2, nothing_found())),
            (Action::Put(put("x", "v\"8\"")), done(2, Body::Put { previous: None })),
            (Action::Delete(delete), done(2, gone)),
            (cas(Operand::Value("8".to_owned())), txn(true)),
            (cas(Operand::Created(0)), txn(false)),
            (Action::Range(Range { serializable: true, ..get("x") }), done(2, nothing_found())),
        ],
    );
    let told = told(&history);
    let completions: Vec<&str> =
        told.iter().map(String::as_str).filter(|line| !line.starts_with(":invoke")).collect();
    assert_eq!(
        completions,
        [
            ":ok, :process 3, :f :read, :value [\"x\" 8]",
            ":ok, :process 4, :f :read, :value [\"x\" nil]",
            ":ok, :process 3, :f :write, :value [\"x\" \"v\\\"8\\\"\"]",
            ":ok, :process 4, :f :write, :value [\"x\" nil]",
            ":ok, :process 3, :f :cas, :value [\"x\" [8 9]]",
            ":fail, :process 4, :f :cas, :value [\"x\" [nil 9]]",
            ":ok, :process :aside-3, :f :range, :value {:count 0, :more false, :pairs []}",
        ]
    );
    assert_eq!(told[0], ":invoke, :process 3, :f :read, :value [\"x\" nil]");
}

/// A history with something of everything.
fn everything() -> History {
    let action = Action::LeaseGrant { id: 7, ttl: 5 };
    let lease = done(2, Body::Lease { id: 7, ttl: 5 });
    let mut history = history(
        "mix",
        vec![
            (action, lease),
            (Action::Compact { revision: 1 }, done(2, Body::Nothing)),
            (Action::Put(put("\0\u{1b}é\\", "a\nb")), Outcome::Unknown("\"late\"".to_owned())),
        ],
    );
    history.faults.push(Fault {
        kind: "partition one-way".to_owned(),
        what: "1 | 2".to_owned(),
        began: 1,
        ended: 40,
    });
    history.compactions.push(Compaction { asked: 2, revision: 8 });
    let event = Event { deleted: true, pair: Pair::default(), previous: None };
    let notices = [
        Notice::Created { start: 1 },
        Notice::Events(vec![event]),
        Notice::Progress,
        Notice::Cancelled { reason: "compacted".to_owned(), compacted: 3 },
        Notice::Lost("reset".to_owned()),
    ];
    let seen = notices.map(|what| Seen { at: 3, member: 1, revision: 2, what });
    history.watches.push(Watch { keys: one("a"), seen: seen.to_vec(), ..Watch::default() });
    history.ends.push(End { member: 2, revision: 9, hash: 77, compacted: 1 });
    history
}

#[test]
fn all_else_is_told_as_maps() {
    let text = written(&everything());
    assert_eq!(
        text,
        "\
{:index 0, :time 0, :type :invoke, :process 3, :f :lease-grant, :value {:id 7, :ttl 5}, :member 0}
{:index 1, :time 1, :type :info, :process :nemesis, :f :start-partition-one-way, :value \"1 | 2\"}
{:index 2, :time 2, :type :info, :process :nemesis, :f :compact, :value {:revision 8}}
{:index 3, :time 3, :type :info, :process :watch-0, :f :created, :value {:start 1}, :member 1, :revision 2}
{:index 4, :time 3, :type :info, :process :watch-0, :f :events, :value [{:deleted true, :pair {:created 0, :key \"\", :lease 0, :modified 0, :value \"\", :version 0}, :previous nil}], :member 1, :revision 2}
{:index 5, :time 3, :type :info, :process :watch-0, :f :progress, :value nil, :member 1, :revision 2}
{:index 6, :time 3, :type :info, :process :watch-0, :f :cancelled, :value {:compacted 3, :reason \"compacted\"}, :member 1, :revision 2}
{:index 7, :time 3, :type :info, :process :watch-0, :f :lost, :value \"reset\", :member 1, :revision 2}
{:index 8, :time 5, :type :invoke, :process 4, :f :compact, :value {:revision 1}, :member 1}
{:index 9, :time 9, :type :ok, :process 3, :f :lease-grant, :value {:id 7, :ttl 5}, :member 0, :revision 2}
{:index 10, :time 10, :type :invoke, :process 3, :f :put, :value {:key \"\\u0000\\u001bé\\\\\", :lease 0, :previous false, :value \"a\\nb\"}, :member 2}
{:index 11, :time 14, :type :ok, :process 4, :f :compact, :value nil, :member 1, :revision 2}
{:index 12, :time 19, :type :info, :process 3, :f :put, :value {:key \"\\u0000\\u001bé\\\\\", :lease 0, :previous false, :value \"a\\nb\"}, :member 2, :error \"\\\"late\\\"\"}
{:index 13, :time 40, :type :info, :process :nemesis, :f :stop-partition-one-way, :value \"1 | 2\"}
{:index 14, :time 40, :type :info, :process :member-2, :f :hash, :value {:compacted 1, :hash 77, :member 2, :revision 9}}
"
    );
}

/// As read by somebody else, who does not know `\u` in texts, as Clojure does.
#[test]
fn every_line_is_a_map_that_others_read() {
    use clojure_reader::edn::{Edn, read};

    let text = written(&everything());
    assert_eq!(text.lines().count(), 15);
    for (index, line) in text.lines().enumerate() {
        let line = &line.replace("\\u00", "");
        let (value, rest) = read(line).unwrap_or_else(|error| panic!("{error:?} in {line}"));
        assert_eq!(rest, "", "{line}");
        assert_eq!(value.get(&Edn::key("index")), Some(&Edn::Int(index as i64)), "{line}");
        for name in ["time", "type", "process", "f", "value"] {
            assert!(value.contains(&Edn::key(name)), "{name} is missing in {line}");
        }
    }
    let put = text.lines().find(|line| line.contains(":f :put")).expect("one is there");
    let put = put.replace("\\u00", "");
    let (put, _) = read(&put).expect("it was read before");
    let value = put.get(&Edn::key("value")).expect("it has one");
    assert_eq!(value.get(&Edn::key("key")), Some(&Edn::string("001bé\\")));
    assert_eq!(value.get(&Edn::key("value")), Some(&Edn::string("a\nb")));
}

#[test]
fn json_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let history = everything();
    save(&history, dir.path()).unwrap();
    assert_eq!(load(&dir.path().join("history.json")).unwrap(), history);
    assert_eq!(std::fs::read_to_string(dir.path().join("history.edn")).unwrap(), written(&history));
    std::fs::write(dir.path().join("history.json"), "{}").unwrap();
    assert!(load(&dir.path().join("history.json")).is_err());
}
