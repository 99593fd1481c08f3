//! `user`: shows and changes users, their passwords and their roles.

use std::ffi::OsString;
use std::io::BufRead as _;

use proto::authpb::UserAddOptions;
use proto::etcdserverpb as pb;

use super::text;
use crate::client::Client;
use crate::failure::Failure;
use crate::globals::{Globals, Settings, ask_password};
use crate::help;
use crate::output::{Reply, say};

/// The commands under `user`.
#[derive(Debug, clap::Args)]
pub struct Group {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Adds a user
    Add {
        #[command(flatten)]
        source: Source,
        #[arg(long, value_name = "string", default_value = "", help = "the new user's password")]
        new_user_password: String,
        #[arg(long, help = "give the user no password: it authenticates by certificate")]
        no_password: bool,
        #[arg(value_name = "<user name or user:password> [options]")]
        words: Vec<OsString>,
    },
    /// Deletes a user
    Delete {
        #[arg(value_name = "<user name>")]
        words: Vec<OsString>,
    },
    /// Shows a user's roles
    Get {
        #[arg(long, help = "show what the roles permit")]
        detail: bool,
        #[arg(value_name = "<user name> [options]")]
        words: Vec<OsString>,
    },
    /// Gives a user a role
    GrantRole {
        #[arg(value_name = "<user name> <role name>")]
        words: Vec<OsString>,
    },
    /// Lists the users
    List {
        #[arg(hide = true)]
        words: Vec<OsString>,
    },
    /// Changes a user's password
    Passwd {
        #[command(flatten)]
        source: Source,
        #[arg(value_name = "<user name> [options]")]
        words: Vec<OsString>,
    },
    /// Takes a role from a user
    RevokeRole {
        #[arg(value_name = "<user name> <role name>")]
        words: Vec<OsString>,
    },
}

/// Where a password comes from.
#[derive(Debug, clap::Args)]
struct Source {
    #[arg(long, value_name = "bool", value_parser = crate::go::parse_bool)]
    #[arg(help = "ask for the password, twice; otherwise it is a word of stdin (default true)")]
    interactive: Option<bool>,
}

impl Group {
    /// Runs the command that was given. Like etcd's, these wait for the cluster without a limit.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        match self.verb {
            None => help::show(&["user".to_owned()]),
            Some(Verb::Add { source, new_user_password, no_password, words }) => {
                let [name] = names(&words, "user add command requires user name as its argument")?;
                let request = new_user(name, &source, new_user_password, no_password)?;
                let (settings, client) = open(globals).await?;
                let told = format!("User {} created", request.name);
                let reply = client.user_add(None, request).await.map_err(Failure::general)?;
                settings.printer.print(&Reply::Done(&told, reply.header))
            }
            Some(Verb::Delete { words }) => {
                let [name] = names(&words, "user delete command requires user name as its argument")?;
                let (settings, client) = open(globals).await?;
                let told = format!("User {name} deleted");
                let reply = client.user_delete(None, pb::AuthUserDeleteRequest { name }).await;
                settings.printer.print(&Reply::Done(&told, reply.map_err(Failure::general)?.header))
            }
            Some(Verb::Get { detail, words }) => {
                let [name] = names(&words, "user get command requires user name as its argument")?;
                get(globals, &name, detail).await
            }
            Some(Verb::GrantRole { words }) => {
                let wanted = "user grant command requires user name and role name as its argument";
                let [user, role] = names(&words, wanted)?;
                let (settings, client) = open(globals).await?;
                let told = format!("Role {role} is granted to user {user}");
                let reply = client.user_grant_role(None, pb::AuthUserGrantRoleRequest { user, role }).await;
                settings.printer.print(&Reply::Done(&told, reply.map_err(Failure::general)?.header))
            }
            Some(Verb::List { words }) => {
                let [] = names(&words, "user list command requires no arguments")?;
                let (settings, client) = open(globals).await?;
                let reply = client.user_list(None, pb::AuthUserListRequest {}).await;
                settings.printer.print(&Reply::UserList(&reply.map_err(Failure::general)?))
            }
            Some(Verb::Passwd { source, words }) => {
                let [name] = names(&words, "user passwd command requires user name as its argument")?;
                let password = source.password(&name)?;
                let (settings, client) = open(globals).await?;
                let request =
                    pb::AuthUserChangePasswordRequest { name, password, hashed_password: String::new() };
                let reply = client.user_change_password(None, request).await.map_err(Failure::general)?;
                settings.printer.print(&Reply::Done("Password updated", reply.header))
            }
            Some(Verb::RevokeRole { words }) => {
                let wanted = "user revoke-role requires user name and role name as its argument";
                let [name, role] = names(&words, wanted)?;
                let (settings, client) = open(globals).await?;
                let told = format!("Role {role} is revoked from user {name}");
                let reply = client.user_revoke_role(None, pb::AuthUserRevokeRoleRequest { name, role }).await;
                settings.printer.print(&Reply::Done(&told, reply.map_err(Failure::general)?.header))
            }
        }
    }
}

/// The arguments, as many as wanted.
fn names<const COUNT: usize>(words: &[OsString], otherwise: &str) -> Result<[String; COUNT], Failure> {
    let names: Vec<String> = words.iter().map(text).collect();
    names.try_into().map_err(|_| Failure::args(otherwise))
}

async fn open(globals: Globals) -> Result<(Settings, Client), Failure> {
    let settings = globals.settle(&[])?;
    let client = Client::open(&settings).await?;
    Ok((settings, client))
}

/// The user that arguments and flags describe; its password may have to be asked for.
fn new_user(
    argument: String,
    source: &Source,
    from_flag: String,
    no_password: bool,
) -> Result<pb::AuthUserAddRequest, Failure> {
    let (name, password) = match argument.split_once(':') {
        _ if no_password => (argument, String::new()),
        _ if !from_flag.is_empty() => (argument, from_flag),
        Some(("", _)) => return Err(Failure::args("empty user name is not allowed")),
        Some((name, password)) => (name.to_owned(), password.to_owned()),
        None => {
            let password = source.password(&argument)?;
            (argument, password)
        }
    };
    let options = Some(UserAddOptions { no_password });
    Ok(pb::AuthUserAddRequest { name, password, options, hashed_password: String::new() })
}

impl Source {
    fn password(&self, user: &str) -> Result<String, Failure> {
        if !self.interactive.unwrap_or(true) {
            let mut line = String::new();
            // What cannot be read is no password, as in etcd; the server says what it thinks of that.
            std::io::stdin().lock().read_line(&mut line).ok();
            return Ok(line.split_whitespace().next().unwrap_or_default().to_owned());
        }
        let ask = |prompt: String| {
            ask_password(&prompt).map_err(|error| Failure::args(format!("failed to ask password: {error}")))
        };
        let password = ask(format!("Password of {user}: "))?;
        if password.is_empty() {
            return Err(Failure::args("empty password"));
        }
        if ask(format!("Type password of {user} again for confirmation: "))? != password {
            return Err(Failure::args("given passwords are different"));
        }
        Ok(password)
    }
}

async fn get(globals: Globals, name: &str, detail: bool) -> Result<(), Failure> {
    let (settings, client) = open(globals).await?;
    let request = pb::AuthUserGetRequest { name: name.to_owned() };
    let user = client.user_get(None, request).await.map_err(Failure::general)?;
    if !detail {
        return settings.printer.print(&Reply::UserGet(name, &user));
    }
    say(format!("User: {name}"))?;
    for role in &user.roles {
        say("")?;
        let request = pb::AuthRoleGetRequest { role: role.clone() };
        let reply = client.role_get(None, request).await.map_err(Failure::general)?;
        settings.printer.print(&Reply::RoleGet(role, &reply))?;
    }
    Ok(())
}
