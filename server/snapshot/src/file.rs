//! The container: an image and the SHA-256 of it.
//!
//! Whether a file ends with a digest shows in its length, as an image is whole
//! pages and a page is a multiple of 512 bytes.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
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
    /// The last bytes, up to a digest's length: digest or image, nobody knows yet.
    tail: Vec<u8>,
    len: u64,
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
        self.len += piece.len() as u64;
        let (image, last) = piece.split_at(piece.len() - piece.len().min(DIGEST_LEN));
        let displaced = (self.tail.len() + last.len()).saturating_sub(DIGEST_LEN);
        self.hasher.update(&self.tail[..displaced]);
        self.tail.drain(..displaced);
        self.hasher.update(image);
        self.tail.extend_from_slice(last);
    }

    /// Bytes taken so far, image and digest.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The verdict on all that was taken.
    pub fn finish(self) -> Verdict {
        let Some(expected) = self.tail.try_into().ok().filter(|_| has_digest(self.len)).map(Digest) else {
            return Verdict::Missing;
        };
        let got = self.hasher.finish();
        if got == expected { Verdict::Intact(got) } else { Verdict::Mismatch { expected, got } }
    }
}

/// Writes a snapshot file: passes the image on to `inner` and puts the digest behind it.
#[derive(Debug)]
pub struct Writer<W> {
    hasher: Hasher,
    inner: W,
}

impl<W: Write> Writer<W> {
    /// A file that begins where `inner` stands. Pieces are passed on as they come: give a buffered one.
    pub fn new(inner: W) -> Self {
        Self { hasher: Hasher::default(), inner }
    }

    /// Writes the next piece of the image.
    ///
    /// # Errors
    /// As the inner writer.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.hasher.update(piece);
        self.inner.write_all(piece)
    }

    /// Writes the digest, flushes, and gives the inner writer back; to sync a file is the caller's.
    ///
    /// # Errors
    /// As the inner writer.
    pub fn finish(mut self) -> io::Result<(W, Digest)> {
        let digest = self.hasher.finish();
        self.inner.write_all(&digest.0)?;
        self.inner.flush()?;
        Ok((self.inner, digest))
    }
}

/// Bytes that are read at once.
const CHUNK: usize = 1 << 18;

/// Reads a whole file and compares its digest. `progress` hears how many bytes of how many are done.
///
/// # Errors
/// [`Error::DigestMissing`], [`Error::DigestMismatch`], and [`Error::Io`].
pub fn verify(path: &Path, progress: &mut impl FnMut(u64, u64)) -> Result<Digest, Error> {
    let io = |e| Error::io(path, e);
    let mut file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    if !has_digest(len) {
        return Err(Error::DigestMissing { path: path.into() });
    }
    let mut checker = Checker::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => checker.update(&chunk[..read]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(io(e)),
        }
        progress(checker.len(), len);
    }
    match checker.finish() {
        Verdict::Intact(digest) => Ok(digest),
        Verdict::Missing => Err(Error::DigestMissing { path: path.into() }),
        Verdict::Mismatch { expected, got } => {
            Err(Error::DigestMismatch { path: path.into(), expected, got })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the file is cut into pieces, image and digest are told apart.
    #[test]
    fn pieces_do_not_matter() {
        let image: Vec<u8> = (0..1024_u32).map(|at| (at * 7) as u8).collect();
        let mut writer = Writer::new(Vec::new());
        writer.write(&image[..700]).expect("a vector takes all");
        writer.write(&image[700..]).expect("a vector takes all");
        let (file, digest) = writer.finish().expect("a vector takes all");
        assert!(has_digest(file.len() as u64) && !has_digest(image.len() as u64));
        for piece in [1, 3, 31, 32, 33, 64, 500, 2000] {
            let mut checker = Checker::default();
            file.chunks(piece).for_each(|piece| checker.update(piece));
            assert_eq!(checker.len(), file.len() as u64);
            assert_eq!(checker.finish(), Verdict::Intact(digest), "pieces of {piece}");
        }
        let verdict = |file: &[u8]| {
            let mut checker = Checker::default();
            checker.update(file);
            checker.finish()
        };
        assert_eq!(verdict(&image), Verdict::Missing);
        assert_eq!(verdict(&[]), Verdict::Missing);
        let mut wrong = file.clone();
        wrong[100] ^= 1;
        assert!(matches!(verdict(&wrong), Verdict::Mismatch { expected, .. } if expected == digest));
    }

    #[test]
    fn a_file_is_verified() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let mut writer = Writer::new(File::create(&path).expect("a file"));
        writer.write(&[7; 4096]).expect("space");
        let (_, digest) = writer.finish().expect("space");
        let mut heard = Vec::new();
        assert_eq!(verify(&path, &mut |done, of| heard.push((done, of))).expect("intact"), digest);
        assert_eq!(heard.last(), Some(&(4128, 4128)));

        let mut bytes = std::fs::read(&path).expect("readable");
        bytes[4127] ^= 1;
        std::fs::write(&path, &bytes).expect("space");
        let got = match verify(&path, &mut |_, _| {}) {
            Err(Error::DigestMismatch { got, .. }) => got,
            other => panic!("{other:?}"),
        };
        assert_eq!(got, digest);
        std::fs::write(&path, &bytes[..4096]).expect("space");
        assert!(matches!(verify(&path, &mut |_, _| {}), Err(Error::DigestMissing { .. })));
        assert!(matches!(verify(&dir.path().join("none"), &mut |_, _| {}), Err(Error::Io { .. })));
    }
}
