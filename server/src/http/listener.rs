//! `--listen-metrics-urls`: a small server of its own, on a thread of its own.
//!
//! It answers from the first moment, before the member is there, so that
//! probes see a member that starts and not one that is dead; and a scrape's work
//! does not delay a client's request.

use std::convert::Infallible;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{debug, warn};

use super::{HttpContext, handle};
use crate::listen::Listener;
use crate::tls::Acceptor;

/// How long a client may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(300);

/// How long to wait when no connection can be accepted, for want of descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves HTTP on these listeners until the process ends. Those with an acceptor speak TLS.
pub fn serve(listeners: Vec<(Listener, HttpContext, Option<Acceptor>)>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let spawned = thread::Builder::new().name("metrics".into()).spawn(move || {
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for (listener, context, acceptor) in listeners {
                tasks.spawn(accept(listener, context, acceptor));
            }
            while let Some(ended) = tasks.join_next().await {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => warn!(%error, "a metrics listener ended"),
                    Err(error) => warn!(%error, "a metrics listener failed"),
                }
            }
        });
    });
    spawned.map(drop).context("thread for metrics")
}

async fn accept(listener: Listener, context: HttpContext, acceptor: Option<Acceptor>) -> std::io::Result<()> {
    match listener {
        Listener::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                match listener.accept().await {
                    Ok((stream, remote)) => start(stream, Some(remote.ip()), &context, &acceptor),
                    Err(error) => pause(&error).await,
                }
            }
        }
        Listener::Unix(listener) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => start(stream, None, &context, &acceptor),
                    Err(error) => pause(&error).await,
                }
            }
        }
    }
}

async fn pause(error: &std::io::Error) {
    warn!(%error, "cannot accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

fn start<S>(stream: S, remote: Option<IpAddr>, context: &HttpContext, acceptor: &Option<Acceptor>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let context = context.clone();
    let acceptor = acceptor.clone();
    tokio::spawn(async move {
        match acceptor {
            None => speak(stream, context).await,
            Some(acceptor) => match acceptor.accept(stream, remote).await {
                Ok(stream) => speak(stream, context).await,
                Err(error) => warn!(remote_addr = ?remote, %error, "rejected connection on metrics endpoint"),
            },
        }
    });
}

async fn speak<S>(stream: S, context: HttpContext)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let context = context.clone();
        async move { Ok::<_, Infallible>(handle(request, &context).await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "a connection to the metrics endpoint ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::sync::Arc;

    use super::super::{Checked, Health, Port};
    use super::*;
    use crate::config::flags::Flags;
    use crate::config::url::Url;

    struct Starting;

    impl Health for Starting {
        fn leader(&self) -> u64 {
            0
        }
        fn alarms(&self) -> Vec<proto::etcdserverpb::AlarmMember> {
            Vec::new()
        }
        fn serializable_read(&self) -> Checked<'_> {
            Box::pin(async { Err("starting".to_owned()) })
        }
        fn linearizable_read(&self) -> Checked<'_> {
            Box::pin(async { Err("starting".to_owned()) })
        }
        fn is_learner(&self) -> bool {
            false
        }
        fn cluster_version(&self) -> Option<String> {
            None
        }
        fn storage_version(&self) -> Option<String> {
            None
        }
    }

    #[test]
    fn answers_over_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics");
        let url = Url::parse(&format!("unix://{}", path.display())).unwrap();
        let listener = crate::listen::bind(&url, &Flags::default()).unwrap();
        let config = crate::config::load(&[], &BTreeMap::new()).unwrap();
        serve(vec![(listener, HttpContext::new(&config, Port::Metrics, false, Arc::new(Starting)), None)])
            .unwrap();
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("[-]serializable_read failed: starting\n\n"), "{answer}");
    }
}
