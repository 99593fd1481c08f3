//! `downgrade`: prepares a cluster for an older version.

use std::ffi::OsString;

use proto::etcdserverpb::DowngradeRequest;
use proto::etcdserverpb::downgrade_request::DowngradeAction;

use super::text;
use crate::client::Client;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::help;
use crate::output::Reply;

/// The commands under `downgrade`.
#[derive(Debug, clap::Args)]
pub struct Group {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Ends the downgrade that is under way
    Cancel {
        #[arg(hide = true)]
        _words: Vec<OsString>,
    },
    /// Begins a downgrade of the cluster
    Enable {
        #[arg(value_name = "<TARGET_VERSION>")]
        words: Vec<OsString>,
    },
    /// Tells whether the cluster could be downgraded
    Validate {
        #[arg(value_name = "<TARGET_VERSION>")]
        words: Vec<OsString>,
    },
}

impl Group {
    /// Runs the command that was given.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let (action, version) = match &self.verb {
            None => return help::show(&["downgrade".to_owned()]),
            Some(Verb::Cancel { .. }) => (DowngradeAction::Cancel, String::new()),
            Some(Verb::Enable { words }) => (DowngradeAction::Enable, target(words)?),
            Some(Verb::Validate { words }) => (DowngradeAction::Validate, target(words)?),
        };
        let settings = globals.settle(&[])?;
        let client = Client::open(&settings).await?;
        let request = DowngradeRequest { action: action.into(), version };
        let reply = client.downgrade(client.deadline(), request).await.map_err(Failure::general)?;
        settings.printer.print(&Reply::Downgrade(action, &reply))
    }
}

fn target(words: &[OsString]) -> Result<String, Failure> {
    match words {
        [] => Err(Failure::args("TARGET_VERSION not provided")),
        [version] if version.is_empty() => Err(Failure::args("target version not provided")),
        [version] => Ok(text(version)),
        _ => Err(Failure::args("too many arguments")),
    }
}
