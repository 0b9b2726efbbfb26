//! What the job says of itself.

use std::time::Duration;

use foreshock::status::{Phase, ShardState, State};
use foreshock::summary::RunSummary;
use foreshock_operators::account::Counts;
use foreshock_operators::time::parse_rfc3339;
use serde_json::{Value, json};

use crate::http::client::{Asked, running, serving, settings};

#[track_caller]
fn is_time(value: &Value) {
    let text = value.as_str().unwrap();
    assert!(parse_rfc3339(text).is_some() && text.ends_with('Z'), "{text}");
}

#[test]
fn healthy_while_it_serves() {
    let asked = Asked::start();
    let mut health = asked.get("/health").ok();
    is_time(&health["timestamp"]);
    health["timestamp"].take();
    let expected = json!({
        "status": "healthy", "model_loaded": true, "model_name": "reference-logistic", "model_version": "1",
        "kafka_connected": true, "timestamp": null
    });
    assert_eq!(health, expected);
}

#[test]
fn unhealthy_with_the_reason() {
    let asked = Asked::start();
    let check = |state: State, reason: &str| {
        let connected = state.kafka_connected;
        asked.job_status.post(state);
        let answer = asked.get("/health");
        assert_eq!(answer.status, 503);
        let health = answer.json();
        assert_eq!((&health["status"], &health["reason"]), (&json!("unhealthy"), &json!(reason)));
        assert_eq!(health["kafka_connected"], connected);
    };
    check(State::default(), "starting: reading topics and offsets");
    check(State { phase: Phase::Stopping, ..running() }, "stopping");
    check(State { phase: Phase::Failed("topic gone".into()), ..running() }, "topic gone");
    check(State { kafka_connected: false, ..running() }, "no Kafka broker answers");
    asked.job_status.post(running());
    asked.get("/health").ok();
}

#[test]
fn without_a_model_it_serves_no_one() {
    let asked = Asked::with(settings(), None);
    let health = asked.get("/health");
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["reason"], "no model is loaded");
    assert_eq!(health.json()["model_loaded"], false);
    assert_eq!(health.json()["model_name"], Value::Null);
    assert_eq!(asked.get("/model/info").error(503).0, "no model is loaded");
    assert_eq!(asked.predict("{}").error(503).0, "no model is loaded");
    let version = asked.get("/version").ok();
    assert_eq!((&version["model_version"], &version["model_loaded_at"]), (&Value::Null, &Value::Null));

    asked.job_status.serve(serving(None, &[]));
    asked.get("/health").ok();
    asked.predict("{}").ok();
}

#[test]
fn ready_once_it_has_caught_up() {
    let asked = Asked::start();
    assert_eq!(asked.get("/ready").ok(), json!({"ready": true}));
    let shards = vec![ShardState { position: 5, end: 12, ..ShardState::default() }; 2];
    let cases = [
        (State { caught_up: false, shards, ..running() }, "catching up: 14 messages to read"),
        (State { phase: Phase::Starting, ..running() }, "starting: reading topics and offsets"),
        (State { phase: Phase::Stopping, ..running() }, "stopping"),
    ];
    for (state, reason) in cases {
        asked.job_status.post(state);
        let answer = asked.get("/ready");
        assert_eq!((answer.status, answer.json()), (503, json!({"ready": false, "reason": reason})));
    }
}

#[test]
fn versions() {
    let expected = json!({
        "api_version": "1", "model_version": "1", "model_variant": "ml",
        "model_loaded_at": "2026-03-02T08:59:00.000000Z", "runtime_version": env!("CARGO_PKG_VERSION")
    });
    assert_eq!(Asked::start().get("/version").ok(), expected);
}

#[test]
fn metrics_count_every_request() {
    let asked = Asked::start();
    let mut connection = asked.connect();
    for (method, path) in
        [("GET", "/health"), ("GET", "/health"), ("BREW", "/health"), ("FETCH", "/a"), ("GET", "/b?c=1")]
    {
        connection.ask(method, path, b"");
    }
    connection.ask("POST", "/predict", b"{}");
    connection.ask("POST", "/predict", b"{");
    let answer = connection.ask("GET", "/metrics", b"");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let lines: Vec<&str> = answer.text().lines().collect();
    for expected in [
        r#"http_requests_total{endpoint="/health",method="GET",status="200"} 2"#,
        r#"http_requests_total{endpoint="/health",method="other",status="405"} 1"#,
        r#"http_requests_total{endpoint="unmatched",method="other",status="404"} 1"#,
        r#"http_requests_total{endpoint="unmatched",method="GET",status="404"} 1"#,
        r#"http_requests_total{endpoint="/predict",method="POST",status="400"} 1"#,
        r#"volatility_api_requests_total{endpoint="/health",status="200"} 2"#,
        r#"http_request_duration_seconds_count{endpoint="/health"} 3"#,
        "prediction_latency_seconds_count 1",
        "foreshock_http_connections 1",
    ] {
        assert!(lines.contains(&expected), "no {expected} in\n{}", answer.text());
    }
}

#[test]
fn latencies_are_told_apart_where_targets_lie() {
    let asked = Asked::start();
    asked.predict("{}").ok();
    asked.metrics.job.latency.observe(0.0451);
    asked.metrics.job.volatility_latency.observe(0.0449);
    let text = asked.get("/metrics").text().to_owned();
    for name in [
        "http_request_duration_seconds_bucket{endpoint=\"/predict\",",
        "prediction_latency_seconds_bucket{",
        "foreshock_latency_seconds_bucket{",
        "volatility_prediction_latency_seconds_bucket{",
    ] {
        for bound in ["0.00001", "0.045", "0.1", "0.15", "0.8", "1", "10", "+Inf"] {
            let bucket = format!("\n{name}le=\"{bound}\"}} ");
            assert!(text.contains(&bucket), "no {bucket} in\n{text}");
        }
    }
    assert!(text.contains("\nforeshock_latency_seconds_bucket{le=\"0.045\"} 0\n"));
    assert!(text.contains("\nvolatility_prediction_latency_seconds_bucket{le=\"0.045\"} 1\n"));
}

#[test]
fn stats_tell_requests_fates_and_lag() {
    let asked = Asked::start();
    let counts =
        Counts { messages_in: 7, messages_rows: 5, messages_deadlettered: 2, ticks: 3, ..Counts::default() };
    let shard = ShardState {
        topic: "ticks.raw".into(),
        partition: 3,
        worker: 1,
        position: 100,
        end: 130,
        committed: Some(90),
        lag_seconds: 1.5,
    };
    asked.job_status.post(State { counts: counts.clone(), shards: vec![shard], ..running() });
    asked.get("/health");
    asked.get("/nothing");
    let stats = asked.get("/stats").ok();
    assert_eq!(
        (&stats["requests"], &stats["errors"], &stats["error_rate"]),
        (&json!(2), &json!(1), &json!(0.5))
    );
    let endpoint = |name: &str| {
        let endpoints = stats["endpoints"].as_array().unwrap().iter();
        endpoints.clone().find(|endpoint| endpoint["endpoint"] == name).unwrap().clone()
    };
    assert_eq!(
        (&endpoint("/health")["requests"], &endpoint("/health")["error_rate"]),
        (&json!(1), &json!(0.0))
    );
    assert!(endpoint("/health")["mean_latency_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(endpoint("unmatched")["error_rate"], 1.0);
    assert_eq!(endpoint("/predict")["mean_latency_seconds"], Value::Null);
    let shard = json!({
        "topic": "ticks.raw", "partition": 3, "position": 100, "end": 130, "committed": 90, "lag": 30,
        "lag_seconds": 1.5
    });
    assert_eq!(stats["shards"], json!([shard]));
    assert!(stats["uptime_seconds"].as_f64().unwrap() > 0.0);

    let mut summary = RunSummary::new(counts, vec![], Duration::from_secs(1)).to_json();
    for name in ["rows_per_worker", "seconds", "ticks_per_second", "peak_rss_bytes"] {
        assert!(summary.as_object_mut().unwrap().remove(name).is_some());
    }
    assert_eq!(stats["counts"], summary);
}

#[test]
fn the_model_as_its_file_says_it() {
    let asked = Asked::start();
    let mut info = asked.get("/model/info").ok();
    assert_eq!(info["sha256"].as_str().map(str::len), Some(64));
    info["sha256"].take();
    let feature = |name: &str, transform: &str, weight: f64| json!({"name": name, "null": 0.0, "transform": transform, "weight": weight});
    let expected = json!({
        "name": "reference-logistic", "version": "1", "kind": "logistic", "variant": "ml",
        "features": [
            feature("ret_std", "none", 800.0), feature("return_5s", "abs", 50.0),
            feature("order_book_imbalance", "none", 0.3), feature("spread_z", "none", 0.2),
            feature("trade_intensity", "none", 0.01)
        ],
        "intercept": -2.0, "decision_threshold": 0.5, "horizon_s": 60, "sha256": null,
        "loaded_at": "2026-03-02T08:59:00.000000Z"
    });
    assert_eq!(info, expected);

    asked.job_status.serve(serving(None, &[("MODEL_VARIANT", "baseline")]));
    let info = asked.get("/model/info").ok();
    let features = json!([{"name": "volatility_z", "null": "refuse", "transform": "none"}]);
    assert_eq!((&info["features"], &info["threshold"]), (&features, &json!(3.0)));
    assert_eq!((&info["kind"], &info["variant"]), (&json!("baseline"), &json!("baseline")));

    let trees = crate::support::data("models/xgboost-3/model.yaml");
    asked.job_status.serve(serving(None, &[("FORESHOCK_MODEL__ML", trees.to_str().unwrap())]));
    let info = asked.get("/model/info").ok();
    assert_eq!((&info["kind"], &info["variant"]), (&json!("trees"), &json!("ml")));
    assert_eq!(info["trees"], json!({"count": 24, "nodes": 2692, "depth": 6}));
    let first = json!({"name": "ret_std", "null": "missing", "transform": "none"});
    assert_eq!((&info["features"][0], info["features"].as_array().map(Vec::len)), (&first, Some(12)));
    // Nulls are what a tick of a young window has, too.
    let probability = asked.predict("{}").ok()["probability"].as_f64().unwrap();
    assert!(0.0 < probability && probability < 1.0, "{probability}");
    assert_eq!(f64::from(probability as f32), probability, "32 bits hold it");
}
