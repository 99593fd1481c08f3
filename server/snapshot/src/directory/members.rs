//! The members as etcd's old store, version 2, which a Raft snapshot of etcd holds still.

use serde_json::{Map, Value, json};

use crate::schema::{Member, member_key};

/// Events that the store remembers.
const EVENTS: usize = 1000;

/// The store's JSON. etcd 3.7 does not look into it; a release before that reads it.
pub(super) fn to_json(members: &[Member]) -> Vec<u8> {
    let node = |path: &str, index: usize, children: Map<String, Value>| {
        json!({
            "Path": path,
            "CreatedIndex": index,
            "ModifiedIndex": index,
            "ExpireTime": "0001-01-01T00:00:00Z",
            "Value": "",
            "Children": children,
        })
    };
    let below = |name: &str, child: Value| Map::from_iter([(name.to_owned(), child)]);
    let mut listed = Map::new();
    for (at, member) in members.iter().enumerate() {
        let (index, key) = (at + 1, member_key(member.id));
        let path = format!("/0/members/{key}");
        let mut attributes = node(&format!("{path}/raftAttributes"), index, Map::new());
        attributes["Value"] = Value::String(json!({ "peerURLs": member.peer_urls }).to_string());
        attributes["Children"] = Value::Null;
        listed.insert(key, node(&path, index, below("raftAttributes", attributes)));
    }
    let members_node = node("/0/members", usize::from(!listed.is_empty()), listed);
    let tops = Map::from_iter([
        ("0".to_owned(), node("/0", 0, below("members", members_node))),
        ("1".to_owned(), node("/1", 0, Map::new())),
    ]);
    let queue =
        json!({ "Events": vec![Value::Null; EVENTS], "Size": 0, "Front": 0, "Back": 0, "Capacity": EVENTS });
    let store = json!({
        "Root": node("/", 0, tops),
        "WatcherHub": { "EventHistory": { "Queue": queue, "StartIndex": 0, "LastIndex": 0 } },
        "CurrentIndex": members.len(),
        "Stats": {},
        "CurrentVersion": 2,
    });
    store.to_string().into_bytes()
}
