//! Help as cobra lays it out: usage, commands in groups, flags.

use clap::{Arg, ArgAction, Command};

use crate::failure::Failure;
use crate::{Tool, output};

/// Shows the help of a command by its path.
pub fn show(tool: &Tool, path: &[String]) -> Result<(), Failure> {
    output::say(text(tool, path))
}

/// The help of a command by its path; of the command before it where the path leads nowhere.
pub fn text(tool: &Tool, path: &[String]) -> String {
    let root = (tool.command)();
    let (command, known) = find(&root, path);
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let hint = tool.options_hint.map(|hint| format!("\n{hint}")).unwrap_or_default();
    format!("{about}\n\n{}{hint}", describe(tool, command, known))
}

/// What is told after a mistake on the command line.
pub fn usage(tool: &Tool, path: &[String]) -> String {
    let root = (tool.command)();
    let (command, known) = find(&root, path);
    describe(tool, command, known)
}

/// The flags that every command takes.
pub fn options(tool: &Tool) -> String {
    let root = (tool.command)();
    flags(root.get_arguments().filter(|arg| arg.get_id() != "help"), None)
}

/// The command at the end of the path, as far as it exists.
fn find<'a, 'p>(root: &'a Command, path: &'p [String]) -> (&'a Command, &'p [String]) {
    let (mut command, mut depth) = (root, 0);
    while let Some(next) = path.get(depth).and_then(|name| command.find_subcommand(name)) {
        command = next;
        depth += 1;
    }
    (command, &path[..depth])
}

fn describe(tool: &Tool, command: &Command, path: &[String]) -> String {
    let name = [tool.name.to_owned()].iter().chain(path).cloned().collect::<Vec<_>>().join(" ");
    let mut sections = Vec::new();
    if command.has_subcommands() {
        sections.push(format!("Usage:\n  {name} [command]"));
        if path.is_empty() && !tool.groups.is_empty() {
            for (title, names) in tool.groups {
                let commands = names.iter().filter_map(|name| command.find_subcommand(name));
                sections.push(format!("{title}\n{}", list(commands)));
            }
        } else {
            sections.push(format!("Available Commands:\n{}", list(command.get_subcommands())));
        }
    } else {
        let arguments = command.get_arguments().filter(|arg| arg.is_positional() && !arg.is_hide_set());
        let words: Vec<String> = arguments.map(positional).collect();
        let words = if words.is_empty() { String::new() } else { format!(" {}", words.join(" ")) };
        sections.push(format!("Usage:\n  {name}{words} [flags]"));
    }
    if !path.is_empty() {
        let own = command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_global_set());
        sections.push(format!("Flags:\n{}", flags(own, Some(path.last().map_or("", String::as_str)))));
    }
    if command.has_subcommands() {
        sections.push(format!("Use \"{name} [command] --help\" for more information about a command."));
    }
    sections.join("\n\n")
}

fn positional(arg: &Arg) -> String {
    let names: Vec<String> =
        arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    names.join(" ")
}

fn list<'a>(commands: impl Iterator<Item = &'a Command>) -> String {
    let lines = commands.filter(|command| !command.is_hide_set()).map(|command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        format!("  {:<11} {about}", command.get_name())
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn flags<'a>(args: impl Iterator<Item = &'a Arg>, help_for: Option<&str>) -> String {
    let mut rows: Vec<(String, String, String)> = args.filter_map(row).collect();
    if let Some(command) = help_for {
        rows.push(("help".into(), "  -h, --help".into(), format!("help for {command}")));
    }
    rows.sort();
    let width = rows.iter().map(|(_, left, _)| left.len()).max().unwrap_or(0);
    let lines: Vec<String> =
        rows.iter().map(|(_, left, right)| format!("{left:<width$}   {right}")).collect();
    lines.join("\n")
}

/// A flag's name to sort by, its left side and its explanation.
fn row(arg: &Arg) -> Option<(String, String, String)> {
    let name = arg.get_long()?;
    let short = arg.get_short().map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
    let kind = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let kind = match kind.as_deref() {
        Some("bool") | None => String::new(),
        Some(kind) if matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) => format!(" {kind}"),
        Some(_) => String::new(),
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    Some((name.to_owned(), format!("  {short}--{name}{kind}"), help))
}
