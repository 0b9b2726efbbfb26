//! `GET /openapi.json`: a description of all endpoints for programs, made from the handlers themselves.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use foreshock_operators::feature::Feature;
use serde_json::json;
use utoipa::openapi::schema::{AdditionalProperties, AnyOfBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{OpenApi, PartialSchema, ToSchema};

use super::answer::{ErrorBody, bytes_of};
use super::routes::App;
use super::{docs, graph, job, model_info, predict, root};

#[derive(OpenApi)]
#[openapi(
    info(title = "foreshock", description = "Real-time market surveillance and volatility prediction."),
    paths(
        root::root,
        job::health,
        job::ready,
        job::version,
        job::metrics,
        job::stats,
        graph::graph,
        model_info::model_info,
        predict::predict,
        openapi,
        docs::page,
        docs::file
    ),
    components(schemas(FeatureRow, ManyRows, Instances, ErrorBody)),
    tags(
        (name = "predictions", description = "The model and its word on rows of features"),
        (name = "job", description = "What the job says of itself"),
        (name = "about", description = "What is where"),
    )
)]
struct Description;

/// The body of a request for predictions.
pub struct PredictionRequest;

impl ToSchema for PredictionRequest {}

impl PartialSchema for PredictionRequest {
    // Not one of them alone: `rows` would be a fine name for what is no feature.
    fn schema() -> RefOr<Schema> {
        let either = AnyOfBuilder::new().item(Ref::from_schema_name(FeatureRow::name()));
        let either = either.item(Ref::from_schema_name(ManyRows::name()));
        either.item(Ref::from_schema_name(Instances::name())).into()
    }
}

/// Several rows.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it only stands in the description")]
pub struct ManyRows {
    /// At least one, at most `http.max_rows`.
    #[schema(min_items = 1)]
    rows: Vec<FeatureRow>,
}

/// Several rows, as KServe's clients send them (protocol v1).
#[derive(ToSchema)]
#[allow(dead_code, reason = "it only stands in the description")]
pub struct Instances {
    /// At least one, at most `http.max_rows`.
    #[schema(min_items = 1)]
    instances: Vec<FeatureRow>,
}

/// The features of one row; each may be left out, which is null. Their names are known to the program alone, so
/// that they can't differ from those it reads.
pub struct FeatureRow;

impl ToSchema for FeatureRow {
    fn name() -> std::borrow::Cow<'static, str> {
        "Features".into()
    }
}

impl PartialSchema for FeatureRow {
    fn schema() -> RefOr<Schema> {
        let number = || ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Number, Type::Null]));
        let description = "The features of one row; each may be left out, which is null. There is also \
            return_1s, return_5s and so on: one for each of features.return_horizons. volatility is another name \
            of ret_std. Other names are listed in the answer as unknown_features; a row with none but others is refused.";
        let fixed = Feature::names(&[]).into_iter();
        let object = fixed.fold(ObjectBuilder::new(), |object, name| match &*name {
            "n" => object.property(
                name,
                ObjectBuilder::new()
                    .schema_type(SchemaType::from_iter([Type::Integer, Type::Null]))
                    .minimum(Some(0)),
            ),
            _ => object.property(name, number()),
        });
        object
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .description(Some(description))
            .examples([json!({"ret_std": 0.001, "return_5s": -0.0004, "order_book_imbalance": null})])
            .into()
    }
}

/// The description of all endpoints, as the program is built.
pub fn document() -> Vec<u8> {
    serde_json::to_vec_pretty(&Description::openapi()).unwrap_or_default()
}

/// This description (OpenAPI 3.1).
#[utoipa::path(get, path = "/openapi.json", tag = "about", responses(
    (status = 200, description = "The description", body = Object),
))]
pub async fn openapi(State(app): State<Arc<App>>) -> Response {
    bytes_of("application/json", StatusCode::OK, app.openapi.clone())
}
