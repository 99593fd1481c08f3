//! Against a member that says what it is told to.

use std::pin::Pin;
use std::sync::Mutex;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use proto::etcdserverpb::watch_server::{Watch as Service, WatchServer};
use proto::mvccpb;
use rand::SeedableRng;
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::history::Event;

/// What one connection says after the watcher was created; then it is lost.
type Lines = Vec<pb::WatchResponse>;

/// A member with a script, and the start revisions it was asked for.
#[derive(Clone)]
struct Member {
    connections: Arc<Mutex<Vec<Lines>>>,
    starts: Arc<Mutex<Vec<i64>>>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Service for Member {
    type WatchStream = Answers;

    async fn watch(
        &self,
        requests: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let mut requests = requests.into_inner();
        let first = requests.message().await?.and_then(|request| request.request_union);
        let Some(RequestUnion::CreateRequest(create)) = first else {
            return Err(Status::invalid_argument("nothing is created"));
        };
        self.starts.lock().expect("no panic holds it").push(create.start_revision);
        let mut connections = self.connections.lock().expect("no panic holds it");
        if connections.is_empty() {
            return Err(Status::unavailable("nothing is left to be said"));
        }
        let lines = connections.remove(0);
        let created = pb::WatchResponse { created: true, ..at(10) };
        let answers = std::iter::once(created).chain(lines).map(Ok);
        let lost = std::iter::once(Err(Status::unavailable("gone")));
        Ok(Response::new(Box::pin(tokio_stream::iter(answers.chain(lost)))))
    }
}

fn at(revision: i64) -> pb::WatchResponse {
    let header = pb::ResponseHeader { revision, ..pb::ResponseHeader::default() };
    pb::WatchResponse { header: Some(header), ..pb::WatchResponse::default() }
}

fn events(revisions: &[i64]) -> pb::WatchResponse {
    let event = |revision: &i64| mvccpb::Event {
        kv: Some(mvccpb::KeyValue {
            key: bytes("k"),
            value: bytes(&revision.to_string()),
            mod_revision: *revision,
            ..mvccpb::KeyValue::default()
        }),
        ..mvccpb::Event::default()
    };
    let last = revisions.last().copied().unwrap_or_default();
    pb::WatchResponse { events: revisions.iter().map(event).collect(), ..at(last) }
}

fn cancelled(compacted: i64) -> pb::WatchResponse {
    pb::WatchResponse { canceled: true, compact_revision: compacted, ..at(0) }
}

/// Serves these connections, and gives the endpoints and the starts that are asked for.
async fn member(connections: Vec<Lines>) -> (Endpoints, Arc<Mutex<Vec<i64>>>) {
    let member = Member { connections: Arc::new(Mutex::new(connections)), starts: Arc::default() };
    let starts = Arc::clone(&member.starts);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let service = TowerToHyperService::new(WatchServer::new(member));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service.clone()));
        }
    });
    (Arc::from([url]), starts)
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(1)
}

/// What was told of events, by their revisions.
fn told(watch: &Watch) -> Vec<i64> {
    let events = watch.seen.iter().filter_map(|seen| match &seen.what {
        Notice::Events(events) => Some(events),
        _ => None,
    });
    events.flatten().map(|event: &Event| event.pair.modified).collect()
}

/// Whoever lost its connection goes on behind what it was told, be it by progress alone.
#[tokio::test]
async fn a_watcher_resumes_behind_the_last_revision() {
    let (endpoints, starts) = member(vec![vec![events(&[11, 12])], vec![at(15)], vec![]]).await;
    let (_sender, until) = watch::channel(Until::Further);
    let plan = Plan { keys: everything(), life: Some(Duration::from_millis(1500)), ..Plan::default() };
    let watch = Watcher::new(1, plan, endpoints, Stopwatch::start(), rng(), until).run().await;
    assert_eq!(told(&watch), [11, 12]);
    assert_eq!(starts.lock().expect("no panic holds it")[..3], [0, 13, 16]);
    let lost = watch.seen.iter().filter(|seen| matches!(seen.what, Notice::Lost(_))).count();
    assert_eq!(lost, 3);
}

/// Whoever asked for what comes next, and was told nothing, must not miss what came meanwhile.
#[tokio::test]
async fn what_comes_next_begins_where_it_was_created() {
    let (endpoints, starts) = member(vec![vec![], vec![]]).await;
    let (_sender, until) = watch::channel(Until::Further);
    let plan = Plan { keys: everything(), life: Some(Duration::from_millis(700)), ..Plan::default() };
    Watcher::new(1, plan, endpoints, Stopwatch::start(), rng(), until).run().await;
    assert_eq!(starts.lock().expect("no panic holds it")[..2], [0, 11]);
}

/// Progress told too early must not hide from the observer what comes after all.
#[tokio::test]
async fn the_observer_believes_events_only_and_hears_all() {
    let connections =
        vec![vec![events(&[2, 3]), at(9)], vec![events(&[4])], vec![events(&[5, 6]), events(&[7])]];
    let (endpoints, starts) = member(connections).await;
    let (sender, until) = watch::channel(Until::Further);
    let observed = Observed::default();
    let watcher = Watcher::observer(1, 0, observed.clone(), endpoints, Stopwatch::start(), rng(), until);
    let running = tokio::spawn(watcher.run());
    sender.send_replace(Until::Revision(7));
    let watch = running.await.expect("it does not panic");
    assert_eq!(told(&watch), [2, 3, 4, 5, 6, 7]);
    assert_eq!(*starts.lock().expect("no panic holds it"), [1, 4, 5]);
    assert_eq!(observed.revision(), 7);
}

/// A watcher whose start is compacted ends; the observer goes on with what is left.
#[tokio::test]
async fn only_the_observer_goes_on_after_a_compaction() {
    let (endpoints, starts) = member(vec![vec![cancelled(8)]]).await;
    let (_sender, until) = watch::channel(Until::Further);
    let plan = Plan { keys: everything(), start: 1, ..Plan::default() };
    let watch = Watcher::new(1, plan, endpoints, Stopwatch::start(), rng(), until).run().await;
    assert!(matches!(watch.seen.last().expect("it was told").what, Notice::Cancelled { compacted: 8, .. }));
    assert_eq!(*starts.lock().expect("no panic holds it"), [1]);

    let (endpoints, starts) = member(vec![vec![cancelled(8)], vec![events(&[8, 9])]]).await;
    let (_sender, until) = watch::channel(Until::Revision(9));
    let observed = Observed::default();
    Watcher::observer(1, 0, observed, endpoints, Stopwatch::start(), rng(), until).run().await;
    assert_eq!(*starts.lock().expect("no panic holds it"), [1, 8]);
}

#[test]
fn a_prefix_ends_before_the_next_one() {
    assert_eq!(under("a/").end, "a0");
}
