//! Prefixes of keys: so many parts of a key, each ended by a delimiter.
//!
//! ```text
//!   delimiter "/", depth 2
//!   /registry/pods/default/web-0   ─►  /registry/pods/     a delimiter at the start ends no part
//!   /registry/health               ─►  /registry/          what does not end is in the prefix before it
//!   health                         ─►  (empty)
//! ```
//!
//! So keys with one prefix stand beside each other, but for those of longer prefixes between them.

/// How keys are divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    delimiter: Vec<u8>,
    depth: usize,
}

impl Split {
    /// The longest delimiter.
    pub const DELIMITER_MAX: usize = 16;
    /// The most parts of a prefix.
    pub const DEPTH_MAX: usize = 8;

    /// Divides by a delimiter, by a slash if that is empty, into prefixes of so many parts; `None` where one of them
    /// is out of bounds.
    pub fn new(delimiter: &[u8], depth: usize) -> Option<Self> {
        let delimiter = if delimiter.is_empty() { b"/" } else { delimiter };
        let fits = delimiter.len() <= Self::DELIMITER_MAX && (1..=Self::DEPTH_MAX).contains(&depth);
        fits.then(|| Self { delimiter: delimiter.to_vec(), depth })
    }

    /// Of how many parts a prefix consists.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The prefix of a key.
    pub fn prefix<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        let mut end = 0;
        for _ in 0..self.depth {
            match self.part_end(key, end) {
                Some(next) => end = next,
                None => break,
            }
        }
        &key[..end]
    }

    /// Where the part ends that begins at `from`, if it ends.
    pub fn part_end(&self, key: &[u8], from: usize) -> Option<usize> {
        let length = self.delimiter.len();
        let skipped = if from == 0 && key.starts_with(&self.delimiter) { length } else { from };
        let rest = &key[skipped..];
        let at = match self.delimiter[..] {
            [byte] => rest.iter().position(|found| *found == byte),
            _ => rest.windows(length).position(|window| window == self.delimiter),
        };
        at.map(|at| skipped + at + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_divided() {
        let split = |delimiter: &str, depth| Split::new(delimiter.as_bytes(), depth).expect("within bounds");
        for (delimiter, depth, key, prefix) in [
            ("", 2, "/registry/pods/default/web-0", "/registry/pods/"),
            ("/", 3, "/registry/pods/default/web-0", "/registry/pods/default/"),
            ("/", 4, "/registry/pods/default/web-0", "/registry/pods/default/"),
            ("/", 2, "/registry/health", "/registry/"),
            ("/", 1, "registry/health", "registry/"),
            ("/", 1, "health", ""),
            ("/", 1, "/health", ""),
            ("/", 1, "//a", "//"),
            ("/", 1, "/", ""),
            ("/", 1, "", ""),
            ("::", 2, "a::b:::c", "a::b::"),
        ] {
            let found = split(delimiter, depth).prefix(key.as_bytes());
            assert_eq!(String::from_utf8_lossy(found), prefix, "{key} by {delimiter}, {depth}");
        }
        assert!(
            Split::new(b"/", 0).is_none()
                && Split::new(b"/", 9).is_none()
                && Split::new(&[b'x'; 17], 1).is_none()
        );
    }
}
