//! Reads the log on a thread of its own: standard input may be silent for long, and a stop shall not wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use foreshock_dataflows::batch::Chunk;
use foreshock_dataflows::decode::LogFile;

use crate::recordings::log::{LogSettings, RecordedLog};

/// Chunks read ahead.
const AHEAD: usize = 2;

/// How often something that waits looks whether it shall stop.
pub const TICK: Duration = Duration::from_millis(50);

/// What comes from the log.
pub enum ReaderMessage {
    /// A pass begins; what each file holds.
    Opened(Arc<[LogFile]>),
    Chunk(Chunk),
    /// The pass has ended.
    Ended,
}

/// Reads the log to its end, or again and again, until nobody listens any more.
///
/// # Errors
/// When no thread can be started; what goes wrong with the log comes through the channel, as its last news.
pub fn read(settings: LogSettings, looped: bool) -> Result<Receiver<Result<ReaderMessage>>> {
    let (news, receiver) = bounded(AHEAD);
    let work = move || {
        loop {
            match pass(&settings, &news) {
                Ok(true) if looped => {}
                Ok(_) => break,
                Err(error) => {
                    // Nobody may listen any more.
                    let _ = news.send(Err(error));
                    break;
                }
            }
        }
    };
    thread::Builder::new().name("reader".into()).spawn(work).context("could not start the reader")?;
    Ok(receiver)
}

/// One pass; `false`: nobody listens any more.
fn pass(settings: &LogSettings, news: &Sender<Result<ReaderMessage>>) -> Result<bool> {
    let tell = |what| news.send(Ok(what)).is_ok();
    let mut log = RecordedLog::open(settings)?;
    if !tell(ReaderMessage::Opened(log.files())) {
        return Ok(false);
    }
    loop {
        match log.next_chunk()? {
            Some(chunk) => {
                if !tell(ReaderMessage::Chunk(chunk)) {
                    return Ok(false);
                }
            }
            None if log.is_waiting() => thread::sleep(TICK),
            None => break,
        }
    }
    Ok(tell(ReaderMessage::Ended))
}

/// The next news of the log; `None`: stopped, or there is no more.
pub fn next(news: &Receiver<Result<ReaderMessage>>, stop: &AtomicBool) -> Result<Option<ReaderMessage>> {
    loop {
        match news.recv_timeout(TICK) {
            _ if stop.load(Ordering::Relaxed) => return Ok(None),
            Ok(what) => return what.map(Some),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}
