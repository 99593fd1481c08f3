//! Who made each revision.
//!
//! An answer names its revision. A value names the operation that put it. What
//! only deleted is matched with the operations without an answer that would
//! have deleted just that, each used once; what is left and took all keys of a
//! lease was the lease's end.

use std::collections::HashMap;

use super::{Accounts, Change, Revision, Timeline, Writer, changed, effect};
use crate::check::Anomaly;
use crate::check::model::{self, Write, covers};
use crate::history::{Action, History, Operation, Outcome, Pair, Put, Request};

impl Timeline {
    /// Of the operations that say they made a revision, the one that did.
    pub(super) fn settle(
        &mut self,
        history: &History,
        accounts: &Accounts<'_>,
        number: i64,
    ) -> Option<usize> {
        let claims = accounts.answered.get(&number)?;
        let operations = &history.operations;
        let observed = accounts.observed.get(&number).map(|observed| sorted(observed.writes()));
        let (mut winner, mut exact) = (None, false);
        match &observed {
            None => winner = claims.iter().copied().max_by_key(|index| operations[*index].invoked),
            Some(observed) => {
                for index in claims {
                    let claimed = sorted(effect(self, &operations[*index], number - 1));
                    if claimed == *observed {
                        winner = Some(*index);
                        exact = true;
                        break;
                    }
                    if claimed.iter().any(|write| observed.contains(write)) {
                        winner.get_or_insert(*index);
                    }
                }
            }
        }
        for index in claims.iter().copied().filter(|index| Some(*index) != winner) {
            self.lost(operations, accounts, number, index, winner);
        }
        if let (Some(index), Some(observed), false) = (winner, &observed, exact) {
            self.compare_effect(&operations[index], index, number, observed);
        }
        winner
    }

    /// Says what became of an operation that did not make the revision it was told.
    fn lost(
        &mut self,
        operations: &[Operation],
        accounts: &Accounts<'_>,
        number: i64,
        index: usize,
        winner: Option<usize>,
    ) {
        let mut shown =
            puts(&operations[index].action).filter_map(|put| accounts.shown.get(put.value.as_str()));
        if let Some(elsewhere) = shown.next() {
            let explanation = format!(
                "Operation {index} was answered revision {number}, but the observer was told of it at {elsewhere:?}."
            );
            return self.dispute("wrong-revision", vec![index], explanation);
        }
        let Some(winner) = winner else {
            let explanation = format!(
                "Operation {index} was acknowledged as revision {number}, but what changed at that revision is something else."
            );
            return self.dispute("lost-write", vec![index], explanation);
        };
        let explanation =
            format!("Operations {index} and {winner} were both acknowledged as revision {number}.");
        let later = operations[index].returned < operations[winner].invoked;
        self.dispute(if later { "lost-write" } else { "revision-reused" }, vec![index, winner], explanation);
    }

    /// An operation must have done all it was to do, and nothing else.
    fn compare_effect(&mut self, operation: &Operation, index: usize, number: i64, happened: &[Write]) {
        let branches: &[Option<bool>] = match (&operation.outcome, &operation.action) {
            (Outcome::Done(_), _) => &[None],
            (_, Action::Txn(_)) => &[Some(true), Some(false)],
            _ => &[None],
        };
        let done = branches.iter().any(|branch| {
            let writes = match branch {
                None => effect(self, operation, number - 1),
                branch => model::writes(self, &operation.action, number - 1, *branch),
            };
            sorted(writes) == happened
        });
        if !done && self.missing.first().is_none_or(|(first, _)| *first >= number) {
            let explanation = format!(
                "Operation {index} made revision {number}, but what changed there is {}.",
                tell(happened)
            );
            self.dispute("wrong-effect", vec![index], explanation);
        }
    }

    /// What a revision that was only read must have been.
    pub(super) fn guess(
        &mut self,
        history: &History,
        accounts: &Accounts<'_>,
        glimpsed: &[&Pair],
        number: i64,
    ) -> Vec<Write> {
        let seen: Vec<_> = glimpsed
            .iter()
            .map(|pair| Write { key: pair.key.clone(), put: Some((pair.value.clone(), pair.lease)) })
            .collect();
        let candidates = accounts.values.get(glimpsed[0].value.as_str()).into_iter().flatten();
        for index in candidates {
            let operation = &history.operations[*index];
            if !matches!(operation.outcome, Outcome::Unknown(_)) {
                continue;
            }
            for branch in [true, false] {
                let writes = model::writes(self, &operation.action, number - 1, Some(branch));
                let whole = matches!(operation.action, Action::Put(_)) || self.missing.is_empty();
                if whole && seen.iter().all(|write| writes.contains(write)) {
                    return writes;
                }
            }
        }
        self.missing.push((number, number));
        seen
    }

    pub(super) fn find_writers(&mut self, history: &History, accounts: &Accounts<'_>) {
        for (number, one, other) in &accounts.disagreed {
            let explanation = format!(
                "One observer was told of revision {number} that {}, another that {}.",
                tell(other),
                tell(one)
            );
            self.dispute("observers-disagree", Vec::new(), explanation);
        }
        let numbers: Vec<i64> = self.revisions.keys().copied().collect();
        for number in numbers {
            self.find_by_value(history, accounts, number);
        }
        self.find_deleters(history);
        self.find_skipped(history);
    }

    fn find_by_value(&mut self, history: &History, accounts: &Accounts<'_>, number: i64) {
        let revision = &self.revisions[&number];
        let Some(pair) = revision.changes.iter().find_map(|change| change.pair.as_ref()) else { return };
        if revision.writer != Writer::Nobody {
            return;
        }
        let value = pair.value.clone();
        let Some(index) = accounts.values.get(value.as_str()).and_then(|all| {
            let unplaced = all.iter().find(|index| !self.places.contains_key(index));
            unplaced.or(all.first()).copied()
        }) else {
            let explanation =
                format!("At revision {number} {}={value} was put, which nobody asked for.", pair.key);
            return self.dispute("phantom-write", Vec::new(), explanation);
        };
        let happened = sorted(writes(revision));
        let operation = &history.operations[index];
        if let Some(first) = self.places.get(&index) {
            let explanation =
                format!("Operation {index} happened at revision {first}, and again at {number}.");
            return self.dispute("applied-twice", vec![index], explanation);
        }
        self.assign(number, Writer::Operation(index));
        match &operation.outcome {
            Outcome::Refused(reason) => {
                let explanation =
                    format!("Operation {index} was refused ({reason}), but made revision {number}.");
                self.dispute("refused-happened", vec![index], explanation);
            }
            Outcome::Done(answer) if !changed(&operation.action, &answer.body) => {
                let explanation = format!(
                    "Operation {index} was told that it changed nothing, but made revision {number}."
                );
                self.dispute("wrong-branch", vec![index], explanation);
            }
            _ => self.compare_effect(operation, index, number, &happened),
        }
    }

    fn find_deleters(&mut self, history: &History) {
        let mut deleters: Vec<usize> = (0..history.operations.len())
            .filter(|index| !self.places.contains_key(index) && may_delete(&history.operations[*index]))
            .collect();
        deleters.sort_by_key(|index| {
            let operation = &history.operations[*index];
            (matches!(operation.outcome, Outcome::Unknown(_)), operation.invoked)
        });
        let orphans: Vec<i64> = self.orphans().map(|revision| revision.number).collect();
        let mut matching = Matching::default();
        for (row, number) in orphans.iter().enumerate() {
            let revision = &self.revisions[number];
            let fits = |index: &usize| self.may_be(revision, &history.operations[*index]);
            matching.candidates.push(deleters.iter().copied().filter(fits).collect());
            matching.place(row, &mut vec![false; row + 1]);
        }
        for (index, row) in matching.rows {
            self.assign(orphans[row], Writer::Operation(index));
        }
        let left: Vec<(i64, Option<i64>)> =
            self.orphans().map(|revision| (revision.number, revision.lease)).collect();
        for (number, lease) in left {
            match lease {
                Some(lease) => self.assign(number, Writer::Expiry(lease)),
                None => {
                    let happened = tell(&writes(&self.revisions[&number]));
                    let explanation = format!(
                        "At revision {number} {happened}, which nobody asked for, and which is not the end of a lease."
                    );
                    self.dispute("phantom-delete", Vec::new(), explanation);
                }
            }
        }
    }

    fn orphans(&self) -> impl Iterator<Item = &Revision> {
        self.revisions.values().filter(|revision| {
            revision.writer == Writer::Nobody && revision.changes.iter().all(|change| change.pair.is_none())
        })
    }

    /// Whether an operation would have deleted just what a revision did.
    fn may_be(&self, revision: &Revision, operation: &Operation) -> bool {
        if operation.invoked > revision.known {
            return false;
        }
        let key = &revision.changes[0].key;
        let touches =
            |request: &Request| matches!(request, Request::Delete(delete) if covers(&delete.keys, key));
        let might = match &operation.action {
            Action::LeaseRevoke { id } => return revision.lease == Some(*id),
            Action::Delete(delete) => covers(&delete.keys, key),
            Action::Txn(txn) => txn.then.iter().chain(&txn.otherwise).any(touches),
            _ => false,
        };
        if !might {
            return false;
        }
        let own = model::writes(self, &operation.action, revision.number - 1, None);
        sorted(own) == sorted(writes(revision))
    }

    fn assign(&mut self, number: i64, writer: Writer) {
        if let Writer::Operation(index) = writer {
            self.places.insert(index, number);
        }
        if let Some(revision) = self.revisions.get_mut(&number) {
            revision.writer = writer;
        }
    }

    /// Revisions take no gaps: what the observer was led past must have been something, and so must
    /// what is missing where there was no observer, by operations without an answer or ends of leases.
    fn find_skipped(&mut self, history: &History) {
        let gaps: Vec<(i64, i64)> =
            self.missing.iter().filter(|(from, _)| !self.revisions.contains_key(from)).copied().collect();
        let told = |from: &i64, to: &i64| self.told.iter().any(|(first, last)| first <= from && to <= last);
        let (skipped, open): (Vec<_>, Vec<_>) = gaps.into_iter().partition(|(from, to)| told(from, to));
        for (from, to) in skipped {
            let explanation = format!(
                "Nobody knows of a change at revisions {from} to {to}, though the observer was told everything there."
            );
            self.dispute("revision-skipped", Vec::new(), explanation);
        }
        let may_fill = |(index, operation): (usize, &Operation)| match (&operation.action, &operation.outcome)
        {
            (_, Outcome::Refused(_)) => false,
            (Action::LeaseGrant { .. }, _) => true,
            (Action::Put(_) | Action::Delete(_) | Action::Txn(_), Outcome::Unknown(_)) => {
                !self.places.contains_key(&index)
            }
            _ => false,
        };
        let fillers = history.operations.iter().enumerate().filter(|one| may_fill(*one)).count() as i64;
        let many = open.iter().fold(0i64, |many, (from, to)| many.saturating_add(to - from + 1));
        if many > fillers {
            let explanation = format!(
                "Nobody knows of a change at {many} revisions, first {}, but there were only {fillers} operations that \
                 may have made any.",
                open[0].0
            );
            self.dispute("revision-skipped", Vec::new(), explanation);
        }
    }

    fn dispute(&mut self, name: &str, operations: Vec<usize>, explanation: String) {
        self.anomalies.push(Anomaly::new("timeline", name, operations, explanation));
    }
}

/// Rows, each with the columns it may have; every column is had once (Kuhn's augmenting paths).
#[derive(Default)]
struct Matching {
    candidates: Vec<Vec<usize>>,
    rows: HashMap<usize, usize>,
}

impl Matching {
    fn place(&mut self, row: usize, visited: &mut Vec<bool>) -> bool {
        visited[row] = true;
        for at in 0..self.candidates[row].len() {
            let column = self.candidates[row][at];
            let free = match self.rows.get(&column) {
                None => true,
                Some(other) if visited[*other] => false,
                Some(other) => self.place(*other, visited),
            };
            if free {
                self.rows.insert(column, row);
                return true;
            }
        }
        false
    }
}

fn may_delete(operation: &Operation) -> bool {
    match &operation.action {
        Action::LeaseRevoke { .. } => !matches!(operation.outcome, Outcome::Refused(_)),
        Action::Delete(_) | Action::Txn(_) => matches!(operation.outcome, Outcome::Unknown(_)),
        _ => false,
    }
}

fn puts(action: &Action) -> impl Iterator<Item = &Put> {
    let (one, txn) = match action {
        Action::Put(put) => (Some(put), None),
        Action::Txn(txn) => (None, Some(txn)),
        _ => (None, None),
    };
    let requests = txn.into_iter().flat_map(|txn| txn.then.iter().chain(&txn.otherwise));
    one.into_iter().chain(requests.filter_map(|request| match request {
        Request::Put(put) => Some(put),
        _ => None,
    }))
}

fn writes(revision: &Revision) -> Vec<Write> {
    let put = |change: &Change| change.pair.as_ref().map(|pair| (pair.value.clone(), pair.lease));
    revision.changes.iter().map(|change| Write { key: change.key.clone(), put: put(change) }).collect()
}

fn sorted(mut writes: Vec<Write>) -> Vec<Write> {
    writes.sort_by(|one, other| one.key.cmp(&other.key));
    writes
}

fn tell(writes: &[Write]) -> String {
    let told: Vec<_> = writes
        .iter()
        .map(|write| match &write.put {
            Some((value, _)) => format!("{}={value}", write.key),
            None => format!("{} was deleted", write.key),
        })
        .collect();
    told.join(", ")
}
