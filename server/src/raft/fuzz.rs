//! What comes out of the log and from peers, with anything in it.
//!
//! Whatever the bytes are, decoding them ends, without a panic: with an error,
//! or with something that is no larger than they were and stays the same when it
//! is encoded and decoded again. A command that passes its checks can be applied.
//!
//! `COMMAND_FUZZ_SEEDS` asks for another number of inputs than the usual one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use prost::Message;
use prost::encoding::encode_varint;
use proto::command::{self, command::Op};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::peer;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use state::validate;

use super::codec::{
    decode_entry, decode_membership, decode_vote, encode_entry, encode_membership, encode_vote,
};
use super::receive_state::ReceiveState;
use super::types::{Membership, Node, Vote};
use super::{codec, wire};
use crate::node::{Encoded, Field};

/// Paste a seed a failure printed to run only that one.
const REPLAY: Option<u64> = None;
const SEEDS: u64 = 6000;
/// Of inputs that are applied, or written to files.
const SEEDS_ON_DISK: u64 = 300;

/// Runs a case for each seed, which says whether its input was taken; tells how many were.
fn run(what: &str, usual: u64, case: impl Fn(&mut StdRng) -> bool) {
    let asked = std::env::var("COMMAND_FUZZ_SEEDS").ok();
    let seeds = asked.map_or(usual, |seeds| seeds.parse().expect("a number"));
    let seeds = REPLAY.map_or(0..seeds, |seed| seed..seed + 1);
    let mut taken = 0;
    for seed in seeds.clone() {
        let one = AssertUnwindSafe(|| case(&mut StdRng::seed_from_u64(seed)));
        match std::panic::catch_unwind(one) {
            Ok(was_taken) => taken += u64::from(was_taken),
            Err(panic) => {
                eprintln!("{what} failed with seed {seed}: paste it into REPLAY");
                std::panic::resume_unwind(panic);
            }
        }
    }
    eprintln!("{what}: {} inputs, {taken} of them taken", seeds.end - seeds.start);
}

/// Changes bytes so that lengths, tags and what they enclose do not fit any more; or does not change them.
fn damage(random: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..random.random_range(0..4) {
        let at = random.random_range(0..=bytes.len());
        let len = random.random_range(0..24).min(bytes.len() - at);
        match random.random_range(0..10) {
            0..3 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            3 => random.fill_bytes(&mut bytes[at..at + len]),
            4 => bytes.truncate(at),
            5 => {
                bytes.drain(at..at + len);
            }
            6 => {
                let copy = bytes[at..at + len].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
            7 => {
                // Any number, in the place of a byte or beside it.
                let mut number = Vec::new();
                encode_varint(extreme(random, bytes.len()), &mut number);
                bytes.splice(at..at + len.min(random.random_range(0..2)), number);
            }
            8 => {
                // A field more, perhaps with nothing in it.
                let mut field = Vec::new();
                encode_varint(random.random_range(0..100), &mut field);
                field.push(random.random_range(0..3));
                bytes.splice(at..at, field);
            }
            _ => {
                // The whole as a field of itself, again and again.
                for _ in 0..random.random_range(1..150) {
                    let mut outer = vec![(random.random_range(1..4_u8) << 3) | 2];
                    encode_varint(bytes.len() as u64, &mut outer);
                    bytes.splice(0..0, outer);
                }
            }
        }
    }
    if random.random_ratio(1, 40) {
        *bytes = vec![0; random.random_range(0..300)];
        random.fill_bytes(bytes);
    }
}

/// Numbers at the edge of something.
fn extreme(random: &mut StdRng, len: usize) -> u64 {
    match random.random_range(0..6) {
        0 => u64::MAX - random.random_range(0..2),
        1 => 1 << random.random_range(0..64),
        2 => (len as u64).wrapping_sub(random.random_range(0..9)),
        3 => u64::from(u32::MAX) + random.random_range(0..2),
        4 => i64::MAX as u64 + random.random_range(0..2),
        _ => random.random_range(0..40),
    }
}

/// Decodes; what comes out is not much larger than what went in, and comes out again.
fn decoded<M: Message + Default + PartialEq + Debug>(bytes: &Bytes) -> Option<M> {
    let message = M::decode(bytes.clone()).ok()?;
    let again = message.encode_to_vec();
    // A number that is cut to 32 bits may take five bytes more when it is negative.
    assert!(again.len() <= 2 * bytes.len(), "{} bytes out of {}", again.len(), bytes.len());
    assert_eq!(M::decode(&again[..]).as_ref(), Ok(&message));
    Some(message)
}

fn number(random: &mut StdRng) -> i64 {
    match random.random_range(0..4) {
        0 => extreme(random, 100) as i64,
        _ => random.random_range(-1..12),
    }
}

fn key(random: &mut StdRng) -> Bytes {
    let len = random.random_range(0..3);
    (0..len).map(|_| random.random_range(b'a'..b'd')).collect()
}

fn request(random: &mut StdRng, depth: u32) -> Request {
    match random.random_range(0..if depth == 0 { 3 } else { 4 }) {
        0 => Request::RequestRange(pb::RangeRequest {
            key: key(random),
            range_end: key(random),
            limit: number(random),
            revision: number(random),
            sort_order: random.random_range(-1..4),
            sort_target: random.random_range(-1..6),
            keys_only: random.random(),
            count_only: random.random(),
            min_mod_revision: number(random),
            max_create_revision: number(random),
            ..Default::default()
        }),
        1 => Request::RequestPut(pb::PutRequest {
            key: key(random),
            value: vec![b'v'; random.random_range(0..40)].into(),
            lease: number(random),
            prev_kv: random.random(),
            ignore_value: random.random_ratio(1, 4),
            ignore_lease: random.random_ratio(1, 4),
        }),
        2 => Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: key(random),
            range_end: key(random),
            prev_kv: random.random(),
        }),
        _ => Request::RequestTxn(txn(random, depth - 1)),
    }
}

fn txn(random: &mut StdRng, depth: u32) -> pb::TxnRequest {
    let list = |random: &mut StdRng| {
        let count = random.random_range(0..3);
        (0..count).map(|_| pb::RequestOp { request: Some(request(random, depth)) }).collect()
    };
    let (success, failure) = (list(random), list(random));
    let targets = [
        (CompareTarget::Version, TargetUnion::Version(number(random))),
        (CompareTarget::Create, TargetUnion::CreateRevision(number(random))),
        (CompareTarget::Mod, TargetUnion::ModRevision(number(random))),
        (CompareTarget::Value, TargetUnion::Value(key(random))),
        (CompareTarget::Lease, TargetUnion::Lease(number(random))),
    ];
    let compare = targets.into_iter().filter(|_| random.random_ratio(1, 4)).collect::<Vec<_>>();
    let compare = compare.into_iter().map(|(target, union)| pb::Compare {
        result: random.random_range(CompareResult::Equal as i32..=CompareResult::NotEqual as i32),
        target: if random.random_ratio(1, 20) { random.random_range(-1..9) } else { target.into() },
        key: key(random),
        range_end: key(random),
        target_union: Some(union),
    });
    pb::TxnRequest { compare: compare.collect(), success, failure }
}

/// A command of any kind, encoded.
fn command(random: &mut StdRng) -> Vec<u8> {
    let text = |random: &mut StdRng| ["", "3.6.0", "3.7.0", "x"][random.random_range(0..4)].to_owned();
    let op = match random.random_range(0..14) {
        0..3 => match request(random, 0) {
            Request::RequestPut(put) => Op::Put(put),
            Request::RequestDeleteRange(delete) => Op::DeleteRange(delete),
            _ => Op::Txn(txn(random, 0)),
        },
        3..6 => Op::Txn(txn(random, 3)),
        6 => Op::Compaction(pb::CompactionRequest { revision: number(random), physical: random.random() }),
        7 => Op::LeaseGrant(pb::LeaseGrantRequest { id: number(random), ttl: number(random) }),
        8 => Op::LeaseRevoke(pb::LeaseRevokeRequest { id: number(random) }),
        9 => {
            let one = pb::LeaseCheckpoint { id: number(random), remaining_ttl: number(random) };
            Op::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints: vec![one; 2] })
        }
        10 => {
            let (action, alarm) = (random.random_range(-1..4), random.random_range(-1..4));
            Op::Alarm(pb::AlarmRequest { action, member_id: random.random_range(0..3), alarm })
        }
        11 => Op::MemberAttributes(command::MemberAttributes {
            member_id: random.random_range(0..4),
            name: text(random),
            client_urls: vec![text(random)],
        }),
        12 => Op::ClusterVersion(command::ClusterVersion { version: text(random) }),
        _ => Op::Downgrade(command::Downgrade { target_version: text(random) }),
    };
    command::Command { op: Some(op) }.encode_to_vec()
}

fn membership(random: &mut StdRng) -> Membership {
    let ids: BTreeSet<u64> = (0..random.random_range(1..6)).map(|_| random.random_range(1..9)).collect();
    let node = |id: &u64| {
        let peer_urls = vec![format!("http://10.0.0.{id}:2380")];
        (*id, Node { name: format!("m{id}"), peer_urls, learner: id.is_multiple_of(3) })
    };
    let nodes: BTreeMap<u64, Node> = ids.iter().map(node).collect();
    let configs =
        if ids.len() > 2 { vec![ids.clone(), ids.into_iter().skip(1).collect()] } else { vec![ids] };
    Membership::new(configs, nodes).expect("all are nodes")
}

/// What may stand in an entry: a kind and a payload.
fn payload(random: &mut StdRng) -> (u8, Vec<u8>) {
    let (tag, mut bytes) = match random.random_range(0..10) {
        0 => (0, Vec::new()),
        1..4 => (2, encode_membership(&membership(random)).to_vec()),
        4 => (3, [&[7; 16][..], &command(random)].concat()),
        _ => (1, command(random)),
    };
    damage(random, &mut bytes);
    let tag = if random.random_ratio(1, 20) { random.random_range(0..6) } else { tag };
    (tag, bytes)
}

fn log_id(random: &mut StdRng) -> raftlog::LogId {
    raftlog::LogId { term: extreme(random, 10), index: random.random_range(0..=u64::MAX - 1) }
}

#[test]
fn entries_of_anything_do_no_harm() {
    run("entries", SEEDS, |random| {
        let (tag, payload) = payload(random);
        let entry = raftlog::Entry { log_id: log_id(random), tag, payload: payload.into() };
        let Ok(read) = decode_entry(entry.clone()) else { return false };
        let written = encode_entry(read.clone());
        match tag {
            // There may be more than one way to write it.
            2 => assert_eq!(decode_entry(written).expect("just encoded"), read),
            0 => assert!(written.payload.is_empty()),
            _ => assert_eq!(written, entry),
        }
        match codec::state_entry(read).body {
            state::EntryBody::Blank => true,
            state::EntryBody::Command(bytes) => decoded::<command::Command>(&bytes).is_some(),
            state::EntryBody::Membership { opaque, nodes } => {
                let again = decode_membership(&opaque).expect("just encoded");
                assert_eq!(codec::nodes(&again), nodes);
                true
            }
        }
    });
}

#[test]
fn votes_of_anything_do_no_harm() {
    run("votes", SEEDS, |random| {
        let mut vote = Vote::new(extreme(random, 10), extreme(random, 10));
        vote.committed = random.random();
        let mut bytes = encode_vote(&vote).to_vec();
        damage(random, &mut bytes);
        let Ok(read) = decode_vote(&bytes) else { return false };
        assert_eq!(decode_vote(&encode_vote(&read)).expect("just encoded"), read);
        true
    });
}

/// Requests of clients are wrapped as they come: none becomes a command of another kind.
#[test]
fn requests_of_anything_stay_what_they_are() {
    run("requests", SEEDS, |random| {
        let fields = [(Field::Put, 1), (Field::DeleteRange, 2), (Field::Txn, 3)];
        let (field, number) = fields[random.random_range(0..3)];
        let mut bytes = match random.random_range(0..3) {
            0 => txn(random, 3).encode_to_vec(),
            _ => command(random).split_off(2),
        };
        damage(random, &mut bytes);
        let Ok((encoded, op)) = Encoded::wrap(field, &bytes) else { return false };
        let kind = match &op {
            Op::Put(_) => 1,
            Op::DeleteRange(_) => 2,
            Op::Txn(_) => 3,
            _ => 0,
        };
        assert_eq!(kind, number, "{op:?}");
        assert_eq!(
            decoded::<command::Command>(&encoded.into_bytes()).and_then(|command| command.op),
            Some(op)
        );
        true
    });
}

/// Whether a command would have got into the log: those of clients are checked before.
fn checked(command: &command::Command) -> bool {
    match &command.op {
        None => false,
        Some(Op::Put(put)) => validate::put(put).is_ok(),
        Some(Op::DeleteRange(delete)) => validate::delete_range(delete).is_ok(),
        Some(Op::Txn(txn)) => validate::txn(txn, 128).is_ok(),
        Some(_) => true,
    }
}

/// A command that passed its checks and that the state machine chokes on would stop every member.
#[test]
fn commands_that_pass_their_checks_can_be_applied() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = state::Options::new(dir.path().join("db"));
    let (state, reader) = state::State::open(options).expect("opens");
    let (state, index) = (RefCell::new(state), RefCell::new(0));
    run("commands applied", SEEDS_ON_DISK * 5, |random| {
        let mut entries = Vec::new();
        for _ in 0..random.random_range(1..20) {
            let (tag, payload) = payload(random);
            let entry = raftlog::Entry { log_id: raftlog::LogId::default(), tag, payload: payload.into() };
            let Ok(entry) = decode_entry(entry) else { continue };
            let state::Entry { body, .. } = codec::state_entry(entry);
            if let state::EntryBody::Command(bytes) = &body
                && !command::Command::decode(bytes.clone()).is_ok_and(|command| checked(&command))
            {
                continue;
            }
            *index.borrow_mut() += 1;
            entries.push(state::Entry { log_id: state::LogId { term: 1, index: *index.borrow() }, body });
        }
        let count = entries.len();
        let applied = state.borrow_mut().apply(entries).expect("applied or refused");
        assert_eq!(applied.replies.len(), count);
        let revisions: Vec<i64> = applied.replies.iter().map(|reply| reply.revision).collect();
        assert!(revisions.is_sorted());
        assert_eq!(reader.view().revision(), revisions.last().copied().unwrap_or(reader.view().revision()));
        count > 0
    });
    let garbage = state::EntryBody::Command(Bytes::from_static(b"\x0a\xff"));
    let entry = state::Entry { log_id: state::LogId { term: 1, index: *index.borrow() + 1 }, body: garbage };
    let fault = state.borrow_mut().apply(vec![entry]).expect_err("no command").to_string();
    assert!(fault.contains(&format!("entry {}", *index.borrow() + 1)), "{fault}");
}

fn peer_vote(random: &mut StdRng) -> Option<peer::Vote> {
    let vote =
        peer::Vote { term: extreme(random, 10), candidate: extreme(random, 10), committed: random.random() };
    random.random_ratio(9, 10).then_some(vote)
}

fn peer_id(random: &mut StdRng) -> Option<peer::LogId> {
    random.random_ratio(2, 3).then(|| peer::LogId { term: extreme(random, 10), index: extreme(random, 10) })
}

/// Encodes, damages and decodes a message.
fn through<M: Message + Default + PartialEq + Debug>(random: &mut StdRng, message: &M) -> Option<M> {
    let mut bytes = message.encode_to_vec();
    damage(random, &mut bytes);
    decoded(&bytes.into())
}

#[test]
fn messages_of_anything_do_no_harm() {
    use peer::append_response::Outcome;
    use peer::transfer_response::Refusal;
    run("messages", SEEDS, |random| {
        let (vote, last) = (peer_vote(random), peer_id(random));
        let taken = match random.random_range(0..9) {
            0..3 => {
                let entry = |random: &mut StdRng| {
                    let (kind, payload) = payload(random);
                    let (term, index) = (extreme(random, 10), extreme(random, 10));
                    peer::Entry { term, index, kind: kind.into(), payload: payload.into() }
                };
                let entries = (0..random.random_range(0..4)).map(|_| entry(random)).collect();
                let committed = peer_id(random);
                let request =
                    peer::AppendRequest { vote, previous: last, entries, committed, fingerprints: vec![] };
                let request = through(random, &request).map(wire::to_append_request);
                request.and_then(Result::ok).map(|request| {
                    for entry in &request.entries {
                        codec::state_entry(entry.clone());
                    }
                    let told = wire::append_request(request);
                    wire::to_append_request(told).expect("just made");
                })
            }
            3 => {
                let outcome = match random.random_range(0..3) {
                    0 => Outcome::Matched(peer::Matched { log_id: last }),
                    1 => Outcome::Conflict(last.unwrap_or_default()),
                    _ => Outcome::HigherVote(vote.unwrap_or_default()),
                };
                let response = peer::AppendResponse { outcome: Some(outcome) };
                let response = through(random, &response).map(wire::to_append_response);
                response.and_then(Result::ok).map(|response| {
                    wire::append_response(&response);
                })
            }
            4 => {
                let request = peer::VoteRequest { vote, last, leader_agrees: random.random() };
                let request = through(random, &request).map(wire::to_vote_request);
                request.and_then(Result::ok).map(|request| {
                    wire::vote_request(&request);
                })
            }
            5 => {
                let response = peer::VoteResponse { vote, granted: random.random(), last };
                let response = through(random, &response).map(wire::to_vote_response);
                response.and_then(Result::ok).map(|response| {
                    wire::vote_response(&response);
                })
            }
            6 => {
                let request = peer::TransferRequest { from: vote, to: random.random(), last };
                let request = through(random, &request).map(wire::to_transfer_request);
                request.and_then(Result::ok).map(|request| {
                    wire::transfer_request(&request);
                })
            }
            7 => {
                let mismatch = peer::Mismatch {
                    expected_vote: vote,
                    actual_vote: peer_vote(random),
                    expected_log: last,
                    actual_log: peer_id(random),
                    log: random.random(),
                };
                let response = peer::TransferResponse { refusal: Some(Refusal::Mismatch(mismatch)) };
                let response = through(random, &response).map(wire::to_transfer_response);
                response.and_then(Result::ok).map(|response| {
                    wire::transfer_response(&response);
                })
            }
            _ => {
                let proposals =
                    vec![peer::Proposal { number: random.random(), command: command(random).into() }];
                let propose = peer::ProposeRequest { term: extreme(random, 10), proposals };
                let request = peer::lead_request::Request::Propose(propose);
                through(random, &peer::LeadRequest { request: Some(request) }).map(|_| ())
            }
        };
        taken.is_some()
    });
}

/// Whatever comes after such an index would overflow.
#[test]
fn an_index_that_nothing_can_follow_is_refused() {
    let vote = Some(peer::Vote { term: 1, candidate: 1, committed: true });
    let last = Some(peer::LogId { term: 1, index: u64::MAX });
    let entry = peer::Entry { term: 1, index: u64::MAX, kind: 0, payload: Bytes::new() };
    let requests = [
        peer::AppendRequest { vote, previous: last, ..Default::default() },
        peer::AppendRequest { vote, committed: last, ..Default::default() },
        peer::AppendRequest { vote, entries: vec![entry], ..Default::default() },
    ];
    for request in requests {
        assert!(wire::to_append_request(request).is_err());
    }
    assert!(wire::to_vote_request(peer::VoteRequest { vote, last, leader_agrees: false }).is_err());
}

/// A peer that says anything of a state it sends: nothing is written beside its folder, and no more than it said.
#[test]
fn states_of_anything_do_no_harm() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("beside"), "stays").expect("written");
    let receive_dir = dir.path().join("receive");
    run("states", SEEDS_ON_DISK, |random| {
        let receive = ReceiveState::new(receive_dir.clone());
        let name = |random: &mut StdRng| {
            let names =
                ["a", "b", "a.part", "", ".", "..", "../beside", "/etc/passwd", "a/b", "a\0", "MANIFEST-1"];
            names[if random.random_ratio(3, 4) {
                random.random_range(0..3)
            } else {
                random.random_range(0..11)
            }]
            .to_owned()
        };
        let size = |random: &mut StdRng| match random.random_range(0..8) {
            0 => extreme(random, 20),
            _ => random.random_range(0..30),
        };
        let files = (0..random.random_range(0..4))
            .map(|_| peer::StateFile { name: name(random), size: size(random) });
        let manifest = peer::StateManifest { files: files.collect(), name: name(random) };
        let said: u128 = manifest.files.iter().map(|file| u128::from(file.size)).sum();
        let Some(manifest) = through(random, &manifest) else { return false };
        let said = said.max(manifest.files.iter().map(|file| u128::from(file.size)).sum());
        let mut taken = false;
        for _ in 0..random.random_range(1..12) {
            match random.random_range(0..9) {
                0 => taken |= receive.offer(manifest.clone()).is_ok(),
                1 => drop(receive.finish(&manifest.name)),
                _ => {
                    let peer::StateProgress { files, bytes } = receive.progress();
                    let fits =
                        manifest.files.get(files as usize).map_or(3, |file| file.size.saturating_sub(bytes));
                    let data = Bytes::from(vec![1; random.random_range(0..30).min(fits as usize)]);
                    let chunk = peer::StateChunk {
                        name: manifest.name.clone(),
                        file: files,
                        offset: bytes,
                        crc: crc32c::crc32c(&data),
                        data,
                    };
                    let chunk = if random.random_ratio(1, 3) { through(random, &chunk) } else { Some(chunk) };
                    taken |= chunk.is_some_and(|chunk| receive.chunk(&chunk).is_ok());
                }
            }
            if receive.progress() == peer::StateProgress::default() && random.random() {
                taken |= receive.offer(manifest.clone()).is_ok();
            }
        }
        let written: u128 = walk(&receive_dir).map(u128::from).sum();
        assert!(written <= said, "{written} bytes of {said}");
        assert_eq!(
            std::fs::read_dir(dir.path()).expect("there").count(),
            1 + usize::from(receive_dir.exists())
        );
        if receive_dir.exists() {
            std::fs::remove_dir_all(&receive_dir).expect("removed");
        }
        taken
    });
}

/// Lengths of the files two levels down.
fn walk(dir: &std::path::Path) -> impl Iterator<Item = u64> {
    let below = |dir: &std::path::Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
    below(dir).flat_map(move |entry| below(&entry.path()).map(|file| file.metadata().map_or(0, |m| m.len())))
}
