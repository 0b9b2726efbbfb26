//! Counts every request: in Prometheus metrics, and exactly for `/stats`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::routes::App;

/// The endpoint of requests to paths that there are not.
const UNMATCHED: &str = "unmatched";

/// All requests since the server started, by endpoint.
#[derive(Debug)]
pub struct Traffic {
    /// [`UNMATCHED`] is the last.
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Default)]
struct Endpoint {
    path: &'static str,
    requests: AtomicU64,
    errors: AtomicU64,
    nanos: AtomicU64,
}

/// The requests of one endpoint.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EndpointStats {
    #[schema(example = "/predict")]
    pub endpoint: &'static str,
    pub requests: u64,
    /// Requests answered with a status of 400 or above.
    pub errors: u64,
    /// `errors` by `requests`; null before the first request.
    pub error_rate: Option<f64>,
    /// Null before the first request.
    pub mean_latency_seconds: Option<f64>,
}

impl Traffic {
    /// Nothing counted yet, of these endpoints.
    pub fn new(paths: impl Iterator<Item = &'static str>) -> Traffic {
        let endpoint = |path| Endpoint { path, ..Endpoint::default() };
        Traffic { endpoints: paths.chain([UNMATCHED]).map(endpoint).collect() }
    }

    /// What was counted, in the order of the endpoints.
    pub fn stats(&self) -> Vec<EndpointStats> {
        let stats = |endpoint: &Endpoint| {
            let requests = endpoint.requests.load(Relaxed);
            let errors = endpoint.errors.load(Relaxed);
            let seconds = endpoint.nanos.load(Relaxed) as f64 / 1e9;
            let mean = |sum: f64| (requests > 0).then(|| sum / requests as f64);
            EndpointStats {
                endpoint: endpoint.path,
                requests,
                errors,
                error_rate: mean(errors as f64),
                mean_latency_seconds: mean(seconds),
            }
        };
        self.endpoints.iter().map(stats).collect()
    }

    fn find(&self, path: Option<&str>) -> &Endpoint {
        let found = self.endpoints.iter().find(|endpoint| Some(endpoint.path) == path);
        found.unwrap_or(&self.endpoints[self.endpoints.len() - 1])
    }
}

impl Endpoint {
    fn count(&self, status: StatusCode, elapsed: Duration) {
        self.requests.fetch_add(1, Relaxed);
        if status.is_client_error() || status.is_server_error() {
            self.errors.fetch_add(1, Relaxed);
        }
        self.nanos.fetch_add(elapsed.as_nanos() as u64, Relaxed);
    }
}

/// Passes a request on and counts it with its answer.
pub async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let path = request.extensions().get::<MatchedPath>();
    let endpoint = app.traffic.find(path.map(MatchedPath::as_str));
    let method = method_name(request.method());
    let mut response = next.run(request).await;
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let elapsed = start.elapsed();
    let status = response.status();
    endpoint.count(status, elapsed);
    let metrics = &app.metrics.http;
    metrics.requests.with_label_values(&[method, endpoint.path, status.as_str()]).inc();
    metrics.api_requests.with_label_values(&[endpoint.path, status.as_str()]).inc();
    metrics.seconds.with_label_values(&[endpoint.path]).observe(elapsed.as_secs_f64());
    if endpoint.path == "/predict" && status == StatusCode::OK {
        metrics.prediction_seconds.observe(elapsed.as_secs_f64());
    }
    response
}

/// The name of a method; clients can make up more of them than metrics should have.
fn method_name(method: &Method) -> &'static str {
    let known = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "CONNECT", "TRACE"];
    known.into_iter().find(|name| method == *name).unwrap_or("other")
}
