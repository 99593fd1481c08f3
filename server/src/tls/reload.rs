//! A certificate of this member, read again when its files change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use parking_lot::Mutex;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{info, warn};

/// Reads a certificate chain and its key, and checks that they belong together.
pub fn load(certificate: &Path, key: &Path) -> anyhow::Result<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("certificate {}", certificate.display()))?;
    anyhow::ensure!(!chain.is_empty(), "certificate {}: no certificate in it", certificate.display());
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| format!("key {}", key.display()))?;
    CertifiedKey::from_der(chain, private, &rustls::crypto::ring::default_provider())
        .with_context(|| format!("certificate {} with key {}", certificate.display(), key.display()))
}

/// What tells one state of a file from another.
type Stamp = [Option<(SystemTime, u64, u64)>; 2];

/// Hands the certificate to handshakes.
#[derive(Debug)]
pub struct Reloading {
    certificate: PathBuf,
    key: PathBuf,
    loaded: Mutex<(Stamp, Arc<CertifiedKey>)>,
}

impl Reloading {
    /// Reads the certificate for the first time; failing is an error here.
    pub fn open(certificate: &Path, key: &Path) -> anyhow::Result<Reloading> {
        let stamp = stamp(certificate, key);
        let loaded = Mutex::new((stamp, Arc::new(load(certificate, key)?)));
        Ok(Reloading { certificate: certificate.to_owned(), key: key.to_owned(), loaded })
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let stamp = stamp(&self.certificate, &self.key);
        let mut loaded = self.loaded.lock();
        if loaded.0 != stamp {
            match load(&self.certificate, &self.key) {
                Ok(certified) => {
                    info!(certificate = %self.certificate.display(), "loaded a new certificate");
                    loaded.1 = Arc::new(certified);
                }
                Err(error) => {
                    warn!(error = %format!("{error:#}"), "cannot load the new certificate; keeping the last one");
                }
            }
            loaded.0 = stamp;
        }
        loaded.1.clone()
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    [certificate, key].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    })
}

impl ResolvesServerCert for Reloading {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Reloading {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
