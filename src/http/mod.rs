//! The HTTP server: health, metrics and predictions for people and programs.
//!
//! ```text
//! connections ─► routes ─┬─► job, model_info   read the Board, whole values that a job swaps in
//!   (bounds)   (counted) ├─► predict ─► rows ─► scorer ─► operators::score
//!      │                 └─► openapi, docs     ready when the server starts
//!      └─► overflow ─► routes of probes        when all connections are taken
//! ```
//! It runs on a thread of its own and only ever reads an `Arc`: whatever clients do, the dataflow doesn't wait.

mod answer;
mod connections;
mod docs;
mod fields;
mod graph;
mod job;
mod model_info;
mod openapi;
mod overflow;
mod predict;
mod request_body;
mod root;
mod routes;
mod rows;
mod scorer;
mod stream;
mod traffic;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use tokio::sync::watch;
use tracing::{error, info};

use crate::config;
use crate::metrics::Metrics;
use crate::status::JobStatus;

use routes::App;

/// A running HTTP server. Dropping it stops it too, without waiting.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Binds at once, so that a port in use is an error here, and serves until it is stopped.
    pub fn start(settings: &config::Http, job_status: Arc<JobStatus>, metrics: Metrics) -> Result<Server> {
        let listener = listen(settings.listen).map_err(|problem| {
            let listen = settings.listen;
            anyhow!("could not listen at {listen}: {problem}; set http.listen to another port")
        })?;
        let address = listener.local_addr().context("could not tell where the HTTP server listens")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .context("could not start the HTTP server")?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).context("could not start the HTTP server")?
        };
        let connection_metrics = metrics.http.clone();
        let routers = routes::routers(App::new(settings, job_status, metrics));
        let (stop, stopped) = watch::channel(false);
        let settings = settings.clone();
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || {
                let serve = connections::serve(listener, routers, settings, connection_metrics, stopped);
                runtime.block_on(serve);
                // What is still open was given its time.
                runtime.shutdown_background();
            })
            .context("could not start the thread of the HTTP server")?;
        info!(%address, "http server listens");
        Ok(Server { address, stop, thread })
    }

    /// Where it really listens, also when it was told port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, finishes the requests in progress within a bound, and closes.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            error!("the http server had ended before it was stopped");
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
