//! From records to lines of JSON (docs/definitions.md, "Output").
//!
//! Numbers are the shortest text that reads back to the same f64; NaN is null; times have as many fraction
//! digits as their format.

use std::sync::LazyLock;

use crate::change::Change;
use crate::feature::return_name;
use crate::model::Model;
use crate::operator::Instrument;
use crate::outputs::field::{OutputField, write_line};
use crate::outputs::{OutputKind, alerts, gaps, metrics};
use crate::row::InstrumentId;
use crate::stages::{Alert, Features, Gap, Outcome, Prediction, Sample};
use crate::time::{Nanos, SECOND, Time, TimeText};

/// Fields of the outputs that are written as their tables say.
struct ListedFields {
    metrics: Vec<OutputField<Sample>>,
    gaps: Vec<OutputField<Gap>>,
    alerts: Vec<OutputField<Alert>>,
}

static FIELDS: LazyLock<ListedFields> = LazyLock::new(|| ListedFields {
    metrics: metrics::fields(),
    gaps: gaps::fields(),
    alerts: alerts::fields(),
});

/// Writes records as JSON lines. Keeps what is the same on many lines: an instrument's names, a model's, the
/// minute of the last time.
pub struct Encoder {
    /// By instrument number: `"exchange":"…","instrument":"…"`; empty until first used.
    names: Vec<Vec<u8>>,
    /// By the number of the change that settings came from, and by horizon: `,"return_1s":`.
    return_keys: Numbered<Vec<Vec<u8>>>,
    /// By the number of the change that the model came from: `,"model_name":…` to the end of a prediction.
    models: Numbered<Vec<u8>>,
    time: TimeText,
    integer: itoa::Buffer,
}

impl Encoder {
    /// An encoder for a job with these return horizons and this model.
    pub fn new(horizons: &[Nanos], model: &Model) -> Encoder {
        Encoder {
            names: Vec::new(),
            return_keys: Numbered::new(return_keys(horizons)),
            models: Numbered::new(model_fields(model)),
            time: TimeText::default(),
            integer: itoa::Buffer::new(),
        }
    }

    /// Makes a change known; must come before the first line made under it.
    pub fn learn(&mut self, change: &Change) {
        if let Some(parameters) = change.parameters() {
            self.return_keys.learn(change.number, || return_keys(&parameters.features.horizons));
        }
        if let Some(model) = change.model() {
            self.models.learn(change.number, || model_fields(model));
        }
    }

    /// Makes an instrument known; must come before its first line.
    pub fn introduce(&mut self, instrument: &Instrument) {
        let at = instrument.id.0 as usize;
        if self.names.len() <= at {
            self.names.resize_with(at + 1, Vec::new);
        }
        if self.names[at].is_empty() {
            let (exchange, name) = (quoted(&instrument.exchange), quoted(&instrument.name));
            self.names[at] = format!("{{\"exchange\":{exchange},\"instrument\":{name}").into_bytes();
        }
    }

    /// Whether [`Encoder::introduce`] was called for the instrument.
    pub fn knows(&self, instrument: InstrumentId) -> bool {
        self.names.get(instrument.0 as usize).is_some_and(|names| !names.is_empty())
    }

    /// A line of `features.ndjson`.
    pub fn features(&mut self, instrument: InstrumentId, features: &Features, line: &mut Vec<u8>) {
        self.feature_fields(instrument, features, line);
        line.extend_from_slice(b"}\n");
    }

    /// A line of `scored.ndjson`: all features and the prediction.
    pub fn scored(
        &mut self,
        instrument: InstrumentId,
        features: &Features,
        prediction: &Prediction,
        line: &mut Vec<u8>,
    ) {
        self.feature_fields(instrument, features, line);
        probability(prediction, line);
        line.extend_from_slice(b"}\n");
    }

    /// A line of `predictions.ndjson`; ticks that the model refused have none.
    pub fn prediction(
        &mut self,
        instrument: InstrumentId,
        features: &Features,
        prediction: &Prediction,
        line: &mut Vec<u8>,
    ) {
        self.names(instrument, line);
        self.time(",\"event_time\":", features.event_time, features.digits, line);
        probability(prediction, line);
        line.extend_from_slice(self.models.get(prediction.model));
    }

    /// Appends the line that an outcome has in this kind of output; false where it has none.
    pub fn outcome(
        &mut self,
        kind: OutputKind,
        instrument: InstrumentId,
        outcome: &Outcome,
        line: &mut Vec<u8>,
    ) -> bool {
        match (kind, outcome) {
            (OutputKind::Features, Outcome::Tick(features, _)) => self.features(instrument, features, line),
            (OutputKind::Scored, Outcome::Tick(features, prediction)) => {
                self.scored(instrument, features, prediction, line);
            }
            (OutputKind::Predictions, Outcome::Tick(features, prediction)) if prediction.spike.is_some() => {
                self.prediction(instrument, features, prediction, line);
            }
            (OutputKind::Metrics, Outcome::Sample(sample)) => {
                self.listed(instrument, &FIELDS.metrics, sample, line);
            }
            (OutputKind::Gaps, Outcome::Gap(gap)) => self.listed(instrument, &FIELDS.gaps, gap, line),
            (OutputKind::Alerts, Outcome::Alert(alert)) => {
                self.listed(instrument, &FIELDS.alerts, alert, line);
            }
            _ => return false,
        }
        true
    }

    /// A line that the table of its fields says how to write.
    fn listed<R>(
        &mut self,
        instrument: InstrumentId,
        fields: &[OutputField<R>],
        row: &R,
        line: &mut Vec<u8>,
    ) {
        write_line(&self.names[instrument.0 as usize], fields, row, &mut self.time, line);
    }

    fn feature_fields(&mut self, instrument: InstrumentId, features: &Features, line: &mut Vec<u8>) {
        line.reserve(1024);
        self.names(instrument, line);
        self.time(",\"event_time\":", features.event_time, features.digits, line);
        number(b",\"price\":", features.price, line);
        number(b",\"midprice\":", features.midprice, line);
        number(b",\"spread_abs\":", features.spread_abs, line);
        number(b",\"spread_rel\":", features.spread_rel, line);
        number(b",\"spread_bps\":", features.spread_bps, line);
        number(b",\"order_book_imbalance\":", features.order_book_imbalance, line);
        for (key, value) in self.return_keys.get(features.settings).iter().zip(features.returns) {
            number(key, value, line);
        }
        line.extend_from_slice(b",\"n\":");
        line.extend_from_slice(self.integer.format(features.n).as_bytes());
        number(b",\"ret_mean\":", features.ret_mean, line);
        line.extend_from_slice(b",\"ret_std\":");
        let start = line.len();
        push_number(features.ret_std, line);
        let end = line.len();
        line.extend_from_slice(b",\"volatility\":");
        line.extend_from_within(start..end);
        number(b",\"trade_intensity\":", features.trade_intensity, line);
        number(b",\"volatility_z\":", features.volatility_z, line);
        number(b",\"spread_z\":", features.spread_z, line);
    }

    fn names(&self, instrument: InstrumentId, line: &mut Vec<u8>) {
        line.extend_from_slice(&self.names[instrument.0 as usize]);
    }

    fn time(&mut self, key: &str, time: Time, digits: u8, line: &mut Vec<u8>) {
        line.extend_from_slice(key.as_bytes());
        line.push(b'"');
        self.time.write(time, digits, line);
        line.push(b'"');
    }
}

/// What changes with settings, by the number of the change; 0: the configuration.
struct Numbered<T>(Vec<(u32, T)>);

impl<T> Numbered<T> {
    fn new(configured: T) -> Numbered<T> {
        Numbered(vec![(0, configured)])
    }

    fn learn(&mut self, number: u32, value: impl FnOnce() -> T) {
        if let Err(at) = self.0.binary_search_by_key(&number, |(known, _)| *known) {
            self.0.insert(at, (number, value()));
        }
    }

    fn get(&self, number: u32) -> &T {
        // Most jobs never change theirs.
        let at = if number == 0 { Ok(0) } else { self.0.binary_search_by_key(&number, |(known, _)| *known) };
        let (_, value) = &self.0[at.expect("a change is learned before its lines")];
        value
    }
}

fn return_keys(horizons: &[Nanos]) -> Vec<Vec<u8>> {
    horizons.iter().map(|horizon| format!(",\"{}\":", return_name(*horizon)).into_bytes()).collect()
}

fn model_fields(model: &Model) -> Vec<u8> {
    let horizon_s = model.horizon as f64 / SECOND as f64;
    let fields = format!(
        ",\"model_name\":{},\"model_version\":{},\"model_variant\":\"{}\",\"horizon_s\":{horizon_s}}}\n",
        quoted(&model.name),
        quoted(&model.version),
        model.variant(),
    );
    fields.into_bytes()
}

fn probability(prediction: &Prediction, line: &mut Vec<u8>) {
    number(b",\"probability\":", prediction.probability, line);
    line.extend_from_slice(match prediction.spike {
        Some(true) => b",\"prediction\":1",
        Some(false) => b",\"prediction\":0",
        None => b",\"prediction\":null",
    });
}

fn number(key: &[u8], value: f64, line: &mut Vec<u8>) {
    line.extend_from_slice(key);
    push_number(value, line);
}

/// Appends the shortest text that reads back to the same f64; null for NaN.
pub(crate) fn push_number(value: f64, line: &mut Vec<u8>) {
    if value.is_finite() {
        line.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        line.extend_from_slice(b"null");
    }
}

/// A text as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}
