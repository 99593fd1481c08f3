//! A client: the generated stubs on one connection.

use std::time::Duration;

use anyhow::Result;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::{
    HashKvRequest, HashKvResponse, MemberListRequest, MemberListResponse, PutRequest, RangeRequest,
    RangeResponse, ResponseHeader, StatusRequest, StatusResponse,
};
use proto::health::health_client::HealthClient;
use proto::mvccpb::KeyValue;
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::tls::KeyPair;

/// What a client may receive; etcd's own client has no limit either.
const MESSAGE_MAX: usize = i32::MAX as usize;

/// Every service of a member, on one connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// The connection itself.
    pub channel: Channel,
    /// Keys and values.
    pub kv: KvClient<Channel>,
    /// Watches.
    pub watch: WatchClient<Channel>,
    /// Leases.
    pub lease: LeaseClient<Channel>,
    /// Status, alarms, hashes.
    pub maintenance: MaintenanceClient<Channel>,
    /// Members.
    pub cluster: ClusterClient<Channel>,
    /// gRPC's own health service.
    pub health: HealthClient<Channel>,
}

impl Client {
    /// Connects, with a client certificate where one is given.
    pub async fn connect(url: &str, tls: Option<&KeyPair>) -> Result<Client> {
        Ok(Client::on(Client::endpoint(url, tls)?.connect().await?))
    }

    /// Connects when it is first used, and again after each time the connection was lost.
    /// What is not answered in half a minute is given up.
    pub fn lazy(url: &str, tls: Option<&KeyPair>) -> Result<Client> {
        let endpoint = Client::endpoint(url, tls)?.timeout(Duration::from_secs(30));
        Ok(Client::on(endpoint.connect_lazy()))
    }

    fn endpoint(url: &str, tls: Option<&KeyPair>) -> Result<Endpoint> {
        let mut endpoint = Endpoint::from_shared(url.to_owned())?.connect_timeout(Duration::from_secs(10));
        if let Some(tls) = tls {
            let identity = Identity::from_pem(std::fs::read(&tls.cert)?, std::fs::read(&tls.key)?);
            let authority = Certificate::from_pem(std::fs::read(&tls.ca)?);
            endpoint = endpoint.tls_config(
                ClientTlsConfig::new().ca_certificate(authority).identity(identity).domain_name("localhost"),
            )?;
        }
        Ok(endpoint)
    }

    /// The services on a connection that exists.
    pub fn on(channel: Channel) -> Client {
        let c = || channel.clone();
        Client {
            kv: KvClient::new(c()).max_decoding_message_size(MESSAGE_MAX),
            watch: WatchClient::new(c()).max_decoding_message_size(MESSAGE_MAX),
            lease: LeaseClient::new(c()),
            maintenance: MaintenanceClient::new(c()).max_decoding_message_size(MESSAGE_MAX),
            cluster: ClusterClient::new(c()),
            health: HealthClient::new(c()),
            channel,
        }
    }

    /// Puts one key and gives the header of the answer.
    pub async fn put(
        &self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> Result<ResponseHeader, Status> {
        let request =
            PutRequest { key: key.into().into(), value: value.into().into(), ..PutRequest::default() };
        let answer = self.kv.clone().put(request).await?.into_inner();
        Ok(answer.header.unwrap_or_default())
    }

    /// The key's pair, where it exists.
    pub async fn get(&self, key: impl Into<Vec<u8>>) -> Result<Option<KeyValue>, Status> {
        let request = RangeRequest { key: key.into().into(), ..RangeRequest::default() };
        Ok(self.kv.clone().range(request).await?.into_inner().kvs.pop())
    }

    /// As [`Client::get`], from what this member has, be it old.
    pub async fn get_serializable(&self, key: impl Into<Vec<u8>>) -> Result<Option<KeyValue>, Status> {
        let request = RangeRequest { key: key.into().into(), serializable: true, ..RangeRequest::default() };
        Ok(self.kv.clone().range(request).await?.into_inner().kvs.pop())
    }

    /// What the member says of itself.
    pub async fn status(&self) -> Result<StatusResponse, Status> {
        Ok(self.maintenance.clone().status(StatusRequest {}).await?.into_inner())
    }

    /// The members, as a quorum or as this member knows them.
    pub async fn members(&self, linearizable: bool) -> Result<MemberListResponse, Status> {
        Ok(self.cluster.clone().member_list(MemberListRequest { linearizable }).await?.into_inner())
    }

    /// The hash of all that happened up to a revision; 0 for the current one.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, Status> {
        Ok(self.maintenance.clone().hash_kv(HashKvRequest { revision }).await?.into_inner())
    }

    /// Every pair whose key starts with the prefix.
    pub async fn list(&self, prefix: &str) -> Result<RangeResponse, Status> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix is not empty") += 1;
        let request = RangeRequest {
            key: prefix.as_bytes().to_vec().into(),
            range_end: end.into(),
            ..RangeRequest::default()
        };
        Ok(self.kv.clone().range(request).await?.into_inner())
    }

    /// How many keys start with the prefix.
    pub async fn count(&self, prefix: &str) -> Result<i64, Status> {
        Ok(self.list(prefix).await?.count)
    }
}
