//! What came of a run, and of many, in numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::words::count;
use crate::check::availability::{self, Availability};
use crate::check::{Anomaly, Check, Verdict};
use crate::history::{History, Nanos, Notice, Outcome, Run};

/// As nanoseconds.
const SECOND: f64 = 1e9;

/// What came of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// What was run.
    pub run: Run,
    /// How many operations ended how.
    pub operations: Counts,
    /// How many events came to watchers.
    pub events: usize,
    /// How often the nemesis did what.
    pub faults: BTreeMap<String, usize>,
    /// How long nothing could be written.
    pub unavailable: Unavailable,
    /// What must not be, by every checker, as far as they told.
    pub anomalies: Vec<Anomaly>,
    /// What each checker looked at and how much it found, without the anomalies themselves.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// What else is to be known, such as what the nemesis could not do.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The rule that the program was made to break, if any.
    #[serde(default)]
    pub mutant: Option<Mutant>,
}

/// How operations ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Answered.
    pub done: usize,
    /// Certainly not done.
    pub refused: usize,
    /// Nobody knows.
    pub unknown: usize,
}

/// Time without a successful write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Unavailable {
    /// The longest time from one to the next, in seconds.
    pub longest: f64,
    /// How many seconds of the run, counted from its begin, had none.
    pub total: u64,
}

/// A rule that was broken on purpose, by a program made for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutant {
    /// Its name; nothing where the program broke none.
    pub name: String,
    /// The checkers that must find it, any of them.
    pub meant: Vec<String>,
}

impl Mutant {
    /// The program was made to break rules, and broke none.
    pub fn none() -> Mutant {
        Mutant::default()
    }
}

impl From<mutants::Mutant> for Mutant {
    fn from(mutant: mutants::Mutant) -> Mutant {
        let meant = mutant.checkers().split(',').map(str::to_owned).collect();
        Mutant { name: mutant.name().to_owned(), meant }
    }
}

impl Results {
    /// What a history and its anomalies come to.
    pub fn of(history: &History, anomalies: Vec<Anomaly>) -> Results {
        let mut operations = Counts::default();
        for operation in &history.operations {
            match operation.outcome {
                Outcome::Done(_) => operations.done += 1,
                Outcome::Refused(_) => operations.refused += 1,
                Outcome::Unknown(_) => operations.unknown += 1,
            }
        }
        let notices = history.watches.iter().flat_map(|watch| &watch.seen).map(|seen| &seen.what);
        let events =
            notices.map(|what| if let Notice::Events(events) = what { events.len() } else { 0 }).sum();
        let mut faults = BTreeMap::new();
        for fault in &history.faults {
            *faults.entry(fault.kind.clone()).or_default() += 1;
        }
        let (run, unavailable) = (history.run.clone(), availability::measure(history).into());
        Results { run, operations, events, faults, unavailable, anomalies, ..Results::default() }
    }

    /// What a history and what checkers say of it come to.
    pub fn judged(history: &History, verdict: Verdict) -> Results {
        let anomalies = verdict.anomalies().cloned().collect();
        let bare = |check| Check { anomalies: Vec::new(), ..check };
        let checks = verdict.checks.into_iter().map(bare).collect();
        Results { checks, ..Results::of(history, anomalies) }
    }

    /// How many anomalies there are of each name, also those that were only counted.
    pub fn found(&self) -> BTreeMap<&str, u64> {
        let mut told: BTreeMap<&str, u64> = BTreeMap::new();
        for anomaly in &self.anomalies {
            *told.entry(&anomaly.name).or_default() += 1;
        }
        let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, times) in self.checks.iter().flat_map(|check| &check.found) {
            *counted.entry(name).or_default() += times;
        }
        for (name, times) in counted {
            let all = told.entry(name).or_default();
            *all = times.max(*all);
        }
        told
    }

    /// The same, with what else is to be known.
    #[must_use]
    pub fn noting(self, notes: Vec<String>) -> Results {
        Results { notes, ..self }
    }

    /// The same, of a program that was made to break a rule.
    #[must_use]
    pub fn of_mutant(self, mutant: Mutant) -> Results {
        Results { mutant: Some(mutant), ..self }
    }

    /// The checkers that found anything.
    pub fn noticed_by(&self) -> BTreeSet<&str> {
        self.anomalies.iter().map(|anomaly| anomaly.checker.as_str()).collect()
    }

    /// The checkers that a mutant was found by; none where it was not, or by others than it is meant for.
    pub fn caught_by(&self) -> BTreeSet<&str> {
        let meant = self.mutant.iter().flat_map(|mutant| &mutant.meant);
        let names: BTreeSet<&str> = meant.map(String::as_str).collect();
        self.noticed_by().intersection(&names).copied().collect()
    }
}

impl Counts {
    /// All together.
    pub fn all(&self) -> usize {
        self.done + self.refused + self.unknown
    }
}

impl From<Availability> for Unavailable {
    fn from(measured: Availability) -> Unavailable {
        Unavailable { longest: measured.longest as f64 / SECOND, total: measured.unavailable }
    }
}

/// When a run's clients ended.
pub(super) fn end(history: &History) -> Nanos {
    match history.run.duration {
        0 => history.operations.iter().map(|operation| operation.returned).max().unwrap_or(0),
        duration => duration,
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Results { run, operations, unavailable, .. } = self;
        writeln!(f, "{} under {}, {} of {} members", run.workload, run.nemesis, run.program, run.members)?;
        if let Some(mutant) = self.mutant.as_ref().filter(|mutant| !mutant.name.is_empty()) {
            writeln!(f, "made to break a rule: {}", mutant.name)?;
        }
        writeln!(f, "seed        {}", run.seed)?;
        writeln!(f, "again       {}", run.command)?;
        writeln!(f, "clients     {:.1} s", end_of(run))?;
        writeln!(
            f,
            "operations  {}: {} done, {} refused, {} unknown",
            count(operations.all()),
            count(operations.done),
            count(operations.refused),
            count(operations.unknown)
        )?;
        writeln!(f, "events      {}", count(self.events))?;
        let faults: Vec<String> = self.faults.iter().map(|(kind, times)| format!("{times} {kind}")).collect();
        let faults = if faults.is_empty() { "none".to_owned() } else { faults.join(", ") };
        writeln!(f, "faults      {faults}")?;
        writeln!(f, "no write    {:.1} s at most, {} s in all", unavailable.longest, unavailable.total)?;
        for note in &self.notes {
            writeln!(f, "note        {note}")?;
        }
        for check in &self.checks {
            let looked: Vec<String> = check
                .looked_at
                .iter()
                .map(|(what, times)| format!("{} {what}", count(*times as usize)))
                .collect();
            let took = check.took.as_secs_f64();
            writeln!(f, "checked     {}: {} in {took:.1} s", check.checker, looked.join(", "))?;
        }
        let found: u64 = self.found().values().sum();
        writeln!(f, "anomalies   {}", count(found as usize))?;
        for anomaly in &self.anomalies {
            writeln!(f, "  {} ({}): {}", anomaly.name, anomaly.checker, anomaly.explanation)?;
        }
        Ok(())
    }
}

fn end_of(run: &Run) -> f64 {
    run.duration as f64 / SECOND
}

/// Runs of one workload under one nemesis, together.
#[derive(Debug, Default)]
pub(super) struct Cell {
    pub(super) runs: usize,
    pub(super) operations: Counts,
    pub(super) events: usize,
    pub(super) faults: usize,
    pub(super) anomalies: BTreeMap<String, u64>,
    pub(super) clients: f64,
    pub(super) unavailable: Unavailable,
    pub(super) seeds: Vec<u64>,
}

impl Cell {
    pub(super) fn add(&mut self, results: &Results) {
        self.runs += 1;
        self.operations.done += results.operations.done;
        self.operations.refused += results.operations.refused;
        self.operations.unknown += results.operations.unknown;
        self.events += results.events;
        self.faults += results.faults.values().sum::<usize>();
        for (name, times) in results.found() {
            *self.anomalies.entry(name.to_owned()).or_default() += times;
        }
        self.clients += end_of(&results.run);
        self.unavailable.longest = self.unavailable.longest.max(results.unavailable.longest);
        self.unavailable.total += results.unavailable.total;
        self.seeds.push(results.run.seed);
    }

    /// How many anomalies, and which.
    pub(super) fn anomalies(&self) -> String {
        let all: u64 = self.anomalies.values().sum();
        if all == 0 {
            return "0".to_owned();
        }
        let each: Vec<String> =
            self.anomalies.iter().map(|(name, times)| format!("{times} {name}")).collect();
        format!("**{all}** ({})", each.join(", "))
    }
}

/// Runs by program, nemesis and workload; those of mutants are left out.
pub(super) fn cells(results: &[Results]) -> BTreeMap<String, BTreeMap<(String, String), Cell>> {
    let mut programs: BTreeMap<String, BTreeMap<(String, String), Cell>> = BTreeMap::new();
    for results in results.iter().filter(|results| results.mutant.is_none()) {
        let Run { program, nemesis, workload, members, .. } = &results.run;
        let cells = programs.entry(format!("{program}, {members} members")).or_default();
        cells.entry((nemesis.clone(), workload.clone())).or_default().add(results);
    }
    programs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, Answer, Body, Fault, Operation, Put, Range};

    const SECOND: Nanos = 1_000_000_000;

    fn operation(returned: Nanos, action: Action, done: bool) -> Operation {
        let body = Body::Put { previous: None };
        let outcome = match done {
            true => Outcome::Done(Answer { revision: 2, body }),
            false => Outcome::Unknown("timed out".to_owned()),
        };
        Operation { client: 0, member: 0, invoked: returned - 1, returned, action, outcome }
    }

    fn history() -> History {
        let put = || Action::Put(Put::default());
        let operations = vec![
            operation(SECOND / 2, put(), true),
            operation(SECOND * 2, put(), false),
            operation(SECOND * 3, Action::Range(Range::default()), true),
            operation(SECOND * 4 + 1, put(), true),
            operation(SECOND * 5 + 1, put(), true),
        ];
        let run = Run { duration: SECOND * 8, workload: "register".to_owned(), ..Run::default() };
        let kill = Fault { kind: "kill".to_owned(), what: String::new(), began: 1, ended: 2 };
        History { run, operations, faults: vec![kill.clone(), kill], ..History::default() }
    }

    #[test]
    fn seconds_without_a_write_are_counted_to_the_end() {
        let results = Results::of(&history(), Vec::new());
        assert_eq!(results.operations, Counts { done: 4, refused: 0, unknown: 1 });
        // None in [1, 4) and [6, 8).
        assert_eq!(results.unavailable.total, 5);
        assert!((results.unavailable.longest - 3.5).abs() < 0.001, "{:?}", results.unavailable);
        assert_eq!(results.faults["kill"], 2);
    }

    #[test]
    fn a_run_without_any_write_is_unavailable_throughout() {
        let history = History { operations: Vec::new(), ..history() };
        assert_eq!(Results::of(&history, Vec::new()).unavailable, Unavailable { longest: 8.0, total: 8 });
    }

    #[test]
    fn results_are_read_back() {
        let anomaly = Anomaly { name: "watch-gap".to_owned(), watch: Some(1), ..Anomaly::default() };
        let results = Results::of(&history(), vec![anomaly]).noting(vec!["network: loopback".to_owned()]);
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
        assert!(results.to_string().contains("3.5 s at most, 5 s in all"), "{results}");
        assert!(results.to_string().contains("2 kill"), "{results}");
        assert!(results.to_string().contains("network: loopback"), "{results}");
    }

    #[test]
    fn anomalies_that_were_only_counted_count() {
        let mut check = Check::new("watch");
        check.look("events", 12_000);
        for _ in 0..70 {
            check.add("watch-gap", Vec::new(), || "one is missing".to_owned());
        }
        let results = Results::judged(&history(), Verdict { checks: vec![check], ..Verdict::default() });
        assert_eq!((results.anomalies.len(), results.found()["watch-gap"]), (50, 70));
        assert!(results.to_string().contains("watch: 12,000 events in"), "{results}");
        assert!(results.to_string().contains("anomalies   70\n"), "{results}");
        assert!(results.checks[0].anomalies.is_empty());
    }

    #[test]
    fn a_mutant_counts_as_caught_only_by_what_is_meant_for_it() {
        let anomaly = Anomaly::new("watch", "watch-gap", Vec::new(), String::new());
        let results = |meant: &str| {
            let mutant = Mutant { name: "drop-event".to_owned(), meant: vec![meant.to_owned()] };
            Results::of(&history(), vec![anomaly.clone()]).of_mutant(mutant)
        };
        assert_eq!(results("watch").caught_by(), BTreeSet::from(["watch"]));
        assert_eq!(results("hash").caught_by(), BTreeSet::new());
        assert_eq!(results("hash").noticed_by(), BTreeSet::from(["watch"]));
    }
}
