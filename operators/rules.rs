//! Alert rules over per-second metrics and probabilities (docs/definitions.md, "Alerts").
//!
//! ```text
//! Scored ─► the same, as Outcome ─► the alerts it caused: metric rules on samples, probability rules on ticks,
//!                                   all rules on gaps
//! ```

use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::alert_life::{AlertLife, AlertStart, AlertTransition, Point};
use crate::change::Effect;
use crate::operator::{Ahead, Collector, Instrument, Mismatch, Operator};
use crate::parameters::Parameters;
use crate::prefetch::fetch_all;
use crate::stages::{Alert, AlertState, Features, GapReason, Outcome, Priority, Sample, Scored, Signal};
use crate::time::Time;

pub use crate::rule::{Critical, Direction, Rule, check_rules};

/// Watches one instrument by all the rules that cover it, in the order of the settings; at a gap those over
/// metrics come before those over probabilities.
///
/// Whatever comes in passes through; the alerts that it caused follow directly. Rules are looked at when their
/// own signal comes, and at gaps: there are no timers. A gap must come behind the samples of the seconds
/// before it, else the first of them would count as data again.
pub struct Rules {
    subject: Subject,
    rules: Arc<[Rule]>,
    /// Starts, in the instant of the last change, of alerts whose rules it ended: a rule of the same name that comes
    /// in the same instant counts on from them, so that no two alerts have one id.
    ended: Vec<(Arc<str>, AlertStart)>,
    /// Rules over metrics.
    on_samples: Vec<Watch>,
    /// Rules over probabilities: apart, so that a tick costs nothing where there are none.
    on_ticks: Vec<Watch>,
    /// Of a state that was just read: the rules that it was made under, and where each stood.
    read: Vec<(Rule, AlertLife)>,
}

/// A rule and where it stands.
struct Watch {
    /// Position of the rule in the settings.
    rule: usize,
    life: AlertLife,
}

impl Operator for Rules {
    const NAME: &'static str = "rules";
    type Input = Scored;
    type Output = Outcome;

    fn new(parameters: &Parameters, instrument: &Instrument) -> Self {
        let (exchange, name) = (instrument.exchange.clone(), instrument.name.clone());
        let mut operator = Rules {
            subject: Subject { exchange, name },
            rules: parameters.rules.clone(),
            ended: Vec::new(),
            on_samples: Vec::new(),
            on_ticks: Vec::new(),
            read: Vec::new(),
        };
        operator.watch();
        operator
    }

    fn on_input(&mut self, input: Scored, out: &mut impl Collector<Outcome>) {
        let Rules { subject, rules, on_samples, on_ticks, .. } = self;
        match input {
            Scored::Gap(gap) => {
                out.push(Outcome::Gap(gap));
                let point = Point { time: gap.end, digits: gap.digits, value: f64::NAN, zscore: f64::NAN };
                for watch in on_samples.iter_mut().chain(on_ticks) {
                    let rule = &rules[watch.rule];
                    watch.life.on_missing("gap", |change| subject.tell(rule, point, change, out));
                    if gap.reason == GapReason::Clock {
                        watch.life.on_clock_left(gap.end);
                    }
                }
            }
            Scored::Sample(sample) => {
                out.push(Outcome::Sample(sample));
                for watch in on_samples {
                    let rule = &rules[watch.rule];
                    let point = metric_point(&sample, rule.signal);
                    watch.life.on_point(rule, point, |change| subject.tell(rule, point, change, out));
                }
            }
            Scored::Tick(features, prediction) => {
                out.push(Outcome::Tick(features, prediction));
                let Features { clock: time, digits, .. } = features;
                let point = Point { time, digits, value: prediction.probability, zscore: f64::NAN };
                for watch in on_ticks {
                    let rule = &rules[watch.rule];
                    watch.life.on_point(rule, point, |change| subject.tell(rule, point, change, out));
                }
            }
        }
    }

    /// Rules that say the same go on; what others have raised ends here.
    fn on_change(&mut self, effect: &Effect, out: &mut impl Collector<Outcome>) {
        if let Some(rules) = effect.change.rules() {
            self.go_over_to(rules, effect, out);
        }
    }

    fn fetch(&self, _: Time, ahead: Ahead) {
        match ahead {
            Ahead::Far => fetch_all(self),
            Ahead::Near => self.on_ticks.iter().for_each(fetch_all),
            Ahead::Next => {}
        }
    }

    /// States find their rule by its name. A rule without one is new and starts idle; a state whose rule is
    /// gone or says something else is of other settings, unless only `enabled` differs.
    fn resume(&mut self, parameters: &Parameters, instrument: &Instrument) -> Result<(), Mismatch> {
        let (mut states, ended) = (std::mem::take(&mut self.read), std::mem::take(&mut self.ended));
        *self = Rules { ended, ..Rules::new(parameters, instrument) };
        for watch in self.on_samples.iter_mut().chain(&mut self.on_ticks) {
            let rule = &self.rules[watch.rule];
            if let Some(found) = states.iter().position(|(saved, _)| saved.agrees_with(rule)) {
                watch.life = states.swap_remove(found).1;
            }
        }
        if states.is_empty() { Ok(()) } else { Err(Mismatch::OtherSettings) }
    }
}

/// Each state carries the whole rule that it was made under.
impl Serialize for Rules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let watches = self.on_samples.iter().chain(&self.on_ticks);
        let states: Vec<(&Rule, &AlertLife)> =
            watches.map(|watch| (&self.rules[watch.rule], &watch.life)).collect();
        (states, &self.ended).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (read, ended) = Deserialize::deserialize(deserializer)?;
        let subject = Subject { exchange: "".into(), name: "".into() };
        let (on_samples, on_ticks) = (Vec::new(), Vec::new());
        Ok(Rules { subject, rules: [].into(), ended, on_samples, on_ticks, read })
    }
}

impl Rules {
    /// Watches by the rules that cover the instrument, all of them idle.
    fn watch(&mut self) {
        if let Err(why) = check_rules(&self.rules) {
            panic!("{why}");
        }
        self.on_samples.clear();
        self.on_ticks.clear();
        let Subject { exchange, name } = &self.subject;
        for (index, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.covers(exchange, name)) {
            let watch = Watch { rule: index, life: AlertLife::default() };
            match rule.signal {
                Signal::Metric(_) => self.on_samples.push(watch),
                Signal::Probability => self.on_ticks.push(watch),
            }
        }
    }

    fn go_over_to(&mut self, rules: &Arc<[Rule]>, effect: &Effect, out: &mut impl Collector<Outcome>) {
        let &Effect { at, digits, .. } = effect;
        let before = std::mem::replace(&mut self.rules, rules.clone());
        let mut watches: Vec<Watch> = self.on_samples.drain(..).chain(self.on_ticks.drain(..)).collect();
        self.watch();
        self.ended.retain(|(_, start)| start.at == at);
        for watch in self.on_samples.iter_mut().chain(&mut self.on_ticks) {
            let rule = &self.rules[watch.rule];
            if let Some(found) = watches.iter().position(|old| before[old.rule].agrees_with(rule)) {
                watch.life = watches.swap_remove(found).life;
            }
        }
        // Those that end, in the order of the settings that they came from.
        watches.sort_by_key(|watch| watch.rule);
        let point = Point { time: at, digits, value: f64::NAN, zscore: f64::NAN };
        for Watch { rule, mut life } in watches {
            let rule = &before[rule];
            life.end_now(at, "reconfigured", |turn| self.subject.tell(rule, point, turn, out));
            let start = life.last_start().filter(|start| start.at == at);
            self.ended.extend(start.map(|start| (rule.name.clone(), start)));
        }
        for watch in self.on_samples.iter_mut().chain(&mut self.on_ticks) {
            let rule = &self.rules[watch.rule];
            if !rule.enabled {
                watch.life.end_now(at, "disabled", |turn| self.subject.tell(rule, point, turn, out));
            }
            let newest = self.ended.iter().rev().find(|(name, _)| *name == rule.name);
            if let (Some((_, start)), None) = (newest, watch.life.last_start()) {
                watch.life = AlertLife::after(Some(*start));
            }
        }
    }
}

fn metric_point(sample: &Sample, signal: Signal) -> Point {
    let Signal::Metric(metric) = signal else { unreachable!("rules over probabilities see no samples") };
    let reading = sample.readings[metric as usize];
    Point { time: sample.time, digits: sample.digits, value: reading.value, zscore: reading.zscore }
}

/// Whom the alerts are about.
struct Subject {
    exchange: Arc<str>,
    name: Arc<str>,
}

impl Subject {
    /// Gives the message of one change.
    fn tell(&self, rule: &Rule, point: Point, change: AlertTransition, out: &mut impl Collector<Outcome>) {
        let Point { time, digits, value, zscore } = point;
        out.counts().alerts += 1;
        out.push(Outcome::Alert(Box::new(Alert {
            id: alert_id(&rule.name, &self.exchange, &self.name, change.start),
            rule: rule.name.clone(),
            priority: if change.escalated { Priority::P1 } else { rule.priority },
            state: change.state,
            signal: rule.signal,
            time,
            value,
            threshold: rule.threshold(change.state),
            zscore,
            started_at: change.start.at,
            triggered_at: Some(change.triggered_at),
            resolved_at: (change.state == AlertState::Resolved).then_some(time),
            reason: change.reason,
            digits,
        })));
    }
}

/// The first 16 bytes, in hex, of the SHA-256 of: rule, exchange and instrument name, each behind its length
/// (u64), then the time (i64) and count (u32) of the start; numbers are little-endian.
fn alert_id(rule: &str, exchange: &str, name: &str, start: AlertStart) -> Arc<str> {
    let mut hash = Sha256::new();
    for text in [rule, exchange, name] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.update(start.at.0.to_le_bytes());
    hash.update(start.nth.to_le_bytes());
    let mut hex = String::with_capacity(32);
    for byte in &hash.finalize()[..16] {
        write!(hex, "{byte:02x}").expect("a string takes any text");
    }
    hex.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    fn id(rule: &str, exchange: &str, name: &str, at: i64, nth: u32) -> String {
        alert_id(rule, exchange, name, AlertStart { at: Time(at), nth }).to_string()
    }

    /// The expected text was computed by another implementation of SHA-256.
    #[test]
    fn an_id_is_the_same_for_ever() {
        let found = id("wide_spread", "coinbase", "BTC-USD", 3 * SECOND, 1);
        assert_eq!(found, "43656b7abe139e7740dd0f0e0da5f5af");
    }

    #[test]
    fn an_id_keeps_its_parts_apart() {
        let alert = id("ab", "c", "d", 1, 1);
        for other in [id("a", "bc", "d", 1, 1), id("ab", "cd", "", 1, 1), id("ab", "c", "d", 1, 2)] {
            assert_ne!(alert, other);
        }
        assert_ne!(alert, id("ab", "c", "d", 2, 1));
    }
}
