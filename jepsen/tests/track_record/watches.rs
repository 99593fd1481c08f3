//! Watches: every event once, in order, and nothing else.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jepsen::cluster::Cluster;
use jepsen::nemesis::outgrow;
use proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, WatchCreateRequest};
use tests::{Client, eventually};
use tokio::task::JoinHandle;

use super::stream::{Stream, Told, events, is_progress, under};
use super::{
    all_have, follower, isolate, leader, of_short_logs, one, play, put, revision, sent_a_state, three, value,
};

/// Writes so many revisions, one after the other; gives the last.
async fn write(client: &Client, count: usize, value: &str) -> Result<i64> {
    let mut last = 0;
    for n in 0..count {
        last = put(client, &format!("k/{}", n % 10), value).await?;
    }
    Ok(last)
}

fn write_meanwhile(cluster: &Cluster, at: usize, count: usize) -> JoinHandle<Result<i64>> {
    let client = cluster.client(at);
    tokio::spawn(async move { write(&client, count, "x").await })
}

/// etcd #17529: watchers that did not keep up fell so far behind a compaction that events were dropped
/// without a word.
///
/// A watcher reads nothing while far more is written than any buffer holds, and all of it is compacted. Once
/// it reads, it is told of revision after revision, up to the point where it is told that the rest was
/// compacted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_loses_events_to_a_compaction() -> Result<()> {
    play(one, async |cluster| {
        // A connection of its own: what it does not read is in nobody's way.
        let slow = cluster.member(0).connect().await?;
        let client = cluster.client(0);
        let mut stream = Stream::open(&slow, under("k/", 2)).await?;
        ensure!(stream.next().await?.created, "a watch begins");
        let big = "x".repeat(50_000);
        let compacted = write(&client, 600, &big).await?;
        client.kv.clone().compact(CompactionRequest { revision: compacted, physical: false }).await?;
        let last = write(&client, 20, &big).await?;
        let mut told = Told { next: 2 };
        while told.next <= last {
            let answer = stream.next().await?;
            if answer.canceled {
                let lowest = answer.compact_revision;
                ensure!(lowest == compacted && told.next < lowest, "{} was next: {answer:?}", told.next);
                println!("told up to {} before the compaction of {compacted}", told.next - 1);
                told.next = lowest;
                stream.create(under("k/", lowest)).await?;
                ensure!(stream.next().await?.created, "a watch begins at the compacted revision");
                continue;
            }
            told.hear(&answer)?;
        }
        Ok(())
    })
    .await
}

/// A class of bugs in etcd (#4191, #15220 and others): between catching up and being told of what happens
/// now, a watcher missed events or had them twice.
///
/// Forty watchers begin at forty past revisions while somebody writes; each must be told of every revision
/// once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_lost_between_catching_up_and_now() -> Result<()> {
    play(one, async |cluster| {
        write(&cluster.client(0), 200, "x").await?;
        let writer = write_meanwhile(cluster, 0, 400);
        let slow = cluster.member(0).connect().await?;
        let starts: Vec<i64> = (0..40).map(|n| 2 + n * 5).collect();
        let mut stream = Stream::open(&slow, under("k/", starts[0])).await?;
        for &start in &starts[1..] {
            stream.create(under("k/", start)).await?;
            // One after the other, so that some are live while others catch up.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        let mut told: Vec<Told> = starts.iter().map(|&next| Told { next }).collect();
        let last = 1 + 200 + 400;
        while told.iter().any(|told| told.next <= last) {
            let answer = stream.next().await?;
            ensure!(!answer.canceled, "{answer:?}");
            let at = usize::try_from(answer.watch_id)?;
            told[at].hear(&answer).with_context(|| format!("watch {at}"))?;
        }
        ensure!(writer.await?? == last, "one revision for each write");
        let late = stream.soon(Duration::from_millis(300)).await?;
        ensure!(late.is_none(), "more than all there is: {late:?}");
        Ok(())
    })
    .await
}

/// A watcher that is ended and goes on after what it had must miss nothing (the promise that clients
/// reconnect by).
///
/// A watch is cancelled after a few answers and begun again, eighty times, while somebody writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_lost_or_repeated_where_a_watch_goes_on() -> Result<()> {
    play(one, async |cluster| {
        let writer = write_meanwhile(cluster, 0, 500);
        let client = cluster.client(0);
        let mut told = Told { next: 2 };
        let mut stream = Stream::open(&client, under("k/", told.next)).await?;
        for round in 0..80 {
            let id = stream.next().await?.watch_id;
            for _ in 0..round % 4 {
                if let Some(answer) = stream.soon(Duration::from_millis(100)).await? {
                    told.hear(&answer)?;
                }
            }
            stream.cancel(id).await?;
            loop {
                let answer = stream.next().await?;
                told.hear(&answer)?;
                if answer.canceled {
                    break;
                }
            }
            stream.create(under("k/", told.next)).await?;
        }
        let last = writer.await??;
        while told.next <= last {
            told.hear(&stream.next().await?)?;
        }
        Ok(())
    })
    .await
}

/// etcd #20221: a watch of a revision to come was told of earlier ones, or of progress before its start,
/// after its member had been sent a whole state: that made all watchers catch up, from the present on.
///
/// Two watchers are at a member that is cut off until it has to be sent a state: one of the present, one of
/// the future.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_the_future_is_told_of_the_past() -> Result<()> {
    play(of_short_logs, async |cluster| {
        let at = follower(cluster).await?;
        let other = leader(cluster).await?;
        let now = write(&cluster.client(other), 10, "x").await?;
        all_have(cluster, now).await?;
        let future = now + 60;
        let watch = WatchCreateRequest { progress_notify: true, ..under("k/", future) };
        let mut ahead = Stream::open(&cluster.client(at), watch).await?;
        let mut present = Stream::open(&cluster.client(at), under("k/", now + 1)).await?;
        ensure!(ahead.next().await?.created && present.next().await?.created, "both begin");
        isolate(cluster, at)?;
        let missed = write(&cluster.client(other), 20, "x").await?;
        outgrow(cluster).await?;
        cluster.heal_network();
        all_have(cluster, missed).await?;
        sent_a_state(cluster, 1).await?;
        for _ in 0..20 {
            ahead.ask_progress().await?;
            write(&cluster.client(at), 1, "x").await?;
        }
        let last = write(&cluster.client(at), 40, "x").await?;
        let mut told = Told { next: now + 1 };
        while told.next <= last {
            told.hear(&present.next().await?)?;
        }
        let mut told = Told { next: future };
        while told.next <= last {
            let answer = ahead.next().await?;
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            ensure!(!is_progress(&answer) || revision >= future, "progress {revision} before {future}");
            told.hear(&answer)?;
        }
        Ok(())
    })
    .await
}

/// etcd #15220: asked for progress, the server answered past the queue of events, so that a client took for
/// told what was still to come. The mend (#15237) in turn left a new watch of quiet keys without an answer
/// (#17507).
///
/// Progress is asked for after each answer while somebody writes; then for a watch to which nothing happens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_overtakes_events() -> Result<()> {
    play(one, async |cluster| {
        let writer = write_meanwhile(cluster, 0, 500);
        let client = cluster.client(0);
        let mut stream = Stream::open(&client, under("k/", 2)).await?;
        let (mut told, mut progress) = (Told { next: 2 }, 0);
        while told.next <= 501 {
            let answer = stream.next().await?;
            told.hear(&answer)?;
            if is_progress(&answer) {
                progress += 1;
            } else {
                stream.ask_progress().await?;
            }
        }
        let last = writer.await??;
        println!("{progress} answers of progress");
        let mut quiet = Stream::open(&client, under("quiet/", 2)).await?;
        ensure!(quiet.next().await?.created, "it begins");
        for _ in 0..50 {
            quiet.ask_progress().await?;
            // While it is not up to date, it says nothing.
            if let Some(answer) = quiet.soon(Duration::from_millis(200)).await? {
                let revision = answer.header.as_ref().map_or(0, |header| header.revision);
                ensure!(is_progress(&answer) && revision == last, "{answer:?} where {last} is the last");
                return Ok(());
            }
        }
        bail!("a quiet watch has no progress")
    })
    .await
}

/// etcd before 3.6.6 (#20693): a watch from revision -1 was accepted where nothing was compacted yet. The
/// round that brought it up to date then read nothing, for the watchers beside it either.
///
/// Such a watch is asked for again and again while others begin in the past.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_minus_one_takes_others_their_events() -> Result<()> {
    play(one, async |cluster| {
        let client = cluster.client(0);
        let last = write(&client, 30, "x").await?;
        for _ in 0..20 {
            // Both arrive together, and catch up together if the first is let in.
            let mut stream = Stream::open(&client, under("k/", -1)).await?;
            stream.create(under("k/", 2)).await?;
            let (mut told, mut second) = (Told { next: 2 }, None);
            let mut created = 0;
            while told.next <= last {
                let answer = stream.next().await?;
                if answer.created {
                    created += 1;
                    if created == 2 {
                        second = Some(answer.watch_id);
                    }
                } else if Some(answer.watch_id) == second {
                    told.hear(&answer)?;
                }
            }
        }
        Ok(())
    })
    .await
}

/// etcd #18089: a compaction at the revision of a deletion removed the tombstone, and a watch from that
/// revision on was not told of it.
///
/// The issue's own order of writes; the watch is at every member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deletion_at_the_compacted_revision_is_lost() -> Result<()> {
    play(three, async |cluster| {
        let client = cluster.client(0);
        for text in ["2", "3", "4"] {
            put(&client, "k/0", text).await?;
        }
        let deleted = delete(&client, "k/0").await?;
        let again = put(&client, "k/0", "6").await?;
        client.kv.clone().compact(CompactionRequest { revision: deleted, physical: true }).await?;
        all_have(cluster, again).await?;
        for at in cluster.all() {
            let mut stream = Stream::open(&cluster.client(at), under("k/", deleted)).await?;
            let mut seen = Vec::new();
            while seen.len() < 2 {
                seen.extend(events(&stream.next().await?));
            }
            let wanted = [(deleted, "k/0".to_owned(), true), (again, "k/0".to_owned(), false)];
            ensure!(seen == wanted, "member {at}: {seen:?}");
        }
        Ok(())
    })
    .await
}

/// etcd #19179: after a restart, a tombstone that was all that was left of its key was not in the index, and
/// a watch from the compacted revision on was not told of it.
///
/// Neither may the key come back, nor the hash of what is left change, be it asked before the restart or
/// after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deletion_at_the_compacted_revision_is_lost_in_a_restart() -> Result<()> {
    play(three, async |cluster| {
        let client = cluster.client(0);
        for key in ["k/a", "k/b", "k/c", "k/gone"] {
            put(&client, key, "1").await?;
        }
        delete(&client, "k/gone").await?;
        let deleted = delete(&client, "k/a").await?;
        client.kv.clone().compact(CompactionRequest { revision: deleted, physical: true }).await?;
        // Of the compacted revision itself etcd has two hashes: the one of the compaction, and later that of the rest.
        let last = put(&client, "other", "1").await?;
        all_have(cluster, last).await?;
        let mut hashes = Vec::new();
        for restart in [false, true] {
            if restart {
                for at in cluster.all() {
                    cluster.kill(at).await?;
                }
                let all = cluster.all();
                cluster.start_all_again(&all).await?;
            }
            for at in cluster.all() {
                let client = cluster.client(at);
                for key in ["k/a", "k/gone"] {
                    ensure!(value(&client, key).await?.is_none(), "member {at} has {key} again");
                }
                ensure!(revision(&client).await? == last, "member {at} is at another revision");
                let mut stream = Stream::open(&client, under("k/", deleted)).await?;
                ensure!(stream.next().await?.created, "a watch begins");
                let seen = events(&stream.next().await?);
                ensure!(seen == [(deleted, "k/a".to_owned(), true)], "member {at}: {seen:?}");
                let compacted = || async {
                    let hash = client.hash_kv(last).await?;
                    ensure!(hash.compact_revision == deleted, "not compacted yet");
                    Ok(hash.hash)
                };
                hashes.push(eventually("a hash", compacted).await?);
            }
        }
        ensure!(hashes.iter().all(|hash| *hash == hashes[0]), "hashes differ: {hashes:?}");
        Ok(())
    })
    .await
}

async fn delete(client: &Client, key: &str) -> Result<i64> {
    let request = DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() };
    let answer = client.kv.clone().delete_range(request).await?.into_inner();
    ensure!(answer.deleted == 1, "{key} is not there");
    Ok(answer.header.unwrap_or_default().revision)
}
