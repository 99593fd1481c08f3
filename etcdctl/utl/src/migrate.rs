//! `migrate`: changes the storage version of a data directory, as far as it can be changed.
//!
//! In etcd the storage version says which release can read the directory, and `migrate` takes
//! out what an older one would not know. Here it says which etcd could read a snapshot of the
//! state, and follows the cluster's version: the member that opens the directory sees to that.
//! So the one thing to do offline is to confirm what is there; to go down takes the cluster.

use std::ffi::OsString;
use std::path::PathBuf;

use manners::failure::Failure;
use manners::log::{Value, console};
use manners::{args, go};

use crate::Settings;
use crate::cli::TOOL;
use crate::directory::Directory;

/// The flags of `migrate`.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Brings the storage version of a data directory to the one given. The storage version follows the
version of the cluster, so this confirms it where it is as asked for, and refuses all else: to
go down to an older version, use \"etcdctl downgrade\" and take a snapshot."
)]
pub struct Migrate {
    #[arg(long, value_name = "string", help = "the data directory, which no member may use (required)")]
    data_dir: Option<PathBuf>,
    #[arg(long, value_name = "string")]
    #[arg(help = "the version of etcd to migrate to, \"X.Y\", at least 3.5 (required)")]
    target_version: Option<String>,
    #[arg(long, help = "accepted; what the cluster decides cannot be forced on one member")]
    force: bool,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

/// A minor release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: i64,
    minor: i64,
}

impl Migrate {
    /// Says that the storage version is as asked for, or refuses.
    ///
    /// # Errors
    /// With etcd's texts for what etcd refuses too.
    pub fn run(self, settings: &Settings) -> Result<(), Failure> {
        let (dir, target) = match (self.data_dir, self.target_version) {
            (Some(dir), Some(target)) => (dir, target),
            (dir, target) => {
                let missing = [("data-dir", dir.is_none()), ("target-version", target.is_none())];
                let names: Vec<String> = missing
                    .iter()
                    .filter(|(_, missing)| *missing)
                    .map(|(name, _)| go::quote(name.as_bytes()))
                    .collect();
                let message = format!("required flag(s) {} not set", names.join(", "));
                return Err(args::mistake(&TOOL, &["migrate"], &message));
            }
        };
        let target = Version::target(&target).map_err(Failure::args)?;
        let directory = Directory::open(&dir, settings.lock_timeout, "migrate").map_err(Failure::general)?;
        let current = directory.reader.storage_version();
        directory.close();
        let Some(current) = current.as_deref().and_then(Version::read) else {
            let message =
                "failed to detect storage version: no member has agreed on one with its cluster yet";
            console("error", message, &[]);
            return Err(Failure::general("cannot detect storage schema version: the state is new"));
        };
        if current == target {
            let shown = current.to_string();
            console("info", "storage version up-to-date", &[("storage-version", Value::Text(&shown))]);
            return Ok(());
        }
        Err(Failure::general(refusal(current, target)))
    }
}

/// Why the storage version does not become the target.
fn refusal(current: Version, target: Version) -> String {
    if current.major != target.major {
        return "cannot create migration plan: changing major storage version is not supported".to_owned();
    }
    if target > Version::OWN {
        let next = Version { minor: Version::OWN.minor + 1, ..target };
        return format!("cannot create migration plan: version \"{next}.0\" is not supported");
    }
    format!(
        "cannot migrate storage from {current} to {target}: it follows the version of the cluster, which its members \
         raise, and which \"etcdctl downgrade enable {target}\" lowers, by one minor version at a time"
    )
}

impl Version {
    /// The newest that there is a snapshot file for.
    const OWN: Self = Self { major: 3, minor: 7 };
    /// The oldest; etcd 3.7 goes no further back either.
    const OLDEST: Self = Self { major: 3, minor: 5 };

    /// The value of `--target-version`; etcd 3.7: `migrateOptions.Config`.
    fn target(text: &str) -> Result<Self, String> {
        let Some((major, minor)) = text.split_once('.').filter(|(_, minor)| !minor.contains('.')) else {
            let given = go::quote(text.as_bytes());
            return Err(format!("wrong target version format, expected \"X.Y\", got {given}"));
        };
        let number = |text: &str| {
            let number = go::parse_int_base(text, 10)?;
            // A sign is not a digit to semver.
            if text.starts_with(['+', '-']) { Err("a version has no sign".to_owned()) } else { Ok(number) }
        };
        let parsed = number(major).and_then(|major| Ok(Self { major, minor: number(minor)? }));
        let version = parsed.map_err(|error| format!("failed to parse target version: {error}"))?;
        if version < Self::OLDEST {
            return Err(format!("target version \"{version}\" not supported. Minimal \"3.5\""));
        }
        Ok(version)
    }

    /// A version as the state holds it, `3.7.0`.
    fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_in_etcds_words() {
        let refused = |text: &str| Version::target(text).unwrap_err();
        assert_eq!(refused("3"), "wrong target version format, expected \"X.Y\", got \"3\"");
        assert_eq!(refused("3.5.0"), "wrong target version format, expected \"X.Y\", got \"3.5.0\"");
        assert_eq!(
            refused("3.x"),
            "failed to parse target version: strconv.ParseInt: parsing \"x\": invalid syntax"
        );
        assert_eq!(refused("3.4"), "target version \"3.4\" not supported. Minimal \"3.5\"");
        assert_eq!(Version::target("03.6"), Ok(Version { major: 3, minor: 6 }));
        assert_eq!(Version::target("4.0"), Ok(Version { major: 4, minor: 0 }));
    }

    #[test]
    fn what_cannot_be_is_told() {
        let of = |text| Version::read(text).unwrap();
        assert_eq!(
            refusal(of("3.7.0"), of("3.9")),
            "cannot create migration plan: version \"3.8.0\" is not supported"
        );
        assert_eq!(
            refusal(of("3.7.0"), of("4.0")),
            "cannot create migration plan: changing major storage version is not supported"
        );
        assert!(refusal(of("3.7.0"), of("3.6")).contains("etcdctl downgrade enable 3.6"));
    }
}
