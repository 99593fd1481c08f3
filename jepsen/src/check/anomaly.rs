//! What a checker found.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::availability::Availability;

/// Something that must not be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Who found it, such as `watch`.
    pub checker: String,
    /// What it is called, such as `watch-gap`.
    pub name: String,
    /// What was seen, and why it cannot be, for people.
    pub explanation: String,
    /// Which operations of the history show it.
    #[serde(default)]
    pub operations: Vec<usize>,
    /// Which watch of the history shows it.
    #[serde(default)]
    pub watch: Option<usize>,
}

impl Anomaly {
    /// One without a watch.
    pub fn new(checker: &str, name: &str, operations: Vec<usize>, explanation: String) -> Self {
        Self { checker: checker.into(), name: name.into(), explanation, operations, watch: None }
    }
}

/// What one checker looked at, and what it found there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub checker: String,
    /// What was looked at and how much of it; also what could not be looked at.
    pub looked_at: BTreeMap<String, u64>,
    /// What was found, of each name [`TOLD_MAX`] at most.
    pub anomalies: Vec<Anomaly>,
    /// How many were found of each name.
    pub found: BTreeMap<String, u64>,
    /// How long it took.
    pub took: Duration,
}

/// How many anomalies of one name a checker tells of; it counts the others.
pub const TOLD_MAX: u64 = 50;

impl Check {
    /// One that has not looked at anything.
    pub fn new(checker: &str) -> Self {
        Self { checker: checker.into(), ..Self::default() }
    }

    /// Counts something that was looked at.
    pub fn look(&mut self, what: &str, many: usize) {
        match self.looked_at.get_mut(what) {
            Some(count) => *count += many as u64,
            None => drop(self.looked_at.insert(what.into(), many as u64)),
        }
    }

    /// Adds an anomaly; the explanation is asked for only where it will be told.
    pub fn add(&mut self, name: &str, operations: Vec<usize>, explanation: impl FnOnce() -> String) {
        let found = self.found.entry(name.into()).or_default();
        *found += 1;
        if *found <= TOLD_MAX {
            self.anomalies.push(Anomaly::new(&self.checker, name, operations, explanation()));
        }
    }

    /// Adds an anomaly that is told already.
    pub fn take(&mut self, anomaly: Anomaly) {
        let found = self.found.entry(anomaly.name.clone()).or_default();
        *found += 1;
        if *found <= TOLD_MAX {
            self.anomalies.push(anomaly);
        }
    }

    /// Whether an anomaly of this name was found.
    pub fn has(&self, name: &str) -> bool {
        self.found.contains_key(name)
    }
}

/// What all checkers say of a history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// One for each.
    pub checks: Vec<Check>,
    /// How long nothing could be written: a measure, not an anomaly.
    pub availability: Availability,
}

impl Verdict {
    /// Every anomaly that is told.
    pub fn anomalies(&self) -> impl Iterator<Item = &Anomaly> {
        self.checks.iter().flat_map(|check| &check.anomalies)
    }

    /// How many anomalies there are of each name, whoever found them.
    pub fn found(&self) -> BTreeMap<&str, u64> {
        let mut all = BTreeMap::new();
        for (name, many) in self.checks.iter().flat_map(|check| &check.found) {
            *all.entry(name.as_str()).or_default() += many;
        }
        all
    }

    /// Whether there are none.
    pub fn is_good(&self) -> bool {
        self.checks.iter().all(|check| check.found.is_empty())
    }
}
