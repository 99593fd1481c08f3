//! Where each member of a cluster lives: its network, its disk and its clock.

use std::sync::{Mutex, MutexGuard};

use anyhow::Context;
use tests::{Options, Places};

use crate::clock::{Clock, Library};
use crate::disk::{Disk, Names};
use crate::net::Namespaces;

/// What members have beside a process.
#[derive(Debug)]
pub struct Site {
    pub namespaces: Option<Namespaces>,
    names: Result<Names, String>,
    library: Result<Library, String>,
    env: Vec<(String, String)>,
    homes: Mutex<Vec<Home>>,
}

/// What one member has.
#[derive(Debug, Default)]
pub struct Home {
    pub disk: Option<Disk>,
    pub clock: Option<Clock>,
}

impl Site {
    /// With disks under a rule of names, and with clocks, where they are asked for and to be had; everyone gets
    /// this environment.
    pub fn new(
        namespaces: Option<Namespaces>,
        names: Option<Names>,
        clocks: bool,
        env: Vec<(String, String)>,
    ) -> Site {
        let names = match names.map(|names| Disk::mount(names).map(|_| names)) {
            None => Err("the cluster was not started with disks of its own".to_owned()),
            Some(mounted) => mounted.map_err(|why| format!("no disks of their own: {why:#}")),
        };
        let library = match clocks.then(Library::build) {
            None => Err("the cluster was not started with clocks of its own".to_owned()),
            Some(built) => built.map_err(|why| format!("no clocks of their own: {why:#}")),
        };
        Site { namespaces, names, library, env, homes: Mutex::default() }
    }

    /// Why members have no disks of their own.
    pub fn why_no_disks(&self) -> &str {
        self.names.as_ref().err().map_or("", String::as_str)
    }

    /// Why members have no clocks of their own.
    pub fn why_no_clocks(&self) -> &str {
        self.library.as_ref().err().map_or("", String::as_str)
    }

    /// All homes, by the members' numbers.
    pub fn homes(&self) -> MutexGuard<'_, Vec<Home>> {
        self.homes.lock().expect("no panic holds it")
    }
}

impl Places for Site {
    fn place(&self, at: usize, options: &mut Options) -> anyhow::Result<()> {
        if let Some(namespaces) = &self.namespaces {
            namespaces.place(at, options)?;
        }
        options.env.extend(self.env.iter().cloned());
        let mut home = Home::default();
        if let Ok(names) = self.names {
            let disk = Disk::mount(names).with_context(|| format!("no disk for member {at}"))?;
            options.data_dir = Some(disk.path().join("data"));
            home.disk = Some(disk);
        }
        if let Ok(library) = &self.library {
            let clock = Clock::new(library, at)?;
            options.env.extend(clock.env());
            home.clock = Some(clock);
        }
        self.homes().push(home);
        Ok(())
    }
}
