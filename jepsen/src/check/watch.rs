//! What etcd promises of watches, over all of a watcher's reconnections.
//!
//! A watcher asks again and again from some revision on; what comes until its
//! connection is lost is one session. Of every session must hold:
//!
//! | broken, it is called | the promise |
//! |---|---|
//! | `watch-order` | revisions go up |
//! | `watch-repeat` | no event comes twice, nor again after a resumption behind it |
//! | `watch-gap` | no event between the start and the last one that came is missing |
//! | `watch-torn-revision` | the events of a revision come in one response |
//! | `watch-before-start` | no event is older than the start |
//! | `watch-unfiltered` | every event is of a watched key |
//! | `watch-phantom` | every event happened |
//! | `watch-wrong-event` | it is the change that happened: same value, lease, kind |
//! | `watch-wrong-count` | its pair's `created`, `modified` and `version` are right |
//! | `watch-wrong-previous` | the pair before is right; it may be missing only where unasked or compacted |
//! | `watch-untrue-progress` | nothing at or below a notified revision comes later, or never came |
//! | `watch-header` | a header's revision is not below its events', nor below an earlier one of that member |
//! | `watch-untrue-cancel` | ended as compacted only where what was to come had been |
//! | `watch-after-end` | nothing comes between an end and the next beginning |
//!
//! A response that the server sent in fragments counts as one.

mod truth;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use crate::check::model::covers;
use crate::check::{Anomaly, Check};
use crate::history::{Event, History, Notice, Pair, Seen, Watch};
use truth::{Change, Truth, is_everything};

/// How many operations an anomaly names at most.
const OPERATIONS_MAX: usize = 3;

/// What does not hold of a history's watches; of each watcher and name, the first time is told.
pub fn check(history: &History) -> Check {
    let mut check = Check::new("watch");
    let began = Instant::now();
    let truth = Truth::of(history);
    check.look("revisions", truth.len());
    for (number, watch) in history.watches.iter().enumerate() {
        let seen = watch.seen.iter().map(|seen| &seen.what);
        let count = |of: fn(&Notice) -> usize| seen.clone().map(of).sum();
        check.look("watchers", 1);
        check.look("sessions", count(|what| usize::from(matches!(what, Notice::Created { .. }))));
        check.look("progress", count(|what| usize::from(matches!(what, Notice::Progress))));
        check.look("events", count(|what| if let Notice::Events(events) = what { events.len() } else { 0 }));
        Sight::new(&truth, number, watch).check(&mut check);
    }
    check.took = began.elapsed();
    check
}

/// One watcher while it is checked.
struct Sight<'a> {
    truth: &'a Truth<'a>,
    number: usize,
    watch: &'a Watch,
    /// Events that came in earlier sessions.
    told: BTreeSet<(i64, &'a str)>,
    /// By name: the first anomaly, and how many there are.
    found: BTreeMap<&'static str, (Anomaly, u64)>,
}

/// What came between one beginning and the next.
struct Session<'a> {
    /// The first revision that may come.
    start: i64,
    /// Until its end.
    seen: Vec<&'a Seen>,
}

impl<'a> Sight<'a> {
    fn new(truth: &'a Truth<'a>, number: usize, watch: &'a Watch) -> Sight<'a> {
        Sight { truth, number, watch, told: BTreeSet::new(), found: BTreeMap::new() }
    }

    fn check(mut self, check: &mut Check) {
        self.check_headers();
        for session in self.sessions() {
            let came = self.check_arrivals(&session);
            self.check_missing(&session, &came);
            self.check_cancel(&session);
            for (seen, event) in events(&session.seen) {
                self.check_event(seen, event);
            }
            self.told.extend(came.into_keys());
        }
        for (name, (mut anomaly, count)) in self.found {
            if count > 1 {
                anomaly.explanation.push_str(&format!(" (and {} more)", count - 1));
            }
            check.take(anomaly);
            *check.found.entry(name.to_owned()).or_default() += count - 1;
        }
    }

    fn sessions(&mut self) -> Vec<Session<'a>> {
        let mut sessions: Vec<Session<'a>> = Vec::new();
        let mut open = false;
        for seen in &self.watch.seen {
            match (&seen.what, sessions.last_mut()) {
                (Notice::Created { start }, _) => {
                    let start = if *start == 0 { seen.revision + 1 } else { *start };
                    sessions.push(Session { start, seen: vec![seen] });
                    open = true;
                }
                (_, Some(session)) if open => {
                    session.seen.push(seen);
                    open = !matches!(seen.what, Notice::Lost(_) | Notice::Cancelled { .. });
                }
                (Notice::Events(events), _) => {
                    let of = events.first().map_or(0, |event| event.pair.modified);
                    self.find(
                        "watch-after-end",
                        of,
                        format!("revision {of} came while there was no watcher"),
                    );
                }
                _ => {}
            }
        }
        sessions
    }

    /// Checks what came, as it came; gives in which response each event first did.
    fn check_arrivals(&mut self, session: &Session<'a>) -> BTreeMap<(i64, &'a str), usize> {
        let start = session.start;
        let mut came = BTreeMap::new();
        let mut last = 0;
        let mut progress = 0;
        for (place, seen) in session.seen.iter().enumerate() {
            if let Notice::Progress = seen.what {
                progress = seen.revision.max(progress);
            }
            let Notice::Events(events) = &seen.what else { continue };
            for event in events {
                let (revision, key) = (event.pair.modified, event.pair.key.as_str());
                let it = format!("revision {revision} of {key:?}");
                if came.contains_key(&(revision, key)) {
                    self.find("watch-repeat", revision, format!("{it} came twice"));
                    continue;
                }
                if revision < start && self.told.contains(&(revision, key)) {
                    let why = format!("{it} came again after a resumption from {start}");
                    self.find("watch-repeat", revision, why);
                } else if revision < start {
                    self.find("watch-before-start", revision, format!("{it} came, asked from {start} on"));
                }
                if revision < last {
                    self.find("watch-order", revision, format!("{it} came after revision {last}"));
                }
                if revision <= progress {
                    let why = format!("{it} came after progress up to {progress} was notified");
                    self.find("watch-untrue-progress", revision, why);
                }
                let of_revision = (revision, "")..(revision + 1, "");
                if came.range(of_revision).any(|(_, &other)| other != place) {
                    let why = format!("{it} came in another response than the rest of the revision");
                    self.find("watch-torn-revision", revision, why);
                }
                came.insert((revision, key), place);
                last = revision.max(last);
            }
        }
        came
    }

    fn check_missing(&mut self, session: &Session<'a>, came: &BTreeMap<(i64, &'a str), usize>) {
        let (truth, watch, start) = (self.truth, self.watch, session.start);
        let last = came.keys().next_back().map_or(0, |&(revision, _)| revision);
        let notified = session.seen.iter().filter(|seen| matches!(seen.what, Notice::Progress));
        let progress = notified.map(|seen| seen.revision).max().unwrap_or(0);
        let end = last.max(progress);
        for (revision, key) in truth.of_keys(&watch.keys, start, end) {
            if came.contains_key(&(revision, key)) {
                continue;
            }
            let it = format!("revision {revision} of {key:?} never came");
            if revision > last {
                let why = format!("{it}, though progress up to {progress} was notified");
                self.find("watch-untrue-progress", revision, why);
            } else {
                self.find("watch-gap", revision, format!("{it}, asked from {start} on, but {last} did"));
            }
        }
        if is_everything(&watch.keys) {
            for (first, hole_end) in truth.holes(start, end) {
                let why =
                    format!("no event of revisions {first} to {hole_end} ever came, but up to {end} did");
                self.find("watch-gap", first - 1, why);
            }
        }
    }

    fn check_cancel(&mut self, session: &Session<'a>) {
        let Some(seen) = session.seen.last() else { return };
        let Notice::Cancelled { compacted: compacted @ 1.., .. } = seen.what else { return };
        let told = events(&session.seen).map(|(_, event)| event.pair.modified + 1).max();
        let next = told.unwrap_or(0).max(session.start);
        if next >= compacted {
            let why = format!("ended as compacted up to {compacted}, but {next} was to come next");
            self.find("watch-untrue-cancel", next, why);
        } else if !self.truth.may_be_compacted(compacted, seen.at) {
            let why = format!("ended as compacted up to {compacted}, but nobody had asked for that");
            self.find("watch-untrue-cancel", next, why);
        }
    }

    /// Headers within a response, and from one to the next of the same member.
    fn check_headers(&mut self) {
        let mut latest: HashMap<usize, i64> = HashMap::new();
        for seen in self.watch.seen.iter().filter(|seen| seen.revision > 0) {
            let (header, member) = (seen.revision, seen.member);
            let newest = match &seen.what {
                Notice::Events(events) => events.iter().map(|event| event.pair.modified).max().unwrap_or(0),
                Notice::Created { .. } | Notice::Progress => 0,
                Notice::Cancelled { .. } | Notice::Lost(_) => continue,
            };
            if header < newest {
                let why = format!("revision {newest} came under a header of revision {header}");
                self.find("watch-header", newest, why);
            }
            let latest = latest.entry(member).or_default();
            if header < *latest {
                let why = format!("member {member} sent a header of revision {header} after {latest}");
                self.find("watch-header", newest, why);
            }
            *latest = header.max(*latest);
        }
    }

    /// Whether it is what happened, wherever it came.
    fn check_event(&mut self, seen: &Seen, event: &Event) {
        let (pair, truth) = (&event.pair, self.truth);
        let (revision, key) = (pair.modified, pair.key.as_str());
        let it = format!("revision {revision} of {key:?}");
        if !covers(&self.watch.keys, key) {
            self.find("watch-unfiltered", revision, format!("{it} came, which is not watched"));
        }
        let counted = match event.deleted {
            true => pair.created == 0 && pair.version == 0,
            false => {
                let first = pair.created == revision;
                (1..=revision).contains(&pair.created) && pair.version > 0 && first == (pair.version == 1)
            }
        };
        if !counted {
            let (created, version) = (pair.created, pair.version);
            let why = format!("{it} came as created in {created}, version {version}");
            self.find("watch-wrong-count", revision, why);
        }
        let Some(happened) = truth.at(revision) else { return };
        let Some(change) = happened.changes.get(key) else {
            let who = if happened.answered { "its writer was answered" } else { "the observer was told" };
            let why = format!("{it} came, but that revision did not change it, as {who}");
            self.find("watch-phantom", revision, why);
            return;
        };
        self.check_pair(&it, event, change);
        self.check_previous(&it, seen, event, change);
    }

    fn check_pair(&mut self, it: &str, event: &Event, change: &Change) {
        let (pair, after) = (&event.pair, &change.after);
        let revision = pair.modified;
        let never_there = event.deleted && change.before == Some(None);
        if event.deleted != change.deleted || never_there {
            let kind = if event.deleted { "a deletion" } else { "a put" };
            self.find("watch-wrong-event", revision, format!("{it} came as {kind}, which it was not"));
        } else if (&pair.value, pair.lease) != (&after.value, after.lease) {
            let why = format!(
                "{it} came with {:?} and lease {}; it was {:?} and {}",
                pair.value, pair.lease, after.value, after.lease
            );
            self.find("watch-wrong-event", revision, why);
        } else if !event.deleted
            && after.created > 0
            && (pair.created, pair.version) != (after.created, after.version)
        {
            let why = format!(
                "{it} came as created in {}, version {}; it was {} and {}",
                pair.created, pair.version, after.created, after.version
            );
            self.find("watch-wrong-count", revision, why);
        }
    }

    fn check_previous(&mut self, it: &str, seen: &Seen, event: &Event, change: &Change) {
        let revision = event.pair.modified;
        let why = match (&event.previous, &change.before) {
            (Some(_), _) if !self.watch.previous => format!("{it} came with the pair before, unasked"),
            (Some(told), Some(Some(before))) if told != before => {
                format!("{it} came with {} before it; that was {}", tell(told), tell(before))
            }
            (Some(told), Some(None)) => format!("{it} came with {} before it; there was none", tell(told)),
            (None, Some(Some(before)))
                if self.watch.previous && !self.truth.may_be_compacted(revision, seen.at) =>
            {
                format!("{it} came with nothing before it; that was {}", tell(before))
            }
            _ => return,
        };
        self.find("watch-wrong-previous", revision, why);
    }

    fn find(&mut self, name: &'static str, revision: i64, why: String) {
        let (number, watch) = (self.number, self.watch);
        let (anomaly, count) = self.found.entry(name).or_insert_with(|| {
            let explanation = format!("watch {number} of client {}: {why}", watch.client);
            let (checker, name) = ("watch".to_owned(), name.to_owned());
            (Anomaly { checker, name, explanation, operations: Vec::new(), watch: Some(number) }, 0)
        });
        *count += 1;
        let new = |operation: &usize| !anomaly.operations.contains(operation);
        if anomaly.operations.len() < OPERATIONS_MAX {
            let operation = self.truth.operation(revision).filter(new);
            anomaly.operations.extend(operation);
        }
    }
}

fn events<'a>(seen: &[&'a Seen]) -> impl Iterator<Item = (&'a Seen, &'a Event)> {
    seen.iter().flat_map(|&seen| {
        let events: &[Event] = match &seen.what {
            Notice::Events(events) => events,
            _ => &[],
        };
        events.iter().map(move |event| (seen, event))
    })
}

fn tell(pair: &Pair) -> String {
    let Pair { key, value, created, modified, version, lease } = pair;
    format!("{key:?} = {value:?} (created {created}, modified {modified}, version {version}, lease {lease})")
}
