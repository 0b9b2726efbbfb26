//! Puts an instrument's rows in order and takes out duplicates and late rows (docs/definitions.md, "Order").

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::account::Reason;
use crate::chain::Gate;
use crate::moments::push_tight;
use crate::operator::{Ahead, Collector, Instrument, Mismatch, Operator, consistent, same_settings};
use crate::packed;
use crate::parameters::Parameters;
use crate::prefetch::fetch;
use crate::row::{Body, Channel, Extent, Level, Quote, Row, Source, Trade};
use crate::time::Time;

pub use crate::parameters::OrderSettings;

/// How many row ids of a channel are remembered.
pub const IDS_REMEMBERED: usize = 1_024;

/// How many rows of one instrument may wait for older ones: past that the oldest goes on before its time.
pub const WAITING_MAX: usize = 262_144;

/// How many levels of books may wait with an instrument's rows: past that too the oldest row goes on before its time.
pub const WAITING_LEVELS_MAX: usize = 1 << 20;

/// Lets the rows of the channels in use through, once each, none older than the one before it in its channel,
/// and sets the instrument's clock on them. Whatever waits for a row (see [`crate::chain`]) waits here with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Those in force at the last row let through.
    settings: OrderSettings,
    /// The quote and the trade channel that configuration fixed.
    configured: [Option<Channel>; 2],
    /// The channel whose rows are ticks: the configured one, or the best that the log has carried so far.
    quote_channel: Option<Channel>,
    /// The channel that trades are counted from: the configured one, or the best so far.
    trade_channel: Option<Channel>,
    channels: [ChannelMemory; Channel::COUNT],
    /// The instrument's clock T: the largest event time among the rows let through.
    clock: Option<Time>,
    /// The largest event time among the rows that came in, waiting ones included.
    arrived: Option<Time>,
    waiting: BTreeMap<Place, Waiting>,
    /// Levels of all rows that wait.
    waiting_levels: usize,
}

/// A row that waits for older ones, with the levels that its batch had of it: the batch is gone when it goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Waiting {
    row: Row,
    levels: Box<[Level]>,
}

/// Where a waiting row belongs: by event time, then in the order of the log.
type Place = (Time, Source, u32);

/// What is remembered of one channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ChannelMemory {
    /// Event time of the newest row let through; `None` before the first.
    newest: Option<Time>,
    ids: RecentIds,
}

impl Operator for Order {
    const NAME: &'static str = "order";
    type Input = Row;
    type Output = Row;

    fn new(parameters: &Parameters, instrument: &Instrument) -> Self {
        Order {
            settings: parameters.order,
            configured: [instrument.quote_channel, instrument.trade_channel],
            quote_channel: instrument.quote_channel,
            trade_channel: instrument.trade_channel,
            channels: Default::default(),
            clock: None,
            arrived: None,
            waiting: BTreeMap::new(),
            waiting_levels: 0,
        }
    }

    fn on_input(&mut self, mut row: Row, out: &mut impl Collector<Row>) {
        if !self.choose_channel(&mut row) {
            // Whether a channel is used is known only here, in the order of the log.
            let counts = out.counts();
            if row.alone {
                // Its message turns from one with rows into an ignored one.
                counts.rows_in -= 1;
                counts.messages_rows -= 1;
                counts.messages_ignored += 1;
            } else {
                counts.rows_ignored += 1;
            }
            return;
        }
        let channel = &mut self.channels[row.channel as usize];
        if row.id.is_some_and(|id| !channel.ids.insert(id)) {
            out.counts().duplicate += 1;
            return;
        }
        if let Some(newest) = channel.newest
            && row.event_time < newest
        {
            out.counts().late += 1;
            let late_by = newest.since(row.event_time);
            let detail =
                format!("{late_by} ns older than the newest row of its channel {}", row.channel.name());
            out.context().refuse(&row, Reason::Late, detail);
            return;
        }
        if self.settings.reorder == 0 {
            self.let_through(row, out);
            return;
        }
        self.arrived = self.arrived.max(Some(row.event_time));
        self.keep(row, out);
        while let Some(first) = self.waiting.first_entry() {
            // The row before may have changed how long rows wait.
            let due = self.arrived.map(|arrived| arrived.minus(self.settings.reorder));
            let waited = Some(first.key().0) <= due;
            let fits = self.waiting.len() <= WAITING_MAX && self.waiting_levels <= WAITING_LEVELS_MAX;
            if !waited && fits {
                break;
            }
            out.counts().hurried += i64::from(!waited);
            self.release(out);
        }
    }

    fn on_end(&mut self, out: &mut impl Collector<Row>) {
        while !self.waiting.is_empty() {
            self.release(out);
        }
    }

    /// Nearly all rows come through the quote channel.
    fn fetch(&self, _: Time, ahead: Ahead) {
        let channel = &self.channels[self.quote_channel.unwrap_or(Channel::Ticker) as usize];
        match ahead {
            Ahead::Far => {
                fetch(&self.clock);
                fetch(&self.quote_channel);
                self.channels.iter().for_each(fetch);
            }
            Ahead::Near => {
                channel.ids.ids.back().map(fetch);
            }
            Ahead::Next => {}
        }
    }

    fn resume(&mut self, parameters: &Parameters, instrument: &Instrument) -> Result<(), Mismatch> {
        let configured = [instrument.quote_channel, instrument.trade_channel];
        same_settings(&(self.settings, self.configured), &(parameters.order, configured))?;
        let remembers = self.channels.iter().all(|channel| channel.ids.ids.len() <= IDS_REMEMBERED);
        consistent(remembers, &format!("it remembers more than {IDS_REMEMBERED} ids of a channel"))?;
        let levels: usize = self.waiting.values().map(|waiting| waiting.levels.len()).sum();
        consistent(levels == self.waiting_levels, "it counts other levels than wait")
    }
}

/// Rows wait here, so the chain's changes that are not due do too.
impl Gate for Order {
    type Item = Row;

    /// Rows no longer wait for what is gone, and what follows is no duplicate of it and not late for it. Event time
    /// still never runs backwards.
    fn on_lost_log(&mut self, out: &mut impl Collector<Row>) {
        self.on_end(out);
        self.channels = Default::default();
        self.arrived = None;
    }

    fn may_wait(parameters: &Parameters) -> bool {
        parameters.order.reorder > 0
    }

    fn oldest_waiting(&self) -> Option<u64> {
        self.waiting.values().map(|waiting| waiting.row.source.line).min()
    }
}

impl Order {
    /// Decides by its channel what of a row is used: a channel that nobody configured is the best that the log
    /// has carried so far, and a better one takes over for good, so that nothing is counted twice. False where
    /// nothing of the row is used.
    fn choose_channel(&mut self, row: &mut Row) -> bool {
        let [configured_quotes, configured_trades] = self.configured;
        match &mut row.body {
            // A book is kept whatever channel ticks come from.
            Body::Heartbeat | Body::Book(_) => true,
            Body::Trade(_) => is_chosen(row.channel, &mut self.trade_channel, configured_trades),
            Body::Quote(quote) => {
                quote.trade = quote.trade
                    && quote.price.is_finite()
                    && is_chosen(row.channel, &mut self.trade_channel, configured_trades);
                if is_chosen(row.channel, &mut self.quote_channel, configured_quotes) {
                    return true;
                }
                // Not the quote channel, but its trades may still count.
                let Quote { trade, price, .. } = *quote;
                row.body = Body::Trade(Trade { price, size: f64::NAN, side: None });
                trade
            }
        }
    }

    /// Has a row wait, with what its batch holds of it.
    fn keep(&mut self, row: Row, out: &mut impl Collector<Row>) {
        out.counts().buffered += 1;
        let levels: Box<[Level]> = match row.body {
            Body::Book(extent) => extent.of(&out.context().levels).into(),
            _ => Box::default(),
        };
        self.waiting_levels += levels.len();
        self.waiting.insert((row.event_time, row.source, row.index), Waiting { row, levels });
    }

    /// Lets the oldest row go on; its levels become those of the batch that lets it go.
    fn release(&mut self, out: &mut impl Collector<Row>) {
        let Some((_, Waiting { mut row, levels })) = self.waiting.pop_first() else { return };
        out.counts().buffered -= 1;
        if let Body::Book(extent) = &mut row.body {
            let owned = &mut out.context().levels;
            *extent = Extent { start: owned.len() as u32, length: levels.len() as u32 };
            owned.extend_from_slice(&levels);
        }
        self.waiting_levels -= levels.len();
        self.let_through(row, out);
    }

    fn let_through(&mut self, mut row: Row, out: &mut impl Collector<Row>) {
        self.channels[row.channel as usize].newest = Some(row.event_time);
        let clock = self.clock.map_or(row.event_time, |clock| clock.max(row.event_time));
        self.clock = Some(clock);
        row.clock = clock;
        out.push(row);
        // A change may have taken effect at it.
        self.settings = out.in_force().parameters.order;
    }
}

/// Whether `channel` is the chosen one of its kind; where none is configured, a better one than before becomes it.
fn is_chosen(channel: Channel, chosen: &mut Option<Channel>, configured: Option<Channel>) -> bool {
    if configured.is_none() && chosen.is_none_or(|chosen| channel < chosen) {
        *chosen = Some(channel);
    }
    *chosen == Some(channel)
}

/// The last [`IDS_REMEMBERED`] ids of a channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct RecentIds {
    #[serde(with = "packed")]
    ids: VecDeque<u64>,
    /// The largest id ever seen: venues number upwards, so nearly every new id lies above it.
    largest: Option<u64>,
}

impl RecentIds {
    /// Remembers `id`; false when it was remembered already.
    fn insert(&mut self, id: u64) -> bool {
        let is_new_high = self.largest.is_none_or(|largest| id > largest);
        if !is_new_high && self.ids.contains(&id) {
            return false;
        }
        if self.ids.len() >= IDS_REMEMBERED {
            self.ids.pop_front();
        }
        push_tight(&mut self.ids, id);
        self.largest = self.largest.max(Some(id));
        true
    }
}
