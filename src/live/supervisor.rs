//! Looks after the job: posts its state for health and metrics, and tells of what matters.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use foreshock_dataflows::meter::{Meter, OperatorWork};
use foreshock_operators::time::{MILLISECOND, SECOND, Time};
use tracing::{info, warn};

use super::JobParts;
use super::ending::Ending;
use super::job_report::JobReport;
use super::job_spec::JobSpec;
use super::measures::Measures;
use crate::metrics::JobMetrics;
use crate::status::{Phase, ShardState, State, StepState, WorkerState, wall_time};

/// How often the state is posted.
const TICK: Duration = Duration::from_millis(100);

/// Silences are counted each so many ticks: that looks at every instrument.
const SILENCES_EACH: u64 = 10;

/// How often the log tells of refused messages, at the most.
const REFUSED_EVERY: Duration = Duration::from_secs(10);

/// Supervises until the workers have finished.
pub fn supervise(parts: &JobParts, is_finished: impl Fn() -> bool) {
    let JobParts { spec, measures, report, ending } = parts;
    // Those of before were logged then.
    let refused = report.account_so_far().deadletter.iter().sum();
    let mut logged =
        LoggedState { failed: false, stopping: false, caught_up: false, refused, refused_at: None };
    let mut worked = HashMap::new();
    let mut ticked_at = Instant::now();
    for tick in 0_u64.. {
        // Nothing here waits for anybody, so a long time between two ticks means that the process stood still.
        ending.note_pause(ticked_at.elapsed());
        ticked_at = Instant::now();
        if is_finished() {
            break;
        }
        ending.end_with_others();
        post(parts);
        if tick.is_multiple_of(SILENCES_EACH) {
            count_silences(spec, measures);
        }
        logged.log_news(report, ending);
        add_operator_work(spec.place.first(), measures, &mut worked);
        // The supervisor is woken by nothing: what it looks at has no single owner.
        thread::sleep(TICK);
    }
    count_silences(spec, measures);
    add_operator_work(spec.place.first(), measures, &mut worked);
    logged.log_news(report, ending);
}

/// Posts the state at this moment.
pub fn post(JobParts { spec, measures, report, ending }: &JobParts) {
    let was = report.job_status.state();
    let now = wall_time();
    let shards: Vec<ShardState> = spec.own_shards().map(|at| shard_state(spec, measures, at, now)).collect();
    let all_read = |state: &ShardState| state.position >= state.end;
    let caught_up = was.caught_up || (was.phase == Phase::Running && shards.iter().all(all_read));
    let phase = match &was.phase {
        Phase::Failed(_) => was.phase.clone(),
        _ if ending.halt.is_set() => Phase::Failed(ending.halt.text().unwrap_or_default()),
        _ if ending.was_told_to_stop() => Phase::Stopping,
        _ => Phase::Running,
    };
    let (active_alerts, last_alert) = report.alerts();
    let state = State {
        phase,
        kafka_connected: measures.is_kafka_connected(),
        caught_up,
        counts: report.account_so_far(),
        active_alerts,
        last_alert,
        shards,
        workers: (spec.place.first()..).zip(&measures.meters).map(worker_state(measures)).collect(),
        lost: spec.lost.clone(),
    };
    gauge(&measures.metrics, &state);
    report.job_status.post(state);
}

fn worker_state(measures: &Measures) -> impl Fn((usize, &Meter)) -> WorkerState {
    |(worker, meter)| {
        let (label, metrics) = (worker.to_string(), &measures.metrics);
        let step = |work: OperatorWork| StepState {
            name: work.name,
            rows: work.rows(),
            nanoseconds: work.nanoseconds(),
        };
        WorkerState {
            worker,
            steps: meter.operators().into_iter().map(step).collect(),
            backlog_bytes: metrics.backlog_bytes.with_label_values(&[&label]).get(),
            in_flight: metrics.in_flight.with_label_values(&[&label]).get(),
        }
    }
}

fn shard_state(spec: &JobSpec, measures: &Measures, at: usize, now: Time) -> ShardState {
    let (shard, progress) = (&spec.shards[at], &measures.progress[at]);
    // Read in this order: messages may arrive in between, and a lag shall not be invented.
    let (end, position) = (progress.end(), progress.position());
    let lag_seconds = match progress.stamped_at() {
        Some(stamp) if position < end => (now.0 - stamp * MILLISECOND).max(0) as f64 / SECOND as f64,
        _ => 0.0,
    };
    ShardState {
        topic: shard.topic.clone(),
        partition: shard.partition,
        worker: spec.place.worker_of(at),
        position,
        end: end.max(position),
        committed: Some(progress.committed()),
        lag_seconds,
    }
}

fn gauge(metrics: &JobMetrics, state: &State) {
    metrics.kafka_connected.set(i64::from(state.kafka_connected));
    metrics.ready.set(i64::from(state.is_ready()));
    for shard in &state.shards {
        let partition = shard.partition.to_string();
        let labels = [shard.topic.as_str(), partition.as_str()];
        metrics.lag.with_label_values(&labels).set(shard.lag());
        metrics.kafka_lag.with_label_values(&labels).set(shard.lag());
        metrics.lag_seconds.with_label_values(&labels).set(shard.lag_seconds);
        metrics.volatility_lag_seconds.with_label_values(&labels).set(shard.lag_seconds);
        metrics.position.with_label_values(&labels).set(shard.position);
        metrics.committed.with_label_values(&labels).set(shard.committed.unwrap_or_default());
    }
}

/// Counts the instruments and those of which nothing came for too long.
fn count_silences(spec: &JobSpec, measures: &Measures) {
    let (mut instruments, mut silent) = (0, 0);
    let now = measures.clock.nanoseconds();
    for (id, seen_at) in measures.last_seen.iter().flat_map(|seen| seen.times()) {
        instruments += 1;
        let limit = spec.instruments.get(id).gap_after;
        let silence = i64::try_from(now.saturating_sub(seen_at)).unwrap_or(i64::MAX);
        silent += i64::from(limit.is_some_and(|limit| silence > limit));
    }
    measures.metrics.instruments.set(instruments);
    measures.metrics.open_silences.set(silent);
}

/// Adds what operators have worked since the last time.
fn add_operator_work(
    first_worker: usize,
    measures: &Measures,
    worked: &mut HashMap<(usize, &'static str), (u64, u64)>,
) {
    for (worker, meter) in (first_worker..).zip(&measures.meters) {
        for operator in meter.operators() {
            let now = (operator.nanoseconds(), operator.rows());
            let before = worked.insert((worker, operator.name), now).unwrap_or_default();
            let labels = [operator.name, &worker.to_string()];
            let seconds = (now.0 - before.0) as f64 / SECOND as f64;
            measures.metrics.operator_seconds.with_label_values(&labels).inc_by(seconds);
            measures.metrics.operator_rows.with_label_values(&labels).inc_by(now.1 - before.1);
        }
    }
}

/// What the log has said already.
struct LoggedState {
    failed: bool,
    stopping: bool,
    caught_up: bool,
    refused: i64,
    refused_at: Option<Instant>,
}

impl LoggedState {
    fn log_news(&mut self, report: &JobReport, ending: &Ending) {
        let state = report.job_status.state();
        if let Some(error) = ending.halt.text()
            && !self.failed
        {
            // Before all has ended: what does not end shall not hide why it was to.
            warn!(error, "failed; ending what runs");
            self.failed = true;
        }
        if ending.was_told_to_stop() && !self.stopping {
            info!("stopping: delivering what was begun; a second signal stops at once");
            self.stopping = true;
        }
        if state.caught_up && !self.caught_up {
            info!(messages = state.counts.messages_in, "caught up: all that was there is read");
            self.caught_up = true;
        }
        let refused = state.counts.deadletter.iter().sum::<i64>();
        let is_due = self.refused_at.is_none_or(|at| at.elapsed() >= REFUSED_EVERY);
        if refused > self.refused && is_due {
            let first = report.take_first_refused().unwrap_or_default();
            warn!(refused = refused - self.refused, total = refused, first, "messages or rows were refused");
            self.refused = refused;
            self.refused_at = Some(Instant::now());
        }
    }
}
