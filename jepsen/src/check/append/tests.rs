//! A history by hand for each anomaly, and correct ones from seeds.

use super::*;
use crate::generate::{Plan, Workload, history as generated};
use crate::history::{
    Action, Answer, Body, Compare, Keys, Nanos, Operand, Operation, Outcome, Pair, Put, Range, Relation,
    Request, Txn,
};

#[test]
fn a_correct_store_has_no_anomalies() {
    for seed in 0..60 {
        let mut plan = Plan::new(Workload::Append, seed);
        (plan.operations, plan.clients) = (400, 8);
        let history = generated(&plan);
        assert!(is_append(&history));
        let check = check(&history);
        assert_eq!(check.anomalies, &[], "seed {seed}");
        assert!(check.looked_at["transactions"] > 200);
    }
}

/// Operations one after another, unless told when.
#[derive(Default)]
struct Script {
    history: History,
}

fn pair(key: &str, list: &str) -> Option<Pair> {
    (!list.is_empty()).then(|| Pair { key: key.into(), value: list.into(), modified: 1, ..Pair::default() })
}

fn range(key: &str) -> Request {
    Request::Range(Range { keys: Keys { key: key.into(), end: String::new() }, ..Range::default() })
}

impl Script {
    fn push(&mut self, at: (Nanos, Nanos), action: Action, outcome: Outcome) -> &mut Self {
        let client = self.history.operations.len() as u32;
        let operation = Operation { client, member: 0, invoked: at.0, returned: at.1, action, outcome };
        self.history.operations.push(operation);
        self
    }

    /// A transaction whose compares of values held: key, list before, list after (or none, only read).
    fn txn(&mut self, at: (Nanos, Nanos), steps: &[(&str, &str, Option<&str>)]) -> &mut Self {
        let (action, bodies) = txn(steps);
        let body = Body::Txn { succeeded: true, answers: bodies };
        self.push(at, action, Outcome::Done(Answer { revision: 0, body }))
    }

    fn found(&self) -> Vec<String> {
        check(&self.history).found.into_keys().collect()
    }
}

fn txn(steps: &[(&str, &str, Option<&str>)]) -> (Action, Vec<Body>) {
    let mut txn = Txn::default();
    let mut bodies = Vec::new();
    for (key, before, after) in steps {
        match after {
            Some(after) => {
                let operand = match *before {
                    "" => Operand::Modified(0),
                    before => Operand::Value(before.into()),
                };
                txn.compares.push(Compare { key: (*key).into(), relation: Relation::Equal, operand });
                let value = (*after).into();
                txn.then.push(Request::Put(Put { key: (*key).into(), value, ..Put::default() }));
                bodies.push(Body::Put { previous: None });
            }
            None => {
                txn.then.push(range(key));
                let pairs: Vec<_> = pair(key, before).into_iter().collect();
                bodies.push(Body::Range { count: pairs.len() as i64, pairs, more: false });
            }
        }
    }
    (Action::Txn(txn), bodies)
}

/// All at once, so that time says nothing.
const ANY: (Nanos, Nanos) = (0, 1_000);

#[test]
fn good() {
    let mut script = Script::default();
    script
        .txn((1, 2), &[("x", "", Some("1"))])
        .txn((3, 4), &[("x", "1", None)])
        .txn((5, 6), &[("x", "1", Some("1,2"))]);
    assert_eq!(script.found(), Vec::<String>::new());
}

#[test]
fn g0() {
    let mut script = Script::default();
    // Blind puts in two keys, each first in one of them.
    let put =
        |key: &str, value: &str| Request::Put(Put { key: key.into(), value: value.into(), ..Put::default() });
    let blind = |requests: Vec<Request>| {
        let body = Body::Txn { succeeded: true, answers: vec![Body::Put { previous: None }; 2] };
        (Action::Txn(Txn { then: requests, ..Txn::default() }), Outcome::Done(Answer { revision: 0, body }))
    };
    let (action, outcome) = blind(vec![put("x", "1"), put("y", "2,1")]);
    script.push(ANY, action, outcome);
    let (action, outcome) = blind(vec![put("x", "1,2"), put("y", "2")]);
    script.push(ANY, action, outcome);
    assert_eq!(script.found(), ["G0"]);
}

#[test]
fn g1a() {
    let mut script = Script::default();
    let (action, _) = txn(&[("x", "", Some("1"))]);
    script.push(ANY, action, Outcome::Refused("no".into()));
    script.txn(ANY, &[("x", "1", None)]);
    assert_eq!(script.found(), ["G1a"]);
    // A transaction whose compares failed is no better.
    let mut script = Script::default();
    let (action, _) = txn(&[("x", "", Some("1"))]);
    let body = Body::Txn { succeeded: false, answers: vec![] };
    script.push(ANY, action, Outcome::Done(Answer { revision: 0, body }));
    script.txn(ANY, &[("x", "1", None)]);
    assert_eq!(script.found(), ["G1a"]);
}

#[test]
fn g1b() {
    let mut script = Script::default();
    script.txn(ANY, &[("x", "", Some("1,2"))]).txn(ANY, &[("x", "1", None)]);
    assert!(script.found().contains(&"G1b".to_string()));
}

#[test]
fn g1c() {
    let mut script = Script::default();
    script.txn(ANY, &[("x", "", Some("1")), ("y", "2", None)]);
    script.txn(ANY, &[("y", "", Some("2")), ("x", "1", None)]);
    assert_eq!(script.found(), ["G1c"]);
}

#[test]
fn g_single() {
    let mut script = Script::default();
    // The second sees the first in y, but not in x.
    script.txn(ANY, &[("x", "", Some("1")), ("y", "", Some("2"))]);
    script.txn(ANY, &[("x", "", None), ("y", "2", None)]);
    script.txn(ANY, &[("x", "1", None)]);
    assert_eq!(script.found(), ["G-single"]);
}

#[test]
fn g2_item() {
    let mut script = Script::default();
    // Write skew: each reads what the other is about to change.
    script.txn(ANY, &[("x", "", Some("1")), ("y", "", None)]);
    script.txn(ANY, &[("y", "", Some("2")), ("x", "", None)]);
    script.txn(ANY, &[("x", "1", None)]).txn(ANY, &[("y", "2", None)]);
    assert_eq!(script.found(), ["G2-item"]);
}

#[test]
fn g_single_in_real_time() {
    let mut script = Script::default();
    // Asked after the append was answered, and does not see it.
    script.txn((1, 2), &[("x", "", Some("1"))]);
    script.txn((3, 4), &[("x", "", None)]);
    script.txn((5, 6), &[("x", "1", None)]);
    assert_eq!(script.found(), ["G-single-realtime"]);
}

#[test]
fn g0_in_real_time() {
    let mut script = Script::default();
    let put = |value: &str| Action::Put(Put { key: "x".into(), value: value.into(), ..Put::default() });
    let done = || Outcome::Done(Answer { revision: 0, body: Body::Put { previous: None } });
    script.push((1, 2), put("2,1"), done());
    script.push((3, 4), put("2"), done());
    assert_eq!(script.found(), ["G0-realtime"]);
}

#[test]
fn g1c_of_one_client() {
    let mut script = Script::default();
    script.txn((1, 9), &[("x", "1", None)]);
    script.txn((2, 8), &[("x", "", Some("1"))]);
    for operation in &mut script.history.operations {
        operation.client = 7;
    }
    assert_eq!(script.found(), ["G1c-process"]);
}

#[test]
fn internal() {
    let mut script = Script::default();
    script.txn(ANY, &[("x", "", Some("1")), ("x", "2", None)]);
    assert_eq!(script.found(), ["internal"]);
}

#[test]
fn duplicates_and_phantoms() {
    let mut script = Script::default();
    script.txn(ANY, &[("x", "", Some("1"))]).txn(ANY, &[("x", "1,1", None)]);
    assert!(script.found().contains(&"duplicate-elements".to_string()));
    let mut script = Script::default();
    script.txn(ANY, &[("x", "5", None)]);
    assert_eq!(script.found(), ["phantom-element"]);
}

#[test]
fn lost_update_and_incompatible_order() {
    let mut script = Script::default();
    script.txn(ANY, &[("x", "", Some("1"))]);
    script.txn(ANY, &[("x", "1", Some("1,2"))]);
    script.txn(ANY, &[("x", "1", Some("1,3"))]);
    let found = script.found();
    assert!(found.contains(&"lost-update".to_string()) && found.contains(&"incompatible-order".to_string()));
}

#[test]
fn one_without_an_answer_has_no_end() {
    let mut script = Script::default();
    // It was asked first, and seen only after others that did not see it: it happened late.
    let (action, _) = txn(&[("x", "", Some("1"))]);
    script.push((1, 2), action, Outcome::Unknown("timed out".into()));
    script.txn((3, 4), &[("x", "", None)]);
    script.txn((5, 6), &[("x", "1", None)]);
    assert_eq!(script.found(), Vec::<String>::new());
}
