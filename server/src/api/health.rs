//! The health service of gRPC: the server as a whole is serving as soon as it answers.

use bytes::Bytes;
use futures::StreamExt;
use proto::health::health_check_response::ServingStatus;
use proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};

use super::body::{Pieces, stream};
use super::decode;
use super::interceptor::{Answer, Call};
use super::message::framed;
use crate::node::{Failure, Invalid, Node};

fn status_of(service: &str) -> Option<ServingStatus> {
    service.is_empty().then_some(ServingStatus::Serving)
}

/// Whether a service is serving; the empty name is the server.
pub async fn check(_node: Node, request: HealthCheckRequest) -> Result<HealthCheckResponse, Failure> {
    let status = status_of(&request.service).ok_or(Invalid::UnknownHealthService)?;
    Ok(HealthCheckResponse { status: status as i32 })
}

/// All services whose health is known.
pub async fn list(_node: Node, _request: HealthListRequest) -> Result<HealthListResponse, Failure> {
    let serving = HealthCheckResponse { status: ServingStatus::Serving as i32 };
    Ok(HealthListResponse { statuses: [(String::new(), serving)].into() })
}

/// The same as a stream, which would tell a change; a member serves until it is gone.
pub fn watch(call: &Call<'_>, message: Bytes) -> Answer {
    let request: HealthCheckRequest = decode(message)?;
    let monitor = call.admit_stream()?;
    let status = status_of(&request.service).unwrap_or(ServingStatus::ServiceUnknown);
    let first = framed(&HealthCheckResponse { status: status as i32 });
    let messages = futures::stream::iter([Ok(first)]).chain(futures::stream::pending());
    Ok(stream(monitor.over(Pieces::new(messages))))
}
