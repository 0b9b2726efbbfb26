//! Puts an instrument's rows in order and takes out duplicates and late rows (docs/definitions.md, "Order").

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::account::{Notice, Reason};
use crate::chain::Gate;
use crate::clock::{ClockBounds, StampFate, StampJudge, Word};
use crate::moments::push_tight;
use crate::operator::{Ahead, Collector, Instrument, Mismatch, Operator, consistent, same_settings};
use crate::packed;
use crate::parameters::Parameters;
use crate::prefetch::fetch;
use crate::row::{Body, Channel, Extent, Level, Quote, Row, Source, Trade};
use crate::time::{Nanos, SECOND, Shown, Time};

pub use crate::parameters::OrderSettings;

/// How many row ids of a channel are remembered.
pub const IDS_REMEMBERED: usize = 1_024;

/// How many rows of one instrument may wait for older ones: past that the oldest goes on before its time.
pub const WAITING_MAX: usize = 262_144;

/// How many levels of books may wait with an instrument's rows: past that too the oldest row goes on before its time.
pub const WAITING_LEVELS_MAX: usize = 1 << 20;

/// So many rows that were doubted and right say that an instrument's rows come too far apart to be told at once.
const CONFIRMED_OFTEN: u8 = 3;

/// Lets the rows of the channels in use through, once each, none from the future and none older than the one before it in
/// its channel, and sets the instrument's clock on them. Whatever waits for a row (see [`crate::chain`]) waits here with it.
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
    bounds: ClockBounds,
    /// Which stamps are believed.
    stamps: StampJudge,
    /// The row so far ahead that the next one is to say whether it is right.
    doubtful: Option<Box<Doubtful>>,
    /// The instrument's clock T: the largest event time among the rows let through.
    clock: Option<Time>,
    /// Whether it was said that rows were refused for their stamps.
    has_warned: bool,
    /// Rows in doubt that the next one confirmed, as far as they are counted.
    confirmed: u8,
    /// T before it last went on by more than a row may lie ahead.
    before_jump: Option<Time>,
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

/// A row whose stamp is doubted, with its message: the batch is gone when it is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Doubtful {
    waiting: Waiting,
    message: Arc<[u8]>,
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
            bounds: ClockBounds { max_ahead: parameters.max_ahead, max_jump: instrument.max_jump },
            stamps: StampJudge::default(),
            doubtful: None,
            clock: None,
            has_warned: false,
            confirmed: 0,
            before_jump: None,
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
        let ids = &mut self.channels[row.channel as usize].ids;
        let age = row.id.map_or(IdAge::New, |id| ids.insert(id));
        if age == IdAge::Known {
            out.counts().duplicate += 1;
            return;
        }
        let lead = self.stamps.receive(&row, self.bounds);
        if self.stamps.newest().is_none() {
            // Where the very first row waits, this one is judged by the clock that it leaves.
            self.hear_on_doubtful(&row, out);
        }
        if let Some(ahead) = self.stamps.against_receipt(&row, lead, self.bounds) {
            return self.refuse(&row, ahead, None, out);
        }
        self.hear_on_doubtful(&row, out);
        match self.stamps.judge(&row, lead, age == IdAge::New, self.bounds) {
            StampFate::Doubtful => return self.doubt(row, out),
            StampFate::Leaves { first } => self.leave_clock(first, &row, out),
            _ => {}
        }
        self.take_believed(row, None, out);
    }

    fn on_end(&mut self, out: &mut impl Collector<Row>) {
        // Nothing speaks against it.
        self.release_doubtful(out);
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
                fetch(&self.stamps);
                self.channels.iter().for_each(fetch);
            }
            Ahead::Near => {
                channel.ids.ids.back().map(fetch);
            }
            Ahead::Next => {}
        }
    }

    fn resume(&mut self, parameters: &Parameters, instrument: &Instrument) -> Result<(), Mismatch> {
        let fresh = Order::new(parameters, instrument);
        same_settings(
            &(self.settings, self.configured, self.bounds),
            &(fresh.settings, fresh.configured, fresh.bounds),
        )?;
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
        self.stamps.on_lost_log();
    }

    fn waiting(&self) -> usize {
        self.waiting.len() + usize::from(self.doubtful.is_some())
    }

    fn oldest_waiting(&self) -> Option<u64> {
        let doubtful = self.doubtful.as_ref().map(|doubtful| &doubtful.waiting);
        self.waiting.values().chain(doubtful).map(|waiting| waiting.row.source.line).min()
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

    /// Takes a row whose stamp is believed, with its levels where its batch is gone.
    fn take_believed(&mut self, row: Row, levels: Option<Box<[Level]>>, out: &mut impl Collector<Row>) {
        let channel = &self.channels[row.channel as usize];
        if let Some(newest) = channel.newest
            && row.event_time < newest
        {
            out.counts().late += 1;
            let late_by = newest.since(row.event_time);
            let detail =
                format!("{late_by} ns older than the newest row of its channel {}", row.channel.name());
            out.context().refuse(&row, Reason::Late, detail, None);
            return;
        }
        if self.settings.reorder == 0 {
            return match levels {
                Some(levels) => self.let_go(Waiting { row, levels }, out),
                None => self.let_through(row, out),
            };
        }
        out.counts().buffered += 1;
        let waiting = Waiting { row, levels: levels.unwrap_or_else(|| levels_of(&row, out)) };
        self.waiting_levels += waiting.levels.len();
        self.waiting.insert((row.event_time, row.source, row.index), waiting);
        while let Some(first) = self.waiting.first_entry() {
            // The row before may have changed how long rows wait.
            let due = self.stamps.newest().map(|newest| newest.minus(self.settings.reorder));
            let waited = Some(first.key().0) <= due;
            let fits = self.waiting.len() <= WAITING_MAX && self.waiting_levels <= WAITING_LEVELS_MAX;
            if !waited && fits {
                break;
            }
            out.counts().hurried += i64::from(!waited);
            self.release(out);
        }
    }

    /// Lets the oldest row go on.
    fn release(&mut self, out: &mut impl Collector<Row>) {
        let Some((_, waiting)) = self.waiting.pop_first() else { return };
        out.counts().buffered -= 1;
        self.waiting_levels -= waiting.levels.len();
        self.let_go(waiting, out);
    }

    /// Lets a row through that has waited: its levels become those of the batch that lets it go.
    fn let_go(&mut self, waiting: Waiting, out: &mut impl Collector<Row>) {
        let Waiting { mut row, levels } = waiting;
        if let Body::Book(extent) = &mut row.body {
            let owned = &mut out.context().levels;
            *extent = Extent { start: owned.len() as u32, length: levels.len() as u32 };
            owned.extend_from_slice(&levels);
        }
        self.let_through(row, out);
    }

    fn let_through(&mut self, mut row: Row, out: &mut impl Collector<Row>) {
        self.channels[row.channel as usize].newest = Some(row.event_time);
        let before = self.clock.unwrap_or(row.event_time);
        let clock = before.max(row.event_time);
        if self.bounds.max_jump.is_some_and(|max_jump| clock.since(before) > max_jump) {
            self.before_jump = Some(before);
        }
        self.clock = Some(clock);
        row.clock = clock;
        out.push(row);
        // A change may have taken effect at it.
        let parameters = &out.in_force().parameters;
        (self.settings, self.bounds.max_ahead) = (parameters.order, parameters.max_ahead);
    }

    /// Has a row wait for the next one's word.
    fn doubt(&mut self, row: Row, out: &mut impl Collector<Row>) {
        out.counts().buffered += 1;
        let message = row.extent.of(&out.context().bytes).into();
        let waiting = Waiting { row, levels: levels_of(&row, out) };
        self.doubtful = Some(Box::new(Doubtful { waiting, message }));
    }

    /// A row has come that no receipt refused: it may tell whether the one that waits is right.
    fn hear_on_doubtful(&mut self, row: &Row, out: &mut impl Collector<Row>) {
        let Some(doubtful) = &self.doubtful else { return };
        let stamp = doubtful.waiting.row.event_time;
        match self.stamps.word_on(stamp, row, self.bounds) {
            Word::Silent => {}
            Word::Confirms => {
                self.confirmed = self.confirmed.saturating_add(1);
                if self.confirmed == CONFIRMED_OFTEN {
                    let length = seconds(self.bounds.max_jump.unwrap_or_default());
                    let text = format!(
                        "its rows come more than {length} s apart (input.max_jump) and bring no receipt, so each is told only \
                         when the next one has come; a receipt (received_at) mends that, or another max_jump of the instrument"
                    );
                    let instrument = Some(row.instrument);
                    out.context().ledger.notices.push(Notice { instrument, text });
                }
                self.release_doubtful(out);
            }
            Word::Denies => {
                let Some(Doubtful { waiting, message }) = self.doubtful.take().map(|doubtful| *doubtful)
                else {
                    return;
                };
                out.counts().buffered -= 1;
                self.refuse(&waiting.row, StampFate::Doubtful, Some(message), out);
            }
        }
    }

    fn release_doubtful(&mut self, out: &mut impl Collector<Row>) {
        let Some(Doubtful { waiting: Waiting { row, levels }, .. }) =
            self.doubtful.take().map(|doubtful| *doubtful)
        else {
            return;
        };
        out.counts().buffered -= 1;
        self.stamps.believe(row.event_time, None);
        self.take_believed(row, Some(levels), out);
    }

    /// Refuses a row for its stamp.
    #[cold]
    fn refuse(
        &mut self,
        row: &Row,
        stamp: StampFate,
        message: Option<Arc<[u8]>>,
        out: &mut impl Collector<Row>,
    ) {
        out.counts().rows_deadlettered += 1;
        let at = Shown(row.event_time);
        let detail = match (stamp, row.received) {
            (StampFate::Ahead { lead, allowed }, Some(received)) => format!(
                "the event time is {at}, {} s ahead of its receipt at {}: at most {} s ahead is allowed",
                seconds(lead),
                Shown(received),
                seconds(allowed),
            ),
            (_, Some(received)) if self.stamps.newest().is_none() => format!(
                "the event time is {at}, {} s ahead of its receipt at {}, and the next row did not confirm it: at most {} s ahead \
                 is allowed",
                seconds(row.event_time.since(received)),
                Shown(received),
                seconds(self.bounds.max_ahead),
            ),
            _ => format!(
                "the event time is {at}, {} s ahead of the instrument's other rows, and the next row did not confirm it: at \
                 most {} s ahead is allowed without (input.max_jump)",
                seconds(self.stamps.newest().map_or(0, |newest| row.event_time.since(newest))),
                seconds(self.bounds.max_jump.unwrap_or_default()),
            ),
        };
        if !self.has_warned {
            self.has_warned = true;
            let text = format!("a row was refused as time_ahead, the first of the instrument's: {detail}");
            out.context().ledger.notices.push(Notice { instrument: Some(row.instrument), text });
        }
        out.context().refuse(row, Reason::TimeAhead, detail, message);
    }

    /// The clock was wrong and begins anew with `row`; `first` was the first row to say so. Event time goes back here, and
    /// nowhere else.
    #[cold]
    fn leave_clock(&mut self, first: Time, row: &Row, out: &mut impl Collector<Row>) {
        while !self.waiting.is_empty() {
            self.release(out);
        }
        let start = self.before_jump.take().map_or(first, |before| before.min(first));
        self.channels.iter_mut().for_each(|channel| channel.newest = None);
        self.clock = None;
        out.context().clock_left = Some(start.min(row.event_time));
    }
}

/// The levels that the batch holds of a row.
fn levels_of(row: &Row, out: &mut impl Collector<Row>) -> Box<[Level]> {
    match row.body {
        Body::Book(extent) => extent.of(&out.context().levels).into(),
        _ => Box::default(),
    }
}

fn seconds(length: Nanos) -> f64 {
    length as f64 / SECOND as f64
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

/// An id among those of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdAge {
    /// It is remembered.
    Known,
    /// It lies below others that came before it.
    Old,
    New,
}

impl RecentIds {
    /// Remembers `id`, and says what it is among those before.
    fn insert(&mut self, id: u64) -> IdAge {
        let is_new_high = self.largest.is_none_or(|largest| id > largest);
        if !is_new_high && self.ids.contains(&id) {
            return IdAge::Known;
        }
        if self.ids.len() >= IDS_REMEMBERED {
            self.ids.pop_front();
        }
        push_tight(&mut self.ids, id);
        self.largest = self.largest.max(Some(id));
        if is_new_high { IdAge::New } else { IdAge::Old }
    }
}
