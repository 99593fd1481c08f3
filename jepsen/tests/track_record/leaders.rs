//! Leaders that do not know yet that they lead no more.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use tests::Client;
use tokio::time::{sleep, timeout};

use super::{ANSWER_MAX, leader, next_leader, on_disks, play, put, three};

/// A linearizable read that may fail; gives the number that was read.
async fn read(client: Client) -> Option<u64> {
    let pair = timeout(ANSWER_MAX, client.get("r")).await.ok()?.ok()??;
    String::from_utf8_lossy(&pair.value).parse().ok()
}

/// etcd #20418: a leader that was paused answered linearizable reads from what it had, after another leader
/// had taken a write. Its answers were those of the time before the pause.
///
/// Reads are under way when the leader is paused; others are sent to it while it sleeps, after the new leader
/// has taken a write, and others right after it woke. What was asked after the write sees it or fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_paused_serves_old_values() -> Result<()> {
    play(three, async |cluster| {
        for round in 0..6 {
            let (before, after) = (2 * round, 2 * round + 1);
            let old = leader(cluster).await?;
            put(&cluster.client(old), "r", &before.to_string()).await?;
            let under_way: Vec<_> =
                (0..9).map(|n| tokio::spawn(read(cluster.client(if n < 3 { old } else { n % 3 })))).collect();
            sleep(Duration::from_micros(300 * round)).await;
            cluster.pause(old).await?;
            let new = next_leader(cluster, old).await?;
            put(&cluster.client(new), "r", &after.to_string()).await?;
            // They wait in the member's socket until it wakes.
            let late: Vec<_> = (0..12)
                .map(|n| tokio::spawn(read(cluster.client(if n < 8 { old } else { n % 3 }))))
                .collect();
            sleep(Duration::from_millis(100)).await;
            cluster.resume(old)?;
            let mut answered = 0;
            for _ in 0..20 {
                if let Some(seen) = read(cluster.client(old)).await {
                    ensure!(seen == after, "round {round}: {seen} is read after {after} was written");
                    answered += 1;
                }
            }
            for seen in join_all(late).await {
                if let Some(seen) = seen? {
                    ensure!(seen == after, "round {round}: {seen} is read that was asked after {after}");
                    answered += 1;
                }
            }
            for seen in join_all(under_way).await {
                ensure!(seen?.is_none_or(|seen| seen >= before), "round {round}: older than {before}");
            }
            println!("round {round}: {answered} of 32 reads are answered");
        }
        Ok(())
    })
    .await
}

/// A leader whose disk hangs can do no work, yet goes on leading if its heartbeats need no disk (etcd holds
/// that the disk is part of a leader's being alive, #7617; the leader of #15247 was in this state).
///
/// Within seconds another one leads and takes writes, and the one with the disk serves no old values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_hung_disk_goes_on_leading() -> Result<()> {
    play(
        |program| on_disks(program, 3),
        async |cluster| {
            for round in 0..2 {
                let old = leader(cluster).await?;
                put(&cluster.client(old), "r", &(2 * round).to_string()).await?;
                cluster.with_disk(old, |disk| disk.set_hanging(true))?;
                let began = Instant::now();
                // Something for the disk to do.
                let client = cluster.client(old);
                let stuck = tokio::spawn(async move { timeout(ANSWER_MAX, client.put("stuck", "1")).await });
                let via = cluster.all().into_iter().find(|&at| at != old).context("there are others")?;
                put(&cluster.client(via), "r", &(2 * round + 1).to_string()).await?;
                println!("round {round}: a write {:?} after the disk hung", began.elapsed());
                let new = next_leader(cluster, old).await?;
                println!("round {round}: member {new} leads {:?} after the disk hung", began.elapsed());
                put(&cluster.client(new), "r", &(2 * round + 1).to_string()).await?;
                let took = began.elapsed();
                ensure!(took < Duration::from_secs(10), "another one leads and writes only after {took:?}");
                let seen = timeout(Duration::from_secs(1), read(cluster.client(old))).await;
                ensure!(
                    !matches!(seen, Ok(Some(seen)) if seen != 2 * round + 1),
                    "{seen:?} is read where a disk hangs"
                );
                cluster.with_disk(old, |disk| disk.heal())?;
                stuck.await?.ok();
            }
            Ok(())
        },
    )
    .await
}
