//! `snapshot get`: keys of a snapshot file, as `get` would have shown them.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::path::Path;

use bytes::Bytes;
use etcdutl::file::{self, Held};
use manners::progress::Progress;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use proto::mvccpb::KeyValue;
use snapshot::bbolt::Database;
use snapshot::keys::{self, Key, Keys};

use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::{Format, Printer, Reply};
use crate::verb::bytes;
use crate::verb::decode::{self, Decoder};
use crate::verb::get::Selection;

/// What its help says.
pub const ABOUT: &str =
    "Shows keys in a snapshot file as \"get\" shows those of a cluster; without a key, all of them. So one
object can be looked at, or taken out, before anything is restored. The file stays as it is.

The file is read once from end to end, and then the values that are shown. In memory are the keys
asked for; with their values only where these are sorted by, or are part of one message: in the
forms json, fields and protobuf. The file's digest is not looked at (\"snapshot verify\" does).";

/// Bytes of keys and values that are printed at once.
const PART_BYTES: usize = 1 << 20;

/// The flags and arguments of `snapshot get`.
#[derive(Debug, clap::Args)]
pub struct Get {
    #[command(flatten)]
    selection: Selection,
    #[arg(value_name = "<filename> [key] [range_end]")]
    words: Vec<OsString>,
}

impl Get {
    /// Reads the file and prints what was asked for.
    ///
    /// # Errors
    /// With the texts of etcd's `get`, as far as that can fail in such a way.
    pub fn run(self, globals: Globals) -> Result<(), Failure> {
        let Self { selection, words } = self;
        let mut words = words.into_iter();
        let (path, key, end) = (words.next(), words.next().map(bytes), words.next().map(bytes));
        let Some(path) = path.filter(|_| words.next().is_none()) else {
            let message = "snapshot get needs a file, and takes a key and a range_end";
            return Err(Failure::args(message));
        };
        selection.agrees()?;
        let all = key.is_none();
        let mut request = selection.request(key.unwrap_or_default(), end)?;
        if all {
            (request.key, request.range_end) = (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
        }
        let mut printer = globals.printer()?;
        let decoder = selection.decoder(printer.format)?;
        selection.fits(printer.format)?;
        printer.value_only = selection.value_only();
        if request.key.is_empty() {
            return Err(Failure::general("etcdserver: key is not provided"));
        }
        let path = Path::new(&path);
        file::must_exist(path)?;
        let held = Held::open(path, etcdutl::Settings::default().lock_timeout)?;
        let database = Database::open(held.path()).map_err(Failure::general)?;
        let mut progress = Progress::new("reading");
        let within = |key: &[u8]| holds(&request, key);
        let found = keys::at(&database, request.revision, within, &mut |done, of| progress.set(done, of));
        drop(progress);
        let mut found = found.map_err(failure)?;
        let count = found.keys.len() as i64;
        let more = choose(&mut found, &request)?;
        let reply = RangeResponse {
            header: Some(ResponseHeader { revision: found.current, ..Default::default() }),
            kvs: Vec::new(),
            more,
            count,
        };
        show(&found, &request, reply, printer, decoder)
    }
}

/// Whether a key is in the range of a request.
fn holds(request: &RangeRequest, key: &[u8]) -> bool {
    match &request.range_end[..] {
        b"" => key == request.key,
        b"\0" => key >= &request.key[..],
        end => key >= &request.key[..] && key < end,
    }
}

/// Filters, sorts and cuts as etcd 3.7 does; true when the limit cut keys off.
fn choose(found: &mut Keys<'_>, request: &RangeRequest) -> Result<bool, Failure> {
    let mut keys = std::mem::take(&mut found.keys);
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let within =
        |revision: i64, min: i64, max: i64| (min == 0 || revision >= min) && (max == 0 || revision <= max);
    let (modified, created) = (
        (request.min_mod_revision, request.max_mod_revision),
        (request.min_create_revision, request.max_create_revision),
    );
    let filtered = (modified, created) != ((0, 0), (0, 0));
    keys.retain(|key| {
        within(key.modified.main, modified.0, modified.1) && within(key.created, created.0, created.1)
    });
    let more = limit > 0 && keys.len() > limit;
    if more && !filtered && request.sort_order() == SortOrder::None {
        // etcd fetches no more, even if these are sorted by something else then.
        keys.truncate(limit + 1);
    }
    let descending = request.sort_order() == SortOrder::Descend;
    match request.sort_target() {
        SortTarget::Key if descending => keys.reverse(),
        SortTarget::Key => {}
        SortTarget::Version => sort(&mut keys, descending, |key| key.version),
        SortTarget::Create => sort(&mut keys, descending, |key| key.created),
        SortTarget::Mod => sort(&mut keys, descending, |key| key.modified.main),
        SortTarget::Value => {
            let valued = keys.into_iter().map(|key| Ok((found.read(&key).map_err(failure)?.value, key)));
            let mut valued = valued.collect::<Result<Vec<_>, Failure>>()?;
            sort(&mut valued, descending, |(value, _)| value.clone());
            keys = valued.into_iter().map(|(_, key)| key).collect();
        }
    }
    if more {
        keys.truncate(limit);
    }
    found.keys = keys;
    Ok(more)
}

/// What is equal stays in the order of the keys, either way.
fn sort<T, K: Ord>(list: &mut [T], descending: bool, by: impl Fn(&T) -> K) {
    match descending {
        true => list.sort_by_key(|item| Reverse(by(item))),
        false => list.sort_by_key(by),
    }
}

/// Prints the keys, as they are read where the form of output allows it.
fn show(
    found: &Keys<'_>,
    request: &RangeRequest,
    mut reply: RangeResponse,
    printer: Printer,
    decoder: Option<(Decoder, k8s::Options)>,
) -> Result<(), Failure> {
    if let Some((Decoder::K8s, options)) = decoder {
        let mut objects = decode::Objects::new(printer, options);
        for key in &found.keys {
            objects.print(decode::entry(&read(found, key)?))?;
        }
        return objects.end();
    }
    let mut part_bytes = 0;
    for key in found.keys.iter().filter(|_| !request.count_only) {
        let kv = if request.keys_only { bare(key, request) } else { read(found, key)? };
        part_bytes += kv.key.len() + kv.value.len();
        reply.kvs.push(kv);
        if printer.format == Format::Simple && part_bytes >= PART_BYTES {
            printer.print(&Reply::Get(&reply))?;
            reply.kvs.clear();
            part_bytes = 0;
        }
    }
    printer.print(&Reply::Get(&reply))
}

fn read(found: &Keys<'_>, key: &Key) -> Result<KeyValue, Failure> {
    let kv = found.read(key).map_err(failure)?;
    Ok(KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    })
}

/// A key without its value. etcd 3.7 tells its lease only where it has looked at values.
fn bare(key: &Key, request: &RangeRequest) -> KeyValue {
    KeyValue {
        key: key.key.clone(),
        create_revision: key.created,
        mod_revision: key.modified.main,
        version: key.version,
        value: Bytes::new(),
        lease: if request.sort_target() == SortTarget::Value { key.lease } else { 0 },
    }
}

fn failure(error: snapshot::Error) -> Failure {
    match error {
        snapshot::Error::Compacted { .. } => {
            Failure::general("etcdserver: mvcc: required revision has been compacted")
        }
        snapshot::Error::FutureRevision { .. } => {
            Failure::general("etcdserver: mvcc: required revision is a future revision")
        }
        error => Failure::general(error),
    }
}
