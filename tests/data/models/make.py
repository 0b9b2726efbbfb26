#!/usr/bin/env python3
"""Trains a small XGBoost model on made-up ticks, and writes what XGBoost itself says of some rows.

    pip install xgboost numpy
    python3 make.py FOLDER [TREES [DEPTH [ROWS]]]

FOLDER gets model.json (XGBoost's own), model.yaml (ours, which names it), and rows.csv.zst: one row a line, the
features in the order of the model, nothing for a null, then the 32 bits of XGBoost's probability in hex. A third of
the rows have values that are thresholds of the model. The seed is fixed; the zstd command must be there.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import xgboost as xgb

# Name, typical size, and whether it has a sign.
FEATURES = [
    ("ret_std", 2e-5, False),
    ("return_1s", 3e-5, True),
    ("return_5s", 6e-5, True),
    ("return_30s", 2e-4, True),
    ("return_60s", 3e-4, True),
    ("order_book_imbalance", 0.5, True),
    ("spread_bps", 0.02, False),
    ("spread_z", 1.0, True),
    ("trade_intensity", 20.0, False),
    ("volatility_z", 1.0, True),
    ("ret_mean", 1e-7, True),
    ("n", 900.0, False),
]
NAMES = [name for name, _, _ in FEATURES]


def ticks(rng, count):
    """Rows that look like ticks, one value in twenty a null, and whether a spike followed."""
    columns = []
    for name, size, signed in FEATURES:
        column = size * np.exp(rng.normal(0, 1, count))
        if signed:
            column *= rng.choice([-1, 1], count)
        columns.append(np.floor(column) if name == "n" else column)
    rows = np.column_stack(columns)
    pull = (
        np.log(rows[:, 0] / 2e-5)
        + np.abs(rows[:, 2]) / 1e-4
        - rows[:, 5]
        + 0.3 * rows[:, 9]
        + rng.normal(0, 1, count)
    )
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows, (pull > 2.5).astype(int)


def thresholds(trees, feature):
    found = [
        tree["split_conditions"][at]
        for tree in trees
        for at, left in enumerate(tree["left_children"])
        if left != -1 and tree["split_indices"][at] == feature
    ]
    return np.array(found or [0.0], np.float32)


def main():
    folder = pathlib.Path(sys.argv[1])
    count, depth, size = [int(text) for text in sys.argv[2:]] + [24, 6, 3000][len(sys.argv) - 2 :]
    rng = np.random.default_rng(20260302)
    rows, spikes = ticks(rng, 40_000)
    data = xgb.DMatrix(rows, spikes, feature_names=NAMES)
    settings = {"objective": "binary:logistic", "max_depth": depth, "eta": 0.2, "seed": 1, "nthread": 1}
    booster = xgb.train(settings, data, count)

    folder.mkdir(parents=True, exist_ok=True)
    booster.save_model(folder / "model.json")
    trees = json.loads((folder / "model.json").read_text())["learner"]["gradient_booster"]["model"]["trees"]

    rows, _ = ticks(rng, size)
    # Text of ten digits is what the rows are, for XGBoost too: it rounds them to 32 bits.
    rows = np.vectorize(lambda value: float(f"{value:.10g}"))(rows)
    for feature in range(len(NAMES)):
        edge = rng.choice(thresholds(trees, feature), size).astype(float)
        rows[:, feature] = np.where((np.arange(size) % 3 == 0) & (rng.random(size) < 0.4), edge, rows[:, feature])
    given = booster.predict(xgb.DMatrix(rows, feature_names=NAMES))

    lines = []
    for row, probability in zip(rows, given):
        values = ["" if np.isnan(value) else repr(float(value)) for value in row]
        lines.append(",".join([*values, f"{probability.view(np.uint32):08x}"]) + "\n")
    subprocess.run(
        ["zstd", "-q", "-f", "-19", "-o", folder / "rows.csv.zst"], input="".join(lines).encode(), check=True
    )

    listed = "".join(f"  - {{name: {name}, null: missing}}\n" for name in NAMES)
    (folder / "model.yaml").write_text(
        f"# Made by ../make.py with XGBoost {xgb.__version__}.\n"
        f'name: spikes\nversion: "1"\nkind: trees\n'
        f"training: {{data: made up, trees: {count}, depth: {depth}}}\n"
        f"features:\n{listed}trees: model.json\ndecision_threshold: 0.5\nhorizon: 60s\n"
    )


main()
