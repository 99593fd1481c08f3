//! The result of a range: counted at once, read as it is asked for.
//!
//! A small result remembers which records it consists of. A large one remembers
//! only where it is in the key space and walks the index a second time, so that
//! a range of any size takes bounded memory and its exact length is known
//! before the first row is read.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message;
use prost::encoding::encoded_len_varint;

use super::entry::{Entry, kv_len};
use super::query::{Candidate, Query};
use super::view::{Shared, View, decode_row, positions};
use crate::{Fault, KeyRange, Revision};

/// Up to this many records are remembered.
const REMEMBERED_MAX: usize = 4096;
/// Rows read from the database at once.
const READ_AT_ONCE: usize = 256;

/// A live record that is part of a result.
#[derive(Debug, Clone)]
pub(super) struct Hit {
    pub key: Bytes,
    pub revision: Revision,
    pub created: i64,
    pub version: i64,
    pub lease: i64,
    pub value_len: usize,
}

impl Hit {
    fn row_len(&self) -> usize {
        kv_len(self.key.len(), self.created, self.revision.main, self.version, self.value_len, self.lease)
    }

    /// The record without its value, as `keys_only` returns it.
    pub(super) fn bare(&self, with_lease: bool) -> Bytes {
        let kv = proto::mvccpb::KeyValue {
            key: self.key.clone(),
            create_revision: self.created,
            mod_revision: self.revision.main,
            version: self.version,
            value: Bytes::new(),
            lease: if with_lease { self.lease } else { 0 },
        };
        kv.encode_to_vec().into()
    }

    fn bare_len(&self, with_lease: bool) -> usize {
        let lease = if with_lease { self.lease } else { 0 };
        kv_len(self.key.len(), self.created, self.revision.main, self.version, 0, lease)
    }
}

/// A hit with its value, where the order depends on it.
pub(super) struct Found {
    pub hit: Hit,
    pub value: Bytes,
}

impl Candidate for Found {
    fn created(&self) -> i64 {
        self.hit.created
    }
    fn modified(&self) -> i64 {
        self.hit.revision.main
    }
    fn version(&self) -> i64 {
        self.hit.version
    }
    fn value(&self) -> &[u8] {
        &self.value
    }
}

/// What of a row a result carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    Bare { with_lease: bool },
}

impl Form {
    fn of(query: &Query) -> Self {
        match query.keys_only {
            true => Self::Bare { with_lease: !query.drops_lease() },
            false => Self::Whole,
        }
    }

    fn len(self, hit: &Hit) -> usize {
        match self {
            Self::Whole => hit.row_len(),
            Self::Bare { with_lease } => hit.bare_len(with_lease),
        }
    }
}

/// The rows of a range in order. It holds its view: nothing it has promised can be compacted away.
pub struct Rows {
    /// Keys in the range at the revision read, whatever limit and filters say.
    pub count: i64,
    /// Whether the limit cut rows off.
    pub more: bool,
    view: View,
    form: Form,
    len: usize,
    encoded_len: usize,
    source: Source,
}

enum Source {
    Hits(VecDeque<Hit>),
    Walk { range: KeyRange, revision: i64, left: usize },
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows")
            .field("count", &self.count)
            .field("more", &self.more)
            .field("len", &self.len)
            .finish()
    }
}

impl Rows {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The revision of the view the rows come from.
    pub fn revision(&self) -> i64 {
        self.view.revision()
    }

    /// Bytes of all rows as the field `kvs` of a `RangeResponse`: tag, length and `mvccpb.KeyValue` of each.
    pub fn encoded_len(&self) -> usize {
        self.encoded_len
    }

    /// The next rows, encoded: as many as fit into `bytes_max`, at least one; `None` behind the last.
    pub fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Vec<Bytes>>, Fault> {
        if let Source::Walk { range, revision, left } = &mut self.source {
            if *left == 0 {
                return Ok(None);
            }
            let mut hits = Vec::new();
            let mut bytes = 0;
            let form = self.form;
            let take = READ_AT_ONCE.min(*left);
            walk(&self.view.shared, self.view.table(), range, *revision, &mut |hit| {
                bytes += form.len(&hit);
                hits.push(hit);
                Ok(hits.len() < take && bytes < bytes_max)
            })?;
            let Some(last) = hits.last() else {
                let detail = format!("{left} keys fewer than counted before");
                return Err(Fault::Corrupt { what: "index", detail });
            };
            *left -= hits.len();
            range.begin_after(&last.key);
            return Ok(Some(render(&self.view.shared, hits, form)?));
        }
        let Source::Hits(hits) = &mut self.source else { return Ok(None) };
        let mut bytes = 0;
        let mut taken = 0;
        while taken < hits.len() && (taken == 0 || bytes < bytes_max) {
            bytes += self.form.len(&hits[taken]);
            taken += 1;
        }
        let taken: Vec<_> = hits.drain(..taken).collect();
        match taken.is_empty() {
            true => Ok(None),
            false => render(&self.view.shared, taken, self.form).map(Some),
        }
    }
}

/// Chooses the rows of a query at a revision the view has.
pub(super) fn select(view: &View, query: &Query, revision: i64) -> Result<Rows, Fault> {
    let form = Form::of(query);
    let rows = |count: u64, more, len, encoded_len, source| {
        Ok(Rows { count: count as i64, more, view: view.clone(), form, len, encoded_len, source })
    };
    if query.count_only {
        let count = view.count(&query.range, revision)?;
        return rows(count, false, 0, 0, Source::Hits(VecDeque::new()));
    }
    if !query.is_plain() {
        let (count, more, hits) = choose(view, query, revision)?;
        let bytes = hits.iter().map(|hit| field_len(form.len(hit))).sum();
        return rows(count, more, hits.len(), bytes, Source::Hits(hits.into()));
    }
    let limit = usize::try_from(query.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let (mut hits, mut len, mut bytes) = (VecDeque::new(), 0, 0);
    let mut more = false;
    walk(&view.shared, view.table(), &query.range, revision, &mut |hit| {
        if len == limit {
            more = true;
            return Ok(false);
        }
        len += 1;
        bytes += field_len(form.len(&hit));
        if len <= REMEMBERED_MAX {
            hits.push_back(hit);
        } else if !hits.is_empty() {
            hits = VecDeque::new();
        }
        Ok(true)
    })?;
    let count = if more { view.count(&query.range, revision)? } else { len as u64 };
    let source = match len > REMEMBERED_MAX {
        true => Source::Walk { range: query.range.clone(), revision, left: len },
        false => Source::Hits(hits),
    };
    rows(count, more, len, bytes, source)
}

/// Filters and sorts; all candidates are in memory meanwhile, without their values where the order allows.
fn choose(view: &View, query: &Query, revision: i64) -> Result<(u64, bool, Vec<Hit>), Fault> {
    let shared = &view.shared;
    let mut found = Vec::new();
    let max = query.candidates_max();
    walk(shared, view.table(), &query.range, revision, &mut |hit| {
        found.push(Found { hit, value: Bytes::new() });
        Ok(found.len() < max)
    })?;
    if query.sorts_by_value() {
        for batch in found.chunks_mut(READ_AT_ONCE) {
            let revisions: Vec<_> = batch.iter().map(|found| found.hit.revision).collect();
            for (found, row) in batch.iter_mut().zip(shared.fetch(&revisions)?) {
                found.value = decode_row(row)?.value;
            }
        }
    }
    let count = if found.len() == max { view.count(&query.range, revision)? } else { found.len() as u64 };
    let more = query.choose(&mut found);
    Ok((count, more, found.into_iter().map(|found| found.hit).collect()))
}

/// Visits the live records of a range at a revision, in key order, until `visit` says false.
pub(super) fn walk(
    shared: &Shared,
    table: &super::table::Table,
    range: &KeyRange,
    revision: i64,
    visit: &mut dyn FnMut(Hit) -> Result<bool, Fault>,
) -> Result<(), Fault> {
    if let KeyRange::Single(key) = range {
        if let Some(hit) = shared.find(table, key, revision)? {
            visit(hit)?;
        }
        return Ok(());
    }
    let mut place = Some(table.locate(range.start()));
    while let Some(at) = place {
        let slot = &table.page(at).slot;
        if range.is_before(&slot.first) {
            return Ok(());
        }
        let page = shared.index.page(slot)?;
        for at in positions(&page, range) {
            let entry = Entry::decode(page.entry(at))?;
            if let Some(mark) = shared.at_revision(&entry, revision, || page.key(at))?
                && !visit(shared.hit(page.key(at), &entry, mark)?)?
            {
                return Ok(());
            }
        }
        place = table.next(at);
    }
    Ok(())
}

fn render(shared: &Shared, hits: Vec<Hit>, form: Form) -> Result<Vec<Bytes>, Fault> {
    match form {
        Form::Whole => shared.fetch(&hits.iter().map(|hit| hit.revision).collect::<Vec<_>>()),
        Form::Bare { with_lease } => Ok(hits.iter().map(|hit| hit.bare(with_lease)).collect()),
    }
}

fn field_len(row_len: usize) -> usize {
    1 + encoded_len_varint(row_len as u64) + row_len
}
