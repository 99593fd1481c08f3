//! Rows of the bucket `meta`: where the log stands, and how far compactions are.

use serde::Deserialize;

use crate::Error;
use crate::bbolt::{self, Database};

use super::cluster::{nullable, parse};
use super::{Bucket, Malformed, RevisionBytes, RevisionKey, Version, json};

/// Index of the last log entry in the image: 8 bytes, big endian.
pub const CONSISTENT_INDEX: &str = "consistent_index";
/// Term of that entry: 8 bytes, big endian.
pub const TERM: &str = "term";
/// Who votes: [`ConfState`].
pub const CONF_STATE: &str = "confState";
/// The version of the schema: the text of a [`Version`]. Absent means 3.5.
pub const STORAGE_VERSION: &str = "storageVersion";
/// The revision of the compaction that was last asked for: [`revision_to_bytes`].
pub const SCHEDULED_COMPACT_REV: &str = "scheduledCompactRev";
/// The revision of the compaction that last ended: [`revision_to_bytes`].
pub const FINISHED_COMPACT_REV: &str = "finishedCompactRev";

/// The members as Raft sees them (`raftpb.ConfState`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ConfState {
    /// Ids of those with a vote.
    #[serde(deserialize_with = "nullable")]
    pub voters: Vec<u64>,
    /// Ids of those without.
    #[serde(deserialize_with = "nullable")]
    pub learners: Vec<u64>,
    /// In a joint configuration, the voters of the one being left.
    #[serde(deserialize_with = "nullable")]
    pub voters_outgoing: Vec<u64>,
    /// In a joint configuration, those that become learners.
    #[serde(deserialize_with = "nullable")]
    pub learners_next: Vec<u64>,
    /// Whether a joint configuration is left by itself.
    pub auto_leave: bool,
}

impl ConfState {
    /// As etcd 3.7 writes it, byte for byte.
    pub fn to_json(&self) -> String {
        let mut text = String::from("{");
        for (name, ids) in [
            ("voters", &self.voters),
            ("learners", &self.learners),
            ("voters_outgoing", &self.voters_outgoing),
            ("learners_next", &self.learners_next),
        ] {
            if !ids.is_empty() {
                text.push_str(&format!("\"{name}\":{},", json::numbers(ids)));
            }
        }
        text.push_str(&format!("\"auto_leave\":{}}}", self.auto_leave));
        text
    }

    /// Reads a row's value.
    ///
    /// # Errors
    /// [`Malformed::Json`].
    pub fn from_json(text: &[u8]) -> Result<Self, Malformed> {
        parse("confState", text)
    }
}

/// The value of a compaction row: a revision key with `sub` 0.
pub fn revision_to_bytes(main: i64) -> RevisionBytes {
    RevisionKey { main, sub: 0, tombstone: false }.to_bytes()
}

/// The main revision in the value of a compaction row.
///
/// # Errors
/// [`Malformed::RevisionKey`].
pub fn revision_from_bytes(value: &[u8]) -> Result<i64, Malformed> {
    Ok(RevisionKey::parse(value)?.main)
}

/// All rows of the bucket, each as far as it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// [`CONF_STATE`]
    pub conf_state: Option<ConfState>,
    /// [`CONSISTENT_INDEX`]
    pub consistent_index: Option<u64>,
    /// [`FINISHED_COMPACT_REV`]
    pub finished_compact_rev: Option<i64>,
    /// [`SCHEDULED_COMPACT_REV`]
    pub scheduled_compact_rev: Option<i64>,
    /// [`STORAGE_VERSION`]
    pub storage_version: Option<Version>,
    /// [`TERM`]
    pub term: Option<u64>,
}

impl Meta {
    /// The rows, ascending by key.
    pub fn rows(&self) -> Vec<(&'static str, Vec<u8>)> {
        let rows = [
            (CONF_STATE, self.conf_state.as_ref().map(|state| state.to_json().into_bytes())),
            (CONSISTENT_INDEX, self.consistent_index.map(|index| index.to_be_bytes().to_vec())),
            (
                FINISHED_COMPACT_REV,
                self.finished_compact_rev.map(|main| revision_to_bytes(main).as_ref().to_vec()),
            ),
            (
                SCHEDULED_COMPACT_REV,
                self.scheduled_compact_rev.map(|main| revision_to_bytes(main).as_ref().to_vec()),
            ),
            (STORAGE_VERSION, self.storage_version.as_ref().map(|version| version.to_string().into_bytes())),
            (TERM, self.term.map(|term| term.to_be_bytes().to_vec())),
        ];
        rows.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    /// Takes a row; one of another name is left alone, and gives false.
    ///
    /// # Errors
    /// [`Malformed`] when the value is not what the name says.
    pub fn take(&mut self, key: &[u8], value: &[u8]) -> Result<bool, Malformed> {
        match std::str::from_utf8(key) {
            Ok(CONF_STATE) => self.conf_state = Some(ConfState::from_json(value)?),
            Ok(CONSISTENT_INDEX) => self.consistent_index = Some(number(CONSISTENT_INDEX, value)?),
            Ok(FINISHED_COMPACT_REV) => self.finished_compact_rev = Some(revision_from_bytes(value)?),
            Ok(SCHEDULED_COMPACT_REV) => self.scheduled_compact_rev = Some(revision_from_bytes(value)?),
            Ok(STORAGE_VERSION) => self.storage_version = Some(Version::from_bytes(value)?),
            Ok(TERM) => self.term = Some(number(TERM, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads the bucket of an image; rows of other names are passed over.
    ///
    /// # Errors
    /// [`Error::BucketMissing`], [`Error::Row`], and [`Error::Image`].
    pub fn read(database: &Database) -> Result<Self, Error> {
        let mut meta = Self::default();
        for row in bucket(database, Bucket::Meta)?.rows() {
            let (key, value) = row?;
            meta.take(&key, &value).map_err(|problem| Error::row(Bucket::Meta, &key, problem))?;
        }
        Ok(meta)
    }
}

/// The bucket, which must be there.
pub(crate) fn bucket(database: &Database, bucket: Bucket) -> Result<bbolt::Bucket<'_>, Error> {
    database
        .bucket(bucket.name().as_bytes())?
        .ok_or_else(|| Error::BucketMissing { path: database.path().into(), bucket })
}

fn number(what: &'static str, value: &[u8]) -> Result<u64, Malformed> {
    let bytes = value.try_into().map_err(|_| Malformed::Length { what, len: value.len() })?;
    Ok(u64::from_be_bytes(bytes))
}
