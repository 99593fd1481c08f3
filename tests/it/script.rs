//! Scripts that a member plays: what it answers is written down, line by line, and compared with what stands in
//! `testdata/` and with what etcd answers to the same script.

use std::fmt::{Debug, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;
use proto::v3electionpb::election_client::ElectionClient;
use proto::v3lockpb::lock_client::LockClient;
use tests::{Client, Member, Options, Program, Shape, http, skipped};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::program;

/// Both members advertise it, so that their ids are equal.
const PEER_URL: &str = "http://127.0.0.1:2380";
/// How long a member may take for what it will certainly do.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause before it is looked at again.
const PAUSE: Duration = Duration::from_millis(10);

/// A member that plays a script, and what was written down.
pub struct Stage {
    pub member: Member,
    pub client: Client,
    pub lines: String,
}

/// Plays a script on our member, and on etcd where there is one: both write down what is expected.
pub async fn play(
    name: &str,
    expected: &str,
    flags: &[&str],
    script: impl AsyncFn(&mut Stage) -> Result<()>,
) -> Result<()> {
    let mut programs = vec![program()];
    match Program::etcd() {
        Some(etcd) => programs.push(etcd),
        None => skipped(name, "REAL_ETCD_BIN is not set: it is compared with what was written down alone"),
    }
    for program in programs {
        let by = program.path().display().to_string();
        let mut options = Options::new(program);
        options.args = flags.iter().map(|flag| (*flag).to_owned()).collect();
        options.peer_url = Some(PEER_URL.to_owned());
        let member = Member::start_with(options).await?;
        let client = member.connect().await?;
        let mut stage = Stage { member, client, lines: String::new() };
        let played = script(&mut stage).await;
        played.with_context(|| format!("{name}, played by {by}; until then\n{}", stage.lines))?;
        let differs = stage.lines.lines().zip(expected.lines()).position(|(was, expected)| was != expected);
        ensure!(
            stage.lines == expected,
            "{name}, played by {by}: first difference in line {:?}\n{}",
            differs.map(|line| line + 1),
            stage.lines
        );
    }
    Ok(())
}

impl Stage {
    pub fn locks(&self) -> LockClient<Channel> {
        LockClient::new(self.client.channel.clone())
    }

    pub fn elections(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.client.channel.clone())
    }

    /// Writes a line down.
    pub fn say(&mut self, line: impl AsRef<str>) {
        writeln!(self.lines, "{}", line.as_ref()).expect("a string takes everything");
    }

    /// Writes down what was asked and what came back, without ids that no script can know.
    pub fn tell<T: Debug>(&mut self, asked: &str, answer: Result<Response<T>, Status>) -> Option<T> {
        match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                self.say(format!("{asked}\n    {answer:?}"));
                Some(answer)
            }
            Err(status) => {
                self.say(format!("{asked}\n    {:?}: {}", status.code(), status.message()));
                None
            }
        }
    }

    /// Makes a lease.
    pub async fn grant(&self, id: i64) -> Result<()> {
        let request = pb::LeaseGrantRequest { id, ttl: 600 };
        self.client.lease.clone().lease_grant(request).await?;
        Ok(())
    }

    /// The time to live that a lease was granted.
    pub async fn granted(&self, id: i64) -> Result<i64> {
        let request = pb::LeaseTimeToLiveRequest { id, keys: false };
        Ok(self.client.lease.clone().lease_time_to_live(request).await?.into_inner().granted_ttl)
    }

    /// Raises or lowers the alarm for want of space.
    pub async fn no_space(&self, action: pb::alarm_request::AlarmAction) -> Result<()> {
        let alarm = pb::AlarmType::Nospace.into();
        let request = pb::AlarmRequest { action: action.into(), member_id: 0, alarm };
        self.client.maintenance.clone().alarm(request).await?;
        Ok(())
    }

    pub async fn delete(&self, key: &str) -> Result<()> {
        let request = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.client.kv.clone().delete_range(request).await?;
        Ok(())
    }

    /// Waits until a key is there.
    pub async fn there(&self, key: &str) -> Result<KeyValue> {
        eventually(key, async || Ok(self.client.get(key).await?)).await
    }

    /// Waits until a key is gone.
    pub async fn gone(&self, key: &str) -> Result<()> {
        eventually(key, async || Ok(self.client.get(key).await?.is_none().then_some(()))).await
    }

    /// The series of these gRPC services, once no call of theirs is under way.
    pub async fn series(&mut self, services: &[&str]) -> Result<()> {
        let port = self.member.client_port();
        let lines = eventually("all calls have ended", async || {
            let (_, _, body) = http(port, "GET", "/metrics")?;
            let of_them = |line: &&str| {
                line.starts_with("grpc_server") && services.iter().any(|service| line.contains(service))
            };
            let mut lines: Vec<&str> = body.lines().filter(of_them).collect();
            lines.sort_unstable();
            let sum = |family: &str| -> u64 {
                let of_it = lines.iter().filter(|line| line.starts_with(family));
                of_it.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
            };
            let ended = sum("grpc_server_started_total{") == sum("grpc_server_handled_total{");
            Ok(ended.then(|| lines.join("\n")))
        });
        let lines = lines.await?;
        self.say(lines);
        Ok(())
    }
}

/// Three members that are not in a hurry to elect: what is tested on them is not how quick they are.
pub fn three() -> Shape {
    Shape { heartbeat_ms: 100, election_ms: 1_500, ..Shape::new(program(), 3) }
}

/// Grants leases, whatever the cluster is busy with.
pub async fn grant(client: &Client, ids: &[i64]) -> Result<()> {
    for &id in ids {
        let request = pb::LeaseGrantRequest { id, ttl: 600 };
        eventually("a lease", async || match client.lease.clone().lease_grant(request).await {
            Ok(_) => Ok(Some(())),
            // Granted by a try that got no answer.
            Err(status) if status.code() == Code::FailedPrecondition => Ok(Some(())),
            Err(_later) => Ok(None),
        })
        .await?;
    }
    Ok(())
}

/// A call that waits: made again where it came to nothing, and under way once its key is there.
pub async fn under_way<T: Send + 'static>(
    client: &Client,
    key: &str,
    call: impl Fn() -> JoinHandle<Result<Response<T>, Status>>,
) -> Result<JoinHandle<Result<Response<T>, Status>>> {
    let mut waiting = call();
    let end = Instant::now() + PATIENCE;
    while client.get(key).await.ok().flatten().is_none() {
        if waiting.is_finished() {
            waiting = call();
        }
        ensure!(Instant::now() < end, "not in {PATIENCE:?}: {key}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(waiting)
}

/// Tries until there is something.
pub async fn eventually<T>(what: &str, look: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
