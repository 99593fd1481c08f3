//! The log with its threads, on a real disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;

use crate::{Done, Entry, Error, Log, LogId, NoObserver, Options, RealDisk};

fn open(dir: &Path, options: Options) -> Result<Log, Error> {
    Log::open(Arc::new(RealDisk::open(dir).expect("a folder")), options, Arc::new(NoObserver))
}

fn small() -> Options {
    Options { segment_bytes: 64 << 10, first_segment_bytes: 4096, ring_bytes: 8 << 10, ..Options::default() }
}

fn entry(term: u64, index: u64) -> Entry {
    let payload = Bytes::from(vec![index as u8; 100 + (index as usize * 37) % 900]);
    Entry { log_id: LogId { term, index }, tag: 1, payload }
}

/// A callback and what waits for it.
fn waiter() -> (Done, mpsc::Receiver<Result<(), Error>>) {
    let (sender, receiver) = mpsc::channel();
    (Box::new(move |result| sender.send(result).expect("the test waits")), receiver)
}

#[test]
fn a_new_log_begins_at_the_segment_it_was_given() {
    let dir = tempfile::tempdir().expect("a folder");
    let names = || -> Vec<String> {
        let names = std::fs::read_dir(dir.path()).expect("a folder");
        let names = names.map(|entry| entry.expect("listed").file_name().into_string().expect("ASCII"));
        names.filter(|name| name.ends_with(".log")).collect()
    };
    let options = Options { first_segment: 0x7123_4567, ..small() };
    open(dir.path(), options.clone()).expect("opens").close().expect("closes");
    assert_eq!(names(), ["0000000071234567-0000000000000000.log"]);
    // One that is there stays where it is.
    let log = open(dir.path(), Options { first_segment: 5, ..options }).expect("opens again");
    let (done, receiver) = waiter();
    log.append((0..3).map(|index| entry(1, index)).collect(), done).expect("accepted");
    receiver.recv().expect("called").expect("durable");
    log.close().expect("closes");
    assert!(names().iter().all(|name| name.starts_with("00000000712345")), "{:?}", names());
}

#[test]
fn everything_comes_back_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = open(dir.path(), small()).expect("opens");
    let mut waiting = Vec::new();
    for first in (0..1000).step_by(10) {
        let (done, receiver) = waiter();
        log.append((first..first + 10).map(|index| entry(1, index)).collect(), done).expect("accepted");
        waiting.push(receiver);
    }
    let (done, receiver) = waiter();
    log.save_vote(Bytes::from_static(b"me"), done).expect("accepted");
    waiting.push(receiver);
    for receiver in waiting {
        receiver.recv().expect("called").expect("durable");
    }
    let expected: Vec<Entry> = (0..1000).map(|index| entry(1, index)).collect();
    assert_eq!(log.read(0..2000, usize::MAX).expect("reads"), expected);
    let (done, receiver) = waiter();
    log.truncate_after(Some(LogId { term: 1, index: 899 }), done).expect("accepted");
    receiver.recv().expect("called").expect("durable");
    log.purge(LogId { term: 1, index: 499 }).expect("accepted");
    log.hint_committed(Some(LogId { term: 1, index: 700 }));
    log.close().expect("closes");

    let log = open(dir.path(), small()).expect("opens again");
    assert_eq!(log.state().purged, Some(LogId { term: 1, index: 499 }));
    assert_eq!(log.state().last, Some(LogId { term: 1, index: 899 }));
    assert_eq!(log.vote().as_deref(), Some(&b"me"[..]));
    assert_eq!(log.committed(), Some(LogId { term: 1, index: 700 }));
    assert_eq!(log.read(0..2000, usize::MAX).expect("reads"), expected[500..900]);
    assert_eq!(
        log.read(600..700, 1).expect("reads"),
        expected[600..601],
        "never empty where there is an entry"
    );
    let (done, receiver) = waiter();
    log.append(vec![entry(2, 900)], done).expect("accepted");
    receiver.recv().expect("called").expect("durable");
    assert!(matches!(
        log.append(vec![entry(2, 950)], Box::new(|_| {})),
        Err(Error::Gap { expected: 901, .. })
    ));
}

#[test]
fn purged_segments_leave_the_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let segments = || {
        let names = std::fs::read_dir(dir.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".log")).count()
    };
    let log = open(dir.path(), small()).expect("opens");
    let (done, receiver) = waiter();
    log.append((0..2000).map(|index| entry(1, index)).collect(), done).expect("accepted");
    receiver.recv().expect("called").expect("durable");
    assert!(segments() > 10);
    log.purge(LogId { term: 1, index: 1999 }).expect("accepted");
    log.close().expect("closes");
    assert_eq!(segments(), 1);
}

#[test]
fn a_log_of_somebody_else_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(open(dir.path(), small()).expect("opens"));
    let Err(error) = open(dir.path(), Options { owner: 5, ..small() }) else {
        panic!("opened another member's log");
    };
    assert!(matches!(error, Error::Format { .. }), "{error}");

    std::fs::write(dir.path().join("0000000000000000-0000000000000000.wal"), b"etcd").expect("writes");
    let Err(error) = open(dir.path(), small()) else {
        panic!("opened a log of etcd");
    };
    assert!(error.to_string().contains("etcd itself"), "{error}");
}
