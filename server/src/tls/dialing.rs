//! The calling end of TLS: what this member shows to peers and to discovery, and what it asks of them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::{PeerFiles, non_empty, peer_names, provider, reload, verify, versions};
use crate::config::Config;
use crate::config::flags::Flags;

/// What is spoken over a connection once it is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, for gRPC.
    Http2,
    /// HTTP/1.1, for single requests.
    Http1,
}

/// Takes an outgoing connection from TCP to TLS.
#[derive(Clone)]
pub struct Connector {
    http2: TlsConnector,
    http1: TlsConnector,
    /// The name every peer's certificate must carry, in place of its host.
    server_name: Option<String>,
}

impl Connector {
    /// The connector towards peers, from the flags `--peer-*`.
    ///
    /// # Errors
    /// When a file cannot be read or the settings do not go together.
    pub fn for_peers(config: &Config) -> anyhow::Result<Connector> {
        let flags = &config.flags;
        let provider = provider(config)?;
        let files = PeerFiles::of(config)?;
        let ca = non_empty(&flags.peer_trusted_ca_file);
        let verifier: Arc<dyn ServerCertVerifier> = if files.as_ref().is_some_and(|files| files.made) {
            Arc::new(verify::Unlooked { provider: provider.clone(), trusts: true })
        } else {
            let roots = match &ca {
                Some(ca) => verify::roots(ca)?,
                None => verify::system_roots().unwrap_or_else(|error| {
                    debug!(%error, "no peer's certificate will be trusted");
                    RootCertStore::empty()
                }),
            };
            match roots.is_empty() {
                true => Arc::new(verify::Unlooked { provider: provider.clone(), trusts: false }),
                false => verify::PeerVerifier::new(roots, peer_names(config)?, provider.clone())?,
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(config))
            .context("TLS versions")?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut tls = match files {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let (certificate, key) = (&flags.peer_client_cert_file, &flags.peer_client_key_file);
                ensure!(
                    certificate.is_empty() == key.is_empty(),
                    "ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, cert: {certificate}]"
                );
                let (certificate, key) = match certificate.as_str() {
                    "" => (files.certificate, files.key),
                    certificate => (certificate.into(), key.into()),
                };
                builder.with_client_cert_resolver(Arc::new(reload::Reloading::open(&certificate, &key)?))
            }
        };
        // A resumed session would skip the look at the certificate.
        tls.resumption = Resumption::disabled();
        // Members found by a domain's records share a certificate for that domain.
        let server_name =
            (!flags.discovery_srv.is_empty() && ca.is_none()).then(|| flags.discovery_srv.clone());
        Ok(Connector { server_name, ..Connector::new(&tls) })
    }

    /// The connector towards the cluster that serves discovery, from the flags `--discovery-*`; `None` when none of
    /// them asks for TLS.
    ///
    /// # Errors
    /// When a file cannot be read or the settings do not go together; the text is etcd's where it has one.
    pub fn for_discovery(flags: &Flags) -> Result<Option<Connector>, String> {
        let (cert, key, ca) = (&flags.discovery_cert, &flags.discovery_key, &flags.discovery_cacert);
        if cert.is_empty() != key.is_empty() {
            return Err(format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"));
        }
        let skips = flags.discovery_insecure_skip_tls_verify;
        if flags.discovery_insecure_transport && !skips && cert.is_empty() && ca.is_empty() {
            return Ok(None);
        }
        let certificate = non_empty(cert).zip(non_empty(key));
        let connector = Connector::verifying(non_empty(ca).as_deref(), skips, certificate);
        connector.map(Some).map_err(|error| format!("{error:#}"))
    }

    /// A connector that trusts whom the system trusts, and shows no certificate.
    ///
    /// # Errors
    /// When the library lacks a version of TLS.
    pub fn with_system_roots() -> anyhow::Result<Connector> {
        Connector::verifying(None, false, None)
    }

    /// Trusts this CA, or whom the system trusts, or anybody.
    fn verifying(
        ca: Option<&Path>,
        anybody: bool,
        certificate: Option<(PathBuf, PathBuf)>,
    ) -> anyhow::Result<Connector> {
        let provider = Arc::new(ring::default_provider());
        let unlooked = |trusts| Arc::new(verify::Unlooked { provider: provider.clone(), trusts });
        let roots = match ca {
            Some(ca) => verify::roots(ca)?,
            None => verify::system_roots().unwrap_or_else(|error| {
                debug!(%error, "no certificate will be trusted");
                RootCertStore::empty()
            }),
        };
        let verifier: Arc<dyn ServerCertVerifier> = match (anybody, roots.is_empty()) {
            (true, _) => unlooked(true),
            (false, true) => unlooked(false),
            (false, false) => verify::PeerVerifier::new(roots, verify::Names::default(), provider.clone())?,
        };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .context("TLS versions")?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        Ok(Connector::new(&match certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                builder.with_client_cert_resolver(Arc::new(reload::Reloading::open(&certificate, &key)?))
            }
        }))
    }

    fn new(tls: &ClientConfig) -> Connector {
        let with = |protocol: &[u8]| {
            let mut tls = tls.clone();
            tls.alpn_protocols = vec![protocol.to_vec()];
            TlsConnector::from(Arc::new(tls))
        };
        Connector { http2: with(b"h2"), http1: with(b"http/1.1"), server_name: None }
    }

    /// Does the handshake with `host`; the caller says for how long.
    ///
    /// # Errors
    /// When either side refuses the other.
    pub async fn connect<S>(&self, stream: S, host: &str, protocol: Protocol) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = self.server_name.as_deref().unwrap_or(match host {
            "" => "localhost",
            host => host,
        });
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = match protocol {
            Protocol::Http2 => &self.http2,
            Protocol::Http1 => &self.http1,
        };
        connector.connect(name, stream).await
    }
}
