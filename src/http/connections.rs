//! Accepts connections and bounds what each may cost: how many, how long, how large a head.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::config;
use crate::metrics::HttpMetrics;

use super::overflow::{Overflow, Places};
use super::routes::Routers;
use super::stream::Bounded;

/// How long requests in progress get to finish when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait before the next try when the system has no connection to give, as when files run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The most bytes of a request's head, and of what is read or written at a time.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// The most headers of a request.
pub(super) const MAX_HEADERS: usize = 100;

/// Serves until `stop` says so, then finishes what has begun.
pub async fn serve(
    listener: TcpListener,
    routers: Routers,
    settings: config::Http,
    metrics: HttpMetrics,
    mut stop: watch::Receiver<bool>,
) {
    let most = u32::try_from(settings.max_connections).unwrap_or(u32::MAX);
    let permits = Arc::new(Semaphore::new(most as usize));
    let give = {
        let (metrics, stop) = (metrics.clone(), stop.clone());
        move |stream, read, permit| {
            let open = Open { metrics: metrics.clone(), _permit: permit };
            open.metrics.connections.inc();
            let stream = Bounded::resumed(stream, settings.timeout, read);
            tokio::spawn(connection(stream, routers.all.clone(), settings.timeout, stop.clone(), open));
        }
    };
    let places = Places {
        router: routers.probes,
        metrics: metrics.clone(),
        permits: permits.clone(),
        max_connections: settings.max_connections,
        give: give.clone(),
        stop: stop.clone(),
    };
    let mut overflow = Overflow::new(places, settings.probe_connections);
    tokio::select! {
        biased;
        () = await_stop(&mut stop) => {}
        () = accept(&listener, &permits, give, &mut overflow, &metrics) => {}
    }
    drop(listener);
    let finish = async {
        overflow.finish().await;
        // They are never closed.
        let _ = permits.acquire_many(most).await;
    };
    if timeout(STOP_TIMEOUT, finish).await.is_err() {
        let open = most as usize - permits.available_permits();
        warn!(open, "http connections are cut off: their requests did not finish in time");
    }
}

/// Gives connections away as they come: as long as there are permits to be served, and further ones to the overflow.
async fn accept<F>(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    give: F,
    overflow: &mut Overflow<F>,
    metrics: &HttpMetrics,
) where
    F: Fn(TcpStream, Vec<u8>, OwnedSemaphorePermit) + Clone + Send + 'static,
{
    let mut is_failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                is_failing = false;
                // Answers are written whole: waiting to fill a packet would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "could not turn off the delay of an http connection");
                }
                match permits.clone().try_acquire_owned() {
                    Ok(permit) => give(stream, Vec::new(), permit),
                    Err(_) => {
                        metrics.connections_full.inc();
                        overflow.admit(stream);
                        // Those that have sent their request are answered before one more displaces them.
                        yield_now().await;
                    }
                }
            }
            Err(error) => {
                if !is_failing {
                    warn!(%error, "could not accept an http connection; trying again");
                }
                is_failing = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A place among the open connections; given back when the connection is gone.
struct Open {
    metrics: HttpMetrics,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

/// Serves one connection to its end.
async fn connection(
    stream: Bounded,
    router: Router,
    longest: Duration,
    mut stop: watch::Receiver<bool>,
    _open: Open,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Runs from the end of the answer before, so it bounds idle connections too.
        .header_read_timeout(longest)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        // A client may close its half when it has sent all.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = await_stop(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "http connection ended early");
    }
}

/// Waits until the server is to stop; its owner being gone says so too.
pub(super) async fn await_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
