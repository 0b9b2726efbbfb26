//! A made-up Coinbase Exchange feed: bursts, ties in time, volatility, silences, and a few bad rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::random::Random;

/// A message and what it is about.
#[derive(Clone, Debug)]
pub struct Message {
    /// Number of the instrument.
    pub product: usize,
    /// Event time in microseconds since the feed began.
    pub time: i64,
    /// The line, without its break.
    pub line: String,
}

/// What a feed is made of.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    pub seed: u64,
    pub products: usize,
    /// Mean time between an instrument's messages in a calm market, in microseconds.
    pub pace: i64,
    /// Whether messages may share their time with the one before.
    pub ties: bool,
    /// Whether there are duplicate, late and refused rows and messages of no use.
    pub dirt: bool,
    /// Whether instruments fall silent for more than a minute now and then.
    pub silences: bool,
}

impl Recipe {
    /// Everything that can happen, to that many instruments.
    pub fn lively(seed: u64, products: usize) -> Recipe {
        Recipe { seed, products, pace: 200_000, ties: true, dirt: true, silences: true }
    }

    /// Nothing but good tickers, of so many instruments, each with so many a second in the mean.
    pub fn tickers_only(seed: u64, products: usize, per_second: f64) -> Recipe {
        // Half of the messages come in bursts, four times as fast; one in eight comes at once; ten in twelve are
        // tickers.
        let pace = 1e6 / per_second / ((1.0 + 0.25) / 2.0 * 7.0 / 8.0 * 12.0 / 10.0);
        Recipe { seed, products, pace: pace as i64, ties: true, dirt: false, silences: false }
    }

    /// The first messages of the feed, in the order of their times.
    pub fn messages(self, count: usize) -> Vec<Message> {
        Feed::new(self).take(count).collect()
    }
}

/// An endless feed, in the order of event times.
pub struct Feed {
    recipe: Recipe,
    random: Random,
    products: Vec<Product>,
    /// When each product's next message is due, and its number.
    due: BTreeSet<(i64, usize)>,
}

struct Product {
    name: String,
    /// Time of the message to come.
    time: i64,
    /// In hundredths.
    mid: i64,
    sequence: u64,
    /// Messages until the market changes between calm and burst.
    phase_left: usize,
    /// How far a tick may move the price, in millionths of it; 0 in a calm market.
    burst: i64,
    last: Option<String>,
}

impl Feed {
    pub fn new(recipe: Recipe) -> Feed {
        let mut random = Random::new(recipe.seed);
        let products: Vec<Product> = (0..recipe.products)
            .map(|number| Product {
                name: format!("P{number:03}-USD"),
                time: random.below(1_000_000) as i64,
                mid: 100_000 + 37_000 * number as i64,
                sequence: 1_000_000 * number as u64,
                phase_left: 200 + random.below(200),
                burst: 0,
                last: None,
            })
            .collect();
        let due = products.iter().enumerate().map(|(number, product)| (product.time, number)).collect();
        Feed { recipe, random, products, due }
    }

    /// The tickers among its messages.
    pub fn tickers(self) -> impl Iterator<Item = Message> {
        self.filter(|message| message.line.starts_with(r#"{"type":"ticker""#))
    }
}

impl Iterator for Feed {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let Feed { recipe, random, products, due } = self;
        let (time, number) = due.pop_first()?;
        let product = &mut products[number];
        let line = product.line(random, recipe.dirt);
        product.go_on(random, recipe);
        due.insert((product.time, number));
        Some(Message { product: number, time, line })
    }
}

impl Product {
    /// Moves time and price on.
    fn go_on(&mut self, random: &mut Random, recipe: &Recipe) {
        let pace = if self.burst > 0 { recipe.pace / 4 } else { recipe.pace };
        let is_tie = recipe.ties && random.once_in(8);
        if !is_tie {
            self.time += 1 + random.below(2 * pace as usize) as i64;
        }
        if recipe.silences && random.once_in(700) {
            self.time += 61_000_000 + random.below(5_000_000) as i64;
        }
        let step = if self.burst > 0 { self.mid * self.burst / 1_000_000 } else { 2 };
        self.mid = (self.mid + random.around(step)).max(10_000);
        self.phase_left -= 1;
        if self.phase_left == 0 {
            let was_calm = self.burst == 0;
            self.phase_left = if was_calm { 250 } else { 200 } + random.below(150);
            self.burst = if was_calm { 100 + random.below(8_000) as i64 } else { 0 };
        }
    }

    fn line(&mut self, random: &mut Random, dirt: bool) -> String {
        if dirt && random.once_in(60) {
            return self.dirty(random);
        }
        let line = match random.below(12) {
            0 => self.trade(random),
            1 => self.heartbeat(),
            _ => self.ticker(random, self.time, 0),
        };
        self.last = Some(line.clone());
        line
    }

    /// What a job has to refuse or pass over.
    fn dirty(&mut self, random: &mut Random) -> String {
        match random.below(6) {
            0 => self.last.clone().unwrap_or_else(|| self.heartbeat()),
            1 => self.ticker(random, self.time - 3_000_000, 0),
            2 => self.ticker(random, self.time, -500),
            3 => self.ticker(random, self.time, 0).replace("\"time\"", "\"at\""),
            4 => format!("{{\"type\":\"l2update\",\"product_id\":\"{}\",\"changes\":[]}}", self.name),
            _ => self.ticker(random, self.time, 0).replace("\"best_bid\":\"", "\"best_bid\":\"x"),
        }
    }

    /// `widen`: how much wider than usual the spread is, in hundredths; below 0 it is crossed.
    fn ticker(&mut self, random: &mut Random, time: i64, widen: i64) -> String {
        self.sequence += 1 + random.below(3) as u64;
        let half = 1 + random.below(if self.burst > 0 { 9 } else { 3 }) as i64 + widen;
        format!(
            concat!(
                r#"{{"type":"ticker","sequence":{},"product_id":"{}","price":"{}","open_24h":"1000","volume_24h":"#,
                r#""12345.678","best_bid":"{}","best_bid_size":"{}","best_ask":"{}","best_ask_size":"{}","side":"#,
                r#""buy","time":"{}","trade_id":{},"last_size":"0.01"}}"#
            ),
            self.sequence,
            self.name,
            price(self.mid),
            price(self.mid - half),
            price(1 + random.below(500) as i64),
            price(self.mid + half),
            price(1 + random.below(500) as i64),
            stamp(time),
            self.sequence,
        )
    }

    fn trade(&mut self, random: &mut Random) -> String {
        self.sequence += 1;
        let side = if random.once_in(2) { "buy" } else { "sell" };
        format!(
            r#"{{"type":"match","trade_id":{},"side":"{side}","size":"0.5","price":"{}","product_id":"{}","time":"{}"}}"#,
            self.sequence,
            price(self.mid),
            self.name,
            stamp(self.time),
        )
    }

    fn heartbeat(&self) -> String {
        let (name, time) = (&self.name, stamp(self.time));
        format!(
            r#"{{"type":"heartbeat","sequence":1,"last_trade_id":1,"product_id":"{name}","time":"{time}"}}"#
        )
    }
}

/// Hundredths as decimal text.
fn price(hundredths: i64) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// Microseconds since the feed began as RFC 3339. The feed begins on 2026-03-02.
pub fn stamp(micros: i64) -> String {
    let day = 2 + micros.div_euclid(86_400_000_000);
    let micros = micros.rem_euclid(86_400_000_000);
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("2026-03-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// How full windows of 60 s, which are the default, ever were.
#[derive(Default)]
pub struct Fullest {
    /// Times within the last 60 s, by product, and the most there ever were.
    windows: BTreeMap<usize, (VecDeque<i64>, usize)>,
}

impl Fullest {
    pub fn add(&mut self, message: &Message) {
        let (times, most) = self.windows.entry(message.product).or_default();
        times.push_back(message.time);
        while times.front().is_some_and(|first| *first <= message.time - 60_000_000) {
            times.pop_front();
        }
        *most = times.len().max(*most);
    }

    /// The most of each product, summed over all of them.
    pub fn ticks(&self) -> usize {
        self.windows.values().map(|(_, most)| most).sum()
    }
}

/// The messages as the bytes of a file.
pub fn file<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        bytes.extend_from_slice(message.line.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

/// The messages in another order, each instrument's own kept.
pub fn interleave(messages: &[Message], random: &mut Random) -> Vec<Message> {
    let mut queues = BTreeMap::<usize, VecDeque<&Message>>::new();
    for message in messages {
        queues.entry(message.product).or_default().push_back(message);
    }
    let mut queues: Vec<_> = queues.into_values().collect();
    let mut mixed = Vec::with_capacity(messages.len());
    while !queues.is_empty() {
        let at = random.below(queues.len());
        // Runs of several, so that batches differ in what they hold.
        for _ in 0..=random.below(6) {
            mixed.extend(queues[at].pop_front().cloned());
        }
        if queues[at].is_empty() {
            queues.swap_remove(at);
        }
    }
    mixed
}
