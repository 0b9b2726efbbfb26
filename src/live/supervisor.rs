//! Looks after the job: posts its state for health and metrics, and tells of what matters.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use foreshock_operators::time::{MILLISECOND, SECOND, Time};
use tracing::{info, warn};

use super::Shared;
use crate::status::{Phase, ShardState, State, wall_time};

/// How often the state is posted.
const TICK: Duration = Duration::from_millis(100);

/// Silences are counted each so many ticks: that looks at every instrument.
const SILENCES_EACH: u64 = 10;

/// How often the log tells of refused messages, at the most.
const REFUSED_EVERY: Duration = Duration::from_secs(10);

/// Supervises until the workers have finished.
pub fn supervise(shared: &Shared, is_finished: impl Fn() -> bool) {
    // Those of before were told of then.
    let refused = shared.account_so_far().deadletter.iter().sum();
    let mut logged =
        LoggedState { failed: false, stopping: false, caught_up: false, refused, refused_at: None };
    let mut worked = HashMap::new();
    let mut ticked_at = Instant::now();
    for tick in 0_u64.. {
        // Nothing here waits for anybody, so a long time between two ticks means that the process stood still.
        shared.note_pause(ticked_at.elapsed());
        ticked_at = Instant::now();
        if is_finished() {
            break;
        }
        shared.mind_others();
        post(shared);
        if tick.is_multiple_of(SILENCES_EACH) {
            count_silences(shared);
        }
        logged.log_news(shared);
        add_operator_times(shared, &mut worked);
        // The supervisor is woken by nothing: what it looks at has no single owner.
        thread::sleep(TICK);
    }
    count_silences(shared);
    add_operator_times(shared, &mut worked);
    logged.log_news(shared);
}

/// Posts the state at this moment.
pub fn post(shared: &Shared) {
    let was = shared.job_status.state();
    let now = wall_time();
    let shards: Vec<ShardState> = shared.own_shards().map(|at| shard_state(shared, at, now)).collect();
    let all_read = |state: &ShardState| state.position >= state.end;
    let caught_up = was.caught_up || (was.phase == Phase::Running && shards.iter().all(all_read));
    let phase = match &was.phase {
        Phase::Failed(_) => was.phase.clone(),
        _ if shared.halt.is_set() => Phase::Failed(shared.halt.text().unwrap_or_default()),
        _ if shared.stop.load(Ordering::Relaxed) => Phase::Stopping,
        _ => Phase::Running,
    };
    let alerts = shared.alerts.lock().unwrap_or_else(PoisonError::into_inner);
    let state = State {
        phase,
        kafka_connected: shared.kafka_connected.load(Ordering::Acquire),
        caught_up,
        counts: shared.account_so_far(),
        active_alerts: alerts.active(),
        last_alert: alerts.last.clone(),
        shards,
        lost: shared.lost.clone(),
    };
    drop(alerts);
    gauge(shared, &state);
    shared.job_status.post(state);
}

fn shard_state(shared: &Shared, at: usize, now: Time) -> ShardState {
    let (shard, progress) = (&shared.shards[at], &shared.progress[at]);
    // Read in this order: messages may arrive in between, and a lag shall not be invented.
    let (end, position) = (progress.end(), progress.position());
    let lag_seconds = match progress.stamped_at() {
        Some(stamp) if position < end => (now.0 - stamp * MILLISECOND).max(0) as f64 / SECOND as f64,
        _ => 0.0,
    };
    ShardState {
        topic: shard.topic.clone(),
        partition: shard.partition,
        worker: shared.place.worker_of(at),
        position,
        end: end.max(position),
        committed: Some(progress.committed()),
        lag_seconds,
    }
}

fn gauge(shared: &Shared, state: &State) {
    let metrics = &shared.metrics.job;
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
fn count_silences(shared: &Shared) {
    let (mut instruments, mut silent) = (0, 0);
    let now = shared.clock.nanoseconds();
    for (id, seen_at) in shared.last_seen.iter().flat_map(|seen| seen.times()) {
        instruments += 1;
        let limit = shared.instruments.get(id).gap_after;
        let silence = i64::try_from(now.saturating_sub(seen_at)).unwrap_or(i64::MAX);
        silent += i64::from(limit.is_some_and(|limit| silence > limit));
    }
    shared.metrics.job.instruments.set(instruments);
    shared.metrics.job.open_silences.set(silent);
}

/// Adds what operators have worked since the last time.
fn add_operator_times(shared: &Shared, worked: &mut HashMap<(usize, &'static str), u64>) {
    for (worker, meter) in (shared.place.first()..).zip(&shared.meters) {
        for operator in meter.operators() {
            let now = operator.nanoseconds();
            let before = worked.insert((worker, operator.name), now).unwrap_or_default();
            let labels = [operator.name, &worker.to_string()];
            let seconds = (now - before) as f64 / SECOND as f64;
            shared.metrics.job.operator_seconds.with_label_values(&labels).inc_by(seconds);
        }
    }
}

/// What the log was told already.
struct LoggedState {
    failed: bool,
    stopping: bool,
    caught_up: bool,
    refused: i64,
    refused_at: Option<Instant>,
}

impl LoggedState {
    fn log_news(&mut self, shared: &Shared) {
        let state = shared.job_status.state();
        if let Some(error) = shared.halt.text()
            && !self.failed
        {
            // Before all has ended: what does not end shall not hide why it was to.
            warn!(error, "failed; ending what runs");
            self.failed = true;
        }
        if shared.stop.load(Ordering::Relaxed) && !self.stopping {
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
            let first = shared.first_refused.lock().unwrap_or_else(PoisonError::into_inner).take();
            let first = first.unwrap_or_default();
            warn!(refused = refused - self.refused, total = refused, first, "messages or rows were refused");
            self.refused = refused;
            self.refused_at = Some(Instant::now());
        }
    }
}
