//! A made-up market in foreshock's own format: calm, with a burst of volatility in one instrument after another.
//!
//! Everything follows from the seed, by additions and multiplications alone, so the market is the same on every
//! machine. Returns have heavy tails, spreads revert to their mean, and volatility comes in clusters: each burst
//! swells to its end, and spreads widen and trades come faster while it lasts.
//!
//! A burst is made for the bundled rule `volatility`: it lifts the realised volatility of its instrument from a
//! fifth of the rule's level to twice that. It counts for as long as the feature window reaches back, so an alert is
//! resolved about 100 s after its burst began, and instruments take turns to leave room for that.

use foreshock_operators::time::{Nanos, SECOND, Time, write_rfc3339};

/// The exchange of all messages.
pub const EXCHANGE: &str = "demo";

/// More instruments than this would need names of two letters.
const INSTRUMENTS_MAX: usize = 26;

/// When the first burst begins: z-scores are warm after 30 s.
const FIRST_BURST: Nanos = 34 * SECOND;

/// The standard deviation of a calm tick's return, heavy tails left out.
const CALM: f64 = 8e-6;

/// How much higher it is in the middle of a burst.
const BURST: f64 = 30.0;

/// How much higher trades come in a burst.
const BURST_TRADES: i64 = 3;

/// The spread that a calm market returns to, in basis points.
const CALM_SPREAD: f64 = 1.0;

/// What a market is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MarketSettings {
    pub seed: u64,
    /// Event time at which the market opens.
    pub start: Time,
    /// How many instruments: `SYN-A`, `SYN-B` and so on.
    pub instruments: usize,
    /// Of each instrument.
    pub quotes_per_second: u32,
    /// Of each instrument, in a calm market.
    pub trades_per_second: u32,
}

impl Default for MarketSettings {
    fn default() -> Self {
        MarketSettings {
            seed: 1,
            start: Time(0),
            instruments: 5,
            quotes_per_second: 60,
            trades_per_second: 20,
        }
    }
}

/// One message of the market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeUpMessage {
    pub time: Time,
    /// `demo:SYN-A`: the key of its record.
    pub key: String,
    /// The message in the canonical format, without a line break.
    pub bytes: Vec<u8>,
}

/// The market: an endless run of messages in the order of event time.
#[derive(Clone, Debug)]
pub struct MadeUpMarket {
    settings: MarketSettings,
    random: Random,
    instruments: Vec<Instrument>,
    burst: Burst,
    bursts: usize,
}

#[derive(Clone, Debug)]
struct Instrument {
    name: String,
    /// The price that the market circles about, and how many decimals prices have.
    base: f64,
    decimals: usize,
    /// Mid price as a multiple of the base.
    level: f64,
    /// In basis points.
    spread: f64,
    /// How much of the book stands on the bid, from -1 to 1.
    lean: f64,
    quote_at: Time,
    trade_at: Time,
    quotes: u64,
    trades: u64,
    /// The last quote, which trades follow.
    bid: f64,
    ask: f64,
}

/// The burst that is on, or the next one.
#[derive(Clone, Copy, Debug)]
struct Burst {
    instrument: usize,
    from: Time,
    to: Time,
    /// 1, or more in some after the first round.
    strength: f64,
}

impl MadeUpMarket {
    /// A market that opens at `settings.start`.
    pub fn new(settings: MarketSettings) -> MadeUpMarket {
        assert!((1..=INSTRUMENTS_MAX).contains(&settings.instruments), "a market has 1 to 26 instruments");
        assert!(settings.quotes_per_second > 0 && settings.trades_per_second > 0, "a market has messages");
        let mut random = Random(settings.seed);
        let instruments = (0..settings.instruments)
            .map(|number| {
                // Prices of all sizes, each with as many decimals as make a step of a millionth or less.
                let (base, decimals) =
                    [(25_000.0, 2), (1_800.0, 3), (95.0, 5), (310.0, 4), (4.5, 6)][number % 5];
                let mut instrument = Instrument {
                    name: format!("SYN-{}", char::from(b'A' + number as u8)),
                    base,
                    decimals,
                    level: 1.0,
                    spread: CALM_SPREAD,
                    lean: 0.0,
                    quote_at: settings.start.plus(random.below(SECOND / 20)),
                    trade_at: settings.start.plus(SECOND / 10 + random.below(SECOND / 20)),
                    quotes: 0,
                    trades: 0,
                    bid: base,
                    ask: base,
                };
                instrument.set_quote();
                instrument
            })
            .collect();
        let from = settings.start.plus(FIRST_BURST);
        let burst = Burst { instrument: 0, from, to: from.plus(10 * SECOND), strength: 1.0 };
        MadeUpMarket { settings, random, instruments, burst, bursts: 0 }
    }

    /// Goes on to the burst after the one that has ended: 20 to 30 s after its beginning, 8 to 12 s long.
    fn next_burst(&mut self) {
        self.bursts += 1;
        let from = self.burst.from.plus(20 * SECOND + self.random.below(10 * SECOND));
        let to = from.plus(8 * SECOND + self.random.below(4 * SECOND));
        // An instrument's z-score remembers its last burst: only a stronger one is out of the ordinary again.
        let is_first_round = self.bursts < self.instruments.len();
        let strength = if is_first_round { 1.0 } else { 1.0 / (1.0 - 0.8 * self.random.unit()) };
        self.burst = Burst { instrument: self.bursts % self.instruments.len(), from, to, strength };
    }

    /// How much more volatile an instrument is than in a calm market: 1 outside of its bursts.
    fn heat(&self, number: usize, time: Time) -> f64 {
        let Burst { instrument, from, to, strength } = self.burst;
        if instrument != number || time < from || time >= to {
            return 1.0;
        }
        let part = time.since(from) as f64 / to.since(from) as f64;
        (0.5 + part) * BURST * strength
    }
}

impl Iterator for MadeUpMarket {
    type Item = MadeUpMessage;

    fn next(&mut self) -> Option<MadeUpMessage> {
        let number = (0..self.instruments.len()).min_by_key(|number| self.instruments[*number].next_at())?;
        let time = self.instruments[number].next_at();
        while time >= self.burst.to {
            self.next_burst();
        }
        let heat = self.heat(number, time);
        let (instrument, random) = (&mut self.instruments[number], &mut self.random);
        let bytes = if instrument.quote_at <= instrument.trade_at {
            instrument.quote_at =
                time.plus(random.around(SECOND / i64::from(self.settings.quotes_per_second)));
            instrument.quote(time, heat, random)
        } else {
            let calm = SECOND / i64::from(self.settings.trades_per_second);
            let mean = if heat > 1.0 { calm / BURST_TRADES } else { calm };
            instrument.trade_at = time.plus(random.around(mean));
            instrument.trade(time, random)
        };
        Some(MadeUpMessage { time, key: format!("{EXCHANGE}:{}", instrument.name), bytes })
    }
}

impl Instrument {
    fn next_at(&self) -> Time {
        self.quote_at.min(self.trade_at)
    }

    fn quote(&mut self, time: Time, heat: f64, random: &mut Random) -> Vec<u8> {
        // Prices are drawn back to their base, too slowly to be seen within a minute.
        let pull = (1.0 - self.level) * 2e-5;
        self.level *= 1.0 + pull + CALM * heat * random.heavy();
        self.level = self.level.clamp(0.5, 2.0);
        let wanted = if heat > 1.0 { 3.0 * CALM_SPREAD } else { CALM_SPREAD };
        self.spread += 0.05 * (wanted - self.spread) + 0.04 * random.normal();
        self.spread = self.spread.clamp(0.3, 10.0);
        self.lean = (0.98 * self.lean + 0.1 * random.normal()).clamp(-0.9, 0.9);
        self.set_quote();
        self.quotes += 1;
        let depth = 2.0 + 3.0 * random.unit();
        let (bid_size, ask_size) = (depth * (1.0 + self.lean), depth * (1.0 - self.lean));
        let (digits, bid, ask) = (self.decimals, self.bid, self.ask);
        self.message("quote", time, self.quotes, |text| {
            text.push_str(&format!(
                r#""bid":{bid:.digits$},"bid_size":{bid_size:.3},"ask":{ask:.digits$},"ask_size":{ask_size:.3}"#
            ));
        })
    }

    fn trade(&mut self, time: Time, random: &mut Random) -> Vec<u8> {
        self.trades += 1;
        let is_buy = random.unit() < 0.5 + 0.3 * self.lean;
        let (price, side) = if is_buy { (self.ask, "buy") } else { (self.bid, "sell") };
        // Most trades are small.
        let size = 0.01 + 2.0 * random.unit() * random.unit() * random.unit();
        let digits = self.decimals;
        self.message("trade", time, self.trades, |text| {
            text.push_str(&format!(r#""price":{price:.digits$},"size":{size:.4},"side":"{side}""#));
        })
    }

    fn set_quote(&mut self) {
        let mid = self.base * self.level;
        let half = mid * self.spread / 2e4;
        (self.bid, self.ask) = (mid - half, mid + half);
    }

    fn message(&self, kind: &str, time: Time, sequence: u64, body: impl FnOnce(&mut String)) -> Vec<u8> {
        let mut stamp = Vec::new();
        write_rfc3339(time, 6, &mut stamp);
        let (name, stamp) = (&self.name, String::from_utf8_lossy(&stamp));
        let mut text = format!(
            r#"{{"type":"{kind}","exchange":"{EXCHANGE}","instrument":"{name}","event_time":"{stamp}","sequence":{sequence},"#
        );
        body(&mut text);
        text.push('}');
        text.into_bytes()
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0, below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, end: Nanos) -> Nanos {
        (self.next() % end as u64) as i64
    }

    /// A time about this long: half to one and a half.
    fn around(&mut self, mean: Nanos) -> Nanos {
        mean / 2 + self.below(mean.max(1)) + 1
    }

    /// Nearly normal: the sum of four uniform numbers, with mean 0 and deviation 1.
    fn normal(&mut self) -> f64 {
        let sum = self.unit() + self.unit() + self.unit() + self.unit();
        // The deviation of the sum is the square root of 4 / 12.
        (sum - 2.0) * 1.732_050_807_568_877_2
    }

    /// One in twenty is three times as large.
    fn heavy(&mut self) -> f64 {
        let size = if self.unit() < 0.05 { 3.0 } else { 1.0 };
        size * self.normal()
    }
}
