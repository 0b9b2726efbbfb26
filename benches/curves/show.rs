//! Measurements as tables and drawings.

use std::cmp::Ordering::Equal;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::plot::{Axis, Line, Plot};

/// How a curve is drawn.
struct Drawing {
    curve: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    /// Whether points lie as far apart as their logarithms; else as their numbers.
    x_log: bool,
    y_log: bool,
    lines: &'static [Figure],
}

/// A figure of each point, in units of the axis.
struct Figure {
    field: &'static str,
    /// What it is called, where a series has several.
    name: &'static str,
    unit: f64,
    is_bound: bool,
}

const fn figure(field: &'static str, name: &'static str, unit: f64) -> Figure {
    Figure { field, name, unit, is_bound: false }
}

const fn bound(field: &'static str, unit: f64) -> Figure {
    Figure { field, name: "at most", unit, is_bound: true }
}

const MB: f64 = 1e6;

const DRAWINGS: [Drawing; 7] = [
    Drawing {
        curve: "workers",
        title: "Backtest of one file, by workers",
        x: "workers",
        y: "million ticks/s",
        x_log: false,
        y_log: false,
        lines: &[
            figure("ticks_per_second", "by the clock", 1e6),
            figure("ticks_per_cpu_second", "by processor time", 1e6),
        ],
    },
    Drawing {
        curve: "processes",
        title: "Kafka to Kafka, by processes and workers",
        x: "workers altogether",
        y: "thousand ticks/s",
        x_log: false,
        y_log: false,
        lines: &[figure("ticks_per_second", "", 1e3)],
    },
    Drawing {
        curve: "instruments",
        title: "Processor time of a tick, by instruments",
        x: "instruments (logarithmic)",
        y: "times that of 20 instruments",
        x_log: true,
        y_log: false,
        lines: &[figure("cpu_ratio", "", 1.0), bound("cpu_ratio_bound", 1.0)],
    },
    Drawing {
        curve: "memory",
        title: "Memory, by instruments",
        x: "instruments, all windows full (logarithmic)",
        y: "MB at the peak (logarithmic)",
        x_log: true,
        y_log: true,
        lines: &[figure("peak_rss_bytes", "", MB), bound("peak_rss_bound", MB)],
    },
    Drawing {
        curve: "length",
        title: "Memory, by length of the input",
        x: "ticks",
        y: "MB at the peak",
        x_log: false,
        y_log: false,
        lines: &[figure("peak_rss_bytes", "", MB), bound("peak_rss_bound", MB)],
    },
    Drawing {
        curve: "window",
        title: "Processor time of a tick, by length of its window",
        x: "features.window (logarithmic)",
        y: "µs a tick",
        x_log: true,
        y_log: false,
        lines: &[figure("cpu_ns_per_tick", "", 1e3)],
    },
    Drawing {
        curve: "model",
        title: "Processor time of a tick, by model",
        x: "model",
        y: "µs a tick",
        x_log: false,
        y_log: false,
        lines: &[figure("cpu_ns_per_tick", "", 1e3)],
    },
];

/// Prints a table of each curve, and draws it into the folder.
pub fn show(text: &str, folder: Option<&Path>) {
    let points: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for drawing in &DRAWINGS {
        let mut points: Vec<&Value> = points.iter().filter(|point| point["curve"] == drawing.curve).collect();
        points
            .sort_by(|one, other| by_series_and_x(one).partial_cmp(&by_series_and_x(other)).unwrap_or(Equal));
        if points.is_empty() {
            continue;
        }
        table(drawing, &points);
        if let Some(folder) = folder {
            fs::create_dir_all(folder).expect("the folder can be made");
            plot(drawing, &points).draw(&folder.join(format!("{}.svg", drawing.curve)));
        }
    }
}

fn by_series_and_x(point: &Value) -> (Option<&str>, Option<f64>) {
    (point["series"].as_str().filter(|_| point["curve"] != "model"), point["x"].as_f64())
}

fn table(drawing: &Drawing, points: &[&Value]) {
    let heads = [
        "series",
        drawing.x.trim_end_matches(" (logarithmic)"),
        "ticks/s (least to most)",
        "speedup",
        "CPU a tick",
        "of it the system's",
        "CPU ratio",
        "at most",
        "peak memory",
        "at most",
        "load",
    ];
    let rows: Vec<[String; 11]> = points.iter().map(|point| row(point)).collect();
    // A curve without bounds has no columns for them.
    let columns: Vec<usize> =
        (0..heads.len()).filter(|column| rows.iter().any(|row| !row[*column].is_empty())).collect();
    let line = |cells: Vec<&str>| println!("| {} |", cells.join(" | "));
    println!("\n{} ({}.svg)\n", drawing.title, drawing.curve);
    line(columns.iter().map(|column| heads[*column]).collect());
    println!("|{}", "---|".repeat(columns.len()));
    for row in &rows {
        line(columns.iter().map(|column| row[*column].as_str()).collect());
    }
}

fn row(point: &Value) -> [String; 11] {
    let number = |field: &str| point[field].as_f64();
    let shown = |field: &str, show: &dyn Fn(f64) -> String| number(field).map_or(String::new(), show);
    let text = |field: &str| point[field].as_str().unwrap_or_default().to_owned();
    let ratio = |ratio: f64| format!("{ratio:.2}");
    let microseconds = |ns: f64| format!("{:.2} µs", ns / 1e3);
    let megabytes = |bytes: f64| format!("{:.0} MB", bytes / MB);
    // Elsewhere processor time tells more, since all points have one worker.
    let is_of_more = point["curve"] == "workers" || point["curve"] == "processes";
    let is_of_memory = point["curve"] == "memory" || point["curve"] == "length";
    let rates = ["ticks_per_second", "ticks_per_second_min", "ticks_per_second_max"]
        .map(|field| shown(field, &|rate| grouped(rate as u64)));
    [
        text("series"),
        text("label"),
        format!("{} ({} to {})", rates[0], rates[1], rates[2]),
        if is_of_more { shown("speedup", &ratio) } else { String::new() },
        shown("cpu_ns_per_tick", &microseconds),
        shown("system_ns_per_tick", &microseconds),
        if is_of_memory { String::new() } else { shown("cpu_ratio", &ratio) },
        shown("cpu_ratio_bound", &ratio),
        shown("peak_rss_bytes", &megabytes),
        shown("peak_rss_bound", &megabytes),
        shown("load", &|load| format!("{load:.1}")),
    ]
}

/// A number with commas between its thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or("")).collect();
    groups.join(",")
}

fn plot(drawing: &Drawing, points: &[&Value]) -> Plot {
    let mut names: Vec<&str> = Vec::new();
    for point in points {
        let name = point["series"].as_str().unwrap_or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    // Models have a series each, and one line goes through all of them.
    let of_all = drawing.curve == "model";
    let mut lines = Vec::new();
    for name in if of_all { vec![""] } else { names.clone() } {
        for figure in drawing.lines {
            let of_series: Vec<(f64, f64)> = points
                .iter()
                .filter(|point| of_all || point["series"] == name)
                .filter_map(|point| Some((point["x"].as_f64()?, point[figure.field].as_f64()? / figure.unit)))
                .collect();
            let name = match (names.len(), figure.name) {
                (_, "") => name.to_owned(),
                (_, own) if figure.is_bound => own.to_owned(),
                (1, own) => own.to_owned(),
                (_, own) => format!("{name}, {own}"),
            };
            let is_new = !lines.iter().any(|line: &Line| line.is_bound && line.name == name);
            if !of_series.is_empty() && is_new {
                lines.push(Line { name, points: of_series, is_bound: figure.is_bound });
            }
        }
    }
    let label = |point: &&Value| {
        let (series, label) = (point["series"].as_str(), point["label"].as_str().unwrap_or_default());
        match series.filter(|series| of_all && *series != label) {
            Some(series) => format!("{series}, {label}"),
            None => label.to_owned(),
        }
    };
    let mut marks: Vec<(f64, String)> =
        points.iter().filter_map(|point| Some((point["x"].as_f64()?, label(point)))).collect();
    marks.sort_by(|one, other| one.0.total_cmp(&other.0));
    marks.dedup_by(|one, other| one.0 == other.0);
    Plot {
        title: drawing.title.to_owned(),
        x: Axis { name: drawing.x.to_owned(), is_log: drawing.x_log },
        y: Axis { name: drawing.y.to_owned(), is_log: drawing.y_log },
        marks,
        lines,
    }
}
