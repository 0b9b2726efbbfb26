//! All metrics, declared in one place, each with a help text for the person on call.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

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
    /// By endpoint and status: the same requests, under the name that existing dashboards know.
    pub api_requests: IntCounterVec,
    /// By endpoint.
    pub seconds: HistogramVec,
    /// Of the requests for predictions that got some.
    pub prediction_seconds: Histogram,
    /// Open at the moment.
    pub connections: IntGauge,
    /// How often all connections that may be open were open.
    pub connections_full: IntCounter,
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
        // From 10 us, an answer out of memory, to 1 s.
        let buckets = prometheus::exponential_buckets(0.00001, 2.5, 14).expect("the buckets grow");
        let requests = IntCounterVec::new(
            Opts::new("http_requests_total", "Requests answered, by method, endpoint and status."),
            &["method", "endpoint", "status"],
        );
        let api_requests = IntCounterVec::new(
            Opts::new("volatility_api_requests_total", "Requests answered, by endpoint and status."),
            &["endpoint", "status"],
        );
        let seconds = HistogramVec::new(
            HistogramOpts::new("http_request_duration_seconds", "Time from a request's head to its answer.")
                .buckets(buckets.clone()),
            &["endpoint"],
        );
        let prediction_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "prediction_latency_seconds",
                "Time from the head of a request for predictions to its answer, where there was no error.",
            )
            .buckets(buckets),
        );
        let connections = IntGauge::new("foreshock_http_connections", "Open connections to the HTTP server.");
        let connections_full = IntCounter::new(
            "foreshock_http_connections_full_total",
            "How often http.max_connections was reached, so that further connections had to wait.",
        );
        let metrics = HttpMetrics {
            requests: requests.expect("the name is good"),
            api_requests: api_requests.expect("the name is good"),
            seconds: seconds.expect("the name is good"),
            prediction_seconds: prediction_seconds.expect("the name is good"),
            connections: connections.expect("the name is good"),
            connections_full: connections_full.expect("the name is good"),
        };
        let collectors: [Box<dyn prometheus::core::Collector>; 6] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.api_requests.clone()),
            Box::new(metrics.seconds.clone()),
            Box::new(metrics.prediction_seconds.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.connections_full.clone()),
        ];
        for collector in collectors {
            registry.register(collector).expect("the name is new");
        }
        metrics
    }
}
