//! `get`: reads a key or a range.

use std::ffi::OsString;

use bytes::Bytes;
use proto::etcdserverpb::RangeRequest;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};

use super::decode::{self, Decoder};
use super::{bytes, range_of, serializable};
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::globals::Globals;
use crate::go;
use crate::output::{Format, Reply};

/// The flags of `get`.
#[derive(Debug, clap::Args)]
pub struct Get {
    #[arg(long, value_name = "string", default_value = "l")]
    #[arg(help = "linearizable (l) or serializable (s) (default \"l\")")]
    consistency: String,
    #[arg(long, help = "fetch the range in parts, through the RangeStream call")]
    stream: bool,
    #[command(flatten)]
    selection: Selection,
    #[arg(value_name = "<key> [range_end]")]
    words: Vec<OsString>,
}

/// The flags that say which keys are wanted, and how they are shown; wherever the keys come from.
#[derive(Debug, clap::Args)]
pub struct Selection {
    #[arg(long, value_name = "string", default_value = "", help = "order of the results: ASCEND or DESCEND")]
    order: String,
    #[arg(long, value_name = "string", default_value = "")]
    #[arg(help = "what the results are ordered by: CREATE, KEY, MODIFY, VALUE or VERSION")]
    sort_by: String,
    #[arg(long, value_name = "int", default_value = "0", value_parser = go::parse_int)]
    #[arg(help = "number of results at most (0 means all)")]
    limit: i64,
    #[arg(long, help = "read the keys that begin with the given one")]
    prefix: bool,
    #[arg(long, help = "read the given key and all after it")]
    from_key: bool,
    #[arg(long, value_name = "int", default_value = "0", value_parser = go::parse_int)]
    #[arg(help = "read the store as it was at this revision")]
    rev: i64,
    #[arg(long, help = "read keys without their values")]
    keys_only: bool,
    #[arg(long, help = "read the number of keys only")]
    count_only: bool,
    #[arg(long, help = "print values without their keys (simple output only)")]
    print_value_only: bool,
    #[arg(long, value_name = "int", default_value = "0", value_parser = go::parse_int)]
    #[arg(help = "leave out keys created before this revision")]
    min_create_rev: i64,
    #[arg(long, value_name = "int", default_value = "0", value_parser = go::parse_int)]
    #[arg(help = "leave out keys created after this revision")]
    max_create_rev: i64,
    #[arg(long, value_name = "int", default_value = "0", value_parser = go::parse_int)]
    #[arg(help = "leave out keys modified before this revision")]
    min_mod_rev: i64,
    #[arg(long, value_name = "int", default_value = "0", value_parser = go::parse_int)]
    #[arg(help = "leave out keys modified after this revision")]
    max_mod_rev: i64,
    #[arg(long, value_name = "string", value_parser = Decoder::parse)]
    #[arg(
        help = "show values as what they encode: k8s, the objects of Kubernetes, as YAML or JSON (not in etcd)"
    )]
    decode: Option<Decoder>,
    #[arg(long, help = "leave metadata.managedFields out of decoded objects (not in etcd)")]
    no_managed_fields: bool,
}

impl Get {
    /// Reads and prints.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let stream = self.stream;
        let request = self.request()?;
        let mut settings = globals.settle(&[])?;
        let decoder = self.selection.decoder(settings.printer.format)?;
        let client = Client::open(&settings).await?;
        let reply = if stream {
            client.range_stream(client.deadline(), request).await
        } else {
            client.range(client.deadline(), request).await
        };
        let reply = reply.map_err(Failure::general)?;
        self.selection.fits(settings.printer.format)?;
        settings.printer.value_only = self.selection.print_value_only;
        match decoder {
            None => settings.printer.print(&Reply::Get(&reply)),
            Some((Decoder::K8s, options)) => {
                decode::print(settings.printer, reply.kvs.iter().map(decode::entry), options)
            }
        }
    }

    /// The request that the flags and arguments describe.
    pub fn request(&self) -> Result<RangeRequest, Failure> {
        let mut words = self.words.iter().cloned().map(bytes);
        let Some(key) = words.next() else {
            let message = "get command needs one argument as key and an optional argument as range_end";
            return Err(Failure::args(message));
        };
        self.selection.agrees()?;
        let serializable = serializable(&self.consistency)?;
        Ok(RangeRequest { serializable, ..self.selection.request(key, words.next())? })
    }
}

impl Selection {
    /// Refuses flags that exclude each other.
    pub fn agrees(&self) -> Result<(), Failure> {
        let both = "cannot be set at the same time, choose one";
        if self.prefix && self.from_key {
            return Err(Failure::args(format!("`--prefix` and `--from-key` {both}")));
        }
        if self.keys_only && self.count_only {
            return Err(Failure::args(format!("`--keys-only` and `--count-only` {both}")));
        }
        Ok(())
    }

    /// The request that the flags and these arguments describe.
    pub fn request(&self, key: Bytes, end: Option<Bytes>) -> Result<RangeRequest, Failure> {
        if end.is_some() && (self.prefix || self.from_key) {
            let message =
                "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
            return Err(Failure::args(message));
        }
        let order = sort_order(&self.order)?;
        let target = sort_target(&self.sort_by)?;
        for (name, low, high) in [
            ("CreateRev", self.min_create_rev, self.max_create_rev),
            ("ModRev", self.min_mod_rev, self.max_mod_rev),
        ] {
            if high > 0 && low > high {
                let message = format!("getMin{name}(={low}) > getMax{name}(={high})");
                return Err(Failure::new(exit::BAD_FEATURE, message));
            }
        }
        // Keys come in ascending order anyway: asking for it would only cost a sort.
        let order =
            if (order, target) == (SortOrder::Ascend, SortTarget::Key) { SortOrder::None } else { order };
        let (key, range_end) = range_of(key, end, self.prefix, self.from_key);
        Ok(RangeRequest {
            key,
            range_end,
            limit: self.limit,
            revision: self.rev.max(0),
            sort_order: order.into(),
            sort_target: target.into(),
            serializable: false,
            keys_only: self.keys_only,
            count_only: self.count_only,
            min_mod_revision: self.min_mod_rev.max(0),
            max_mod_revision: self.max_mod_rev.max(0),
            min_create_revision: self.min_create_rev.max(0),
            max_create_revision: self.max_create_rev.max(0),
        })
    }

    /// How values are to be decoded, if they are; refused where the output has no place for that.
    pub fn decoder(&self, format: Format) -> Result<Option<(Decoder, k8s::Options)>, Failure> {
        let Some(decoder) = self.decode else { return Ok(None) };
        decode::check(format, self.keys_only || self.count_only)?;
        Ok(Some((decoder, k8s::Options { managed_fields: !self.no_managed_fields })))
    }

    /// Refuses flags that another form of output is meant for.
    pub fn fits(&self, format: Format) -> Result<(), Failure> {
        if self.count_only && format != Format::Fields {
            return Err(Failure::args("--count-only is only for `--write-out=fields`"));
        }
        if self.print_value_only && format != Format::Simple {
            return Err(Failure::args("print-value-only is only for `--write-out=simple`"));
        }
        Ok(())
    }

    /// Whether keys are left out.
    pub fn value_only(&self) -> bool {
        self.print_value_only
    }
}

fn sort_order(name: &str) -> Result<SortOrder, Failure> {
    match name.to_uppercase().as_str() {
        "" => Ok(SortOrder::None),
        "ASCEND" => Ok(SortOrder::Ascend),
        "DESCEND" => Ok(SortOrder::Descend),
        _ => Err(Failure::new(exit::BAD_FEATURE, format!("bad sort order {name}"))),
    }
}

fn sort_target(name: &str) -> Result<SortTarget, Failure> {
    match name.to_uppercase().as_str() {
        "" | "KEY" => Ok(SortTarget::Key),
        "CREATE" => Ok(SortTarget::Create),
        "MODIFY" => Ok(SortTarget::Mod),
        "VALUE" => Ok(SortTarget::Value),
        "VERSION" => Ok(SortTarget::Version),
        _ => Err(Failure::new(exit::BAD_FEATURE, format!("bad sort target {name}"))),
    }
}
