//! Answers: JSON, errors included.

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use foreshock_operators::time::{Time, write_rfc3339};
use serde::Serialize;
use utoipa::ToSchema;

/// Why a request was not served.
#[derive(Debug)]
pub struct HttpProblem {
    pub status: StatusCode,
    pub body: ErrorBody,
}

/// An error, as it is told.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    /// What was found and what was expected.
    #[schema(example = "rows[1].ret_std: invalid type: string \"high\", expected a finite number or null")]
    pub error: String,
    /// The feature, or other part of the body, that the error is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "ret_std")]
    pub field: Option<String>,
    /// The row that the error is about, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 1)]
    pub row: Option<usize>,
}

impl HttpProblem {
    /// A problem that no field is to blame for.
    pub fn new(status: StatusCode, error: impl Into<String>) -> HttpProblem {
        HttpProblem { status, body: ErrorBody { error: error.into(), field: None, row: None } }
    }

    /// There is no model yet.
    pub fn no_model() -> HttpProblem {
        HttpProblem::new(StatusCode::SERVICE_UNAVAILABLE, "no model is loaded")
    }
}

impl IntoResponse for HttpProblem {
    fn into_response(self) -> Response {
        json(self.status, &self.body)
    }
}

/// An answer in JSON.
pub fn json(status: StatusCode, content: &impl Serialize) -> Response {
    match serde_json::to_vec(content) {
        Ok(bytes) => bytes_of("application/json", status, bytes),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// An answer that is there as bytes.
pub fn bytes_of(kind: &'static str, status: StatusCode, bytes: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(bytes.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A moment as RFC 3339 text, to the microsecond.
pub fn text(time: Time) -> String {
    let mut bytes = Vec::with_capacity(27);
    write_rfc3339(time, 6, &mut bytes);
    String::from_utf8(bytes).unwrap_or_default()
}
