//! Deliveries of a live log ─decode─► batches of rows, each of one shard, on the worker that read them.
//!
//! Nothing is exchanged on this path: a shard is read, decoded and computed by one worker, in the order of its
//! log, and its [`Cut`](crate::batch::Cut)s travel behind their rows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use foreshock_operators::account::{Ledger, Reason};
use foreshock_operators::decode::{EXCHANGES, Envelope, Format, detect};
use foreshock_operators::operator::Tagged;
use foreshock_operators::row::{Extent, InstrumentId, Row, Source};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator as _;

use crate::batch::{Batch, Delivered, Delivery, Stretch};
use crate::instruments::Instruments;
use crate::messages::{Account, Limits, Messages};
use crate::meter::Meter;

/// How live messages become rows.
#[derive(Clone, Debug)]
pub struct LiveSettings {
    /// `topic/partition` of each shard, by its number.
    pub shards: Arc<[String]>,
    /// The format of all messages; `None`: each message's own, by its exchange and shape.
    pub format: Option<Format>,
    /// The exchange of messages that name none themselves.
    pub exchange: Option<Arc<str>>,
    pub limits: Limits,
}

/// When each instrument's last row was read, by the clock of [`Cut::read_at`](crate::batch::Cut::read_at).
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LastSeen(Arc<Mutex<Vec<Option<u64>>>>);

impl LastSeen {
    fn note(&self, rows: &[Tagged<Row>], read_at: u64) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let at = row.instrument.0 as usize;
            if times.len() <= at {
                times.resize(at + 1, None);
            }
            times[at] = Some(read_at);
        }
    }

    /// The instruments seen so far, with the time of their last row.
    pub fn times(&self) -> Vec<(InstrumentId, u64)> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let numbered = (0..).map(InstrumentId).zip(times.iter());
        numbered.filter_map(|(id, time)| Some((id, (*time)?))).collect()
    }
}

/// Turns the deliveries of one worker's shards into rows. Knows nothing of timely.
pub struct LiveDecode {
    settings: LiveSettings,
    instruments: Instruments,
    /// By shard.
    messages: BTreeMap<u32, Messages>,
    last_seen: LastSeen,
    /// How many were decoded so far.
    deliveries: u64,
}

impl LiveDecode {
    pub fn new(settings: LiveSettings, instruments: &Instruments, last_seen: LastSeen) -> LiveDecode {
        LiveDecode {
            settings,
            instruments: instruments.clone(),
            messages: BTreeMap::new(),
            last_seen,
            deliveries: 0,
        }
    }

    /// Decodes a delivery into one batch.
    pub fn delivery(&mut self, delivery: Delivery) -> Batch<Row> {
        let epoch = self.deliveries;
        self.deliveries += 1;
        let Delivery { end, bytes, messages, cut } = delivery;
        let mut account = Account::default();
        let mut values = Vec::with_capacity(messages.len());
        let mut positions = Vec::with_capacity(messages.len());
        for message in &messages {
            self.message(message, cut.shard, &bytes, &mut account, |order, row| {
                // Refused rows take a place too; they know their own position.
                positions.resize(order as usize, (message.offset, 0));
                positions.push((message.offset, row.index));
                values.push(Tagged { instrument: row.instrument, order, value: row });
            });
        }
        self.last_seen.note(&values, cut.read_at);
        let Account { mut ledger, .. } = account;
        self.check_homes(&mut ledger);
        let stretch = Some(Arc::new(Stretch { cut, messages, positions }));
        Batch { epoch, worker: 0, end, values, ledger, bytes, waiting: None, stretch }
    }

    fn message(
        &mut self,
        message: &Delivered,
        shard: u32,
        bytes: &[u8],
        account: &mut Account,
        give: impl FnMut(u32, Row),
    ) {
        let LiveSettings { format, exchange, limits, .. } = &self.settings;
        let source = Source { file: shard, line: message.offset };
        let Some(extent) = message.body else {
            let extent = Extent { start: message.key.start + message.key.length, length: 0 };
            return account.refuse_message(source, extent, Reason::Empty, String::new());
        };
        if message.control {
            return account.control_record();
        }
        if let Some(problem) = &message.problem {
            return account.refuse_message(source, extent, Reason::NoTime, problem.clone());
        }
        let body = &bytes[extent.start as usize..(extent.start + extent.length) as usize];
        let exchange = message.exchange.as_deref().or(exchange.as_deref());
        let envelope = Envelope {
            received: message.received,
            exchange,
            checked: true,
            source,
            extent,
            max_ahead: limits.max_ahead,
        };
        let format = format.unwrap_or_else(|| format_of(body, exchange));
        let limits = *limits;
        let messages = self
            .messages
            .entry(shard)
            .or_insert_with(|| Messages::new(limits, self.instruments.resolver_of_shard(shard)));
        messages.take(format, body, &envelope, account, give);
    }

    /// An instrument in two shards has no order, so no results.
    fn check_homes(&self, ledger: &mut Ledger) {
        let Some(strayed) = self.instruments.strayed() else { return };
        let instrument = self.instruments.get(strayed.instrument);
        let shard = |number: u32| self.settings.shards.get(number as usize).map_or("", String::as_str);
        ledger.unusable = Some(format!(
            "{}:{} was met in {} and in {}: an instrument's rows must be in one partition of one topic, so that \
             they have an order; key the messages by <exchange>:<symbol>",
            instrument.exchange,
            instrument.symbol,
            shard(strayed.home),
            shard(strayed.met_in),
        ));
    }
}

/// The format of a message: what its exchange and its first bytes tell, where they can only be of one, else its
/// whole shape. A function of the message alone, so that it is the same in every replay.
fn format_of(message: &[u8], exchange: Option<&str>) -> Format {
    let starts = |prefix: &[u8]| message.starts_with(prefix);
    match exchange {
        Some("binance" | "binance-usdm" | "binance-coinm") if starts(b"{\"stream\"") || starts(b"{\"e\"") => {
            return Format::Binance;
        }
        Some("coinbase") if starts(b"{\"type\":\"ticker\"") || starts(b"{\"type\":\"match\"") => {
            return Format::CoinbaseExchange;
        }
        Some("coinbase") if starts(b"{\"channel\"") => return Format::CoinbaseAdvancedTrade,
        Some(other) if !EXCHANGES.contains(&other) && starts(b"{\"type\"") => return Format::Canonical,
        _ => {}
    }
    detect(message).unwrap_or(match exchange {
        Some("binance" | "binance-usdm" | "binance-coinm") => Format::Binance,
        Some("coinbase") => Format::CoinbaseExchange,
        Some("okx") => Format::Okx,
        _ => Format::Canonical,
    })
}

/// Decodes the deliveries that this worker's source read.
pub fn decode<'scope>(
    deliveries: StreamVec<'scope, u64, Delivery>,
    mut decode: LiveDecode,
    meter: &Meter,
) -> StreamVec<'scope, u64, Batch<Row>> {
    let time = meter.operator("decode");
    deliveries.unary(Pipeline, "decode", move |_capability, _info| {
        move |input, output| {
            input.for_each(|capability, deliveries| {
                let mut session = output.session(&capability);
                for delivery in deliveries.drain(..) {
                    session.give(time.measure(|| decode.delivery(delivery)));
                }
            });
        }
    })
}
