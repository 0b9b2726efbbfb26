//! Scores every tick with the model in force (docs/definitions.md, "Scoring").

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::change::{Effect, InForce};
use crate::feature::Feature;
use crate::model::Model;
use crate::operator::{Collector, Instrument, Mismatch, Operator, same_settings};
use crate::parameters::Parameters;
use crate::stages::{Features, Prediction, Sampled, Scored};

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
    predict_by(model, |feature| feature.get(features))
}

/// The model's word on these values, NaN being null: [`Features`] always know `n`, other rows may not.
pub fn predict_by(model: &Model, value: impl Fn(Feature) -> f64) -> Prediction {
    match model.score(value) {
        Ok((probability, spike)) => Prediction { probability, spike: Some(spike), model: 0 },
        Err(_) => Prediction { probability: f64::NAN, spike: None, model: 0 },
    }
}
