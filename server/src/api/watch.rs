//! Watch: a client's requests go to the hub, the hub's responses to the client.
//!
//! One body is the whole stream: polling it reads requests, as long as there is
//! room for their answers, and then takes responses. Events stand encoded in
//! the hub's items; here they get the header, the id and the frame around them,
//! many responses in one piece when many wait.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use hyper::body::Incoming;
use prost::Message;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::watch_request::RequestUnion;
use state::KeyRange;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::Status;

use super::body::{Pieces, stream};
use super::interceptor::{Answer, Call, failed_to_receive};
use super::message::{Messages, PREFIX_LEN, put_prefix};
use super::{Method, decode};
use crate::error::Unavailable;
use crate::node::{Failure, Node};
use crate::watch::{self, Create, Item, first_event};

/// A piece is sent once it has this much …
const PIECE_BYTES: usize = 32 << 10;
/// … and events of this size are not copied into one.
const COPY_BYTES_MAX: usize = 8 << 10;
/// Requests read before responses get their turn.
const REQUESTS_PER_TURN: usize = 256;
/// The watch id of a response that belongs to no watch.
const NO_WATCH: i64 = -1;

/// Serves a watch stream.
///
/// # Errors
/// What all streams are refused for.
pub fn watch(call: &Call<'_>, messages: Messages<Incoming>) -> Answer {
    let monitor = call.admit_stream()?;
    let node = call.node().clone();
    let hub = node.hub().clone();
    let limit = node.settings().message_bytes_max();
    let requests = requests(messages, call.method());
    let responses = Responses::new(hub.open(), hub.progress_interval(), requests, Headers::Node(node), limit);
    Ok(stream(monitor.over(Pieces::new(responses))))
}

/// The requests of a client, until it closes its side.
fn requests(
    messages: Messages<Incoming>,
    method: Method,
) -> impl Stream<Item = Result<pb::WatchRequest, Status>> + Send {
    futures::stream::unfold(messages, move |mut messages| async move {
        let message = messages.next().await?;
        let message = message.inspect_err(|invalid| failed_to_receive("watch", invalid));
        if let Some(series) = method.series() {
            series.received.inc();
        }
        Some((message.and_then(decode).map_err(Status::from), messages))
    })
}

/// Who fills the headers.
enum Headers {
    Node(Node),
    #[cfg(test)]
    Fixed(pb::ResponseHeader),
}

impl Headers {
    fn at(&self, revision: i64) -> pb::ResponseHeader {
        match self {
            Self::Node(node) => node.header(revision),
            #[cfg(test)]
            Self::Fixed(header) => pb::ResponseHeader { revision, ..*header },
        }
    }
}

/// The responses of a stream, framed, in pieces.
struct Responses<R> {
    /// None once the client has closed its side; its watches go on.
    requests: Option<Pin<Box<R>>>,
    stream: watch::Stream,
    headers: Headers,
    ticker: Interval,
    /// From this size on a response may be sent in fragments.
    fragment_bytes: usize,
    piece: BytesMut,
    /// Follows `piece`: events too big to be copied.
    big: Option<Bytes>,
    /// What is left of a response that is sent in fragments.
    rest: Option<Fragments>,
}

impl<R: Stream<Item = Result<pb::WatchRequest, Status>>> Responses<R> {
    fn new(
        stream: watch::Stream,
        progress_interval: Duration,
        requests: R,
        headers: Headers,
        fragment_bytes: usize,
    ) -> Self {
        // Streams that begin together should not all tell their progress together.
        let period = progress_interval + progress_interval.mul_f64(rand::random::<f64>() / 10.0);
        let mut ticker = interval_at(Instant::now() + period, period);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            requests: Some(Box::pin(requests)),
            stream,
            headers,
            ticker,
            fragment_bytes,
            piece: BytesMut::new(),
            big: None,
            rest: None,
        }
    }

    /// Reads requests as long as their answers have room.
    fn read(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        for _ in 0..REQUESTS_PER_TURN {
            if !self.stream.has_room() {
                return Ok(());
            }
            let Some(requests) = &mut self.requests else { return Ok(()) };
            match requests.as_mut().poll_next(context) {
                Poll::Ready(Some(request)) => self.serve(request?),
                Poll::Ready(None) => self.requests = None,
                Poll::Pending => return Ok(()),
            }
        }
        context.waker().wake_by_ref();
        Ok(())
    }

    fn serve(&self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) if request.start_revision < 0 => {
                self.stream.refuse("etcdserver: mvcc: required revision has been compacted".to_owned());
            }
            Some(RequestUnion::CreateRequest(request)) => self.stream.create(&create(&request)),
            Some(RequestUnion::CancelRequest(request)) => self.stream.cancel(request.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.stream.ask_progress(),
            // Of a newer client; etcd says nothing to it either.
            None => {}
        }
    }

    /// Fills a piece, if there is anything to send; none when the stream has ended.
    fn fill(&mut self, context: &mut Context<'_>) -> Poll<Option<()>> {
        while self.piece.len() < PIECE_BYTES && self.big.is_none() {
            if let Some(mut rest) = self.rest.take() {
                let (response, events) = rest.next(self.fragment_bytes);
                if !rest.events.is_empty() {
                    self.rest = Some(rest);
                }
                self.put(&response, events);
                continue;
            }
            match self.stream.poll_next(context) {
                Poll::Ready(Some(item)) => self.put_item(item),
                Poll::Ready(None) if self.piece.is_empty() => return Poll::Ready(None),
                Poll::Pending if self.piece.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(()))
    }

    fn put_item(&mut self, item: Item) {
        let header = |revision| Some(self.headers.at(revision));
        let none = pb::WatchResponse::default();
        let (response, events) = match item {
            Item::Created { id, revision } => {
                let header = header(revision);
                (pb::WatchResponse { header, watch_id: id, created: true, ..none }, Bytes::new())
            }
            Item::Refused { revision, reason } => {
                let response = pb::WatchResponse {
                    header: header(revision),
                    watch_id: NO_WATCH,
                    created: true,
                    canceled: true,
                    cancel_reason: reason,
                    ..none
                };
                (response, Bytes::new())
            }
            Item::Canceled { id, revision } => {
                let header = header(revision);
                (pb::WatchResponse { header, watch_id: id, canceled: true, ..none }, Bytes::new())
            }
            Item::Compacted { id, compact_revision } => {
                let header = header(0);
                let response =
                    pb::WatchResponse { header, watch_id: id, canceled: true, compact_revision, ..none };
                (response, Bytes::new())
            }
            Item::Progress { id, revision } => {
                (pb::WatchResponse { header: header(revision), watch_id: id, ..none }, Bytes::new())
            }
            Item::Events { id, revision, fragment, count, events } => {
                let response = pb::WatchResponse { header: header(revision), watch_id: id, ..none };
                if fragment && count > 1 && response.encoded_len() + events.len() >= self.fragment_bytes {
                    self.rest = Some(Fragments { response, events });
                    return;
                }
                (response, events)
            }
        };
        self.put(&response, events);
    }

    /// Adds a response: `events`, its last field, stand encoded already.
    fn put(&mut self, response: &pb::WatchResponse, events: Bytes) {
        let len = response.encoded_len();
        let copied = if events.len() > COPY_BYTES_MAX { 0 } else { events.len() };
        self.piece.reserve(PREFIX_LEN + len + copied);
        put_prefix(&mut self.piece, len + events.len());
        response.encode(&mut self.piece).expect("a growing buffer takes every message");
        if copied == events.len() {
            self.piece.put_slice(&events);
        } else {
            self.big = Some(events);
        }
    }
}

impl<R: Stream<Item = Result<pb::WatchRequest, Status>>> Stream for Responses<R> {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(big) = this.big.take() {
            return Poll::Ready(Some(Ok(big)));
        }
        if let Err(status) = this.read(context) {
            return Poll::Ready(Some(Err(status)));
        }
        while this.ticker.poll_tick(context).is_ready() {
            this.stream.tick();
        }
        match this.fill(context) {
            // Taken whole, so that a stream with nothing to send keeps no buffer.
            Poll::Ready(Some(())) => Poll::Ready(Some(Ok(std::mem::take(&mut this.piece).freeze()))),
            // A client takes an end without error for the end of its watches; of this one it tries again.
            Poll::Ready(None) => Poll::Ready(Some(Err(Failure::from(Unavailable::Stopped).into()))),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A response too big for one message.
struct Fragments {
    response: pb::WatchResponse,
    events: Bytes,
}

impl Fragments {
    /// The next part: as many events as stay below `limit`, but one at least.
    fn next(&mut self, limit: usize) -> (pb::WatchResponse, Bytes) {
        self.response.fragment = true;
        let fixed = self.response.encoded_len();
        let (first, mut rest) = first_event(&self.events);
        let mut end = first.len();
        while !rest.is_empty() {
            let (event, after) = first_event(&rest);
            if fixed + end + event.len() >= limit {
                break;
            }
            end += event.len();
            rest = after;
        }
        let events = self.events.split_to(end);
        let fragment = !self.events.is_empty();
        (pb::WatchResponse { fragment, ..self.response.clone() }, events)
    }
}

/// Reads a create request; keys are copied, since they live longer than the buffer they came in.
fn create(request: &pb::WatchCreateRequest) -> Create {
    let key = match &request.key[..] {
        [] => Bytes::from_static(&[0]),
        key => Bytes::copy_from_slice(key),
    };
    let range_end = Bytes::copy_from_slice(&request.range_end);
    let filtered = |kind: FilterType| request.filters.contains(&i32::from(kind));
    Create {
        range: KeyRange::parse(key, range_end),
        start_revision: request.start_revision,
        watch_id: request.watch_id,
        progress_notify: request.progress_notify,
        no_put: filtered(FilterType::Noput),
        no_delete: filtered(FilterType::Nodelete),
        prev_kv: request.prev_kv,
        fragment: request.fragment,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Buf;
    use futures::StreamExt;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;
    use crate::watch::naive::{Naive, Source};
    use crate::watch::{Hub, Options};

    type Requests = UnboundedReceiverStream<Result<pb::WatchRequest, Status>>;

    struct Client {
        store: Arc<Naive>,
        hub: Hub,
        requests: Option<mpsc::UnboundedSender<Result<pb::WatchRequest, Status>>>,
        responses: Pin<Box<Responses<Requests>>>,
        came: BytesMut,
    }

    impl Client {
        fn new(fragment_bytes: usize) -> Self {
            let store = Naive::new();
            let hub = Hub::start(Arc::new(Source(store.clone())), Options::default()).unwrap();
            let (sender, receiver) = mpsc::unbounded_channel();
            let headers =
                Headers::Fixed(pb::ResponseHeader { cluster_id: 1, member_id: 2, raft_term: 3, revision: 0 });
            let requests = UnboundedReceiverStream::new(receiver);
            let interval = hub.progress_interval();
            let responses = Responses::new(hub.open(), interval, requests, headers, fragment_bytes);
            Self { store, hub, requests: Some(sender), responses: Box::pin(responses), came: BytesMut::new() }
        }

        fn ask(&self, request: RequestUnion) {
            let request = pb::WatchRequest { request_union: Some(request) };
            self.requests.as_ref().unwrap().send(Ok(request)).unwrap();
        }

        fn create(&self, request: pb::WatchCreateRequest) {
            self.ask(RequestUnion::CreateRequest(request));
        }

        fn apply(&self, changes: &[(&'static str, Option<usize>)]) {
            let change = |(key, len): &(&'static str, Option<usize>)| {
                (Bytes::from_static(key.as_bytes()), len.map(|len| vec![1; len].into()))
            };
            let changes: Vec<_> = changes.iter().map(change).collect();
            self.hub.publish(self.store.apply(&changes).into_iter().collect());
        }

        async fn next(&mut self) -> pb::WatchResponse {
            loop {
                if self.came.len() >= PREFIX_LEN {
                    let len = (&self.came[1..]).get_u32() as usize;
                    if self.came.len() >= PREFIX_LEN + len {
                        let message = self.came.split_to(PREFIX_LEN + len).freeze();
                        return pb::WatchResponse::decode(message.slice(PREFIX_LEN..)).unwrap();
                    }
                }
                let piece = self.responses.next().await.unwrap().unwrap();
                self.came.extend_from_slice(&piece);
            }
        }
    }

    fn header(revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { cluster_id: 1, member_id: 2, raft_term: 3, revision })
    }

    fn of_all() -> pb::WatchCreateRequest {
        pb::WatchCreateRequest { range_end: Bytes::from_static(&[0]), ..Default::default() }
    }

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_requests() {
        let mut client = Client::new(1 << 20);
        client.create(pb::WatchCreateRequest { start_revision: -1, ..of_all() });
        client.create(of_all());
        client.create(pb::WatchCreateRequest {
            key: "b".into(),
            range_end: "a".into(),
            ..Default::default()
        });
        client.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 7 }));
        client.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
        client.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 }));
        let none = pb::WatchResponse { header: header(1), ..Default::default() };
        let refused = |reason: &str| pb::WatchResponse {
            watch_id: -1,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..none.clone()
        };
        assert_eq!(client.next().await, refused("etcdserver: mvcc: required revision has been compacted"));
        assert_eq!(client.next().await, pb::WatchResponse { created: true, ..none.clone() });
        assert_eq!(client.next().await, refused("mvcc: watcher range is empty"));
        assert_eq!(client.next().await, pb::WatchResponse { watch_id: -1, ..none.clone() });
        assert_eq!(client.next().await, pb::WatchResponse { canceled: true, ..none.clone() });
    }

    #[tokio::test]
    async fn a_watch_goes_on_after_its_client_has_asked_for_all_it_wants() {
        let mut client = Client::new(1 << 20);
        client.create(of_all());
        client.requests = None;
        assert!(client.next().await.created);
        for len in [0, COPY_BYTES_MAX * 2, 3] {
            client.apply(&[("k", Some(len))]);
            let response = client.next().await;
            assert_eq!(response.events.len(), 1);
            assert_eq!(response.events[0].kv.as_ref().unwrap().value.len(), len);
        }
    }

    #[tokio::test]
    async fn a_compacted_watch_is_told_without_revision_and_reason() {
        let mut client = Client::new(1 << 20);
        for _ in 0..5 {
            client.apply(&[("k", Some(1))]);
        }
        client.store.compact(4);
        client.create(pb::WatchCreateRequest { start_revision: 3, ..of_all() });
        assert!(client.next().await.created);
        let ended = pb::WatchResponse {
            header: header(0),
            canceled: true,
            compact_revision: 4,
            ..Default::default()
        };
        assert_eq!(client.next().await, ended);
    }

    #[tokio::test]
    async fn an_error_of_the_client_ends_the_stream() {
        let mut client = Client::new(1 << 20);
        client.requests.as_ref().unwrap().send(Err(Status::internal("not a message"))).unwrap();
        let ended = client.responses.next().await.unwrap().unwrap_err();
        assert_eq!(ended.message(), "not a message");
    }

    /// Go's client gives a watch up when its stream ends without an error: a restart would end all of them.
    #[tokio::test]
    async fn the_end_of_the_member_is_an_error_to_try_again_on() {
        let mut client = Client::new(1 << 20);
        client.create(of_all());
        assert!(client.next().await.created);
        client.hub.end();
        let ended = client.responses.next().await.unwrap().unwrap_err();
        assert_eq!((ended.code(), ended.message()), (tonic::Code::Unavailable, "etcdserver: server stopped"));
    }

    /// As etcd: at the limit, not above it; and every part as full as stays below it.
    #[tokio::test]
    async fn fragments_begin_at_the_limit() {
        let changes = [("a", Some(900)), ("b", Some(900)), ("c", Some(900)), ("d", Some(900))];
        let mut whole = Client::new(usize::MAX);
        whole.create(pb::WatchCreateRequest { fragment: true, ..of_all() });
        assert!(whole.next().await.created);
        whole.apply(&changes);
        let response = whole.next().await;
        let len = response.encoded_len();
        for (limit, parts) in [(len + 1, vec![4]), (len, vec![3, 1]), (2000, vec![2, 2]), (10, vec![1; 4])] {
            let mut client = Client::new(limit);
            client.create(pb::WatchCreateRequest { fragment: true, ..of_all() });
            client.create(of_all());
            assert!(client.next().await.created && client.next().await.created);
            client.apply(&changes);
            let mut events = Vec::new();
            for (number, part) in parts.iter().enumerate() {
                // The two watches share a range: the newer one is served first.
                let mut got = client.next().await;
                if got.watch_id == 1 {
                    assert_eq!((got.events.len(), got.fragment), (4, false));
                    got = client.next().await;
                }
                assert_eq!((got.header, got.events.len()), (header(2), *part));
                assert_eq!(got.fragment, number + 1 < parts.len());
                events.extend(got.events);
            }
            assert_eq!(events, response.events);
        }
    }
}
