//! An image's rows as those of the first moment of a new cluster.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::{Bumped, Restored, TERM};
use crate::Error;
use crate::bbolt::{Database, Source, Visitor};
use crate::schema::{Bucket, ConfState, Meta, RevisionKey, member_key};

/// Other members, another place in the log, and a higher revision if asked for; all else as it is.
pub(super) struct Rewritten<'a> {
    image: &'a Database,
    restored: &'a Restored,
    bump: Option<u64>,
    bumped: Cell<Option<Bumped>>,
}

/// Hears rows.
type Tell<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), Error>;

impl<'a> Rewritten<'a> {
    pub(super) fn new(image: &'a Database, restored: &'a Restored, bump: Option<u64>) -> Self {
        Self { image, restored, bump, bumped: Cell::default() }
    }

    /// How the revision was raised, once the rows were told.
    pub(super) fn bumped(&self) -> Option<Bumped> {
        self.bumped.get()
    }

    fn keys(&self, visitor: &mut dyn Visitor<Error>) -> Result<(), Error> {
        let bucket = Bucket::Key;
        if self.image.bucket(bucket.name().as_bytes())?.is_none() {
            return Err(Error::BucketMissing { path: self.image.path().into(), bucket });
        }
        let mut last = Vec::new();
        self.copy(bucket.name().as_bytes(), &mut |key, value| {
            last.clear();
            last.extend_from_slice(key);
            visitor.row(key, value)
        })?;
        let Some(bump) = self.bump else { return Ok(()) };
        let latest = match &last[..] {
            [] => 0,
            key => RevisionKey::parse(key).map_err(|problem| Error::row(bucket, key, problem))?.main,
        };
        let raised = i64::try_from(bump).ok().and_then(|bump| latest.checked_add(bump));
        // One more must be left: revisions are told as "up to and not including".
        let raised = raised.filter(|raised| *raised < i64::MAX).ok_or(Error::Bump { latest, bump })?;
        let at = RevisionKey { main: raised, sub: 0, tombstone: false };
        visitor.row(at.to_bytes().as_ref(), &[])?;
        self.bumped.set(Some(Bumped { latest, raised }));
        Ok(())
    }

    fn members(&self, visitor: &mut dyn Visitor<Error>) -> Result<(), Error> {
        let mut rows: Vec<(String, String)> =
            self.restored.members.iter().map(|member| (member_key(member.id), member.to_json())).collect();
        rows.sort_unstable();
        rows.iter().try_for_each(|(key, row)| visitor.row(key.as_bytes(), row.as_bytes()))
    }

    /// Rows that are not replaced stay, also those of other names.
    fn meta(&self, visitor: &mut dyn Visitor<Error>) -> Result<(), Error> {
        let voters = self.restored.members.iter().map(|member| member.id).collect();
        let replaced = Meta {
            conf_state: Some(ConfState { voters, ..ConfState::default() }),
            consistent_index: Some(self.restored.last_index()),
            term: Some(TERM),
            scheduled_compact_rev: self.bumped.get().map(|bumped| bumped.raised),
            ..Meta::default()
        };
        let mut rows = BTreeMap::new();
        self.copy(Bucket::Meta.name().as_bytes(), &mut |key, value| {
            rows.insert(key.to_vec(), value.to_vec());
            Ok(())
        })?;
        rows.extend(replaced.rows().into_iter().map(|(key, value)| (key.as_bytes().to_vec(), value)));
        rows.iter().try_for_each(|(key, value)| visitor.row(key, value))
    }

    fn copy(&self, bucket: &[u8], tell: Tell<'_>) -> Result<(), Error> {
        let Some(bucket) = self.image.bucket(bucket)? else { return Ok(()) };
        for row in bucket.rows() {
            let (key, value) = row?;
            tell(&key, &value)?;
        }
        Ok(())
    }
}

impl Source for Rewritten<'_> {
    type Error = Error;

    /// Tells etcd's buckets, those that are missing too, and what others there are.
    fn visit(&self, visitor: &mut dyn Visitor<Error>) -> Result<(), Error> {
        let mut names: BTreeSet<Vec<u8>> =
            self.image.buckets()?.iter().map(|bucket| bucket.name().to_vec()).collect();
        names.extend(Bucket::ALL.map(|bucket| bucket.name().as_bytes().to_vec()));
        for name in names {
            visitor.bucket(&name)?;
            match Bucket::from_name(&name) {
                Some(Bucket::Key) => self.keys(visitor)?,
                Some(Bucket::Members) => self.members(visitor)?,
                Some(Bucket::MembersRemoved) => {}
                Some(Bucket::Meta) => self.meta(visitor)?,
                _ => self.copy(&name, &mut |key, value| visitor.row(key, value))?,
            }
        }
        Ok(())
    }
}
