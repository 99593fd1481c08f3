//! A new state out of the rows of etcd's buckets.
//!
//! Records are copied as they stand, so that every hash over them stays what it
//! was; the index over them is built as if they were written now. Whatever
//! cannot be right ends it: a state that opens is one that was checked.

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message;
use proto::mvccpb::KeyValue;
use snapshot::bbolt::Database;
use snapshot::schema::{self, Alarm, Bucket, Lease, Malformed, Meta, RevisionKey};

use super::{ImportError, Problem, STORAGE_VERSION, version};
use crate::home::Home;
use crate::mvcc::{End, FIRST_REVISION, Mvcc, Taken};
use crate::storage::Storage;
use crate::{Fault, Fingerprint, LogId, Node, Options, Revision, alarm, auth, lease, members, reader};

/// What was read is written after so many records …
const RECORDS_MAX: u64 = 20_000;
/// … or so many bytes.
const BYTES_MAX: u64 = 8 << 20;

/// What a snapshot does not say of the state it becomes.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The last entry of the log before the one that is to be written.
    pub applied: LogId,
    /// The members, in the consensus library's own form.
    pub membership: Bytes,
    /// The members.
    pub nodes: Vec<Node>,
}

/// How far a restore is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// Records taken over.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// What a restore made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What was taken over.
    pub taken: Step,
    /// The current revision.
    pub revision: i64,
    /// The revision of the last compaction, -1 if there was none.
    pub compacted: i64,
    /// Keys that are attached to a lease which the snapshot does not have. They stay until somebody deletes them.
    pub astray: u64,
    /// Whether users have to authenticate.
    pub auth_enabled: bool,
}

/// Makes a state in `options.dir`, which must not exist, of the buckets in an image. The rows of the members, their
/// removed ones and where the log stood are left out: they come from `restore`. When it returns, all is on disk, but
/// for the name of the directory.
///
/// `progress` hears of every few thousand records.
///
/// Memory: `options.memory_budget`, and as much as the image says it takes to read.
///
/// # Errors
/// When the image cannot be read, a row cannot be right, or the disk refuses. What was written by then remains.
pub fn restore(
    options: Options,
    image: &Database,
    restore: &Restore,
    progress: &mut dyn FnMut(Step),
) -> Result<Restored, ImportError> {
    let home = Home::new(options);
    let storage = home.create()?;
    let (mvcc, _views) = Mvcc::open(&storage, home.options())?;
    let mut import = Import { image, storage: &storage, mvcc, crc: 0 };
    let meta = import.meta()?;
    import.cluster(meta.storage_version.as_ref())?;
    import.alarms()?;
    for (bucket, table) in [
        (Bucket::Auth, auth::Table::Store),
        (Bucket::AuthRoles, auth::Table::Roles),
        (Bucket::AuthUsers, auth::Table::Users),
    ] {
        import.each(bucket, |import, name, value| {
            auth::put(import.mvcc.batch(), table, name, &value);
            Ok(())
        })?;
    }
    let leases = import.leases()?;
    let (taken, latest) = import.records(progress)?;
    // etcd 3.7 takes a compaction to 0 that has not finished for none.
    let scheduled = meta.scheduled_compact_rev.filter(|revision| *revision > 0).unwrap_or(-1);
    let finished = meta.finished_compact_rev.unwrap_or(-1);
    // etcd 3.7: what was compacted up to some revision has had that one, whatever is left of it.
    let compacted = scheduled.max(finished);
    let revision = latest.max(compacted).max(FIRST_REVISION);
    import.members(restore)?;
    let Import { mut mvcc, crc, .. } = import;
    // Members that were restored from different snapshots have different states, and must find out.
    let value = [revision, compacted, finished]
        .iter()
        .fold(u64::from(crc), |before, number| before.rotate_left(21) ^ number.cast_unsigned());
    let applied = restore.applied;
    let fingerprint = Fingerprint { since: applied.index, value };
    mvcc.complete(End { revision, compacted, finished, applied, fingerprint })?;
    reader::flush(&storage, applied)?;
    let astray = lease::astray(&storage, |id| leases.contains(&id))?;
    let auth_enabled = auth::is_enabled(&storage)?;
    Ok(Restored { taken, revision, compacted, astray, auth_enabled })
}

/// Why a row ends it.
enum Stop {
    Row(Problem),
    Fault(Fault),
}

impl<P: Into<Problem>> From<P> for Stop {
    fn from(problem: P) -> Self {
        Self::Row(problem.into())
    }
}

struct Import<'a> {
    image: &'a Database,
    storage: &'a Storage,
    mvcc: Mvcc,
    /// Of all that was taken over.
    crc: u32,
}

impl Import<'_> {
    /// Takes the rows of a bucket one after the other. A bucket that is missing has none.
    fn each(
        &mut self,
        bucket: Bucket,
        mut take: impl FnMut(&mut Self, &Bytes, Bytes) -> Result<(), Stop>,
    ) -> Result<(), ImportError> {
        let Some(rows) = self.image.bucket(bucket.name().as_bytes())? else { return Ok(()) };
        self.crc = crc32c::crc32c_append(self.crc, bucket.name().as_bytes());
        for row in rows.rows() {
            let (key, value) = row?;
            self.crc = crc32c::crc32c_append(self.crc, &key);
            self.crc = crc32c::crc32c_append(self.crc, &value);
            match take(self, &key, value) {
                Ok(()) => {}
                Err(Stop::Row(problem)) => return Err(ImportError::Row { bucket, key: key.into(), problem }),
                Err(Stop::Fault(fault)) => return Err(fault.into()),
            }
        }
        Ok(())
    }

    /// Reads how far compactions are; the rest says where a log stood that is no more.
    fn meta(&self) -> Result<Meta, ImportError> {
        let bucket = Bucket::Meta;
        let rows = self.image.bucket(bucket.name().as_bytes())?;
        let rows = rows.ok_or(ImportError::NoBucket { bucket })?;
        let mut meta = Meta::default();
        for row in rows.rows() {
            let (key, value) = row?;
            let wrong = |problem| ImportError::Row { bucket, key: key.to_vec(), problem };
            meta.take(&key, &value).map_err(|malformed| wrong(malformed.into()))?;
            if let Some(version) = &meta.storage_version {
                not_newer(version).map_err(wrong)?;
            }
        }
        Ok(meta)
    }

    /// Takes over the versions of cluster and storage, and what the cluster is to go down to.
    fn cluster(&mut self, storage: Option<&schema::Version>) -> Result<(), ImportError> {
        let mut table = members::Table::load(self.storage)?;
        self.each(Bucket::Cluster, |import, name, value| {
            if name == schema::CLUSTER_VERSION.as_bytes() {
                let version = schema::Version::from_bytes(&value)?;
                not_newer(&version)?;
                table.set_version(import.mvcc.batch(), version.to_string());
            } else if name == schema::DOWNGRADE.as_bytes() {
                let schema::Downgrade { target_version, enabled } = schema::Downgrade::from_json(&value)?;
                let target = if enabled { target_version } else { String::new() };
                table.set_downgrade(import.mvcc.batch(), target);
            }
            Ok(())
        })?;
        if let Some(version) = storage {
            table.set_storage_version(self.mvcc.batch(), version.to_string());
        }
        Ok(())
    }

    fn alarms(&mut self) -> Result<(), ImportError> {
        self.each(Bucket::Alarm, |import, key, value| {
            let Alarm { member_id, alarm } = Alarm::parse(key)?;
            if !value.is_empty() {
                return Err(Problem::AlarmValue(value.len()).into());
            }
            let alarm = proto::etcdserverpb::AlarmMember { member_id, alarm };
            same_length(key, alarm.encoded_len())?;
            alarm::put(import.mvcc.batch(), &alarm);
            Ok(())
        })
    }

    /// Takes over the leases; gives their ids.
    fn leases(&mut self) -> Result<HashSet<i64>, ImportError> {
        let mut ids = HashSet::new();
        self.each(Bucket::Lease, |import, key, value| {
            let id = schema::lease_id(key)?;
            let lease = Lease::parse(&value)?;
            if lease.id != id || id == 0 {
                return Err(Problem::LeaseId(lease.id).into());
            }
            ids.insert(id);
            lease::put_record(import.mvcc.batch(), id, &value);
            Ok(())
        })?;
        Ok(ids)
    }

    /// Takes over the records; says how many, and the main revision of the last, 0 if there is none.
    fn records(&mut self, progress: &mut dyn FnMut(Step)) -> Result<(Step, i64), ImportError> {
        let bucket = Bucket::Key;
        if self.image.bucket(bucket.name().as_bytes())?.is_none() {
            return Err(ImportError::NoBucket { bucket });
        }
        let (mut taken, mut kept, mut last) = (Step::default(), Step::default(), Revision::default());
        self.each(bucket, |import, key, row| {
            let record = record(key, row, last)?;
            last = record.revision;
            taken.records += 1;
            taken.bytes += (key.len() + record.row.len()) as u64;
            import.record(record).map_err(Stop::Fault)?;
            if taken.records - kept.records >= RECORDS_MAX || taken.bytes - kept.bytes >= BYTES_MAX {
                import.mvcc.keep().map_err(Stop::Fault)?;
                kept = taken;
                progress(taken);
            }
            Ok(())
        })?;
        Ok((taken, last.main))
    }

    fn record(&mut self, record: Taken) -> Result<(), Fault> {
        let (key, lease) = (record.kv.key.clone(), record.kv.lease);
        let before = self.mvcc.take_over(record)?;
        lease::attach(self.mvcc.batch(), &key, before, lease);
        Ok(())
    }

    fn members(&mut self, restore: &Restore) -> Result<(), ImportError> {
        let mut table = members::Table::load(self.storage)?;
        let (opaque, nodes) = (restore.membership.clone(), restore.nodes.clone());
        table.set(self.mvcc.batch(), restore.applied, opaque, nodes);
        Ok(())
    }
}

/// A row of the bucket `key` as a record, if it can be one behind `last`.
fn record(key: &[u8], row: Bytes, last: Revision) -> Result<Taken, Problem> {
    let RevisionKey { main, sub, tombstone } = RevisionKey::parse(key)?;
    let revision = Revision { main, sub };
    if revision.to_key(tombstone).as_ref() != key {
        return Err(Malformed::RevisionKey.into());
    }
    if main < 1 {
        return Err(Problem::NoRevision(main));
    }
    if revision <= last {
        return Err(Problem::Order(last));
    }
    let kv = KeyValue::decode(row.clone())
        .map_err(|e| Malformed::Protobuf { message: "mvccpb.KeyValue", detail: e.to_string() })?;
    let known = match tombstone {
        true => KeyValue { key: kv.key.clone(), ..KeyValue::default() }.encoded_len(),
        false => kv.encoded_len(),
    };
    if kv.key.is_empty() && (tombstone || !row.is_empty()) {
        return Err(Problem::NoKey);
    }
    same_length(&row, known)?;
    if !tombstone && !row.is_empty() {
        if kv.mod_revision != main {
            return Err(Problem::OtherRevision(kv.mod_revision));
        }
        if kv.create_revision < 1 || kv.create_revision > main {
            return Err(Problem::Created(kv.create_revision));
        }
        if kv.version < 1 {
            return Err(Problem::Version(kv.version));
        }
    }
    Ok(Taken { revision, tombstone, kv, row })
}

/// Lengths are told before rows are read, from what is known of them.
fn same_length(row: &[u8], expected: usize) -> Result<(), Problem> {
    match row.len() {
        found if found == expected => Ok(()),
        found => Err(Problem::Encoding { found, expected }),
    }
}

fn not_newer(found: &schema::Version) -> Result<(), Problem> {
    let known = version(STORAGE_VERSION);
    match (found.major, found.minor) > (known.major, known.minor) {
        true => Err(Problem::Newer { found: found.to_string(), known: STORAGE_VERSION }),
        false => Ok(()),
    }
}
