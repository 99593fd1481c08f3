//! Tables of many runs, in Markdown, and where they go in a page.
//!
//! The part of a page between `<!-- results: begin -->` and `<!-- results: end -->`
//! is generated, and so is one of mutants between such marks; everything else is left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::summary::{Cell, Results, cells};
use super::words::count;

/// Puts tables of all results below a directory into a page. What there are no results of stays.
pub fn update(page: &Path, results: &Path) -> Result<()> {
    let mut text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let (broken, whole): (Vec<_>, Vec<_>) =
        read(results)?.into_iter().partition(|results| results.mutant.is_some());
    if !whole.is_empty() {
        text = replace(&text, "results", &tables(&whole)).with_context(|| page.display().to_string())?;
    }
    if !broken.is_empty() {
        text = replace(&text, "mutants", &mutants(&broken)).with_context(|| page.display().to_string())?;
    }
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

/// All results below a directory, by path.
pub fn read(dir: &Path) -> Result<Vec<Results>> {
    let mut results = Vec::new();
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            results.extend(read(&path)?);
        } else if path.file_name().is_some_and(|name| name == "results.json") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let one =
                serde_json::from_str(&text).with_context(|| format!("not results: {}", path.display()))?;
            results.push(one);
        }
    }
    Ok(results)
}

/// For each program a grid and its details; mutants are left out.
pub fn tables(results: &[Results]) -> String {
    let mut text = String::new();
    for (program, cells) in cells(results) {
        writeln!(text, "### {}\n", cell_text(&program)).expect("text takes all");
        text.push_str(&totals(&cells));
        text.push_str(&grid(&cells));
        text.push_str(&details(&cells));
    }
    text
}

type Cells = BTreeMap<(String, String), Cell>;

fn totals(cells: &Cells) -> String {
    let runs: usize = cells.values().map(|cell| cell.runs).sum();
    let operations: usize = cells.values().map(|cell| cell.operations.all()).sum();
    let events: usize = cells.values().map(|cell| cell.events).sum();
    let faults: usize = cells.values().map(|cell| cell.faults).sum();
    let anomalies: u64 = cells.values().flat_map(|cell| cell.anomalies.values()).sum();
    let minutes = cells.values().map(|cell| cell.clients).sum::<f64>() / 60.0;
    format!(
        "{} runs, {minutes:.0} minutes, {} operations, {} events watched, {} faults: **{} anomalies**.\n\n",
        count(runs),
        count(operations),
        count(events),
        count(faults),
        count(anomalies as usize)
    )
}

/// A row for each nemesis, a column for each workload.
fn grid(cells: &Cells) -> String {
    let nemeses: BTreeSet<&str> = cells.keys().map(|(nemesis, _)| nemesis.as_str()).collect();
    let workloads: BTreeSet<&str> = cells.keys().map(|(_, workload)| workload.as_str()).collect();
    let mut text = "Anomalies / operations / longest time without a write:\n\n| nemesis |".to_owned();
    for workload in &workloads {
        write!(text, " {} |", cell_text(workload)).expect("text takes all");
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(workloads.len()));
    text.push('\n');
    for nemesis in nemeses {
        write!(text, "| {} |", cell_text(nemesis)).expect("text takes all");
        for &workload in &workloads {
            match cells.get(&(nemesis.to_owned(), workload.to_owned())) {
                None => text.push_str(" |"),
                Some(cell) => {
                    let anomalies: u64 = cell.anomalies.values().sum();
                    let operations = count(cell.operations.all());
                    let longest = cell.unavailable.longest;
                    write!(text, " **{anomalies}** / {operations} / {longest:.1} s |")
                        .expect("text takes all");
                }
            }
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

fn details(cells: &Cells) -> String {
    let mut text = "<details><summary>Each cell</summary>\n\n".to_owned();
    text.push_str("| workload | nemesis | runs | minutes | done | refused | unknown | events | faults | anomalies | longest without a write | seconds without | seeds |\n");
    text.push_str("|---|---|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|---|\n");
    for ((nemesis, workload), cell) in cells {
        let seeds: Vec<String> = cell.seeds.iter().map(u64::to_string).collect();
        writeln!(
            text,
            "| {} | {} | {} | {:.1} | {} | {} | {} | {} | {} | {} | {:.1} s | {} | {} |",
            cell_text(workload),
            cell_text(nemesis),
            cell.runs,
            cell.clients / 60.0,
            count(cell.operations.done),
            count(cell.operations.refused),
            count(cell.operations.unknown),
            count(cell.events),
            count(cell.faults),
            cell_text(&cell.anomalies()),
            cell.unavailable.longest,
            cell.unavailable.total,
            seeds.join(" ")
        )
        .expect("text takes all");
    }
    text.push_str("\n</details>\n\n");
    text
}

/// A row for each mutant, by all its runs.
pub fn mutants(results: &[Results]) -> String {
    let (mut mutants, mut control): (BTreeMap<&str, Vec<&Results>>, _) = (BTreeMap::new(), Vec::new());
    for results in results {
        match &results.mutant {
            Some(mutant) if mutant.name.is_empty() => control.push(results),
            Some(mutant) => mutants.entry(&mutant.name).or_default().push(results),
            None => {}
        }
    }
    if mutants.is_empty() {
        return String::new();
    }
    let caught = mutants.values().filter(|runs| runs.iter().any(|run| !run.caught_by().is_empty())).count();
    let mut text = format!("{caught} of {} caught", mutants.len());
    let catchers =
        |runs: &Vec<&Results>| runs.iter().flat_map(|run| run.caught_by()).map(str::to_owned).collect();
    let mut by: BTreeMap<String, usize> = BTreeMap::new();
    for checker in mutants.values().flat_map(|runs| -> BTreeSet<String> { catchers(runs) }) {
        *by.entry(checker).or_default() += 1;
    }
    let by: Vec<String> = by.into_iter().map(|(checker, many)| format!("{checker} {many}")).collect();
    text.push_str(&if by.is_empty() { ".".to_owned() } else { format!(": {}.", by.join(", ")) });
    if !control.is_empty() {
        let anomalies: u64 = control.iter().flat_map(|run| run.found().into_values()).sum();
        let runs = control.len();
        write!(text, " Without a mutant, {runs} runs of the same program had {anomalies} anomalies.")
            .expect("text takes all");
    }
    text.push_str("\n\n| mutant | what it breaks | workload, nemesis | caught by | runs | seconds | also noticed by |\n");
    text.push_str("|---|---|---|---|---:|---:|---|\n");
    for (name, runs) in mutants {
        let about = ::mutants::Mutant::by_name(name).map_or("", ::mutants::Mutant::about);
        let wheres: BTreeSet<String> =
            runs.iter().map(|run| format!("{}, {}", run.run.workload, run.run.nemesis)).collect();
        let wheres = wheres.into_iter().collect::<Vec<_>>().join("; ");
        let caught: BTreeSet<&str> = runs.iter().flat_map(|run| run.caught_by()).collect();
        let noticed: BTreeSet<&str> = runs.iter().flat_map(|run| run.noticed_by()).collect();
        let others = noticed.difference(&caught).copied().collect::<Vec<_>>().join(", ");
        let caught = match caught.is_empty() {
            true => "**nobody**".to_owned(),
            false => caught.into_iter().collect::<Vec<_>>().join(", "),
        };
        let seconds: f64 = runs.iter().map(|run| run.run.duration as f64 / 1e9).sum();
        let cells = [name, about, &wheres, &caught].map(cell_text).join(" | ");
        writeln!(text, "| {cells} | {} | {seconds:.0} | {} |", runs.len(), cell_text(&others))
            .expect("text takes all");
    }
    text.push('\n');
    text
}

/// What was found in a run, in a line.
pub fn found(results: &Results) -> String {
    let mut names: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for anomaly in &results.anomalies {
        names.entry(&anomaly.checker).or_default().insert(&anomaly.name);
    }
    if names.is_empty() {
        return "no anomalies".to_owned();
    }
    let each: Vec<String> = names
        .into_iter()
        .map(|(checker, names)| format!("{checker}: {}", names.into_iter().collect::<Vec<_>>().join(", ")))
        .collect();
    each.join("; ")
}

/// Text that stays in its cell.
fn cell_text(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ").replace('<', "&lt;")
}

/// Where the generated part of a name begins and ends.
fn marks(name: &str) -> [String; 2] {
    ["begin", "end"].map(|which| format!("<!-- {name}: {which} -->"))
}

fn replace(page: &str, name: &str, tables: &str) -> Result<String> {
    let [begin, end] = marks(name);
    let (before, rest) = page.split_once(&begin).with_context(|| format!("no line {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no line {end} after {begin}"))?;
    Ok(format!("{before}{begin}\n\n{}\n\n{end}{after}", tables.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Anomaly;
    use crate::history::Run;
    use crate::report::summary::{Counts, Mutant, Unavailable};

    fn results(workload: &str, nemesis: &str, anomalies: &[&str]) -> Results {
        let run = Run {
            seed: 7,
            workload: workload.to_owned(),
            nemesis: nemesis.to_owned(),
            program: "quorate 0.1.0".to_owned(),
            members: 3,
            duration: 180_000_000_000,
            ..Run::default()
        };
        let anomaly = |name: &&str| Anomaly { name: (*name).to_owned(), ..Anomaly::default() };
        Results {
            run,
            operations: Counts { done: 12_000, refused: 300, unknown: 45 },
            faults: [("kill".to_owned(), 9)].into(),
            unavailable: Unavailable { longest: 2.25, total: 4 },
            anomalies: anomalies.iter().map(anomaly).collect(),
            ..Results::default()
        }
    }

    #[test]
    fn a_cell_sums_its_runs() {
        let all = [
            results("register", "kill", &[]),
            results("register", "kill", &["stale-read"]),
            results("watch", "pause", &[]),
        ];
        let text = tables(&all);
        assert!(text.starts_with("### quorate 0.1.0, 3 members\n"), "{text}");
        assert!(text.contains("3 runs, 9 minutes, 37,035 operations"), "{text}");
        assert!(text.contains("| nemesis | register | watch |\n|---|---:|---:|\n"), "{text}");
        assert!(text.contains("| kill | **1** / 24,690 / 2.2 s | |\n"), "{text}");
        assert!(text.contains("| pause | | **0** / 12,345 / 2.2 s |\n"), "{text}");
        assert!(text.contains("| register | kill | 2 | 6.0 | 24,000 | 600 | 90 | 0 | 18 | **1** (1 stale-read) | 2.2 s | 8 | 7 7 |\n"), "{text}");
    }

    #[test]
    fn every_row_of_a_table_has_as_many_cells() {
        let mutant = Mutant { name: "drop|event".to_owned(), meant: vec!["watch-gap".to_owned()] };
        let all = [
            results("reg|ister", "kill\nall", &["a|b"]),
            results("watch", "kill", &["watch-gap"]).of_mutant(mutant),
        ];
        let text = tables(&all) + &mutants(&all);
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert!(rows.len() >= 9, "{text}");
        for pair in text.lines().collect::<Vec<_>>().windows(2) {
            if pair.iter().all(|line| line.starts_with('|')) {
                assert_eq!(columns(pair[0]), columns(pair[1]), "{pair:?}");
            }
        }
    }

    #[test]
    fn mutants_are_counted_apart() {
        let mutant = |name: &str| Mutant { name: name.to_owned(), meant: vec!["watch".to_owned()] };
        let found = |checker: &str| Anomaly::new(checker, "wrong", Vec::new(), String::new());
        let run = |checkers: &[&str]| Results {
            anomalies: checkers.iter().map(|checker| found(checker)).collect(),
            ..results("watch", "kill", &[])
        };
        let all = [
            run(&[]).of_mutant(mutant("drop-event")),
            run(&["watch", "hash"]).of_mutant(mutant("drop-event")),
            run(&["hash"]).of_mutant(mutant("skip-fsync")),
            run(&[]).of_mutant(Mutant::none()),
        ];
        assert_eq!(tables(&all), "");
        let text = mutants(&all);
        assert!(text.contains("1 of 2 caught: watch 1."), "{text}");
        assert!(text.contains("1 runs of the same program had 0 anomalies"), "{text}");
        let caught =
            "| drop-event | One event in 300 reaches no watcher. | watch, kill | watch | 2 | 360 | hash |";
        assert!(text.contains(caught), "{text}");
        assert!(text.contains("| watch, kill | **nobody** | 1 | 180 | hash |"), "{text}");
    }

    #[test]
    fn a_page_keeps_what_people_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("README.md");
        let [before, after] = marks("mutants").map(|mark| format!("{mark}\n"));
        let [begin, end] = marks("results");
        let kept = format!("{before}kept\n{after}");
        fs::write(&page, format!("# Top\n\n{begin}\nold\n{end}\n\n{kept}")).unwrap();
        let runs = dir.path().join("runs/a/b");
        fs::create_dir_all(&runs).unwrap();
        let text = serde_json::to_string(&results("set", "none", &[])).unwrap();
        fs::write(runs.join("results.json"), text).unwrap();
        for _ in 0..2 {
            update(&page, &dir.path().join("runs")).unwrap();
            let text = fs::read_to_string(&page).unwrap();
            assert!(text.starts_with(&format!("# Top\n\n{begin}\n\n### quorate")), "{text}");
            assert!(text.ends_with(&format!("</details>\n\n{end}\n\n{kept}")), "{text}");
            assert!(!text.contains("old"), "{text}");
        }
        fs::write(&page, "no place").unwrap();
        assert!(update(&page, &dir.path().join("runs")).is_err());
    }
}
