//! `GET /model/info`: the model in force, as its file says it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use foreshock_operators::model::{FeatureUse, ForestSize, Model, ModelShape, NullPolicy};
use foreshock_operators::time::{Nanos, SECOND};
use serde::Serialize;
use utoipa::ToSchema;

use crate::status::Serving;

use super::answer::{self, ErrorBody, HttpProblem, json};
use super::routes::App;

/// The model in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelInfo {
    #[schema(example = "reference-logistic")]
    name: String,
    #[schema(example = "1")]
    version: String,
    /// `logistic`, `trees` or `baseline`.
    #[schema(example = "logistic")]
    kind: &'static str,
    /// `ml` or `baseline`.
    #[schema(example = "ml")]
    variant: &'static str,
    /// In the order in which they are added, or in which trees count them.
    features: Vec<ModelFeature>,
    /// Where the sum of a logistic model starts. Left out for other kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = -2.0)]
    intercept: Option<f64>,
    /// The z-score at which a baseline's probability is one half. Left out for other kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    threshold: Option<f64>,
    /// What a model of trees consists of. Left out for other kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    trees: Option<TreesShown>,
    /// From this probability on the prediction is 1.
    #[schema(example = 0.5)]
    decision_threshold: f64,
    /// How far ahead the model looks.
    #[schema(example = 60.0)]
    horizon_s: Seconds,
    /// Of the model's file, in hex; of trees: of the model's file and that of the trees, one behind the other.
    #[schema(example = "6993f6445dfb71e8866d9519041bdb4fc76bbddea776d2d83d0323fc476e4bb2")]
    sha256: String,
    #[schema(example = "2026-03-02T08:59:00.000000Z")]
    loaded_at: String,
}

/// A feature of the model. A feature may come twice, with different transforms.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelFeature {
    #[schema(example = "ret_std")]
    name: String,
    /// What stands in for a null: a number, or `refuse`, for no prediction; `missing`: trees send it the way that
    /// they learnt.
    null: NullShown,
    /// What is done to the value first: `none`, `abs`, `log` or `square`.
    #[schema(example = "none")]
    transform: &'static str,
    /// Subtracted from the transformed value. Left out where the feature isn't standardised, as is `scale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    mean: Option<f64>,
    /// What the difference is divided by.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    scale: Option<f64>,
    /// Left out where the model has no weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 800.0)]
    weight: Option<f64>,
}

/// The size of a model of trees.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Trees)]
struct TreesShown {
    #[schema(example = 100)]
    count: usize,
    /// Of all trees together, leaves included.
    #[schema(example = 12700)]
    nodes: usize,
    /// The most splits from a root to a leaf.
    #[schema(example = 6)]
    depth: usize,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = NullPolicy)]
enum NullShown {
    Value(f64),
    Word(&'static str),
}

/// Whole seconds without a fraction, as in the predictions of a job.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Seconds {
    Whole(i64),
    Fraction(f64),
}

impl From<Nanos> for Seconds {
    fn from(length: Nanos) -> Seconds {
        match length % SECOND {
            0 => Seconds::Whole(length / SECOND),
            _ => Seconds::Fraction(length as f64 / SECOND as f64),
        }
    }
}

impl From<NullPolicy> for NullShown {
    fn from(policy: NullPolicy) -> NullShown {
        match policy {
            NullPolicy::Value(value) => NullShown::Value(value),
            NullPolicy::Refuse => NullShown::Word("refuse"),
        }
    }
}

impl ModelInfo {
    fn of(serving: &Serving) -> ModelInfo {
        let model: &Model = &serving.model;
        let horizons = &serving.features.horizons;
        let ModelShape { features, intercept, threshold, trees } = model.describe();
        ModelInfo {
            name: model.name.to_string(),
            version: model.version.to_string(),
            kind: model.kind.name(),
            variant: model.variant(),
            features: features.iter().map(|taken| ModelFeature::of(taken, horizons)).collect(),
            intercept,
            threshold,
            trees: trees.map(|ForestSize { count, nodes, depth }| TreesShown { count, nodes, depth }),
            decision_threshold: model.decision_threshold,
            horizon_s: model.horizon.into(),
            sha256: model.sha256.to_string(),
            loaded_at: answer::text(serving.loaded_at),
        }
    }
}

impl ModelFeature {
    fn of(taken: &FeatureUse, horizons: &[Nanos]) -> ModelFeature {
        ModelFeature {
            name: taken.feature.name(horizons).into_owned(),
            null: taken.null.map_or(NullShown::Word("missing"), NullShown::from),
            transform: taken.transform.name(),
            mean: taken.standardise.map(|(mean, _)| mean),
            scale: taken.standardise.map(|(_, scale)| scale),
            weight: taken.weight,
        }
    }
}

/// The model in force, as its file says it.
#[utoipa::path(get, path = "/model/info", tag = "predictions", responses(
    (status = 200, description = "The model", body = ModelInfo),
    (status = 503, description = "No model is loaded", body = ErrorBody,
        example = json!({"error": "no model is loaded"})),
))]
pub async fn model_info(State(app): State<Arc<App>>) -> Result<Response, HttpProblem> {
    let serving = app.job_status.serving().ok_or_else(HttpProblem::no_model)?;
    Ok(json(StatusCode::OK, &ModelInfo::of(&serving)))
}
