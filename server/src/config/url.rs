//! URLs as etcd takes them: `http(s)://host:port` or `unix(s)://path`.

use std::fmt;
use std::net::IpAddr;

use super::value::Value;

/// How a URL is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// A plain Unix socket.
    Unix,
    /// TLS over a Unix socket.
    Unixs,
}

/// One checked URL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    text: String,
    scheme: Scheme,
    /// `host:port`, or the path of the socket.
    address: String,
}

impl Url {
    /// Reads a URL; the error is etcd's text.
    pub fn parse(text: &str) -> Result<Url, String> {
        let text = text.trim();
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("unix", rest)) => (Scheme::Unix, rest),
            Some(("unixs", rest)) => (Scheme::Unixs, rest),
            _ => match text.split_once(':') {
                Some(("unix", rest)) => (Scheme::Unix, rest),
                Some(("unixs", rest)) => (Scheme::Unixs, rest),
                _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
            },
        };
        let url = |address: &str| Url { text: text.to_owned(), scheme, address: address.to_owned() };
        if matches!(scheme, Scheme::Unix | Scheme::Unixs) {
            return Ok(url(rest));
        }
        let (address, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let address = address.rsplit_once('@').map_or(address, |(_user, address)| address);
        if split_host_port(address).is_none() {
            return Err(format!("URL address does not have the form \"host:port\": {text}"));
        }
        if !path.is_empty() {
            return Err(format!("URL must not contain a path: {text}"));
        }
        Ok(url(address))
    }

    /// The URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Unixs)
    }

    /// Whether it names a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.scheme, Scheme::Unix | Scheme::Unixs)
    }

    /// `host:port`, or the path of the socket.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The host without brackets; empty for a socket path.
    pub fn host(&self) -> &str {
        split_host_port(&self.address).map_or("", |(host, _)| host)
    }

    /// The port as written; empty for a socket path.
    pub fn port(&self) -> &str {
        split_host_port(&self.address).map_or("", |(_, port)| port)
    }

    /// The same URL with another host.
    pub fn with_host(&self, host: &str) -> Url {
        let scheme = if self.is_tls() { "https" } else { "http" };
        let address = format!("{host}:{}", self.port());
        Url { text: format!("{scheme}://{address}"), scheme: self.scheme, address }
    }

    /// Whether one can listen on it: an address, not a name. The error is etcd's text.
    pub fn check_bind(&self) -> Result<(), String> {
        if self.is_unix() || self.host() == "localhost" {
            return Ok(());
        }
        match self.host().parse::<IpAddr>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("expected IP in URL for binding ({self})")),
        }
    }
}

/// Go's `net.SplitHostPort`, without its error texts.
fn split_host_port(address: &str) -> Option<(&str, &str)> {
    let (host, port) = address.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(inner) => Some((inner.strip_suffix(']')?, port)),
        None if host.contains([':', '[', ']']) => None,
        None => Some((host, port)),
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A comma-separated list of URLs: sorted, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Urls(pub Vec<Url>);

impl Urls {
    /// The URLs as text.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(Url::to_string).collect()
    }
}

impl fmt::Display for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().join(","))
    }
}

impl Value for Urls {
    fn parse(text: &str) -> Result<Urls, String> {
        if text.is_empty() {
            return Ok(Urls::default());
        }
        let mut urls = text.split(',').map(Url::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(Urls(urls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_splits() {
        let url = Url::parse("https://127.0.0.1:2379").unwrap();
        assert_eq!((url.scheme(), url.host(), url.port()), (Scheme::Https, "127.0.0.1", "2379"));
        let url = Url::parse("http://[::1]:2379").unwrap();
        assert_eq!((url.host(), url.port()), ("::1", "2379"));
        assert_eq!(Url::parse("unix:///run/etcd.sock").unwrap().address(), "/run/etcd.sock");
        assert_eq!(Url::parse("unix:/run/etcd.sock").unwrap().address(), "/run/etcd.sock");
    }

    #[test]
    fn refuses_with_etcds_texts() {
        for (text, refusal) in [
            ("ftp://a:1", "URL scheme must be http, https, unix, or unixs: ftp://a:1"),
            ("localhost:2379", "URL scheme must be http, https, unix, or unixs: localhost:2379"),
            ("http://localhost", "URL address does not have the form \"host:port\": http://localhost"),
            ("http://::1:2379", "URL address does not have the form \"host:port\": http://::1:2379"),
            ("http://a:1/", "URL must not contain a path: http://a:1/"),
            ("http://a:1/x", "URL must not contain a path: http://a:1/x"),
        ] {
            assert_eq!(Url::parse(text).unwrap_err(), refusal);
        }
        let url = Url::parse("http://example.com:2379").unwrap();
        assert_eq!(url.check_bind().unwrap_err(), "expected IP in URL for binding (http://example.com:2379)");
        assert!(Url::parse("http://localhost:2379").unwrap().check_bind().is_ok());
    }

    #[test]
    fn a_list_is_a_sorted_set() {
        let urls = Urls::parse("http://b:1,http://a:1,http://b:1").unwrap();
        assert_eq!(urls.to_string(), "http://a:1,http://b:1");
    }
}
