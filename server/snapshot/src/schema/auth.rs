//! Rows of the buckets `auth`, `authUsers` and `authRoles`.

use prost::Message;

use super::{Bucket, Malformed};
use crate::bbolt::{self, Database};

/// Key in the bucket `auth`: the value is one byte, 1 when authentication is on. Absent means off.
pub const AUTH_ENABLED: &str = "authEnabled";
/// Key in the bucket `auth`: the value is the revision of the auth store, 8 bytes, big endian.
pub const AUTH_REVISION: &str = "authRevision";

/// Whether users have to authenticate in the cluster that an image is of.
///
/// # Errors
/// When the image cannot be read.
pub fn auth_enabled(database: &Database) -> Result<bool, bbolt::Error> {
    let bucket = database.bucket(Bucket::Auth.name().as_bytes())?;
    let value = bucket.map(|bucket| bucket.get(AUTH_ENABLED.as_bytes())).transpose()?.flatten();
    Ok(value.is_some_and(|value| value[..] == [1]))
}

/// A row of the bucket `authUsers` (`authpb.User`), under its name.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct User {
    /// Its name.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// The bcrypt text of the password; empty when there is none.
    #[prost(bytes = "vec", tag = "2")]
    pub password: Vec<u8>,
    /// Names of its roles, ascending.
    #[prost(string, repeated, tag = "3")]
    pub roles: Vec<String>,
    /// Always written by etcd, also when nothing in it is set.
    #[prost(message, optional, tag = "4")]
    pub options: Option<UserOptions>,
}

/// How a user may log in (`authpb.UserAddOptions`).
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct UserOptions {
    /// Only by certificate.
    #[prost(bool, tag = "1")]
    pub no_password: bool,
}

/// A row of the bucket `authRoles` (`authpb.Role`), under its name.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Role {
    /// Its name.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// What it permits, ascending by key.
    #[prost(message, repeated, tag = "2")]
    pub key_permission: Vec<Permission>,
}

/// A range of keys and what may be done there (`authpb.Permission`).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Permission {
    /// 0 read, 1 write, 2 both.
    #[prost(int32, tag = "1")]
    pub perm_type: i32,
    /// The key, or the first one.
    #[prost(bytes = "vec", tag = "2")]
    pub key: Vec<u8>,
    /// The end of the range, as in a range request.
    #[prost(bytes = "vec", tag = "3")]
    pub range_end: Vec<u8>,
}

impl User {
    /// Reads a row's value.
    ///
    /// # Errors
    /// [`Malformed::Protobuf`].
    pub fn parse(value: &[u8]) -> Result<Self, Malformed> {
        Self::decode(value).map_err(|e| Malformed::Protobuf { message: "authpb.User", detail: e.to_string() })
    }

    /// As etcd writes it, if `options` is there.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

impl Role {
    /// Reads a row's value.
    ///
    /// # Errors
    /// [`Malformed::Protobuf`].
    pub fn parse(value: &[u8]) -> Result<Self, Malformed> {
        Self::decode(value).map_err(|e| Malformed::Protobuf { message: "authpb.Role", detail: e.to_string() })
    }

    /// As etcd writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}
