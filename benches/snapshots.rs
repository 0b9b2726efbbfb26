//! How long rows wait more while a snapshot of 2,000 instruments with full windows is taken.
//!
//! ```text
//! cargo bench --bench snapshots -- [ROUNDS [INSTRUMENTS]]
//! ```
//! One worker with the whole graph of a live job, fed at 20,000 ticks a second of wall and event time; another thread
//! writes the snapshots to a folder, as in a job. Seconds with a snapshot take turns with seconds without one. Two things
//! are measured: the longest step of the worker, and the longest way of a batch from when it was due to when its outputs
//! were encoded. A machine that does other things shows in both, so what counts is the difference of the medians.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::env;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use foreshock::clock::Clock;
use foreshock::config::{Config, Mode};
use foreshock::state::{Header, Store, Writer, Written};
use foreshock::status::wall_time;
use foreshock_dataflows::batch::{Cut, Delivered, Delivery, SnapshotCut, TimeRange};
use foreshock_dataflows::changes;
use foreshock_dataflows::encode_records::{EncodeRecords, Publication, encode_records};
use foreshock_dataflows::instruments::Instruments;
use foreshock_dataflows::live::{LastSeen, LiveDecode, LiveSettings, decode};
use foreshock_dataflows::market::{Market, market_of_shards};
use foreshock_dataflows::messages::Limits;
use foreshock_dataflows::meter::Meter;
use foreshock_dataflows::saving::{Piece, PieceContent, Saver};
use foreshock_dataflows::source::{NextPoll, deliveries};
use foreshock_operators::outputs::OutputKind;
use foreshock_operators::row::Extent;
use foreshock_operators::row::InstrumentId;
use timely::scheduling::SyncActivator;
use timely::worker::Worker;

#[allow(dead_code, reason = "other benches use more of it")]
mod support;

use serde_json::json;
use support::figures::{median, quantile};
use support::quotes::{EXCHANGE, Quotes};

const ROUNDS: usize = 10;
const INSTRUMENTS: usize = 2_000;

/// Ticks a second, in event time and while it is measured in wall time.
const RATE: usize = 20_000;

/// Ticks of one batch: what a broker's answers bring at this rate, and a slow broker's.
const BATCHES: [usize; 2] = [20, 100];

/// One tick a second of each instrument comes first, so that windows of seconds are full.
const CALM_S: usize = 300;

/// Then as many at the full rate, so that windows of ticks are.
const FULL_S: usize = 65;

/// Ticks of one batch while windows are filled.
const FILL_TICKS: usize = 1_000;

/// What is measured at a time.
const SECOND: Duration = Duration::from_secs(1);

/// Batches that are made ahead.
const AHEAD: usize = 64;

/// The name of the only shard.
const TOPIC: &str = "ticks.raw";

fn main() {
    let mut numbers = env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (rounds, instruments) = (numbers.next().unwrap_or(ROUNDS), numbers.next().unwrap_or(INSTRUMENTS));
    timely::execute_directly(move |worker| {
        let feed = Feed::new(instruments);
        let mut bench = Bench::new(worker);
        let feed = bench.fill(worker, feed, instruments);
        let feed = BATCHES.into_iter().fold(feed, |feed, batch| bench.measure(worker, feed, batch, rounds));
        bench.end(worker, feed);
    });
}

/// A worker's graph from outside.
struct Bench {
    due: Rc<RefCell<VecDeque<Delivery>>>,
    wake: SyncActivator,
    clock: Clock,
    given: u64,
    published: Rc<RefCell<Published>>,
    begun: Sender<u64>,
    saved: Receiver<Saved>,
    snapshots: u64,
}

/// What has come out.
#[derive(Default)]
struct Published {
    batches: u64,
    /// The longest time from when a batch was due.
    longest: Duration,
}

/// A snapshot that is there.
struct Saved {
    bytes: u64,
    took: Duration,
}

/// The longest times of each second, in milliseconds.
#[derive(Default)]
struct Longest {
    steps: Vec<f64>,
    ways: Vec<f64>,
}

impl Bench {
    fn new(worker: &mut Worker) -> Bench {
        let unknown = ("FORESHOCK_INSTRUMENTS__UNKNOWN".to_owned(), "accept".to_owned());
        let config = Config::load(&[], [unknown], Mode::Run).expect("the settings are valid");
        let instruments = Instruments::new(config.settings.instruments.clone());
        let (give, pieces) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        let (tell, saved) = mpsc::channel();
        let saver = Saver::new(give);
        let keeper = CheckpointCoordinator {
            saver: saver.clone(),
            instruments: instruments.clone(),
            pieces,
            begun,
            tell,
        };
        thread::spawn(move || keeper.keep());
        let clock = Clock::start();
        let (due, published) = (Rc::default(), Rc::default());
        let wake = build(worker, &config, &instruments, &saver, clock, &due, &published);
        Bench { due, wake, clock, given: 0, published, begun: begin, saved, snapshots: 0 }
    }

    /// Fills all windows, as fast as it goes.
    fn fill(&mut self, worker: &mut Worker, mut feed: Feed, instruments: usize) -> Feed {
        let began = Instant::now();
        for (seconds, rate) in [(CALM_S, instruments), (FULL_S, RATE)] {
            feed.quotes.step = 1e6 / rate as f64;
            for _ in 0..(seconds * rate).div_ceil(FILL_TICKS) {
                self.give(feed.batch(FILL_TICKS));
                self.finish(worker);
            }
        }
        eprintln!("windows of {instruments} instruments filled in {:.1} s", began.elapsed().as_secs_f64());
        feed
    }

    /// Seconds without a snapshot and with one in turn, in batches of so many ticks.
    fn measure(&mut self, worker: &mut Worker, mut feed: Feed, batch: usize, rounds: usize) -> Feed {
        let (give, made) = mpsc::sync_channel(AHEAD);
        let feeder = thread::spawn(move || {
            // Until nobody wants more.
            while give.send(feed.batch(batch)).is_ok() {}
            feed
        });
        let (mut without, mut with) = (Longest::default(), Longest::default());
        let mut snapshots = Vec::new();
        for round in 0..=rounds {
            // The first round is for warming up.
            let mut unused = Longest::default();
            let (without, with) =
                if round == 0 { (&mut unused, &mut Longest::default()) } else { (&mut without, &mut with) };
            self.second(worker, batch, &made, false, without);
            snapshots.extend(self.second(worker, batch, &made, true, with));
        }
        report(batch, &snapshots, &mut without, &mut with);
        drop(made);
        feeder.join().expect("the feed goes on")
    }

    /// One second of batches; longer where its snapshot takes longer.
    fn second(
        &mut self,
        worker: &mut Worker,
        batch: usize,
        made: &Receiver<Delivery>,
        mut wished: bool,
        longest: &mut Longest,
    ) -> Option<Saved> {
        let period = Duration::from_secs_f64(batch as f64 / RATE as f64);
        let (began, began_ns) = (Instant::now(), self.clock.nanoseconds());
        let (mut step, mut saved, mut due) = (Duration::ZERO, None, Duration::ZERO);
        let is_awaited = wished;
        self.published.borrow_mut().longest = Duration::ZERO;
        while due < SECOND || (is_awaited && saved.is_none()) {
            let mut delivery = made.recv().expect("the feed goes on");
            while began.elapsed() < due {
                step = step.max(stepped(worker));
            }
            delivery.cut.read_at = began_ns + due.as_nanos() as u64;
            if std::mem::take(&mut wished) {
                self.snapshots += 1;
                self.begun.send(self.snapshots).expect("snapshots are kept");
                delivery.cut.snapshot = Some(SnapshotCut { number: self.snapshots, at_once: false });
            }
            self.give(delivery);
            saved = saved.or_else(|| self.saved.try_recv().ok());
            due += period;
        }
        step = step.max(self.finish(worker));
        longest.steps.push(milliseconds(step));
        longest.ways.push(milliseconds(self.published.borrow().longest));
        saved
    }

    fn give(&mut self, delivery: Delivery) {
        self.due.borrow_mut().push_back(delivery);
        self.given += 1;
        self.wake.activate().expect("the worker is there");
    }

    /// Works until nothing is left to be published; the longest step on the way.
    fn finish(&self, worker: &mut Worker) -> Duration {
        let mut longest = Duration::ZERO;
        while self.published.borrow().batches < self.given {
            longest = longest.max(stepped(worker));
        }
        longest
    }

    fn end(mut self, worker: &mut Worker, mut feed: Feed) {
        self.give(Delivery { end: true, ..feed.batch(0) });
        self.finish(worker);
    }
}

/// Makes batches of ticks.
struct Feed {
    quotes: Quotes,
    offset: u64,
    line: Vec<u8>,
}

impl Feed {
    fn new(instruments: usize) -> Feed {
        Feed { quotes: Quotes::new(instruments, RATE as f64), offset: 0, line: Vec::new() }
    }

    fn batch(&mut self, ticks: usize) -> Delivery {
        let (mut bytes, mut messages) = (Vec::new(), Vec::new());
        let exchange = Arc::<str>::from(EXCHANGE);
        for _ in 0..ticks {
            self.quotes.next(&mut self.line);
            let start = bytes.len() as u32;
            bytes.extend_from_slice(&self.line);
            messages.push(Delivered {
                offset: self.offset,
                key: Extent { start, length: 0 },
                body: Some(Extent { start, length: self.line.len() as u32 }),
                received: None,
                exchange: Some(exchange.clone()),
                control: false,
                problem: None,
            });
            self.offset += 1;
        }
        let cut = Cut { next_offset: self.offset as i64, ..Cut::default() };
        Delivery { end: false, bytes: Arc::new(bytes), messages, cut }
    }
}

/// Writes snapshots, as a job's own thread does.
struct CheckpointCoordinator {
    saver: Saver,
    instruments: Instruments,
    pieces: Receiver<Piece>,
    begun: Receiver<u64>,
    tell: Sender<Saved>,
}

impl CheckpointCoordinator {
    fn keep(self) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let store = Store::open(&folder.path().display().to_string(), "bench").expect("the folder is ours");
        // Nobody begins one any more where the bench ends.
        while let Ok(number) = self.begun.recv() {
            let began = Instant::now();
            let Some(written) = self.write(store.begin_snapshot(&header(number)).expect("there is room"))
            else {
                return;
            };
            let bytes = written.bytes;
            written.publish().and_then(|_| store.prune(TOPIC, 0, 2)).expect("the snapshot can be kept");
            if self.tell.send(Saved { bytes, took: began.elapsed() }).is_err() {
                return;
            }
        }
    }

    /// Takes pieces until all sections are there.
    fn write(&self, mut writer: Writer) -> Option<Written> {
        let mut missing: BTreeSet<&str> = BTreeSet::from([Market::SECTION, changes::NAME]);
        while !missing.is_empty() {
            let piece = self.pieces.recv().ok()?;
            let section = piece.section;
            let written = match &piece.content {
                PieceContent::Done => {
                    missing.remove(section);
                    Ok(())
                }
                PieceContent::Shard(bytes) => writer.section(section, bytes),
                PieceContent::Key(at, bytes) => {
                    let instrument = self.instruments.get(InstrumentId(*at as u32));
                    writer.instrument(&instrument.exchange, &instrument.symbol, section, bytes)
                }
            };
            written.expect("there is room");
            self.saver.piece_done(piece);
        }
        Some(writer.finish().expect("there is room"))
    }
}

fn header(number: u64) -> Header {
    Header {
        job: "bench".to_owned(),
        topic: TOPIC.to_owned(),
        partition: 0,
        incarnation: "bench".to_owned(),
        offset: number as i64,
        origin: 0,
        origin_is_cold: true,
        last_record: None,
        settings: String::new(),
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: wall_time(),
    }
}

/// Builds the graph of a live job, without its ends; gives what wakes its source.
fn build(
    worker: &mut Worker,
    config: &Config,
    instruments: &Instruments,
    saver: &Saver,
    clock: Clock,
    due: &Rc<RefCell<VecDeque<Delivery>>>,
    published: &Rc<RefCell<Published>>,
) -> SyncActivator {
    let settings = Arc::new(config.settings.clone());
    let limits = Limits {
        range: TimeRange::default(),
        max_message_bytes: config.input.max_message_bytes,
        control: true,
    };
    let shards: Arc<[String]> = vec![format!("{TOPIC}/0")].into();
    let live = LiveSettings {
        shards: shards.clone(),
        format: None,
        exchange: None,
        limits,
        settings: settings.clone(),
    };
    let mut decoder = LiveDecode::new(live, instruments, LastSeen::default());
    decoder.save_to(saver.clone());
    let mut states = Market::new(&settings, instruments);
    states.save_to(saver);
    let kinds: Vec<OutputKind> = OutputKind::of_topics().collect();
    let publisher = EncodeRecords::new(kinds.into(), shards, instruments.clone(), settings);
    let (due, published, meter) = (due.clone(), published.clone(), Meter::default());
    let mut wake = None;
    worker.dataflow::<u64, _, _>(|scope| {
        let poll = move |arrived: &mut Vec<Delivery>| {
            arrived.extend(due.borrow_mut().drain(..));
            if arrived.iter().any(|delivery| delivery.end) { NextPoll::Ended } else { NextPoll::Wait(SECOND) }
        };
        let deliveries =
            deliveries(scope, poll, move || clock.milliseconds(), |activator| wake = Some(activator));
        let outcomes = market_of_shards(decode(deliveries, decoder, &meter), states, &meter);
        let take = move |publication: Publication| {
            let mut published = published.borrow_mut();
            let took = clock.nanoseconds().saturating_sub(publication.cut.read_at);
            published.longest = published.longest.max(Duration::from_nanos(took));
            published.batches += 1;
        };
        encode_records(outcomes, publisher, take, &meter);
    });
    wake.expect("the source was built")
}

/// One step of the worker, and how long it took.
fn stepped(worker: &mut Worker) -> Duration {
    let began = Instant::now();
    worker.step();
    began.elapsed()
}

fn milliseconds(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

/// Prints what was measured with batches of one size.
fn report(batch: usize, snapshots: &[Saved], without: &mut Longest, with: &mut Longest) {
    let mut took: Vec<f64> = snapshots.iter().map(|saved| milliseconds(saved.took)).collect();
    let took_ms = median(&mut took);
    let bytes = snapshots.last().map_or(0, |saved| saved.bytes);
    let line = |name: &str, without: &mut [f64], with: &mut [f64]| {
        let (without_ms, with_ms) = (median(without), median(with));
        let adds_ms = with_ms - without_ms;
        let most_ms = quantile(with, 1.0);
        println!(
            "{}",
            json!({
                "what": "snapshot", "batch": batch, "longest": name, "without_ms": without_ms, "with_ms": with_ms,
                "adds_ms": adds_ms, "worst_with_ms": most_ms, "worst_without_ms": quantile(without, 1.0),
                "bytes": bytes, "snapshot_ms": took_ms,
            })
        );
    };
    line("step", &mut without.steps, &mut with.steps);
    line("way", &mut without.ways, &mut with.ways);
}
