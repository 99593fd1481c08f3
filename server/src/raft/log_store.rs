//! The Raft log as openraft wants it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use raftlog::{Done, Log};
use tokio::sync::oneshot;

use super::codec;
use super::fatal;
use super::status::Shared;
use super::types::{Entry, LogId, TypeConfig, Vote, new_log_id, state_log_id};

/// Bytes of entries handed out for one message to a follower.
const REPLICATION_BYTES_MAX: usize = 2 << 20;

/// Storage and reader in one: both only ask the log.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: Log,
    status: Arc<Shared>,
}

impl LogStore {
    pub fn new(log: Log, status: Arc<Shared>) -> Self {
        Self { log, status }
    }

    fn read(&self, range: std::ops::Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let entries = self.log.read(range, bytes_max).map_err(raftlog::Error::into_io)?;
        entries.into_iter().map(codec::decode_entry).collect()
    }
}

fn from_log(log_id: raftlog::LogId) -> LogId {
    new_log_id(log_id.term, log_id.index)
}

fn to_log(log_id: &LogId) -> raftlog::LogId {
    raftlog::LogId { term: log_id.leader_id.term, index: log_id.index }
}

/// A callback and what waits for it. A log that cannot write stops the member.
fn waiter() -> (Done, oneshot::Receiver<()>) {
    let (sender, receiver) = oneshot::channel();
    let done = move |result: Result<(), raftlog::Error>| {
        if let Err(error) = result {
            fatal(&error);
        }
        sender.send(()).ok();
    };
    (Box::new(done), receiver)
}

async fn durable(receiver: oneshot::Receiver<()>) -> io::Result<()> {
    receiver.await.map_err(|_| raftlog::Error::Closed.into_io())
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.log.state();
        Ok(LogState { last_purged_log_id: state.purged.map(from_log), last_log_id: state.last.map(from_log) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        #[cfg(feature = "simulation")]
        if crate::simulation::votes_are_lost() {
            return Ok(());
        }
        let (done, receiver) = waiter();
        self.log.save_vote(codec::encode_vote(vote), done).map_err(raftlog::Error::into_io)?;
        durable(receiver).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = &committed {
            self.status.set_committed(state_log_id(committed).index);
        }
        self.log.hint_committed(committed.as_ref().map(to_log));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.committed().map(from_log))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(codec::encode_entry).collect();
        let done = move |result: Result<(), raftlog::Error>| match result {
            Ok(()) => callback.io_completed(Ok(())),
            Err(error) => fatal(&error),
        };
        self.log.append(entries, Box::new(done)).map_err(raftlog::Error::into_io)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let (done, receiver) = waiter();
        self.log.truncate_after(last.as_ref().map(to_log), done).map_err(raftlog::Error::into_io)?;
        durable(receiver).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.log.purge(to_log(&upto)).map_err(raftlog::Error::into_io)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start..end, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.log.vote().map(|vote| codec::decode_vote(&vote)).transpose()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, REPLICATION_BYTES_MAX)
    }
}
