//! The inner loops alone: applying commands, ranges, counting.
//!
//! `cargo bench -p benches`

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use prost::Message;
use proto::command::{Command, command::Op};
use proto::etcdserverpb::PutRequest;
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
        group.throughput(criterion::Throughput::Elements(size));
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

criterion_group!(benches, apply, range);
criterion_main!(benches);
