//! Which server a member runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A server program, ours or etcd's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    ours: bool,
}

impl Program {
    /// Our server: `ETCD_BIN`, or else what cargo builds now.
    pub fn ours() -> Program {
        static PATH: OnceLock<PathBuf> = OnceLock::new();
        let path = PATH.get_or_init(|| match std::env::var_os("ETCD_BIN") {
            Some(path) => path.into(),
            None => build("server", "etcd"),
        });
        Program { path: path.clone(), ours: true }
    }

    /// etcd's own server, where the environment names one.
    pub fn etcd() -> Option<Program> {
        let path = std::env::var_os("REAL_ETCD_BIN")?;
        Some(Program { path: path.into(), ours: false })
    }

    /// The server at a path, ours or etcd's own.
    pub fn at(path: PathBuf, ours: bool) -> Program {
        Program { path, ours }
    }

    /// Our `etcdctl`: `ETCDCTL_BIN`, or else what cargo builds now.
    pub fn etcdctl() -> PathBuf {
        match std::env::var_os("ETCDCTL_BIN") {
            Some(path) => path.into(),
            None => build("etcdctl", "etcdctl"),
        }
    }

    /// Our `etcdutl`: `ETCDUTL_BIN`, or else what cargo builds now.
    pub fn etcdutl() -> PathBuf {
        match std::env::var_os("ETCDUTL_BIN") {
            Some(path) => path.into(),
            None => build("etcdutl", "etcdutl"),
        }
    }

    /// Where the program is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is our server.
    pub fn is_ours(&self) -> bool {
        self.ours
    }
}

/// Builds a program of this workspace into the target directory the test itself came from.
fn build(package: &str, binary: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    // …/target/debug/deps/it-0123
    let profile =
        test.parent().and_then(Path::parent).expect("cargo puts tests two folders below its target");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", package, "--bin", binary]);
    cargo.arg("--target-dir").arg(profile.parent().expect("the profile is a folder of the target"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "cargo could not build {binary}");
    profile.join(binary)
}
