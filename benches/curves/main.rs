//! What a tick costs against all that its cost may hang on: workers, processes, instruments, window length, model size.
//!
//! ```text
//! cargo bench --bench curves -- measure [--short] CURVE...
//! cargo bench --bench curves -- show FILE [FOLDER]
//! ```
//! `scripts/curves` runs all of it. `measure` makes its own input, runs the program itself, and prints one JSON object a
//! point; the points of a curve take turns, so that whatever else the machine does weighs on all of them, and medians
//! of the rounds count. `show` prints such lines as tables, and draws them into a folder.

use std::env;
use std::fs;
use std::path::Path;

mod input;
mod live;
mod model;
mod offline;
mod plot;
mod run;
mod show;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other benches use more of it")]
mod support;

fn main() {
    // Cargo adds one of its own.
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.split_first() {
        Some((word, rest)) if word == "measure" => {
            let effort = if rest.iter().any(|word| word == "--short") { run::SHORT } else { run::FULL };
            rest.iter().filter(|word| *word != "--short").for_each(|curve| measure(curve, effort));
        }
        Some((word, [file, folder @ ..])) if word == "show" => {
            let text = fs::read_to_string(file).expect("the file of the measurements can be read");
            show::show(&text, folder.first().map(Path::new));
        }
        _ => eprintln!("say `measure [--short] CURVE...` or `show FILE [FOLDER]`; see scripts/curves"),
    }
}

fn measure(curve: &str, effort: run::Effort) {
    match curve {
        "workers" => offline::workers(effort),
        "processes" => live::processes(effort),
        "instruments" => offline::instruments(effort),
        "memory" => offline::memory(effort),
        "length" => offline::length(effort),
        "window" => offline::window(effort),
        "model" => offline::model(effort),
        _ => panic!("there is no curve {curve}: see scripts/curves --help"),
    }
}
