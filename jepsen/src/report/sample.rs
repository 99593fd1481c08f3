//! A small history of everything that reports show, for their tests.

use crate::check::Anomaly;
use crate::history::*;

const MS: Nanos = 1_000_000;

/// Five clients and two watchers over 20 seconds and four faults.
pub(super) fn history() -> History {
    let mut operations = Vec::new();
    for number in 0..120_u64 {
        let client = (number % 5) as u32;
        let invoked = number / 5 * 800 * MS + u64::from(client) * 37 * MS;
        let slow = if (30..45).contains(&number) { 600 } else { 2 + number % 7 * number % 31 };
        let returned = invoked + slow * MS + number * 997;
        let revision = number as i64 + 2;
        let pair = |key: &str| Pair {
            key: key.to_owned(),
            value: format!("<v{number}>"),
            created: 2,
            modified: revision,
            version: 3,
            lease: 0,
        };
        let keys = Keys { key: format!("k<{}>&\"'", number % 3), end: String::new() };
        let put = Put { key: keys.key.clone(), value: format!("<v{number}>"), ..Put::default() };
        let range = Range { keys: keys.clone(), ..Range::default() };
        let answers = Body::Range { pairs: vec![pair(&keys.key)], count: 1, more: false };
        let (action, body) = match number % 6 {
            0 => (Action::Range(range), answers),
            1 | 2 => (Action::Put(put), Body::Put { previous: None }),
            3 => {
                let operand = Operand::Value(format!("<v{}>", number - 1));
                let compare = Compare { key: keys.key.clone(), relation: Relation::Equal, operand };
                let (compares, then) = (vec![compare], vec![Request::Put(put), Request::Range(range)]);
                let body =
                    Body::Txn { succeeded: true, answers: vec![Body::Put { previous: None }, answers] };
                (Action::Txn(Txn { compares, then, otherwise: Vec::new() }), body)
            }
            4 => (Action::LeaseGrant { id: 7, ttl: 5 }, Body::Lease { id: 7, ttl: 5 }),
            _ => (Action::Compact { revision: revision - 1 }, Body::Nothing),
        };
        let outcome = match number {
            31 | 37 | 44 => Outcome::Unknown("no answer in 600ms </script>".to_owned()),
            33 | 39 => Outcome::Refused("etcdserver: no leader".to_owned()),
            _ => Outcome::Done(Answer { revision, body }),
        };
        let member = number as usize % 3;
        operations.push(Operation { client, member, invoked, returned, action, outcome });
    }
    let fault = |kind: &str, what: &str, began: Nanos, ended: Nanos| Fault {
        kind: kind.to_owned(),
        what: what.to_owned(),
        began: began * MS,
        ended: ended * MS,
    };
    let faults = vec![
        fault("kill", "leader, 2", 4_800, 6_900),
        fault("partition-one-way-with-a-long-name", "1 | 2, 3 <both>", 5_000, 9_000),
        fault("kill", "1", 12_000, 12_001),
        fault("pause", "3", 15_000, 30_000),
    ];
    let run = Run {
        seed: 4711,
        command: "jepsen run --workload register --nemesis mix --seed 4711".to_owned(),
        workload: "register".to_owned(),
        nemesis: "mix".to_owned(),
        program: "quorate 0.1.0".to_owned(),
        members: 3,
        duration: 20_000 * MS,
    };
    let watches = vec![watch(&operations, true), watch(&operations, false)];
    let ends = (0..3).map(|member| End { member, revision: 121, hash: 0xfeed, compacted: 119 }).collect();
    History { run, operations, watches, faults, ends, ..History::default() }
}

/// A gap of the second watcher, and a read that came too late.
pub(super) fn anomalies() -> Vec<Anomaly> {
    let gap = Anomaly {
        checker: "watch".to_owned(),
        name: "watch-gap".to_owned(),
        explanation: "watch 1 of client 11: revision 34 of \"k<2>&\" never came".to_owned(),
        operations: vec![32],
        watch: Some(1),
    };
    let stale = Anomaly {
        checker: "linearizable".to_owned(),
        name: "stale-read".to_owned(),
        explanation: "a read answered <v30>, which had been overwritten".to_owned(),
        operations: vec![36, 32, 31, 9_999],
        watch: None,
    };
    vec![gap, stale]
}

fn watch(operations: &[Operation], observer: bool) -> Watch {
    let mut seen = vec![Seen { at: MS, member: 1, revision: 1, what: Notice::Created { start: 1 } }];
    for operation in operations {
        let (Action::Put(put), Outcome::Done(answer)) = (&operation.action, &operation.outcome) else {
            continue;
        };
        if !observer && answer.revision == 34 {
            continue;
        }
        let pair = Pair {
            key: put.key.clone(),
            value: put.value.clone(),
            created: answer.revision,
            modified: answer.revision,
            version: 1,
            lease: 0,
        };
        let what = Notice::Events(vec![Event { deleted: false, pair, previous: None }]);
        seen.push(Seen { at: operation.returned + MS, member: 1, revision: answer.revision, what });
    }
    seen.push(Seen { at: 19_000 * MS, member: 1, revision: 0, what: Notice::Lost("reset".to_owned()) });
    let (client, keys) =
        (if observer { 10 } else { 11 }, Keys { key: "\0".to_owned(), end: "\0".to_owned() });
    Watch { client, keys, start: 1, observer, seen, ..Watch::default() }
}
