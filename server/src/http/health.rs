//! `/health`, `/livez` and `/readyz`.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use proto::etcdserverpb::AlarmType;
use tracing::warn;

use super::{Health, add_nosniff, plain_error, respond};
use crate::metrics::METRICS;

/// One check of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// No CORRUPT alarm.
    DataCorruption,
    /// This member can read.
    SerializableRead,
    /// The cluster can read.
    LinearizableRead,
    /// This member votes.
    NonLearner,
}

/// What `/livez` checks.
pub const LIVEZ: &[Check] = &[Check::SerializableRead];

/// What `/readyz` checks. A full quota does not make a member unready: it can still serve and be compacted.
pub const READYZ: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    /// The name in paths, bodies and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    async fn run(self, health: &dyn Health) -> Result<(), String> {
        match self {
            Check::DataCorruption => {
                let corrupt = health.alarms().iter().any(|alarm| alarm.alarm == AlarmType::Corrupt as i32);
                if corrupt { Err("alarm activated: CORRUPT".to_owned()) } else { Ok(()) }
            }
            Check::SerializableRead => health.serializable_read().await,
            Check::LinearizableRead => health.linearizable_read().await,
            Check::NonLearner if health.is_learner() => Err("not supported for learner".to_owned()),
            Check::NonLearner => Ok(()),
        }
    }
}

/// The values of a query parameter, decoded.
fn values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `/health`: alarms, a leader, a read. Monitoring of older etcd asks here.
pub async fn health(query: &str, health: &dyn Health) -> Response<Full<Bytes>> {
    let excluded: Vec<String> = values(query, "exclude").collect();
    let serializable = values(query, "serializable").next().is_some_and(|value| value == "true");
    let reason = unhealthy(&excluded, serializable, health).await;
    match reason {
        None => {
            METRICS.server.health_success.inc();
            respond(StatusCode::OK, "text/plain; charset=utf-8", "{\"health\":\"true\",\"reason\":\"\"}")
        }
        Some(reason) => {
            METRICS.server.health_failures.inc();
            let reason = serde_json::Value::from(reason);
            warn!(%reason, "serving /health false");
            plain_error(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("{{\"health\":\"false\",\"reason\":{reason}}}"),
            )
        }
    }
}

async fn unhealthy(excluded: &[String], serializable: bool, health: &dyn Health) -> Option<String> {
    for alarm in health.alarms() {
        let name = alarm.alarm().as_str_name();
        if !excluded.iter().any(|excluded| excluded == name) {
            let known = matches!(alarm.alarm(), AlarmType::Nospace | AlarmType::Corrupt);
            return Some(format!("ALARM {}", if known { name } else { "UNKNOWN" }));
        }
    }
    if !serializable && health.leader() == 0 {
        return Some("RAFT NO LEADER".to_owned());
    }
    let read = if serializable { health.serializable_read().await } else { health.linearizable_read().await };
    read.err().map(|error| format!("RANGE ERROR:{error}"))
}

/// `/livez` and `/readyz`: each check on a line when asked for or when one failed.
pub async fn probe(probe: &str, checks: &[Check], query: &str, health: &dyn Health) -> Response<Full<Bytes>> {
    let excluded: Vec<String> = values(query, "exclude").collect();
    let verbose = values(query, "verbose").next().is_some();
    let mut lines = String::new();
    let mut failed = false;
    for check in checks {
        let name = check.name();
        if excluded.iter().any(|excluded| excluded == name) {
            lines += &format!("[+]{name} excluded: ok\n");
            continue;
        }
        let outcome = check.run(health).await;
        let status = if outcome.is_ok() { "success" } else { "error" };
        METRICS.server.healthcheck.with_label_values(&[probe, name]).set(i64::from(outcome.is_ok()));
        METRICS.server.healthchecks.with_label_values(&[probe, name, status]).inc();
        match outcome {
            Ok(()) => lines += &format!("[+]{name} ok\n"),
            Err(reason) => {
                failed = true;
                warn!(probe, check = name, %reason, "health check failed");
                lines += &format!("[-]{name} failed: {reason}\n");
            }
        }
    }
    if failed {
        return plain_error(StatusCode::SERVICE_UNAVAILABLE, &lines);
    }
    let body = if verbose { lines + "ok\n" } else { "ok\n".to_owned() };
    let mut response = respond(StatusCode::OK, "text/plain; charset=utf-8", body);
    add_nosniff(&mut response);
    response
}
