//! `--write-out=json`: one line, as Go's `encoding/json` writes etcd's structs.
//!
//! 64-bit integers are numbers, bytes are base64, `<`, `>` and `&` are escaped. Zero
//! fields of protobuf messages are left out, those of the client's own structs stay.

use manners::json::{Object, array, object, push_bytes};
use proto::etcdserverpb as pb;
use proto::mvccpb;

use super::{Reply, Unsupported};

/// Appends the reply and a line feed to `out`.
pub(super) fn render(out: &mut Vec<u8>, reply: &Reply<'_>, hex: bool) -> Result<(), Unsupported> {
    let mut text = String::new();
    match reply {
        Reply::Get(reply) => object(&mut text, |o| range(o, reply)),
        Reply::Put(reply) => object(&mut text, |o| put(o, reply)),
        Reply::Delete(reply) => object(&mut text, |o| delete(o, reply)),
        Reply::Txn(reply) => object(&mut text, |o| txn(o, reply)),
        Reply::Watch(reply) => object(&mut text, |o| watch(o, reply)),
        Reply::Grant(reply) => object(&mut text, |o| {
            header_fields(o, reply.header.as_ref());
            o.value("ID", reply.id);
            o.value("TTL", reply.ttl);
            o.string("Error", &reply.error);
        }),
        Reply::Revoke(_, reply) => object(&mut text, |o| header(o, reply.header.as_ref())),
        Reply::KeepAlive(reply) => object(&mut text, |o| {
            header_fields(o, reply.header.as_ref());
            o.value("ID", reply.id);
            o.value("TTL", reply.ttl);
        }),
        Reply::TimeToLive { reply, .. } => object(&mut text, |o| {
            header_fields(o, reply.header.as_ref());
            o.value("id", reply.id);
            o.value("ttl", reply.ttl);
            o.value("granted-ttl", reply.granted_ttl);
            match reply.keys.as_slice() {
                [] => o.value("keys", "null"),
                keys => o.list("keys", keys, |out, key| push_bytes(out, key)),
            }
        }),
        Reply::Leases(reply) => object(&mut text, |o| {
            header_fields(o, reply.header.as_ref());
            o.objects("leases", &reply.leases, |o, lease| o.value("id", lease.id));
        }),
        Reply::MemberAdd(reply) => object(&mut text, |o| {
            if hex {
                hex_header(o, reply.header.as_ref());
                o.object("member", |o| hex_member(o, &reply.member.clone().unwrap_or_default()));
                o.objects("members", &reply.members, hex_member);
            } else {
                header(o, reply.header.as_ref());
                if let Some(reply) = &reply.member {
                    o.object("member", |o| member(o, reply));
                }
                o.some_objects("members", &reply.members, member);
            }
        }),
        Reply::MemberRemove(_, reply) => members(&mut text, reply.header.as_ref(), &reply.members, hex),
        Reply::MemberUpdate(_, reply) => members(&mut text, reply.header.as_ref(), &reply.members, hex),
        Reply::MemberPromote(_, reply) => members(&mut text, reply.header.as_ref(), &reply.members, hex),
        Reply::MemberList(reply) => members(&mut text, reply.header.as_ref(), &reply.members, hex),
        Reply::MoveLeader(_, _, reply) => object(&mut text, |o| {
            if let Some(head) = &reply.header {
                header(o, Some(head));
            }
        }),
        Reply::Health(list) => array(&mut text, list, |o, health| {
            o.string("endpoint", &health.endpoint);
            o.value("health", health.healthy);
            o.string("took", &health.took);
            o.some_string("error", &health.error);
        }),
        Reply::Status(list) => array(&mut text, list, |o, (endpoint, reply)| {
            o.string("Endpoint", endpoint);
            o.object("Status", |o| status(o, reply));
        }),
        Reply::HashKv(list) => array(&mut text, list, |o, (endpoint, reply)| {
            o.string("Endpoint", endpoint);
            o.object("HashKV", |o| {
                header(o, reply.header.as_ref());
                o.some("hash", reply.hash);
                o.some("compact_revision", reply.compact_revision);
                o.some("hash_revision", reply.hash_revision);
            });
        }),
        Reply::Alarm(reply) => object(&mut text, |o| {
            header(o, reply.header.as_ref());
            o.some_objects("alarms", &reply.alarms, |o, alarm| {
                o.some("memberID", alarm.member_id);
                o.some("alarm", alarm.alarm);
            });
        }),
    }
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
    Ok(())
}

fn header(o: &mut Object<'_>, header: Option<&pb::ResponseHeader>) {
    if header.is_some() {
        o.object("header", |o| header_fields(o, header));
    }
}

fn header_fields(o: &mut Object<'_>, header: Option<&pb::ResponseHeader>) {
    if let Some(header) = header {
        o.some("cluster_id", header.cluster_id);
        o.some("member_id", header.member_id);
        o.some("revision", header.revision);
        o.some("raft_term", header.raft_term);
    }
}

fn key_value(o: &mut Object<'_>, kv: &mvccpb::KeyValue) {
    o.some_bytes("key", &kv.key);
    o.some("create_revision", kv.create_revision);
    o.some("mod_revision", kv.mod_revision);
    o.some("version", kv.version);
    o.some_bytes("value", &kv.value);
    o.some("lease", kv.lease);
}

fn range(o: &mut Object<'_>, reply: &pb::RangeResponse) {
    header(o, reply.header.as_ref());
    o.some_objects("kvs", &reply.kvs, key_value);
    o.some_true("more", reply.more);
    o.some("count", reply.count);
}

fn put(o: &mut Object<'_>, reply: &pb::PutResponse) {
    header(o, reply.header.as_ref());
    if let Some(kv) = &reply.prev_kv {
        o.object("prev_kv", |o| key_value(o, kv));
    }
}

fn delete(o: &mut Object<'_>, reply: &pb::DeleteRangeResponse) {
    header(o, reply.header.as_ref());
    o.some("deleted", reply.deleted);
    o.some_objects("prev_kvs", &reply.prev_kvs, key_value);
}

fn txn(o: &mut Object<'_>, reply: &pb::TxnResponse) {
    header(o, reply.header.as_ref());
    o.some_true("succeeded", reply.succeeded);
    o.some_objects("responses", &reply.responses, |o, op| {
        o.object("Response", |o| match &op.response {
            Some(pb::response_op::Response::ResponseRange(reply)) => {
                o.object("response_range", |o| range(o, reply));
            }
            Some(pb::response_op::Response::ResponsePut(reply)) => {
                o.object("response_put", |o| put(o, reply))
            }
            Some(pb::response_op::Response::ResponseDeleteRange(reply)) => {
                o.object("response_delete_range", |o| delete(o, reply));
            }
            Some(pb::response_op::Response::ResponseTxn(reply)) => {
                o.object("response_txn", |o| txn(o, reply))
            }
            None => {}
        });
    });
}

fn watch(o: &mut Object<'_>, reply: &pb::WatchResponse) {
    o.object("Header", |o| header_fields(o, reply.header.as_ref()));
    match reply.events.as_slice() {
        [] => o.value("Events", "null"),
        events => o.objects("Events", events, |o, event| {
            o.some("type", event.r#type);
            for (name, kv) in [("kv", &event.kv), ("prev_kv", &event.prev_kv)] {
                if let Some(kv) = kv {
                    o.object(name, |o| key_value(o, kv));
                }
            }
        }),
    }
    o.value("CompactRevision", reply.compact_revision);
    o.value("Canceled", reply.canceled);
    o.value("Created", reply.created);
    o.string("CancelReason", &reply.cancel_reason);
}

fn members(text: &mut String, head: Option<&pb::ResponseHeader>, list: &[pb::Member], hex: bool) {
    object(text, |o| {
        if hex {
            hex_header(o, head);
            o.objects("members", list, hex_member);
        } else {
            header(o, head);
            o.some_objects("members", list, member);
        }
    });
}

fn member(o: &mut Object<'_>, member: &pb::Member) {
    o.some("ID", member.id);
    member_fields(o, member);
}

fn hex_member(o: &mut Object<'_>, member: &pb::Member) {
    o.string("ID", &format!("{:x}", member.id));
    member_fields(o, member);
}

fn member_fields(o: &mut Object<'_>, member: &pb::Member) {
    o.some_string("name", &member.name);
    o.some_strings("peerURLs", &member.peer_ur_ls);
    o.some_strings("clientURLs", &member.client_ur_ls);
    o.some_true("isLearner", member.is_learner);
}

fn hex_header(o: &mut Object<'_>, header: Option<&pb::ResponseHeader>) {
    let header = header.copied().unwrap_or_default();
    o.object("header", |o| {
        o.string("cluster_id", &format!("{:x}", header.cluster_id));
        o.string("member_id", &format!("{:x}", header.member_id));
        o.some("revision", header.revision);
        o.some("raft_term", header.raft_term);
    });
}

fn status(o: &mut Object<'_>, reply: &pb::StatusResponse) {
    header(o, reply.header.as_ref());
    o.some_string("version", &reply.version);
    o.some("dbSize", reply.db_size);
    o.some("leader", reply.leader);
    o.some("raftIndex", reply.raft_index);
    o.some("raftTerm", reply.raft_term);
    o.some("raftAppliedIndex", reply.raft_applied_index);
    o.some_strings("errors", &reply.errors);
    o.some("dbSizeInUse", reply.db_size_in_use);
    o.some_true("isLearner", reply.is_learner);
    o.some_string("storageVersion", &reply.storage_version);
    o.some("dbSizeQuota", reply.db_size_quota);
    if let Some(downgrade) = &reply.downgrade_info {
        o.object("downgradeInfo", |o| {
            o.some_true("enabled", downgrade.enabled);
            o.some_string("targetVersion", &downgrade.target_version);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &Reply<'_>, hex: bool) -> String {
        let mut out = Vec::new();
        render(&mut out, reply, hex).expect("json has a form for every reply");
        String::from_utf8(out).expect("json is text")
    }

    #[test]
    fn messages_leave_zeros_out_and_structs_keep_them() {
        let header =
            Some(pb::ResponseHeader { cluster_id: u64::MAX, member_id: 2, revision: 3, raft_term: 0 });
        let kvs = vec![mvccpb::KeyValue { key: "foo".into(), version: 1, ..Default::default() }];
        let get = pb::RangeResponse { header, kvs, more: true, count: 4 };
        assert_eq!(
            text(&Reply::Get(&get), true),
            concat!(
                r#"{"header":{"cluster_id":18446744073709551615,"member_id":2,"revision":3},"#,
                r#""kvs":[{"key":"Zm9v","version":1}],"more":true,"count":4}"#,
                "\n"
            )
        );
        let watch =
            pb::WatchResponse { header: Some(Default::default()), canceled: true, ..Default::default() };
        assert_eq!(
            text(&Reply::Watch(&watch), false),
            concat!(
                r#"{"Header":{},"Events":null,"CompactRevision":0,"Canceled":true,"#,
                r#""Created":false,"CancelReason":""}"#,
                "\n"
            )
        );
    }

    #[test]
    fn hex_ids_are_strings_in_member_replies() {
        let header =
            Some(pb::ResponseHeader { cluster_id: 0x1a, member_id: 0x2b, revision: 0, raft_term: 2 });
        let member = pb::Member { id: 0xff, peer_ur_ls: vec!["http://a:1".into()], ..Default::default() };
        let list = pb::MemberListResponse { header, members: vec![member] };
        assert_eq!(
            text(&Reply::MemberList(&list), true),
            concat!(
                r#"{"header":{"cluster_id":"1a","member_id":"2b","raft_term":2},"#,
                r#""members":[{"ID":"ff","peerURLs":["http://a:1"]}]}"#,
                "\n"
            )
        );
    }
}
