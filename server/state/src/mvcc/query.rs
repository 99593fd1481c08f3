//! A range request, and the rules by which its result is chosen.

use std::cmp::Ordering;

use bytes::Bytes;
use proto::etcdserverpb as pb;

use crate::KeyRange;

/// Which way a result is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As the keys come; with a target other than the key: ascending.
    #[default]
    None,
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// What a result is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Target {
    #[default]
    Key,
    Version,
    Create,
    Mod,
    Value,
}

/// How a result is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sort {
    /// Which way.
    pub order: Order,
    /// By what.
    pub target: Target,
}

/// A range request after parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The keys asked for.
    pub range: KeyRange,
    /// The main revision to read at; 0 or less means the current one.
    pub revision: i64,
    /// The most rows to return; 0 or less means all.
    pub limit: i64,
    /// The order of the rows.
    pub sort: Sort,
    /// Leave the values (and the lease) out.
    pub keys_only: bool,
    /// Return the count alone.
    pub count_only: bool,
    /// Only rows modified at or after this revision; 0 means no bound.
    pub min_mod: i64,
    /// Only rows modified at or before this revision; 0 means no bound.
    pub max_mod: i64,
    /// Only rows created at or after this revision; 0 means no bound.
    pub min_create: i64,
    /// Only rows created at or before this revision; 0 means no bound.
    pub max_create: i64,
}

impl Query {
    /// The newest state of all keys of a range.
    pub fn all(range: KeyRange) -> Self {
        Self {
            range,
            revision: 0,
            limit: 0,
            sort: Sort::default(),
            keys_only: false,
            count_only: false,
            min_mod: 0,
            max_mod: 0,
            min_create: 0,
            max_create: 0,
        }
    }

    /// Reads a request. `None` when a sort order or target is none that etcd knows.
    pub fn from_request(request: &pb::RangeRequest) -> Option<Self> {
        let order = match request.sort_order {
            0 => Order::None,
            1 => Order::Ascending,
            2 => Order::Descending,
            _ => return None,
        };
        let target = match request.sort_target {
            0 => Target::Key,
            1 => Target::Version,
            2 => Target::Create,
            3 => Target::Mod,
            4 => Target::Value,
            _ => return None,
        };
        Some(Self {
            range: KeyRange::parse(request.key.clone(), request.range_end.clone()),
            revision: request.revision,
            limit: request.limit,
            sort: Sort { order, target },
            keys_only: request.keys_only,
            count_only: request.count_only,
            min_mod: request.min_mod_revision,
            max_mod: request.max_mod_revision,
            min_create: request.min_create_revision,
            max_create: request.max_create_revision,
        })
    }

    /// Whether rows are returned just as the keys come, so that no more than the limit need be looked at.
    pub(super) fn is_plain(&self) -> bool {
        !self.is_filtered() && self.sort.target == Target::Key && self.sort.order != Order::Descending
    }

    /// Whether values are needed before it is known which rows are returned.
    pub(super) fn sorts_by_value(&self) -> bool {
        self.sort.target == Target::Value
    }

    /// etcd 3.7 answers `keys_only` from its index, which knows no lease; not so when it sorts by value.
    pub(super) fn drops_lease(&self) -> bool {
        self.keys_only && !self.sorts_by_value()
    }

    /// How many keys to look at, in key order.
    ///
    /// etcd 3.7 fetches `limit + 1` keys where neither a filter nor an order is asked for, even if a target
    /// other than the key then sorts just those.
    pub(super) fn candidates_max(&self) -> usize {
        let in_key_order = self.sort.order == Order::None
            || self.sort.target == Target::Key && self.sort.order == Order::Ascending;
        match usize::try_from(self.limit) {
            Ok(limit) if limit > 0 && in_key_order && !self.is_filtered() => limit.saturating_add(1),
            _ => usize::MAX,
        }
    }

    fn is_filtered(&self) -> bool {
        [self.min_mod, self.max_mod, self.min_create, self.max_create].iter().any(|bound| *bound != 0)
    }

    /// Filters, sorts and cuts candidates that came in key order; true when more than the limit were left.
    pub(super) fn choose<C: Candidate>(&self, candidates: &mut Vec<C>) -> bool {
        let within =
            |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
        if self.is_filtered() {
            candidates.retain(|c| {
                within(c.modified(), self.min_mod, self.max_mod)
                    && within(c.created(), self.min_create, self.max_create)
            });
        }
        let compare = |a: &C, b: &C| match self.sort.target {
            Target::Key => Ordering::Equal,
            Target::Version => a.version().cmp(&b.version()),
            Target::Create => a.created().cmp(&b.created()),
            Target::Mod => a.modified().cmp(&b.modified()),
            Target::Value => a.value().cmp(b.value()),
        };
        match (self.sort.order, self.sort.target) {
            (Order::Descending, Target::Key) => candidates.reverse(),
            (Order::Descending, _) => candidates.sort_by(|a, b| compare(b, a)),
            (_, Target::Key) => {}
            _ => candidates.sort_by(compare),
        }
        let limit = usize::try_from(self.limit).unwrap_or(0);
        let more = limit > 0 && candidates.len() > limit;
        if more {
            candidates.truncate(limit);
        }
        more
    }
}

/// What a query sorts and filters by.
pub(super) trait Candidate {
    fn created(&self) -> i64;
    fn modified(&self) -> i64;
    fn version(&self) -> i64;
    fn value(&self) -> &[u8];
}

/// The result of a range inside a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Keys in the range, whatever limit and filters say.
    pub count: i64,
    /// Whether the limit cut rows off.
    pub more: bool,
    /// Encoded `mvccpb.KeyValue`s.
    pub kvs: Vec<Bytes>,
}
