//! `--write-out=protobuf`: the message's bytes, nothing around them.
//!
//! Lease replies are their header alone and a revoke has no form at all: that is
//! what etcd's tool writes, and those who read it back rely on it.

use prost::Message;
use proto::etcdserverpb as pb;

use super::{Reply, Unsupported};

/// Appends the reply to `out`.
pub(super) fn render(out: &mut Vec<u8>, reply: &Reply<'_>) -> Result<(), Unsupported> {
    let bytes = match reply {
        Reply::Get(reply) => reply.encode_to_vec(),
        Reply::Put(reply) => reply.encode_to_vec(),
        Reply::Delete(reply) => reply.encode_to_vec(),
        Reply::Txn(reply) => reply.encode_to_vec(),
        Reply::Watch(reply) => pb::WatchResponse {
            watch_id: 0,
            cancel_reason: String::new(),
            fragment: false,
            ..(*reply).clone()
        }
        .encode_to_vec(),
        Reply::Grant(reply) => header(reply.header),
        Reply::KeepAlive(reply) => header(reply.header),
        Reply::TimeToLive { reply, .. } => header(reply.header),
        Reply::Leases(reply) => header(reply.header),
        Reply::MemberAdd(reply) => reply.encode_to_vec(),
        Reply::MemberRemove(_, reply) => reply.encode_to_vec(),
        Reply::MemberUpdate(_, reply) => reply.encode_to_vec(),
        Reply::MemberPromote(_, reply) => reply.encode_to_vec(),
        Reply::MemberList(reply) => reply.encode_to_vec(),
        Reply::MoveLeader(_, _, reply) => reply.encode_to_vec(),
        Reply::Downgrade(_, reply) => reply.encode_to_vec(),
        // Every message that has only a header has it as its first field.
        Reply::Done(_, header) => pb::AuthEnableResponse { header: *header }.encode_to_vec(),
        Reply::AuthStatus(reply) => reply.encode_to_vec(),
        Reply::RoleGet(_, reply) => reply.encode_to_vec(),
        Reply::RoleList(reply) => reply.encode_to_vec(),
        Reply::UserGet(_, reply) => reply.encode_to_vec(),
        Reply::UserList(reply) => reply.encode_to_vec(),
        Reply::Alarm(reply) => reply.encode_to_vec(),
        Reply::Revoke(..) | Reply::Health(_) | Reply::Status(_) | Reply::HashKv(_) => {
            return Err(Unsupported);
        }
    };
    out.extend_from_slice(&bytes);
    Ok(())
}

fn header(header: Option<pb::ResponseHeader>) -> Vec<u8> {
    header.map(|header| header.encode_to_vec()).unwrap_or_default()
}
