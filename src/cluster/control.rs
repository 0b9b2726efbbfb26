//! What the processes of a running job tell each other, beside the dataflow.
//!
//! ```text
//! frame: kind (1 byte), length (2 bytes), text
//!   ping     I am here                              each second
//!   ready    I know my shards, by this list         once; the dataflow begins when all have said so
//!   stop     I was told to stop: stop too
//!   failed   I can't go on, for this reason
//!   ended    I have ended in order
//! ```
//! A process that is gone without `ended`, or silent for too long, ends this one at once: timely can't go on without
//! it, and can't take it back.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tracing::{error, info, warn};

use super::place::ProcessPlace;

/// How often the wish to stop is looked for.
const TICK: Duration = Duration::from_millis(50);

/// How often a process says that it is there.
const PING_EVERY: Duration = Duration::from_secs(1);

/// A process of which nothing came for so long is taken for gone.
const SILENT_MAX: Duration = Duration::from_secs(15);

/// How long a frame may take to be sent: it's a few bytes.
const SEND_WITHIN: Duration = Duration::from_secs(1);

/// How long this process may take to end behind one that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(20);

/// How long a process that failed waits for the others to have heard of it.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// The most bytes of a frame's text.
const TEXT_BYTES_MAX: usize = 4096;

/// The exit status of a process that a lost one takes along.
const LOST: i32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ping = 1,
    Ready = 2,
    Stop = 3,
    Failed = 4,
    Ended = 5,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        [Kind::Ping, Kind::Ready, Kind::Stop, Kind::Failed, Kind::Ended]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// What is known of another process.
#[derive(Clone, Debug, Default)]
struct Peer {
    ready: Option<String>,
    failed: Option<String>,
    ended: bool,
    closed: bool,
}

/// The connections of one process to all others.
pub struct Control {
    place: ProcessPlace,
    addresses: Vec<String>,
    /// By process; `None` at this one's place.
    writers: Vec<Option<Mutex<TcpStream>>>,
    /// By process.
    peers: Mutex<Vec<Peer>>,
    changed: Condvar,
    stop: Arc<AtomicBool>,
    /// This process has ended or failed: others may go.
    leaving: AtomicBool,
    /// Held for ever by the first who has to end the process.
    lost: Mutex<()>,
}

impl Control {
    /// Begins to listen to these connections, by process.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn start(
        place: ProcessPlace,
        addresses: Vec<String>,
        connections: Vec<Option<TcpStream>>,
        stop: Arc<AtomicBool>,
    ) -> Result<Arc<Control>> {
        let what = "could not set up the connections to the other processes";
        let mut readers = Vec::new();
        let mut writers = Vec::new();
        for (process, connection) in connections.into_iter().enumerate() {
            let Some(stream) = connection else {
                writers.push(None);
                continue;
            };
            stream.set_read_timeout(Some(SILENT_MAX)).context(what)?;
            stream.set_write_timeout(Some(SEND_WITHIN)).context(what)?;
            readers.push((process, stream.try_clone().context(what)?));
            writers.push(Some(Mutex::new(stream)));
        }
        let control = Arc::new(Control {
            place,
            addresses,
            peers: Mutex::new(vec![Peer::default(); writers.len()]),
            writers,
            changed: Condvar::new(),
            stop,
            leaving: AtomicBool::new(false),
            lost: Mutex::default(),
        });
        for (process, stream) in readers {
            let listening = control.clone();
            let listener = thread::Builder::new().name(format!("process {process}"));
            listener.spawn(move || listening.listen(process, stream)).context(what)?;
        }
        let telling = control.clone();
        thread::Builder::new().name("pulse".to_owned()).spawn(move || telling.pulse()).context(what)?;
        Ok(control)
    }

    /// Waits until process 0 is ready, which creates topics and fixes where the job begins; `false` where the job is
    /// to end instead.
    ///
    /// # Errors
    /// When a process has failed meanwhile.
    pub fn await_first(&self) -> Result<bool> {
        self.await_that(|peers| peers[0].ready.is_some(), true)
    }

    /// Says that this process knows its shards, and waits until all say the same of theirs; `false` where the job is
    /// to end instead.
    ///
    /// # Errors
    /// When a process has failed meanwhile, or sees other shards.
    pub fn await_all(&self, shards: &str) -> Result<bool> {
        self.tell(Kind::Ready, shards);
        let own = self.place.process;
        // Who has said that it is ready stays until each other is, or has left: so all begin, or none.
        let all_ready = |peers: &[Peer]| {
            peers.iter().enumerate().all(|(process, peer)| process == own || peer.ready.is_some())
        };
        if !self.await_that(all_ready, false)? {
            return Ok(false);
        }
        let peers = self.peers();
        let differs = |(_, peer): &(usize, &Peer)| peer.ready.as_deref().is_some_and(|ready| ready != shards);
        if let Some((process, _)) = peers.iter().enumerate().find(differs) {
            bail!("process {process} sees other topics or partitions than this one; start the job again");
        }
        Ok(true)
    }

    fn await_that(&self, is_so: impl Fn(&[Peer]) -> bool, may_stop: bool) -> Result<bool> {
        let mut peers = self.peers();
        loop {
            if let Some(why) = failure(&peers) {
                bail!("{why}");
            }
            if is_so(&peers) {
                return Ok(true);
            }
            if peers.iter().any(|peer| peer.ended) || (may_stop && self.stop.load(Ordering::Relaxed)) {
                return Ok(false);
            }
            // With a bound, because signals wake nobody.
            let waited = self.changed.wait_timeout(peers, TICK).unwrap_or_else(PoisonError::into_inner);
            peers = waited.0;
        }
    }

    /// Which other process has failed and why, if one has.
    pub fn failure(&self) -> Option<String> {
        failure(&self.peers())
    }

    /// Tells the others, once, that this process can't go on.
    pub fn fail(&self, why: &str) {
        if !self.leaving.swap(true, Ordering::AcqRel) {
            self.tell(Kind::Failed, why);
        }
    }

    /// Tells the others that this process has ended in order, and waits until they have too, for at most so long.
    pub fn end(&self, at_most: Duration) {
        self.leaving.store(true, Ordering::Release);
        if self.stop.load(Ordering::Relaxed) {
            // The pulse may have had no time to.
            self.tell(Kind::Stop, "");
        }
        self.tell(Kind::Ended, "");
        if !self.close(at_most) {
            warn!("other processes have not ended yet; this one has, in order");
        }
    }

    /// Tells the others that this process has failed, and gives them a moment to hear it.
    pub fn end_failed(&self, why: &str) {
        self.fail(why);
        self.close(HEARD_WITHIN);
    }

    /// Ends this process because another is gone. Whoever comes second waits for the end.
    pub fn lose(&self, process: usize, how: &str) -> ! {
        let _first = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let address = &self.addresses[process];
        match self.peers()[process].failed.clone() {
            Some(why) => error!(process, address, why, "another process has failed; ending at once"),
            None => error!(
                process,
                address,
                how,
                "lost a process of this job, and ending with it: all stop together and start together; its own log \
                 says why, and what was not committed is read again"
            ),
        }
        // No destructors: threads are in the middle of things, and recovery is the next start's.
        signal_hook::low_level::exit(LOST)
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, kind: Kind, text: &str) {
        let frame = frame(kind, text);
        for writer in self.writers.iter().flatten() {
            // One that is gone is met by its reader.
            let _ = writer.lock().unwrap_or_else(PoisonError::into_inner).write_all(&frame);
        }
    }

    /// Says no more, and waits until nobody else does; whether all had closed in time.
    fn close(&self, at_most: Duration) -> bool {
        for writer in self.writers.iter().flatten() {
            let _ = writer.lock().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Write);
        }
        let deadline = Instant::now() + at_most;
        let own = self.place.process;
        let mut peers = self.peers();
        loop {
            if peers.iter().enumerate().all(|(process, peer)| process == own || peer.closed || peer.ended) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            peers = self.changed.wait_timeout(peers, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Says each second that this process is there, and once that it was told to stop.
    fn pulse(&self) {
        let mut said_stop = false;
        let mut pinged = Instant::now();
        while !self.leaving.load(Ordering::Acquire) {
            if !said_stop && self.stop.load(Ordering::Relaxed) {
                self.tell(Kind::Stop, "");
                said_stop = true;
            }
            if pinged.elapsed() >= PING_EVERY {
                self.tell(Kind::Ping, "");
                pinged = Instant::now();
            }
            thread::sleep(TICK);
        }
    }

    fn listen(&self, process: usize, mut stream: TcpStream) {
        let problem = loop {
            match read(&mut stream) {
                Ok((kind, text)) => self.note(process, kind, text),
                Err(error) => break error,
            }
        };
        let mut peers = self.peers();
        peers[process].closed = true;
        let peer = peers[process].clone();
        drop(peers);
        self.changed.notify_all();
        if peer.ended {
            return;
        }
        if self.leaving.load(Ordering::Acquire) {
            return info!(process, "a process is gone that had not ended; this one has no more need of it");
        }
        if peer.failed.is_some() {
            // The job learns of it and ends in order, unless something of it waits for the other process.
            thread::sleep(AFTER_FAILURE);
        }
        self.lose(process, &describe(&problem));
    }

    fn note(&self, process: usize, kind: Kind, text: String) {
        match kind {
            Kind::Ping => return,
            Kind::Stop => {
                if !self.stop.swap(true, Ordering::Relaxed) {
                    info!(process, "another process was told to stop, so this one stops too");
                }
            }
            Kind::Ready => self.peers()[process].ready = Some(text),
            Kind::Failed => self.peers()[process].failed = Some(text),
            Kind::Ended => self.peers()[process].ended = true,
        }
        self.changed.notify_all();
    }
}

/// Takes leave of a process that may take this one for joined, and was told to stop before all were.
pub fn take_leave(mut stream: &TcpStream) {
    let words = [frame(Kind::Stop, ""), frame(Kind::Ended, "")].concat();
    // One that is gone has no need of it.
    let _ = stream.set_write_timeout(Some(SEND_WITHIN)).and_then(|()| stream.write_all(&words));
}

fn failure(peers: &[Peer]) -> Option<String> {
    let failed = peers.iter().enumerate().find_map(|(process, peer)| Some((process, peer.failed.as_ref()?)));
    failed.map(|(process, why)| format!("process {process} has failed: {why}"))
}

/// What an error of a connection means.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("nothing came from it for {} s", SILENT_MAX.as_secs())
        }
        io::ErrorKind::UnexpectedEof => "it has died or was ended".to_owned(),
        _ => error.to_string(),
    }
}

fn frame(kind: Kind, text: &str) -> Vec<u8> {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut frame = vec![kind as u8];
    frame.extend((end as u16).to_be_bytes());
    frame.extend(&text.as_bytes()[..end]);
    frame
}

fn read(stream: &mut TcpStream) -> io::Result<(Kind, String)> {
    let mut head = [0; 3];
    stream.read_exact(&mut head)?;
    let unknown = || io::Error::new(io::ErrorKind::InvalidData, "it says what this version doesn't know");
    let kind = Kind::of(head[0]).ok_or_else(unknown)?;
    let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
    if length > TEXT_BYTES_MAX {
        return Err(unknown());
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    Ok((kind, String::from_utf8(text).map_err(|_| unknown())?))
}
