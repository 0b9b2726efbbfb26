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
    const FEATURES: [&str; 17] = [
        "ret_std",
        "return_5s",
        "order_book_imbalance",
        "spread_z",
        "trade_intensity",
        "midprice",
        "spread_abs",
        "spread_rel",
        "spread_bps",
        "n",
        "ret_mean",
        "volatility_z",
        "price",
        "return_1s",
        "return_30s",
        "return_60s",
        "volatility",
    ];
    let mut text = format!(
        "name: logistic-{terms}\nversion: \"1\"\nkind: logistic\ntraining: {{method: weights made up}}\nfeatures:\n"
    );
    for term in 0..terms {
        let feature = FEATURES[term % FEATURES.len()];
        let transform = ["none", "abs", "square"][term / FEATURES.len() % 3];
        let line = writeln!(text, "  - {{name: {feature}, transform: {transform}, weight: 1e-6, null: 0}}");
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
