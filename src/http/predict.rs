//! `POST /predict`: scores rows of features with the model in force.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{self, ErrorBody, HttpProblem, json};
use super::openapi::PredictionRequest;
use super::request_body;
use super::routes::App;
use super::rows;
use crate::status::wall_time;

/// The model's word on one row.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = Prediction)]
pub struct PredictionAnswer {
    /// 1 where the probability reaches the model's decision threshold: a spike.
    #[schema(minimum = 0, maximum = 1, example = 0)]
    pub prediction: u8,
    /// Of a volatility spike within the model's horizon.
    #[schema(minimum = 0, maximum = 1, example = 0.23147521650098238)]
    pub probability: f64,
}

/// The answer to one row.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "One prediction")]
pub struct One<'a> {
    #[serde(flatten)]
    pub prediction: PredictionAnswer,
    #[serde(flatten)]
    pub about: About<'a>,
}

/// The answer to a list of rows.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "Predictions")]
pub struct Many<'a> {
    /// In the order of the rows.
    pub predictions: Vec<PredictionAnswer>,
    #[serde(flatten)]
    pub about: About<'a>,
}

/// What all predictions of an answer share.
#[derive(Debug, Serialize, ToSchema)]
pub struct About<'a> {
    #[schema(example = "reference-logistic")]
    pub model_name: &'a str,
    #[schema(example = "1")]
    pub model_version: &'a str,
    /// When the answer was given (RFC 3339, UTC).
    #[schema(example = "2026-03-02T09:00:00.040000Z")]
    pub timestamp: String,
    /// Names in the request that are no feature: the first 20. Left out where there are none.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    #[schema(required = false, example = json!(["retstd"]))]
    pub unknown_features: &'a [String],
    /// Features in the request that the model doesn't use. Left out where there are none.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    #[schema(required = false, example = json!(["ret_mean", "n"]))]
    pub unused_features: &'a [String],
}

/// The answer to a request for predictions.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Predictions<'a> {
    One(One<'a>),
    Many(Many<'a>),
}

/// Scores rows with the model in force, exactly as a running job scores its ticks. A feature that is left out is
/// null, and the model says what stands in for a null. `volatility` is another name of `ret_std`. Features that the
/// model doesn't use are passed over and listed. `instances` may stand for `rows`, as KServe's clients send them
/// (protocol v1). The body is read as JSON whatever its content type says.
#[utoipa::path(
    post, path = "/predict", tag = "predictions",
    request_body(
        content = inline(PredictionRequest), description = "One row, or a list of rows",
        examples(
            ("one row" = (value = json!({"ret_std": 0.001, "return_5s": -0.0004, "order_book_imbalance": null}))),
            ("several rows" = (value = json!({"rows": [{"ret_std": 0.001, "n": 40}, {"ret_std": 0.004, "n": 40}]}))),
            ("several rows, as KServe's clients send them" = (value = json!({"instances": [{"ret_std": 0.001}, {"ret_std": 0.004}]})))
        )
    ),
    responses(
        (status = 200, description = "The model's word on each row", body = Predictions),
        (status = 400, description = "A row that can't be read, of which no name is a feature, or that the model refuses", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time (`http.timeout`)", body = ErrorBody,
            example = json!({"error": "the body did not arrive within 10s (http.timeout)"})),
        (status = 413, description = "The body is too large (`http.max_body_bytes`)", body = ErrorBody,
            example = json!({"error": "the body is too large, expected at most 1048576 bytes (http.max_body_bytes)"})),
        (status = 503, description = "No model is loaded", body = ErrorBody,
            example = json!({"error": "no model is loaded"})),
    )
)]
pub async fn predict(State(app): State<Arc<App>>, body: Body) -> Result<Response, HttpProblem> {
    // Read even where it can't be answered: the connection stays good for the next request.
    let body = request_body::read(body, app.settings.max_body_bytes, app.settings.timeout).await?;
    let scorer = app.scorers.of(&app.job_status).ok_or_else(HttpProblem::no_model)?;
    let read = rows::read(&body, &scorer, app.settings.max_rows)?;
    let model = &scorer.serving.model;
    let about = About {
        model_name: &model.name,
        model_version: &model.version,
        timestamp: answer::text(wall_time()),
        unknown_features: &read.unknown,
        unused_features: &read.unused,
    };
    let predictions: Vec<PredictionAnswer> = read
        .predictions
        .iter()
        .map(|(probability, spike)| PredictionAnswer {
            prediction: u8::from(*spike),
            probability: *probability,
        })
        .collect();
    let answer = match predictions[..] {
        [prediction] if read.list.is_none() => Predictions::One(One { prediction, about }),
        _ => Predictions::Many(Many { predictions, about }),
    };
    Ok(json(StatusCode::OK, &answer))
}
