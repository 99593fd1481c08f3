//! Large snapshots that cross over: saved from either server by either tool, restored by either, started by either.
//!
//! ```text
//!   etcd ─┐                ┌─ our etcdutl ────┐    ┌─► ours
//!         ├─► two files ───┤                  ├────┤
//!   ours ─┘                └─ etcd's etcdutl ─┘    └─► etcd
//! ```
//!
//! Every way gives the same keys, revisions, leases, alarms and HashKV, and goes on from there.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::{self as pb, AlarmType, request_op::Request};
use tests::{Client, Member, Options, Program, skipped};

/// Keys that are put once.
const KEYS: usize = 100_000;
/// Keys that are put by one transaction.
const KEYS_AT_ONCE: usize = 100;
/// Revisions of the one key that changes often.
const REVISIONS: usize = 3_000;
/// Bytes of the largest value: near what a request may have.
const LARGE: usize = 1_400_000;
/// The lease that holds keys, and its TTL in seconds: it outlives the test.
const LEASE: (i64, i64) = (0x2040_a1fd, 86_400);

/// The programs of one side.
struct Side {
    server: Program,
    etcdctl: PathBuf,
    etcdutl: PathBuf,
}

impl Side {
    fn ours() -> Side {
        Side { server: Program::ours(), etcdctl: Program::etcdctl(), etcdutl: Program::etcdutl() }
    }

    /// etcd's own, where the environment names all three.
    fn etcd() -> Option<Side> {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        Some(Side {
            server: Program::etcd()?,
            etcdctl: path("OFFICIAL_ETCDCTL_BIN")?,
            etcdutl: path("OFFICIAL_ETCDUTL_BIN")?,
        })
    }

    /// Saves what the server at a URL has, whichever server that is.
    fn save(&self, url: &str, file: &Path) -> Result<()> {
        run(Command::new(&self.etcdctl).arg("--endpoints").arg(url).args(["snapshot", "save"]).arg(file))?;
        Ok(())
    }

    fn status(&self, file: &Path) -> Result<String> {
        let output = run(Command::new(&self.etcdutl).args(["snapshot", "status"]).arg(file))?;
        Ok(String::from_utf8(output.stdout)?)
    }

    fn restore(&self, file: &Path, member: &Member) -> Result<()> {
        run(&mut member.restore(&self.etcdutl, file))?;
        Ok(())
    }
}

fn run(command: &mut Command) -> Result<Output> {
    command.envs([("ETCDCTL_API", "3")]);
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    Ok(output)
}

fn member(server: &Program) -> Options {
    let mut options = Options::new(server.clone());
    options.token = "square".to_owned();
    options
}

/// Everything that has to come through.
#[derive(Debug, PartialEq)]
struct Content {
    revision: i64,
    hash: u32,
    compact_revision: i64,
    pairs: Vec<proto::mvccpb::KeyValue>,
    /// The often changed key at its oldest revision that is left.
    oldest: Vec<proto::mvccpb::KeyValue>,
    leases: Vec<(i64, i64, Vec<Vec<u8>>)>,
    alarms: Vec<pb::AlarmMember>,
}

async fn content(client: &Client) -> Result<Content> {
    let everything =
        pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    let range = client.kv.clone().range(everything.clone()).await?.into_inner();
    let revision = range.header.context("a header")?.revision;
    let hash = client.hash_kv(revision).await?;
    let at = hash.compact_revision;
    let old = pb::RangeRequest { key: "often".into(), revision: at, ..Default::default() };
    let mut leases = Vec::new();
    for lease in client.lease.clone().lease_leases(pb::LeaseLeasesRequest {}).await?.into_inner().leases {
        let request = pb::LeaseTimeToLiveRequest { id: lease.id, keys: true };
        let left = client.lease.clone().lease_time_to_live(request).await?.into_inner();
        let mut keys: Vec<Vec<u8>> = left.keys.into_iter().map(Into::into).collect();
        keys.sort();
        leases.push((lease.id, left.granted_ttl, keys));
    }
    Ok(Content {
        revision,
        hash: hash.hash,
        compact_revision: hash.compact_revision,
        pairs: range.kvs,
        oldest: client.kv.clone().range(old).await?.into_inner().kvs,
        leases,
        alarms: client.maintenance.clone().alarm(pb::AlarmRequest::default()).await?.into_inner().alarms,
    })
}

/// Fills a store: many keys, deletions, revisions of one key, a large value, a lease with keys, a compaction in the
/// middle, an alarm.
async fn fill(client: &Client, keys: usize) -> Result<()> {
    let (id, ttl) = LEASE;
    client.lease.clone().lease_grant(pb::LeaseGrantRequest { id, ttl }).await?;
    for from in (0..keys).step_by(KEYS_AT_ONCE) {
        let puts = (from..(from + KEYS_AT_ONCE).min(keys)).map(|at| pb::RequestOp {
            request: Some(Request::RequestPut(pb::PutRequest {
                key: format!("key/{at:06}").into(),
                value: format!("value of {at}").into(),
                lease: if at % 1_000 == 7 { id } else { 0 },
                ..Default::default()
            })),
        });
        client.kv.clone().txn(pb::TxnRequest { success: puts.collect(), ..Default::default() }).await?;
    }
    for round in 0..REVISIONS {
        client.put("often", format!("{round}")).await?;
        if round == REVISIONS / 2 {
            delete(client, "key/00").await?;
            let at = client.status().await?.header.context("a header")?.revision;
            client.kv.clone().compact(pb::CompactionRequest { revision: at, physical: true }).await?;
        }
    }
    client.put("large", vec![b'x'; LARGE]).await?;
    // Some that stay deleted, and some that come back.
    delete(client, "key/05").await?;
    for at in (50_000..50_100).filter(|at| *at < keys) {
        client.put(format!("key/{at:06}"), "back").await?;
    }
    let (member_id, alarm) = (5, AlarmType::Corrupt.into());
    let alarm = pb::AlarmRequest { action: AlarmAction::Activate.into(), member_id, alarm };
    client.maintenance.clone().alarm(alarm).await?;
    Ok(())
}

async fn delete(client: &Client, prefix: &str) -> Result<()> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().context("a prefix")? += 1;
    let request =
        pb::DeleteRangeRequest { key: prefix.to_owned().into(), range_end: end.into(), prev_kv: false };
    client.kv.clone().delete_range(request).await?;
    Ok(())
}

/// Starts a server on what a tool restored, and looks whether all is there and it goes on.
async fn serves(mut restored: Member, expected: &Content) -> Result<()> {
    restored.start_again().await?;
    let client = restored.connect().await?;
    let found = content(&client).await?;
    ensure!(found.revision == expected.revision, "revision {} of {}", found.revision, expected.revision);
    ensure!(found == *expected, "the content differs");
    for alarm in found.alarms {
        let pb::AlarmMember { member_id, alarm } = alarm;
        let action = AlarmAction::Deactivate.into();
        client.maintenance.clone().alarm(pb::AlarmRequest { action, member_id, alarm }).await?;
    }
    let header = client.put("often", "after").await?;
    ensure!(header.revision == expected.revision + 1, "it goes on elsewhere");
    restored.kill().await?;
    restored.start_again().await?;
    let pair = restored.connect().await?.get("often").await?.context("a pair")?;
    ensure!(pair.value[..] == b"after"[..], "what was put last is gone");
    Ok(())
}

async fn crossing(saved_by: &Side, ours: &Side, etcd: Option<&Side>, keys: usize) -> Result<()> {
    let mut options = member(&saved_by.server);
    options.args.push("--quota-backend-bytes=4294967296".to_owned());
    let mut source = Member::start_with(options).await?;
    let client = source.connect().await?;
    fill(&client, keys).await?;
    if !saved_by.server.is_ours() {
        let official = etcd.context("etcd's own tools")?;
        // Without being enabled: a server that cannot enforce them refuses to serve.
        for words in ["user add alice:secret", "role add reader", "role grant-permission reader read a b"] {
            let mut command = Command::new(&official.etcdctl);
            run(command.arg("--endpoints").arg(source.client_url()).args(words.split(' ')))?;
        }
    }
    let expected = content(&client).await?;
    ensure!(!expected.leases.is_empty() && expected.compact_revision > 0, "there is something to lose");
    let dir = tempfile::tempdir()?;
    for by in [Some(ours), etcd].into_iter().flatten() {
        let file = dir.path().join("snapshot.db");
        by.save(&source.client_url(), &file)?;
        if let Some(etcd) = etcd {
            assert_eq!(ours.status(&file)?, etcd.status(&file)?, "both tools say the same");
        }
        let sides = || [Some(ours), etcd].into_iter().flatten();
        for (tool, start) in sides().flat_map(|tool| sides().map(move |start| (tool, start))) {
            let restored = Member::prepare(member(&start.server))?;
            tool.restore(&file, &restored)?;
            let (ctl, utl, ours) = (&by.etcdctl, &tool.etcdutl, start.server.is_ours());
            let way = format!("saved by {ctl:?}, restored by {utl:?}, started by ours: {ours}");
            serves(restored, &expected).await.context(way)?;
        }
        std::fs::remove_file(file)?;
    }
    source.kill().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ours_saves_both_restore() -> Result<()> {
    crossing(&Side::ours(), &Side::ours(), Side::etcd().as_ref(), KEYS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_etcd_saves_both_restore() -> Result<()> {
    let Some(etcd) = Side::etcd() else {
        skipped("etcd's snapshots", "REAL_ETCD_BIN, OFFICIAL_ETCDCTL_BIN or OFFICIAL_ETCDUTL_BIN is not set");
        return Ok(());
    };
    crossing(&etcd, &Side::ours(), Some(&etcd), KEYS).await
}
