//! Every command and flag of etcd's tool is here too, whatever their explanations say.

use std::path::Path;
use std::process::Command;

/// Compares the helps of two tools, command by command.
pub fn compare(official: &Path, ours: &Path) {
    let mut missing = Vec::new();
    let mut commands = 0;
    let mut paths = vec![Vec::new()];
    while let Some(path) = paths.pop() {
        let theirs = help(official, &path);
        let known = help(ours, &path);
        let line = path.join(" ");
        for row in flags(&theirs) {
            if !flags(&known).contains(&row) {
                missing.push(format!("{line} {row}"));
            }
        }
        for name in subcommands(&theirs) {
            if !subcommands(&known).contains(&name) {
                missing.push(format!("{line} {name}"));
            }
            paths.push([&path[..], &[name]].concat());
        }
        commands += 1;
    }
    let options = |tool: &Path| flags(&run(tool, &["options".to_owned()]).replace("command:", "Flags:"));
    missing.extend(options(official).into_iter().filter(|flag| !options(ours).contains(flag)));
    let titles = |text: String| -> Vec<String> {
        text.lines().filter(|line| line.ends_with(" commands")).map(str::to_owned).collect()
    };
    assert_eq!(titles(help(ours, &[])), titles(help(official, &[])));
    assert!(commands > 20, "the help of etcd's tool reads otherwise");
    assert!(missing.is_empty(), "missing: {missing:#?}");
    println!("{commands} commands have the same flags");
}

fn help(tool: &Path, path: &[String]) -> String {
    run(tool, &[path, &["--help".to_owned()]].concat())
}

fn run(tool: &Path, args: &[String]) -> String {
    let output = Command::new(tool).args(args).output().expect("the tool can be started");
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).expect("help is text")
}

/// The left sides of the flags: `-i, --interactive`, `--rev int`.
fn flags(help: &str) -> Vec<String> {
    let rows = help.split("Flags:\n").nth(1).unwrap_or_default().lines();
    let rows = rows.skip_while(|line| line.is_empty()).take_while(|line| line.starts_with(' '));
    rows.map(|row| row.trim().split("  ").next().unwrap_or_default().to_owned()).collect()
}

/// The commands in a help: in groups, or in one list.
fn subcommands(help: &str) -> Vec<String> {
    let lists = help.split("\n\n").filter(|part| {
        let title = part.lines().next().unwrap_or_default();
        title.ends_with(" commands") || title == "Available Commands:"
    });
    let names = lists.flat_map(|list| list.lines().skip(1)).filter_map(|row| row.split_whitespace().next());
    names.map(str::to_owned).collect()
}
