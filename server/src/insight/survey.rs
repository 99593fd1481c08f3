//! How many keys there are by prefix, found out without looking at all of them.
//!
//! Counting a range costs little however many keys are in it. So a prefix is counted as a whole, and the largest that
//! is known is divided first: by reading a few keys from its start, and going on behind the prefix that the last of
//! them has. How often keys may be read is bounded; what is not divided by then stays whole.

use std::collections::BinaryHeap;

use bytes::Bytes;
use prost::Message;
use proto::mvccpb::KeyValue;
use state::mvcc::{Query, View};
use state::{Fault, KeyRange};

use super::split::Split;

/// How often keys are read.
const LOOKS_MAX: usize = 512;
/// How much of that one prefix may take.
const LOOKS_OF_ONE_MAX: usize = LOOKS_MAX / 4;
/// Keys read at once.
const KEYS_AT_ONCE: i64 = 128;

/// Keys of one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// The prefix.
    pub prefix: Vec<u8>,
    /// How many keys there are, those of longer prefixes aside unless it is `undivided`.
    pub keys: u64,
    /// About how many bytes they take, by the first of them.
    pub bytes_estimate: u64,
    /// Whether longer prefixes in it are not told apart.
    pub undivided: bool,
}

/// The largest prefixes of a view by keys, largest first, so many at most. No key is in two of them.
///
/// # Errors
/// When the disk refuses.
pub fn survey(view: &View, split: &Split, max: usize) -> Result<Vec<Size>, Fault> {
    let mut looks_left = LOOKS_MAX;
    let mut found = Vec::new();
    let mut whole = BinaryHeap::from([Whole { keys: view.keys(), prefix: Vec::new(), depth: 0 }]);
    while let Some(largest) = whole.pop() {
        if largest.keys == 0 {
            continue;
        }
        let parts = match largest.depth < split.depth() {
            true => divide(view, split, &largest, &mut looks_left)?,
            false => Some(Parts { own: largest.keys, inner: Vec::new() }),
        };
        match parts {
            Some(Parts { own, inner }) => {
                found.push((own, largest.prefix, false));
                whole.extend(inner);
            }
            None => found.push((largest.keys, largest.prefix, true)),
        }
    }
    found.retain(|(keys, ..)| *keys > 0);
    found.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    found.truncate(max);
    let size = |(keys, prefix, undivided): (u64, Vec<u8>, bool)| {
        let bytes_estimate = estimate(view, &prefix, keys)?;
        Ok(Size { prefix, keys, bytes_estimate, undivided })
    };
    found.into_iter().map(size).collect()
}

/// A prefix with all that is in it; the one with most keys is the greatest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Whole {
    keys: u64,
    prefix: Vec<u8>,
    depth: usize,
}

/// What a prefix consists of.
struct Parts {
    /// Keys in no longer prefix.
    own: u64,
    /// The prefixes that are one part longer.
    inner: Vec<Whole>,
}

/// Divides a prefix; `None` if that takes too many looks.
fn divide(view: &View, split: &Split, whole: &Whole, looks_left: &mut usize) -> Result<Option<Parts>, Fault> {
    let mut parts = Parts { own: 0, inner: Vec::<Whole>::new() };
    let begin = whole.prefix.len();
    let mut from = whole.prefix.clone();
    for _ in 0..LOOKS_OF_ONE_MAX {
        let Some(left) = looks_left.checked_sub(1) else { return Ok(None) };
        *looks_left = left;
        let (keys, more) = keys_from(view, &whole.prefix, &from)?;
        for key in &keys {
            let Some(end) = split.part_end(key, begin) else {
                parts.own += 1;
                continue;
            };
            match parts.inner.last_mut() {
                Some(last) if last.prefix == key[..end] => last.keys += 1,
                _ => parts.inner.push(Whole { keys: 1, prefix: key[..end].to_vec(), depth: whole.depth + 1 }),
            }
        }
        let Some(last_key) = keys.last().filter(|_| more) else { return Ok(Some(parts)) };
        from = match parts.inner.last_mut().filter(|last| last_key.starts_with(&last.prefix)) {
            Some(last) => {
                last.keys = count(view, &last.prefix)?;
                match end_of(&last.prefix) {
                    Some(end) => end,
                    None => return Ok(Some(parts)),
                }
            }
            None => [last_key, &[0][..]].concat(),
        };
    }
    Ok(None)
}

/// The first keys of a prefix from one on, and whether there are more.
fn keys_from(view: &View, prefix: &[u8], from: &[u8]) -> Result<(Vec<Bytes>, bool), Fault> {
    let range = match end_of(prefix) {
        Some(end) => KeyRange::Span { start: from.to_vec().into(), end: end.into() },
        None => KeyRange::From(from.to_vec().into()),
    };
    let query = Query { keys_only: true, limit: KEYS_AT_ONCE, ..Query::all(range) };
    let mut rows = view.range(&query)?.expect("the current revision is always there");
    let mut keys = Vec::with_capacity(rows.len());
    while let Some(chunk) = rows.next_chunk(usize::MAX)? {
        for row in chunk {
            let row = KeyValue::decode(row);
            keys.push(row.map_err(|e| Fault::Corrupt { what: "record", detail: e.to_string() })?.key);
        }
    }
    Ok((keys, rows.more))
}

fn count(view: &View, prefix: &[u8]) -> Result<u64, Fault> {
    let query = Query { count_only: true, ..Query::all(range_of(prefix)) };
    let rows = view.range(&query)?.expect("the current revision is always there");
    Ok(rows.count.unsigned_abs())
}

/// About the bytes of so many keys of a prefix: as long as its first ones.
fn estimate(view: &View, prefix: &[u8], keys: u64) -> Result<u64, Fault> {
    let query = Query { limit: KEYS_AT_ONCE, ..Query::all(range_of(prefix)) };
    // The rows are not read: the index knows how long they are.
    let rows = view.range(&query)?.expect("the current revision is always there");
    let (bytes, sample) = (rows.encoded_len() as u128, rows.len().max(1) as u128);
    Ok(u64::try_from(bytes * u128::from(keys) / sample).unwrap_or(u64::MAX))
}

fn range_of(prefix: &[u8]) -> KeyRange {
    match end_of(prefix) {
        Some(end) => KeyRange::Span { start: prefix.to_vec().into(), end: end.into() },
        None => KeyRange::From(prefix.to_vec().into()),
    }
}

/// The first key behind all that begin so; `None` where there is none.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proto::command::{Command, command::Op};
    use proto::etcdserverpb as pb;
    use state::{Entry, EntryBody, LogId, Options, State};

    use super::*;

    /// A state with these keys, and values of these lengths.
    fn state(keys: impl IntoIterator<Item = (String, usize)>) -> (tempfile::TempDir, State, View) {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut state, reader) = State::open(Options::new(dir.path().join("state"))).expect("a state");
        let put = |(index, (key, length)): (usize, (String, usize))| {
            let request =
                pb::PutRequest { key: key.into(), value: vec![0; length].into(), ..Default::default() };
            let body = EntryBody::Command(Command { op: Some(Op::Put(request)) }.encode_to_vec().into());
            Entry { log_id: LogId { term: 1, index: index as u64 + 1 }, body }
        };
        state.apply(keys.into_iter().enumerate().map(put).collect()).expect("applied");
        let view = reader.view();
        (dir, state, view)
    }

    /// The sizes by counting every key.
    fn counted<'a>(keys: impl Iterator<Item = &'a String>, split: &Split) -> BTreeMap<Vec<u8>, u64> {
        let mut sizes = BTreeMap::new();
        keys.for_each(|key| *sizes.entry(split.prefix(key.as_bytes()).to_vec()).or_default() += 1);
        sizes
    }

    #[test]
    fn a_survey_counts_what_counting_counts() {
        let mut keys: Vec<(String, usize)> = Vec::new();
        for (kind, namespaces, names) in
            [("pods", 3, 300), ("leases", 40, 7), ("events", 1, 1000), ("nodes", 150, 1)]
        {
            for namespace in 0..namespaces {
                keys.extend((0..names).map(|name| (format!("/registry/{kind}/ns{namespace}/{name}"), 100)));
            }
        }
        keys.extend((0..300).map(|n| (format!("/registry/m{n}"), 10)));
        keys.extend([("/registry/".to_owned(), 1), ("plain".to_owned(), 1), ("\u{fffd}/a".to_owned(), 1)]);
        let (_dir, _state, view) = state(keys.clone());
        for depth in 1..=5 {
            let split = Split::new(b"/", depth).expect("within bounds");
            let found = survey(&view, &split, usize::MAX).expect("no fault");
            assert!(found.iter().all(|size| !size.undivided), "depth {depth}");
            let as_map: BTreeMap<_, _> = found.iter().map(|size| (size.prefix.clone(), size.keys)).collect();
            assert_eq!(as_map, counted(keys.iter().map(|(key, _)| key), &split), "depth {depth}");
            assert!(found.is_sorted_by(|a, b| a.keys >= b.keys));
        }
        let pods =
            survey(&view, &Split::new(b"/", 2).expect("within bounds"), 2).expect("no fault").remove(1);
        assert_eq!((&pods.prefix[..], pods.keys), (&b"/registry/pods/"[..], 900));
        // Each row: 100 bytes of value, some 22 of key, some 10 of revisions.
        assert!((900 * 120..900 * 150).contains(&pods.bytes_estimate), "{pods:?}");
    }

    #[test]
    fn what_is_too_much_stays_whole() {
        // More prefixes than may be looked at, each of as many keys as are read at once.
        let prefixes = 2 * LOOKS_OF_ONE_MAX;
        let keys = (0..prefixes).flat_map(|n| (0..130).map(move |m| (format!("/many/{n}/{m}"), 1)));
        let few = (0..10).map(|n| (format!("/few/{n}/x"), 1));
        let (_dir, _state, view) = state(keys.chain(few));
        let found = survey(&view, &Split::new(b"/", 2).expect("within bounds"), 3).expect("no fault");
        assert_eq!(&found[0].prefix[..], b"/many/");
        assert_eq!((found[0].keys, found[0].undivided), (130 * prefixes as u64, true));
        assert_eq!((&found[1].prefix[..], found[1].keys, found[1].undivided), (&b"/few/0/"[..], 1, false));
    }

    #[test]
    fn nothing_has_no_prefixes() {
        let (_dir, _state, view) = state([]);
        assert_eq!(survey(&view, &Split::new(b"/", 2).expect("within bounds"), 9).expect("no fault"), []);
    }
}
