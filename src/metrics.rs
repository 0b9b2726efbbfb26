//! All metrics, declared in one place, each with a help text for the person on call.
//!
//! Names begin with `foreshock_`; beside them stand the names by which existing dashboards know the same facts
//! (docs/definitions.md, "Names that users meet").

use std::time::Duration;

use foreshock_operators::account::{Counts, Reason};
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::stages::{AlertState, Priority};
use foreshock_operators::time::SECOND;
use prometheus::core::Collector;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use crate::config::MetricsConfig;
use crate::process_metrics::ProcessMetrics;
use crate::status::wall_time;

/// The metrics of one process.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub registry: Registry,
    pub http: HttpMetrics,
    pub job: JobMetrics,
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
    /// Connections that came when all that may be open were open.
    pub connections_full: IntCounter,
    /// Open at the moment beyond that limit.
    pub probe_connections: IntGauge,
    /// By reason: of those beyond the limit.
    turned_away: IntCounterVec,
}

/// What a live job counts.
#[derive(Clone, Debug)]
pub struct JobMetrics {
    messages: IntCounterVec,
    rows: IntCounterVec,
    buffered: IntGauge,
    dead_letters: IntCounterVec,
    locked: IntCounter,
    hurried: IntCounter,
    control_records: IntCounter,
    refused: IntCounter,
    gaps: IntCounter,
    samples: IntCounter,
    /// By kind: records handed to the producer.
    pub outputs: IntCounterVec,
    /// By state and priority.
    pub alerts: IntCounterVec,
    /// By priority.
    pub active_alerts: IntGaugeVec,
    /// By exchange and instrument: 0 calm, 1 a warning is active, 2 a critical alert is.
    pub regime: IntGaugeVec,
    pub predictions: IntCounter,
    /// The same by what was predicted.
    pub predictions_by_class: IntCounterVec,
    pub probability: Histogram,
    /// From the poll that returned a tick to the producer's taking of its outputs.
    pub latency: Histogram,
    pub volatility_latency: Histogram,
    pub instruments: IntGauge,
    pub open_silences: IntGauge,
    pub kafka_connected: IntGauge,
    pub ready: IntGauge,
    /// By topic and partition, as are all of these.
    pub lag: IntGaugeVec,
    pub kafka_lag: IntGaugeVec,
    pub lag_seconds: GaugeVec,
    pub volatility_lag_seconds: GaugeVec,
    pub position: IntGaugeVec,
    pub committed: IntGaugeVec,
    /// By result.
    pub commits: IntCounterVec,
    pub aborted: IntCounter,
    pub begun_anew: IntCounter,
    pub lost_offsets: IntCounter,
    pub replayed_rows: IntCounter,
    pub recovery_seconds: Gauge,
    /// By result.
    pub snapshots: IntCounterVec,
    pub snapshot_seconds: Histogram,
    /// By topic and partition, as is the next one.
    pub snapshot_bytes: IntGaugeVec,
    pub snapshot_timestamp: GaugeVec,
    pub in_flight: IntGaugeVec,
    /// By client.
    pub client_renewals: IntCounterVec,
    /// By worker, as are the next ones.
    pub backlog_bytes: IntGaugeVec,
    pub producer_records: IntGaugeVec,
    pub backlog_waits: IntCounterVec,
    pub steps: IntCounterVec,
    pub backlog_limit: IntGauge,
    /// By operator and worker.
    pub operator_seconds: CounterVec,
    pub operator_rows: IntCounterVec,
    /// By reason.
    pub cluster_refused: IntCounterVec,
    pub model_loaded: IntGauge,
    /// By name, version, variant and sha256.
    pub model_info: IntGaugeVec,
}

impl Metrics {
    /// Declares all metrics in a registry of their own.
    pub fn new(settings: &MetricsConfig) -> Metrics {
        let registry = Registry::new();
        let declare = Declare(&registry);
        let build =
            declare.gauges("foreshock_build_info", "Always 1; its label tells the version.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(ProcessMetrics::new())).expect("no other metric has these names");
        let latencies: Vec<f64> = settings.latency_buckets.iter().map(Duration::as_secs_f64).collect();
        let (http, job) = (HttpMetrics::new(&declare, &latencies), JobMetrics::new(&declare, &latencies));
        http.begin_at_zero();
        job.begin_at_zero();
        declare.not_yet();
        Metrics { registry, http, job }
    }
}

impl HttpMetrics {
    fn new(declare: &Declare, latencies: &[f64]) -> HttpMetrics {
        HttpMetrics {
            requests: declare.counters(
                "http_requests_total",
                "Requests answered, by method, endpoint and status.",
                &["method", "endpoint", "status"],
            ),
            api_requests: declare.counters(
                "volatility_api_requests_total",
                "Requests answered, by endpoint and status.",
                &["endpoint", "status"],
            ),
            seconds: declare.histograms(
                "http_request_duration_seconds",
                "Time from a request's head to its answer.",
                latencies.to_vec(),
                &["endpoint"],
            ),
            prediction_seconds: declare.histogram(
                "prediction_latency_seconds",
                "Time from the head of a request for predictions to its answer, where there was no error.",
                latencies.to_vec(),
            ),
            connections: declare.gauge("foreshock_http_connections", "Open connections to the HTTP server."),
            connections_full: declare.counter(
                "foreshock_http_connections_full_total",
                "Connections that came while http.max_connections were open: on them probes alone are answered.",
            ),
            probe_connections: declare.gauge(
                "foreshock_http_probe_connections",
                "Open connections beyond http.max_connections, on which probes alone are answered.",
            ),
            turned_away: declare.counters(
                "foreshock_http_turned_away_total",
                "Connections beyond http.max_connections that got no answer to what they asked, by reason: no_probe and large_head (503), slow (no request within a second), displaced (gave its place to a newer one).",
                &["reason"],
            ),
        }
    }

    /// As in [`JobMetrics::begin_at_zero`].
    fn begin_at_zero(&self) {
        for reason in TurnedAway::ALL {
            self.turned_away.with_label_values(&[reason.name()]);
        }
    }

    /// Counts a connection beyond the limit that was not served.
    pub fn turn_away(&self, reason: TurnedAway) {
        self.turned_away.with_label_values(&[reason.name()]).inc();
    }
}

/// Why a connection beyond the limit was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// It asked for something else than a probe.
    NoProbe,
    /// Its request's head was too large to look at.
    LargeHead,
    /// Its request did not come in time.
    Slow,
    /// All places were taken, and it was the oldest.
    Displaced,
}

impl TurnedAway {
    /// All reasons.
    pub const ALL: [TurnedAway; 4] =
        [TurnedAway::NoProbe, TurnedAway::LargeHead, TurnedAway::Slow, TurnedAway::Displaced];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            TurnedAway::NoProbe => "no_probe",
            TurnedAway::LargeHead => "large_head",
            TurnedAway::Slow => "slow",
            TurnedAway::Displaced => "displaced",
        }
    }
}

impl JobMetrics {
    fn new(declare: &Declare, latencies: &[f64]) -> JobMetrics {
        let shard = &["topic", "partition"];
        JobMetrics {
            messages: declare.counters(
                "foreshock_messages_total",
                "Messages read, by what became of them: rows, control, ignored or deadlettered.",
                &["fate"],
            ),
            rows: declare.counters(
                "foreshock_rows_total",
                "Rows read, by what became of them: ticks, applied, duplicate, late, ignored or deadlettered.",
                &["fate"],
            ),
            buffered: declare.gauge("foreshock_buffered_rows", "Rows that wait for older ones (order.reorder) or for the next one to confirm their stamp (input.max_jump)."),
            dead_letters: declare.counters(
                "foreshock_dead_letters_total",
                "Messages and rows refused, by reason. A rise means that a feed has changed or is damaged.",
                &["reason"],
            ),
            locked: declare.counter("foreshock_locked_quotes_total", "Quotes whose bid equals their ask: legal."),
            hurried: declare.counter(
                "foreshock_hurried_rows_total",
                "Rows that went on before older ones could come, because too many were waiting.",
            ),
            control_records: declare.counter(
                "foreshock_control_records_total",
                "Control records met in the input, whatever became of them.",
            ),
            refused: declare.counter(
                "foreshock_predictions_refused_total",
                "Ticks without a prediction, because a feature that the model insists on was null.",
            ),
            gaps: declare.counter("foreshock_gaps_total", "Stretches without data that have ended."),
            samples: declare.counter("foreshock_samples_total", "Per-second samples made."),
            outputs: declare.counters(
                "foreshock_outputs_total",
                "Records handed to the producer, by kind of output.",
                &["kind"],
            ),
            alerts: declare.counters(
                "foreshock_alerts_total",
                "Changes in the life of alerts, by state and priority.",
                &["state", "priority"],
            ),
            active_alerts: declare.gauges(
                "foreshock_active_alerts",
                "Alerts that are active now, by priority.",
                &["priority"],
            ),
            regime: declare.gauges(
                "market_regime_state",
                "State of an instrument's market: 0 calm, 1 with an active warning, 2 with an active critical alert.",
                &["exchange", "instrument"],
            ),
            predictions: declare.counter("foreshock_predictions_total", "Ticks scored by the model."),
            predictions_by_class: declare.counters(
                "predictions_total",
                "Ticks scored by the model, by what it predicted: 1 is a spike.",
                &["prediction"],
            ),
            probability: declare.histogram(
                "prediction_probability",
                "Probabilities of a spike that the model gave to ticks.",
                (1..=10).map(|tenth| f64::from(tenth) / 10.0).collect(),
            ),
            latency: declare.histogram(
                "foreshock_latency_seconds",
                "Time from reading a scored tick to the producer's taking of its outputs.",
                latencies.to_vec(),
            ),
            volatility_latency: declare.histogram(
                "volatility_prediction_latency_seconds",
                "The same as foreshock_latency_seconds.",
                latencies.to_vec(),
            ),
            instruments: declare.gauge("foreshock_instruments", "Instruments met so far."),
            open_silences: declare.gauge(
                "foreshock_open_silences",
                "Instruments of which nothing was read for longer than their gap_after, by the wall clock.",
            ),
            kafka_connected: declare.gauge(
                "foreshock_kafka_connected",
                "1 when the brokers answered lately. With 0 nothing is read or written; both go on by themselves.",
            ),
            ready: declare.gauge("foreshock_ready", "1 once the job has read all there was."),
            lag: declare.gauges(
                "foreshock_consumer_lag_messages",
                "Messages still to read. An upper bound where the log has holes.",
                shard,
            ),
            kafka_lag: declare.gauges("kafka_consumer_lag", "The same as foreshock_consumer_lag_messages.", shard),
            lag_seconds: declare.float_gauges(
                "foreshock_consumer_lag_seconds",
                "Age of the last message read, by Kafka's timestamps; 0 when all is read.",
                shard,
            ),
            volatility_lag_seconds: declare.float_gauges(
                "volatility_consumer_lag_seconds",
                "The same as foreshock_consumer_lag_seconds.",
                shard,
            ),
            position: declare.gauges("foreshock_consumer_position", "The next offset to read.", shard),
            committed: declare.gauges(
                "foreshock_committed_offset",
                "The offset that a restart begins at: all outputs of what is before it are delivered.",
                shard,
            ),
            commits: declare.counters("foreshock_commits_total", "Commits of offsets, by result.", &["result"]),
            aborted: declare.counter(
                "foreshock_transactions_aborted_total",
                "Transactions that were open when the job had to begin anew or end: none of their outputs is seen.",
            ),
            begun_anew: declare.counter(
                "foreshock_restarts_total",
                "Times that the job has begun anew, from what is committed, without ending its process.",
            ),
            lost_offsets: declare.counter(
                "foreshock_lost_offsets_total",
                "Shards that could not go on where they were, and began as kafka.lost_offsets says.",
            ),
            replayed_rows: declare.counter(
                "foreshock_replayed_rows_total",
                "Rows read again after a start to make the state; nothing is published for them again.",
            ),
            recovery_seconds: declare.float_gauge(
                "foreshock_recovery_seconds",
                "How long the last start took from its first offset to the first one not published yet.",
            ),
            snapshots: declare.counters(
                "foreshock_snapshots_total",
                "Snapshots of states by result: done, failed (not written), unusable (found at a start).",
                &["result"],
            ),
            snapshot_seconds: declare.histogram(
                "foreshock_snapshot_seconds",
                "How long a snapshot took from its cut to its publication; rows go on meanwhile.",
                exponential(0.001, 2.0, 16),
            ),
            snapshot_bytes: declare.gauges("foreshock_snapshot_bytes", "Size of the last snapshot.", shard),
            snapshot_timestamp: declare.float_gauges(
                "foreshock_snapshot_timestamp_seconds",
                "When the last snapshot was published, since 1970; its age is time() minus this.",
                shard,
            ),
            in_flight: declare.gauges(
                "foreshock_in_flight_epochs",
                "Batches of rows whose outputs are on their way to the brokers, or not committed.",
                &["worker"],
            ),
            client_renewals: declare.counters(
                "foreshock_client_renewals_total",
                "Clients replaced because they stood still with brokers that answer, by client.",
                &["client"],
            ),
            backlog_bytes: declare.gauges(
                "foreshock_backlog_bytes",
                "Bytes of outputs on their way to the brokers.",
                &["worker"],
            ),
            producer_records: declare.gauges(
                "foreshock_producer_queue_records",
                "Records in the producer's queue, in flight included.",
                &["worker"],
            ),
            backlog_waits: declare.counters(
                "foreshock_backlog_waits_total",
                "Times that reading waited because the backlog was full: the brokers take less than comes in.",
                &["worker"],
            ),
            steps: declare.counters("foreshock_worker_steps_total", "Steps of the dataflow.", &["worker"]),
            backlog_limit: declare.gauge(
                "foreshock_backlog_limit_bytes",
                "The most bytes of outputs on their way, for each worker: its share of half of job.memory_budget.",
            ),
            operator_seconds: declare.float_counters(
                "foreshock_operator_seconds_total",
                "Time that the operators of the dataflow have worked; from order to rules by samples, one batch in 64.",
                &["operator", "worker"],
            ),
            operator_rows: declare.counters(
                "foreshock_operator_rows_total",
                "Rows that the operators of the dataflow have taken: messages at decode, outcomes at publish; from gaps to rules by samples, one batch in 64.",
                &["operator", "worker"],
            ),
            cluster_refused: declare.counters(
                "foreshock_cluster_refused_total",
                "Connections to the cluster's port that were refused, by reason: strangers, or another secret.",
                &["reason"],
            ),
            model_loaded: declare.gauge("model_loaded", "1 when a model is in force."),
            model_info: declare.gauges(
                "foreshock_model_info",
                "Always 1; its labels tell the model in force.",
                &["name", "version", "variant", "sha256"],
            ),
        }
    }

    /// Brings every label that is known beforehand into the first scrape: a rise from nothing is no rate.
    fn begin_at_zero(&self) {
        for fate in MESSAGE_FATES {
            self.messages.with_label_values(&[fate]);
        }
        for fate in ROW_FATES {
            self.rows.with_label_values(&[fate]);
        }
        for reason in Reason::ALL {
            self.dead_letters.with_label_values(&[reason.name()]);
        }
        for kind in OutputKind::of_topics() {
            self.outputs.with_label_values(&[kind.name()]);
        }
        for priority in [Priority::P1, Priority::P2, Priority::P3] {
            self.active_alerts.with_label_values(&[priority.name()]);
            let states =
                [AlertState::Active, AlertState::Escalated, AlertState::Suppressed, AlertState::Resolved];
            for state in states {
                self.alerts.with_label_values(&[state.name(), priority.name()]);
            }
        }
        for class in ["0", "1"] {
            self.predictions_by_class.with_label_values(&[class]);
        }
        for client in ["consumer", "producer"] {
            self.client_renewals.with_label_values(&[client]);
        }
        for result in ["done", "failed"] {
            self.commits.with_label_values(&[result]);
        }
        for result in ["done", "failed", "unusable"] {
            self.snapshots.with_label_values(&[result]);
        }
        for reason in ["broken", "stranger", "secret"] {
            self.cluster_refused.with_label_values(&[reason]);
        }
    }

    /// Takes a snapshot that is published.
    pub fn saved(&self, topic: &str, partition: i32, bytes: u64, took: Duration) {
        let partition = partition.to_string();
        let shard = [topic, partition.as_str()];
        self.snapshots.with_label_values(&["done"]).inc();
        self.snapshot_seconds.observe(took.as_secs_f64());
        self.snapshot_bytes.with_label_values(&shard).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.snapshot_timestamp.with_label_values(&shard).set(wall_time().0 as f64 / SECOND as f64);
    }

    /// Adds the account of a batch.
    pub fn count(&self, counts: &Counts) {
        let add = |counter: &IntCounterVec, labels: &[&str], counts: &[i64]| {
            for (label, n) in labels.iter().zip(counts).filter(|(_, n)| **n > 0) {
                counter.with_label_values(&[label]).inc_by(n.unsigned_abs());
            }
        };
        let messages = [
            counts.messages_rows,
            counts.messages_control,
            counts.messages_ignored,
            counts.messages_deadlettered,
        ];
        add(&self.messages, &MESSAGE_FATES, &messages);
        let rows = [
            counts.ticks,
            counts.applied,
            counts.duplicate,
            counts.late,
            counts.rows_ignored,
            counts.rows_deadlettered,
        ];
        add(&self.rows, &ROW_FATES, &rows);
        for (reason, n) in Reason::ALL.into_iter().zip(counts.deadletter).filter(|(_, n)| *n > 0) {
            self.dead_letters.with_label_values(&[reason.name()]).inc_by(n.unsigned_abs());
        }
        self.buffered.add(counts.buffered);
        let plain = [
            (&self.locked, counts.locked),
            (&self.hurried, counts.hurried),
            (&self.control_records, counts.control_records),
            (&self.refused, counts.refused),
            (&self.gaps, counts.gaps),
            (&self.samples, counts.samples),
            (&self.predictions, counts.predictions),
        ];
        for (counter, n) in plain {
            counter.inc_by(u64::try_from(n).unwrap_or_default());
        }
    }
}

/// What becomes of messages.
const MESSAGE_FATES: [&str; 4] = ["rows", "control", "ignored", "deadlettered"];

/// What becomes of rows.
const ROW_FATES: [&str; 6] = ["ticks", "applied", "duplicate", "late", "ignored", "deadlettered"];

fn exponential(first: f64, factor: f64, count: usize) -> Vec<f64> {
    prometheus::exponential_buckets(first, factor, count).expect("the buckets grow")
}

/// Makes metrics and enters them in a registry. Panics at a name that is taken or malformed: a slip in this file,
/// which every start would show.
struct Declare<'a>(&'a Registry);

impl Declare<'_> {
    fn enter<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let metric = made.expect("the name and labels are well formed");
        self.0.register(Box::new(metric.clone())).expect("no other metric has this name");
        metric
    }

    /// Names that existing dashboards ask for, of facts that this version has none of: said, rather than left to
    /// be wondered at.
    fn not_yet(&self) {
        self.counter(
            "websocket_connections_total",
            "Connections made to venues. This version makes none: it reads Kafka.",
        );
        let quality = self.enter(Gauge::new(
            "prediction_quality_metric",
            "Share of predictions that came true. NaN: this version doesn't hold them against what happened.",
        ));
        quality.set(f64::NAN);
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.enter(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.enter(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.enter(IntGauge::new(name, help))
    }

    fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.enter(Gauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.enter(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.enter(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn float_counters(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.enter(CounterVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
        self.enter(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }

    fn histograms(&self, name: &str, help: &str, buckets: Vec<f64>, labels: &[&str]) -> HistogramVec {
        self.enter(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
    }
}
