//! TLS on the client port.

use anyhow::Result;
use tests::{Authority, Client, KeyPair, Member, Options};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::program;

async fn connects(
    url: &str,
    server_name: &str,
    identity: Option<&KeyPair>,
    authority: &KeyPair,
) -> Result<bool> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(std::fs::read(&authority.ca)?));
    if let Some(files) = identity {
        tls = tls.identity(Identity::from_pem(std::fs::read(&files.cert)?, std::fs::read(&files.key)?));
    }
    let endpoint = Endpoint::from_shared(url.to_owned())?.tls_config(tls.domain_name(server_name))?;
    // In TLS 1.3 a refused client certificate shows at the first request.
    match endpoint.connect().await {
        Ok(channel) => Ok(Client::on(channel).get("k").await.is_ok()),
        Err(_) => Ok(false),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_clients_with_a_certificate_of_the_authority_get_in() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (ours, other) = (Authority::new(&dir.path().join("a"))?, Authority::new(&dir.path().join("b"))?);
    let (server, client) = (ours.issue("server")?, ours.issue("client")?);
    let stranger = other.issue("stranger")?;
    let mut options = Options::new(program());
    options.tls = Some(server.clone());
    let member = Member::start_with(options).await?;
    let url = member.client_url();
    assert!(connects(&url, "localhost", Some(&client), &server).await?);
    assert!(!connects(&url, "localhost", None, &server).await?, "no certificate");
    assert!(!connects(&url, "localhost", Some(&stranger), &server).await?, "another authority's");
    let plain = url.replace("https", "http");
    let refused = match Client::connect(&plain, None).await {
        Ok(client) => client.get("k").await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "plain text on a TLS port");
    assert!(connects(&url, "localhost", Some(&client), &server).await?, "the member goes on");
    Ok(())
}

/// Certificates are renewed while members run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_used_without_a_restart() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new(dir.path())?;
    let (server, client) = (authority.issue("server")?, authority.issue("client")?);
    let mut options = Options::new(program());
    options.tls = Some(server.clone());
    let member = Member::start_with(options).await?;
    let url = member.client_url();
    let held = member.connect().await?;
    held.put("k", "1").await?;
    assert!(!connects(&url, "renewed.invalid", Some(&client), &server).await?);
    authority.issue_for("server", "renewed.invalid")?;
    let mut attempts = 0;
    while !connects(&url, "renewed.invalid", Some(&client), &server).await? {
        attempts += 1;
        assert!(attempts < 300, "the renewed certificate is not used");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    held.put("k", "2").await?;
    Ok(())
}
