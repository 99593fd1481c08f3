//! The state machine as openraft wants it: everything is handed to the apply thread.
//!
//! A "snapshot" is what the state already has on disk, so building one copies
//! nothing, and the log is purged only below what a crash would leave.
//!
//! `apply` returns once the batch is queued: openraft's own idea of what is
//! applied runs ahead. Nothing outside uses it; reads wait for [`super::Raft::wait_applied`].

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use parking_lot::Mutex;

use super::apply::{Applier, Position};
use super::codec;
use super::types::{LogId, Node, SnapshotMeta, StoredMembership, Term, TypeConfig, log_id, state_log_id};

type Built = Snapshot<Term, u64, Node, OnDisk>;

/// Stands for the files of the state, which are collected only when a follower needs them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnDisk;

#[derive(Clone)]
pub(crate) struct StateMachine {
    applier: Applier,
    /// How far the state on disk may be behind before a snapshot pushes it.
    behind_max: u64,
    current: Arc<Mutex<Option<SnapshotMeta>>>,
}

impl StateMachine {
    pub fn new(applier: Applier, behind_max: u64) -> Self {
        Self { applier, behind_max, current: Arc::default() }
    }
}

fn stored(membership: Option<(state::LogId, bytes::Bytes)>) -> io::Result<StoredMembership> {
    match membership {
        None => Ok(StoredMembership::default()),
        Some((at, opaque)) => Ok(StoredMembership::new(log_id(at), codec::decode_membership(&opaque)?)),
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = OnDisk;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let position = self.applier.position().await?;
        Ok((log_id(position.applied), stored(position.membership)?))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut batch = Vec::with_capacity(entries.size_hint().0);
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            batch.push((codec::state_entry(entry), responder));
        }
        self.applier.apply(batch).await
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        let behind_max = if force { 0 } else { self.behind_max };
        Some(SnapshotBuilder { machine: self.clone(), behind_max })
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { machine: self.clone(), behind_max: 0 }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, _: OnDisk) -> io::Result<()> {
        let applied = meta.last_log_id.as_ref().map(state_log_id).unwrap_or_default();
        let at = meta.last_membership.log_id().as_ref().map(state_log_id);
        let membership = at.map(|at| (at, codec::encode_membership(meta.last_membership.membership())));
        self.applier.install(Position { applied, membership }).await?;
        *self.current.lock() = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Built>> {
        Ok(self.current.lock().clone().map(|meta| Snapshot { meta, snapshot: OnDisk }))
    }
}

pub(crate) struct SnapshotBuilder {
    machine: StateMachine,
    behind_max: u64,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = OnDisk;

    async fn build_snapshot(&mut self) -> io::Result<Built> {
        let position = self.machine.applier.persist(self.behind_max).await?;
        let meta = SnapshotMeta {
            last_log_id: log_id(position.applied),
            last_membership: stored(position.membership)?,
        };
        *self.machine.current.lock() = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: OnDisk })
    }
}
