//! `auth`: turns authentication on and off, and tells which it is.

use std::ffi::OsString;

use proto::etcdserverpb as pb;

use crate::client::{CallError, Client};
use crate::failure::Failure;
use crate::globals::Globals;
use crate::help;
use crate::output::{Reply, say};

/// The user that authentication needs, and the role that lets it do everything.
const ROOT: &str = "root";

/// The commands under `auth`.
#[derive(Debug, clap::Args)]
pub struct Group {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Turns authentication off
    Disable {
        #[arg(hide = true)]
        words: Vec<OsString>,
    },
    /// Turns authentication on
    Enable {
        #[arg(hide = true)]
        words: Vec<OsString>,
    },
    /// Tells whether authentication is on
    Status {
        #[arg(hide = true)]
        words: Vec<OsString>,
    },
}

impl Group {
    /// Runs the command that was given.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let (name, words) = match &self.verb {
            None => return help::show(&["auth".to_owned()]),
            Some(Verb::Disable { words }) => ("disable", words),
            Some(Verb::Enable { words }) => ("enable", words),
            Some(Verb::Status { words }) => ("status", words),
        };
        if !words.is_empty() {
            return Err(Failure::args(format!("auth {name} command does not accept any arguments")));
        }
        let settings = globals.settle(&[])?;
        let client = Client::open(&settings).await?;
        match name {
            "disable" => {
                let reply = client.auth_disable(client.deadline(), pb::AuthDisableRequest {}).await;
                reply.map_err(Failure::general)?;
                say("Authentication Disabled")
            }
            "enable" => {
                enable(&client).await.map_err(Failure::general)?;
                say("Authentication Enabled")
            }
            _ => {
                let reply = client.auth_status(client.deadline(), pb::AuthStatusRequest {}).await;
                settings.printer.print(&Reply::AuthStatus(&reply.map_err(Failure::general)?))
            }
        }
    }
}

/// Enables authentication; gives the user root its role first where it has none.
async fn enable(client: &Client) -> Result<(), CallError> {
    let deadline = client.deadline();
    loop {
        match client.auth_enable(deadline, pb::AuthEnableRequest {}).await {
            Ok(_) => return Ok(()),
            Err(error) if error.says("etcdserver: root user does not have root role") => {
                client.role_add(deadline, pb::AuthRoleAddRequest { name: ROOT.to_owned() }).await?;
                let grant = pb::AuthUserGrantRoleRequest { user: ROOT.to_owned(), role: ROOT.to_owned() };
                client.user_grant_role(deadline, grant).await?;
            }
            Err(error) => return Err(error),
        }
    }
}
