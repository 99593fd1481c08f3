//! `--auto-tls` and `--peer-auto-tls`: a certificate of our own making.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use tracing::info;

use crate::clock;

/// Certificate and key in `dir`, made there unless they exist.
pub fn self_signed(dir: &Path, hosts: &[&str], years: u64) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (certificate_path, key_path) = (dir.join("cert.pem"), dir.join("key.pem"));
    if certificate_path.exists() && key_path.exists() {
        return Ok((certificate_path, key_path));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("directory {}", dir.display()))?;
    let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())
        .context("names for the certificate")?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let date = clock::date(now);
    let last_year = i32::try_from(date.year.saturating_add(years)).unwrap_or(9999).min(9999);
    // February 29 does not come every year
    let day = date.day.min(28);
    params.not_before = rcgen::date_time_ymd(i32::try_from(date.year).unwrap_or(1970), date.month, day);
    params.not_after = rcgen::date_time_ymd(last_year, date.month, day);
    let key = KeyPair::generate().context("key for the certificate")?;
    let certificate = params.self_signed(&key).context("certificate")?;
    fs::write(&certificate_path, certificate.pem())?;
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&key_path)?;
    std::io::Write::write_all(&mut file, key.serialize_pem().as_bytes())?;
    info!(path = %certificate_path.display(), "created a certificate of our own");
    Ok((certificate_path, key_path))
}
