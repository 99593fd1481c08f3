//! The container: an image and the SHA-256 of it.
//!
//! Whether a file ends with a digest shows in its length, as an image is whole
//! pages and a page is a multiple of 512 bytes.

use std::fmt;
use std::path::Path;

use sha2::Digest as _;

use crate::Error;

/// Bytes of a digest.
pub const DIGEST_LEN: usize = 32;

/// SHA-256 of an image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; DIGEST_LEN]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a file of so many bytes ends with a digest; etcd 3.7: `hasChecksum`.
pub fn has_digest(len: u64) -> bool {
    len % 512 == DIGEST_LEN as u64
}

/// Computes the digest of an image that passes by: what the Snapshot RPC sends after the image.
#[derive(Debug, Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Takes the next piece of the image.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all that was taken.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Judges a file that passes by, image and digest: what receives a snapshot asks it in the end.
#[derive(Debug, Clone, Default)]
pub struct Checker {
    hasher: Hasher,
}

/// What a [`Checker`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The digest is that of the image.
    Intact(Digest),
    /// The length is not that of an image with a digest.
    Missing,
    /// The digest is of another image.
    Mismatch {
        /// What stands at the end of the file.
        expected: Digest,
        /// What the image gives.
        got: Digest,
    },
}

impl Checker {
    /// Takes the next piece of the file.
    pub fn update(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        todo!()
    }

    /// Bytes taken so far, image and digest.
    pub fn len(&self) -> u64 {
        todo!()
    }

    /// Whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The verdict on all that was taken.
    pub fn finish(self) -> Verdict {
        todo!()
    }
}

/// Writes a snapshot file: passes the image on to `inner` and puts the digest behind it.
#[derive(Debug)]
pub struct Writer<W> {
    hasher: Hasher,
    inner: W,
}

impl<W: std::io::Write> Writer<W> {
    /// A file that begins where `inner` stands. Pieces are passed on as they come: give a buffered one.
    pub fn new(inner: W) -> Self {
        Self { hasher: Hasher::default(), inner }
    }

    /// Writes the next piece of the image.
    ///
    /// # Errors
    /// As the inner writer.
    pub fn write(&mut self, piece: &[u8]) -> std::io::Result<()> {
        self.hasher.update(piece);
        self.inner.write_all(piece)
    }

    /// Writes the digest, flushes, and gives the inner writer back; to sync a file is the caller's.
    ///
    /// # Errors
    /// As the inner writer.
    pub fn finish(mut self) -> std::io::Result<(W, Digest)> {
        let digest = self.hasher.finish();
        self.inner.write_all(&digest.0)?;
        self.inner.flush()?;
        Ok((self.inner, digest))
    }
}

/// Reads a whole file and compares its digest. `progress` hears how many bytes of how many are done.
///
/// # Errors
/// [`Error::DigestMissing`], [`Error::DigestMismatch`], and [`Error::Io`].
pub fn verify(path: &Path, progress: &mut impl FnMut(u64, u64)) -> Result<Digest, Error> {
    let _ = (path, progress);
    todo!()
}
