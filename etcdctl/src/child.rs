//! Programs that a command runs: for an event of a watch, or under a lock.
//!
//! How one ended is told in the words of Go's `os/exec`, which scripts know from etcd.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};

use crate::failure::exit;
use crate::go::quote;

/// How a program failed.
#[derive(Debug)]
pub enum End {
    /// It could not be started, for this reason.
    NotStarted(String),
    /// It ended without success.
    Failed(ExitStatus),
}

impl End {
    /// The status that stands for it: the program's own, 255 where a signal ended it.
    pub fn status(&self) -> u8 {
        match self {
            Self::NotStarted(_) => exit::ERROR,
            Self::Failed(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(reason) => f.write_str(reason),
            Self::Failed(status) => match (status.code(), status.signal()) {
                (None, Some(number)) => {
                    let dumped = if status.core_dumped() { " (core dumped)" } else { "" };
                    write!(f, "signal: {}{dumped}", signal(number))
                }
                (code, _) => write!(f, "exit status {}", code.unwrap_or_default()),
            },
        }
    }
}

/// Runs a program with these variables beside our own, without stdin, and waits for it.
///
/// # Panics
/// Where there is no first word.
pub async fn run(words: &[OsString], environment: &[(&str, OsString)]) -> Result<(), End> {
    let mut command = tokio::process::Command::new(&words[0]);
    command.args(&words[1..]).envs(environment.iter().map(|(name, value)| (name, value)));
    match command.stdin(Stdio::null()).status().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(End::Failed(status)),
        Err(error) => Err(End::NotStarted(unstartable(&words[0], &error))),
    }
}

fn unstartable(program: &OsString, error: &std::io::Error) -> String {
    let reason = match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    if program.as_encoded_bytes().contains(&b'/') {
        return format!("fork/exec {}: {reason}", program.to_string_lossy());
    }
    let reason = match error.kind() {
        std::io::ErrorKind::NotFound => "executable file not found in $PATH",
        _ => &reason,
    };
    format!("exec: {}: {reason}", quote(program.as_encoded_bytes()))
}

/// The name of a signal as Go has it.
fn signal(number: i32) -> String {
    const NAMES: [&str; 15] = [
        "hangup",
        "interrupt",
        "quit",
        "illegal instruction",
        "trace/breakpoint trap",
        "aborted",
        "bus error",
        "floating point exception",
        "killed",
        "user defined signal 1",
        "segmentation fault",
        "user defined signal 2",
        "broken pipe",
        "alarm clock",
        "terminated",
    ];
    let name = usize::try_from(number - 1).ok().and_then(|index| NAMES.get(index));
    name.map_or_else(|| format!("signal {number}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn end(words: &[&str]) -> (String, u8) {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let end = run(&words, &[("FROM_TEST", "here".into())]).await.unwrap_err();
        (end.to_string(), end.status())
    }

    #[tokio::test]
    async fn ends_are_told_as_go_tells_them() {
        assert_eq!(end(&["sh", "-c", "[ $FROM_TEST = here ] && exit 7"]).await, ("exit status 7".into(), 7));
        assert_eq!(end(&["sh", "-c", "kill -9 $$"]).await, ("signal: killed".into(), 255));
        assert_eq!(end(&["sh", "-c", "kill -15 $$"]).await, ("signal: terminated".into(), 255));
        let missing = "exec: \"no-such-program\": executable file not found in $PATH";
        assert_eq!(end(&["no-such-program"]).await, (missing.into(), 1));
        assert_eq!(end(&["/no/such"]).await, ("fork/exec /no/such: no such file or directory".into(), 1));
    }
}
