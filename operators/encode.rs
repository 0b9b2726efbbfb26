//! From records to lines of JSON (docs/definitions.md, "Output").
//!
//! Numbers are the shortest text that reads back to the same f64; NaN is null; times have as many fraction
//! digits as their format.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::account::DeadLetter;
use crate::change::Change;
use crate::model::{Model, return_name};
use crate::operator::Instrument;
use crate::row::InstrumentId;
use crate::stages::{Alert, Features, Gap, Metric, Prediction, Sample};
use crate::time::{Nanos, SECOND, Time, TimeText};

/// How much of a refused message is kept.
pub const ORIGINAL_MAX: usize = 64 * 1024;

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

    /// A line of `metrics.ndjson`: each metric, its z-score and how many samples the score has seen.
    pub fn sample(&mut self, instrument: InstrumentId, sample: &Sample, line: &mut Vec<u8>) {
        self.names(instrument, line);
        self.time(",\"event_time\":", sample.time, sample.digits, line);
        for metric in Metric::ALL {
            let (reading, name) = (&sample.readings[metric as usize], metric.name());
            for (suffix, value) in [("", reading.value), ("_z", reading.zscore)] {
                line.extend_from_slice(b",\"");
                line.extend_from_slice(name.as_bytes());
                line.extend_from_slice(suffix.as_bytes());
                line.extend_from_slice(b"\":");
                push_number(value, line);
            }
            line.extend_from_slice(b",\"");
            line.extend_from_slice(name.as_bytes());
            line.extend_from_slice(b"_samples\":");
            line.extend_from_slice(self.integer.format(reading.seen).as_bytes());
        }
        line.extend_from_slice(b"}\n");
    }

    /// A line of `gaps.ndjson`.
    pub fn gap(&mut self, instrument: InstrumentId, gap: &Gap, line: &mut Vec<u8>) {
        self.names(instrument, line);
        self.time(",\"gap_start\":", gap.start, gap.digits, line);
        self.time(",\"gap_end\":", gap.end, gap.digits, line);
        number(b",\"duration_seconds\":", gap.end.since(gap.start) as f64 / SECOND as f64, line);
        line.extend_from_slice(b",\"reason\":\"");
        line.extend_from_slice(gap.reason.name().as_bytes());
        line.extend_from_slice(b"\"}\n");
    }

    /// A line of `alerts.ndjson`.
    pub fn alert(&mut self, instrument: InstrumentId, alert: &Alert, line: &mut Vec<u8>) {
        self.names(instrument, line);
        let texts = [
            ("id", &*alert.id),
            ("rule", &*alert.rule),
            ("priority", alert.priority.name()),
            ("state", alert.state.name()),
            ("metric", alert.signal.name()),
        ];
        for (key, text) in texts {
            line.extend_from_slice(format!(",\"{key}\":{}", quoted(text)).as_bytes());
        }
        self.time(",\"event_time\":", alert.time, alert.digits, line);
        number(b",\"value\":", alert.value, line);
        number(b",\"threshold\":", alert.threshold, line);
        number(b",\"zscore\":", alert.zscore, line);
        self.time(",\"started_at\":", alert.started_at, alert.digits, line);
        self.time_or_null(",\"triggered_at\":", alert.triggered_at, alert.digits, line);
        self.time_or_null(",\"resolved_at\":", alert.resolved_at, alert.digits, line);
        line.extend_from_slice(format!(",\"reason\":{}}}\n", quoted(alert.reason)).as_bytes());
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

    fn time_or_null(&mut self, key: &str, time: Option<Time>, digits: u8, line: &mut Vec<u8>) {
        match time {
            Some(time) => self.time(key, time, digits, line),
            None => {
                line.extend_from_slice(key.as_bytes());
                line.extend_from_slice(b"null");
            }
        }
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

/// A line of `deadletter.ndjson`: what was refused, why, and the message's first 64 KiB (base64 where it is not
/// UTF-8).
pub fn dead_letter(letter: &DeadLetter, source_name: &str, message: &[u8], line: &mut Vec<u8>) {
    let source = format!("{source_name}/{}/{}", letter.source.line, letter.index);
    let kept = &message[..message.len().min(ORIGINAL_MAX)];
    // A cut may fall inside a character: what is whole before it is still text.
    let text = match std::str::from_utf8(kept) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && kept.len() < letter.extent.length as usize => {
            std::str::from_utf8(&kept[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let head = format!(
        "{{\"reason\":\"{}\",\"detail\":{},\"source\":{},\"length\":{},\"truncated\":{}",
        letter.reason.name(),
        quoted(&letter.detail),
        quoted(&source),
        letter.extent.length,
        text.map_or(kept.len(), str::len) < letter.extent.length as usize,
    );
    line.extend_from_slice(head.as_bytes());
    let original = match text {
        Some(text) => format!(",\"encoding\":\"utf-8\",\"original\":{}}}\n", quoted(text)),
        None => format!(",\"encoding\":\"base64\",\"original\":\"{}\"}}\n", STANDARD.encode(kept)),
    };
    line.extend_from_slice(original.as_bytes());
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

fn push_number(value: f64, line: &mut Vec<u8>) {
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
