//! What follows from several flags.

use std::net::IpAddr;

use super::flags::Flags;
use super::gates::Gate;
use super::parse::Note;

/// The address that connections to peers come from, if it is to be a certain one: the first that the member
/// advertises and that others can reach.
pub fn peer_local_address(flags: &Flags, notes: &mut Vec<Note>) -> Option<IpAddr> {
    if !flags.feature_gates.enabled(Gate::SetMemberLocalAddr) {
        return None;
    }
    let advertised = &flags.initial_advertise_peer_urls;
    let addresses = advertised.0.iter().filter_map(|url| url.host().parse::<IpAddr>().ok());
    let found = addresses.into_iter().find(|address| !address.is_loopback() && !address.is_unspecified());
    notes.push(match found {
        Some(address) => Note::info("setting member local address", address.to_string()),
        None => Note::warning(
            "unable to set a member local address due to lack of suitable local addresses",
            advertised.to_string(),
        ),
    });
    found
}

/// Name and password for the cluster that serves discovery.
///
/// # Errors
/// When one is given without the other.
pub fn discovery_login(flags: &Flags) -> Result<Option<(String, String)>, String> {
    let (user, password) = (flags.discovery_user.as_str(), flags.discovery_password.as_str());
    match (user, password) {
        ("", "") => Ok(None),
        ("", _) => Err("--discovery-password is set, but --discovery-user is not".to_owned()),
        (user, "") => match user.split_once(':') {
            Some((user, password)) if !user.is_empty() && !password.is_empty() => {
                Ok(Some((user.to_owned(), password.to_owned())))
            }
            _ => Err("--discovery-user is set, but --discovery-password is not".to_owned()),
        },
        (user, password) => Ok(Some((user.to_owned(), password.to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::parse;
    use super::*;

    fn flags(line: &str) -> Flags {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse::read(&args, &BTreeMap::new()).expect(line).flags
    }

    #[test]
    fn the_local_address_is_the_first_that_others_can_reach() {
        let address = |line: &str| {
            let mut notes = Vec::new();
            let address = peer_local_address(&flags(line), &mut notes);
            (address.map(|address| address.to_string()), notes.len())
        };
        let urls = "--initial-advertise-peer-urls=http://localhost:1,http://127.0.0.1:1,http://0.0.0.0:1";
        let gate = "--feature-gates=SetMemberLocalAddr=true";
        assert_eq!(address(&format!("{urls},http://10.1.2.3:1")), (None, 0));
        assert_eq!(
            address(&format!("{gate} {urls},http://10.1.2.3:1,http://10.1.2.4:1")),
            (Some("10.1.2.3".to_owned()), 1)
        );
        assert_eq!(address(&format!("{gate} {urls},http://[fd00::1]:1")), (Some("fd00::1".to_owned()), 1));
        assert_eq!(address(&format!("{gate} {urls}")), (None, 1));
    }

    #[test]
    fn a_login_is_whole_or_none() {
        let login = |line: &str| discovery_login(&flags(line));
        let whole = Ok(Some(("a".to_owned(), "b:c".to_owned())));
        assert_eq!(login(""), Ok(None));
        assert_eq!(login("--discovery-user=a:b:c"), whole);
        assert_eq!(login("--discovery-user=a --discovery-password=b:c"), whole);
        assert_eq!(
            login("--discovery-user=a").unwrap_err(),
            "--discovery-user is set, but --discovery-password is not"
        );
        assert_eq!(
            login("--discovery-password=a").unwrap_err(),
            "--discovery-password is set, but --discovery-user is not"
        );
    }
}
