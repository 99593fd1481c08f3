//! A look at the members: what each says of itself at one time.

use std::time::{Duration, Instant};

use proto::etcdserverpb as pb;
use proto::insight;
use tokio::task::JoinSet;
use tonic::Code;

use crate::client::{CallError, Client};
use crate::failure::Failure;
use crate::globals::Settings;

/// As many prefixes as a member counts.
const PREFIXES_MAX: u32 = 256;
/// The shortest time that a member has to answer.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// What the members said.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When they were asked.
    pub at: Instant,
    /// One of each endpoint, in the order of the endpoints.
    pub members: Vec<MemberSample>,
    /// The members of the cluster by their own word; empty where nobody told.
    pub names: Vec<(u64, String)>,
}

/// What one member said.
#[derive(Clone, Debug)]
pub struct MemberSample {
    /// The endpoint, as it was given.
    pub endpoint: String,
    /// Its state, or why there is no answer.
    pub status: Result<pb::StatusResponse, String>,
    /// Its load, or why it is not known.
    pub load: Result<insight::SampleResponse, NoLoad>,
}

/// Why the load of a member is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoLoad {
    /// Its server has no `quorate.Insight`: etcd.
    NotServed,
    /// It did not answer, or refused.
    Failed(String),
}

/// Asks the members again and again.
#[derive(Debug)]
pub struct Asker {
    clients: Vec<(String, Client)>,
    request: insight::SampleRequest,
    patience: Duration,
}

impl Asker {
    /// One that asks these endpoints for prefixes of so many parts.
    ///
    /// # Errors
    /// What is wrong with an endpoint or with the credentials. A member that is not there is no error.
    pub async fn new(
        settings: &Settings,
        endpoints: &[String],
        delimiter: Vec<u8>,
        depth: u32,
        interval: Duration,
    ) -> Result<Self, Failure> {
        let mut clients = Vec::new();
        for endpoint in endpoints {
            let client = Client::open_to(settings, std::slice::from_ref(endpoint)).await?;
            clients.push((endpoint.clone(), client));
        }
        let request =
            insight::SampleRequest { delimiter: delimiter.into(), depth, prefixes_max: PREFIXES_MAX };
        let patience = settings.command_timeout.min(interval.max(PATIENCE_MIN));
        Ok(Self { clients, request, patience })
    }

    /// Asks all members at the same time.
    pub async fn sample(&self) -> Sample {
        let at = Instant::now();
        let mut visits = JoinSet::new();
        for (index, (endpoint, client)) in self.clients.iter().enumerate() {
            let (endpoint, client, request) = (endpoint.clone(), client.clone(), self.request.clone());
            let deadline = Some((at + self.patience).into());
            visits.spawn(async move {
                let status = client.status(deadline, pb::StatusRequest {});
                let load = client.insight(deadline, request);
                let names = client.member_list(deadline, pb::MemberListRequest { linearizable: false });
                let (status, load, names) = tokio::join!(status, load, names);
                let status = status.map_err(|error| error.to_string());
                let load = load.map_err(|error| match error {
                    CallError::Status(status) if status.code() == Code::Unimplemented => NoLoad::NotServed,
                    error => NoLoad::Failed(error.to_string()),
                });
                let names = names.map(|reply| reply.members).unwrap_or_default();
                (index, MemberSample { endpoint, status, load }, names)
            });
        }
        let mut answers = visits.join_all().await;
        answers.sort_unstable_by_key(|(index, ..)| *index);
        let names = answers.iter().map(|(_, _, names)| names).max_by_key(|names| names.len());
        let names = names.into_iter().flatten().map(|member| (member.id, member.name.clone())).collect();
        Sample { at, members: answers.into_iter().map(|(_, member, _)| member).collect(), names }
    }
}
