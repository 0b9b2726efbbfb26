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

    /// Of the partitions whose last transaction has records from this moment on, in milliseconds: takes so many of
    /// the last batches away, as if they had never been written; the last one is the transaction's end. The broker must
    /// have been killed. Gives the topics.
    pub fn cut_ends(&self, since: i64, batches_of: impl Fn(&str) -> usize) -> Vec<String> {
        let mut cut = Vec::new();
        for entry in fs::read_dir(self.data.path().join("broker")).unwrap() {
            let folder = entry.unwrap().path();
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            let (Some((topic, _)), Ok(log)) =
                (name.rsplit_once('-'), fs::read(folder.join("00000000000000000000.log")))
            else {
                continue;
            };
            let batches = batches(&log);
            let [.., before, last] = batches[..] else { continue };
            let cut_from = match batches_of(topic) {
                1 => last.start,
                2 => before.start,
                _ => continue,
            };
            if !last.is_control || before.newest < since {
                continue;
            }
            let file = fs::File::options().write(true).open(folder.join("00000000000000000000.log")).unwrap();
            file.set_len(cut_from as u64).unwrap();
            // What the broker knew of producers is told anew by the log.
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "snapshot") {
                    fs::remove_file(path).unwrap();
                }
            }
            cut.push(topic.to_owned());
        }
        cut
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

/// A batch of records in a segment of a log.
#[derive(Clone, Copy)]
struct Batch {
    start: usize,
    is_control: bool,
    /// The newest timestamp in it, in milliseconds.
    newest: i64,
}

/// The batches of a segment (Kafka's "Record Batch", version 2).
fn batches(log: &[u8]) -> Vec<Batch> {
    let mut found = Vec::new();
    let mut start = 0;
    while let Some(head) = log.get(start..start + 43) {
        let length = i32::from_be_bytes(head[8..12].try_into().unwrap());
        if length <= 0 {
            break;
        }
        let attributes = i16::from_be_bytes(head[21..23].try_into().unwrap());
        let newest = i64::from_be_bytes(head[35..43].try_into().unwrap());
        found.push(Batch { start, is_control: attributes & 0x20 != 0, newest });
        start += 12 + length as usize;
    }
    found
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
