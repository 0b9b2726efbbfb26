//! What a job says: its account, its alerts, what was refused, the model in force.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};
use foreshock_dataflows::encode_records::Publication;
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::settings::Settings;
use foreshock_operators::account::Counts;
use foreshock_operators::change::Change;
use foreshock_operators::features::FeatureSettings;
use foreshock_operators::model::Model;
use foreshock_operators::outputs::OutputKind;
use tracing::info;

use super::account::ShardAccount;
use super::alerts::{Active, Alerts};
use crate::metrics::JobMetrics;
use crate::status::{AlertChange, JobStatus, Serving, wall_time};

/// The counts of what was suppressed in the first attempt that has recovered: the attempts after it read again what
/// this process has emitted itself. Attempts share it.
pub type EmittedBefore = Arc<Mutex<Option<Counts>>>;

/// What one attempt of a job says of itself. Workers fill it, publication by publication; the supervisor, snapshots
/// and the summary read it.
pub struct JobReport {
    /// What HTTP reads.
    pub job_status: Arc<JobStatus>,
    metrics: JobMetrics,
    /// By shard: of the job, as far as it is known.
    accounts: Vec<Mutex<Counts>>,
    /// Of what this process does not emit, since it was emitted before: what is restored and read again.
    suppressed: Mutex<Counts>,
    emitted_before: EmittedBefore,
    alerts: Mutex<Alerts>,
    /// The first message or row refused since the log named one.
    first_refused: Mutex<Option<String>>,
    /// By worker of this process: rows that its instruments had, without suppressed ones.
    rows_per_worker: Vec<AtomicI64>,
}

impl JobReport {
    /// Nothing to say yet of so many shards and of the workers of this process.
    pub fn new(
        shards: usize,
        workers: usize,
        job_status: Arc<JobStatus>,
        metrics: JobMetrics,
        emitted_before: EmittedBefore,
    ) -> JobReport {
        JobReport {
            job_status,
            metrics,
            accounts: (0..shards).map(|_| Mutex::default()).collect(),
            suppressed: Mutex::default(),
            emitted_before,
            alerts: Mutex::default(),
            first_refused: Mutex::default(),
            rows_per_worker: (0..workers).map(|_| AtomicI64::new(0)).collect(),
        }
    }

    /// Goes on from what a shard's snapshot says.
    pub fn restore_shard(&self, shard: u32, counts: Counts, alerts: BTreeMap<String, Active>) {
        lock(&self.suppressed).add(&counts);
        *lock(&self.accounts[shard as usize]) = counts;
        lock(&self.alerts).restore(shard, alerts, &self.metrics);
    }

    /// Adds what a publication of one of this process's workers counts, and what it changes in alerts.
    pub fn add_publication(
        &self,
        worker: usize,
        kinds: &[OutputKind],
        instruments: &Instruments,
        publication: &mut Publication,
    ) {
        let (metrics, shard) = (&self.metrics, publication.cut.shard);
        let counts = &publication.counts;
        lock(&self.accounts[shard as usize]).add(counts);
        if !publication.alerts.is_empty() {
            let mut alerts = lock(&self.alerts);
            for (instrument, alert) in publication.alerts.drain(..) {
                if !publication.cut.suppressed {
                    let labels = [alert.state.name(), alert.priority.name()];
                    metrics.alerts.with_label_values(&labels).inc();
                }
                alerts.note(shard, &instruments.get(instrument), *alert, metrics);
            }
        }
        if publication.cut.suppressed {
            // Counted by the process that emitted it.
            lock(&self.suppressed).add(counts);
            return metrics.replayed_rows.inc_by(counts.rows_processed().unsigned_abs());
        }
        self.rows_per_worker[worker].fetch_add(counts.rows_processed(), Ordering::Relaxed);
        metrics.count(counts);
        if let Some(refused) = publication.first_refused.take() {
            lock(&self.first_refused).get_or_insert(refused);
        }
        for kind in kinds {
            let records = publication.records.iter().filter(|record| record.kind == *kind).count();
            if records > 0 {
                metrics.outputs.with_label_values(&[kind.name()]).inc_by(records as u64);
            }
        }
        let spikes = publication.predictions.iter().filter(|(_, spike)| *spike).count();
        for (label, n) in [("1", spikes), ("0", publication.predictions.len() - spikes)] {
            metrics.predictions_by_class.with_label_values(&[label]).inc_by(n as u64);
        }
        let probability = metrics.probability.local();
        publication.predictions.iter().for_each(|(p, _)| probability.observe(*p));
        probability.flush();
    }

    /// The account of all shards of this process, since the job began to read them.
    pub fn account_so_far(&self) -> Counts {
        let mut sum = Counts::default();
        for account in &self.accounts {
            sum.add(&lock(account));
        }
        sum
    }

    /// What a snapshot says of a shard as a whole, which the job began with the settings `base`.
    pub fn shard_account(&self, shard: u32, base: Option<Arc<Settings>>) -> ShardAccount {
        let counts = lock(&self.accounts[shard as usize]).clone();
        let alerts = lock(&self.alerts).of_shard(shard);
        ShardAccount { base, counts, alerts }
    }

    /// How many alerts are active, and the last change of one.
    pub fn alerts(&self) -> (usize, Option<AlertChange>) {
        let alerts = lock(&self.alerts);
        (alerts.active(), alerts.last.clone())
    }

    /// The first message or row that was refused since this was asked last.
    pub fn take_first_refused(&self) -> Option<String> {
        lock(&self.first_refused).take()
    }

    /// Keeps the counts of what was suppressed up to now for the attempts after this one, unless one before has.
    pub fn note_emitted_before(&self) {
        lock(&self.emitted_before).get_or_insert_with(|| lock(&self.suppressed).clone());
    }

    /// The counts of this process alone and the account of its shards, when the job ends.
    ///
    /// # Errors
    /// When the fates do not add up, which is a bug.
    pub fn closing_account(&self) -> Result<(Counts, Counts)> {
        let account = self.account_so_far();
        let emitted_before = lock(&self.emitted_before);
        let counts = account.since(emitted_before.as_ref().unwrap_or(&lock(&self.suppressed)));
        if let Some(wrong) = account.imbalance() {
            bail!("the account does not add up, which is a bug: {wrong}");
        }
        Ok((counts, account))
    }

    /// Rows that each worker's instruments had.
    pub fn rows_per_worker(&self) -> Vec<i64> {
        self.rows_per_worker.iter().map(|rows| rows.load(Ordering::Relaxed)).collect()
    }

    /// Puts in force for HTTP and metrics what a control record has put in force for rows.
    pub fn serve_changed(&self, model: Option<&Arc<Model>>, features: Option<&Arc<FeatureSettings>>) {
        if model.is_none() && features.is_none() {
            return;
        }
        let Some(serving) = self.job_status.serving() else { return };
        let (model, features) = (model.unwrap_or(&serving.model), features.unwrap_or(&serving.features));
        if serving.model != *model || serving.features != *features {
            serve_model(model, features, &self.job_status, &self.metrics);
        }
    }

    /// The same with what a shard begins with: these settings, and the changes since then.
    pub fn serve_restored(&self, base: Option<&Arc<Settings>>, changes: &[Arc<Change>]) {
        let mut in_force: Vec<_> = changes.iter().filter(|change| change.effective_at.is_none()).collect();
        in_force.sort_by_key(|change| std::cmp::Reverse(change.number));
        let model =
            in_force.iter().find_map(|change| change.model()).or(base.map(|base| &base.parameters.model));
        let features = in_force.iter().find_map(|change| change.features());
        self.serve_changed(model, features.or(base.map(|base| &base.parameters.features)));
    }
}

/// Puts a model in force for HTTP and metrics.
pub fn serve_model(
    model: &Arc<Model>,
    features: &Arc<FeatureSettings>,
    job_status: &JobStatus,
    metrics: &JobMetrics,
) {
    info!(
        name = &*model.name,
        version = &*model.version,
        kind = model.kind.name(),
        sha256 = &*model.sha256,
        "model in force"
    );
    let info = [&*model.name, &*model.version, model.variant(), &*model.sha256];
    metrics.model_info.reset();
    metrics.model_info.with_label_values(&info).set(1);
    metrics.model_loaded.set(1);
    job_status.serve(Serving { model: model.clone(), features: features.clone(), loaded_at: wall_time() });
}

/// A panic ends the process, so nobody meets a lock that one has left behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
