//! Scores rows that come over HTTP with the model in force, as the dataflow scores its ticks.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use foreshock_operators::feature::Feature;
use foreshock_operators::model::Refusal;

use crate::status::{JobStatus, Serving};

/// A model together with the names of the features it may be given.
#[derive(Debug)]
pub struct Scorer {
    pub serving: Arc<Serving>,
    names: Vec<(String, Feature)>,
    /// The numbers of names whose feature the model looks at, as bits.
    used: u64,
}

/// Remembers the scorer of the model in force, so that names are worked out once a model, not once a request.
#[derive(Debug, Default)]
pub struct Scorers(ArcSwapOption<Scorer>);

/// The features of one row; what was not given is null.
#[derive(Clone, Debug)]
pub struct PostedRow {
    /// By [`Feature::slot`]; NaN is null.
    values: [f64; Feature::COUNT],
}

/// Why a row has no prediction.
#[derive(Debug)]
pub struct ScoreRefusal {
    /// The feature to blame; `None` where it is all of them together.
    pub field: Option<String>,
    pub why: String,
}

impl Default for PostedRow {
    /// A row of nulls.
    fn default() -> PostedRow {
        PostedRow { values: [f64::NAN; Feature::COUNT] }
    }
}

impl PostedRow {
    /// The value of a feature; NaN is null.
    pub fn get(&self, feature: Feature) -> f64 {
        self.values[feature.slot()]
    }

    /// Gives a feature its value; NaN is null.
    pub fn set(&mut self, feature: Feature, value: f64) {
        self.values[feature.slot()] = value;
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
        let named = |name: String| Feature::named(&name, horizons).map(|feature| (name, feature));
        let names: Vec<(String, Feature)> = Feature::names(horizons).into_iter().filter_map(named).collect();
        let used = serving.model.describe().features;
        let is_used = |feature: Feature| used.iter().any(|one| one.feature == feature);
        let bit = |(at, (_, feature)): (usize, &(String, Feature))| u64::from(is_used(*feature)) << at;
        let used = names.iter().enumerate().map(bit).sum();
        Scorer { serving, names, used }
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| name.as_str())
    }

    /// Those of these names, as bits by their numbers, whose feature the model doesn't look at.
    pub fn unused(&self, names: u64) -> Vec<String> {
        let is_unused = |at: usize| names & !self.used & (1 << at) != 0;
        self.names
            .iter()
            .enumerate()
            .filter(|(at, _)| is_unused(*at))
            .map(|(_, (name, _))| name.clone())
            .collect()
    }

    /// The number of this name and the feature it stands for; two names may stand for one feature.
    pub fn feature(&self, name: &str) -> Option<(usize, Feature)> {
        let at = self.names.iter().position(|(known, _)| known == name)?;
        Some((at, self.names[at].1))
    }

    /// The name with this number.
    pub fn name(&self, at: usize) -> &str {
        &self.names[at].0
    }

    /// The numbers of all names of a feature, as bits.
    pub fn names_of(&self, feature: Feature) -> u64 {
        let is_its = |(at, (_, other)): (usize, &(String, Feature))| u64::from(*other == feature) << at;
        self.names.iter().enumerate().map(is_its).sum()
    }

    /// The probability of a spike, and whether it reaches the decision threshold.
    pub fn score(&self, row: &PostedRow) -> Result<(f64, bool), ScoreRefusal> {
        self.serving.model.score(|feature| row.get(feature)).map_err(|refusal| self.refused(refusal))
    }

    fn refused(&self, refusal: Refusal) -> ScoreRefusal {
        let model = &self.serving.model.name;
        let (feature, why) = match refusal {
            Refusal::Null(feature) => {
                let why = format!("missing or null, expected a finite number: the model {model} needs it");
                (Some(feature), why)
            }
            Refusal::NotPositive(feature, value) => {
                let expected = format!("expected a number above 0: the model {model} takes its logarithm");
                (Some(feature), format!("found {value}, {expected}"))
            }
            Refusal::NotANumber => {
                (None, "the values are so large that the model's sum is no number".to_owned())
            }
        };
        let name = |feature: Feature| feature.name(&self.serving.features.horizons).into_owned();
        ScoreRefusal { field: feature.map(name), why }
    }
}
