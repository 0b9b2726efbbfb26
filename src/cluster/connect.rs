//! Makes the connections among the processes of a job: each calls those with lower numbers and waits for the others.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tracing::{debug, info, warn};

use super::control::take_leave;
use super::handshake::{JoinRefusal, Purpose, Statement, accept, dial};
use super::{Membership, handshake};
use crate::misuse::Misuse;

/// How often callers and the wish to stop are looked for.
const TICK: Duration = Duration::from_millis(20);

/// How long one call may take.
const CALL_WITHIN: Duration = Duration::from_secs(1);

/// The longest pause between two calls.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// So many callers at a time may be about to say who they are; further ones are refused.
const CALLERS_MAX: usize = 64;

/// How often the log tells who is still missing.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The connections to one process.
pub struct Joined {
    pub control: TcpStream,
    pub data: TcpStream,
}

/// Connects to all other processes; by process, `None` at this one's own place. `None` in all where the process was
/// told to stop meanwhile.
///
/// # Errors
/// When this process can't listen, one is missing for too long, or one has no place in this job.
pub fn connect(membership: &Membership, stop: &AtomicBool) -> Result<Option<Vec<Option<Joined>>>> {
    let listener = listen(membership)?;
    let place = membership.place;
    let over = Over(Arc::default());
    let (tell, news) = channel();
    for process in 0..place.process {
        let (membership, tell, over) = (membership.clone(), tell.clone(), over.0.clone());
        named(format!("call {process}"), move || call(&membership, process, &tell, &over))?;
    }
    Meeting {
        membership,
        listener,
        tell,
        news,
        callers: Arc::default(),
        slots: slots(membership),
        refused: 0,
    }
    .hold(stop)
}

/// Ends the callers of other processes with the attempt that they belong to.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What came of one connection.
enum News {
    /// This process said so, over a connection for this.
    Met(Statement, Purpose, TcpStream),
    /// A caller was refused.
    Refused(SocketAddr, JoinRefusal),
    /// A call failed, and is tried again.
    Failed(usize, String),
    /// A process that was called has no place in this job, or this one none in its.
    Impossible(usize, JoinRefusal),
}

/// What there is of one other process.
struct Slot {
    process: usize,
    /// Which start of that process the connections are to, and which of its attempts made them.
    from: Option<(String, u64)>,
    control: Option<TcpStream>,
    data: Option<TcpStream>,
    /// Why the last call failed.
    problem: Option<String>,
}

impl Slot {
    fn is_full(&self) -> bool {
        self.control.is_some() && self.data.is_some()
    }

    fn take_statement(&mut self, statement: Statement, purpose: Purpose, stream: TcpStream) {
        let from = (statement.instance, statement.attempt);
        if let Some(before) = self.from.as_ref().filter(|before| **before != from) {
            // Those of one start come in the order of its attempts, but for what threads make of it.
            if before.0 == from.0 && before.1 > from.1 {
                return;
            }
            if before.0 != from.0 && self.is_full() {
                warn!(process = self.process, "a process came again: its earlier connections are closed");
            }
            (self.control, self.data) = (None, None);
        }
        self.from = Some(from);
        match purpose {
            Purpose::Control => self.control = Some(stream),
            Purpose::Data => self.data = Some(stream),
        }
        if self.is_full() {
            info!(process = self.process, "a process has joined");
        }
    }
}

fn slots(membership: &Membership) -> Vec<Slot> {
    let others = (0..membership.place.processes).filter(|process| *process != membership.place.process);
    let empty = |process| Slot { process, from: None, control: None, data: None, problem: None };
    others.map(empty).collect()
}

/// The time until all are there.
struct Meeting<'a> {
    membership: &'a Membership,
    listener: TcpListener,
    tell: Sender<News>,
    news: Receiver<News>,
    callers: Arc<AtomicUsize>,
    slots: Vec<Slot>,
    refused: u64,
}

impl Meeting<'_> {
    fn hold(mut self, stop: &AtomicBool) -> Result<Option<Vec<Option<Joined>>>> {
        let within = self.membership.connect_timeout;
        let deadline = Instant::now() + within;
        let mut tell_at = Instant::now() + TELL_EVERY;
        while !self.slots.iter().all(Slot::is_full) {
            if stop.load(Ordering::Relaxed) {
                self.slots.iter().filter_map(|slot| slot.control.as_ref()).for_each(take_leave);
                return Ok(None);
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} within {within:?}: start it, or see cluster.connect_timeout and the host file",
                    self.missing()
                );
            }
            if Instant::now() >= tell_at {
                info!(missing = self.missing(), "waiting for the other processes");
                tell_at = Instant::now() + TELL_EVERY;
            }
            self.receive_callers()?;
            match self.news.recv_timeout(TICK) {
                Ok(news) => self.note(news)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("nobody listens any more, which is a bug"),
            }
        }
        let mut joined: Vec<Option<Joined>> = (0..self.membership.place.processes).map(|_| None).collect();
        for slot in self.slots {
            joined[slot.process] =
                slot.control.zip(slot.data).map(|(control, data)| Joined { control, data });
        }
        Ok(Some(joined))
    }

    /// Lets those who called say who they are, each in a thread of its own: none waits for another.
    fn receive_callers(&mut self) -> Result<()> {
        loop {
            let (stream, from) = match self.listener.accept() {
                Ok(caller) => caller,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Such as a caller that is gone already, or too many open files.
                Err(error) => {
                    debug!(%error, "could not accept a connection");
                    return Ok(());
                }
            };
            if self.callers.fetch_add(1, Ordering::Relaxed) >= CALLERS_MAX {
                self.callers.fetch_sub(1, Ordering::Relaxed);
                let busy = io::Error::other(format!("{CALLERS_MAX} others have not said who they are"));
                self.note(News::Refused(from, JoinRefusal::Broken(busy)))?;
                continue;
            }
            let (membership, tell, callers) =
                (self.membership.clone(), self.tell.clone(), self.callers.clone());
            named(format!("caller {from}"), move || {
                let news = match receive(&membership, &stream) {
                    Ok((statement, purpose)) => News::Met(statement, purpose, stream),
                    Err(refusal) => News::Refused(from, refusal),
                };
                callers.fetch_sub(1, Ordering::Relaxed);
                // Nobody listens when all are there.
                let _ = tell.send(news);
            })?;
        }
    }

    fn note(&mut self, news: News) -> Result<()> {
        match news {
            News::Met(statement, purpose, stream) => {
                let slot = self.slots.iter_mut().find(|slot| slot.process == statement.process);
                if let Some(slot) = slot {
                    slot.take_statement(statement, purpose, stream);
                }
            }
            News::Refused(_, JoinRefusal::Disagrees(how)) => return Err(Misuse(how).into()),
            News::Refused(from, refusal) => {
                self.refused += 1;
                self.membership.refused.with_label_values(&[refusal.name()]).inc();
                warn!(%from, reason = %refusal, "refused a connection to the cluster's port");
            }
            News::Failed(process, problem) => {
                let slot = self.slots.iter_mut().find(|slot| slot.process == process);
                if let Some(slot) = slot {
                    slot.problem = Some(problem);
                }
            }
            News::Impossible(_, JoinRefusal::Disagrees(how)) => return Err(Misuse(how).into()),
            News::Impossible(process, refusal) => {
                let address = &self.membership.addresses[process];
                return Err(Misuse(format!(
                    "process {process} at {address} was not to be joined: {refusal}; give all processes of a job \
                     the same secret"
                ))
                .into());
            }
        }
        Ok(())
    }

    /// Who is missing, and what is known of why.
    fn missing(&self) -> String {
        let mut text = String::new();
        for slot in self.slots.iter().filter(|slot| !slot.is_full()) {
            let (process, address) = (slot.process, &self.membership.addresses[slot.process]);
            let separator = if text.is_empty() { "" } else { "; " };
            let _ = write!(text, "{separator}process {process} at {address} has not joined");
            match &slot.problem {
                Some(problem) => {
                    let _ = write!(text, " ({problem})");
                }
                None if process > self.membership.place.process => {
                    let here = &self.membership.addresses[self.membership.place.process];
                    let _ = write!(text, " (it calls this one at {here}, and did not)");
                }
                None => {}
            }
        }
        if self.refused > 0 {
            let _ = write!(text, "; {} other connections were refused, as the log says", self.refused);
        }
        text
    }
}

/// Listens where the host file, or `--bind`, says.
fn listen(membership: &Membership) -> Result<TcpListener> {
    let place = membership.place;
    let named = &membership.addresses[place.process];
    let address = membership.bind.as_ref().unwrap_or(named);
    let what = || format!("process {} could not listen at {address}", place.process);
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().with_context(what)?.collect();
    let listener = TcpListener::bind(&addresses[..])
        .with_context(|| format!("{}; it is what the host file, or --bind, says of this machine", what()))?;
    listener.set_nonblocking(true).with_context(what)?;
    let bound = listener.local_addr().with_context(what)?;
    info!(process = place.process, processes = place.processes, address = %bound, "waiting for the other processes");
    if !bound.ip().is_loopback() {
        warn!(
            address = %bound,
            "what processes send each other is not encrypted: others on that network can read and change it"
        );
    }
    Ok(listener)
}

fn receive(membership: &Membership, stream: &TcpStream) -> Result<(Statement, Purpose), JoinRefusal> {
    // Accepted sockets of some systems inherit it.
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let (statement, purpose) = accept(stream, &membership.secret, &membership.statement)?;
    if statement.process <= membership.place.process || statement.process >= membership.place.processes {
        let (claimed, own) = (statement.process, membership.place.process);
        return Err(JoinRefusal::Disagrees(format!(
            "one that says it is process {claimed} has called this one, which is process {own}: are there two with \
             one number?"
        )));
    }
    Ok((statement, purpose))
}

/// Calls a process until it is met, or the time is over.
fn call(membership: &Membership, process: usize, tell: &Sender<News>, over: &AtomicBool) {
    let mut pause = Duration::from_millis(20);
    for attempt in 1.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let news = match meet(membership, process, attempt) {
            Ok(met) => {
                for (statement, purpose, stream) in met {
                    let _ = tell.send(News::Met(statement, purpose, stream));
                }
                return;
            }
            Err(NotMet::Away(problem)) => News::Failed(process, problem),
            Err(NotMet::Refused(JoinRefusal::Broken(error))) => {
                News::Failed(process, JoinRefusal::Broken(error).to_string())
            }
            Err(NotMet::Refused(refusal)) => {
                let _ = tell.send(News::Impossible(process, refusal));
                return;
            }
        };
        if tell.send(news).is_err() {
            return;
        }
        thread::sleep(pause);
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

/// Why a process was not met.
enum NotMet {
    Away(String),
    Refused(JoinRefusal),
}

impl From<io::Error> for NotMet {
    fn from(error: io::Error) -> NotMet {
        NotMet::Away(error.to_string())
    }
}

type Met = [(Statement, Purpose, TcpStream); 2];

/// One attempt to make both connections.
fn meet(membership: &Membership, process: usize, attempt: u64) -> Result<Met, NotMet> {
    let ours = Statement { other: process, attempt, ..membership.statement.clone() };
    let one = |purpose| -> Result<_, NotMet> {
        let stream = reach(&membership.addresses[process])?;
        stream.set_nodelay(true)?;
        let statement = dial(&stream, purpose, &membership.secret, &ours).map_err(NotMet::Refused)?;
        if statement.process != process {
            let problem = format!("process {} answers at its address", statement.process);
            return Err(NotMet::Refused(JoinRefusal::Disagrees(problem)));
        }
        Ok((statement, purpose, stream))
    };
    let met = [one(Purpose::Control)?, one(Purpose::Data)?];
    if met[0].0.instance == met[1].0.instance {
        Ok(met)
    } else {
        Err(NotMet::Away("it started again meanwhile".to_owned()))
    }
}

/// Opens a connection to an address, which may stand for several.
fn reach(address: &str) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "its name stands for no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CALL_WITHIN) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn named(name: String, run: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name)
        .spawn(run)
        .map_err(|error| anyhow!("could not start a thread: {error}"))?;
    Ok(())
}

/// The longest that one caller holds a place among [`CALLERS_MAX`].
const _: () = assert!(handshake::WITHIN.as_secs() <= 10, "strangers shall not keep peers out for long");
