//! Fingerprints of the state, computed as etcd computes its own.
//!
//! [`HashKv`] covers the records up to a revision and is equal, bit for bit, to
//! etcd's for the same history: records stand in etcd's encoding, and what a
//! compaction has yet to delete is left out. The hash of everything covers all
//! there is, under the names and in the encoding of etcd's buckets.
//!
//! One difference is deliberate. etcd hashes while it compacts, before it
//! deletes, and from then on answers HashKV at that very revision with what it
//! found: the records since the compaction before, deleted ones included. Here a
//! compaction costs what it deletes, not a walk over the database, so HashKV at
//! a compacted revision is computed like any other.

use std::collections::HashSet;

use bytes::Bytes;
use proto::etcdserverpb as pb;

use crate::mvcc::{Query, Rows, View};
use crate::storage::{Column, Storage};
use crate::{Fault, KeyRange, Refusal, Revision, alarm, lease, members};

/// The answer to HashKV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C of the records.
    pub hash: u32,
    /// The revision of the last compaction, -1 if there was none.
    pub compact_revision: i64,
    /// The revision up to which records are in the hash.
    pub hash_revision: i64,
    /// The revision of the store.
    pub current: i64,
}

/// Bytes of rows read at once.
const CHUNK: usize = 1 << 20;

/// Hashes the records up to a revision; 0 means the current one.
pub(crate) fn kv(view: &View, revision: i64) -> Result<Result<HashKv, Refusal>, Fault> {
    let (compacted, current) = (view.compacted(), view.revision());
    if revision > 0 && revision < compacted {
        return Ok(Err(Refusal::Compacted));
    }
    if revision > current {
        return Ok(Err(Refusal::FutureRevision));
    }
    let revision = if revision == 0 { current } else { revision };
    let mut crc = crc32c::crc32c(b"key");
    let mut add = |(revision, tombstone, row): &Row| {
        crc = crc32c::crc32c_append(crc, revision.to_key(*tombstone).as_ref());
        crc = crc32c::crc32c_append(crc, row);
    };
    let mut rows =
        view.scan_revisions(0).take_while(|row| !matches!(row, Ok((at, ..)) if at.main > revision));
    let mut next = rows.next().transpose()?;
    if matches!(&next, Some((at, ..)) if at.main <= compacted) {
        let kept = Kept::at(view, revision)?;
        // All records of one command together: a key has at most one put among them.
        let mut group: Vec<Row> = Vec::new();
        while let Some(row) = next.take_if(|(at, ..)| at.main <= compacted) {
            if group.first().is_some_and(|first| first.0.main != row.0.main) {
                kept.of(&std::mem::take(&mut group))?.into_iter().for_each(&mut add);
            }
            group.push(row);
            next = rows.next().transpose()?;
        }
        kept.of(&group)?.into_iter().for_each(&mut add);
    }
    while let Some(row) = next {
        add(&row);
        next = rows.next().transpose()?;
    }
    Ok(Ok(HashKv { hash: crc, compact_revision: compacted, hash_revision: revision, current }))
}

/// A record: its revision, whether it is a delete, and its encoded form.
type Row = (Revision, bool, Bytes);

/// Which records at or below the compacted revision count: of each key the newest, unless it is a delete.
struct Kept<'a> {
    view: &'a View,
    /// Newest as of this revision.
    at: i64,
    /// Of each key the main revision of the record that counts, where it is not above the compacted one.
    mains: Vec<i64>,
}

impl<'a> Kept<'a> {
    fn at(view: &'a View, revision: i64) -> Result<Self, Fault> {
        let everything = || KeyRange::From(Bytes::from_static(&[0]));
        let range = |at| {
            let query = Query { revision: at, keys_only: true, ..Query::all(everything()) };
            view.range(&query)?.map_err(|refusal| Fault::Corrupt {
                what: "hash",
                detail: format!("revision {at} is refused: {refusal}"),
            })
        };
        let mut at = revision;
        let mut rows = range(at)?;
        // With no live key at all etcd takes every record that its compaction has not deleted. A key that
        // this very revision deleted and put again does not count as live there.
        let deleted = deleted_at(view, revision)?;
        if rows.count <= deleted.len() as i64 && keys(range(at)?)?.is_subset(&deleted) {
            at = view.compacted();
            rows = range(at)?;
        }
        let mut mains = Vec::new();
        while let Some(chunk) = rows.next_chunk(CHUNK)? {
            for row in chunk {
                mains.extend(Some(mod_revision(row)?).filter(|main| *main <= view.compacted()));
            }
        }
        mains.sort_unstable();
        Ok(Self { view, at, mains })
    }

    /// Those of one command's records that count.
    fn of<'r>(&self, group: &'r [Row]) -> Result<Vec<&'r Row>, Fault> {
        let Some((first, ..)) = group.first() else { return Ok(vec![]) };
        let from = self.mains.partition_point(|main| *main < first.main);
        let to = self.mains.partition_point(|main| *main <= first.main);
        let puts = group.iter().filter(|(_, tombstone, _)| !tombstone);
        if to - from == puts.clone().count() {
            return Ok(puts.collect());
        }
        let mut counting = Vec::with_capacity(to - from);
        if to > from {
            for row in puts {
                if self.is_newest(row)? {
                    counting.push(row);
                }
            }
        }
        Ok(counting)
    }

    fn is_newest(&self, (revision, _, row): &Row) -> Result<bool, Fault> {
        let kv = decode(row.clone())?;
        let query = Query { revision: self.at, keys_only: true, ..Query::all(KeyRange::Single(kv.key)) };
        let Ok(mut rows) = self.view.range(&query)? else { return Ok(false) };
        let newest = rows.next_chunk(CHUNK)?.and_then(|chunk| chunk.into_iter().next());
        Ok(newest.map(mod_revision).transpose()? == Some(revision.main))
    }
}

/// Keys that this revision deleted, whatever it did to them afterwards.
fn deleted_at(view: &View, revision: i64) -> Result<HashSet<Bytes>, Fault> {
    let rows = view.scan_revisions(revision);
    rows.take_while(|row| !matches!(row, Ok((at, ..)) if at.main > revision))
        .filter(|row| !matches!(row, Ok((_, false, _))))
        .map(|row| Ok(decode(row?.2)?.key))
        .collect()
}

fn keys(mut rows: Rows) -> Result<HashSet<Bytes>, Fault> {
    let mut keys = HashSet::new();
    while let Some(chunk) = rows.next_chunk(CHUNK)? {
        for row in chunk {
            keys.insert(decode(row)?.key);
        }
    }
    Ok(keys)
}

fn decode(row: Bytes) -> Result<proto::mvccpb::KeyValue, Fault> {
    prost::Message::decode(row)
        .map_err(|e: prost::DecodeError| Fault::Corrupt { what: "record", detail: e.to_string() })
}

fn mod_revision(row: Bytes) -> Result<i64, Fault> {
    Ok(decode(row)?.mod_revision)
}

/// Hashes everything, as etcd's buckets would hold it; without what differs between members at the
/// same revision: `consistent_index`, `term` and `storageVersion`.
pub(crate) fn all(
    storage: &Storage,
    cluster: &members::Cluster,
    compaction: Compaction,
) -> Result<u32, Fault> {
    let mut hasher = Hasher::default();
    hasher.bucket("alarm");
    for alarm in alarm::rows(storage) {
        hasher.row(&alarm?, &[]);
    }
    hasher.bucket("auth");
    // An etcd without users has this one row.
    hasher.row(b"authRevision", &1_u64.to_be_bytes());
    hasher.bucket("authRoles");
    hasher.bucket("authUsers");
    hasher.bucket("cluster");
    if let Some(version) = &cluster.version {
        hasher.row(b"clusterVersion", version.as_bytes());
    }
    if let Some(downgrade) = &cluster.downgrade {
        hasher.row(b"downgrade", downgrade_json(downgrade).as_bytes());
    }
    hasher.bucket("key");
    for row in storage.scan(Column::Rev, &[], None) {
        let (key, value) = row?;
        hasher.row(&key, &value);
    }
    hasher.bucket("lease");
    for row in lease::records(storage) {
        let (id, lease) = row?;
        hasher.row(&id, &lease);
    }
    hasher.bucket("members");
    // etcd's keys are hexadecimal text, whose order is not that of the ids.
    let mut by_text: Vec<_> = cluster.members.values().map(|m| (format!("{:x}", m.id), m)).collect();
    by_text.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    for (id, member) in by_text {
        hasher.row(id.as_bytes(), member_json(member).as_bytes());
    }
    hasher.bucket("members_removed");
    let mut removed: Vec<_> = cluster.removed.iter().map(|id| format!("{id:x}")).collect();
    removed.sort_unstable();
    for id in removed {
        hasher.row(id.as_bytes(), b"removed");
    }
    hasher.bucket("meta");
    hasher.row(b"confState", conf_state_json(cluster).as_bytes());
    for (name, main) in
        [("finishedCompactRev", compaction.finished), ("scheduledCompactRev", compaction.scheduled)]
    {
        if main >= 0 {
            hasher.row(name.as_bytes(), Revision { main, sub: 0 }.to_key(false).as_ref());
        }
    }
    Ok(hasher.crc)
}

/// How far compactions are: -1 if there was none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compaction {
    pub(crate) scheduled: i64,
    pub(crate) finished: i64,
}

#[derive(Default)]
struct Hasher {
    crc: u32,
}

impl Hasher {
    fn bucket(&mut self, name: &str) {
        self.crc = crc32c::crc32c_append(self.crc, name.as_bytes());
    }

    fn row(&mut self, key: &[u8], value: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, key);
        self.crc = crc32c::crc32c_append(self.crc, value);
    }
}

/// A member as etcd 3.7's `members` bucket holds it.
fn member_json(member: &pb::Member) -> String {
    let mut json = format!("{{\"id\":{},\"peerURLs\":{}", member.id, json_list(&member.peer_ur_ls));
    if member.is_learner {
        json.push_str(",\"isLearner\":true");
    }
    if !member.name.is_empty() {
        json.push_str(",\"name\":");
        push_json(&mut json, &member.name);
    }
    if !member.client_ur_ls.is_empty() {
        json.push_str(",\"clientURLs\":");
        json.push_str(&json_list(&member.client_ur_ls));
    }
    json.push('}');
    json
}

/// A downgrade as etcd 3.7's `cluster` bucket holds it.
pub(crate) fn downgrade_json(downgrade: &pb::DowngradeInfo) -> String {
    let mut json = String::from("{\"target-version\":");
    push_json(&mut json, &downgrade.target_version);
    json.push_str(&format!(",\"enabled\":{}}}", downgrade.enabled));
    json
}

fn conf_state_json(cluster: &members::Cluster) -> String {
    let ids = |learner: bool| {
        let members = cluster.members.values().filter(|member| member.is_learner == learner);
        members.map(|member| member.id.to_string()).collect::<Vec<_>>().join(",")
    };
    let (voters, learners) = (ids(false), ids(true));
    let learners = if learners.is_empty() { learners } else { format!(",\"learners\":[{learners}]") };
    format!("{{\"voters\":[{voters}]{learners},\"auto_leave\":false}}")
}

fn json_list(texts: &[String]) -> String {
    let mut json = String::from("[");
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            json.push(',');
        }
        push_json(&mut json, text);
    }
    json.push(']');
    json
}

/// Writes a string as Go's encoder does: what HTML would take for markup is escaped too.
fn push_json(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..'\u{20}' => {
                json.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_look_like_etcds() {
        let member = pb::Member {
            id: 3319814642761637952,
            name: "n1".into(),
            peer_ur_ls: vec!["http://a:2380".into(), "http://b:2380".into()],
            client_ur_ls: vec!["http://a:2379".into()],
            is_learner: true,
        };
        assert_eq!(
            member_json(&member),
            r#"{"id":3319814642761637952,"peerURLs":["http://a:2380","http://b:2380"],"isLearner":true,"name":"n1","clientURLs":["http://a:2379"]}"#
        );
        let downgrade = pb::DowngradeInfo { enabled: true, target_version: "3.6.0".into() };
        assert_eq!(downgrade_json(&downgrade), r#"{"target-version":"3.6.0","enabled":true}"#);
        assert_eq!(downgrade_json(&Default::default()), r#"{"target-version":"","enabled":false}"#);
        let mut text = String::new();
        push_json(&mut text, "a\"\\<\u{1}é\n");
        assert_eq!(text, "\"a\\\"\\\\\\u003c\\u0001é\\n\"");
    }
}
