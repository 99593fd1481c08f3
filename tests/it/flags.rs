//! Wrong flags are refused, with etcd's words and etcd's exit codes.

use std::process::{Command, Output};

use anyhow::Result;
use tests::Program;

use crate::program;

/// The flags, the exit code, and what the message says.
const REFUSED: &[(&[&str], i32, &str)] = &[
    (&["--no-such-flag"], 2, "flag provided but not defined: -no-such-flag"),
    (&["--heartbeat-interval=often"], 2, "invalid value"),
    (&["extra"], 1, "is not a valid flag"),
    (
        &["--listen-client-urls=http://127.0.0.1:2379"],
        1,
        "--advertise-client-urls is required when --listen-client-urls is set explicitly",
    ),
    (
        &["--listen-client-urls=ftp://127.0.0.1:2379", "--advertise-client-urls=http://a:1"],
        2,
        "URL scheme must be http, https, unix, or unixs",
    ),
    (
        &["--listen-client-urls=http://127.0.0.1", "--advertise-client-urls=http://a:1"],
        2,
        "URL address does not have the form \"host:port\"",
    ),
    (
        &["--listen-client-urls=http://example.com:2379", "--advertise-client-urls=http://a:1"],
        1,
        "expected IP in URL for binding",
    ),
    (
        &["--heartbeat-interval=500", "--election-timeout=1000"],
        1,
        "should be at least as 5 times as --heartbeat-interval",
    ),
    (&["--election-timeout=60000"], 1, "should be set less than 50000ms"),
    (&["--auto-compaction-mode=sometimes"], 1, "unknown auto-compaction-mode"),
    (&["--feature-gates=NoSuchGate=true"], 2, "unrecognized feature gate: NoSuchGate"),
    (&["--initial-cluster-state=old"], 2, "invalid value"),
    (&["--name=other", "--initial-cluster=m=http://127.0.0.1:1"], 1, "couldn't find local name"),
];

fn run(program: &Program, args: &[&str]) -> Result<(Output, String)> {
    let dir = tempfile::tempdir()?;
    let output = Command::new("timeout")
        .args(["20", &program.path().display().to_string()])
        .args(args)
        .env_clear()
        .current_dir(dir.path())
        .output()?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // In the log, quotes are escaped.
    Ok((output, text.replace("\\\"", "\"")))
}

#[test]
fn wrong_flags_are_refused_as_etcd_refuses_them() -> Result<()> {
    let mut wrong = Vec::new();
    for (args, code, says) in REFUSED {
        let (output, text) = run(&program(), args)?;
        if output.status.code() != Some(*code) || !text.contains(says) {
            let text: String = text.chars().take(600).collect();
            wrong.push(format!("{args:?}: {} instead of {code} with {says:?}: {text}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_variable_beside_its_flag_is_fatal() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let output = Command::new("timeout")
        .args(["20", &program().path().display().to_string(), "--name=a"])
        .env_clear()
        .env("ETCD_NAME", "b")
        .current_dir(dir.path())
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("conflicting environment variable"), "{text}");
    Ok(())
}

#[test]
fn version_and_help_are_etcds() -> Result<()> {
    let (output, text) = run(&program(), &["--version"])?;
    assert!(output.status.success());
    assert!(text.lines().next().is_some_and(|line| line.starts_with("etcd Version: 3.7.")), "{text}");
    let (output, text) = run(&program(), &["--help"])?;
    assert!(output.status.success());
    for flag in [
        "--data-dir",
        "--listen-client-urls",
        "--initial-cluster",
        "--client-cert-auth",
        "--quota-backend-bytes",
    ] {
        assert!(text.contains(flag), "{flag}");
    }
    Ok(())
}

/// What breaks rules on request is for the harness alone, and must not be in a program that keeps data.
#[test]
fn nothing_of_mutants_is_in_the_program() -> Result<()> {
    let (_, text) = run(&program(), &["--version"])?;
    assert!(!text.contains("Mutants"), "{text}");
    let bytes = std::fs::read(program().path())?;
    assert!(!bytes.split(|byte| *byte == b'Q').any(|part| part.starts_with(b"UORATE_MUTANT")));
    Ok(())
}
