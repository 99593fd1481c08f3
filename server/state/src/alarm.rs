//! Alarms: what the cluster refuses to do until somebody has looked.
//!
//! They are raised and cleared through the log, so every member refuses the
//! same commands from the same entry on.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use prost::Message;
use proto::command::command::Op;
use proto::etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction};

use crate::storage::{Batch, Column, Read, Storage};
use crate::{Fault, Refusal, txn};

/// Rows in the meta column: this and an encoded `AlarmMember`, as etcd's alarm bucket holds it.
const PREFIX: &[u8] = b"alarm/";

/// The alarms that are active.
#[derive(Debug)]
pub(crate) struct Table {
    /// Kind of alarm and member.
    active: BTreeSet<(i32, u64)>,
    published: Published,
}

/// The active alarms as readers see them, by kind and member.
pub(crate) type Published = Arc<ArcSwap<Vec<pb::AlarmMember>>>;

impl Table {
    pub(crate) fn load(storage: &Storage) -> Result<Self, Fault> {
        let mut active = BTreeSet::new();
        for row in rows(storage) {
            let alarm = pb::AlarmMember::decode(row?)
                .map_err(|e| Fault::Corrupt { what: "alarm", detail: e.to_string() })?;
            active.insert((alarm.alarm, alarm.member_id));
        }
        let table = Self { active, published: Published::default() };
        table.publish();
        Ok(table)
    }

    pub(crate) fn published(&self) -> Published {
        self.published.clone()
    }

    pub(crate) fn apply(&mut self, batch: &mut Batch, request: &pb::AlarmRequest) -> pb::AlarmResponse {
        let alarm = (request.alarm, request.member_id);
        let none = request.alarm == AlarmType::None as i32;
        let alarms = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => {
                self.active.iter().filter(|(kind, _)| none || *kind == request.alarm).map(member).collect()
            }
            Ok(AlarmAction::Activate) if !none => {
                if self.active.insert(alarm) {
                    batch.put(Column::Meta, &row_key(&alarm), &[]);
                    self.publish();
                }
                vec![member(&alarm)]
            }
            Ok(AlarmAction::Deactivate) if self.active.remove(&alarm) => {
                batch.delete(Column::Meta, &row_key(&alarm));
                self.publish();
                vec![member(&alarm)]
            }
            _ => vec![],
        };
        pb::AlarmResponse { header: None, alarms }
    }

    /// Whether an active alarm forbids a command.
    pub(crate) fn check(&self, op: &Op) -> Result<(), Refusal> {
        if self.active.is_empty() {
            return Ok(());
        }
        let writes = match op {
            Op::Put(_)
            | Op::DeleteRange(_)
            | Op::Txn(_)
            | Op::Compaction(_)
            | Op::LeaseGrant(_)
            | Op::LeaseRevoke(_) => true,
            Op::LeaseCheckpoint(_)
            | Op::Alarm(_)
            | Op::MemberAttributes(_)
            | Op::ClusterVersion(_)
            | Op::Downgrade(_) => false,
        };
        if writes && self.is_active(AlarmType::Corrupt) {
            return Err(Refusal::Corrupt);
        }
        let grows = match op {
            Op::Put(_) | Op::LeaseGrant(_) => true,
            Op::Txn(request) => txn::cost(request) > 0,
            _ => false,
        };
        if grows && self.is_active(AlarmType::Nospace) {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }

    fn is_active(&self, alarm: AlarmType) -> bool {
        self.active.range((alarm as i32, 0)..).next().is_some_and(|(kind, _)| *kind == alarm as i32)
    }

    fn publish(&self) {
        self.published.store(Arc::new(self.active.iter().map(member).collect()));
    }
}

/// The keys of etcd's alarm bucket in order.
pub(crate) fn rows(from: &impl Read) -> impl Iterator<Item = Result<Bytes, Fault>> {
    let rows = from.scan(Column::Meta, PREFIX, Some(b"alarm0"));
    rows.map(|row| row.map(|(key, _)| key.slice(PREFIX.len()..)))
}

/// Raises an alarm in a state that nobody reads yet.
pub(crate) fn put(batch: &mut Batch, alarm: &pb::AlarmMember) {
    batch.put(Column::Meta, &row_key(&(alarm.alarm, alarm.member_id)), &[]);
}

fn member(&(alarm, member_id): &(i32, u64)) -> pb::AlarmMember {
    pb::AlarmMember { member_id, alarm }
}

fn row_key(alarm: &(i32, u64)) -> Vec<u8> {
    let mut key = PREFIX.to_vec();
    key.extend_from_slice(&member(alarm).encode_to_vec());
    key
}
