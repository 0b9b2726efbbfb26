//! The input of a campaign: instruments of two venues over several partitions, the same for the same seed.

use serde_json::json;

use foreshock_testkit::feed::Recipe;
use foreshock_testkit::random::Random;

/// A record for the input topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub key: Option<String>,
    pub headers: Vec<(&'static str, String)>,
    pub value: Vec<u8>,
}

/// What a feed is made of.
#[derive(Clone, Copy, Debug)]
pub struct Feed {
    pub seed: u64,
    pub messages: usize,
    pub partitions: usize,
    /// Whether model and rules change in mid-stream.
    pub control_records: bool,
}

const COINBASE_PRODUCTS: usize = 6;
const BINANCE_PRODUCTS: usize = 3;

/// Mean time between an instrument's messages, in microseconds.
const PACE: i64 = 400_000;

/// Rows are moved by no more than this against their order in time, in microseconds.
const DISORDER_MAX: i64 = 300_000;

/// Midnight of 2026-03-02, where feeds begin, in milliseconds.
const BEGIN_MS: i64 = 1_772_409_600_000;

/// How long after its event time a message is received, in nanoseconds.
const RECEIVED_AFTER: i64 = 50_000_000;

/// A message in the order of event times.
struct Message {
    /// Number of the instrument, over both venues.
    product: usize,
    exchange: &'static str,
    symbol: String,
    /// In microseconds since the feed began.
    time: i64,
    line: String,
}

impl Feed {
    pub fn records(&self) -> Vec<Record> {
        let coinbase = self.messages * 2 / 3;
        let mut messages = coinbase_messages(self.seed, coinbase);
        messages.extend(binance_messages(self.seed, self.messages - coinbase));
        messages.sort_by_key(|message| message.time);
        let mut random = Random::new(self.seed ^ 0xd150);
        disorder(&mut messages, &mut random);
        let mut records: Vec<Record> = messages.into_iter().map(|message| self.record(message)).collect();
        if self.control_records {
            self.add_control_records(&mut records);
        }
        records
    }

    fn record(&self, message: Message) -> Record {
        let received = BEGIN_MS * 1_000_000 + message.time * 1_000 + RECEIVED_AFTER;
        Record {
            partition: (message.product % self.partitions) as i32,
            key: Some(format!("{}:{}", message.exchange, message.symbol)),
            headers: vec![("exchange", message.exchange.to_owned()), ("received_at", received.to_string())],
            value: message.line.into_bytes(),
        }
    }

    /// Each change goes to every partition.
    fn add_control_records(&self, records: &mut Vec<Record>) {
        let changes = [
            (1, "rules", "rules", rules(0.4)),
            (2, "model", "model", model("2", 1.0)),
            (3, "rules", "rules", rules(0.7)),
            (4, "model", "model", model("3", 2.0)),
        ];
        let step = records.len() / (changes.len() + 1);
        // From the last to the first, so that places in front stay what they are.
        for (number, kind, field, body) in changes.into_iter().rev() {
            let mut change = json!({"type": "control", "id": format!("change-{number}"), "kind": kind});
            change[field] = body;
            let at = number * step;
            let copies = (0..self.partitions as i32).map(|partition| Record {
                partition,
                key: None,
                headers: vec![("foreshock-control", "1".to_owned())],
                value: change.to_string().into_bytes(),
            });
            records.splice(at..at, copies);
        }
    }
}

fn coinbase_messages(seed: u64, count: usize) -> Vec<Message> {
    let recipe =
        Recipe { seed, products: COINBASE_PRODUCTS, pace: PACE, ties: true, dirt: true, silences: true };
    let messages = recipe.messages(count).into_iter().map(|message| Message {
        product: message.product,
        exchange: "coinbase",
        symbol: format!("P{:03}-USD", message.product),
        time: message.time,
        line: message.line,
    });
    messages.collect()
}

fn binance_messages(seed: u64, count: usize) -> Vec<Message> {
    let mut random = Random::new(seed ^ 0xb1);
    let mut products: Vec<Perpetual> = (0..BINANCE_PRODUCTS).map(Perpetual::new).collect();
    let mut messages = Vec::with_capacity(count);
    for _ in 0..count {
        let Some(product) = products.iter_mut().min_by_key(|product| product.time) else { break };
        messages.push(product.next(&mut random));
    }
    messages
}

/// A perpetual of Binance: quotes and trades, calm and burst by turns.
struct Perpetual {
    number: usize,
    time: i64,
    /// In tenths.
    mid: i64,
    id: u64,
    /// Messages so far.
    count: usize,
    last: String,
}

impl Perpetual {
    fn new(number: usize) -> Perpetual {
        let mid = 300_000 + 110_000 * number as i64;
        Perpetual { number, time: 100_000 * number as i64, mid, id: 1, count: 0, last: String::new() }
    }

    fn next(&mut self, random: &mut Random) -> Message {
        let is_burst = self.count % 300 > 200;
        self.mid = (self.mid + random.around(if is_burst { self.mid / 500 } else { 1 })).max(1_000);
        let line = self.line(random, is_burst);
        let message = Message {
            product: COINBASE_PRODUCTS + self.number,
            exchange: "binance-usdm",
            symbol: format!("C{}USDT", self.number),
            time: self.time,
            line,
        };
        self.count += 1;
        if !random.once_in(8) {
            self.time += 1_000 * (1 + random.below(2 * PACE as usize / 1_000) as i64);
        }
        if random.once_in(400) {
            self.time += 6_000_000;
        }
        message
    }

    fn line(&mut self, random: &mut Random, is_burst: bool) -> String {
        if random.once_in(60) && !self.last.is_empty() {
            return match random.below(4) {
                0 => self.last.clone(),
                1 => self.quote(self.time - 4_000_000, 2),
                2 => self.quote(self.time, -5),
                _ => self.last[..self.last.len() / 2].to_owned(),
            };
        }
        let half = 1 + random.below(if is_burst { 20 } else { 2 }) as i64;
        let line =
            if random.once_in(5) { self.trade(random.once_in(2)) } else { self.quote(self.time, half) };
        self.last = line.clone();
        line
    }

    /// Below 0 `half` makes a crossed quote.
    fn quote(&mut self, time: i64, half: i64) -> String {
        self.id += 1;
        let (at, id) = (BEGIN_MS + time / 1_000, self.id);
        json!({
            "e": "bookTicker", "u": id, "s": format!("C{}USDT", self.number), "b": tenths(self.mid - half),
            "B": format!("{}.5", 1 + id % 9), "a": tenths(self.mid + half), "A": format!("{}.25", 1 + id % 7),
            "T": at, "E": at,
        })
        .to_string()
    }

    fn trade(&mut self, is_buyer_maker: bool) -> String {
        self.id += 1;
        let at = BEGIN_MS + self.time / 1_000;
        json!({
            "e": "trade", "E": at, "T": at, "s": format!("C{}USDT", self.number), "t": self.id,
            "p": tenths(self.mid), "q": "0.125", "X": "MARKET", "m": is_buyer_maker,
        })
        .to_string()
    }
}

fn tenths(number: i64) -> String {
    format!("{}.{}", number / 10, number % 10)
}

/// Has some messages come before older ones of their instrument.
fn disorder(messages: &mut [Message], random: &mut Random) {
    for at in 0..messages.len() {
        if !random.once_in(20) {
            continue;
        }
        let (product, time) = (messages[at].product, messages[at].time);
        let near = messages[at + 1..].iter().take_while(|message| message.time - time <= DISORDER_MAX);
        let next = near.enumerate().find(|(_, message)| message.product == product).map(|(n, _)| at + 1 + n);
        if let Some(next) = next {
            messages.swap(at, next);
        }
    }
}

/// The rules of the configuration, more or less sensitive.
pub fn rules(sensitivity: f64) -> serde_json::Value {
    json!([
        {
            "name": "volatility", "metric": "realised_vol", "instruments": ["*:*"], "priority": "P2",
            "raise": {"above": 0.0001 * sensitivity}, "clear": 0.00005 * sensitivity, "for": "1s",
            "resolve_for": "2s", "cooldown": "2s", "critical": {"level": 0.0003 * sensitivity, "for": "2s"},
        },
        {
            "name": "spread", "metric": "spread_bps", "instruments": ["*:*"], "priority": "P3",
            "raise": {"above": 0.8 * sensitivity}, "clear": 0.6 * sensitivity, "resolve_for": "1s",
        },
        {
            "name": "spike", "metric": "probability", "instruments": ["*:*"], "priority": "P1",
            "raise": {"above": 0.3 * sensitivity}, "clear": 0.2 * sensitivity, "for": "500ms",
            "resolve_for": "1s", "cooldown": "1s",
        },
    ])
}

fn model(version: &str, threshold: f64) -> serde_json::Value {
    json!({
        "name": "volatility-zscore", "version": version, "kind": "baseline",
        "training": {"method": "fixed rule, nothing trained"},
        "features": [{"name": "volatility_z", "null": "refuse"}],
        "threshold": threshold, "decision_threshold": 0.5, "horizon": "60s",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEED: Feed = Feed { seed: 3, messages: 600, partitions: 4, control_records: true };

    #[test]
    fn the_same_seed_gives_the_same_feed() {
        assert!(FEED.records() == FEED.records());
        assert!(FEED.records() != Feed { seed: 4, ..FEED }.records());
    }

    #[test]
    fn every_partition_has_messages_and_every_change() {
        let records = FEED.records();
        assert_eq!(records.len(), 600 + 4 * 4);
        for partition in 0..4 {
            let of = |keyed: bool| {
                records.iter().filter(|r| r.partition == partition && r.key.is_some() == keyed).count()
            };
            assert!(of(true) > 60, "partition {partition}");
            assert_eq!(of(false), 4, "partition {partition}");
        }
    }
}
