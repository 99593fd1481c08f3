//! Who may be a peer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::{Authority, Cluster, Member, Options, skipped};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::load::Load;
use super::{shape, within};
use crate::program;

/// How long a stranger is watched not getting in.
const TRIES: Duration = Duration::from_secs(4);

/// A member with a peer at an address where this test listens.
async fn beside(peer: &TcpListener, flags: &[String]) -> Result<Member> {
    let mut options = Options::new(program());
    options.args.extend(flags.iter().cloned());
    let mut member = Member::prepare(options)?;
    let advertised = member
        .options_mut()
        .args
        .iter()
        .find_map(|flag| flag.strip_prefix("--initial-advertise-peer-urls=").map(str::to_owned));
    let own = advertised.unwrap_or_else(|| member.peer_url());
    member.options_mut().initial_cluster = Some(format!("m={own},peer=http://{}", peer.local_addr()?));
    member.spawn()?;
    Ok(member)
}

/// The next connection that is to stay, for gRPC.
async fn accept(peer: &TcpListener) -> Result<(TcpStream, SocketAddr)> {
    loop {
        let (mut stream, from) = peer.accept().await?;
        let mut preface = [0; 14];
        // Before it knows its peers, the member asks by HTTP/1.1.
        if stream.read_exact(&mut preface).await.is_ok() && &preface == b"PRI * HTTP/2.0" {
            return Ok((stream, from));
        }
    }
}

/// How long the other end leaves a connection open on which nothing is said.
async fn open_for(stream: &mut TcpStream) -> Result<Duration> {
    let (began, mut ignored) = (Instant::now(), [0; 4096]);
    // It may end in whatever way.
    while matches!(stream.read(&mut ignored).await, Ok(1..)) {
        ensure!(began.elapsed() < Duration::from_secs(60), "the connection does not end");
    }
    Ok(began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_over_which_nothing_comes_ends_when_the_flag_says() -> Result<()> {
    for (flags, seconds) in [(vec![], 5.0), (vec!["--raft-read-timeout=8s".to_owned()], 8.0)] {
        let peer = TcpListener::bind("127.0.0.1:0").await?;
        let member = beside(&peer, &flags).await?;
        let (mut called, _) = accept(&peer).await?;
        let calls = async {
            loop {
                let mut stream = TcpStream::connect(("127.0.0.1", member.peer_port())).await?;
                let took = open_for(&mut stream).await?;
                // While it starts, the member closes connections, to have them where it answers from then on.
                if took > Duration::from_secs(1) {
                    return Ok(took);
                }
            }
        };
        let (called, calls) = tokio::try_join!(open_for(&mut called), calls)?;
        for (took, which) in [(called, "that it made"), (calls, "that it took")] {
            let took = took.as_secs_f64();
            let in_time = (seconds - 0.5..seconds + 2.5).contains(&took);
            ensure!(in_time, "a connection {which} was open for {took} s, not {seconds} s");
        }
    }
    Ok(())
}

/// Peers that look at where a connection comes from want the address that the member advertises.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_come_from_the_advertised_address_where_that_is_asked_for() -> Result<()> {
    // Asks the routing table, and sends nothing.
    let outside = std::net::UdpSocket::bind("0.0.0.0:0")?;
    if outside.connect("192.0.2.1:9").is_err() {
        skipped("--feature-gates=SetMemberLocalAddr", "this machine has no address but the loopback");
        return Ok(());
    }
    let address = outside.local_addr()?.ip();
    for on in [false, true] {
        let peer = TcpListener::bind("127.0.0.1:0").await?;
        let advertised = format!("--initial-advertise-peer-urls=http://{address}:1");
        let gate = format!("--feature-gates=SetMemberLocalAddr={on}");
        let _member = beside(&peer, &[advertised, gate]).await?;
        let (_, from) = accept(&peer).await?;
        ensure!((from.ip() == address) == on, "with {on}, it calls from {from}");
    }
    Ok(())
}

fn serves(cluster: &Cluster, at: usize) -> bool {
    cluster[at].log().contains("ready to serve client requests")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_a_certificate_of_another_authority_is_refused() -> Result<()> {
    let mut cluster = Cluster::start(shape(3).with_tls()).await?;
    let load = Load::start(cluster.clients(), "load/");
    load.flows(50).await?;
    let leader = cluster.leader().await?;
    let (at, others) = (cluster.others(&[leader])[0], cluster.others(&[cluster.others(&[leader])[0]]));
    cluster[at].terminate().await?;
    load.flows(50).await?;

    // Its data and its clients' certificate are right; what it shows its peers is not.
    let other = Authority::new(&cluster.dir().join("other"))?.issue("stranger")?;
    let right = cluster[at].options_mut().peer_tls.clone();
    // It trusts the cluster, so that it is the others who refuse.
    let mut wrong = other;
    wrong.ca = right.clone().expect("a cluster with TLS").ca;
    cluster[at].options_mut().peer_tls = Some(wrong);
    cluster[at].spawn()?;
    tokio::time::sleep(TRIES).await;
    ensure!(!serves(&cluster, at), "a member nobody trusts serves");
    let behind = within(Duration::from_secs(1), cluster.client(at).get_serializable("load/0/000000")).await;
    ensure!(behind.is_err(), "it answers clients before it is one of the cluster");
    load.flows(50).await?;
    cluster.leader_among(&others).await?;
    cluster[at].kill().await?;

    cluster[at].options_mut().peer_tls = right;
    cluster[at].start_again().await?;
    load.flows(50).await?;
    load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    cluster.finish().await
}

/// A member that was set up anew for another cluster, at an address this cluster knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_another_cluster_is_refused() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let load = Load::start(cluster.clients(), "load/");
    load.flows(50).await?;
    let leader = cluster.leader().await?;
    let at = cluster.others(&[leader])[0];
    cluster[at].terminate().await?;
    let kept = cluster.dir().join("kept");
    std::fs::rename(cluster[at].data_dir(), &kept)?;
    cluster[at].options_mut().token = "another cluster".to_owned();
    cluster[at].spawn()?;
    tokio::time::sleep(TRIES).await;
    ensure!(!serves(&cluster, at), "a member of another cluster serves");
    load.flows(50).await?;
    ensure!(cluster[leader].log().contains("request cluster ID mismatch"), "nobody refused it");
    if cluster[at].runs() {
        cluster[at].kill().await?;
    } else {
        cluster[at].wait_exit(Duration::ZERO).await?;
    }

    cluster[at].wipe()?;
    std::fs::rename(&kept, cluster[at].data_dir())?;
    cluster[at].options_mut().token = "tests".to_owned();
    cluster[at].start_again().await?;
    load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    cluster.finish().await
}
