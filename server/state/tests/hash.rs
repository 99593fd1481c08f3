//! HashKV, bit for bit: what etcd 3.7.1 answered for a history written down here.

use std::time::Duration;

use prost::Message;
use proto::command::{Command, command::Op};
use proto::etcdserverpb::{self as pb, request_op::Request};
use state::{Entry, EntryBody, LogId, Options, Reader, State};

const LEASE: i64 = 0x09ce_a1fe_0651_1f05;

struct Store {
    state: State,
    reader: Reader,
    index: u64,
}

impl Store {
    fn apply(&mut self, op: Op) {
        self.index += 1;
        let body = EntryBody::Command(Command { op: Some(op) }.encode_to_vec().into());
        let entry = Entry { log_id: LogId { term: 1, index: self.index }, body };
        let applied = self.state.apply(vec![entry]).expect("apply");
        assert!(applied.replies[0].result.is_ok());
    }

    fn put(&mut self, key: &'static str, value: &'static str, lease: i64) {
        let (key, value) = (key.into(), value.into());
        self.apply(Op::Put(pb::PutRequest { key, value, lease, ..Default::default() }));
    }

    fn delete(&mut self, key: &'static str) {
        self.apply(Op::DeleteRange(delete(key)));
    }

    fn compact(&mut self, revision: i64) {
        self.apply(Op::Compaction(pb::CompactionRequest { revision, physical: true }));
    }

    fn hash(&self, revision: i64) -> (u32, i64, i64) {
        let hash = self.reader.hash_kv(revision).expect("read").expect("a revision there is");
        (hash.hash, hash.compact_revision, hash.hash_revision)
    }
}

fn delete(key: &'static str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.into(), ..Default::default() }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (state, reader) = State::open(Options::new(dir.path().join("db"))).expect("open");
    (dir, Store { state, reader, index: 0 })
}

#[test]
fn equals_etcds() {
    let (_dir, mut store) = store();
    store.put("a", "1", 0);
    store.put("b", "2", 0);
    store.apply(Op::LeaseGrant(pb::LeaseGrantRequest { ttl: 100_000, id: LEASE }));
    store.put("c", "3", LEASE);
    store.put("a", "4", 0);
    store.delete("b");
    let put = |key: &'static str, value: &'static str| {
        Request::RequestPut(pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() })
    };
    let operations = [put("d", "5"), Request::RequestDeleteRange(delete("c")), put("e", "6")];
    let success = operations.map(|request| pb::RequestOp { request: Some(request) }).to_vec();
    store.apply(Op::Txn(pb::TxnRequest { success, ..Default::default() }));
    store.put("b", "7", 0);
    assert_eq!(store.hash(0), (2773534472, -1, 8));
    assert_eq!(store.hash(4), (1192973348, -1, 4));

    store.compact(6);
    assert_eq!(store.hash(0), (2708139300, 6, 8));
    assert_eq!(store.hash(7), (1456817435, 6, 7));
    assert!(store.reader.wait_compacted(6, Duration::from_secs(60)));
    assert_eq!(store.hash(0), (2708139300, 6, 8), "no matter how far the deleting is");
    assert_eq!(store.hash(7), (1456817435, 6, 7));

    // Without a live key etcd's rule for what counts is another one.
    for key in ["a", "b", "d", "e"] {
        store.delete(key);
    }
    store.compact(9);
    assert_eq!(store.hash(0), (2584018662, 9, 12));
    assert!(store.reader.wait_compacted(9, Duration::from_secs(60)));
    assert_eq!(store.hash(0), (2584018662, 9, 12));
}

/// Such a key is live, and yet etcd goes by its rule for a store without one.
#[test]
fn what_one_revision_deleted_and_put_again_does_not_count_as_live() {
    let (_dir, mut store) = store();
    store.put("a", "1", 0);
    store.put("b", "2", 0);
    store.compact(3);
    let everything =
        pb::DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let put = pb::PutRequest { key: "a".into(), value: "3".into(), ..Default::default() };
    let operations = [Request::RequestDeleteRange(everything), Request::RequestPut(put)];
    let success = operations.map(|request| pb::RequestOp { request: Some(request) }).to_vec();
    store.apply(Op::Txn(pb::TxnRequest { success, ..Default::default() }));
    assert_eq!(store.hash(0), (2469020438, 3, 4));
}
