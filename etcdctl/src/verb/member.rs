//! `member`: shows and changes the membership.

use std::ffi::OsString;

use proto::etcdserverpb as pb;

use super::{serializable, text};
use crate::client::Client;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::go::{self, quote};
use crate::help;
use crate::output::{self, Format, Reply};

/// The commands under `member`.
#[derive(Debug, clap::Args)]
pub struct Group {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Adds a member
    Add {
        #[arg(long, value_name = "string", default_value = "")]
        #[arg(help = "where the new member listens for its peers, separated by commas")]
        peer_urls: String,
        #[arg(long, help = "add it as a learner, without a vote")]
        learner: bool,
        #[arg(value_name = "<name>")]
        words: Vec<OsString>,
    },
    /// Lists the members
    List {
        #[arg(long, value_name = "string", default_value = "l")]
        #[arg(help = "linearizable (l) or serializable (s) (default \"l\")")]
        consistency: String,
        #[arg(hide = true)]
        _words: Vec<OsString>,
    },
    /// Gives a learner a vote
    Promote {
        #[arg(value_name = "<member id>")]
        words: Vec<OsString>,
    },
    /// Removes a member
    Remove {
        #[arg(value_name = "<member id>")]
        words: Vec<OsString>,
    },
    /// Changes where a member listens for its peers
    Update {
        #[arg(long, value_name = "string", default_value = "")]
        #[arg(help = "where the member listens for its peers, separated by commas")]
        peer_urls: String,
        #[arg(value_name = "<member id>")]
        words: Vec<OsString>,
    },
}

impl Group {
    /// Runs the command that was given.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        match self.verb {
            None => help::show(&["member".to_owned()]),
            Some(Verb::Add { peer_urls, learner, words }) => add(globals, &words, &peer_urls, learner).await,
            Some(Verb::List { consistency, .. }) => list(globals, &consistency).await,
            Some(Verb::Promote { words }) => promote(globals, &words).await,
            Some(Verb::Remove { words }) => remove(globals, &words).await,
            Some(Verb::Update { peer_urls, words }) => update(globals, &words, &peer_urls).await,
        }
    }
}

async fn list(globals: Globals, consistency: &str) -> Result<(), Failure> {
    let linearizable = !serializable(consistency)?;
    let settings = globals.settle(&[])?;
    let client = Client::open(&settings).await?;
    let request = pb::MemberListRequest { linearizable };
    let reply = client.member_list(client.deadline(), request).await.map_err(Failure::general)?;
    settings.printer.print(&Reply::MemberList(&reply))
}

async fn add(globals: Globals, words: &[OsString], urls: &str, learner: bool) -> Result<(), Failure> {
    let name = match words {
        [] => return Err(Failure::args("member name not provided")),
        [name] => text(name),
        many => {
            let mut message = "too many arguments".to_owned();
            for word in many.iter().map(text).filter(|word| word.to_lowercase().starts_with("http")) {
                message += &format!(", did you mean --peer-urls={word}");
            }
            return Err(Failure::args(message));
        }
    };
    if urls.is_empty() {
        return Err(Failure::args("member peer urls not provided"));
    }
    let settings = globals.settle(&[])?;
    let client = Client::open(&settings).await?;
    let peer_ur_ls = peer_urls(urls)?;
    let request = pb::MemberAddRequest { peer_ur_ls, is_learner: learner };
    let reply = client.member_add(client.deadline(), request).await.map_err(Failure::general)?;
    settings.printer.print(&Reply::MemberAdd(&reply))?;
    if settings.printer.format != Format::Simple {
        return Ok(());
    }
    // What the new member's environment has to say.
    let added = reply.member.as_ref().map_or(0, |member| member.id);
    let pair = |member: &pb::Member, url: &String| {
        let name = if member.id == added { &name } else { &member.name };
        format!("{name}={url}")
    };
    let cluster: Vec<String> = reply
        .members
        .iter()
        .flat_map(|member| member.peer_ur_ls.iter().map(move |url| pair(member, url)))
        .collect();
    output::say(format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"",
        quote(name.as_bytes()),
        quote(cluster.join(",").as_bytes()),
        quote(urls.as_bytes())
    ))
}

async fn remove(globals: Globals, words: &[OsString]) -> Result<(), Failure> {
    let id = parse_id(words)?;
    let settings = globals.settle(&[])?;
    let client = Client::open(&settings).await?;
    let reply = client.member_remove(client.deadline(), pb::MemberRemoveRequest { id }).await;
    settings.printer.print(&Reply::MemberRemove(id, &reply.map_err(Failure::general)?))
}

async fn update(globals: Globals, words: &[OsString], urls: &str) -> Result<(), Failure> {
    let id = parse_id(words)?;
    if urls.is_empty() {
        return Err(Failure::args("member peer urls not provided"));
    }
    let settings = globals.settle(&[])?;
    let client = Client::open(&settings).await?;
    let peer_ur_ls = peer_urls(urls)?;
    let reply = client.member_update(client.deadline(), pb::MemberUpdateRequest { id, peer_ur_ls }).await;
    settings.printer.print(&Reply::MemberUpdate(id, &reply.map_err(Failure::general)?))
}

async fn promote(globals: Globals, words: &[OsString]) -> Result<(), Failure> {
    let id = parse_id(words)?;
    let settings = globals.settle(&[])?;
    let client = Client::open(&settings).await?;
    let reply = client.member_promote(client.deadline(), pb::MemberPromoteRequest { id }).await;
    settings.printer.print(&Reply::MemberPromote(id, &reply.map_err(Failure::general)?))
}

/// Splits addresses and refuses what a member could not be reached at.
fn peer_urls(text: &str) -> Result<Vec<String>, Failure> {
    for url in text.split(',').map(str::trim) {
        let refused = match url.split_once(':') {
            Some(("unix" | "unixs", _)) => None,
            Some(("http" | "https", rest)) => {
                let rest = rest.strip_prefix("//").unwrap_or("");
                let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
                match authority.rsplit_once(':') {
                    None => Some("URL address does not have the form \"host:port\""),
                    Some(_) if path.starts_with('/') => Some("URL must not contain a path"),
                    Some(_) => None,
                }
            }
            _ => Some("URL scheme must be http, https, unix, or unixs"),
        };
        if let Some(reason) = refused {
            return Err(Failure::general(format!("{reason}: {url}")));
        }
    }
    Ok(text.split(',').map(str::to_owned).collect())
}

fn parse_id(words: &[OsString]) -> Result<u64, Failure> {
    let [word] = words else { return Err(Failure::args("member ID is not provided")) };
    go::parse_uint_base(&text(word), 16)
        .map_err(|error| Failure::args(format!("bad member ID arg ({error}), expecting ID in Hex")))
}
