//! The processes of a job that has no broker to talk to.

use std::net::TcpListener;
use std::process::Command;

use crate::support::foreshock;
use crate::support::process::Running;

pub const SECRET: &str = "no stranger knows this one";

/// What a process logs when it has joined, before it looks for brokers.
pub const BEYOND: &str = "model in force";

/// Two addresses of this machine.
pub struct Hosts(pub [String; 2]);

impl Hosts {
    pub fn free() -> Hosts {
        let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        Hosts(listeners.map(|listener| listener.local_addr().unwrap().to_string()))
    }

    /// Process `number` of two, with one worker.
    pub fn process(&self, number: usize) -> Command {
        let mut command = live("run");
        command.args(["-n", "2", "-w", "1", "-p", &number.to_string(), "--hosts", &self.0.join(",")]);
        command.env("FORESHOCK_CLUSTER_SECRET", SECRET);
        command
    }

    /// Both, joined.
    #[track_caller]
    pub fn joined(&self) -> [Running; 2] {
        let mut both = [1, 0].map(|number| Running::start(self.process(number)));
        both[1].until_logged(BEYOND);
        both[0].until_logged(BEYOND);
        let [one, zero] = both;
        [zero, one]
    }
}

/// A command for a live job without brokers.
pub fn live(name: &str) -> Command {
    let mut command = foreshock();
    command.arg(name).env("FORESHOCK_KAFKA__BROKERS", "127.0.0.1:9").env("FORESHOCK_HTTP__LISTEN", "off");
    command
}
