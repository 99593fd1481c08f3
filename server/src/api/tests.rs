//! The services of a whole member, asked over a connection.

use std::sync::Arc;
use std::time::Duration;

use proto::etcdserverpb as pb;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::lessor::Lessor;
use crate::node::{Node, Settings, Sink};
use crate::raft::{Raft, RaftConfig};
use crate::serve::{self, Listener, Socket, Transport};
use crate::watch::Hub;

const CLUSTER: u64 = 7;
const MEMBER: u64 = 9;

/// A cluster of one on a free port; it ends with the test.
struct Member {
    channel: Channel,
    node: Node,
    stop: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

impl Member {
    async fn start() -> Self {
        Self::with(|_settings| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (state, reader) =
            state::State::open(state::Options::new(dir.path().join("state"))).expect("a state");
        let lessor = Lessor::new(reader.leases());
        let views = reader.clone();
        let hub =
            Hub::start(Arc::new(move || views.view()), crate::watch::Options::default()).expect("threads");
        let node = state::Node {
            id: MEMBER,
            name: "one".to_owned(),
            peer_urls: vec!["http://127.0.0.1:1".to_owned()],
            learner: false,
        };
        let config = RaftConfig {
            member_id: MEMBER,
            name: node.name.clone(),
            peer_urls: node.peer_urls.clone(),
            cluster_id: 9,
            force_new_cluster: false,
            pre_vote: true,
            advance_first_election: true,
            dialer: crate::peer::dial::Dialer::default(),
            known_peers: Vec::new(),
            receive_dir: dir.path().join("receive"),
            initial_members: vec![node],
            heartbeat_ms: 100,
            election_ms: 1000,
            wal_dir: dir.path().join("wal"),
            fsync: false,
            slow_apply: Duration::ZERO,
            snapshot_count: 10_000,
            catchup_entries: 5_000,
        };
        let sink = Sink::new(hub.clone(), lessor.clone(), reader.clone());
        let raft = Raft::start(config, state, reader.clone(), sink).expect("a log");
        let mut settings = Settings {
            cluster_id: CLUSTER,
            member_id: MEMBER,
            request_bytes_max: 1_572_864,
            txn_ops_max: 128,
            election_timeout: Duration::from_secs(1),
            quota_bytes: 0,
            lease_checkpoint: false,
            slow_request: Duration::ZERO,
            strict_reconfig: true,
            learners_max: 1,
        };
        change(&mut settings);
        let node = Node::new(raft, reader, hub, lessor, settings);
        let (stop, stopping) = watch::channel(false);
        node.start_background(&stopping);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let listener = Listener { socket: Socket::Tcp(listener), tls: None, http: None, grpc: true };
        let transport = Transport { threads: 1, ..Transport::default() };
        tokio::spawn(serve::run(vec![listener], transport, node.clone(), stopping));
        let channel = Channel::from_shared(format!("http://{address}")).expect("a URL");
        let channel = channel.connect().await.expect("a connection");
        let mut status = node.raft().status_watch();
        status.wait_for(|status| status.leader == MEMBER).await.expect("the only member leads");
        Self { channel, node, stop, _dir: dir }
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    async fn put(&self, key: &str, value: impl Into<bytes::Bytes>) -> pb::PutResponse {
        let request =
            pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() };
        self.kv().put(request).await.expect("a put").into_inner()
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.node.hub().end();
        self.node.raft().clone().shutdown().await;
    }
}

fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), range_end: end.to_owned().into(), ..Default::default() }
}

fn refused(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

fn full(revision: i64, term: u64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { cluster_id: CLUSTER, member_id: MEMBER, revision, raft_term: term })
}

#[tokio::test]
async fn headers_say_what_those_of_etcd_say() {
    let member = Member::start().await;
    let term = member.node.status().term;
    assert_eq!(member.put("a", "1").await.header, full(2, term));
    assert_eq!(member.put("a", "2").await.header, full(3, term));
    // A range tells the revision of now, whatever revision it reads.
    let old = pb::RangeRequest { revision: 2, ..range("a", "") };
    let old = member.kv().range(old).await.expect("a range").into_inner();
    assert_eq!((old.header, old.kvs[0].value.clone()), (full(3, term), "1".into()));
    // A delete of nothing takes no revision.
    let nothing = pb::DeleteRangeRequest { key: "x".into(), ..Default::default() };
    assert_eq!(member.kv().delete_range(nothing).await.expect("a delete").into_inner().header, full(3, term));

    let op = |request| pb::RequestOp { request: Some(request) };
    let nested =
        pb::TxnRequest { success: vec![op(Request::RequestRange(range("a", "")))], ..Default::default() };
    let put = pb::PutRequest { key: "b".into(), ..Default::default() };
    let txn = pb::TxnRequest {
        success: vec![op(Request::RequestPut(put)), op(Request::RequestTxn(nested))],
        ..Default::default()
    };
    let txn = member.kv().txn(txn).await.expect("a txn").into_inner();
    assert_eq!(txn.header, full(4, term));
    let Some(Response::ResponsePut(put)) = &txn.responses[0].response else { panic!("{txn:?}") };
    assert_eq!(put.header, Some(pb::ResponseHeader { revision: 4, ..Default::default() }));
    let Some(Response::ResponseTxn(nested)) = &txn.responses[1].response else { panic!("{txn:?}") };
    assert_eq!(nested.header, Some(pb::ResponseHeader::default()));

    let mut leases = LeaseClient::new(member.channel.clone());
    let granted =
        leases.lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 5 }).await.expect("a grant").into_inner();
    assert_eq!((granted.header, granted.id, granted.ttl), (full(4, term), 5, 2));
    let members = ClusterClient::new(member.channel.clone())
        .member_list(pb::MemberListRequest { linearizable: true })
        .await
        .expect("members")
        .into_inner();
    assert_eq!(members.header, full(0, term));
    let mut maintenance = MaintenanceClient::new(member.channel.clone());
    let defragmented =
        maintenance.defragment(pb::DefragmentRequest {}).await.expect("an answer").into_inner();
    assert_eq!(defragmented.header, None);
    let status = maintenance.status(pb::StatusRequest {}).await.expect("a status").into_inner();
    assert_eq!((status.header, status.version.as_str()), (full(4, term), "3.7.3"));
    assert!(status.downgrade_info.is_some());
    member.end().await;
}

#[tokio::test]
async fn a_stream_comes_in_growing_chunks_and_the_last_says_the_rest() {
    let member = Member::start().await;
    let term = member.node.status().term;
    for number in 0..45 {
        member.put(&format!("k{number:02}"), "v").await;
    }
    let mut stream = member.kv().range_stream(range("k", "l")).await.expect("a stream").into_inner();
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.message().await.expect("no error") {
        chunks.push(chunk.range_response.expect("a response"));
    }
    assert_eq!(chunks.iter().map(|chunk| chunk.kvs.len()).collect::<Vec<_>>(), [10, 20, 15]);
    let keys: Vec<_> = chunks.iter().flat_map(|chunk| &chunk.kvs).map(|kv| kv.key.clone()).collect();
    assert!(keys.is_sorted() && keys.len() == 45);
    assert!(chunks[..2].iter().all(|chunk| chunk.header.is_none() && chunk.count == 0));
    assert_eq!((chunks[2].header, chunks[2].count, chunks[2].more), (full(46, term), 45, false));

    let limited = pb::RangeRequest { limit: 12, ..range("k", "l") };
    let mut stream = member.kv().range_stream(limited).await.expect("a stream").into_inner();
    let first =
        stream.message().await.expect("no error").expect("a chunk").range_response.expect("a response");
    let last =
        stream.message().await.expect("no error").expect("a chunk").range_response.expect("a response");
    assert_eq!((first.kvs.len(), last.kvs.len(), last.count, last.more), (10, 2, 45, true));
    assert!(stream.message().await.expect("no error").is_none());
    member.end().await;
}

#[tokio::test]
async fn long_lists_come_in_one_message() {
    let member = Member::start().await;
    for number in 0..40 {
        member.put(&format!("k{number:02}"), vec![b'v'; 100 << 10]).await;
    }
    let all = member.kv().range(range("k", "l")).await.expect("a list").into_inner();
    assert_eq!((all.kvs.len(), all.count, all.more), (40, 40, false));
    assert!(all.kvs.iter().all(|kv| kv.value.len() == 100 << 10));
    let some = pb::RangeRequest { limit: 30, ..range("k", "l") };
    let some = member.kv().range(some).await.expect("a list").into_inner();
    assert_eq!((some.kvs.len(), some.count, some.more), (30, 40, true));
    member.end().await;
}

/// A put that broke another rule as well was told that rule, although the database was full.
#[tokio::test]
async fn the_quota_is_looked_at_first() {
    let member = Member::with(|settings| settings.quota_bytes = 200).await;
    let status = member.kv().put(pb::PutRequest::default()).await.expect_err("no room");
    let no_space = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
    assert_eq!(refused(&status), no_space);
    let alarms = member.node.reader().alarms();
    assert_eq!((alarms.len(), alarms[0].member_id), (1, MEMBER));
    // What adds nothing is served.
    member.kv().range(range("a", "")).await.expect("a range");
    let status = member.kv().delete_range(pb::DeleteRangeRequest::default()).await.expect_err("no key");
    assert_eq!(refused(&status), (Code::InvalidArgument, "etcdserver: key is not provided"));
    member.end().await;
}

#[tokio::test]
async fn what_is_too_large_is_told_in_two_ways() {
    let member = Member::start().await;
    let put =
        |len: usize| pb::PutRequest { key: "k".into(), value: vec![0; len].into(), ..Default::default() };
    let status = member.kv().put(put(1_572_864)).await.expect_err("beyond the limit of the log");
    assert_eq!(refused(&status), (Code::InvalidArgument, "etcdserver: request is too large"));
    member.kv().put(put(1_572_764)).await.expect("as long as may be");
    let status = member.kv().put(put(3 << 20)).await.expect_err("beyond what is read");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "grpc: received message larger than max (3145736 vs. 2097152)");
    member.end().await;
}

#[tokio::test]
async fn a_keep_alive_of_an_unknown_lease_is_answered_with_nothing_left() {
    let member = Member::start().await;
    let mut leases = LeaseClient::new(member.channel.clone());
    leases.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 5 }).await.expect("a grant");
    let requests = [5, 6, 5].map(|id| pb::LeaseKeepAliveRequest { id });
    let mut answers =
        leases.lease_keep_alive(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    let mut left = Vec::new();
    while let Some(answer) = answers.message().await.expect("no error") {
        left.push((answer.id, answer.ttl));
    }
    assert_eq!(left, [(5, 60), (6, 0), (5, 60)]);
    let unknown = pb::LeaseTimeToLiveRequest { id: 6, keys: false };
    let unknown = leases.lease_time_to_live(unknown).await.expect("no error").into_inner();
    assert_eq!((unknown.id, unknown.ttl, unknown.granted_ttl), (6, -1, 0));
    member.end().await;
}

/// The texts are those of etcd; the codes too, also where its own mapping slips.
#[tokio::test]
async fn changes_of_the_membership_are_refused_as_etcd_refuses_them() {
    let member = Member::with(|settings| settings.learners_max = 0).await;
    let mut cluster = ClusterClient::new(member.channel.clone());
    let add = |urls: &[&str], is_learner| pb::MemberAddRequest {
        peer_ur_ls: urls.iter().map(|url| (*url).to_owned()).collect(),
        is_learner,
    };
    let bad_urls = (Code::InvalidArgument, "etcdserver: given member URLs are invalid");
    let exists = (Code::FailedPrecondition, "etcdserver: Peer URLs already exists");
    let learners = (Code::FailedPrecondition, "etcdserver: too many learner members in cluster");
    for (request, refusal) in [
        (add(&[], false), bad_urls),
        (add(&["127.0.0.1:2"], false), bad_urls),
        (add(&["http://127.0.0.1:2/path"], true), bad_urls),
        (add(&["http://127.0.0.1:2", "http://127.0.0.1:1"], false), exists),
        (add(&["http://127.0.0.1:2"], true), learners),
    ] {
        let status = cluster.member_add(request.clone()).await.expect_err("refused");
        assert_eq!(refused(&status), refusal, "{request:?}");
    }

    let not_found = (Code::NotFound, "etcdserver: member not found");
    let not_enough = (Code::Unknown, "etcdserver: re-configuration failed due to not enough started members");
    for (id, refusal) in [(MEMBER, not_enough), (3, not_found)] {
        let status = cluster.member_remove(pb::MemberRemoveRequest { id }).await.expect_err("refused");
        assert_eq!(refused(&status), refusal, "{id}");
    }
    let update = pb::MemberUpdateRequest { id: 3, peer_ur_ls: vec!["http://127.0.0.1:3".to_owned()] };
    assert_eq!(refused(&cluster.member_update(update).await.expect_err("refused")), not_found);
    let no_learner = (Code::FailedPrecondition, "etcdserver: can only promote a learner member");
    for (id, refusal) in [(MEMBER, no_learner), (3, not_found)] {
        let status = cluster.member_promote(pb::MemberPromoteRequest { id }).await.expect_err("refused");
        assert_eq!(refused(&status), refusal, "{id}");
    }

    let mut maintenance = MaintenanceClient::new(member.channel.clone());
    let bad = maintenance.move_leader(pb::MoveLeaderRequest { target_id: 3 }).await.expect_err("refused");
    assert_eq!(refused(&bad), (Code::FailedPrecondition, "etcdserver: bad leader transferee"));
    let itself = pb::MoveLeaderRequest { target_id: MEMBER };
    let itself = maintenance.move_leader(itself).await.expect("nothing to do").into_inner();
    assert_eq!(itself.header, None);
    member.end().await;
}

#[tokio::test]
async fn members_ask_each_other_by_calls() {
    use bytes::Bytes;
    use prost::Message;
    use proto::peer::Method;

    use crate::node::calls;

    let member = Member::start().await;
    member.put("a", "1").await;
    let body = Bytes::from(pb::HashKvRequest { revision: 0 }.encode_to_vec());
    let hash = calls::answer(&member.node, Method::HashKv, body).await.expect("a hash");
    let hash = pb::HashKvResponse::decode(hash).expect("well formed");
    assert_eq!((hash.hash_revision, hash.header.expect("a header").revision), (2, 2));
    let body = Bytes::from(pb::LeaseKeepAliveRequest { id: 6 }.encode_to_vec());
    let renewed = calls::answer(&member.node, Method::LeaseKeepAlive, body).await.expect("an answer");
    assert_eq!(pb::LeaseKeepAliveResponse::decode(renewed).expect("well formed").ttl, 0);
    let body = Bytes::from(pb::MemberRemoveRequest { id: 3 }.encode_to_vec());
    let status = calls::answer(&member.node, Method::MemberRemove, body).await.expect_err("no such member");
    assert_eq!(refused(&status), (Code::NotFound, "etcdserver: member not found"));
    let status =
        calls::answer(&member.node, Method::MemberAdd, "\u{1}".into()).await.expect_err("no message");
    assert_eq!(status.code(), Code::Internal);
    member.end().await;
}
