//! A small store makes right histories; each mutation breaks one promise.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::check;
use crate::check::Anomaly;
use crate::check::model::covers;
use crate::generate;
use crate::history::*;

/// A store, and all it did.
#[derive(Default)]
struct Store {
    pairs: BTreeMap<String, Pair>,
    revision: i64,
    values: usize,
    changes: Vec<(Nanos, Vec<Event>)>,
    operations: Vec<Operation>,
}

impl Store {
    /// Of several requests of a transaction only the last may be of many keys: none is changed twice.
    fn request(&mut self, rng: &mut StdRng, key: usize, last: bool) -> Request {
        let key = format!("k{key}");
        match rng.random_range(0..4) {
            0 => {
                let end = if last && rng.random() { "k9".to_owned() } else { String::new() };
                Request::Delete(Delete { keys: Keys { key, end }, previous: rng.random() })
            }
            _ => {
                self.values += 1;
                let (value, lease) = (format!("v{}", self.values), rng.random_range(0..3));
                Request::Put(Put { key, value, lease, previous: false })
            }
        }
    }

    fn apply(&mut self, request: &Request, revision: i64, events: &mut Vec<Event>) -> Body {
        match request {
            Request::Put(put) => {
                let previous = self.pairs.get(&put.key).cloned();
                let created = previous.as_ref().map_or(revision, |pair| pair.created);
                let version = previous.as_ref().map_or(1, |pair| pair.version + 1);
                let (key, value) = (put.key.clone(), put.value.clone());
                let pair = Pair { key, value, created, modified: revision, version, lease: put.lease };
                self.pairs.insert(put.key.clone(), pair.clone());
                events.push(Event { deleted: false, pair, previous });
                Body::Put { previous: None }
            }
            Request::Delete(delete) => {
                let keys = &delete.keys;
                let gone: Vec<Pair> =
                    self.pairs.values().filter(|pair| covers(keys, &pair.key)).cloned().collect();
                for pair in &gone {
                    self.pairs.remove(&pair.key);
                    let after = Pair { key: pair.key.clone(), modified: revision, ..Pair::default() };
                    events.push(Event { deleted: true, pair: after, previous: Some(pair.clone()) });
                }
                let deleted = gone.len() as i64;
                Body::Delete { deleted, previous: if delete.previous { gone } else { Vec::new() } }
            }
            Request::Range(_) => unreachable!("none is made"),
        }
    }

    fn step(&mut self, rng: &mut StdRng, now: Nanos) {
        let first = rng.random_range(0..4);
        let count = rng.random_range(1..=3);
        let requests: Vec<Request> =
            (0..count).map(|place| self.request(rng, first + 2 * place, place + 1 == count)).collect();
        let happens = rng.random_range(0..20) > 0;
        let (mut events, mut answers) = (Vec::new(), Vec::new());
        if happens {
            for request in &requests {
                answers.push(self.apply(request, self.revision + 1, &mut events));
            }
        }
        if !events.is_empty() {
            self.revision += 1;
            self.changes.push((now + 600, events));
        }
        let alone = requests.len() == 1;
        let action = match requests.first().cloned() {
            Some(Request::Put(put)) if alone => Action::Put(put),
            Some(Request::Delete(delete)) if alone => Action::Delete(delete),
            _ => Action::Txn(Txn { then: requests, ..Txn::default() }),
        };
        let body = if alone { answers.pop() } else { Some(Body::Txn { succeeded: true, answers }) };
        let outcome = match rng.random_range(0..10) {
            0 => Outcome::Unknown("timed out".to_owned()),
            _ if !happens => Outcome::Refused("no leader".to_owned()),
            _ => Outcome::Done(Answer { revision: self.revision, body: body.expect("it was done") }),
        };
        self.operation(now, action, outcome);
    }

    fn operation(&mut self, now: Nanos, action: Action, outcome: Outcome) {
        let client = (self.operations.len() % 5) as u32;
        let (invoked, returned) = (now, now + 500);
        self.operations.push(Operation { client, member: 0, invoked, returned, action, outcome });
    }

    /// What a watcher sees of it all, over some connections.
    fn watch(&self, rng: &mut StdRng, client: u32, keys: Keys, start: i64, steady: bool) -> Watch {
        let mut watch = Watch { client, keys, start, previous: true, progress: true, ..Watch::default() };
        let mut member = rng.random_range(0..3);
        let mut header = self.revision.min(start.max(1));
        let mut response = Vec::new();
        let see = |watch: &mut Watch, at, member, revision, what| {
            watch.seen.push(Seen { at, member, revision, what });
        };
        see(&mut watch, 1, member, if start == 0 { 5 } else { header }, Notice::Created { start });
        let start = if start == 0 { 6 } else { start };
        let mut next = start;
        for (at, events) in &self.changes {
            let revision = events[0].pair.modified;
            if revision < start {
                continue;
            }
            header = revision.max(header);
            let ours = events.iter().filter(|event| covers(&watch.keys, &event.pair.key));
            response.extend(ours.cloned());
            if rng.random_range(0..3) > 0 && !response.is_empty() {
                next = revision + 1;
                see(&mut watch, *at, member, header, Notice::Events(std::mem::take(&mut response)));
            }
            if rng.random_range(0..8) == 0 && response.is_empty() {
                see(&mut watch, *at, member, header, Notice::Progress);
            }
            if rng.random_range(0..15) == 0 && response.is_empty() && !steady {
                see(&mut watch, *at, member, 0, Notice::Lost("reset".to_owned()));
                member = rng.random_range(0..3);
                see(&mut watch, *at, member, header, Notice::Created { start: next });
            }
        }
        watch
    }
}

const END: Nanos = 1_000_000_000;

/// A right history; its watch 1 is one of all keys, without an end.
fn history(seed: u64) -> History {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut store = Store { revision: 1, ..Store::default() };
    for number in 0..200 {
        store.step(&mut rng, number * 1000);
    }
    let compacted = 40;
    let outcome = Outcome::Done(Answer { revision: store.revision, body: Body::Nothing });
    store.operation(200_000, Action::Compact { revision: compacted }, outcome);
    let all = Keys { key: "\0".to_owned(), end: "\0".to_owned() };
    let some = Keys { key: "k2".to_owned(), end: "k5".to_owned() };
    let one = Keys { key: "k3".to_owned(), end: String::new() };
    let from = |key: &str| Keys { key: key.to_owned(), end: "\0".to_owned() };
    let observer = Watch { observer: true, ..store.watch(&mut rng, 9, all.clone(), 1, false) };
    let mut watches = vec![observer, store.watch(&mut rng, 10, all.clone(), 1, true)];
    for (client, keys, start) in [(11, some, 1), (12, one, 0), (13, from("k1"), 30), (14, from("k2"), 100)] {
        watches.push(store.watch(&mut rng, client, keys, start, false));
    }
    // One that begins before the compaction's revision, and goes on from there.
    let mut late = store.watch(&mut rng, 15, all, compacted, true);
    late.seen.iter_mut().for_each(|seen| seen.at += END);
    let cancelled = Notice::Cancelled { reason: "compacted".to_owned(), compacted };
    late.seen.insert(0, Seen { at: END, member: 0, revision: 0, what: cancelled });
    late.seen.insert(0, Seen { at: END, member: 0, revision: 1, what: Notice::Created { start: 3 } });
    let first = late.seen.iter_mut().find_map(|seen| match &mut seen.what {
        Notice::Events(events) => events.first_mut(),
        _ => None,
    });
    let first = first.expect("something came");
    assert_eq!(first.pair.modified, compacted);
    first.previous = None;
    watches.push(late);
    History { operations: store.operations, watches, ..History::default() }
}

fn names(history: &History) -> Vec<String> {
    check(history).anomalies.into_iter().map(|anomaly| anomaly.name).collect()
}

#[test]
fn a_right_history_has_no_anomaly() {
    for seed in 0..100 {
        let anomalies = check(&history(seed)).anomalies;
        assert!(anomalies.is_empty(), "seed {seed}: {anomalies:#?}");
    }
}

/// Places of the events of a watch, as response and place in it, that satisfy `which`.
fn places(watch: &Watch, which: impl Fn(&[Event], usize) -> bool) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    for (number, seen) in watch.seen.iter().enumerate() {
        if let Notice::Events(events) = &seen.what {
            places
                .extend((0..events.len()).filter(|&place| which(events, place)).map(|place| (number, place)));
        }
    }
    places
}

fn events(watch: &mut Watch, response: usize) -> &mut Vec<Event> {
    match &mut watch.seen[response].what {
        Notice::Events(events) => events,
        other => panic!("{other:?} is not a response with events"),
    }
}

/// Of some places one in the middle, so that more comes before and after.
fn middle<T: Copy>(places: &[T]) -> T {
    places[places.len() / 2]
}

/// Breaks watch 1 of some histories, and expects to be told so by name, of that watch only.
fn breaks(name: &str, mutate: impl Fn(&mut Watch)) {
    for seed in 0..10 {
        let mut history = history(seed);
        mutate(&mut history.watches[1]);
        let anomalies = check(&history).anomalies;
        let found: Vec<&str> = anomalies.iter().map(|anomaly| anomaly.name.as_str()).collect();
        assert!(found.contains(&name), "seed {seed}: {found:?}, not {name}");
        assert!(anomalies.iter().all(|anomaly| anomaly.watch == Some(1)), "seed {seed}: {anomalies:#?}");
    }
}

fn breaks_an_event(name: &str, which: impl Fn(&Event) -> bool, mutate: impl Fn(&mut Event)) {
    breaks(name, |watch| {
        let (response, place) = middle(&places(watch, |events, place| which(&events[place])));
        mutate(&mut events(watch, response)[place]);
    });
}

#[test]
fn a_lost_event_is_a_gap() {
    breaks("watch-gap", |watch| {
        let (response, place) = middle(&places(watch, |_, _| true));
        events(watch, response).remove(place);
    });
}

#[test]
fn an_event_that_comes_twice_is_a_repeat() {
    breaks("watch-repeat", |watch| {
        let (response, place) = middle(&places(watch, |_, _| true));
        let event = events(watch, response)[place].clone();
        events(watch, response).push(event);
    });
}

#[test]
fn an_event_that_comes_again_after_a_resumption_is_a_repeat() {
    breaks("watch-repeat", |watch| {
        let (response, place) = middle(&places(watch, |events, place| place + 1 == events.len()));
        let event = events(watch, response)[place].clone();
        let Seen { at, member, revision, .. } = watch.seen[response];
        let again = [
            Notice::Lost("reset".to_owned()),
            Notice::Created { start: event.pair.modified + 1 },
            Notice::Events(vec![event]),
        ];
        let again = again.map(|what| Seen { at, member, revision, what });
        watch.seen.splice(response + 1..response + 1, again);
    });
}

#[test]
fn revisions_that_change_places_are_out_of_order() {
    breaks("watch-order", |watch| {
        let different = |events: &[Event], place: usize| {
            place > 0 && events[place - 1].pair.modified < events[place].pair.modified
        };
        let (response, place) = middle(&places(watch, different));
        events(watch, response).swap(place - 1, place);
    });
}

#[test]
fn a_revision_in_two_responses_is_torn() {
    breaks("watch-torn-revision", |watch| {
        let same = |events: &[Event], place: usize| {
            place > 0 && events[place - 1].pair.modified == events[place].pair.modified
        };
        let (response, place) = middle(&places(watch, same));
        let rest = events(watch, response).split_off(place);
        let seen = Seen { what: Notice::Events(rest), ..watch.seen[response].clone() };
        watch.seen.insert(response + 1, seen);
    });
}

#[test]
fn an_event_below_a_start_that_is_still_to_come_is_before_it() {
    breaks("watch-before-start", |watch| {
        let Notice::Created { start } = &mut watch.seen[0].what else { panic!("it is made first") };
        *start = 50;
    });
}

#[test]
fn an_event_of_another_key_is_unfiltered() {
    breaks("watch-unfiltered", |watch| watch.keys = Keys { key: "k0".to_owned(), end: "k3".to_owned() });
}

#[test]
fn an_event_that_no_write_made_is_a_phantom() {
    breaks("watch-phantom", |watch| {
        let (response, place) = middle(&places(watch, |_, _| true));
        let mut event = events(watch, response)[place].clone();
        event.pair.key = "ghost".to_owned();
        events(watch, response).insert(place + 1, event);
    });
}

#[test]
fn what_did_not_happen_so_is_a_wrong_event() {
    let put = |event: &Event| !event.deleted;
    breaks_an_event("watch-wrong-event", put, |event| event.pair.value = "other".to_owned());
    breaks_an_event("watch-wrong-event", put, |event| event.pair.lease += 7);
    breaks_an_event("watch-wrong-event", put, |event| event.deleted = true);
    breaks_an_event("watch-wrong-event", |event| event.deleted, |event| event.deleted = false);
}

#[test]
fn wrong_counts_are_told() {
    let first = |event: &Event| event.pair.version == 1;
    let later = |event: &Event| event.pair.version > 1;
    breaks_an_event("watch-wrong-count", first, |event| event.pair.created -= 1);
    breaks_an_event("watch-wrong-count", first, |event| event.pair.version = 2);
    breaks_an_event("watch-wrong-count", later, |event| event.pair.version += 1);
    breaks_an_event("watch-wrong-count", later, |event| event.pair.created -= 1);
    // As if the key had been created by this change.
    breaks_an_event("watch-wrong-count", later, |event| {
        (event.pair.created, event.pair.version) = (event.pair.modified, 1);
    });
    breaks_an_event("watch-wrong-count", |event| event.deleted, |event| event.pair.version = 1);
}

#[test]
fn a_wrong_pair_before_is_told() {
    let there = |event: &Event| event.previous.is_some();
    breaks_an_event("watch-wrong-previous", there, |event| {
        event.previous.as_mut().expect("it is there").value = "stale".to_owned();
    });
    breaks_an_event("watch-wrong-previous", there, |event| {
        event.previous.as_mut().expect("it is there").version += 1;
    });
    breaks_an_event("watch-wrong-previous", there, |event| event.previous = None);
    let created = |event: &Event| !event.deleted && event.previous.is_none();
    breaks_an_event("watch-wrong-previous", created, |event| event.previous = Some(Pair::default()));
    breaks("watch-wrong-previous", |watch| watch.previous = false);
}

#[test]
fn progress_before_its_events_is_untrue() {
    breaks("watch-untrue-progress", |watch| {
        let (response, _) = middle(&places(watch, |_, _| true));
        let seen = Seen { what: Notice::Progress, ..watch.seen[response].clone() };
        watch.seen.insert(response, seen);
    });
}

#[test]
fn progress_beyond_what_ever_came_is_untrue() {
    breaks("watch-untrue-progress", |watch| {
        let (response, _) = middle(&places(watch, |_, _| true));
        watch.seen.truncate(response + 1);
        watch.seen[response].what = Notice::Progress;
    });
}

#[test]
fn a_header_below_its_events_or_an_earlier_one_is_told() {
    breaks("watch-header", |watch| {
        let (response, _) = middle(&places(watch, |_, _| true));
        let newest = events(watch, response).last().expect("there is one").pair.modified;
        watch.seen[response].revision = newest - 1;
    });
    breaks("watch-header", |watch| {
        let Seen { at, member, .. } = watch.seen[watch.seen.len() - 1];
        watch.seen.push(Seen { at, member, revision: 2, what: Notice::Progress });
    });
}

#[test]
fn an_end_as_compacted_needs_a_compaction_above_what_was_to_come() {
    let cancel = |watch: &mut Watch, at, compacted| {
        let what = Notice::Cancelled { reason: "compacted".to_owned(), compacted };
        let (response, _) = middle(&places(watch, |_, _| true));
        watch.seen.truncate(response);
        watch.seen.push(Seen { at, member: 0, revision: 0, what });
    };
    // The start had been told long since.
    breaks("watch-untrue-cancel", |watch| cancel(watch, END, 40));
    // Nobody compacted that far.
    breaks("watch-untrue-cancel", |watch| cancel(watch, END, 5000));
    // Nobody had compacted yet.
    breaks("watch-untrue-cancel", |watch| {
        watch.seen.truncate(1);
        let what = Notice::Cancelled { reason: "compacted".to_owned(), compacted: 40 };
        watch.seen.push(Seen { at: 100, member: 0, revision: 0, what });
    });
}

#[test]
fn what_comes_after_the_end_is_told() {
    breaks("watch-after-end", |watch| {
        let (response, _) = middle(&places(watch, |_, _| true));
        let what = Notice::Cancelled { reason: "asked for".to_owned(), compacted: 0 };
        let seen = Seen { what, ..watch.seen[response].clone() };
        watch.seen.insert(response, seen);
    });
}

/// An observer that misses what everybody else misses is still found out: revisions have no holes.
#[test]
fn what_nobody_was_told_is_a_gap() {
    for seed in 0..10 {
        let mut history = history(seed);
        let lost = 60;
        for watch in &mut history.watches {
            for seen in &mut watch.seen {
                if let Notice::Events(events) = &mut seen.what {
                    events.retain(|event| event.pair.modified != lost);
                }
            }
        }
        history.operations.retain(|operation| match &operation.outcome {
            Outcome::Done(answer) => answer.revision != lost,
            _ => true,
        });
        let found = names(&history);
        assert!(found.contains(&"watch-gap".to_owned()), "seed {seed}: {found:?}");
        assert!(found.iter().all(|name| name == "watch-gap"), "seed {seed}: {found:?}");
    }
}

/// A gap tells the operation that wrote what is missing.
#[test]
fn an_anomaly_names_its_operation_and_counts_the_rest() {
    let mut history = history(1);
    let written = |history: &History, revision| {
        history.operations.iter().position(
            |operation| matches!(&operation.outcome, Outcome::Done(answer) if answer.revision == revision),
        )
    };
    let watch = &mut history.watches[1];
    let lost: Vec<i64> = [30, 31].into();
    for seen in &mut watch.seen {
        if let Notice::Events(events) = &mut seen.what {
            events.retain(|event| !lost.contains(&event.pair.modified));
        }
    }
    let anomalies = check(&history).anomalies;
    let gap = anomalies.iter().find(|anomaly| anomaly.name == "watch-gap").expect("there is a gap");
    assert!(gap.explanation.starts_with("watch 1 of client 10: revision 30 of "), "{}", gap.explanation);
    assert!(gap.explanation.contains(" more)"), "{}", gap.explanation);
    let expected: Vec<usize> = lost.iter().filter_map(|&revision| written(&history, revision)).collect();
    assert!(expected.iter().all(|operation| gap.operations.contains(operation)), "{gap:?}");
}

/// The observer is judged too: by the answers, by revisions that are missing, by all that came before.
#[test]
fn the_observer_is_not_above_it() {
    let broken = |name: &str, mutate: &dyn Fn(&History, &mut Watch)| {
        for seed in 0..10 {
            let mut history = history(seed);
            let mut observer = history.watches[0].clone();
            mutate(&history, &mut observer);
            history.watches[0] = observer;
            let anomalies = check(&history).anomalies;
            let blamed = |anomaly: &Anomaly| anomaly.watch == Some(0) && anomaly.name == name;
            assert!(anomalies.iter().any(blamed), "seed {seed}: {anomalies:#?}");
        }
    };
    let answered = |history: &History, watch: &Watch, which: &dyn Fn(&Event) -> bool| {
        let told =
            history.operations.iter().filter_map(|operation| match (&operation.action, &operation.outcome) {
                (Action::Compact { .. }, _) => None,
                (Action::Delete(delete), _) if !delete.keys.end.is_empty() && !delete.previous => None,
                (Action::Txn(txn), _) if txn.then.iter().any(|one| matches!(one, Request::Delete(_))) => None,
                (_, Outcome::Done(answer)) => Some(answer.revision),
                _ => None,
            });
        let told: Vec<i64> = told.collect();
        middle(&places(watch, |events, place| {
            told.contains(&events[place].pair.modified) && which(&events[place])
        }))
    };
    broken("watch-gap", &|history, watch| {
        let (response, place) = answered(history, watch, &|_| true);
        events(watch, response).remove(place);
    });
    broken("watch-wrong-event", &|history, watch| {
        let (response, place) = answered(history, watch, &|event| !event.deleted);
        events(watch, response)[place].pair.value.push('!');
    });
    broken("watch-phantom", &|history, watch| {
        let (response, place) = answered(history, watch, &|_| true);
        let mut event = events(watch, response)[place].clone();
        event.pair.key.push('!');
        events(watch, response).push(event);
    });
    broken("watch-wrong-previous", &|_, watch| {
        let (response, place) = middle(&places(watch, |events, place| events[place].previous.is_some()));
        events(watch, response)[place].previous = None;
    });
    broken("watch-wrong-count", &|_, watch| {
        let (response, place) = middle(&places(watch, |events, place| events[place].pair.version > 1));
        events(watch, response)[place].pair.version += 1;
    });
}

/// A nemesis that failed after it had compacted was not in the history, and so a watch that ended as compacted was
/// said to be untrue. What was asked for counts, whatever came of it; and what members say at the end counts anyway.
#[test]
fn compactions_of_others_count() {
    let history = |asked: Option<(Nanos, i64)>, last: Option<i64>| {
        let mut history = history(3);
        history.operations.retain(|operation| !matches!(operation.action, Action::Compact { .. }));
        history.compactions.extend(asked.map(|(asked, revision)| Compaction { asked, revision }));
        history.ends.extend(last.map(|compacted| End { compacted, ..End::default() }));
        names(&history)
    };
    for (asked, last) in
        [(Some((END, 40)), None), (Some((END, 40)), Some(40)), (Some((END, 90)), None), (None, Some(40))]
    {
        assert_eq!(history(asked, last), [""; 0], "{asked:?} {last:?}");
    }
    for (asked, last) in [(Some((END + 1, 40)), Some(40)), (Some((END, 39)), Some(39)), (None, None)] {
        let found = history(asked, last);
        assert!(found.contains(&"watch-untrue-cancel".to_owned()), "{asked:?} {last:?}: {found:?}");
    }
}

/// Another store, with leases that end, and all a history has: nobody is accused there either.
#[test]
fn generated_histories_have_no_anomaly() {
    for seed in 0..10 {
        let history = generate::history(&generate::Plan::new(generate::Workload::Mix, seed));
        let check = check(&history);
        assert!(check.looked_at["events"] > 100, "{:?}", check.looked_at);
        assert!(check.anomalies.is_empty(), "seed {seed}: {:#?}", check.anomalies);
    }
}
