//! Elections that the members hold for their clients.
//!
//! Elected is the oldest key under the election's name ([`turn`]); its value is
//! what it proclaims. Who has been elected once is told by its leader key: name,
//! key and the revision at which that was created.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::Stream;
use proto::command::command::Op;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request;
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};
use proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use state::KeyRange;
use tokio::time::Instant;
use tonic::Status;
use tracing::debug;

use super::body::{Pieces, stream};
use super::decode;
use super::interceptor::{Answer, Call};
use super::message::framed;
use super::turn::{self, Keys, Leaving};
use crate::error::Unavailable;
use crate::node::{Contest, Failure, Node};
use crate::watch;

/// Stands for election, and waits until it is elected.
pub async fn campaign(node: Node, request: CampaignRequest) -> Result<CampaignResponse, Failure> {
    let CampaignRequest { name, lease, value } = request;
    let lease = turn::lease(&node, lease).await?;
    let keys = Keys::of(&name);
    let key = keys.of_lease(lease);
    let answer = turn::transact(
        &node,
        turn::transaction(
            turn::created(key.clone(), 0),
            vec![turn::put(key.clone(), value.clone(), lease)],
            vec![Request::RequestRange(turn::get(key.clone()))],
        ),
    )
    .await?;
    let before = turn::found(&answer, 0);
    let created = match before {
        Some(before) => before.create_revision,
        None => answer.header.unwrap_or_default().revision,
    };
    let resignation = || resignation(key.clone(), created);
    if before.is_some_and(|before| before.value != value) {
        match proclaimed(&node, key.clone(), created, value, lease).await {
            Ok(_header) => {}
            // The key is another one's by now.
            Err(failure @ Failure::Contest(_)) => return Err(failure),
            Err(failure) => {
                Leaving::by(&node, Op::Txn(resignation())).go().await;
                return Err(failure);
            }
        }
    }
    let leaving = Leaving::by(&node, Op::Txn(resignation()));
    match turn::come(&node, &keys, created).await {
        Ok(()) => leaving.stay(),
        Err(failure @ Failure::Unavailable(Unavailable::Stopped)) => {
            leaving.go().await;
            return Err(failure);
        }
        Err(failure) => {
            // It still stands, as in etcd: nobody but its client gives it up.
            leaving.stay();
            return Err(failure);
        }
    }
    let leader = LeaderKey { name, key, rev: created, lease };
    // As of when it began to stand.
    Ok(CampaignResponse { header: answer.header, leader: Some(leader) })
}

/// Gives the elected another value.
pub async fn proclaim(node: Node, request: ProclaimRequest) -> Result<ProclaimResponse, Failure> {
    let leader = request.leader.ok_or(Contest::NoLeaderKey)?;
    let lease = turn::lease(&node, leader.lease).await?;
    let header = proclaimed(&node, leader.key, leader.rev, request.value, lease).await?;
    Ok(ProclaimResponse { header })
}

async fn proclaimed(
    node: &Node,
    key: Bytes,
    created: i64,
    value: Bytes,
    lease: i64,
) -> Result<Option<pb::ResponseHeader>, Failure> {
    let put = turn::put(key.clone(), value, lease);
    let answer =
        turn::transact(node, turn::transaction(turn::created(key, created), vec![put], Vec::new())).await?;
    match answer.succeeded {
        true => Ok(answer.header),
        false => Err(Contest::NotLeader.into()),
    }
}

/// Gives an election up, won or not. Nothing happens if that is over.
pub async fn resign(node: Node, request: ResignRequest) -> Result<ResignResponse, Failure> {
    let leader = request.leader.ok_or(Contest::NoLeaderKey)?;
    // etcd makes a lease where none is given, although it needs none.
    turn::lease(&node, leader.lease).await?;
    let answer = turn::transact(&node, resignation(leader.key, leader.rev)).await?;
    Ok(ResignResponse { header: answer.header })
}

/// Deletes the key that was created at this revision.
fn resignation(key: Bytes, created: i64) -> pb::TxnRequest {
    let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
    turn::transaction(turn::created(key, created), vec![Request::RequestDeleteRange(delete)], Vec::new())
}

/// Says who is elected.
pub async fn leader(node: Node, request: LeaderRequest) -> Result<LeaderResponse, Failure> {
    let (header, leader) = turn::first(&node, Keys::of(&request.name).oldest()).await?;
    let kv = leader.ok_or(Contest::NoLeader)?;
    Ok(LeaderResponse { header: Some(header), kv: Some(kv) })
}

/// Says who is elected, and every change of that and of what they proclaim.
pub fn observe(call: &Call<'_>, message: Bytes) -> Answer {
    let request: LeaderRequest = decode(message)?;
    let monitor = call.admit_stream()?;
    let observer = Observer {
        node: call.node().clone(),
        keys: Keys::of(&request.name),
        at: At::Between,
        told: VecDeque::new(),
    };
    let end = call.patience().map(|patience| Instant::now() + patience);
    Ok(stream(monitor.over(Pieces::new(answers(observer, end)))))
}

fn answers(observer: Observer, end: Option<Instant>) -> impl Stream<Item = Result<Bytes, Status>> {
    futures::stream::unfold(Some(observer), move |observer| async move {
        let mut observer = observer?;
        let next = match end {
            None => Ok(observer.next().await),
            Some(end) => tokio::time::timeout_at(end, observer.next()).await,
        };
        match next {
            Ok(Some(answer)) => Some((Ok(framed(&answer)), Some(observer))),
            Ok(None) => None,
            Err(_elapsed) => Some((Err(Failure::DeadlineExceeded.into()), None)),
        }
    })
}

/// Who watches an election.
struct Observer {
    node: Node,
    keys: Keys,
    at: At,
    /// To be told, in order. Bounded by what one response of a watch holds.
    told: VecDeque<LeaderResponse>,
}

/// Where it looks.
enum At {
    /// Nobody is known to be elected.
    Between,
    /// At the key of the elected.
    Elected(watch::Stream),
}

impl Observer {
    /// The next to tell; none once that cannot be found out any more, which etcd tells nobody.
    async fn next(&mut self) -> Option<LeaderResponse> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Some(told);
            }
            let looked = match &mut self.at {
                At::Between => self.look().await,
                At::Elected(stream) => match turn::next_events(stream).await.and_then(read) {
                    Ok(events) => {
                        self.take(events);
                        Ok(())
                    }
                    Err(failure) => Err(failure),
                },
            };
            if let Err(failure) = looked {
                debug!(%failure, "an election is not observed any more");
                return None;
            }
        }
    }

    /// Finds out who is elected, or waits until somebody is.
    async fn look(&mut self) -> Result<(), Failure> {
        let (header, elected) = turn::first(&self.node, self.keys.oldest()).await?;
        let (revision, elected) = match elected {
            Some(elected) => (header.revision, elected),
            None => {
                let mut stream = turn::watch(&self.node, self.keys.range(), header.revision, false);
                let put = loop {
                    let events = read(turn::next_events(&mut stream).await?)?;
                    if let Some(put) = events.into_iter().find(|event| event.r#type() == EventType::Put) {
                        break put.kv.unwrap_or_default();
                    }
                };
                (put.mod_revision, put)
            }
        };
        let key = KeyRange::Single(elected.key.clone());
        self.tell(revision, elected);
        self.at = At::Elected(turn::watch(&self.node, key, revision + 1, false));
        Ok(())
    }

    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            if event.r#type() == EventType::Delete {
                self.at = At::Between;
                return;
            }
            let elected = event.kv.unwrap_or_default();
            self.tell(elected.mod_revision, elected);
        }
    }

    fn tell(&mut self, revision: i64, elected: KeyValue) {
        let header = Some(self.node.header(revision));
        self.told.push_back(LeaderResponse { header, kv: Some(elected) });
    }
}

fn read(events: Bytes) -> Result<Vec<Event>, Failure> {
    // The elements of the field `events` are a response that has no other.
    Ok(decode::<pb::WatchResponse>(events)?.events)
}
