//! `jepsen matrix` as a process, which goes on whoever listens, and says what ended it.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// A matrix of two cells on a server that is only this script.
fn matrix(dir: &std::path::Path, server: &str) -> Result<(Command, PathBuf)> {
    let (program, out) = (dir.join("etcd"), dir.join("out"));
    std::fs::write(&program, format!("#!/bin/sh\n{server}\n"))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_jepsen"));
    command.args(["matrix", "--workloads", "set", "--nemeses", "none,kill", "--loopback", "--seconds", "1"]);
    command.args(["--members", "1"]).arg("--program").arg(program).arg("--out").arg(&out);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    Ok((command, out))
}

fn error_of(child: Child) -> Result<String> {
    let mut text = String::new();
    child.stderr.context("a pipe")?.read_to_string(&mut text)?;
    Ok(text)
}

/// A matrix ended without a word, as a line it printed reached nobody any more.
#[test]
fn nobody_has_to_listen() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut command, out) = matrix(dir.path(), "exit 1")?;
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut child = command.stdout(writer).spawn()?;
    let status = child.wait()?;
    ensure!(status.code() == Some(1), "{status}: {}", error_of(child)?);
    let table = std::fs::read_to_string(out.join("matrix.md"))?;
    let why = "not run: the cluster does not start: the member ended with exit status: 1";
    ensure!(table.matches(why).count() == 2, "{table}");
    ensure!(out.join("set-kill/printed.txt").exists());
    Ok(())
}

#[test]
fn a_signal_is_told_and_nothing_goes_on_without_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = format!("echo $$ >{}/pid\nexec sleep 300", dir.path().display());
    let (mut command, _) = matrix(dir.path(), &server)?;
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    let member = loop {
        let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap_or_default();
        if let Ok(pid) = pid.trim().parse::<u32>() {
            break pid;
        }
        ensure!(Instant::now() < deadline, "no member was started");
        std::thread::sleep(Duration::from_millis(20));
    };
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    let status = child.wait()?;
    let said = error_of(child)?;
    ensure!(status.code() == Some(2) && said.contains("ended by SIGTERM; --resume"), "{status}: {said}");
    let runs =
        || std::fs::read_to_string(format!("/proc/{member}/cmdline")).is_ok_and(|it| it.contains("sleep"));
    while runs() {
        ensure!(Instant::now() < deadline, "the member goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
