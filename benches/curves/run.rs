//! Running the program, point after point and round after round.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};

use crate::support::figures::{median, quantile};

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Ticks of a point.
    pub ticks: usize,
    pub rounds: usize,
    /// Instruments of the largest points.
    pub instruments_max: usize,
}

pub const FULL: Effort = Effort { ticks: 1_000_000, rounds: 5, instruments_max: 10_000 };

/// Tells whether all of it works, not how fast.
pub const SHORT: Effort = Effort { ticks: 50_000, rounds: 1, instruments_max: 1_000 };

/// What one run took.
#[derive(Clone, Copy)]
pub struct Cost {
    pub ticks: usize,
    pub wall_s: f64,
    /// Of all threads and processes, user and system.
    pub cpu_s: f64,
    /// Of this the system's.
    pub system_s: f64,
    pub peak_rss_bytes: u64,
    /// The machine's load average behind the run.
    pub load: f64,
}

/// Where a point lies on its curve.
pub struct Place {
    pub curve: &'static str,
    pub series: String,
    pub x: f64,
    /// What stands below the axis.
    pub label: String,
    /// The point of the same curve whose cost a tick this one's is held against.
    pub base: usize,
    /// What is said beside the measurements, such as a bound.
    pub more: Value,
}

/// Measures all points in each round, every second time backwards, and prints what came out.
pub fn take_turns(places: &[Place], rounds: usize, mut run: impl FnMut(usize) -> Cost) {
    // The first run finds everything cold.
    run(0);
    let mut costs = vec![Vec::new(); places.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..places.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let cost = run(at);
            costs[at].push(cost);
            let Place { curve, series, label, .. } = &places[at];
            let ns = 1e9 * cost.cpu_s / cost.ticks as f64;
            eprintln!("{curve} {series} {label}, round {}: {ns:.0} ns of processor time a tick", round + 1);
        }
    }
    for (place, of_point) in places.iter().zip(&costs) {
        report(place, of_point, &costs[place.base]);
    }
}

fn report(place: &Place, costs: &[Cost], base: &[Cost]) {
    let cpu_ns = |cost: &Cost| 1e9 * cost.cpu_s / cost.ticks as f64;
    let mut rates: Vec<f64> = costs.iter().map(|cost| cost.ticks as f64 / cost.wall_s).collect();
    let mut cpu: Vec<f64> = costs.iter().map(cpu_ns).collect();
    let mut system: Vec<f64> = costs.iter().map(|cost| 1e9 * cost.system_s / cost.ticks as f64).collect();
    let mut loads: Vec<f64> = costs.iter().map(|cost| cost.load).collect();
    let mut ratios: Vec<f64> =
        costs.iter().zip(base).map(|(cost, base)| cpu_ns(cost) / cpu_ns(base)).collect();
    let mut speedups: Vec<f64> = costs
        .iter()
        .zip(base)
        .map(|(cost, base)| base.wall_s / base.ticks as f64 * cost.ticks as f64 / cost.wall_s)
        .collect();
    let mut line = json!({
        "curve": place.curve, "series": place.series, "x": place.x, "label": place.label, "ticks": costs[0].ticks,
        "rounds": costs.len(), "ticks_per_second": median(&mut rates).round(),
        "ticks_per_second_min": quantile(&mut rates, 0.0).round(),
        "ticks_per_second_max": quantile(&mut rates, 1.0).round(),
        "cpu_ns_per_tick": median(&mut cpu).round(), "system_ns_per_tick": median(&mut system).round(),
        "ticks_per_cpu_second": (1e9 / median(&mut cpu)).round(),
        "cpu_ratio": thousandths(median(&mut ratios)), "speedup": thousandths(median(&mut speedups)),
        "peak_rss_bytes": costs.iter().map(|cost| cost.peak_rss_bytes).max(), "load": median(&mut loads),
    });
    if let (Some(line), Some(more)) = (line.as_object_mut(), place.more.as_object()) {
        line.extend(more.clone());
    }
    println!("{line}");
}

fn thousandths(number: f64) -> f64 {
    (1e3 * number).round() / 1e3
}

/// Of the last minute; 0 where the system does not tell.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// The program, untouched by the settings of whoever measures.
pub fn foreshock() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foreshock"));
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FORESHOCK_")) {
        command.env_remove(name);
    }
    command.env("LOG_LEVEL", "warn").stdin(Stdio::null()).stderr(Stdio::inherit());
    command
}

/// A run of recorded ticks to files, which are gone afterwards, mostly before they reach a disk.
pub fn backtest(input: &Path, ticks: usize, workers: usize, settings: &[(String, String)]) -> Cost {
    let out = tempfile::tempdir().expect("a temporary folder can be made");
    let mut command = foreshock();
    command.args(["backtest", "--json", "--emit", "scored", "-w", &workers.to_string(), "--out"]);
    command.arg(out.path()).arg(input).envs(settings.iter().cloned());
    timed(command).cost(ticks)
}

/// Whether the program takes these settings.
pub fn understands(settings: &[(String, String)]) -> bool {
    let mut command = foreshock();
    command.args(["check-config", "--command", "backtest"]).envs(settings.iter().cloned());
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.expect("foreshock can be started").success()
}

/// A command that has run: the account that it printed, and the time that it and its own children took.
pub struct Timed {
    pub summary: Value,
    pub wall: Duration,
    pub user: Duration,
    pub system: Duration,
}

/// Runs a command to its end.
pub fn timed(mut command: Command) -> Timed {
    let (before, began) = (children_cpu(), Instant::now());
    let output = command.stdout(Stdio::piped()).spawn().and_then(|child| child.wait_with_output());
    let output = output.expect("foreshock can be started");
    let (wall, after) = (began.elapsed(), children_cpu());
    assert!(output.status.success(), "foreshock failed: {}", output.status);
    let summary = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
    Timed { summary, wall, user: after.0 - before.0, system: after.1 - before.1 }
}

impl Timed {
    /// What so many ticks cost, if all of them came through.
    pub fn cost(&self, ticks: usize) -> Cost {
        assert_eq!(self.summary["rows"]["ticks"], ticks, "each tick makes a row");
        Cost {
            ticks,
            wall_s: self.wall.as_secs_f64(),
            cpu_s: (self.user + self.system).as_secs_f64(),
            system_s: self.system.as_secs_f64(),
            peak_rss_bytes: self.summary["peak_rss_bytes"].as_u64().expect("the summary tells of the memory"),
            load: load_average(),
        }
    }
}

/// Processor time of all children that have ended, and of theirs: the user's and the system's.
fn children_cpu() -> (Duration, Duration) {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the system tells what was used");
    let duration = |time: TimeVal| Duration::new(time.tv_sec() as u64, 1_000 * time.tv_usec() as u32);
    (duration(usage.user_time()), duration(usage.system_time()))
}
