//! A dialer and a port, over sockets.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::pin::Pin;

use proto::etcdserverpb as pb;
use proto::peer::ProbeRequest;
use proto::peer::peer_client::PeerClient;
use tonic::Code;

use super::*;
use crate::config::Config;
use crate::peer::dial::Dialer;
use crate::peer::http::Cluster;
use crate::tls::tests::Pki;

/// Refuses every call in a way of its own.
#[derive(Clone)]
struct There;

impl Service<Request<Incoming>> for There {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        std::future::ready(Ok(Status::unimplemented(request.uri().path().to_owned()).into_http()))
    }
}

struct Nobody;

impl Cluster for Nobody {
    fn id(&self) -> u64 {
        0x1f
    }
    fn members(&self) -> Vec<pb::Member> {
        Vec::new()
    }
    fn version(&self) -> Option<String> {
        Some("3.7.0".to_owned())
    }
    fn storage_version(&self) -> Option<String> {
        self.version()
    }
    fn downgrade_enabled(&self) -> Pin<Box<dyn Future<Output = Result<bool, String>> + Send + '_>> {
        Box::pin(async { Ok(false) })
    }
}

fn config(line: &str) -> Config {
    let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    crate::config::load(&args, &BTreeMap::new()).expect(line)
}

/// A port that serves, with the flags of its member.
struct Served {
    url: String,
    grpc: Late,
    http: PeerHttp,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

fn served(scheme: &str, flags: &str) -> Served {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let url = format!("{scheme}://{}", socket.local_addr().unwrap());
    let config = config(&format!("--listen-peer-urls={url} --initial-advertise-peer-urls={url} {flags}"));
    let tls = Acceptor::for_peers(&config).unwrap();
    let (grpc, http) = (Late::default(), PeerHttp::default());
    let (stop, stopping) = watch::channel(false);
    let sockets = vec![(Listener::Tcp(socket), Url::parse(&url).unwrap())];
    let thread =
        serve(sockets, tls, grpc.clone(), http.clone(), &Home::default(), Limits::new(&config), stopping)
            .unwrap();
    Served { url, grpc, http, stop, thread }
}

fn dialer(flags: &str) -> Dialer {
    Dialer::new(&config(flags)).unwrap()
}

async fn probe(dialer: &Dialer, url: &str) -> Status {
    let mut client = PeerClient::new(dialer.channel(url).unwrap());
    client.probe(ProbeRequest {}).await.expect_err("nobody answers here")
}

/// Whether a call gets through. One that does not fails in many ways: with TLS 1.3 the caller learns only
/// after its side of the handshake that it is not welcome.
async fn answers(dialer: &Dialer, url: &str) -> bool {
    probe(dialer, url).await.code() == Code::Unimplemented
}

#[tokio::test]
async fn grpc_and_http_share_the_port_and_refuse_until_the_member_is_there() {
    let port = served("http", "");
    let dialer = Dialer::default();
    let early = probe(&dialer, &port.url).await;
    assert_eq!((early.code(), early.message()), (Code::Unavailable, "the member is starting"));
    assert_eq!(dialer.get(&port.url, "/members").await.unwrap().status, 503);

    port.grpc.is(There);
    port.http.is(Nobody);
    let late = probe(&dialer, &port.url).await;
    assert_eq!((late.code(), late.message()), (Code::Unimplemented, "/peer.Peer/Probe"));
    let members = dialer.get(&port.url, "/members").await.unwrap();
    assert_eq!((members.status.as_u16(), members.body.as_ref()), (200, b"[]\n".as_ref()));
    assert_eq!(members.headers["x-etcd-cluster-id"], "1f");

    port.stop.send_replace(true);
    tokio::task::spawn_blocking(|| port.thread.join()).await.unwrap().unwrap();
    assert!(dialer.get(&port.url, "/members").await.is_err());
}

/// A member that restarts must be found again by the channel that lost it.
#[tokio::test]
async fn a_channel_connects_again() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let url = format!("http://{address}");
    let mut client = PeerClient::new(Dialer::default().channel(&url).unwrap());
    let gone = client.probe(ProbeRequest {}).await.unwrap_err();
    assert_eq!(gone.code(), Code::Unavailable);
    let socket = TcpListener::bind(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    let grpc = Late::default();
    grpc.is(There);
    let (_stop, stopping) = watch::channel(false);
    let sockets = vec![(Listener::Tcp(socket), Url::parse(&url).unwrap())];
    let _thread =
        serve(sockets, None, grpc, PeerHttp::default(), &Home::default(), Limits::new(&config("")), stopping)
            .unwrap();
    loop {
        match client.probe(ProbeRequest {}).await.unwrap_err().code() {
            Code::Unimplemented => break,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test]
async fn members_show_each_other_certificates() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    pki.issue("a", &["127.0.0.1"]);
    pki.issue("elsewhere", &["192.0.2.1"]);
    stranger.issue("a", &["127.0.0.1"]);
    let flags = |pki: &Pki, name: &str| {
        let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
        format!("--peer-client-cert-auth --peer-cert-file={cert} --peer-key-file={key}")
    };
    let trusting = |from: &Pki, name: &str, ca: &Pki| {
        format!("{} --peer-trusted-ca-file={}", flags(from, name), ca.path("ca.pem"))
    };
    let port = served("https", &trusting(&pki, "a", &pki));
    port.grpc.is(There);
    port.http.is(Nobody);
    let good = dialer(&trusting(&pki, "a", &pki));
    assert_eq!(probe(&good, &port.url).await.code(), Code::Unimplemented);
    assert_eq!(good.get(&port.url, "/version").await.unwrap().status, 200);

    let refused = [
        // signed by somebody else
        trusting(&stranger, "a", &pki),
        // trusts somebody else
        trusting(&pki, "a", &stranger),
        // comes from an address its certificate does not name
        trusting(&pki, "elsewhere", &pki),
        // shows nothing
        format!("--peer-trusted-ca-file={}", pki.path("ca.pem")),
    ];
    for flags in &refused {
        assert!(!answers(&dialer(flags), &port.url).await, "{flags}");
        assert!(dialer(flags).get(&port.url, "/version").await.is_err(), "{flags}");
    }
}

#[tokio::test]
async fn names_of_peers_can_be_limited() {
    let pki = Pki::new();
    pki.issue("a", &["127.0.0.1"]);
    let flags = |more: &str| {
        format!(
            "--peer-client-cert-auth --peer-cert-file={} --peer-key-file={} --peer-trusted-ca-file={} {more}",
            pki.path("a.pem"),
            pki.path("a.key"),
            pki.path("ca.pem")
        )
    };
    for (allowed, lets_in) in [
        ("--peer-cert-allowed-hostname=127.0.0.1", true),
        ("--peer-cert-allowed-hostname=example.com", false),
        ("--peer-cert-allowed-cn=somebody", false),
    ] {
        let port = served("https", &flags(allowed));
        port.grpc.is(There);
        assert_eq!(answers(&dialer(&flags("")), &port.url).await, lets_in, "{allowed}");
        // The rule holds in both directions.
        let open = served("https", &flags(""));
        open.grpc.is(There);
        assert_eq!(answers(&dialer(&flags(allowed)), &open.url).await, lets_in, "{allowed}");
    }
}

/// A certificate that was rotated must be shown on the next connection, without a restart.
#[tokio::test]
async fn a_new_certificate_is_shown_when_connecting_again() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    pki.issue("server", &["127.0.0.1"]);
    stranger.issue("client", &["127.0.0.1"]);
    for kind in ["pem", "key"] {
        fs::copy(stranger.path(&format!("client.{kind}")), pki.path(&format!("client.{kind}"))).unwrap();
    }
    let flags = |name: &str| {
        let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
        let ca = pki.path("ca.pem");
        format!("--peer-cert-file={cert} --peer-key-file={key} --peer-trusted-ca-file={ca}")
    };
    let port = served("https", &flags("server"));
    port.http.is(Nobody);
    let dialer = dialer(&flags("client"));
    assert!(dialer.get(&port.url, "/version").await.is_err());
    pki.issue("client", &["127.0.0.1"]);
    assert_eq!(dialer.get(&port.url, "/version").await.unwrap().status, 200);
}

#[tokio::test]
async fn certificates_of_their_own_making_verify_nobody() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = served("https", &format!("--peer-auto-tls --data-dir={}", a.path().display()));
    port.grpc.is(There);
    let dialer = dialer(&format!("--peer-auto-tls --data-dir={}", b.path().display()));
    assert_eq!(probe(&dialer, &port.url).await.code(), Code::Unimplemented);
    assert!(a.path().join("fixtures/peer/cert.pem").exists());
}

#[tokio::test]
async fn sockets_of_the_file_system_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let url = Url::parse(&format!("unix://{}", dir.path().join("peer").display())).unwrap();
    let listener = crate::listen::bind(&url, &config("").flags).unwrap();
    let grpc = Late::default();
    grpc.is(There);
    let (_stop, stopping) = watch::channel(false);
    let _thread = serve(
        vec![(listener, url.clone())],
        None,
        grpc,
        PeerHttp::default(),
        &Home::default(),
        Limits::new(&config("")),
        stopping,
    )
    .unwrap();
    assert_eq!(probe(&Dialer::default(), url.as_str()).await.code(), Code::Unimplemented);
}
