//! Handshakes over an in-memory pipe.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;

pub(crate) struct Pki {
    dir: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Pki {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        Pki { dir, ca }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub(crate) fn issue(&self, name: &str, hosts: &[&str]) -> u64 {
        let mut params =
            CertificateParams::new(hosts.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let serial = 7 + u64::try_from(name.len()).unwrap();
        params.serial_number = Some(serial.into());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        serial
    }

    fn acceptor(&self, more: &str) -> anyhow::Result<Acceptor> {
        let line = format!(
            "--listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://127.0.0.1:1 \
             --cert-file={} --key-file={} {more}",
            self.path("server.pem"),
            self.path("server.key")
        );
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let config =
            crate::config::load(&args, &BTreeMap::new()).map_err(|stop| anyhow::anyhow!("{stop:?}"))?;
        Acceptor::for_clients(&config).map(|acceptor| acceptor.expect("https is listened on"))
    }

    /// Connects, sends a byte through and returns the server's leaf certificate.
    async fn connect(&self, acceptor: &Acceptor, client: Option<&str>) -> anyhow::Result<Vec<u8>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            Some(name) => builder.with_client_auth_cert(
                vec![CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap()],
                PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap(),
            )?,
            None => builder.with_no_client_auth(),
        };
        let (near, far) = tokio::io::duplex(64 << 10);
        let connector = TlsConnector::from(Arc::new(config));
        let server = async {
            let mut stream = acceptor.accept(far, None).await?;
            stream.write_all(b"x").await?;
            stream.shutdown().await
        };
        let client = async {
            let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), near).await?;
            let mut byte = [0];
            stream.read_exact(&mut byte).await?;
            Ok::<_, std::io::Error>(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
        };
        let (served, leaf) = tokio::join!(server, client);
        served?;
        Ok(leaf?)
    }
}

/// A certificate that was rotated on disk must be served without a restart, and
/// a broken file must not take the port down.
#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart() {
    let pki = Pki::new();
    pki.issue("server", &["localhost"]);
    let acceptor = pki.acceptor("").unwrap();
    let first = pki.connect(&acceptor, None).await.unwrap();
    pki.issue("server", &["localhost"]);
    let second = pki.connect(&acceptor, None).await.unwrap();
    assert_ne!(first, second);
    fs::write(pki.path("server.pem"), "half writ").unwrap();
    assert_eq!(pki.connect(&acceptor, None).await.unwrap(), second);
}

#[tokio::test]
async fn a_ca_alone_requires_client_certificates() {
    let pki = Pki::new();
    pki.issue("server", &["localhost"]);
    pki.issue("client", &["localhost"]);
    let acceptor = pki.acceptor(&format!("--trusted-ca-file={}", pki.path("ca.pem"))).unwrap();
    assert!(pki.connect(&acceptor, None).await.is_err());
    pki.connect(&acceptor, Some("client")).await.unwrap();

    let stranger = Pki::new();
    stranger.issue("client", &["localhost"]);
    fs::copy(stranger.path("client.pem"), pki.path("stranger.pem")).unwrap();
    fs::copy(stranger.path("client.key"), pki.path("stranger.key")).unwrap();
    assert!(pki.connect(&acceptor, Some("stranger")).await.is_err());
}

#[tokio::test]
async fn allowed_hostnames() {
    let pki = Pki::new();
    pki.issue("server", &["localhost"]);
    pki.issue("client", &["good.example"]);
    pki.issue("other", &["bad.example"]);
    let acceptor = pki
        .acceptor(&format!(
            "--trusted-ca-file={} --client-cert-allowed-hostname=good.example,fine.example",
            pki.path("ca.pem")
        ))
        .unwrap();
    pki.connect(&acceptor, Some("client")).await.unwrap();
    let refused = pki.connect(&acceptor, Some("other")).await.unwrap_err().to_string();
    assert!(refused.contains("client certificate authentication failed"), "{refused}");
}

#[tokio::test]
async fn revoked_serials_are_refused_from_the_next_handshake_on() {
    let pki = Pki::new();
    pki.issue("server", &["localhost"]);
    let serial = pki.issue("client", &["localhost"]);
    let revoke = |serials: &[u64]| {
        let crl = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2090, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: serials
                .iter()
                .map(|serial| rcgen::RevokedCertParams {
                    serial_number: (*serial).into(),
                    revocation_time: rcgen::date_time_ymd(2020, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        fs::write(pki.path("crl.der"), crl.signed_by(&pki.ca).unwrap().der()).unwrap();
    };
    revoke(&[serial + 1]);
    let acceptor = pki
        .acceptor(&format!(
            "--trusted-ca-file={} --client-crl-file={}",
            pki.path("ca.pem"),
            pki.path("crl.der")
        ))
        .unwrap();
    pki.connect(&acceptor, Some("client")).await.unwrap();
    revoke(&[serial]);
    assert!(pki.connect(&acceptor, Some("client")).await.is_err());
}

#[tokio::test]
async fn versions_and_suites() {
    let pki = Pki::new();
    pki.issue("server", &["localhost"]);
    let acceptor = pki
        .acceptor("--tls-max-version=TLS1.2 --cipher-suites=TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305")
        .unwrap();
    pki.connect(&acceptor, None).await.unwrap();
    assert!(suites(&["TLS_RSA_WITH_AES_128_CBC_SHA".to_owned()]).is_err());
    assert_eq!(suites(&["X".to_owned()]).unwrap_err(), "unexpected TLS cipher suite \"X\"");
}

#[test]
fn key_and_certificate_must_match() {
    let pki = Pki::new();
    pki.issue("server", &["localhost"]);
    pki.issue("client", &["localhost"]);
    assert!(load(Path::new(&pki.path("server.pem")), Path::new(&pki.path("client.key"))).is_err());
    assert!(load(Path::new(&pki.path("absent.pem")), Path::new(&pki.path("client.key"))).is_err());
}

#[test]
fn auto_tls_keeps_what_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = auto::self_signed(dir.path(), &["127.0.0.1", "localhost"], 1).unwrap();
    load(&certificate, &key).unwrap();
    let made = fs::read(&certificate).unwrap();
    auto::self_signed(dir.path(), &["127.0.0.1"], 1).unwrap();
    assert_eq!(fs::read(&certificate).unwrap(), made);
}
