//! All checkers on histories of a correct store, and on the same with one thing made wrong.

use super::*;
use crate::generate::{Plan, Workload, history as generated};
use crate::history::{Action, Answer, Body, Event, Nanos, Notice, Operation, Outcome, Pair, Request};

const WORKLOADS: [Workload; 5] =
    [Workload::Mix, Workload::Register, Workload::Append, Workload::Set, Workload::Lock];

#[test]
fn a_correct_store_has_no_anomalies() {
    for seed in 0..40 {
        for workload in WORKLOADS {
            let verdict = all(&generated(&Plan::new(workload, seed)));
            assert_eq!(
                verdict.anomalies().collect::<Vec<_>>(),
                Vec::<&Anomaly>::new(),
                "{workload:?} seed {seed}"
            );
        }
    }
}

#[test]
fn nothing_to_check_is_nothing_wrong() {
    assert!(all(&History::default()).is_good());
}

/// A history of 100,000 operations is checked whole.
#[test]
#[ignore = "takes long where it is not optimized"]
fn a_long_history() {
    for workload in WORKLOADS {
        let mut plan = Plan::new(workload, 1);
        (plan.operations, plan.clients, plan.keys, plan.unknown) = (100_000, 10, 50, 10);
        if workload == Workload::Append {
            // Lists are written whole, so they must stay short.
            plan.keys = 200;
        }
        if workload == Workload::Set {
            plan.operations = 10_000;
        }
        let history = generated(&plan);
        let began = Instant::now();
        let verdict = all(&history);
        eprintln!("{workload:?}: {} operations in {:.1?}", history.operations.len(), began.elapsed());
        for check in &verdict.checks {
            eprintln!("    {:12} {:8.1?} {:?}", check.checker, check.took, check.looked_at);
        }
        assert_eq!(verdict.anomalies().collect::<Vec<_>>(), Vec::<&Anomaly>::new(), "{workload:?}");
    }
}

fn found(history: &History) -> Vec<String> {
    let verdict = all(history);
    let checks = verdict.checks.iter();
    checks.flat_map(|check| check.found.keys().map(|name| format!("{}:{name}", check.checker))).collect()
}

/// Spoils correct histories of some seeds, and looks for anomalies whose names begin so in each.
#[track_caller]
fn must_find(workload: Workload, names: &[&str], mut spoil: impl FnMut(&mut History) -> bool) {
    let mut spoiled = 0;
    for seed in 0..20 {
        let mut history = generated(&Plan::new(workload, seed));
        if !spoil(&mut history) {
            continue;
        }
        spoiled += 1;
        let found = found(&history);
        for name in names {
            assert!(
                found.iter().any(|found| found.starts_with(name)),
                "seed {seed}: {name} is not in {found:?}"
            );
        }
    }
    assert!(spoiled >= 3, "only {spoiled} could be spoiled");
}

fn answer(operation: &mut Operation) -> Option<&mut Answer> {
    match &mut operation.outcome {
        Outcome::Done(answer) => Some(answer),
        _ => None,
    }
}

/// Calls for answered operations from the middle on until one is taken.
fn spoil_one(history: &mut History, mut spoil: impl FnMut(&mut Operation) -> bool) -> bool {
    let from = history.operations.len() / 2;
    history.operations[from..]
        .iter_mut()
        .any(|operation| matches!(operation.outcome, Outcome::Done(_)) && spoil(operation))
}

fn single_read(operation: &Operation) -> bool {
    matches!(&operation.action, Action::Range(range) if range.keys.end.is_empty() && !range.serializable)
}

#[test]
fn stale_read_by_its_own_revision() {
    must_find(Workload::Mix, &["linearizable:stale-read"], |history| {
        // A header from before what was answered to somebody else, long ago.
        spoil_one(history, |operation| {
            let read = single_read(operation);
            let Some(answer) = answer(operation).filter(|_| read) else { return false };
            answer.revision -= 20;
            true
        })
    });
}

/// The newest header, but an old value.
#[test]
fn stale_read_under_a_new_revision() {
    must_find(Workload::Register, &["linearizable:stale-read"], |history| {
        let timeline = Timeline::of(history);
        spoil_one(history, |operation| {
            let read = single_read(operation);
            let Some(Answer { body: Body::Range { pairs, .. }, .. }) = answer(operation).filter(|_| read)
            else {
                return false;
            };
            let Some(pair) = pairs.first_mut() else { return false };
            let Some(old) = timeline.at(&pair.key, pair.created.max(pair.modified - 1)) else { return false };
            if pair.version < 4 || old.version != pair.version - 1 {
                return false;
            }
            *pair = old.clone();
            true
        })
    });
}

#[test]
fn a_key_alone_is_not_linearizable() {
    must_find(Workload::Register, &["wgl:nonlinearizable"], |history| {
        // The value of a put long before, overwritten by many.
        let old =
            history.operations.iter().find_map(|operation| match (&operation.action, &operation.outcome) {
                (Action::Put(put), Outcome::Done(_)) => Some(put.clone()),
                _ => None,
            });
        spoil_one(history, |operation| {
            let read = single_read(operation);
            let Some(Answer { body: Body::Range { pairs, .. }, .. }) = answer(operation).filter(|_| read)
            else {
                return false;
            };
            let (Some(pair), Some(old)) = (pairs.first_mut(), &old) else { return false };
            if pair.key != old.key {
                return false;
            }
            pair.value.clone_from(&old.value);
            true
        })
    });
}

#[test]
fn torn_read() {
    must_find(Workload::Mix, &["linearizable:torn-read"], |history| {
        let timeline = Timeline::of(history);
        spoil_one(history, |operation| {
            let present = matches!(&operation.action, Action::Range(range)
                if range.limit == 0 && range.revision == 0 && !range.serializable);
            let Some(Answer { body: Body::Range { pairs, .. }, .. }) = answer(operation).filter(|_| present)
            else {
                return false;
            };
            // One key as it was before the newest of the others.
            let Some(newest) = pairs.iter().map(|pair| pair.modified).max() else { return false };
            let torn = pairs.iter_mut().find_map(|pair| {
                let old = timeline.at(&pair.key, pair.modified - 1)?;
                (pair.modified < newest && pair.version > 1).then(|| (pair, old.clone()))
            });
            torn.is_some_and(|(pair, old)| {
                *pair = old;
                true
            })
        })
    });
}

#[test]
fn phantom_and_wrong_reads() {
    let change = |change: fn(&mut Pair)| {
        move |history: &mut History| {
            spoil_one(history, |operation| {
                let read = single_read(operation);
                match answer(operation).filter(|_| read) {
                    Some(Answer { body: Body::Range { pairs, .. }, .. }) if !pairs.is_empty() => {
                        change(&mut pairs[0]);
                        true
                    }
                    _ => false,
                }
            })
        }
    };
    must_find(
        Workload::Register,
        &["linearizable:phantom-read", "wgl:nonlinearizable"],
        change(|pair| pair.value = "never".into()),
    );
    must_find(Workload::Mix, &["linearizable:wrong-metadata"], change(|pair| pair.version += 1));
    must_find(Workload::Mix, &["linearizable:wrong-metadata"], change(|pair| pair.lease = 5));
    must_find(Workload::Mix, &["linearizable:future-read"], change(|pair| pair.modified += 1_000));
    must_find(Workload::Mix, &["linearizable:wrong-count"], |history| {
        spoil_one(history, |operation| match (&operation.action, &mut operation.outcome) {
            (Action::Range(range), Outcome::Done(Answer { body: Body::Range { count, .. }, .. }))
                if !range.serializable =>
            {
                *count += 1;
                true
            }
            _ => false,
        })
    });
}

#[test]
fn wrong_answers_to_writes() {
    must_find(Workload::Mix, &["linearizable:wrong-previous"], |history| {
        spoil_one(history, |operation| match answer(operation) {
            Some(Answer { body: Body::Put { previous: Some(pair) }, .. }) => {
                pair.version += 1;
                true
            }
            _ => false,
        })
    });
    must_find(Workload::Mix, &["linearizable:wrong-deleted"], |history| {
        spoil_one(history, |operation| match answer(operation) {
            Some(Answer { body: Body::Delete { deleted, .. }, .. }) if *deleted > 0 => {
                *deleted += 1;
                true
            }
            _ => false,
        })
    });
    must_find(Workload::Mix, &["linearizable:wrong-txn-read"], |history| {
        spoil_one(history, |operation| match answer(operation) {
            Some(Answer { body: Body::Txn { answers, .. }, .. }) => {
                answers.iter_mut().any(|body| match body {
                    Body::Range { pairs, .. } => pairs.pop().is_some(),
                    _ => false,
                })
            }
            _ => false,
        })
    });
}

/// The store takes a branch its compares forbid: the compare is changed after the fact.
#[test]
fn wrong_branch() {
    must_find(Workload::Register, &["linearizable:wrong-branch"], |history| {
        spoil_one(history, |operation| {
            let taken = matches!(
                operation.outcome,
                Outcome::Done(Answer { body: Body::Txn { succeeded: true, .. }, .. })
            );
            match &mut operation.action {
                Action::Txn(txn) if taken => {
                    txn.compares[0].operand = crate::history::Operand::Version(1_000);
                    true
                }
                _ => false,
            }
        })
    });
}

fn observer_events(history: &mut History) -> impl Iterator<Item = &mut Vec<Event>> {
    history.watches[0].seen.iter_mut().filter_map(|seen| match &mut seen.what {
        Notice::Events(events) => Some(events),
        _ => None,
    })
}

#[test]
fn refused_or_unasked_writes_that_happened() {
    must_find(Workload::Register, &["timeline:refused-happened"], |history| {
        let write = history.operations.iter().position(|operation| {
            matches!((&operation.action, &operation.outcome), (Action::Put(_), Outcome::Done(_)))
        });
        let Some(write) = write else { return false };
        history.operations[write].outcome = Outcome::Refused("no".into());
        true
    });
    must_find(Workload::Register, &["timeline:phantom-write"], |history| {
        let last = observer_events(history).last().cloned();
        let Some(mut event) = last.and_then(|events| events.into_iter().next()) else { return false };
        event.deleted = false;
        event.pair.value = "never".into();
        event.pair.modified += 1;
        let seen = history.watches[0].seen.last().cloned();
        let Some(mut seen) = seen else { return false };
        seen.what = Notice::Events(vec![event]);
        history.watches[0].seen.push(seen);
        true
    });
    must_find(Workload::Register, &["timeline:phantom-delete"], |history| {
        // Deletes are forgotten, and so is everything that may have been one.
        let before = history.operations.len();
        history
            .operations
            .retain(|operation| answer_is_done(operation) && !matches!(operation.action, Action::Delete(_)));
        history.operations.len() < before
    });
}

/// The end of the log is cut off, and written anew by others.
#[test]
fn acknowledged_writes_that_are_lost() {
    must_find(Workload::Register, &["linearizable:lost-write"], |history| {
        let timeline = Timeline::of(history);
        let lost = timeline.last();
        let Some(index) =
            (0..history.operations.len()).find(|index| timeline.place(*index) == Some(lost - 8))
        else {
            return false;
        };
        if !matches!(history.operations[index].outcome, Outcome::Done(_)) {
            return false;
        }
        // Everybody who asks afterwards is answered from before it.
        let returned = history.operations[index].returned;
        for operation in &mut history.operations {
            if operation.invoked > returned {
                if let Action::Range(_) = operation.action
                    && let Some(answer) = answer(operation)
                {
                    answer.revision = lost - 9;
                    continue;
                }
                operation.outcome = Outcome::Refused("no".into());
            }
        }
        let after = |operation: &Operation| operation.invoked > returned && answer_is_done(operation);
        history.operations.iter().any(after)
            && history.operations.iter().all(|operation| {
                operation.invoked <= returned || !answer_is_done(operation) || single_read(operation)
            })
    });
    must_find(Workload::Register, &["timeline:lost-write"], |history| {
        // A later write is acknowledged with the revision of an earlier one, and the observer saw it.
        let timeline = Timeline::of(history);
        let number = timeline.last() / 2;
        let writer =
            |number: i64| (0..history.operations.len()).find(|index| timeline.place(*index) == Some(number));
        let (Some(early), Some(late)) = (writer(number), writer(timeline.last())) else { return false };
        let (mut events, mut last) = (None, None);
        for told in observer_events(history) {
            if told[0].pair.modified == number {
                events = Some(told);
            } else {
                last = Some(told);
            }
        }
        let (Some(events), Some(last)) = (events, last) else { return false };
        *events = std::mem::take(last);
        events.iter_mut().for_each(|event| event.pair.modified = number);
        history.watches[0]
            .seen
            .retain(|seen| !matches!(&seen.what, Notice::Events(events) if events.is_empty()));
        let done = |index: usize| answer_is_done(&history.operations[index]);
        if !done(early) || !done(late) {
            return false;
        }
        if let Some(answer) = answer(&mut history.operations[late]) {
            answer.revision = number;
        }
        true
    });
}

fn answer_is_done(operation: &Operation) -> bool {
    matches!(operation.outcome, Outcome::Done(_))
}

#[test]
fn a_write_that_happened_twice() {
    must_find(Workload::Register, &["timeline:applied-twice"], |history| {
        let mut told: Vec<Event> = observer_events(history)
            .flat_map(|events| events.iter())
            .filter(|event| !event.deleted)
            .cloned()
            .collect();
        let Some(mut event) = told.pop() else { return false };
        let last = Timeline::of(history).last();
        event.pair.modified = last + 1;
        let Some(mut seen) = history.watches[0].seen.last().cloned() else { return false };
        seen.what = Notice::Events(vec![event]);
        history.watches[0].seen.push(seen);
        true
    });
}

#[test]
fn revisions_that_go_back_or_are_skipped() {
    must_find(Workload::Register, &["linearizable:revision-back"], |history| {
        let operation = history.operations.iter_mut().rev().find(|operation| {
            matches!((&operation.action, &operation.outcome), (Action::Put(_), Outcome::Done(_)))
        });
        let Some(answer) = operation.and_then(answer) else { return false };
        answer.revision -= 30;
        true
    });
    must_find(Workload::Mix, &["timeline:revision-skipped"], |history| {
        // One nobody answered for is not told.
        let timeline = Timeline::of(history);
        let unheard = timeline.revisions().find(|revision| match revision.writer {
            timeline::Writer::Operation(index) => {
                let operation = &history.operations[index];
                !answer_is_done(operation) && matches!(operation.action, Action::Delete(_))
            }
            _ => false,
        });
        let Some(number) = unheard.map(|revision| revision.number) else { return false };
        for events in observer_events(history) {
            events.retain(|event| event.pair.modified != number);
        }
        true
    });
}

#[test]
fn elements_that_are_lost_or_were_never_there() {
    let spoil_read = |spoil: fn(&mut Vec<Pair>)| {
        move |history: &mut History| {
            spoil_one(history, |operation| match answer(operation) {
                Some(Answer { body: Body::Range { pairs, .. }, .. }) if pairs.len() > 20 => {
                    spoil(pairs);
                    true
                }
                _ => false,
            })
        }
    };
    must_find(
        Workload::Set,
        &["set:lost-element", "linearizable:lost-write", "wgl:nonlinearizable"],
        spoil_read(|pairs| drop(pairs.drain(..6))),
    );
    must_find(
        Workload::Set,
        &["set:phantom-element", "linearizable:phantom-read"],
        spoil_read(|pairs| {
            pairs[3].value = "never".into();
        }),
    );
}

#[test]
fn lists_that_lose_or_reorder() {
    let spoil = |spoil: fn(&str) -> String| {
        move |history: &mut History| {
            spoil_one(history, |operation| {
                let read = matches!(operation.action, Action::Range(_));
                match answer(operation).filter(|_| read) {
                    Some(Answer { body: Body::Range { pairs, .. }, .. }) => pairs.iter_mut().any(|pair| {
                        let long = pair.value.split(',').count() > 4;
                        if long {
                            pair.value = spoil(&pair.value);
                        }
                        long
                    }),
                    _ => false,
                }
            })
        }
    };
    must_find(
        Workload::Append,
        &["append:incompatible-order", "linearizable:phantom-read"],
        spoil(|list| {
            let mut elements: Vec<_> = list.split(',').collect();
            elements.swap(1, 2);
            elements.join(",")
        }),
    );
    must_find(
        Workload::Append,
        &["append:duplicate-elements"],
        spoil(|list| {
            let mut elements: Vec<_> = list.split(',').collect();
            elements[1] = elements[0];
            elements.join(",")
        }),
    );
    must_find(
        Workload::Append,
        &["append:G"],
        spoil(|list| {
            let elements: Vec<_> = list.split(',').collect();
            elements[..1].join(",")
        }),
    );
}

#[test]
fn old_states_that_never_were() {
    must_find(Workload::Mix, &["serializable:phantom-read"], |history| {
        spoil_one(history, |operation| match (&operation.action, &mut operation.outcome) {
            (Action::Range(range), Outcome::Done(Answer { body: Body::Range { pairs, .. }, .. }))
                if range.serializable && !pairs.is_empty() =>
            {
                pairs[0].value = "never".into();
                true
            }
            _ => false,
        })
    });
    must_find(Workload::Mix, &["serializable:revision-back"], |history| {
        let mut before = 0;
        let reads = history.operations.iter_mut().filter(|operation| {
            matches!(&operation.action, Action::Range(range) if range.serializable && range.revision == 0)
        });
        for operation in reads {
            operation.client = 99;
            operation.member = 0;
            operation.returned = operation.invoked + 1;
            let Some(answer) = answer(operation) else { continue };
            if before > 10 {
                answer.revision = 3;
                return true;
            }
            before = answer.revision;
        }
        false
    });
}

#[test]
fn leases_that_end_early_or_never() {
    must_find(Workload::Lock, &["lease:expired-early"], |history| {
        // The grant promised more than the keys got.
        let timeline = Timeline::of(history);
        let expired = timeline.revisions().find_map(|revision| match revision.writer {
            timeline::Writer::Expiry(lease) => Some(lease),
            _ => None,
        });
        let Some(expired) = expired else { return false };
        history.operations.iter_mut().any(|operation| match (&operation.action, &mut operation.outcome) {
            (Action::LeaseGrant { id, .. }, Outcome::Done(Answer { body: Body::Lease { ttl, .. }, .. }))
                if *id == expired =>
            {
                *ttl = 100;
                true
            }
            _ => false,
        })
    });
    must_find(Workload::Lock, &["lease:ttl-short"], |history| {
        history.operations.iter_mut().any(|operation| match (&operation.action, &mut operation.outcome) {
            (Action::LeaseTimeToLive { .. }, Outcome::Done(Answer { body: Body::Lease { ttl, .. }, .. }))
                if *ttl > 0 =>
            {
                *ttl = 0;
                true
            }
            _ => false,
        })
    });
    must_find(Workload::Lock, &["lease:expired-late"], |history| {
        let timeline = Timeline::of(history);
        let expired =
            timeline.revisions().find(|revision| matches!(revision.writer, timeline::Writer::Expiry(_)));
        let Some(number) = expired.map(|revision| revision.number) else { return false };
        for seen in &mut history.watches[0].seen {
            if matches!(&seen.what, Notice::Events(events) if events[0].pair.modified >= number) {
                seen.at += 60_000_000_000;
            }
        }
        true
    });
}

#[test]
fn locks_that_two_hold() {
    must_find(Workload::Lock, &["lease:lock-shared", "timeline:revision-reused"], |history| {
        // One that did not get it is told that it did, right after another took it.
        let mut holder: Option<(String, u64)> = None;
        for operation in &mut history.operations {
            let Action::Txn(txn) = &operation.action else { continue };
            let Some(Request::Put(put)) = txn.then.first() else { continue };
            let (key, returned, invoked) = (put.key.clone(), operation.returned, operation.invoked);
            let Some(Answer { body: Body::Txn { succeeded, answers }, .. }) = answer(operation) else {
                continue;
            };
            match &holder {
                _ if *succeeded => holder = Some((key, returned)),
                Some((held, since)) if *held == key && *since < invoked && invoked < since + 50_000_000 => {
                    *succeeded = true;
                    answers.push(Body::Put { previous: None });
                    return true;
                }
                _ => {}
            }
        }
        false
    });
}

#[test]
fn accounts_that_contradict_each_other() {
    must_find(Workload::Register, &["timeline:wrong-revision"], |history| {
        spoil_one(history, |operation| match (&operation.action, &mut operation.outcome) {
            (Action::Put(_), Outcome::Done(answer)) => {
                answer.revision -= 1;
                true
            }
            _ => false,
        })
    });
    must_find(Workload::Mix, &["timeline:wrong-effect"], |history| {
        let timeline = Timeline::of(history);
        let answered = timeline.revisions().filter(|revision| match revision.writer {
            timeline::Writer::Operation(index) => answer_is_done(&history.operations[index]),
            _ => false,
        });
        let several = answered.filter(|revision| revision.changes.len() > 1).last();
        let Some(number) = several.map(|revision| revision.number) else { return false };
        observer_events(history).filter(|events| events[0].pair.modified == number).for_each(|events| {
            events.pop();
        });
        true
    });
    must_find(Workload::Register, &["timeline:wrong-branch"], |history| {
        spoil_one(history, |operation| match &mut operation.outcome {
            Outcome::Done(Answer { body: Body::Txn { succeeded, answers }, .. }) if *succeeded => {
                *succeeded = false;
                answers.clear();
                true
            }
            _ => false,
        })
    });
}

#[test]
fn answers_of_another_kind_or_cut() {
    must_find(Workload::Mix, &["linearizable:wrong-answer"], |history| {
        spoil_one(history, |operation| {
            let read = single_read(operation);
            let Some(answer) = answer(operation).filter(|_| read) else { return false };
            answer.body = Body::Nothing;
            true
        })
    });
    must_find(Workload::Mix, &["linearizable:wrong-read"], |history| {
        spoil_one(history, |operation| match (&operation.action, &mut operation.outcome) {
            (Action::Range(range), Outcome::Done(Answer { body: Body::Range { pairs, .. }, .. }))
                if !range.serializable && range.limit > 0 && !pairs.is_empty() =>
            {
                pairs.remove(0);
                true
            }
            _ => false,
        })
    });
}

/// Somebody read what was asked for only later.
#[test]
fn writes_that_come_before_they_are_asked_for() {
    must_find(Workload::Register, &["linearizable:future-read"], |history| {
        let timeline = Timeline::of(history);
        let early = (0..history.operations.len()).find(|index| {
            let operation = &history.operations[*index];
            timeline.place(*index).is_some()
                && !answer_is_done(operation)
                && matches!(operation.action, Action::Put(_))
        });
        let Some(early) = early else { return false };
        history.operations[early].invoked = history.run.duration;
        history.operations[early].returned = history.run.duration + 1;
        true
    });
}

/// A keep-alive of a lease that is used later becomes its end.
#[test]
fn leases_that_go_on_after_their_end() {
    let end = |history: &mut History, fits: &dyn Fn(&History, &Timeline, usize, i64) -> bool| {
        let timeline = Timeline::of(history);
        let found = (0..history.operations.len()).find_map(|index| {
            let operation = &history.operations[index];
            match (&operation.action, &operation.outcome) {
                (
                    Action::LeaseKeepAlive { id },
                    Outcome::Done(Answer { body: Body::Lease { ttl: 1.., .. }, .. }),
                ) => fits(history, &timeline, index, *id).then_some((index, *id)),
                _ => None,
            }
        });
        let Some((index, id)) = found else { return false };
        history.operations[index].action = Action::LeaseRevoke { id };
        if let Some(answer) = answer(&mut history.operations[index]) {
            answer.body = Body::Nothing;
        }
        true
    };
    must_find(Workload::Lock, &["linearizable:ended-lease"], |history| {
        end(history, &|history, timeline, index, id| {
            let returned = history.operations[index].returned;
            timeline.revisions().any(|revision| {
                let puts = revision.changes.iter().any(|change| change.pair.as_ref().is_some_and(|pair| pair.lease == id));
                matches!(revision.writer, timeline::Writer::Operation(by) if history.operations[by].invoked > returned)
                    && puts
            })
        })
    });
    must_find(Workload::Lock, &["linearizable:lease-key-left"], |history| {
        end(history, &|history, timeline, index, id| {
            let Outcome::Done(answer) = &history.operations[index].outcome else { return false };
            timeline.keys().any(|key| timeline.at(key, answer.revision).is_some_and(|pair| pair.lease == id))
        })
    });
    must_find(Workload::Lock, &["lease:ended-lease"], |history| {
        end(history, &|history, _, index, id| {
            let returned = history.operations[index].returned;
            history.operations.iter().any(|operation| {
                operation.invoked > returned
                    && matches!(operation.action, Action::LeaseKeepAlive { id: other } if other == id)
                    && matches!(
                        operation.outcome,
                        Outcome::Done(Answer { body: Body::Lease { ttl: 1.., .. }, .. })
                    )
            })
        })
    });
    must_find(Workload::Lock, &["linearizable:unknown-lease"], |history| {
        let timeline = Timeline::of(history);
        let mut pairs = timeline
            .revisions()
            .flat_map(|revision| &revision.changes)
            .filter_map(|change| change.pair.as_ref());
        let Some(used) = pairs.find(|pair| pair.lease != 0).map(|pair| pair.lease) else { return false };
        for operation in &mut history.operations {
            if matches!(operation.action, Action::LeaseGrant { id, .. } if id == used) {
                operation.outcome = Outcome::Refused("no".into());
            }
        }
        true
    });
    must_find(Workload::Lock, &["lease:never-expired"], |history| {
        let late = history.operations.iter_mut().rev().find(|operation| match &operation.outcome {
            Outcome::Done(Answer { body: Body::Range { pairs, .. }, .. }) => {
                pairs.iter().any(|pair| pair.lease != 0)
            }
            _ => false,
        });
        let Some(late) = late else { return false };
        late.invoked += 3_600_000_000_000;
        late.returned += 3_600_000_000_000;
        true
    });
}

/// A monotonic clock that leaps excuses a lease that ends early by as much, and no more: runs under leaping clocks were
/// not looked at.
#[test]
fn leases_under_a_leaping_clock() {
    let mut early = 0;
    for seed in 0..20 {
        let mut history = generated(&Plan::new(Workload::Lock, seed));
        // They last a second less than was promised.
        for operation in &mut history.operations {
            if let (Action::LeaseGrant { .. }, Outcome::Done(Answer { body: Body::Lease { ttl, .. }, .. })) =
                (&operation.action, &mut operation.outcome)
            {
                *ttl += 1;
            }
        }
        let ended = history.run.duration;
        let mut found = |most: Nanos| {
            history.leaps = vec![crate::history::Leap { began: 0, ended, most }];
            lease::check(&history, &Timeline::of(&history), lease::SLACK).anomalies
        };
        assert_eq!(found(1_000_000_000), &[], "seed {seed}");
        early += found(100_000_000).iter().filter(|anomaly| anomaly.name == "expired-early").count();
        // Leaps of another time are no excuse.
        history.leaps = vec![crate::history::Leap { began: ended + 1, ended: ended + 2, most: Nanos::MAX }];
        let timeline = Timeline::of(&history);
        early += lease::check(&history, &timeline, lease::SLACK).found.len();
    }
    assert!(early > 20, "{early}");
}

fn refuse(operation: &mut Operation, why: &str) -> bool {
    operation.outcome = Outcome::Refused(why.to_owned());
    true
}

/// What was refused for a revision was believed, whatever it was.
#[test]
fn refusals_for_a_revision_that_are_not_true() {
    let refused = |action: Action, why: &'static str| {
        move |history: &mut History| {
            spoil_one(history, |operation| {
                let range = matches!(&operation.action, Action::Range(range) if !range.serializable);
                range && {
                    operation.action = action.clone();
                    refuse(operation, why)
                }
            })
        }
    };
    let read = |revision| Action::Range(crate::history::Range { revision, ..Default::default() });
    let compacted = "OutOfRange: etcdserver: mvcc: required revision has been compacted";
    for action in [read(0), read(5_000), Action::Compact { revision: 5_000 }] {
        must_find(Workload::Mix, &["linearizable:untrue-compacted"], refused(action, compacted));
    }
    let future = "OutOfRange: etcdserver: mvcc: required revision is a future revision";
    for action in [read(0), read(2), Action::Compact { revision: 2 }] {
        must_find(Workload::Mix, &["linearizable:untrue-future"], refused(action, future));
    }
    // It may have been compacted by a nemesis whose own end nobody knows, and nobody has to know of the future.
    for seed in 0..5 {
        let mut history = generated(&Plan::new(Workload::Register, seed));
        let asked = history.operations.first().expect("there are some").invoked;
        history.compactions.push(crate::history::Compaction { asked, revision: 40 });
        assert!(refused(read(39), compacted)(&mut history) && refused(read(5_000), future)(&mut history));
        let timeline = Timeline::of(&history);
        assert_eq!(linearizable::check(&history, &timeline).anomalies, &[], "seed {seed}");
    }
}

/// "Lease not found" of one that was just granted was believed.
#[test]
fn a_lease_that_is_lost() {
    let spoil = |history: &mut History, excuse: bool| {
        let found = history.operations.iter().find_map(|grant| {
            let (Action::LeaseGrant { id, ttl }, Outcome::Done(_)) = (&grant.action, &grant.outcome) else {
                return None;
            };
            let until = grant.invoked + *ttl as u64 * 1_000_000_000;
            let at = history.operations.iter().position(|operation| {
                let own = matches!(&operation.action, Action::LeaseKeepAlive { id: own } if own == id);
                own && operation.invoked > grant.returned && operation.returned < until
            })?;
            let returned = history.operations[at].returned;
            let revoked = history.operations.iter().any(|operation| {
                matches!(operation.action, Action::LeaseRevoke { id: own } if own == *id)
                    && operation.invoked <= returned
            });
            (!revoked).then_some((*id, at))
        });
        let Some((id, at)) = found else { return false };
        let operation = &mut history.operations[at];
        operation.action =
            Action::Put(crate::history::Put { key: "k".into(), lease: id, ..Default::default() });
        if excuse {
            // Somebody may have ended it meanwhile.
            let mut revoke = operation.clone();
            revoke.action = Action::LeaseRevoke { id };
            revoke.outcome = Outcome::Unknown("timed out".to_owned());
            refuse(operation, "NotFound: etcdserver: requested lease not found");
            history.operations.insert(at, revoke);
            return true;
        }
        refuse(operation, "NotFound: etcdserver: requested lease not found")
    };
    must_find(Workload::Lock, &["lease:lease-lost"], |history| spoil(history, false));
    for seed in 0..20 {
        let mut history = generated(&Plan::new(Workload::Lock, seed));
        spoil(&mut history, true);
        assert!(!found(&history).contains(&"lease:lease-lost".to_owned()), "seed {seed}");
    }
}

#[test]
fn compactions_that_cannot_be() {
    let compactions = |history: &History| -> Vec<usize> {
        (0..history.operations.len())
            .filter(|index| {
                let operation = &history.operations[*index];
                matches!(operation.action, Action::Compact { .. }) && answer_is_done(operation)
            })
            .collect()
    };
    must_find(Workload::Mix, &["linearizable:compacted-future"], |history| {
        let Some(index) = compactions(history).pop() else { return false };
        history.operations[index].action = Action::Compact { revision: 100_000 };
        true
    });
    must_find(Workload::Mix, &["linearizable:compacted-twice"], |history| {
        let [first, .., last] = compactions(history)[..] else { return false };
        history.operations[last].action = history.operations[first].action.clone();
        true
    });
    must_find(Workload::Mix, &["linearizable:compacted-read"], |history| {
        let Some(first) = compactions(history).first().copied() else { return false };
        let returned = history.operations[first].returned;
        spoil_one(history, |operation| match &mut operation.action {
            Action::Range(range) if operation.invoked > returned && !range.serializable => {
                range.revision = 1;
                true
            }
            _ => false,
        }) && !matches!(history.operations[first].action, Action::Compact { revision: ..=1 })
    });
}
