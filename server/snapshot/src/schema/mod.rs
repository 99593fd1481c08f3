//! What stands in an image: the ten buckets, and their rows as typed values.
//!
//! A row is written exactly as etcd 3.7 would write it, so that hashes agree,
//! and read as etcd would read it. The value of a key, `mvccpb.KeyValue`, is
//! copied as the bytes it is wherever nothing but the bytes matters.

mod auth;
mod cluster;
mod complete;
mod json;
mod key;
mod meta;
#[cfg(test)]
mod tests;

use std::fmt;

pub use auth::{AUTH_ENABLED, AUTH_REVISION, Permission, Role, User, UserOptions, auth_enabled};
pub use cluster::{
    Alarm, CLUSTER_VERSION, DOWNGRADE, Downgrade, Lease, MEMBER_REMOVED, Member, Version, lease_id,
    lease_key, member_id, member_key,
};
pub use complete::Complete;
pub use key::{KeyValue, RevisionBytes, RevisionKey};
pub(crate) use meta::bucket;
pub use meta::{
    CONF_STATE, CONSISTENT_INDEX, ConfState, FINISHED_COMPACT_REV, Meta, SCHEDULED_COMPACT_REV,
    STORAGE_VERSION, TERM, revision_from_bytes, revision_to_bytes,
};

/// The buckets of an etcd 3.7 database, ascending by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Raised alarms: [`Alarm`], no value.
    Alarm,
    /// [`AUTH_ENABLED`] and [`AUTH_REVISION`].
    Auth,
    /// Role name: [`Role`].
    AuthRoles,
    /// User name: [`User`].
    AuthUsers,
    /// [`CLUSTER_VERSION`] and [`DOWNGRADE`].
    Cluster,
    /// [`RevisionKey`]: [`KeyValue`].
    Key,
    /// [`lease_key`]: [`Lease`].
    Lease,
    /// [`member_key`]: [`Member`].
    Members,
    /// [`member_key`]: [`MEMBER_REMOVED`].
    MembersRemoved,
    /// Rows of [`Meta`].
    Meta,
}

impl Bucket {
    /// All of them, in the order of a file.
    pub const ALL: [Self; 10] = [
        Self::Alarm,
        Self::Auth,
        Self::AuthRoles,
        Self::AuthUsers,
        Self::Cluster,
        Self::Key,
        Self::Lease,
        Self::Members,
        Self::MembersRemoved,
        Self::Meta,
    ];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Auth => "auth",
            Self::AuthRoles => "authRoles",
            Self::AuthUsers => "authUsers",
            Self::Cluster => "cluster",
            Self::Key => "key",
            Self::Lease => "lease",
            Self::Members => "members",
            Self::MembersRemoved => "members_removed",
            Self::Meta => "meta",
        }
    }

    /// The bucket of this name.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|bucket| bucket.name().as_bytes() == name)
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A key or value has a length it cannot have.
    #[error("{what} of {len} bytes")]
    Length {
        /// What it should have been.
        what: &'static str,
        /// Bytes it has.
        len: usize,
    },
    /// The bytes are not a revision key.
    #[error("no revision key")]
    RevisionKey,
    /// A protobuf message cannot be decoded.
    #[error("{message}: {detail}")]
    Protobuf {
        /// Which message.
        message: &'static str,
        /// What the decoder said.
        detail: String,
    },
    /// A JSON text cannot be decoded.
    #[error("{what}: {detail}")]
    Json {
        /// Which text.
        what: &'static str,
        /// What the decoder said.
        detail: String,
    },
    /// A text is not what it should be.
    #[error("{text:?} is no {what}")]
    Text {
        /// What it should have been.
        what: &'static str,
        /// The text, with what is no UTF-8 replaced.
        text: String,
    },
}
