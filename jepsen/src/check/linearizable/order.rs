//! Time: a revision that was heard of is there for all who ask later, and is
//! not heard of before its write was asked for.

use super::{done, is_linearizable};
use crate::check::Check;
use crate::check::timeline::{Timeline, Writer, changed};
use crate::history::{History, Nanos, Notice, Outcome};

pub fn check(history: &History, timeline: &Timeline, check: &mut Check) {
    let lost = lost_writes(history, check);
    floor(history, check, &lost);
    ceiling(history, timeline, check);
}

/// A linearizable answer, in the order of invocation.
struct Place {
    index: usize,
    invoked: Nanos,
    revision: i64,
    changed: bool,
}

fn places(history: &History) -> Vec<Place> {
    let mut places: Vec<_> = done(history)
        .filter(|(_, operation, _)| is_linearizable(&operation.action))
        .map(|(index, operation, answer)| Place {
            index,
            invoked: operation.invoked,
            revision: answer.revision,
            changed: changed(&operation.action, &answer.body),
        })
        .collect();
    places.sort_by_key(|place| place.invoked);
    places
}

/// Acknowledged writes whose revision nobody who asked later ever reached, though some asked.
fn lost_writes(history: &History, check: &mut Check) -> Vec<usize> {
    let places = places(history);
    let mut highest = vec![i64::MIN; places.len() + 1];
    for (at, place) in places.iter().enumerate().rev() {
        highest[at] = highest[at + 1].max(place.revision);
    }
    let mut lost = Vec::new();
    for write in places.iter().filter(|place| place.changed) {
        let returned = history.operations[write.index].returned;
        let later = places.partition_point(|place| place.invoked <= returned);
        if later < places.len() && highest[later] < write.revision {
            lost.push(write.index);
            check.add("lost-write", vec![write.index, places[later].index], || {
                format!(
                    "Operation {} was acknowledged as revision {}, but who asked later, first operation {}, was never \
                     answered from more than revision {}.",
                    write.index, write.revision, places[later].index, highest[later]
                )
            });
        }
    }
    lost
}

/// Who heard of a revision, and when.
struct Heard {
    at: Nanos,
    revision: i64,
    by: By,
}

#[derive(Clone, Copy)]
enum By {
    Operation(usize),
    Watch(usize),
}

fn heard(history: &History) -> Vec<Heard> {
    let answers = done(history).map(|(index, operation, answer)| Heard {
        at: operation.returned,
        revision: answer.revision,
        by: By::Operation(index),
    });
    let notices = history.watches.iter().enumerate().flat_map(|(index, watch)| {
        watch.seen.iter().map(move |seen| {
            let events = match &seen.what {
                Notice::Events(events) => events.iter().map(|event| event.pair.modified).max(),
                _ => None,
            };
            Heard { at: seen.at, revision: seen.revision.max(events.unwrap_or(0)), by: By::Watch(index) }
        })
    });
    let mut all: Vec<_> = answers.chain(notices).collect();
    all.sort_by_key(|heard| heard.at);
    all
}

fn floor(history: &History, check: &mut Check, lost: &[usize]) {
    let mut heard = heard(history).into_iter().peekable();
    let mut highest: Option<Heard> = None;
    for place in places(history) {
        while let Some(next) = heard.next_if(|heard| heard.at < place.invoked) {
            if highest.as_ref().is_none_or(|highest| highest.revision < next.revision) {
                highest = Some(next);
            }
        }
        check.look("answers in order of time", 1);
        let Some(floor) = &highest else { continue };
        let least = floor.revision + i64::from(place.changed);
        if place.revision >= least || matches!(floor.by, By::Operation(index) if lost.contains(&index)) {
            continue;
        }
        let name = if place.changed { "revision-back" } else { "stale-read" };
        let (who, mut operations) = match floor.by {
            By::Operation(index) => (format!("operation {index}"), vec![index]),
            By::Watch(index) => (format!("watch {index}"), Vec::new()),
        };
        operations.push(place.index);
        check.add(name, operations, || {
            format!(
                "Operation {} was answered at revision {}, though {who} had heard of revision {} before it was asked.",
                place.index, place.revision, floor.revision
            )
        });
    }
}

/// Only of writes that nobody answered for: the others are among those that `floor` looks at.
fn ceiling(history: &History, timeline: &Timeline, check: &mut Check) {
    let mut latest: Vec<(i64, Nanos, usize)> = Vec::new();
    for revision in timeline.revisions() {
        let Writer::Operation(index) = revision.writer else { continue };
        let operation = &history.operations[index];
        if matches!(&operation.outcome, Outcome::Done(answer) if changed(&operation.action, &answer.body)) {
            continue;
        }
        if latest.last().is_none_or(|(_, invoked, _)| *invoked < operation.invoked) {
            latest.push((revision.number, operation.invoked, index));
        }
    }
    check.look("writes without an answer that happened", latest.len());
    for heard in heard(history) {
        let last = latest.partition_point(|(number, ..)| *number <= heard.revision);
        let Some((number, invoked, writer)) = last.checked_sub(1).map(|at| latest[at]) else { continue };
        if invoked <= heard.at {
            continue;
        }
        let (who, mut operations) = match heard.by {
            By::Operation(index) => (format!("Operation {index}"), vec![index]),
            By::Watch(index) => (format!("Watch {index}"), Vec::new()),
        };
        operations.push(writer);
        check.add("future-read", operations, || {
            format!(
                "{who} heard of revision {}, before operation {writer}, which made revision {number}, was asked.",
                heard.revision
            )
        });
    }
}
