//! `GET /graph`: the running graph as a picture, with each step's rows, share of time and backlog, by worker.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State as Shared;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use super::answer::bytes_of;
use super::routes::App;
use crate::status::{State, StepState, WorkerState};

/// Rates are those of so long at the most.
const WINDOW: Duration = Duration::from_secs(60);
/// States are remembered no closer to each other: pages that many look at shall not forget faster.
const APART: Duration = Duration::from_secs(1);

/// What the picture is drawn with; no script, and nothing from another host.
const FROM_HERE_ONLY: &str = "default-src 'none'; style-src 'unsafe-inline'";

const STYLE: &str = "body{font:14px/1.4 system-ui,sans-serif;margin:1.5rem;color:#1a1a1a}h1{font-size:1.2rem;margin:0}\
h2{font-size:1rem;margin:1.4rem 0 .3rem}svg{max-width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:#1a1a1a}\
.n{font-weight:600}.s{fill:#555}.box{fill:#f4f4f2;stroke:#8a8a86}.part{fill:#e0a458}.way{stroke:#8a8a86;fill:none}\
@media(prefers-color-scheme:dark){body{background:#181818;color:#e6e6e6}text{fill:#e6e6e6}.s{fill:#aaa}\
.box{fill:#242424;stroke:#777}.part{fill:#9a6420}}";

/// States of the last minute, as far as somebody has looked.
#[derive(Debug, Default)]
pub struct GraphHistory(Mutex<VecDeque<(Instant, Arc<State>)>>);

impl GraphHistory {
    /// The oldest state of the last minute, where there is one to compare with; remembers this one.
    fn before(&self, now: Instant, state: &Arc<State>) -> Option<(Duration, Arc<State>)> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while seen.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            seen.pop_front();
        }
        if seen.back().is_none_or(|(at, _)| now.duration_since(*at) >= APART) {
            seen.push_back((now, state.clone()));
        }
        let (at, oldest) = seen.front()?;
        let length = now.duration_since(*at);
        (length >= APART).then(|| (length, oldest.clone()))
    }
}

/// The graph of this process: each worker's steps with their rows, their share of its time, and what waits behind them.
#[utoipa::path(get, path = "/graph", tag = "job", responses(
    (status = 200, description = "A page with the picture, which renews itself", body = String, content_type = "text/html"),
))]
pub async fn graph(Shared(app): Shared<Arc<App>>) -> Response {
    let state = app.job_status.state();
    let before = app.graph.before(Instant::now(), &state);
    let page = Page { state: &state, before: before.as_ref().map(|(length, state)| (*length, &**state)) };
    let mut response = bytes_of("text/html; charset=utf-8", StatusCode::OK, page.to_string());
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(FROM_HERE_ONLY));
    response
}

struct Page<'a> {
    state: &'a State,
    /// How long ago, and the state then; `None`: all is told since the job's start.
    before: Option<(Duration, &'a State)>,
}

impl Display for Page<'_> {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        out.write_str("<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>foreshock: graph</title>\n")?;
        write!(out, "<meta http-equiv=\"refresh\" content=\"5\">\n<style>{STYLE}</style></head>\n<body>\n")?;
        let phase = self.state.phase.name();
        let since = match self.before {
            Some((length, _)) => format!("rates of the last {} s", length.as_secs()),
            None => "totals since the start; rates from the second look on".to_owned(),
        };
        writeln!(out, "<h1>foreshock: the running graph</h1>\n<p>{phase}; {since}</p>")?;
        if self.state.workers.iter().all(|worker| worker.steps.is_empty()) {
            out.write_str("<p>No worker has built its graph yet.</p>\n")?;
        }
        for worker in &self.state.workers {
            self.worker(worker, out)?;
        }
        out.write_str("<p>A bar is the step's share of what the worker has worked. From gaps to rules rows and shares are told by \
            samples, one batch in 64.</p>\n</body>\n</html>\n")
    }
}

/// Width of a step and of the way to the next, and height, in pixels.
const STEP: usize = 118;
const WAY: usize = 18;
const HEIGHT: usize = 84;

impl Page<'_> {
    fn worker(&self, worker: &WorkerState, out: &mut Formatter) -> fmt::Result {
        let steps = self.steps(worker);
        let worked: u64 = steps.iter().map(|step| step.nanoseconds).sum();
        write!(out, "<h2>worker {}", worker.worker)?;
        if let Some((length, _)) = self.before {
            write!(out, ": busy {}", Percent(worked as f64 / length.as_nanos() as f64))?;
        }
        out.write_str("</h2>\n")?;
        let columns = steps.len() + 2;
        let width = columns * STEP + (columns - 1) * WAY + 2;
        writeln!(
            out,
            "<svg viewBox=\"0 0 {width} {}\" width=\"{width}\" role=\"img\" aria-label=\"steps of worker {}\">",
            HEIGHT + 2,
            worker.worker
        )?;
        let shards = self.state.shards.iter().filter(|shard| shard.worker == worker.worker);
        let (count, lag) = shards.fold((0, 0), |(count, lag), shard| (count + 1, lag + shard.lag()));
        let source = [format!("{} shards", Count(count)), format!("{} to read", Count(lag.unsigned_abs()))];
        column(out, 0, "source", &source, 0.0)?;
        for (at, step) in steps.iter().enumerate() {
            let share = step.nanoseconds as f64 / worked.max(1) as f64;
            let rows = match self.before {
                Some((length, _)) => {
                    format!("{} rows/s", Count((step.rows as f64 / length.as_secs_f64()).round() as u64))
                }
                None => format!("{} rows", Count(step.rows)),
            };
            let mut lines = vec![rows, format!("{} of its time", Percent(share))];
            if step.name == "order" && self.state.counts.buffered > 0 {
                lines
                    .push(format!("{} wait (all workers)", Count(self.state.counts.buffered.unsigned_abs())));
            }
            column(out, at + 1, step.name, &lines, share)?;
        }
        let sink = [
            format!("{} kB on the way", Count(worker.backlog_bytes.unsigned_abs().div_ceil(1000))),
            format!("{} batches", Count(worker.in_flight.unsigned_abs())),
        ];
        column(out, columns - 1, "sink", &sink, 0.0)?;
        out.write_str("</svg>\n")
    }

    /// What the worker's steps did in the time that is told of.
    fn steps(&self, worker: &WorkerState) -> Vec<StepState> {
        let then = self.before.and_then(|(_, state)| {
            state
                .workers
                .iter()
                .find(|then| then.worker == worker.worker && then.steps.len() == worker.steps.len())
        });
        let Some(then) = then else { return worker.steps.clone() };
        let less = |(now, then): (&StepState, &StepState)| StepState {
            // A job that has begun anew counts from 0.
            rows: now.rows.checked_sub(then.rows).unwrap_or(now.rows),
            nanoseconds: now.nanoseconds.checked_sub(then.nanoseconds).unwrap_or(now.nanoseconds),
            ..*now
        };
        worker.steps.iter().zip(&then.steps).map(less).collect()
    }
}

fn column(out: &mut impl Write, at: usize, name: &str, lines: &[String], share: f64) -> fmt::Result {
    let left = at * (STEP + WAY) + 1;
    if at > 0 {
        let (from, to, middle) = (left - WAY, left - 3, HEIGHT / 2);
        writeln!(out, "<path class=\"way\" d=\"M{from} {middle}H{to}m-5 -4l5 4l-5 4\"/>")?;
    }
    writeln!(
        out,
        "<rect class=\"box\" x=\"{left}\" y=\"1\" width=\"{STEP}\" height=\"{HEIGHT}\" rx=\"4\"/>"
    )?;
    let filled = (share.clamp(0.0, 1.0) * (STEP - 12) as f64).round();
    let bar = left + 6;
    writeln!(
        out,
        "<rect class=\"part\" x=\"{bar}\" y=\"{}\" width=\"{filled}\" height=\"8\"/>",
        HEIGHT - 12
    )?;
    writeln!(out, "<text class=\"n\" x=\"{bar}\" y=\"18\">{name}</text>")?;
    for (line, text) in lines.iter().enumerate() {
        writeln!(out, "<text class=\"s\" x=\"{bar}\" y=\"{}\">{text}</text>", 35 + 15 * line)?;
    }
    Ok(())
}

/// A number with its thousands apart.
struct Count(u64);

impl Display for Count {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                out.write_char(',')?;
            }
            out.write_char(digit)?;
        }
        Ok(())
    }
}

struct Percent(f64);

impl Display for Percent {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        write!(out, "{:.0} %", 100.0 * self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(rows: u64, nanoseconds: u64) -> State {
        let step = |name, part| StepState { name, rows, nanoseconds: nanoseconds * part };
        let steps = vec![step("decode", 3), step("order", 1)];
        State {
            workers: vec![WorkerState { worker: 4, steps, backlog_bytes: 1_234_567, in_flight: 2 }],
            ..State::default()
        }
    }

    #[test]
    fn rates_are_those_between_two_looks() {
        let (then, now) = (state(1_000, 1_000), state(21_000, 501_000_000));
        let page = Page { state: &now, before: Some((Duration::from_secs(4), &then)) }.to_string();
        for text in
            ["worker 4: busy 50 %", "5,000 rows/s", "75 % of its time", "1,235 kB on the way", "last 4 s"]
        {
            assert!(page.contains(text), "{text}: {page}");
        }
        let page = Page { state: &now, before: None }.to_string();
        assert!(page.contains("21,000 rows<"), "{page}");
    }

    #[test]
    fn a_job_that_begins_anew_is_told_from_its_beginning() {
        let (then, now) = (state(1_000, 1_000), state(8, 4));
        let page = Page { state: &now, before: Some((Duration::from_secs(4), &then)) }.to_string();
        assert!(page.contains("2 rows/s"), "{page}");
        let page = Page { state: &State::default(), before: None }.to_string();
        assert!(page.contains("No worker"), "{page}");
    }

    #[test]
    fn only_the_last_minute_is_remembered() {
        let (history, start, state) = (GraphHistory::default(), Instant::now(), Arc::new(State::default()));
        let ask = |seconds| Some(history.before(start + Duration::from_secs(seconds), &state)?.0.as_secs());
        assert_eq!(ask(0), None);
        assert_eq!(ask(5), Some(5));
        assert_eq!(ask(60), Some(60));
        assert_eq!(ask(61), Some(56));
        assert_eq!(ask(500), None);
    }
}
