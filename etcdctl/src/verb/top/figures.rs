//! What there is to show: the difference of two samples, per second.
//!
//! This is also what `--write-out=json` prints, a line each; a field that is not known is `null`, and `left_out` says
//! why. Sums are over the members that were asked; what every member does alike, such as applying puts, is taken
//! from the one that did most of it.

use std::collections::{BTreeMap, HashMap};

use proto::insight;
use serde::Serialize;

use super::sample::{MemberSample, NoLoad, Sample};

/// Everything that is shown at one time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Seconds between the two samples; `None` of the first.
    pub seconds: Option<f64>,
    /// The cluster's id in hexadecimal; empty when nobody answered.
    pub cluster_id: String,
    /// The highest revision that a member told.
    pub revision: i64,
    /// How much it grew in a second.
    pub revisions_per_second: Option<f64>,
    /// One for each endpoint.
    pub members: Vec<Member>,
    /// Calls and events in a second, all members together.
    pub rates: Option<Rates>,
    /// How long requests took, between the samples.
    pub latencies: Vec<Latency>,
    /// How many keys there are.
    pub keys: Option<u64>,
    /// How many leases.
    pub leases: Option<u64>,
    /// How many watchers, at all members.
    pub watchers: Option<u64>,
    /// How many of them are behind.
    pub slow_watchers: Option<u64>,
    /// On how many streams they are.
    pub watch_streams: Option<u64>,
    /// The prefixes that change most.
    pub changed: Vec<Hot>,
    /// The prefixes that are read most.
    pub read: Vec<Hot>,
    /// The prefixes with the most keys.
    pub largest: Vec<Size>,
    /// What is not known, and why.
    pub left_out: Vec<String>,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Member {
    /// Where it was asked.
    pub endpoint: String,
    /// Its id in hexadecimal.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `leader`, `follower` or `learner`.
    pub role: &'static str,
    /// The version of its server.
    pub version: String,
    /// Bytes of its database.
    pub db_size: i64,
    /// Bytes of that which are in use.
    pub db_size_in_use: i64,
    /// What its database may grow to; 0 if it does not say.
    pub db_size_quota: i64,
    /// Its Raft term.
    pub raft_term: u64,
    /// The last entry that it knows to be committed.
    pub raft_index: u64,
    /// The last entry that it has applied.
    pub raft_applied_index: u64,
    /// How many entries it has still to apply, of those that any member knows to be committed.
    pub lag: u64,
    /// What it says is wrong.
    pub errors: Vec<String>,
    /// Why it has not answered.
    pub error: Option<String>,
}

/// How often things happen in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Calls of Put.
    pub puts: f64,
    /// Calls of Range and RangeStream.
    pub ranges: f64,
    /// Calls of DeleteRange.
    pub deletes: f64,
    /// Calls of Txn.
    pub txns: f64,
    /// Calls of LeaseGrant.
    pub lease_grants: f64,
    /// Leases renewed.
    pub lease_keepalives: f64,
    /// Events sent to watchers.
    pub watch_events: f64,
    /// Calls of any kind that failed.
    pub failed: f64,
    /// Keys changed, however they were.
    pub keys_changed: f64,
}

/// How long one kind of request took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// What took that long.
    pub what: String,
    /// How many there were in a second.
    pub per_second: f64,
    /// Half of them took no longer.
    pub p50_seconds: f64,
    /// 99 of 100 took no longer.
    pub p99_seconds: f64,
}

/// A busy prefix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hot {
    /// The prefix, where it is not text with its bytes escaped.
    pub prefix: String,
    /// How often in a second, at least.
    pub per_second: f64,
    /// Bytes in a second, where they are known.
    pub bytes_per_second: Option<f64>,
}

/// A large prefix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Size {
    /// The prefix, where it is not text with its bytes escaped.
    pub prefix: String,
    /// Its keys, exactly.
    pub keys: u64,
    /// About how many bytes they and their values take.
    pub bytes_estimate: u64,
    /// Whether there are longer prefixes in it that were too many to be told apart.
    pub undivided: bool,
}

/// Two looks at the load of one member.
struct Pair<'a> {
    before: &'a insight::SampleResponse,
    now: &'a insight::SampleResponse,
    seconds: f64,
}

impl Figures {
    /// What became of the first sample in the second; without a first, what the second says alone.
    pub fn between(before: Option<&Sample>, now: &Sample) -> Self {
        let pairs = pairs(before, now);
        let loads: Vec<_> = now.members.iter().filter_map(|member| member.load.as_ref().ok()).collect();
        let sum = |of: fn(&insight::SampleResponse) -> u64| {
            (!loads.is_empty()).then(|| loads.iter().map(|load| of(load)).sum())
        };
        let most = |of: fn(&insight::SampleResponse) -> u64| loads.iter().map(|load| of(load)).max();
        let seconds = before.map(|before| now.at.duration_since(before.at).as_secs_f64());
        let header = now.members.iter().find_map(|member| member.status.as_ref().ok()?.header);
        let revision = revision(now);
        let grown = before.map(revision_of).filter(|before| *before > 0 && revision >= *before);
        Self {
            seconds,
            cluster_id: header.map(|header| format!("{:x}", header.cluster_id)).unwrap_or_default(),
            revision,
            revisions_per_second: grown
                .zip(seconds)
                .map(|(before, seconds)| (revision - before) as f64 / seconds),
            members: members(now),
            rates: (!pairs.is_empty()).then(|| rates(&pairs)),
            latencies: latencies(&pairs),
            keys: most(|load| load.keys),
            leases: most(|load| load.leases),
            watchers: sum(|load| load.watchers),
            slow_watchers: sum(|load| load.slow_watchers),
            watch_streams: sum(|load| load.watch_streams),
            changed: hot(&pairs, |load| &load.changed, f64::max, true),
            read: hot(&pairs, |load| &load.read, |a, b| a + b, false),
            largest: largest(&loads),
            left_out: left_out(now),
        }
    }
}

fn revision_of(sample: &Sample) -> i64 {
    revision(sample)
}

fn revision(sample: &Sample) -> i64 {
    let statuses = sample.members.iter().filter_map(|member| member.status.as_ref().ok());
    statuses.filter_map(|status| status.header).map(|header| header.revision).max().unwrap_or(0)
}

/// The members that were asked twice, and whose counters count from the same start.
fn pairs<'a>(before: Option<&'a Sample>, now: &'a Sample) -> Vec<Pair<'a>> {
    let Some(before) = before else { return Vec::new() };
    let both = before.members.iter().zip(&now.members);
    both.filter_map(|(before, now)| {
        let (before, now) = (before.load.as_ref().ok()?, now.load.as_ref().ok()?);
        let nanos = now.at_nanos.checked_sub(before.at_nanos).filter(|nanos| *nanos > 0)?;
        (before.member_id == now.member_id).then_some(Pair { before, now, seconds: nanos as f64 / 1e9 })
    })
    .collect()
}

fn members(sample: &Sample) -> Vec<Member> {
    let names: HashMap<u64, &str> = sample.names.iter().map(|(id, name)| (*id, name.as_str())).collect();
    let statuses = sample.members.iter().filter_map(|member| member.status.as_ref().ok());
    let committed = statuses.map(|status| status.raft_index).max().unwrap_or(0);
    let member = |member: &MemberSample| {
        let endpoint = member.endpoint.clone();
        let status = match &member.status {
            Ok(status) => status,
            Err(error) => return Member { endpoint, error: Some(error.clone()), ..Member::default() },
        };
        let id = status.header.map_or(0, |header| header.member_id);
        Member {
            endpoint,
            id: format!("{id:x}"),
            name: names.get(&id).copied().unwrap_or_default().to_owned(),
            role: match status.leader == id {
                true => "leader",
                false if status.is_learner => "learner",
                false => "follower",
            },
            version: status.version.clone(),
            db_size: status.db_size,
            db_size_in_use: status.db_size_in_use,
            db_size_quota: status.db_size_quota,
            raft_term: status.raft_term,
            raft_index: status.raft_index,
            raft_applied_index: status.raft_applied_index,
            lag: committed.saturating_sub(status.raft_applied_index),
            errors: status.errors.clone(),
            error: None,
        }
    };
    sample.members.iter().map(member).collect()
}

fn rates(pairs: &[Pair<'_>]) -> Rates {
    let grown = |of: &dyn Fn(&insight::SampleResponse) -> u64| -> Vec<f64> {
        let grown = |pair: &Pair<'_>| of(pair.now).saturating_sub(of(pair.before)) as f64 / pair.seconds;
        pairs.iter().map(grown).collect()
    };
    let calls = |names: &[&str]| -> f64 {
        let started = |load: &insight::SampleResponse| -> u64 {
            let methods = load.methods.iter().filter(|method| names.contains(&method.path.as_str()));
            methods.map(|method| method.started).sum()
        };
        grown(&started).iter().sum()
    };
    let failed =
        |load: &insight::SampleResponse| -> u64 { load.methods.iter().map(|method| method.failed).sum() };
    let changed = |load: &insight::SampleResponse| load.puts_applied + load.deletes_applied;
    Rates {
        puts: calls(&["/etcdserverpb.KV/Put"]),
        ranges: calls(&["/etcdserverpb.KV/Range", "/etcdserverpb.KV/RangeStream"]),
        deletes: calls(&["/etcdserverpb.KV/DeleteRange"]),
        txns: calls(&["/etcdserverpb.KV/Txn"]),
        lease_grants: calls(&["/etcdserverpb.Lease/LeaseGrant"]),
        lease_keepalives: grown(&|load| load.leases_renewed).iter().sum(),
        watch_events: grown(&|load| load.events_sent).iter().sum(),
        failed: grown(&failed).iter().sum(),
        keys_changed: grown(&changed).into_iter().fold(0.0, f64::max),
    }
}

/// The latencies of all members together, of what happened at all.
fn latencies(pairs: &[Pair<'_>]) -> Vec<Latency> {
    let Some(first) = pairs.first() else { return Vec::new() };
    let of = |load: &insight::SampleResponse, what: &str| {
        load.latencies.iter().find(|latency| latency.what == what).cloned().unwrap_or_default()
    };
    let together = |kind: &insight::Latency| {
        let mut counts = vec![0; kind.bounds.len() + 1];
        let mut per_second = 0.0;
        for pair in pairs {
            let (before, now) = (of(pair.before, &kind.what), of(pair.now, &kind.what));
            if now.bounds != kind.bounds {
                continue;
            }
            for (index, count) in now.counts.iter().enumerate().take(counts.len()) {
                let grown = count.saturating_sub(before.counts.get(index).copied().unwrap_or(0));
                counts[index] += grown;
                per_second += grown as f64 / pair.seconds;
            }
        }
        let p50_seconds = quantile(&kind.bounds, &counts, 0.5)?;
        let p99_seconds = quantile(&kind.bounds, &counts, 0.99)?;
        Some(Latency { what: kind.what.clone(), per_second, p50_seconds, p99_seconds })
    };
    first.now.latencies.iter().filter_map(together).collect()
}

/// Below which this share of a histogram lies, as if each bucket were filled evenly; of what is above all bounds only
/// the last bound is known. `None` when nothing is in it.
fn quantile(bounds: &[f64], counts: &[u64], share: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    let wanted = total as f64 * share;
    let mut below = 0.0;
    for (index, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let count = *count as f64;
        if below + count >= wanted {
            let lower = index.checked_sub(1).map_or(0.0, |index| bounds[index]);
            let upper = bounds.get(index).copied().unwrap_or(lower);
            return Some(lower + (upper - lower) * (wanted - below) / count);
        }
        below += count;
    }
    None
}

/// The prefixes that came most often between the samples, by the counts that are certain.
fn hot(
    pairs: &[Pair<'_>],
    of: fn(&insight::SampleResponse) -> &Vec<insight::Hot>,
    join: fn(f64, f64) -> f64,
    with_bytes: bool,
) -> Vec<Hot> {
    let mut found: BTreeMap<&[u8], (f64, f64)> = BTreeMap::new();
    for Pair { before, now, seconds } in pairs {
        // Counts that began anew in between are those of the time since.
        let same = before.counting_since_nanos == now.counting_since_nanos;
        let known: HashMap<&[u8], &insight::Hot> = match same {
            true => of(before).iter().map(|hot| (&hot.prefix[..], hot)).collect(),
            false => HashMap::new(),
        };
        for hot in of(now) {
            let certain = |hot: &insight::Hot| hot.count.saturating_sub(hot.uncertain);
            // A prefix that another had displaced meanwhile counts from there.
            let before = known.get(&hot.prefix[..]).filter(|known| known.uncertain == hot.uncertain);
            let times = certain(hot).saturating_sub(before.map_or(0, |known| certain(known)));
            let bytes = hot.bytes.saturating_sub(before.map_or(0, |known| known.bytes));
            if times > 0 {
                let rate = (times as f64 / seconds, bytes as f64 / seconds);
                let sum = found.entry(&hot.prefix[..]).or_insert((0.0, 0.0));
                *sum = (join(sum.0, rate.0), join(sum.1, rate.1));
            }
        }
    }
    let mut list: Vec<Hot> = found
        .into_iter()
        .map(|(prefix, (per_second, bytes))| Hot {
            prefix: text(prefix),
            per_second,
            bytes_per_second: with_bytes.then_some(bytes),
        })
        .collect();
    list.sort_by(|a, b| b.per_second.total_cmp(&a.per_second));
    list
}

/// The sizes as the member tells them that knows most keys.
fn largest(loads: &[&insight::SampleResponse]) -> Vec<Size> {
    let most = loads.iter().max_by_key(|load| load.keys);
    let sizes = most.and_then(|load| load.sizes.as_ref());
    let size = |size: &insight::Size| Size {
        prefix: text(&size.prefix),
        keys: size.keys,
        bytes_estimate: size.bytes_estimate,
        undivided: size.undivided,
    };
    sizes.map(|sizes| sizes.largest.iter().map(size).collect()).unwrap_or_default()
}

fn left_out(sample: &Sample) -> Vec<String> {
    let mut reasons = Vec::new();
    for member in sample.members.iter().filter(|member| member.status.is_ok()) {
        match &member.load {
            Err(NoLoad::NotServed) => reasons.push(format!(
                "{} is a server without quorate.Insight: no rates, latencies, watchers, leases and prefixes of it",
                member.endpoint
            )),
            Err(NoLoad::Failed(error)) => reasons.push(format!("{} does not tell its load: {error}", member.endpoint)),
            Ok(_) => {}
        }
    }
    reasons
}

/// A prefix as text on one line.
fn text(prefix: &[u8]) -> String {
    match std::str::from_utf8(prefix) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => prefix.escape_ascii().to_string(),
    }
}

#[cfg(test)]
pub mod tests {
    use std::time::{Duration, Instant};

    use proto::etcdserverpb as pb;

    use super::*;

    /// Two samples of two members, two seconds apart: one leads and tells its load, one is etcd's.
    pub fn samples() -> (Sample, Sample) {
        let began = Instant::now();
        let sample = |later: u64| {
            let n = later * 100;
            let method = |path: &str, started| insight::Method {
                path: path.into(),
                started,
                failed: later,
                ..Default::default()
            };
            let hot = |prefix: &'static str, count, uncertain| insight::Hot {
                prefix: prefix.into(),
                count,
                uncertain,
                bytes: 10 * count,
            };
            let load = insight::SampleResponse {
                member_id: 0xa,
                at_nanos: 7_000_000_000 + later * 2_000_000_000,
                methods: vec![
                    method("/etcdserverpb.KV/Put", 10 + n),
                    method("/etcdserverpb.KV/Range", 5 + 3 * n),
                    method("/etcdserverpb.KV/RangeStream", n),
                ],
                puts_applied: 10 + n,
                events_sent: 4 * n,
                leases_renewed: 6,
                latencies: vec![insight::Latency {
                    what: "Put".into(),
                    bounds: vec![0.001, 0.002, 0.004],
                    counts: vec![1 + n, n / 2, n / 2, 0],
                    seconds_sum: 1.0,
                }],
                keys: 1_234_567,
                leases: 3,
                watchers: 20,
                watch_streams: 2,
                slow_watchers: 1,
                counting_since_nanos: 6_000_000_000,
                changed: vec![
                    hot("/registry/leases/", 50 + n, 0),
                    hot("/registry/events/", 100 + later, 90),
                    hot("idle", 9, 0),
                ],
                read: vec![hot("/registry/pods/", n, 0)],
                sizes: Some(insight::Sizes {
                    at_nanos: 0,
                    largest: vec![insight::Size {
                        prefix: "/registry/pods/".into(),
                        keys: 1_000_000,
                        bytes_estimate: 3 << 30,
                        undivided: true,
                    }],
                }),
                ..Default::default()
            };
            let status = |id: u64, applied| pb::StatusResponse {
                header: Some(pb::ResponseHeader {
                    cluster_id: 0xc0ffee,
                    member_id: id,
                    revision: 1000 + n as i64,
                    raft_term: 2,
                }),
                version: "3.7.3".into(),
                db_size: 3 << 20,
                db_size_in_use: 1 << 20,
                db_size_quota: 2 << 30,
                leader: 0xa,
                raft_index: 500 + n,
                raft_applied_index: applied,
                raft_term: 2,
                ..Default::default()
            };
            let members = vec![
                MemberSample {
                    endpoint: "127.0.0.1:2379".into(),
                    status: Ok(status(0xa, 500 + n)),
                    load: Ok(load),
                },
                MemberSample {
                    endpoint: "127.0.0.1:22379".into(),
                    status: Ok(status(0xb, 490 + n)),
                    load: Err(NoLoad::NotServed),
                },
                MemberSample {
                    endpoint: "127.0.0.1:32379".into(),
                    status: Err("context deadline exceeded".into()),
                    load: Err(NoLoad::Failed("context deadline exceeded".into())),
                },
            ];
            Sample {
                at: began + Duration::from_secs(2 * later),
                members,
                names: vec![(0xa, "one".into()), (0xb, "two".into())],
            }
        };
        (sample(0), sample(1))
    }

    #[test]
    fn rates_are_differences_per_second() {
        let (before, now) = samples();
        let figures = Figures::between(Some(&before), &now);
        assert_eq!(
            (figures.seconds, figures.revision, figures.revisions_per_second),
            (Some(2.0), 1100, Some(50.0))
        );
        let rates = figures.rates.expect("two samples");
        assert_eq!((rates.puts, rates.ranges, rates.txns), (50.0, 200.0, 0.0));
        assert_eq!(
            (rates.watch_events, rates.lease_keepalives, rates.failed, rates.keys_changed),
            (200.0, 0.0, 1.5, 50.0)
        );
        let [put] = &figures.latencies[..] else { panic!("{:?}", figures.latencies) };
        assert_eq!((put.per_second, put.p50_seconds), (100.0, 0.001));
        assert!((put.p99_seconds - 0.00392).abs() < 1e-9, "{put:?}");
        let changed: Vec<_> =
            figures.changed.iter().map(|hot| (hot.prefix.as_str(), hot.per_second)).collect();
        assert_eq!(changed, [("/registry/leases/", 50.0), ("/registry/events/", 0.5)]);
        assert_eq!(figures.read[0].per_second, 50.0);
        assert_eq!(figures.left_out.len(), 1);
    }

    #[test]
    fn members_are_told_by_their_status() {
        let (_, now) = samples();
        let figures = Figures::between(None, &now);
        let [one, two, three] = &figures.members[..] else { panic!("{:?}", figures.members) };
        assert_eq!((one.id.as_str(), one.name.as_str(), one.role, one.lag), ("a", "one", "leader", 0));
        assert_eq!((two.role, two.lag), ("follower", 10));
        assert_eq!(three.error.as_deref(), Some("context deadline exceeded"));
        assert_eq!((figures.rates, figures.seconds, figures.keys), (None, None, Some(1_234_567)));
        assert!(figures.latencies.is_empty() && figures.changed.is_empty() && figures.largest.len() == 1);
    }

    /// A member that restarts counts from zero: no rate is made of that.
    #[test]
    fn a_member_that_began_anew_has_no_rates_yet() {
        let (mut before, now) = samples();
        before.members[0].load.as_mut().expect("told").at_nanos = 60_000_000_000;
        assert_eq!(Figures::between(Some(&before), &now).rates, None);
    }

    /// Counting by another depth began between the samples.
    #[test]
    fn counts_that_began_anew_count_from_there() {
        let (mut before, now) = samples();
        before.members[0].load.as_mut().expect("told").counting_since_nanos = 1;
        let changed = Figures::between(Some(&before), &now).changed;
        assert_eq!(changed[0].per_second, 75.0);
    }

    #[test]
    fn quantiles_lie_in_their_buckets() {
        let bounds = [1.0, 2.0, 4.0];
        assert_eq!(quantile(&bounds, &[0, 0, 0, 0], 0.5), None);
        assert_eq!(quantile(&bounds, &[2, 0, 0, 0], 0.5), Some(0.5));
        assert_eq!(quantile(&bounds, &[1, 0, 1, 0], 0.99), Some(2.0 + 2.0 * 0.98));
        assert_eq!(quantile(&bounds, &[0, 0, 0, 5], 0.5), Some(4.0));
    }
}
