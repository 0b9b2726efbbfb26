//! Scores rows that come over HTTP with the model in force, as the dataflow scores its ticks.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use foreshock_operators::model::{FeatureRef, Model, ModelKind, NullPolicy, Transform, TreeFeature};
use foreshock_operators::score::predict_by;
use foreshock_operators::stages::MAX_HORIZONS;

use crate::models;
use crate::status::{JobStatus, Serving};

/// A model together with the names of the features it may be given.
#[derive(Debug)]
pub struct Scorer {
    pub serving: Arc<Serving>,
    names: Vec<(String, FeatureRef)>,
}

/// Remembers the scorer of the model in force, so that names are worked out once a model, not once a request.
#[derive(Debug, Default)]
pub struct Scorers(ArcSwapOption<Scorer>);

/// The features of one row; what was not given is null.
#[derive(Clone, Debug)]
pub struct PostedRow {
    /// By [`slot`]; NaN is null.
    values: [f64; SLOTS],
}

/// Why a row has no prediction.
#[derive(Debug)]
pub struct ScoreRefusal {
    /// The feature to blame; `None` where it is all of them together.
    pub field: Option<String>,
    pub why: String,
}

/// Features other than returns.
const FIXED: usize = 12;
const SLOTS: usize = FIXED + MAX_HORIZONS;

fn slot(feature: FeatureRef) -> usize {
    match feature {
        FeatureRef::Price => 0,
        FeatureRef::Midprice => 1,
        FeatureRef::SpreadAbs => 2,
        FeatureRef::SpreadRel => 3,
        FeatureRef::SpreadBps => 4,
        FeatureRef::OrderBookImbalance => 5,
        FeatureRef::N => 6,
        FeatureRef::RetMean => 7,
        FeatureRef::RetStd => 8,
        FeatureRef::TradeIntensity => 9,
        FeatureRef::VolatilityZ => 10,
        FeatureRef::SpreadZ => 11,
        FeatureRef::Return(horizon) => FIXED + usize::from(horizon),
    }
}

impl Default for PostedRow {
    /// A row of nulls.
    fn default() -> PostedRow {
        PostedRow { values: [f64::NAN; SLOTS] }
    }
}

impl PostedRow {
    /// The value of a feature; NaN is null.
    pub fn get(&self, feature: FeatureRef) -> f64 {
        self.values[slot(feature)]
    }

    /// Gives a feature its value; NaN is null.
    pub fn set(&mut self, feature: FeatureRef, value: f64) {
        self.values[slot(feature)] = value;
    }
}

impl Scorers {
    /// The scorer of the model in force, if there is one.
    pub fn of(&self, job_status: &JobStatus) -> Option<Arc<Scorer>> {
        let serving = job_status.serving()?;
        let known = self.0.load_full().filter(|scorer| Arc::ptr_eq(&scorer.serving, &serving));
        Some(known.unwrap_or_else(|| {
            let scorer = Arc::new(Scorer::new(serving));
            self.0.store(Some(scorer.clone()));
            scorer
        }))
    }
}

impl Scorer {
    fn new(serving: Arc<Serving>) -> Scorer {
        let horizons = &serving.features.horizons;
        let named = |name: String| FeatureRef::named(&name, horizons).map(|feature| (name, feature));
        let names = models::feature_names(horizons).into_iter().filter_map(named).collect();
        Scorer { serving, names }
    }

    /// The number of this name and the feature it stands for; two names may stand for one feature.
    pub fn feature(&self, name: &str) -> Option<(usize, FeatureRef)> {
        let at = self.names.iter().position(|(known, _)| known == name)?;
        Some((at, self.names[at].1))
    }

    /// The name with this number.
    pub fn name(&self, at: usize) -> &str {
        &self.names[at].0
    }

    /// The numbers of all names of a feature, as bits.
    pub fn names_of(&self, feature: FeatureRef) -> u64 {
        let is_its = |(at, (_, other)): (usize, &(String, FeatureRef))| u64::from(*other == feature) << at;
        self.names.iter().enumerate().map(is_its).sum()
    }

    /// The probability of a spike, and whether it reaches the decision threshold.
    pub fn score(&self, row: &PostedRow) -> Result<(f64, bool), ScoreRefusal> {
        let prediction = predict_by(&self.serving.model, |feature| row.get(feature));
        match prediction.spike {
            Some(spike) => Ok((prediction.probability, spike)),
            None => Err(self.refused(row)),
        }
    }

    fn refused(&self, row: &PostedRow) -> ScoreRefusal {
        let Model { kind, name: model, .. } = &*self.serving.model;
        let because = |feature: FeatureRef, why: String| ScoreRefusal {
            field: Some(models::feature_name(feature, &self.serving.features.horizons)),
            why,
        };
        let needed = || format!("missing or null, expected a finite number: the model {model} needs it");
        let terms = match kind {
            ModelKind::Baseline { null: NullPolicy::Refuse, .. }
                if row.get(FeatureRef::VolatilityZ).is_nan() =>
            {
                return because(FeatureRef::VolatilityZ, needed());
            }
            ModelKind::Baseline { .. } => [].as_slice(),
            ModelKind::Logistic { terms, .. } => terms,
            ModelKind::Trees { features, .. } => {
                let is_refused = |one: &&TreeFeature| {
                    one.null == Some(NullPolicy::Refuse) && row.get(one.feature).is_nan()
                };
                if let Some(one) = features.iter().find(is_refused) {
                    return because(one.feature, needed());
                }
                &[]
            }
        };
        for term in terms {
            let value = row.get(term.feature);
            if value.is_nan() && term.null == NullPolicy::Refuse {
                return because(term.feature, needed());
            }
            if value <= 0.0 && term.transform == Transform::Log {
                let expected = format!("expected a number above 0: the model {model} takes its logarithm");
                return because(term.feature, format!("found {value}, {expected}"));
            }
        }
        let why = "the values are so large that the model's sum is no number".to_owned();
        ScoreRefusal { field: None, why }
    }
}
