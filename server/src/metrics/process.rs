//! What the kernel says about the process, read from /proc when asked.

metrics! {
    /// Metrics `process_*`, `os_fd_*` and those of the metrics endpoint itself.
    Process {
        cpu_seconds: seconds "process_cpu_seconds_total" "CPU time used, user and system.";
        resident_bytes: gauge "process_resident_memory_bytes" "Resident memory.";
        virtual_bytes: gauge "process_virtual_memory_bytes" "Virtual memory.";
        virtual_bytes_max: real "process_virtual_memory_max_bytes" "Most virtual memory allowed.";
        open_fds: gauge "process_open_fds" "Open file descriptors.";
        max_fds: gauge "process_max_fds" "Most file descriptors allowed.";
        start_time: real "process_start_time_seconds" "Unix second the process started at.";
        network_received: counter "process_network_receive_bytes_total" "Bytes received by the process's network namespace.";
        network_sent: counter "process_network_transmit_bytes_total" "Bytes sent by the process's network namespace.";
        fds_used: gauge "os_fd_used" "Open file descriptors.";
        fds_limit: gauge "os_fd_limit" "Most file descriptors allowed.";
        scrapes: counters "promhttp_metric_handler_requests_total" ["code"] "Scrapes by status.";
        scrapes_in_flight: gauge "promhttp_metric_handler_requests_in_flight" "Scrapes under way.";
    }
}

impl Process {
    pub(super) fn with_known_labels(&self) {
        for code in ["200", "500", "503"] {
            self.scrapes.with_label_values(&[code]);
        }
    }

    /// Reads /proc. What cannot be read keeps its last value.
    pub fn refresh(&self) {
        if let Some(stat) = Stat::read() {
            self.cpu_seconds.inc_by((stat.cpu_seconds - self.cpu_seconds.get()).max(0.0));
            self.resident_bytes.set(stat.resident_bytes);
            self.virtual_bytes.set(stat.virtual_bytes);
            self.start_time.set(stat.start_time);
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // the listing itself holds one
            let open = i64::try_from(entries.count()).unwrap_or(i64::MAX) - 1;
            self.open_fds.set(open);
            self.fds_used.set(open);
        }
        let limit = fd_limit();
        self.max_fds.set(limit);
        self.fds_limit.set(limit);
        let address_space = rustix::process::getrlimit(rustix::process::Resource::As);
        self.virtual_bytes_max.set(address_space.current.map_or(u64::MAX as f64, |bytes| bytes as f64));
        if let Some((received, sent)) = network_bytes() {
            self.network_received.inc_by(received.saturating_sub(self.network_received.get()));
            self.network_sent.inc_by(sent.saturating_sub(self.network_sent.get()));
        }
    }
}

/// How many file descriptors the process may have open.
pub fn fd_limit() -> i64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

struct Stat {
    cpu_seconds: f64,
    resident_bytes: i64,
    virtual_bytes: i64,
    start_time: f64,
}

impl Stat {
    fn read() -> Option<Stat> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name may hold spaces and parentheses; what counts comes after its last one.
        let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let number = |field: usize| fields.get(field - 3)?.trim().parse::<f64>().ok();
        let boot = std::fs::read_to_string("/proc/stat").ok()?;
        let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(Stat {
            cpu_seconds: (number(14)? + number(15)?) / ticks,
            start_time: boot + number(22)? / ticks,
            virtual_bytes: number(23)? as i64,
            resident_bytes: number(24)? as i64 * rustix::param::page_size() as i64,
        })
    }
}

/// Bytes received and sent over all interfaces.
fn network_bytes() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/net/dev").ok()?;
    let mut total = (0, 0);
    for line in text.lines().skip(2) {
        let (_, counters) = line.split_once(':')?;
        let counters: Vec<u64> =
            counters.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        total.0 += counters.first()?;
        total.1 += counters.get(8)?;
    }
    Some(total)
}
