//! The rows of each bucket, and what they say of each other.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::history::History;
use super::{Place, Report};
use crate::bbolt::{self, Database};
use crate::hash_kv;
use crate::schema::{
    AUTH_ENABLED, AUTH_REVISION, Alarm, Bucket, CLUSTER_VERSION, DOWNGRADE, Downgrade, Lease, MEMBER_REMOVED,
    Malformed, Member, Meta, Role, User, Version, lease_id, member_id, member_key,
};

/// Rows between two calls of the progress.
const PROGRESS_EVERY: u64 = 1 << 14;

/// Looks at all rows. `progress` hears how many bytes are done.
///
/// # Errors
/// When rows cannot be read; those before are judged.
pub(super) fn check(
    database: &Database,
    report: &mut Report,
    progress: &mut impl FnMut(u64),
) -> Result<(), bbolt::Error> {
    // If it cannot be had, the row that is wrong is found below.
    report.compact_revision = hash_kv::compacted(database).unwrap_or(-1);
    let mut facts = Facts::new(report.compact_revision);
    let buckets = database.buckets()?;
    for bucket in Bucket::ALL {
        if !buckets.iter().any(|there| there.name() == bucket.name()) {
            let place = Place::bucket(bucket.name());
            match bucket {
                Bucket::Key | Bucket::Meta => report.error(place, "the bucket is not there"),
                _ => report.note(place, "the bucket is not there; etcd makes it"),
            }
        }
    }
    let mut done = 0;
    for bucket in buckets {
        let name = String::from_utf8_lossy(bucket.name()).into_owned();
        let known = Bucket::from_name(bucket.name());
        if known.is_none() {
            report.note(Place::bucket(&name), "no bucket of etcd's");
        }
        let (mut rows, mut count) = (bucket.rows(), 0_u64);
        let ended = loop {
            let (key, value) = match rows.next() {
                Some(Ok(row)) => row,
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            };
            count += 1;
            let place = Place { bucket: Some(&name), key: Some(&key), page: Some(rows.page()) };
            if let Some(bucket) = known
                && let Err(problem) = facts.row(bucket, place, &key, value, report)
            {
                report.error(place, problem.to_string());
            }
            if count.is_multiple_of(PROGRESS_EVERY) {
                progress(done + rows.bytes_read());
            }
        };
        report.buckets.push((name, count));
        ended?;
        done += rows.bytes_read();
    }
    facts.compare(report);
    Ok(())
}

/// What the rows said so far.
struct Facts {
    history: History,
    leases: BTreeSet<i64>,
    roles: BTreeSet<Vec<u8>>,
    members: BTreeSet<u64>,
    learners: BTreeSet<u64>,
    meta: Meta,
}

impl Facts {
    fn new(compacted: i64) -> Self {
        Self {
            history: History::new(compacted),
            leases: BTreeSet::new(),
            roles: BTreeSet::new(),
            members: BTreeSet::new(),
            learners: BTreeSet::new(),
            meta: Meta::default(),
        }
    }

    fn row(
        &mut self,
        bucket: Bucket,
        place: Place<'_>,
        key: &[u8],
        value: Bytes,
        report: &mut Report,
    ) -> Result<(), Malformed> {
        match bucket {
            Bucket::Key => self.history.row(place, key, value, report),
            Bucket::Lease => self.lease(place, key, &value, report)?,
            Bucket::Alarm => {
                let alarm = Alarm::parse(key)?;
                if !(1..=2).contains(&alarm.alarm) || !value.is_empty() {
                    report
                        .note(place, format!("alarm {} with a value of {} bytes", alarm.alarm, value.len()));
                }
            }
            Bucket::Auth => match std::str::from_utf8(key) {
                Ok(AUTH_ENABLED) if matches!(&value[..], [0] | [1]) => {}
                Ok(AUTH_REVISION) if value.len() == 8 => {}
                Ok(AUTH_ENABLED | AUTH_REVISION) => report.error(place, format!("a value of {value:?}")),
                _ => report.note(place, "no row of etcd's"),
            },
            Bucket::AuthRoles => self.role(place, key, &value, report)?,
            Bucket::AuthUsers => self.user(place, key, &value, report)?,
            Bucket::Cluster => match std::str::from_utf8(key) {
                Ok(CLUSTER_VERSION) => drop(Version::from_bytes(&value)?),
                Ok(DOWNGRADE) => {
                    let downgrade = Downgrade::from_json(&value)?;
                    if downgrade.enabled {
                        let _: Version = downgrade.target_version.parse()?;
                    }
                }
                _ => report.note(place, "no row of etcd's"),
            },
            Bucket::Members => self.member(place, key, &value, report)?,
            Bucket::MembersRemoved => {
                let id = member_id(key)?;
                if self.members.contains(&id) {
                    report.error(place, "a member that is removed and there");
                }
                if value != MEMBER_REMOVED {
                    report.note(place, format!("a value of {value:?}"));
                }
            }
            Bucket::Meta => {
                if !self.meta.take(key, &value)? {
                    report.note(place, "no row of etcd's");
                }
            }
        }
        Ok(())
    }

    fn lease(
        &mut self,
        place: Place<'_>,
        key: &[u8],
        value: &[u8],
        report: &mut Report,
    ) -> Result<(), Malformed> {
        let (id, lease) = (lease_id(key)?, Lease::parse(value)?);
        self.leases.insert(id);
        if lease.id != id {
            report.error(place, format!("lease {:x} under the key of {id:x}", lease.id));
        }
        if lease.ttl <= 0 || lease.remaining_ttl > lease.ttl {
            report.note(place, format!("{} of {} seconds remain", lease.remaining_ttl, lease.ttl));
        }
        Ok(())
    }

    fn role(
        &mut self,
        place: Place<'_>,
        key: &[u8],
        value: &[u8],
        report: &mut Report,
    ) -> Result<(), Malformed> {
        let role = Role::parse(value)?;
        self.roles.insert(key.into());
        if role.name != key {
            report.error(place, "a role under another name");
        }
        if role.key_permission.iter().any(|permission| !(0..=2).contains(&permission.perm_type)) {
            report.error(place, "a permission of an unknown type");
        }
        Ok(())
    }

    fn user(
        &mut self,
        place: Place<'_>,
        key: &[u8],
        value: &[u8],
        report: &mut Report,
    ) -> Result<(), Malformed> {
        let user = User::parse(value)?;
        if user.name != key {
            report.error(place, "a user under another name");
        }
        // The roles' bucket comes first.
        for role in user.roles.iter().filter(|role| !self.roles.contains(role.as_bytes())) {
            report.note(place, format!("role {role:?} is not there"));
        }
        Ok(())
    }

    fn member(
        &mut self,
        place: Place<'_>,
        key: &[u8],
        value: &[u8],
        report: &mut Report,
    ) -> Result<(), Malformed> {
        let (id, member) = (member_id(key)?, Member::from_json(value)?);
        self.members.insert(id);
        if member.is_learner {
            self.learners.insert(id);
        }
        if member.id != id || member_key(id).as_bytes() != key {
            report.error(place, format!("member {:x} under another key", member.id));
        }
        if member.peer_urls.is_empty() {
            report.note(place, "a member without peer URLs");
        }
        Ok(())
    }

    /// Compares what different buckets say.
    fn compare(&self, report: &mut Report) {
        report.live_keys = self.history.live_keys();
        report.revision = self.history.revision();
        for (lease, (keys, main)) in self.history.leases() {
            if !self.leases.contains(&lease) {
                let place = Place::bucket(Bucket::Lease.name());
                let text =
                    format!("lease {lease:x} is not there; {keys} keys name it, the last at revision {main}");
                report.error(place, text);
            }
        }
        let meta = Place::bucket(Bucket::Meta.name());
        let (finished, scheduled) = (self.meta.finished_compact_rev, self.meta.scheduled_compact_rev);
        if finished > scheduled {
            report.note(meta, format!("compaction {finished:?} ended, and {scheduled:?} was asked for"));
        }
        if self.meta.consistent_index.is_none() {
            report.note(meta, "no consistent_index");
        }
        if self.meta.storage_version.is_none() && self.meta.term.unwrap_or(0) == 0 {
            report.error(meta, "neither storageVersion nor term: etcd 3.6 and later do not start on it");
        }
        if let Some(state) = &self.meta.conf_state {
            let voters: BTreeSet<u64> = state.voters.iter().copied().collect();
            let learners: BTreeSet<u64> = state.learners.iter().copied().collect();
            if voters != &self.members - &self.learners || learners != self.learners {
                report.note(meta, "confState names other members than the bucket members");
            }
        }
    }
}
