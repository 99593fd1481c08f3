//! Small histories by hand.

use super::*;
use crate::history::{Delete, Event, Notice, Put, Seen, Watch};

fn put(key: &str, value: &str, outcome: Outcome) -> Operation {
    let action = Action::Put(Put { key: key.into(), value: value.into(), ..Put::default() });
    Operation { client: 0, member: 0, invoked: 0, returned: 9, action, outcome }
}

fn done(revision: i64) -> Outcome {
    Outcome::Done(Answer { revision, body: Body::Put { previous: None } })
}

fn unknown() -> Outcome {
    Outcome::Unknown("lost".into())
}

fn seen(what: Notice) -> Seen {
    Seen { at: 9, member: 0, revision: 1, what }
}

fn event(key: &str, value: Option<&str>, modified: i64) -> Event {
    let pair = Pair { key: key.into(), value: value.unwrap_or("").into(), modified, ..Pair::default() };
    Event { deleted: value.is_none(), pair, previous: None }
}

fn history(operations: Vec<Operation>, events: Vec<Event>) -> History {
    let told = vec![seen(Notice::Created { start: 1 }), seen(Notice::Events(events))];
    let watch = Watch { observer: true, start: 1, seen: told, ..Watch::default() };
    History { operations, watches: vec![watch], ..History::default() }
}

#[test]
fn operations_without_an_answer_are_found_by_what_they_did() {
    let end = Delete { keys: Keys { key: "a".into(), end: "c".into() }, previous: false };
    let delete = Operation { action: Action::Delete(end), ..put("", "", unknown()) };
    let operations = vec![put("a", "1", done(2)), put("b", "2", unknown()), delete, put("a", "3", done(5))];
    let events = vec![
        event("a", Some("1"), 2),
        event("b", Some("2"), 3),
        event("a", None, 4),
        event("b", None, 4),
        event("a", Some("3"), 5),
    ];
    let timeline = Timeline::of(&history(operations, events));
    assert_eq!(timeline.anomalies(), &[]);
    let writers: Vec<_> = timeline.revisions().map(|revision| revision.writer).collect();
    assert_eq!(writers, [0, 1, 2, 3].map(Writer::Operation));
    assert_eq!(timeline.at("a", 3).map(|pair| pair.value.as_str()), Some("1"));
    assert_eq!(timeline.at("a", 4), None);
    assert_eq!(timeline.at("a", 5).map(|pair| (pair.created, pair.version)), Some((5, 1)));
    assert!(timeline.certain(&Keys { key: "\0".into(), end: "\0".into() }, 5));
}

#[test]
fn contradictions_have_names() {
    let name = |operations, events| {
        let timeline = Timeline::of(&history(operations, events));
        timeline.anomalies().iter().map(|anomaly| anomaly.name.clone()).collect::<Vec<_>>()
    };
    let refused = Outcome::Refused("no".into());
    assert_eq!(name(vec![put("a", "1", refused)], vec![event("a", Some("1"), 2)]), ["refused-happened"]);
    assert_eq!(name(vec![], vec![event("a", Some("1"), 2)]), ["phantom-write"]);
    assert_eq!(
        name(vec![put("a", "1", done(2))], vec![event("a", Some("1"), 2), event("a", None, 3)]),
        ["phantom-delete"]
    );
    assert_eq!(
        name(vec![put("a", "1", unknown())], vec![event("a", Some("1"), 2), event("a", Some("1"), 3)]),
        ["applied-twice"]
    );
    assert_eq!(
        name(vec![put("a", "1", done(2)), put("b", "2", done(2))], vec![event("b", Some("2"), 2)]),
        ["revision-reused"]
    );
    assert_eq!(
        name(vec![put("a", "1", done(2)), put("b", "2", unknown())], vec![event("b", Some("2"), 2)]),
        ["lost-write"]
    );
    assert_eq!(
        name(vec![put("a", "1", done(2))], vec![event("b", Some("2"), 4), event("a", Some("1"), 2)]),
        ["phantom-write", "revision-skipped"]
    );
}

#[test]
fn observers_complete_each_other_or_disagree() {
    let second = |events: Vec<Event>| {
        let mut history = history(
            vec![put("a", "1", unknown()), put("a", "2", unknown())],
            vec![event("a", Some("1"), 2), event("a", Some("2"), 3)],
        );
        let other = Watch {
            seen: vec![seen(Notice::Created { start: 1 }), seen(Notice::Events(events))],
            ..history.watches[0].clone()
        };
        history.watches.push(other);
        let timeline = Timeline::of(&history);
        timeline.anomalies().iter().map(|anomaly| anomaly.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(second(vec![event("a", Some("1"), 2)]), Vec::<String>::new());
    assert_eq!(second(vec![event("a", Some("2"), 2)]), ["observers-disagree"]);
    assert_eq!(second(vec![event("b", Some("3"), 2)]), ["observers-disagree"]);
    // One observer that is told of a revision again, and otherwise, disagrees with itself.
    assert_eq!(second(vec![event("a", Some("1"), 2), event("a", Some("2"), 2)]), ["observers-disagree"]);
}
