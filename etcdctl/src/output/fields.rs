//! `--write-out=fields`: one `"Name" : value` a line, the header first.

use proto::etcdserverpb::{ResponseHeader, response_op::Response};
use proto::mvccpb::KeyValue;

use super::{Reply, Unsupported, line, simple};
use crate::go::{hex16, quote};

/// Appends the reply to `out`.
pub(super) fn render(out: &mut Vec<u8>, reply: &Reply<'_>, hex: bool) -> Result<(), Unsupported> {
    match reply {
        Reply::Get(reply) => {
            header(out, reply.header, hex);
            for kv in &reply.kvs {
                pair(out, "", kv, hex);
            }
            line!(out, "\"More\" : {}", reply.more);
            line!(out, "\"Count\" : {}", reply.count);
        }
        Reply::Put(reply) => {
            header(out, reply.header, hex);
            if let Some(kv) = &reply.prev_kv {
                pair(out, "Prev", kv, hex);
            }
        }
        Reply::Delete(reply) => {
            header(out, reply.header, hex);
            line!(out, "\"Deleted\" : {}", reply.deleted);
            for kv in &reply.prev_kvs {
                pair(out, "Prev", kv, hex);
            }
        }
        Reply::Txn(reply) => {
            header(out, reply.header, hex);
            line!(out, "\"Succeeded\" : {}", reply.succeeded);
            for op in &reply.responses {
                match &op.response {
                    Some(Response::ResponseRange(reply)) => render(out, &Reply::Get(reply), hex)?,
                    Some(Response::ResponsePut(reply)) => render(out, &Reply::Put(reply), hex)?,
                    Some(Response::ResponseDeleteRange(reply)) => render(out, &Reply::Delete(reply), hex)?,
                    other => line!(out, "\"Unknown\" : {}", quote(format!("{other:?}").as_bytes())),
                }
            }
        }
        Reply::Watch(reply) => {
            header(out, reply.header, hex);
            for event in &reply.events {
                line!(out, "\"Type\" : {}", simple::event_type(event.r#type));
                if let Some(kv) = &event.prev_kv {
                    pair(out, "Prev", kv, hex);
                }
                pair(out, "", event.kv.as_ref().unwrap_or(&KeyValue::default()), hex);
            }
        }
        Reply::Grant(reply) => {
            header(out, reply.header, hex);
            lease(out, "ID", reply.id, hex);
            line!(out, "\"TTL\" : {}", reply.ttl);
        }
        Reply::Revoke(_, reply) => header(out, reply.header, hex),
        Reply::KeepAlive(reply) => {
            header(out, reply.header, hex);
            lease(out, "ID", reply.id, hex);
            line!(out, "\"TTL\" : {}", reply.ttl);
        }
        Reply::TimeToLive { reply, .. } => {
            header(out, reply.header, hex);
            lease(out, "ID", reply.id, hex);
            line!(out, "\"TTL\" : {}", reply.ttl);
            line!(out, "\"GrantedTTL\" : {}", reply.granted_ttl);
            for key in &reply.keys {
                line!(out, "\"Key\" : {}", quote(key));
            }
        }
        Reply::Leases(reply) => {
            header(out, reply.header, hex);
            for status in &reply.leases {
                lease(out, "ID", status.id, hex);
            }
        }
        Reply::MemberList(reply) => {
            header(out, reply.header, hex);
            for member in &reply.members {
                id(out, "ID", member.id, hex);
                line!(out, "\"Name\" : {}", quote(member.name.as_bytes()));
                for url in &member.peer_ur_ls {
                    line!(out, "\"PeerURL\" : {}", quote(url.as_bytes()));
                }
                for url in &member.client_ur_ls {
                    line!(out, "\"ClientURL\" : {}", quote(url.as_bytes()));
                }
                line!(out, "\"IsLearner\" : {}\n", member.is_learner);
            }
        }
        Reply::Health(list) => {
            for health in *list {
                line!(out, "\"Endpoint\" : {}", quote(health.endpoint.as_bytes()));
                line!(out, "\"Health\" : {}", health.healthy);
                line!(out, "\"Took\" : {}", health.took);
                line!(out, "\"Error\" : {}\n", health.error);
            }
        }
        Reply::Status(list) => {
            for (endpoint, status) in *list {
                let downgrade = status.downgrade_info.clone().unwrap_or_default();
                header(out, status.header, hex);
                line!(out, "\"Version\" : {}", quote(status.version.as_bytes()));
                line!(out, "\"StorageVersion\" : {}", quote(status.storage_version.as_bytes()));
                line!(out, "\"DBSize\" : {}", status.db_size);
                line!(out, "\"DBSizeInUse\" : {}", status.db_size_in_use);
                line!(out, "\"DBSizeQuota\" : {}", status.db_size_quota);
                line!(out, "\"Leader\" : {}", status.leader);
                line!(out, "\"IsLearner\" : {}", status.is_learner);
                line!(out, "\"RaftIndex\" : {}", status.raft_index);
                line!(out, "\"RaftAppliedIndex\" : {}", status.raft_applied_index);
                line!(out, "\"Errors\" : [{}]", status.errors.join(" "));
                line!(out, "\"Endpoint\" : {}", quote(endpoint.as_bytes()));
                line!(out, "\"DowngradeTargetVersion\" : {}", quote(downgrade.target_version.as_bytes()));
                line!(out, "\"DowngradeEnabled\" : {}\n", downgrade.enabled);
            }
        }
        Reply::HashKv(list) => {
            for (endpoint, reply) in *list {
                header(out, reply.header, hex);
                line!(out, "\"Endpoint\" : {}", quote(endpoint.as_bytes()));
                line!(out, "\"Hash\" : {}", reply.hash);
                line!(out, "\"HashRevision\" : {}\n", reply.hash_revision);
            }
        }
        Reply::Done(_, head) => header(out, *head, hex),
        Reply::RoleGet(_, reply) => {
            header(out, reply.header, hex);
            for permission in &reply.perm {
                let kind = simple::permission_type(permission.perm_type);
                // etcd has two spaces here.
                line!(out, "\"PermType\" :  {kind}");
                line!(out, "\"Key\" : {}", quote(&permission.key));
                line!(out, "\"RangeEnd\" : {}", quote(&permission.range_end));
            }
        }
        Reply::RoleList(reply) => {
            header(out, reply.header, hex);
            let roles = reply.roles.iter().map(|role| format!(" {}", quote(role.as_bytes())));
            line!(out, "\"Roles\" :{}", roles.collect::<String>());
        }
        Reply::Alarm(reply) => {
            header(out, reply.header, hex);
            for alarm in &reply.alarms {
                id(out, "MemberID", alarm.member_id, hex);
                line!(out, "\"AlarmType\" : {}\n", simple::alarm_type(alarm.alarm));
            }
        }
        Reply::MemberAdd(_)
        | Reply::MemberRemove(..)
        | Reply::MemberUpdate(..)
        | Reply::MemberPromote(..)
        | Reply::MoveLeader(..)
        | Reply::Downgrade(..)
        | Reply::AuthStatus(_)
        | Reply::UserGet(..)
        | Reply::UserList(_) => {
            return Err(Unsupported);
        }
    }
    Ok(())
}

/// The revision is left out where it has no meaning: membership replies carry none.
fn header(out: &mut Vec<u8>, header: Option<ResponseHeader>, hex: bool) {
    let header = header.unwrap_or_default();
    id(out, "ClusterID", header.cluster_id, hex);
    id(out, "MemberID", header.member_id, hex);
    if header.revision > 0 {
        line!(out, "\"Revision\" : {}", header.revision);
    }
    line!(out, "\"RaftTerm\" : {}", header.raft_term);
}

fn id(out: &mut Vec<u8>, name: &str, id: u64, hex: bool) {
    if hex { line!(out, "\"{name}\" : {id:x}") } else { line!(out, "\"{name}\" : {id}") }
}

fn lease(out: &mut Vec<u8>, name: &str, id: i64, hex: bool) {
    if hex { line!(out, "\"{name}\" : {}", hex16(id)) } else { line!(out, "\"{name}\" : {id}") }
}

fn pair(out: &mut Vec<u8>, prefix: &str, kv: &KeyValue, hex: bool) {
    line!(out, "\"{prefix}Key\" : {}", quote(&kv.key));
    line!(out, "\"{prefix}CreateRevision\" : {}", kv.create_revision);
    line!(out, "\"{prefix}ModRevision\" : {}", kv.mod_revision);
    line!(out, "\"{prefix}Version\" : {}", kv.version);
    line!(out, "\"{prefix}Value\" : {}", quote(&kv.value));
    lease(out, &format!("{prefix}Lease"), kv.lease, hex);
}
