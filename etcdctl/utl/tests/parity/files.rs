//! Files that both tools get copies of.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Names and contents.
pub struct Files(Vec<(&'static str, Vec<u8>)>);

impl Files {
    /// Saves snapshots of etcd's own member, whole ones and broken ones; `None` without etcd's programs.
    pub fn of_etcd() -> Option<Self> {
        let program = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let (etcd, etcdctl) = program("REAL_ETCD_BIN").zip(program("OFFICIAL_ETCDCTL_BIN"))?;
        let folder = tempfile::tempdir().expect("a temporary directory");
        let member = Member::start(&etcd, &folder.path().join("data"));
        let run = |line: &str| {
            let mut command = Command::new(&etcdctl);
            command
                .env("ETCDCTL_ENDPOINTS", &member.endpoint)
                .args(line.split(' '))
                .current_dir(folder.path());
            let output = command.output().expect("the tool can be started");
            assert!(output.status.success(), "{line}: {output:?}");
            String::from_utf8(output.stdout).expect("text")
        };
        let saved = |name: &str| {
            run(&format!("snapshot save {name}"));
            fs::read(folder.path().join(name)).expect("saved")
        };
        let empty_store = saved("empty-store.db");
        let lease = run("lease grant 100000");
        let lease = lease.split(' ').nth(1).expect("an id");
        for number in 0..80 {
            let value = "v".repeat(number * 7);
            run(&format!("put k{:03} v{value}", number % 60));
        }
        run(&format!("put --lease {lease} leased v"));
        run("del k003");
        run("del k010 k012");
        run("put k003 again");
        run("compaction 5");
        run("user add alice:secret");
        run("role add r1");
        run("role grant-permission r1 readwrite k --prefix=true");
        let good = saved("good.db");
        drop(member);
        let migrated = folder.path().join("data");
        Some(Self(Self::broken(good, empty_store, old(&migrated))))
    }

    fn broken(good: Vec<u8>, empty_store: Vec<u8>, old: Vec<u8>) -> Vec<(&'static str, Vec<u8>)> {
        let copied = good[..good.len() - 32].to_vec();
        let mut damaged = good.clone();
        // Behind the two metas and outside of any element: only the digest tells.
        *damaged.last_mut().expect("a digest") ^= 1;
        vec![
            ("short.db", good[..9000].to_vec()),
            ("copied.db", copied),
            ("damaged.db", damaged),
            ("old.db", old),
            ("empty-store.db", empty_store),
            ("empty.db", Vec::new()),
            ("text.db", b"hello\n".to_vec()),
            ("full/file", b"x".to_vec()),
            ("good.db", good),
        ]
    }

    /// Writes them to a folder.
    pub fn copy_to(&self, folder: &Path) {
        fs::create_dir(folder.join("full")).expect("a folder");
        for (name, content) in &self.0 {
            fs::write(folder.join(name), content).expect("written");
        }
    }

    /// Whether they are there as they were.
    pub fn same_in(&self, folder: &Path) -> bool {
        self.0.iter().all(|(name, content)| fs::read(folder.join(name)).is_ok_and(|found| found == *content))
    }
}

/// The snapshot of a store that etcd's tool took down to 3.5, which has no storage version: with the digest of its image.
fn old(data: &Path) -> Vec<u8> {
    let official = std::env::var_os("OFFICIAL_ETCDUTL_BIN").unwrap_or_default();
    let mut command = Command::new(official);
    command.arg("migrate").arg("--data-dir").arg(data).args(["--target-version", "3.5", "--force"]);
    let output = command.output().expect("the tool can be started");
    assert!(output.status.success(), "{output:?}");
    let mut image = fs::read(data.join("member/snap/db")).expect("a store");
    let mut hasher = snapshot::file::Hasher::default();
    hasher.update(&image);
    image.extend_from_slice(&hasher.finish().0);
    image
}

/// A member that dies with the test.
struct Member {
    child: Child,
    endpoint: String,
}

impl Member {
    fn start(program: &Path, data: &Path) -> Self {
        let port = || {
            TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr()).expect("a free port").port()
        };
        let (client, peer) = (format!("http://127.0.0.1:{}", port()), format!("http://127.0.0.1:{}", port()));
        let child = Command::new(program)
            .args(["--name", "one", "--log-level", "error"])
            .arg("--data-dir")
            .arg(data)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server program can be started");
        let member = Self { child, endpoint: client };
        let address = member.endpoint.trim_start_matches("http://").to_owned();
        let start = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "etcd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        member
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Its store is whole whenever it ends: every commit is a transaction of its own.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
