//! The bucket `key`: whether its rows are a history that can have happened.
//!
//! Above the last compaction nothing may be missing: every revision is there
//! with all its changes, and every change follows the one before it of the same
//! key. Up to the compaction rows may be gone.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::{Place, Report};
use crate::fingerprint::{Fingerprint, Fingerprints};
use crate::schema::{KeyValue, RevisionKey};

pub(super) struct History {
    /// The revision of the last compaction, -1 if there was none.
    compacted: i64,
    last: Option<RevisionKey>,
    fingerprints: Fingerprints,
    live: HashMap<Fingerprint, Change>,
}

/// The last change of a live key.
#[derive(Clone, Copy)]
struct Change {
    main: i64,
    created: i64,
    version: i64,
    lease: i64,
}

impl History {
    pub(super) fn new(compacted: i64) -> Self {
        Self { compacted, last: None, fingerprints: Fingerprints::default(), live: HashMap::new() }
    }

    pub(super) fn live_keys(&self) -> u64 {
        self.live.len() as u64
    }

    /// The newest revision.
    pub(super) fn revision(&self) -> i64 {
        self.last.map_or(0, |last| last.main).max(self.compacted)
    }

    /// The leases that live keys name: how many keys each, and the revision of one of those.
    pub(super) fn leases(&self) -> BTreeMap<i64, (u64, i64)> {
        let mut leases = BTreeMap::new();
        for change in self.live.values().filter(|change| change.lease != 0) {
            let (keys, main) = leases.entry(change.lease).or_insert((0, change.main));
            *keys += 1;
            *main = change.main.max(*main);
        }
        leases
    }

    pub(super) fn row(&mut self, place: Place<'_>, key: &[u8], value: Bytes, report: &mut Report) {
        let at = match RevisionKey::parse(key) {
            Ok(at) => at,
            Err(problem) => return report.error(place, problem.to_string()),
        };
        if key.len() == at.to_bytes().as_ref().len() + 1 {
            report.error(place, "a revision key with a mark that is not t");
        }
        report.tombstones += u64::from(at.tombstone);
        self.place_in_order(place, at, report);
        self.last = Some(at);
        let bump = value.is_empty() && !at.tombstone;
        let kv = match KeyValue::parse(value) {
            Ok(kv) => kv,
            Err(problem) => return report.error(place, problem.to_string()),
        };
        let key = self.fingerprints.of(&kv.key);
        if kv.key.is_empty() {
            // What a restore with a revision bump leaves, and counts as compacted.
            if bump && at.main <= self.compacted {
                self.live.insert(key, Change { main: at.main, created: 0, version: 0, lease: 0 });
            } else {
                report.error(place, "no key in the value");
            }
            return;
        }
        if at.tombstone {
            self.delete(place, at, key, &kv, report);
        } else {
            self.put(place, at, key, &kv, report);
        }
    }

    fn place_in_order(&self, place: Place<'_>, at: RevisionKey, report: &mut Report) {
        if at.main == 0 {
            report.error(place, "a change at revision 0");
        }
        let last = self.last.unwrap_or(RevisionKey { main: 0, sub: 0, tombstone: false });
        if self.last.is_some() && (last.main, last.sub) == (at.main, at.sub) {
            return report.error(place, format!("a second change at revision {}.{}", at.main, at.sub));
        }
        if at.main <= self.compacted {
            return;
        }
        // The first change of a new store makes revision 2.
        let expected = if last.main == at.main {
            (at.main, last.sub + 1)
        } else {
            (last.main.max(self.compacted).max(1) + 1, 0)
        };
        if (at.main, at.sub) != expected {
            let (main, sub) = expected;
            report.error(place, format!("revision {}.{} where {main}.{sub} is due", at.main, at.sub));
        }
    }

    fn delete(
        &mut self,
        place: Place<'_>,
        at: RevisionKey,
        key: Fingerprint,
        kv: &KeyValue,
        report: &mut Report,
    ) {
        if *kv != (KeyValue { key: kv.key.clone(), ..KeyValue::default() }) {
            report.note(place, "a delete that says more than the key");
        }
        if self.live.remove(&key).is_none() && at.main > self.compacted {
            report.error(place, "a delete of a key that is not there");
        }
    }

    fn put(
        &mut self,
        place: Place<'_>,
        at: RevisionKey,
        key: Fingerprint,
        kv: &KeyValue,
        report: &mut Report,
    ) {
        let change =
            Change { main: at.main, created: kv.create_revision, version: kv.version, lease: kv.lease };
        let before = self.live.insert(key, change);
        if kv.mod_revision != at.main {
            return report.error(place, format!("mod_revision {}", kv.mod_revision));
        }
        let first = kv.version == 1;
        if kv.version < 1
            || kv.create_revision < 1
            || kv.create_revision > at.main
            || first != (kv.create_revision == at.main)
        {
            let (version, created) = (kv.version, kv.create_revision);
            return report.error(place, format!("version {version}, created at revision {created}"));
        }
        let whole = at.main > self.compacted;
        let follows = match before {
            None => first || !whole,
            Some(before) if whole => before.created == kv.create_revision && before.version + 1 == kv.version,
            Some(before) if before.created == kv.create_revision => before.version < kv.version,
            Some(before) => before.main < kv.create_revision,
        };
        if !follows {
            let (version, created) = (kv.version, kv.create_revision);
            let before = before.map_or("not there before".into(), |before| {
                format!("at version {}, created at revision {} before", before.version, before.created)
            });
            report
                .error(place, format!("version {version}, created at revision {created}, of a key {before}"));
        }
    }
}
