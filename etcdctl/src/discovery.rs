//! `--discovery-srv`: endpoints from a domain's records.
//!
//! Records under `_etcd-client-ssl._tcp` are endpoints with TLS, those under
//! `_etcd-client._tcp` endpoints without; a service name stands behind either.

use dns::Service;
use tokio::runtime::Handle;

use crate::failure::Failure;
use crate::go::quote;

/// The endpoints of a domain: none where the records are there but all insecure ones are refused.
///
/// # Errors
/// When neither service has records.
pub fn endpoints(domain: &str, service_name: &str, insecure: bool) -> Result<Vec<String>, Failure> {
    let name = |service: &str| record(service, service_name, domain);
    // Settings are made before anything else is under way: blocking keeps nobody.
    let look_up = |service| {
        tokio::task::block_in_place(|| Handle::current().block_on(dns::services(&name(service))))
            .map_err(|error| format!("{error:#}"))
    };
    let (secure, plain) = (look_up("etcd-client-ssl"), look_up("etcd-client"));
    if let (Err(secure), Err(plain)) = (&secure, &plain) {
        return Err(Failure::general(format!("dns lookup errors: {secure} and {plain}")));
    }
    let (secure, plain) = (urls("https", secure), urls("http", plain));
    if !insecure {
        for endpoint in &plain {
            eprintln!("ignoring discovered insecure endpoint {}", quote(endpoint.as_bytes()));
        }
        return Ok(secure);
    }
    Ok([secure, plain].concat())
}

/// The name under which a service's records stand.
fn record(service: &str, name: &str, domain: &str) -> String {
    let suffix = if name.is_empty() { String::new() } else { format!("-{name}") };
    format!("_{service}{suffix}._tcp.{domain}")
}

/// The hosts end with a dot, as etcd shows them.
fn urls(scheme: &str, found: Result<Vec<Service>, String>) -> Vec<String> {
    let found = found.unwrap_or_default();
    found.iter().map(|service| format!("{scheme}://{}.:{}", service.host, service.port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_the_endpoints_in_them() {
        assert_eq!(record("etcd-client-ssl", "", "a.example"), "_etcd-client-ssl._tcp.a.example");
        assert_eq!(record("etcd-client", "blue", "a.example"), "_etcd-client-blue._tcp.a.example");
        let service = Service { priority: 0, weight: 0, host: "m1.a.example".to_owned(), port: 2379 };
        assert_eq!(urls("https", Ok(vec![service])), ["https://m1.a.example.:2379"]);
        assert!(urls("http", Err("no such host".to_owned())).is_empty());
    }
}
