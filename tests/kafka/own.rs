//! A broker of a test's own, which may be ended and started again.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use crate::support::kafka::brokers;

/// A broker on a free port; it ends, and its data goes, when this is dropped.
pub struct Broker {
    data: TempDir,
    port: u16,
}

impl Broker {
    /// Starts one; says so where it can't. Only where tests of a real Kafka are wanted at all: the script may have to
    /// fetch it.
    pub fn start(test: &str) -> Option<Broker> {
        brokers(test)?;
        let broker = Broker { data: TempDir::new().unwrap(), port: free_ports() };
        let output = broker.script("start").output();
        match output {
            Ok(output) if output.status.success() => Some(broker),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                eprintln!("SKIPPED {test}: scripts/kafka can't start a broker: {why}");
                None
            }
            Err(error) => {
                eprintln!("SKIPPED {test}: scripts/kafka can't be run: {error}");
                None
            }
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it again, on the same data.
    #[track_caller]
    pub fn start_again(&self) {
        let output = self.script("start").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Ends it as an operator does.
    #[track_caller]
    pub fn stop(&self) {
        let output = self.script("stop").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Ends it as a crash does.
    #[track_caller]
    pub fn kill(&self) {
        let pid = fs::read_to_string(self.data.path().join("kafka.pid")).unwrap();
        assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap().success());
        // Whatever is left of it.
        self.stop();
    }

    fn script(&self, what: &str) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join("kafka"));
        command.arg(what).env_remove("KAFKA_BOOTSTRAP_SERVERS");
        command.env("KAFKA_PORT", self.port.to_string()).env("KAFKA_DATA", self.data.path());
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A test that fails shall leave no broker behind.
        let _ = self.script("stop").output();
    }
}

/// A free port whose successor is free too: the script takes both. Below those that systems give to outgoing
/// connections, or one of them might sit on it while the broker is away.
fn free_ports() -> u16 {
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let begin = process::id() as u16 % 4_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 20_000 + (2 * (begin + TAKEN.fetch_add(1, Ordering::Relaxed))) % 12_000;
        if is_free(port) && is_free(port + 1) {
            return port;
        }
    }
}
