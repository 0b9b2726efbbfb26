//! Reads a request's body whole, within bounds of size and time.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use tokio::time::timeout;

use super::answer::HttpProblem;

/// How much of a body that is too large is still taken, and forgotten: many clients send all before they read,
/// and would see a broken connection instead of the answer.
const DRAINED_BYTES: usize = 8 << 20;

/// The whole body.
pub async fn read(body: Body, max_bytes: usize, longest: Duration) -> Result<Vec<u8>, HttpProblem> {
    match timeout(longest, collect(body, max_bytes)).await {
        Ok(read) => read,
        Err(_) => Err(HttpProblem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {longest:?} (http.timeout)"),
        )),
    }
}

async fn collect(mut body: Body, max_bytes: usize) -> Result<Vec<u8>, HttpProblem> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let most = max_bytes.saturating_add(DRAINED_BYTES);
    if announced > most {
        return Err(too_large(max_bytes));
    }
    let mut bytes = Vec::with_capacity(announced.min(max_bytes));
    let mut seen = 0;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| {
            HttpProblem::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len();
        if seen <= max_bytes {
            bytes.extend_from_slice(&data);
        } else if seen > most {
            break;
        }
    }
    if seen > max_bytes { Err(too_large(max_bytes)) } else { Ok(bytes) }
}

fn too_large(max_bytes: usize) -> HttpProblem {
    let error = format!("the body is too large, expected at most {max_bytes} bytes (http.max_body_bytes)");
    HttpProblem::new(StatusCode::PAYLOAD_TOO_LARGE, error)
}
