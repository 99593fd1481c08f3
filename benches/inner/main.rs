//! The inner loops alone: applying commands, ranges, counting, the log, encoding.
//!
//! `cargo bench -p benches`

use std::hint::black_box;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use proto::command::{Command, command::Op};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use state::mvcc::Query;
use state::{Entry, EntryBody, KeyRange, LogId, Options, Reader, State};

const KEYS: u64 = 100_000;

fn put(index: u64, key: u64) -> Entry {
    let request = PutRequest {
        key: format!("bench/{key:016x}").into(),
        value: vec![b'v'; 1024].into(),
        ..Default::default()
    };
    let command = Command { op: Some(Op::Put(request)) };
    let body = EntryBody::Command(command.encode_to_vec().into());
    Entry { log_id: LogId { term: 1, index }, body }
}

fn loaded() -> (tempfile::TempDir, State, Reader, u64) {
    let dir = tempfile::tempdir().expect("a temp dir");
    let (mut state, reader) = State::open(Options::new(dir.path())).expect("a fresh store opens");
    let mut index = 0;
    for batch in 0..KEYS / 1000 {
        let entries = (0..1000).map(|at| put(index + at + 1, batch * 1000 + at)).collect();
        index += 1000;
        state.apply(entries).expect("puts apply");
    }
    (dir, state, reader, index)
}

fn apply(c: &mut Criterion) {
    let (_dir, mut state, _reader, mut index) = loaded();
    let mut group = c.benchmark_group("apply");
    for size in [1, 100] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(format!("{size} puts of 1 KiB"), |b| {
            b.iter_batched(
                || {
                    let entries: Vec<_> = (1..=size)
                        .map(|at| put(index + at, (index + at).wrapping_mul(7919) % KEYS))
                        .collect();
                    index += size;
                    entries
                },
                |entries| black_box(state.apply(entries).expect("puts apply")),
                BatchSize::SmallInput,
            );
        });
    }
}

fn range(c: &mut Criterion) {
    let (_dir, _state, reader, _) = loaded();
    let mut group = c.benchmark_group("range");
    let single = Query::all(KeyRange::Single(Bytes::from(format!("bench/{:016x}", KEYS / 2))));
    group.bench_function("one key", |b| {
        b.iter(|| {
            let mut rows = reader.view().range(&single).expect("no fault").expect("no refusal");
            black_box(rows.next_chunk(usize::MAX).expect("no fault"))
        });
    });
    let page = Query { limit: 1000, ..Query::all(KeyRange::From("bench/".into())) };
    group.bench_function("1,000 rows", |b| {
        b.iter(|| {
            let mut rows = reader.view().range(&page).expect("no fault").expect("no refusal");
            black_box(rows.next_chunk(usize::MAX).expect("no fault"))
        });
    });
    let count = Query { count_only: true, ..Query::all(KeyRange::From("bench/".into())) };
    group.bench_function("count of 100,000", |b| {
        b.iter(|| black_box(reader.view().range(&count).expect("no fault").expect("no refusal").count));
    });
}

/// Without the sync, which is the disk's time and not ours.
fn log(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temp dir");
    let disk = Arc::new(raftlog::RealDisk::open(dir.path()).expect("a folder"));
    let options = raftlog::Options { fsync: false, ..raftlog::Options::default() };
    let log = raftlog::Log::open(disk, options, Arc::new(raftlog::NoObserver)).expect("a fresh log opens");
    let payload = Bytes::from(vec![b'v'; 1024]);
    let mut index = 0;
    let mut group = c.benchmark_group("log append");
    for size in [1, 100] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(format!("{size} entries of 1 KiB"), |b| {
            b.iter(|| {
                let entries = (index + 1..=index + size).map(|index| raftlog::Entry {
                    log_id: raftlog::LogId { term: 1, index },
                    tag: 1,
                    payload: payload.clone(),
                });
                let (done, written) = mpsc::channel();
                let done = Box::new(move |result| done.send(result).expect("the bench waits"));
                log.append(entries.collect(), done).expect("the log is open");
                written.recv().expect("every append is answered").expect("the disk writes");
                index += size;
                // Keeps the bench small, and the files in use the recycled ones.
                if index % 10_000 < size {
                    log.purge(raftlog::LogId { term: 1, index: index - size }).expect("the log is open");
                }
            });
        });
    }
    group.finish();
    log.close().expect("the log closes");
}

fn encode(c: &mut Criterion) {
    let put = |key: u64| PutRequest {
        key: format!("bench/{key:016x}").into(),
        value: vec![b'v'; 1024].into(),
        ..Default::default()
    };
    let single = Command { op: Some(Op::Put(put(0))) };
    let ops = |keys: std::ops::Range<u64>| {
        keys.map(|key| RequestOp { request: Some(Request::RequestPut(put(key))) }).collect()
    };
    let txn = Command { op: Some(Op::Txn(TxnRequest { success: ops(0..10), ..Default::default() })) };
    let mut group = c.benchmark_group("encode");
    for (name, command) in [("a put of 1 KiB", &single), ("a transaction of 10 puts", &txn)] {
        group.bench_function(name, |b| b.iter(|| black_box(command.encode_to_vec())));
        let encoded = Bytes::from(command.encode_to_vec());
        group.bench_function(format!("{name}, decoded"), |b| {
            b.iter(|| Command::decode(black_box(encoded.clone())).expect("it was encoded here"));
        });
    }
}

criterion_group!(benches, apply, range, log, encode);
criterion_main!(benches);
