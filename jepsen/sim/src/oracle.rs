//! What must hold at every moment, whatever the faults.
//!
//! The oracle sees more than clients do: every entry that any member applies,
//! who leads in which term, and what stands in the logs. The first thing that
//! must not be ends the run.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use prost::Message;
use proto::command::{Command, command::Op};
use proto::etcdserverpb::request_op::Request;
use state::{Entry, EntryBody, Fingerprint, KeyRange, LogId, Reply, Response};

use crate::model::{Model, Outcome};
use crate::net::Id;
use crate::time::{Nanos, SECOND, seconds};

/// How much faster than the world the fastest clock goes.
pub const FASTEST: f64 = 1.25;
/// How much sooner than promised a lease may end: what work has to wait, and clocks that are read in steps.
const LEASE_SLACK: Nanos = SECOND;

/// An entry that was applied somewhere: it stands for ever.
struct Decided {
    term: u64,
    body: u64,
    outcome: Outcome,
}

/// What was seen of one member.
#[derive(Default)]
struct Seen {
    applied: u64,
    term: u64,
    committed: u64,
    /// Entries of its log that were compared, and the term of the last.
    compared: u64,
}

/// Everything that was seen.
#[derive(Default)]
pub struct Oracle {
    /// The key space as it must be.
    pub model: Model,
    decided: Vec<Decided>,
    fingerprints: BTreeMap<u64, Fingerprint>,
    members: BTreeMap<Id, Seen>,
    leaders: BTreeMap<u64, Id>,
    /// By place in the log: the entry, and the term of the one before.
    logs: BTreeMap<(u64, u64), (u64, u64)>,
    /// Values that were put: each once.
    values: BTreeSet<Vec<u8>>,
    violation: Option<String>,
    trace: DefaultHasher,
    /// The highest revision that anybody was told of.
    told: i64,
    /// The members, by the last membership decided.
    pub membership: Vec<Id>,
    /// What time it is in the world.
    pub now: Nanos,
    /// Leases: when somebody last asked for them to go on and was told that they do, and for how long.
    alive: BTreeMap<i64, (Nanos, Nanos)>,
    /// Leases that a client has asked to end.
    given_up: BTreeSet<i64>,
    /// Elections seen.
    pub elections: u64,
    /// States installed.
    pub installs: u64,
}

impl Oracle {
    /// Something is not as it must be.
    pub fn violated(&mut self, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| what.into());
    }

    /// The first thing that was not as it must be.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Something happened: part of what makes two runs the same.
    pub fn trace(&mut self, what: impl Hash) {
        what.hash(&mut self.trace);
    }

    /// A hash of everything that happened.
    pub fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    /// Entries decided so far.
    pub fn decided(&self) -> u64 {
        self.decided.len() as u64
    }

    /// A member has opened its state.
    pub fn opened(&mut self, id: Id, applied: LogId) {
        self.trace((id, "opened", applied.index));
        if applied.index > self.decided() {
            self.violated(format!(
                "m{id} starts with entry {} applied, which nobody has seen",
                applied.index
            ));
        }
        let term = self.members.get(&id).map_or(0, |seen| seen.term);
        self.members
            .insert(id, Seen { applied: applied.index, term: term.min(applied.term), ..Seen::default() });
    }

    /// A member has installed the state of another.
    pub fn installed(&mut self, id: Id, applied: LogId) {
        self.trace((id, "installed", applied.index));
        self.installs += 1;
        if applied.index > self.decided() {
            self.violated(format!(
                "m{id} installs a state of entry {}, which nobody has seen",
                applied.index
            ));
        }
        let seen = self.members.entry(id).or_default();
        seen.applied = applied.index;
    }

    /// A member has applied entries.
    pub fn applied(&mut self, id: Id, entries: &[Entry], replies: &[Reply], prints: &[(u64, Fingerprint)]) {
        if entries.len() != replies.len() {
            self.violated(format!("m{id} gives {} replies to {} entries", replies.len(), entries.len()));
        }
        for (entry, reply) in entries.iter().zip(replies) {
            let at = entry.log_id;
            let seen = self.members.entry(id).or_default();
            if at.index <= seen.applied {
                continue;
            }
            if at.index != seen.applied + 1 {
                let before = seen.applied;
                self.violated(format!("m{id} applies entry {} after entry {before}", at.index));
            }
            self.members.entry(id).or_default().applied = at.index;
            self.decide(id, entry, reply);
        }
        for (index, print) in prints {
            let known = *self.fingerprints.entry(*index).or_insert(*print);
            if known.differs(*print) {
                self.violated(format!("m{id} has another fingerprint at entry {index} than others"));
            }
        }
    }

    fn decide(&mut self, id: Id, entry: &Entry, reply: &Reply) {
        let (index, term) = (entry.log_id.index, entry.log_id.term);
        let body = body_hash(&entry.body);
        let got = outcome(reply);
        self.trace((id, "applied", index, term, body));
        if index == self.decided() + 1 {
            self.note_values(&entry.body);
            self.note_revoke(&entry.body);
            if let EntryBody::Membership { nodes, .. } = &entry.body {
                self.membership = nodes.iter().map(|node| node.id).collect();
            }
            let expected = self.model.apply(&entry.body);
            if got != expected {
                self.violated(format!(
                    "m{id}: entry {index} gives {got:?} where the model gives {expected:?}"
                ));
            }
            self.decided.push(Decided { term, body, outcome: got });
        } else if let Some(known) = self.decided.get(index as usize - 1) {
            if (known.term, known.body) != (term, body) {
                let first = known.term;
                self.violated(format!(
                    "m{id} applies an entry {index} of term {term} that is not the one others applied (term {first})"
                ));
            } else if known.outcome != got {
                let first = known.outcome.clone();
                self.violated(format!("m{id}: entry {index} gives {got:?}, on another member {first:?}"));
            }
        } else {
            self.violated(format!("m{id} applies entry {index}; the last decided is {}", self.decided()));
        }
    }

    /// A lease that was promised goes on for that long: by no clock sooner than by the fastest.
    fn note_revoke(&mut self, body: &EntryBody) {
        let EntryBody::Command(bytes) = body else { return };
        let Some(Op::LeaseRevoke(revoke)) = Command::decode(bytes.clone()).ok().and_then(|c| c.op) else {
            return;
        };
        let Some((since, ttl)) = self.alive.remove(&revoke.id) else { return };
        let earliest = since + (ttl as f64 / FASTEST) as Nanos;
        if self.now + LEASE_SLACK < earliest && !self.given_up.contains(&revoke.id) {
            self.violated(format!(
                "lease {} of {} s ends {:.1} s after it was kept alive",
                revoke.id,
                seconds(ttl),
                seconds(self.now - since)
            ));
        }
    }

    /// A client has asked at that time for a lease to go on, and was told that it does.
    pub fn keeps(&mut self, id: i64, asked: Nanos, ttl: i64) {
        if self.model.has_lease(id) {
            self.alive.insert(id, (asked, ttl.unsigned_abs() * SECOND));
        }
    }

    /// A client asks for a lease to end.
    pub fn gives_up(&mut self, id: i64) {
        self.given_up.insert(id);
    }

    fn note_values(&mut self, body: &EntryBody) {
        let EntryBody::Command(bytes) = body else { return };
        let puts = match Command::decode(bytes.clone()).ok().and_then(|command| command.op) {
            Some(Op::Put(put)) => vec![put],
            Some(Op::Txn(txn)) => {
                let puts = txn.success.into_iter().filter_map(|operation| match operation.request {
                    Some(Request::RequestPut(put)) => Some(put),
                    _ => None,
                });
                puts.collect()
            }
            _ => Vec::new(),
        };
        for put in puts {
            if !self.values.insert(put.value.to_vec()) {
                let value = String::from_utf8_lossy(&put.value).into_owned();
                self.violated(format!("the write of {value} is in the log twice"));
            }
        }
    }

    /// Whether the write of this value was decided.
    pub fn has_value(&self, value: &[u8]) -> bool {
        self.values.contains(value)
    }

    /// A member stands here.
    pub fn stands(&mut self, id: Id, term: u64, committed: u64) {
        let seen = self.members.entry(id).or_default();
        let (term_before, committed_before) = (seen.term, seen.committed);
        (seen.term, seen.committed) = (term.max(term_before), committed.max(committed_before));
        if term < term_before {
            self.violated(format!("m{id} goes back from term {term_before} to {term}"));
        }
        if committed < committed_before {
            self.violated(format!(
                "m{id}: what is committed goes back from {committed_before} to {committed}"
            ));
        }
    }

    /// A member leads in a term, with this log.
    pub fn leads(&mut self, id: Id, term: u64, log: &raftlog::Log) {
        let newest = self.leaders.last_key_value().is_none_or(|(last, _)| *last < term);
        match self.leaders.get(&term) {
            Some(first) if *first != id => {
                let first = *first;
                self.violated(format!("m{first} and m{id} both lead in term {term}"));
                return;
            }
            Some(_) => return,
            None => {}
        }
        self.leaders.insert(term, id);
        self.elections += 1;
        self.trace((id, "leads", term));
        let Some(last) = self.decided.last().filter(|last| newest && last.term <= term) else { return };
        // The log counts from 0.
        let at = self.decided() - 1;
        let purged = log.state().purged.is_some_and(|purged| purged.index >= at);
        let own =
            log.read(at..at + 1, usize::MAX).ok().and_then(|entries| entries.first().map(|e| e.log_id.term));
        if !purged && own != Some(last.term) {
            let wanted = last.term;
            self.violated(format!(
                "m{id} leads in term {term} without entry {} of term {wanted} (it has {own:?})",
                at + 1
            ));
        }
    }

    /// Compares what was added to a member's log with what others have there.
    pub fn compare_log(&mut self, id: Id, log: &raftlog::Log) {
        let state = log.state();
        let Some(last) = state.last.map(|last| last.index) else { return };
        let first = state.purged.map_or(0, |purged| purged.index + 1);
        let seen = self.members.entry(id).or_default();
        // The end may have been written anew.
        let begin = seen.compared.min(last).saturating_sub(8).max(first);
        seen.compared = last;
        let Ok(entries) = log.read(begin..last + 1, usize::MAX) else { return };
        let mut before = None;
        for entry in entries {
            let raftlog::LogId { term, index } = entry.log_id;
            let mut hasher = DefaultHasher::new();
            (entry.tag, &entry.payload[..]).hash(&mut hasher);
            let content = hasher.finish();
            if let Some(before) = before {
                let known = *self.logs.entry((term, index)).or_insert((content, before));
                if known != (content, before) {
                    self.violated(format!("m{id}: entry {} of term {term} differs between logs", index + 1));
                }
            }
            before = Some(term);
        }
        let old = self.decided().saturating_sub(5_000);
        if self.logs.len() > 20_000 {
            self.logs.retain(|(_, index), _| *index >= old);
        }
    }

    /// A client was told of a revision; gives the highest one anybody was told of.
    pub fn tell(&mut self, revision: i64) {
        self.told = self.told.max(revision);
    }

    /// The highest revision that anybody was told of by now: whoever asks from now on must not see an older state.
    pub fn told(&self) -> i64 {
        self.told
    }

    /// A client has read a range at a revision.
    pub fn read(&mut self, who: &str, range: &KeyRange, revision: i64, rows: &[proto::mvccpb::KeyValue]) {
        if revision > self.model.revision() {
            let now = self.model.revision();
            self.violated(format!("{who} reads at revision {revision}, but there is only {now}"));
            return;
        }
        let expected = self.model.at(range, revision);
        if rows != expected {
            self.violated(format!(
                "{who} reads at revision {revision} {} rows, not the {} there were: {:?} / {:?}",
                rows.len(),
                expected.len(),
                rows.iter().find(|row| !expected.contains(row)),
                expected.iter().find(|row| !rows.contains(row)),
            ));
        }
    }
}

fn body_hash(body: &EntryBody) -> u64 {
    let mut hasher = DefaultHasher::new();
    match body {
        EntryBody::Blank => 0.hash(&mut hasher),
        EntryBody::Command(bytes) => (1, &bytes[..]).hash(&mut hasher),
        EntryBody::Membership { opaque, .. } => (2, &opaque[..]).hash(&mut hasher),
    }
    hasher.finish()
}

fn outcome(reply: &Reply) -> Outcome {
    let detail = match &reply.result {
        Ok(Response::Txn(txn)) => i64::from(txn.succeeded),
        Ok(Response::DeleteRange(deleted)) => deleted.deleted,
        _ => 0,
    };
    Outcome { revision: reply.revision, refused: reply.result.is_err(), detail }
}
