//! What probes and scrapers ask.

use anyhow::Result;
use proto::etcdserverpb::AlarmRequest;
use tests::{Member, Options, free_port, http};

use crate::program;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_on_both_ports() -> Result<()> {
    let metrics = free_port();
    let options = Options::new(program()).arg(format!("--listen-metrics-urls=http://127.0.0.1:{metrics}"));
    let member = Member::start_with(options).await?;
    for port in [member.client_port(), metrics] {
        let (status, head, body) = http(port, "GET", "/health")?;
        assert_eq!((status, body.as_str()), (200, r#"{"health":"true","reason":""}"#), "{head}");
        assert_eq!(http(port, "GET", "/health?serializable=true")?.0, 200);
        for path in ["/livez", "/readyz"] {
            let (status, _, body) = http(port, "GET", path)?;
            assert_eq!((status, body.as_str()), (200, "ok\n"), "{path}");
        }
        let (_, _, body) = http(port, "GET", "/readyz?verbose")?;
        for check in ["data_corruption", "serializable_read", "linearizable_read", "non_learner"] {
            assert!(body.contains(&format!("[+]{check} ok")), "{body}");
        }
        assert_eq!(http(port, "GET", "/readyz/serializable_read")?.0, 200);
        assert_eq!(http(port, "GET", "/readyz/nonsense")?.0, 404);
        assert_eq!(http(port, "POST", "/health")?.0, 405);
        let (status, _, body) = http(port, "GET", "/metrics")?;
        assert_eq!(status, 200);
        for name in [
            "etcd_server_has_leader 1",
            "etcd_server_is_leader 1",
            "etcd_disk_wal_fsync_duration_seconds_count",
            "etcd_disk_backend_commit_duration_seconds_count",
            "etcd_mvcc_db_total_size_in_bytes",
            "etcd_debugging_mvcc_keys_total",
            "etcd_server_proposals_applied_total",
            "grpc_server_handled_total",
            "process_resident_memory_bytes",
        ] {
            assert!(body.contains(name), "{name} is missing");
        }
    }
    let (status, _, body) = http(member.client_port(), "GET", "/version")?;
    assert!(
        status == 200 && body.contains(r#""etcdserver":"3.7."#) && body.contains(r#""etcdcluster":"3.7.0""#),
        "{body}"
    );
    assert_eq!(http(metrics, "GET", "/version")?.0, 404);
    assert_eq!(http(member.client_port(), "GET", "/nothing")?.0, 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_show_in_probes() -> Result<()> {
    let member = Member::start(program()).await?;
    let client = member.connect().await?;
    let raise = |alarm| AlarmRequest { action: 1, member_id: 1, alarm };
    client.maintenance.clone().alarm(raise(1)).await?;
    let port = member.client_port();
    let (status, _, body) = http(port, "GET", "/health")?;
    assert_eq!((status, body.as_str()), (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n"));
    assert_eq!(http(port, "GET", "/health?exclude=NOSPACE")?.0, 200);
    assert_eq!(http(port, "GET", "/readyz")?.0, 200);
    client.maintenance.clone().alarm(raise(2)).await?;
    let (status, _, body) = http(port, "GET", "/readyz")?;
    assert_eq!(status, 503);
    assert!(body.contains("[-]data_corruption failed: alarm activated: CORRUPT"), "{body}");
    assert_eq!(http(port, "GET", "/livez")?.0, 200);
    Ok(())
}
