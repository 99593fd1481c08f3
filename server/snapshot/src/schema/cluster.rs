//! Rows of the buckets `members`, `members_removed`, `cluster`, `lease` and `alarm`.

use std::fmt;
use std::str::FromStr;

use prost::Message;
use serde::Deserialize;

use super::{Malformed, json};

/// Key of the cluster version in the bucket `cluster`; the value is the text of a [`Version`].
pub const CLUSTER_VERSION: &str = "clusterVersion";
/// Key of a downgrade in the bucket `cluster`; the value is [`Downgrade`].
pub const DOWNGRADE: &str = "downgrade";
/// The value of each row of the bucket `members_removed`.
pub const MEMBER_REMOVED: &str = "removed";

/// The key of a member, in `members` and in `members_removed`: its id in lower-case hexadecimal without padding.
pub fn member_key(id: u64) -> String {
    format!("{id:x}")
}

/// The id in the key of a member.
///
/// # Errors
/// [`Malformed::Text`] when it is no hexadecimal number of 64 bits.
pub fn member_id(key: &[u8]) -> Result<u64, Malformed> {
    let text = std::str::from_utf8(key).ok().filter(|text| !text.starts_with('+'));
    text.and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or_else(|| Malformed::Text { what: "member id", text: String::from_utf8_lossy(key).into_owned() })
}

/// A row of the bucket `members`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Where the other members reach it.
    #[serde(rename = "peerURLs", deserialize_with = "nullable")]
    pub peer_urls: Vec<String>,
    /// Whether it has no vote.
    #[serde(rename = "isLearner")]
    pub is_learner: bool,
    /// Its name; empty until it first started.
    pub name: String,
    /// Where clients reach it.
    #[serde(rename = "clientURLs", deserialize_with = "nullable")]
    pub client_urls: Vec<String>,
}

impl Member {
    /// As etcd 3.7 writes it, byte for byte.
    pub fn to_json(&self) -> String {
        let mut text = format!("{{\"id\":{},\"peerURLs\":{}", self.id, json::list(&self.peer_urls));
        if self.is_learner {
            text.push_str(",\"isLearner\":true");
        }
        if !self.name.is_empty() {
            text.push_str(",\"name\":");
            json::push_text(&mut text, &self.name);
        }
        if !self.client_urls.is_empty() {
            text.push_str(",\"clientURLs\":");
            text.push_str(&json::list(&self.client_urls));
        }
        text.push('}');
        text
    }

    /// Reads a row's value.
    ///
    /// # Errors
    /// [`Malformed::Json`].
    pub fn from_json(text: &[u8]) -> Result<Self, Malformed> {
        parse("member", text)
    }
}

/// What the bucket `cluster` says of a downgrade.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Downgrade {
    /// The version to go down to; empty when there is no downgrade.
    #[serde(rename = "target-version")]
    pub target_version: String,
    /// Whether a downgrade is under way.
    pub enabled: bool,
}

impl Downgrade {
    /// As etcd 3.7 writes it, byte for byte.
    pub fn to_json(&self) -> String {
        let mut text = String::from("{\"target-version\":");
        json::push_text(&mut text, &self.target_version);
        text.push_str(if self.enabled { ",\"enabled\":true}" } else { ",\"enabled\":false}" });
        text
    }

    /// Reads a row's value.
    ///
    /// # Errors
    /// [`Malformed::Json`].
    pub fn from_json(text: &[u8]) -> Result<Self, Malformed> {
        parse("downgrade", text)
    }
}

/// A version of etcd, of the cluster or of the storage: `major.minor.patch`, and what may follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// 3 in `3.7.0-rc.1`.
    pub major: u64,
    /// 7 in `3.7.0-rc.1`.
    pub minor: u64,
    /// 0 in `3.7.0-rc.1`.
    pub patch: u64,
    /// `-rc.1` in `3.7.0-rc.1`; empty for a release.
    pub suffix: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}{}", self.major, self.minor, self.patch, self.suffix)
    }
}

impl FromStr for Version {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::Text { what: "version", text: text.into() };
        let (numbers, suffix) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
        let mut numbers = numbers.split('.').map(|number| {
            let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| number.parse().ok()).flatten()
        });
        let mut number = || numbers.next().flatten().ok_or_else(malformed);
        let version =
            Self { major: number()?, minor: number()?, patch: number()?, suffix: suffix.to_owned() };
        if numbers.next().is_some() { Err(malformed()) } else { Ok(version) }
    }
}

impl Version {
    /// Reads a row's value.
    ///
    /// # Errors
    /// [`Malformed::Text`].
    pub fn from_bytes(value: &[u8]) -> Result<Self, Malformed> {
        String::from_utf8_lossy(value).parse()
    }
}

/// A row of the bucket `lease` (`leasepb.Lease`).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Lease {
    /// Its id.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Seconds it was granted for.
    #[prost(int64, tag = "2")]
    pub ttl: i64,
    /// Seconds that were left at the last checkpoint; 0 when there was none.
    #[prost(int64, tag = "3")]
    pub remaining_ttl: i64,
}

impl Lease {
    /// Reads a row's value.
    ///
    /// # Errors
    /// [`Malformed::Protobuf`].
    pub fn parse(value: &[u8]) -> Result<Self, Malformed> {
        Self::decode(value)
            .map_err(|e| Malformed::Protobuf { message: "leasepb.Lease", detail: e.to_string() })
    }

    /// As etcd writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

/// The key of a lease.
pub fn lease_key(id: i64) -> [u8; 8] {
    id.to_be_bytes()
}

/// The id in the key of a lease.
///
/// # Errors
/// [`Malformed::Length`].
pub fn lease_id(key: &[u8]) -> Result<i64, Malformed> {
    let bytes = key.try_into().map_err(|_| Malformed::Length { what: "lease id", len: key.len() })?;
    Ok(i64::from_be_bytes(bytes))
}

/// The key of a row of the bucket `alarm` (`etcdserverpb.AlarmMember`); the value is empty.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Alarm {
    /// The member that raised it.
    #[prost(uint64, tag = "1")]
    pub member_id: u64,
    /// 1 no space, 2 corrupt.
    #[prost(int32, tag = "2")]
    pub alarm: i32,
}

impl Alarm {
    /// Reads a row's key.
    ///
    /// # Errors
    /// [`Malformed::Protobuf`].
    pub fn parse(key: &[u8]) -> Result<Self, Malformed> {
        Self::decode(key)
            .map_err(|e| Malformed::Protobuf { message: "etcdserverpb.AlarmMember", detail: e.to_string() })
    }

    /// As etcd writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

pub(super) fn parse<'de, T: Deserialize<'de>>(what: &'static str, text: &'de [u8]) -> Result<T, Malformed> {
    serde_json::from_slice(text).map_err(|e| Malformed::Json { what, detail: e.to_string() })
}

/// A list Go may have written as `null`.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
