//! A network namespace for each member.
//!
//! Their names carry the process that made them, so that what a killed process
//! left behind is found and removed by the next. The subnets come from the
//! range that is set aside for measuring networks (198.18.0.0/15); whoever gets
//! the device of that name has the subnet.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use tests::{Options, Places};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::{CLIENTS, Switch};

const SUBNETS: u16 = 512;
/// Where `ip netns` keeps them.
const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "quorate-";

/// The namespaces of one cluster, and the switch between them; removed when it goes.
#[derive(Debug)]
pub struct Namespaces {
    subnet: u16,
    switch: Switch,
    made: Mutex<Vec<String>>,
}

impl Namespaces {
    /// A subnet with only the clients in it. Fails where this is not allowed.
    pub fn new(seed: u64) -> Result<Namespaces> {
        remove_stale();
        let (subnet, device) = claim()?;
        let name = device_name(subnet);
        ip(&["addr", "add", &format!("{}/24", address(subnet, CLIENTS)), "dev", &name])?;
        ip(&["link", "set", &name, "up"])?;
        let switch = Switch::start(seed)?;
        switch.attach(CLIENTS, address(subnet, CLIENTS), device)?;
        Ok(Namespaces { subnet, switch, made: Mutex::default() })
    }

    /// The links between all places.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The address of a member.
    pub fn address(&self, at: usize) -> Ipv4Addr {
        address(self.subnet, at)
    }

    fn name(&self, at: usize) -> String {
        format!("{PREFIX}{}-{}-{at}", std::process::id(), self.subnet)
    }

    fn make(&self, at: usize) -> Result<()> {
        ensure!(at < 200, "a subnet has no room for member {at}");
        let (name, device) = (self.name(at), format!("{}.{at}", device_name(self.subnet)));
        if Path::new(DIRECTORY).join(&name).exists() {
            // Whose subnet this is has all names in it: this one is of an earlier process of the same number.
            ip(&["netns", "del", &name])?;
        }
        ip(&["netns", "add", &name])?;
        self.made.lock().expect("no panic holds it").push(name.clone());
        let tun = open(&device)?;
        ip(&["link", "set", &device, "netns", &name])?;
        ip(&["-n", &name, "addr", "add", &format!("{}/24", self.address(at)), "dev", &device])?;
        ip(&["-n", &name, "link", "set", &device, "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        self.switch.attach(at, self.address(at), tun)
    }
}

impl Places for Namespaces {
    fn place(&self, at: usize, options: &mut Options) -> Result<()> {
        self.make(at).with_context(|| format!("no namespace for member {at}"))?;
        options.host = self.address(at).to_string();
        options.wrapper = vec!["nsenter".to_owned(), format!("--net={DIRECTORY}/{}", self.name(at))];
        Ok(())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in self.made.get_mut().expect("no panic holds it") {
            // What cannot be removed now is removed as stale by a later process.
            ip(&["netns", "del", name]).ok();
        }
    }
}

/// Removes the namespaces of processes that are no more.
fn remove_stale() {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(process) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else {
            continue;
        };
        if !Path::new("/proc").join(process).exists() {
            // Another process may be removing it too.
            ip(&["netns", "del", &name]).ok();
        }
    }
}

/// A subnet nobody uses, with the clients' device in it.
fn claim() -> Result<(u16, SyncDevice)> {
    let first = std::process::id() as u16 % SUBNETS;
    for step in 0..SUBNETS {
        let subnet = (first + step) % SUBNETS;
        match open(&device_name(subnet)) {
            Ok(device) => return Ok((subnet, device)),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {}
            Err(error) => return Err(error).context("no TUN device can be made"),
        }
    }
    bail!("all {SUBNETS} subnets are in use");
}

fn open(name: &str) -> std::io::Result<SyncDevice> {
    DeviceBuilder::new().name(name).mtu(1500).tx_queue_len(1000).enable(false).build_sync()
}

fn device_name(subnet: u16) -> String {
    format!("quorate{subnet}")
}

fn address(subnet: u16, place: usize) -> Ipv4Addr {
    let [high, low] = subnet.to_be_bytes();
    let host = if place == CLIENTS { 1 } else { 10 + place as u8 };
    Ipv4Addr::new(198, 18 + high, low, host)
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output().context("ip (iproute2) makes namespaces")?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), why.trim());
    Ok(())
}
