//! A store that is plainly correct, and slow where that is plainer.

use std::collections::BTreeMap;

use crate::history::{
    Action, Answer, Body, Compare, Delete, Event, Keys, Nanos, Operand, Pair, Put, Range, Relation, Request,
    Txn,
};

const COMPACTED: &str = "OutOfRange: etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "OutOfRange: etcdserver: mvcc: required revision is a future revision";
const NO_LEASE: &str = "NotFound: etcdserver: requested lease not found";

#[derive(Debug)]
struct Lease {
    ttl: i64,
    deadline: Nanos,
}

#[derive(Debug)]
pub struct Store {
    pub revision: i64,
    pub compacted: i64,
    /// The events of each revision from 2 on, and when they were.
    pub log: Vec<(Nanos, Vec<Event>)>,
    pairs: BTreeMap<String, Pair>,
    leases: BTreeMap<i64, Lease>,
    pending: Vec<Event>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            log: Vec::new(),
            pairs: BTreeMap::new(),
            leases: BTreeMap::new(),
            pending: Vec::new(),
        }
    }
}

impl Store {
    pub fn deadline(&self, lease: i64) -> Option<Nanos> {
        self.leases.get(&lease).map(|lease| lease.deadline)
    }

    /// Ends a lease whose time is up.
    pub fn expire(&mut self, id: i64, now: Nanos) {
        if self.leases.get(&id).is_some_and(|lease| lease.deadline <= now) {
            self.revoke(id);
            self.commit(now);
        }
    }

    /// A read of an older state, as of a member that has applied only that much.
    pub fn read_at(&self, range: &Range, revision: i64) -> Result<Answer, String> {
        if range.revision > revision {
            return Err(FUTURE.into());
        }
        if range.revision != 0 && range.revision < self.compacted {
            return Err(COMPACTED.into());
        }
        let at = if range.revision == 0 { revision } else { range.revision };
        let body =
            if at == self.revision { select(&self.pairs, range) } else { select(&self.rewind(at), range) };
        Ok(Answer { revision, body })
    }

    pub fn apply(&mut self, action: &Action, now: Nanos) -> Result<Answer, String> {
        let body = match action {
            Action::Range(range) => return self.read_at(range, self.revision),
            Action::Put(put) => {
                self.check_lease(put)?;
                self.put(put)
            }
            Action::Delete(delete) => self.delete(delete),
            Action::Txn(txn) => self.txn(txn)?,
            Action::Compact { revision } => {
                if *revision <= self.compacted {
                    return Err(COMPACTED.into());
                }
                if *revision > self.revision {
                    return Err(FUTURE.into());
                }
                self.compacted = *revision;
                Body::Nothing
            }
            Action::LeaseGrant { id, ttl } => {
                if self.leases.contains_key(id) {
                    return Err("lease already exists".into());
                }
                self.leases.insert(*id, Lease { ttl: *ttl, deadline: after(now, *ttl) });
                Body::Lease { id: *id, ttl: *ttl }
            }
            Action::LeaseRevoke { id } => {
                if !self.leases.contains_key(id) {
                    return Err(NO_LEASE.into());
                }
                self.revoke(*id);
                Body::Nothing
            }
            Action::LeaseKeepAlive { id } => {
                let ttl = self.leases.get_mut(id).map_or(0, |lease| {
                    lease.deadline = after(now, lease.ttl);
                    lease.ttl
                });
                Body::Lease { id: *id, ttl }
            }
            Action::LeaseTimeToLive { id } => {
                let left = |lease: &Lease| (lease.deadline.saturating_sub(now) / 1_000_000_000) as i64;
                Body::Lease { id: *id, ttl: self.leases.get(id).map_or(-1, left) }
            }
        };
        self.commit(now);
        Ok(Answer { revision: self.revision, body })
    }

    fn commit(&mut self, now: Nanos) {
        if !self.pending.is_empty() {
            self.log.push((now, std::mem::take(&mut self.pending)));
            self.revision += 1;
        }
    }

    fn rewind(&self, revision: i64) -> BTreeMap<String, Pair> {
        let mut pairs = self.pairs.clone();
        for (_, events) in self.log.iter().skip((revision - 1) as usize).rev() {
            for event in events.iter().rev() {
                match &event.previous {
                    Some(previous) => pairs.insert(event.pair.key.clone(), previous.clone()),
                    None => pairs.remove(&event.pair.key),
                };
            }
        }
        pairs
    }

    fn check_lease(&self, put: &Put) -> Result<(), String> {
        let known = put.lease == 0 || self.leases.contains_key(&put.lease);
        if known { Ok(()) } else { Err(NO_LEASE.into()) }
    }

    fn put(&mut self, put: &Put) -> Body {
        let previous = self.pairs.get(&put.key).cloned();
        let modified = self.revision + 1;
        let pair = Pair {
            key: put.key.clone(),
            value: put.value.clone(),
            created: previous.as_ref().map_or(modified, |pair| pair.created),
            modified,
            version: previous.as_ref().map_or(0, |pair| pair.version) + 1,
            lease: put.lease,
        };
        self.pairs.insert(put.key.clone(), pair.clone());
        self.pending.push(Event { deleted: false, pair, previous: previous.clone() });
        Body::Put { previous: if put.previous { previous } else { None } }
    }

    fn remove(&mut self, key: &str) -> Option<Pair> {
        let previous = self.pairs.remove(key)?;
        let pair = Pair { key: key.into(), modified: self.revision + 1, ..Pair::default() };
        self.pending.push(Event { deleted: true, pair, previous: Some(previous.clone()) });
        Some(previous)
    }

    fn delete(&mut self, delete: &Delete) -> Body {
        let keys: Vec<String> = self.pairs.keys().filter(|key| within(&delete.keys, key)).cloned().collect();
        let previous: Vec<Pair> = keys.iter().filter_map(|key| self.remove(key)).collect();
        let deleted = previous.len() as i64;
        Body::Delete { deleted, previous: if delete.previous { previous } else { Vec::new() } }
    }

    fn revoke(&mut self, id: i64) {
        self.leases.remove(&id);
        let attached: Vec<String> =
            self.pairs.values().filter(|pair| pair.lease == id).map(|pair| pair.key.clone()).collect();
        for key in attached {
            self.remove(&key);
        }
    }

    fn txn(&mut self, txn: &Txn) -> Result<Body, String> {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let requests = if succeeded { &txn.then } else { &txn.otherwise };
        for request in requests {
            match request {
                Request::Put(put) => self.check_lease(put)?,
                Request::Range(range) if range.revision > self.revision => return Err(FUTURE.into()),
                Request::Range(range) if range.revision != 0 && range.revision < self.compacted => {
                    return Err(COMPACTED.into());
                }
                Request::Range(_) | Request::Delete(_) => {}
            }
        }
        let mut answers = Vec::new();
        for request in requests {
            answers.push(match request {
                Request::Put(put) => self.put(put),
                Request::Delete(delete) => self.delete(delete),
                Request::Range(range) if range.revision == 0 => select(&self.pairs, range),
                Request::Range(range) => select(&self.rewind(range.revision), range),
            });
        }
        Ok(Body::Txn { succeeded, answers })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let pair = self.pairs.get(&compare.key);
        let absent = Pair::default();
        let own = pair.unwrap_or(&absent);
        let ordering = match &compare.operand {
            Operand::Value(_) if pair.is_none() => return false,
            Operand::Value(value) => own.value.cmp(value),
            Operand::Modified(number) => own.modified.cmp(number),
            Operand::Created(number) => own.created.cmp(number),
            Operand::Version(number) => own.version.cmp(number),
            Operand::Lease(number) => own.lease.cmp(number),
        };
        match compare.relation {
            Relation::Equal => ordering.is_eq(),
            Relation::NotEqual => !ordering.is_eq(),
            Relation::Greater => ordering.is_gt(),
            Relation::Less => ordering.is_lt(),
        }
    }
}

fn after(now: Nanos, ttl: i64) -> Nanos {
    now + ttl as Nanos * 1_000_000_000
}

fn within(keys: &Keys, key: &str) -> bool {
    if keys.end.is_empty() {
        return key == keys.key;
    }
    key >= keys.key.as_str() && (keys.end == "\0" || key < keys.end.as_str())
}

fn select(pairs: &BTreeMap<String, Pair>, range: &Range) -> Body {
    let mut pairs: Vec<Pair> =
        pairs.values().filter(|pair| within(&range.keys, &pair.key)).cloned().collect();
    let count = pairs.len() as i64;
    let more = range.limit > 0 && count > range.limit;
    if more {
        pairs.truncate(range.limit as usize);
    }
    Body::Range { pairs, count, more }
}
