//! A member starts, serves, stops and starts again.

use anyhow::Result;
use tests::{Member, Program};

/// etcd's own server where it stands in for ours, so that the tests themselves can be tested.
pub fn program() -> Program {
    match std::env::var_os("TEST_THE_TESTS") {
        Some(_) => Program::etcd().expect("TEST_THE_TESTS needs REAL_ETCD_BIN"),
        None => Program::ours(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_is_there_after_every_kind_of_stop() -> Result<()> {
    let mut member = Member::start(program()).await?;
    let client = member.connect().await?;
    let first = client.put("a", "1").await?;
    assert_eq!(first.revision, 2, "the first write of an empty store is revision 2");
    member.terminate().await?;
    member.start_again().await?;
    assert_eq!(client.put("b", "2").await?.revision, 3);
    member.kill().await?;
    member.start_again().await?;
    for (key, value) in [("a", "1"), ("b", "2")] {
        assert_eq!(client.get(key).await?.expect("a key that was acknowledged").value, value);
    }
    Ok(())
}
