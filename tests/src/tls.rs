//! Certificates made on the spot: an authority, and what it signs.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};

/// A certificate authority with a directory it writes to.
pub struct Authority {
    issuer: CertifiedIssuer<'static, rcgen::KeyPair>,
    dir: PathBuf,
}

/// The files of one certificate, and of the authority that signed it.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authority's certificate, PEM.
    pub ca: PathBuf,
}

impl Authority {
    /// A new authority that writes its files into `dir`.
    pub fn new(dir: &Path) -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, "tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate()?)?;
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("ca.crt"), issuer.pem())?;
        Ok(Authority { issuer, dir: dir.to_owned() })
    }

    /// Signs a certificate for both ends of a connection on this machine and writes it as `<name>.crt` and `.key`;
    /// the name is also the common name.
    pub fn issue(&self, name: &str) -> Result<KeyPair> {
        self.issue_for(name, "localhost")
    }

    /// As [`Authority::issue`], for a host of this name.
    pub fn issue_for(&self, name: &str, host: &str) -> Result<KeyPair> {
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = rcgen::KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        let files = KeyPair {
            cert: self.dir.join(format!("{name}.crt")),
            key: self.dir.join(format!("{name}.key")),
            ca: self.dir.join("ca.crt"),
        };
        std::fs::write(&files.cert, cert.pem())?;
        std::fs::write(&files.key, key.serialize_pem())?;
        Ok(files)
    }
}

impl KeyPair {
    /// The flags with which a server uses it on its client port and asks clients for theirs.
    pub fn server_flags(&self) -> Vec<String> {
        vec![
            format!("--cert-file={}", self.cert.display()),
            format!("--key-file={}", self.key.display()),
            format!("--trusted-ca-file={}", self.ca.display()),
            "--client-cert-auth=true".to_owned(),
        ]
    }

    /// The flags with which a server uses it towards its peers, on both ends of a connection.
    pub fn peer_flags(&self) -> Vec<String> {
        vec![
            format!("--peer-cert-file={}", self.cert.display()),
            format!("--peer-key-file={}", self.key.display()),
            format!("--peer-trusted-ca-file={}", self.ca.display()),
            "--peer-client-cert-auth=true".to_owned(),
        ]
    }
}
