//! TLS of the client port, of the metrics port, and between members.
//!
//! Certificates are taken from disk again whenever their files change, so they
//! are rotated without a restart; the CA pool is read once, as in etcd. A
//! certificate that cannot be read (half written, say) leaves the last good
//! one in use, with a warning.

mod auto;
mod dialing;
mod reload;
mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::{ServerConfig, SupportedCipherSuite};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use self::dialing::{Connector, Protocol};
pub use self::reload::load;
use crate::config::url::Url;
use crate::config::{Config, TlsVersion};

/// How long a client may take for the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes a connection from TCP to TLS.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    /// Whether a client's certificate must name the address it comes from.
    matches_address: bool,
}

impl Acceptor {
    /// The acceptor of the client port; `None` when nothing listens with TLS.
    pub fn for_clients(config: &Config) -> anyhow::Result<Option<Acceptor>> {
        let flags = &config.flags;
        let urls = [&flags.listen_client_urls, &flags.listen_client_http_urls, &flags.listen_metrics_urls];
        if !urls.iter().flat_map(|urls| &urls.0).any(Url::is_tls) {
            return Ok(None);
        }
        let (certificate, key) = if flags.cert_file.is_empty() {
            let hosts: Vec<&str> = urls[..2]
                .iter()
                .flat_map(|urls| &urls.0)
                .map(|url| url.host())
                .filter(|host| !host.is_empty())
                .collect();
            let dir = config.data_dir.join("fixtures").join("client");
            auto::self_signed(&dir, &hosts, flags.self_signed_cert_validity)?
        } else {
            (PathBuf::from(&flags.cert_file), PathBuf::from(&flags.key_file))
        };
        let names =
            verify::Names::new(&[], &flags.client_cert_allowed_hostname.0, "client-cert-allowed-hostname")?;
        let client_auth =
            (flags.client_cert_auth || !flags.trusted_ca_file.is_empty()).then(|| verify::ClientAuth {
                ca: non_empty(&flags.trusted_ca_file),
                crl: non_empty(&flags.client_crl_file),
                names,
            });
        let tls = server_config(&certificate, &key, client_auth, config)?;
        Ok(Some(Acceptor { tls: TlsAcceptor::from(Arc::new(tls)), matches_address: false }))
    }

    /// The acceptor of the peer port; `None` when nothing listens with TLS there.
    pub fn for_peers(config: &Config) -> anyhow::Result<Option<Acceptor>> {
        let flags = &config.flags;
        if !flags.listen_peer_urls.0.iter().any(Url::is_tls) {
            return Ok(None);
        }
        let files = PeerFiles::of(config)?.context("no certificate for the peer port")?;
        // A member that made its certificate itself asks nobody for one.
        let asks = !files.made && (flags.peer_client_cert_auth || !flags.peer_trusted_ca_file.is_empty());
        let names = peer_names(config)?;
        let client_auth = asks.then(|| verify::ClientAuth {
            ca: non_empty(&flags.peer_trusted_ca_file),
            crl: non_empty(&flags.peer_crl_file),
            names,
        });
        let tls = server_config(&files.certificate, &files.key, client_auth, config)?;
        let matches_address = !flags.peer_skip_client_san_verification;
        Ok(Some(Acceptor { tls: TlsAcceptor::from(Arc::new(tls)), matches_address }))
    }

    /// The same for the metrics port, where a client's certificate must also name its address.
    pub fn matching_address(&self) -> Acceptor {
        Acceptor { tls: self.tls.clone(), matches_address: true }
    }

    /// Does the handshake with the client at `remote`.
    pub async fn accept<S>(&self, stream: S, remote: Option<std::net::IpAddr>) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.tls.accept(stream))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timed out"))??;
        if self.matches_address
            && let Some(remote) = remote
            && let Some(leaf) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first)
        {
            verify::matches_address(leaf, remote).await?;
        }
        Ok(stream)
    }
}

/// The certificate of a member among members.
struct PeerFiles {
    certificate: PathBuf,
    key: PathBuf,
    /// `--peer-auto-tls`: the member made it.
    made: bool,
}

impl PeerFiles {
    /// The files that are configured, or made; `None` when there are none.
    fn of(config: &Config) -> anyhow::Result<Option<PeerFiles>> {
        let flags = &config.flags;
        if !flags.peer_cert_file.is_empty() || !flags.peer_key_file.is_empty() {
            let (certificate, key) =
                (PathBuf::from(&flags.peer_cert_file), PathBuf::from(&flags.peer_key_file));
            return Ok(Some(PeerFiles { certificate, key, made: false }));
        }
        if !flags.peer_auto_tls {
            return Ok(None);
        }
        let hosts: Vec<&str> =
            flags.listen_peer_urls.0.iter().map(Url::host).filter(|host| !host.is_empty()).collect();
        let dir = config.data_dir.join("fixtures").join("peer");
        let (certificate, key) = auto::self_signed(&dir, &hosts, flags.self_signed_cert_validity)?;
        Ok(Some(PeerFiles { certificate, key, made: true }))
    }
}

fn peer_names(config: &Config) -> anyhow::Result<verify::Names> {
    let flags = &config.flags;
    let (common, hosts) = (&flags.peer_cert_allowed_cn.0, &flags.peer_cert_allowed_hostname.0);
    verify::Names::new(common, hosts, "peer-cert-allowed-hostname")
}

fn non_empty(path: &str) -> Option<PathBuf> {
    (!path.is_empty()).then(|| PathBuf::from(path))
}

fn server_config(
    certificate: &Path,
    key: &Path,
    client_auth: Option<verify::ClientAuth>,
    config: &Config,
) -> anyhow::Result<ServerConfig> {
    let provider = provider(config)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(config))
        .context("TLS versions")?;
    let builder = match client_auth {
        Some(auth) => builder.with_client_cert_verifier(verify::ClientVerifier::new(auth, provider.clone())?),
        None => builder.with_no_client_auth(),
    };
    let resolver = reload::Reloading::open(certificate, key)?;
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would skip the look at the revocation list and the names.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn provider(config: &Config) -> anyhow::Result<Arc<CryptoProvider>> {
    let cipher_suites = suites(&config.flags.cipher_suites.0).map_err(anyhow::Error::msg)?;
    Ok(Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() }))
}

fn versions(config: &Config) -> Vec<&'static rustls::SupportedProtocolVersion> {
    [(TlsVersion::Tls12, &rustls::version::TLS12), (TlsVersion::Tls13, &rustls::version::TLS13)]
        .into_iter()
        .filter(|(version, _)| (config.tls_min..=config.tls_max).contains(version))
        .map(|(_, version)| version)
        .collect()
}

/// Cipher suites as Go names them, with ours where we have it.
const SUITES: &[(&str, Option<SupportedCipherSuite>)] = &[
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", Some(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", Some(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384)),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        Some(cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        Some(cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", Some(cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", Some(cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384)),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        Some(cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", Some(cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)),
    // always on where TLS 1.3 is
    ("TLS_AES_128_GCM_SHA256", Some(cipher_suite::TLS13_AES_128_GCM_SHA256)),
    ("TLS_AES_256_GCM_SHA384", Some(cipher_suite::TLS13_AES_256_GCM_SHA384)),
    ("TLS_CHACHA20_POLY1305_SHA256", Some(cipher_suite::TLS13_CHACHA20_POLY1305_SHA256)),
    // known to Go; without forward secrecy or with CBC, so not here
    ("TLS_RSA_WITH_RC4_128_SHA", None),
    ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_128_CBC_SHA256", None),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", None),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", None),
    ("TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_RC4_128_SHA", None),
    ("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", None),
];

/// The suites of these names, all of ours for none. Suites that Go has and we
/// have not are left out, unless nothing would be left for TLS 1.2.
pub fn suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, String> {
    if names.is_empty() {
        return Ok(ring::ALL_CIPHER_SUITES.to_vec());
    }
    let mut suites: Vec<SupportedCipherSuite> =
        ring::ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_some()).copied().collect();
    for name in names {
        let known = SUITES.iter().find(|(known, _)| known == name);
        let (_, suite) = known.ok_or_else(|| format!("unexpected TLS cipher suite {name:?}"))?;
        if let Some(suite) = suite
            && !suites.contains(suite)
        {
            suites.push(*suite);
        }
    }
    if suites.iter().all(|suite| suite.tls13().is_some()) {
        return Err(format!(
            "none of the cipher suites {names:?} is supported: they lack forward secrecy or use CBC"
        ));
    }
    Ok(suites)
}

#[cfg(test)]
pub(crate) mod tests;
