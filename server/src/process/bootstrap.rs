//! Who the member is: founded or joined by the flags at the first start, read from disk at every later one.
//!
//! ```text
//!   new        ids follow from --initial-cluster; the others are asked only whether this member was there before
//!   existing   ids are those that the running cluster gave: /members of any other member
//! ```

use std::net::ToSocketAddrs;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::config::value::ClusterState;
use crate::config::{Config, ids, url::Url};
use crate::datadir::{Founding, Identity};
use crate::peer::dial::Dialer;
use crate::peer::http::{CLUSTER_ID, DOWNGRADE, MEMBERS, Member, PROGRAM};
use crate::version::Version;

/// How long a new member waits to hear that it is not new.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a member that joins waits for an answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Names and peer URLs of the members, by name.
type Named = [(String, Vec<Url>)];

/// Decides who the member is. A refusal is etcd's text where etcd has one.
pub async fn found(config: &Config, members: &Named, dialer: &Dialer) -> Result<Founding, String> {
    own_urls(members, &config.flags.name)?;
    match config.flags.initial_cluster_state {
        ClusterState::New => create(config, members, dialer).await,
        ClusterState::Existing => join(config, members, dialer).await,
    }
}

async fn create(config: &Config, members: &Named, dialer: &Dialer) -> Result<Founding, String> {
    let flags = &config.flags;
    let founding = new_cluster(
        members,
        &flags.name,
        &flags.initial_cluster_token,
        &flags.initial_advertise_peer_urls.0,
    )?;
    let own = founding.identity.member_id;
    if let Ok(known) = ask_members(members, &flags.name, dialer, ASK_TIMEOUT).await
        && known.members.iter().any(|member| member.id == own && !member.client_urls.is_empty())
    {
        return Err(format!("member {own:x} has already been bootstrapped"));
    }
    Ok(founding)
}

/// The member of this name in a cluster that these members found. The checks are etcd's, in its order.
///
/// # Errors
/// etcd's text for what does not fit together.
pub fn new_cluster(members: &Named, name: &str, token: &str, advertised: &[Url]) -> Result<Founding, String> {
    check_advertised(name, advertised, own_urls(members, name)?)?;
    check_duplicates(members)?;
    let founders: Vec<Member> = members
        .iter()
        .map(|(name, urls)| {
            let peer_urls: Vec<String> = urls.iter().map(Url::to_string).collect();
            let id = ids::member_id(&peer_urls, token, None);
            Member { id, name: name.clone(), peer_urls, ..Member::default() }
        })
        .collect();
    let all: Vec<u64> = founders.iter().map(|member| member.id).collect();
    let own = founders.iter().find(|member| member.name == name).map_or(0, |member| member.id);
    let identity = Identity { cluster_id: ids::cluster_id(&all), member_id: own };
    Ok(Founding { identity, founders, peers: Vec::new() })
}

fn own_urls<'a>(members: &'a Named, name: &str) -> Result<&'a [Url], String> {
    let own = members.iter().find(|(member, _)| member == name).map(|(_, urls)| &urls[..]);
    own.ok_or_else(|| format!("couldn't find local name {name:?} in the initial cluster configuration"))
}

async fn join(config: &Config, members: &Named, dialer: &Dialer) -> Result<Founding, String> {
    let flags = &config.flags;
    check_duplicates(members)?;
    let known = ask_members(members, &flags.name, dialer, JOIN_TIMEOUT)
        .await
        .map_err(|reason| format!("cannot fetch cluster info from peer urls: {reason}"))?;
    if !known.quorate {
        return Err("the members of that cluster run etcd itself, which this server cannot join: restore a snapshot of it into a new cluster".to_owned());
    }
    let member_id = match_members(members, &known.members, &flags.name)
        .map_err(|reason| format!("error validating peerURLs {}: {reason}", in_etcds_words(&known)))?;
    // It has voted, and would not know any more for whom.
    if known.members.iter().any(|member| member.id == member_id && !member.client_urls.is_empty()) {
        return Err(format!(
            "member {member_id:x} has already been bootstrapped; a member that lost its data directory must be removed from the cluster and added as a new one"
        ));
    }
    let peers: Vec<Member> = known.members.into_iter().filter(|member| member.id != member_id).collect();
    if !compatible(&peers, dialer, config.request_timeout()).await {
        return Err("incompatible with current running cluster".to_owned());
    }
    let learners = peers.iter().filter(|member| member.is_learner).count();
    if i64::try_from(learners).unwrap_or(i64::MAX) > flags.max_learners {
        return Err("membership: too many learner members in cluster".to_owned());
    }
    let identity = Identity { cluster_id: known.cluster_id, member_id };
    Ok(Founding { identity, founders: Vec::new(), peers })
}

/// A running cluster, as one of its members tells.
#[derive(Debug)]
struct Known {
    cluster_id: u64,
    members: Vec<Member>,
    /// Whether it is one of ours.
    quorate: bool,
}

/// Asks all others for the members at once; the first answer counts.
async fn ask_members(
    members: &Named,
    own_name: &str,
    dialer: &Dialer,
    patience: Duration,
) -> Result<Known, String> {
    let others = members.iter().filter(|(name, _)| name != own_name).flat_map(|(_, urls)| urls);
    let mut answers: FuturesUnordered<_> =
        others.map(|url| async move { (url, timeout(patience, ask(url, dialer)).await) }).collect();
    while let Some((url, answer)) = answers.next().await {
        let reason = match answer {
            Ok(Ok(known)) => return Ok(known),
            Ok(Err(reason)) => format!("{reason:#}"),
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        // A cluster that is to be founded is not expected to answer.
        match patience == ASK_TIMEOUT {
            true => debug!(address = %url, error = reason, "failed to get cluster response"),
            false => {
                warn!(address = %format!("{url}{MEMBERS}"), error = reason, "failed to get cluster response")
            }
        }
    }
    Err("could not retrieve cluster information from the given URLs".to_owned())
}

async fn ask(url: &Url, dialer: &Dialer) -> anyhow::Result<Known> {
    let got = dialer.get(url.as_str(), MEMBERS).await?;
    anyhow::ensure!(got.status.is_success(), "{}", got.status);
    let header = |name| got.headers.get(name).and_then(|value| value.to_str().ok());
    let cluster_id = header(CLUSTER_ID).and_then(|id| u64::from_str_radix(id, 16).ok());
    let cluster_id = cluster_id.ok_or_else(|| anyhow::anyhow!("no cluster id in the answer"))?;
    let mut members: Vec<Member> = serde_json::from_slice(&got.body)?;
    anyhow::ensure!(!members.is_empty(), "the answer lists no members");
    members.sort_by_key(|member| member.id);
    Ok(Known { cluster_id, members, quorate: header(PROGRAM).is_some() })
}

/// Finds each member of the cluster among the configured ones; answers this member's id.
fn match_members(configured: &Named, existing: &[Member], own_name: &str) -> Result<u64, String> {
    if configured.len() != existing.len() {
        return Err("member count is unequal".to_owned());
    }
    let mut own = None;
    let mut rest: Vec<&(String, Vec<Url>)> = configured.iter().collect();
    for member in existing {
        let mut reason = String::new();
        let at = rest.iter().position(|(_, urls)| match equal(&member.peer_urls, urls) {
            Ok(()) => true,
            Err(error) => {
                reason = error;
                false
            }
        });
        let Some(at) = at else {
            return Err(format!(
                "PeerURLs: no match found for existing member ({:x}, [{}]), last resolver error ({reason})",
                member.id,
                member.peer_urls.join(" ")
            ));
        };
        if rest.swap_remove(at).0 == own_name {
            own = Some(member.id);
        }
    }
    Ok(own.expect("each configured member was matched, and this one is configured"))
}

/// Whether two lists of URLs lead to the same places, by text or by address.
fn equal(existing: &[String], configured: &[Url]) -> Result<(), String> {
    let texts: Vec<&str> = configured.iter().map(Url::as_str).collect();
    let quoted = |urls: &[&str]| {
        let urls: Vec<String> = urls.iter().map(|url| format!("{url:?}")).collect();
        format!("[{}]", urls.join(" "))
    };
    let existing_texts: Vec<&str> = existing.iter().map(String::as_str).collect();
    if existing.len() != configured.len() {
        return Err(format!("len({}) != len({})", quoted(&existing_texts), quoted(&texts)));
    }
    let mut urls = existing
        .iter()
        .map(|url| Url::parse(url).map_err(|_| format!("failed to parse string to URL: {url:?}")))
        .collect::<Result<Vec<_>, _>>()?;
    urls.sort();
    for url in &urls {
        if !configured.iter().any(|other| same(url, other)) {
            let other = texts.first().copied().unwrap_or_default();
            return Err(format!("resolved urls: {:?} != {other:?}", url.as_str()));
        }
    }
    Ok(())
}

/// The cluster as Go prints etcd's structure of it.
fn in_etcds_words(known: &Known) -> String {
    let members: Vec<String> = known
        .members
        .iter()
        .map(|member| {
            format!(
                "&{{ID:{:x} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} Attributes:{{Name:{} ClientURLs:[{}]}}}}",
                member.id,
                member.peer_urls.join(" "),
                member.is_learner,
                member.name,
                member.client_urls.join(" ")
            )
        })
        .collect();
    format!("{{ClusterID:{:x} Members:[{}] RemovedMemberIDs:[]}}", known.cluster_id, members.join(" "))
}

#[derive(Deserialize)]
struct Versions {
    etcdcluster: String,
}

/// Whether some member's cluster version is one we speak, and none is another.
///
/// A cluster that prepares to go down takes members of the version it goes down to alone: its own is, or was, one
/// above theirs (etcd 3.7: `allowedVersionRange`).
async fn compatible(peers: &[Member], dialer: &Dialer, patience: Duration) -> bool {
    let own = Version::own();
    let next = Version { minor: own.minor + 1, ..own };
    let spoken = match downgrade_enabled(peers, dialer, patience).await {
        true => next..=next,
        false => Version::FIRST..=own,
    };
    let mut answers: FuturesUnordered<_> = peers
        .iter()
        .map(|peer| async move {
            (peer.id, timeout(patience, cluster_version(peer, dialer)).await.ok().flatten())
        })
        .collect();
    let mut found = false;
    while let Some((id, version)) = answers.next().await {
        match version {
            None => warn!("remote-member-id" = format!("{id:x}"), "failed to get version"),
            Some(version) if spoken.contains(&version) => found = true,
            Some(version) => {
                warn!(
                    "remote-member-id" = format!("{id:x}"),
                    "remote-member-cluster-version" = %version,
                    "cluster version of remote member is not compatible"
                );
                return false;
            }
        }
    }
    found
}

/// Whether the cluster prepares to go down one minor version, as the first member says that can say it.
async fn downgrade_enabled(peers: &[Member], dialer: &Dialer, patience: Duration) -> bool {
    for url in peers.iter().flat_map(|peer| &peer.peer_urls) {
        match timeout(patience, dialer.get(url, DOWNGRADE)).await {
            Ok(Ok(got)) if got.status.is_success() && got.body == "true" => return true,
            Ok(Ok(got)) if got.status.is_success() && got.body == "false" => return false,
            _ => warn!(address = %format!("{url}{DOWNGRADE}"), "failed to get downgrade enabled status"),
        }
    }
    false
}

async fn cluster_version(peer: &Member, dialer: &Dialer) -> Option<Version> {
    for url in &peer.peer_urls {
        match dialer.get(url, "/version").await {
            Ok(got) => {
                let versions: Versions = serde_json::from_slice(&got.body).ok()?;
                return Version::read(&versions.etcdcluster);
            }
            Err(error) => {
                warn!(address = %format!("{url}/version"), error = %format!("{error:#}"), "failed to reach the peer URL");
            }
        }
    }
    None
}

fn check_duplicates(members: &Named) -> Result<(), String> {
    let mut urls: Vec<&Url> = members.iter().flat_map(|(_, urls)| urls).collect();
    urls.sort();
    if urls.windows(2).any(|pair| pair[0] == pair[1]) {
        let mut members: Vec<String> = members
            .iter()
            .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
            .collect();
        members.sort();
        return Err(format!("initial cluster {} has duplicate url", members.join(",")));
    }
    Ok(())
}

/// The member's URLs in --initial-cluster must be those it advertises, by text or by address.
fn check_advertised(name: &str, advertised: &[Url], own_urls: &[Url]) -> Result<(), String> {
    let missing = |from: &[Url], of: &[Url]| -> Vec<String> {
        from.iter().filter(|url| !of.iter().any(|other| same(url, other))).map(Url::to_string).collect()
    };
    let listed = |urls: &[Url]| urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",");
    let texts = advertised.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
    let not_advertised = missing(own_urls, advertised);
    if !not_advertised.is_empty() {
        let not_advertised: Vec<String> = not_advertised.iter().map(|url| format!("{name}={url}")).collect();
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={texts} (resolved urls: {texts:?} != {:?})",
            not_advertised.join(","),
            own_urls.iter().map(Url::as_str).collect::<Vec<_>>().join(","),
        ));
    }
    let not_listed = missing(advertised, own_urls);
    if !not_listed.is_empty() {
        return Err(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
            not_listed.join(","),
            listed(own_urls)
        ));
    }
    Ok(())
}

fn same(a: &Url, b: &Url) -> bool {
    if a == b {
        return true;
    }
    if a.is_unix() || b.is_unix() || a.scheme() != b.scheme() || a.port() != b.port() {
        return false;
    }
    let resolve =
        |url: &Url| -> Vec<_> { url.address().to_socket_addrs().map(Iterator::collect).unwrap_or_default() };
    let others = resolve(b);
    resolve(a).iter().any(|address| others.contains(address))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::TcpListener;
    use std::pin::Pin;

    use proto::etcdserverpb as pb;

    use super::*;
    use crate::listen::Listener;
    use crate::peer::http::{Cluster, PeerHttp};
    use crate::peer::listen::{Home, Late, serve};
    use crate::peer::timed::Limits;

    fn config(line: &str) -> Config {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        crate::config::load(&args, &BTreeMap::new()).expect(line)
    }

    async fn start(line: &str) -> Result<Founding, String> {
        let config = config(line);
        found(&config, &config.initial_cluster, &Dialer::default()).await
    }

    #[tokio::test]
    async fn the_first_start_founds_with_etcds_ids() {
        let founding = start("").await.unwrap();
        assert_eq!(founding.identity.member_id, 0x8e9e_05c5_2164_694d);
        assert_eq!(founding.founders[0].name, "default");
        let founding = start("--name=a --initial-advertise-peer-urls=http://127.0.0.1:23800").await.unwrap();
        let expected = Identity { cluster_id: 0x0482_76a8_f75b_6a87, member_id: 0x2e12_59d4_15f2_a040 };
        assert_eq!(founding.identity, expected);
    }

    /// Every member must come to the same ids, whichever of them it is.
    #[tokio::test]
    async fn members_of_one_cluster_agree_on_it() {
        let all = "a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3";
        let mut foundings = Vec::new();
        for (name, port) in [("a", 1), ("b", 2), ("c", 3)] {
            let line = format!(
                "--name={name} --initial-cluster={all} --initial-advertise-peer-urls=http://127.0.0.1:{port}"
            );
            foundings.push(start(&line).await.unwrap());
        }
        assert_eq!(foundings[0].founders, foundings[1].founders);
        assert_eq!(foundings[0].identity.cluster_id, foundings[2].identity.cluster_id);
        assert_ne!(foundings[0].identity.member_id, foundings[2].identity.member_id);
    }

    #[tokio::test]
    async fn refusals() {
        for (line, text) in [
            (
                "--name=b --initial-cluster=a=http://127.0.0.1:1",
                "couldn't find local name \"b\" in the initial cluster configuration",
            ),
            (
                "--name=a --initial-cluster=a=http://127.0.0.1:1",
                "--initial-cluster has a=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \"http://localhost:2380\" != \"http://127.0.0.1:1\")",
            ),
            (
                "--name=a --initial-cluster=a=http://127.0.0.1:1 --initial-advertise-peer-urls=http://127.0.0.1:1,http://127.0.0.1:2",
                "--initial-advertise-peer-urls has http://127.0.0.1:2 but missing from --initial-cluster=a=http://127.0.0.1:1",
            ),
            (
                "--initial-cluster=default=http://localhost:2380,b=http://localhost:2380",
                "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url",
            ),
            (
                "--initial-cluster-state=existing --initial-cluster=default=http://localhost:2380,b=http://127.0.0.1:2",
                "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
            ),
            (
                "--initial-cluster-state=existing",
                "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
            ),
        ] {
            assert_eq!(start(line).await.unwrap_err(), text, "{line}");
        }
    }

    /// A cluster of which one member answers.
    struct Running {
        members: Vec<pb::Member>,
        goes_down: bool,
    }

    impl Cluster for Running {
        fn id(&self) -> u64 {
            0xc1
        }
        fn members(&self) -> Vec<pb::Member> {
            self.members.clone()
        }
        fn version(&self) -> Option<String> {
            Some("3.7.0".to_owned())
        }
        fn storage_version(&self) -> Option<String> {
            self.version()
        }
        fn downgrade_enabled(&self) -> Pin<Box<dyn Future<Output = Result<bool, String>> + Send + '_>> {
            Box::pin(async { Ok(self.goes_down) })
        }
    }

    fn member(id: u64, url: &str, started: bool) -> pb::Member {
        pb::Member {
            id,
            name: if started { "m".to_owned() } else { String::new() },
            peer_ur_ls: vec![url.to_owned()],
            client_ur_ls: if started { vec!["http://127.0.0.1:9".to_owned()] } else { Vec::new() },
            is_learner: false,
        }
    }

    /// A member that answers at the URL it gives back, for as long as the sender lives.
    fn running(members: impl FnOnce(&str) -> Vec<pb::Member>) -> (String, tokio::sync::watch::Sender<bool>) {
        running_as(false, members)
    }

    fn running_as(
        goes_down: bool,
        members: impl FnOnce(&str) -> Vec<pb::Member>,
    ) -> (String, tokio::sync::watch::Sender<bool>) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let http = PeerHttp::default();
        http.is(Running { members: members(&url), goes_down });
        let (stop, stopping) = tokio::sync::watch::channel(false);
        let sockets = vec![(Listener::Tcp(socket), Url::parse(&url).unwrap())];
        serve(sockets, None, Late::default(), http, &Home::default(), Limits::new(&config("")), stopping)
            .unwrap();
        (url, stop)
    }

    const OWN: &str = "http://127.0.0.1:1";

    #[tokio::test]
    async fn a_member_joins_under_the_ids_of_the_running_cluster() {
        let (url, _stop) = running(|url| vec![member(7, url, true), member(8, OWN, false)]);
        let line = format!(
            "--name=new --initial-cluster-state=existing --initial-advertise-peer-urls={OWN} --initial-cluster=old={url},new={OWN}"
        );
        let founding = start(&line).await.unwrap();
        assert_eq!(founding.identity, Identity { cluster_id: 0xc1, member_id: 8 });
        assert_eq!(founding.founders, []);
        assert_eq!(founding.peers, [Member::from(member(7, &url, true))]);
    }

    /// The members that may join a cluster that goes down are those of the version it goes down to.
    #[tokio::test]
    async fn a_cluster_that_goes_down_is_not_joined() {
        let (url, _stop) = running_as(true, |url| vec![member(7, url, true), member(8, OWN, false)]);
        let line = format!(
            "--name=new --initial-cluster-state=existing --initial-advertise-peer-urls={OWN} --initial-cluster=old={url},new={OWN}"
        );
        assert_eq!(start(&line).await.unwrap_err(), "incompatible with current running cluster");
    }

    #[tokio::test]
    async fn a_member_that_does_not_fit_the_running_cluster_is_refused() {
        let (url, _stop) = running(|url| vec![member(7, url, true), member(8, "http://127.0.0.1:2", false)]);
        let shown = format!(
            "{{ClusterID:c1 Members:[&{{ID:7 RaftAttributes:{{PeerURLs:[{url}] IsLearner:false}} Attributes:{{Name:m ClientURLs:[http://127.0.0.1:9]}}}} &{{ID:8 RaftAttributes:{{PeerURLs:[http://127.0.0.1:2] IsLearner:false}} Attributes:{{Name: ClientURLs:[]}}}}] RemovedMemberIDs:[]}}"
        );
        let common = format!(
            "--name=new --initial-cluster-state=existing --initial-advertise-peer-urls={OWN} --initial-cluster=old={url},new={OWN}"
        );
        assert_eq!(
            start(&format!("{common},more=http://127.0.0.1:3")).await.unwrap_err(),
            format!("error validating peerURLs {shown}: member count is unequal")
        );
        assert_eq!(
            start(&common).await.unwrap_err(),
            format!(
                "error validating peerURLs {shown}: PeerURLs: no match found for existing member (8, [http://127.0.0.1:2]), last resolver error (resolved urls: \"http://127.0.0.1:2\" != \"http://127.0.0.1:1\")"
            )
        );
    }

    /// A member that lost its disk must not come back as if it had never voted.
    #[tokio::test]
    async fn a_member_that_was_there_before_is_not_new() {
        let own = ids::member_id(&[OWN.to_owned()], "etcd-cluster", None);
        let (url, _stop) = running(|url| vec![member(7, url, true), member(own, OWN, true)]);
        let line =
            format!("--name=new --initial-advertise-peer-urls={OWN} --initial-cluster=old={url},new={OWN}");
        assert_eq!(start(&line).await.unwrap_err(), format!("member {own:x} has already been bootstrapped"));
        let (url, _stop) = running(|url| vec![member(7, url, true), member(own, OWN, false)]);
        let line =
            format!("--name=new --initial-advertise-peer-urls={OWN} --initial-cluster=old={url},new={OWN}");
        assert_eq!(start(&line).await.unwrap().identity.member_id, own);
    }
}
