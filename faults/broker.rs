//! A broker of the campaign's own, which may be killed.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use anyhow::{Context, Result, bail, ensure};

use crate::proxy::Proxy;

/// A broker on free ports and the proxy before its second one; it ends when this is dropped.
pub struct Broker {
    data: PathBuf,
    port: u16,
    pub proxy: Proxy,
}

impl Broker {
    pub fn start(work: &Path) -> Result<Broker> {
        let port = free_ports()?;
        // `scripts/kafka` has the proxied listener on the second port after the broker's.
        let broker = Broker { data: work.join("kafka"), port, proxy: Proxy::start(port + 2)? };
        broker.start_again()?;
        Ok(broker)
    }

    /// Its own address, past the proxy.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it again on the same data.
    pub fn start_again(&self) -> Result<()> {
        self.script("start")
    }

    /// Ends it as a crash does.
    pub fn kill(&self) -> Result<()> {
        let pid = fs::read_to_string(self.data.join("kafka.pid")).context("the broker left no pid")?;
        signal("KILL", pid.trim())?;
        // Whatever is left of it.
        self.script("stop")
    }

    fn script(&self, what: &str) -> Result<()> {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka"));
        command.arg(what).env_remove("KAFKA_BOOTSTRAP_SERVERS").env("KAFKA_DATA", &self.data);
        command.env("KAFKA_PORT", self.port.to_string());
        command.env("KAFKA_PROXY_PORT", self.proxy.port().to_string());
        let output = command.output().context("could not run scripts/kafka")?;
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "scripts/kafka {what} failed: {why}");
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A campaign that fails shall leave no broker behind.
        let _ = self.script("stop");
    }
}

/// Sends a signal, by its name, to a process.
pub fn signal(name: &str, pid: &str) -> Result<()> {
    let sent =
        Command::new("kill").args([&format!("-{name}"), pid]).status().context("could not run kill")?;
    ensure!(sent.success(), "could not send {name} to process {pid}");
    Ok(())
}

/// A free port whose two successors are free too. Below those that systems give to outgoing connections, or one of
/// them might sit on it while the broker is away.
fn free_ports() -> Result<u16> {
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let begin = process::id() as u16 % 4_000;
    for step in 0..4_000 {
        let port = 20_000 + 3 * ((begin + step) % 4_000);
        if (port..port + 3).all(is_free) {
            return Ok(port);
        }
    }
    bail!("no free ports for a broker")
}
