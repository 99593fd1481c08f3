//! `alarm`: lists and disarms alarms.

use std::ffi::OsString;

use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::{AlarmRequest, AlarmResponse};

use crate::client::Client;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::help;
use crate::output::Reply;

/// The commands under `alarm`.
#[derive(Debug, clap::Args)]
pub struct Group {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Disarms every alarm
    Disarm {
        #[arg(hide = true)]
        words: Vec<OsString>,
    },
    /// Lists the alarms
    List {
        #[arg(hide = true)]
        words: Vec<OsString>,
    },
}

impl Group {
    /// Runs the command that was given.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let (name, words) = match &self.verb {
            None => return help::show(&["alarm".to_owned()]),
            Some(Verb::Disarm { words }) => ("disarm", words),
            Some(Verb::List { words }) => ("list", words),
        };
        if !words.is_empty() {
            return Err(Failure::args(format!("alarm {name} command accepts no arguments")));
        }
        let settings = globals.settle(&[])?;
        let client = Client::open(&settings).await?;
        let deadline = client.deadline();
        let list = client.alarm(deadline, AlarmRequest::default()).await.map_err(Failure::general)?;
        if name == "list" {
            return settings.printer.print(&Reply::Alarm(&list));
        }
        // One request an alarm; the header belongs to none of them and is left out.
        let mut disarmed = AlarmResponse::default();
        for alarm in list.alarms {
            let action = AlarmAction::Deactivate.into();
            let request = AlarmRequest { action, member_id: alarm.member_id, alarm: alarm.alarm };
            disarmed.alarms.extend(client.alarm(deadline, request).await.map_err(Failure::general)?.alarms);
        }
        settings.printer.print(&Reply::Alarm(&disarmed))
    }
}
