//! `GET /`: what this is and where things are.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ACCEPT, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{bytes_of, json};
use super::routes::App;

const WHAT: &str = "Real-time market surveillance and volatility prediction.";

/// What this is and where things are.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Index {
    #[schema(example = "foreshock")]
    name: &'static str,
    #[schema(example = "0.1.0")]
    version: &'static str,
    description: &'static str,
    /// What is where, by path.
    #[schema(example = json!({"/health": "whether the job serves"}))]
    endpoints: BTreeMap<&'static str, &'static str>,
}

impl Index {
    /// Of these paths and what is there.
    pub fn new(endpoints: impl Iterator<Item = (&'static str, &'static str)>) -> Index {
        let version = env!("CARGO_PKG_VERSION");
        Index { name: "foreshock", version, description: WHAT, endpoints: endpoints.collect() }
    }

    fn html(&self) -> String {
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>foreshock</title></head>\n\
             <body>\n<h1>foreshock {}</h1>\n<p>{}</p>\n<ul>\n",
            self.version, self.description
        );
        for (path, what) in &self.endpoints {
            // Paths and texts are ours: there is nothing in them to escape.
            let _ = match *path {
                "/predict" => writeln!(page, "<li><code>{path}</code>: {what}</li>"),
                _ => writeln!(page, "<li><a href=\"{path}\"><code>{path}</code></a>: {what}</li>"),
            };
        }
        page.push_str("</ul>\n</body>\n</html>\n");
        page
    }
}

/// What this is and where things are: JSON, or a page where the client would rather have one.
#[utoipa::path(get, path = "/", tag = "about", responses(
    (status = 200, description = "The endpoints", content((Index = "application/json"), (String = "text/html"))),
))]
pub async fn root(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let mut response = if prefers_html(&headers) {
        bytes_of("text/html; charset=utf-8", StatusCode::OK, app.index.html())
    } else {
        json(StatusCode::OK, &app.index)
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// Whether a client would rather have HTML than JSON; JSON where it doesn't care.
fn prefers_html(headers: &HeaderMap) -> bool {
    let ranges = || {
        let lists = headers.get_all(ACCEPT).iter().filter_map(|list| list.to_str().ok());
        lists.flat_map(|list| list.split(',')).map(weight)
    };
    // The most specific range that fits decides.
    let of = |names: [&str; 3]| {
        let found =
            names.iter().find_map(|name| ranges().find(|(range, _)| range.eq_ignore_ascii_case(name)));
        found.map_or(0.0, |(_, weight)| weight)
    };
    of(["text/html", "text/*", "*/*"]) > of(["application/json", "application/*", "*/*"])
}

/// Reads `text/html;q=0.8`.
fn weight(range: &str) -> (&str, f64) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=")).and_then(|text| text.parse().ok());
    (name, weight.unwrap_or(1.0))
}
