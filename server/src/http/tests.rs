//! Bodies, headers and status codes, as seen on etcd 3.7.

use std::collections::BTreeMap;
use std::sync::Mutex;

use http_body_util::BodyExt;

use super::*;

#[derive(Default)]
struct Member {
    leaderless: bool,
    learner: bool,
    alarms: Mutex<Vec<pb::AlarmMember>>,
    unreadable: bool,
}

impl Health for Member {
    fn leader(&self) -> u64 {
        u64::from(!self.leaderless)
    }
    fn alarms(&self) -> Vec<pb::AlarmMember> {
        self.alarms.lock().unwrap().clone()
    }
    fn serializable_read(&self) -> Checked<'_> {
        Box::pin(async { Ok(()) })
    }
    fn linearizable_read(&self) -> Checked<'_> {
        Box::pin(async {
            if self.unreadable { Err("etcdserver: request timed out".to_owned()) } else { Ok(()) }
        })
    }
    fn is_learner(&self) -> bool {
        self.learner
    }
    fn cluster_version(&self) -> Option<String> {
        (!self.leaderless).then(|| "3.7.0".to_owned())
    }
    fn storage_version(&self) -> Option<String> {
        (!self.leaderless).then(|| "3.6.0".to_owned())
    }
}

fn context(port: Port, flags: &[&str], member: Member) -> HttpContext {
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let config = crate::config::load(&flags, &BTreeMap::new()).unwrap();
    HttpContext::new(&config, port, false, Arc::new(member))
}

async fn ask(method: &str, target: &str, context: &HttpContext) -> (u16, Response<()>, String) {
    let request = Request::builder().method(method).uri(target).header("host", "h:1").body(()).unwrap();
    let (parts, body) = handle(request, context).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), Response::from_parts(parts, ()), String::from_utf8(body.to_vec()).unwrap())
}

fn alarm(alarm: pb::AlarmType) -> Mutex<Vec<pb::AlarmMember>> {
    Mutex::new(vec![pb::AlarmMember { member_id: 1, alarm: alarm as i32 }])
}

#[tokio::test]
async fn healthy() {
    let context = context(Port::Metrics, &[], Member::default());
    for (target, body) in [
        ("/health", "{\"health\":\"true\",\"reason\":\"\"}"),
        ("/livez", "ok\n"),
        ("/readyz", "ok\n"),
        ("/livez?verbose", "[+]serializable_read ok\nok\n"),
        ("/readyz/linearizable_read", "ok\n"),
        (
            "/readyz?verbose&exclude=linearizable_read&exclude=nonsense",
            "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read excluded: ok\n[+]non_learner ok\nok\n",
        ),
    ] {
        let (status, response, text) = ask("GET", target, &context).await;
        assert_eq!((status, text.as_str()), (200, body), "{target}");
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    }
}

#[tokio::test]
async fn refused_paths_and_methods() {
    let context = context(Port::Metrics, &[], Member::default());
    for target in
        ["/version", "/nope", "/livez/linearizable_read", "/readyz/read_index", "/livezz", "/debug/vars"]
    {
        let (status, response, text) = ask("GET", target, &context).await;
        assert_eq!((status, text.as_str()), (404, "404 page not found\n"), "{target}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
    let (status, response, text) = ask("POST", "/health", &context).await;
    assert_eq!((status, text.as_str()), (405, "Method Not Allowed\n"));
    assert_eq!(response.headers()["allow"], "GET");
}

#[tokio::test]
async fn unhealthy() {
    let full =
        context(Port::Metrics, &[], Member { alarms: alarm(pb::AlarmType::Nospace), ..Member::default() });
    let (status, _, text) = ask("GET", "/health", &full).await;
    assert_eq!((status, text.as_str()), (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n"));
    assert_eq!(ask("GET", "/health?exclude=NOSPACE&serializable=true", &full).await.0, 200);
    assert_eq!(ask("GET", "/readyz", &full).await.0, 200);

    let corrupt =
        context(Port::Metrics, &[], Member { alarms: alarm(pb::AlarmType::Corrupt), ..Member::default() });
    let (status, _, text) = ask("GET", "/readyz", &corrupt).await;
    assert_eq!(status, 503);
    assert_eq!(
        text,
        "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\n\n"
    );
    assert_eq!(ask("GET", "/livez", &corrupt).await.0, 200);

    let lost =
        context(Port::Metrics, &[], Member { leaderless: true, unreadable: true, ..Member::default() });
    assert_eq!(
        ask("GET", "/health", &lost).await.2,
        "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n"
    );
    assert_eq!(ask("GET", "/health?serializable=true", &lost).await.0, 200);

    let stuck = context(Port::Metrics, &[], Member { unreadable: true, learner: true, ..Member::default() });
    assert_eq!(
        ask("GET", "/health", &stuck).await.2,
        "{\"health\":\"false\",\"reason\":\"RANGE ERROR:etcdserver: request timed out\"}\n"
    );
    let (_, _, text) = ask("GET", "/readyz", &stuck).await;
    assert!(text.contains("[-]linearizable_read failed: etcdserver: request timed out\n"), "{text}");
    assert!(text.contains("[-]non_learner failed: not supported for learner\n"), "{text}");
}

#[tokio::test]
async fn version_and_cors_on_the_client_port() {
    let open = context(Port::Client, &[], Member::default());
    let (status, response, text) = ask("GET", "/version", &open).await;
    assert_eq!(status, 200);
    assert_eq!(
        text,
        format!("{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"3.7.0\",\"storage\":\"3.6.0\"}}")
    );
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert_eq!(ask("OPTIONS", "/anything", &open).await.0, 200);

    let undecided = context(Port::Client, &[], Member { leaderless: true, ..Member::default() });
    assert!(ask("GET", "/version", &undecided).await.2.contains("\"not_decided\",\"storage\":\"unknown\""));

    let named = context(Port::Client, &["--host-whitelist=good.example"], Member::default());
    assert_eq!(ask("GET", "/version", &named).await.0, 421);
    let named = context(Port::Client, &["--host-whitelist=h"], Member::default());
    assert_eq!(ask("GET", "/version", &named).await.0, 200);

    let listed = context(Port::Client, &["--cors=http://good.example"], Member::default());
    assert!(!ask("GET", "/version", &listed).await.1.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn metrics_are_on_both_ports() {
    for port in [Port::Client, Port::Metrics] {
        let (status, response, text) = ask("GET", "/metrics", &context(port, &[], Member::default())).await;
        assert_eq!(status, 200);
        assert!(
            response.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4")
        );
        assert!(text.contains("# TYPE etcd_server_has_leader gauge"));
    }
    let (_, _, text) = ask("GET", "/debug/vars", &context(Port::Client, &[], Member::default())).await;
    assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["file_descriptor_limit"].is_number());
}
