//! The tail of a worker's graph: takes each publication into the account and hands it to the sink.

use anyhow::{Error, anyhow};
use foreshock_dataflows::batch::Cut;
use foreshock_dataflows::encode_records::Publication;
use foreshock_dataflows::saving::Saver;
use tracing::warn;

use super::JobParts;
use super::account::ShardAccount;
use super::worker_ends::WorkerEnds;

/// Delivers the publications of one worker, in the order in which its shards were read.
pub struct Deliver {
    /// Of this process, from 0.
    worker: usize,
    ends: WorkerEnds,
    parts: JobParts,
    /// Where the accounts of shards are saved; `None` where no snapshots are kept.
    saver: Option<Saver>,
}

impl Deliver {
    pub fn new(worker: usize, ends: WorkerEnds, parts: JobParts, saver: Option<Saver>) -> Deliver {
        Deliver { worker, ends, parts, saver }
    }

    /// Delivers a publication, unless the job has halted: what fails here halts it.
    pub fn deliver(&mut self, mut publication: Publication) {
        let JobParts { spec, measures, report, ending } = &self.parts;
        if ending.halt.is_set() {
            return;
        }
        if let Some(why) = self.refusal(&mut publication) {
            return ending.halt.fail(why);
        }
        for notice in publication.notices.drain(..) {
            warn!("{notice}");
        }
        report.serve_changed(publication.model.as_ref(), publication.features.as_ref());
        report.add_publication(self.worker, &spec.kinds, &spec.instruments, &mut publication);
        self.save_account(&publication.cut);
        self.ends.sink().push(publication);
        self.ends.poll_sink(measures, ending);
    }

    /// Why the job can't go on with what a publication tells.
    fn refusal(&self, publication: &mut Publication) -> Option<Error> {
        let spec = &self.parts.spec;
        if let Some(why) = publication.unusable.take() {
            return Some(Error::msg(why));
        }
        let max = spec.config.settings.instruments.max;
        spec.instruments
            .too_many()
            .then(|| anyhow!("more than {max} instruments; raise instruments.max if they are real"))
    }

    /// Saves what is known of a shard as a whole where its state is to be saved.
    fn save_account(&self, cut: &Cut) {
        let (Some(saver), Some(snapshot)) = (&self.saver, cut.snapshot) else { return };
        let JobParts { spec, report, .. } = &self.parts;
        let account = report.shard_account(cut.shard, spec.bases.get(&cut.shard).cloned());
        saver.shard(cut.shard, snapshot.number, ShardAccount::SECTION, account.bytes());
    }
}
