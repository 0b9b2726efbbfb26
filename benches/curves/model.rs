//! Models of several sizes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::support::job::setting;

/// A model that a job can be told to use.
pub struct Model {
    pub series: &'static str,
    pub label: String,
    pub settings: Vec<(String, String)>,
}

/// All of them, the cheapest first; their files go to the folder.
pub fn all(folder: &Path) -> Vec<Model> {
    let baseline = Model {
        series: "baseline",
        label: "baseline".to_owned(),
        settings: vec![setting("MODEL__VARIANT", "baseline")],
    };
    let logistics = [5, 50].map(|terms| logistic(folder, terms));
    [baseline].into_iter().chain(logistics).collect()
}

fn logistic(folder: &Path, terms: usize) -> Model {
    let mut text = format!(
        "name: logistic-{terms}\nversion: \"1\"\nkind: logistic\ntraining: {{method: weights made up}}\nfeatures:\n"
    );
    for (feature, transform) in distinct_terms().take(terms) {
        let line = writeln!(text, "  - {{name: {feature}, transform: {transform}, weight: 1e-6, null: 1}}");
        line.expect("text has room");
    }
    text += "intercept: -2\ndecision_threshold: 0.5\nhorizon: 60s\n";
    let path = folder.join(format!("logistic-{terms}.yaml"));
    fs::write(&path, text).expect("there is room for a model");
    Model {
        series: "logistic",
        label: format!("{terms} terms"),
        settings: vec![setting("MODEL__ML", &path.display().to_string())],
    }
}

/// Features with transforms, the built-in model's features first. Prices alone have a logarithm at every tick.
fn distinct_terms() -> impl Iterator<Item = (&'static str, &'static str)> {
    const FEATURES: [&str; 16] = [
        "ret_std",
        "return_5s",
        "order_book_imbalance",
        "spread_z",
        "trade_intensity",
        "midprice",
        "price",
        "spread_abs",
        "spread_rel",
        "spread_bps",
        "n",
        "ret_mean",
        "volatility_z",
        "return_1s",
        "return_30s",
        "return_60s",
    ];
    let of_all = ["none", "abs", "square"];
    let of_all = of_all.into_iter().flat_map(|transform| FEATURES.map(|feature| (feature, transform)));
    of_all.chain([("midprice", "log"), ("price", "log")])
}
