//! Connections beyond the limit: probes are answered on them, and nothing else.
//!
//! ```text
//! connection ─► head (8 KiB, 1 s) ─┬─► a place has become free ─► served as others are
//!                                  ├─► a probe ─► its answer ─► closed
//!                                  └─► anything else ─► 503 ─► closed
//! ```
//! An orchestrator that gets no answer to its probe kills the job, and clients that keep all connections must not
//! bring that about. These places can't be kept: where all are taken, the newest connection displaces the oldest.
//! A probe sends its request at once, so it is answered before as many others have come.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::debug;

use crate::metrics::{HttpMetrics, TurnedAway};

use super::answer::HttpProblem;
use super::connections::{MAX_HEADERS, await_stop};
use super::stream::Bounded;

/// The endpoints that are answered however many connections are open.
pub const PROBES: [&str; 4] = ["/health", "/ready", "/version", "/metrics"];

/// How long the head of a request may take to arrive; as long may the answer take to be taken.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The most bytes of a head that are looked at; hyper takes no fewer.
const MAX_HEAD_BYTES: usize = 8 << 10;
/// How much of what a client goes on sending is taken and forgotten: closed at once, the connection would be reset,
/// and the answer lost on its way.
const DRAINED_BYTES: usize = 1 << 20;
/// After so many seconds a client may try again.
pub const RETRY_AFTER: &str = "1";

/// Why a request is not served beyond the limit.
pub fn refusal(reason: TurnedAway, max_connections: usize) -> HttpProblem {
    let [health, ready, version, metrics] = PROBES;
    let why = match reason {
        TurnedAway::LargeHead => format!("of a request's head {} KiB are read now", MAX_HEAD_BYTES >> 10),
        TurnedAway::Slow => format!("the request's head did not arrive within {TIMEOUT:?}"),
        TurnedAway::NoProbe | TurnedAway::Displaced => {
            format!("{health}, {ready}, {version} and {metrics} alone are answered now")
        }
    };
    let error = format!(
        "{max_connections} connections are open, the most there may be (http.max_connections): {why}; try again later"
    );
    HttpProblem::new(StatusCode::SERVICE_UNAVAILABLE, error)
}

/// The places beyond the limit.
pub struct Overflow<F> {
    places: Places<F>,
    /// The oldest first; those that are finished are taken out when the next comes.
    taken: VecDeque<JoinHandle<()>>,
    most: usize,
}

/// What each place needs.
pub struct Places<F> {
    /// Answers probes alone.
    pub router: Router,
    pub metrics: HttpMetrics,
    /// The places within the limit, so many in all.
    pub permits: Arc<Semaphore>,
    pub max_connections: usize,
    /// Serves a connection within the limit, of which these bytes are read.
    pub give: F,
    pub stop: watch::Receiver<bool>,
}

impl<F: Fn(TcpStream, Vec<u8>, OwnedSemaphorePermit) + Clone + Send + 'static> Overflow<F> {
    /// So many places, none of them taken.
    pub fn new(places: Places<F>, most: usize) -> Overflow<F> {
        Overflow { places, taken: VecDeque::with_capacity(most), most }
    }

    /// Serves a connection; where all places are taken the oldest gives its own away.
    pub fn admit(&mut self, stream: TcpStream) {
        self.taken.retain(|place| !place.is_finished());
        if self.taken.len() >= self.most
            && let Some(oldest) = self.taken.pop_front()
        {
            oldest.abort();
        }
        let place = Place {
            open: OpenProbe::new(self.places.metrics.clone()),
            places: self.places.clone(),
            head: Vec::new(),
        };
        self.taken.push_back(tokio::spawn(place.serve(stream)));
    }

    /// Waits for those that are still served.
    pub async fn finish(self) {
        for place in self.taken {
            // One that was displaced is over too.
            let _ = place.await;
        }
    }
}

impl<F: Clone> Clone for Places<F> {
    fn clone(&self) -> Places<F> {
        Places {
            router: self.router.clone(),
            metrics: self.metrics.clone(),
            permits: self.permits.clone(),
            max_connections: self.max_connections,
            give: self.give.clone(),
            stop: self.stop.clone(),
        }
    }
}

impl<F> fmt::Debug for Overflow<F> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Overflow").field("taken", &self.taken.len()).field("most", &self.most).finish()
    }
}

/// Counts a connection beyond the limit for as long as it is there.
struct OpenProbe {
    metrics: HttpMetrics,
    /// Whether its request is still to come: where that ends it, it was displaced.
    is_awaited: bool,
}

impl OpenProbe {
    fn new(metrics: HttpMetrics) -> OpenProbe {
        metrics.probe_connections.inc();
        OpenProbe { metrics, is_awaited: true }
    }
}

impl Drop for OpenProbe {
    fn drop(&mut self) {
        self.metrics.probe_connections.dec();
        if self.is_awaited {
            self.metrics.turn_away(TurnedAway::Displaced);
        }
    }
}

/// One connection beyond the limit.
struct Place<F> {
    places: Places<F>,
    /// What is read of it.
    head: Vec<u8>,
    open: OpenProbe,
}

/// How the reading of a head ended.
enum HeadEnd {
    Whole,
    TooLarge,
    /// The client has closed its half, or is gone, or the server is to stop.
    Gone,
}

impl<F: Fn(TcpStream, Vec<u8>, OwnedSemaphorePermit)> Place<F> {
    async fn serve(mut self, stream: TcpStream) {
        let mut stop = self.places.stop.clone();
        let end = tokio::select! {
            end = timeout(TIMEOUT, self.read_head(&stream)) => end,
            () = await_stop(&mut stop) => Ok(HeadEnd::Gone),
        };
        self.open.is_awaited = false;
        match end {
            Ok(HeadEnd::Whole) => match self.places.permits.clone().try_acquire_owned() {
                Ok(permit) => (self.places.give)(stream, self.head, permit),
                Err(_) => self.answer(stream).await,
            },
            Ok(HeadEnd::TooLarge) => self.turn_away(stream, TurnedAway::LargeHead).await,
            Ok(HeadEnd::Gone) => {}
            // A client that has asked nothing would not know what this answers.
            Err(_) if self.head.is_empty() => self.places.metrics.turn_away(TurnedAway::Slow),
            Err(_) => self.turn_away(stream, TurnedAway::Slow).await,
        }
    }

    async fn read_head(&mut self, stream: &TcpStream) -> HeadEnd {
        let mut part = [0; 1024];
        loop {
            let room = part.len().min(MAX_HEAD_BYTES - self.head.len());
            match next(stream, &mut part[..room]).await {
                Ok(read @ 1..) => self.head.extend_from_slice(&part[..read]),
                _ => return HeadEnd::Gone,
            }
            if memmem::find(&self.head, b"\n\r\n").or_else(|| memmem::find(&self.head, b"\n\n")).is_some() {
                return HeadEnd::Whole;
            }
            if self.head.len() == MAX_HEAD_BYTES {
                return HeadEnd::TooLarge;
            }
        }
    }

    /// Answers the request whose head is read, and closes.
    async fn answer(&mut self, stream: TcpStream) {
        let head = std::mem::take(&mut self.head);
        let stream = TokioIo::new(Lingering::new(Bounded::resumed(stream, TIMEOUT, head)));
        let router = TowerToHyperService::new(self.places.router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .keep_alive(false)
            .half_close(true)
            .serve_connection(stream, router);
        // Once for the answer and once for the close.
        match timeout(2 * TIMEOUT, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "http connection beyond the limit ended early"),
            Err(_) => debug!("a client beyond the limit of http connections did not close in time"),
        }
    }

    /// Says why nothing is served, without having read what was asked.
    async fn turn_away(&mut self, stream: TcpStream, reason: TurnedAway) {
        self.places.metrics.turn_away(reason);
        let problem = refusal(reason, self.places.max_connections);
        let body = serde_json::to_vec(&problem.body).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             retry-after: {RETRY_AFTER}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let answer = [head.into_bytes(), body].concat();
        if let Ok(Ok(())) = timeout(TIMEOUT, send(&stream, &answer)).await {
            let mut stream = Lingering::new(Bounded::new(stream, TIMEOUT));
            let _ = timeout(TIMEOUT, poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context))).await;
        }
    }
}

/// The next bytes of a connection; 0 at its end.
async fn next(stream: &TcpStream, part: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read(part) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

async fn send(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A connection that, when it has said that there is no more to come, waits for the client to say so too, and passes
/// over what it still sends.
struct Lingering {
    stream: Bounded,
    is_shut: bool,
    drained: usize,
}

impl Lingering {
    fn new(stream: Bounded) -> Lingering {
        Lingering { stream, is_shut: false, drained: 0 }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.is_shut = true;
        }
        let mut part = [0; 4096];
        while self.drained < DRAINED_BYTES {
            let mut buffer = ReadBuf::new(&mut part);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.drained += buffer.filled().len(),
                // The end, or a client that has reset the connection.
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
