//! `snapshot`: a member's whole state in a file, and what can be done with such a file.
//!
//! All but `save` works without a cluster. It is `etcdutl`'s, but for `get`, which prints as the `get` of a
//! cluster does, and takes the flags about clusters because old guides give them.

mod get;
mod part;
mod save;
mod shelf;

use std::ffi::OsString;

use crate::failure::Failure;
use crate::globals::Globals;
use crate::help;

/// The commands under `snapshot`.
#[derive(Debug, clap::Args)]
pub struct Group {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Shows keys in a snapshot file
    #[command(long_about = get::ABOUT)]
    Get(get::Get),
    /// Makes a member's data directory from a snapshot file
    #[command(long_about = etcdutl::restore::ABOUT)]
    Restore(etcdutl::restore::Restore),
    /// Saves the state of one member to a file
    #[command(long_about = save::ABOUT)]
    Save(save::Save),
    /// Shows what is in a snapshot file
    #[command(long_about = etcdutl::snapshot::ABOUT)]
    Status(etcdutl::snapshot::Status),
    /// Checks everything in a snapshot file
    #[command(long_about = etcdutl::verify::ABOUT)]
    Verify(etcdutl::verify::Verify),
}

impl Group {
    /// Runs the command that was given.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        match self.verb {
            None => help::show(&["snapshot".to_owned()]),
            Some(Verb::Get(get)) => get.run(globals),
            Some(Verb::Save(save)) => save.run(globals).await,
            Some(Verb::Restore(restore)) => {
                offline(globals)?;
                restore.run()
            }
            Some(Verb::Status(status)) => status.run(&offline(globals)?),
            Some(Verb::Verify(verify)) => verify.run(&offline(globals)?),
        }
    }
}

/// The settings of a command that needs no cluster.
fn offline(globals: Globals) -> Result<etcdutl::Settings, Failure> {
    let defaults = etcdutl::Settings::default();
    let write_out = globals.write_out(&[])?.unwrap_or(defaults.write_out);
    Ok(etcdutl::Settings { write_out, ..defaults })
}
