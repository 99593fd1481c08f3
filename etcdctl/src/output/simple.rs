//! `--write-out=simple`: what people read and pipes cut.

use proto::authpb::Permission;
use proto::authpb::permission::Type;
use proto::etcdserverpb::{AlarmType, response_op::Response};
use proto::mvccpb::{KeyValue, event::EventType};

use super::{Reply, Unsupported, hex_escaped, line, table};
use crate::go::hex16;
use crate::verb::prefix_end;

/// Appends the reply to `out`; an unhealthy endpoint is told to stderr instead.
pub(super) fn render(
    out: &mut Vec<u8>,
    reply: &Reply<'_>,
    hex: bool,
    value_only: bool,
) -> Result<(), Unsupported> {
    match reply {
        Reply::Get(reply) => {
            for kv in &reply.kvs {
                pair(out, kv, hex, value_only);
            }
        }
        Reply::Put(reply) => {
            line!(out, "OK");
            if let Some(kv) = &reply.prev_kv {
                pair(out, kv, hex, value_only);
            }
        }
        Reply::Delete(reply) => {
            line!(out, "{}", reply.deleted);
            for kv in &reply.prev_kvs {
                pair(out, kv, hex, value_only);
            }
        }
        Reply::Txn(reply) => {
            line!(out, "{}", if reply.succeeded { "SUCCESS" } else { "FAILURE" });
            for op in &reply.responses {
                line!(out, "");
                let reply = match &op.response {
                    Some(Response::ResponseRange(reply)) => Reply::Get(reply),
                    Some(Response::ResponsePut(reply)) => Reply::Put(reply),
                    Some(Response::ResponseDeleteRange(reply)) => Reply::Delete(reply),
                    Some(Response::ResponseTxn(_)) | None => {
                        line!(out, "unexpected response {op:?}");
                        continue;
                    }
                };
                render(out, &reply, hex, value_only)?;
            }
        }
        Reply::Watch(reply) => {
            for event in &reply.events {
                line!(out, "{}", event_type(event.r#type));
                if let Some(kv) = &event.prev_kv {
                    pair(out, kv, hex, value_only);
                }
                pair(out, event.kv.as_ref().unwrap_or(&KeyValue::default()), hex, value_only);
            }
        }
        Reply::Grant(reply) => line!(out, "lease {} granted with TTL({}s)", hex16(reply.id), reply.ttl),
        Reply::Revoke(id, _) => line!(out, "lease {} revoked", hex16(*id)),
        Reply::KeepAlive(reply) => line!(out, "lease {} keepalived with TTL({})", hex16(reply.id), reply.ttl),
        Reply::TimeToLive { reply, .. } if reply.granted_ttl == 0 && reply.ttl == -1 => {
            line!(out, "lease {} already expired", hex16(reply.id));
        }
        Reply::TimeToLive { reply, keys } => {
            let (id, granted, left) = (hex16(reply.id), reply.granted_ttl, reply.ttl);
            let text = format!("lease {id} granted with TTL({granted}s), remaining({left}s)");
            out.extend_from_slice(text.as_bytes());
            if *keys {
                out.extend_from_slice(b", attached keys([");
                out.extend_from_slice(&reply.keys.join(&b' '));
                out.extend_from_slice(b"])");
            }
            out.push(b'\n');
        }
        Reply::Leases(reply) => {
            line!(out, "found {} leases", reply.leases.len());
            for lease in &reply.leases {
                line!(out, "{}", hex16(lease.id));
            }
        }
        Reply::MemberAdd(reply) => {
            let cluster = reply.header.map_or(0, |header| header.cluster_id);
            let member = reply.member.clone().unwrap_or_default();
            let role = if member.is_learner { " as learner " } else { " " };
            line!(out, "Member {:16x} added{role}to cluster {cluster:16x}", member.id);
        }
        Reply::MemberRemove(id, reply) => {
            let cluster = reply.header.map_or(0, |header| header.cluster_id);
            line!(out, "Member {id:16x} removed from cluster {cluster:16x}");
        }
        Reply::MemberUpdate(id, reply) => {
            let cluster = reply.header.map_or(0, |header| header.cluster_id);
            line!(out, "Member {id:16x} updated in cluster {cluster:16x}");
        }
        Reply::MemberPromote(id, reply) => {
            let cluster = reply.header.map_or(0, |header| header.cluster_id);
            line!(out, "Member {id:16x} promoted in cluster {cluster:16x}");
        }
        Reply::MoveLeader(from, to, _) => line!(out, "Leadership transferred from {from:x} to {to:x}"),
        Reply::Downgrade(action, reply) => {
            let action = action.as_str_name().to_lowercase();
            line!(out, "Downgrade {action} success, cluster version {}", reply.version);
        }
        Reply::MemberList(reply) => rows(out, &table::members(&reply.members)),
        Reply::Status(list) => rows(out, &table::status(list)),
        Reply::HashKv(list) => rows(out, &table::hash(list)),
        Reply::Health(list) => {
            for health in *list {
                let endpoint = &health.endpoint;
                if health.error.is_empty() {
                    let took = &health.took;
                    line!(out, "{endpoint} is healthy: successfully committed proposal: took = {took}");
                } else {
                    eprintln!("{endpoint} is unhealthy: failed to commit proposal: {}", health.error);
                }
            }
        }
        Reply::Done(told, _) => line!(out, "{told}"),
        Reply::AuthStatus(reply) => {
            line!(out, "Authentication Status: {}", reply.enabled);
            line!(out, "AuthRevision: {}", reply.auth_revision);
        }
        Reply::RoleGet(name, reply) => role(out, name, &reply.perm),
        Reply::RoleList(reply) => reply.roles.iter().for_each(|role| line!(out, "{role}")),
        Reply::UserGet(name, reply) => {
            line!(out, "User: {name}");
            let roles = reply.roles.iter().map(|role| format!(" {role}"));
            line!(out, "Roles:{}", roles.collect::<String>());
        }
        Reply::UserList(reply) => reply.users.iter().for_each(|user| line!(out, "{user}")),
        Reply::Alarm(reply) => {
            for alarm in &reply.alarms {
                // Text protobuf leaves a zero field out.
                let member = (alarm.member_id != 0).then(|| format!("memberID:{}", alarm.member_id));
                let kind = (alarm.alarm != 0).then(|| format!("alarm:{}", alarm_type(alarm.alarm)));
                let parts: Vec<String> = member.into_iter().chain(kind).collect();
                line!(out, "{}", parts.join("  "));
            }
        }
    }
    Ok(())
}

/// The name of an event type as etcd prints it.
pub fn event_type(number: i32) -> String {
    EventType::try_from(number).map_or_else(|_| number.to_string(), |kind| kind.as_str_name().to_owned())
}

/// The name of an alarm as etcd prints it.
pub(super) fn alarm_type(number: i32) -> String {
    AlarmType::try_from(number).map_or_else(|_| number.to_string(), |kind| kind.as_str_name().to_owned())
}

/// The name of a permission's type as etcd prints it.
pub(super) fn permission_type(number: i32) -> String {
    Type::try_from(number).map_or_else(|_| number.to_string(), |kind| kind.as_str_name().to_owned())
}

/// What a role permits, first reading and then writing. The role root permits everything without saying so.
fn role(out: &mut Vec<u8>, name: &str, permissions: &[Permission]) {
    line!(out, "Role {name}");
    let all = Permission { key: "".into(), range_end: "\0".into(), perm_type: Type::Readwrite.into() };
    let permissions = match permissions {
        [] if name == "root" => std::slice::from_ref(&all),
        permissions => permissions,
    };
    for (title, kind) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
        line!(out, "{title}");
        for permission in permissions {
            if permission.perm_type() == kind || permission.perm_type() == Type::Readwrite {
                keys(out, permission);
            }
        }
    }
}

/// The keys of a permission, in their bytes.
fn keys(out: &mut Vec<u8>, permission: &Permission) {
    let (key, end) = (&permission.key[..], &permission.range_end[..]);
    let mut parts: Vec<&[u8]> = match end {
        b"" => vec![b"\t", key],
        b"\0" => vec![b"\t[", key, b", <open ended>"],
        end => vec![b"\t[", key, b", ", end, b")"],
    };
    if !key.is_empty() && !end.is_empty() && prefix_end(key) == end {
        parts.extend([&b" (prefix "[..], key, b")"]);
    }
    out.extend_from_slice(&parts.concat());
    out.push(b'\n');
}

fn pair(out: &mut Vec<u8>, kv: &KeyValue, hex: bool, value_only: bool) {
    for text in [&kv.key, &kv.value].into_iter().skip(usize::from(value_only)) {
        if hex {
            out.extend_from_slice(hex_escaped(text).as_bytes());
        } else {
            out.extend_from_slice(text);
        }
        out.push(b'\n');
    }
}

fn rows(out: &mut Vec<u8>, rows: &[Vec<String>]) {
    for row in rows {
        line!(out, "{}", row.join(", "));
    }
}
