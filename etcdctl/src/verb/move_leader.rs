//! `move-leader`: has another member lead.

use std::ffi::OsString;

use proto::etcdserverpb as pb;

use super::text;
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::globals::Globals;
use crate::go;
use crate::output::Reply;

/// The arguments of `move-leader`.
#[derive(Debug, clap::Args)]
pub struct MoveLeader {
    #[arg(value_name = "<transferee member id>")]
    words: Vec<OsString>,
}

impl MoveLeader {
    /// Asks the endpoints in turn which of them leads, and that one to give it away.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let [word] = self.words.as_slice() else {
            return Err(Failure::args("move-leader command needs 1 argument"));
        };
        let target_id = go::parse_uint_base(&text(word), 16).map_err(Failure::args)?;
        let settings = globals.settle(&[])?;
        let deadline = Client::open(&settings).await?.deadline();
        for endpoint in &settings.endpoints {
            let client = Client::open_to(&settings, std::slice::from_ref(endpoint)).await?;
            let status = client.status(deadline, pb::StatusRequest {}).await.map_err(Failure::general)?;
            if status.header.is_none_or(|header| header.member_id != status.leader) {
                continue;
            }
            let request = pb::MoveLeaderRequest { target_id };
            let reply = client.move_leader(deadline, request).await.map_err(Failure::general)?;
            return settings.printer.print(&Reply::MoveLeader(status.leader, target_id, &reply));
        }
        let endpoints = settings.endpoints.join(" ");
        Err(Failure::new(exit::BAD_ARGS, format!("no leader endpoint given at [{endpoints}]")))
    }
}
