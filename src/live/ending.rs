//! What ends a job: a failure here or in another process, a stop from outside, the end of its workers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::cluster::Cluster;
use crate::halt::Halt;

/// What ends one attempt of a job, in this order: it is told to stop or halts, workers read no more and deliver, the
/// others commit what is delivered and end.
pub struct Ending {
    /// Set when the job can't go on: nothing more is delivered.
    pub halt: Halt,
    /// Set from outside: read no more and deliver what was begun.
    stop: Arc<AtomicBool>,
    /// The workers have ended, so nothing more will be delivered.
    delivered: AtomicBool,
    /// When the process was last not let run for as long as a transaction may take.
    stood_still: Mutex<Option<Instant>>,
    /// How long a transaction may take.
    transaction_timeout: Duration,
    /// The other processes of the job, if there are any.
    pub cluster: Option<Arc<Cluster>>,
}

impl Ending {
    /// Nothing ends yet.
    pub fn new(
        stop: Arc<AtomicBool>,
        transaction_timeout: Duration,
        cluster: Option<Arc<Cluster>>,
    ) -> Ending {
        Ending {
            halt: Halt::default(),
            stop,
            delivered: AtomicBool::new(false),
            stood_still: Mutex::default(),
            transaction_timeout,
            cluster,
        }
    }

    /// Whether the job was told from outside to stop.
    pub fn was_told_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether workers are to read no more.
    pub fn is_stopping(&self) -> bool {
        self.was_told_to_stop() || self.halt.is_set()
    }

    /// Notes that the workers have ended: nothing more will be delivered.
    pub fn note_delivered(&self) {
        self.delivered.store(true, Ordering::Release);
    }

    /// Whether all that will be delivered is delivered.
    pub fn is_delivered(&self) -> bool {
        self.delivered.load(Ordering::Acquire)
    }

    /// Notes how long the process has just stood still.
    pub fn note_pause(&self, pause: Duration) {
        if pause >= self.transaction_timeout {
            let mut stood_still = self.stood_still.lock().unwrap_or_else(PoisonError::into_inner);
            *stood_still = Some(Instant::now());
        }
    }

    /// Whether the process has lately stood still for so long that another one may have been started in its place.
    pub fn has_stood_still(&self) -> bool {
        let stood_still = self.stood_still.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = 2 * self.transaction_timeout;
        stood_still.is_some_and(|until| until.elapsed() < lately)
    }

    /// Ends the job with the other processes, and has them end with this one.
    pub fn end_with_others(&self) {
        let Some(cluster) = &self.cluster else { return };
        if let Some(why) = cluster.failure() {
            self.halt.fail(anyhow!(why));
        }
        if self.halt.is_set() {
            cluster.fail(&self.halt.text().unwrap_or_default());
        }
    }
}
