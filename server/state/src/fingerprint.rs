//! A hash of everything that was applied, so that members that differ are found.
//!
//! ```text
//!   entry n: place in the log, command ─┐
//!   what it gave: revision, refused     ├─► fingerprint n ─► with `applied` in one batch
//!   fingerprint n - 1                  ─┘
//! ```
//!
//! Every step is a bijection of what was before: two members that differ once
//! differ from then on, whatever both apply.

use crate::{EntryBody, LogId, Reply};

/// Odd, with bits everywhere (the golden ratio).
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// What was applied, in 64 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// The entry behind which it begins: 0, but for a state of a release that had none yet.
    pub since: u64,
    /// The hash of all entries behind that one, and of what they gave.
    pub value: u64,
}

impl Fingerprint {
    /// One that begins behind an entry.
    pub(crate) fn behind(index: u64) -> Self {
        Self { since: index, value: 0 }
    }

    /// Whether two members that give these for the same entry have different states. Those that begin at different
    /// entries say nothing about each other.
    pub fn differs(self, other: Self) -> bool {
        self.since == other.since && self.value != other.value
    }

    /// The fingerprint once this entry has been applied as well.
    pub(crate) fn with(self, entry: Digest, reply: &Reply) -> Self {
        let Digest { log_id, kind, len, crc } = entry;
        let body = (u64::from(kind) << 62) | ((len as u64) << 32) | u64::from(crc);
        let result = ((reply.revision as u64) << 1) | u64::from(reply.result.is_err());
        let words = [log_id.index, log_id.term, body, result];
        Self { value: words.into_iter().fold(self.value, mix), ..self }
    }
}

/// What of an entry goes into the fingerprint; applying it takes the entry itself.
#[derive(Clone, Copy)]
pub(crate) struct Digest {
    log_id: LogId,
    kind: u8,
    len: usize,
    crc: u32,
}

impl Digest {
    pub(crate) fn of(log_id: LogId, body: &EntryBody) -> Self {
        let (kind, bytes): (_, &[u8]) = match body {
            EntryBody::Blank => (0, &[]),
            EntryBody::Command(command) => (1, command),
            EntryBody::Membership { opaque, .. } => (2, opaque),
        };
        Self { log_id, kind, len: bytes.len(), crc: crc32c::crc32c(bytes) }
    }
}

fn mix(before: u64, word: u64) -> u64 {
    let mixed = (before ^ word).wrapping_mul(FACTOR);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Refusal, Response};

    const AT: LogId = LogId { term: 3, index: 7 };

    fn with(
        before: Fingerprint,
        log_id: LogId,
        body: &EntryBody,
        revision: i64,
        refused: bool,
    ) -> Fingerprint {
        let result = if refused { Err(Refusal::NoSpace) } else { Ok(Response::Done) };
        before.with(Digest::of(log_id, body), &Reply { revision, result })
    }

    /// What members of one cluster must agree on: another formula is another version of it.
    #[test]
    fn the_formula_stays() {
        let mut fingerprint = Fingerprint::default();
        for (index, body) in [EntryBody::Blank, EntryBody::Command("put".into())].iter().enumerate() {
            fingerprint = with(fingerprint, LogId { term: 1, index: index as u64 + 1 }, body, 5, false);
        }
        assert_eq!(fingerprint.value, 2_462_128_345_192_509_887);
    }

    #[test]
    fn whatever_is_different_shows() {
        let before = Fingerprint { since: 0, value: 42 };
        let command = EntryBody::Command("put".into());
        let opaque = EntryBody::Membership { opaque: "put".into(), nodes: vec![] };
        let all = [
            with(before, AT, &command, 5, false),
            with(Fingerprint { since: 0, value: 43 }, AT, &command, 5, false),
            with(before, LogId { term: 4, ..AT }, &command, 5, false),
            with(before, LogId { index: 8, ..AT }, &command, 5, false),
            with(before, AT, &EntryBody::Command("pus".into()), 5, false),
            with(before, AT, &EntryBody::Command("put\0".into()), 5, false),
            with(before, AT, &EntryBody::Command("".into()), 5, false),
            with(before, AT, &EntryBody::Blank, 5, false),
            with(before, AT, &opaque, 5, false),
            with(before, AT, &command, 6, false),
            with(before, AT, &command, 5, true),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| one.differs(*other)), "{at}");
            assert!(!one.differs(*one));
            assert!(!one.differs(Fingerprint { since: 9, ..all[0] }));
        }
    }
}
