//! Random histories on etcd and on our member: every answer, error and watch history the same.
//!
//! | variable | meaning |
//! |---|---|
//! | `DIFFERENTIAL_SEED` | the (first) history, as a failure prints it; 1 without |
//! | `DIFFERENTIAL_STEPS` | how long a history is |
//! | `DIFFERENTIAL_RUNS` | how many histories, each on fresh members |
//! | `DIFFERENTIAL_SELF` | compare etcd with itself, which tests the test |
//! | `DIFFERENTIAL_KEEP_GOING` | report up to this many differences before giving up |
//!
//! Deliberate differences stand in `tests/differences.md`.

mod generate;
mod same;
mod side;
mod step;
mod watches;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use proto::etcdserverpb::{LeaseGrantRequest, PutRequest, RangeRequest};
use tests::{Program, skipped};

use self::generate::Generator;
use self::same::same;
use self::side::Side;
use self::step::{Answer, Call, Step};

/// etcd brings watches that start in the past up to date in a loop of 100 ms.
const CATCH_UP: Duration = Duration::from_millis(300);
/// How long a member may take for what it will certainly do.
const PATIENCE: Duration = Duration::from_secs(10);
/// Steps shown when something differs.
const SHOWN: usize = 12;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories_are_answered_as_etcd_answers_them() -> Result<()> {
    let Some(etcd) = Program::etcd() else {
        skipped("differential test", "REAL_ETCD_BIN is not set");
        return Ok(());
    };
    let ours = if setting("DIFFERENTIAL_SELF", 0) == 1 { etcd.clone() } else { Program::ours() };
    let steps = setting("DIFFERENTIAL_STEPS", 4_000);
    let first = setting("DIFFERENTIAL_SEED", 1);
    for seed in first..first + setting("DIFFERENTIAL_RUNS", 1) {
        println!("differential: DIFFERENTIAL_SEED={seed} DIFFERENTIAL_STEPS={steps}");
        let mut pair = Pair {
            etcd: Side::start("etcd", etcd.clone()).await?,
            ours: Side::start("ours", ours.clone()).await?,
            last: VecDeque::new(),
            unsynced: false,
            compactions: BTreeSet::new(),
        };
        let mut generator = Generator::new(seed);
        let mut left = setting("DIFFERENTIAL_KEEP_GOING", 1);
        let mut done = steps;
        for number in 0..steps {
            let step = generator.step();
            pair.remember(number, &step);
            if let Err(error) = pair.take(&step, &mut generator).await {
                if pair.etcd.lost_a_record().await {
                    println!("differential: seed {seed}: etcd lost a record by step {number} and ended");
                    done = number;
                    break;
                }
                left -= 1;
                if left > 0 {
                    println!("difference at seed {seed}, step {number}: {error:#}\nin {step:?}\n");
                    pair.reopen().await?;
                    continue;
                }
                let last = Vec::from(pair.last).join("\n  ");
                bail!("{error:#}\n\nseed {seed}, step {number}; the last steps were\n  {last}");
            }
        }
        if done == steps {
            pair.settle().await.with_context(|| format!("seed {seed}, at the end"))?;
        }
        ensure!(left == setting("DIFFERENTIAL_KEEP_GOING", 1), "seed {seed} differs; see above");
        println!("differential: seed {seed} is the same for {done} steps, revision {}", generator.revision());
    }
    Ok(())
}

/// Both members, in step.
struct Pair {
    etcd: Side,
    ours: Side,
    last: VecDeque<String>,
    /// A watch that starts in the past may still be catching up.
    unsynced: bool,
    /// Revisions that were compacted to; etcd remembers a hash of its own for these.
    compactions: BTreeSet<i64>,
}

impl Pair {
    fn remember(&mut self, number: u64, step: &Step) {
        let mut text = format!("{number}: {step:?}");
        if let Some((at, _)) = text.char_indices().nth(1_500) {
            text.truncate(at);
        }
        self.last.push_back(text);
        if self.last.len() > SHOWN {
            self.last.pop_front();
        }
    }

    async fn take(&mut self, step: &Step, generator: &mut Generator) -> Result<()> {
        match step {
            Step::Call(call) => {
                if matches!(call, Call::Compact(_)) {
                    // A watch must not be cancelled here and served there.
                    self.settle().await?;
                }
                self.call(call, generator).await
            }
            Step::Watch { stream, create } => {
                let before = (
                    self.etcd.streams[*stream].answers_to_create(),
                    self.ours.streams[*stream].answers_to_create(),
                );
                self.etcd.streams[*stream].create(create.clone()).await;
                self.ours.streams[*stream].create(create.clone()).await;
                self.unsynced |= create.start_revision != 0;
                let (etcd, ours) = (&self.etcd.streams[*stream], &self.ours.streams[*stream]);
                until("both answer the creation of a watch", || {
                    etcd.answers_to_create() > before.0 && ours.answers_to_create() > before.1
                })
                .await
            }
            Step::Cancel { stream, id } => {
                self.settle().await?;
                self.etcd.streams[*stream].cancel(*id).await;
                self.ours.streams[*stream].cancel(*id).await;
                self.settle().await
            }
            Step::Progress { stream } => {
                self.settle().await?;
                self.progress(*stream).await
            }
            Step::Reopen { stream } => {
                self.settle().await?;
                self.reopen_one(*stream).await
            }
            Step::Expire { id, keys } => self.expire(*id, *keys, generator).await,
            Step::Restart { kill } => {
                self.settle().await?;
                let (etcd, ours) = tokio::join!(self.etcd.restart(*kill), self.ours.restart(*kill));
                etcd.and(ours)
            }
        }
    }

    async fn reopen(&mut self) -> Result<()> {
        for stream in 0..self.etcd.streams.len() {
            self.reopen_one(stream).await?;
        }
        Ok(())
    }

    async fn reopen_one(&mut self, stream: usize) -> Result<()> {
        self.etcd.streams[stream] = watches::Stream::open(&self.etcd.client).await?;
        self.ours.streams[stream] = watches::Stream::open(&self.ours.client).await?;
        Ok(())
    }

    async fn call(&mut self, call: &Call, generator: &mut Generator) -> Result<()> {
        let (mut etcd, mut ours) = tokio::join!(self.etcd.call(call), self.ours.call(call));
        generator.learn(call, &etcd);
        match (call, &etcd, &mut ours) {
            (Call::Compact(request), Ok(_), _) => {
                self.compactions.insert(request.revision);
            }
            (_, Ok(Answer::HashKv(etcd)), Ok(Answer::HashKv(ours)))
                if self.compactions.contains(&etcd.hash_revision) =>
            {
                (ours.hash, ours.compact_revision) = (etcd.hash, etcd.compact_revision);
            }
            _ => {}
        }
        ensure!(
            same(call, &mut etcd, &mut ours),
            "the answers differ\ncall {call:?}\n{} {etcd:?}\n{} {ours:?}",
            self.etcd.name,
            self.ours.name
        );
        Ok(())
    }

    /// Waits until both have delivered the same history on every stream.
    async fn settle(&mut self) -> Result<()> {
        if std::mem::take(&mut self.unsynced) {
            tokio::time::sleep(CATCH_UP).await;
        }
        for (at, (etcd, ours)) in self.etcd.streams.iter().zip(&self.ours.streams).enumerate() {
            let equal = until("", || etcd.history().0 == ours.history().0).await;
            let ((etcd, etcd_end, _), (ours, end, wrong)) = (etcd.history(), ours.history());
            ensure!(wrong.is_empty(), "stream {at}: {wrong:?}");
            ensure!(end == etcd_end, "stream {at} ended: etcd {etcd_end:?}, ours {end:?}");
            if equal.is_err() {
                bail!("stream {at}: the histories differ\n{}", difference(&etcd, &ours));
            }
        }
        Ok(())
    }

    /// Progress is told if every watch of the stream is up to date, else nothing is.
    async fn progress(&mut self, stream: usize) -> Result<()> {
        let (etcd, ours) = (&self.etcd.streams[stream], &self.ours.streams[stream]);
        let before = (etcd.progresses(), ours.progresses());
        etcd.progress().await;
        ours.progress().await;
        let told = until_limit(CATCH_UP, || etcd.progresses() > before.0).await;
        if told {
            return until("ours tells its progress as etcd does", || ours.progresses() > before.1).await;
        }
        ensure!(ours.progresses() == before.1, "ours told its progress, etcd did not");
        Ok(())
    }

    /// A lease runs out on both and takes its keys with it.
    async fn expire(&mut self, id: i64, keys: usize, generator: &mut Generator) -> Result<()> {
        self.call(&Call::Grant(LeaseGrantRequest { ttl: 2, id }), generator).await?;
        for at in 0..keys {
            let key = format!("lease/{at}").into();
            let put = PutRequest { key, lease: id, ..PutRequest::default() };
            self.call(&Call::Put(put), generator).await?;
        }
        let leases = Call::Leases;
        for side in [&mut self.etcd, &mut self.ours] {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let answer = format!("{:?}", side.call(&leases).await);
                if !answer.contains(&format!("id: {id} ")) {
                    break;
                }
                ensure!(Instant::now() < deadline, "{}: lease {id} did not expire: {answer}", side.name);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let left =
            RangeRequest { key: "lease/".into(), range_end: "lease0".into(), ..RangeRequest::default() };
        self.call(&Call::Range(left), generator).await
    }
}

async fn until(what: &str, done: impl Fn() -> bool) -> Result<()> {
    ensure!(until_limit(PATIENCE, done).await, "not in {PATIENCE:?}: {what}");
    Ok(())
}

async fn until_limit(limit: Duration, done: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    true
}

/// The first place where two histories part, a watch at a time.
fn difference(etcd: &watches::History, ours: &watches::History) -> String {
    let mut text = String::new();
    let empty = Vec::new();
    let ids: BTreeSet<_> = etcd.keys().chain(ours.keys()).collect();
    for id in ids {
        let (a, b) = (etcd.get(id).unwrap_or(&empty), ours.get(id).unwrap_or(&empty));
        if a == b {
            continue;
        }
        let at = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let from = at.saturating_sub(2);
        let show =
            |all: &[watches::Happened]| format!("{:?}", all.iter().skip(from).take(5).collect::<Vec<_>>());
        text += &format!(
            "watch {id} from {from} on\netcd ({} in all) {}\nours ({} in all) {}\n",
            a.len(),
            show(a),
            b.len(),
            show(b)
        );
    }
    text
}
