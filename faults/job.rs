//! The job under test: its configuration, and its processes from outside.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use foreshock_operators::outputs::OutputKind;
use serde_json::{Map, Value, json};
use signal_hook::consts::SIGKILL;

use crate::broker::signal;
use crate::feed;
use crate::topics::output_topic;

/// `kafka.transaction_timeout` of jobs under test: short so that a zombie can outstay it, long enough for a slow broker.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a condition is looked at that nothing tells of.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A job and where it keeps things.
#[derive(Clone, Debug)]
pub struct Job {
    pub binary: PathBuf,
    pub work: PathBuf,
    pub name: String,
    pub input: String,
    pub brokers: String,
    pub partitions: i32,
    pub reorder_ms: u64,
    pub delivery: String,
    /// The folder of its snapshots.
    pub state: PathBuf,
}

/// One start of a job.
#[derive(Clone, Debug, Default)]
pub struct Life {
    pub workers: usize,
    pub processes: usize,
    pub variables: Vec<(&'static str, String)>,
    pub until_end: bool,
    pub limits: Limits,
}

/// What the job may do to files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limits {
    #[default]
    None,
    /// No file grows beyond 1 KiB.
    FullDisk,
    /// Permissions hold even for root.
    Permissions,
}

impl Job {
    /// Writes the configuration; gives its file.
    fn configure(&self) -> Result<PathBuf> {
        let rules = self.work.join("alerts.yaml");
        fs::write(&rules, json!({"rules": feed::rules(1.0)}).to_string())?;
        let mut topics = Map::new();
        topics.insert("input".to_owned(), json!([self.input]));
        for kind in OutputKind::of_topics() {
            topics.insert(kind.name().to_owned(), output_topic(&self.name, kind).into());
        }
        // JSON is YAML.
        let config = json!({
            "job": {"name": self.name, "delivery": self.delivery},
            "instruments": {"unknown": "accept"},
            "order": {"reorder": format!("{}ms", self.reorder_ms)},
            "features": {"window": "10s", "spread_window": 60, "spread_min_samples": 10},
            "zscore": {"window": 30, "min_samples": 5},
            "alerts": {"file": rules},
            "kafka": {
                "brokers": self.brokers,
                "start": "earliest",
                "partitions": self.partitions,
                "commit_interval": "50ms",
                "transaction_timeout": format!("{}ms", TRANSACTION_TIMEOUT.as_millis()),
                "stop_timeout": "10s",
                // librdkafka wants it no longer than the transaction's.
                "properties": {"socket.timeout.ms": TRANSACTION_TIMEOUT.as_millis() as u64},
            },
            "topics": topics,
            "state": {"store": self.state, "interval": "300ms"},
            "http": {"listen": "off"},
        });
        let path = self.work.join(format!("{}.yaml", self.name));
        fs::write(&path, format!("{config:#}\n"))?;
        Ok(path)
    }

    /// Starts its processes; `log` begins the names of the files that their words go to.
    pub fn start(&self, life: &Life, log: &str) -> Result<Set> {
        let config = self.configure()?;
        let hosts = (life.processes > 1).then(|| self.host_file(life.processes)).transpose()?;
        let started = Instant::now();
        let mut processes = Vec::new();
        for index in 0..life.processes {
            let mut command = confined(&self.binary, life.limits);
            command.args(["run", "--json", "-w", &life.workers.to_string(), "--config"]).arg(&config);
            if let Some(hosts) = &hosts {
                command.args(["-n", &life.processes.to_string(), "-p", &index.to_string(), "--hostfile"]);
                command.arg(hosts).env("FORESHOCK_CLUSTER_SECRET", "of this campaign");
            }
            if life.until_end {
                command.arg("--until-end");
            }
            command.envs(life.variables.iter().map(|(name, value)| (name, value)));
            let log = self.work.join("logs").join(format!("{log}-{index}"));
            processes.push(Process::start(command, &log, &self.work.join("pids"))?);
        }
        Ok(Set { processes, started })
    }

    fn host_file(&self, processes: usize) -> Result<PathBuf> {
        // All at once, or a port might be given twice.
        let listeners: Vec<TcpListener> =
            (0..processes).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<_, _>>()?;
        let mut text = String::new();
        for listener in &listeners {
            text += &format!("{}\n", listener.local_addr()?);
        }
        let path = self.work.join("hosts");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Whether this program knows a flag of `run`.
    pub fn knows(&self, flag: &str) -> Result<bool> {
        let output = Command::new(&self.binary).args(["run", "--help"]).output();
        let output = output.with_context(|| format!("could not run {}", self.binary.display()))?;
        Ok(String::from_utf8_lossy(&output.stdout).contains(flag))
    }
}

/// The program, untouched by the settings of whoever runs the campaign.
fn confined(binary: &Path, limits: Limits) -> Command {
    let mut command = match limits {
        Limits::FullDisk => {
            let mut command = Command::new("bash");
            // With the signal ignored a write fails with EFBIG, as it would with ENOSPC.
            command.args(["-c", r#"trap "" XFSZ; ulimit -f 1; exec "$@""#, "bash"]).arg(binary);
            command
        }
        Limits::Permissions if is_root() => {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set", "-dac_override,-dac_read_search"]).arg(binary);
            command
        }
        Limits::None | Limits::Permissions => Command::new(binary),
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FORESHOCK_") || name == "LOG_LEVEL" {
            command.env_remove(name);
        }
    }
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Milliseconds since 1970, as in the timestamps of records.
pub fn milliseconds_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64
}

/// The processes of one life; they are killed when this is dropped.
pub struct Set {
    pub processes: Vec<Process>,
    pub started: Instant,
}

impl Set {
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.child.id()).collect()
    }

    pub fn signal(&self, name: &str) -> Result<()> {
        self.processes.iter().try_for_each(|process| process.signal(name))
    }

    /// How the first process that has ended did.
    pub fn first_end(&mut self) -> Result<Option<ExitStatus>> {
        for process in &mut self.processes {
            if let Some(status) = process.status()? {
                return Ok(Some(status));
            }
        }
        Ok(None)
    }

    /// Waits until all have ended, for at most so long; whether they have.
    pub fn ends_within(&mut self, patience: Duration) -> Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            let mut running = 0;
            for process in &mut self.processes {
                running += usize::from(process.status()?.is_none());
            }
            if running == 0 {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// What its processes have logged, the last lines of each.
    pub fn last_words(&mut self) -> String {
        self.processes.iter_mut().map(Process::last_words).collect::<Vec<_>>().join(" | ")
    }

    pub fn has_logged(&self, text: &str) -> bool {
        self.processes.iter().any(|process| lock(&process.stderr).contains(text))
    }
}

/// A process of a job.
pub struct Process {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts it, and notes its id in a file for whoever has to clean up.
    fn start(mut command: Command, log: &Path, pids: &Path) -> Result<Process> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("could not start the job")?;
        writeln!(File::options().create(true).append(true).open(pids)?, "{}", child.id())?;
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let log = File::create(log).with_context(|| format!("could not write {}", log.display()))?;
        let mut readers = Vec::new();
        if let Some(from) = child.stdout.take() {
            readers.push(collect(from, &stdout, None));
        }
        if let Some(from) = child.stderr.take() {
            readers.push(collect(from, &stderr, Some(log)));
        }
        Ok(Process { child, stdout, stderr, readers })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) -> Result<()> {
        signal(name, &self.child.id().to_string())
    }

    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("could not ask for a process of the job")
    }

    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("could not kill a process of the job")?;
        self.child.wait().context("could not wait for a process of the job")?;
        Ok(())
    }

    /// What it has printed, when it has ended.
    pub fn printed(&mut self) -> String {
        self.read_on();
        lock(&self.stdout).clone()
    }

    /// The last line that it has logged, when it has ended.
    pub fn last_words(&mut self) -> String {
        self.read_on();
        let log = lock(&self.stderr);
        log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("(nothing)").to_owned()
    }

    fn read_on(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            for reader in self.readers.drain(..) {
                // It has read what there was.
                let _ = reader.join();
            }
        }
    }

    /// What is unclear about how it ended by itself: a crash, or an error without a word.
    pub fn unclear_end(&mut self) -> Result<Option<String>> {
        let Some(status) = self.status()? else { return Ok(None) };
        let words = self.last_words();
        let is_clear = match status.code() {
            Some(0) => true,
            Some(_) => words.starts_with("error: "),
            None => status.signal() == Some(SIGKILL),
        };
        Ok((!is_clear).then(|| format!("a process ended by itself with {status}, its last line: {words}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(
    from: impl Read + Send + 'static,
    into: &Arc<Mutex<String>>,
    mut log: Option<File>,
) -> JoinHandle<()> {
    let into = into.clone();
    thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            if let Some(log) = &mut log {
                // The log is for people only.
                let _ = log.write_all(&line);
            }
            lock(&into).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

fn lock(text: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The summary that a process printed at its good end.
pub fn summary(set: &mut Set) -> Result<Value> {
    let process = set.processes.first_mut().context("a job has a process")?;
    let printed = process.printed();
    let summary: Value = serde_json::from_str(&printed).context("the job printed no summary")?;
    ensure!(summary.is_object(), "the summary is no object: {summary}");
    Ok(summary)
}
