//! A server to ask, and a client so small that it can misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foreshock::config::{Config, Http, Mode};
use foreshock::http::Server;
use foreshock::metrics::Metrics;
use foreshock::status::{JobStatus, Phase, Serving, State};
use foreshock_operators::time::{SECOND, Time};
use serde_json::Value;

/// When the models of these tests were loaded: 2026-03-02T08:59:00Z.
pub const LOADED_AT: Time = Time(1_772_441_940 * SECOND);

/// How long something may take that has to come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server and the board it reads from.
pub struct Asked {
    pub server: Server,
    pub job_status: Arc<JobStatus>,
    pub metrics: Metrics,
}

/// Any free port of this machine.
pub fn settings() -> Http {
    Http {
        listen: "127.0.0.1:0".parse().unwrap(),
        max_body_bytes: 1 << 20,
        max_rows: 1000,
        max_connections: 16,
        probe_connections: 8,
        timeout: Duration::from_secs(20),
    }
}

/// A job that runs and has caught up.
pub fn running() -> State {
    State { phase: Phase::Running, kafka_connected: true, caught_up: true, ..State::default() }
}

/// The model that this configuration file, or none, puts in force.
pub fn serving(config: Option<&Path>, environment: &[(&str, &str)]) -> Serving {
    let files: Vec<_> = config.map(Path::to_owned).into_iter().collect();
    let environment = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let config = Config::load(&files, environment, Mode::Backtest).unwrap_or_else(|error| panic!("{error}"));
    Serving {
        model: config.settings.parameters.model.clone(),
        features: config.settings.parameters.features.clone(),
        loaded_at: LOADED_AT,
    }
}

impl Asked {
    /// A job that runs, with the bundled model.
    pub fn start() -> Asked {
        Asked::with(settings(), Some(serving(None, &[])))
    }

    /// A job that runs, with this model.
    pub fn with(settings: Http, serving: Option<Serving>) -> Asked {
        let config = Config::load(&[], [], Mode::Run).unwrap();
        let (job_status, metrics) = (Arc::new(JobStatus::default()), Metrics::new(&config.metrics));
        job_status.post(running());
        serving.into_iter().for_each(|serving| job_status.serve(serving));
        let server = Server::start(&settings, job_status.clone(), metrics.clone()).unwrap();
        Asked { server, job_status, metrics }
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.server.address())
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.connect().ask("GET", path, b"")
    }

    #[track_caller]
    pub fn predict(&self, body: impl AsRef<[u8]>) -> Answer {
        self.connect().ask("POST", "/predict", body.as_ref())
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body, which must be JSON and say so.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text());
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body of a good answer.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// What an error says and which field it names.
    #[track_caller]
    pub fn error(&self, status: u16) -> (String, Option<String>) {
        assert_eq!(self.status, status, "{}", self.text());
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let body = self.json();
        (text(&body["error"]).unwrap_or_else(|| panic!("{body}")), text(&body["field"]))
    }
}

pub struct Connection {
    pub stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).unwrap();
        // So that a test fails where it would hang.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Connection { stream: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    #[track_caller]
    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.ask_with(method, path, "", body)
    }

    /// With further headers, each with its line break.
    #[track_caller]
    pub fn ask_with(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n");
        self.send([head.as_bytes(), body].concat());
        self.answer(method == "HEAD")
    }

    /// Reads an answer to its end.
    #[track_caller]
    pub fn answer(&mut self, is_head: bool) -> Answer {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.stream.read_line(&mut line).unwrap(), 0, "no answer, only {lines:?}");
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines[0].split(' ').nth(1).and_then(|status| status.parse().ok());
        let header = |line: &String| {
            let (name, text) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            (name.to_owned(), text.to_owned())
        };
        let headers = lines[1..].iter().map(header).collect();
        let mut answer = Answer { status: status.unwrap(), headers, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        if !is_head {
            answer.body = vec![0; length];
            self.stream.read_exact(&mut answer.body).unwrap();
        }
        answer
    }

    /// Whether the server closes the connection, having said nothing more.
    pub fn is_closed(&mut self) -> bool {
        // A reset closes it too.
        matches!(self.stream.read(&mut [0]), Ok(0))
            || self.stream.get_ref().take_error().is_ok_and(|e| e.is_some())
    }
}
