//! Lets go of clients without waiting for them.
//!
//! The library ends a client only when its threads have, and those may wait for brokers: a consumer of a partition that
//! has lost its leader for good (librdkafka issue 5430) is never done closing. Who lets go of one goes on at once.

use std::ops::Deref;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Clients that have not ended yet.
static ENDING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// A client that ends by itself, on a thread of its own, when it is let go of.
pub struct Closing<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Closing<T> {
    pub fn new(client: T) -> Closing<T> {
        Closing(Some(client))
    }
}

impl<T: Send + 'static> Deref for Closing<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("only its end takes it")
    }
}

impl<T: Send + 'static> Drop for Closing<T> {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            close_in_background(client);
        }
    }
}

/// Has something end on a thread of its own.
pub fn close_in_background(clients: impl Send + 'static) {
    *ENDING.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    // In this order: they have ended when the second is let go of.
    let closing = (clients, Ended);
    let end = move || drop(closing);
    // Where no thread can be had they end here.
    let _ = thread::Builder::new().name("parting".to_owned()).spawn(end);
}

/// Notes an end when it is let go of itself.
struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        *ENDING.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDING.1.notify_all();
    }
}

/// Waits until all that was let go of has ended, at most so long: a process that is about to exit should not pull the
/// ground from under their threads.
pub fn await_closed(at_most: Duration) {
    let (count, ended) = &ENDING;
    let count = count.lock().unwrap_or_else(PoisonError::into_inner);
    // What takes longer waits for brokers, and loses nothing.
    let _ = ended.wait_timeout_while(count, at_most, |count| *count > 0);
}
