//! The row that says how far the state is; every batch holds it.

use crate::storage::{Batch, Column, Read, Storage};
use crate::{Fault, Fingerprint, LogId};

const KEY: &[u8] = b"state";
/// The row that says how far the background compaction is done.
const FINISHED: &[u8] = b"compaction_finished";
const LEN: usize = 56;
/// Without a fingerprint, as the first release wrote it.
const LEN_BEFORE: usize = 40;
/// An empty store stands at this revision.
pub(crate) const FIRST_REVISION: i64 = 1;
pub(super) const NEVER_COMPACTED: i64 = -1;

/// How far the state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StateRow {
    pub revision: i64,
    pub compacted: i64,
    pub applied: LogId,
    /// Bytes of records and keys that are still needed.
    pub in_use: i64,
    pub fingerprint: Fingerprint,
}

impl Default for StateRow {
    /// What an empty store has.
    fn default() -> Self {
        Self {
            revision: FIRST_REVISION,
            compacted: NEVER_COMPACTED,
            applied: LogId::default(),
            in_use: 0,
            fingerprint: Fingerprint::default(),
        }
    }
}

impl StateRow {
    pub(super) fn read(from: &impl Read) -> Result<Self, Fault> {
        let row = from.get(Column::Meta, KEY)?;
        row.map_or_else(|| Ok(Self::default()), |row| Self::decode(&row))
    }

    pub(super) fn put(&self, batch: &mut Batch) {
        batch.put(Column::Meta, KEY, &self.encode());
    }

    fn encode(&self) -> [u8; LEN] {
        let numbers = [
            self.revision as u64,
            self.compacted as u64,
            self.applied.term,
            self.applied.index,
            self.in_use as u64,
            self.fingerprint.since,
            self.fingerprint.value,
        ];
        let mut row = [0; LEN];
        for (number, place) in numbers.iter().zip(row.chunks_exact_mut(8)) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        row
    }

    fn decode(row: &[u8]) -> Result<Self, Fault> {
        if row.len() != LEN && row.len() != LEN_BEFORE {
            let detail = format!("{} bytes long", row.len());
            return Err(Fault::Corrupt { what: "state row", detail });
        }
        let (numbers, _) = row.as_chunks();
        let number = |at: usize| u64::from_be_bytes(numbers[at]);
        let applied = LogId { term: number(2), index: number(3) };
        let fingerprint = match row.len() {
            LEN => Fingerprint { since: number(5), value: number(6) },
            _ => Fingerprint::behind(applied.index),
        };
        Ok(Self {
            revision: number(0) as i64,
            compacted: number(1) as i64,
            applied,
            in_use: number(4) as i64,
            fingerprint,
        })
    }
}

/// Where a key space and its compaction stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) applied: LogId,
    /// The revision of the last compaction asked for, -1 if there was none.
    pub(crate) compacted: i64,
    /// The revision up to which superseded records are deleted, -1 before the first compaction.
    pub(crate) finished: i64,
}

impl Standing {
    pub(crate) fn read(from: &impl Read) -> Result<Self, Fault> {
        let StateRow { applied, compacted, .. } = StateRow::read(from)?;
        Ok(Self { applied, compacted, finished: finished(from)? })
    }
}

/// The revision up to which superseded records are deleted, -1 before the first compaction.
pub(super) fn finished(from: &impl Read) -> Result<i64, Fault> {
    let row = from.get(Column::Meta, FINISHED)?;
    Ok(row.and_then(|row| row[..].try_into().ok().map(i64::from_be_bytes)).unwrap_or(NEVER_COMPACTED))
}

/// Records how far the background compaction is done.
pub(super) fn put_finished(batch: &mut Batch, revision: i64) {
    batch.put(Column::Meta, FINISHED, &revision.to_be_bytes());
}

/// The last log entry in a database, and the fingerprint as of it.
pub(crate) fn applied(storage: &Storage) -> Result<(LogId, Fingerprint), Fault> {
    let row = StateRow::read(storage)?;
    Ok((row.applied, row.fingerprint))
}

/// The log id whose changes are on disk: what would be found after a crash now.
pub(crate) fn persisted_applied(storage: &Storage) -> Result<LogId, Fault> {
    let row = storage.get_persisted(Column::Meta, KEY)?;
    row.map_or_else(|| Ok(LogId::default()), |row| Ok(StateRow::decode(&row)?.applied))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, EntryBody, Options, State};

    #[test]
    fn a_state_of_the_first_release_opens() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options::new(dir.path().join("db"));
        let entry = |index| Entry { log_id: LogId { term: 1, index }, body: EntryBody::Blank };
        let (mut state, reader) = State::open(options.clone()).expect("open");
        state.apply((1..=9).map(entry).collect()).expect("apply");
        let row = StateRow::read(&state.storage).expect("read").encode();
        let mut batch = state.storage.batch();
        batch.put(Column::Meta, KEY, &row[..LEN_BEFORE]);
        state.storage.write(batch).expect("written");
        state.flush().expect("written");
        drop((state, reader));
        let (mut state, _reader) = State::open(options).expect("open");
        assert_eq!(state.applied().index, 9);
        assert_eq!(state.fingerprint(), Fingerprint { since: 9, value: 0 });
        state.apply(vec![entry(10)]).expect("apply");
        assert_eq!(state.fingerprint().since, 9);
        assert_ne!(state.fingerprint().value, 0);
    }

    #[test]
    fn a_row_of_the_first_release_begins_a_fingerprint() {
        let row = StateRow {
            revision: 12,
            compacted: -1,
            applied: LogId { term: 3, index: 40 },
            in_use: 99,
            fingerprint: Fingerprint { since: 5, value: 77 },
        };
        let encoded = row.encode();
        assert_eq!(StateRow::decode(&encoded).expect("whole"), row);
        let old = StateRow { fingerprint: Fingerprint { since: 40, value: 0 }, ..row };
        assert_eq!(StateRow::decode(&encoded[..LEN_BEFORE]).expect("whole"), old);
        assert!(StateRow::decode(&encoded[..48]).is_err());
    }
}
