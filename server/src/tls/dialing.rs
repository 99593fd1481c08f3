//! The calling end of TLS: what this member shows to peers, and what it asks of them.

use std::io;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::{PeerFiles, non_empty, peer_names, provider, reload, verify, versions};
use crate::config::Config;

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
        let with = |protocol: &[u8]| {
            let mut tls = tls.clone();
            tls.alpn_protocols = vec![protocol.to_vec()];
            TlsConnector::from(Arc::new(tls))
        };
        // Members found by a domain's records share a certificate for that domain.
        let server_name =
            (!flags.discovery_srv.is_empty() && ca.is_none()).then(|| flags.discovery_srv.clone());
        Ok(Connector { http2: with(b"h2"), http1: with(b"http/1.1"), server_name })
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
