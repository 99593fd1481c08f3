//! Member and cluster ids, computed as etcd computes them.

use sha1::{Digest, Sha1};

/// The id of a member: from its peer URLs, the cluster's token and, for a
/// member added at run time, the second it was added at (the token is then empty).
pub fn member_id(peer_urls: &[String], token: &str, added_at: Option<u64>) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(token);
    if let Some(second) = added_at {
        hash.update(second.to_string());
    }
    first_eight(hash)
}

/// The id of a cluster: from the ids of the members it started with.
pub fn cluster_id(members: &[u64]) -> u64 {
    let mut ids = members.to_vec();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.to_be_bytes());
    }
    first_eight(hash)
}

/// An id as etcd spells it.
pub fn hex(id: u64) -> String {
    format!("{id:x}")
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("SHA-1 has 20 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values taken from etcd.
    #[test]
    fn as_etcd() {
        let of = |url: &str| member_id(&[url.to_owned()], "etcd-cluster", None);
        assert_eq!(of("http://127.0.0.1:23800"), 0x2e12_59d4_15f2_a040);
        assert_eq!(of("http://localhost:2380"), 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id(&[0x2e12_59d4_15f2_a040]), 0x0482_76a8_f75b_6a87);
    }
}
