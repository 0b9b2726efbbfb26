//! A program that runs on while a test looks at it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Long enough for a busy machine; nothing waits for so long unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How often a condition is looked at that nothing tells of.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until something is so.
#[track_caller]
pub fn await_that(what: &str, is_so: impl FnMut() -> bool) {
    await_within(PATIENCE, what, is_so);
}

/// Waits until something is so, for at most so long.
#[track_caller]
pub fn await_within(patience: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        thread::sleep(LOOK_EVERY);
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// `None`: by a signal.
    pub status: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// Runs a command to its end, with this on standard input.
pub fn finish(mut command: Command, input: Option<Vec<u8>>) -> Ended {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    let feeder = input.map(|input| {
        let mut stdin = child.stdin.take().unwrap();
        // The program may stop reading before the end.
        thread::spawn(move || drop(stdin.write_all(&input)))
    });
    let output = child.wait_with_output().unwrap();
    if let Some(feeder) = feeder {
        feeder.join().unwrap();
    }
    Ended {
        status: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A running program; killed when this is dropped before it has ended.
pub struct Running {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    pub fn start(mut command: Command) -> Running {
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().unwrap(), &stdout),
            collect(child.stderr.take().unwrap(), &stderr),
        ];
        Running { child, stdout, stderr, readers }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    /// Waits until it has logged this.
    #[track_caller]
    pub fn until_logged(&mut self, text: &str) {
        self.until(text, |running| running.log().contains(text));
    }

    /// Waits until something is so; the program must run meanwhile.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&Running) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{what}: the program ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}: {}", self.log());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Where its HTTP server listens, as it logs.
    #[track_caller]
    pub fn http(&mut self) -> SocketAddr {
        self.until_logged("http server listens");
        let log = self.log();
        let line = log.lines().find(|line| line.contains("http server listens")).unwrap();
        let address = line.split("address=").nth(1).unwrap_or_else(|| panic!("{line}"));
        address.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it didn't end within {PATIENCE:?}: {}", self.log());
            thread::sleep(LOOK_EVERY);
        }
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let status = self.child.wait().unwrap().code();
        Ended { status, stdout: self.printed().into_bytes(), stderr: self.log() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(from: impl Read + Send + 'static, into: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let into = into.clone();
    thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
            into.lock().unwrap().push_str(&line);
            line.clear();
        }
    })
}
