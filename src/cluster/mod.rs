//! Several processes of one job: how they find each other, make sure of each other, and stop together.
//!
//! ```text
//! hosts, secret ─► connect (handshake with each) ─┬─► data sockets ─► timely
//!                                                 └─► control: ready, stop, failed, ended, and that it is there
//! ```
//! Timely has no authentication, waits for ever for a process that is missing, and takes any caller for one. So the
//! connections are made here, and it gets those of processes that have proven to know the job's secret.

pub mod connect;
mod control;
pub mod handshake;
pub mod hosts;
pub mod place;
pub mod secret;

use std::any::Any;
use std::net::TcpStream;
use std::panic;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use prometheus::IntCounterVec;
use timely::communication::Hooks;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};

use crate::hex::hex;
use connect::{Joined, connect};
use control::Control;
use handshake::Statement;
use place::ProcessPlace;
use secret::Secret;

/// What a process needs to join those of its job.
#[derive(Clone)]
pub struct Membership {
    pub place: ProcessPlace,
    /// By process.
    pub addresses: Vec<String>,
    /// Where to listen, when that is not what `addresses` says.
    pub bind: Option<String>,
    pub secret: Secret,
    pub statement: Statement,
    pub connect_timeout: Duration,
    /// Callers that were refused, by reason.
    pub refused: IntCounterVec,
}

/// A process among those of its job.
pub struct Cluster {
    place: ProcessPlace,
    control: Arc<Control>,
    /// To the other processes, until timely has them.
    sockets: Mutex<Option<Vec<Option<TcpStream>>>>,
}

impl Cluster {
    /// Joins the other processes; `None` where this one was told to stop meanwhile. From now on they set `stop` too.
    ///
    /// # Errors
    /// When one is missing for too long or has no place in this job.
    pub fn join(membership: &Membership, stop: &Arc<AtomicBool>) -> Result<Option<Cluster>> {
        let Some(joined) = connect(membership, stop)? else { return Ok(None) };
        let place = membership.place;
        let (controls, sockets): (Vec<_>, Vec<_>) = joined
            .into_iter()
            .map(|joined| joined.map(|Joined { control, data }| (control, data)).unzip())
            .unzip();
        for socket in sockets.iter().flatten() {
            let without_limits = socket.set_read_timeout(None).and_then(|()| socket.set_write_timeout(None));
            without_limits.context("could not set up the connections to the other processes")?;
        }
        let control = Control::start(place, membership.addresses.clone(), controls, stop.clone())?;
        end_with_lost_peers(control.clone());
        Ok(Some(Cluster { place, control, sockets: Mutex::new(Some(sockets)) }))
    }

    /// Which part of the job this process is.
    pub fn place(&self) -> ProcessPlace {
        self.place
    }

    /// Waits until this process may look for topics and offsets; `false` where the job ends instead. Process 0 looks
    /// first, so that topics are created and origins fixed once.
    ///
    /// # Errors
    /// When a process has failed meanwhile.
    pub fn await_turn(&self) -> Result<bool> {
        if self.place.process == 0 { Ok(true) } else { self.control.await_first() }
    }

    /// Waits until all processes know their shards, which must be the same; `false` where the job ends instead.
    ///
    /// # Errors
    /// When a process has failed meanwhile, or sees other shards.
    pub fn await_all(&self, shards: &[String]) -> Result<bool> {
        use sha2::{Digest as _, Sha256};
        self.control.await_all(&hex(&Sha256::digest(shards.join("\n"))))
    }

    /// What timely's workers of this process are made of, and what must live as long as they.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn builders(&self) -> Result<(Vec<AllocatorBuilder>, Box<dyn Any + Send>)> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner).take();
        let sockets = sockets.context("the connections are in use already, which is a bug")?;
        let hooks = Hooks::default();
        let inside =
            ProcessBuilder::new_typed_vector(self.place.workers, hooks.refill.clone(), hooks.spill.clone());
        let ProcessPlace { process, workers, .. } = self.place;
        let (builders, guard) = initialize_networking_from_sockets(inside, sockets, process, workers, hooks)
            .map_err(|error| anyhow!("could not hand the connections to the dataflow: {error}"))?;
        Ok((builders.into_iter().map(AllocatorBuilder::Tcp).collect(), Box::new(guard)))
    }

    /// Which other process has failed and why, if one has.
    pub fn failure(&self) -> Option<String> {
        self.control.failure()
    }

    /// Tells the others that this process can't go on, so that they end too. Once is enough.
    pub fn fail(&self, why: &str) {
        self.control.fail(why);
    }

    /// Parts from the others: in order, when `problem` is none, and then not before they have ended too, for at most
    /// so long.
    pub fn end(&self, problem: Option<&str>, at_most: Duration) {
        match problem {
            None => self.control.end(at_most),
            Some(why) => self.control.end_failed(why),
        }
    }
}

/// How timely begins what it says when a connection broke.
const BROKEN: &str = "timely communication error:";

/// Timely's threads panic when a process is gone: the person on call reads which one, and no backtrace.
fn end_with_lost_peers(control: Arc<Control>) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        let thread = thread::current();
        let process = thread.name().and_then(|name| name.rsplit('-').next()?.parse().ok());
        match (what.payload_as_str(), process) {
            (Some(text), Some(process)) if text.starts_with(BROKEN) => {
                control.lose(process, text.trim_start_matches(BROKEN).trim())
            }
            _ => before(what),
        }
    }));
}
