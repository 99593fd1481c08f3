//! `role`: shows and changes roles and what they permit.

use std::ffi::OsString;

use bytes::Bytes;
use proto::authpb::Permission;
use proto::authpb::permission::Type;
use proto::etcdserverpb as pb;

use super::{bytes, prefix_end, text};
use crate::client::Client;
use crate::failure::Failure;
use crate::globals::{Globals, Settings};
use crate::help;
use crate::output::Reply;

/// The commands under `role`.
#[derive(Debug, clap::Args)]
pub struct Group {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Adds a role
    Add {
        #[arg(value_name = "<role name>")]
        words: Vec<OsString>,
    },
    /// Deletes a role
    Delete {
        #[arg(value_name = "<role name>")]
        words: Vec<OsString>,
    },
    /// Shows what a role permits
    Get {
        #[arg(value_name = "<role name>")]
        words: Vec<OsString>,
    },
    /// Lets a role read or write keys
    GrantPermission {
        #[command(flatten)]
        range: Range,
        #[arg(value_name = "[options] <role name> <permission type> <key> [endkey]")]
        words: Vec<OsString>,
    },
    /// Lists the roles
    List {
        #[arg(hide = true)]
        words: Vec<OsString>,
    },
    /// Takes the permission of keys from a role
    RevokePermission {
        #[command(flatten)]
        range: Range,
        #[arg(value_name = "<role name> <key> [endkey]")]
        words: Vec<OsString>,
    },
}

/// How far a permission reaches.
#[derive(Debug, clap::Args)]
struct Range {
    #[arg(long, help = "the keys that begin with the given one")]
    prefix: bool,
    #[arg(long, help = "the given key and all after it")]
    from_key: bool,
}

impl Group {
    /// Runs the command that was given. Like etcd's, these wait for the cluster without a limit.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        match self.verb {
            None => help::show(&["role".to_owned()]),
            Some(Verb::Add { words }) => {
                let name = only(&words, "add")?;
                let (settings, client) = open(globals).await?;
                let told = format!("Role {name} created");
                let reply = client.role_add(None, pb::AuthRoleAddRequest { name }).await;
                settings.printer.print(&Reply::Done(&told, reply.map_err(Failure::general)?.header))
            }
            Some(Verb::Delete { words }) => {
                let role = only(&words, "delete")?;
                let (settings, client) = open(globals).await?;
                let told = format!("Role {role} deleted");
                let reply = client.role_delete(None, pb::AuthRoleDeleteRequest { role }).await;
                settings.printer.print(&Reply::Done(&told, reply.map_err(Failure::general)?.header))
            }
            Some(Verb::Get { words }) => {
                let role = only(&words, "get")?;
                let (settings, client) = open(globals).await?;
                let reply = client.role_get(None, pb::AuthRoleGetRequest { role: role.clone() }).await;
                settings.printer.print(&Reply::RoleGet(&role, &reply.map_err(Failure::general)?))
            }
            Some(Verb::GrantPermission { range, words }) => grant(globals, &range, words).await,
            Some(Verb::List { words }) => {
                if !words.is_empty() {
                    return Err(Failure::args("role list command requires no arguments"));
                }
                let (settings, client) = open(globals).await?;
                let reply = client.role_list(None, pb::AuthRoleListRequest {}).await;
                settings.printer.print(&Reply::RoleList(&reply.map_err(Failure::general)?))
            }
            Some(Verb::RevokePermission { range, words }) => revoke(globals, &range, words).await,
        }
    }
}

async fn open(globals: Globals) -> Result<(Settings, Client), Failure> {
    let settings = globals.settle(&[])?;
    let client = Client::open(&settings).await?;
    Ok((settings, client))
}

fn only(words: &[OsString], verb: &str) -> Result<String, Failure> {
    match words {
        [name] => Ok(text(name)),
        _ => Err(Failure::args(format!("role {verb} command requires role name as its argument"))),
    }
}

async fn grant(globals: Globals, range: &Range, words: Vec<OsString>) -> Result<(), Failure> {
    let mut words = words.into_iter();
    let (Some(role), Some(kind), Some(key)) = (words.next(), words.next(), words.next()) else {
        let message =
            "role grant command requires role name, permission type, and key [endkey] as its argument";
        return Err(Failure::args(message));
    };
    let kind = text(&kind);
    let perm_type = Type::from_str_name(&kind.to_uppercase())
        .ok_or_else(|| Failure::args(format!("invalid permission type: {kind}")))?;
    let (key, range_end) = range.of(bytes(key), words.next().map(bytes))?;
    let (settings, client) = open(globals).await?;
    let name = text(&role);
    let told = format!("Role {name} updated");
    let perm = Some(Permission { perm_type: perm_type.into(), key, range_end });
    let reply = client.role_grant_permission(None, pb::AuthRoleGrantPermissionRequest { name, perm }).await;
    settings.printer.print(&Reply::Done(&told, reply.map_err(Failure::general)?.header))
}

async fn revoke(globals: Globals, range: &Range, words: Vec<OsString>) -> Result<(), Failure> {
    let mut words = words.into_iter();
    let (Some(role), Some(key)) = (words.next(), words.next()) else {
        let message = "role revoke-permission command requires role name and key [endkey] as its argument";
        return Err(Failure::args(message));
    };
    let (role, shown) = (text(&role), text(&key));
    let (key, range_end) = range.of(bytes(key), words.next().map(bytes))?;
    let (settings, client) = open(globals).await?;
    let told = match &range_end[..] {
        b"" => format!("Permission of key {shown} is revoked from role {role}"),
        b"\0" => format!("Permission of range [{shown}, <open ended> is revoked from role {role}"),
        end => {
            let end = String::from_utf8_lossy(end);
            format!("Permission of range [{shown}, {end}) is revoked from role {role}")
        }
    };
    let request = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
    let reply = client.role_revoke_permission(None, request).await.map_err(Failure::general)?;
    settings.printer.print(&Reply::Done(&told, reply.header))
}

impl Range {
    /// Key and range end; one zero byte is the end that is open. An empty key stands for all keys
    /// where the range reaches further, and for the lowest key where it does not.
    fn of(&self, key: Bytes, end: Option<Bytes>) -> Result<(Bytes, Bytes), Failure> {
        let zero = Bytes::from_static(b"\0");
        let both = || Failure::args("--from-key and --prefix flags are mutually exclusive");
        match (key.is_empty(), end, self.prefix, self.from_key) {
            (true, _, true, true) | (false, None, true, true) => Err(both()),
            (true, _, false, false) => Ok((zero, Bytes::new())),
            (true, _, _, _) => Ok((zero.clone(), zero)),
            (false, Some(_), true, _) => Err(Failure::args("unexpected endkey argument with --prefix flag")),
            (false, Some(_), _, true) => {
                Err(Failure::args("unexpected endkey argument with --from-key flag"))
            }
            (false, Some(end), false, false) => Ok((key, end)),
            (false, None, true, false) => {
                let end = prefix_end(&key);
                Ok((key, end))
            }
            (false, None, false, true) => Ok((key, zero)),
            (false, None, false, false) => Ok((key, Bytes::new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_permissions() {
        let of = |key: &'static str, end: Option<&'static str>, prefix, from_key| {
            let range = Range { prefix, from_key };
            let found = range.of(key.into(), end.map(Into::into)).map_err(|failure| failure.message);
            found.map(|(key, end)| (String::from_utf8_lossy(&key).into_owned(), end.to_vec()))
        };
        assert_eq!(of("a", None, false, false), Ok(("a".into(), b"".to_vec())));
        assert_eq!(of("a", Some("c"), false, false), Ok(("a".into(), b"c".to_vec())));
        assert_eq!(of("a", None, true, false), Ok(("a".into(), b"b".to_vec())));
        assert_eq!(of("a", None, false, true), Ok(("a".into(), b"\0".to_vec())));
        assert_eq!(of("", None, false, false), Ok(("\0".into(), b"".to_vec())));
        assert_eq!(of("", Some("b"), true, false), Ok(("\0".into(), b"\0".to_vec())));
        for (key, end, prefix, from_key) in
            [("a", None, true, true), ("", None, true, true), ("a", Some("b"), true, false)]
        {
            assert!(of(key, end, prefix, from_key).is_err());
        }
    }
}
