//! The state as the rows of etcd's buckets.

use proto::etcdserverpb as pb;
use snapshot::bbolt::{Source, Visitor};
use snapshot::schema::{Bucket, ConfState, Downgrade, MEMBER_REMOVED, Member, Meta, member_key};

use super::ExportError;
use crate::members::Cluster;
use crate::mvcc::Standing;
use crate::storage::{Column, Frozen, Storage};
use crate::{Fault, LogId, alarm, auth, lease};

/// So many records are read before somebody is asked whether they are still wanted.
const RECORDS_UNASKED: u32 = 1024;

/// The state at one moment, for as long as it is held, as the ten buckets of etcd.
///
/// Memory: one block of the database at a time, and the members of the cluster. Neither commands nor compactions wait
/// for it; the files keep what is deleted in the meantime until it goes.
pub struct Image<'a> {
    frozen: Frozen<'a>,
    standing: Standing,
    cluster: Cluster,
    wanted: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("standing", &self.standing).finish_non_exhaustive()
    }
}

type Tell<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), ExportError>;

impl<'a> Image<'a> {
    /// The state as of now. A visit ends early once it is not `wanted` any more.
    pub(crate) fn of(storage: &'a Storage, wanted: &'a dyn Fn() -> bool) -> Result<Self, Fault> {
        let frozen = storage.frozen();
        let (standing, cluster) = (Standing::read(&frozen)?, Cluster::read(&frozen)?);
        Ok(Self { frozen, standing, cluster, wanted })
    }

    /// The last log entry in it.
    pub fn applied(&self) -> LogId {
        self.standing.applied
    }

    /// The version of etcd that could read it; empty before the cluster has agreed on one, as etcd tells it.
    pub fn storage_version(&self) -> &str {
        self.cluster.storage_version.as_deref().unwrap_or_default()
    }

    fn rows(&self, bucket: Bucket, tell: Tell<'_>) -> Result<(), ExportError> {
        match bucket {
            Bucket::Alarm => {
                for alarm in alarm::rows(&self.frozen) {
                    tell(&alarm?, &[])?;
                }
            }
            Bucket::Auth => {
                for (name, value) in auth::store(&self.frozen)? {
                    tell(&name, &value)?;
                }
            }
            Bucket::AuthRoles => self.auth(auth::Table::Roles, tell)?,
            Bucket::AuthUsers => self.auth(auth::Table::Users, tell)?,
            Bucket::Cluster => {
                if let Some(version) = &self.cluster.version {
                    tell(snapshot::schema::CLUSTER_VERSION.as_bytes(), version.as_bytes())?;
                }
                if let Some(pb::DowngradeInfo { enabled, target_version }) = self.cluster.downgrade.clone() {
                    let downgrade = Downgrade { target_version, enabled };
                    tell(snapshot::schema::DOWNGRADE.as_bytes(), downgrade.to_json().as_bytes())?;
                }
            }
            Bucket::Key => self.records(tell)?,
            Bucket::Lease => {
                for row in lease::records(&self.frozen) {
                    let (id, record) = row?;
                    tell(&id, &record)?;
                }
            }
            Bucket::Members => {
                for (id, member) in in_order(self.cluster.members.iter()) {
                    tell(id.as_bytes(), in_etcds_words(member).to_json().as_bytes())?;
                }
            }
            Bucket::MembersRemoved => {
                for (id, ()) in in_order(self.cluster.removed.iter().map(|id| (id, ()))) {
                    tell(id.as_bytes(), MEMBER_REMOVED.as_bytes())?;
                }
            }
            Bucket::Meta => {
                for (name, value) in self.meta().rows() {
                    tell(name.as_bytes(), &value)?;
                }
            }
        }
        Ok(())
    }

    fn auth(&self, table: auth::Table, tell: Tell<'_>) -> Result<(), ExportError> {
        for row in auth::rows(&self.frozen, table) {
            let (name, value) = row?;
            tell(&name, &value)?;
        }
        Ok(())
    }

    fn records(&self, tell: Tell<'_>) -> Result<(), ExportError> {
        let mut unasked = 0;
        self.frozen.each(Column::Rev, |key, row| {
            unasked += 1;
            if unasked == RECORDS_UNASKED {
                unasked = 0;
                if !(self.wanted)() {
                    return Err(ExportError::Unwanted);
                }
            }
            tell(key, row)
        })
    }

    fn meta(&self) -> Meta {
        let Standing { applied, compacted, mut finished } = self.standing;
        if compacted == 0 {
            // It has nothing to delete, and etcd takes one that has not finished for none.
            finished = 0;
        }
        let ids = |learner: bool| {
            let members = self.cluster.members.values().filter(|member| member.is_learner == learner);
            members.map(|member| member.id).collect()
        };
        Meta {
            conf_state: Some(ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() }),
            consistent_index: Some(applied.index),
            // etcd goes on with a compaction that was asked for and has not ended.
            finished_compact_rev: Some(finished).filter(|revision| *revision >= 0),
            scheduled_compact_rev: Some(compacted).filter(|revision| *revision >= 0),
            // Text that is no version, etcd takes for none.
            storage_version: self.cluster.storage_version.as_deref().and_then(|text| text.parse().ok()),
            term: Some(applied.term),
        }
    }
}

impl Source for Image<'_> {
    type Error = ExportError;

    fn visit(&self, visitor: &mut dyn Visitor<ExportError>) -> Result<(), ExportError> {
        for bucket in Bucket::ALL {
            visitor.bucket(bucket.name().as_bytes())?;
            self.rows(bucket, &mut |key, value| visitor.row(key, value))?;
        }
        Ok(())
    }
}

/// By the text of the ids, whose order is not that of the numbers.
fn in_order<'i, T>(by_id: impl Iterator<Item = (&'i u64, T)>) -> Vec<(String, T)> {
    let mut by_text: Vec<_> = by_id.map(|(id, of)| (member_key(*id), of)).collect();
    by_text.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    by_text
}

fn in_etcds_words(member: &pb::Member) -> Member {
    Member {
        id: member.id,
        peer_urls: member.peer_ur_ls.clone(),
        is_learner: member.is_learner,
        name: member.name.clone(),
        client_urls: member.client_ur_ls.clone(),
    }
}
