//! Servers that break a rule on purpose: whether the checkers notice.
//!
//! A mutant's workload runs under its nemesis, with another seed each time,
//! until a checker that is meant for it finds something. Before, the same program
//! breaks nothing, and has to be clean under each of these workloads and nemeses:
//! what is found there says nothing about a mutant.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use mutants::{ALL, Mutant};

use crate::cell::run_cell;
use crate::report::page;
use crate::report::summary::Results;
use crate::run::Settings;
use crate::say;

/// Which mutants are tried, and how.
#[derive(Debug, Clone)]
pub struct Trials {
    mutants: Vec<Mutant>,
    /// How often one is tried at most; 0 for the control alone.
    pub attempts: u32,
    /// Whether the program is first tried without any.
    pub control: bool,
}

impl Trials {
    /// Mutants of these names, or all where none is given.
    ///
    /// # Errors
    /// When there is no such name.
    pub fn of(names: &[String], attempts: u32, control: bool) -> Result<Trials> {
        let named = names.iter().map(|name| named(name));
        let mutants = match names.is_empty() {
            true => ALL.to_vec(),
            false => named.collect::<Result<_>>()?,
        };
        Ok(Trials { mutants, attempts, control })
    }

    /// Tries them and prints the table; the flag tells whether all were caught, and the control was clean.
    ///
    /// # Errors
    /// When not even the settings of a run are right, or the table cannot be written.
    pub async fn run(
        &self,
        mut seed: u64,
        settings: impl Fn(&str, &str, u64) -> Result<Settings>,
        out: &Path,
    ) -> Result<bool> {
        let began = Instant::now();
        let (mut all, mut well) = (Vec::new(), true);
        for (workload, nemesis) in self.places() {
            let settings = Settings { control: true, ..settings(workload, nemesis, seed)? };
            seed += 1;
            say(format!("control, seed {}: {}", settings.seed, settings.command()));
            let results = attempt(&settings, &out.join(format!("control/{workload}-{nemesis}"))).await?;
            well &= results.as_ref().is_some_and(|results| results.anomalies.is_empty());
            all.extend(results);
        }
        for mutant in &self.mutants {
            let mut caught = false;
            for at in 1..=self.attempts {
                let plain = settings(mutant.workload(), mutant.nemesis(), seed)?;
                let settings = Settings { mutant: Some(*mutant), ..plain };
                seed += 1;
                say(format!("{} {at}, seed {}: {}", mutant.name(), settings.seed, settings.command()));
                let results = attempt(&settings, &out.join(format!("{}/{at}", mutant.name()))).await?;
                caught = results.as_ref().is_some_and(|results| !results.caught_by().is_empty());
                all.extend(results);
                if caught {
                    break;
                }
            }
            well &= caught || self.attempts == 0;
        }
        let table = page::mutants(&all);
        say(format!("{table}{} runs in {} s", all.len(), began.elapsed().as_secs()));
        std::fs::write(out.join("mutants.md"), table)?;
        Ok(well)
    }

    /// Each workload and nemesis of the mutants, once.
    fn places(&self) -> BTreeSet<(&'static str, &'static str)> {
        let places = self.mutants.iter().map(|mutant| (mutant.workload(), mutant.nemesis()));
        places.filter(|_| self.control).collect()
    }
}

/// The mutant of a name.
///
/// # Errors
/// When there is none.
pub fn named(name: &str) -> Result<Mutant> {
    Mutant::by_name(name).with_context(|| format!("no such mutant: {name}"))
}

/// One run, and a line of what came of it; nothing where it did not begin.
async fn attempt(settings: &Settings, dir: &Path) -> Result<Option<Results>> {
    settings.ensure_armed()?;
    match run_cell(settings, dir).await {
        Ok(results) => {
            say(format!("  {}", page::found(&results)));
            Ok(Some(results))
        }
        Err(error) => {
            say(format!("  not run: {error:#}"));
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{nemesis, workload};

    /// The names of all checkers: those that read a history, and the run itself.
    fn checkers() -> BTreeSet<String> {
        let run = crate::history::Run { workload: "append".to_owned(), ..Default::default() };
        let history = crate::history::History { run, ..Default::default() };
        let checks = crate::check::all(&history).checks;
        checks.into_iter().map(|check| check.checker).chain([crate::run::CHECKER.to_owned()]).collect()
    }

    #[test]
    fn every_mutant_can_be_tried() {
        let checkers = checkers();
        for mutant in ALL {
            assert!(workload::by_name(mutant.workload()).is_some(), "{mutant:?}");
            assert!(nemesis::by_name(mutant.nemesis()).is_some(), "{mutant:?}");
            for checker in mutant.checkers().split(',') {
                assert!(checkers.contains(checker), "{mutant:?} is meant for {checker}");
            }
            assert_eq!(Mutant::by_name(mutant.name()), Some(*mutant));
        }
    }

    /// A checker that no mutant is meant for could be blind.
    #[test]
    fn every_checker_has_a_mutant() {
        let meant: BTreeSet<&str> = ALL.iter().flat_map(|mutant| mutant.checkers().split(',')).collect();
        for checker in checkers() {
            assert!(meant.contains(checker.as_str()), "{checker}");
        }
    }

    #[test]
    fn mutants_are_chosen_by_name() {
        let names = ["drop-event".to_owned(), "skip-past".to_owned()];
        let chosen = Trials::of(&names, 1, true).expect("they exist");
        assert_eq!(chosen.mutants, [Mutant::DropEvent, Mutant::SkipPast]);
        // Both are tried at the same place.
        assert_eq!(chosen.places().len(), 1);
        assert!(Trials::of(&["nobody".to_owned()], 1, true).is_err());
        assert!(Trials::of(&[], 1, false).expect("all").places().is_empty());
    }
}
