//! Scores every tick with the model in force (docs/definitions.md, "Scoring").

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::change::{Change, ChangeAt, change_of, number_of};
use crate::model::{FeatureRef, Model, ModelKind, NullPolicy, Term, Transform, TreeFeature};
use crate::operator::{Instrument, Operator, Out, RestoreError, load, save};
use crate::stages::{Features, Prediction, Sampled, Scored};
use crate::trees::Slots;

/// Puts the model's prediction beside each tick; a tick that the model can't score is counted as refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    model: Arc<Model>,
    /// The change that it came from; `None`: the configuration.
    since: Option<Arc<Change>>,
}

/// What a snapshot keeps of the model: which one it was.
#[derive(Serialize, Deserialize, PartialEq)]
struct Identity {
    name: String,
    version: String,
    sha256: String,
}

impl Operator for Score {
    const NAME: &'static str = "score";
    type Settings = Arc<Model>;
    type Input = Sampled;
    type Output = Scored;

    fn new(model: &Arc<Model>, _: &Instrument) -> Self {
        Score { model: model.clone(), since: None }
    }

    fn on_input(&mut self, input: Sampled, out: &mut Out<Scored>) {
        match input {
            Sampled::Gap(gap) => out.give(Scored::Gap(gap)),
            Sampled::Sample(sample) => out.give(Scored::Sample(sample)),
            Sampled::Tick(features) => {
                let model = number_of(self.since.as_ref());
                let prediction = Prediction { model, ..predict(&self.model, &features) };
                match prediction.spike {
                    Some(_) => out.ledger.counts.predictions += 1,
                    None => out.ledger.counts.refused += 1,
                }
                out.give(Scored::Tick(features, prediction));
            }
        }
    }

    fn on_change(&mut self, placed: &ChangeAt, out: &mut Out<Scored>) {
        if let Some(model) = placed.change.model() {
            self.model = model.clone();
            self.since = Some(placed.change.clone());
        }
        out.pass(placed);
    }

    fn snapshot(&self, bytes: &mut Vec<u8>) {
        save(&(Identity::of(&self.model), number_of(self.since.as_ref())), bytes);
    }

    fn restore(
        model: &Arc<Model>,
        changes: &[Arc<Change>],
        _: &Instrument,
        bytes: &[u8],
    ) -> Result<Self, RestoreError> {
        let (saved, since): (Identity, u32) = load(Self::NAME, bytes)?;
        let since = change_of(Self::NAME, changes, since)?;
        let model = since.as_ref().and_then(|change| change.model()).unwrap_or(model).clone();
        if saved != Identity::of(&model) {
            return Err(RestoreError::OtherSettings { operator: Self::NAME });
        }
        Ok(Score { model, since })
    }
}

impl Identity {
    fn of(model: &Model) -> Identity {
        Identity {
            name: model.name.to_string(),
            version: model.version.to_string(),
            sha256: model.sha256.to_string(),
        }
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
