//! What changes results: a replay is the same only under the same settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock_operators::change::Windows;
use foreshock_operators::features::FeatureSettings;
use foreshock_operators::model::Model;
use foreshock_operators::order::OrderSettings;
use foreshock_operators::row::Channel;
use foreshock_operators::rules::Rule;
use foreshock_operators::seconds::SecondSettings;
use foreshock_operators::time::Nanos;

/// Everything that decides what a job computes.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub order: OrderSettings,
    pub features: Arc<FeatureSettings>,
    pub seconds: SecondSettings,
    pub model: Arc<Model>,
    pub rules: Arc<[Rule]>,
    /// How far a row's time may lie ahead of its receipt.
    pub max_ahead: Nanos,
    pub instruments: InstrumentSettings,
}

impl Settings {
    /// What all windows depend on.
    pub fn windows(&self) -> Windows {
        Windows { order: self.order, features: self.features.clone(), seconds: self.seconds }
    }
}

/// Which instruments there are and what is known of each.
#[derive(Clone, Debug, PartialEq)]
pub struct InstrumentSettings {
    /// What happens to rows of an instrument that is not listed.
    pub unknown: Unknown,
    /// More instruments than this stop the job: state is bounded.
    pub max: usize,
    /// The longest silence that is no gap, where the exchange does not say otherwise; `None`: gaps are off.
    pub gap_after: Option<Nanos>,
    /// By exchange name; one without an entry has the defaults.
    pub exchanges: BTreeMap<String, ExchangeSettings>,
    pub listed: Vec<ListedInstrument>,
}

/// What to do with an instrument that is not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Take it, under the venue's symbol.
    Accept,
    DeadLetter,
}

/// Which clock rows run on (SPEC 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockChoice {
    /// The time of receipt where a used channel carries no exchange time (Binance spot `bookTicker`), else the
    /// exchange's.
    #[default]
    Auto,
    Exchange,
    Received,
}

/// A silence limit that was configured, or left to the level above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GapAfter {
    #[default]
    Inherit,
    Off,
    After(Nanos),
}

/// What holds for all instruments of an exchange, unless the instrument says otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExchangeSettings {
    pub gap_after: GapAfter,
    pub clock: ClockChoice,
    pub quote_channel: Option<Channel>,
    pub trade_channel: Option<Channel>,
}

/// What sort of contract an instrument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstrumentType {
    Spot,
    Perpetual,
    Future,
}

/// An entry of `instruments.yaml`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedInstrument {
    pub exchange: String,
    /// The venue's own name.
    pub symbol: String,
    /// The canonical id, as printed: `BTC-USD`, `BTC-USDT-PERP`.
    pub id: String,
    pub kind: InstrumentType,
    pub base: String,
    pub quote: String,
    /// Units of base (or of quote, for inverse contracts) in one contract.
    pub contract_value: f64,
    pub inverse: bool,
    pub settings: ExchangeSettings,
}
