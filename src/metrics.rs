//! All metrics, declared in one place, each with a help text for the person on call.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// The metrics of one process.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub registry: Registry,
    pub http: HttpMetrics,
}

/// What the HTTP server counts.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    /// By method, endpoint and status.
    pub requests: IntCounterVec,
    /// By endpoint.
    pub seconds: HistogramVec,
}

impl Metrics {
    /// Declares all metrics in a registry of their own.
    ///
    /// # Panics
    /// When two metrics have one name: a slip in this file.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let http = HttpMetrics::new(&registry);
        Metrics { registry, http }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl HttpMetrics {
    fn new(registry: &Registry) -> HttpMetrics {
        let requests = IntCounterVec::new(
            Opts::new("http_requests_total", "Requests answered, by method, endpoint and status."),
            &["method", "endpoint", "status"],
        );
        let seconds = HistogramVec::new(
            HistogramOpts::new("http_request_duration_seconds", "Time from a request's head to its answer.")
                .buckets(prometheus::exponential_buckets(0.0001, 2.5, 12).expect("the buckets grow")),
            &["endpoint"],
        );
        let requests = requests.expect("the name is good");
        let seconds = seconds.expect("the name is good");
        registry.register(Box::new(requests.clone())).expect("the name is new");
        registry.register(Box::new(seconds.clone())).expect("the name is new");
        HttpMetrics { requests, seconds }
    }
}
