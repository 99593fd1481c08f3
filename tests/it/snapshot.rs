//! Backups that cross over: saved from ours or from etcd, restored to either, with everything there.
//!
//! Saving and etcd's restore are done by etcd's own tools, beside `REAL_ETCD_BIN`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::mvccpb::KeyValue;
use server::restore::{self, Restore};
use sha2::{Digest, Sha256};
use tests::{Client, Cluster, Member, Options, Program, Shape, eventually, http, skipped};

use crate::program;

const CHUNK: usize = 32 << 10;
/// How long a watch may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// No client is kept from its key, and no test waits for it to end.
const TTL: i64 = 100_000;

/// One of etcd's own tools, where the environment has it.
fn official(tool: &str) -> Option<PathBuf> {
    let beside = Program::etcd()?.path().with_file_name(tool);
    beside.exists().then_some(beside)
}

fn run(tool: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new(tool).args(args).output().with_context(|| format!("{}", tool.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{} {args:?}: {text}{}", tool.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ASCII")
}

/// Everything a snapshot has to carry: keys that changed often, that are gone, that came back, big ones, leases, a
/// compaction with writes before and behind it, and an alarm.
async fn fill(client: &Client) -> Result<()> {
    let put = |key: String, value: Vec<u8>, lease: i64| pb::PutRequest {
        key: key.into(),
        value: value.into(),
        lease,
        ..Default::default()
    };
    for (id, ttl) in [(7, TTL), (-9, TTL + 1), (i64::MAX, TTL + 2)] {
        client.lease.clone().lease_grant(pb::LeaseGrantRequest { id, ttl }).await?;
    }
    for at in 0..400_i64 {
        let lease = [0, 0, 0, 7, -9][(at % 5) as usize];
        client.kv.clone().put(put(format!("k/{at:04}"), vec![b'v'; (at % 97) as usize], lease)).await?;
        client.put("often", at.to_string()).await?;
        if at % 3 == 0 {
            let delete =
                pb::DeleteRangeRequest { key: format!("k/{:04}", at / 2).into(), ..Default::default() };
            client.kv.clone().delete_range(delete).await?;
        }
        if at == 250 {
            let revision = client.put("half", "").await?.revision - 20;
            client.kv.clone().compact(pb::CompactionRequest { revision, physical: true }).await?;
        }
    }
    client.put("big", vec![b'b'; 1_400_000]).await?;
    let operation = |request| pb::RequestOp { request: Some(request) };
    let all = pb::DeleteRangeRequest { key: "k/031".into(), range_end: "k/04".into(), ..Default::default() };
    let txn = pb::TxnRequest {
        success: vec![
            operation(Request::RequestDeleteRange(all)),
            operation(Request::RequestPut(put("k/0300".into(), b"back".to_vec(), 7))),
            operation(Request::RequestPut(put("new".into(), b"1".to_vec(), 0))),
        ],
        ..Default::default()
    };
    client.kv.clone().txn(txn).await?;
    let alarm = pb::AlarmRequest { action: 1, member_id: 5, alarm: 1 };
    client.maintenance.clone().alarm(alarm).await?;
    Ok(())
}

/// What clients see that must be the same afterwards.
#[derive(Debug, PartialEq)]
struct Seen {
    revision: i64,
    hash: (u32, i64, i64),
    now: Vec<KeyValue>,
    before: Vec<KeyValue>,
    leases: BTreeMap<i64, (i64, Vec<Bytes>)>,
    alarms: Vec<(u64, i32)>,
}

impl Seen {
    async fn by(client: &Client) -> Result<Seen> {
        let mut maintenance = client.maintenance.clone();
        let hash = eventually("a hash", || async { Ok(client.hash_kv(0).await?) }).await?;
        let revision = hash.header.unwrap_or_default().revision;
        let all = |revision| pb::RangeRequest {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            revision,
            ..Default::default()
        };
        let now = client.kv.clone().range(all(0)).await?.into_inner();
        ensure!(now.count as usize == now.kvs.len(), "{} keys of {}", now.kvs.len(), now.count);
        let before = client.kv.clone().range(all(hash.compact_revision.max(1))).await?.into_inner().kvs;
        let mut leases = BTreeMap::new();
        for lease in client.lease.clone().lease_leases(pb::LeaseLeasesRequest {}).await?.into_inner().leases {
            let request = pb::LeaseTimeToLiveRequest { id: lease.id, keys: true };
            let mut of = client.lease.clone().lease_time_to_live(request).await?.into_inner();
            ensure!(of.ttl > of.granted_ttl - 3600, "{of:?} has not begun anew");
            of.keys.sort();
            leases.insert(lease.id, (of.granted_ttl, of.keys));
        }
        let alarms = maintenance.alarm(pb::AlarmRequest::default()).await?.into_inner().alarms;
        let alarms = alarms.into_iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect();
        let hash = (hash.hash, hash.compact_revision, hash.hash_revision);
        Ok(Seen { revision, hash, now: now.kvs, before, leases, alarms })
    }
}

/// What a watch of all keys from a revision on tells, up to a revision: keys and revisions of its events, or the
/// compacted revision that it is ended with.
async fn watched(client: &Client, from: i64, to: i64) -> Result<Result<Vec<(Bytes, i64)>, i64>> {
    let create = pb::WatchCreateRequest {
        key: Bytes::from_static(&[0]),
        range_end: Bytes::from_static(&[0]),
        start_revision: from,
        ..Default::default()
    };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    requests.send(create).await?;
    let requests_for = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = client.watch.clone().watch(requests_for).await?.into_inner();
    let mut events = Vec::new();
    while let Some(answer) = tokio::time::timeout(PATIENCE, answers.message()).await?? {
        if answer.canceled {
            return Ok(Err(answer.compact_revision));
        }
        let kvs = answer.events.into_iter().filter_map(|event| event.kv);
        events.extend(kvs.map(|kv| (kv.key, kv.mod_revision)));
        if events.last().is_some_and(|(_, revision)| *revision >= to) {
            return Ok(Ok(events));
        }
    }
    bail!("the watch ended")
}

/// Asks for a snapshot and checks how it comes; gives the file.
async fn stream(client: &Client) -> Result<Vec<u8>> {
    let mut answers = client.maintenance.clone().snapshot(pb::SnapshotRequest {}).await?.into_inner();
    let mut chunks = Vec::new();
    while let Some(chunk) = answers.message().await? {
        ensure!(chunk.header.is_none() && chunk.version == "3.7.0", "{:?} {}", chunk.header, chunk.version);
        chunks.push((chunk.remaining_bytes, chunk.blob));
    }
    let (left, digest) = chunks.pop().context("a digest")?;
    ensure!((left, digest.len()) == (0, 32), "{left} {}", digest.len());
    let mut file = Vec::new();
    let total: u64 = chunks.iter().map(|(_, blob)| blob.len() as u64).sum();
    for (at, (left, blob)) in chunks.iter().enumerate() {
        file.extend_from_slice(blob);
        ensure!(*left == total - file.len() as u64, "{left} at {at}");
        ensure!(blob.len() == CHUNK || at + 1 == chunks.len(), "{} bytes at {at}", blob.len());
    }
    ensure!(file.len() % 4096 == 0 && digest == Sha256::digest(&file).as_slice());
    file.extend_from_slice(&digest);
    Ok(file)
}

/// What is restored, for the member that is to start on it.
fn parameters(snapshot: &Path, member: &Member) -> Restore {
    let cluster = member.options().initial_cluster.clone();
    Restore {
        snapshot: snapshot.to_owned(),
        name: member.name().to_owned(),
        initial_cluster: cluster.unwrap_or_else(|| format!("{}={}", member.name(), member.peer_url())),
        token: member.options().token.clone(),
        advertise_peer_urls: member.peer_url(),
        data_dir: member.data_dir(),
        wal_dir: None,
        skip_hash_check: false,
        bump_revision: 0,
        mark_compacted: false,
    }
}

/// Restores with our tool or etcd's, as the member's program is.
fn restore_for(member: &Member, snapshot: &Path, bump: u64) -> Result<()> {
    let parameters =
        Restore { bump_revision: bump, mark_compacted: bump > 0, ..parameters(snapshot, member) };
    if member.options().program.is_ours() {
        restore::restore(&parameters, &mut |_| {})?;
        return Ok(());
    }
    let flag = |name: &str, value: &str| format!("--{name}={value}");
    let mut args = vec![
        "snapshot".to_owned(),
        "restore".to_owned(),
        text(snapshot).to_owned(),
        flag("name", &parameters.name),
        flag("initial-cluster", &parameters.initial_cluster),
        flag("initial-cluster-token", &parameters.token),
        flag("initial-advertise-peer-urls", &parameters.advertise_peer_urls),
        flag("data-dir", text(&parameters.data_dir)),
    ];
    if bump > 0 {
        args.extend([flag("bump-revision", &bump.to_string()), "--mark-compacted".to_owned()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run(&official("etcdutl").context("etcdutl beside etcd")?, &args)?;
    Ok(())
}

async fn start_restored(program: Program, snapshot: &Path, bump: u64) -> Result<Member> {
    let mut member = Member::prepare(Options::new(program))?;
    restore_for(&member, snapshot, bump)?;
    member.start_again().await?;
    Ok(member)
}

async fn disarm(client: &Client) -> Result<()> {
    let alarm = pb::AlarmRequest { action: 2, member_id: 5, alarm: 1 };
    client.maintenance.clone().alarm(alarm).await?;
    client.put("after", "1").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_is_shaped_as_etcds_and_its_file_comes_back() -> Result<()> {
    let member = Member::start(program()).await?;
    let client = member.connect().await?;
    stream(&client).await.context("of an empty store")?;
    fill(&client).await?;
    let seen = Seen::by(&client).await?;
    let file = member.dir().join("file");
    let bytes = stream(&client).await?;
    std::fs::write(&file, &bytes)?;
    ensure!(bytes.len() > 1_400_000, "{} bytes", bytes.len());
    if let Some(etcdutl) = official("etcdutl") {
        run(&etcdutl, &["snapshot", "status", text(&file)])?;
    } else {
        skipped("etcd's own check of the file", "no etcdutl beside REAL_ETCD_BIN");
    }
    if !program().is_ours() {
        return Ok(());
    }
    let (_, _, metrics) = http(member.client_port(), "GET", "/metrics")?;
    let value = |line: &str| metrics.lines().find_map(|found| found.strip_prefix(line)).map(str::trim);
    assert_eq!(value("etcd_disk_backend_snapshot_duration_seconds_count"), Some("2"));
    let method =
        "grpc_method=\"Snapshot\",grpc_service=\"etcdserverpb.Maintenance\",grpc_type=\"server_stream\"}";
    assert_eq!(value(&format!("grpc_server_handled_total{{grpc_code=\"OK\",{method}")), Some("2"));
    let log = member.log();
    for line in ["sending database snapshot to client", "successfully sent database snapshot to client"] {
        ensure!(log.matches(&format!("\"{line}\"")).count() == 2, "{line}");
    }
    let mut restored = start_restored(program(), &file, 0).await?;
    let client = restored.connect().await?;
    assert_eq!(Seen::by(&client).await?, seen);
    disarm(&client).await?;
    // What is saved of it now, and after another start, is whole as well.
    let seen = Seen::by(&client).await?;
    restored.terminate().await?;
    restored.start_again().await?;
    let client = restored.connect().await?;
    std::fs::write(&file, stream(&client).await?)?;
    let again = start_restored(program(), &file, 0).await?;
    assert_eq!(Seen::by(&again.connect().await?).await?, seen);
    Ok(())
}

/// {ours, etcd} × {ours, etcd}: saved by one, restored and started by the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_square() -> Result<()> {
    let (Some(etcd), Some(etcdctl), true) = (Program::etcd(), official("etcdctl"), program().is_ours())
    else {
        skipped("the square", "etcd and its tools are not there");
        return Ok(());
    };
    for from in [program(), etcd.clone()] {
        let source = Member::start(from.clone()).await?;
        let client = source.connect().await?;
        fill(&client).await?;
        let mut auth = AuthClient::new(client.channel.clone());
        if !from.is_ours() {
            // Carried through; not turned on, as ours would not start on it.
            for name in ["root", "reader"] {
                let user = pb::AuthUserAddRequest {
                    name: name.into(),
                    password: "secret".into(),
                    ..Default::default()
                };
                auth.user_add(user).await?;
                auth.role_add(pb::AuthRoleAddRequest { name: name.into() }).await?;
            }
        }
        let seen = Seen::by(&client).await?;
        let history = watched(&client, seen.hash.1, seen.revision).await?;
        ensure!(history.as_ref().is_ok_and(|events| events.len() > 100), "{history:?}");
        let file = source.dir().join("file");
        let endpoint = source.client_url();
        run(&etcdctl, &["--endpoints", &endpoint, "snapshot", "save", text(&file)])?;
        let mut raised_hash = None;
        for to in [program(), etcd.clone()] {
            let what = format!("from ours: {}, to ours: {}", from.is_ours(), to.is_ours());
            let target = start_restored(to.clone(), &file, 0).await.context(what.clone())?;
            let client = target.connect().await?;
            assert_eq!(Seen::by(&client).await?, seen, "{what}");
            assert_eq!(watched(&client, seen.hash.1, seen.revision).await?, history, "{what}");
            disarm(&client).await.context(what.clone())?;
            let raised = start_restored(to.clone(), &file, 1_000_000).await.context(what.clone())?;
            let client = raised.connect().await?;
            let revision = seen.revision + 1_000_000;
            assert_eq!(watched(&client, seen.revision, revision).await?, Err(revision), "{what}");
            let raised = Seen::by(&client).await?;
            assert_eq!(
                (raised.revision, raised.hash.1, raised.hash.2),
                (revision, revision, revision),
                "{what}"
            );
            assert_eq!((&raised.now, &raised.before), (&seen.now, &seen.now), "{what}");
            assert_eq!(raised.leases, seen.leases, "{what}");
            assert_eq!(*raised_hash.get_or_insert(raised.hash), raised.hash, "{what}");
            disarm(&client).await.context(what.clone())?;
            // From here to the other side again.
            let now = Seen::by(&client).await?;
            let again = target.dir().join("again");
            std::fs::write(&again, stream(&client).await?)?;
            for last in [program(), etcd.clone()] {
                let member = start_restored(last, &again, 0).await.context(what.clone())?;
                assert_eq!(Seen::by(&member.connect().await?).await?, now, "{what}, and again");
            }
        }
    }
    Ok(())
}

/// Of the users and roles of an etcd nothing is lost on the way through ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_roles_are_carried_through() -> Result<()> {
    let (Some(etcd), true) = (Program::etcd(), program().is_ours() && official("etcdutl").is_some()) else {
        skipped("users and roles", "etcd and its tools are not there");
        return Ok(());
    };
    let source = Member::start(etcd.clone()).await?;
    let client = source.connect().await?;
    client.put("k", "v").await?;
    let mut auth = AuthClient::new(client.channel.clone());
    for name in ["root", "reader"] {
        let user =
            pb::AuthUserAddRequest { name: name.into(), password: "secret".into(), ..Default::default() };
        auth.user_add(user).await?;
        auth.role_add(pb::AuthRoleAddRequest { name: name.into() }).await?;
        auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: name.into(), role: name.into() }).await?;
    }
    let off = source.dir().join("off");
    std::fs::write(&off, stream(&client).await?)?;
    auth.auth_enable(pb::AuthEnableRequest {}).await?;
    let login = pb::AuthenticateRequest { name: "root".into(), password: "secret".into() };
    let token = auth.authenticate(login).await?.into_inner().token;
    let on = source.dir().join("on");
    let mut request = tonic::Request::new(pb::SnapshotRequest {});
    request.metadata_mut().insert("token", token.parse()?);
    let mut answers = client.maintenance.clone().snapshot(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = answers.message().await? {
        bytes.extend_from_slice(&chunk.blob);
    }
    std::fs::write(&on, bytes)?;

    let ours = start_restored(program(), &off, 0).await?;
    let through = ours.dir().join("through");
    std::fs::write(&through, stream(&ours.connect().await?).await?)?;
    let back = start_restored(etcd, &through, 0).await?;
    let client = back.connect().await?;
    let mut auth = AuthClient::new(client.channel.clone());
    auth.auth_enable(pb::AuthEnableRequest {}).await?;
    let login = pb::AuthenticateRequest { name: "reader".into(), password: "secret".into() };
    auth.authenticate(login).await.context("the password is still the one it was")?;

    // What cannot be enforced is not served.
    let mut ours = Member::prepare(Options::new(program()))?;
    restore_for(&ours, &on, 0)?;
    let refused = ours.start_again().await.expect_err("it must not start");
    ensure!(format!("{refused:#}").contains("authentication"), "{refused:#}");
    Ok(())
}

/// Three members that were restored one by one elect a leader, and are one cluster with all that was saved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_start_on_one_snapshot() -> Result<()> {
    if !program().is_ours() {
        return Ok(());
    }
    let source = Member::start(program()).await?;
    let client = source.connect().await?;
    fill(&client).await?;
    let seen = Seen::by(&client).await?;
    let file = source.dir().join("file");
    std::fs::write(&file, stream(&client).await?)?;
    let mut members = three(true, |_| &file).await?;
    let mut clients = Vec::new();
    for member in &members {
        let client = member.connect().await?;
        assert_eq!(Seen::by(&client).await?, seen, "{}", member.name());
        clients.push(client);
    }
    disarm(&clients[0]).await?;
    let list = clients[1].members(true).await?.members;
    let mut names: Vec<_> = list.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
    // They live on as any cluster: without one of them, and with it again.
    members[2].kill().await?;
    for at in 0..50 {
        eventually("a write", || async { Ok(clients[0].put(format!("w/{at}"), "1").await?) }).await?;
    }
    members[2].start_again().await?;
    let revision = clients[0].hash_kv(0).await?.header.unwrap_or_default().revision;
    for (client, member) in clients.iter().zip(&members).take(2) {
        eventually("the same everywhere", || async {
            let (a, b) = (clients[0].hash_kv(revision).await?, client.hash_kv(revision).await?);
            ensure!(a.hash == b.hash, "{}", member.name());
            Ok(())
        })
        .await?;
    }
    let last = members[2].connect().await?;
    eventually("the last one has it all", || async {
        let (a, b) = (clients[0].hash_kv(revision).await?, last.hash_kv(revision).await?);
        ensure!(a.hash == b.hash, "it differs");
        Ok(())
    })
    .await
}

/// Three members of one cluster, each restored from the file for its number, and started.
async fn three<'a>(corrupt_check: bool, file: impl Fn(usize) -> &'a Path) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        let mut options = Options::new(program());
        options.name = name.to_owned();
        options.args.push(format!("--feature-gates=InitialCorruptCheck={corrupt_check}"));
        members.push(Member::prepare(options)?);
    }
    let cluster: Vec<_> = members.iter().map(|m| format!("{}={}", m.name(), m.peer_url())).collect();
    for (at, member) in members.iter_mut().enumerate() {
        member.options_mut().initial_cluster = Some(cluster.join(","));
        restore_for(member, file(at), 0)?;
        member.spawn()?;
    }
    for member in &mut members {
        member.ready().await?;
    }
    Ok(members)
}

/// etcd would go on with members that answer differently.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_restored_from_different_snapshots_find_out() -> Result<()> {
    if !program().is_ours() {
        return Ok(());
    }
    let source = Member::start(program()).await?;
    let client = source.connect().await?;
    let files = [source.dir().join("first"), source.dir().join("second")];
    for file in &files {
        client.put("k", "v").await?;
        std::fs::write(file, stream(&client).await?)?;
    }
    let members = three(false, |at| &files[usize::from(at == 2)]).await?;
    eventually("one of them is refused", || async {
        for member in &members {
            if let Err(status) = member.connect().await?.get("k").await
                && status.code() == tonic::Code::DataLoss
            {
                return Ok(());
            }
        }
        bail!("none is")
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_has_a_snapshot_too() -> Result<()> {
    let mut cluster = Cluster::start(Shape::new(program(), 1)).await?;
    cluster.client(0).put("k", "v").await?;
    let learner = cluster.grow().await?;
    cluster.add(learner, true, 0).await?;
    cluster[learner].start_again().await?;
    let client = cluster.client(learner);
    eventually("the learner has the data", || async {
        ensure!(client.get_serializable("k").await?.is_some(), "not yet");
        Ok(())
    })
    .await?;
    stream(&client).await?;
    cluster.finish().await
}

/// A member with 3,000 pairs under `k/`, and a snapshot of it beside its data.
async fn source_of_pairs() -> Result<(Member, PathBuf)> {
    let source = Member::start(program()).await?;
    let client = source.connect().await?;
    for at in 0..3000 {
        client.put(format!("k/{at}"), vec![b'v'; 2000]).await?;
    }
    let file = source.dir().join("file");
    std::fs::write(&file, stream(&client).await?)?;
    Ok((source, file))
}

/// Killed at any moment a restore leaves what no member starts on, or all of it, and can be done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_restore_is_none() -> Result<()> {
    if !program().is_ours() {
        return Ok(());
    }
    let (_source, file) = source_of_pairs().await?;
    let (mut refused, mut whole) = (0, 0);
    for wait_ms in [10, 30, 60, 100, 150, 200, 300, 400, 600, 900, 1300, 3000] {
        let mut member = Member::prepare(Options::new(program()))?;
        let data_dir = member.data_dir();
        let mut child =
            member.restore(&Program::etcdutl(), &file).stderr(std::process::Stdio::null()).spawn()?;
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        child.kill()?;
        child.wait()?;
        // Before there is anything, a start would found a new cluster, as it would have without a restore.
        if !data_dir.join("member").exists() && data_dir.join("member.restoring").exists() {
            let error = member.start_again().await.expect_err("half a restore");
            ensure!(format!("{error:#}").contains("has not finished"), "{error:#}");
            refused += 1;
        }
        if !data_dir.join("member").exists() {
            restore_for(&member, &file, 0)?;
        } else {
            whole += 1;
        }
        member.start_again().await.with_context(|| format!("after {wait_ms} ms"))?;
        ensure!(member.connect().await?.count("k/").await? == 3000);
        member.kill().await?;
    }
    eprintln!("of 12 restores that were killed {refused} were half done, {whole} were done");
    Ok(())
}

/// Killed at any moment of the first start on a restored directory a member begins anew, and has everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_first_start_begins_anew() -> Result<()> {
    if !program().is_ours() {
        return Ok(());
    }
    let (_source, file) = source_of_pairs().await?;
    let (mut under_way, mut done) = (0, 0);
    for wait_ms in [20, 50, 100, 150, 200, 300, 400, 600, 900, 1300] {
        let mut member = Member::prepare(Options::new(program()))?;
        restore_for(&member, &file, 0)?;
        let data = member.data_dir();
        // A second kill finds what the first left.
        for wait_ms in [wait_ms, wait_ms / 2] {
            member.spawn()?;
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            member.kill().await?;
            under_way += u32::from(data.join("member.restoring").exists());
        }
        done += u32::from(data.join("member").join("snap").join("db").is_dir());
        member.start_again().await.with_context(|| format!("after {wait_ms} ms"))?;
        ensure!(member.connect().await?.count("k/").await? == 3000);
        ensure!(!data.join("member.restoring").exists() && !data.join("member.taken-over").exists());
        member.kill().await?;
    }
    eprintln!(
        "of 20 first starts that were killed {under_way} were half done; {done} of 10 directories were taken over"
    );
    Ok(())
}

/// A client that goes away takes its snapshot with it, and others get theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_come_and_go() -> Result<()> {
    let member = Member::start(program()).await?;
    let client = member.connect().await?;
    for at in 0..40 {
        client.put(format!("k/{at}"), vec![b'v'; 1_000_000]).await?;
    }
    let mut given_up = Vec::new();
    for _ in 0..8 {
        // On a connection of its own: what is not read must not be in the way of others.
        let client = member.connect().await?;
        let mut answers = client.maintenance.clone().snapshot(pb::SnapshotRequest {}).await?.into_inner();
        answers.message().await?.context("a chunk")?;
        given_up.push(answers);
    }
    // Eight stand still, and two more are served.
    let (a, b) = tokio::join!(stream(&client), stream(&client));
    ensure!(a?.len() > 40_000_000 && b?.len() > 40_000_000);
    drop(given_up);
    client.put("k", "v").await?;
    if program().is_ours() {
        eventually("the threads end", || async {
            let gone = member.log().matches("the client of a database snapshot has gone").count();
            ensure!(gone == 8, "{gone} have");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
