//! Versions of etcd, as far as members and clusters compare them: major and minor.

use std::fmt;

use crate::config::help::ETCD_VERSION;

/// A minor release; shown as the version of a cluster is written, `3.7.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u64,
    /// The second.
    pub minor: u64,
}

impl Version {
    /// The cluster's while not all members have said theirs.
    pub const FIRST: Self = Self { major: 3, minor: 0 };

    /// The one that this member runs.
    pub fn own() -> Self {
        Self::read(ETCD_VERSION).expect("our own version is one")
    }

    /// Reads the version of a member or of a cluster; `None` when it is none, as `not_decided`.
    pub fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }

    /// Reads what a client asks to go down to, `3.6` or `3.6.0`, by etcd 3.7's rules: the first may have no suffix, the
    /// second any of semantic versioning.
    pub fn read_target(text: &str) -> Option<Self> {
        semantic(text).or_else(|| semantic(&format!("{text}.0")))
    }

    /// The only one that a cluster of this one can go down to.
    pub fn one_below(self) -> Option<Self> {
        Some(Self { minor: self.minor.checked_sub(1)?, ..self })
    }

    /// The two numbers alone, `3.7`.
    pub fn short(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

/// Three numbers, a suffix that begins with `-`, another that begins with `+`.
fn semantic(text: &str) -> Option<Version> {
    let (text, metadata) = text.split_once('+').unwrap_or((text, ""));
    let (text, release) = text.split_once('-').unwrap_or((text, ""));
    let allowed =
        |suffix: &str| suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    let numbers: Option<Vec<u64>> = text.split('.').map(number).collect();
    match numbers.as_deref() {
        Some(&[major, minor, _patch]) if allowed(metadata) && allowed(release) => {
            Some(Version { major, minor })
        }
        _ => None,
    }
}

/// Digits alone, and not more than fit into 63 bits.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && i64::try_from(*number).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn of(major: u64, minor: u64) -> Option<Version> {
        Some(Version { major, minor })
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(Version::read("3.7.1"), of(3, 7));
        assert_eq!(Version::read("not_decided"), None);
        assert!(Version::FIRST < Version::own());
        assert_eq!(Version::own().to_string(), format!("{}.0", Version::own().short()));
        assert_eq!(Version::own().one_below(), of(3, 6));
        assert_eq!(Version::FIRST.one_below(), None);
    }

    #[test]
    fn targets_are_read_as_etcd_reads_them() {
        for (text, expected) in [
            ("3.6", of(3, 6)),
            ("3.6.0", of(3, 6)),
            ("3.6.9", of(3, 6)),
            ("03.6.0", of(3, 6)),
            ("3.6.0-rc.1+git-5", of(3, 6)),
            ("3.6.0-", of(3, 6)),
            ("3.6-rc.1", None),
            ("3.6.0-r_c", None),
            ("3", None),
            ("", None),
            ("3.6.0.0", None),
            ("v3.6.0", None),
            ("3.+6.0", None),
            ("3..0", None),
            ("3.9223372036854775808.0", None),
        ] {
            assert_eq!(Version::read_target(text), expected, "{text:?}");
        }
    }
}
