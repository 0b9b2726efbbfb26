//! What the operating system says of this process, under the names that Prometheus' client libraries share.
//!
//! The `procfs` that the crate `prometheus` could use for these seven numbers compiles for longer than all else of it.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, IntGauge, Opts};

/// Ticks a second in `/proc` (USER_HZ): the same on every architecture that Linux still runs on.
const USER_HZ: u64 = 100;

/// Reads `/proc` at each scrape; what can't be read keeps its last value.
pub struct ProcessMetrics {
    cpu_seconds: Counter,
    open_fds: IntGauge,
    max_fds: IntGauge,
    virtual_memory: IntGauge,
    resident_memory: IntGauge,
    start_time: IntGauge,
    threads: IntGauge,
}

impl ProcessMetrics {
    pub fn new() -> ProcessMetrics {
        let gauge = |name, help| IntGauge::with_opts(Opts::new(name, help)).expect("a name and a help text");
        let metrics = ProcessMetrics {
            cpu_seconds: Counter::with_opts(Opts::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
            ))
            .expect("a name and a help text"),
            open_fds: gauge("process_open_fds", "Number of open file descriptors."),
            max_fds: gauge("process_max_fds", "Maximum number of open file descriptors."),
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."),
            resident_memory: gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
            start_time: gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            ),
            threads: gauge("process_threads", "Number of OS threads in the process."),
        };
        if let Some(begun) = start_time() {
            metrics.start_time.set(begun);
        }
        metrics
    }

    fn all(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu_seconds,
            &self.open_fds,
            &self.max_fds,
            &self.virtual_memory,
            &self.resident_memory,
            &self.start_time,
            &self.threads,
        ]
    }

    fn read(&self) {
        if let Some(seconds) = cpu_seconds() {
            // Two scrapes at a time may come in either order.
            self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is this list's own.
            self.open_fds.set(open.count() as i64 - 1);
        }
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(most) = number_behind(&limits, "Max open files") {
            self.max_fds.set(most);
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = |name| Some(number_behind(&status, name)? * 1024);
        for (gauge, found) in [
            (&self.virtual_memory, kilobytes("VmSize:")),
            (&self.resident_memory, kilobytes("VmRSS:")),
            (&self.threads, number_behind(&status, "Threads:")),
        ] {
            found.into_iter().for_each(|number| gauge.set(number));
        }
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}

/// The number behind a name at the beginning of a line.
fn number_behind(text: &str, name: &str) -> Option<i64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// A field of `/proc/self/stat`, counted from 1 as proc(5) does, from the third on.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    // The second is the program's name, which may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (user, system) = (stat_field(&stat, 14)?, stat_field(&stat, 15)?);
    Some((user + system) as f64 / USER_HZ as f64)
}

/// In whole seconds since 1970.
fn start_time() -> Option<i64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let booted = number_behind(&fs::read_to_string("/proc/stat").ok()?, "btime ")?;
    Some(booted + (stat_field(&stat, 22)? / USER_HZ) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_moves_no_field() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194304 100 0 0 0 7 8 0 0 20 0 1 0 12345 1000 20";
        assert_eq!(stat_field(stat, 14), Some(7));
        assert_eq!(stat_field(stat, 15), Some(8));
        assert_eq!(stat_field(stat, 22), Some(12345));
        assert_eq!(stat_field(stat, 99), None);
        assert_eq!(stat_field("", 14), None);
    }

    #[test]
    fn the_numbers_are_those_of_this_process() {
        let metrics = ProcessMetrics::new();
        let families = metrics.collect();
        assert_eq!(families.len(), metrics.desc().len());
        assert!(metrics.resident_memory.get() > 1 << 20);
        assert!(metrics.virtual_memory.get() > metrics.resident_memory.get());
        assert!(metrics.threads.get() >= 1 && metrics.open_fds.get() >= 3);
        assert!(metrics.max_fds.get() >= metrics.open_fds.get());
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
        assert!((now - 86_400 * 365..=now + 2).contains(&metrics.start_time.get()));
        let before = metrics.cpu_seconds.get();
        let mut spent = 0u64;
        while cpu_seconds().unwrap() <= before {
            spent = spent.wrapping_add(std::hint::black_box(1));
        }
        metrics.collect();
        assert!(metrics.cpu_seconds.get() > before);
    }
}
