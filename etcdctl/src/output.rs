//! What a command prints: one reply, five forms.
//!
//! Stdout carries exactly the result, in the bytes etcd's own tool would write;
//! everything else goes to stderr.

mod fields;
pub mod json;
mod protobuf;
mod simple;
mod table;

use manners::output::line;
pub use manners::output::{Format, say, write};
use proto::etcdserverpb as pb;

use crate::failure::{Failure, exit};

/// The health of one endpoint.
#[derive(Debug)]
pub struct Health {
    /// The endpoint as it was given.
    pub endpoint: String,
    /// Whether it committed a proposal and has no alarm.
    pub healthy: bool,
    /// How long the proposal took, as text; empty when none was sent.
    pub took: String,
    /// Why it is not healthy; empty when it is.
    pub error: String,
}

/// Everything a command can have to print.
#[derive(Debug)]
pub enum Reply<'a> {
    /// Keys and values.
    Get(&'a pb::RangeResponse),
    /// A key was put.
    Put(&'a pb::PutResponse),
    /// Keys were deleted.
    Delete(&'a pb::DeleteRangeResponse),
    /// A transaction ran.
    Txn(&'a pb::TxnResponse),
    /// Events, progress, or the end of a watch.
    Watch(&'a pb::WatchResponse),
    /// A lease was granted.
    Grant(&'a pb::LeaseGrantResponse),
    /// The lease of this id was revoked.
    Revoke(i64, &'a pb::LeaseRevokeResponse),
    /// A lease was renewed.
    KeepAlive(&'a pb::LeaseKeepAliveResponse),
    /// What is left of a lease; `keys` when its keys were asked for.
    TimeToLive { reply: &'a pb::LeaseTimeToLiveResponse, keys: bool },
    /// All leases.
    Leases(&'a pb::LeaseLeasesResponse),
    /// A member was added.
    MemberAdd(&'a pb::MemberAddResponse),
    /// The member of this id was removed.
    MemberRemove(u64, &'a pb::MemberRemoveResponse),
    /// The member of this id has new peer addresses.
    MemberUpdate(u64, &'a pb::MemberUpdateResponse),
    /// The learner of this id votes now.
    MemberPromote(u64, &'a pb::MemberPromoteResponse),
    /// All members.
    MemberList(&'a pb::MemberListResponse),
    /// The first of these members let the second lead.
    MoveLeader(u64, u64, &'a pb::MoveLeaderResponse),
    /// Health by endpoint.
    Health(&'a [Health]),
    /// Status by endpoint.
    Status(&'a [(String, pb::StatusResponse)]),
    /// History hash by endpoint.
    HashKv(&'a [(String, pb::HashKvResponse)]),
    /// Alarms listed or disarmed.
    Alarm(&'a pb::AlarmResponse),
}

/// The reply has no form in this format.
#[derive(Debug)]
pub(crate) struct Unsupported;

/// Prints replies in the chosen format.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// The chosen format.
    pub format: Format,
    /// Whether byte strings and ids are shown in hex.
    pub hex: bool,
    /// Whether `get` leaves the keys out.
    pub value_only: bool,
}

impl Printer {
    /// Prints one reply to stdout.
    pub fn print(&self, reply: &Reply<'_>) -> Result<(), Failure> {
        let mut out = Vec::new();
        let rendered = match self.format {
            Format::Simple => simple::render(&mut out, reply, self.hex, self.value_only),
            Format::Fields => fields::render(&mut out, reply, self.hex),
            Format::Json => json::render(&mut out, reply, self.hex),
            Format::Protobuf => protobuf::render(&mut out, reply),
            Format::Table => table::render(&mut out, reply),
        };
        match rendered {
            Ok(()) => write(&out),
            Err(Unsupported) => {
                let message = format!("{} not supported as output format", self.format.name());
                Err(Failure::new(exit::BAD_FEATURE, message))
            }
        }
    }
}

/// A byte string as `--hex` shows it: `\x66\x6f`.
fn hex_escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}
