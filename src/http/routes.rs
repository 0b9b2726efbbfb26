//! Which handler answers which path, and what all handlers share.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};

use crate::config;
use crate::metrics::{Metrics, TurnedAway};
use crate::status::JobStatus;

use super::answer::HttpProblem;
use super::graph::GraphHistory;
use super::overflow::{self, PROBES, refusal};
use super::root::Index;
use super::scorer::Scorers;
use super::traffic::{Traffic, count};
use super::{docs, graph, job, model_info, openapi, predict, root};

/// What all handlers share.
#[derive(Debug)]
pub struct App {
    pub settings: config::Http,
    pub job_status: Arc<JobStatus>,
    pub metrics: Metrics,
    pub traffic: Traffic,
    pub scorers: Scorers,
    pub graph: GraphHistory,
    pub started: Instant,
    pub index: Index,
    pub openapi: Bytes,
}

impl App {
    /// Nothing served yet.
    pub fn new(settings: &config::Http, job_status: Arc<JobStatus>, metrics: Metrics) -> App {
        let paths = || routes().into_iter().map(|(path, what, _)| (path, what));
        App {
            settings: settings.clone(),
            job_status,
            metrics,
            traffic: Traffic::new(paths().map(|(path, _)| path)),
            scorers: Scorers::default(),
            graph: GraphHistory::default(),
            started: Instant::now(),
            index: Index::new(paths().filter(|(_, what)| !what.is_empty())),
            openapi: openapi::document().into(),
        }
    }
}

/// Paths, what `/` says is there (nothing of parts of a page), and who answers. Where GET works, HEAD does too.
fn routes() -> [(&'static str, &'static str, MethodRouter<Arc<App>>); 12] {
    [
        ("/", "what is where", get(root::root)),
        ("/health", "whether the job serves", get(job::health)),
        ("/ready", "whether the job has caught up with its input", get(job::ready)),
        ("/version", "versions of the endpoints, the model and the program", get(job::version)),
        ("/metrics", "metrics for Prometheus", get(job::metrics)),
        ("/stats", "requests, messages and rows by fate, lag by shard", get(job::stats)),
        ("/graph", "the running graph: each step's rows, share of time and backlog", get(graph::graph)),
        ("/model/info", "the model in force", get(model_info::model_info)),
        ("/predict", "POST rows of features to have them scored", post(predict::predict)),
        ("/openapi.json", "a description of all endpoints for programs", get(openapi::openapi)),
        ("/docs", "a page to read about the endpoints and to try them", get(docs::page)),
        ("/docs/{file}", "", get(docs::file)),
    ]
}

/// Who answers requests.
pub struct Routers {
    /// Whatever is asked.
    pub all: Router,
    /// Probes, and everything else with 503: for connections beyond the limit.
    pub probes: Router,
}

/// Answers every request, and counts it.
pub fn routers(app: App) -> Routers {
    let app = Arc::new(app);
    let all =
        routes().into_iter().fold(Router::new(), |router, (path, _, method)| router.route(path, method));
    let probes = routes().into_iter().fold(Router::new(), |router, (path, _, method)| {
        router.route(path, if PROBES.contains(&path) { method } else { any(no_place) })
    });
    let counted = |router: Router<Arc<App>>| {
        router
            .method_not_allowed_fallback(no_method)
            .layer(from_fn_with_state(app.clone(), count))
            .with_state(app.clone())
    };
    Routers { all: counted(all.fallback(no_path)), probes: counted(probes.fallback(no_place)) }
}

async fn no_place(State(app): State<Arc<App>>) -> Response {
    app.metrics.http.turn_away(TurnedAway::NoProbe);
    let mut response = refusal(TurnedAway::NoProbe, app.settings.max_connections).into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(overflow::RETRY_AFTER));
    response
}

async fn no_path(uri: Uri) -> HttpProblem {
    let path: String = uri.path().chars().take(200).collect();
    // What other servers of models answer at.
    let is_prediction = ["predict", "infer", "invocations"].iter().any(|word| path.contains(word));
    let hint = if is_prediction { "; rows are scored at POST /predict" } else { "" };
    HttpProblem::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {path}{hint}; / lists what is where"),
    )
}

async fn no_method(method: Method, uri: Uri) -> HttpProblem {
    let method: String = method.as_str().chars().take(20).collect();
    let path = uri.path();
    HttpProblem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} does not work at {path}"))
}
