//! Who the member is: founded by the flags at the first start, read from disk at every later one.

use std::net::ToSocketAddrs;

use crate::config::value::ClusterState;
use crate::config::{Config, ids, url::Url};
use crate::datadir::Identity;

/// A member of the cluster, as Raft is to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
}

/// What the member starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// Who it is.
    pub identity: Identity,
    /// The members of the cluster; only used while the Raft log is empty.
    pub members: Vec<Member>,
}

/// Decides who the member is. A refusal is etcd's text where etcd has one.
pub fn found(config: &Config, known: Option<Identity>) -> Result<Founding, String> {
    let flags = &config.flags;
    let name = &flags.name;
    if let Some(identity) = known {
        // --initial-* are for the first start alone.
        let member = Member { id: identity.member_id, name: name.clone(), peer_urls: config.peer_urls() };
        return Ok(Founding { identity, members: vec![member] });
    }
    if flags.initial_cluster_state == ClusterState::Existing {
        return Err(
            "--initial-cluster-state=existing: this release cannot join a running cluster yet".to_owned()
        );
    }
    let Some((_, own_urls)) = config.initial_cluster.iter().find(|(member, _)| member == name) else {
        return Err(format!("couldn't find local name {name:?} in the initial cluster configuration"));
    };
    check_duplicates(config)?;
    check_advertised(config, own_urls)?;
    let members: Vec<Member> = config
        .initial_cluster
        .iter()
        .map(|(name, urls)| {
            let peer_urls: Vec<String> = urls.iter().map(Url::to_string).collect();
            let id = ids::member_id(&peer_urls, &flags.initial_cluster_token, None);
            Member { id, name: name.clone(), peer_urls }
        })
        .collect();
    let own = members.iter().find(|member| member.name == *name).expect("found above");
    let all: Vec<u64> = members.iter().map(|member| member.id).collect();
    let identity = Identity { cluster_id: ids::cluster_id(&all), member_id: own.id };
    Ok(Founding { identity, members })
}

fn check_duplicates(config: &Config) -> Result<(), String> {
    let mut urls: Vec<&Url> = config.initial_cluster.iter().flat_map(|(_, urls)| urls).collect();
    urls.sort();
    if urls.windows(2).any(|pair| pair[0] == pair[1]) {
        let mut members: Vec<String> = config
            .initial_cluster
            .iter()
            .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
            .collect();
        members.sort();
        return Err(format!("initial cluster {} has duplicate url", members.join(",")));
    }
    Ok(())
}

/// The member's URLs in --initial-cluster must be those it advertises, by text or by address.
fn check_advertised(config: &Config, own_urls: &[Url]) -> Result<(), String> {
    let name = &config.flags.name;
    let advertised = &config.flags.initial_advertise_peer_urls;
    let missing = |from: &[Url], of: &[Url]| -> Vec<String> {
        from.iter().filter(|url| !of.iter().any(|other| same(url, other))).map(Url::to_string).collect()
    };
    let listed = |urls: &[Url]| urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",");
    let not_advertised = missing(own_urls, &advertised.0);
    if !not_advertised.is_empty() {
        let not_advertised: Vec<String> = not_advertised.iter().map(|url| format!("{name}={url}")).collect();
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={advertised} (resolved urls: {:?} != {:?})",
            not_advertised.join(","),
            advertised.to_string(),
            own_urls.iter().map(Url::as_str).collect::<Vec<_>>().join(","),
        ));
    }
    let not_listed = missing(&advertised.0, own_urls);
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

    use super::*;

    fn config(line: &str) -> Config {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        crate::config::load(&args, &BTreeMap::new()).expect(line)
    }

    #[test]
    fn the_first_start_founds_with_etcds_ids() {
        let founding = found(&config(""), None).unwrap();
        assert_eq!(founding.identity.member_id, 0x8e9e_05c5_2164_694d);
        assert_eq!(founding.members[0].name, "default");
        let founding =
            found(&config("--name=a --initial-advertise-peer-urls=http://127.0.0.1:23800"), None).unwrap();
        let expected = Identity { cluster_id: 0x0482_76a8_f75b_6a87, member_id: 0x2e12_59d4_15f2_a040 };
        assert_eq!(founding.identity, expected);
    }

    /// A later start with other flags must not make it another member.
    #[test]
    fn later_starts_ignore_the_initial_flags() {
        let known = Identity { cluster_id: 1, member_id: 2 };
        let config = config("--initial-cluster=other=http://127.0.0.1:1 --initial-cluster-state=existing");
        assert_eq!(found(&config, Some(known)).unwrap().identity, known);
    }

    #[test]
    fn refusals() {
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
                "--initial-cluster=default=http://localhost:2380,b=http://127.0.0.1:2",
                "--initial-cluster names 2 members: this release runs clusters of one",
            ),
            (
                "--initial-cluster-state=existing",
                "--initial-cluster-state=existing: this release cannot join a running cluster yet",
            ),
        ] {
            assert_eq!(found(&config(line), None).unwrap_err(), text, "{line}");
        }
    }
}
