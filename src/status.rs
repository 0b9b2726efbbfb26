//! What a job says of itself while it runs: for health checks, metrics and people.
//!
//! The job swaps a whole [`State`] in; whoever asks takes the one in force. Nobody reaches into a dataflow.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use foreshock_operators::account::Counts;
use foreshock_operators::features::FeatureSettings;
use foreshock_operators::model::Model;
use foreshock_operators::time::Time;

/// The time by the system's clock: for status, never for results.
pub fn wall_time() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Where a job is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It looks for its topics and reads its offsets.
    Starting,
    Running,
    /// It was told to stop and delivers what it has begun.
    Stopping,
    /// It can't go on, for this reason.
    Failed(String),
}

impl Phase {
    /// The name printed.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Stopping => "stopping",
            Phase::Failed(_) => "failed",
        }
    }
}

/// How far one shard of the input is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardState {
    pub topic: String,
    pub partition: i32,
    /// The worker that reads it.
    pub worker: usize,
    /// The next offset to read.
    pub position: i64,
    /// The offset behind the last message of the log.
    pub end: i64,
    /// The offset a restart would begin at; `None` before the first commit.
    pub committed: Option<i64>,
    /// Seconds by which the last message that was read is older than now, by Kafka's timestamps; 0 when all is
    /// read.
    pub lag_seconds: f64,
}

impl ShardState {
    /// Messages still to read: an upper bound where the log has holes.
    pub fn lag(&self) -> i64 {
        (self.end - self.position).max(0)
    }
}

/// What one step of the graph has done since the job's last start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepState {
    pub name: &'static str,
    /// Rows taken: messages where they are decoded, outcomes where they are encoded.
    pub rows: u64,
    /// Time it has worked.
    pub nanoseconds: u64,
}

/// One worker's part of the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerState {
    /// Its number in the job.
    pub worker: usize,
    /// In the order of the graph.
    pub steps: Vec<StepState>,
    /// Bytes of outputs on their way to the brokers.
    pub backlog_bytes: i64,
    /// Batches of rows whose outputs are on their way, or not committed.
    pub in_flight: i64,
}

/// A job at one moment.
#[derive(Clone, Debug)]
pub struct State {
    pub phase: Phase,
    /// Whether a broker answered lately.
    pub kafka_connected: bool,
    /// Whether the job has once read all there was.
    pub caught_up: bool,
    pub shards: Vec<ShardState>,
    /// Of this process.
    pub workers: Vec<WorkerState>,
    /// What was gone when the job started, and what was done about it.
    pub lost: Vec<String>,
    /// The account since this process started.
    pub counts: Counts,
    pub active_alerts: usize,
    /// The last change in the life of an alert.
    pub last_alert: Option<AlertChange>,
}

/// One change in the life of an alert.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertChange {
    pub exchange: Arc<str>,
    pub instrument: Arc<str>,
    pub rule: Arc<str>,
    pub priority: &'static str,
    pub state: &'static str,
    /// In event time.
    pub time: Time,
}

impl Default for State {
    fn default() -> State {
        State {
            phase: Phase::Starting,
            kafka_connected: false,
            caught_up: false,
            shards: Vec::new(),
            workers: Vec::new(),
            lost: Vec::new(),
            counts: Counts::default(),
            active_alerts: 0,
            last_alert: None,
        }
    }
}

impl State {
    /// Whether the job serves and has once read all there was.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Running && self.caught_up
    }

    /// Why the job isn't serving at the moment; `None` when it is.
    pub fn problem(&self) -> Option<String> {
        match &self.phase {
            Phase::Failed(why) => Some(why.clone()),
            Phase::Starting => Some("starting: reading topics and offsets".to_owned()),
            Phase::Stopping => Some("stopping".to_owned()),
            Phase::Running if !self.kafka_connected => Some("no Kafka broker answers".to_owned()),
            Phase::Running => None,
        }
    }
}

/// The model in force and what is needed to score a row that did not come through the dataflow.
#[derive(Clone, Debug)]
pub struct Serving {
    pub model: Arc<Model>,
    /// Return horizons give the names of the return features.
    pub features: Arc<FeatureSettings>,
    pub loaded_at: Time,
}

/// Where a job posts what it says of itself.
#[derive(Debug, Default)]
pub struct JobStatus {
    state: ArcSwap<State>,
    serving: ArcSwapOption<Serving>,
}

impl JobStatus {
    /// The state in force.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Puts a state in force.
    pub fn post(&self, state: State) {
        self.state.store(Arc::new(state));
    }

    /// The model in force, if there is one.
    pub fn serving(&self) -> Option<Arc<Serving>> {
        self.serving.load_full()
    }

    /// Puts a model in force for rows that come over HTTP.
    pub fn serve(&self, serving: Serving) {
        self.serving.store(Some(Arc::new(serving)));
    }
}
