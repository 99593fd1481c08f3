//! `snapshot restore`: a member's data directory from a snapshot file.

use std::ffi::OsString;
use std::path::PathBuf;

use manners::failure::Failure;
use manners::go;
use manners::log::{Value, console};
use manners::progress::Progress;
use server::config::{ids, parse_initial_cluster};
use server::restore::{self, Done, Phase};

use crate::console::Console;
use crate::file;

/// What its help says.
pub const ABOUT: &str =
    "Makes the data directory of one member of a new cluster from a snapshot file. All members are made
from the same file, each with its own --name and --initial-advertise-peer-urls; then they are
started with the same --initial-cluster.";

/// The argument and flags of `snapshot restore`.
#[derive(Debug, clap::Args)]
pub struct Restore {
    #[arg(long, value_name = "string", help = "the data directory to make (default \"<name>.etcd\")")]
    data_dir: Option<PathBuf>,
    #[arg(long, value_name = "string", help = "where its log goes (default: into the data directory)")]
    wal_dir: Option<PathBuf>,
    #[arg(long, value_name = "string", default_value = "default=http://localhost:2380")]
    #[arg(help = "the members of the new cluster (default \"default=http://localhost:2380\")")]
    initial_cluster: String,
    #[arg(long, value_name = "string", default_value = "etcd-cluster")]
    #[arg(help = "what keeps clusters with the same members apart (default \"etcd-cluster\")")]
    initial_cluster_token: String,
    #[arg(long, value_name = "string", default_value = "http://localhost:2380")]
    #[arg(help = "this member's peer URLs, as in --initial-cluster (default \"http://localhost:2380\")")]
    initial_advertise_peer_urls: String,
    #[arg(long, value_name = "string", default_value = "default")]
    #[arg(help = "this member's name (default \"default\")")]
    name: String,
    #[arg(
        long,
        help = "restore a file without a digest, or with one that does not match (a copied db file has none)"
    )]
    skip_hash_check: bool,
    #[arg(long, value_name = "uint", default_value = "0", value_parser = go::parse_uint)]
    #[arg(help = "accepted; there is no memory map")]
    initial_memory_map_size: u64,
    #[arg(long, value_name = "uint", default_value = "0", value_parser = go::parse_uint)]
    #[arg(help = "raise the revision by so much, above all that clients may have seen")]
    bump_revision: u64,
    #[arg(
        long,
        help = "take all before the raised revision for compacted, so that watchers read anew (goes with --bump-revision)"
    )]
    mark_compacted: bool,
    #[arg(value_name = "<filename>")]
    words: Vec<OsString>,
}

impl Restore {
    /// Makes the directory, or nothing that would start.
    ///
    /// # Errors
    /// With etcd's texts, as far as etcd has one.
    pub fn run(self) -> Result<(), Failure> {
        let path = file::only(&self.words, "snapshot restore")?;
        if (self.bump_revision > 0) != self.mark_compacted {
            return Err(Failure::args("--mark-compacted required if --revision-bump > 0"));
        }
        let given = |dir: Option<PathBuf>| dir.filter(|dir| !dir.as_os_str().is_empty());
        let default_dir = || PathBuf::from(format!("{}.etcd", self.name));
        let order = restore::Restore {
            snapshot: path.to_owned(),
            data_dir: given(self.data_dir).unwrap_or_else(default_dir),
            wal_dir: given(self.wal_dir),
            name: self.name,
            initial_cluster: self.initial_cluster,
            token: self.initial_cluster_token,
            advertise_peer_urls: self.initial_advertise_peer_urls,
            skip_hash_check: self.skip_hash_check,
            bump_revision: self.bump_revision,
            mark_compacted: self.mark_compacted,
        };
        let mut checking = Progress::new("checking");
        let mut restoring = Progress::new("restoring");
        let done = Console::within(|| {
            restore::restore(&order, &mut |step| match step.phase {
                Phase::Check => checking.set(step.done, step.total),
                Phase::Write => restoring.set(step.done, step.total),
            })
        });
        tell_members(&order, &done.map_err(Failure::general)?);
        Ok(())
    }
}

/// Says who the members of the new cluster are; etcd 3.7: `RaftCluster.AddMember`.
fn tell_members(order: &restore::Restore, done: &Done) {
    let members = parse_initial_cluster(&order.initial_cluster).unwrap_or_default();
    for (_, urls) in members {
        let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        let id = ids::member_id(&urls, &order.token, None);
        console(
            "info",
            "added member",
            &[
                ("cluster-id", Value::Text(&format!("{:x}", done.identity.cluster_id))),
                ("local-member-id", Value::Text(&format!("{:x}", done.identity.member_id))),
                ("added-peer-id", Value::Text(&format!("{id:x}"))),
                ("added-peer-peer-urls", Value::Texts(&urls)),
                ("added-peer-is-learner", Value::Flag(false)),
            ],
        );
    }
}
