//! Models of several sizes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::run::understands;
use crate::support::job::setting;
use foreshock_testkit::random::Random;

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
    let ensembles = [10, 100, 300].map(|count| ensemble(folder, count));
    let (known, unknown): (Vec<Model>, Vec<Model>) =
        ensembles.into_iter().partition(|model| understands(&model.settings));
    unknown.iter().for_each(|model| eprintln!("skipped, as this program takes none: {}", model.label));
    [baseline].into_iter().chain(logistics).chain(known).collect()
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

/// What trees ask for, and between which values nine in ten ticks of the usual input lie.
const SPLITS: [(&str, f64, f64); 10] = [
    ("ret_std", 0.0015, 0.0028),
    ("return_1s", -0.04, 0.04),
    ("return_5s", -0.06, 0.06),
    ("return_30s", -0.16, 0.16),
    ("order_book_imbalance", -0.8, 0.8),
    ("spread_bps", 0.03, 0.75),
    ("spread_z", -1.2, 2.5),
    ("trade_intensity", 47.0, 55.0),
    ("ret_mean", -7e-5, 7e-5),
    ("volatility_z", -0.4, 1.6),
];

/// Depth of the trees: each has as many splits on every way to a leaf.
const DEPTH: u32 = 6;

/// Trees as XGBoost writes them. Whoever walks them can't guess the way: thresholds are where the values are.
fn ensemble(folder: &Path, count: usize) -> Model {
    let mut text = format!(
        "name: trees-{count}\nversion: \"1\"\nkind: trees\ntrees: trees-{count}.json\ntraining: {{method: made up}}\nfeatures:\n"
    );
    for (feature, _, _) in SPLITS {
        writeln!(text, "  - {{name: {feature}, null: missing}}").expect("text has room");
    }
    text += "decision_threshold: 0.5\nhorizon: 60s\n";
    let mut random = Random::new(count as u64);
    let trees: Vec<Value> = (0..count).map(|number| tree(&mut random, number)).collect();
    let parameters = json!({ "base_score": "5E-1", "num_class": "0", "num_feature": SPLITS.len().to_string(), "num_target": "1" });
    let model = json!({
        "learner": {
            "feature_names": SPLITS.map(|(feature, _, _)| feature),
            "feature_types": SPLITS.map(|_| "float"),
            "gradient_booster": { "model": { "trees": trees }, "name": "gbtree" },
            "learner_model_param": parameters,
            "objective": { "name": "binary:logistic" },
        },
        "version": [3, 0, 0],
    });
    fs::write(folder.join(format!("trees-{count}.json")), model.to_string())
        .expect("there is room for a model");
    let path = folder.join(format!("trees-{count}.yaml"));
    fs::write(&path, text).expect("there is room for a model");
    Model {
        series: "trees",
        label: format!("{count} trees"),
        settings: vec![setting("MODEL__ML", &path.display().to_string())],
    }
}

/// A full tree, its nodes level by level.
fn tree(random: &mut Random, number: usize) -> Value {
    let splits = (1 << DEPTH) - 1;
    let nodes = 2 * splits + 1;
    let child = |at: usize, side: usize| if at < splits { (2 * at + side) as i64 } else { -1 };
    let (mut features, mut conditions) = (Vec::new(), Vec::new());
    for at in 0..nodes {
        // A number in thousandths from 0 to 1.
        let share = random.below(1_001) as f64 / 1_000.0;
        let feature = random.below(SPLITS.len());
        let (_, low, high) = SPLITS[feature];
        features.push(if at < splits { feature } else { 0 });
        conditions.push(if at < splits { low + share * (high - low) } else { 0.02 * (share - 0.5) });
    }
    json!({
        "categories": [], "categories_nodes": [], "categories_segments": [], "categories_sizes": [],
        "base_weights": vec![0.0; nodes],
        "default_left": (0..nodes).map(|_| random.below(2)).collect::<Vec<_>>(),
        "id": number,
        "left_children": (0..nodes).map(|at| child(at, 1)).collect::<Vec<_>>(),
        "right_children": (0..nodes).map(|at| child(at, 2)).collect::<Vec<_>>(),
        "parents": (0..nodes).map(|at| if at == 0 { 2_147_483_647 } else { (at - 1) / 2 }).collect::<Vec<_>>(),
        "split_conditions": conditions,
        "split_indices": features,
        "split_type": vec![0; nodes],
        "loss_changes": vec![0.0; nodes],
        "sum_hessian": vec![1.0; nodes],
        "tree_param": {
            "num_deleted": "0", "num_feature": SPLITS.len().to_string(), "num_nodes": nodes.to_string(),
            "size_leaf_vector": "1",
        },
    })
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
