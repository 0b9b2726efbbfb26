//! What changes results: a replay is the same only under the same settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock_operators::change::Parameters;
use foreshock_operators::features::FeatureSettings;
use foreshock_operators::model::Model;
use foreshock_operators::order::OrderSettings;
use foreshock_operators::row::Channel;
use foreshock_operators::rules::Rule;
use foreshock_operators::seconds::SecondSettings;
use foreshock_operators::time::{Nanos, SECOND};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Everything that decides what a job computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "FlatSettings", into = "FlatSettings")]
pub struct Settings {
    /// What operators take of them.
    pub parameters: Arc<Parameters>,
    pub instruments: InstrumentSettings,
}

impl Settings {
    /// What a job could not work with, if anything.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn check(&self) -> Result<(), String> {
        self.parameters.check()?;
        let InstrumentSettings { max, gap_after, max_jump, exchanges, listed, .. } = &self.instruments;
        let own = || listed.iter().map(|listed| &listed.settings).chain(exchanges.values());
        let gaps = own().map(|settings| settings.gap_after).chain(gap_after.map(InheritedLimit::After));
        let jumps = own().map(|settings| settings.max_jump).chain(max_jump.map(InheritedLimit::After));
        let checks = [
            (*max > 0, "a job has at least one instrument"),
            (gaps.into_iter().all(InheritedLimit::is_legal), "gap_after is not negative"),
            (jumps.into_iter().all(InheritedLimit::is_legal), "max_jump is not negative"),
            (
                listed.iter().all(ListedInstrument::is_named),
                "an instrument has an exchange, a symbol and an id",
            ),
            (
                listed.iter().all(|listed| listed.contract_value.is_finite() && listed.contract_value > 0.0),
                "a contract_value is above 0",
            ),
        ];
        checks.iter().try_for_each(|(holds, rule)| if *holds { Ok(()) } else { Err((*rule).to_string()) })
    }

    /// A name for exactly these settings: SHA-256, in hex, of their JSON.
    pub fn fingerprint(&self) -> String {
        let json = serde_json::to_vec(self).expect("settings are plain data");
        Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Settings as control records and snapshots have them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "struct Settings")]
struct FlatSettings {
    order: OrderSettings,
    features: Arc<FeatureSettings>,
    seconds: SecondSettings,
    model: Arc<Model>,
    rules: Arc<[Rule]>,
    max_ahead: Nanos,
    instruments: InstrumentSettings,
}

impl From<FlatSettings> for Settings {
    fn from(flat: FlatSettings) -> Settings {
        let FlatSettings { order, features, seconds, model, rules, max_ahead, instruments } = flat;
        let parameters = Arc::new(Parameters { max_ahead, order, features, seconds, model, rules });
        Settings { parameters, instruments }
    }
}

impl From<Settings> for FlatSettings {
    fn from(Settings { parameters, instruments }: Settings) -> FlatSettings {
        let Parameters { max_ahead, order, features, seconds, model, rules } = Parameters::clone(&parameters);
        FlatSettings { order, features, seconds, model, rules, max_ahead, instruments }
    }
}

/// Which instruments there are and what is known of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstrumentSettings {
    /// What happens to rows of an instrument that is not listed.
    pub unknown: Unknown,
    /// More instruments than this stop the job: state is bounded.
    pub max: usize,
    /// The longest silence that is no gap, where the exchange does not say otherwise; `None`: gaps are off.
    pub gap_after: Option<Nanos>,
    /// How far a row may lie ahead of the others until the next one confirms it, where the exchange does not say otherwise;
    /// `None`: any stamp is believed. Settings that were written before there was one have the default.
    #[serde(default = "default_max_jump")]
    pub max_jump: Option<Nanos>,
    /// By exchange name; one without an entry has the defaults.
    pub exchanges: BTreeMap<String, ExchangeSettings>,
    pub listed: Vec<ListedInstrument>,
}

fn default_max_jump() -> Option<Nanos> {
    Some(5 * SECOND)
}

/// What to do with an instrument that is not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// Take it, under the venue's symbol.
    Accept,
    DeadLetter,
}

/// Which clock rows run on (docs/definitions.md, "Input").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockChoice {
    /// The time of receipt where a used channel carries no exchange time (Binance spot `bookTicker`), else the
    /// exchange's.
    #[default]
    Auto,
    Exchange,
    Received,
}

/// A limit in time that was configured, or left to the level above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InheritedLimit {
    #[default]
    Inherit,
    Off,
    After(Nanos),
}

/// What holds for all instruments of an exchange, unless the instrument says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeSettings {
    pub gap_after: InheritedLimit,
    #[serde(default)]
    pub max_jump: InheritedLimit,
    pub clock: ClockChoice,
    pub quote_channel: Option<Channel>,
    pub trade_channel: Option<Channel>,
}

/// What sort of contract an instrument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstrumentType {
    Spot,
    Perpetual,
    Future,
}

/// An entry of `instruments.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

impl ListedInstrument {
    fn is_named(&self) -> bool {
        [&self.exchange, &self.symbol, &self.id].iter().all(|name| !name.is_empty())
    }
}

impl InheritedLimit {
    /// The limit in force, by an instrument's own word, its exchange's and that for all; `None`: there is none.
    pub fn in_force(own: Option<Self>, venue: Option<Self>, for_all: Option<Nanos>) -> Option<Nanos> {
        match (own, venue) {
            (Some(InheritedLimit::After(limit)), _) => Some(limit),
            (Some(InheritedLimit::Off), _) => None,
            (_, Some(InheritedLimit::After(limit))) => Some(limit),
            (_, Some(InheritedLimit::Off)) => None,
            _ => for_all,
        }
    }

    fn is_legal(self) -> bool {
        !matches!(self, InheritedLimit::After(limit) if limit < 0)
    }
}
