//! A client that writes down what it asked and heard.
//!
//! It asks one member until that fails it, then another. A request is sent once
//! and never again, and it counts as not done only where that is certain: there
//! was no connection to send it on, or the server said what it says only of
//! what it will never do. All else that went wrong is unknown.

use std::sync::Arc;
use std::time::Duration;

use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::history::{Action, Answer, Body, Operation, Outcome, Request};
use crate::stopwatch::Stopwatch;

/// What a client may receive; etcd's own client has no limit either.
const MESSAGE_MAX: usize = i32::MAX as usize;
/// etcd ends connections that are pinged more often than every 5 s.
const PING_EVERY: Duration = Duration::from_secs(6);
const PING_TIME_MAX: Duration = Duration::from_secs(3);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// Where members serve their clients, by their numbers.
pub type Endpoints = Arc<[String]>;

/// One client, which has one request under way at a time.
#[derive(Debug)]
pub struct Client {
    number: u32,
    step: u32,
    endpoints: Endpoints,
    member: usize,
    channel: Option<Channel>,
    patience: Duration,
    clock: Stopwatch,
    rng: StdRng,
    operations: Vec<Operation>,
}

impl Client {
    /// A client with a number below `step`, which is how many there are.
    ///
    /// What it does after an operation that nobody knows the end of, it does as another client, under
    /// a number that is larger by `step`: its former self may still be at work.
    pub fn new(
        number: u32,
        step: u32,
        endpoints: Endpoints,
        patience: Duration,
        clock: Stopwatch,
        mut rng: StdRng,
    ) -> Client {
        let member = rng.random_range(0..endpoints.len());
        Client {
            number,
            step,
            endpoints,
            member,
            channel: None,
            patience,
            clock,
            rng,
            operations: Vec::new(),
        }
    }

    /// From now on asks this member.
    pub fn turn_to(&mut self, member: usize) {
        self.member = member;
        self.channel = None;
    }

    /// Asks once, and tells what came of it.
    pub async fn execute(&mut self, action: Action) -> &Operation {
        let invoked = self.clock.now();
        let (client, member) = (self.number, self.member);
        let outcome = match self.connected().await {
            Ok(channel) => match timeout(self.patience, ask(channel, &action)).await {
                Ok(Ok(answer)) => Outcome::Done(answer),
                Ok(Err(status)) => judge(&action, &status),
                Err(_elapsed) => unsure(&action, format!("no answer in {:?}", self.patience)),
            },
            Err(error) => Outcome::Refused(error),
        };
        let returned = self.clock.now();
        match &outcome {
            Outcome::Done(_) => {}
            Outcome::Refused(why) if is_answer(why) => {}
            Outcome::Refused(_) => self.leave(),
            Outcome::Unknown(_) => {
                self.leave();
                self.number += self.step;
            }
        }
        self.operations.push(Operation { client, member, invoked, returned, action, outcome });
        self.operations.last().expect("one was just added")
    }

    /// What this client did, in its order.
    pub fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    async fn connected(&mut self) -> Result<Channel, String> {
        if self.channel.is_none() {
            self.channel = Some(connect(&self.endpoints[self.member]).await?);
        }
        Ok(self.channel.clone().expect("there is one by now"))
    }

    fn leave(&mut self) {
        let member = another(self.member, self.endpoints.len(), &mut self.rng);
        self.turn_to(member);
    }
}

/// Any member but this one, where there is another.
pub fn another(member: usize, members: usize, rng: &mut StdRng) -> usize {
    match members {
        1 => member,
        _ => (member + rng.random_range(1..members)) % members,
    }
}

/// A new connection, which is not made again once lost; the error says that there is none, so that nothing was sent.
pub async fn connect(url: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| error.to_string())?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIME_MAX)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIME_MAX)
        .tcp_nodelay(true);
    // The time limit covers what comes after the connection of TCP, too.
    match timeout(CONNECT_TIME_MAX, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(format!("not connected: {}", innermost(&error))),
        Err(_elapsed) => Err(format!("not connected: not in {CONNECT_TIME_MAX:?}")),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Whether a failed request may have changed anything.
pub fn writes(action: &Action) -> bool {
    match action {
        Action::Range(_) | Action::LeaseTimeToLive { .. } => false,
        Action::Txn(txn) => {
            txn.then.iter().chain(&txn.otherwise).any(|request| !matches!(request, Request::Range(_)))
        }
        _ => true,
    }
}

/// What an error says of the request.
pub fn judge(action: &Action, status: &Status) -> Outcome {
    let text = format!("{:?}: {}", status.code(), status.message());
    match never_done(status) {
        true => Outcome::Refused(text),
        false => unsure(action, text),
    }
}

/// A read that failed did no harm.
fn unsure(action: &Action, why: String) -> Outcome {
    match writes(action) {
        true => Outcome::Unknown(why),
        false => Outcome::Refused(why),
    }
}

/// Whether the server says this only of what has not been done and never will be.
///
/// Refusals of the state machine are decided where the request has its place in the log, and those of its
/// form before it is proposed. Not among them: a full quota, which etcd also tells of writes it has done;
/// a leader lost or missing, and being stopped, which are told of what may be in the log already.
fn never_done(status: &Status) -> bool {
    let message = status.message();
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::NotFound => message.starts_with("etcdserver: "),
        Code::FailedPrecondition => {
            ["etcdserver: lease already exists", "etcdserver: rpc not supported for learner"]
                .contains(&message)
        }
        Code::Unknown => message == "etcdserver: too many requests",
        _ => false,
    }
}

/// Whether the refusal is the state machine's, so that another member would say the same.
fn is_answer(why: &str) -> bool {
    ["InvalidArgument", "OutOfRange", "NotFound", "FailedPrecondition: etcdserver: lease"]
        .iter()
        .any(|start| why.starts_with(start))
}

async fn ask(channel: Channel, action: &Action) -> Result<Answer, Status> {
    let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(MESSAGE_MAX);
    let mut lease = LeaseClient::new(channel);
    let (header, body) = match action {
        Action::Range(range) => {
            let mut answer = kv.range(pb::RangeRequest::from(range)).await?.into_inner();
            (answer.header.take(), answer.into())
        }
        Action::Put(put) => {
            let mut answer = kv.put(pb::PutRequest::from(put)).await?.into_inner();
            (answer.header.take(), answer.into())
        }
        Action::Delete(delete) => {
            let mut answer = kv.delete_range(pb::DeleteRangeRequest::from(delete)).await?.into_inner();
            (answer.header.take(), answer.into())
        }
        Action::Txn(txn) => {
            let mut answer = kv.txn(pb::TxnRequest::from(txn)).await?.into_inner();
            (answer.header.take(), answer.into())
        }
        Action::Compact { revision } => {
            let request = pb::CompactionRequest { revision: *revision, physical: false };
            (kv.compact(request).await?.into_inner().header, Body::Nothing)
        }
        Action::LeaseGrant { id, ttl } => {
            let request = pb::LeaseGrantRequest { id: *id, ttl: *ttl };
            let answer = lease.lease_grant(request).await?.into_inner();
            (answer.header, Body::Lease { id: answer.id, ttl: answer.ttl })
        }
        Action::LeaseRevoke { id } => {
            let request = pb::LeaseRevokeRequest { id: *id };
            (lease.lease_revoke(request).await?.into_inner().header, Body::Nothing)
        }
        Action::LeaseKeepAlive { id } => {
            let request = tokio_stream::once(pb::LeaseKeepAliveRequest { id: *id });
            let mut answers = lease.lease_keep_alive(request).await?.into_inner();
            let answer = answers.message().await?;
            let answer = answer.ok_or_else(|| Status::unknown("the stream ended without an answer"))?;
            (answer.header, Body::Lease { id: answer.id, ttl: answer.ttl })
        }
        Action::LeaseTimeToLive { id } => {
            let request = pb::LeaseTimeToLiveRequest { id: *id, keys: false };
            let answer = lease.lease_time_to_live(request).await?.into_inner();
            (answer.header, Body::Lease { id: answer.id, ttl: answer.ttl })
        }
    };
    Ok(Answer { revision: header.map_or(0, |header| header.revision), body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Put;

    fn put() -> Action {
        Action::Put(Put::default())
    }

    #[test]
    fn only_what_was_never_proposed_is_refused() {
        let refused = [
            Status::new(Code::NotFound, "etcdserver: requested lease not found"),
            Status::new(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            Status::new(Code::Unknown, "etcdserver: too many requests"),
            Status::new(Code::FailedPrecondition, "etcdserver: rpc not supported for learner"),
        ];
        let unknown = [
            Status::new(Code::Unavailable, "etcdserver: request timed out"),
            Status::new(Code::Unavailable, "etcdserver: leader changed"),
            Status::new(Code::Unavailable, "etcdserver: no leader"),
            Status::new(Code::Unavailable, "etcdserver: server stopped"),
            Status::new(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Status::new(Code::Unknown, "transport error"),
        ];
        for status in refused {
            assert!(matches!(judge(&put(), &status), Outcome::Refused(_)), "{status}");
        }
        for status in unknown {
            assert!(matches!(judge(&put(), &status), Outcome::Unknown(_)), "{status}");
        }
    }

    #[test]
    fn a_read_that_failed_is_refused() {
        let status = Status::new(Code::Unavailable, "etcdserver: request timed out");
        let action = Action::LeaseTimeToLive { id: 1 };
        assert!(matches!(judge(&action, &status), Outcome::Refused(_)));
    }

    #[test]
    fn another_member_is_never_the_same() {
        let mut rng = rand::SeedableRng::seed_from_u64(1);
        for at in 0..30 {
            assert_ne!(another(at % 3, 3, &mut rng), at % 3);
        }
        assert_eq!(another(0, 1, &mut rng), 0);
    }
}
