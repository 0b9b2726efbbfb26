//! Puts an instrument's rows in order and takes out what was told twice or too late (docs/definitions.md, "Order").

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::account::Reason;
use crate::change::{Change, ChangeAt, ChangeKind, change_of, number_of};
use crate::moments::push_tight;
use crate::operator::{Ahead, Instrument, Operator, Out, RestoreError, load, save};
use crate::packed;
use crate::prefetch::{fetch, fetch_all};
use crate::row::{Body, Channel, Quote, Row, Source, Trade};
use crate::time::{Nanos, Time};

/// How many row ids of a channel are remembered.
pub const IDS_REMEMBERED: usize = 1_024;

/// How many rows of one instrument may wait for older ones: past that the oldest goes on before its time.
pub const WAITING_MAX: usize = 262_144;

/// How rows are put in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderSettings {
    /// How long a row waits for older ones; 0: rows are taken as they come.
    pub reorder: Nanos,
}

impl OrderSettings {
    /// What rows could not be ordered by, if anything.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn check(&self) -> Result<(), String> {
        if self.reorder < 0 { Err("rows wait for no negative time".to_string()) } else { Ok(()) }
    }
}

/// Lets the rows of the channels in use through, once each, none older than the one before it in its channel,
/// and sets the instrument's clock on them. Changes wait here for the row that they take effect at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
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
    /// The number of the newest change that came in.
    newest_change: u32,
    /// The change that the settings came from; `None`: the configuration.
    #[serde(skip)]
    since: Option<Arc<Change>>,
    /// Changes that no row has let take effect yet, in the order of their numbers.
    #[serde(skip)]
    pending: Vec<Arc<Change>>,
}

/// A row that waits for older ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Waiting {
    row: Row,
    /// The number of the newest change that stands before the row in the log.
    behind: u32,
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
    type Settings = OrderSettings;
    type Input = Row;
    type Output = Row;

    fn new(settings: &OrderSettings, instrument: &Instrument) -> Self {
        Order {
            settings: *settings,
            configured: [instrument.quote_channel, instrument.trade_channel],
            quote_channel: instrument.quote_channel,
            trade_channel: instrument.trade_channel,
            channels: Default::default(),
            clock: None,
            arrived: None,
            waiting: BTreeMap::new(),
            newest_change: 0,
            since: None,
            pending: Vec::new(),
        }
    }

    fn on_input(&mut self, mut row: Row, out: &mut Out<Row>) {
        if !self.choose_channel(&mut row) {
            // Whether a channel is used is known only here, in the order of the log.
            let counts = &mut out.ledger.counts;
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
            out.ledger.counts.duplicate += 1;
            return;
        }
        if let Some(newest) = channel.newest
            && row.event_time < newest
        {
            out.ledger.counts.late += 1;
            let late_by = newest.since(row.event_time);
            let detail =
                format!("{late_by} ns older than the newest row of its channel {}", row.channel.name());
            out.refuse(&row, Reason::Late, detail);
            return;
        }
        let behind = self.newest_change;
        if self.settings.reorder == 0 {
            self.let_through(row, behind, out);
            return;
        }
        self.arrived = self.arrived.max(Some(row.event_time));
        self.waiting.insert((row.event_time, row.source, row.index), Waiting { row, behind });
        out.ledger.counts.buffered += 1;
        while let Some(first) = self.waiting.first_entry() {
            // The row before may have changed how long rows wait.
            let due = self.arrived.map(|arrived| arrived.minus(self.settings.reorder));
            let waited = Some(first.key().0) <= due;
            if !waited && self.waiting.len() <= WAITING_MAX {
                break;
            }
            out.ledger.counts.hurried += i64::from(!waited);
            self.release(out);
        }
    }

    /// Keeps the change until a row behind it in the log is let through at a time at which it is due.
    fn on_change(&mut self, placed: &ChangeAt, out: &mut Out<Row>) {
        let change = &placed.change;
        if change.what == ChangeKind::StateLost {
            self.forget_log(out);
        }
        self.newest_change = change.number;
        self.pending.push(change.clone());
    }

    fn may_wait(settings: &OrderSettings) -> bool {
        settings.reorder > 0
    }

    fn oldest_waiting(&self) -> Option<u64> {
        self.waiting.values().map(|waiting| waiting.row.source.line).min()
    }

    fn on_end(&mut self, out: &mut Out<Row>) {
        while !self.waiting.is_empty() {
            self.release(out);
        }
    }

    fn fetch(&self, coming: &Row, ahead: Ahead) {
        let channel = &self.channels[coming.channel as usize];
        match ahead {
            Ahead::Far => {
                fetch(&self.clock);
                fetch(&self.quote_channel);
                fetch(&self.pending);
                fetch_all(channel);
            }
            Ahead::Near => {
                channel.ids.ids.back().map(fetch);
            }
            Ahead::Next => {}
        }
    }

    fn snapshot(&self, bytes: &mut Vec<u8>) {
        let pending: Vec<u32> = self.pending.iter().map(|change| change.number).collect();
        save(&(self, number_of(self.since.as_ref()), pending), bytes);
    }

    fn restore(
        settings: &OrderSettings,
        changes: &[Arc<Change>],
        instrument: &Instrument,
        bytes: &[u8],
    ) -> Result<Self, RestoreError> {
        let (mut state, since, pending): (Order, u32, Vec<u32>) = load(Self::NAME, bytes)?;
        state.since = change_of(Self::NAME, changes, since)?;
        let settings =
            state.since.as_ref().and_then(|change| change.parameters()).map_or(*settings, |p| p.order);
        for number in pending {
            state.pending.extend(change_of(Self::NAME, changes, number)?);
        }
        let configured = [instrument.quote_channel, instrument.trade_channel];
        if state.settings != settings || state.configured != configured {
            return Err(RestoreError::OtherSettings { operator: Self::NAME });
        }
        if state.channels.iter().any(|channel| channel.ids.ids.len() > IDS_REMEMBERED) {
            let why = format!("it remembers more than {IDS_REMEMBERED} ids of a channel");
            return Err(RestoreError::Unreadable { operator: Self::NAME, why });
        }
        Ok(state)
    }
}

impl Order {
    /// Decides by its channel what of a row is used: a channel that nobody configured is the best that the log
    /// has carried so far, and a better one takes over for good, so that nothing is counted twice. False where
    /// nothing of the row is used.
    fn choose_channel(&mut self, row: &mut Row) -> bool {
        let [configured_quotes, configured_trades] = self.configured;
        match &mut row.body {
            Body::Heartbeat => true,
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

    /// `behind` is the number of the newest change that stands before the row in the log.
    fn let_through(&mut self, mut row: Row, behind: u32, out: &mut Out<Row>) {
        self.channels[row.channel as usize].newest = Some(row.event_time);
        let clock = self.clock.map_or(row.event_time, |clock| clock.max(row.event_time));
        self.clock = Some(clock);
        row.clock = clock;
        if !self.pending.is_empty() {
            self.take_effect(&row, behind, out);
        }
        out.give(row);
    }

    /// Lets the changes go on that take effect at a row, in the order of the moments they waited for: an instrument
    /// that comes late to several ends up with the same one in force as the others.
    fn take_effect(&mut self, row: &Row, behind: u32, out: &mut Out<Row>) {
        let reached = |change: &Arc<Change>| change.number <= behind;
        let replacing: Vec<_> = self.pending.iter().filter(|change| reached(change)).cloned().collect();
        self.pending.retain(|change| !replacing.iter().any(|newer| newer.replaces(change)));
        let mut due: Vec<_> =
            self.pending.extract_if(.., |change| reached(change) && change.is_due(row.clock)).collect();
        due.sort_by_key(|change| (change.effective_at, change.number));
        for change in due {
            if let Some(parameters) = change.parameters() {
                self.settings = parameters.order;
                self.since = Some(change.clone());
            }
            out.place(row.clock, row.digits, change);
        }
    }

    /// Nothing that came before has to do with what follows: rows no longer wait for it, and what follows is no
    /// duplicate of it and not late for it. Event time still never runs backwards.
    fn forget_log(&mut self, out: &mut Out<Row>) {
        while !self.waiting.is_empty() {
            self.release(out);
        }
        self.channels = Default::default();
        self.arrived = None;
    }

    fn release(&mut self, out: &mut Out<Row>) {
        if let Some((_, Waiting { row, behind })) = self.waiting.pop_first() {
            out.ledger.counts.buffered -= 1;
            self.let_through(row, behind, out);
        }
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
