//! `--discovery-srv`: the members of a new cluster, from a domain's records.
//!
//! Records under `_etcd-server-ssl._tcp` are members with TLS, those under
//! `_etcd-server._tcp` members without. The records know no names: the member
//! finds itself by the address that it advertises, the others are numbered.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use dns::Service;
use tracing::{info, warn};

use crate::config::Config;
use crate::config::url::Url;

/// Names and peer URLs of the members, as the records of the domain say.
///
/// # Errors
/// When there are no records, or this member is not among them.
pub async fn members(config: &Config) -> anyhow::Result<Vec<(String, Vec<Url>)>> {
    let flags = &config.flags;
    let suffix = match flags.discovery_srv_name.as_str() {
        "" => String::new(),
        name => format!("-{name}"),
    };
    let mut own = Vec::new();
    for url in &flags.initial_advertise_peer_urls.0 {
        own.push((resolve(url.address()).await.with_context(|| format!("peer URL {url}"))?, url.clone()));
    }
    let mut members = Vec::new();
    let mut reason = String::new();
    for (scheme, service) in [("https", "etcd-server-ssl"), ("http", "etcd-server")] {
        let record = format!("_{service}{suffix}._tcp.{}", flags.discovery_srv);
        match dns::services(&record).await {
            Ok(services) => {
                let mut found = Vec::new();
                for service in services {
                    match resolve(&format!("{}:{}", service.host, service.port)).await {
                        Ok(address) => found.push((service, address)),
                        Err(error) => warn!(host = service.host, %error, "a member's host has no address"),
                    }
                }
                members.extend(named(&flags.name, scheme, &found, &own)?);
            }
            Err(error) => {
                reason = format!("error querying DNS SRV records for _{service}{suffix} {error:#}");
                info!(record, %error, "no records of members");
            }
        }
    }
    if members.is_empty() {
        bail!("{reason}");
    }
    let found: Vec<String> = members.iter().map(|(name, url)| format!("{name}={url}")).collect();
    info!(discovery_srv = flags.discovery_srv, found_cluster = ?found, "got bootstrap from DNS for etcd-server");
    let mut by_name: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for (name, url) in members {
        by_name.entry(name).or_default().push(url);
    }
    ensure!(
        by_name.contains_key(&flags.name),
        "cannot find local etcd member {:?} in SRV records",
        flags.name
    );
    by_name.values_mut().for_each(|urls| urls.sort());
    Ok(by_name.into_iter().collect())
}

/// Gives the members of one scheme their names.
fn named(
    own_name: &str,
    scheme: &str,
    found: &[(Service, SocketAddr)],
    own: &[(SocketAddr, Url)],
) -> anyhow::Result<Vec<(String, Url)>> {
    let mut members = Vec::new();
    let mut number = 0;
    for (Service { host, port, .. }, address) in found {
        let url = format!("{scheme}://{host}:{port}");
        let name = match own.iter().find(|(own, _)| own == address) {
            Some((_, advertised)) if advertised.is_tls() != (scheme == "https") => {
                warn!(url, %advertised, "a record of this member has another scheme than it advertises");
                continue;
            }
            Some(_) => own_name.to_owned(),
            None => {
                number += 1;
                (number - 1).to_string()
            }
        };
        members.push((name, Url::parse(&url).map_err(anyhow::Error::msg)?));
    }
    Ok(members)
}

async fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(address).await?.collect();
    // Of a name's addresses the first of IPv4, as Go prefers it.
    let preferred = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    preferred.copied().context("no address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_member_finds_itself_by_its_address() {
        let service = |host: &str, port| Service { priority: 0, weight: 0, host: host.to_owned(), port };
        let found = [
            (service("a.example.com", 2380), "10.0.0.1:2380".parse().unwrap()),
            (service("b.example.com", 2380), "10.0.0.2:2380".parse().unwrap()),
            (service("c.example.com", 2380), "10.0.0.3:2380".parse().unwrap()),
        ];
        let own = [("10.0.0.2:2380".parse().unwrap(), Url::parse("http://10.0.0.2:2380").unwrap())];
        let members = |scheme| {
            let members = named("me", scheme, &found, &own).unwrap();
            members.iter().map(|(name, url)| format!("{name}={url}")).collect::<Vec<_>>()
        };
        assert_eq!(
            members("http"),
            ["0=http://a.example.com:2380", "me=http://b.example.com:2380", "1=http://c.example.com:2380"]
        );
        assert_eq!(members("https"), ["0=https://a.example.com:2380", "1=https://c.example.com:2380"]);
    }
}
