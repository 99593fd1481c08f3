//! One of the two members, and how a call is made on it.

use anyhow::{Context, Result};
use proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseLeasesRequest, MemberListRequest, RangeRequest, StatusRequest,
};
use proto::health::HealthCheckRequest;
use tests::{Client, Member, Options, Program};

use super::generate::STREAMS;
use super::step::{Answer, Call, Outcome, Refused};
use super::watches::Stream;

/// Both members advertise these, so that ids and member lists are equal.
const PEER_URL: &str = "http://127.0.0.1:2380";
const CLIENT_URL: &str = "http://127.0.0.1:2379";

/// A member under comparison.
pub struct Side {
    pub name: &'static str,
    pub member: Member,
    pub client: Client,
    pub streams: Vec<Stream>,
}

impl Side {
    pub async fn start(name: &'static str, program: Program) -> Result<Side> {
        let mut options = Options::new(program).arg(format!("--advertise-client-urls={CLIENT_URL}"));
        options.peer_url = Some(PEER_URL.to_owned());
        let member = Member::start_with(options).await?;
        let client = member.connect().await?;
        let mut side = Side { name, member, client, streams: Vec::new() };
        side.open_streams().await?;
        Ok(side)
    }

    /// Whether a record of its index is missing: etcd ends when it is read, and the history with it.
    pub async fn lost_a_record(&mut self) -> bool {
        let everything = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() };
        // What it answers is of no interest, only whether it can.
        drop(self.call(&Call::Range(everything)).await);
        self.member.log().contains("range failed to find revision pair")
    }

    /// Stops the process, one way or the other, and starts it again.
    pub async fn restart(&mut self, kill: bool) -> Result<()> {
        self.streams.clear();
        if kill {
            self.member.kill().await?;
        } else {
            self.member.terminate().await?;
        }
        self.member.start_again().await.with_context(|| format!("{} starts again", self.name))?;
        self.client = self.member.connect().await?;
        self.open_streams().await
    }

    async fn open_streams(&mut self) -> Result<()> {
        for _ in 0..STREAMS {
            self.streams.push(Stream::open(&self.client).await?);
        }
        Ok(())
    }

    /// Makes a call.
    pub async fn call(&mut self, call: &Call) -> Outcome {
        let client = &mut self.client;
        Ok(match call.clone() {
            Call::Range(request) => Answer::Range(client.kv.range(request).await?.into_inner()),
            Call::RangeStream(request) => {
                let mut stream = client.kv.range_stream(request).await?.into_inner();
                let mut chunks = Vec::new();
                let ended = loop {
                    match stream.message().await {
                        Ok(Some(chunk)) => chunks.push(chunk.range_response.unwrap_or_default()),
                        Ok(None) => break None,
                        Err(status) => break Some(Refused::from(status)),
                    }
                };
                Answer::Chunks(chunks, ended)
            }
            Call::Put(request) => Answer::Put(client.kv.put(request).await?.into_inner()),
            Call::Delete(request) => Answer::Delete(client.kv.delete_range(request).await?.into_inner()),
            Call::Txn(request) => Answer::Txn(client.kv.txn(request).await?.into_inner()),
            Call::Compact(request) => Answer::Compact(client.kv.compact(request).await?.into_inner()),
            Call::Grant(request) => Answer::Grant(client.lease.lease_grant(request).await?.into_inner()),
            Call::Revoke(request) => Answer::Revoke(client.lease.lease_revoke(request).await?.into_inner()),
            Call::TimeToLive(request) => {
                Answer::TimeToLive(client.lease.lease_time_to_live(request).await?.into_inner())
            }
            Call::KeepAlive(id) => {
                let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
                let mut answers = client.lease.lease_keep_alive(requests).await?.into_inner();
                Answer::KeepAlive(answers.message().await?.unwrap_or_default())
            }
            Call::Leases => {
                Answer::Leases(client.lease.lease_leases(LeaseLeasesRequest {}).await?.into_inner())
            }
            Call::HashKv(request) => Answer::HashKv(client.maintenance.hash_kv(request).await?.into_inner()),
            Call::Alarm(request) => Answer::Alarm(client.maintenance.alarm(request).await?.into_inner()),
            Call::Status => Answer::Status(client.maintenance.status(StatusRequest {}).await?.into_inner()),
            Call::Members { linearizable } => Answer::Members(
                client.cluster.member_list(MemberListRequest { linearizable }).await?.into_inner(),
            ),
            Call::Health { service } => {
                Answer::Health(client.health.check(HealthCheckRequest { service }).await?.into_inner().status)
            }
        })
    }
}
