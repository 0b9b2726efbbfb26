//! Scores every tick with the model in force (docs/definitions.md, "Scoring").

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::change::{Effect, InForce};
use crate::model::{FeatureRef, Model, ModelKind, NullPolicy, Term, Transform, TreeFeature};
use crate::operator::{Collector, Instrument, Mismatch, Operator, same_settings};
use crate::parameters::Parameters;
use crate::stages::{Features, Prediction, Sampled, Scored};
use crate::trees::Slots;

/// Puts the model's prediction beside each tick; a tick that the model can't score is counted as refused.
///
/// The model is the one in force; the state says only which one that was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    name: Arc<str>,
    version: Arc<str>,
    sha256: Arc<str>,
}

impl Operator for Score {
    const NAME: &'static str = "score";
    type Input = Sampled;
    type Output = Scored;

    fn new(parameters: &Parameters, _: &Instrument) -> Self {
        Score::by(&parameters.model)
    }

    fn on_input(&mut self, input: Sampled, out: &mut impl Collector<Scored>) {
        match input {
            Sampled::Gap(gap) => out.push(Scored::Gap(gap)),
            Sampled::Sample(sample) => out.push(Scored::Sample(sample)),
            Sampled::Tick(features) => {
                let InForce { parameters, since, .. } = out.in_force();
                let prediction = Prediction { model: since.model, ..predict(&parameters.model, &features) };
                match prediction.spike {
                    Some(_) => out.counts().predictions += 1,
                    None => out.counts().refused += 1,
                }
                out.push(Scored::Tick(features, prediction));
            }
        }
    }

    fn on_change(&mut self, effect: &Effect, _: &mut impl Collector<Scored>) {
        *self = Score::by(&effect.now.model);
    }

    fn resume(&mut self, parameters: &Parameters, _: &Instrument) -> Result<(), Mismatch> {
        same_settings(self, &Score::by(&parameters.model))
    }
}

impl Score {
    fn by(model: &Model) -> Score {
        let Model { name, version, sha256, .. } = model;
        Score { name: name.clone(), version: version.clone(), sha256: sha256.clone() }
    }
}

/// The model's word on one tick.
pub fn predict(model: &Model, features: &Features) -> Prediction {
    predict_by(model, |feature| feature.of(features))
}

/// The model's word on these values, NaN being null: [`Features`] always know `n`, other rows may not.
pub fn predict_by(model: &Model, value: impl Fn(FeatureRef) -> f64) -> Prediction {
    let probability = match &model.kind {
        ModelKind::Baseline { threshold, null } => {
            value_or_policy(value(FeatureRef::VolatilityZ), *null).map(|z| sigmoid(z - threshold))
        }
        ModelKind::Logistic { intercept, terms } => {
            let add = |sum, term: &Term| Some(sum + weigh(term, value(term.feature))?);
            terms.iter().try_fold(*intercept, add).map(sigmoid)
        }
        ModelKind::Trees { features, trees } => {
            slots(features, value).map(|slots| f64::from(trees.probability(&slots)))
        }
    };
    match probability.filter(|probability| !probability.is_nan()) {
        Some(probability) => {
            Prediction { probability, spike: Some(probability >= model.decision_threshold), model: 0 }
        }
        None => Prediction { probability: f64::NAN, spike: None, model: 0 },
    }
}

/// What one term adds; `None` where the model refuses the value.
fn weigh(term: &Term, value: f64) -> Option<f64> {
    let value = value_or_policy(value, term.null)?;
    let value = match term.transform {
        Transform::None => value,
        Transform::Abs => value.abs(),
        Transform::Square => value * value,
        Transform::Log if value > 0.0 => libm::log(value),
        Transform::Log => return None,
    };
    let value = match term.standardise {
        Some((mean, scale)) => (value - mean) / scale,
        None => value,
    };
    Some(term.weight * value)
}

/// The row as trees look at it; `None` where the model refuses a value.
fn slots(features: &[TreeFeature], value: impl Fn(FeatureRef) -> f64) -> Option<Slots> {
    let mut is_refused = false;
    let row = Slots::new(features.iter().map(|TreeFeature { feature, null }| {
        let value = value(*feature);
        let taken = null.map_or(Some(value), |null| value_or_policy(value, null));
        is_refused |= taken.is_none();
        taken.unwrap_or(f64::NAN) as f32
    }));
    (!is_refused).then_some(row)
}

fn value_or_policy(value: f64, null: NullPolicy) -> Option<f64> {
    match null {
        _ if !value.is_nan() => Some(value),
        NullPolicy::Value(value) => Some(value),
        NullPolicy::Refuse => None,
    }
}

/// 1 / (1 + e^-x).
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}
