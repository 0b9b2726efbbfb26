//! A job of one instrument, run by scripts: `0=12 1=7/2.5 2=gap` reads "a sample of 12 at 0 s, one of 7 with a
//! z-score of 2.5 at 1 s, a gap that ends at 2 s". `restart`, `off` and `on` stand between steps.
//! Levels are raise 10, clear 5 and critical 20 unless a rule says otherwise.

use std::sync::Arc;

use foreshock_operators::alone::Alone;
use foreshock_operators::change::Parameters;
use foreshock_operators::features::FeatureSettings;
use foreshock_operators::model::{Baseline, Model, ModelKind, NullPolicy};
use foreshock_operators::operator::{Instrument, RestoreError};
use foreshock_operators::order::OrderSettings;
use foreshock_operators::row::{InstrumentId, Source};
use foreshock_operators::rules::{Critical, Direction, Rule, Rules};
use foreshock_operators::seconds::SecondSettings;
use foreshock_operators::stages::{
    Alert, AlertState, Features, Gap, GapReason, MAX_HORIZONS, Metric, Outcome, Prediction, Priority,
    Reading, Sample, Scored, Signal,
};
use foreshock_operators::time::{Nanos, SECOND, Time};

pub const SPREAD: Signal = Signal::Metric(Metric::SpreadBps);

/// Raises at once at 10, resolves at once at 5.
pub fn rule() -> Rule {
    Rule {
        name: "wide_spread".into(),
        signal: SPREAD,
        instruments: vec!["*".into()],
        priority: Priority::P2,
        direction: Direction::Above,
        raise: 10.0,
        clear: 5.0,
        zscore: None,
        critical: None,
        hold: 0,
        resolve_for: 0,
        cooldown: 0,
        enabled: true,
    }
}

pub fn held(seconds: i64) -> Rule {
    Rule { hold: seconds * SECOND, ..rule() }
}

pub fn patient(seconds: i64) -> Rule {
    Rule { resolve_for: seconds * SECOND, ..rule() }
}

pub fn cooling(seconds: i64) -> Rule {
    Rule { cooldown: seconds * SECOND, ..rule() }
}

pub fn scored(zscore: f64) -> Rule {
    Rule { zscore: Some(zscore), ..rule() }
}

pub fn escalating(seconds: i64) -> Rule {
    Rule { critical: Some(Critical { level: 20.0, hold: seconds * SECOND }), ..rule() }
}

/// Mirrors [`rule`]: raises at -10, clear at -5.
pub fn below() -> Rule {
    Rule { direction: Direction::Below, raise: -10.0, clear: -5.0, ..rule() }
}

pub fn on_probability() -> Rule {
    Rule { signal: Signal::Probability, ..rule() }
}

pub fn instrument(exchange: &str, name: &str) -> Instrument {
    Instrument {
        id: InstrumentId(7),
        exchange: exchange.into(),
        symbol: name.into(),
        name: name.into(),
        quote_channel: None,
        trade_channel: None,
        gap_after: None,
        max_jump: None,
    }
}

pub fn bitcoin() -> Instrument {
    instrument("coinbase", "BTC-USD")
}

pub fn gap(end: Time) -> Scored {
    Scored::Gap(Gap { start: end.minus(9 * SECOND), end, reason: GapReason::Silence, digits: 3 })
}

/// A sample in which only the named metrics are known.
pub fn sample(time: Time, known: &[(Metric, f64, f64)]) -> Scored {
    let mut readings = [Reading { value: f64::NAN, zscore: f64::NAN, seen: 0 }; Metric::COUNT];
    for &(metric, value, zscore) in known {
        readings[metric as usize] = Reading { value, zscore, seen: 0 };
    }
    Scored::Sample(Sample { time, digits: 6, readings })
}

/// A tick whose own time lies behind its instrument's clock.
pub fn tick(clock: Time, probability: f64) -> Scored {
    let features = Features {
        source: Source::default(),
        index: 0,
        event_time: clock.minus(1),
        clock,
        digits: 9,
        settings: 0,
        n: 2,
        price: 1.0,
        midprice: 1.0,
        spread_abs: 1.0,
        spread_rel: 1.0,
        spread_bps: 100.0,
        order_book_imbalance: 1.0,
        returns: [1.0; MAX_HORIZONS],
        ret_mean: 1.0,
        ret_std: 1.0,
        trade_intensity: 1.0,
        volatility_z: 1.0,
        spread_z: 1.0,
    };
    Scored::Tick(features, Prediction { probability, spike: Some(true), model: 0 })
}

/// These rules beside whatever else a job has, which rules do not look at.
pub fn ruled_by(rules: &[Rule]) -> Arc<Parameters> {
    let model = Model {
        name: "m".into(),
        version: "1".into(),
        kind: ModelKind::Baseline(Baseline { threshold: 1.0, null: NullPolicy::Refuse }),
        decision_threshold: 0.5,
        horizon: SECOND,
        sha256: "s".into(),
    };
    Arc::new(Parameters {
        max_ahead: SECOND,
        order: OrderSettings::default(),
        features: Arc::new(FeatureSettings::default()),
        seconds: SecondSettings::default(),
        model: Arc::new(model),
        rules: rules.into(),
    })
}

/// What a state gives under these rules.
pub fn restore(rules: &[Rule], state: &[u8]) -> Result<Alone<Rules>, RestoreError> {
    Alone::restore(&ruled_by(rules), &bitcoin(), state)
}

/// A job with one instrument, which may be stopped and started again.
pub struct Job {
    pub rules: Arc<[Rule]>,
    pub alone: Alone<Rules>,
}

impl Job {
    pub fn new(rules: &[Rule]) -> Self {
        Job { alone: Alone::new(&ruled_by(rules), &bitcoin()), rules: rules.into() }
    }

    pub fn feed(&mut self, input: Scored) {
        self.alone.feed(bitcoin().id, 0, input);
    }

    /// Goes on from a state under the rules of now; what was given stays.
    pub fn go_on_from(&mut self, state: &[u8]) -> Result<(), RestoreError> {
        self.alone.operator = restore(&self.rules, state)?.operator;
        Ok(())
    }

    pub fn restart(&mut self) {
        let state = self.alone.saved();
        self.go_on_from(&state).expect("its own state");
        assert_eq!(self.alone.saved(), state, "a state that was read is written the same");
    }

    pub fn restart_with(&mut self, change: impl Fn(&mut Rule)) {
        let mut rules = self.rules.to_vec();
        rules.iter_mut().for_each(change);
        self.rules = rules.into();
        self.go_on_from(&self.alone.saved()).expect("a state to go on from");
    }

    pub fn with(mut self, act: impl FnOnce(&mut Job)) -> Self {
        act(&mut self);
        self
    }

    pub fn run(mut self, script: &str) -> Self {
        let signal = self.rules.first().map_or(SPREAD, |rule| rule.signal);
        for step in script.split_whitespace() {
            match step {
                "restart" => self.restart(),
                "off" => self.restart_with(|rule| rule.enabled = false),
                "on" => self.restart_with(|rule| rule.enabled = true),
                _ => self.feed(read_step(step, signal)),
            }
        }
        self
    }

    pub fn alerts(&self) -> Vec<&Alert> {
        let out = &self.alone.out;
        let alerts: Vec<&Alert> = out.values.iter().filter_map(|tagged| alert(&tagged.value)).collect();
        assert_eq!(out.context.ledger.counts.alerts, alerts.len() as i64, "every alert is counted");
        alerts
    }
}

pub fn alert(outcome: &Outcome) -> Option<&Alert> {
    match outcome {
        Outcome::Alert(alert) => Some(alert),
        _ => None,
    }
}

pub fn read_number(text: &str) -> f64 {
    if text == "null" { f64::NAN } else { text.parse().expect("a number or null") }
}

/// `1.5` is a second and a half; all nine digits count.
pub fn read_time(text: &str) -> Time {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos: Nanos = format!("{fraction:0<9}").parse().expect("at most nine digits");
    Time(seconds.parse::<i64>().expect("seconds") * SECOND + nanos)
}

pub fn read_step(step: &str, signal: Signal) -> Scored {
    let (time, content) = step.split_once('=').expect("time=value");
    let time = read_time(time);
    let (value, zscore) = content.split_once('/').unwrap_or((content, "null"));
    match signal {
        _ if content == "gap" => gap(time),
        Signal::Metric(metric) => sample(time, &[(metric, read_number(value), read_number(zscore))]),
        Signal::Probability => tick(time, read_number(value)),
    }
}

/// `1.5 raised`, or `1.5 critical P1`: the priority where it isn't P2.
pub fn in_words(alert: &Alert) -> String {
    let state = match alert.reason {
        "raised" | "resumed" => AlertState::Active,
        "critical" => AlertState::Escalated,
        "gap" | "warming_up" => AlertState::Suppressed,
        "cleared" | "disabled" | "reconfigured" => AlertState::Resolved,
        other => panic!("unknown reason {other}"),
    };
    assert_eq!(alert.state, state, "{}", alert.reason);
    let seconds = alert.time.0 as f64 / SECOND as f64;
    let priority = if alert.priority == Priority::P2 { "" } else { alert.priority.name() };
    format!("{seconds} {} {priority}", alert.reason).trim_end().to_string()
}
