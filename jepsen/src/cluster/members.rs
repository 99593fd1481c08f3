//! Members that leave the cluster and come to it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::{self as pb, MemberPromoteRequest, MemberRemoveRequest, MoveLeaderRequest};
use tests::eventually;
use tokio::time::timeout;

use super::{ANSWER_MAX, Cluster};

/// How long a change of members may take before whoever asked looks again.
const CHANGE_MAX: Duration = Duration::from_secs(5);

impl Cluster {
    /// The members as the cluster knows them.
    pub async fn listed(&self) -> Result<Vec<pb::Member>> {
        eventually("somebody lists the members", || async {
            for at in self.all() {
                let list = timeout(CHANGE_MAX, self.client(at).members(true)).await;
                if let Ok(Ok(list)) = list {
                    return Ok(list.members);
                }
            }
            anyhow::bail!("nobody does")
        })
        .await
    }

    /// What the cluster knows of a member.
    pub async fn listing(&self, at: usize) -> Result<Option<pb::Member>> {
        let url = self.inner[at].peer_url();
        Ok(self.listed().await?.into_iter().find(|member| member.peer_ur_ls.contains(&url)))
    }

    /// Removes a member by way of the others, ends its process and removes its data.
    pub async fn remove(&mut self, at: usize) -> Result<()> {
        // It ends by itself once it knows.
        self.may_die(at);
        eventually("a member is removed", || async {
            let Some(member) = self.listing(at).await? else { return Ok(()) };
            let via = *self.others(at).first().context("there are others")?;
            let request = MemberRemoveRequest { id: member.id };
            timeout(CHANGE_MAX, self.client(via).cluster.member_remove(request)).await??;
            Ok(())
        })
        .await?;
        self.belongs[at] = false;
        self.kill(at).await?;
        self.inner[at].wipe()
    }

    /// Makes a removed member, or one that never was, one of the cluster, and waits until it votes.
    pub async fn add(&mut self, at: usize, learner: bool) -> Result<()> {
        if self.listing(at).await?.is_none() {
            let via = self.leader().await.or_else(|| self.others(at).first().copied());
            self.kill(at).await?;
            self.inner[at].wipe()?;
            self.inner.add(at, learner, via.context("there are others")?).await?;
        }
        self.belongs[at] = true;
        self.start_again(at).await?;
        eventually("a new member votes", || async {
            let member = self.listing(at).await?.context("it was added")?;
            if !member.is_learner {
                return if learner { Ok(()) } else { self.votes(member.id) };
            }
            let via = self.leader().await.context("somebody leads")?;
            let request = MemberPromoteRequest { id: member.id };
            timeout(CHANGE_MAX, self.client(via).cluster.member_promote(request)).await??;
            Ok(())
        })
        .await
    }

    /// Whether a member that was added as a voter is one: with ours it counts once it has caught up, and only logs say so.
    fn votes(&self, id: u64) -> Result<()> {
        let id = format!("{id:x}");
        let says_so = |line: &str| {
            let voters = line.split_once("switched to configuration voters=").map(|(_, voters)| voters);
            voters.is_some_and(|voters| voters.split(" learners=").next().unwrap_or_default().contains(&id))
        };
        let logs = |at: usize| self.inner[at].log();
        ensure!(
            self.all().into_iter().any(|at| logs(at).lines().any(says_so)),
            "member {id} does not count yet"
        );
        Ok(())
    }

    /// Makes a removed member one of the cluster again, without any data, at its old address; starts one that
    /// was never removed.
    pub async fn replace(&mut self, at: usize, learner: bool) -> Result<()> {
        if self.belongs[at] && self.listing(at).await?.is_some() {
            return self.start_again(at).await;
        }
        self.add(at, learner).await
    }

    /// One more member, which is not yet one of the cluster; gives its number.
    pub async fn grow(&mut self) -> Result<usize> {
        if let Some(at) = self.belongs.iter().position(|belongs| !belongs) {
            return Ok(at);
        }
        let at = self.inner.grow().await?;
        self.wanted.push(false);
        self.belongs.push(false);
        Ok(at)
    }

    /// Whether a member is one of the cluster.
    pub fn belongs(&self, at: usize) -> bool {
        self.belongs[at]
    }

    /// Asks the leader to let another one lead; gives both.
    pub async fn move_leader(&self, to: usize) -> Result<usize> {
        let leader = self.some_leader().await?;
        ensure!(leader != to, "member {to} leads already");
        let target = timeout(ANSWER_MAX, self.client(to).status()).await??;
        let request = MoveLeaderRequest { target_id: target.header.unwrap_or_default().member_id };
        timeout(CHANGE_MAX, self.client(leader).maintenance.move_leader(request)).await??;
        Ok(leader)
    }

    fn others(&self, at: usize) -> Vec<usize> {
        self.all().into_iter().filter(|other| *other != at).collect()
    }
}
