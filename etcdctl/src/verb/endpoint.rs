//! `endpoint`: asks members one by one for health, status and history hash.

use std::ffi::OsString;
use std::time::Instant;

use proto::etcdserverpb as pb;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::globals::{Globals, Settings};
use crate::go;
use crate::help;
use crate::output::{Health, Reply};

/// The commands under `endpoint`.
#[derive(Debug, clap::Args)]
pub struct Group {
    #[arg(long, global = true, value_name = "bool", help = "ask every member of the cluster", value_parser = go::parse_bool)]
    cluster: Option<bool>,
    #[command(subcommand)]
    verb: Option<Verb>,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Shows the hash of each member's history
    Hashkv {
        #[arg(long, value_name = "int", default_value = "0", value_parser = go::parse_int)]
        #[arg(help = "hash the history up to this revision (default: all)")]
        rev: i64,
        #[arg(hide = true)]
        _words: Vec<OsString>,
    },
    /// Shows whether each member can commit
    Health {
        #[arg(hide = true)]
        _words: Vec<OsString>,
    },
    /// Shows the state of each member
    Status {
        #[arg(hide = true)]
        _words: Vec<OsString>,
    },
}

impl Group {
    /// Runs the command that was given.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let Some(verb) = self.verb else { return help::show(&["endpoint".to_owned()]) };
        let settings = globals.settle(&[])?;
        let endpoints = targets(&settings, self.cluster.unwrap_or(false)).await?;
        match verb {
            Verb::Hashkv { rev, .. } => hash(&settings, endpoints, rev).await,
            Verb::Health { .. } => health(&settings, endpoints).await,
            Verb::Status { .. } => status(&settings, endpoints).await,
        }
    }
}

/// The endpoints to visit: those given, or with `cluster` those that the members advertise.
pub async fn targets(settings: &Settings, cluster: bool) -> Result<Vec<String>, Failure> {
    if !cluster {
        return Ok(settings.endpoints.clone());
    }
    let client = Client::open(settings).await?;
    let request = pb::MemberListRequest { linearizable: true };
    let reply = client.member_list(client.deadline(), request).await.map_err(|error| {
        Failure::general(format!("failed to fetch endpoints from etcd cluster member list: {error}"))
    })?;
    Ok(reply.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}

/// Asks all endpoints at once; those that answer first come first.
async fn health(settings: &Settings, endpoints: Vec<String>) -> Result<(), Failure> {
    let mut visits = JoinSet::new();
    for endpoint in endpoints {
        let settings = settings.clone();
        visits.spawn(async move { visit(&settings, endpoint).await });
    }
    let mut list = Vec::new();
    while let Some(health) = visits.join_next().await {
        list.push(health.map_err(Failure::general)??);
    }
    settings.printer.print(&Reply::Health(&list))?;
    match list.iter().all(|health| health.error.is_empty()) {
        true => Ok(()),
        false => Err(Failure::general("unhealthy cluster")),
    }
}

/// A member is healthy when it answers a linearizable read and knows of no alarm.
async fn visit(settings: &Settings, endpoint: String) -> Result<Health, Failure> {
    let client = match Client::open_to(settings, std::slice::from_ref(&endpoint)).await {
        Ok(client) => client,
        Err(failure) if failure.status == exit::BAD_ARGS => return Err(failure),
        Err(failure) => {
            let error = failure.message.unwrap_or_default();
            return Ok(Health { endpoint, healthy: false, took: String::new(), error });
        }
    };
    let deadline = client.deadline();
    let start = Instant::now();
    let request = pb::RangeRequest { key: "health".into(), ..Default::default() };
    let read = client.range(deadline, request).await;
    let took = go::duration(start.elapsed());
    let error = match read {
        // A refusal for want of permission went through the cluster as well.
        Err(error) if !error.says("etcdserver: permission denied") => error.to_string(),
        _ => match client.alarm(deadline, pb::AlarmRequest::default()).await {
            Err(_) => "Unable to fetch the alarm list".to_owned(),
            Ok(reply) if reply.alarms.is_empty() => String::new(),
            Ok(reply) => {
                let names = reply.alarms.iter().map(|alarm| match alarm.alarm() {
                    pb::AlarmType::Nospace => "NOSPACE ",
                    pb::AlarmType::Corrupt => "CORRUPT ",
                    pb::AlarmType::None => "UNKNOWN ",
                });
                format!("Active Alarm(s): {}", names.collect::<String>())
            }
        },
    };
    Ok(Health { endpoint, healthy: error.is_empty(), took, error })
}

async fn status(settings: &Settings, endpoints: Vec<String>) -> Result<(), Failure> {
    let (mut list, mut failed) = (Vec::new(), false);
    for endpoint in endpoints {
        let client = Client::open_to(settings, std::slice::from_ref(&endpoint)).await?;
        match client.status(client.deadline(), pb::StatusRequest {}).await {
            Ok(reply) => list.push((endpoint, reply)),
            Err(error) => {
                failed = true;
                eprintln!("Failed to get the status of endpoint {endpoint} ({error})");
            }
        }
    }
    settings.printer.print(&Reply::Status(&list))?;
    if failed { Err(Failure::silent(exit::ERROR)) } else { Ok(()) }
}

async fn hash(settings: &Settings, endpoints: Vec<String>, revision: i64) -> Result<(), Failure> {
    let (mut list, mut failure) = (Vec::new(), None);
    for endpoint in endpoints {
        let client = Client::open_to(settings, std::slice::from_ref(&endpoint)).await?;
        match client.hash_kv(client.deadline(), pb::HashKvRequest { revision }).await {
            Ok(reply) => list.push((endpoint, reply)),
            Err(error) => {
                eprintln!("Failed to get the hash of endpoint {endpoint} ({error})");
                failure = Some(Failure::general(error));
            }
        }
    }
    settings.printer.print(&Reply::HashKv(&list))?;
    failure.map_or(Ok(()), Err)
}
