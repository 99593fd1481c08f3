//! Which certificates are good enough: those of clients, of peers that call, and of peers that are called.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// Names of which a certificate must carry one.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Against the common name.
    common: Vec<String>,
    /// Against the subject's alternative names.
    hosts: Vec<ServerName<'static>>,
}

impl Names {
    /// The names given to these two flags; none of both: every certificate will do.
    pub fn new(common: &[String], hosts: &[String], hosts_flag: &str) -> anyhow::Result<Names> {
        let hosts = hosts
            .iter()
            .map(|name| {
                ServerName::try_from(name.clone()).with_context(|| format!("--{hosts_flag} {name:?}"))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Names { common: common.to_vec(), hosts })
    }

    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let common = || -> Result<bool, Error> {
            if self.common.is_empty() {
                return Ok(false);
            }
            let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
            // The last one, as Go reads a subject.
            let name = parsed.subject().iter_common_name().last().and_then(|name| name.as_str().ok());
            Ok(name.is_some_and(|name| self.common.iter().any(|allowed| allowed == name)))
        };
        let host = || -> Result<bool, Error> {
            let parsed = ParsedCertificate::try_from(leaf)?;
            Ok(self.hosts.iter().any(|name| verify_server_name(&parsed, name).is_ok()))
        };
        if (self.common.is_empty() && self.hosts.is_empty()) || common()? || host()? {
            return Ok(());
        }
        Err(Error::General("client certificate authentication failed".to_owned()))
    }
}

/// What is asked of a client's certificate.
#[derive(Debug)]
pub struct ClientAuth {
    /// Where it must come from; the system's roots if not set.
    pub ca: Option<PathBuf>,
    /// Serial numbers that are refused (DER), read at every handshake.
    pub crl: Option<PathBuf>,
    /// Names of which it must carry one.
    pub names: Names,
}

/// Verifies the chain, then names and revocation.
#[derive(Debug)]
pub struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    names: Names,
    crl: Option<PathBuf>,
}

impl ClientVerifier {
    /// Reads the CA pool, once.
    pub fn new(auth: ClientAuth, provider: Arc<CryptoProvider>) -> anyhow::Result<Arc<ClientVerifier>> {
        let roots = match &auth.ca {
            Some(ca) => roots(ca)?,
            None => system_roots().context("client certificates are required, but no CA is given")?,
        };
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .context("verifier of client certificates")?;
        if let Some(crl) = &auth.crl {
            revoked_serials(crl).with_context(|| format!("revocation list {}", crl.display()))?;
        }
        Ok(Arc::new(ClientVerifier { chain, names: auth.names, crl: auth.crl }))
    }

    fn check_revocation<'a>(
        &self,
        presented: impl Iterator<Item = &'a CertificateDer<'a>>,
    ) -> Result<(), Error> {
        let Some(crl) = &self.crl else { return Ok(()) };
        let revoked = revoked_serials(crl).map_err(|error| Error::General(format!("{error:#}")))?;
        for certificate in presented {
            let (_, parsed) =
                X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
            if revoked.iter().any(|serial| serial == parsed.raw_serial()) {
                return Err(CertificateError::Revoked.into());
            }
        }
        Ok(())
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        self.names.check(leaf)?;
        self.check_revocation(std::iter::once(leaf).chain(intermediates))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Verifies the member that is called: chain and host, then the names that peers must carry.
#[derive(Debug)]
pub struct PeerVerifier {
    chain: Arc<WebPkiServerVerifier>,
    names: Names,
}

impl PeerVerifier {
    /// A verifier that trusts these roots.
    pub fn new(
        roots: RootCertStore,
        names: Names,
        provider: Arc<CryptoProvider>,
    ) -> anyhow::Result<Arc<PeerVerifier>> {
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .context("verifier of peer certificates")?;
        Ok(Arc::new(PeerVerifier { chain, names }))
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.chain.verify_server_cert(leaf, intermediates, host, ocsp, now)?;
        self.names.check(leaf)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The same verdict on every certificate. With `--peer-auto-tls` nobody vouches for anybody, only the wire is
/// private; without any CA nobody can be trusted.
#[derive(Debug)]
pub struct Unlooked {
    /// How signatures are checked.
    pub provider: Arc<CryptoProvider>,
    /// The verdict.
    pub trusts: bool,
}

impl ServerCertVerifier for Unlooked {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.trusts {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn revoked_serials(crl: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let bytes = fs::read(crl)?;
    let (_, list) = CertificateRevocationList::from_der(&bytes)
        .map_err(|error| anyhow::anyhow!("not a revocation list in DER: {error}"))?;
    Ok(list.iter_revoked_certificates().map(|revoked| revoked.raw_serial().to_vec()).collect())
}

/// The CA certificates in a PEM file.
pub fn roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(path).with_context(|| format!("trusted CA {}", path.display()))?
    {
        let certificate = certificate.with_context(|| format!("trusted CA {}", path.display()))?;
        roots.add(certificate).with_context(|| format!("trusted CA {}", path.display()))?;
    }
    anyhow::ensure!(!roots.is_empty(), "trusted CA {}: no certificate in it", path.display());
    Ok(roots)
}

/// Where distributions keep their CA bundle.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The CA certificates that the system trusts.
pub fn system_roots() -> anyhow::Result<RootCertStore> {
    let bundle = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists());
    let bundle = bundle.context("no system CA bundle found")?;
    let certificates =
        CertificateDer::pem_file_iter(bundle).and_then(Iterator::collect::<Result<Vec<_>, _>>)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    Ok(roots)
}

/// Whether a name is this host or, as in etcd, ends as this wildcard does.
fn covers(host: &str, name: &str) -> bool {
    match host.strip_prefix('*') {
        Some(end) => end.starts_with('.') && name.to_ascii_lowercase().ends_with(&end.to_ascii_lowercase()),
        None => host.eq_ignore_ascii_case(name),
    }
}

/// Refuses a certificate that names addresses or hosts, but not the one it comes from.
pub async fn matches_address(leaf: &CertificateDer<'_>, remote: IpAddr) -> io::Result<()> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(io::Error::other)?;
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Ok(()) };
    let remote = remote.to_canonical();
    let (mut hosts, mut addresses) = (Vec::new(), Vec::new());
    for name in &names.value.general_names {
        match name {
            GeneralName::IPAddress(bytes) => addresses.extend(match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_canonical()),
            }),
            GeneralName::DNSName(host) => hosts.push((*host).to_owned()),
            _ => {}
        }
    }
    if addresses.contains(&remote) {
        return Ok(());
    }
    for host in hosts.iter().filter(|host| !host.starts_with('*')) {
        if let Ok(mut addresses) = tokio::net::lookup_host((host.as_str(), 0)).await
            && addresses.any(|address| address.ip().to_canonical() == remote)
        {
            return Ok(());
        }
    }
    // A wildcard, or a name that leads elsewhere: then it counts what the address is called.
    if !hosts.is_empty()
        && let Ok(names) = dns::names(remote).await
        && names.iter().any(|name| hosts.iter().any(|host| covers(host, name)))
    {
        return Ok(());
    }
    let reason = match (hosts.is_empty(), addresses.is_empty()) {
        (true, true) => return Ok(()),
        (true, false) => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("x509: certificate is valid for {}, not {remote}", addresses.join(", "))
        }
        (false, _) => {
            let hosts: Vec<String> = hosts.iter().map(|host| format!("{host:?}")).collect();
            format!("tls: \"{remote}\" does not match any of DNSNames [{}]", hosts.join(" "))
        }
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_names_that_end_like_it() {
        assert!(covers("*.etcd.default.svc", "ETCD-0.etcd.Default.svc"));
        assert!(covers("a.example.com", "a.example.com"));
        assert!(!covers("*.etcd.default.svc", "etcd.default.svc"));
        assert!(!covers("*", "anything"));
        assert!(!covers("a.example.com", "b.a.example.com"));
    }

    #[tokio::test]
    async fn who_calls_from_another_address_than_its_certificate_names_is_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "10.1.2.3".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        for (remote, says) in [
            ("10.1.2.3", None),
            ("::ffff:10.1.2.3", None),
            ("10.1.2.4", Some("x509: certificate is valid for 127.0.0.1, 10.1.2.3, not 10.1.2.4")),
        ] {
            let refused = matches_address(certificate.der(), remote.parse().unwrap()).await.err();
            assert_eq!(refused.map(|error| error.to_string()).as_deref(), says, "{remote}");
        }
    }
}
