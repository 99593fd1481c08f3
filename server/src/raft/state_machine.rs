//! The state machine as openraft wants it: everything is handed to the apply thread.
//!
//! A "snapshot" is what the state already has on disk, so building one copies
//! nothing, and the log is purged only below what a crash would leave.
//!
//! `apply` returns once the batch is queued: openraft's own idea of what is
//! applied runs ahead. Nothing outside uses it; reads wait for [`super::Raft::wait_applied`].

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;

use super::apply::{Applier, Waiter};
use super::codec;
use super::send_state::SendState;
use super::types::{Command, LogId, Node, SnapshotMeta, StoredMembership, Term, TypeConfig, log_id};

type Built = Snapshot<Term, u64, Node, StateFiles>;

/// The files of a state.
#[derive(Debug, Clone)]
pub(crate) enum StateFiles {
    /// Those of this member, collected only when a follower needs them, and then as of then.
    Own,
    /// Those a leader has sent, in this folder.
    Received(PathBuf),
}

#[derive(Clone)]
pub(crate) struct StateMachine {
    member_id: u64,
    applier: Applier,
    /// How far the state on disk may be behind before a snapshot pushes it.
    behind_max: u64,
    send_state: Arc<SendState>,
    current: Arc<Mutex<Option<SnapshotMeta>>>,
}

impl StateMachine {
    pub fn new(member_id: u64, applier: Applier, behind_max: u64, send_state: Arc<SendState>) -> Self {
        Self { member_id, applier, behind_max, send_state, current: Arc::default() }
    }
}

/// A membership as openraft stores it.
pub(crate) fn stored(membership: Option<(state::LogId, bytes::Bytes)>) -> io::Result<StoredMembership> {
    match membership {
        None => Ok(StoredMembership::default()),
        Some((at, opaque)) => Ok(StoredMembership::new(log_id(at), codec::decode_membership(&opaque)?)),
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = StateFiles;
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
            let waiter = match (responder, &entry.payload) {
                (Some(responder), _) => Some(Waiter::Here(responder)),
                (None, EntryPayload::Normal(Command { origin: Some(origin), .. })) => {
                    (origin.member_id == self.member_id).then_some(Waiter::Forwarded(origin.number))
                }
                (None, _) => None,
            };
            batch.push((codec::state_entry(entry), waiter));
        }
        self.applier.apply(batch).await
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        // The log is purged after each snapshot.
        if !force && self.send_state.needs_log() {
            return None;
        }
        let behind_max = if force { 0 } else { self.behind_max };
        Some(SnapshotBuilder { machine: self.clone(), behind_max })
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { machine: self.clone(), behind_max: 0 }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, files: StateFiles) -> io::Result<()> {
        let StateFiles::Received(files) = files else {
            return Err(io::Error::other("a member's own state is not installed"));
        };
        let position = self.applier.install(files).await?;
        if log_id(position.applied) != meta.last_log_id {
            return Err(io::Error::other(format!(
                "the state that was received ends at {:?}, not at {:?}",
                position.applied, meta.last_log_id
            )));
        }
        *self.current.lock() = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Built>> {
        Ok(self.current.lock().clone().map(|meta| Snapshot { meta, snapshot: StateFiles::Own }))
    }
}

pub(crate) struct SnapshotBuilder {
    machine: StateMachine,
    behind_max: u64,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = StateFiles;

    async fn build_snapshot(&mut self) -> io::Result<Built> {
        let position = self.machine.applier.persist(self.behind_max).await?;
        let meta = SnapshotMeta {
            last_log_id: log_id(position.applied),
            last_membership: stored(position.membership)?,
        };
        let mut current = self.machine.current.lock();
        // A state that was installed meanwhile is newer.
        if current.as_ref().is_none_or(|known| known.last_log_id < meta.last_log_id) {
            *current = Some(meta.clone());
        }
        Ok(Snapshot { meta, snapshot: StateFiles::Own })
    }
}
