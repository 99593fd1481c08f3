//! Changes on their way to watchers, each encoded once.
//!
//! A change becomes the bytes of one element of `WatchResponse.events`, tag and
//! length included, so a response is its own few fields and then copies. There
//! are two forms, with the previous record and without, each made when the
//! first watcher wants it.

use bytes::{BufMut, Bytes, BytesMut};
use mutants::Mutant;
use prost::encoding::{encode_varint, encoded_len_varint};
use state::{Block, Fault, Revision};

use super::store::{Record, View};

/// `mvccpb.Event`: `type` is field 1, `kv` 2, `prev_kv` 3; `WatchResponse.events` is field 11.
const EVENT_TYPE: [u8; 2] = [0x08, 0x01];
const EVENT_KV: u8 = 0x12;
const EVENT_PREV_KV: u8 = 0x1a;
const RESPONSE_EVENTS: u8 = 0x5a;
/// `mvccpb.KeyValue`: `key` is field 1, `create_revision` 2, `mod_revision` 3.
const KV_KEY: u8 = 0x0a;
const KV_CREATE_REVISION: u8 = 0x10;
const KV_MOD_REVISION: u8 = 0x18;

/// Changes in revision order; revisions are whole.
#[derive(Default)]
pub(super) struct Slice {
    changes: Vec<Change>,
    bytes: usize,
}

/// One change of one key.
pub(super) struct Change {
    pub(super) revision: i64,
    pub(super) delete: bool,
    pub(super) key: Bytes,
    kv: Bytes,
    previous: Previous,
    plain: Option<Bytes>,
    full: Option<Bytes>,
}

/// Where the record that stood before a change's revision is found. As in etcd a put that created its
/// key has none, even if the same command deleted the key before.
enum Previous {
    None,
    At(Revision),
    Search,
}

impl Slice {
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The bytes of its keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.changes.clear();
        self.bytes = 0;
    }

    pub(super) fn change(&self, at: usize) -> &Change {
        &self.changes[at]
    }

    /// Adds the changes of a revision just applied.
    pub(super) fn push_block(&mut self, block: Block) {
        for event in block.events {
            let previous = match event.previous {
                None => Previous::None,
                Some(at) if at.main < block.revision => Previous::At(at),
                // Replaced within one command: shown is what was before all of it.
                Some(_) if created_at(&event.kv) == Some(block.revision) => Previous::None,
                Some(_) => Previous::Search,
            };
            self.push(block.revision, event.delete, event.key, event.kv, previous);
        }
    }

    /// Adds a change read back from the history.
    pub(super) fn push_record(&mut self, key: Bytes, record: Record) {
        let revision = record.revision.main;
        let kv = if record.tombstone { deleted(&key, revision) } else { record.kv };
        let created = created_at(&kv) == Some(revision);
        let previous = if created { Previous::None } else { Previous::Search };
        self.push(revision, record.tombstone, key, kv, previous);
    }

    fn push(&mut self, revision: i64, delete: bool, key: Bytes, kv: Bytes, previous: Previous) {
        self.bytes += key.len() + kv.len();
        self.changes.push(Change { revision, delete, key, kv, previous, plain: None, full: None });
    }

    /// The bytes of one change as they stand in a response.
    pub(super) fn encoded(
        &mut self,
        at: usize,
        with_previous: bool,
        view: &dyn View,
    ) -> Result<&Bytes, Fault> {
        let change = &mut self.changes[at];
        if !with_previous {
            return Ok(change.plain.get_or_insert_with(|| encode(change.delete, &change.kv, None)));
        }
        if change.full.is_none() {
            let previous = match change.previous {
                Previous::None => None,
                Previous::At(revision) if mutants::on(Mutant::StalePrevious) => {
                    view.previous(&change.key, revision.main)?
                }
                Previous::At(revision) => view.row(revision)?,
                // As etcd: what was compacted is not shown, even if it happens to be there still.
                Previous::Search if change.revision <= view.compacted() => None,
                Previous::Search => view.previous(&change.key, change.revision)?,
            };
            let encoded = match (&previous, &change.plain) {
                (None, Some(plain)) => plain.clone(),
                _ => encode(change.delete, &change.kv, previous.as_ref()),
            };
            change.full = Some(encoded);
        }
        Ok(change.full.as_ref().expect("made above"))
    }
}

/// The key of an encoded `mvccpb.KeyValue`, whose first field it always is.
pub(super) fn key_of(kv: &Bytes) -> Result<Bytes, Fault> {
    // The record behind a restore that raised the revision: of no key.
    if kv.is_empty() {
        return Ok(Bytes::new());
    }
    let corrupt = || Fault::Corrupt { what: "record", detail: format!("{} bytes without a key", kv.len()) };
    let mut rest = kv.strip_prefix(&[KV_KEY]).ok_or_else(corrupt)?;
    let len = prost::encoding::decode_varint(&mut rest).map_err(|_| corrupt())?;
    let at = kv.len() - rest.len();
    let end = usize::try_from(len).ok().and_then(|len| at.checked_add(len)).ok_or_else(corrupt)?;
    if end > kv.len() { Err(corrupt()) } else { Ok(kv.slice(at..end)) }
}

/// The create revision in an encoded `mvccpb.KeyValue`; that of a deleted key has none.
fn created_at(kv: &Bytes) -> Option<i64> {
    let key = key_of(kv).ok()?;
    let after = 1 + encoded_len_varint(key.len() as u64) + key.len();
    let mut rest = kv.get(after..)?.strip_prefix(&[KV_CREATE_REVISION])?;
    prost::encoding::decode_varint(&mut rest).ok().map(u64::cast_signed)
}

/// The first element of concatenated events and what follows it.
pub(super) fn first_event(events: &Bytes) -> (Bytes, Bytes) {
    let mut rest = &events[1..];
    let len = prost::encoding::decode_varint(&mut rest).expect("written by `encode`");
    let end = events.len() - rest.len() + usize::try_from(len).expect("written by `encode`");
    (events.slice(..end), events.slice(end..))
}

/// What a client sees of a deleted key.
fn deleted(key: &Bytes, revision: i64) -> Bytes {
    let mut kv = BytesMut::with_capacity(key.len() + 17);
    put_bytes(&mut kv, KV_KEY, key);
    kv.put_u8(KV_MOD_REVISION);
    encode_varint(revision.cast_unsigned(), &mut kv);
    kv.freeze()
}

fn encode(delete: bool, kv: &Bytes, previous: Option<&Bytes>) -> Bytes {
    let field = |bytes: &Bytes| 1 + encoded_len_varint(bytes.len() as u64) + bytes.len();
    let body = if delete { EVENT_TYPE.len() } else { 0 } + field(kv) + previous.map_or(0, field);
    let mut event = BytesMut::with_capacity(1 + encoded_len_varint(body as u64) + body);
    event.put_u8(RESPONSE_EVENTS);
    encode_varint(body as u64, &mut event);
    if delete {
        event.put_slice(&EVENT_TYPE);
    }
    put_bytes(&mut event, EVENT_KV, kv);
    if let Some(previous) = previous {
        put_bytes(&mut event, EVENT_PREV_KV, previous);
    }
    event.freeze()
}

fn put_bytes(buffer: &mut BytesMut, tag: u8, bytes: &Bytes) {
    buffer.put_u8(tag);
    encode_varint(bytes.len() as u64, buffer);
    buffer.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::etcdserverpb::WatchResponse;
    use proto::mvccpb;

    use super::*;

    fn decode(events: &[u8]) -> Vec<mvccpb::Event> {
        WatchResponse::decode(events).unwrap().events
    }

    #[test]
    fn an_event_is_what_prost_would_write() {
        let kv = mvccpb::KeyValue {
            key: "k".into(),
            value: vec![7; 300].into(),
            mod_revision: 9,
            ..Default::default()
        };
        let previous = mvccpb::KeyValue { key: "k".into(), version: 3, ..Default::default() };
        for delete in [false, true] {
            for prev_kv in [None, Some(previous.clone())] {
                let encoded = prev_kv.as_ref().map(|p| Bytes::from(p.encode_to_vec()));
                let bytes = encode(delete, &kv.encode_to_vec().into(), encoded.as_ref());
                let event = mvccpb::Event { r#type: delete.into(), kv: Some(kv.clone()), prev_kv };
                assert_eq!(
                    bytes,
                    WatchResponse { events: vec![event], ..Default::default() }.encode_to_vec()
                );
            }
        }
    }

    #[test]
    fn a_tombstone_shows_key_and_revision() {
        let mut slice = Slice::default();
        let key = Bytes::from_static(b"gone");
        let row = mvccpb::KeyValue { key: key.clone(), ..Default::default() }.encode_to_vec().into();
        assert_eq!(key_of(&row).unwrap(), key);
        let revision = Revision { main: 1 << 40, sub: 2 };
        slice.push_record(key.clone(), Record { revision, tombstone: true, kv: row });
        let plain = slice.changes[0].kv.clone();
        let kv = mvccpb::KeyValue::decode(plain).unwrap();
        assert_eq!(kv, mvccpb::KeyValue { key, mod_revision: 1 << 40, ..Default::default() });
    }

    #[test]
    fn a_create_revision_is_found() {
        let kv = |create_revision| -> Bytes {
            let kv =
                mvccpb::KeyValue { key: "k".into(), create_revision, mod_revision: 9, ..Default::default() };
            kv.encode_to_vec().into()
        };
        assert_eq!(created_at(&kv(1 << 40)), Some(1 << 40));
        assert_eq!(created_at(&kv(0)), None);
        assert_eq!(created_at(&deleted(&Bytes::from_static(b"k"), 7)), None);
    }

    #[test]
    fn events_come_apart_again() {
        let kv = |key: &str| -> Bytes {
            mvccpb::KeyValue { key: key.to_owned().into(), ..Default::default() }.encode_to_vec().into()
        };
        let (a, b) = (encode(false, &kv("a"), None), encode(true, &kv(&"b".repeat(200)), None));
        let both: Bytes = [&a[..], &b[..]].concat().into();
        let (first, rest) = first_event(&both);
        assert_eq!((first, rest), (a, b));
        assert_eq!(decode(&both).len(), 2);
    }

    #[test]
    fn a_row_without_key_is_corrupt() {
        for bad in [&b"\x0a"[..], b"\x0a\x05ab", b"\x18\x01", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
        {
            assert!(key_of(&Bytes::from_static(bad)).is_err());
        }
        assert_eq!(key_of(&Bytes::new()).ok(), Some(Bytes::new()), "it stands for a raised revision");
    }
}
