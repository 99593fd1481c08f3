//! A run: first with faults, in which nothing wrong may happen; then without, in which all must become well.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use parking_lot::Mutex;
use proto::command::command::Op;
use proto::etcdserverpb as pb;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use server::raft::Change;
use server::simulation::Member;
use state::KeyRange;

use crate::client::{self, Answer, Answers, Ask, Asked};
use crate::host::{self, Common, Death, Host};
use crate::interpose;
use crate::mutant::Mutant;
use crate::net::{Id, Net};
use crate::oracle::{FASTEST, Oracle};
use crate::plan::{Fault, Plan};
use crate::time::{MS, Nanos, SECOND, seconds};
use crate::watcher::Watcher;

/// How often logs are compared.
const COMPARE_EVERY: Nanos = 100 * MS;
/// A client that has no answer by then asks something else.
const ANSWER_MAX: Nanos = 12 * SECOND;

/// How long a member that was removed goes on, so that others can tell it.
const LEAVE_AFTER: Nanos = 5 * SECOND;

/// What a task of a member panicked with: nobody else may look at it.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// From now on panics are part of what comes of a run.
pub fn heed_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANIC.lock().get_or_insert_with(|| info.to_string());
    }));
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Nanoseconds that went by in the world.
    pub simulated: Nanos,
    /// Faults, by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Answers that clients got.
    pub answers: u64,
    /// Changes that watchers were told.
    pub events: u64,
    /// Entries decided.
    pub entries: u64,
    /// Elections won.
    pub elections: u64,
    /// States installed from another member.
    pub installs: u64,
    /// How long after the faults all was well.
    pub recovery: Nanos,
    /// A hash of everything that happened.
    pub hash: u64,
}

struct Client {
    number: u64,
    /// When its question was asked; none: it asks the next at `at`.
    asked: Option<Nanos>,
    at: Nanos,
    host: Id,
}

/// All there is.
pub struct World<'a> {
    plan: Plan,
    dir: &'a Path,
    now: Nanos,
    random: StdRng,
    common: Common,
    hosts: BTreeMap<Id, Host>,
    founders: Vec<Id>,
    clients: Vec<Client>,
    answers: Answers,
    watchers: Vec<Watcher>,
    unique: u64,
    leases: Vec<i64>,
    /// Values of writes that for sure did not take place.
    refused: BTreeSet<Vec<u8>>,
    /// When the next fault comes, and when those that last end.
    fault_at: Nanos,
    heal_at: Nanos,
    ends: Vec<(Nanos, Id, Cure)>,
    /// Members that were added and have got a machine, and the highest number given so far.
    known: BTreeSet<Id>,
    newest: Id,
    /// Members that were removed, and when that was seen.
    leaving: BTreeMap<Id, Nanos>,
    report: Report,
}

/// What ends with a fault of one host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cure {
    Disk,
    Clock,
    /// The process may have died at once.
    Power,
}

impl<'a> World<'a> {
    /// A world in which nothing has happened yet.
    pub fn new(plan: Plan, dir: &'a Path) -> anyhow::Result<Self> {
        let seed = plan.wanted.seed;
        host::install_delays(seed ^ 1);
        server::simulation::set_votes_lost(plan.wanted.mutant == Some(Mutant::VoteNotSaved));
        let common = Common {
            net: Net::new(seed ^ 2, plan.link),
            oracle: Arc::new(Mutex::new(Oracle::default())),
            mutant: plan.wanted.mutant,
            snapshot_count: plan.snapshot_count,
            lease_checkpoint: plan.lease_checkpoint,
            pre_vote: plan.pre_vote,
        };
        let mut random = StdRng::seed_from_u64(seed ^ 3);
        let founders: Vec<Id> = (1..=plan.wanted.members).collect();
        let mut hosts = BTreeMap::new();
        for id in &founders {
            let mut host = Host::new(*id, dir, seed ^ (id << 32), 0)?;
            host.slowness = plan.slowness;
            host.boots_at = Some(random.random_range(0..500) * MS);
            hosts.insert(*id, host);
        }
        let clients = (0..plan.clients)
            .map(|_| Client { number: 0, asked: None, at: random.random_range(0..2_000) * MS, host: 1 })
            .collect();
        let watchers = (0..plan.watchers)
            .map(|name| {
                let range = match name % 3 {
                    0 => client::everything(),
                    1 => KeyRange::parse("k3".into(), "k7".into()),
                    _ => KeyRange::Single("k1".into()),
                };
                let pause = Duration::from_millis([0, 0, 40, 300][random.random_range(0..4)]);
                Watcher::new(name, range, random.random_bool(0.5), pause)
            })
            .collect();
        Ok(Self {
            dir,
            now: 0,
            random,
            common,
            hosts,
            founders,
            clients,
            answers: Answers::default(),
            watchers,
            unique: 0,
            leases: Vec::new(),
            refused: BTreeSet::new(),
            fault_at: 2 * SECOND,
            heal_at: 0,
            ends: Vec::new(),
            known: BTreeSet::new(),
            newest: plan.wanted.members,
            leaving: BTreeMap::new(),
            report: Report::default(),
            plan,
        })
    }

    /// Runs both phases.
    ///
    /// # Errors
    /// What was not as it must be.
    pub fn run(mut self) -> anyhow::Result<Report> {
        let end = self.plan.wanted.faulty;
        while self.now < end {
            if self.now >= self.fault_at {
                self.fault()?;
                self.fault_at = self.now + self.random.random_range(MS..=self.plan.calm_max);
            }
            if self.heal_at != 0 && self.now >= self.heal_at {
                self.heal_network();
            }
            self.step(true)?;
        }
        self.heal();
        let healed = self.now;
        let mut probe = None;
        loop {
            self.step(false)?;
            if self.is_well(&mut probe) {
                break;
            }
            if self.now - healed > Plan::LIVENESS_MAX {
                bail!(
                    "{} s after the last fault not all is well: {}",
                    seconds(self.now - healed),
                    self.complaint()
                );
            }
        }
        self.report.recovery = self.now - healed;
        self.finish()
    }

    /// One step of the world.
    fn step(&mut self, asking: bool) -> anyhow::Result<()> {
        self.now += self.plan.tick;
        interpose::set_now(self.now);
        self.common.oracle.lock().now = self.now;
        self.common.net.tick(self.now);
        self.boot()?;
        if asking {
            self.ask();
        }
        self.attach();
        for id in self.hosts.keys().copied().collect::<Vec<_>>() {
            let host = self.hosts.get_mut(&id).expect("it is there");
            let ended = host.step(self.now);
            if let Some(panic) = PANIC.lock().take() {
                bail!("m{id}: a task panicked: {panic}");
            }
            if let Some(why) = ended {
                if !host.armed {
                    bail!("m{id} ends by itself: {why}");
                }
                self.crash(id, Death::PowerCut)?;
            } else if host.has_stopped() {
                self.crash(id, Death::Kill)?;
            }
        }
        interpose::set_now(self.now);
        self.look()?;
        self.follow_membership()?;
        self.cure()?;
        Ok(())
    }

    fn boot(&mut self) -> anyhow::Result<()> {
        let due: Vec<Id> = self
            .hosts
            .values()
            .filter(|h| h.boots_at.is_some_and(|at| at <= self.now))
            .map(|h| h.id)
            .collect();
        for id in due {
            tracing::info!("m{id} boots");
            let (founders, others) = match self.founders.contains(&id) {
                true => (self.founders.clone(), Vec::new()),
                false => (Vec::new(), self.hosts.keys().copied().filter(|other| *other != id).collect()),
            };
            let host = self.hosts.get_mut(&id).expect("it is there");
            host.boot(&self.common, &founders, &others)?;
        }
        Ok(())
    }

    fn crash(&mut self, id: Id, death: Death) -> anyhow::Result<()> {
        let down = self.random.random_range(10..6_000) * MS;
        let host = self.hosts.get_mut(&id).expect("it is there");
        if !host.is_up() {
            return Ok(());
        }
        tracing::info!(?death, "m{id} dies, for {} s", seconds(down));
        host.crash(&self.common, death)?;
        host.boots_at = Some(self.now + down);
        self.common.oracle.lock().trace((id, "dies"));
        for watcher in self.watchers.iter_mut().filter(|watcher| watcher.host == Some(id)) {
            watcher.detach();
        }
        Ok(())
    }

    /// Clients ask what they have thought of.
    fn ask(&mut self) {
        let ids: Vec<Id> = self.hosts.keys().copied().collect();
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if client.asked.is_some_and(|asked| self.now - asked > ANSWER_MAX) {
                // Whatever becomes of it: its answer is not waited for.
                client.asked = None;
                client.number += 1;
                client.host = *ids.choose(&mut self.random).expect("hosts");
            }
            if client.asked.is_some() || client.at > self.now {
                continue;
            }
            if self.random.random_bool(0.02) {
                client.host = *ids.choose(&mut self.random).expect("hosts");
            }
            let Some(member) = self.hosts.get(&client.host).and_then(|host| host.member(self.now)) else {
                client.host = *ids.choose(&mut self.random).expect("hosts");
                client.at = self.now + 50 * MS;
                continue;
            };
            client.number += 1;
            client.asked = Some(self.now);
            let (number, host, now) = (client.number, client.host, self.now);
            let (ask, since) = {
                let mut oracle = self.common.oracle.lock();
                self.leases.retain(|id| oracle.model.has_lease(*id));
                let ask = client::think(&mut self.random, &oracle, &mut self.unique, &self.leases);
                if let Ask::Write(Op::LeaseRevoke(revoke), _) = &ask {
                    oracle.gives_up(revoke.id);
                }
                (ask, oracle.told())
            };
            self.send(member, Asked { client: at, number, ask, host, since, at: now });
        }
    }

    fn send(&mut self, member: Member, asked: Asked) {
        tracing::debug!("client {} asks m{}: {:?}", asked.client, asked.host, asked.ask);
        let answers = self.answers.clone();
        let mutant = self.common.mutant;
        let host = &self.hosts[&asked.host];
        host.spawn(client::ask(member.node, asked, answers, mutant));
    }

    fn attach(&mut self) {
        let up: Vec<Id> =
            self.hosts.values().filter(|host| host.member(self.now).is_some()).map(|host| host.id).collect();
        for watcher in &mut self.watchers {
            if watcher.host.is_some() && self.random.random_bool(0.000_2) {
                watcher.detach();
            }
            if watcher.host.is_none()
                && let Some(id) = up.choose(&mut self.random)
            {
                let member = self.hosts[id].member(self.now).expect("it is up");
                let following = watcher.attach(*id, member.node);
                self.hosts[id].spawn(following);
            }
        }
    }

    /// Looks at all that came of the step.
    fn look(&mut self) -> anyhow::Result<()> {
        let oracle = Arc::clone(&self.common.oracle);
        let mut oracle = oracle.lock();
        let answers = std::mem::take(&mut *self.answers.lock());
        for (asked, answer) in answers {
            tracing::debug!("client {} hears: {answer:?}", asked.client);
            self.report.answers += 1;
            client::check(&mut oracle, &asked, &answer);
            self.note(&asked, &answer);
            if let Some(client) = self.clients.get_mut(asked.client)
                && client.number == asked.number
            {
                client.asked = None;
                client.at = self.now + self.random.random_range(0..=self.plan.think_max);
                if matches!(answer, Answer::Not | Answer::Unknown) {
                    client.at += 20 * MS;
                    client.host =
                        *self.hosts.keys().collect::<Vec<_>>().choose(&mut self.random).map_or(&1, |id| id);
                }
            }
        }
        for watcher in &mut self.watchers {
            watcher.check(&mut oracle);
        }
        let compare = self.now / COMPARE_EVERY != (self.now - self.plan.tick) / COMPARE_EVERY;
        for host in self.hosts.values() {
            let Some(member) = host.member_anyway() else { continue };
            let (term, leads) = member.node.raft().role();
            if leads {
                oracle.leads(host.id, term, &member.log);
            }
            if compare {
                let status = member.node.status();
                oracle.stands(host.id, status.term, status.committed);
                oracle.compare_log(host.id, &member.log);
                if status.diverged {
                    oracle.violated(format!("m{} is said to have diverged", host.id));
                }
            }
        }
        if let Some(violation) = oracle.violation() {
            bail!("{violation}");
        }
        Ok(())
    }

    fn note(&mut self, asked: &Asked, answer: &Answer) {
        match (&asked.ask, answer) {
            (Ask::Write(Op::LeaseGrant(grant), _), Answer::Written { .. }) => {
                self.leases.push(grant.id);
            }
            (Ask::Write(_, Some(value)), Answer::Not) => {
                self.refused.insert(value.to_vec());
            }
            _ => {}
        }
    }

    /// Something goes wrong.
    fn fault(&mut self) -> anyhow::Result<()> {
        let Ok((fault, _)) = self.plan.faults.choose_weighted(&mut self.random, |(_, weight)| *weight) else {
            return Ok(());
        };
        let fault = *fault;
        let ids: Vec<Id> = self.hosts.keys().copied().collect();
        let id = *ids.choose(&mut self.random).expect("hosts");
        let lasting = self.now + self.random.random_range(100..8_000) * MS;
        if !self.inflict(fault, &ids, id, lasting)? {
            return Ok(());
        }
        tracing::info!(?fault, "m{id} or all, until {} s", seconds(lasting));
        self.common.oracle.lock().trace((fault, id));
        *self.report.faults.entry(fault).or_default() += 1;
        Ok(())
    }

    /// False where it does not fit.
    fn inflict(&mut self, fault: Fault, ids: &[Id], id: Id, lasting: Nanos) -> anyhow::Result<bool> {
        let alone = ids.len() == 1;
        let net = self.common.net.clone();
        let is_up = self.hosts[&id].is_up();
        match fault {
            Fault::Kill | Fault::PowerCut | Fault::Stop | Fault::Pause | Fault::SlowDisk if !is_up => {
                return Ok(false);
            }
            Fault::Partition | Fault::OneWay | Fault::Ring | Fault::Reset | Fault::Transfer if alone => {
                return Ok(false);
            }
            Fault::Partition => {
                let side: BTreeSet<Id> = match self.random.random_bool(0.5) {
                    true => [id].into(),
                    false => ids.iter().copied().filter(|_| self.random.random_bool(0.5)).collect(),
                };
                for (a, b) in pairs(ids).filter(|(a, b)| side.contains(a) != side.contains(b)) {
                    net.cut(a, b);
                }
                self.heal_at = lasting;
            }
            Fault::OneWay => {
                for other in ids.iter().filter(|other| **other != id && self.random.random_bool(0.7)) {
                    net.cut(id, *other);
                }
                self.heal_at = lasting;
            }
            Fault::Ring => {
                for (a, b) in pairs(ids) {
                    let (at, to) = (ids.iter().position(|i| *i == a), ids.iter().position(|i| *i == b));
                    let apart = at.unwrap_or(0).abs_diff(to.unwrap_or(0));
                    if apart > 1 && apart < ids.len() - 1 || ids.len() == 3 && apart == 2 {
                        net.cut(a, b);
                    }
                }
                self.heal_at = lasting;
            }
            Fault::Kill => self.crash(id, Death::Kill)?,
            Fault::PowerCut => match self.random.random_bool(0.5) {
                true => self.crash(id, Death::PowerCut)?,
                false => {
                    let after = self.random.random_range(0..30);
                    self.hosts.get_mut(&id).expect("it is there").arm(after);
                    self.ends.push((self.now + SECOND, id, Cure::Power));
                }
            },
            Fault::Blackout => {
                for id in ids {
                    self.crash(*id, Death::PowerCut)?;
                }
            }
            Fault::Stop => self.hosts.get_mut(&id).expect("it is there").stop(),
            Fault::Pause => self.hosts.get_mut(&id).expect("it is there").paused_until = lasting,
            Fault::SlowDisk => {
                let longest = [50, 500, 3_000][self.random.random_range(0..3)] * MS;
                let slowness = &mut self.hosts.get_mut(&id).expect("it is there").slowness;
                (slowness.disk_min, slowness.disk_max) = (longest / 5, longest);
                self.ends.push((lasting, id, Cure::Disk));
            }
            Fault::Drift => {
                self.hosts.get_mut(&id).expect("it is there").rate = self.random.random_range(0.8..FASTEST);
                self.ends.push((lasting + 10 * SECOND, id, Cure::Clock));
            }
            Fault::SlowLinks => {
                let mut link = self.plan.link;
                link.jitter = self.random.random_range(10..300) * MS;
                link.loss = self.random.random_range(0.0..0.2);
                net.set_link(link);
                self.heal_at = lasting;
            }
            Fault::Reset => {
                net.reset_some(0.5);
            }
            Fault::Transfer => {
                let Some(leader) = self.leader() else { return Ok(false) };
                let Some(member) = self.hosts[&leader].member(self.now) else { return Ok(false) };
                if leader == id {
                    return Ok(false);
                }
                self.hosts[&leader].spawn(async move {
                    // Whether it comes about is not asked.
                    member.node.raft().transfer_leader(id).await.ok();
                });
            }
            Fault::Membership => return self.change_membership(id),
            Fault::Flush => {
                let Some(member) = self.hosts[&id].member(self.now) else { return Ok(false) };
                member.node.reader().flush()?;
            }
            Fault::FallBehind => {
                if alone {
                    return Ok(false);
                }
                for (a, b) in pairs(ids).filter(|(a, b)| *a == id || *b == id) {
                    net.cut(a, b);
                }
                self.heal_at = lasting + 8 * SECOND;
            }
        }
        Ok(true)
    }

    fn leader(&self) -> Option<Id> {
        let leads = |host: &&Host| host.member(self.now).is_some_and(|member| member.node.is_leader());
        self.hosts.values().find(leads).map(|host| host.id)
    }

    /// Adds a member to a cluster of its first size, removes one from a larger one.
    fn change_membership(&mut self, id: Id) -> anyhow::Result<bool> {
        let Some(leader) = self.leader() else { return Ok(false) };
        let Some(member) = self.hosts[&leader].member(self.now) else { return Ok(false) };
        let members = self.common.oracle.lock().membership.clone();
        let change = if members.len() <= self.founders.len() {
            self.newest += 1;
            let (id, name) = (self.newest, format!("m{}", self.newest));
            Change::Add(state::Node { id, name, peer_urls: vec![host::url(id)], learner: false })
        } else {
            Change::Remove(id)
        };
        self.hosts[&leader].spawn(async move {
            // Whether it comes about, the log says.
            member.node.raft().change(change).await.ok();
        });
        Ok(true)
    }

    /// New members get a machine, removed ones lose theirs after a while.
    fn follow_membership(&mut self) -> anyhow::Result<()> {
        let members = self.common.oracle.lock().membership.clone();
        for id in members.iter().filter(|id| !self.founders.contains(id)) {
            if self.known.insert(*id) {
                let mut host = Host::new(*id, self.dir, self.plan.wanted.seed ^ (id << 32), self.now)?;
                host.slowness = self.plan.slowness;
                self.hosts.insert(*id, host);
            }
        }
        let now = self.now;
        let leaving = self.hosts.keys().filter(|id| !members.is_empty() && !members.contains(id));
        for id in leaving.copied().collect::<Vec<_>>() {
            let since = *self.leaving.entry(id).or_insert(now);
            if now - since > LEAVE_AFTER {
                self.crash(id, Death::Kill)?;
                self.hosts.remove(&id);
            }
        }
        Ok(())
    }

    fn heal_network(&mut self) {
        self.heal_at = 0;
        self.common.net.mend();
        self.common.net.set_link(self.plan.link);
    }

    fn cure(&mut self) -> anyhow::Result<()> {
        let now = self.now;
        let due: Vec<(Nanos, Id, Cure)> = self.ends.extract_if(.., |(at, _, _)| *at <= now).collect();
        for (_, id, cure) in due {
            let Some(host) = self.hosts.get_mut(&id) else { continue };
            match cure {
                Cure::Disk => host.slowness = self.plan.slowness,
                Cure::Clock => host.rate = 1.0,
                Cure::Power if host.armed => self.crash(id, Death::PowerCut)?,
                Cure::Power => {}
            }
        }
        Ok(())
    }

    /// Nothing is wrong any more.
    fn heal(&mut self) {
        tracing::info!("the faults are over");
        self.heal_network();
        for (_, id, cure) in std::mem::take(&mut self.ends) {
            if cure == Cure::Power {
                self.ends.push((self.now, id, cure));
            }
        }
        for host in self.hosts.values_mut() {
            host.slowness = self.plan.slowness;
            host.rate = 1.0;
            host.paused_until = host.paused_until.min(self.now);
            host.boots_at = host.boots_at.map(|at| at.min(self.now));
        }
    }

    /// Whether there is one leader, everybody has everything, and a new write goes through.
    fn is_well(&mut self, probe: &mut Option<(u64, Nanos)>) -> bool {
        let members: Vec<Option<Member>> = self.hosts.values().map(|host| host.member(self.now)).collect();
        let Some(members) = members.into_iter().collect::<Option<Vec<Member>>>() else { return false };
        // One that came at a bad moment is followed by another.
        let Some((number, _)) = probe.filter(|(_, at)| self.now - at < ANSWER_MAX) else {
            let Some(member) = members.choose(&mut self.random).filter(|m| m.node.status().leader != 0)
            else {
                return false;
            };
            self.unique += 1;
            let value = bytes::Bytes::from(format!("last{}", self.unique));
            let put = pb::PutRequest { key: "k0".into(), value: value.clone(), ..Default::default() };
            let ask = Ask::Write(Op::Put(put), Some(value));
            let since = self.common.oracle.lock().told();
            let host = member.node.member_id();
            let at = self.now;
            *probe = Some((self.unique, at));
            self.send(
                member.clone(),
                Asked { client: usize::MAX, number: self.unique, ask, host, since, at },
            );
            return false;
        };
        let oracle = self.common.oracle.lock();
        let written = oracle.has_value(format!("last{number}").as_bytes());
        let leader = members[0].node.status().leader;
        let decided = oracle.decided();
        let same = |member: &Member| {
            let status = member.node.status();
            status.leader == leader && leader != 0 && status.applied == decided
        };
        written && members.iter().all(same) && self.watchers.iter().all(|watcher| watcher.has(&oracle))
    }

    fn complaint(&self) -> String {
        let oracle = self.common.oracle.lock();
        let mut all = vec![format!("{} entries are decided", oracle.decided())];
        for host in self.hosts.values() {
            all.push(match host.member_anyway() {
                Some(member) => {
                    let status = member.node.status();
                    format!(
                        "m{}: leader {}, term {}, applied {} of {}, role {:?}",
                        host.id,
                        status.leader,
                        status.term,
                        status.applied,
                        status.committed,
                        member.node.raft().role()
                    )
                }
                None => format!("m{} is not up", host.id),
            });
        }
        let behind = self.watchers.iter().filter(|watcher| !watcher.has(&oracle)).count();
        all.push(format!("{behind} watchers are behind"));
        all.join("; ")
    }

    /// What all members have at the end is the same, and what it must be.
    fn finish(mut self) -> anyhow::Result<Report> {
        let mut oracle = self.common.oracle.lock();
        let mut hashes = BTreeMap::new();
        for host in self.hosts.values() {
            let Some(member) = host.member(self.now) else { continue };
            let reader = member.node.reader();
            if let Ok(hash) = reader.hash_kv(0)? {
                hashes.insert(host.id, hash.hash);
            }
            let revision = reader.view().revision();
            if revision != oracle.model.revision() {
                bail!("m{} ends at revision {revision}, not {}", host.id, oracle.model.revision());
            }
            if let Answer::Rows { revision, rows } = client::rows(&reader.view()) {
                oracle.read(&format!("m{} at the end", host.id), &client::everything(), revision, &rows);
            }
        }
        if hashes.values().collect::<BTreeSet<_>>().len() > 1 {
            bail!("members differ at the end: {hashes:x?}");
        }
        let both = self.refused.iter().find(|value| oracle.has_value(value));
        if let Some(value) = both {
            bail!("a write took place that was refused: {}", String::from_utf8_lossy(value));
        }
        if let Some(violation) = oracle.violation() {
            bail!("{violation}");
        }
        let report = &mut self.report;
        report.simulated = self.now;
        report.entries = oracle.decided();
        report.elections = oracle.elections;
        report.installs = oracle.installs;
        report.events = self.watchers.iter().map(|watcher| watcher.events).sum();
        report.hash = oracle.trace_hash();
        drop(oracle);
        Ok(std::mem::take(&mut self.report))
    }
}

fn pairs(ids: &[Id]) -> impl Iterator<Item = (Id, Id)> {
    ids.iter().flat_map(move |a| ids.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b)
}
