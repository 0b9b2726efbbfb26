//! Curves of recorded ticks.

use serde_json::{Value, json};

use crate::input::{Input, Inputs, Shape};
use crate::model;
use crate::run::{Effort, Place, backtest, take_turns};
use crate::show::grouped;
use crate::support::job::setting;

/// Instruments where nothing else is said, and ticks a second of each: those of the reference workload.
const INSTRUMENTS: usize = 20;
const PER_SECOND: f64 = 50.0;

/// What an instrument may take beside its windows, each tick in its longest window, and the rest of the process.
const INSTRUMENT_BYTES: usize = 64 * 1024;
const TICK_BYTES: usize = 40;
const PROCESS_BYTES: usize = 60_000_000;

/// A run to measure.
struct Point {
    place: Place,
    input: Input,
    workers: usize,
    settings: Vec<(String, String)>,
}

fn measure(points: Vec<Point>, rounds: usize) {
    let (places, runs): (Vec<_>, Vec<_>) = points
        .into_iter()
        .map(|Point { place, input, workers, settings }| (place, (input, workers, settings)))
        .unzip();
    take_turns(&places, rounds, |at| {
        let (input, workers, settings) = &runs[at];
        backtest(&input.path, input.ticks, *workers, settings)
    });
}

fn place(curve: &'static str, series: &str, x: f64, label: impl ToString) -> Place {
    Place { curve, series: series.to_owned(), x, label: label.to_string(), base: 0, more: Value::Null }
}

/// The reference workload's shape.
fn usual(ticks: usize) -> Shape {
    Shape { ticks, instruments: INSTRUMENTS, per_second: PER_SECOND }
}

pub fn workers(effort: Effort) {
    let inputs = Inputs::new();
    let input = inputs.make(usual(effort.ticks));
    let point = |workers| Point {
        place: place("workers", "one file", workers as f64, workers),
        input: input.clone(),
        workers,
        settings: Vec::new(),
    };
    measure([1, 2, 4].map(point).into(), effort.rounds);
}

/// The same number of ticks of few instruments and of many: as fast together, so that more of them begin a new second;
/// and as fast each, so that each tick means the same work.
pub fn instruments(effort: Effort) {
    let inputs = Inputs::new();
    let mut points = Vec::new();
    for (series, each, together) in
        [("1,000 ticks/s together", None, 1_000.0), ("2 ticks/s each", Some(2.0), 0.0)]
    {
        let counts = [INSTRUMENTS, 1, 100, 1_000, 10_000];
        let base = points.len();
        for instruments in counts.into_iter().filter(|count| *count <= effort.instruments_max) {
            let per_second = each.unwrap_or(together / instruments as f64);
            // Twice as many as usual, or many instruments would have hardly begun.
            let input = inputs.make(Shape { ticks: 2 * effort.ticks, instruments, per_second });
            let bound = match instruments {
                1_000 => json!({ "cpu_ratio_bound": 1.5 }),
                10_000 => json!({ "cpu_ratio_bound": 2.0 }),
                _ => Value::Null,
            };
            let place = place("instruments", series, instruments as f64, grouped(instruments as u64));
            let place = Place { base, more: bound, ..place };
            points.push(Point { place, input, workers: 1, settings: Vec::new() });
        }
    }
    measure(points, effort.rounds);
}

/// Instruments whose windows are all full: 300 seconds of metrics and 60 s of ticks.
pub fn memory(effort: Effort) {
    const TICKS_EACH: usize = 600;
    let inputs = Inputs::new();
    let counts = [1, INSTRUMENTS, 100, 1_000, 10_000];
    let counts = counts.into_iter().filter(|count| *count <= effort.instruments_max);
    let points = counts.map(|instruments| {
        let input = inputs.make(Shape { ticks: TICKS_EACH * instruments, instruments, per_second: 1.0 });
        let bound = PROCESS_BYTES + instruments * INSTRUMENT_BYTES + input.window_ticks * TICK_BYTES;
        let more = json!({
            "instruments": instruments, "window_ticks": input.window_ticks, "peak_rss_bound": bound,
        });
        // One instrument's few ticks cost less than the start of the process.
        let place = Place {
            base: 1,
            more,
            ..place("memory", "full windows", instruments as f64, grouped(instruments as u64))
        };
        Point { place, input, workers: 1, settings: Vec::new() }
    });
    measure(points.collect(), effort.rounds.min(2));
}

pub fn length(effort: Effort) {
    let inputs = Inputs::new();
    let mut points = Vec::new();
    for workers in [1, 2] {
        let base = points.len();
        for times in [1, 2, 4] {
            let input = inputs.make(usual(times * effort.ticks));
            let bound = PROCESS_BYTES + INSTRUMENTS * INSTRUMENT_BYTES + input.window_ticks * TICK_BYTES;
            let series = if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") };
            let label = format!("{:.2} M", input.ticks as f64 / 1e6);
            let place = place("length", &series, input.ticks as f64, label);
            let place = Place { base, more: json!({ "peak_rss_bound": bound }), ..place };
            points.push(Point { place, input, workers, settings: Vec::new() });
        }
    }
    measure(points, effort.rounds.min(3));
}

/// Two hours of event time, so that the longest window is full for half of it.
pub fn window(effort: Effort) {
    const SPAN_S: f64 = 7_200.0;
    let inputs = Inputs::new();
    let per_second = effort.ticks as f64 / SPAN_S / INSTRUMENTS as f64;
    let input = inputs.make(Shape { per_second, ..usual(effort.ticks) });
    let point = |(seconds, label): (f64, &str)| {
        let more = json!({ "window_ticks_mean": (per_second * seconds).round() });
        Point {
            place: Place { more, ..place("window", "20 instruments", seconds, label) },
            input: input.clone(),
            workers: 1,
            settings: vec![setting("FEATURES__WINDOW", &format!("{seconds}s"))],
        }
    };
    let lengths = [(60.0, "60 s"), (300.0, "5 min"), (900.0, "15 min"), (3_600.0, "1 h")];
    measure(lengths.map(point).into(), effort.rounds);
}

pub fn model(effort: Effort) {
    let inputs = Inputs::new();
    let input = inputs.make(usual(effort.ticks));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let models = model::all(folder.path());
    let points = models.into_iter().enumerate().map(|(at, model)| Point {
        place: place("model", model.series, at as f64, model.label),
        input: input.clone(),
        workers: 1,
        settings: model.settings,
    });
    measure(points.collect(), effort.rounds);
}
