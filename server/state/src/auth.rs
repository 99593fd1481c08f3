//! Users and roles: rows as etcd's buckets hold them.
//!
//! So far they come and go with snapshots. Of what they say only one thing is
//! asked: whether authentication is on.
//!
//! ```text
//!   auth column   'a' name   ─► a row of the bucket auth
//!                 'r' name   ─► authRoles
//!                 'u' name   ─► authUsers
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use snapshot::schema::{AUTH_ENABLED, AUTH_REVISION};

use crate::Fault;
use crate::storage::{Batch, Column, Read};

/// What the revision of users and roles is before there are any.
const FIRST_REVISION: u64 = 1;
const ENABLED: &[u8] = &[1];

/// Which rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Table {
    /// Whether authentication is on, and the revision of the others.
    Store = b'a',
    Roles = b'r',
    Users = b'u',
}

/// Rows in order: names and values.
pub(crate) fn rows(from: &impl Read, table: Table) -> impl Iterator<Item = Result<(Bytes, Bytes), Fault>> {
    let prefix = table as u8;
    let rows = from.scan(Column::Auth, &[prefix], Some(&[prefix + 1]));
    rows.map(|row| row.map(|(name, value)| (name.slice(1..), value)))
}

/// The rows of the bucket `auth`. An etcd without users has a revision there too.
pub(crate) fn store(from: &impl Read) -> Result<BTreeMap<Bytes, Bytes>, Fault> {
    let mut store = rows(from, Table::Store).collect::<Result<BTreeMap<_, _>, _>>()?;
    let revision = || Bytes::copy_from_slice(&FIRST_REVISION.to_be_bytes());
    store.entry(AUTH_REVISION.into()).or_insert_with(revision);
    Ok(store)
}

/// Whether authentication is on.
pub(crate) fn is_enabled(from: &impl Read) -> Result<bool, Fault> {
    let key = row_key(Table::Store, AUTH_ENABLED.as_bytes());
    Ok(from.get(Column::Auth, &key)?.is_some_and(|value| value == ENABLED))
}

/// Takes over a row.
pub(crate) fn put(batch: &mut Batch, table: Table, name: &[u8], value: &[u8]) {
    batch.put(Column::Auth, &row_key(table, name), value);
}

fn row_key(table: Table, name: &[u8]) -> Vec<u8> {
    [&[table as u8], name].concat()
}
