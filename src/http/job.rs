//! What a job says of itself: `/health`, `/ready`, `/version`, `/stats` and `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use prometheus::TextEncoder;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::account;
use crate::status::{Phase, ShardState, wall_time};

use super::answer::{self, ErrorBody, HttpProblem, bytes_of, json};
use super::routes::App;
use super::traffic::EndpointStats;

/// Whether the job serves.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `healthy` or `unhealthy`.
    #[schema(example = "healthy")]
    status: &'static str,
    /// Why it is unhealthy. Left out where it is healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
    model_loaded: bool,
    #[schema(example = "reference-logistic")]
    model_name: Option<String>,
    #[schema(example = "1")]
    model_version: Option<String>,
    /// Whether a broker answered lately.
    kafka_connected: bool,
    /// What was gone when the job started, and what `kafka.lost_offsets` had it do. Left out where nothing was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!([]))]
    lost_offsets: Vec<String>,
    #[schema(example = "2026-03-02T09:00:00.040000Z")]
    timestamp: String,
}

/// Whether the job has caught up with its input.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    ready: bool,
    /// Why it isn't ready. Left out where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// Versions of all that an answer depends on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Version {
    /// Of these endpoints.
    #[schema(example = "1")]
    api_version: &'static str,
    /// Null where no model is loaded, as are the two below.
    #[schema(example = "1")]
    model_version: Option<String>,
    /// `ml` or `baseline`.
    #[schema(example = "ml")]
    model_variant: Option<&'static str>,
    #[schema(example = "2026-03-02T08:59:00.000000Z")]
    model_loaded_at: Option<String>,
    /// Of foreshock.
    #[schema(example = "0.1.0")]
    runtime_version: &'static str,
}

/// What was done since the process started.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stats {
    uptime_seconds: f64,
    /// `starting`, `running`, `stopping` or `failed`.
    #[schema(example = "running")]
    phase: &'static str,
    /// Requests to all endpoints.
    requests: u64,
    /// Requests answered with a status of 400 or above.
    errors: u64,
    /// `errors` by `requests`; null before the first request.
    error_rate: Option<f64>,
    endpoints: Vec<EndpointStats>,
    /// Messages and rows by their fate, under the names of the summary of a backtest.
    #[schema(value_type = Object, example = json!({
        "messages_in": 1200, "messages": {"rows": 1190, "control": 0, "ignored": 10, "deadlettered": 0},
        "rows_in": 1190, "predictions": 1180, "refused": 0
    }))]
    counts: Map<String, Value>,
    shards: Vec<ShardStats>,
}

/// How far one partition of the input is read.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShardStats {
    #[schema(example = "ticks.raw")]
    topic: String,
    partition: i32,
    /// The next offset to read.
    position: i64,
    /// The offset behind the last message.
    end: i64,
    /// The offset a restart would begin at; null before the first commit.
    committed: Option<i64>,
    /// Messages still to read; an upper bound where the log has holes.
    lag: i64,
    /// How much older than now the last message that was read is, by Kafka's timestamps; 0 when all is read.
    lag_seconds: f64,
}

impl From<&ShardState> for ShardStats {
    fn from(shard: &ShardState) -> ShardStats {
        ShardStats {
            topic: shard.topic.clone(),
            partition: shard.partition,
            position: shard.position,
            end: shard.end,
            committed: shard.committed,
            lag: shard.lag(),
            lag_seconds: shard.lag_seconds,
        }
    }
}

fn unless(reason: Option<&String>) -> StatusCode {
    if reason.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

/// Whether the job serves: it runs, a broker answers and a model is loaded.
#[utoipa::path(get, path = "/health", tag = "job", responses(
    (status = 200, description = "It serves", body = Health),
    (status = 503, description = "It doesn't, for this reason", body = Health, example = json!({
        "status": "unhealthy", "reason": "no Kafka broker answers", "model_loaded": true,
        "model_name": "reference-logistic", "model_version": "1", "kafka_connected": false,
        "timestamp": "2026-03-02T09:00:00.040000Z"
    })),
))]
pub async fn health(State(app): State<Arc<App>>) -> Response {
    let (state, serving) = (app.job_status.state(), app.job_status.serving());
    let no_model = || serving.is_none().then(|| "no model is loaded".to_owned());
    let reason = state.problem().or_else(no_model);
    let health = Health {
        status: if reason.is_some() { "unhealthy" } else { "healthy" },
        model_loaded: serving.is_some(),
        model_name: serving.as_ref().map(|serving| serving.model.name.to_string()),
        model_version: serving.as_ref().map(|serving| serving.model.version.to_string()),
        kafka_connected: state.kafka_connected,
        lost_offsets: state.lost.clone(),
        timestamp: answer::text(wall_time()),
        reason,
    };
    json(unless(health.reason.as_ref()), &health)
}

/// Whether the job runs and has once read all there was.
#[utoipa::path(get, path = "/ready", tag = "job", responses(
    (status = 200, description = "It is ready", body = Ready, example = json!({"ready": true})),
    (status = 503, description = "It isn't, for this reason", body = Ready,
        example = json!({"ready": false, "reason": "catching up: 1532 messages to read"})),
))]
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let state = app.job_status.state();
    let reason = match state.phase {
        Phase::Running if state.caught_up => None,
        Phase::Running => {
            let lag: i64 = state.shards.iter().map(ShardState::lag).sum();
            Some(format!("catching up: {lag} messages to read"))
        }
        _ => state.problem(),
    };
    json(unless(reason.as_ref()), &Ready { ready: reason.is_none(), reason })
}

/// The versions of the endpoints, the model and the program.
#[utoipa::path(get, path = "/version", tag = "job", responses(
    (status = 200, description = "The versions", body = Version),
))]
pub async fn version(State(app): State<Arc<App>>) -> Response {
    let serving = app.job_status.serving();
    let version = Version {
        api_version: "1",
        model_version: serving.as_ref().map(|serving| serving.model.version.to_string()),
        model_variant: serving.as_ref().map(|serving| serving.model.variant()),
        model_loaded_at: serving.as_ref().map(|serving| answer::text(serving.loaded_at)),
        runtime_version: env!("CARGO_PKG_VERSION"),
    };
    json(StatusCode::OK, &version)
}

/// What was done since the process started: requests, messages, rows, and how far the input is read.
#[utoipa::path(get, path = "/stats", tag = "job", responses(
    (status = 200, description = "The counts", body = Stats),
))]
pub async fn stats(State(app): State<Arc<App>>) -> Response {
    let state = app.job_status.state();
    let endpoints = app.traffic.stats();
    let requests = endpoints.iter().map(|endpoint| endpoint.requests).sum();
    let errors = endpoints.iter().map(|endpoint| endpoint.errors).sum();
    let stats = Stats {
        uptime_seconds: app.started.elapsed().as_secs_f64(),
        phase: state.phase.name(),
        requests,
        errors,
        error_rate: (requests > 0).then(|| errors as f64 / requests as f64),
        endpoints,
        counts: account::fields(&state.counts),
        shards: state.shards.iter().map(ShardStats::from).collect(),
    };
    json(StatusCode::OK, &stats)
}

/// All metrics as Prometheus reads them (text format 0.0.4).
#[utoipa::path(get, path = "/metrics", tag = "job", responses(
    (status = 200, description = "The metrics", body = String, content_type = "text/plain",
        example = "# HELP http_requests_total Requests answered, by method, endpoint and status.\n# TYPE http_requests_total counter\nhttp_requests_total{endpoint=\"/health\",method=\"GET\",status=\"200\"} 3\n"),
    (status = 500, description = "The metrics can't be written", body = ErrorBody),
))]
pub async fn metrics(State(app): State<Arc<App>>) -> Result<Response, HttpProblem> {
    let text = TextEncoder::new().encode_to_string(&app.metrics.registry.gather()).map_err(|error| {
        HttpProblem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("could not write the metrics: {error}"))
    })?;
    Ok(bytes_of("text/plain; version=0.0.4; charset=utf-8", StatusCode::OK, text))
}
