//! What `--help` and `--version` print.

use std::fmt::Write as _;

use super::flags::FLAGS;

/// The version of etcd whose interface this is. kube-apiserver reads it from `Status`.
pub const ETCD_VERSION: &str = "3.7.3";

/// Our own version.
pub const QUORATE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The short usage, printed on stderr.
pub const USAGE: &str = "Usage:

  etcd [flags]
    Start a member.

  etcd --version
    Print the version.

  etcd -h | --help
    Print every flag.

  etcd --config-file
    Read the configuration from a file. Flags and environment variables are then ignored.
";

/// Every flag with its default, printed on stdout.
pub fn flags() -> String {
    let mut text = String::new();
    let mut section = "";
    for flag in FLAGS {
        if flag.section != section {
            section = flag.section;
            writeln!(text, "\n{section}:").expect("writing to a string");
        }
        match (flag.boolean, flag.default) {
            (true, "false") => writeln!(text, "  --{}", flag.name()),
            (_, default) => writeln!(text, "  --{} '{default}'", flag.name()),
        }
        .expect("writing to a string");
        for line in flag.help() {
            writeln!(text, "    {line}").expect("writing to a string");
        }
    }
    text
}

/// The lines of `--version`: etcd's, then our own.
pub fn version() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: {}\nGo Version: none (Rust)\nGo OS/Arch: {}/{}\nQuorate Version: {QUORATE_VERSION}\n{}",
        option_env!("QUORATE_GIT_SHA").unwrap_or("Not provided (use QUORATE_GIT_SHA at build time)"),
        std::env::consts::OS,
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
        mutants::SAID,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every change of a flag shows here. To accept it:
    /// `UPDATE_GOLDEN=1 cargo test -p server --lib help`.
    #[test]
    fn help_is_golden() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/help.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, flags()).expect("writing the golden file");
        }
        assert_eq!(flags(), std::fs::read_to_string(path).expect("the golden file"));
    }

    #[test]
    fn version_begins_as_etcds() {
        let version = version();
        let lines: Vec<&str> = version.lines().collect();
        assert!(lines[0].starts_with("etcd Version: 3.7."));
        assert!(lines[1].starts_with("Git SHA: "));
        assert!(lines[4].starts_with("Quorate Version: "));
    }
}
