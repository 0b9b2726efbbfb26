//! Starts all processes of a job on this machine, starts them again when one dies, and ends them together.
//!
//! ```text
//! launch ─► free ports, a fresh secret ─► N x run ─┬─ all ended in order ─► the account of all
//!              ▲                                   ├─ one must stay down ─► its exit status
//!              └──── a pause, longer each time ────┴─ one died: the rest are ended
//! ```

pub mod parent;
mod set;

use std::ffi::OsString;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use foreshock_operators::account::Counts;
use tracing::{info, warn};

use crate::cluster::secret;
use crate::config::Config;
use crate::hex::hex;
use crate::summary::RunSummary;
use parent::ProcessReport;
use set::{End, Set};

/// Exit statuses behind which a new start would end the same way: wrong options or configuration, and what a process
/// says that must not start again by itself.
pub(crate) const STAY_DOWN: [u8; 2] = [2, 4];

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A set that ran for so long begins with the shortest pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// How often the wish to stop is looked for in a pause.
const TICK: Duration = Duration::from_millis(20);

/// What is given to processes beyond the time in which each delivers what it has begun, and waits for the others.
const STOP_MARGIN: Duration = Duration::from_secs(20);

/// An option that holds for the first start only: a restart goes on where the job was.
const FROM_BEGINNING: &str = "--from-beginning";

/// What to start.
pub struct Launch {
    pub program: PathBuf,
    /// The options of `run` that all processes have in common.
    pub options: Vec<OsString>,
    pub processes: usize,
    pub config: Config,
    /// Set from outside when the job shall end.
    pub stop: Arc<AtomicBool>,
}

/// A process has ended in a way that must not be repeated.
#[derive(Debug)]
pub struct ProcessStaysDown {
    pub process: usize,
    pub status: u8,
}

impl fmt::Display for ProcessStaysDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProcessStaysDown { process, status } = self;
        write!(
            f,
            "process {process} ended with exit status {status}, which is for a person to look at: its log says why"
        )
    }
}

impl std::error::Error for ProcessStaysDown {}

impl Launch {
    /// Runs the job until all processes have ended in order; the account of all, or `None` where none ran at the end.
    ///
    /// # Errors
    /// When processes can't be started, one must stay down, or they can't be stopped in order.
    pub fn run(mut self) -> Result<Option<RunSummary>> {
        let started = Instant::now();
        let within = 2 * self.config.kafka.stop_timeout + STOP_MARGIN;
        let stop = self.stop.clone();
        let mut pause = PAUSE_MIN;
        while !stop.load(Ordering::Relaxed) {
            let mut set = Set::start(self.commands()?, self.config.log.json)?;
            let options = &mut self.options;
            let begun = || options.retain(|option| option != FROM_BEGINNING);
            match set.watch(|| stop.load(Ordering::Relaxed), within, begun) {
                End::InOrder(accounts) => return Ok(Some(merged(accounts, started.elapsed()))),
                End::Died { process, stays_down: Some(status), .. } => {
                    bail!(ProcessStaysDown { process, status })
                }
                End::Died { process, how, .. } if stop.load(Ordering::Relaxed) => {
                    bail!("process {process} died while the job was stopping: {how}")
                }
                End::TooSlow if stop.load(Ordering::Relaxed) => {
                    bail!(
                        "processes had to be killed; what they had not committed is read again at the next start"
                    )
                }
                End::Died { process, how, .. } => {
                    warn!(process, how, "a process died, and the others with it")
                }
                End::TooSlow => warn!("some processes ended and others did not"),
            }
            if set.up_for() >= HEALTHY_AFTER {
                pause = PAUSE_MIN;
            }
            self.rest(pause)?;
            pause = (2 * pause).min(PAUSE_MAX);
        }
        Ok(None)
    }

    /// Waits before the next start, with jitter.
    fn rest(&self, pause: Duration) -> Result<()> {
        let random = getrandom::u32().map_err(|error| anyhow!("could not get random bytes: {error}"))?;
        let pause = pause / 2 + pause.mul_f64(f64::from(random) / f64::from(u32::MAX));
        info!(milliseconds = pause.as_millis() as u64, "starting all processes again after a pause");
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stop.load(Ordering::Relaxed) {
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// One command a process. Each start has ports and a secret of its own: nobody of an earlier one can join.
    fn commands(&self) -> Result<Vec<Command>> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| anyhow!("could not get random bytes: {error}"))?;
        let secret = hex(&bytes);
        let hosts = free_ports(self.processes).context("could not find free ports")?.join(",");
        let mut commands = Vec::new();
        for process in 0..self.processes {
            let mut command = Command::new(&self.program);
            command.arg("run").args(&self.options).arg("--supervised");
            command.args(["--process", &process.to_string()]);
            if self.processes > 1 {
                command.args(["--hosts", &hosts]);
                // Not on the command line, which everybody on the machine can read.
                command.env(secret::VARIABLE, &secret);
            }
            if let Some(listen) = self.listen(process)? {
                command.env("FORESHOCK_HTTP__LISTEN", listen.to_string());
            }
            apart(&mut command);
            commands.push(command);
        }
        Ok(commands)
    }

    /// Where the HTTP server of a process listens: each at a port of its own.
    fn listen(&self, process: usize) -> Result<Option<SocketAddr>> {
        let Some(http) = &self.config.http else { return Ok(None) };
        let mut listen = http.listen;
        if listen.port() != 0 {
            let port = usize::from(listen.port()) + process;
            listen.set_port(u16::try_from(port).map_err(|_| {
                anyhow!(
                    "http.listen has port {}, and process {process} would have {port}",
                    http.listen.port()
                )
            })?);
        }
        Ok(Some(listen))
    }
}

/// A Ctrl-C at the terminal is for the supervisor, which has the processes end in order.
fn apart(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(not(unix))]
    let _ = command;
}

/// Addresses of this machine that nobody listens at.
fn free_ports(count: usize) -> std::io::Result<Vec<String>> {
    // All at once, or one could come twice.
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}

/// The account of all processes as that of one.
fn merged(accounts: Vec<ProcessReport>, elapsed: Duration) -> RunSummary {
    let (mut counts, mut all) = (Counts::default(), Counts::default());
    let mut rows_per_worker = Vec::new();
    let mut peak_rss_bytes = 0;
    for account in accounts {
        counts.add(&account.counts);
        all.add(&account.account);
        rows_per_worker.extend(account.rows_per_worker);
        peak_rss_bytes += account.peak_rss_bytes;
    }
    let summary = RunSummary::new(counts, rows_per_worker, elapsed);
    RunSummary { account: Some(all), peak_rss_bytes, ..summary }
}
