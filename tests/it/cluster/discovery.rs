//! Clusters that find their members in a registry, which our server keeps, and etcd's where it is there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::auth_client::AuthClient;
use proto::mvccpb::KeyValue;
use tests::{Authority, Client, KeyPair, Member, Options, Program, eventually, free_port, skipped};

use crate::program;

/// How long a member that refuses to start may take for that.
const EXIT_MAX: Duration = Duration::from_secs(30);

/// The programs that keep registries.
fn services() -> Vec<Program> {
    let etcd = Program::etcd();
    if etcd.is_none() {
        skipped("discovery with etcd's own registry", "REAL_ETCD_BIN is not set");
    }
    [Some(program()), etcd].into_iter().flatten().collect()
}

/// A member that has never started and knows where a registry is.
fn member(name: &str, endpoints: &str, token: &str, more: &[&str]) -> Result<Member> {
    let mut options = Options::new(program())
        .arg(format!("--discovery-endpoints={endpoints}"))
        .arg(format!("--discovery-token={token}"));
    options.args.extend(more.iter().map(|flag| (*flag).to_owned()));
    options.name = name.to_owned();
    options.initial_cluster = Some(String::new());
    Member::prepare(options)
}

/// Starts a member that does not get far, and gives what it printed.
async fn refused(mut member: Member) -> Result<String> {
    member.spawn()?;
    let status = member.wait_exit(EXIT_MAX).await?;
    ensure!(status.code() == Some(1), "{status}: {}", member.log_tail());
    // In the log, quotes are escaped.
    Ok(member.log().replace("\\\"", "\""))
}

async fn registered(service: &Client, token: &str) -> Result<Vec<KeyValue>> {
    let prefix = format!("/_etcd/registry/{token}/members/");
    let mut end = prefix.clone().into_bytes();
    *end.last_mut().expect("not empty") += 1;
    let request =
        pb::RangeRequest { key: prefix.into(), range_end: end.into(), ..pb::RangeRequest::default() };
    Ok(service.kv.clone().range(request).await?.into_inner().kvs)
}

async fn logs(member: &Member, text: &str) -> Result<()> {
    let seen = || async {
        let log = member.log();
        ensure!(log.contains(text), "{} does not log {text:?}", member.name());
        Ok(())
    };
    eventually("a line in a log", seen).await
}

fn size_key(token: &str) -> String {
    format!("/_etcd/registry/{token}/_config/size")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_find_each_other_in_a_registry() -> Result<()> {
    for service in services() {
        let service = Member::start(service).await?;
        let (registry, endpoint) = (service.connect().await?, service.client_url());
        registry.put(size_key("t"), "3").await?;
        let dead = free_port();
        let endpoints = format!("http://127.0.0.1:{dead},{endpoint}");
        let mut members = Vec::new();
        for name in ["a", "b"] {
            members.push(member(name, &endpoints, "t", &[])?);
        }
        // Without a scheme it is plain as well.
        members.push(member("c", endpoint.trim_start_matches("http://"), "t", &[])?);
        for member in &mut members {
            member.spawn()?;
        }
        for member in &mut members {
            member.ready().await?;
        }
        let client = members[0].connect().await?;
        client.put("k", "v").await?;
        ensure!(members[2].connect().await?.get("k").await?.is_some());
        let listed = client.members(true).await?.members;
        let mut found = registered(&registry, "t").await?;
        found.sort_by(|a, b| a.value.cmp(&b.value));
        ensure!(found.len() == 3 && listed.len() == 3, "{found:?}, {listed:?}");
        for (member, row) in members.iter().zip(&found) {
            ensure!(row.value == format!("{}={}", member.name(), member.peer_url()), "{row:?}");
            let listed = listed.iter().find(|listed| listed.name == member.name()).context("listed")?;
            let key = format!("/_etcd/registry/t/members/{:x}", listed.id);
            ensure!(row.key == key, "{row:?} is not {key}");
        }

        let log = refused(member("d", &endpoint, "t", &[])?).await?;
        ensure!(log.contains("failed to join discovery cluster (discovery: cluster is full)"), "{log}");
        ensure!(log.contains("do not reuse discovery token; generate a new one to bootstrap a cluster"));
        ensure!(registered(&registry, "t").await?.len() == 3);

        members[1].kill().await?;
        members[1].start_again().await?;
        logs(&members[1], "discovery token is ignored since cluster already initialized").await?;
    }
    Ok(())
}

/// What one program writes the other must be able to read, and IDs come from the token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_registers_as_etcd_does() -> Result<()> {
    let Some(etcd) = Program::etcd() else {
        skipped("what etcd writes into a registry", "REAL_ETCD_BIN is not set");
        return Ok(());
    };
    let (peer_port, mut seen) = (free_port(), Vec::new());
    for program in [etcd, program()] {
        let service = Member::start(Program::ours()).await?;
        let registry = service.connect().await?;
        registry.put(size_key("a/../t"), "1").await?;
        registry.put(size_key("t"), "1").await?;
        let mut member = member("m", &service.client_url(), "a/../t", &[])?;
        member.options_mut().program = program;
        member.options_mut().peer_url = Some(format!("http://127.0.0.1:{peer_port}"));
        member.spawn()?;
        member.ready().await?;
        let rows = registered(&registry, "t").await?;
        let header = member.connect().await?.status().await?.header.context("a header")?;
        seen.push((rows, header.member_id, header.cluster_id));
    }
    ensure!(seen[0].0.len() == 1 && seen[0] == seen[1], "{seen:?}");
    Ok(())
}

/// Two wait for a third while the registry is down and up again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_wait_for_the_last_one_and_for_the_registry() -> Result<()> {
    let mut service = Member::prepare(Options::new(program()))?;
    let endpoint = service.client_url();
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        members.push(member(name, &endpoint, "t", &["--discovery-request-timeout=500ms"])?);
    }
    members[0].spawn()?;
    logs(&members[0], "failed to get cluster size from discovery service").await?;
    logs(&members[0], "retry connecting to discovery service").await?;
    service.start_again().await?;
    service.connect().await?.put(size_key("t"), "3").await?;
    members[1].spawn()?;
    for member in &members[..2] {
        logs(member, "waiting for peers from discovery service").await?;
    }
    service.kill().await?;
    for member in &members[..2] {
        logs(member, "failed to watch cluster members in discovery service").await?;
    }
    service.start_again().await?;
    members[2].spawn()?;
    for member in &mut members {
        member.ready().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_in_a_registry_is_said_in_etcds_words() -> Result<()> {
    let mut programs = vec![program()];
    programs.extend(Program::etcd());
    let service = Member::start(program()).await?;
    let (registry, endpoint) = (service.connect().await?, service.client_url());
    for (at, program) in programs.into_iter().enumerate() {
        let token = |name: &str| format!("{name}{at}");
        registry.put(size_key(&token("none")), "0").await?;
        registry.put(size_key(&token("text")), "three").await?;
        registry.put(size_key(&token("url")), "2").await?;
        registry.put(format!("/_etcd/registry/{}/members/1", token("url")), "x=nowhere").await?;
        registry.put(size_key(&token("twice")), "2").await?;
        let mut twice = member("m", &endpoint, &token("twice"), &[])?;
        let other = format!("x={}", twice.peer_url());
        registry.put(format!("/_etcd/registry/{}/members/1", token("twice")), other.clone()).await?;
        let own = format!("m={}", twice.peer_url());
        let existing = member("m", &endpoint, &token("text"), &["--initial-cluster-state=existing"])?;
        twice.options_mut().program = program.clone();
        let is_ours = program.is_ours();
        let with = |mut member: Member| {
            member.options_mut().program = program.clone();
            member
        };
        let of = |name: &str, more: &[&str]| member("m", &endpoint, &token(name), more).map(with);
        for (member, text) in [
            (of("lost", &[])?, "failed to join discovery cluster (discovery: size key not found)".to_owned()),
            (of("none", &[])?, "failed to join discovery cluster (discovery: size key is bad)".to_owned()),
            (of("text", &[])?, "failed to join discovery cluster (discovery: size key is bad)".to_owned()),
            (of("url", &[])?, "failed to join discovery cluster (discovery: invalid peer URL)".to_owned()),
            (
                of("lost", &["--discovery-cert=/nowhere"])?,
                "failed to join discovery cluster (KeyFile and CertFile must both be present[key: , cert: /nowhere])".to_owned(),
            ),
            (with(existing), "discovery URL should not be set when joining existing initial cluster".to_owned()),
            (twice, format!("discovery cluster {own},{other} has duplicate url")),
        ] {
            let log = refused(member).await?;
            ensure!(log.contains(&text), "ours: {is_ours}: no {text:?} in {log}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_may_want_certificates() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new(dir.path())?;
    let KeyPair { cert, key, ca } = authority.issue("discovery")?;
    let (cert, key) =
        (format!("--discovery-cert={}", cert.display()), format!("--discovery-key={}", key.display()));
    let ca = format!("--discovery-cacert={}", ca.display());
    for program in services() {
        let mut options = Options::new(program);
        options.tls = Some(authority.issue("service")?);
        let service = Member::start_with(options).await?;
        let (registry, endpoint) = (service.connect().await?, service.client_url());
        let bare = endpoint.trim_start_matches("https://").to_owned();
        let skips = "--discovery-insecure-skip-tls-verify";
        let plain = "--discovery-insecure-transport=false";
        for (token, endpoint, flags) in [
            ("a", &endpoint, vec![cert.as_str(), &key, &ca]),
            ("b", &bare, vec![cert.as_str(), &key, &ca]),
            ("c", &bare, vec![cert.as_str(), &key, skips, plain]),
        ] {
            registry.put(size_key(token), "1").await?;
            let mut member = member("m", endpoint, token, &flags)?;
            member.spawn()?;
            member.ready().await.with_context(|| format!("with {flags:?}"))?;
        }
        // No certificate, nobody trusted, no TLS at all: it does not get in, and goes on trying.
        registry.put(size_key("d"), "1").await?;
        for flags in [vec![ca.as_str()], vec![cert.as_str(), &key], vec![]] {
            let endpoint = if flags.is_empty() { &bare } else { &endpoint };
            let mut member =
                member("m", endpoint, "d", &[flags, vec!["--discovery-request-timeout=500ms"]].concat())?;
            member.spawn()?;
            logs(&member, "retry connecting to discovery service").await?;
            ensure!(member.runs() && registered(&registry, "d").await?.is_empty());
        }
    }
    Ok(())
}

/// Our server has no authentication yet, so that etcd's keeps the registry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_may_want_a_login() -> Result<()> {
    let Some(etcd) = Program::etcd() else {
        skipped("discovery with a login", "REAL_ETCD_BIN is not set");
        return Ok(());
    };
    let service = Member::start(etcd).await?;
    let (registry, endpoint) = (service.connect().await?, service.client_url());
    registry.put(size_key("t"), "2").await?;
    // Before authentication is on, a login is not asked for and does no harm.
    let mut early = member("a", &endpoint, "t", &["--discovery-user=root:secret"])?;
    early.spawn()?;
    logs(&early, "waiting for peers from discovery service").await?;

    let mut auth = AuthClient::new(registry.channel.clone());
    let (root, secret) = ("root".to_owned(), "secret".to_owned());
    auth.user_add(pb::AuthUserAddRequest { name: root.clone(), password: secret, ..Default::default() })
        .await?;
    auth.role_add(pb::AuthRoleAddRequest { name: root.clone() }).await?;
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: root.clone(), role: root }).await?;
    auth.auth_enable(pb::AuthEnableRequest {}).await?;

    let wrong = member("b", &endpoint, "t", &["--discovery-user=root", "--discovery-password=wrong"])?;
    let log = refused(wrong).await?;
    let text =
        "failed to join discovery cluster (etcdserver: authentication failed, invalid user ID or password)";
    ensure!(log.contains(text), "{log}");
    let mut nobody = member("b", &endpoint, "t", &[])?;
    nobody.spawn()?;
    logs(&nobody, "etcdserver: user name is empty").await?;
    nobody.kill().await?;

    let mut right = member("b", &endpoint, "t", &["--discovery-user=root", "--discovery-password=secret"])?;
    right.spawn()?;
    right.ready().await?;
    early.ready().await
}
