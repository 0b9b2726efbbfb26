//! Two processes of one job make sure of each other before either takes a byte of the other's for its own.
//!
//! ```text
//! dialer                                         acceptor
//!   magic, purpose, nonce            ──►
//!                                    ◄──   magic, nonce
//!   statement, proof                 ──►           (over role, purpose, both nonces, statement)
//!                                    ◄──   verdict; statement, proof    (the same, and the dialer's statement)
//! ```
//! Who listens sees the other's proof first: a stranger who calls learns nothing that holds the secret. All of it is
//! bounded in bytes and in time. Nothing is encrypted, here or later.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::place::ProcessPlace;
use super::secret::{PROOF_BYTES, Secret};
use crate::hex::hex;

/// The first bytes of either side; the last one is the version of this exchange.
const MAGIC: [u8; 8] = *b"FORESHK\x01";

const NONCE_BYTES: usize = 32;

/// The most bytes of a statement.
const STATEMENT_BYTES_MAX: usize = 2048;

/// The longest that an exchange may take.
pub const WITHIN: Duration = Duration::from_secs(5);

const KNOWN: u8 = 1;
const UNKNOWN: u8 = 0;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// What the processes tell each other.
    Control,
    /// The dataflow's own.
    Data,
}

impl Purpose {
    fn byte(self) -> u8 {
        match self {
            Purpose::Control => b'c',
            Purpose::Data => b'd',
        }
    }

    fn of(byte: u8) -> Option<Purpose> {
        [Purpose::Control, Purpose::Data].into_iter().find(|purpose| purpose.byte() == byte)
    }
}

/// What a process says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Another each time that it starts.
    pub instance: String,
    /// Its connections of one attempt belong together.
    pub attempt: u64,
    pub process: usize,
    /// The process it takes the other side for; of the acceptor, that which it answers.
    pub other: usize,
    pub processes: usize,
    pub workers: usize,
    pub version: String,
    pub job: String,
    /// Of what else must be alike.
    pub settings: String,
}

impl Statement {
    /// Where two processes can't be of one job; told from the side of this one.
    pub fn disagreement(&self, other: &Statement) -> Option<String> {
        let them = format!("process {}", other.process);
        let differ = |what: &str, theirs: &str, ours: &str| {
            (theirs != ours)
                .then(|| format!("{them} {what} {theirs}, and this one, process {}, {ours}", self.process))
        };
        let count = |n: usize, what: &str| format!("{n} {what}");
        differ("runs version", &other.version, &self.version)
            .or_else(|| differ("runs the job", &other.job, &self.job))
            .or_else(|| {
                differ("is one of", &count(other.processes, "processes"), &count(self.processes, "processes"))
            })
            .or_else(|| {
                differ("runs with", &count(other.workers, "workers"), &count(self.workers, "workers"))
            })
            .or_else(|| {
                (other.other != self.process).then(|| {
                    format!(
                        "{them} takes this one, process {}, for process {}: their host files differ",
                        self.process, other.other
                    )
                })
            })
            .or_else(|| {
                (other.settings != self.settings).then(|| {
                    format!(
                        "{them} has other settings or options than this one, process {}: compare what \
                         `foreshock check-config` prints, and the command lines",
                        self.process
                    )
                })
            })
    }
}

/// Why an exchange came to nothing.
#[derive(Debug)]
pub enum JoinRefusal {
    /// The connection broke, or nothing came in time.
    Broken(io::Error),
    /// The other side speaks something else.
    Stranger,
    /// The other side knows another secret, or none.
    Secret,
    /// The other side knows the secret and can't belong to this job all the same.
    Disagrees(String),
}

impl JoinRefusal {
    /// The name that metrics have for it.
    pub fn name(&self) -> &'static str {
        match self {
            JoinRefusal::Broken(_) => "broken",
            JoinRefusal::Stranger => "stranger",
            JoinRefusal::Secret => "secret",
            JoinRefusal::Disagrees(_) => "disagrees",
        }
    }
}

impl fmt::Display for JoinRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinRefusal::Broken(error) => match error.kind() {
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    f.write_str("it did not say who it is in time")
                }
                io::ErrorKind::UnexpectedEof => f.write_str("it hung up before it said who it is"),
                _ => write!(f, "{error}"),
            },
            JoinRefusal::Stranger => f.write_str("it is no process of foreshock, or of another version"),
            JoinRefusal::Secret => f.write_str("it has another secret"),
            JoinRefusal::Disagrees(how) => f.write_str(how),
        }
    }
}

impl From<io::Error> for JoinRefusal {
    fn from(error: io::Error) -> JoinRefusal {
        JoinRefusal::Broken(error)
    }
}

/// Makes sure of the process that was called.
///
/// # Errors
/// When it is none of this job's.
pub fn dial(
    stream: &TcpStream,
    purpose: Purpose,
    secret: &Secret,
    ours: &Statement,
) -> Result<Statement, JoinRefusal> {
    let mut timed = Timed::new(stream);
    let own_nonce = nonce()?;
    timed.write(&[&MAGIC, &[purpose.byte()], &own_nonce])?;
    if timed.read::<8>()? != MAGIC {
        return Err(JoinRefusal::Stranger);
    }
    let nonce = timed.read::<NONCE_BYTES>()?;
    let said = written(ours);
    let label = [purpose.byte()];
    let proof = secret.proof(&[b"foreshock dialer", &label, &nonce, &own_nonce, &said]);
    timed.write(&[&length(&said), &said, &proof])?;
    match timed.read::<1>()? {
        [KNOWN] => {}
        [UNKNOWN] => return Err(JoinRefusal::Secret),
        _ => return Err(JoinRefusal::Stranger),
    }
    let (heard, proof) = timed.read_statement()?;
    if !secret.proves(&[b"foreshock acceptor", &label, &own_nonce, &nonce, &said, &heard], &proof) {
        return Err(JoinRefusal::Secret);
    }
    agreed(ours, &heard)
}

/// Makes sure of a process that called. `ours` is completed with the number of that process.
///
/// # Errors
/// When it is none of this job's.
pub fn accept(
    stream: &TcpStream,
    secret: &Secret,
    ours: &Statement,
) -> Result<(Statement, Purpose), JoinRefusal> {
    let mut timed = Timed::new(stream);
    if timed.read::<8>()? != MAGIC {
        return Err(JoinRefusal::Stranger);
    }
    let label = timed.read::<1>()?;
    let Some(purpose) = Purpose::of(label[0]) else { return Err(JoinRefusal::Stranger) };
    let nonce_of_dialer = timed.read::<NONCE_BYTES>()?;
    let own_nonce = nonce()?;
    timed.write(&[&MAGIC, &own_nonce])?;
    let (heard, proof) = timed.read_statement()?;
    if !secret.proves(&[b"foreshock dialer", &label, &own_nonce, &nonce_of_dialer, &heard], &proof) {
        // The honest one with a mistyped secret is told; others learn what they know.
        timed.write(&[&[UNKNOWN]])?;
        return Err(JoinRefusal::Secret);
    }
    let other = parsed(&heard)?.process;
    let ours = Statement { other, ..ours.clone() };
    let said = written(&ours);
    let proof = secret.proof(&[b"foreshock acceptor", &label, &nonce_of_dialer, &own_nonce, &heard, &said]);
    timed.write(&[&[KNOWN], &length(&said), &said, &proof])?;
    Ok((agreed(&ours, &heard)?, purpose))
}

/// The statement of the other side, where the two can be of one job.
fn agreed(ours: &Statement, heard: &[u8]) -> Result<Statement, JoinRefusal> {
    let theirs = parsed(heard)?;
    match ours.disagreement(&theirs) {
        Some(how) => Err(JoinRefusal::Disagrees(how)),
        None => Ok(theirs),
    }
}

/// What this process says of itself.
pub fn statement(place: ProcessPlace, job: &str, settings: String) -> io::Result<Statement> {
    Ok(Statement {
        instance: hex(&nonce()?[..16]),
        attempt: 0,
        process: place.process,
        other: place.process,
        processes: place.processes,
        workers: place.workers,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        job: job.to_owned(),
        settings,
    })
}

fn nonce() -> io::Result<[u8; NONCE_BYTES]> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(nonce)
}

fn written(statement: &Statement) -> Vec<u8> {
    serde_json::to_vec(statement).expect("a statement is text and numbers")
}

fn parsed(heard: &[u8]) -> Result<Statement, JoinRefusal> {
    // Whoever proves the secret and says something else is another foreshock.
    serde_json::from_slice(heard).map_err(|_| JoinRefusal::Stranger)
}

fn length(said: &[u8]) -> [u8; 2] {
    (said.len() as u16).to_be_bytes()
}

/// A connection on which everything together may take [`WITHIN`].
struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Timed<'_> {
    fn new(stream: &TcpStream) -> Timed<'_> {
        Timed { stream, deadline: Instant::now() + WITHIN }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn read<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn read_statement(&mut self) -> io::Result<(Vec<u8>, [u8; PROOF_BYTES])> {
        let length = usize::from(u16::from_be_bytes(self.read()?));
        if length > STATEMENT_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut statement = vec![0; length];
        self.fill(&mut statement)?;
        Ok((statement, self.read()?))
    }

    /// As `read_exact`, but a sender of single bytes gets no more time than others.
    fn fill(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => bytes = &mut bytes[read..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(&parts.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener};
    use std::thread;

    fn place(process: usize) -> ProcessPlace {
        ProcessPlace { process, processes: 2, workers: 3 }
    }

    fn stated(process: usize, other: usize) -> Statement {
        Statement { other, ..statement(place(process), "job", "settings".to_owned()).unwrap() }
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes()).unwrap()
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (dialer, listener.accept().unwrap().0)
    }

    type Outcome = (Result<Statement, JoinRefusal>, Result<(Statement, Purpose), JoinRefusal>);

    fn meet(dialer: (&str, Statement), acceptor: (&str, Statement)) -> Outcome {
        let (dialing, accepting) = pair();
        thread::scope(|scope| {
            let accepted = scope.spawn(|| accept(&accepting, &secret(acceptor.0), &acceptor.1));
            let dialed = dial(&dialing, Purpose::Data, &secret(dialer.0), &dialer.1);
            (dialed, accepted.join().unwrap())
        })
    }

    const OURS: &str = "one of sixteen bytes";

    #[test]
    fn processes_of_one_job_learn_who_the_other_is() {
        let (dialer, acceptor) = (stated(1, 0), stated(0, 0));
        let (dialed, accepted) = meet((OURS, dialer.clone()), (OURS, acceptor.clone()));
        assert_eq!(dialed.unwrap(), Statement { other: 1, ..acceptor });
        assert_eq!(accepted.unwrap(), (dialer, Purpose::Data));
    }

    #[test]
    fn another_secret_is_told_on_both_sides() {
        let (dialed, accepted) = meet(("another of 16 bytes", stated(1, 0)), (OURS, stated(0, 0)));
        assert!(matches!(dialed, Err(JoinRefusal::Secret)), "{dialed:?}");
        assert!(matches!(accepted, Err(JoinRefusal::Secret)), "{accepted:?}");
    }

    #[test]
    fn both_sides_tell_in_what_they_disagree() {
        let fewer = Statement { workers: 2, ..stated(1, 0) };
        let (dialed, accepted) = meet((OURS, fewer), (OURS, stated(0, 0)));
        let (dialed, accepted) = (dialed.unwrap_err().to_string(), accepted.unwrap_err().to_string());
        assert_eq!(accepted, "process 1 runs with 2 workers, and this one, process 0, 3 workers");
        assert_eq!(dialed, "process 0 runs with 3 workers, and this one, process 1, 2 workers");
        let elsewhere = Statement { other: 7, ..stated(1, 0) };
        let (_, accepted) = meet((OURS, elsewhere), (OURS, stated(0, 0)));
        assert!(accepted.unwrap_err().to_string().contains("host files differ"));
    }

    #[test]
    fn an_acceptor_without_the_secret_is_no_peer() {
        let (dialing, mut accepting) = pair();
        thread::scope(|scope| {
            // It sends the dialer's own proof back.
            scope.spawn(move || {
                let mut hello = [0; 41];
                accepting.read_exact(&mut hello).unwrap();
                accepting.write_all(&[&hello[..8], &hello[9..]].concat()).unwrap();
                let mut said = vec![0; 4096];
                let length = accepting.read(&mut said).unwrap();
                accepting.write_all(&[&[KNOWN], &said[..length]].concat()).unwrap();
                let _ = accepting.read(&mut said);
            });
            let dialed = dial(&dialing, Purpose::Data, &secret(OURS), &stated(1, 0));
            assert!(matches!(dialed, Err(JoinRefusal::Secret)), "{dialed:?}");
            dialing.shutdown(Shutdown::Both).unwrap();
        });
    }

    #[test]
    fn garbage_and_an_early_end_are_refused_at_once() {
        for (bytes, name) in
            [(&b"GET / HTTP/1.1\r\n"[..], "stranger"), (&MAGIC[..], "broken"), (&[], "broken")]
        {
            let (mut dialing, accepting) = pair();
            dialing.write_all(bytes).unwrap();
            dialing.shutdown(Shutdown::Write).unwrap();
            let refusal = accept(&accepting, &secret(OURS), &stated(0, 0)).unwrap_err();
            assert_eq!(refusal.name(), name, "{bytes:?}: {refusal}");
        }
    }

    #[test]
    fn a_statement_is_never_longer_than_its_bound() {
        let (mut dialing, accepting) = pair();
        dialing.write_all(&[&MAGIC[..], b"d", &[7; NONCE_BYTES], &[0xff, 0xff]].concat()).unwrap();
        let refusal = accept(&accepting, &secret(OURS), &stated(0, 0)).unwrap_err();
        assert!(matches!(&refusal, JoinRefusal::Broken(error) if error.kind() == io::ErrorKind::InvalidData));
    }
}
